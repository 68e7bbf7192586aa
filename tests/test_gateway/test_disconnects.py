"""A disconnect of any kind ends the request at once, in every phase, and nothing is left behind.

A stalled reader does not disconnect: its request ends at the write deadline, if there has been no progress.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CREATED, ask, begun, completed, delta, post_bytes, response_of
from kit.clients.raw import RawClient
from kit.service.running import Service, model, serving
from kit.time.patience import AT_ONCE_S, PATIENCE_S, patiently
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    Step,
    end,
    events,
    full_backlog,
    head,
    in_turn,
    json_answer,
    scripted_upstream,
    sse,
    sse_head,
    stall,
)

from pipeline import alarm
from pipeline.gateway.http import sockets

WRITE_TIMEOUT_S = 0.5
SMALL_BUFFER_BYTES = 4096
SO_ATTACH_FILTER = 26

LAST: tuple[Step, ...] = (
    sse_head(headers=[("connection", "close")]),
    events([CREATED, delta("Hello"), completed("Hello")]),
    end(),
)
"""A successful answer that leaves no idle connection, so that what is open before and after can be compared."""

Disconnect = Callable[[RawClient], None]
WAYS: dict[str, Disconnect] = {"FIN": RawClient.close, "RST": RawClient.reset, "half-close": RawClient.half_close}

each_way = pytest.mark.parametrize("disconnect", WAYS.values(), ids=WAYS)
each_transport = pytest.mark.parametrize("transport", ["headrace", "httpx"])


@dataclass
class World:
    """A service and its upstream, and what was open while they were idle."""

    service: Service
    upstream: ScriptedUpstream
    tasks: int
    files: int

    async def open(self, *, receive_buffer_bytes: int | None = None) -> RawClient:
        address = ("127.0.0.1", self.service.port)
        return await RawClient.open(address, receive_buffer_bytes=receive_buffer_bytes)

    async def assert_nothing_leaks(self) -> None:
        """Check that tasks, files, requests and connections are as they were before the first client."""
        clients = self.service.app.clients
        now: tuple[int, int, int, int, int] | None = None
        wanted = (self.tasks, self.files, 0, 0, 0)
        with trio.move_on_after(PATIENCE_S):
            while now != wanted:
                await trio.sleep(0.002)
                now = (
                    tasks_living(),
                    open_files(),
                    len(self.service.app.bridge.active),
                    clients.active_connections,
                    clients.idle_connections,
                )
        assert now == wanted, "tasks, files, requests, upstream connections in use and idle"

    async def assert_the_next_request_is_served(self, connections_before: int) -> None:
        """Check that it uses a connection of its own: a half-read connection is never reused."""
        async with await self.open() as client:
            await client.send(post_bytes(ask()))
            assert fold_stream((await client.read_answer()).body).content == "Hello"
        assert len(self.upstream.connections) == connections_before + 1


def tasks_living() -> int:
    """Count tasks, except those of alarms, which end 15 s after the last stream."""
    return trio.lowlevel.current_statistics().tasks_living - alarm.tasks_living()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def named_files() -> dict[str, str]:
    """Return what each open file descriptor refers to."""
    found: dict[str, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor that lists the folder is closed by now
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


@asynccontextmanager
async def world(
    *script: Step, transport: str = "headrace", write_timeout_s: float = 60, more: str = ""
) -> AsyncIterator[World]:
    """Serve with an upstream that answers every request successfully, except the second, which follows ``script``."""
    pipeline = f"  write_timeout_s: {write_timeout_s}\n  transport: {transport}\n{more}"
    async with (
        scripted_upstream(in_turn(LAST, script, LAST)) as upstream,
        serving(model("up", upstream.url), pipeline) as service,
    ):
        made, before = World(service, upstream, 0, open_files()), named_files()
        await made.assert_the_next_request_is_served(0)
        with trio.move_on_after(PATIENCE_S) as waited:
            while open_files() > made.files:
                await trio.sleep(0.002)
        assert not waited.cancelled_caught, f"still open: {dict(named_files().items() - before.items())}"
        await trio.testing.wait_all_tasks_blocked()
        made.tasks = tasks_living()  # the first request starts one that remains
        yield made


async def assert_ended_at_once(world: World, left_at: float, *, end_code: str = "DC") -> None:
    connection = await world.upstream.connection_closed(1)
    assert connection.closed_at is not None
    assert connection.closed_at - left_at < AT_ONCE_S
    assert (await world.service.record(1))["end"] == end_code


async def test_a_body_that_is_not_valid_http_is_a_bad_request_and_not_a_disconnect() -> None:
    async with world(*LAST) as here, await here.open() as client:
        head, _, _ = post_bytes(ask(), length=10).partition(b"\r\n\r\n")
        chunked = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length"))
        await client.send(chunked + b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        answer = await client.read_answer()
        assert answer.status == 400
        assert b"malformed_request" in answer.body
        assert (await here.service.record(1))["end"] == "BR"


@each_way
async def test_row_34_a_disconnect_during_the_upload_calls_no_upstream(disconnect: Disconnect) -> None:
    """The client leaves while it uploads: the request ends at once, and no upstream is called."""
    async with world(*LAST) as here:
        async with await here.open() as client:
            await client.send(post_bytes(ask(), length=10_000))
            with patiently():
                while not here.service.app.bridge.active:
                    await trio.sleep(0.002)
            left_at = trio.current_time()
            disconnect(client)
            record = await here.service.record(1)
            assert trio.current_time() - left_at < AT_ONCE_S
            assert (record["end"], record["status"], record["model"]) == ("DC", None, None)
        await here.assert_nothing_leaks()
        assert len(here.upstream.requests) == 1
        await here.assert_the_next_request_is_served(1)


@each_way
async def test_row_34_a_disconnect_while_an_upload_waits_for_its_turn_ends_it_at_once(disconnect: Disconnect) -> None:
    """The client leaves while its upload waits for memory: the request ends at once, and gives up its place."""
    async with world(*LAST, more="  max_upload_mb_total: 16\n") as here:
        uploads = here.service.app.bridge.uploads
        async with await here.open() as first, await here.open() as second:
            await first.send(post_bytes(ask(), length=5 << 20))
            with patiently():
                while not uploads.reserved_bytes:
                    await trio.sleep(0.002)
            await second.send(post_bytes(ask(), length=5 << 20))
            with patiently():
                while not uploads.waiting:
                    await trio.sleep(0.002)
            left_at = trio.current_time()
            disconnect(second)
            assert (await here.service.record(1))["end"] == "DC"
            assert trio.current_time() - left_at < AT_ONCE_S
            assert uploads.waiting == 0
            disconnect(first)
            assert (await here.service.record(2))["end"] == "DC"
        await here.assert_nothing_leaks()
        assert uploads.reserved_bytes == 0


HALF_A_DOCUMENT = (
    head(200, [("content-type", "application/json"), ("content-length", "1000")])
    + str(response_of("Hello")).encode()[:100]
)
PHASES: dict[str, tuple[bool, tuple[Step, ...]]] = {
    "before upstream headers": (True, (stall(),)),
    "before upstream headers, not streaming": (False, (stall(),)),
    "before the first event": (True, (sse_head(), stall())),
    "in the middle of a document": (False, (HALF_A_DOCUMENT, stall())),
    "in the middle of a stream that is collected": (False, (*begun("Hello"), stall())),
}


@each_transport
@each_way
@pytest.mark.parametrize("phase", PHASES)
async def test_rows_31_32_33_35_a_disconnect_before_the_first_byte_closes_the_upstream_at_once(
    phase: str, disconnect: Disconnect, transport: str
) -> None:
    """The client closes, resets or half-closes before it got a byte: the upstream's connection is closed at once."""
    stream, script = PHASES[phase]
    async with world(*script, transport=transport) as here:
        async with await here.open() as client:
            await client.send(post_bytes(ask(stream=stream)))
            await here.upstream.request_received(1)
            await trio.testing.wait_all_tasks_blocked(0.02)
            left_at = trio.current_time()
            disconnect(client)
            await assert_ended_at_once(here, left_at)
        record = await here.service.record(1)
        assert (record["status"], record["bytes"]) == (None, 0)
        await here.assert_nothing_leaks()
        await here.assert_the_next_request_is_served(2)


@each_way
async def test_row_35_a_disconnect_while_we_connect_ends_the_connect(disconnect: Disconnect) -> None:
    """The client leaves while the upstream is being connected to: the connect is given up at once."""
    with full_backlog() as port:
        async with serving(model("up", f"http://127.0.0.1:{port}")) as service:
            async with await RawClient.open(("127.0.0.1", service.port)) as client:
                before = open_files()
                await client.send(post_bytes(ask()))
                with patiently():
                    while open_files() == before:
                        await trio.sleep(0.002)
                left_at = trio.current_time()
                disconnect(client)
                assert (await service.record())["end"] == "DC"
                assert trio.current_time() - left_at < AT_ONCE_S
            assert service.app.clients.active_connections == 0
            with patiently():
                while open_files() >= before:  # the connection of the client is closed too
                    await trio.sleep(0.002)


@each_transport
@each_way
async def test_rows_31_32_33_a_disconnect_in_mid_stream_closes_the_upstream_at_once(
    disconnect: Disconnect, transport: str
) -> None:
    """The client does so within a stream: the same."""
    async with world(*begun("Hello, "), stall(), transport=transport) as here:
        async with await here.open() as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"Hello, "')
            left_at = trio.current_time()
            disconnect(client)
            await assert_ended_at_once(here, left_at)
        assert (await here.service.record(1))["status"] == 200
        await here.assert_nothing_leaks()
        await here.assert_the_next_request_is_served(2)


async def endless(exchange: Exchange) -> None:
    """Send events for as long as the connection accepts them."""
    await exchange.send(sse_head())
    one = b'data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"%b"}\n\n'
    batch = one % (b"x" * 4000) * 8
    while True:
        await exchange.send_chunk(batch)


@each_transport
async def test_row_39_a_stalled_reader_is_reset_at_the_write_deadline(transport: str) -> None:
    """The client stops reading: its connection is reset after `write_timeout_s`, and the upstream's closed."""
    async with world(endless, transport=transport, write_timeout_s=WRITE_TIMEOUT_S) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"xxx')
            stalled_at = trio.current_time()
            connection = await here.upstream.connection_closed(1)
            assert connection.closed_at is not None
            assert WRITE_TIMEOUT_S <= connection.closed_at - stalled_at < AT_ONCE_S
            assert (await here.service.record(1))["status"] == 200
            assert (await client.read_to_end())[1] == "reset"
        await here.assert_nothing_leaks()
        await here.assert_the_next_request_is_served(2)


async def test_row_39_a_stalled_reader_that_only_waits_is_told_of_the_reset() -> None:
    """The client never reads again and only waits for news of its socket: it gets the reset all the same."""
    # 2 s: where the kernel has the same limit, it is first, and ends the connection without a word.
    async with world(endless, write_timeout_s=2) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"xxx')
            news = select.poll()
            news.register(client.sock.fileno(), 0)
            with patiently():
                while not news.poll(0):
                    await trio.sleep(0.01)
            assert (await here.service.record(1))["end"] == "DS"


@each_transport
async def test_rows_26_39_a_client_that_does_not_read_holds_its_upstream_back(transport: str) -> None:
    """The client does not read, the upstream sends a thousand events at once: it is held back, in bounded memory."""
    sent_bytes = 0
    batch = b"".join(sse(delta(f"{number} ")) for number in range(1000))

    async def flood(exchange: Exchange) -> None:
        nonlocal sent_bytes
        await exchange.send(sse_head())
        while True:
            await exchange.send_chunk(batch)
            sent_bytes += len(batch)

    async with world(flood, transport=transport) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"0 "')
            seen = -1
            while seen < sent_bytes:  # until it stands still
                seen = sent_bytes
                assert seen < 64 << 20, "the kernel's buffers hold a few megabytes"
                await trio.testing.wait_all_tasks_blocked(0.2)
        await here.upstream.connection_closed(1)
        await here.assert_nothing_leaks()


def drop_all_that_arrives(sock: trio.socket.SocketType) -> None:
    """Let the kernel drop every segment for this socket, as if its host were gone: nothing is acknowledged."""
    reject = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET, 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(reject))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("is_silent", [False, True], ids=["streaming", "silent"])
async def test_row_41_a_client_whose_host_vanishes_is_noticed(is_silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's host vanishes without a word: its connection is reset when nothing is acknowledged for too long."""
    if is_silent:
        probes = {"KEEPALIVE_IDLE_S": 1, "KEEPALIVE_INTERVAL_S": 1, "KEEPALIVE_PROBES": 1}
        for name, limit in probes.items():
            monkeypatch.setattr(sockets, name, limit)
    monkeypatch.setattr(sockets, "KERNEL_LATER_S", 0.5)
    script = (*begun("Hello, "), stall()) if is_silent else (endless,)
    async with world(*script, write_timeout_s=WRITE_TIMEOUT_S) as here:
        async with await here.open() as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"')
            drop_all_that_arrives(client.sock)
            await here.upstream.connection_closed(1)
            assert (await here.service.record(1))["end"] in ("DC", "DS")
            client.reset()
        await here.assert_nothing_leaks()
        await here.assert_the_next_request_is_served(2)


async def test_the_record_distinguishes_a_stalled_reader_from_a_disconnect() -> None:
    async with world(endless, write_timeout_s=WRITE_TIMEOUT_S) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"xxx')
            with patiently():
                assert (await here.service.record(1))["end"] == "DS"


async def test_a_document_that_its_reader_has_not_taken_is_not_recorded_as_complete() -> None:
    async with world(json_answer(response_of("x" * 8_000_000)), write_timeout_s=WRITE_TIMEOUT_S) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask(stream=False)))
            with patiently():
                assert (await here.service.record(1))["end"] == "DS"


@each_way
async def test_rows_31_32_33_a_disconnect_while_stalled_closes_the_upstream_at_once(disconnect: Disconnect) -> None:
    """A client that has stopped reading does so: the same."""
    async with world(endless) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_until(b'"content":"xxx')
            await trio.testing.wait_all_tasks_blocked(0.1)  # the buffers are full
            left_at = trio.current_time()
            disconnect(client)
            await assert_ended_at_once(here, left_at)
        await here.assert_nothing_leaks()
        await here.assert_the_next_request_is_served(2)


async def test_row_40_a_slow_reader_is_served_to_the_end() -> None:
    """The client reads a few bytes at a time, for longer than `write_timeout_s`: it gets everything."""
    text = "x" * 300_000

    async def answer(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        for at in range(0, len(text), 1000):
            await events([delta(text[at : at + 1000])])(exchange)
        await events([completed(text)])(exchange)
        await exchange.send(b"0\r\n\r\n")

    write_timeout_s = 1
    async with world(answer, write_timeout_s=write_timeout_s) as here:
        async with await here.open(receive_buffer_bytes=SMALL_BUFFER_BYTES) as client:
            await client.send(post_bytes(ask()))
            await client.read_head()
            began = trio.current_time()
            while trio.current_time() < began + 2 * write_timeout_s:  # slower than the upstream for twice the deadline
                client.buffer += await client.stream.receive_some(1024)
                await trio.sleep(0.02)
            body = b""
            while size := int((await client.read_until(b"\r\n"))[:-2], 16):
                body += (await client.read_exactly(size + 2))[:-2]
            assert fold_stream(body).content == text
        assert (await here.service.record(1))["end"] == "OK"


@each_way
async def test_row_37_a_disconnect_after_a_pipelined_request_is_noticed(disconnect: Disconnect) -> None:
    """The client pipelines a request or an empty line, then leaves: noticed at once, and the second is not served."""
    async with world(*begun("Hello, "), stall()) as here:
        async with await here.open() as client:
            await client.send(post_bytes(ask()) + post_bytes(ask(stream=False)) + b"\r\n")
            await client.read_until(b'"content":"Hello, "')
            left_at = trio.current_time()
            disconnect(client)
            await assert_ended_at_once(here, left_at)
        await here.assert_nothing_leaks()
        assert len(here.upstream.requests) == 2, "the pipelined request of a disconnected client is not served"
        assert len(here.service.records) == 2


@pytest.mark.parametrize(("transport", "crowd"), [("headrace", 1000), ("httpx", 200)])
async def test_row_42_a_thousand_disconnects_at_once_leave_nothing_behind(transport: str, crowd: int) -> None:
    """A thousand clients vanish at once: all upstream connections are closed at once, and nothing is left."""
    clients: list[RawClient] = []
    pipeline = f"  transport: {transport}"
    async with (
        scripted_upstream(*begun("Hello"), stall()) as upstream,
        serving(model("up", upstream.url), pipeline) as service,
    ):
        async with trio.open_nursery() as nursery:

            async def arrive() -> None:
                client = await RawClient.open(("127.0.0.1", service.port))
                clients.append(client)
                await client.send(post_bytes(ask()))
                await client.read_until(b'"content":"Hello"')

            for _ in range(crowd):
                nursery.start_soon(arrive)
        assert upstream.open_connections == crowd
        assert service.app.clients.active_connections == crowd
        tasks, files = trio.lowlevel.current_statistics().tasks_living, open_files()
        left_at = trio.current_time()
        for number, client in enumerate(clients):
            (client.reset if number % 2 else client.close)()
        for at in range(crowd):
            await upstream.connection_closed(at)
        last = max(connection.closed_at or 0 for connection in upstream.connections)
        assert last - left_at < 2 * AT_ONCE_S  # for all of them; the first timer that could end them is 15 s
        await service.record(crowd - 1)
        assert {record["end"] for record in service.records} == {"DC"}
        assert len(service.app.bridge.active) == 0
        assert service.app.clients.active_connections == service.app.clients.idle_connections == 0
        with patiently():
            # Each has three tasks (connection, reader, stage) and two connections, of which we hold both ends.
            while (
                trio.lowlevel.current_statistics().tasks_living > tasks - crowd * 3 or open_files() > files - crowd * 4
            ):
                await trio.sleep(0.005)
