"""An added stage with a lifetime, which notes for whom it works and whether it is open then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from simulator.configurations import WITNESS

from pipeline import Host, Plugin, RequestContext, Stage, codec_stage
from pipeline.registry import AnyPlugin, NoOptions
from stages.events import StreamEvent


class Witness:
    """The plugin of one configuration.

    Args:
        opens_s: how long it takes to open.
        fails: whether that fails.
        on_event: called with the id of a request when the stage works for it.

    Attributes:
        is_open: whether it is open now.
        openings: how often it was opened.
    """

    def __init__(self, opens_s: float, *, fails: bool, on_event: Callable[[str], object]) -> None:
        self._opens_s = opens_s
        self._fails = fails
        self._on_event = on_event
        self.is_open = False
        self.openings = 0

    @property
    def plugins(self) -> dict[str, AnyPlugin]:
        """What is installed."""
        return {WITNESS: Plugin(WITNESS, serve=self._serve, accepts=StreamEvent, emits=StreamEvent)}

    @asynccontextmanager
    async def _serve(self, options: NoOptions, host: Host) -> AsyncIterator[Stage[StreamEvent, StreamEvent]]:
        if self._opens_s:
            await trio.sleep(self._opens_s)
        if self._fails:
            raise OSError("the simulated disk is full")
        self.is_open = True
        self.openings += 1
        try:
            yield codec_stage(WITNESS, lambda ctx: _Watching(ctx, self._on_event), codec=_Watching)
        finally:
            self.is_open = False


class _Watching:
    def __init__(self, ctx: RequestContext, on_event: Callable[[str], Any]) -> None:
        self._id = ctx.request_id
        self._on_event = on_event

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        self._on_event(self._id)
        return batch

    def flush(self) -> list[StreamEvent]:
        return []
