"""Stages that lose time on purpose, for experiments: ``chaos_busy`` computes, ``chaos_wait`` waits.

They come with headrace and are in no pipeline unless the configuration names them:
``{use: chaos_busy, when: {models: [gpt-5]}, options: {ms: 8}}``. What they lose is exact, so that figures can be
compared with it; what a client does after faults is studied with docs/examples/chaos.

Takes and gives: StreamEvent, 1:1, unchanged.
Holds: the number of tokens so far. Waits: ``chaos_wait`` for its own pauses (declared), ``chaos_busy`` never: while it
computes, no other request of the process goes on.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Annotated, Final

import trio
from msgspec import Meta, Struct

from pipeline import Lane, Plugin, RequestContext, Stage, codec_stage
from pipeline.registry import AnyPlugin
from stages.events import ReasoningDelta, StreamEvent, TextDelta


class ChaosOptions(Struct, frozen=True):
    """How much time is lost, and where.

    Attributes:
        ms: for how long, each time.
        every: at every so many tokens: pieces of text or of reasoning, as the upstream has cut them.
    """

    ms: Annotated[float, Meta(ge=0, le=60_000)]
    every: Annotated[int, Meta(ge=1)] = 1


class _Losing:
    """Counts tokens, and the time that is to be lost with them.

    A busy machine makes each loss longer, by a millisecond or more. The next is shorter by as much, so that their sum
    is what was configured.
    """

    def __init__(self, options: ChaosOptions) -> None:
        self._options = options
        self._tokens = 0
        self.owed_ns = 0

    def owe(self, batch: list[StreamEvent]) -> bool:
        """Add what these events cost; return whether time is to be lost now."""
        owed_ns = self.owed_ns
        for event in batch:
            if isinstance(event, TextDelta | ReasoningDelta):
                self._tokens += 1
                if self._tokens % self._options.every == 0:
                    self.owed_ns += int(self._options.ms * 1_000_000)
        return self.owed_ns > max(0, owed_ns)


class BusyChaos(_Losing):
    """Computes nothing, for as long as it is told."""

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the batch, late."""
        if self.owe(batch):
            began_ns = now_ns = perf_counter_ns()
            while now_ns < began_ns + self.owed_ns:
                now_ns = perf_counter_ns()
            self.owed_ns -= now_ns - began_ns
        return batch

    def flush(self) -> list[StreamEvent]:
        """Return nothing: nothing is held."""
        return []


class WaitingChaos(_Losing):
    """Waits, as for a service or a disk, for as long as it is told."""

    async def feed(self, batch: list[StreamEvent], lane: Lane, /) -> list[StreamEvent]:
        """Return the batch, late."""
        if self.owe(batch):
            began_s = trio.current_time()
            with lane.outside():
                await trio.sleep(self.owed_ns / 1e9)
            self.owed_ns -= round((trio.current_time() - began_s) * 1e9)
        return batch

    async def flush(self, lane: Lane, /) -> list[StreamEvent]:
        """Return nothing: nothing is held."""
        return []


def make_chaos_busy(options: ChaosOptions) -> Stage[StreamEvent, StreamEvent]:
    """Compute for some milliseconds at every n-th token: a slow stage, or one that blocks the loop."""

    def busy(ctx: RequestContext) -> BusyChaos:
        return BusyChaos(options)

    return codec_stage("chaos_busy", busy)


def make_chaos_wait(options: ChaosOptions) -> Stage[StreamEvent, StreamEvent]:
    """Wait for some milliseconds at every n-th token: a stage that asks a slow service."""

    def waiting(ctx: RequestContext) -> WaitingChaos:
        return WaitingChaos(options)

    return codec_stage("chaos_wait", waiting)


CHAOS: Final[tuple[AnyPlugin, ...]] = (
    Plugin("chaos_busy", make_chaos_busy, ChaosOptions, accepts=StreamEvent, emits=StreamEvent),
    Plugin("chaos_wait", make_chaos_wait, ChaosOptions, accepts=StreamEvent, emits=StreamEvent),
)
