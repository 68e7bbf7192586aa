"""What the running service logs, and when: finished requests in small batches, and of each second the longest stall."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask
from kit.engine.stages import Acting
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from msgspec import UNSET

from pipeline import Inlet, Outlet, Pipeline, RequestContext
from pipeline.gateway.event_log import MAX_UNLOGGED, REQUEST_LOG_PAUSE_S, STALL_LOG_PAUSE_S, EventLog, RecordLog, fold
from pipeline.gateway.failures import EndCode
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.logs import LineFormat, Log, LogLevel, StallRecord
from pipeline.gateway.recorded import lines_after, rings_of
from pipeline.gateway.recorder import FAILED, STALL, STALLED, Recorder
from pipeline.gateway.request_record import FinishedRequest, RequestRecord
from pipeline.gateway.traced_requests import TracedRequests
from pipeline.loop import STAGE_TURN_NS, Stall, watch_loop
from pipeline.observe import Observed, read_all
from pipeline.segments import SegmentFile
from pipeline.testing import virtual_ns
from stages.answer import GIVEN_UP, Attempt

HELD = Stall("shout", "r1", 101_300_400, 40)


class Logging:
    """An `EventLog`, and what it has written."""

    def __init__(
        self,
        level: LogLevel = "info",
        format: LineFormat = "json",
        ring_bytes: int = 0,
        extra: RecordLog | None = None,
    ) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK)
        self._file = SegmentFile.create(ring_bytes=ring_bytes)
        segment = self._file.claim(1)
        log = Log(LineSink(self._writing), format, level)
        self.events = EventLog(log, Observed(segment), Recorder(segment.ring), extra)

    def recorded(self) -> list[bytes]:
        """Return the lines that the flight recorder has."""
        return lines_after(self._file.views(), "", 1000).lines

    def marks(self) -> list[int]:
        """Return what it says of each."""
        rings = rings_of(self._file.views())
        return [entry.marks for _, ring in rings for entry in ring.newest_first()]

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


async def test_what_the_log_leaves_out_can_be_written_elsewhere() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    logging = Logging("error", extra=Log(LineSink(writing), "json", "info"))
    await finish(logging.events, 2)
    logging.events.note_stall(HELD)
    logging.events.flush_requests()
    logging.events.flush_stalls()
    elsewhere = [json.loads(line) for line in os.read(reading, 1 << 20).splitlines()]
    assert [line["event"] for line in elsewhere] == ["request", "request", "stall"]
    assert logging.written() == []
    logging.close()
    os.close(reading)
    os.close(writing)


class Kept:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.lines: list[bytes] = []

    def requests(self, records: Sequence[RequestRecord], ended_s: Sequence[float], lines: Sequence[bytes]) -> None:
        self.records += records
        self.lines += lines

    def stall(self, record: StallRecord, noted_s: float) -> None:
        raise AssertionError("there is none")


async def test_what_is_written_elsewhere_has_the_line_with_the_trace_and_the_record_without_it() -> None:
    kept = Kept()
    logging = Logging("error", ring_bytes=1 << 20, extra=kept)
    bridge, _ = bridge_to(FakeUpstream())
    bridge.traced = TracedRequests(1)
    bridge.on_end = logging.events.note_request
    await Browser(bridge, ask()).ask()
    logging.events.flush_requests()
    assert kept.lines == logging.recorded()
    assert json.loads(kept.lines[0])["trace"]["spans"]
    assert kept.records[0].trace is UNSET
    logging.close()


@pytest.mark.parametrize(("end", "given_up"), [("OK", "given_up"), ("DC", "DC")])
async def test_each_attempt_is_added_up_by_itself(logging: Logging, end: EndCode, given_up: str) -> None:
    ended: list[FinishedRequest] = []
    bridge, _ = bridge_to(FakeUpstream())
    bridge.on_end = lambda finished: ended.append(finished())
    await Browser(bridge, ask()).ask()
    [finished] = ended
    finished.end, ms = end, 1_000_000
    finished.timeline.points["upstream_end"] = 15 * ms
    finished.attempts = [
        Attempt("a", "m", [], [], 1 * ms, 4 * ms, "upstream_timeout"),
        Attempt("b", "m", [], [], 10 * ms, 20 * ms, "OK"),  # 5 ms after the upstream's last byte, the client had it
        Attempt("c", "m", [], [], 11 * ms, 13 * ms, GIVEN_UP),
        Attempt("d", "m", [], [], 20 * ms, 19 * ms, GIVEN_UP),  # in the pause before it
    ]
    file = SegmentFile.create(ring_bytes=0)
    fold(finished, observed := Observed(file.claim(1)))
    observed.publish()
    found = {tuple(dict(one.labels).values()): one.value for one in read_all(file)["headrace_upstream_seconds"].series}
    assert found == pytest.approx({("a", "UT"): 0.003, ("b", "OK"): 0.005, ("c", given_up): 0.002})


def test_a_stall_names_the_stage_the_request_and_how_many_waited(logging: Logging) -> None:
    logging.events.note_stall(HELD)
    logging.events.flush_stalls()
    logging.events.flush_stalls()
    [line] = logging.written()
    del line["ts"]
    expected = {"stage": "shout", "request_id": "r1", "ms": 101.3, "streams": 40, "unlogged": 0}
    assert line == {"event": "stall", **expected}


def test_a_stall_has_the_time_of_its_end_and_not_of_its_line(logging: Logging, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.9])
    monkeypatch.setattr("pipeline.gateway.event_log.time.time", lambda: next(times))
    logging.events.note_stall(HELD)
    logging.events.note_stall(replace(HELD, ns=HELD.ns - 1))
    monkeypatch.undo()
    logging.events.flush_stalls()
    [line] = logging.written()
    assert line["ts"] == "1970-01-01T00:01:40.000Z"


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


@pytest.mark.parametrize(("format", "level"), [("json", "info"), ("text", "info"), ("json", "error")])
async def test_the_recorder_has_the_lines_of_the_json_log_whatever_is_logged(
    format: LineFormat, level: LogLevel
) -> None:
    logging = Logging(level, format, ring_bytes=1 << 20)
    await finish(logging.events, 2)
    logging.events.note_stall(HELD)
    logging.events.flush_requests()
    logging.events.flush_stalls()
    kept = logging.recorded()
    assert sorted(json.loads(line)["event"] for line in kept) == ["request", "request", "stall"]
    written = logging.written_bytes().splitlines()
    if format == "json":
        assert sorted(written) == (sorted(kept) if level == "info" else [])
    else:
        assert len(written) == 3
        assert not any(line.startswith(b"{") for line in written)
    logging.close()


async def test_requests_that_a_stall_held_up_are_marked() -> None:
    logging = Logging(ring_bytes=1 << 20)
    await finish(logging.events, 1)
    logging.events.note_stall(Stall("shout", "r1", 3_600_000_000_000, 1))  # it was held all the time
    logging.events.flush_requests()
    assert sorted(logging.marks()) == sorted([STALL, FAILED | STALLED])
    logging.close()
