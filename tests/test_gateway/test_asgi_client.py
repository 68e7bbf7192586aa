"""The response on any other ASGI server: messages that leave in `drain`."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pipeline.gateway.asgi_client import AsgiClient, AsgiResponse, Client
from pipeline.gateway.http.asgi import Message
from pipeline.testing import virtual_ns
from pipeline.timeline import Timeline

HEADERS = [(b"content-type", b"text/plain")]


class FakeServer:
    """Records the messages; while it ``is_stuck``, each send takes ten seconds."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.is_stuck = False

    async def receive(self) -> Message:
        await trio.sleep_forever()

    async def send(self, message: Message) -> None:
        if self.is_stuck:
            await trio.sleep(10)
        await trio.lowlevel.checkpoint()
        self.sent.append(message)


def start(*headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_leave_in_drain() -> None:
    server = FakeServer()
    client = AsgiClient(server.receive, server.send)
    client.start(200, HEADERS)
    assert not client.write_nowait(b"a")
    assert server.sent == []
    await client.drain()
    assert server.sent == [start(*HEADERS), body(b"a", more=True)]
    assert not client.write_nowait(b"b")
    assert not client.write_nowait(b"", last=True)
    await client.drain()
    assert server.sent[2:] == [body(b"b", more=True), body(b"", more=False)]
    await client.drain()
    assert len(server.sent) == 4


async def test_a_cancellation_does_not_cut_a_drain_in_half(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.is_stuck = True
    client = AsgiClient(server.receive, server.send)
    client.start(200, HEADERS)
    client.write_nowait(b"a", last=True)
    with trio.move_on_after(5):
        await client.drain()
    assert server.sent == [start(*HEADERS), body(b"a", more=False)]


async def test_nothing_is_known_of_when_a_request_arrived_or_what_the_socket_accepted() -> None:
    server = FakeServer()
    client: Client = AsgiClient(server.receive, server.send)
    assert (client.arrived_ns, client.first_read_ns, client.last_read_ns) == (0, 0, 0)
    assert client.receive_nowait() is None
    assert not client.took_some


@pytest.mark.parametrize(("told", "reason"), [({}, "left"), ({"reason": "stalled"}, "stalled")])
async def test_a_disconnect_during_the_work_is_reported_with_its_reason(told: Message, reason: str) -> None:
    left: list[str] = []
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.disconnect", **told}]

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        return messages.pop(0)

    async def work() -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert left == [reason]

    client = AsgiClient(receive, FakeServer().send)
    await client.watch_during(work(), left.append)
    assert messages == []


async def test_nobody_watches_after_the_work() -> None:
    server = FakeServer()
    left: list[str] = []
    await AsgiClient(server.receive, server.send).watch_during(trio.lowlevel.checkpoint(), left.append)
    assert left == []


async def test_a_response_adds_its_headers_and_keeps_what_the_record_says() -> None:
    server = FakeServer()
    response = AsgiResponse(AsgiClient(server.receive, server.send), [(b"x-request-id", b"1")], Timeline())
    assert (response.status, response.size_bytes, response.ended) == (None, 0, False)
    response.start(200, HEADERS)
    assert not response.write_nowait(b"abc")
    assert not response.took_some
    await response.drain()
    assert server.sent[0] == start(*HEADERS, (b"x-request-id", b"1"))
    assert (response.status, response.size_bytes, response.ended) == (200, 3, False)
    response.write_nowait(b"de", last=True)
    await response.drain()
    assert (response.size_bytes, response.ended) == (5, True)


async def test_the_last_byte_is_out_when_the_last_part_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    server.is_stuck = True
    timeline = Timeline(virtual_ns)
    response = AsgiResponse(AsgiClient(server.receive, server.send), [], timeline)
    response.start(200, HEADERS)
    response.write_nowait(b"a")
    await response.drain()
    assert timeline.points == {}
    response.write_nowait(b"b", last=True)
    await response.drain()
    assert timeline.points == {
        "first_byte_out": 30_000_000_000,
        "last_byte_out": 30_000_000_000,
    }  # three messages of ten seconds
    await trio.sleep(1)
    await response.drain()  # there is nothing left
    assert timeline.points == {"first_byte_out": 30_000_000_000, "last_byte_out": 30_000_000_000}


class EagerClient(AsgiClient):
    """Accepts all writes at once, as our own server mostly does."""

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        return True


async def test_the_last_byte_is_out_at_once_if_the_socket_accepts_it(autojump_clock: trio.testing.MockClock) -> None:
    server = FakeServer()
    timeline = Timeline(virtual_ns)
    response = AsgiResponse(EagerClient(server.receive, server.send), [], timeline)
    await trio.sleep(1)
    response.start(200, HEADERS)
    assert response.write_nowait(b"a")
    assert timeline.points == {}
    assert response.write_nowait(b"b", last=True)
    assert timeline.points == {"first_byte_out": 1_000_000_000, "last_byte_out": 1_000_000_000}
