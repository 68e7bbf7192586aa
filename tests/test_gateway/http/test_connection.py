"""A connection over real sockets: its responses, when it ends, and what it survives."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.raw import RESET, RawClient, get, serving
from kit.time.patience import AT_ONCE_S, patiently

from pipeline.gateway.http.door import OwnAnswer

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Disconnect = Callable[[RawClient], None]

DISCONNECTING = pytest.mark.parametrize("disconnect", [RawClient.close, RawClient.reset, RawClient.half_close])


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def read_body(receive: Receive) -> bytes:
    whole = bytearray()
    while True:
        message = await receive()
        assert message["type"] == "http.request", "the client disconnected during its upload"
        whole += message["body"]
        if not message["more_body"]:
            return bytes(whole)


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer with the request, with a Content-Length, or chunked if the path is /chunked."""
    if scope["type"] != "http":
        return
    data = await read_body(receive)
    answer = json.dumps(
        {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "body": data.decode(),
        }
    ).encode()
    if scope["path"] == "/chunked":
        await send(start())
        await send(body(answer[:10], more=True))
        await send(body(b"", more=True))
        await send(body(answer[10:], more=True))
        await send(body(b""))
    else:
        await send(start(200, (b"content-length", b"%d" % len(answer))))
        await send(body(answer))


def app_of(serve_request: Callable[[dict[str, Any], Receive, Send], Awaitable[None]]) -> Any:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await serve_request(scope, receive, send)

    return app


# Responses.


async def test_a_request_is_answered_and_the_connection_persists() -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        for body_sent in (b"one", b"", b"three"):
            answer = await client.ask("POST", "/a%20b?q=1", body_sent)
            assert answer.status == 200
            assert json.loads(answer.body) == {
                "method": "POST",
                "path": "/a b",
                "query": "q=1",
                "body": body_sent.decode(),
            }
            assert answer.headers["server"] == "headrace"
            assert answer.headers["date"].endswith(" GMT")
            assert "connection" not in answer.headers


async def test_a_body_without_a_length_is_chunked() -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        answer = await client.ask(path="/chunked")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert json.loads(answer.body)["path"] == "/chunked"
        assert (await client.ask()).status == 200


async def test_a_chunked_upload_is_read_completely() -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await client.send(b"2\r\nde\r\n0\r\n\r\n")
        assert json.loads((await client.read_answer()).body)["body"] == "abcde"


async def test_a_head_that_arrives_byte_by_byte_is_read() -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        for byte in b"\r\nGET /slow HTTP/1.1\r\nHost: t\r\n\r\n":
            await client.send(bytes([byte]))
        assert json.loads((await client.read_answer()).body)["path"] == "/slow"


async def test_row_43_a_body_for_http_1_0_is_not_chunked_but_ends_with_the_connection() -> None:
    """The client speaks HTTP/1.0: a stream is not chunked, and ends with the connection."""
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        await client.send(b"GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.read_answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert json.loads(answer.body)["path"] == "/chunked"


async def test_http_1_0_may_keep_alive_if_the_length_is_known() -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.read_answer()).headers["connection"] == "keep-alive"
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.read_answer()).headers["connection"] == "close"
        assert await client.read_to_end() == (b"", "fin")


async def test_row_43_connection_close_is_honoured_at_once() -> None:
    """The client sends `Connection: close`: the connection is closed right after the response."""
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        began = trio.current_time()
        answer = await client.ask(headers="Connection: close\r\n")
        assert answer.headers["connection"] == "close"
        assert await client.read_to_end() == (b"", "fin")
        assert trio.current_time() - began < AT_ONCE_S


@pytest.mark.parametrize("path", ["/", "/chunked"])
async def test_head_gets_only_the_head(path: str) -> None:
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        assert (await client.ask("HEAD", path)).status == 200
        assert json.loads((await client.ask("GET", "/next")).body)["path"] == "/next"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start(status, (b"etag", b"x")))
        await send(body(b"must not be sent"))

    async with serving(app) as served, await RawClient.open(served.address) as client:
        for _ in range(2):
            answer = await client.ask()
            assert answer.status == status
            assert "transfer-encoding" not in answer.headers


async def test_100_continue_is_sent_when_the_application_reads_the_body() -> None:
    wanted = trio.Event()

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await wanted.wait()
        await echo(scope, receive, send)

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        with trio.move_on_after(0.05) as early:
            await client.stream.receive_some(1)
        assert early.cancelled_caught
        wanted.set()
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert json.loads((await client.read_answer()).body)["body"] == "body"


async def test_no_100_continue_for_a_request_that_is_refused() -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start(401, (b"content-length", b"2")))
        await send(body(b"no"))

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        answer = await client.read_answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (401, b"no", "close")


async def test_row_38_pipelined_requests_are_answered_in_order() -> None:
    """The client pipelines requests: they are answered in their order, each with its own response."""
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        await client.send(
            b"".join(
                b"POST /%d HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n%02d" % (number, number)
                for number in range(20)
            )
        )
        for number in range(20):
            answer = json.loads((await client.read_answer()).body)
            assert (answer["path"], answer["body"]) == (f"/{number}", f"{number:02}")


async def test_an_early_refusal_reaches_a_client_that_is_still_uploading() -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send(start(413, (b"content-length", b"5")))
        await send(body(b"large"))

    async with serving(app, linger_timeout_s=5) as served, await RawClient.open(served.address) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(90):
            await client.send(b"x" * 100_000)  # everything before the first read, as simple clients do
        answer = await client.read_answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"large", "close")
        assert await client.read_to_end() == (b"", "fin")


async def test_a_request_body_that_is_not_read_does_not_become_a_request() -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"2")))
        await send(body(scope["path"].encode()))

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(
            b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 26\r\n\r\nGET /evil HTTP/1.1\r\na: b\r\n\r\n"
        )
        await client.send(b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n")
        assert [(await client.read_answer()).body for _ in range(2)] == [b"/a", b"/b"]


async def test_the_first_bytes_are_sent_together_with_the_head() -> None:
    """One write, one segment: the receiver gets both in its first read."""
    has_read = trio.Event()

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        await trio.sleep(0.02)
        await send(body(b"first", more=True))
        await has_read.wait()
        await send(body(b""))

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await client.read_some()).endswith(b"\r\n\r\n5\r\nfirst\r\n")
        has_read.set()
        assert await client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"


# Failures of the application.


async def test_row_63_a_failure_before_the_response_is_a_500_and_its_text_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception that quotes a secret reaches the server: 500, and the text is neither shown nor logged."""

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        raise ValueError("sk-secret")

    async with serving(app) as served:
        with caplog.at_level(logging.ERROR, "headrace.server"):
            answer = await get(served.address, "/p?key=sk-secret")
        assert answer.status == 500
        assert json.loads(answer.body)["error"]["code"] == "internal_error"
        assert answer.headers["content-type"] == "application/json"
        (record,) = caplog.records
        assert "builtins.ValueError at" in record.getMessage()
        assert "test_connection.py" in record.getMessage()
        assert "sk-secret" not in record.getMessage() + answer.body.decode()


async def test_a_failure_after_the_first_byte_resets_the_connection() -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"part", more=True))
        await trio.sleep(0.01)
        raise ValueError

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        rest, end = await client.read_to_end()
        assert end == RESET
        assert not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [body(b"x")],
        [start(), start()],
        [start(99)],
        [{"type": "http.response.trailers"}],
        [start(200, (b"x", b"a\r\nb: c")), body(b"")],
        [start(200, (b"content-length", b"3")), body(b"four")],
        [start(200, (b"content-length", b"5")), body(b"four")],
        [start(200, (b"content-length", b"+5")), body(b"four")],
        [],
    ],
)
async def test_an_application_that_violates_asgi_causes_a_500(messages: list[Message]) -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async with serving(app) as served:
        assert (await get(served.address)).status == 500


# Disconnects, and when they are noticed.


class Watched:
    """An application that stays in one phase and records when ``http.disconnect`` came."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.ready = trio.Event()
        self.disconnected = trio.Event()
        self.disconnected_at = 0.0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/before":
            return await echo(scope, receive, send)
        if self.phase == "uploading":
            await receive()
            self.ready.set()
            return await self.watch(receive)
        if self.phase == "silent":
            await read_body(receive)
            self.ready.set()
            return await self.watch(receive)
        async with trio.open_nursery() as nursery:
            if self.phase != "stuck, without a receive":
                await read_body(receive)
                nursery.start_soon(self.watch, receive)
            await send(start())
            while not self.disconnected.is_set():
                if self.phase == "streaming":
                    await send(body(b"data: x\n\n", more=True))
                    self.ready.set()
                    with trio.move_on_after(0.005):
                        await self.disconnected.wait()
                else:
                    nursery.start_soon(self.get_ready)
                    await send(body(b"x" * 1_000_000, more=True))
                    if self.phase == "stuck, without a receive":
                        await self.watch(receive)

    async def get_ready(self) -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        self.ready.set()

    async def watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected_at = trio.current_time()
        self.disconnected.set()


@DISCONNECTING
@pytest.mark.parametrize("phase", ["uploading", "silent", "streaming", "stuck in a send", "stuck, without a receive"])
@pytest.mark.parametrize("before", ["", "after another request", "before a stray CRLF", "before a pipelined request"])
async def test_rows_31_32_33_37_a_disconnect_is_noticed_at_once(
    disconnect: Disconnect, phase: str, before: str
) -> None:
    """A disconnect is noticed at once in every phase, and even after bytes of a next request."""
    app = Watched(phase)
    uploading = phase == "uploading"
    async with serving(app, send_buffer_bytes=8192, write_timeout_s=60) as served:
        async with await RawClient.open(served.address, receive_buffer_bytes=8192) as client:
            if before == "after another request":
                await client.ask(path="/before")
            extra = {"before a stray CRLF": b"\r\n", "before a pipelined request": b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"}
            length = 100_000 if uploading else 5
            await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\nhello" % length)
            if not uploading:
                await client.send(extra.get(before, b""))
            with patiently():
                await app.ready.wait()
            left_at = trio.current_time()
            disconnect(client)
            with patiently():
                await app.disconnected.wait()
            assert app.disconnected_at - left_at < AT_ONCE_S


async def test_a_client_that_sends_far_ahead_is_reset() -> None:
    app = Watched("silent")
    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await client.send(b"x" * 50_000_000)
        with patiently():
            await app.disconnected.wait()


async def test_receive_returns_a_disconnect_once_the_response_is_finished() -> None:
    disconnected = trio.Event()

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        async def watch() -> None:
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            disconnected.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await send(start(200, (b"content-length", b"2")))
            await send(body(b"ok"))

    async with serving(app) as served, await RawClient.open(served.address) as client:
        for _ in range(2):
            assert (await client.ask()).body == b"ok"
        with patiently():
            await disconnected.wait()


async def test_sending_after_a_disconnect_does_nothing_and_lets_other_tasks_run() -> None:
    disconnected, enough, ended = trio.Event(), trio.Event(), trio.Event()
    sends_after_disconnect = 0

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal sends_after_disconnect
        if scope["path"] == "/other":
            return await echo(scope, receive, send)
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                disconnected.set()

            nursery.start_soon(watch)
            await send(start())
            while not enough.is_set():
                await send(body(b"x" * 1000, more=True))
                sends_after_disconnect += disconnected.is_set()
        ended.set()

    async with serving(app) as served:
        async with await RawClient.open(served.address) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await client.read_some()
        with patiently():
            await disconnected.wait()
            assert (await get(served.address, "/other")).status == 200  # while the sends go on
            enough.set()
            await ended.wait()
        assert sends_after_disconnect > 1


# Slow and stalled readers.


async def test_a_client_that_stops_reading_is_reset_at_the_write_timeout() -> None:
    gone_after_s: list[float] = []
    ended = trio.Event()

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"first", more=True))
        began = trio.current_time()
        for _ in range(100):
            await send(body(b"x" * 10_000, more=True))
        gone_after_s.append(trio.current_time() - began)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with serving(app, send_buffer_bytes=8192, write_timeout_s=0.4) as served:
        async with await RawClient.open(served.address, receive_buffer_bytes=4096) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            with patiently():
                await ended.wait()
            assert 0.4 <= gone_after_s[0] < AT_ONCE_S
            _, end = await client.read_to_end()
            assert end == RESET


async def test_a_client_that_reads_a_few_bytes_at_a_time_gets_everything() -> None:
    whole = bytes(range(256)) * 80

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(whole))

    # The window opens when half of the buffer is free: after about ten reads, in a tenth of the time limit.
    async with serving(app, send_buffer_bytes=4096, write_timeout_s=1) as served:
        async with await RawClient.open(served.address, receive_buffer_bytes=2048) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            began = trio.current_time()
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                await trio.sleep(0.01)
                chunk = await client.stream.receive_some(100)
                assert chunk, f"cut after {len(received)} bytes"
                received += chunk
            assert trio.current_time() - began > 1, "the reader was not slow"
            assert received.partition(b"\r\n\r\n")[2] == b"5000\r\n" + whole + b"\r\n0\r\n\r\n"


async def test_row_62_a_cancellation_during_a_stuck_send_cuts_no_frame_in_half() -> None:
    """A request is cancelled while the socket is full: no frame is cut in half.

    A frame that has begun is sent completely before the cancellation takes effect.
    """
    sending = trio.CancelScope()

    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(start())
        with sending:
            for _ in range(50):
                await send(body(b"x" * 50_000, more=True))
                await trio.lowlevel.checkpoint_if_cancelled()
        await send(body(b"after"))

    async with serving(app, send_buffer_bytes=8192) as served:
        async with await RawClient.open(served.address, receive_buffer_bytes=8192) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)  # the buffers are full
            sending.cancel()
            await trio.testing.wait_all_tasks_blocked(0.05)
            answer = await client.read_answer()
            assert sending.cancelled_caught
            assert answer.body == b"x" * (len(answer.body) - 5) + b"after"
            assert (len(answer.body) - 5) % 50_000 == 0
            assert len(answer.body) < 2_500_000


# Time limits.


async def test_row_44_an_idle_connection_is_closed_at_the_keep_alive_timeout() -> None:
    """A kept connection is idle: it is closed after `keep_alive_timeout_s`."""
    async with serving(echo, keep_alive_timeout_s=0.2) as served, await RawClient.open(served.address) as client:
        began = trio.current_time()
        await client.ask()
        assert await client.read_to_end() == (b"", "fin")
        assert 0.2 <= trio.current_time() - began < AT_ONCE_S


@DISCONNECTING
async def test_row_44_an_idle_client_that_leaves_frees_its_descriptor_at_once(disconnect: Disconnect) -> None:
    """An idle client leaves: its file descriptor is freed at once."""
    async with serving(echo, keep_alive_timeout_s=60) as served:
        before = len(os.listdir("/proc/self/fd"))
        clients = [await RawClient.open(served.address) for _ in range(20)]
        for client in clients:
            await client.ask()
        for client in clients:
            disconnect(client)
        ours = 20 if disconnect is RawClient.half_close else 0
        with patiently():
            while len(os.listdir("/proc/self/fd")) > before + ours:
                await trio.sleep(0.002)
        for client in clients:
            client.close()


async def test_the_keep_alive_timeout_does_not_end_a_request_that_takes_longer() -> None:
    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await trio.sleep(0.25)
        await echo(scope, receive, send)

    async with (
        serving(app_of(slow), keep_alive_timeout_s=0.1) as served,
        await RawClient.open(served.address) as client,
    ):
        await client.ask()
        began = trio.current_time()
        assert (await client.ask(path="/slow")).status == 200
        assert await client.read_to_end() == (b"", "fin")
        assert 0.25 + 0.1 <= trio.current_time() - began < AT_ONCE_S  # the idle time begins at the end of the request


async def test_a_large_request_may_follow_a_response_whose_application_still_runs() -> None:
    has_followed = trio.Event()

    async def tidy(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        if scope["path"] == "/first":
            await has_followed.wait()

    async with serving(app_of(tidy)) as served, await RawClient.open(served.address) as client:
        await client.ask(path="/first")
        large = b"x" * 300_000

        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                assert json.loads((await client.ask("POST", "/next", large)).body)["body"] == large.decode()

            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked(0.01)
            has_followed.set()


async def test_row_45_a_connection_without_a_request_is_closed() -> None:
    """The client connects and sends nothing: the connection is closed after `header_timeout_s`."""
    async with serving(echo, header_timeout_s=0.1) as served, await RawClient.open(served.address) as client:
        assert await client.read_to_end() == (b"", "fin")


@pytest.mark.parametrize("first", [True, False])
async def test_row_45_a_head_that_arrives_too_slowly_is_answered_with_408(first: bool) -> None:
    """The client sends its head too slowly: 408, and the connection is closed."""
    async with serving(echo, header_timeout_s=1) as served, await RawClient.open(served.address) as client:
        if not first:
            await client.ask()
        await client.send(b"GET / HTTP/1.1\r\n")
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await client.send(b"a: b\r\n")
                    await trio.sleep(0.05)

            nursery.start_soon(drip)
            answer = await client.read_head()
            nursery.cancel_scope.cancel()
        assert (answer.status, answer.headers["connection"]) == (408, "close")


# Hostile input: each row ends its own connection, and the process serves the next client.

HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"
POST = b"POST / HTTP/1.1\r\nHost: t\r\n"
HOSTILE: list[tuple[str, bytes, int]] = [
    (
        "CL and TE",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n",
        400,
    ),
    ("TE and CL", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("two different lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    ("two equal lengths", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("a list of lengths", POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    ("a signed length", POST + b"Content-Length: +5\r\n\r\nhello", 400),
    ("a negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("a hexadecimal length", POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    ("an underscored length", POST + b"Content-Length: 5_0\r\n\r\nhello", 400),
    ("an empty length", POST + b"Content-Length:\r\n\r\n", 400),
    ("an absurd length", POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    ("TE on HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE list", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("unknown TE", POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    ("TE with a vertical tab", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon", HEAD + b"X : 1\r\n\r\n", 400),
    ("obs-fold", HEAD + b"X: 1\r\n folded\r\n\r\n", 400),
    ("obs-fold with a tab", HEAD + b"X: 1\r\n\tfolded\r\n\r\n", 400),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: t\r\n\r\n", 400),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: t\n\n", 400),
    ("bare LF after a header", HEAD + b"X: 1\nY: 2\r\n\r\n", 400),
    ("bare CR in a header", HEAD + b"X: 1\rY: 2\r\n\r\n", 400),
    ("NUL in a header", HEAD + b"X: \x00\r\n\r\n", 400),
    ("control character in a header", HEAD + b"X: \x1b[2J\r\n\r\n", 400),
    ("empty header name", HEAD + b": 1\r\n\r\n", 400),
    ("header name with a space", HEAD + b"X Y: 1\r\n\r\n", 400),
    ("header name with a bracket", HEAD + b"X(Y): 1\r\n\r\n", 400),
    ("header name beyond ASCII", HEAD + b"X\xff: 1\r\n\r\n", 400),
    ("header without a colon", HEAD + b"nonsense\r\n\r\n", 400),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", HEAD + b"Host: u\r\n\r\n", 400),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: t/x\r\n\r\n", 400),
    ("target without a slash", b"GET x HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("target beyond ASCII", b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("target with a fragment", b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("target with a space", b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("asterisk for GET", b"GET * HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/2 by prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: t\r\n\r\n", 505),
    ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: t\r\n\r\n", 505),
    ("lower-case http", b"GET / http/1.1\r\nHost: t\r\n\r\n", 400),
    ("unknown method", b"FOO / HTTP/1.1\r\nHost: t\r\n\r\n", 501),
    ("method with a bracket", b"G[T / HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ("CONNECT", b"CONNECT t:443 HTTP/1.1\r\nHost: t\r\n\r\n", 501),
    ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    ("binary noise", bytes(range(255, 0, -1)), 400),
    ("JSON without a head", b'{"model": "x"}', 400),
    ("a long request line", b"GET /" + b"a" * 20_000, 414),
    ("a long header", HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ("many headers", HEAD + b"a: b\r\n" * 12_000, 431),
    ("chunk size that is not a number", POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ("signed chunk size", POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400),
    ("chunk size with 0x", POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    ("chunk size of 17 digits", POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    ("chunk longer than it says", POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    ("chunk line with a bare LF", POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
    ("chunk data with a bare LF", POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", 400),
    ("endless chunk extension", POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"a" * 400, 400),
    ("bad trailer", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n bad\r\n\r\n", 400),
    ("endless trailer", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2000, 400),
]


@pytest.mark.parametrize(("raw", "status"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
async def test_rows_49_50_hostile_bytes_end_only_their_own_connection(raw: bytes, status: int) -> None:
    """Ambiguous framing, garbage, HTTP/2 or TLS on a plain port: 4xx or 5xx and a close; the next client is served."""
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        await client.send(raw)
        answer = await client.read_answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        error = json.loads(answer.body)["error"]
        assert sorted(error) == ["code", "message", "param", "type"]
        assert await client.read_to_end() == (b"", "fin")
        assert (await get(served.address, "/next")).status == 200


UPGRADES: list[tuple[str, bytes]] = [
    (
        "websocket",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ),
    ("websocket and a byte", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\nX"),
    ("h2c", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
    ("h2c with bad settings", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !\r\n\r\n"),
    ("h2c with settings beyond ASCII", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \xff\r\n\r\n"),
    ("h2c without settings", b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
]


@pytest.mark.parametrize("raw", [row[1] for row in UPGRADES], ids=[row[0] for row in UPGRADES])
async def test_row_50_an_upgrade_is_ignored_and_its_request_is_served(raw: bytes) -> None:
    """The client asks for an upgrade to WebSocket or h2c: it is ignored, and the request is served."""
    async with serving(echo) as served, await RawClient.open(served.address) as client:
        await client.send(HEAD + raw)
        assert (await client.read_answer()).status == 200
        client.half_close()
        assert await client.read_to_end() == (b"", "fin")
        assert (await get(served.address, "/next")).status == 200


async def test_bad_chunks_after_the_response_has_begun_end_the_connection() -> None:
    @app_of
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            return await echo(scope, receive, send)
        await send(start())
        await send(body(b"early", more=True))
        assert (await receive())["type"] == "http.disconnect"

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await client.read_until(b"early")
        await client.send(b"zzz\r\n")
        rest, _ = await client.read_to_end()
        assert not rest.endswith(b"0\r\n\r\n")
        assert (await get(served.address, "/next")).status == 200


async def test_a_thousand_disconnects_within_a_head_leave_nothing_behind() -> None:
    app = Watched("silent")
    async with serving(app, header_timeout_s=60) as served:
        for round_ in range(10):
            clients = [await RawClient.open(served.address) for _ in range(100)]
            for number, client in enumerate(clients):
                await client.send((HEAD + b"\r\n")[: number + round_])
                client.reset() if number % 2 else client.close()
        assert (await get(served.address, "/before")).status == 200


# What is answered without the application.


async def test_a_health_check_is_answered_without_the_application_and_in_order() -> None:
    states = iter((200, 200, 503, 200))

    def state() -> OwnAnswer:
        return OwnAnswer(next(states), [(b"content-type", b"text/plain"), (b"content-length", b"5")], b"state")

    get_state = b"GET /state HTTP/1.1\r\nHost: t\r\n\r\n"
    async with serving(echo, answers={"/state": state}) as served, await RawClient.open(served.address) as client:
        answer = await client.ask(path="/state?verbose")
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"state", "text/plain")
        assert (await client.ask("HEAD", "/state")).headers["content-length"] == "5"
        await client.send(get_state + b"GET /other HTTP/1.1\r\nHost: t\r\n\r\n" + get_state)
        first, second, third = [await client.read_answer() for _ in range(3)]
        assert (first.status, third.status) == (503, 200)
        assert json.loads(second.body)["path"] == "/other"
        posted = await client.ask("POST", "/state", b"x")
        assert json.loads(posted.body)["method"] == "POST"
    async with serving(echo, answers={"/state": lambda: OwnAnswer(200, [(b"content-length", b"0")], b"")}) as served:
        async with await RawClient.open(served.address) as client:
            await client.send(b"GET /state HTTP/1.0\r\n\r\n")
            assert (await client.read_answer()).headers["connection"] == "close"
            assert await client.read_to_end() == (b"", "fin")
