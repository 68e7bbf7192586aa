"""Pace what the model says: so many characters per second for each key, over all of its requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import trio
from msgspec import Meta, Struct

from pipeline import Host, Inlet, Outlet, Plugin, RequestContext
from stages.events import StreamEvent
from stages.slots import PRINCIPAL
from stages.text_runs import pieces, text_of


class Options(Struct, frozen=True):
    """After a pause ``burst`` characters are sent at once. Of ``max_keys`` keys it is known what they have had."""

    characters_per_s: Annotated[int, Meta(ge=1)] = 400
    burst: Annotated[int, Meta(ge=0)] = 400
    max_keys: Annotated[int, Meta(ge=1)] = 1000


class Smooth:
    """Takes and gives StreamEvent, 1:n, in order. Holds: a batch. Waits: for the pace of the key (declared)."""

    name = "smooth"

    def __init__(self, options: Options, host: Host) -> None:
        self._options = options
        self._full_at: dict[str, float] = {}  # when the bucket of each key is full again; the last used key is last
        self._waited = host.counter("waited_seconds_total", "how long output has waited for its pace")

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        """Send the events of each batch, and cut those that would come too much at once."""
        async for batch in inlet:
            for event in pieces(batch, max(1, self._options.characters_per_s // 20)):
                if (wait_s := self._reserve(ctx[PRINCIPAL].name, len(text_of(event)))) > 0:
                    self._waited.inc(wait_s, key=ctx[PRINCIPAL].name)
                    with outlet.outside():
                        await trio.sleep(wait_s)
                await outlet.send([event])

    def _reserve(self, key: str, size: int) -> float:
        """Take characters out of the bucket of ``key``; return after how many seconds they may be sent."""
        now, rate = trio.current_time(), self._options.characters_per_s
        full_at = self._full_at[key] = max(self._full_at.pop(key, now), now) + size / rate
        if len(self._full_at) > self._options.max_keys:
            del self._full_at[next(iter(self._full_at))]
        return full_at - now - self._options.burst / rate if size else 0


@asynccontextmanager
async def serve(options: Options, host: Host) -> AsyncIterator[Smooth]:
    """Pace what the model says: so many characters per second for each key, over all of its requests."""
    yield Smooth(options, host)


plugin = Plugin("smooth", serve=serve, options=Options, accepts=StreamEvent, emits=StreamEvent)
