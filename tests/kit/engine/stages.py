"""Stages and codecs that do what a test tells them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio

from pipeline import Inlet, Outlet, RequestContext, codec_stage
from pipeline.line import CodecStage

Body = Callable[[Inlet[Any], Outlet[Any], RequestContext], Coroutine[Any, Any, None]]


class Acting:
    """A stage whose ``run`` is a function that the test supplies."""

    def __init__(self, body: Body, name: str = "") -> None:
        self.name = name or body.__name__
        self._body = body

    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await self._body(inlet, outlet, ctx)


class Script:
    """Plays its script for each batch that it takes: it sends strings at once, and numbers are waits in seconds."""

    name = "script"

    def __init__(self, *script: str | float) -> None:
        self.script = script

    async def run(self, inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for _ in inlet:
            for item in self.script:
                if isinstance(item, str):
                    await outlet.send([item])
                else:
                    with outlet.outside():
                        await trio.sleep(item)


class Machine:
    """A codec of two functions."""

    def __init__(self, feed: Callable[[list[Any]], list[Any]], flush: Callable[[], list[Any]]) -> None:
        self._feed = feed
        self._flush = flush

    def feed(self, batch: list[Any], /) -> list[Any]:
        return self._feed(batch)

    def flush(self) -> list[Any]:
        return self._flush()


def pass_on(batch: list[Any]) -> list[Any]:
    return batch


def machine(
    name: str, feed: Callable[[list[Any]], list[Any]] = pass_on, flush: Callable[[], list[Any]] = list
) -> CodecStage[Any, Any]:
    """Return a stage whose codecs are these two functions."""
    return codec_stage(name, lambda ctx: Machine(feed, flush), codec=Machine)
