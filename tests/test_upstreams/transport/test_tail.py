"""Row 75: an answer that is complete but for its end. Its connection is used again only if that end has arrived."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import ExitStack, suppress

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.time.cancel_at import CancelAt
from kit.time.patience import patiently
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    Step,
    close,
    end,
    in_turn,
    reset,
    scripted_upstream,
)
from kit.upstreams.transports import make_headrace, server_tls, trusting
from trio.testing import MockClock

from pipeline.kernel_time import StampedReader
from stages.upstreams.transport.connection import READ_BYTES, UpstreamConnection
from stages.upstreams.transport.pool import Pool
from stages.upstreams.transport.tls import TlsSession
from stages.upstreams.transport.transport import HeadraceExchange, HeadraceTransport, origin_of

ORIGIN = ("http", "up", 80)
REQUEST = b"POST / HTTP/1.1\r\nhost: up\r\ncontent-length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER = b'data: {"type": "response.completed"}\n\n'
START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(ANSWER)
NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"

GOOD_TAILS = {
    "end": b"0\r\n\r\n",
    "comment": chunk(b": ping\n\n") + b"0\r\n\r\n",
    "done": chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
    "trailer": b"0\r\nx-trailer: 1\r\n\r\n",
}
BAD_TAILS = {
    "another response": b"0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    "garbage after the end": b"0\r\n\r\ngarbage",
    "a byte after the end": b"0\r\n\r\nH",
    "garbage instead of the end": b"zz\r\n",
    "a size that is not hexadecimal": b"-1\r\n\r\n",
    "much": chunk(b"x" * 300 * 1024) + b"0\r\n\r\n",
    # What follows the end may not have been read: it could be taken for the next response.
    "a full read": chunk(b"x" * (READ_BYTES - 13)) + b"0\r\n\r\n",
}


class Opened:
    """Answers over socket pairs.

    Attributes:
        pool: to which their connections belong.
        connection: that of the last answer.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.pool = Pool(ssl_context=None, max_connections=None, max_idle=1, idle_expiry_s=30.0, recv_buffer_bytes=None)

    def exchange(self, start: bytes = START, *, is_all_sent: bool = True) -> tuple[HeadraceExchange, socket.socket]:
        """Return an answer of which ``start`` has been read, and the upstream's end of its connection."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._stack.enter_context(theirs)
        self._stack.callback(ours.close)
        self.connection = UpstreamConnection(ours, StampedReader())
        self.pool.keep(ORIGIN, self.connection)
        assert self.pool.reuse(ORIGIN, "POST", REQUEST) is not None
        self.connection.reader.feed(start)
        theirs.recv(1000)
        return HeadraceExchange(self.pool, ORIGIN, self.connection, is_all_sent=is_all_sent), theirs

    def close(self) -> None:
        self.pool.close()
        self._stack.close()


@pytest.fixture
async def opened() -> AsyncGenerator[Opened]:
    opened = Opened()
    yield opened
    opened.close()


async def next_body(pool: Pool, upstream: socket.socket) -> bytes | None:
    """Return the body of the next response over the kept connection, or None if the pool has closed the connection."""
    reused = pool.reuse(ORIGIN, "POST", REQUEST)
    assert pool.idle_connections == 0
    if reused is None:
        assert pool.active_connections == 0
        with suppress(ConnectionResetError):  # what it left unread becomes a reset
            assert upstream.recv(1) == b""
        return None
    connection, _ = reused
    assert upstream.recv(1000) == REQUEST
    upstream.send(NEXT)
    while not connection.reader.has_head:
        await connection.receive()
    following = HeadraceExchange(pool, ORIGIN, connection, is_all_sent=True)
    body = b""
    while part := await following.receive(None):
        body += part
    assert following.status == 200
    pool.close()
    return body


# --- what came, at every place where it may be cut -------------------------------------------------------------------


@pytest.mark.parametrize("tail", GOOD_TAILS.values(), ids=GOOD_TAILS)
async def test_the_connection_is_used_again_only_if_the_whole_end_has_arrived(tail: bytes) -> None:
    for read in range(len(tail)):  # so much came with the answer itself
        for arrived in range(read, len(tail) + 1):
            opened = Opened()
            exchange, upstream = opened.exchange(START + tail[:read])
            assert (await exchange.receive(None)).startswith(ANSWER)
            await exchange.aclose(is_answered=True)
            assert (opened.pool.active_connections, opened.pool.idle_connections) == (0, 1)
            upstream.send(tail[read:arrived])
            assert await next_body(opened.pool, upstream) == (b"next" if arrived == len(tail) else None)
            opened.close()


@pytest.mark.parametrize("tail", BAD_TAILS.values(), ids=BAD_TAILS)
async def test_a_connection_with_more_than_the_end_is_closed(opened: Opened, tail: bytes) -> None:
    exchange, upstream = opened.exchange()
    await exchange.receive(None)
    await exchange.aclose(is_answered=True)
    upstream.send(tail)
    assert await next_body(opened.pool, upstream) is None


@pytest.mark.parametrize("tail", [b"", b"0\r\n"])
async def test_a_connection_that_ended_is_closed(opened: Opened, tail: bytes) -> None:
    exchange, upstream = opened.exchange()
    await exchange.receive(None)
    await exchange.aclose(is_answered=True)
    upstream.send(tail)
    upstream.shutdown(socket.SHUT_WR)
    assert await next_body(opened.pool, upstream) is None


async def test_the_rest_of_a_body_with_a_length_is_an_end_too(opened: Opened) -> None:
    exchange, upstream = opened.exchange(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nanswer")
    assert await exchange.receive(None) == b"answer"
    await exchange.aclose(is_answered=True)
    upstream.send(b"------")
    assert await next_body(opened.pool, upstream) == b"next"


async def test_what_was_read_and_not_taken_is_dropped(opened: Opened) -> None:
    exchange, upstream = opened.exchange()
    await exchange.aclose(is_answered=True)
    assert opened.connection.reader.take() == b""
    upstream.send(b"0\r\n\r\n")
    assert await next_body(opened.pool, upstream) == b"next"


async def test_an_empty_line_after_a_complete_response_is_too_much(opened: Opened) -> None:
    """The parser would ignore it."""
    exchange, upstream = opened.exchange(START + b"0\r\n\r\n")
    await exchange.receive(None)
    await exchange.aclose()
    assert opened.pool.idle_connections == 1
    upstream.send(b"\r\n")
    assert await next_body(opened.pool, upstream) is None


@given(
    st.lists(
        st.sampled_from([b"0\r\n\r\n", b"0\r\n", b"\r\n", b"\r", b"\n", b"0", b"H", NEXT, START, chunk(ANSWER)])
        | st.binary(max_size=20),
        max_size=4,
    ).map(b"".join),
    st.integers(0, 200),
)
@settings(max_examples=300, deadline=None)
async def test_no_byte_of_an_end_reaches_the_next_response(tail: bytes, cut: int) -> None:
    opened = Opened()
    exchange, upstream = opened.exchange()
    await exchange.receive(None)
    upstream.send(tail[:cut])
    with trio.move_on_after(0):
        with suppress(httpx.HTTPError):
            await exchange.receive(None)
    await exchange.aclose(is_answered=True)
    upstream_is_open = opened.pool.idle_connections == 1
    if upstream_is_open:
        upstream.send(tail[cut:])
        assert await next_body(opened.pool, upstream) in {b"next", None}
    opened.close()


# --- which connections are kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER,
        b"HTTP/1.0 200 OK\r\ncontent-length: 1000\r\n\r\n" + ANSWER,
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(ANSWER),
        START + b"zz\r\n",
    ],
    ids=["until close", "HTTP/1.0", "connection: close", "broken"],
)
async def test_a_connection_that_cannot_carry_another_request_is_closed_at_once(opened: Opened, start: bytes) -> None:
    exchange, upstream = opened.exchange(start)
    assert await exchange.receive(None) == ANSWER
    await exchange.aclose(is_answered=True)
    assert (opened.pool.active_connections, opened.pool.idle_connections) == (0, 0)
    assert upstream.recv(1) == b""


async def test_a_connection_on_which_part_of_the_request_was_not_sent_is_closed_at_once(opened: Opened) -> None:
    exchange, upstream = opened.exchange(is_all_sent=False)
    await exchange.aclose(is_answered=True)
    assert opened.pool.idle_connections == 0
    assert upstream.recv(1) == b""


async def test_an_answer_that_nobody_called_complete_is_closed_at_once(opened: Opened) -> None:
    exchange, upstream = opened.exchange()
    await exchange.receive(None)
    await exchange.aclose()
    assert opened.pool.idle_connections == 0
    assert upstream.recv(1) == b""


async def test_only_as_many_are_kept_as_other_connections(opened: Opened) -> None:
    answers = [opened.exchange() for _ in range(3)]
    for exchange, _ in answers[:2]:
        await exchange.aclose(is_answered=True)
        assert opened.pool.idle_connections == 1
    assert answers[1][1].recv(1) == b""
    opened.pool.close()
    await answers[2][0].aclose(is_answered=True)
    assert (opened.pool.active_connections, opened.pool.idle_connections) == (0, 0)


async def test_it_expires_as_other_connections_do(autojump_clock: MockClock, opened: Opened) -> None:
    exchange, upstream = opened.exchange()
    await exchange.aclose(is_answered=True)
    await trio.sleep(29)
    assert opened.pool.idle_connections == 1
    await trio.sleep(2)
    assert opened.pool.idle_connections == 0
    assert upstream.recv(1) == b""


async def test_the_silence_of_a_read_that_was_cancelled_does_not_close_it(
    autojump_clock: MockClock, opened: Opened
) -> None:
    exchange, upstream = opened.exchange()
    await exchange.receive(1)
    with trio.move_on_after(0.5):
        await exchange.receive(1)
    await trio.sleep(5)
    await exchange.aclose(is_answered=True)
    upstream.send(b"0\r\n\r\n")
    assert await next_body(opened.pool, upstream) == b"next"


async def test_a_cancelled_read_can_be_repeated(opened: Opened) -> None:
    exchange, upstream = opened.exchange()
    await exchange.receive(None)
    upstream.send(chunk(b"more"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await exchange.receive(None)
    assert scope.cancelled_caught
    assert await exchange.receive(None) == b"more"


async def test_closing_twice_keeps_it_once(opened: Opened) -> None:
    exchange, _ = opened.exchange()
    for _ in range(2):
        await exchange.aclose(is_answered=True)
        assert (opened.pool.active_connections, opened.pool.idle_connections) == (0, 1)


# --- TLS without sockets, to cut its records ------------------------------------------------------------------------


class TlsUpstream:
    """The upstream's end of a TLS session."""

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = server_tls().wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self, client: TlsSession) -> bytes:
        """Return what follows the handshake: session tickets."""
        outgoing, is_ready = client.handshake(None)
        while True:
            self._incoming.write(outgoing)
            with suppress(ssl.SSLWantReadError):
                self.session.do_handshake()
            if is_ready:
                return self._outgoing.read()
            outgoing, is_ready = client.handshake(self._outgoing.read())

    def encrypted(self, data: bytes, *, is_last: bool = False) -> bytes:
        """Return ``data`` encrypted, followed by the session's end if it is the last."""
        self.session.write(data)
        if is_last:
            with suppress(ssl.SSLWantReadError):
                self.session.unwrap()
        return self._outgoing.read()


def kept_over_tls(pool: Pool, stack: ExitStack) -> tuple[TlsUpstream, bytes, socket.socket]:
    """Put a connection with an unread end into the pool; return its upstream, its tickets and the upstream's socket."""
    client, upstream = TlsSession(trusting(), "localhost"), TlsUpstream()
    tickets = upstream.shake_hands(client)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stack.enter_context(theirs)
    stack.callback(ours.close)
    connection = UpstreamConnection(ours, StampedReader(), client)
    connection.begin("POST", REQUEST)
    connection.reader.feed(START)
    pool.keep(ORIGIN, connection)
    return upstream, tickets, theirs


async def test_an_encrypted_end_must_have_arrived_to_its_last_byte(opened: Opened) -> None:
    cut, has_all = 0, False
    while not has_all:
        with ExitStack() as stack:
            upstream, tickets, theirs = kept_over_tls(opened.pool, stack)
            end = tickets + upstream.encrypted(b"0\r\n\r\n")
            has_all = cut == len(end)
            theirs.send(end[:cut])
            assert (opened.pool.reuse(ORIGIN, "POST", REQUEST) is not None) is has_all
            assert opened.pool.idle_connections == 0
            cut += 1


@pytest.mark.parametrize("end", [b"", b"0\r\n", b"0\r\n\r\n"])
async def test_a_tls_session_that_ended_with_it_is_over(opened: Opened, end: bytes) -> None:
    with ExitStack() as stack:
        upstream, tickets, theirs = kept_over_tls(opened.pool, stack)
        theirs.send(tickets + upstream.encrypted(end, is_last=True))
        assert opened.pool.reuse(ORIGIN, "POST", REQUEST) is None


async def test_what_is_not_tls_is_not_an_end(opened: Opened) -> None:
    with ExitStack() as stack:
        _, _, theirs = kept_over_tls(opened.pool, stack)
        theirs.send(b"0\r\n\r\n")
        assert opened.pool.reuse(ORIGIN, "POST", REQUEST) is None


# --- over sockets ----------------------------------------------------------------------------------------------------


async def ask(transport: HeadraceTransport, up: ScriptedUpstream) -> HeadraceExchange:
    return await transport.exchange(origin_of(httpx.URL(up.url)), "POST", REQUEST, {})


async def body_of(exchange: HeadraceExchange) -> bytes:
    body = b""
    try:
        while part := await exchange.receive(None):
            body += part
    finally:
        await exchange.aclose()
    return body


class Late:
    """A step that sends ``data`` when `release` is called, which returns when it has been sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._may_send, self._has_sent = trio.Event(), trio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await self._may_send.wait()
        await exchange.send(self._data)
        self._has_sent.set()

    async def release(self) -> None:
        self._may_send.set()
        with patiently():
            await self._has_sent.wait()


secured = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


@secured
@pytest.mark.parametrize("tail", GOOD_TAILS.values(), ids=GOOD_TAILS)
async def test_an_answered_call_leaves_a_usable_connection(secure: bool, tail: bytes) -> None:
    late = Late(tail)
    tls = server_tls() if secure else None
    async with scripted_upstream(in_turn((START, late), (NEXT,)), tls=tls) as up:
        async with make_headrace(max_connections=1) as transport:
            exchange = await ask(transport, up)
            assert await exchange.receive(None) == ANSWER
            await exchange.aclose(is_answered=True)
            assert (transport.active_connections, transport.idle_connections) == (0, 1)
            await late.release()
            assert await body_of(await ask(transport, up)) == b"next"
            assert len(up.connections) == 1


@secured
@pytest.mark.parametrize("tail", [b"", b"0\r\n", *BAD_TAILS.values()], ids=["nothing", "half", *BAD_TAILS])
async def test_any_other_end_leaves_none(secure: bool, tail: bytes) -> None:
    late = Late(tail)
    tls = server_tls() if secure else None
    async with scripted_upstream(in_turn((START, late), (NEXT,)), tls=tls) as up:
        async with make_headrace(max_connections=1) as transport:
            exchange = await ask(transport, up)
            assert await exchange.receive(None) == ANSWER
            await exchange.aclose(is_answered=True)
            await late.release()
            assert await body_of(await ask(transport, up)) == b"next"
            assert len(up.connections) == 2
            await up.connection_closed()


@secured
@pytest.mark.parametrize("leave", [close(), reset()], ids=["closed", "reset"])
async def test_an_upstream_that_leaves_after_the_end_is_called_anew(secure: bool, leave: Step) -> None:
    """The one read of the pool may show the end only: then the request is sent once more (row 74)."""
    tls = server_tls() if secure else None
    async with scripted_upstream(in_turn((START, end(), leave), (NEXT,)), tls=tls) as up:
        async with make_headrace() as transport:
            exchange = await ask(transport, up)
            await exchange.aclose(is_answered=True)
            await up.connection_closed()
            assert await body_of(await ask(transport, up)) == b"next"
            assert len(up.connections) == 2


@pytest.mark.parametrize("after", [False, True])
async def test_a_call_that_is_answered_and_cancelled_at_any_step_leaks_nothing(after: bool) -> None:
    async def hold(exchange: Exchange) -> None:
        await exchange.send(START)
        if len(exchange.upstream.requests) % 2:
            await trio.sleep_forever()
        await exchange.send(end())

    async with scripted_upstream(hold) as up, make_headrace(max_connections=1) as transport:
        for step in range(1, 50):
            with trio.CancelScope() as scope:
                cancelling = CancelAt(trio.lowlevel.current_task(), scope, step, after=after)
                trio.lowlevel.add_instrument(cancelling)
                try:
                    exchange = await ask(transport, up)
                    try:
                        assert await exchange.receive(None) == ANSWER
                        with trio.move_on_after(0.01):
                            await exchange.receive(None)
                    finally:
                        await exchange.aclose(is_answered=True)
                finally:
                    trio.lowlevel.remove_instrument(cancelling)
            assert transport.active_connections == 0, f"step {step}"
            assert transport.idle_connections <= 1
            if len(up.requests) % 2 == 0:
                continue
            with patiently():
                assert await body_of(await ask(transport, up)) == ANSWER
            if not cancelling.has_hit:
                break
        assert not cancelling.has_hit
        assert step > 2
