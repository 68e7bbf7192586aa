"""One client connection: an HTTP/1.1 server for any ASGI application, on trio.

It guarantees that no bytes from the client can end more than this connection, that a disconnect (FIN or RST) reaches
the application at once in every state, and that every write ends: with success, or after ``write_timeout_s`` without
progress. ``receive()`` and ``send()`` may run at once in two tasks, as Quart and our bridge use them. A client that
half-closes counts as disconnected, because browsers and SDKs half-close only to disconnect.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import trio

from pipeline.alarm import Alarm
from pipeline.gateway.http.asgi import REQUEST_CYCLE, App, Scope
from pipeline.gateway.http.door import Door, OwnAnswer, answer_to
from pipeline.gateway.http.http1 import RequestHead, refusal_bytes
from pipeline.gateway.http.peer import Peer
from pipeline.gateway.http.refusals import MakeRefusal, RefusalCode, RefusedRequest
from pipeline.gateway.http.request_cycle import DateHeader, RequestCycle
from pipeline.gateway.http.sockets import ByteTransport

KIB: Final = 1024
MIB: Final = 1024 * KIB
LINGER_BYTES: Final = 128 * MIB
"""Room for the largest upload (100 MiB) whose early refusal the client should still be able to read."""

_LINGER: Final = object()

log = logging.getLogger("headrace.server")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """Limits of the HTTP server; durations in seconds."""

    max_connections: int
    keep_alive_timeout_s: float
    """How long a connection may idle between requests; above the 60 s of common proxies."""
    header_timeout_s: float
    """From the first byte (or the accept) to the end of a request head."""
    write_timeout_s: float
    """A client that takes no byte for this long is reset."""
    linger_timeout_s: float = 5
    """How long we read and discard after our last byte, so that a reset does not destroy it (RFC 9112 section 9.6)."""
    max_header_bytes: int = 64 * KIB
    shutdown_delay_s: float = 0
    """How long we accept connections after a shutdown has begun, so that load balancers see that we are not ready."""
    drain_idle_s: float = 2
    """How long after that a connection without a request is kept, for one that may be on its way."""
    graceful_timeout_s: float
    """How long running requests may take after that."""
    final_message_timeout_s: float = 5
    """How long requests may take after that to send a final message, before their sockets are closed."""


class ServerConnection:
    """Serves the requests of one connection, one after another, until either side ends it.

    Args:
        app: the ASGI application.
        transport: the connected socket; the connection owns it and closes it.
        settings: the limits.
        make_refusal: makes the responses to requests that never reach the application.
        date: shared among all connections.
        base_scope: scope entries that are the same for each request here: scheme, client, server, root path.
        state: the lifespan state; each request gets a shallow copy.
        door: the one that it came through; its table says what is answered without the application.
    """

    def __init__(
        self,
        app: App,
        transport: ByteTransport,
        settings: ServerSettings,
        *,
        make_refusal: MakeRefusal,
        date: DateHeader,
        base_scope: Scope,
        state: dict[str, Any],
        door: Door,
    ) -> None:
        self._app = app
        self._transport = transport
        self._settings = settings
        self._make_refusal = make_refusal
        self._date = date
        self._base_scope = base_scope
        self._state = state
        self._answers = door.answers
        self._peer = Peer(transport, max_header_bytes=settings.max_header_bytes, door=door)
        self._is_let_in = False  # the next request
        self._idle = False
        self._drain_idle_s = 0.0
        self._idle_alarm: Alarm | None = None

    async def run(self, *, has_sent: bool = False) -> None:
        """Serve until the connection ends; closes the transport, even if cancelled.

        Args:
            has_sent: whether the client is known to have sent something: it is then read at once, and not only when the
                loop has looked for IO, two turns later.
        """
        try:
            with trio.move_on_after(self._settings.header_timeout_s) as handshake:
                await self._transport.start()
            if handshake.cancelled_caught:
                return
            if has_sent:
                self._is_let_in = True
                self._peer.read_nowait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._peer.read_on)
                end = await self._serve_all()
                nursery.cancel_scope.cancel()
            if isinstance(end, RefusedRequest):
                await self._send_refusal(end.code, end.message)
            elif end is _LINGER:
                await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client disconnected, in whatever state
        finally:
            if self._idle_alarm is not None:
                self._idle_alarm.stop()
                self._idle_alarm = None  # it refers to this connection: no cycle is to be left for the collector
            self._transport.close()

    async def refuse(self) -> None:
        """Answer without reading a request: there are too many connections."""
        try:
            message = "the server has too many connections: try again shortly"
            await self._send_refusal("too_many_connections", message)
        finally:
            self._transport.close()

    async def see_off(self) -> None:
        """Close a connection whose answer has been sent at the door, but whose request has not been read to its end."""
        try:
            await self._linger()
        finally:
            self._transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, of which nothing has arrived."""
        return self._idle

    def drain(self, *, idle_s: float) -> None:
        """Close the connection after a response that says so to the client, or after ``idle_s`` without a request."""
        self._peer.closing = True
        self._drain_idle_s = idle_s
        if self._idle:
            self._peer.wake()

    def abort(self) -> None:
        """Reset the connection now, whatever it is doing."""
        self._peer.abort()

    async def _serve_all(self) -> RefusedRequest | object | None:
        """Serve request after request; return how to end: with a refusal, with `_LINGER`, or at once (None)."""
        try:
            head = await self._next_head(first=True)
            while head is not None:
                if not await self._serve_request(head):
                    return None if self._peer.gone else _LINGER
                head = await self._next_head(first=False)
        except RefusedRequest as refused:
            return refused
        return None

    async def _serve_request(self, head: RequestHead) -> bool:
        """Serve one request; return whether the connection can carry another.

        Raises:
            RefusedRequest: if the body was not valid HTTP, or the application sent no response.
        """
        peer = self._peer
        cycle = RequestCycle(peer, head, self._date)
        cycle.is_let_in, self._is_let_in = self._is_let_in, False
        peer.answering = True
        try:
            if (answer := answer_to(head, self._answers)) is None:
                await self._app(self._scope(head, cycle), cycle.receive, cycle.send)
            else:
                await _give(answer, cycle)
        except* Exception as failure:
            # except* and not except: under cancellation a failure comes in a group with Cancelled, which must propagate
            log.error(
                "the application failed on %s %s\n%s", head.method, head.raw_path.decode(), describe_failure(failure)
            )
        peer.answering = False
        peer.on_gone = None
        if peer.gone:
            if cycle.fault is not None and not cycle.on_the_wire:
                raise cycle.fault
            return False
        if not cycle.on_the_wire:
            raise RefusedRequest("internal_error", "the server failed to answer this request")
        if not cycle.finished:
            # A chunked response without its last chunk is visibly incomplete; other framings need the reset for that.
            log.error("the response to %s %s was not finished: connection reset", head.method, head.raw_path.decode())
            peer.abort()
            return False
        if not cycle.keep_alive:
            return False
        peer.requests.take_body()
        return peer.requests.body_complete

    async def _next_head(self, *, first: bool) -> RequestHead | None:
        """Wait for a request; return None if the client disconnects, or is idle for too long."""
        settings = self._settings
        peer = self._peer
        has_begun = first
        deadline = idle_until = math.inf
        if first:
            deadline = trio.current_time() + settings.header_timeout_s
        else:
            self._start_idle_timer()
        while True:
            head = peer.requests.maybe_head()
            if head is not None:
                self._idle = False
                return head
            self._idle = len(peer.requests) == 0
            if peer.gone:
                return None
            if self._idle and peer.closing:
                now = trio.current_time()
                idle_until = min(idle_until, now + self._drain_idle_s)
                if idle_until > now:
                    await peer.read_more(idle_until)
                # A request may have arrived while we decided to close: serve it instead of resetting it.
                elif not peer.read_nowait():
                    return None
                continue
            if not self._idle and not has_begun:
                has_begun = True
                deadline = trio.current_time() + settings.header_timeout_s
            in_time = await peer.read_more(deadline)
            if not in_time and not self._idle:
                raise RefusedRequest("request_timeout", "the request head did not arrive in time")
            self._idle = False
            if not in_time and not peer.closing:
                return None

    def _start_idle_timer(self) -> None:
        """Wake `_next_head` if no request comes in time; a cancel scope for each would cost 1 % of a request."""
        if self._idle_alarm is None:
            self._idle_alarm = Alarm(self._settings.keep_alive_timeout_s, self._end_idle)
        else:
            self._idle_alarm.put_off()

    def _end_idle(self) -> None:
        if self._idle:
            self._peer.wake()

    def _scope(self, head: RequestHead, cycle: RequestCycle) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            "state": self._state.copy(),
            "extensions": {REQUEST_CYCLE: cycle},
            **self._base_scope,
        }

    async def _send_refusal(self, code: RefusalCode, message: str) -> None:
        """Answer with an error of the server's own, and end the connection so that the client can read it."""
        data = refusal_bytes(self._make_refusal(code, message), self._date.current())
        try:
            await self._transport.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        await self._linger()

    async def _linger(self) -> None:
        """Half-close, then read and discard: closing with unread bytes would reset, and destroy what is in flight."""
        with trio.move_on_after(self._settings.linger_timeout_s):
            try:
                await self._transport.send_eof()
                left = LINGER_BYTES
                while left > 0 and (chunk := await self._transport.discard_some()):
                    left -= len(chunk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


async def _give(answer: OwnAnswer, cycle: RequestCycle) -> None:
    cycle.start(answer.status, answer.headers)
    cycle.write_nowait(answer.body, last=True)
    await cycle.drain()


def describe_failure(failure: BaseExceptionGroup[Exception]) -> str:
    """Return types and places of a failure but not its text, which may quote a request or a key."""
    lines: list[str] = []
    for leaf in _leaves(failure):
        lines.append(f"{type(leaf).__module__}.{type(leaf).__qualname__} at")
        lines.extend(
            f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(leaf.__traceback__)
        )
    return "\n".join(lines)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for member in group.exceptions:
        if isinstance(member, BaseExceptionGroup):
            yield from _leaves(member)
        else:
            yield member
