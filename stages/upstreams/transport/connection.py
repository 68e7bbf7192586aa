"""One HTTP/1.1 connection to an upstream: a socket, TLS on it if needed, and a reader; one exchange at a time.

**How a wait is limited without a cancel scope of its own.** A stream waits once for each event, and a scope with a
deadline costs 5-8 us (``benchmarks``), as much as the read itself. Here a wait only records its deadline
(`UpstreamConnection.expires_at`). One `Watchdog` for all connections wakes at the earliest recorded deadline and closes
the sockets of the waits that have expired. Closing wakes the waiting task. On a busy stream the deadline moves with
every read, so that the watchdog wakes about once per length of a limit.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import httpx
import trio

from pipeline.kernel_time import StampedReader
from pipeline.loop import current_loop
from stages.upstreams.transport.http1 import ResponseReader
from stages.upstreams.transport.tls import TlsSession

READ_BYTES = 64 * 1024
"""The size of the largest read, and so of the largest batch."""

ENCRYPTED_BYTES = 1024 * 1024
"""The most of a request that is encrypted at once, which takes 1 ms."""

_NOTHING = memoryview(b"")

WATCHDOG_INTERVAL_S = 0.02
"""The shortest time between two checks: with thousands of streams, many deadlines are handled together."""


class UpstreamConnection:
    """A connected socket that speaks HTTP/1.1.

    Args:
        sock: the socket, which does not block.
        stamped: reads it while the loop is late.
        tls: the session, if the connection is secured.

    Attributes:
        arrived_ns: when the bytes of the last read arrived, by the kernel, in ns on `time.perf_counter_ns`; 0 if that
            is unknown. Only a late loop asks: otherwise they arrived just before they were read.
        reader: the part of the response that has been read.
        expires_at: the deadline of the current wait, on trio's clock.
        idle_since: the end of the last exchange, on trio's clock.
        is_closed: whether `close` was called.
    """

    __slots__ = (
        "_has_more",
        "_is_expired",
        "_loop",
        "_sock",
        "_stamped",
        "_tls",
        "_unencrypted",
        "arrived_ns",
        "expires_at",
        "idle_since",
        "is_closed",
        "reader",
    )

    def __init__(self, sock: socket.socket, stamped: StampedReader, tls: TlsSession | None = None) -> None:
        self._sock = sock
        self._stamped = stamped
        self._tls = tls
        self._unencrypted = _NOTHING
        self._loop = current_loop()
        self._has_more = False
        self._is_expired = False
        self.arrived_ns = 0
        self.reader = ResponseReader()
        self.expires_at = math.inf
        self.idle_since = 0.0
        self.is_closed = False

    def close(self) -> None:
        """Close the socket immediately, and wake a task that waits for it. Never waits; closing twice is harmless."""
        if not self.is_closed:
            self.is_closed = True
            self.expires_at = math.inf
            self.reader.close()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def expire(self) -> None:
        """End the current wait, whose deadline has passed."""
        self._is_expired = True
        self.close()

    def is_reusable(self) -> bool:
        """Return whether this idle connection can carry another request. Reads at most once, and never waits.

        If the last response was not read completely, the rest of it must arrive in this read. Anything else that
        arrives makes the connection unusable: it was closed by the peer, or it carries data that belong to no request.
        """
        reader = self.reader
        try:
            is_at_rest = reader.is_done and self._tls is None  # then whatever arrives is too much
            data = self._sock.recv(1 if is_at_rest else READ_BYTES)
            # The end of the connection, bytes that belong to nothing, or perhaps not all that has arrived.
            if not data or is_at_rest or len(data) == READ_BYTES:
                return False
            if self._tls is not None:
                data = self._tls.decrypt(data)  # nothing, if it was a record of the session itself, such as a ticket
                if self._tls.is_ended:
                    return False
            if data:
                if reader.is_done:
                    return False
                reader.feed(data)
        except BlockingIOError:
            pass  # nothing has arrived
        except (OSError, httpx.RemoteProtocolError):
            return False
        return reader.is_done and reader.is_reusable

    def begin(self, method: str, data: bytes | bytearray) -> memoryview:
        """Start an exchange: write as much as the socket accepts without waiting, and return the unsent bytes.

        The result is empty if everything is sent. With TLS it is what of the rest has been encrypted.

        Raises:
            httpx.WriteError: if the connection is broken; then nothing has been sent.
        """
        self.reader.begin(method)
        unsent = memoryview(data)
        try:
            if self._tls is not None:
                self._unencrypted = unsent
                unsent = self._encrypt_more()
            return unsent[self._sock.send(unsent) :] or self._encrypt_more()
        except BlockingIOError:
            return unsent
        except OSError as error:  # includes ssl.SSLError
            raise httpx.WriteError("the connection was closed before the request could be sent") from error

    def _encrypt_more(self) -> memoryview:
        """Return the next part of the request, encrypted; nothing if there is none, or no TLS."""
        data = self._unencrypted
        if not data or self._tls is None:
            return data
        self._unencrypted = data[ENCRYPTED_BYTES:] or _NOTHING  # an empty view would hold the request
        return memoryview(self._tls.encrypt(data[:ENCRYPTED_BYTES]))

    async def finish_sending(self, unsent: memoryview, limit_s: float | None) -> bool:
        """Write ``unsent`` and read meanwhile: an upstream may answer (413, 401) before it has read a long body.

        Returns when everything is sent, when the head of the response has arrived, or when the upstream accepts no
        more; what it sent is then in `reader`. The result is whether everything was sent: if not, the connection
        cannot carry another request.

        Raises:
            httpx.WriteTimeout: if it takes longer than ``limit_s``.
            httpx.ReadError: if the upstream resets the connection.
            httpx.RemoteProtocolError: if the upstream closes it, or answers with something other than HTTP/1.1.
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
                    while unsent:
                        await trio.lowlevel.wait_writable(self._sock)
                        try:
                            unsent = unsent[self._sock.send(unsent) :] or self._encrypt_more()
                        except BlockingIOError:
                            continue
                except (OSError, trio.ClosedResourceError):
                    pass  # it reads no more, but it may have answered why
                nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise httpx.WriteTimeout("the upstream did not accept the whole request in time")
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # else its traceback holds this frame, which holds it, and the request's body
        return not unsent

    async def receive(self) -> None:
        """Wait for bytes, read once, and feed `reader`. Always a checkpoint.

        Raises:
            httpx.ReadTimeout: if `expires_at` passed.
            httpx.ReadError: if the connection broke.
            httpx.RemoteProtocolError: if it ended too early, or the data is not HTTP/1.1.
        """
        is_read = False
        while not is_read:
            try:
                await self.wait_readable()
            except (OSError, trio.ClosedResourceError) as error:
                raise self.failure(error) from error
            is_read = self.read()

    # The two halves of `receive`, for who cannot afford a coroutine more: it is 0.3 us of each event.

    def wait_readable(self) -> Coroutine[Any, Any, None]:
        """Return what waits until `read` may find something; its exceptions belong to `failure`.

        Raises:
            httpx.ReadError: if the connection was closed since the last read; trio cannot wait for a closed socket.
        """
        if self.is_closed:
            raise httpx.ReadError("the connection was closed")
        if self._has_more:  # the last read was full: try again without asking the kernel first
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        return trio.lowlevel.wait_readable(self._sock)  # noqa: ASYNC105 - as above

    def read(self) -> bool:
        """Read once, and feed `reader`; return whether there was anything.

        Raises:
            httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError: as `receive` does.
        """
        try:
            if self._loop.is_late:
                data, self.arrived_ns = self._stamped.receive(self._sock, READ_BYTES)
            else:
                data = self._sock.recv(READ_BYTES)
                self.arrived_ns = 0
        except BlockingIOError:
            self._has_more = False
            return False
        except OSError as error:
            raise self.failure(error) from error
        self._has_more = len(data) == READ_BYTES
        if self._tls is not None:
            return self._feed_decrypted(data, self._tls)
        if data:
            self.reader.feed(data)
        else:
            self.reader.feed_eof()
        return True

    def failure(self, error: Exception) -> httpx.TransportError:
        """Return what ``error`` of a wait or of a read means."""
        if self._is_expired:
            return httpx.ReadTimeout("the upstream was silent for too long")
        return httpx.ReadError("the connection broke")

    def _feed_decrypted(self, data: bytes, tls: TlsSession) -> bool:
        """Feed `reader` what ``data`` contains, and return whether that was anything: TLS has records of its own."""
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
    """Ends the expired waits of many connections, with one task that nearly always sleeps.

    Args:
        connections: the connections with an exchange in progress; a live view.
        housekeep: called with the time at each check; returns the time of the next check that it needs.

    Attributes:
        next_check: when the next check runs, on trio's clock.
    """

    def __init__(self, connections: Collection[UpstreamConnection], housekeep: Callable[[float], float]) -> None:
        self._connections = connections
        self._housekeep = housekeep
        self._sleep: trio.CancelScope | None = None
        self.next_check = math.inf
        self._is_stopped = False

    def check_at(self, moment: float) -> None:
        """Make sure that a check runs at ``moment`` on trio's clock, or up to `WATCHDOG_INTERVAL_S` later."""
        if self._sleep is None:
            # A system task: it belongs to the transport, not to the first task that waits, and runs until `stop`.
            self._sleep = trio.CancelScope(deadline=moment)
            self.next_check = moment
            trio.lowlevel.spawn_system_task(self._run, name="upstream deadlines")
        elif moment < self.next_check:
            self.next_check = self._sleep.deadline = moment

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
            self.next_check = max(following, now + WATCHDOG_INTERVAL_S)
            self._sleep = trio.CancelScope(deadline=self.next_check)
