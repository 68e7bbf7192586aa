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


class _Counting:
    """Counts tokens, and says at which of them time is lost."""

    def __init__(self, options: ChaosOptions) -> None:
        self._every = options.every
        self._tokens = 0
        self.lost_ns = int(options.ms * 1_000_000)

    def is_hit(self, event: StreamEvent) -> bool:
        if not isinstance(event, TextDelta | ReasoningDelta):
            return False
        self._tokens += 1
        return self._tokens % self._every == 0


class BusyChaos(_Counting):
    """Computes nothing, for as long as it is told."""

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the batch, late."""
        for event in batch:
            if self.is_hit(event):
                until_ns = perf_counter_ns() + self.lost_ns
                while perf_counter_ns() < until_ns:
                    ...
        return batch

    def flush(self) -> list[StreamEvent]:
        """Return nothing: nothing is held."""
        return []


class WaitingChaos(_Counting):
    """Waits, as for a service or a disk, for as long as it is told."""

    async def feed(self, batch: list[StreamEvent], lane: Lane, /) -> list[StreamEvent]:
        """Return the batch, late."""
        hits = sum(self.is_hit(event) for event in batch)
        if hits:
            with lane.outside():
                await trio.sleep(hits * self.lost_ns / 1e9)
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
