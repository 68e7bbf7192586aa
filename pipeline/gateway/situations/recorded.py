"""What the service's own log says of a situation: how much was lost, in each request that lost it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.gateway.situations.table import Loss

# Any: the record of a request is foreign here: a recording may be of another version.
Line = dict[str, Any]


class Recorded(Struct):
    """The lines of a recording that matter."""

    requests: list[Line]
    stalls: list[Line]


def read_recording(file: Path) -> Recorded:
    """Read the whole lines of a service's log."""
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].splitlines()
    lines: list[Line] = [msgspec.json.decode(line) for line in whole if line.startswith(b"{")]
    return Recorded(
        [line for line in lines if line.get("event") == "request"],
        [line for line in lines if line.get("event") == "stall"],
    )


def lost_ms(loss: Loss, recorded: Recorded) -> list[float]:
    """Return what was lost in each request that lost it, or in each stall, in ms."""
    if loss.kind == "stall":
        return [stall["ms"] for stall in recorded.stalls if stall["stage"] == loss.name]
    concerned = [one for one in recorded.requests if loss.deployment in (None, one["deployment"])]
    found = [ms for one in concerned if (ms := _lost_ms(loss, one)) is not None]
    return [max(found)] if found and loss.is_longest else found


def _lost_ms(loss: Loss, record: Line) -> float | None:
    match loss.kind:
        case "phase":
            began, _, ended = loss.name.partition("..")
            points: dict[str, float] = record["points_ms"]
            return points[ended] - points[began] if began in points and ended in points else None
        case "party":
            return float(record["party_ms"][loss.name])
        case _:
            stage: dict[str, float] | None = record["stages"].get(loss.name)
            return None if stage is None else stage[f"{loss.kind}_ms"]


def typical(values: Sequence[float]) -> str:
    """Return how a list of figures is shown: the median, and the greatest if there are several."""
    if not values:
        return "nothing"
    text = f"{median(values):.1f} ms"
    return text if len(values) == 1 else f"{text} (median of {len(values)}; at most {max(values):.1f})"
