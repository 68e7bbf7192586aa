"""An around that does nothing, for `bench_arounds`; a plugin that is put on the service's path, not installed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from stages.answer import Answer, Next
from stages.upstreams import UpstreamCall


class PassOn:
    """The around."""

    name = "pass_on"

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncGenerator[Answer]:
        """Ask the next one."""
        async with next(call) as answer:
            yield answer


pass_on = PassOn()
