"""Row 74: a kept connection that is closed before the first byte of a response, over both transports."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
import trio.testing
import trustme
from kit.time.patience import patiently
from kit.upstreams.opened import Marks
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    Step,
    close,
    end,
    error,
    events,
    in_turn,
    reset,
    scripted_upstream,
    sse_head,
    stall,
)
from kit.upstreams.transports import (
    MAKES,
    AnyTransport,
    Make,
    answer,
    make_headrace,
    make_httpx,
    post,
    read,
    server_tls,
    stream_of,
)
from trio.testing import MockClock

from pipeline.kernel_time import StampedReader
from stages.upstreams.transport.connection import UpstreamConnection
from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import origin_of

GOOD: tuple[Step, ...] = (sse_head(), events([b"good"]), end())

secured = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
broken = pytest.mark.parametrize("fail", [close(), reset()], ids=["closed", "reset"])


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKES[request.param]


def upstream(*scripts: tuple[Step, ...], secure: bool = False) -> AbstractAsyncContextManager[ScriptedUpstream]:
    return scripted_upstream(in_turn(*scripts), tls=server_tls() if secure else None)


@secured
@broken
async def test_the_request_is_sent_once_more_over_a_new_connection(make: Make, secure: bool, fail: Step) -> None:
    body = b'{"input": "\xf0\x9f\x98\x80"}' * 1000
    async with upstream(GOOD, (fail,), GOOD, secure=secure) as up, make(max_connections=1) as transport:
        await read(transport, post(up.url))
        assert await read(transport, post(up.url, body, headers={"x-y": "z"})) == b"good"
        _, first, second = up.requests
        assert first.body == second.body == body
        assert (first.method, first.path, first.headers) == (second.method, second.path, second.headers)
        assert second.headers["x-y"] == "z"
        assert [connection.requests for connection in up.connections] == [2, 1]
        assert (transport.active_connections, transport.idle_connections) == (0, 1)


@secured
@broken
async def test_it_is_sent_only_once_more(make: Make, secure: bool, fail: Step) -> None:
    async with upstream(GOOD, (fail,), (fail,), GOOD, secure=secure) as up, make(max_connections=1) as transport:
        await read(transport, post(up.url))
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await read(transport, post(up.url))
        assert len(up.requests) == 3
        assert (transport.active_connections, transport.idle_connections) == (0, 0)
        assert await read(transport, post(up.url)) == b"good"  # its slot is free again


@secured
@broken
async def test_a_request_over_a_new_connection_is_never_sent_again(make: Make, secure: bool, fail: Step) -> None:
    async with upstream((fail,), GOOD, secure=secure) as up, make() as transport:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await read(transport, post(up.url))
        assert len(up.requests) == 1


@secured
@pytest.mark.parametrize(
    "begun",
    [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nconte", b"\x15\x03"],
    ids=["a byte", "1xx", "half a head", "garbage"],
)
async def test_nothing_is_sent_again_when_a_byte_has_arrived(make: Make, secure: bool, begun: bytes) -> None:
    async with upstream(GOOD, (begun, close()), GOOD, secure=secure) as up, make() as transport:
        await read(transport, post(up.url))
        with pytest.raises(httpx.RemoteProtocolError):
            await read(transport, post(up.url))
        assert len(up.requests) == 2
        assert transport.active_connections == 0


@secured
async def test_nothing_is_sent_again_when_the_head_has_arrived(make: Make, secure: bool) -> None:
    async with upstream(GOOD, (sse_head(), close()), GOOD, secure=secure) as up, make() as transport:
        await read(transport, post(up.url))
        async with answer(transport, post(up.url)) as response:
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await anext(aiter(stream_of(response)))
        assert len(up.requests) == 2


def pass_time(clock: MockClock, seconds: float) -> Step:
    async def step(exchange: Exchange) -> None:
        await trio.testing.wait_all_tasks_blocked()  # the client waits for the response
        clock.jump(seconds)

    return step


async def test_nothing_is_sent_again_after_a_timeout(make: Make, mock_clock: MockClock) -> None:
    async with upstream(GOOD, (pass_time(mock_clock, 2), stall())) as up, make() as transport:
        await read(transport, post(up.url))
        with pytest.raises(httpx.ReadTimeout):
            await read(transport, post(up.url, read=1))
        assert len(up.requests) == 2


async def test_the_limits_begin_anew(make: Make, mock_clock: MockClock) -> None:
    later = pass_time(mock_clock, 0.7)
    async with upstream(GOOD, (later, close()), (later, *GOOD)) as up, make() as transport:
        await read(transport, post(up.url))
        assert await read(transport, post(up.url, read=1)) == b"good"


async def test_other_kept_connections_are_not_tried(make: Make) -> None:
    """They may be as stale as the one that failed."""
    both_are_open = trio.Event()

    async def wait_for_both(exchange: Exchange) -> None:
        if len(exchange.upstream.requests) == 2:
            both_are_open.set()
        await both_are_open.wait()

    together: tuple[Step, ...] = (wait_for_both, *GOOD)
    async with upstream(together, together, (close(),), GOOD) as up, make() as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(read, transport, post(up.url))
        assert transport.idle_connections == 2
        assert await read(transport, post(up.url)) == b"good"
        assert len(up.connections) == 3
        assert up.requests[3].connection is up.connections[2]
        # httpx would take one of the others for the second try, if they were not closed.
        assert transport.idle_connections == (1 if isinstance(transport, HttpxTransport) else 2)


async def test_connections_to_other_origins_are_left_alone() -> None:
    async with upstream(GOOD) as other, upstream(GOOD, (close(),), GOOD) as up, make_httpx() as transport:
        for url in (other.url, up.url, up.url, other.url):
            assert await read(transport, post(url)) == b"good"
        assert (len(other.connections), len(up.connections)) == (1, 2)


async def test_a_request_in_progress_is_not_disturbed_by_anothers_second_try(make: Make) -> None:
    is_retried = trio.Event()

    async def answer_slowly(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await is_retried.wait()
        await exchange.send_chunk(b"slow")
        await exchange.send(end())

    async with upstream((answer_slowly,), GOOD, (close(),), GOOD) as up, make() as transport:
        async with answer(transport, post(up.url)) as slow:
            await read(transport, post(up.url))
            assert await read(transport, post(up.url)) == b"good"
            is_retried.set()
            assert b"".join([chunk async for chunk in stream_of(slow)]) == b"slow"


async def test_a_transport_that_is_closed_sends_nothing_again(make: Make) -> None:
    async with upstream(GOOD, (stall(),), GOOD) as up:
        transport = make()
        await read(transport, post(up.url))
        failed = trio.Event()

        async def wait() -> None:
            with pytest.raises(httpx.ReadError):
                await read(transport, post(up.url))
            failed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await up.request_received(1)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
            with patiently():
                await failed.wait()
        assert len(up.requests) == 2
        assert len(up.connections) == 1


async def test_a_long_upload_over_a_connection_that_is_reset_is_sent_again(make: Make) -> None:
    """The upstream stops reading in the middle: part of the request is never written to the first connection."""
    body = bytes(range(256)) * 40_000
    uploads: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        received = b""
        while not received.endswith(b"small"):
            received += await stream.receive_some()
            if uploads and received.endswith(body):
                uploads.append(received)
                await stream.send_all(error(200, b"large"))
                return
        await stream.send_all(error(200, b"small"))
        uploads.append(await stream.receive_some(1000))

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery, make(max_connections=1) as transport:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with patiently():
            assert await read(transport, post(url, b"small")) == b"small"
            assert await read(transport, post(url, body)) == b"large"
        nursery.cancel_scope.cancel()
    first, second = uploads
    assert second.startswith(first)
    assert second.endswith(body)


async def test_a_kept_connection_that_accepts_nothing_costs_no_try() -> None:
    async with upstream(GOOD, (close(),), GOOD) as up, make_headrace() as transport:
        await read(transport, post(up.url))
        with ExitStack() as stack:
            for _ in range(2):
                ours, theirs = socket.socketpair()
                stack.enter_context(theirs)
                ours.setblocking(False)
                ours.shutdown(socket.SHUT_WR)
                transport._pool.keep(origin_of(httpx.URL(up.url)), UpstreamConnection(ours, StampedReader()))
            assert await read(transport, post(up.url)) == b"good"
        assert [connection.requests for connection in up.connections] == [2, 1]


async def test_a_new_connection_that_accepts_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial(*args: object, **settings: object) -> tuple[socket.socket, None]:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, None

    monkeypatch.setattr("stages.upstreams.transport.pool.dial", dial)
    async with make_headrace(max_connections=1) as transport:
        for _ in range(2):
            with pytest.raises(httpx.WriteError):
                await read(transport, post("http://up/"))


async def test_a_broken_tls_session_is_not_a_closed_connection() -> None:
    async def break_session(exchange: Exchange) -> None:
        assert isinstance(exchange.stream, trio.SSLStream)
        await exchange.stream.transport_stream.send_all(b"no TLS record at all")

    async with upstream(GOOD, (break_session, stall()), GOOD, secure=True) as up, make_headrace() as transport:
        await read(transport, post(up.url))
        with pytest.raises(httpx.ReadError):
            await read(transport, post(up.url))
        assert len(up.requests) == 2


@secured
async def test_the_points_of_both_tries_are_marked(secure: bool) -> None:
    marks = Marks()
    async with upstream(GOOD, (close(),), GOOD, secure=secure) as up, make_headrace() as transport:
        origin, data = origin_of(httpx.URL(up.url)), b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        first = await transport.exchange(origin, "POST", data, {}, marks)
        while await first.receive(None):
            pass
        connecting = ["upstream_resolved", "upstream_connected", *(["upstream_secured"] if secure else [])]
        assert marks == ["upstream_slot", *connecting, "upstream_sent"]
        marks.clear()
        second = await transport.exchange(origin, "POST", data, {}, marks)
        await second.aclose()
        assert marks == ["upstream_slot", "upstream_sent", *connecting, "upstream_sent"]


@secured
async def test_httpx_marks_what_it_reports(secure: bool) -> None:
    async with upstream(GOOD, (close(),), GOOD, secure=secure) as up, make_httpx() as transport:
        reached: list[Marks] = []
        for _ in range(2):
            request = post(up.url)
            reached.append(Marks())
            request.extensions["mark"] = reached[-1]
            await read(transport, request)
        connecting = ["upstream_connected", *(["upstream_secured"] if secure else [])]
        fresh = ["upstream_slot", *connecting, "upstream_sent"]
        assert reached == [fresh, ["upstream_slot", "upstream_sent", *fresh]]


async def tunnel(client: trio.SocketStream) -> None:
    """Be a proxy for one request with CONNECT."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await client.receive_some(1)
    port = head.split()[1].rpartition(b":")[2]

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async with client, await trio.open_tcp_stream("127.0.0.1", int(port)) as upstream:
        await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, upstream, client)
            await copy(client, upstream)
            nursery.cancel_scope.cancel()


async def test_through_a_tunnel_the_points_are_those_of_the_upstream() -> None:
    """The request to the proxy is part of connecting."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    steps: list[str] = []

    async def trace(event: str, info: object) -> None:
        steps.append(event)

    marks = Marks()
    async with upstream(GOOD, secure=True) as up, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, tunnel, listeners)
        async with make_httpx(proxy=proxy) as transport:
            request = post(up.url)
            request.extensions |= {"mark": marks, "trace": trace}
            with patiently():
                assert await read(transport, request) == b"good"
        nursery.cancel_scope.cancel()
    assert marks == ["upstream_slot", "upstream_connected", "upstream_secured", "upstream_sent"]
    assert steps.count("http11.send_request_body.complete") == 2  # callers see both requests


# --- HTTP/2 ----------------------------------------------------------------------------------------------------------

Respond = Callable[["Http2Connection", int], Awaitable[None]]


class Http2Connection:
    """The upstream's end of a connection over HTTP/2, which calls ``respond`` for each request."""

    def __init__(self, stream: trio.abc.Stream, respond: Respond) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._respond = respond

    async def serve(self) -> None:
        self.h2.initiate_connection()
        await self.flush()
        try:
            while data := await self.stream.receive_some(65536):
                for event in self.h2.receive_data(data):
                    if isinstance(event, h2.events.StreamEnded):
                        await self._respond(self, event.stream_id)
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    def send_good(self, stream_id: int) -> None:
        self.h2.send_headers(stream_id, [(":status", "200")])
        self.h2.send_data(stream_id, b"good", end_stream=True)


async def asked_over_http2(respond: Respond, ask: Callable[[AnyTransport, str], Awaitable[None]]) -> int:
    """Serve, ask, and return the number of connections."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context()
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)
    server.set_alpn_protocols(["h2"])
    listeners = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
    connections: list[Http2Connection] = []

    async def serve(stream: trio.abc.Stream) -> None:
        connections.append(Http2Connection(stream, respond))
        await connections[-1].serve()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with HttpxTransport(ssl_context=client, http2=True) as transport:
            with patiently():
                await ask(transport, f"https://localhost:{port}/")
            assert transport.active_connections == 0
        nursery.cancel_scope.cancel()
    return len(connections)


async def test_over_http2_a_closed_connection_is_replaced_too() -> None:
    requests: list[int] = []

    async def respond(connection: Http2Connection, stream_id: int) -> None:
        requests.append(stream_id)
        if len(requests) == 2:
            await connection.stream.aclose()
        else:
            connection.send_good(stream_id)

    async def ask(transport: AnyTransport, url: str) -> None:
        for _ in range(2):
            assert await read(transport, post(url)) == b"good"

    assert await asked_over_http2(respond, ask) == 2
    assert len(requests) == 3


async def test_over_http2_a_request_that_is_refused_is_not_sent_again() -> None:
    """Both requests are refused in one read: one task reads what concerns the other."""
    waiting: list[int] = []
    requests: list[int] = []

    async def respond(connection: Http2Connection, stream_id: int) -> None:
        requests.append(stream_id)
        if len(requests) == 1:
            connection.send_good(stream_id)
            return
        waiting.append(stream_id)
        if len(waiting) == 2:
            for refused in waiting:
                connection.h2.reset_stream(refused)

    async def ask(transport: AnyTransport, url: str) -> None:
        assert await read(transport, post(url)) == b"good"

        async def refused() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(transport, post(url))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(refused)

    assert await asked_over_http2(respond, ask) == 1
    assert len(requests) == 3
