"""Keep-alive connections to upstreams: which are active, which are idle, and when a wait or an idle time expires."""

from __future__ import annotations

import math
import ssl
from collections import defaultdict, deque
from typing import Final

import httpx
import trio

from pipeline.kernel_time import StampedReader
from stages.upstreams.transport.connection import UpstreamConnection, Watchdog
from stages.upstreams.transport.dial import dial
from stages.upstreams.transport.exchange import Mark
from stages.upstreams.transport.lag import Lag
from stages.upstreams.transport.resolve import Resolver
from stages.upstreams.transport.tls import client_context

MAX_IDLE_CONNECTIONS: Final = 1000
"""Idle connections kept for each origin: about the number of calls that end within a second."""

Origin = tuple[str, str, int]
"""Scheme, host and port: requests to one origin may share connections."""


class Pool:
    """The connections of one transport; see `transport.HeadraceTransport` for the settings.

    Attributes:
        lag: how late the scheduler is.
        is_closed: whether `close` was called.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None,
        max_connections: int | None,
        max_idle: int,
        idle_expiry_s: float,
        recv_buffer_bytes: int | None,
        resolver: Resolver | None = None,
    ) -> None:
        self._ssl_context = ssl_context
        self._slots = None if max_connections is None else trio.Semaphore(max_connections)
        self._max_idle = max_idle
        self._idle_expiry_s = idle_expiry_s
        self._recv_buffer_bytes = recv_buffer_bytes
        self._resolver = resolver or Resolver()
        self._stamped = StampedReader()
        # The connection that was used last is used next, so that those left over from a burst expire at the other end.
        self._idle: defaultdict[Origin, deque[UpstreamConnection]] = defaultdict(deque)
        self._active: set[UpstreamConnection] = set()
        self._watchdog = Watchdog(self._active, self._close_expired)
        self.lag = Lag(self._active)
        self.is_closed = False

    @property
    def active_connections(self) -> int:
        """How many connections carry an exchange now."""
        return len(self._active)

    @property
    def idle_connections(self) -> int:
        """How many connections wait for a request."""
        return sum(len(kept) for kept in self._idle.values())

    async def take_slot(self, limit_s: float | None) -> None:
        """Wait until another exchange may start. A caller that holds a slot must call `keep` or `discard`.

        Raises:
            httpx.PoolTimeout: if it takes longer than ``limit_s``.
            RuntimeError: if the pool is closed.
        """
        if self.is_closed:
            raise RuntimeError("the transport is closed")
        if self._slots is None:
            return
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(math.inf if limit_s is None else limit_s) as scope:
                await self._slots.acquire()
            if scope.cancelled_caught:
                raise httpx.PoolTimeout("all connections to the upstream are busy") from None

    def reuse(
        self, origin: Origin, method: str, data: bytes | bytearray
    ) -> tuple[UpstreamConnection, memoryview] | None:
        """Start sending ``data`` over a kept connection that is still usable, if there is one.

        Returns the connection and the unsent bytes.
        """
        kept = self._idle[origin]
        while kept:
            connection = kept.pop()
            if connection.is_reusable():
                try:
                    unsent = connection.begin(method, data)
                except httpx.WriteError:
                    pass  # closed since then. Nothing was sent, so another connection may be tried
                else:
                    self._activate(connection)
                    return connection, unsent
            connection.close()
        return None

    async def open(
        self, origin: Origin, method: str, data: bytes | bytearray, connect_limit_s: float | None, mark: Mark
    ) -> tuple[UpstreamConnection, memoryview]:
        """Open a connection, and start sending ``data`` over it; return the connection and the unsent bytes.

        Raises:
            httpx.ConnectError: if no connection can be made.
            httpx.ConnectTimeout: if that takes too long.
            httpx.WriteError: if the connection does not accept the request.
        """
        scheme, host, port = origin
        if scheme == "https" and self._ssl_context is None:
            self._ssl_context = client_context()
        sock, tls = await dial(
            host,
            port,
            resolver=self._resolver,
            ssl_context=self._ssl_context if scheme == "https" else None,
            recv_buffer_bytes=self._recv_buffer_bytes,
            limit_s=connect_limit_s,
            mark=mark,
        )
        connection = UpstreamConnection(sock, self._stamped, tls)
        try:
            unsent = connection.begin(method, data)
        except BaseException:
            connection.close()
            raise
        self._activate(connection)
        return connection, unsent

    def _activate(self, connection: UpstreamConnection) -> None:
        self._active.add(connection)
        self.lag.watch()

    def limit_wait(self, connection: UpstreamConnection, limit_s: float | None) -> None:
        """Limit the next wait on ``connection`` to ``limit_s`` seconds; None means no limit."""
        if limit_s is not None:
            connection.expires_at = moment = trio.current_time() + limit_s
            if moment < self._watchdog.next_check:
                self._watchdog.check_at(moment)

    def drop(self, connection: UpstreamConnection) -> None:
        """Close the connection of an exchange that goes on over another one, and so keeps its slot."""
        connection.close()
        self._active.discard(connection)

    def discard(self, connection: UpstreamConnection | None) -> None:
        """End an incomplete exchange, and close its connection if it has one."""
        if connection is not None:
            self.drop(connection)
        if self._slots is not None:
            self._slots.release()

    def keep(self, origin: Origin, connection: UpstreamConnection) -> None:
        """End an exchange whose connection may carry another, when the rest of its response has arrived."""
        kept = self._idle[origin]
        if self.is_closed or len(kept) >= self._max_idle:
            self.discard(connection)
            return
        self._active.discard(connection)
        if self._slots is not None:
            self._slots.release()
        connection.reader.drop_body()
        connection.idle_since = trio.current_time()
        kept.append(connection)
        self._watchdog.check_at(connection.idle_since + self._idle_expiry_s)

    def close(self) -> None:
        """Close all connections, including those in use; their tasks get `httpx.ReadError`."""
        self.is_closed = True
        self._watchdog.stop()
        self.lag.stop()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
        for connection in self._active:
            connection.close()

    def _close_expired(self, now: float) -> float:
        """Close the connections that were idle for too long, and return when the next one will be."""
        following = math.inf
        for kept in self._idle.values():
            while kept and kept[0].idle_since + self._idle_expiry_s <= now:
                kept.popleft().close()
            if kept:
                following = min(following, kept[0].idle_since + self._idle_expiry_s)
        return following
