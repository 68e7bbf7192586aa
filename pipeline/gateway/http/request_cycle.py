"""One request and its response: the ``receive`` and ``send`` of an ASGI application, and a faster way to write.

``write_nowait()`` makes one system call and is done if the bytes fit; only the rest has to be awaited, in ``drain()``.
``send()`` is made of the two, without lock, scope or checkpoint of its own. The cost is that an application that only
sends never lets other tasks run; ours receives before each send. After a disconnect ``send()`` sends nothing (ASGI 2.3;
hypercorn does the same), but is a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterable
from email.utils import formatdate
from typing import Any, Final, TypeVar

import trio

from pipeline.gateway.http.asgi import Message
from pipeline.gateway.http.http1 import CONTINUE, LAST_CHUNK, Headers, RequestHead, response_head
from pipeline.gateway.http.peer import Peer
from pipeline.gateway.http.refusals import RefusedRequest

T = TypeVar("T")

_INTERPRETED: Final = frozenset({b"transfer-encoding", b"connection", b"content-length", b"date", b"server"})
"""The headers of a response that the server interprets."""


class DateHeader:
    """The value of the ``date`` header, rendered once a second."""

    def __init__(self) -> None:
        self._value = b""
        self._stale_at = -math.inf

    def current(self) -> bytes:
        now = time.monotonic()
        if now >= self._stale_at:
            self._stale_at = now + 1
            self._value = formatdate(usegmt=True).encode("ascii")
        return self._value


class RequestCycle:
    """Translates between one application call and the bytes of one request and its response.

    Args:
        peer: the client.
        head: the request; the peer's buffer is at the start of its body.
        date: shared among all connections.

    Attributes:
        arrived_ns: when the bytes of the first read of the request had arrived, by the kernel's stamp, perhaps long
            before we read them. 0 if that is unknown: with TLS, on a Unix socket, outside of Linux, if the wall clock
            was set, and if that read was made while an earlier request was being answered, or held a part of one.
        first_read_ns: when its first bytes were read. For a request that was pipelined, that is when the earlier
            response was complete: until then it waited for its turn.
        last_read_ns: the last read before its head was taken: the same, if all of the head came at once.
        is_let_in: whether it was looked at when its client came, and not refused.
    """

    __slots__ = (
        "_body_delivered",
        "_chunked",
        "_continue_due",
        "_date",
        "_head",
        "_is_ended",
        "_length_left",
        "_peer",
        "_pending_head",
        "_started",
        "_unsent",
        "_without_body",
        "arrived_ns",
        "fault",
        "finished",
        "first_read_ns",
        "is_let_in",
        "keep_alive",
        "last_read_ns",
        "on_the_wire",
        "took_some",
    )

    def __init__(self, peer: Peer, head: RequestHead, date: DateHeader) -> None:
        self._peer = peer
        self._date = date
        self._head = head
        self.is_let_in = False
        self.took_some = False
        self.arrived_ns = peer.arrived_ns
        self.first_read_ns = peer.first_read_ns
        self.last_read_ns = peer.last_read_ns
        self._body_delivered = False
        self._continue_due = head.expects_continue
        self._started = False
        self._chunked = False
        self._without_body = False
        self._length_left: int | None = None
        self._pending_head = b""
        self._unsent: bytes | memoryview = b""
        self._is_ended = False
        self.fault: RefusedRequest | None = None
        """What was wrong with the body, if that was found while the application was reading it."""
        self.on_the_wire = False
        """Whether any byte of the response has been handed to the socket."""
        self.finished = False
        """Whether all of the response has been sent, or would have been if the client were not gone."""
        self.keep_alive = head.keep_alive

    async def receive(self) -> Message:
        """Return the next part of the body; after it, wait for ``http.disconnect``: the client left or all is sent."""
        peer = self._peer
        requests = peer.requests
        while not self.finished:
            if (message := self.receive_nowait()) is not None:
                return message
            if peer.gone:
                break
            if self._continue_due:
                self._continue_due = False
                if not self._started and len(requests) == 0:
                    sent = peer.send_nowait(CONTINUE)
                    if sent != len(CONTINUE):
                        await peer.send_rest(memoryview(CONTINUE)[sent:])
                    continue
            await peer.read_more()
        # `reason` is our addition to ASGI, for the log: leaving and not reading are different faults.
        return {"type": "http.disconnect", "reason": self._reason}

    def receive_nowait(self) -> Message | None:
        """Return the next part of the body if it has arrived, else None: wait for it in `receive`."""
        if self._body_delivered or self.fault is not None:
            return None
        peer = self._peer
        requests = peer.requests
        try:
            body = requests.take_body()
        except RefusedRequest as fault:
            self.fault = fault
            peer.mark_gone()
            return None
        peer.resume_reader()  # if all of the body is here, no task waits for more, and a disconnect must be noticed
        self._body_delivered = requests.body_complete
        if body or self._body_delivered:
            return {"type": "http.request", "body": body, "more_body": not self._body_delivered}
        return None

    def watch_during(
        self, work: Coroutine[Any, Any, T], on_disconnect: Callable[[str], None]
    ) -> Coroutine[Any, Any, T]:
        """Return ``work``, to be awaited; ``on_disconnect`` is called if the client disconnects meanwhile.

        Its argument is the reason: ``left``, ``stalled``, or the code of what was wrong with the body.
        """
        peer = self._peer
        peer.on_gone = lambda: on_disconnect(self._reason)
        if peer.gone:
            peer.on_gone()
        return work

    watch_upload = watch_during
    """The reader of the connection notices it, whoever receives the body."""

    @property
    def _reason(self) -> str:
        if self.fault is not None:
            return self.fault.code
        return "stalled" if self._peer.has_stalled else "left"

    async def send(self, message: Message) -> None:
        """Send one of ASGI's messages, a part of the response.

        Raises:
            RuntimeError: if the application breaks ASGI or the Content-Length that it declared.
            ValueError: if a header cannot be sent.
        """
        kind = message["type"]
        if kind == "http.response.body":
            is_over = self._peer.gone or self._is_ended
            if not self.write_nowait(message.get("body", b""), last=not message.get("more_body", False)):
                await self.drain()
            elif is_over:
                await trio.lowlevel.checkpoint()
        elif kind == "http.response.start":
            self.start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"this server does not know the message {kind!r}")

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the response: the head is sent with the first part of the body.

        Raises:
            RuntimeError: if it has begun already, or the status or the Content-Length is not valid.
            ValueError: if a header cannot be sent.
        """
        if self._started:
            raise RuntimeError("http.response.start came twice")
        self._pending_head = self._render_head(status, headers)
        self._started = True

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """Hand over a part of the body; ``last`` ends the response.

        Returns:
            True if the socket has accepted all of it, or the client is gone. False if a part is left: await `drain`
            before the next write.

        Raises:
            RuntimeError: if the response has not begun, or violates the Content-Length that was declared.
        """
        peer = self._peer
        if not self._started:
            raise RuntimeError("http.response.body came before http.response.start")
        if peer.gone or self._is_ended:
            return True
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if last:
                framed += LAST_CHUNK
        else:
            framed = self._unchunked(data, not last)
        if self._pending_head:
            framed = self._pending_head + framed
            self._pending_head = b""
            self.on_the_wire = True
        self._is_ended = last
        if self._unsent:  # a write without the `drain` that was due: keep the order
            self._unsent = b"".join((self._unsent, framed))
            return False
        if framed and (sent := peer.send_nowait(framed)) != len(framed):
            self._unsent = memoryview(framed)[sent:]
            self.took_some = sent > 0
            return False
        if last:
            self._finish()
        return True

    async def drain(self) -> None:
        """Send what is left, completely or until the connection ends: a cancellation does not cut it in half.

        Returns at once if nothing is left.
        """
        unsent, is_last = self._unsent, self._is_ended
        if unsent:
            self._unsent = b""  # before the wait: another task may write meanwhile, and its part comes after this one
            await self._peer.send_rest(memoryview(unsent))
            if is_last:
                self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._peer.end_answer()  # although the application may have more to do

    def _unchunked(self, body: bytes, more: bool) -> bytes:
        if self._without_body:
            return b""
        if self._length_left is not None:
            self._length_left -= len(body)
            if self._length_left < 0 or (self._length_left > 0 and not more):
                raise RuntimeError("the body does not match the Content-Length that the application declared")
        return bytes(body)

    def _render_head(self, status: int, given: Iterable[tuple[bytes, bytes]]) -> bytes:
        if not 200 <= status <= 599:
            raise RuntimeError(f"{status} is not the status of a final response")
        peer = self._peer
        headers: Headers = []
        has_date = has_server = False
        for raw_name, raw_value in given:
            name, value = bytes(raw_name).lower(), bytes(raw_value)
            if name in _INTERPRETED:
                match name:
                    case b"transfer-encoding":
                        continue  # framing is ours
                    case b"connection":
                        if b"close" in value.lower():
                            self.keep_alive = False
                        continue
                    case b"content-length":
                        if not value.isdigit():
                            raise RuntimeError("the application's Content-Length is not a number")
                        if status == 204:
                            continue  # RFC 9110 section 8.6
                        self._length_left = int(value)
                    case b"date":
                        has_date = True
                    case _:
                        has_server = True
            headers.append((name, value))
        self._without_body = self._head.method == "HEAD" or status in (204, 304)
        if peer.closing or not peer.requests.body_has_arrived:
            self.keep_alive = False  # an early response: what the client is still sending is not the next request
        if self._length_left is None and not self._without_body:
            if self._head.version == "1.1":
                self._chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        if not has_date:
            headers.append((b"date", self._date.current()))
        if not has_server:
            headers.append((b"server", b"headrace"))
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        elif self._head.version == "1.0":
            headers.append((b"connection", b"keep-alive"))
        return response_head(status, headers)
