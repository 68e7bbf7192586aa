"""One request and its answer, over any transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol

import httpx
import trio

CLOSE_LIMIT_S = 2.0
"""How long httpx may take to close a response, even in a cancelled task."""

TransportPoint = Literal[
    "upstream_slot", "upstream_resolved", "upstream_connected", "upstream_secured", "upstream_sent"
]
Mark = Callable[[TransportPoint], object]
"""Called with the name of each time point of a request when it is reached; must not raise. The points are those of
`stages.upstreams.Mark`, without the head."""


def unmarked(point: str) -> None:
    """Note nothing: the `Mark` of a caller that does not measure."""


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

    @property
    def arrived_ns(self) -> int:
        """As in `stages.upstreams.UpstreamAnswer`."""
        ...

    @property
    def is_backing_off(self) -> bool:
        """As in `stages.upstreams.UpstreamAnswer`."""
        ...

    async def back_off(self) -> None:
        """As in `stages.upstreams.UpstreamAnswer`."""
        ...

    async def receive(self, limit_s: float | None) -> bytes:
        """Return the next part of the body, all that one read of the socket returned; ``b""`` when it is complete.

        Raises:
            httpx.ReadTimeout: if nothing arrives for ``limit_s`` seconds; None means no limit.
            httpx.HTTPError: a different subclass if the connection breaks or the data is not HTTP.
        """
        ...

    async def aclose(self, *, is_answered: bool = False) -> None:
        """As in `stages.upstreams.UpstreamAnswer`."""
        ...


class HttpxExchange:
    """An `Exchange` over a transport that has only httpx's interface. It knows nothing of arrivals and never backs off.

    Args:
        response: the transport's response.
        timeouts: the timeouts in the request's extensions, which the transport reads before each wait.
    """

    arrived_ns = 0
    is_backing_off = False

    def __init__(self, response: httpx.Response, timeouts: dict[str, float | None]) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)  # the contract of an asynchronous transport
        self.status = response.status_code
        self.headers = [(name.lower(), value) for name, value in response.headers.raw]
        self._stream = response.stream
        self._parts = aiter(response.stream)
        self._timeouts = timeouts

    async def back_off(self) -> None:
        """Do nothing: it never backs off."""

    async def receive(self, limit_s: float | None) -> bytes:
        """As in `Exchange`."""
        self._timeouts["read"] = limit_s
        return await anext(self._parts, b"")

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Return the connection to its pool if the end of the body has been read, or close it.

        ``is_answered`` changes nothing: httpcore cannot continue a read that was cancelled, nor read the rest of a body
        later. Errors while closing are ignored, and it ends within a time limit.
        """
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
