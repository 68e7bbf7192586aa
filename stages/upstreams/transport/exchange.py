"""One request and its answer on the wire, whichever transport carries them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import httpx
import trio

_CLOSE_LIMIT_S = 2.0


class Exchange(Protocol):
    """An answer whose head is here."""

    @property
    def status(self) -> int:
        """The status of the response."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers in their order, the names in lower case."""
        ...

    async def receive(self, limit_s: float | None) -> bytes:
        """Give the next part of the body, all that one read of the socket had; ``b""`` when it is complete.

        Raises:
            httpx.ReadTimeout: if nothing comes for ``limit_s`` seconds; None is for ever.
            httpx.HTTPError: another one if the connection breaks or what comes is not HTTP.
        """
        ...

    def hurry(self, limit_s: float) -> None:
        """Let the wait that is under way, if one is, take ``limit_s`` more seconds at the most."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if all of the body was read, else close it; also in a task that is cancelled."""
        ...


class HttpxExchange:
    """An `Exchange` over a transport that speaks httpx's interface only.

    Args:
        response: as the transport gave it.
        timeouts: those in the extensions of the request, which the transport looks at before each read.
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

    def hurry(self, limit_s: float) -> None:
        """As in `Exchange`."""
        self._wait.deadline = trio.current_time() + limit_s

    async def aclose(self) -> None:
        """As in `Exchange`; how the connection ends concerns nobody, but it must end, and soon."""
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_LIMIT_S, shield=True), suppress(*FOREIGN_ERRORS):
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
"""All that a transport may raise; InvalidURL, StreamError and UnicodeEncodeError are no HTTPError of httpx's."""
