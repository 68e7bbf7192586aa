"""The kernel's stamps, for tests that need them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from pipeline.kernel_time import MAX_DRIFT_NS, StampedReader, stamp_arrivals

HELD_NS = 100_000_000


@contextmanager
def stamping() -> Iterator[None]:
    """Have the kernel stamp packets throughout a block.

    It begins a moment after the first socket of the machine has asked for stamps (``net_enable_timestamp`` in
    net/core/dev.c leaves that to a work queue), and ends when the last of these sockets is closed.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stamp_arrivals(listener)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                reader = StampedReader()
                arrived_ns = 0
                while arrived_ns == 0:
                    client.send(b"x")
                    _, arrived_ns = reader.receive(accepted, 1)
                yield


def is_between(before_ns: int, arrived_ns: int, after_ns: int) -> bool:
    """Return whether a stamp is between two times, as exactly as two clocks can be compared.

    The test may be interrupted between the two readings from which the stamp is converted.
    """
    return before_ns - MAX_DRIFT_NS <= arrived_ns <= after_ns + MAX_DRIFT_NS


def hold_the_loop() -> None:
    """Let nothing else run for `HELD_NS`, as a stage does that works for too long."""
    until_ns = perf_counter_ns() + HELD_NS
    while perf_counter_ns() < until_ns:
        ...
