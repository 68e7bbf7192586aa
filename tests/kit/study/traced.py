"""A request that was traced per batch, made up: each batch is read, decoded, waits in a link, and is written."""

from __future__ import annotations

from typing import Any

from kit.study.made import Line, request_line

LANES = ["call_upstream", "decode_events"]
STAGES = ["call_upstream", "decode_events", "encode_chunks", "write_sse"]
LINK = "call_upstream>decode_events"
STARVED, READY, BUSY, OUTSIDE = 1, 2, 3, 4
WAITED = 10


def traced_line(request_id: str = "t-1", batches: int = 20, **figures: Any) -> Line:
    """Return the line of such a request; every 5 ms a batch arrives, and takes 1 ms."""
    spans: list[list[float]] = []
    for number in range(1, batches + 1):
        at_us = 50_000.0 + 5_000 * number
        spans += [
            [OUTSIDE, 0, at_us - 4_800, 4_800, 0],
            [BUSY, 0, at_us, 200, number],
            [0, 0, at_us, 200, number],
            [WAITED, 0, at_us + 200, 100.5, number],
            [READY, 1, at_us + 200, 100.5, number],
            [BUSY, 1, at_us + 300.5, 700.25, number],
            [0, 1, at_us + 300.5, 300.25, number],
            [0, 2, at_us + 600.75, 300, number],
            [0, 3, at_us + 900.75, 100, number],
        ]
    trace = {"lanes": LANES, "stages": STAGES, "lane_of_stage": [0, 1, 1, 1], "links": [LINK], "born_ns": 0}
    return request_line(request_id, **{"trace": {**trace, "spans": spans, "lost": 0}, **figures})
