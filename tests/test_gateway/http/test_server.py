"""The life of a server process: start, limits, drain, hard stop, TLS, and a real framework on it."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
from time import perf_counter_ns
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.raw import RESET, RawClient, get, limits, serving
from kit.service.certificates import Certificate, issue
from kit.time.patience import AT_ONCE_S, patiently
from kit.time.stamps import hold_the_loop, is_between
from quart import ResponseReturnValue, request
from quart_trio import QuartTrio

from pipeline.gateway.failures import refusal
from pipeline.gateway.http.asgi import REQUEST_CYCLE
from pipeline.gateway.http.request_cycle import RequestCycle
from pipeline.gateway.http.server import StartupError, hypercorn_config, serve
from pipeline.gateway.http.sockets import bind_socket

START = {"type": "http.response.start", "status": 200, "headers": []}
REQUEST = b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n"


class Streams:
    """An application that streams until `end` is set; any path other than /stream is answered at once."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.end = trio.Event()
        self.cancelled = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send(START)
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            self.started.set()
            try:
                await self.end.wait()
            except trio.Cancelled:
                self.cancelled += 1
                with trio.CancelScope(shield=True):
                    await send({"type": "http.response.body", "body": b"cancelled", "more_body": False})
                raise
        await send({"type": "http.response.body", "body": b"ended", "more_body": False})

    async def open(self, address: tuple[str, int]) -> RawClient:
        client = await RawClient.open(address)
        await client.send(REQUEST)
        await client.read_until(b"begun\r\n")
        return client


# Limits.


async def test_row_52_a_connection_beyond_the_limit_is_answered_with_503() -> None:
    """There are more connections than `max_connections`: 503 `too_many_connections` with Retry-After."""
    app = Streams()
    async with serving(app, max_connections=2) as served:
        async with await RawClient.open(served.address) as one, await RawClient.open(served.address) as two:
            assert (await one.ask()).status == 200
            assert (await two.ask()).status == 200
            async with await RawClient.open(served.address) as three:
                await three.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                answer = await three.read_answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "2")
                assert json.loads(answer.body)["error"]["code"] == "too_many_connections"
                assert await three.read_to_end() == (b"", "fin")
            assert (await one.ask()).status == 200
        with patiently():
            while (await get(served.address)).status != 200:
                await trio.sleep(0.01)


async def test_row_53_running_out_of_file_descriptors_is_survived_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No file descriptor is left to accept with: logged once, and served again as soon as there is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(Streams(), keep_alive_timeout_s=60, header_timeout_s=60) as served:
        clients = [socket.create_connection(served.address) for _ in range(30)]
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 10, hard))
        try:
            with caplog.at_level(logging.ERROR, "headrace.server"), patiently():
                while not caplog.records:
                    await trio.sleep(0.01)
                await trio.sleep(0.35)  # for more attempts, which are not logged
            assert [record.getMessage() for record in caplog.records] == [
                "cannot accept connections: Too many open files; raise the limit of open files (ulimit -n) "
                "or lower max_connections"
            ]
            for unused in clients[:25]:
                unused.close()
            async with RawClient(
                trio.SocketStream(last := trio.socket.from_stdlib_socket(clients[-1])), last
            ) as accepted:
                assert (await accepted.ask()).status == 200
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for client in clients:
                client.close()


# Drain.


async def is_refused(address: tuple[str, int]) -> None:
    """Connect until nobody listens anymore."""
    with patiently():
        while True:
            try:
                (await RawClient.open(address)).close()
            except OSError:  # refused, or reset if it came in between
                return


async def test_a_drain_lets_streams_finish_and_closes_connections_that_stay_idle() -> None:
    app = Streams()
    calls: list[str] = []
    async with serving(app, drain_idle_s=0.1, on_shutdown=lambda: calls.append("shutdown")) as served:
        async with await app.open(served.address) as stream, await RawClient.open(served.address) as idle:
            await idle.ask()
            served.shutdown.set()
            assert await idle.read_to_end() == (b"", "fin")
            with pytest.raises(OSError, match="refused"):
                await RawClient.open(served.address)
            assert not served.ended.is_set()
            app.end.set()
            assert (await stream.read_to_end()) == (b"5\r\nended\r\n0\r\n\r\n", "fin")
        with patiently():
            await served.ended.wait()
    assert calls == ["shutdown"]


async def test_a_request_on_a_connection_that_idles_in_a_drain_is_served_and_the_connection_closed() -> None:
    app = Streams()
    async with (
        serving(app, drain_idle_s=60) as served,
        await RawClient.open(served.address) as idle,
        await RawClient.open(served.address) as fresh,
        await app.open(served.address) as stream,
    ):
        assert (await idle.ask()).headers.get("connection") is None
        served.shutdown.set()
        await is_refused(served.address)
        for client in (idle, fresh):
            answer = await client.ask()
            assert (answer.body, answer.headers["connection"]) == (b"ended", "close")
            assert await client.read_to_end() == (b"", "fin")
        app.end.set()
        assert await stream.read_exactly(15) == b"5\r\nended\r\n0\r\n\r\n"
        answer = await stream.ask()  # its response had begun before the drain, and did not say that it is the last
        assert (answer.body, answer.headers["connection"]) == (b"ended", "close")


async def test_a_connection_that_idles_is_closed_at_the_drain_deadline_and_is_not_called_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(Streams(), drain_idle_s=60, graceful_timeout_s=0.1) as served:
        async with await RawClient.open(served.address) as idle:
            await idle.ask()
            served.shutdown.set()
            assert await idle.read_to_end() == (b"", "fin")
    assert not caplog.records


async def test_a_server_that_retires_drains_at_once_and_is_ready_to_the_end() -> None:
    app, retire = Streams(), trio.Event()
    calls: list[Any] = []
    async with serving(
        app,
        shutdown_delay_s=60,
        retire=retire,
        on_stopping=calls.append,
        on_shutdown=lambda: calls.append("shutdown"),
    ) as served:
        async with await app.open(served.address) as stream:
            retire.set()
            await trio.testing.wait_all_tasks_blocked()
            await is_refused(served.address)
            app.end.set()
            await stream.read_exactly(15)
        with patiently():
            await served.ended.wait()
    assert calls == [1]


async def test_a_server_that_retires_has_an_hour_and_is_hurried_by_a_shutdown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app, retire = Streams(), trio.Event()
    async with (
        serving(app, graceful_timeout_s=5, final_message_timeout_s=1, retire=retire) as served,
        await app.open(served.address),
    ):
        retire.set()
        began_s = trio.current_time()
        with trio.move_on_after(3000):
            await served.ended.wait()
        assert not served.ended.is_set()
        served.shutdown.set()
        await served.ended.wait()
        assert 3000 < trio.current_time() - began_s < 3010


async def test_while_the_shutdown_is_delayed_new_requests_are_served() -> None:
    async with serving(Streams(), shutdown_delay_s=60) as served:
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (await get(served.address)).status == 200
    async with serving(Streams(), shutdown_delay_s=0.1) as served:
        served.shutdown.set()
        with patiently():
            await served.ended.wait()


async def test_a_response_that_begins_during_the_drain_closes_the_connection() -> None:
    requested, release = trio.Event(), trio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            requested.set()
            await release.wait()
            await send(START)
            await send({"type": "http.response.body", "body": b"late"})

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(REQUEST)
        with patiently():
            await requested.wait()
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        answer = await client.read_answer()
        assert (answer.body, answer.headers["connection"]) == (b"late", "close")
        assert await client.read_to_end() == (b"", "fin")


async def test_row_58_a_restart_on_a_shared_socket_resets_and_cuts_nothing() -> None:
    """A new server takes over the listening socket under load: no connection is reset, and no response is cut."""
    leaving, coming = Streams(), Streams()
    listener = bind_socket("127.0.0.1", 0)
    answered, is_over = 0, trio.Event()

    async def keep_asking() -> None:
        nonlocal answered
        while not is_over.is_set():
            connected = socket.create_connection(served.address)  # with its request, before any server can run
            connected.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            sock = trio.socket.from_stdlib_socket(connected)
            async with RawClient(trio.SocketStream(sock), sock) as client:
                answer = await client.read_answer()
                assert (answer.status, answer.body) == (200, b"ended")
                assert await client.read_to_end() == (b"", "fin")
            answered += 1

    async with serving(leaving, listener=listener.dup()) as served, await leaving.open(served.address) as stream:
        async with serving(coming, listener=listener):
            with patiently():
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(keep_asking)
                    while answered < 200:
                        await trio.sleep(0.001)
                    served.shutdown.set()
                    while answered < 600:
                        await trio.sleep(0.001)
                    is_over.set()
            leaving.end.set()
            assert await stream.read_to_end() == (b"5\r\nended\r\n0\r\n\r\n", "fin")
            stream.close()  # else the server would linger
            with patiently():
                await served.ended.wait()


async def test_at_the_drain_deadline_applications_are_cancelled_and_may_send_a_final_message() -> None:
    app = Streams()
    async with serving(app, graceful_timeout_s=0.1) as served:
        async with await app.open(served.address) as client:
            served.shutdown.set()
            assert (await client.read_to_end())[0] == b"9\r\ncancelled\r\n0\r\n\r\n"
        with patiently():
            await served.ended.wait()
    assert app.cancelled == 1


async def test_at_the_drain_deadline_the_hook_ends_the_streams_itself() -> None:
    app = Streams()
    async with serving(app, graceful_timeout_s=0.1, on_drain_deadline=app.end.set) as served:
        async with await app.open(served.address) as client:
            served.shutdown.set()
            assert (await client.read_to_end()) == (b"5\r\nended\r\n0\r\n\r\n", "fin")
        with patiently():
            await served.ended.wait()
    assert app.cancelled == 0


async def test_streams_that_ignore_the_hook_are_reset() -> None:
    app = Streams()
    began = trio.current_time()
    async with serving(
        app, graceful_timeout_s=0.1, final_message_timeout_s=0.2, on_drain_deadline=lambda: None
    ) as served:
        async with await app.open(served.address) as client:
            served.shutdown.set()
            with patiently():
                await served.ended.wait()
            assert (await client.read_to_end())[1] == RESET
    assert served.ended_at - began >= 0.3


async def test_a_hard_stop_resets_everything_at_once() -> None:
    app = Streams()
    async with serving(app) as served, await app.open(served.address) as client:
        began = trio.current_time()
        served.hard_stop.set()
        assert (await client.read_to_end())[1] == RESET
        with patiently():
            await served.ended.wait()
        assert served.ended_at - began < AT_ONCE_S


async def test_a_hard_stop_ends_a_drain_at_once() -> None:
    app = Streams()
    async with serving(app) as served, await app.open(served.address):
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        served.hard_stop.set()
        with patiently():
            await served.ended.wait()
        assert served.ended_at - began < AT_ONCE_S


async def test_row_57_stalled_readers_do_not_delay_the_end() -> None:
    """The server stops while clients do not read: it ends at the drain deadline, and they are reset."""
    stuck = trio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send(START)
            stuck.set()
            await send({"type": "http.response.body", "body": b"x" * 5_000_000})

    async with serving(app, graceful_timeout_s=0.2, final_message_timeout_s=0.2, write_timeout_s=60) as served:
        async with await RawClient.open(served.address, receive_buffer_bytes=4096) as client:
            await client.send(REQUEST)
            await stuck.wait()
            began = trio.current_time()
            served.shutdown.set()
            with patiently():
                await served.ended.wait()
            assert served.ended_at - began < AT_ONCE_S
            assert (await client.read_to_end())[1] == RESET


async def test_a_failure_under_cancellation_is_logged_and_the_end_is_clean(caplog: pytest.LogCaptureFixture) -> None:
    begun = trio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while being cancelled")

    async with serving(app) as served, await RawClient.open(served.address) as client:
        await client.send(REQUEST)
        await begun.wait()
        served.hard_stop.set()
        with patiently():
            await served.ended.wait()
    assert "builtins.ValueError" in caplog.text


@pytest.mark.parametrize("moment", ["start", "body", "last"])
async def test_row_62_a_cancellation_around_any_send_closes_the_connection_cleanly(moment: str) -> None:
    """A request is cancelled around the start, a part or the end of its response: the connection is closed cleanly.

    The cancellation comes at the drain deadline, while the application is about to send.
    """
    reached = trio.Event()

    async def stop_here() -> None:
        reached.set()
        await trio.sleep_forever()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if moment == "start":
            await stop_here()
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if moment == "body":
            await stop_here()
        await send({"type": "http.response.body"})
        await stop_here()

    async with serving(app, graceful_timeout_s=0.05) as served, await RawClient.open(served.address) as client:
        await client.send(REQUEST)
        with patiently():
            await reached.wait()
        served.shutdown.set()
        rest, _ = await client.read_to_end()
        assert rest.endswith(b"0\r\n\r\n") == (moment == "last")
        with patiently():
            await served.ended.wait()


# Lifespan and frameworks.


async def test_an_application_that_does_not_start_says_why() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no such upstream"})

    settings = limits()
    started: list[list[str]] = []

    class Status:
        def started(self, value: list[str]) -> None:
            started.append(value)

    with patiently(), pytest.raises(StartupError, match=r"did not start: .*no such upstream"):
        await serve(
            app,
            hypercorn_config(settings),
            [bind_socket("127.0.0.1", 0)],
            settings,
            make_refusal=refusal,
            shutdown=trio.Event(),
            task_status=Status(),  # type: ignore[arg-type]
        )
    assert started == []


async def test_a_signal_ends_a_start_that_takes_long() -> None:
    shutdown, is_starting = trio.Event(), trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        is_starting.set()
        await trio.sleep_forever()

    listener = bind_socket("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: serve(
                app,
                hypercorn_config(limits()),
                [listener],
                limits(),
                make_refusal=refusal,
                shutdown=shutdown,
            )
        )
        await is_starting.wait()
        shutdown.set()
    assert listener.fileno() == -1


async def test_the_lifespan_surrounds_the_requests_and_its_state_reaches_them() -> None:
    seen: list[object] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            seen.append((await receive())["type"])
            scope["state"]["model"] = "m"
            await send({"type": "lifespan.startup.complete"})
            seen.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
        else:
            seen.append(scope["state"]["model"])
            seen.append((scope["scheme"], scope["client"][0], scope["server"], scope["http_version"]))
            await send(START)
            await send({"type": "http.response.body"})

    async with serving(app) as served:
        await get(served.address)
        served.shutdown.set()
        with patiently():
            await served.ended.wait()
        connection = ("http", "127.0.0.1", served.address, "1.1")
    assert seen == ["lifespan.startup", "m", connection, "lifespan.shutdown"]


async def test_quart_runs_on_it_and_notices_disconnects() -> None:
    app = QuartTrio("hello")
    requested, cancelled = trio.Event(), trio.Event()

    @app.route("/hello", methods=["GET", "POST"])
    async def hello() -> ResponseReturnValue:
        return {"hello": await request.get_data(as_text=True)}

    @app.route("/silent")
    async def silent() -> ResponseReturnValue:
        requested.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(app) as served:
        async with await RawClient.open(served.address) as client:
            for _ in range(3):
                answer = await client.ask("POST", "/hello", b"you")
                assert (answer.status, json.loads(answer.body)) == (200, {"hello": "you"})
                assert "connection" not in answer.headers
            assert (await client.ask("POST", "/nowhere", b"unread")).status == 404
            assert (await client.ask("GET", "/hello", headers="Connection: close\r\n")).headers["connection"] == "close"
            assert await client.read_to_end() == (b"", "fin")
        async with await RawClient.open(served.address) as client:
            await client.send(b"GET /silent HTTP/1.1\r\nHost: t\r\n\r\n")
            with patiently():
                await requested.wait()
        with patiently():
            await cancelled.wait()


# When a request arrived.


class Arrivals:
    """An application that answers with nothing, and keeps its requests."""

    def __init__(self) -> None:
        self.cycles: list[RequestCycle] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.cycles.append(scope["extensions"][REQUEST_CYCLE])
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})


@pytest.mark.usefixtures("kernel_stamps")
async def test_a_request_has_arrived_even_before_its_connection_is_accepted() -> None:
    app = Arrivals()
    async with serving(app) as served:
        with socket.create_connection(served.address) as connected:
            sent_ns = perf_counter_ns()
            connected.send(REQUEST)
            in_kernel_ns = perf_counter_ns()
            hold_the_loop()
            free_ns = perf_counter_ns()
            sock = trio.socket.from_stdlib_socket(connected)
            async with RawClient(trio.SocketStream(sock), sock) as client:
                assert (await client.read_answer()).status == 200
                assert (await client.ask()).status == 200
    first, second = app.cycles
    assert is_between(sent_ns, first.arrived_ns, in_kernel_ns)
    assert free_ns < first.first_read_ns == first.last_read_ns < second.first_read_ns
    assert first.arrived_ns < second.arrived_ns <= second.first_read_ns


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("tls"))


async def test_tls_serves_streams_and_notices_disconnects(certificate: Certificate) -> None:
    context, certfile, keyfile = certificate
    app = Streams()
    left = trio.Event()

    async def watched(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope.get("path") != "/watched":
            return await app(scope, receive, send)
        assert scope["scheme"] == "https"
        await receive()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                assert (await receive())["type"] == "http.disconnect"
                left.set()

            nursery.start_soon(watch)
            await send(START)
            await send({"type": "http.response.body", "body": b"x" * 20_000_000, "more_body": True})

    async with serving(watched, certfile=certfile, keyfile=keyfile, write_timeout_s=60) as served:
        async with await RawClient.open(served.address, tls=context) as client:
            assert (await client.ask(path="/a")).body == b"ended"
            assert (await client.ask(path="/b", headers="Connection: close\r\n")).body == b"ended"
            assert await client.read_to_end() == (b"", "fin")
        async with await RawClient.open(served.address, tls=context) as client:
            await client.send(b"GET /watched HTTP/1.1\r\nHost: t\r\n\r\n")
            await client.read_until(b"xxx")
            left_at = trio.current_time()
        with patiently():
            await left.wait()
        assert trio.current_time() - left_at < AT_ONCE_S
        async with await RawClient.open(served.address) as plain:
            await plain.send(REQUEST)
            assert (await plain.read_to_end())[0][:1] != b"H"
        async with await RawClient.open(served.address, tls=context) as client:
            assert (await client.ask()).status == 200


async def test_a_request_over_tls_has_no_stamp_but_times_of_its_reads(
    certificate: Certificate,
) -> None:
    context, certfile, keyfile = certificate
    app = Arrivals()
    async with serving(app, certfile=certfile, keyfile=keyfile) as served:
        async with await RawClient.open(served.address, tls=context) as client:
            before_ns = perf_counter_ns()
            for _ in range(2):
                await client.ask()
    assert [cycle.arrived_ns for cycle in app.cycles] == [0, 0]
    first, second = app.cycles
    assert before_ns < first.first_read_ns <= first.last_read_ns < second.first_read_ns <= second.last_read_ns


async def test_a_tls_client_that_stops_reading_is_reset_and_a_slow_one_gets_everything(
    certificate: Certificate,
) -> None:
    context, certfile, keyfile = certificate
    size = 1_000_000
    over = trio.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send(START)
            await send({"type": "http.response.body", "body": b"x" * size})
            over.set()

    files: dict[str, Any] = {"certfile": certfile, "keyfile": keyfile}
    async with serving(app, **files, write_timeout_s=0.3, send_buffer_bytes=8192) as served:
        async with await RawClient.open(served.address, tls=context, receive_buffer_bytes=8192) as client:
            await client.send(REQUEST)
            with patiently():
                await over.wait()
            rest, end = await client.read_to_end()
            assert end == RESET
            assert len(rest) < size
    async with serving(app, **files, write_timeout_s=1, send_buffer_bytes=8192) as served:
        async with await RawClient.open(served.address, tls=context, receive_buffer_bytes=8192) as client:
            await client.send(REQUEST)
            began = trio.current_time()
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                await trio.sleep(0.02)
                received += await client.stream.receive_some(16384)
            assert len(received) > size
            assert trio.current_time() - began > 1, "the reader was not slow"
