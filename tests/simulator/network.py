"""A network inside the process: the kernel's Unix sockets, which behave as TCP where our code can tell the difference.

The server listens on a real Unix socket, and our transport connects through `Network.socket`, which stands in for
`socket.socket`. So all of our code runs unchanged, trio waits for real descriptors, and nothing depends on a network
card, a port or a thread. What TCP has and Unix sockets lack is added here: a reset (which drops what is in flight), a
connection that takes its time, is refused or never completes, and TCP's options, which are accepted and ignored.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Self

import pytest
import trio

from stages.upstreams.transport import dial

LEAST_PIPE_BYTES: Final = 4608
"""The kernel's least SO_SNDBUF (socket(7))."""
READ_BYTES: Final = 64 * 1024

Connecting = Literal["ok", "slow", "refused", "refused later", "hangs"]


@dataclass(eq=False)
class Link:
    """What the two ends of a connection have in common.

    Attributes:
        is_reset: whether one end was reset: then nothing more is received, not even what has arrived.
        ours_closed: set when our code has closed its end.
        request: the number of the request that it carries now.
        host: of the upstream, if it is to one.
    """

    is_reset: bool = False
    ours_closed: trio.Event = field(default_factory=trio.Event)
    request: int | None = None
    host: str = ""


class End(socket.socket):
    """One end of a connection.

    Args:
        fileno: an open Unix socket; this end's from now on.
        link: shared with the other end.
        on_received, on_sent: called with the link and a number of bytes.
        on_closed: called once.
    """

    def __init__(
        self,
        fileno: int,
        link: Link,
        *,
        on_received: Callable[[Link, int], object] | None = None,
        on_sent: Callable[[Link, int], object] | None = None,
        on_closed: Callable[[End], object] | None = None,
    ) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fileno)
        self.setblocking(False)
        self.link = link
        self._on_received = on_received
        self._on_sent = on_sent
        self._on_closed = on_closed
        self._resets_on_close = False

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send, unless the link was reset."""
        if self.link.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        sent = super().send(data, flags)
        if self._on_sent is not None:
            self._on_sent(self.link, sent)
        return sent

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive, unless the link was reset."""
        if self.link.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        received = super().recv(bufsize, flags)
        if self._on_received is not None:
            self._on_received(self.link, len(received))
        return received

    def setsockopt(self, level: int, option: int, value: Any, length: int | None = None, /) -> None:
        """Set the size of the pipe or note that closing resets; ignore what only TCP has."""
        if level == socket.SOL_SOCKET and option == socket.SO_LINGER:
            self._resets_on_close = True
        elif level == socket.SOL_SOCKET and option == socket.SO_SNDBUF:
            super().setsockopt(level, option, value)

    def close(self) -> None:
        """Close; after SO_LINGER this is a reset."""
        if self.fileno() >= 0:
            if self._resets_on_close:
                self.link.is_reset = True
            super().close()
            if self._on_closed is not None:
                self._on_closed(self)

    def reset(self) -> None:
        """Close with a reset."""
        self._resets_on_close = True
        trio.lowlevel.notify_closing(self)
        self.close()

    async def receive(self, most_bytes: int = READ_BYTES) -> bytes:
        """Wait for bytes and return them; ``b""`` at the end of the stream.

        Raises:
            OSError: if the connection was reset.
        """
        while True:
            try:
                return self.recv(most_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self)

    async def send_everything(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: if the peer has closed or reset the connection.
        """
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self.send(unsent) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self)


class Listener(socket.socket):
    """Our server's listening socket, at an address of its own.

    Args:
        network: makes the accepted ends.
        other: the one that this is to share its queue with, as that of another process; None for a new one.
    """

    def __init__(self, network: Network, other: Listener | None = None) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, fileno=None if other is None else os.dup(other.fileno()))
        self._network = network
        self.waiting: deque[Link] = deque() if other is None else other.waiting
        self.setblocking(False)
        if other is None:
            self.bind(b"")  # the kernel chooses an abstract name (unix(7), "Autobind feature")
            self.listen(100)

    def accept(self) -> tuple[End, Any]:
        """Accept a connection; the kernel keeps their order."""
        accepted, address = super().accept()
        link = self.waiting.popleft()
        return self._network.our_end(accepted.detach(), link, is_upstream=False), address


class _Connecting(End):
    """A socket of our transport before and after it is connected."""

    def __init__(self, fileno: int, link: Link, network: Network, other: socket.socket, **hooks: Any) -> None:
        super().__init__(fileno, link, **hooks)
        self._network = network
        self._other = other
        self._error = 0

    def connect_ex(self, address: Any, /) -> int:
        network, host = self._network, str(address[0])
        how = network.connecting(host)
        if how == "refused":
            self._other.close()
            return errno.ECONNREFUSED
        if how == "ok":
            network.on_connect(host, End(self._other.detach(), self.link))
            return 0
        # A full buffer is not writable, which is how a socket looks that has not connected yet.
        super().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LEAST_PIPE_BYTES)
        with_room = True
        while with_room:
            try:
                socket.socket.send(self, bytes(READ_BYTES))
            except BlockingIOError:
                with_room = False
        network.nursery.start_soon(self._connect_later, host, how)
        return errno.EINPROGRESS

    async def _connect_later(self, host: str, how: Connecting) -> None:
        network = self._network
        try:
            if how == "hangs":
                await self.link.ours_closed.wait()
                return
            with trio.move_on_after(network.connect_delay_s()):
                await self.link.ours_closed.wait()
                return
            if how == "refused later":
                self._error = errno.ECONNREFUSED
                return
            self._other.setblocking(False)
            while True:
                try:
                    self._other.recv(READ_BYTES)
                except BlockingIOError:
                    break
            super().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, network.pipe_bytes())
            network.on_connect(host, End(self._other.detach(), self.link))
        finally:
            self._other.close()  # without effect if it was detached

    def getsockopt(self, level: int, option: int, length: int = 0, /) -> Any:
        if level == socket.SOL_SOCKET and option == socket.SO_ERROR:
            return self._error
        return super().getsockopt(level, option)


class Network:
    """All connections of one world, and the seam in our transport; a context manager.

    Args:
        nursery: runs the peers.
        on_connect: called with the host and the other end when our transport has connected.
        connecting: returns how the next connection to a host goes.
        connect_delay_s: returns how long one that takes its time takes.
        pipe_bytes: returns the size of the next connection's pipes.
        on_received: called when our transport has received from an upstream.
        on_sent: called when our server has sent to a client.

    Attributes:
        listener: of the first server.
        address: of all servers.
        open_to_upstreams, open_to_clients: the ends that our code holds open.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        on_connect: Callable[[str, End], object],
        connecting: Callable[[str], Connecting],
        connect_delay_s: Callable[[], float],
        pipe_bytes: Callable[[], int],
        on_received: Callable[[Link, int], object] | None = None,
        on_sent: Callable[[Link, int], object] | None = None,
    ) -> None:
        self.nursery = nursery
        self.on_connect = on_connect
        self.connecting = connecting
        self.connect_delay_s = connect_delay_s
        self.pipe_bytes = pipe_bytes
        self._on_received = on_received
        self._on_sent = on_sent
        self.open_to_upstreams: set[End] = set()
        self.open_to_clients: set[End] = set()
        self.listener = Listener(self)
        self.address: Any = self.listener.getsockname()
        self._seam = pytest.MonkeyPatch()

    # What our transport uses of the module `socket`; everything else is the module's own.

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, family: int = -1, kind: int = -1, protocol: int = -1) -> End:
        """Return a socket that our transport connects."""
        ours, other = socket.socketpair()
        end = _Connecting(
            ours.detach(),
            Link(),
            self,
            other,
            on_received=self._on_received,
            on_closed=self._note_closed,
        )
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.pipe_bytes())
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.pipe_bytes())
        self.open_to_upstreams.add(end)
        return end

    def our_end(self, fileno: int, link: Link, *, is_upstream: bool) -> End:
        """Return our end of an accepted connection."""
        end = End(fileno, link, on_sent=self._on_sent, on_closed=self._note_closed)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.pipe_bytes())
        self.open_to_clients.add(end)
        return end

    def connect_client(self) -> End:
        """Connect a client to our server.

        Raises:
            OSError: if it does not listen any more.
        """
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client = End(made.detach(), Link())
        try:
            client.connect(self.address)
        except OSError:
            client.close()
            raise
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.pipe_bytes())
        self.listener.waiting.append(client.link)
        return client

    def share_listener(self) -> Listener:
        """Return the listening socket of a further server, which gets its connections from the same queue.

        Raises:
            OSError: if no server listens any more.
        """
        self.listener = Listener(self, self.listener)
        return self.listener

    def _note_closed(self, end: End) -> None:
        self.open_to_upstreams.discard(end)
        self.open_to_clients.discard(end)
        end.link.ours_closed.set()

    def __enter__(self) -> Self:
        self._seam.setattr(dial, "socket", self)  # it has what dial uses of the module
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._seam.undo()
        self.listener.close()
        for end in [*self.open_to_upstreams, *self.open_to_clients]:
            end.close()
