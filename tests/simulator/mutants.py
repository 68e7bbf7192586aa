"""Defects that our code could have: each mutant puts one into it, and the invariants must find it.

A mutant is a function that replaces one thing of our code; what it replaced is put back when the `MonkeyPatch` is
undone. Its docstring's first line says what it breaks. `CAUGHT_BY` lists seeds whose worlds are known to find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import trio
from simulator.change_mutants import CHANGE_MUTANTS
from simulator.overload_mutants import OVERLOAD_MUTANTS
from simulator.restart_mutants import RESTART_MUTANTS

from pipeline.gateway import attempts
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.bridge import Bridge, _BodySource, _ServedRequest
from pipeline.gateway.http.http1 import RequestBuffer
from pipeline.gateway.http.peer import Peer
from pipeline.gateway.http.request_cycle import RequestCycle
from pipeline.gateway.http.sockets import TcpTransport
from stages import decode_events
from stages.events import Failed, Finished
from stages.routing.health import Health
from stages.routing.router import Route
from stages.upstreams.transport import transport
from stages.upstreams.transport.connection import UpstreamConnection, Watchdog
from stages.upstreams.transport.pool import Pool
from stages.upstreams.transport.transport import HeadraceExchange
from stages.wire.downstream.chat_stream import ChunkEncoder

Mutant = Callable[[pytest.MonkeyPatch], None]

# Any: what is replaced has all kinds of signatures, and some of it is private.
_Any = Any


def disconnect_without_cancel(patch: pytest.MonkeyPatch) -> None:
    """A client's disconnect is noted but does not end its request."""

    def disconnect(self: _ServedRequest, reason: str) -> None:
        self.disconnect_reason = reason

    patch.setattr(_ServedRequest, "disconnect", disconnect)


def half_close_ignored(patch: pytest.MonkeyPatch) -> None:
    """The end of what a client sends is not taken for its disconnect."""
    receive_nowait, wait_readable = TcpTransport.receive_nowait, TcpTransport.wait_readable
    ended: set[int] = set()

    def receive(self: TcpTransport) -> bytes | None:
        chunk = receive_nowait(self)
        if chunk == b"":
            ended.add(id(self))
            return None
        return chunk

    def wait(self: TcpTransport) -> _Any:
        return trio.sleep_forever() if id(self) in ended else wait_readable(self)

    def close(self: TcpTransport) -> None:
        ended.discard(id(self))
        closing(self)

    closing = TcpTransport.close
    patch.setattr(TcpTransport, "receive_nowait", receive)
    patch.setattr(TcpTransport, "wait_readable", wait)
    patch.setattr(TcpTransport, "close", close)


def half_read_connection_kept(patch: pytest.MonkeyPatch) -> None:
    """A connection whose answer was not read to its end goes back to the pool."""

    async def aclose(self: _Any, *, is_answered: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed:
            self._pool.keep(self._origin, connection)

    patch.setattr(HeadraceExchange, "aclose", aclose)
    patch.setattr(UpstreamConnection, "is_reusable", lambda self: not self.is_closed)


def slot_kept_after_failed_dial(patch: pytest.MonkeyPatch) -> None:
    """A request that gets no connection keeps its slot of the pool."""
    discard = Pool.discard
    patch.setattr(Pool, "discard", lambda self, one: None if one is None else discard(self, one))


def connection_left_open(patch: pytest.MonkeyPatch) -> None:
    """An exchange that is broken off leaves its socket open."""
    patch.setattr(Pool, "drop", lambda self, one: self._active.discard(one))


def done_without_terminal_event(patch: pytest.MonkeyPatch) -> None:
    """A stream that ends without its terminal event is declared complete."""

    def finish(self: _Any) -> list[_Any]:
        return [Finished("stop") if isinstance(event, Failed) else event for event in flush(self)]

    flush = decode_events._Decode.flush
    patch.setattr(decode_events._Decode, "flush", finish)


def retried_after_first_event(patch: pytest.MonkeyPatch) -> None:
    """Another deployment is asked although the client has been sent a part of an answer."""
    patch.setattr(attempts, "_has_answered", lambda ctx, response: False)

    def report(self: _Any, failed: Failed, frames: list[bytes]) -> None:
        self._is_over = True
        self.failed = failed  # as if nothing had been written

    patch.setattr(ChunkEncoder, "_report", report)


def error_told_twice(patch: pytest.MonkeyPatch) -> None:
    """A failure is reported in the stream two times."""
    report = ChunkEncoder._report

    def twice(self: _Any, failed: _Any, frames: list[bytes]) -> None:
        report(self, failed, frames)
        report(self, failed, frames)

    patch.setattr(ChunkEncoder, "_report", twice)


def probe_never_ended(patch: pytest.MonkeyPatch) -> None:
    """A request that tries an ejected deployment never says that it has ended."""
    patch.setattr(Route, "_end_probe", lambda self: None)


def in_flight_not_decremented(patch: pytest.MonkeyPatch) -> None:
    """A deployment's requests are counted when they begin and not when they end."""
    patch.setattr(Health, "end", lambda self: None)


def route_not_ended(patch: pytest.MonkeyPatch) -> None:
    """A route is left only by a failure, not by the end of its request."""
    patch.setattr(Route, "end", lambda self, usage=None: None)


def cut_off_forgets_a_request(patch: pytest.MonkeyPatch) -> None:
    """At the drain deadline one of the requests is not told."""

    def cut_off(self: Bridge) -> None:
        self.is_over = True
        for request in sorted(self.active, key=lambda one: one.ctx.request_id)[1:]:
            request.cut_off()

    patch.setattr(Bridge, "cut_off", cut_off)


def active_request_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A request that has ended stays among the active ones."""

    class Kept(set[_Any]):
        def discard(self, element: _Any, /) -> None:
            """Keep it."""

    init = Bridge.__init__

    def begin(self: Bridge, *given: _Any, **named: _Any) -> None:
        init(self, *given, **named)
        self.active = Kept()

    patch.setattr(Bridge, "__init__", begin)


def write_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """The response is written without waiting until the socket has room."""
    write_nowait = AsgiResponse.write_nowait

    def write(self: AsgiResponse, data: bytes, *, last: bool = False) -> bool:
        write_nowait(self, data, last=last)
        return not last

    patch.setattr(AsgiResponse, "write_nowait", write)


def partial_write_lost(patch: pytest.MonkeyPatch) -> None:
    """What did not fit into the socket at once is dropped."""

    async def drain(self: _Any) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent and self._is_ended:
            self._finish()

    patch.setattr(RequestCycle, "drain", drain)


def pipelined_bodies_mixed(patch: pytest.MonkeyPatch) -> None:
    """A body takes everything that has arrived, whatever its length is."""

    def take_body(self: _Any) -> bytes:
        if self.body_complete or self._chunked:
            return taken(self)
        body = bytes(self._buffer)
        self._buffer.clear()
        self._body_left = max(0, self._body_left - len(body))
        self.body_complete = self._body_left == 0
        return body

    taken = RequestBuffer.take_body
    patch.setattr(RequestBuffer, "take_body", take_body)


def body_timeout_removed(patch: pytest.MonkeyPatch) -> None:
    """An upload may take forever."""
    init = _BodySource.__init__

    def begin(self: _Any, client: _Any, timeout_s: float, *given: _Any) -> None:
        init(self, client, math.inf, *given)

    patch.setattr(_BodySource, "__init__", begin)


def write_timeout_removed(patch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing is waited for forever."""
    init = TcpTransport.__init__

    def begin(self: TcpTransport, sock: _Any, *, write_timeout_s: float, **named: _Any) -> None:
        init(self, sock, write_timeout_s=math.inf, **named)

    patch.setattr(TcpTransport, "__init__", begin)


def silent_upstream_never_expires(patch: pytest.MonkeyPatch) -> None:
    """The deadlines of reads from upstreams are recorded, and nobody looks at them."""
    patch.setattr(Watchdog, "check_at", lambda self, moment: None)


def stale_connection_not_replaced(patch: pytest.MonkeyPatch) -> None:
    """A kept connection that was closed meanwhile fails the request that is sent over it."""
    patch.setattr(transport, "_is_stale", lambda connection, error: False)


def record_lost_on_disconnect(patch: pytest.MonkeyPatch) -> None:
    """A request whose client has left gets no record."""
    call = Bridge.__call__

    async def serve(self: Bridge, scope: _Any, receive: _Any, send: _Any, **named: _Any) -> None:
        on_end = self.on_end
        serving = self.on_end

        def note(finished: _Any) -> None:
            if finished().end != "DC":
                serving(finished)

        self.on_end = note
        try:
            await call(self, scope, receive, send, **named)
        finally:
            self.on_end = on_end

    patch.setattr(Bridge, "__call__", serve)


def reader_never_resumed(patch: pytest.MonkeyPatch) -> None:
    """The reader of a connection that paused for a large upload is not woken when there is room again."""
    patch.setattr(Peer, "resume_reader", lambda self: None)


def early_response_keeps_connection(patch: pytest.MonkeyPatch) -> None:
    """A connection is kept although its client is still sending the body of a request that was refused."""
    patch.setattr(RequestBuffer, "body_has_arrived", property(lambda self: True))

    def take_body(self: _Any) -> bytes:
        body = taken(self)
        if not body:
            self.body_complete = True
        return body

    taken = RequestBuffer.take_body
    patch.setattr(RequestBuffer, "take_body", take_body)


MUTANTS: Final[dict[str, Mutant]] = {
    mutant.__name__: mutant
    for mutant in (
        disconnect_without_cancel,
        half_close_ignored,
        half_read_connection_kept,
        slot_kept_after_failed_dial,
        connection_left_open,
        done_without_terminal_event,
        retried_after_first_event,
        error_told_twice,
        probe_never_ended,
        in_flight_not_decremented,
        route_not_ended,
        cut_off_forgets_a_request,
        active_request_forgotten,
        write_without_waiting,
        partial_write_lost,
        pipelined_bodies_mixed,
        body_timeout_removed,
        write_timeout_removed,
        silent_upstream_never_expires,
        stale_connection_not_replaced,
        record_lost_on_disconnect,
        reader_never_resumed,
        early_response_keeps_connection,
        *CHANGE_MUTANTS,
        *OVERLOAD_MUTANTS,
        *RESTART_MUTANTS,
    )
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Have our code a defect for the duration of a block; with ``none`` it has not."""
    with pytest.MonkeyPatch.context() as patch:
        if name != "none":
            MUTANTS[name](patch)
        yield
