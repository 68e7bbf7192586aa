"""Samples keep the order of the recording, even if they are a random choice of it."""

from __future__ import annotations

import pytest

from pipeline.study import figures
from pipeline.study.figures import Sample


@pytest.mark.parametrize("count", [50, 100, 1000])
def test_what_is_kept_can_be_read_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_VALUES", 100)
    sample = Sample()
    for number in range(count):
        sample.add(float(number))
    kept = list(sample.in_order)
    assert len(kept) == min(count, 100)
    assert kept == sorted(set(kept))
    assert sample.sorted_values == kept
    assert kept[-1] > 0.8 * count
