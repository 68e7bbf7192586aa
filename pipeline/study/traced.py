"""The spans of a request that was traced per batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from pipeline.study.records import RecordedTrace

WORK: Final = 0
"""The kind of a span that is a stage's work."""
STATE_KINDS: Final = {1: "starved", 2: "ready", 3: "busy", 4: "outside", 5: "blocked", 6: "closing"}
WAIT_KINDS: Final = {10: "ready", 11: "queued"}


class BatchSpan(NamedTuple):
    """One span.

    Attributes:
        kind: `WORK`, or a key of `STATE_KINDS` or `WAIT_KINDS`.
        name: of the stage, lane or link.
        start_us, duration_us: since the request's birth.
        batch: the number of its batch; 0 if it has none.
        lane: the name of the lane, for work and states.
        track: the index of that lane, or of the link; names may come again, in another attempt.
    """

    kind: int
    name: str
    start_us: float
    duration_us: float
    batch: int
    lane: str
    track: int


def spans_of(trace: RecordedTrace) -> Iterator[BatchSpan]:
    """Yield the spans of a trace; those that refer to what it does not name are left out."""
    for kind, index, start_us, duration_us, batch in trace.spans:
        names = trace.stages if kind == WORK else trace.links if kind in WAIT_KINDS else trace.lanes
        if not 0 <= index < len(names) or duration_us < 0:
            continue
        lane, track = names[index], index
        if kind == WORK:
            track = trace.lane_of_stage[index] if index < len(trace.lane_of_stage) else 0
            lane = trace.lanes[track] if 0 <= track < len(trace.lanes) else lane
        yield BatchSpan(kind, names[index], start_us, duration_us, batch, lane, track)


def first_token_work_ms(trace: RecordedTrace, first_token_ms: float) -> dict[str, float]:
    """Return for how long each stage worked before the client had the first token."""
    until_us = first_token_ms * 1000
    work_ms: dict[str, float] = {}
    for span in spans_of(trace):
        if span.kind == WORK and span.start_us < until_us:
            ms = min(span.duration_us, until_us - span.start_us) / 1000
            work_ms[span.name] = work_ms.get(span.name, 0.0) + ms
    return work_ms
