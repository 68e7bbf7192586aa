"""A deployment's address and headers: everything that is the same in all of its requests, prepared once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import httpx

from pipeline import PipelineError
from stages.upstreams import Deployment, Headers
from stages.upstreams.faults import fault_of_exception
from stages.upstreams.transport.exchange import FOREIGN_ERRORS, Exchange, HttpxExchange, Mark
from stages.upstreams.transport.http1 import request_head
from stages.upstreams.transport.transport import HeadraceTransport, origin_of
from stages.wire.api import NO_HEADERS

_NOT_OVERRIDDEN = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding"})
_PIECE_BYTES = 256 * 1024
_ACCEPT = {True: b"text/event-stream", False: b"application/json"}


@cache
def user_agent() -> str:
    """Return the ``user-agent`` that upstreams see."""
    try:
        return f"headrace/{version('headrace')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "headrace"


class _Pieces(httpx.AsyncByteStream):
    """A large body in pieces: httpx copies and encrypts each in one step."""

    def __init__(self, body: bytearray) -> None:
        self._body = body
        self._at = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._at = 0
        return self

    async def __anext__(self) -> bytes:
        start = self._at
        self._at += _PIECE_BYTES
        if start >= len(self._body):
            raise StopAsyncIteration
        return bytes(self._body[start : self._at])


class Endpoint:
    """One deployment's address and headers.

    A request carries the deployment's own headers and: ``host``, ``user-agent``, ``content-type``, ``accept``,
    ``accept-encoding: identity``. The deployment's take precedence, except over the framing and the encoding. If the
    upstream is the client's own (`Deployment.is_transparent`), the client's take precedence over both.

    Attributes:
        secrets: what must not appear in any message.

    Raises:
        UpstreamFault: ``upstream_unreachable`` if the address or a header cannot be sent at all.
    """

    def __init__(self, deployment: Deployment, agent: str) -> None:
        self.secrets = deployment.secrets
        limits = deployment.timeouts
        # The configuration has no limit for sending; it gets that of the wait which follows.
        self._timeouts: dict[str, float | None] = {
            "connect": limits.connect_s,
            "pool": limits.connect_s,
            "write": limits.headers_s,
            "read": limits.headers_s,
        }
        fault: PipelineError | None = None
        try:
            self._url = httpx.URL(deployment.url)
            self._origin = origin_of(self._url)
            own = {
                name.lower().encode("ascii"): value.encode("latin-1")
                for name, value in deployment.headers
                if name.lower() not in _NOT_OVERRIDDEN
            }
            fixed = {
                b"host": self._url.netloc,
                b"user-agent": agent.encode("ascii"),
                b"content-type": b"application/json",
                b"accept-encoding": b"identity",
            }
            self._headers = {stream: {**fixed, b"accept": accept, **own} for stream, accept in _ACCEPT.items()}
            self._heads: dict[tuple[bool, tuple[tuple[str, str], ...]], bytes] = {
                (stream, ()): self._head(headers) for stream, headers in self._headers.items()
            }
        except FOREIGN_ERRORS as error:
            fault = fault_of_exception(error, f"the upstream of deployment {deployment.id}", "head", {})
        if fault is not None:  # outside the handler: inside, it would carry the foreign exception as its context
            try:
                raise fault
            finally:
                del fault  # else its traceback holds this frame, which holds it: garbage that only the collector frees

    async def post(
        self,
        transport: httpx.AsyncBaseTransport,
        body: bytes | bytearray,
        mark: Mark,
        *,
        stream: bool,
        more: Mapping[str, str] = NO_HEADERS,
        once: Sequence[tuple[bytes, bytes]] = (),
        client: Headers = (),
    ) -> Exchange:
        """Send ``body`` and return the answer when its head has arrived.

        Args:
            transport: what sends it.
            body: the request's body; a bytearray gets the head in front, as a copy of a large one would hold the loop.
            mark: notes the time points.
            stream: whether a stream is asked for.
            more: headers that this body needs, values from a small set; see `stages.wire.api.Api.headers_of`.
            once: headers of this one request, with valid values; those that the deployment has too are left out.
            client: the client's own headers, if they are passed on; then what stands in ``once`` is among them.

        Raises:
            httpx.HTTPError: as the transport does; see `HeadraceTransport.exchange`.
        """
        if isinstance(transport, HeadraceTransport):
            if client:  # a head with a client's key is not kept
                head = b"%b%d\r\n\r\n" % (self._head(self._joined(stream, more, client)), len(body))
            else:
                key = (stream, tuple(more.items()))
                known = self._heads.get(key)
                if known is None:
                    known = self._heads[key] = self._head(self._joined(stream, more))
                lines = b"".join(b"%b: %b\r\n" % header for header in self._not_own(once, stream)) if once else b""
                head = b"%b%d\r\n%b\r\n" % (known, len(body), lines)
            data: bytes | bytearray
            if isinstance(body, bytearray):
                body[:0] = head
                data = body
            else:
                data = head + body
            return await transport.exchange(self._origin, "POST", data, self._timeouts, mark)
        timeouts = self._timeouts.copy()
        request = httpx.Request(
            "POST",
            self._url,
            headers=[
                *self._joined(stream, more, client).items(),
                *(() if client else self._not_own(once, stream)),
                (b"content-length", b"%d" % len(body)),
            ],
            stream=_Pieces(body) if isinstance(body, bytearray) else httpx.ByteStream(body),
            extensions={"timeout": timeouts, "mark": mark},
        )
        return HttpxExchange(await transport.handle_async_request(request), timeouts)

    def _head(self, headers: Mapping[bytes, bytes]) -> bytes:
        return request_head("POST", self._url.raw_path, [*headers.items()]) + b"content-length: "

    def _not_own(self, once: Iterable[tuple[bytes, bytes]], stream: bool) -> list[tuple[bytes, bytes]]:
        return [header for header in once if header[0] not in self._headers[stream]]

    def _joined(self, stream: bool, more: Mapping[str, str], client: Headers = ()) -> Mapping[bytes, bytes]:
        """Return all headers; one that is there without ``more`` becomes a list of both (RFC 9110 section 5.3)."""
        headers = {**self._headers[stream], **dict(client)} if client else self._headers[stream]
        if not more:
            return headers
        headers = headers.copy()
        for name, value in more.items():
            own = headers.get(name.encode("ascii"), b"").decode("latin-1")
            values = [*own.split(","), *value.split(",")]
            unique = dict.fromkeys(text for value in values if (text := value.strip()))
            headers[name.encode("ascii")] = ",".join(unique).encode("latin-1")
        return headers
