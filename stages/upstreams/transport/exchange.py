"""One request and its answer, over any transport."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import httpx
import trio

CLOSE_LIMIT_S = 2.0
"""How long httpx may take to close a response, even in a cancelled task."""


class Exchange(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers in their order, with names in lower case."""
        ...

    async def receive(self, limit_s: float | None) -> bytes:
        """Return the next part of the body, all that one read of the socket returned; ``b""`` when it is complete.

        Raises:
            httpx.ReadTimeout: if nothing arrives for ``limit_s`` seconds; None means no limit.
            httpx.HTTPError: a different subclass if the connection breaks or the data is not HTTP.
        """
        ...

    def expedite(self, limit_s: float) -> None:
        """Limit the current wait, if there is one, to ``limit_s`` more seconds."""
        ...

    async def aclose(self) -> None:
        """Return the connection to its pool if the whole body was read, or close it. Works even in a cancelled task."""
        ...


class HttpxExchange:
    """An `Exchange` over a transport that has only httpx's interface.

    Args:
        response: the transport's response.
        timeouts: the timeouts in the request's extensions, which the transport reads before each wait.
    """

    def __init__(self, response: httpx.Response, timeouts: dict[str, float | None]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # the contract of an asynchronous transport
        self.status = response.status_code
        self.headers = [(name.lower(), value) for name, value in response.headers.raw]
        self._stream = response.stream
        self._parts = aiter(response.stream)
        self._timeouts = timeouts
        self._wait = trio.CancelScope()

    async def receive(self, limit_s: float | None) -> bytes:
        """As in `Exchange`."""
        self._timeouts["read"] = limit_s
        self._wait = trio.CancelScope()
        with self._wait:
            return await anext(self._parts, b"")
        raise httpx.ReadTimeout("the body did not end in time")

    def expedite(self, limit_s: float) -> None:
        """As in `Exchange`."""
        self._wait.deadline = trio.current_time() + limit_s

    async def aclose(self) -> None:
        """As in `Exchange`; errors while closing are ignored, and it ends within a time limit."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_LIMIT_S, shield=True), suppress(*FOREIGN_ERRORS):
            await self._stream.aclose()


FOREIGN_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    UnicodeError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
"""Everything that a transport may raise. InvalidURL, StreamError and UnicodeError are not subclasses of HTTPError."""
