"""Arounds that are functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from stages.answer import Answer, Next
from stages.upstreams import UpstreamCall


class FunctionAround:
    """An around that is a function."""

    def __init__(self, call: Callable[[UpstreamCall, Next], AsyncIterator[Answer]], name: str = "around") -> None:
        self._call = asynccontextmanager(call)
        self.name = name

    def call(self, call: UpstreamCall, next: Next, /) -> AbstractAsyncContextManager[Answer]:
        return self._call(call, next)


async def pass_on(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    """Do nothing: a `FunctionAround`."""
    async with next(call) as answer:
        yield answer
