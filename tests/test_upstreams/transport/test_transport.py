"""Both transports against scripted upstreams over real sockets: results, errors, and connections kept."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import AsyncGenerator

import httpx
import pytest
import trio
import trio.testing
from kit.time.cancel_at import CancelAt
from kit.time.patience import AT_ONCE_S, PATIENCE_S, patiently
from kit.upstreams.names import SEVERAL, Names
from kit.upstreams.opened import Marks
from kit.upstreams.scripted import (
    Exchange,
    Step,
    close,
    end,
    error,
    events,
    full_backlog,
    head,
    in_turn,
    pieces,
    reset,
    scripted_upstream,
    sse,
    sse_head,
    stall,
    wait,
)
from kit.upstreams.transports import MAKES, Make, answer, post, read, server_tls, stream_of, trusting

from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.resolve import AddrInfo, Resolver
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import HeadraceTransport, origin_of

EVENTS = [{"type": "response.output_text.delta", "delta": f"word {n} é"} for n in range(20)]
STREAM = b"".join(map(sse, EVENTS))
GOOD: tuple[Step, ...] = (sse_head(), events(EVENTS), end())


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKES[request.param]


async def read_until_error(response: httpx.Response) -> tuple[bytes, httpx.HTTPError | None]:
    got = b""
    try:
        async for chunk in stream_of(response):
            got += chunk
    except httpx.HTTPError as error:
        return got, error
    return got, None


def sockets_open() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(1 for link in links if link.startswith("socket:"))


# --- requests --------------------------------------------------------------------------------------------------------


async def test_the_request_arrives_unchanged(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        body = await read(
            transport, post(f"{up.url}/v1/responses?a=b%20c", b'{"x":1}', headers=[(b"x-y", "é".encode())])
        )
        (request,) = up.requests
        assert (request.method, request.path, request.json()) == ("POST", "/v1/responses?a=b%20c", {"x": 1})
        assert request.headers["content-length"] == "7"
        assert request.headers["host"] == up.url.removeprefix("http://")
        assert request.headers["x-y"].encode("latin-1") == "é".encode()
    assert body == STREAM


async def test_a_streamed_request_body_arrives_whole(make: Make) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        yield b"one "
        yield b"two"

    async with scripted_upstream(*GOOD) as up, make() as transport:
        await read(transport, httpx.Request("POST", up.url, content=parts()))
        await read(transport, httpx.Request("POST", up.url, content=parts(), headers={"content-length": "7"}))
        assert [request.body for request in up.requests] == [b"one two", b"one two"]


@pytest.mark.parametrize("value", ["sk-SECRET\n", "sk-SECRET\r\nx: y", "sk-\0SECRET"])
async def test_a_header_that_could_be_read_as_two_is_refused_before_anything_is_sent(value: str) -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await read(transport, post(up.url, headers={"authorization": value}))
        assert "SECRET" not in str(caught.value)
        assert str(caught.value) == (
            "the value of the request header authorization contains characters that cannot be sent"
        )
        assert up.connections == []


async def test_names_targets_and_methods_are_checked_too() -> None:
    async with HeadraceTransport() as transport:
        for request in (
            post("http://127.0.0.1:1/", headers={"a b": "x"}),
            httpx.Request("GET /x", "http://127.0.0.1:1/"),
            httpx.Request("CONNECT", "http://127.0.0.1:1/"),
        ):
            with pytest.raises(httpx.LocalProtocolError):
                await transport.handle_async_request(request)
        with pytest.raises(httpx.UnsupportedProtocol):
            await transport.handle_async_request(post("ftp://127.0.0.1/"))


async def test_a_large_body_is_sent_whole_to_a_slow_reader(make: Make) -> None:
    body = os.urandom(8_000_000)
    async with scripted_upstream(*GOOD) as up, make() as transport:
        assert await read(transport, post(up.url, body)) == STREAM
        assert up.requests[0].body == body
        assert await read(transport, post(up.url, b"again")) == STREAM
        assert len(up.connections) == 1


async def test_an_answer_before_the_end_of_the_upload_is_returned(make: Make) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.stream.receive_some(1000)
        await exchange.send(error(413, b'{"error":"too large"}'))
        await trio.sleep(0.05)
        if isinstance(transport, HttpxTransport):
            exchange.close()  # httpx reads an answer only when it can write no more

    async with scripted_upstream(refuse, reads=False) as up, make() as transport:
        async with answer(transport, post(up.url, bytes(30_000_000))) as response:
            assert response.status_code == 413
            assert await read_until_error(response) == (b'{"error":"too large"}', None)
        assert transport.idle_connections == 0  # half of the request was never sent


async def test_a_request_of_which_the_upstream_has_read_only_a_part_is_not_marked_as_sent() -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.stream.receive_some(1000)
        await exchange.send(error(413))
        await trio.sleep_forever()

    marks = Marks()
    async with scripted_upstream(refuse, reads=False) as up, HeadraceTransport() as transport:
        origin = origin_of(httpx.URL(up.url))
        exchange = await transport.exchange(origin, "POST", bytes(30_000_000), {}, marks)
        assert exchange.status == 413
        await exchange.aclose(is_answered=True)
        assert transport.idle_connections == 0
    assert marks == ["upstream_slot", "upstream_resolved", "upstream_connected"]


async def test_an_upstream_that_does_not_read_is_a_write_timeout(make: Make) -> None:
    async with scripted_upstream(stall(), reads=False) as up, make() as transport:
        with pytest.raises(httpx.WriteTimeout):
            await read(transport, post(up.url, bytes(30_000_000), write=0.1))
        assert transport.active_connections == 0


# --- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        (sse_head(), events(EVENTS), end()),
        (sse_head(), events(EVENTS, per="write"), end()),
        (sse_head(length=len(STREAM)), STREAM),
        (sse_head(until_close=True), STREAM, close()),
        (b"HTTP/1.0 200 OK\r\n\r\n", STREAM, close()),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", *GOOD),
        (sse_head(), b"%x;note=1\r\n%b\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(STREAM), STREAM)),
    ],
    ids=["chunk per event", "chunk per write", "length", "until close", "HTTP/1.0", "1xx first", "trailer"],
)
@pytest.mark.parametrize("secure", [False, True])
async def test_every_framing_gives_the_same_body(make: Make, script: tuple[Step, ...], secure: bool) -> None:
    async with scripted_upstream(*script, tls=server_tls() if secure else None) as up, make() as transport:
        assert await read(transport, post(up.url)) == STREAM
        assert transport.active_connections == 0


async def test_one_byte_at_a_time_gives_the_same_body(make: Make) -> None:
    raw = sse_head() + b"".join(b"%x\r\n%b\r\n" % (len(sse(e)), sse(e)) for e in EVENTS) + b"0\r\n\r\n"
    async with scripted_upstream(pieces(raw, 1)) as up, make() as transport:
        assert await read(transport, post(up.url)) == STREAM
        assert transport.idle_connections == 1


async def test_one_read_returns_everything_that_the_socket_had_in_one_piece() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(sse(e)), sse(e)) for e in EVENTS)
    async with scripted_upstream(sse_head() + chunks + end(), wait(0)) as up, HeadraceTransport() as transport:
        async with answer(transport, post(up.url)) as response:
            assert [chunk async for chunk in stream_of(response)] == [STREAM]


async def test_responses_without_a_body_end_at_once(make: Make) -> None:
    async with scripted_upstream(head(204)) as up, make() as transport:
        assert await read(transport, post(up.url)) == b""
        assert await read(transport, post(up.url)) == b""
        assert len(up.connections) == 1
    async with scripted_upstream(head(200, [("content-length", "5")])) as up, make() as transport:
        assert await read(transport, httpx.Request("HEAD", up.url)) == b""


async def test_a_redirect_is_not_followed(make: Make) -> None:
    redirect = head(302, [("location", "http://127.0.0.1:1/"), ("content-length", "0")])
    async with scripted_upstream(redirect) as up, make() as transport:
        async with answer(transport, post(up.url)) as response:
            assert (response.status_code, response.headers["location"]) == (302, "http://127.0.0.1:1/")
        assert len(up.requests) == 1


BAD_HEADS = {
    "garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "HTTP/2 preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
    "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"y" * 200_000,
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x-filler: yyyyyyyyyyyyy\r\n" * 8000 + b"\r\n",
}


@pytest.mark.parametrize("raw", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_head_that_is_not_http_is_a_remote_protocol_error(make: Make, raw: bytes) -> None:
    async with scripted_upstream(raw, stall()) as up, make() as transport:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(transport, post(up.url))
        await up.connection_closed()
        assert transport.active_connections == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3000,
    ],
    ids=["length and chunks", "transfer coding", "upgrade", "folded header", "endless 1xx"],
)
async def test_ours_is_strict_where_httpx_is_not(raw: bytes) -> None:
    async with scripted_upstream(raw, stall()) as up, HeadraceTransport() as transport:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(transport, post(up.url))
        await up.connection_closed()


BROKEN: dict[str, tuple[tuple[Step, ...], tuple[type[httpx.HTTPError], ...]]] = {
    "closed before the head": ((close(),), (httpx.RemoteProtocolError, httpx.ReadError)),
    "closed within the head": ((b"HTTP/1.1 200 OK\r\nconte", close()), (httpx.RemoteProtocolError,)),
    "reset before the head": ((reset(),), (httpx.ReadError,)),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_upstream_that_breaks_off_before_the_head(make: Make, name: str) -> None:
    script, expected = BROKEN[name]
    async with scripted_upstream(*script) as up, make() as transport:
        with pytest.raises(expected):
            await read(transport, post(up.url))
        assert (transport.active_connections, transport.idle_connections) == (0, 0)


MID_STREAM: dict[str, tuple[tuple[Step, ...], type[httpx.HTTPError]]] = {
    "closed between chunks": ((sse_head(), b"2\r\nab\r\n", close()), httpx.RemoteProtocolError),
    "closed within a chunk": ((sse_head(), b"2\r\nab\r\n9\r\nabc", close()), httpx.RemoteProtocolError),
    "closed before its length": ((sse_head(length=99), b"ab", close()), httpx.RemoteProtocolError),
    "bad chunk size": ((sse_head(), b"2\r\nab\r\nzz\r\n", stall()), httpx.RemoteProtocolError),
    "reset": ((sse_head(), b"2\r\nab\r\n", wait(0.03), reset()), httpx.ReadError),
}


@pytest.mark.parametrize("name", MID_STREAM)
async def test_data_before_a_break_in_the_stream_is_returned(make: Make, name: str) -> None:
    script, expected = MID_STREAM[name]
    async with scripted_upstream(*script) as up, make() as transport:
        async with answer(transport, post(up.url)) as response:
            got, failure = await read_until_error(response)
        assert got[:2] == b"ab"
        assert type(failure) is expected
        await up.connection_closed()
        assert (transport.active_connections, transport.idle_connections) == (0, 0)


async def test_framing_without_a_body_cannot_be_endless() -> None:
    async def flood(exchange: Exchange) -> None:
        await exchange.send(sse_head() + b"2\r\nab\r\n0\r\n")
        while True:
            await exchange.send(b"x-trailer: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000)

    async with scripted_upstream(flood) as up, HeadraceTransport() as transport:
        with pytest.raises(httpx.RemoteProtocolError, match="65536 bytes of the response without a body"):
            await read(transport, post(up.url))


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_a_head_that_does_not_arrive_is_a_read_timeout(make: Make) -> None:
    async with scripted_upstream(stall()) as up, make() as transport:
        started = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            await read(transport, post(up.url, read=0.1))
        assert 0.1 <= trio.current_time() - started < AT_ONCE_S
        await up.connection_closed()


async def test_a_head_that_trickles_is_a_read_timeout(make: Make) -> None:
    async def trickle(exchange: Exchange) -> None:
        while True:
            await exchange.send(b"HTTP/1.1 200 OK\r\nx: " if exchange.request.body else b"")
            exchange.request.body = b""
            await exchange.send(b"y")
            await trio.sleep(0.02)

    async with scripted_upstream(trickle) as up, make() as transport:
        started = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            await read(transport, post(up.url, read=0.1))
        assert trio.current_time() - started < AT_ONCE_S


async def test_the_read_limit_may_change_between_reads_and_counts_from_each(make: Make) -> None:
    script = (sse_head(), events([b"a"] * 6, gap_s=0.25), stall())
    async with scripted_upstream(*script) as up, make() as transport:
        request = post(up.url)
        started = trio.current_time()
        async with answer(transport, request) as response:
            request.extensions["timeout"]["read"] = 1
            got, failure = await read_until_error(response)
        assert got == b"aaaaaa"
        assert type(failure) is httpx.ReadTimeout
        assert trio.current_time() - started > 5 * 0.25 + 1


async def test_time_spent_outside_of_reads_does_not_count(make: Make) -> None:
    async with scripted_upstream(sse_head(), events([b"a"]), wait(0.02), events([b"b"]), end()) as up:
        async with make() as transport:
            got = b""
            async with answer(transport, post(up.url, read=0.5)) as response:
                async for chunk in stream_of(response):
                    got += chunk
                    await trio.sleep(0.6)
            assert got == b"ab"


async def test_a_port_without_a_listener_is_a_connect_error(make: Make) -> None:
    with socket.socket() as bound:  # bound, so that no other process can take the port, and not listening
        bound.bind(("127.0.0.1", 0))
        async with make() as transport:
            with pytest.raises(httpx.ConnectError):
                await read(transport, post(f"http://127.0.0.1:{bound.getsockname()[1]}/"))


async def test_an_upstream_that_does_not_accept_is_a_connect_timeout(make: Make) -> None:
    with full_backlog() as port:
        async with make() as transport:
            before = sockets_open()
            with pytest.raises(httpx.ConnectTimeout):
                await read(transport, post(f"http://127.0.0.1:{port}/", connect=0.1))
            assert sockets_open() == before


async def test_row_4_a_handshake_that_hangs_is_a_connect_timeout_and_its_socket_is_closed(make: Make) -> None:
    """A handshake that hangs leaves no socket open."""
    async with scripted_upstream(stall(), reads=False) as up, make() as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await read(transport, post(up.url.replace("http://", "https://"), connect=0.1))
        assert transport.active_connections == 0


# --- names and TLS ---------------------------------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve_is_a_connect_error(make: Make) -> None:
    async with make(resolver=Resolver(Names())) as transport:
        with pytest.raises(httpx.ConnectError):
            await read(transport, post("http://no.such.name/"))


async def test_a_name_that_resolves_slowly_is_a_connect_timeout(make: Make) -> None:
    names = Names(is_dead=True)
    async with make(resolver=Resolver(names)) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await read(transport, post("http://slow.name/", connect=0.05))
    names.answers.set()


async def test_a_dead_first_address_does_not_matter(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make(resolver=Resolver(Names(*SEVERAL))) as transport:
        port = up.url.rpartition(":")[2]
        assert await read(transport, post(f"http://many.addresses:{port}/")) == STREAM


async def test_a_hanging_first_address_costs_a_quarter_of_a_second() -> None:
    with full_backlog() as hanging:
        async with scripted_upstream(*GOOD) as up:
            good = int(up.url.rpartition(":")[2])

            class TwoPorts(Resolver):
                async def addresses(self, host: str, port: int) -> list[AddrInfo]:
                    found = [("127.0.0.1", hanging), ("127.0.0.1", good)]
                    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

            transport = HeadraceTransport(resolver=TwoPorts())
            before = sockets_open()
            started = trio.current_time()
            assert await read(transport, post("http://two.addresses/")) == STREAM
            assert 0.25 <= trio.current_time() - started < AT_ONCE_S
            assert sockets_open() == before + 2  # one connection, both of its ends
            await transport.aclose()


async def test_tls_connections_are_kept_despite_session_tickets(make: Make) -> None:
    async with scripted_upstream(*GOOD, tls=server_tls()) as up, make() as transport:
        for _ in range(3):
            assert await read(transport, post(up.url)) == STREAM
        assert len(up.connections) == 1
        assert up.requests[2].connection.requests == 3


async def test_a_long_tls_exchange_arrives_whole(make: Make) -> None:
    body = os.urandom(3_000_000)

    async def echo(exchange: Exchange) -> None:
        await exchange.send(sse_head(length=len(body)) + exchange.request.body)

    async with scripted_upstream(echo, tls=server_tls()) as up, make() as transport:
        assert await read(transport, post(up.url, body)) == body


@pytest.mark.parametrize("server", ["unknown authority", "other name", "no TLS"])
async def test_a_server_that_fails_tls_verification_is_a_connect_error(make: Make, server: str) -> None:
    tls = {"unknown authority": server_tls(), "other name": server_tls("example.com"), "no TLS": None}[server]
    async with scripted_upstream(b"HTTP/1.1 400 Bad Request\r\n\r\n", close(), tls=tls, reads=False) as up:
        context = client_context() if server == "unknown authority" else trusting()
        async with make(ssl_context=context) as transport:
            with pytest.raises(httpx.ConnectError):
                await read(transport, post(f"https://localhost:{up.url.rpartition(':')[2]}/"))
            assert transport.active_connections == 0


# --- the pool --------------------------------------------------------------------------------------------------------


async def test_a_connection_is_reused_when_its_response_was_read(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        for _ in range(5):
            assert await read(transport, post(up.url)) == STREAM
        assert len(up.connections) == 1
        assert (transport.active_connections, transport.idle_connections) == (0, 1)


async def test_a_half_read_connection_is_closed_at_once_and_never_reused(make: Make) -> None:
    async with scripted_upstream(sse_head(), events([b"a"]), stall()) as up, make() as transport:
        async with answer(transport, post(up.url)) as response:
            async for _ in stream_of(response):
                break
        left_at = trio.current_time()
        closed = await up.connection_closed()
        assert closed.closed_at is not None
        assert closed.closed_at - left_at < AT_ONCE_S
        assert (transport.active_connections, transport.idle_connections) == (0, 0)


async def test_a_connection_is_reused_if_the_whole_body_has_arrived_but_was_not_read() -> None:
    async with scripted_upstream(error(503, b'{"a":1}')) as up, HeadraceTransport() as transport:
        for _ in range(2):
            async with answer(transport, post(up.url)) as response:
                assert response.status_code == 503
        assert await read(transport, post(up.url)) == b'{"a":1}'
        assert len(up.connections) == 1


async def test_connection_close_is_respected(make: Make) -> None:
    script = error(200, b"{}", headers=[("connection", "close")])
    async with scripted_upstream(script) as up, make() as transport:
        await read(transport, post(up.url))
        assert (await up.connection_closed()).ended == "fin"
        await read(transport, post(up.url))
        assert len(up.connections) == 2


async def test_a_connection_that_the_upstream_closed_while_idle_is_not_reused(make: Make) -> None:
    async with scripted_upstream(in_turn((*GOOD, wait(0.01), close()), GOOD)) as up, make() as transport:
        await read(transport, post(up.url))
        await up.connection_closed()
        assert await read(transport, post(up.url)) == STREAM
        assert len(up.connections) == 2


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"garbage", b"H"])
@pytest.mark.parametrize("later", [False, True])
async def test_bytes_after_the_response_are_dropped_with_the_connection(surplus: bytes, later: bool) -> None:
    good = error(200, b'{"a":1}')
    sent = trio.Event()

    async def send(exchange: Exchange) -> None:
        await exchange.send(good if later else good + surplus)
        if later:
            await trio.testing.wait_all_tasks_blocked()  # the response has been read
            await exchange.send(surplus)
        sent.set()

    async with scripted_upstream(in_turn((send,), (good,))) as up, HeadraceTransport() as transport:
        assert await read(transport, post(up.url)) == b'{"a":1}'
        with patiently():
            await sent.wait()
        assert await read(transport, post(up.url)) == b'{"a":1}'
        assert len(up.connections) == 2


async def test_idle_connections_are_closed_when_they_expire() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport(idle_expiry_s=0.5) as transport:
        await read(transport, post(up.url))
        assert transport.idle_connections == 1
        closed = await up.connection_closed()
        assert transport.idle_connections == 0
        assert closed.closed_at is not None
        assert 0.5 <= closed.closed_at - up.requests[0].at < AT_ONCE_S


async def test_no_more_connections_are_kept_than_allowed() -> None:
    async with scripted_upstream(sse_head(), wait(0.02), end()) as up, HeadraceTransport(max_idle=2) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read, transport, post(up.url))
        assert len(up.connections) == 5
        assert transport.idle_connections == 2


async def test_a_full_pool_makes_calls_wait_and_then_refuses_them(make: Make) -> None:
    async with scripted_upstream(in_turn((sse_head(), stall()), GOOD)) as up, make(max_connections=1) as transport:
        async with answer(transport, post(up.url)):
            with pytest.raises(httpx.PoolTimeout):
                await read(transport, post(up.url, pool=0.05))
        assert await read(transport, post(up.url)) == STREAM


async def test_a_free_slot_goes_to_a_waiting_call(make: Make) -> None:
    async with (
        scripted_upstream(sse_head(), wait(0.02), events([b"x"]), end()) as up,
        make(max_connections=2) as transport,
    ):
        got: list[bytes] = []

        async def one() -> None:
            got.append(await read(transport, post(up.url)))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(one)
        assert got == [b"x"] * 6
        assert len(up.connections) == 2


async def test_a_hundred_streams_at_once_do_not_mix(make: Make) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for _ in range(5):
            await exchange.send_chunk(exchange.request.body)
            await trio.sleep(0.002)
        await exchange.send(b"0\r\n\r\n")

    async with scripted_upstream(echo) as up, make() as transport:
        results: dict[int, bytes] = {}

        async def one(number: int) -> None:
            results[number] = await read(transport, post(up.url, b"stream %d." % number))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert results == {number: b"stream %d." % number * 5 for number in range(100)}
        assert transport.active_connections == 0
        assert 1 <= transport.idle_connections <= len(up.connections)


async def test_closing_the_transport_closes_every_connection_and_ends_running_reads() -> None:
    async with scripted_upstream(in_turn(GOOD, (sse_head(), stall()))) as up:
        transport = HeadraceTransport()
        await read(transport, post(up.url))
        failed = trio.Event()

        async def stuck() -> None:
            with pytest.raises(httpx.ReadError):
                await read(transport, post(up.url))
            failed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stuck)
            await up.request_received(1)
            await transport.aclose()
        assert failed.is_set()
        await up.connection_closed()
        with pytest.raises(RuntimeError, match="closed"):
            await read(transport, post(up.url))


async def test_httpx_clients_can_use_our_transport() -> None:
    async with scripted_upstream(*GOOD) as up:
        async with httpx.AsyncClient(transport=HeadraceTransport(), timeout=PATIENCE_S) as client:
            response = await client.post(up.url, json={"a": 1})
            assert response.content == STREAM
            async with client.stream("POST", up.url, content=b"x") as streamed:
                assert b"".join([chunk async for chunk in streamed.aiter_raw()]) == STREAM


# --- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("scenario", ["fresh", "kept", "stale", "tls", "contended", "upload", "named"])
async def test_rows_4_35_60_cancelling_at_any_step_leaks_nothing(make: Make, scenario: str, after: bool) -> None:
    """A request is cancelled at any step of a connect, a handshake, an upload or a read: no socket is left."""
    body = bytes(6_000_000) if scenario == "upload" else b"{}"
    tls = server_tls() if scenario == "tls" else None

    async def close_if_stale(exchange: Exchange) -> None:
        if scenario == "stale" and exchange.request.connection.requests > 1:
            exchange.close()

    script = (close_if_stale, sse_head(), events([b"one", b"two"], gap_s=0.001), end())
    async with scripted_upstream(*script, tls=tls) as up:
        url = up.url
        resolver = Resolver(Names(*SEVERAL))
        if scenario == "named":
            url = url.replace("127.0.0.1", "many.addresses")
        context = trusting()
        outside = sockets_open()
        for step in range(1, 200):
            limit = 1 if scenario == "contended" else None
            transport = make(ssl_context=context, max_connections=limit, resolver=resolver)
            async with transport:
                if scenario in {"kept", "stale"}:
                    await read(transport, post(url))
                async with trio.open_nursery() as nursery:
                    if scenario == "contended":
                        nursery.start_soon(read, transport, post(url))
                        await trio.sleep(0)
                    with trio.CancelScope() as scope:
                        instrument = CancelAt(trio.lowlevel.current_task(), scope, step, after=after)
                        trio.lowlevel.add_instrument(instrument)
                        try:
                            await read(transport, post(url, body))
                        finally:
                            trio.lowlevel.remove_instrument(instrument)
                assert transport.active_connections == 0, f"step {step}"
                assert transport.idle_connections <= 1
                with patiently():  # and the pool still works
                    assert await read(transport, post(url)) == b"onetwo"
            with patiently():
                while up.open_connections or sockets_open() > outside:
                    await trio.sleep(0.001)
            if not instrument.has_hit:
                break
        assert not instrument.has_hit
        assert step > 2
    gc.collect()
