"""What is true of the record of every request, whatever happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

ROUNDED_MS = 0.001
"""By how much a figure in JSON may be too small."""


def assert_sums(record: Mapping[str, Any]) -> None:
    """Check that the parties and the phases of a request sum to its total, and the states of each lane to its life.

    In JSON they do so only up to rounding: each figure may have lost a microsecond.
    """
    total_ms, parties_ms = record["total_ms"], record["party_ms"]
    assert sum(parties_ms.values()) == pytest.approx(total_ms, abs=len(parties_ms) * ROUNDED_MS)
    assert all(ms >= 0 for ms in parties_ms.values()), parties_ms
    points_ms = list(record["points_ms"].values())
    assert points_ms[-1] == total_ms
    assert all(0 <= earlier <= later for earlier, later in pairwise(points_ms)), record["points_ms"]
    for name, lane in record["lanes"].items():
        states_ms = [ms for state, ms in lane.items() if state not in ("stages", "life_ms")]
        assert sum(states_ms) == pytest.approx(lane["life_ms"], abs=len(states_ms) * ROUNDED_MS), (name, lane)
        assert lane["life_ms"] <= total_ms + ROUNDED_MS
    for state in ("busy_ms", "outside_ms"):
        of_lanes = sum(lane[state] for lane in record["lanes"].values())
        of_stages = [stage[state] for stage in record["stages"].values()]
        rounded_ms = (len(of_stages) + len(record["lanes"])) * ROUNDED_MS
        assert sum(of_stages) == pytest.approx(of_lanes, abs=rounded_ms), state
