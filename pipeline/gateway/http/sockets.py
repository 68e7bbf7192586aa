"""The byte side of a client connection: listening sockets, and a transport over TCP with or without TLS."""

from __future__ import annotations

import errno
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, Protocol

import trio

from pipeline.kernel_time import StampedReader, stamp_arrivals

KIB: Final = 1024
READ_BYTES: Final = 64 * KIB
BACKLOG: Final = 1024
"""With hypercorn's default of 100, 9000 connects took 88 s (docs/facts/http-stack.md, "Backlog")."""
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
STALL_CHECKS: Final = 4
"""How often per write timeout to check whether a stuck client has taken bytes. The reset is late by at most one such
interval."""
UNSENT_LOW_WATER_BYTES: Final = 16 * KIB
"""TCP_NOTSENT_LOWAT, as trio sets it: a stalled client holds little kernel memory, and backpressure comes early."""


class ListenError(OSError):
    """An address cannot be listened on.

    Args:
        why: what the system says.
        host, port: the address.
    """

    def __init__(self, why: OSError, host: str, port: int) -> None:
        super().__init__(why.errno, f"cannot listen on {host} port {port}: {why.strerror or why}")
        self.host = host
        self.port = port
        self.is_unknown_name = isinstance(why, socket.gaierror)


def bind_socket(host: str, port: int) -> socket.socket:
    """Open a listening TCP socket that can be passed to `serve` and inherited by worker processes.

    Args:
        host: an IPv4 or IPv6 address, or a name; the first address that the name resolves to is taken.
        port: 0 lets the system choose.

    Raises:
        ListenError: if the address cannot be resolved or bound.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host in ("", "::") else 1)
            listener.bind(address)
            prepare_listener(listener)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ListenError(error, host, port) from error
    return listener


KERNEL_LATER_S = 5.0
"""What the kernel gives a client that takes nothing beyond our own limit."""


def prepare_listener(listener: socket.socket) -> None:
    """Set the options that accepted sockets inherit (on Linux), and listen; the socket may be our own or inherited."""
    listener.setblocking(False)
    stamp_arrivals(listener)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        tcp = socket.IPPROTO_TCP
        listener.setsockopt(tcp, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        listener.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        listener.setsockopt(tcp, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        listener.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, UNSENT_LOW_WATER_BYTES)
    listener.listen(BACKLOG)


def limit_writes(listener: socket.socket, write_timeout_s: float) -> None:
    """Let the kernel give up a client of this listener that takes no byte for `KERNEL_LATER_S` over the limit.

    `TcpTransport` does so at the limit, while it waits to send, and resets the connection, which the kernel does not.
    This is for what waits in the kernel's buffer only: the client may have vanished (docs/facts/http-stack.md,
    "Clients that vanish").
    """
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        limit_ms = int((write_timeout_s + KERNEL_LATER_S) * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)


class ByteTransport(Protocol):
    """The byte stream under a `ServerConnection`. One task may receive while another sends.

    All methods raise `trio.BrokenResourceError` when the peer is gone and `trio.ClosedResourceError` after `close`.
    """

    async def start(self) -> None: ...
    def send_nowait(self, chunk: bytes, /) -> int: ...
    async def send_all(self, chunk: bytes | memoryview, /) -> None: ...
    def wait_readable(self) -> Awaitable[None]: ...
    def receive_nowait(self) -> bytes | None: ...
    def receive_stamped(self) -> tuple[bytes | None, int]: ...
    def stop_sending(self) -> None: ...
    async def send_eof(self) -> None: ...
    async def discard_some(self) -> bytes: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...

    @property
    def has_stalled(self) -> bool:
        """Whether it was reset because the peer read nothing for too long."""
        ...


class TcpTransport:
    """Reads and writes a non-blocking socket directly: a write that fits costs one system call and no scheduling.

    A send that must wait is shielded, so a cancellation never cuts a frame in half; it ends when all is sent, when the
    peer makes no progress for ``write_timeout_s`` (the socket is then reset), or at `stop_sending`.

    Args:
        sock: a connected socket; ours from now on.
        write_timeout_s: as above.
        stamps: reads what `receive_stamped` returns; shared among all connections.
    """

    def __init__(self, sock: socket.socket, *, write_timeout_s: float, stamps: StampedReader) -> None:
        sock.setblocking(False)
        self._sock = sock
        # Not for Unix sockets: with the ancillary data of such a read, a client could hand us open files.
        self._stamps = stamps if sock.family in (socket.AF_INET, socket.AF_INET6) else None
        self._write_timeout_s = write_timeout_s
        self._send_scope: trio.CancelScope | None = None
        self._stopped = False
        self.has_stalled = False

    async def start(self) -> None:
        """Return at once: there is nothing to negotiate."""

    def send_nowait(self, chunk: bytes | memoryview, /) -> int:
        """Send what fits now and return the number of bytes; never wait."""
        try:
            return self._sock.send(chunk)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._failure(error) from error

    async def send_all(self, chunk: bytes | memoryview, /) -> None:
        """Send all of it, as the class describes; when this returns or raises, the send has ended."""
        unsent = memoryview(chunk)
        unsent = unsent[self.send_nowait(unsent) :]
        if unsent and await self._send_rest(unsent):
            raise trio.BrokenResourceError("the client has disconnected or stopped reading")

    async def _send_rest(self, unsent: memoryview) -> memoryview:
        """Return what could not be sent, which is empty on success."""
        waiting = self._waiting_bytes()
        progress_at = trio.current_time()
        while unsent and not self._stopped:
            deadline = trio.current_time() + self._write_timeout_s / STALL_CHECKS
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                self._send_scope = scope
                while unsent:
                    try:
                        await trio.lowlevel.wait_writable(self._sock)
                        sent = self.send_nowait(unsent)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return unsent
                    if sent:
                        unsent = unsent[sent:]
                        progress_at = trio.current_time()
                        scope.deadline = progress_at + self._write_timeout_s / STALL_CHECKS
            self._send_scope = None
            # The kernel reports room only above a low-water mark, so a slow reader may have taken bytes nevertheless.
            waited_before, waiting = waiting, self._waiting_bytes()
            if waiting < waited_before:
                progress_at = trio.current_time()
            elif unsent and not self._stopped and trio.current_time() - progress_at >= self._write_timeout_s:
                self.has_stalled = True
                self.abort()
                break
        return unsent

    def _waiting_bytes(self) -> int:
        """Return the number of bytes that the peer has not acknowledged (SIOCOUTQ, tcp(7)); 0 if that is unknown."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0])
        except (OSError, ValueError):
            return 0

    def stop_sending(self) -> None:
        """End a waiting send at once, because the peer is known to be gone."""
        self._stopped = True
        if self._send_scope is not None:
            self._send_scope.cancel()

    def wait_readable(self) -> Awaitable[None]:
        """Wait for bytes or the end of the stream, which the caller then receives without waiting."""
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this connection has been closed")
        return trio.lowlevel.wait_readable(self._sock)  # noqa: ASYNC105 - the caller awaits it: a coroutine less per read

    def receive_nowait(self) -> bytes | None:
        """Return what has arrived: b"" at the end of the stream, None if nothing has."""
        try:
            return self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._failure(error) from error

    def receive_stamped(self) -> tuple[bytes | None, int]:
        """Return the same, and when the last of it arrived, in ns on the clock of the figures; 0 if that is unknown."""
        if self._stamps is None:
            return self.receive_nowait(), 0
        try:
            return self._stamps.receive(self._sock, READ_BYTES)
        except BlockingIOError:
            return None, 0
        except OSError as error:
            raise self._failure(error) from error

    async def receive_some(self) -> bytes:
        """Wait for bytes and return them; b"" at the end of the stream."""
        while True:
            await self.wait_readable()
            if (chunk := self.receive_nowait()) is not None:
                return chunk

    async def discard_some(self) -> bytes:
        """Receive bytes that are to be discarded, after `send_eof`."""
        return await self.receive_some()

    async def send_eof(self) -> None:
        """Half-close: end the sending direction, and keep receiving."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._failure(error) from error

    def abort(self) -> None:
        """Reset the connection: unsent bytes are dropped, and the peer sees an error, not an end."""
        with suppress(OSError):  # closed already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close; tasks that wait in this transport raise `trio.ClosedResourceError`. May be called twice."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def _failure(self, error: OSError) -> Exception:
        if self._sock.fileno() < 0:
            return trio.ClosedResourceError("this connection has been closed")
        # The kernel has given up. Without unread bytes it was a keep-alive probe that nobody answered: the client left.
        if error.errno == errno.ETIMEDOUT and self._waiting_bytes():
            self.has_stalled = True
        return trio.BrokenResourceError(f"the client has disconnected: {error.strerror}")


class TlsTransport:
    """The same over TLS. Sends are shielded, so no record is cut in half; the deadlines are those of `TcpTransport`."""

    def __init__(self, tcp: TcpTransport, context: ssl.SSLContext) -> None:
        self._tcp = tcp
        self._tls = trio.SSLStream(_StreamUnderTls(tcp), context, server_side=True)
        self._received: bytes | None = None

    async def start(self) -> None:
        await self._tls.do_handshake()

    def send_nowait(self, _chunk: bytes, /) -> int:
        return 0

    async def send_all(self, chunk: bytes | memoryview, /) -> None:
        with trio.CancelScope(shield=True):
            await self._tls.send_all(chunk)

    async def wait_readable(self) -> None:
        self._received = bytes(await self._tls.receive_some(READ_BYTES))

    def receive_nowait(self) -> bytes | None:
        received, self._received = self._received, None
        return received

    def receive_stamped(self) -> tuple[bytes | None, int]:
        """Return what has arrived, and 0: a record may have come in many packets, and in parts of earlier reads."""
        return self.receive_nowait(), 0

    def stop_sending(self) -> None:
        self._tcp.stop_sending()

    async def send_eof(self) -> None:
        await self._tls.aclose()  # close_notify, then the half-close of _StreamUnderTls

    async def discard_some(self) -> bytes:
        return await self._tcp.receive_some()

    def abort(self) -> None:
        self._tcp.abort()

    def close(self) -> None:
        self._tcp.close()

    @property
    def has_stalled(self) -> bool:
        return self._tcp.has_stalled


class _StreamUnderTls(trio.abc.Stream):
    """`TcpTransport` as a stream for `trio.SSLStream`; closing only half-closes, so that the rest can be read."""

    def __init__(self, tcp: TcpTransport) -> None:
        self._tcp = tcp

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tcp.send_all(memoryview(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._tcp.receive_some()

    async def aclose(self) -> None:
        await self._tcp.send_eof()
