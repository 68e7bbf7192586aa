"""What a worker writes to its supervisor, and what it notices of it."""

from __future__ import annotations

import socket

import trio
import trio.testing

from pipeline.gateway.http.lifeline import HEARTBEAT, READY, Lifeline


async def test_heartbeats_are_written_each_second(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket.socketpair()
    lifeline = Lifeline(theirs)
    with ours:
        lifeline.report(READY)
        with trio.move_on_after(2.5):
            await lifeline.keep_reporting()
        assert ours.recv(100) == READY + 3 * HEARTBEAT
        lifeline.close()
        assert ours.recv(100) == b""


async def test_a_supervisor_that_does_not_read_or_is_dead_does_no_harm() -> None:
    ours, theirs = socket.socketpair()
    lifeline = Lifeline(theirs)
    for _ in range(1_000_000):
        lifeline.report(HEARTBEAT)
    ours.close()
    await lifeline.has_ended()
    lifeline.report(HEARTBEAT)
    lifeline.close()
