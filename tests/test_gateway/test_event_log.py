"""What the running service logs, and when: finished requests in small batches, and of each second the longest stall."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask
from kit.engine.stages import Acting
from kit.service.bridges import Browser, FakeUpstream, bridge_to

from pipeline import Inlet, Outlet, Pipeline, RequestContext
from pipeline.gateway.event_log import MAX_UNLOGGED, REQUEST_LOG_PAUSE_S, STALL_LOG_PAUSE_S, EventLog
from pipeline.gateway.logs import LineSink, Log, LogLevel
from pipeline.loop import STAGE_TURN_NS, Stall, watch_loop
from pipeline.observe import Observed, read_all
from pipeline.segments import SegmentFile
from pipeline.testing import virtual_ns

HELD = Stall("shout", "r1", 101_300_400, 40)


class Logging:
    """An `EventLog`, and what it has written."""

    def __init__(self, level: LogLevel = "info") -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK)
        self._file = SegmentFile.create(ring_bytes=0)
        self.events = EventLog(Log(LineSink(self._writing), "json", level), Observed(self._file.claim(1)))

    def figure(self, family: str) -> float:
        """Return the sum of a family's series, or the number of values of its histograms."""
        found = read_all(self._file)[family].series
        return sum(sum(one.slots.values()) if one.slots else one.value for one in found)

    def families(self) -> set[str]:
        """Return the names of what was counted."""
        return set(read_all(self._file))

    def written(self) -> list[dict[str, Any]]:
        """Return what was written since the last call."""
        return [json.loads(line) for line in self.written_bytes().splitlines()]

    def written_bytes(self) -> bytes:
        """Return the same as it is."""
        try:
            return os.read(self._reading, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@pytest.fixture
def logging() -> Iterator[Logging]:
    logging = Logging()
    yield logging
    logging.close()


async def finish(events: EventLog, count: int) -> None:
    bridge, _ = bridge_to(FakeUpstream())
    bridge.on_end = events.note_request
    bridge.cut_off()
    for _ in range(count):
        await Browser(bridge, ask()).ask()


async def test_requests_are_logged_a_little_later_with_the_time_of_their_end(
    logging: Logging, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logging.events.run)
        for _ in range(2):  # it goes on after the first batch
            await finish(logging.events, 3)
            assert logging.written() == []
            await trio.sleep(REQUEST_LOG_PAUSE_S + 0.001)
            written = logging.written()
            assert [line["end"] for line in written] == ["DR"] * 3
            assert [line["ts"] for line in written] == sorted(line["ts"] for line in written)
        nursery.cancel_scope.cancel()


async def test_requests_are_counted_at_once_and_added_up_when_they_are_logged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    logging = Logging("warning")  # which writes no requests
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logging.events.run)
        await finish(logging.events, 3)
        assert logging.figure("headrace_requests_total") == 3
        assert "headrace_request_seconds" not in logging.families()
        await trio.sleep(REQUEST_LOG_PAUSE_S + 0.001)
        assert logging.figure("headrace_request_seconds") == 3
        assert logging.written() == []
        nursery.cancel_scope.cancel()
    logging.close()


async def test_many_requests_are_logged_at_once(logging: Logging) -> None:
    await finish(logging.events, MAX_UNLOGGED - 1)
    assert logging.written() == []
    await finish(logging.events, 2)
    assert len(logging.written()) == MAX_UNLOGGED
    logging.events.flush_requests()
    logging.events.flush_requests()
    assert len(logging.written()) == 1


def test_without_requests_nothing_is_written() -> None:
    logging = Logging()
    logging.events.flush_requests()
    assert logging.written_bytes() == b""
    logging.close()


async def test_requests_that_are_not_logged_are_not_kept() -> None:
    logging = Logging("warning")
    await finish(logging.events, MAX_UNLOGGED)
    logging.events.flush_requests()
    assert logging.written() == []
    logging.close()


def test_a_stall_names_the_stage_the_request_and_how_many_waited(logging: Logging) -> None:
    logging.events.note_stall(HELD)
    logging.events.flush_stalls()
    logging.events.flush_stalls()
    [line] = logging.written()
    del line["ts"]
    expected = {"stage": "shout", "request_id": "r1", "ms": 101.3, "streams": 40, "unlogged": 0}
    assert line == {"event": "stall", **expected}


async def test_a_stall_has_the_time_of_its_end_not_that_of_its_line(
    logging: Logging, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_790_000_000 + trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logging.events.run)
        await trio.sleep(0.25)
        ended_s = time.time()
        logging.events.note_stall(HELD)
        await trio.sleep(0.5)
        logging.events.note_stall(Stall("shout", "r2", HELD.ns - 1, 40))
        await trio.sleep(STALL_LOG_PAUSE_S)
        nursery.cancel_scope.cancel()
    [line] = logging.written()
    assert datetime.fromisoformat(line["ts"]).timestamp() == pytest.approx(ended_s, abs=0.001)


def test_a_credential_as_the_id_of_a_stalled_request_is_redacted(logging: Logging) -> None:
    logging.events.note_stall(Stall("shout", "sk-proj-abcdefghijklmnop0123456789", 101_300_400, 40))
    logging.events.flush_stalls()
    assert [line["request_id"] for line in logging.written()] == ["[redacted]"]


async def test_of_each_second_the_longest_stall_is_written_and_the_others_are_counted(
    logging: Logging, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logging.events.run)
        for held_ms in ((30, 90, 60), (), (25,)):
            for ms in held_ms:
                logging.events.note_stall(Stall("shout", f"r{ms}", ms * 1_000_000, 1))
            await trio.sleep(STALL_LOG_PAUSE_S)
        await trio.sleep(STALL_LOG_PAUSE_S)
        nursery.cancel_scope.cancel()
    assert [(line["request_id"], line["unlogged"]) for line in logging.written()] == [("r90", 2), ("r25", 0)]


async def test_what_holds_a_loop_is_written_by_its_log(
    logging: Logging, autojump_clock: trio.testing.MockClock
) -> None:
    worked_ns = 0

    def clock() -> int:
        return virtual_ns() + worked_ns

    async def burn(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        nonlocal worked_ns
        async for _ in inlet:
            worked_ns += 2 * STAGE_TURN_NS

    with watch_loop(logging.events.note_stall, clock):
        await Pipeline(Acting(burn)).run([[1]], RequestContext("r7", clock=clock))
    logging.events.flush_stalls()
    [line] = logging.written()
    assert (line["stage"], line["request_id"], line["ms"], line["streams"]) == ("burn", "r7", 40.0, 1)
