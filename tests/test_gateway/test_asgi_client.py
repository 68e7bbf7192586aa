"""The response on any other ASGI server: messages that leave in `drain`."""

from __future__ import annotations

import trio
import trio.testing

from pipeline.gateway.asgi_client import AsgiClient, AsgiResponse
from pipeline.gateway.http.asgi import Message

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


async def test_a_response_adds_its_headers_and_keeps_what_the_record_says() -> None:
    server = FakeServer()
    response = AsgiResponse(AsgiClient(server.receive, server.send), [(b"x-request-id", b"1")])
    assert (response.status, response.size_bytes, response.ended) == (None, 0, False)
    response.start(200, HEADERS)
    assert not response.write_nowait(b"abc")
    await response.drain()
    assert server.sent[0] == start(*HEADERS, (b"x-request-id", b"1"))
    assert (response.status, response.size_bytes, response.ended) == (200, 3, False)
    response.write_nowait(b"de", last=True)
    await response.drain()
    assert (response.size_bytes, response.ended) == (5, True)
