"""What a client has sent, and when it arrived and was read."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter_ns

import pytest
import trio
import trio.testing
from kit.service.transports import FakeTransport
from kit.time.patience import patiently
from kit.time.stamps import hold_the_loop, is_between

from pipeline.gateway.http.peer import MAX_AHEAD_BYTES, Peer
from pipeline.gateway.http.request_cycle import DateHeader, RequestCycle
from pipeline.gateway.http.sockets import TcpTransport, bind_socket
from pipeline.kernel_time import StampedReader

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"

pytestmark = pytest.mark.usefixtures("kernel_stamps")


class Reads:
    """A peer that is being read, and its client's socket; requests are taken and answered by hand."""

    def __init__(self, peer: Peer, client: socket.socket) -> None:
        self.peer = peer
        self.client = client

    async def next_cycle(self) -> RequestCycle:
        """Wait for a request and begin its response."""
        with patiently():
            while (head := self.peer.requests.maybe_head()) is None:
                assert await self.peer.read_more()
        self.peer.answering = True
        cycle = RequestCycle(self.peer, head, DateHeader())
        cycle.start(200, [(b"content-length", b"0")])
        return cycle

    async def answered(self) -> RequestCycle:
        """Wait for a request and answer it."""
        cycle = await self.next_cycle()
        assert cycle.write_nowait(b"", last=True)
        return cycle


@asynccontextmanager
async def reading(wall_ns: Callable[[], int] = time.time_ns) -> AsyncIterator[Reads]:
    """Read from a client on a real socket."""
    stamps = StampedReader(wall_ns)
    with bind_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        transport = TcpTransport(accepted, write_timeout_s=60, stamps=stamps)
        peer = Peer(transport, max_header_bytes=10_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.read_on)
            yield Reads(peer, client)
            nursery.cancel_scope.cancel()
        transport.close()


async def test_a_request_has_arrived_before_a_loop_that_was_held_reads_it() -> None:
    """The first request of a connection and, with a stamp of its own, the second."""
    async with reading() as reads:
        for _ in range(2):
            sent_ns = perf_counter_ns()
            reads.client.send(REQUEST)
            in_kernel_ns = perf_counter_ns()
            hold_the_loop()
            free_ns = perf_counter_ns()
            cycle = await reads.answered()
            assert is_between(sent_ns, cycle.arrived_ns, in_kernel_ns)
            assert free_ns <= cycle.first_read_ns == cycle.last_read_ns <= perf_counter_ns()


async def test_a_head_in_two_parts_has_two_read_times_and_the_stamp_of_the_first() -> None:
    async with reading() as reads:
        reads.client.send(REQUEST[:10])
        with patiently():
            await reads.peer.read_more()
        assert reads.peer.requests.maybe_head() is None
        between_ns = perf_counter_ns()
        reads.client.send(REQUEST[10:])
        cycle = await reads.answered()
        assert 0 < cycle.arrived_ns <= cycle.first_read_ns < between_ns < cycle.last_read_ns


async def test_a_pipelined_request_was_first_read_when_the_response_before_it_was_complete() -> None:
    async with reading() as reads:
        reads.client.send(REQUEST + REQUEST)
        first = await reads.next_cycle()
        assert first.arrived_ns > 0
        before_ns = perf_counter_ns()
        first.write_nowait(b"", last=True)
        second = await reads.next_cycle()
        assert second.arrived_ns == 0
        assert before_ns <= second.first_read_ns == second.last_read_ns <= perf_counter_ns()

        reads.client.send(REQUEST)
        with patiently():
            await reads.peer.read_more()
        before_ns = perf_counter_ns()
        second.write_nowait(b"", last=True)
        third = await reads.answered()
        assert third.arrived_ns == 0
        assert before_ns <= third.first_read_ns == third.last_read_ns

        reads.client.send(REQUEST)
        assert (await reads.answered()).arrived_ns > 0


async def test_the_rest_of_a_pipelined_head_has_a_read_time_of_its_own() -> None:
    async with reading() as reads:
        reads.client.send(REQUEST + REQUEST[:10])
        await reads.answered()
        between_ns = perf_counter_ns()
        reads.client.send(REQUEST[10:])
        cycle = await reads.answered()
        assert cycle.arrived_ns == 0
        assert cycle.first_read_ns < between_ns < cycle.last_read_ns


async def test_no_stamp_counts_after_a_step_of_the_wall_clock() -> None:
    step_ns = 0

    async with reading(lambda: time.time_ns() + step_ns) as reads:
        reads.client.send(REQUEST)
        assert (await reads.answered()).arrived_ns > 0
        step_ns = 3_600_000_000_000
        reads.client.send(REQUEST)
        cycle = await reads.answered()
        assert (cycle.arrived_ns, cycle.first_read_ns > 0) == (0, True)


async def test_what_has_arrived_is_read_without_waiting() -> None:
    """Between the end of an idle time and the end of the connection."""
    with bind_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        transport = TcpTransport(accepted, write_timeout_s=60, stamps=StampedReader())
        peer = Peer(transport, max_header_bytes=10_000)
        assert not peer.read_nowait()
        client.send(REQUEST)
        await trio.lowlevel.wait_readable(accepted)
        assert peer.read_nowait()
        assert 0 < peer.arrived_ns < peer.first_read_ns
        client.shutdown(socket.SHUT_WR)
        await trio.lowlevel.wait_readable(accepted)
        assert not peer.read_nowait()
        transport.close()
        assert not peer.read_nowait()
        assert peer.requests.maybe_head() is not None


async def test_a_socket_that_was_readable_for_nothing_is_waited_for_again() -> None:
    peer = Peer(FakeTransport(None, REQUEST), max_header_bytes=10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.read_on)
        with patiently():
            await peer.read_more()
        assert not peer.gone
        assert peer.requests.maybe_head() is not None
        nursery.cancel_scope.cancel()


async def test_row_64_a_client_that_leaves_after_a_body_taken_without_waiting_is_noticed() -> None:
    """The whole of a large body has been read ahead when it is taken: that the client leaves then is still noticed."""
    body = bytes(MAX_AHEAD_BYTES + 1)
    async with reading() as reads:
        reads.client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body))
        cycle = await reads.next_cycle()
        left: list[str] = []
        cycle.watch_during(trio.sleep(0), left.append).close()
        reads.client.sendall(body)
        with patiently():
            while len(reads.peer.requests) < len(body):  # then the reader pauses
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        message = cycle.receive_nowait()
        assert message is not None
        assert (len(message["body"]), message["more_body"]) == (len(body), False)
        reads.client.close()
        with patiently():
            while not left:
                await trio.sleep(0.001)
        assert left == ["left"]


async def test_a_disconnect_is_noticed_after_a_body_that_had_arrived_before_it_was_asked_for() -> None:
    """The reader has paused because too much had arrived; it must go on although nobody waits for more."""
    head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 150000\r\n\r\n"
    peer = Peer(FakeTransport(head + bytes(150_000), b""), max_header_bytes=10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.read_on)
        await trio.testing.wait_all_tasks_blocked()
        taken = peer.requests.maybe_head()
        assert taken is not None
        peer.answering = True
        cycle = RequestCycle(peer, taken, DateHeader())
        assert cycle.receive_nowait() == {"type": "http.request", "body": bytes(150_000), "more_body": False}
        await trio.testing.wait_all_tasks_blocked()
        assert peer.gone
        nursery.cancel_scope.cancel()
