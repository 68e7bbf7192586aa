"""A stage that holds the loop, for `bench_records`; a plugin that is put on the service's path, not installed.

Takes and gives StreamEvent, 1:1. In a request whose id starts with ``burn-`` it computes for 100 ms before it passes on
a batch with text.
"""

from __future__ import annotations

import time

from pipeline import RequestContext, codec_stage
from stages.events import StreamEvent, TextDelta

BURN_NS = 100_000_000


class Burn:
    """The codec of one request."""

    def __init__(self, ctx: RequestContext) -> None:
        self._is_burning = ctx.request_id.startswith("burn-")

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        if self._is_burning and any(isinstance(event, TextDelta) for event in batch):
            until_ns = time.perf_counter_ns() + BURN_NS
            while time.perf_counter_ns() < until_ns:
                continue
        return batch

    def flush(self) -> list[StreamEvent]:
        return []


burn = codec_stage("burn", Burn, accepts=StreamEvent, emits=StreamEvent)
