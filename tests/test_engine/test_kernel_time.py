"""The kernel's stamps on our clock: right, or not there."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

import pytest
from kit.time.stamps import is_between

from pipeline.kernel_time import MAX_DRIFT_NS, StampedReader, stamp_arrivals

SO_TIMESTAMPNS = 35
SECOND_NS = 1_000_000_000
WALL_NS = 1_790_000_000 * SECOND_NS
"""What the wall clock shows when ours shows 0."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def is_stamped(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS) == 1


@pytest.mark.usefixtures("kernel_stamps")
def test_what_arrives_before_the_accept_is_stamped(listener: socket.socket) -> None:
    stamp_arrivals(listener)
    reader = StampedReader()
    with socket.create_connection(listener.getsockname()) as client:
        before_ns = perf_counter_ns()
        client.send(b"hello")
        accepted, _ = listener.accept()
        with accepted:
            chunk, arrived_ns = reader.receive(accepted, 100)
            assert chunk == b"hello"
            assert is_between(before_ns, arrived_ns, perf_counter_ns())
            client.shutdown(socket.SHUT_WR)
            assert reader.receive(accepted, 100) == (b"", 0)


def test_a_read_that_would_wait_raises(listener: socket.socket) -> None:
    stamp_arrivals(listener)
    with socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            StampedReader().receive(client, 100)


def test_only_internet_sockets_are_stamped() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stamp_arrivals(ours)
        assert not is_stamped(ours)
        theirs.send(b"hello")
        assert StampedReader().receive(ours, 100) == (b"hello", 0)


def test_nothing_is_stamped_on_another_system(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    stamp_arrivals(listener)
    assert not is_stamped(listener)
    monkeypatch.undo()
    stamp_arrivals(listener)
    assert is_stamped(listener)


# Clocks that the test sets, and a socket that returns the stamps of the test.


class Clocks:
    """Our clock, which shows ``now_ns``, and the wall clock, which somebody may set."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wall_ns = WALL_NS

    def advance(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        self.wall_ns += duration_ns

    def reader(self) -> StampedReader:
        return StampedReader(lambda: self.wall_ns, lambda: self.now_ns)


class FakeSocket(socket.socket):
    """Returns one byte with each read, and ``ancillary``."""

    ancillary: list[tuple[int, int, bytes]]

    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        return b"x", self.ancillary, 0, None


@pytest.fixture
def sock() -> Iterator[FakeSocket]:
    with FakeSocket() as sock:
        sock.ancillary = []
        yield sock


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def stamped(wall_ns: int) -> tuple[int, int, bytes]:
    """Return the ancillary data of bytes that arrived at this time."""
    return socket.SOL_SOCKET, SO_TIMESTAMPNS, struct.pack("@ll", *divmod(wall_ns, SECOND_NS))


def test_a_stamp_is_converted_to_our_clock(sock: FakeSocket, clocks: Clocks) -> None:
    reader = clocks.reader()
    clocks.advance(3 * SECOND_NS)
    sock.ancillary = [stamped(WALL_NS + SECOND_NS + 7)]
    assert reader.receive(sock, 100) == (b"x", SECOND_NS + 7)
    sock.ancillary = [stamped(clocks.wall_ns)]  # in this very moment
    assert reader.receive(sock, 100) == (b"x", clocks.now_ns)


def test_other_ancillary_data_is_skipped(sock: FakeSocket, clocks: Clocks) -> None:
    reader = clocks.reader()
    clocks.advance(SECOND_NS)
    level, kind, stamp = stamped(WALL_NS + 5)
    foreign = [(level + 1, kind, stamp), (level, kind + 1, stamp), (level, kind, stamp[:8])]
    sock.ancillary = foreign
    assert reader.receive(sock, 100) == (b"x", 0)
    sock.ancillary = [*foreign, (level, kind, stamp)]
    assert reader.receive(sock, 100) == (b"x", 5)


@pytest.mark.parametrize("step_ns", [MAX_DRIFT_NS + 1, -MAX_DRIFT_NS - 1, 3600 * SECOND_NS, -3600 * SECOND_NS])
def test_after_a_step_of_the_wall_clock_one_stamp_does_not_count(
    step_ns: int, sock: FakeSocket, clocks: Clocks
) -> None:
    reader = clocks.reader()
    clocks.advance(SECOND_NS)
    sock.ancillary = [stamped(clocks.wall_ns)]
    clocks.wall_ns += step_ns
    assert reader.receive(sock, 100) == (b"x", 0)
    sock.ancillary = [stamped(clocks.wall_ns)]
    clocks.advance(SECOND_NS)
    assert reader.receive(sock, 100) == (b"x", SECOND_NS)


@pytest.mark.parametrize("drift_ns", [MAX_DRIFT_NS, -MAX_DRIFT_NS])
def test_small_drifts_add_up_without_being_a_step(drift_ns: int, sock: FakeSocket, clocks: Clocks) -> None:
    reader = clocks.reader()
    for second in range(10):
        sock.ancillary = [stamped(clocks.wall_ns + drift_ns)]
        clocks.wall_ns += drift_ns
        clocks.advance(SECOND_NS)
        assert reader.receive(sock, 100) == (b"x", second * SECOND_NS)


def test_a_stamp_in_the_future_does_not_count(sock: FakeSocket, clocks: Clocks) -> None:
    reader = clocks.reader()
    sock.ancillary = [stamped(WALL_NS + 1)]
    assert reader.receive(sock, 100) == (b"x", 0)
