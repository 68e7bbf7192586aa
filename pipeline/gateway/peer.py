"""The client at the other end of a connection: what it has sent, whether it is still there, and how to send to it.

Nobody reads ahead of the application. Three places read, and take turns: ``receive()``, the wait for the next request,
and a send that is stuck, because a client that leaves must be seen there too. Any two tasks may use a peer at once,
one reading and one sending.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from pipeline.gateway.http1 import RequestBuffer
from pipeline.gateway.sockets import Transport

KIB: Final = 1024
MAX_AHEAD_BYTES: Final = 64 * KIB
"""What a client may send beyond the request that is being answered; more closes the connection."""

log = logging.getLogger("headrace.server")


class Peer:
    """One client.

    Args:
        transport: the connected socket.
        max_header_bytes: limit of one request head.

    Attributes:
        requests: what it has sent and nobody has consumed.
        gone: whether it has closed or reset the connection, or half-closed it, or has been cut off.
        answering: whether a request is being answered, so that what arrives after its body is ahead of its time.
        closing: whether the connection ends after the current response.
    """

    __slots__ = ("_read_scope", "_readers", "_sending", "_transport", "answering", "closing", "gone", "requests")

    def __init__(self, transport: Transport, *, max_header_bytes: int) -> None:
        self.requests = RequestBuffer(max_header_bytes)
        self.gone = False
        self.answering = False
        self.closing = False
        self._transport = transport
        self._read_scope: trio.CancelScope | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._sending = trio.Lock()
        transport.set_watch(self._watch)

    async def read_more(self, deadline: float = math.inf) -> bool:
        """Read once into ``requests``, or wait until the task that is reading has; the end of the peer sets ``gone``.

        Returns:
            False when the deadline passed or `wake` was called, else True.
        """
        if self._read_scope is not None:
            await self._readers.park()
            return True
        scope = self._read_scope = trio.CancelScope(deadline=deadline)
        chunk = b""
        try:
            with scope:
                chunk = await self._transport.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the same as an end
        finally:
            self._read_scope = None
            self._readers.unpark_all()
        if scope.cancelled_caught:
            return False
        if not chunk:
            self.lose()
            return True
        self.requests.feed(chunk)
        if self.answering and self.requests.body_complete and len(self.requests) > MAX_AHEAD_BYTES:
            log.info("a client sent more than %d bytes ahead of its answer: connection closed", MAX_AHEAD_BYTES)
            self.abort()
        return True

    def read_nowait(self) -> bool:
        """Read what has arrived already; give whether there was any."""
        chunk = self._transport.receive_nowait()
        self.requests.feed(chunk)
        return bool(chunk)

    def wake(self) -> None:
        """Make whoever waits in `read_more` look again."""
        if self._read_scope is not None:
            self._read_scope.cancel()

    def lose(self) -> None:
        """Note that it is gone: ends a waiting send and a waiting read."""
        self.gone = True
        self._transport.stop_sending()
        self.wake()

    @property
    def has_stalled(self) -> bool:
        """Whether it is gone because it took nothing for too long."""
        return self._transport.has_stalled

    def abort(self) -> None:
        """Cut it off now, whatever is being done: it sees a reset."""
        self._transport.abort()
        self.lose()

    def send_nowait(self, data: bytes) -> int:
        """Send what fits now and give the number of bytes; 0 while another task's send is waiting."""
        if self._sending.locked():
            return 0
        try:
            return self._transport.send_nowait(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.lose()
            return len(data)

    async def send_rest(self, data: memoryview) -> None:
        """Send what did not fit, to its end or to that of the connection: a cancel does not tear it."""
        with trio.CancelScope(shield=True):
            async with self._sending:
                if not self.gone:
                    try:
                        await self._transport.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        self.lose()

    async def _watch(self) -> None:
        while not self.gone and len(self.requests) <= MAX_AHEAD_BYTES:
            await self.read_more()
