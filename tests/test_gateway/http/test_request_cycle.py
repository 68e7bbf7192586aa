"""What one request's response hands to the socket, and what waits."""

from __future__ import annotations

import trio
import trio.testing
from kit.service.transports import FakeTransport

from pipeline.gateway.http.http1 import LAST_CHUNK
from pipeline.gateway.http.peer import Peer
from pipeline.gateway.http.request_cycle import DateHeader, RequestCycle

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def begun(transport: FakeTransport) -> tuple[RequestCycle, Peer]:
    """Return a cycle whose response has begun, with the peer; the head has been sent."""
    peer = Peer(transport, max_header_bytes=1000)
    peer.requests.feed(REQUEST)
    head = peer.requests.maybe_head()
    assert head is not None
    peer.answering = True
    cycle = RequestCycle(peer, head, DateHeader())
    cycle.start(200, [])
    room_bytes, transport.room_bytes = transport.room_bytes, 1000
    assert cycle.write_nowait(b"")
    assert transport.sent.pop().endswith(b"\r\n\r\n")
    transport.room_bytes = room_bytes
    return cycle, peer


async def test_a_write_that_fits_is_one_send() -> None:
    transport = FakeTransport()
    cycle, peer = begun(transport)
    assert cycle.write_nowait(b"abc")
    assert cycle.write_nowait(b"")
    assert not cycle.finished
    assert cycle.write_nowait(b"de", last=True)
    assert transport.sent == [b"3\r\nabc\r\n", b"2\r\nde\r\n" + LAST_CHUNK]
    assert (cycle.finished, peer.answering) == (True, False)


async def test_the_head_leaves_with_the_first_write() -> None:
    transport = FakeTransport()
    peer = Peer(transport, max_header_bytes=1000)
    peer.requests.feed(REQUEST)
    head = peer.requests.maybe_head()
    assert head is not None
    cycle = RequestCycle(peer, head, DateHeader())
    cycle.start(200, [(b"content-length", b"2")])
    assert transport.sent == []
    assert cycle.write_nowait(b"ok", last=True)
    (sent,) = transport.sent
    assert sent.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n")
    assert sent.endswith(b"\r\n\r\nok")


async def test_what_does_not_fit_is_sent_by_drain() -> None:
    transport = FakeTransport(room_bytes=4)
    cycle, _ = begun(transport)
    assert not cycle.write_nowait(b"abc")
    assert transport.sent == [b"3\r\na"]
    transport.make_room()
    await cycle.drain()
    assert transport.sent == [b"3\r\na", b"bc\r\n"]
    with trio.testing.assert_no_checkpoints():
        await cycle.drain()  # nothing is left


async def test_a_response_is_finished_when_its_end_has_been_sent() -> None:
    transport = FakeTransport(room_bytes=0)
    cycle, peer = begun(transport)
    assert not cycle.write_nowait(b"abc", last=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cycle.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert (cycle.finished, peer.answering) == (False, True)
        assert cycle.write_nowait(b"late")  # nothing follows the end
        transport.make_room()
    assert transport.sent == [b"3\r\nabc\r\n" + LAST_CHUNK]
    assert (cycle.finished, peer.answering) == (True, False)


async def test_writes_without_a_drain_between_keep_their_order() -> None:
    transport = FakeTransport(room_bytes=4)
    cycle, _ = begun(transport)
    assert not cycle.write_nowait(b"abc")
    transport.room_bytes = 1000
    assert not cycle.write_nowait(b"de", last=True)
    transport.make_room()
    await cycle.drain()
    assert b"".join(transport.sent) == b"3\r\nabc\r\n2\r\nde\r\n" + LAST_CHUNK
    assert cycle.finished


async def test_a_cancellation_does_not_cut_a_drain_in_half() -> None:
    transport = FakeTransport(room_bytes=4)
    cycle, _ = begun(transport)
    assert not cycle.write_nowait(b"abc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cycle.drain)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            transport.make_room()
    assert b"".join(transport.sent) == b"3\r\nabc\r\n"


async def test_a_client_that_is_gone_accepts_everything() -> None:
    transport = FakeTransport(room_bytes=4)
    cycle, peer = begun(transport)
    assert not cycle.write_nowait(b"abc")
    peer.mark_gone()
    assert cycle.write_nowait(b"de")
    await cycle.drain()
    assert transport.sent == [b"3\r\na"]


async def test_a_second_task_may_send_while_one_waits() -> None:
    """As ASGI allows it: the second part comes after the first."""
    transport = FakeTransport(room_bytes=0)
    cycle, _ = begun(transport)
    async with trio.open_nursery() as nursery:
        for data, more in ((b"abc", True), (b"de", False)):
            nursery.start_soon(cycle.send, {"type": "http.response.body", "body": data, "more_body": more})
            await trio.testing.wait_all_tasks_blocked()
        transport.make_room()
    assert transport.sent == [b"3\r\nabc\r\n", b"2\r\nde\r\n" + LAST_CHUNK]
    assert cycle.finished
