"""The client of a connection: what it has sent, whether it is still connected, and how to send to it.

One task reads for as long as the connection lives. So a disconnect is noticed at once in every phase, and no request
pays for a watching task of its own. A task that needs more bytes waits in `Peer.read_more`. Two tasks may use a peer at
once, one reading and one sending.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import outcome
import trio

from pipeline.gateway.http.door import Door
from pipeline.gateway.http.http1 import RequestBuffer
from pipeline.gateway.http.sockets import ByteTransport

KIB: Final = 1024
MAX_AHEAD_BYTES: Final = 64 * KIB
"""How much is read before it is asked for; a client that sends more than this beyond the current request is reset."""

log = logging.getLogger("headrace.server")


class Peer:
    """One client.

    Args:
        transport: the connected socket.
        max_header_bytes: limit of one request head.
        door: looked at if the loop is held; None if there is none.

    Attributes:
        requests: what it has sent and is not consumed yet.
        gone: whether it has closed, half-closed or reset the connection, or we have reset it.
        on_gone: called once, when ``gone`` becomes true.
        answering: whether a request is being answered, so that anything after its body is pipelined.
        closing: whether the connection ends after the current response.
        arrived_ns, first_read_ns, last_read_ns: of the request that is read now or was read last; see `RequestCycle`.
    """

    __slots__ = (
        "_door",
        "_paused_reader",
        "_sending",
        "_transport",
        "_waiting",
        "answering",
        "arrived_ns",
        "closing",
        "first_read_ns",
        "gone",
        "last_read_ns",
        "on_gone",
        "requests",
    )

    def __init__(self, transport: ByteTransport, *, max_header_bytes: int, door: Door | None = None) -> None:
        self.requests = RequestBuffer(max_header_bytes)
        self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.answering = False
        self.closing = False
        self.arrived_ns = self.first_read_ns = self.last_read_ns = 0
        self._transport = transport
        self._door = door
        self._waiting: list[trio.lowlevel.Task] = []
        self._paused_reader: trio.lowlevel.Task | None = None
        self._sending = trio.Lock()

    async def read_on(self) -> None:
        """Read into ``requests`` until the client is gone; pause while enough is buffered and no task waits."""
        requests = self.requests
        while not self.gone:
            if len(requests) > MAX_AHEAD_BYTES and not self._waiting:
                if self.answering and requests.body_complete:
                    log.info("a client sent over %d bytes before its response was complete: reset", MAX_AHEAD_BYTES)
                    self.abort()
                    return
                await self._pause()
            try:
                await self._transport.wait_readable()
                # Only now is it known what these bytes are: when the wait began, a request may have been in progress.
                chunk = self._transport.receive_nowait() if self.answering else self._receive_of_head()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""  # the same as an end
            if chunk is None:
                continue
            if not chunk:
                self.mark_gone()
                return
            requests.feed(chunk)
            self._look_at_door()
            del chunk  # the next wait may be long, and this may be 64 KiB
            self._wake_waiting(True)

    def _receive_of_head(self) -> bytes | None:
        """Receive, between two requests, what has arrived of the next head, and note when."""
        if self.requests:
            chunk = self._transport.receive_nowait()
            self.last_read_ns = perf_counter_ns()
        else:
            chunk, self.arrived_ns = self._transport.receive_stamped()
            self.first_read_ns = self.last_read_ns = perf_counter_ns()
        return chunk

    async def read_more(self, deadline: float = math.inf) -> bool:
        """Wait until more has been read, or the client is gone.

        Returns:
            False if the deadline passed or `wake` was called, else True.
        """
        if self.gone:
            await trio.lowlevel.checkpoint()
            return True
        if deadline == math.inf:
            return await self._wait_for_news()
        with trio.CancelScope(deadline=deadline):
            return await self._wait_for_news()
        return False

    def read_nowait(self) -> bool:
        """Read what has arrived of the next request; return whether there was anything."""
        try:
            chunk = self._receive_of_head()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        if not chunk:
            return False
        self.requests.feed(chunk)
        return True

    def end_answer(self) -> None:
        """Note that the response is complete: what the client has sent beyond its request waits since now."""
        self.answering = False
        self.arrived_ns = 0
        self.first_read_ns = self.last_read_ns = perf_counter_ns()
        self.wake()

    def wake(self) -> None:
        """Make the tasks that wait in `read_more` return."""
        self._wake_waiting(False)

    def mark_gone(self) -> None:
        """Record that the client is gone, and end a waiting send and a waiting read."""
        if self.gone:
            return
        self.gone = True
        self._transport.stop_sending()
        self._wake_waiting(True)
        self.resume_reader()
        if self.on_gone is not None:
            self.on_gone()

    @property
    def has_stalled(self) -> bool:
        """Whether it is gone because it read nothing for too long."""
        return self._transport.has_stalled

    def abort(self) -> None:
        """Reset the connection now, whatever is in progress."""
        self._transport.abort()
        self.mark_gone()

    def _look_at_door(self) -> None:
        """Let new clients in within a long turn of the loop: each request, and each batch of a stream, comes by."""
        if (door := self._door) is not None and perf_counter_ns() >= door.look_at_ns:
            door.look()

    def send_nowait(self, data: bytes) -> int:
        """Send what fits now and return the number of bytes; 0 while another task's send is waiting."""
        if (door := self._door) is not None and perf_counter_ns() >= door.look_at_ns:  # `_look_at_door`, without a call
            door.look()
        if self._sending.locked():
            return 0
        try:
            return self._transport.send_nowait(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.mark_gone()
            return len(data)

    async def send_rest(self, data: memoryview) -> None:
        """Send what did not fit, completely or until the connection ends: a cancellation does not cut it in half."""
        with trio.CancelScope(shield=True):
            async with self._sending:
                if not self.gone:
                    try:
                        await self._transport.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        self.mark_gone()

    # A task that waits is parked by hand: trio's events and parking lots cost a request several microseconds more.

    async def _wait_for_news(self) -> bool:
        task = trio.lowlevel.current_task()
        self._waiting.append(task)
        self.resume_reader()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        return bool(await trio.lowlevel.wait_task_rescheduled(abort))

    def _wake_waiting(self, is_news: bool) -> None:
        waiting = self._waiting
        while waiting:
            trio.lowlevel.reschedule(waiting.pop(), outcome.Value(is_news))

    async def _pause(self) -> None:
        self._paused_reader = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._paused_reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def resume_reader(self) -> None:
        """Have the reader go on, if it has paused because enough was buffered."""
        if (reader := self._paused_reader) is not None:
            self._paused_reader = None
            trio.lowlevel.reschedule(reader)
