"""A transport with httpx's API on trio sockets and llhttp, which returns one batch of bytes for each read of a socket.

httpx's own transport returns one HTTP chunk at a time and takes about 140 us for each; most upstreams send each event
as a chunk. Here a read returns everything that the socket had, so a stream that arrives faster than it is processed is
read in larger and larger pieces (20-40 times the events a second on bursts). Proxies and HTTP/2 use httpx's transport.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Mapping

import httpx
import trio

from stages.upstreams.transport.connection import UpstreamConnection
from stages.upstreams.transport.defaults import IDLE_EXPIRY_S
from stages.upstreams.transport.exchange import Mark, unmarked
from stages.upstreams.transport.http1 import request_bytes
from stages.upstreams.transport.lag import GATHER_BYTES
from stages.upstreams.transport.pool import MAX_IDLE_CONNECTIONS, Origin, Pool
from stages.upstreams.transport.resolve import Resolver

RECV_BUFFER_BYTES = 256 * 1024
"""The kernel's buffer for a stalled stream (the kernel doubles the value, and uses half for its own bookkeeping).

Without this limit, tcp_rmem lets the buffer grow to 6-32 MiB per stream before the upstream notices that the client has
stopped reading. 256 KiB in flight at a round-trip time of 100 ms still carry 2.5 MB/s, about 10 000 events a second.
"""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class HeadraceTransport(httpx.AsyncBaseTransport):
    """A pool of keep-alive HTTP/1.1 connections.

    A cancelled, failed or half-read exchange closes its connection at once. A connection returns to the pool when its
    response has been read completely, or when `HeadraceExchange.aclose` is told that only the end of it is missing. It
    is checked before it is used again: one that the upstream has closed meanwhile is dropped, and so is one whose last
    response is still not complete (ADR 0016). Redirects are not followed.

    A request is sent once more, over a new connection, if a kept one is closed or reset before a byte of the response
    has arrived: an upstream may close an idle connection while a request is on its way to it. The limits below then
    begin anew. Nothing else is retried.

    ``request.extensions["timeout"]`` is httpx's, in seconds; None means no limit. ``connect`` limits resolving,
    connecting and TLS together; ``write`` the sending of the request; ``read`` the time from the request's last byte
    to the end of the response's head, and then each read of the body; ``pool`` the wait for ``max_connections``.
    The mapping is read before each wait, so a caller may change it while the response arrives.

    When the process is overloaded, a stream whose last read returned little backs off before the next: see
    `stages.upstreams.transport.lag`. The back-off does not count towards a ``read`` timeout. Callers of `exchange` do
    that themselves, with `HeadraceExchange.back_off`.

    Args:
        ssl_context: for https; the default trusts the system's authorities, and is made at first use.
        max_connections: how many exchanges may run at the same time; None means no limit.
        max_idle: how many idle connections are kept for each origin.
        idle_expiry_s: how long an idle connection is kept. Servers close theirs after 5 s (uvicorn) to minutes, which
            is noticed here, unless a request crosses the close on its way.
        recv_buffer_bytes: SO_RCVBUF of the sockets; None means the kernel's default.
        resolver: looks up names; by default one of its own.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        max_connections: int | None = None,
        max_idle: int = MAX_IDLE_CONNECTIONS,
        idle_expiry_s: float = IDLE_EXPIRY_S,
        recv_buffer_bytes: int | None = RECV_BUFFER_BYTES,
        resolver: Resolver | None = None,
    ) -> None:
        self._pool = Pool(
            ssl_context=ssl_context,
            max_connections=max_connections,
            max_idle=max_idle,
            idle_expiry_s=idle_expiry_s,
            recv_buffer_bytes=recv_buffer_bytes,
            resolver=resolver,
        )

    @property
    def active_connections(self) -> int:
        """How many connections carry an exchange now."""
        return self._pool.active_connections

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a request."""
        return self._pool.idle_connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response as soon as its head has arrived.

        Raises:
            httpx.UnsupportedProtocol: if the URL is not http or https.
            httpx.LocalProtocolError: if the request cannot be written as HTTP/1.1.
            httpx.HTTPError, RuntimeError: as `exchange` does.
        """
        origin = origin_of(request.url)
        data = request_bytes(request, await request.aread())
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout") or {}
        exchange = await self.exchange(origin, request.method, data, timeouts)
        return httpx.Response(
            exchange.status,
            headers=exchange.headers,
            stream=_ExchangeStream(exchange, timeouts),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def exchange(
        self,
        origin: Origin,
        method: str,
        data: bytes | bytearray,
        timeouts: Mapping[str, float | None],
        mark: Mark = unmarked,
    ) -> HeadraceExchange:
        """Send a request that is already encoded, and return the answer as soon as its head has arrived.

        This is `handle_async_request` without httpx's objects, which cost more than everything else in a request (ADR
        0014). A kept connection is marked by ``upstream_slot`` and ``upstream_sent`` only.

        Raises:
            httpx.PoolTimeout: if ``max_connections`` are busy for too long.
            httpx.ConnectError: if no connection can be made.
            httpx.ConnectTimeout: if that takes too long.
            httpx.WriteError: if the upstream closes the connection before the request could be sent.
            httpx.WriteTimeout: if the upstream does not accept the request in time.
            httpx.ReadError: if the connection breaks.
            httpx.ReadTimeout: if the response's head does not arrive in time.
            httpx.RemoteProtocolError: if the response is not HTTP/1.1, or ends too early.
            RuntimeError: if the transport is closed.
        """
        pool = self._pool
        await pool.take_slot(timeouts.get("pool"))
        mark("upstream_slot")
        connection: UpstreamConnection | None = None
        try:
            kept = pool.reuse(origin, method, data)
            if kept is not None:
                connection, unsent = kept
                try:
                    return await self._answer(origin, connection, unsent, timeouts, mark)
                except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                    if pool.is_closed or not _is_stale(connection, error):
                        raise
                pool.drop(connection)
            connection, unsent = await pool.open(origin, method, data, timeouts.get("connect"), mark)
            return await self._answer(origin, connection, unsent, timeouts, mark)
        except BaseException:
            pool.discard(connection)
            raise

    async def _answer(
        self,
        origin: Origin,
        connection: UpstreamConnection,
        unsent: memoryview,
        timeouts: Mapping[str, float | None],
        mark: Mark,
    ) -> HeadraceExchange:
        """Send the rest of a request, and return the answer when its head has arrived."""
        is_all_sent = not unsent or await connection.finish_sending(unsent, timeouts.get("write"))
        if is_all_sent:
            mark("upstream_sent")
        reader = connection.reader
        if not reader.has_head:
            self._pool.limit_wait(connection, timeouts.get("read"))
            while not reader.has_head:
                await connection.receive()
            connection.expires_at = math.inf
        return HeadraceExchange(self._pool, origin, connection, is_all_sent=is_all_sent)

    async def aclose(self) -> None:
        """Close all connections, including those in use; their tasks get `httpx.ReadError`. Never waits."""
        self._pool.close()


def _is_stale(connection: UpstreamConnection, error: httpx.TransportError) -> bool:
    """Return whether ``error`` is that the peer closed the connection before it answered."""
    return not connection.reader.has_begun and not isinstance(error.__cause__, ssl.SSLError)


class HeadraceExchange:
    """The answer to one request. Its connection returns to the pool if the answer was read completely, or is closed.

    The interface is `stages.upstreams.transport.exchange.Exchange`.
    """

    __slots__ = (
        "_connection",
        "_is_all_sent",
        "_not_before",
        "_origin",
        "_pool",
        "arrived_ns",
        "headers",
        "is_backing_off",
        "status",
    )

    def __init__(self, pool: Pool, origin: Origin, connection: UpstreamConnection, *, is_all_sent: bool) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: UpstreamConnection | None = connection
        self._is_all_sent = is_all_sent
        self._not_before = -math.inf
        self.arrived_ns = connection.arrived_ns
        self.is_backing_off = False
        self.status = connection.reader.status
        self.headers = connection.reader.headers

    async def back_off(self) -> None:
        """As in `stages.upstreams.UpstreamAnswer`."""
        connection, lag = self._connection, self._pool.lag
        if connection is None or connection.reader.is_done or not lag.backoff_s:
            return
        if trio.current_time() < self._not_before:
            await lag.back_off_until(self._not_before)

    async def receive(self, limit_s: float | None) -> bytes:
        """Return the next part of the body, all that one read of the socket returned; ``b""`` when it is complete.

        A cancelled read loses nothing: the connection stays open until `aclose`.

        Raises:
            httpx.ReadTimeout: if nothing arrives for ``limit_s``.
            httpx.ReadError: if the connection broke.
            httpx.RemoteProtocolError: if it ended too early, or the data is not HTTP/1.1.
        """
        connection = self._connection
        if connection is None:
            return b""
        pool, reader = self._pool, connection.reader
        try:
            while not (chunk := reader.take()):
                if reader.is_done:
                    self._end(is_good=True)
                    return b""
                pool.limit_wait(connection, limit_s)
                await connection.wait_readable()
                connection.read()
                connection.expires_at = math.inf
        except trio.Cancelled:
            connection.expires_at = math.inf
            raise
        except (OSError, trio.ClosedResourceError) as error:
            self._end(is_good=False)
            raise connection.failure(error) from error
        except BaseException:
            self._end(is_good=False)
            raise
        self.arrived_ns = connection.arrived_ns
        if (backoff_s := pool.lag.backoff_s) and len(chunk) < GATHER_BYTES:
            self._not_before = trio.current_time() + backoff_s
            self.is_backing_off = True
        else:
            self.is_backing_off = False
        return chunk

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Close the connection immediately, unless the whole body has arrived. Never waits.

        With ``is_answered`` the connection returns to the pool even if the end of the body has not arrived: the pool
        reads it before it uses the connection again.
        """
        self._end(is_good=is_answered or (self._connection is not None and self._connection.reader.is_done))

    def _end(self, *, is_good: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if is_good and self._is_all_sent and connection.reader.is_reusable:
            self._pool.keep(self._origin, connection)
        else:
            self._pool.discard(connection)


class _ExchangeStream(httpx.AsyncByteStream):
    """An exchange as a stream for httpx."""

    def __init__(self, exchange: HeadraceExchange, timeouts: Mapping[str, float | None]) -> None:
        self._exchange = exchange
        self._timeouts = timeouts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._exchange.is_backing_off:
            await self._exchange.back_off()
        chunk = await self._exchange.receive(self._timeouts.get("read"))
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._exchange.aclose()


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of ``url``; requests with the same origin share connections.

    Raises:
        httpx.UnsupportedProtocol: if ``url`` is not http or https, or names no host.
    """
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise httpx.UnsupportedProtocol("the upstream's URL must start with http:// or https:// and name a host")
    return url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme]
