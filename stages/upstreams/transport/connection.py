"""One HTTP/1.1 connection to an upstream: a socket, perhaps TLS on it, and a reader; one exchange at a time.

**How a wait ends in time without a cancel scope for each.** A stream waits once for each event, and a scope with a
deadline costs 5-8 us (``benchmarks``), as much as the read itself. Here a wait only writes down when it will have
lasted too long (`Connection.expires_at`); one `Watchdog` for all connections wakes when the earliest of these moments
has come, looks which of them still stand, and closes the sockets of those. Closing wakes the waiting task. On a busy
stream the moment moves on with every read, so that the watchdog wakes about once in the length of a limit.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Collection

import httpx
import trio

from stages.upstreams.transport.http1 import ResponseReader
from stages.upstreams.transport.tls import TlsSession

READ_BYTES = 64 * 1024
"""The most that one read takes, and so the size of the largest batch."""

WATCHDOG_GRAIN_S = 0.02
"""A watchdog looks at most this often: with thousands of streams, deadlines of one moment are handled together."""


class UpstreamConnection:
    """A connected socket that speaks HTTP/1.1; closed at once, without waiting, and for good by `close`.

    Attributes:
        reader: what has been read of the response.
        expires_at: when the wait that is under way will have lasted too long, on trio's clock.
        idle_since: when the last exchange ended, on trio's clock.
    """

    __slots__ = (
        "_has_more",
        "_is_expired",
        "_sock",
        "_tls",
        "expires_at",
        "idle_since",
        "is_closed",
        "reader",
    )

    def __init__(self, sock: socket.socket, tls: TlsSession | None = None) -> None:
        self._sock = sock
        self._tls = tls
        self._has_more = False
        self._is_expired = False
        self.reader = ResponseReader()
        self.expires_at = math.inf
        self.idle_since = 0.0
        self.is_closed = False

    def close(self) -> None:
        """Close the socket now. A task that waits for it is woken. Closing twice is harmless."""
        if not self.is_closed:
            self.is_closed = True
            self.expires_at = math.inf
            self.reader.close()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def expire(self) -> None:
        """End the wait that is under way: it has lasted too long."""
        self._is_expired = True
        self.close()

    def is_dead(self) -> bool:
        """Tell whether the connection, which is idle, was closed or spoken on by the far side."""
        if self.is_closed:
            return True
        try:
            if self._tls is None:
                self._sock.recv(1, socket.MSG_PEEK)
                return True  # the end, or bytes that nobody asked for
            # A TLS session may say something of its own (a session ticket) on an idle connection.
            received = self._sock.recv(READ_BYTES)
            return self._tls.decrypt(received) != b"" or self._tls.is_ended
        except BlockingIOError:
            return False
        except OSError:
            return True

    def begin(self, method: str, data: bytes) -> memoryview:
        """Start an exchange: write what the socket takes at once, and return the rest.

        Raises:
            httpx.WriteError: if the connection is broken; then nothing has been sent.
        """
        self.reader.begin(method)
        rest = memoryview(data)
        try:
            if self._tls is not None:
                rest = memoryview(self._tls.encrypt(data))
            return rest[self._sock.send(rest) :]
        except BlockingIOError:
            return rest
        except OSError as error:  # ssl.SSLError is one
            raise httpx.WriteError("the connection was closed before the request could be sent") from error

    async def finish_sending(self, rest: memoryview, limit_s: float | None) -> bool:
        """Write ``rest``, listening meanwhile: an upstream may answer (413, 401) before it has read a long body.

        Ends when all is sent, when the response's head is there, or when the far side takes no more; what it has
        said is then in `reader`. Gives whether all was sent: if not, the connection cannot carry another request.

        Raises:
            httpx.WriteTimeout: if it takes longer than ``limit_s``.
            httpx.ReadError: if the far side resets the connection.
            httpx.RemoteProtocolError: if the far side closes it, or answers with what is not HTTP/1.1.
        """
        failure: httpx.TransportError | None = None

        async def listen() -> None:
            nonlocal failure
            try:
                while not self.reader.has_head:
                    await self.receive()
            except httpx.TransportError as error:
                failure = error
            nursery.cancel_scope.cancel()

        deadline = math.inf if limit_s is None else trio.current_time() + limit_s
        with trio.CancelScope(deadline=deadline) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                try:
                    while rest:
                        await trio.lowlevel.wait_writable(self._sock)
                        try:
                            rest = rest[self._sock.send(rest) :]
                        except BlockingIOError:
                            continue
                except (OSError, trio.ClosedResourceError):
                    pass  # it reads no more, but it may have said why
                nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise httpx.WriteTimeout("the upstream did not take the whole request in time")
        if failure is not None:
            raise failure
        return not rest

    async def receive(self) -> None:
        """Wait for bytes, read all that one read gives, and feed `reader`. A checkpoint.

        Raises:
            httpx.ReadTimeout: if `expires_at` passed.
            httpx.ReadError: if the connection broke.
            httpx.RemoteProtocolError: if it ended too early or what came is not HTTP/1.1.
        """
        if self.is_closed:  # since the last read; a closed socket cannot be waited for
            raise httpx.ReadError("the connection was closed")
        while True:
            try:
                if self._has_more:  # the last read was full: do not ask the kernel whether there is more
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._sock)
                data = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                self._has_more = False
                continue
            except (OSError, trio.ClosedResourceError) as error:
                if self._is_expired:
                    raise httpx.ReadTimeout("the upstream was silent for too long") from None
                raise httpx.ReadError("the connection broke") from error
            self._has_more = len(data) == READ_BYTES
            if self._tls is None:
                if data:
                    self.reader.feed(data)
                else:
                    self.reader.feed_eof()
                return
            if self._feed_decrypted(data, self._tls):
                return

    def _feed_decrypted(self, data: bytes, tls: TlsSession) -> bool:
        """Feed `reader` what ``data`` holds, and say whether that was anything: TLS has things of its own to say."""
        try:
            data = tls.decrypt(data)
        except ssl.SSLError as error:
            raise httpx.ReadError("the TLS session was broken") from error
        if data:
            self.reader.feed(data)
        if tls.is_ended:
            self.reader.feed_eof()
        return bool(data) or tls.is_ended


class Watchdog:
    """Ends the waits of many connections in time, with one task that sleeps nearly always.

    Args:
        connections: those that an exchange is under way on; a live view, nothing is held.
        housekeep: called at each look with the time; returns when it wants to be called again at the latest.
    """

    def __init__(self, connections: Collection[UpstreamConnection], housekeep: Callable[[float], float]) -> None:
        self._connections = connections
        self._housekeep = housekeep
        self._sleep: trio.CancelScope | None = None
        self._next_look = -math.inf
        self._is_stopped = False

    def look_at(self, moment: float) -> None:
        """See to it that a look is taken at ``moment``, on trio's clock, or a little (`WATCHDOG_GRAIN_S`) later."""
        if self._sleep is None:
            # Not a child of whoever waits first: the task belongs to the transport, and lives until `stop`.
            self._sleep = trio.CancelScope(deadline=moment)
            self._next_look = moment
            trio.lowlevel.spawn_system_task(self._run, name="upstream deadlines")
        elif moment < self._next_look:
            self._next_look = self._sleep.deadline = moment

    def stop(self) -> None:
        """End the task."""
        self._is_stopped = True
        if self._sleep is not None:
            self._sleep.cancel()

    async def _run(self) -> None:
        while self._sleep is not None:
            with self._sleep:
                await trio.sleep_forever()
            if self._is_stopped:
                return
            now = trio.current_time()
            following = self._housekeep(now)
            expired: list[UpstreamConnection] = []
            for connection in self._connections:
                if connection.expires_at <= now:
                    expired.append(connection)
                elif connection.expires_at < following:
                    following = connection.expires_at
            for connection in expired:
                connection.expire()
            self._next_look = max(following, now + WATCHDOG_GRAIN_S)
            self._sleep = trio.CancelScope(deadline=self._next_look)
