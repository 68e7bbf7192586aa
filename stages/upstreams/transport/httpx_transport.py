"""httpx's own transport, for proxies and HTTP/2, with our deadlines and without its leaks on cancellation.

httpcore 1.0.9 keeps a connection forever if it is cancelled between connecting and taking the lock after it, and leaves
the socket of a cancelled TLS handshake to the garbage collector. Both were found by cancelling a request at each of its
scheduler steps, and the tests repeat that. This module uses private attributes of httpx and httpcore (``_pool``,
``_network_backend``) and the text of an exception; pyproject.toml pins their minor versions, and the tests show whether
it still works.
"""

# pyright: reportPrivateUsage=false
# Neither leak can be fixed through a public interface.

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Literal

import httpcore
import httpx
import trio
from httpcore._backends.trio import TrioBackend, TrioStream

from stages.upstreams.transport.defaults import IDLE_EXPIRY_S
from stages.upstreams.transport.dial import connect_to
from stages.upstreams.transport.exchange import CLOSE_LIMIT_S, Mark, unmarked
from stages.upstreams.transport.resolve import Resolver

MAX_IDLE = 20
"""httpx's default. Several times per request, httpcore examines every connection for every idle one: with 32 idle ones
a request takes three times as long as with 10 (2.6 and 0.9 ms)."""

_Timeouts = Mapping[str, float | None]
_Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]  # Any: values of httpcore's


class HttpxTransport(httpx.AsyncHTTPTransport):
    """`httpx.AsyncHTTPTransport` with the deadlines of `stages.upstreams.transport.transport.HeadraceTransport`.

    That is: ``connect`` limits connecting and TLS together, ``read`` the whole head and then each read of the body, and
    the ``timeout`` in the request's extensions may be changed while the response arrives. The environment is ignored:
    a proxy is used only if it is given.

    As `HeadraceTransport` does, it sends a request once more if a kept connection is closed or reset before a byte of
    the response has arrived. Over HTTP/2 that is so if no frame has arrived since the request began; what follows a
    GOAWAY is httpcore's: a request that the upstream says it has not seen goes over another connection, and any other
    fails. A request that joins a connection which another one is just opening counts as one over a kept connection.

    Time points are noted by the `Mark` in the request's extension ``mark``. httpcore does not report when a name is
    resolved.

    Args:
        ssl_context: for https.
        http2: whether HTTP/2 is offered; requires the ``h2`` package.
        proxy: the proxy's URL, ``http://[user:password@]host:port``; None means no proxy.
        max_connections, max_idle, idle_expiry_s, recv_buffer_bytes, resolver: as in `HeadraceTransport`, but at most
            `MAX_IDLE` connections are kept idle.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        http2: bool = False,
        proxy: str | None = None,
        max_connections: int | None = None,
        max_idle: int = MAX_IDLE,
        idle_expiry_s: float = IDLE_EXPIRY_S,
        recv_buffer_bytes: int | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        super().__init__(
            verify=ssl_context,
            trust_env=False,
            http2=http2,
            proxy=proxy,
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=min(max_idle, MAX_IDLE),
                keepalive_expiry=idle_expiry_s,
            ),
        )
        self._pool._network_backend = _ClosingBackend(resolver or Resolver(), recv_buffer_bytes)
        self._is_closed = False

    @property
    def active_connections(self) -> int:
        """How many connections carry an exchange now."""
        return sum(1 for c in self._pool.connections if not (c.is_idle() or c.is_closed()))

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a request."""
        return sum(1 for c in self._pool.connections if c.is_idle())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As in `HeadraceTransport`."""
        body = await request.aread()
        clock = _HeadClock(request)
        try:
            return await self._send(request, body, clock)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
            if self._is_closed or not clock.is_stale(error):
                raise
        await self._close_idle(request.url)
        return await self._send(request, body, _HeadClock(request))

    async def aclose(self) -> None:
        """Close all connections, including those in use."""
        self._is_closed = True
        await super().aclose()

    async def _send(self, request: httpx.Request, body: bytes, clock: _HeadClock) -> httpx.Response:
        timeouts = clock.timeouts
        with clock.scope:
            own = {"timeout": {"pool": timeouts.get("pool")}, "trace": clock.trace}
            inner = httpx.Request(
                request.method,
                request.url,
                headers=request.headers,
                stream=_WholeBody(body),
                extensions={**request.extensions, **own},
            )
            token = _READING.set(clock)
            try:
                response = await super().handle_async_request(inner)
            except BaseException:
                await self._sweep()
                raise
            finally:
                _READING.reset(token)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _TimedBody(response.stream, timeouts)
            return response
        raise clock.failure()

    async def _sweep(self) -> None:
        """Close the connections that no longer belong to a request; see the module's docstring."""
        await self._close(lambda connection: not connection.is_idle() and not connection.is_closed())

    async def _close_idle(self, url: httpx.URL) -> None:
        """Close the idle connections to the origin of ``url``, which may all be as stale as one that failed."""
        origin = httpcore.URL(str(url)).origin
        await self._close(lambda connection: connection.is_idle() and connection.can_handle_request(origin))

    async def _close(self, is_meant: Callable[[httpcore.AsyncConnectionInterface], bool]) -> None:
        """Close the connections that ``is_meant`` is true for, and that no request has taken."""
        pool = self._pool
        taken = {id(entry.connection) for entry in pool._requests}
        closing = [
            connection for connection in pool._connections if id(connection) not in taken and is_meant(connection)
        ]
        for connection in closing:
            pool._connections.remove(connection)
        if closing:
            closing += pool._assign_requests_to_connections()  # one may have waited for the place of what we remove
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_LIMIT_S, shield=True):
                for connection in closing:
                    await connection.aclose()


class _HeadClock:
    """Limits each step up to the response's head, and marks it; httpcore's trace reports the steps.

    Attributes:
        timeouts: those of the request.
        scope: in which the request is sent.
        has_received: whether the request's task has read any bytes of the connection.
    """

    def __init__(self, request: httpx.Request) -> None:
        extensions = request.extensions
        self.timeouts: _Timeouts = extensions.get("timeout") or {}
        self.scope = trio.CancelScope()
        self.has_received = False
        self._mark: Mark = extensions.get("mark", unmarked)
        self._callers_trace: _Trace | None = extensions.get("trace")
        self._has_slot = False
        self._has_connected = False
        self._step: Literal["connect", "write", "read"] | None = None
        self._is_to_proxy = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:  # values of httpcore's
        step = event.partition(".")[2]
        if not self._has_slot:  # the pool itself reports nothing
            self._has_slot = True
            self._mark("upstream_slot")
        if step == "connect_tcp.started":
            self._has_connected = True
            self._enter("connect")
        elif step == "connect_tcp.complete":
            self._mark("upstream_connected")
        elif step == "start_tls.complete":
            self._mark("upstream_secured")
        elif step == "send_request_headers.started":
            # CONNECT to a proxy is part of connecting; TLS with the upstream follows.
            self._is_to_proxy = info["request"].method == b"CONNECT"
            if not self._is_to_proxy:
                self._enter("write")
        elif step == "send_request_body.complete" and not self._is_to_proxy:
            self._mark("upstream_sent")
            self._enter("read")
        if self._callers_trace is not None:
            await self._callers_trace(event, info)

    def _enter(self, step: Literal["connect", "write", "read"]) -> None:
        self._step = step
        limit_s = self.timeouts.get(step)
        self.scope.deadline = math.inf if limit_s is None else trio.current_time() + limit_s

    def is_stale(self, error: httpx.TransportError) -> bool:
        """Return whether ``error`` is that the peer closed a kept connection before it answered."""
        if self._has_connected or self.has_received:
            return False
        # Any other RemoteProtocolError is a frame of HTTP/2 about this request, which another request's task has read.
        return not isinstance(error, httpx.RemoteProtocolError) or str(error).startswith(_DISCONNECTED)

    def failure(self) -> httpx.TimeoutException:
        match self._step:
            case "write":
                return httpx.WriteTimeout("the upstream did not accept the whole request in time")
            case "read":
                return httpx.ReadTimeout("the upstream was silent for too long")
            case _:
                return httpx.ConnectTimeout("could not connect in time")


_DISCONNECTED: Final = "Server disconnected"
"""How httpcore's messages begin if the peer has closed the connection."""

# httpcore's streams do not know for which request they read.
_READING: Final[ContextVar[_HeadClock]] = ContextVar("the request for which this task reads a head")


class _WholeBody(httpx.AsyncByteStream):
    """A request's body. `httpx.ByteStream` is a generator, and trio warns if a cancelled call leaves one unfinished."""

    def __init__(self, body: bytes) -> None:
        self._left = [body]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _TimedBody(httpx.AsyncByteStream):
    """A body whose reads are each limited by the current value in the request's extensions."""

    def __init__(self, inner: httpx.AsyncByteStream, timeouts: _Timeouts) -> None:
        self._inner = inner
        self._timeouts = timeouts
        self._parts = aiter(inner)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        limit_s = self._timeouts.get("read")
        with trio.CancelScope(deadline=math.inf if limit_s is None else trio.current_time() + limit_s):
            return await anext(self._parts)
        raise httpx.ReadTimeout("the upstream was silent for too long")

    async def aclose(self) -> None:
        # httpcore's body consists of nested generators. One that is left unfinished is continued by the garbage
        # collector, and trio warns about it. A cancelled read ends them all, and closes the connection.
        with trio.CancelScope() as scope:
            scope.cancel()
            with suppress(httpx.HTTPError, httpx.StreamError):
                async for _ in self._parts:
                    pass  # data that had been read already
        await self._inner.aclose()


class _ClosingStream(TrioStream):
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await super().read(max_bytes, timeout)
        if data and (clock := _READING.get(None)) is not None:
            clock.has_received = True
        return data

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            secured = await super().start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        assert isinstance(secured, TrioStream)
        return _ClosingStream(secured._stream)


class _ClosingBackend(TrioBackend):
    """Connects as `HeadraceTransport` does."""

    def __init__(self, resolver: Resolver, recv_buffer_bytes: int | None) -> None:
        self._resolver = resolver
        self._recv_buffer_bytes = recv_buffer_bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        # The other arguments are not used: `_HeadClock` limits the time, and there are no further options.
        try:
            sock = await connect_to(host, port, self._resolver, self._recv_buffer_bytes)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"cannot connect to {host}:{port}") from error
        return _ClosingStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
