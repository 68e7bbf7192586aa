"""The flight recorder: which requests are kept for longest, how another process reads them, and what is never kept."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from kit.service.records_of import record_line, request_record_of

from pipeline.gateway.failures import EndCode
from pipeline.gateway.recorded import Latest, cursor_now, line_of, lines_after, newest_lines
from pipeline.gateway.recorder import (
    CANCELLED,
    FAILED,
    KINDS,
    SLOW,
    SLOW_FROM_MS,
    STALL,
    STALLED,
    TRACED,
    Recorder,
    halves,
)
from pipeline.gateway.request_record import RequestRecord
from pipeline.gateway.rings import RingReader

MIB = 1024 * 1024


@dataclass
class Memory:
    """The part of one process in the shared file."""

    index: int
    ring: memoryview


def memory(index: int = 0, size: int = MIB) -> Memory:
    return Memory(index, memoryview(bytearray(size)))


def record(
    number: int, end: EndCode = "OK", total_ms: float = 10.0, first_token_ms: float | None = 5.0
) -> RequestRecord:
    return request_record_of(f"r{number}", end, total_ms=total_ms, first_token_ms=first_token_ms)


def keep(recorder: Recorder, *records: RequestRecord, at_s: float = 100.0) -> None:
    recorder.keep_requests([record_line(one) for one in records], records, [at_s] * len(records))


def ids(lines: list[bytes]) -> list[str]:
    return [json.loads(one)["request_id"] for one in lines]


def of_kind(kind: str, *segments: Memory, limit: int = 1000) -> list[str]:
    return ids(newest_lines(segments, marks=KINDS[kind], without=STALL, limit=limit))


def test_requests_that_failed_or_were_cancelled_outlast_thousands_of_others() -> None:
    segment = memory(size=128 * 1024)
    recorder = Recorder(segment.ring)
    keep(recorder, record(1, "UT"), record(2, "DC"), record(3, "DS"))
    for number in range(4, 5000):
        keep(recorder, record(number))
    assert of_kind("failed", segment) == ["r1"]
    assert sorted(of_kind("cancelled", segment)) == ["r2", "r3"]
    assert line_of([segment], "r1") == record_line(record(1, "UT"))
    assert line_of([segment], "r4") is None


def test_a_flood_of_refusals_does_not_push_out_what_failed() -> None:
    segment = memory(size=128 * 1024)
    recorder = Recorder(segment.ring)
    keep(recorder, record(1, "UT"))
    for number in range(2, 5000):
        keep(recorder, record(number, "OV"))
    failed = of_kind("failed", segment, limit=10_000)
    assert failed[-1] == "r1"
    assert len(failed) > 100
    assert len(line_of([segment], "r4999") or b"") > 0


def test_a_request_is_slow_above_the_99th_percentile_of_its_kind_but_not_below_a_tenth_of_a_second() -> None:
    segment = memory()
    recorder = Recorder(segment.ring)
    for number in range(500):
        keep(recorder, record(number, total_ms=200.0 + number % 50, first_token_ms=None))
    before = set(of_kind("slow", segment))
    keep(recorder, record(1001, total_ms=251.0, first_token_ms=None), record(1002, total_ms=240.0, first_token_ms=None))
    assert set(of_kind("slow", segment)) - before == {"r1001"}
    quick = memory()
    recorder = Recorder(quick.ring)
    for number in range(500):
        keep(recorder, record(number, total_ms=1.0 + number % 50, first_token_ms=1.0))
    keep(recorder, record(1003, total_ms=SLOW_FROM_MS - 1))
    keep(recorder, record(1004, total_ms=60.0, first_token_ms=SLOW_FROM_MS + 1))
    assert of_kind("slow", quick) == ["r1004"]


def test_a_request_of_which_a_stall_took_a_tenth_was_stalled() -> None:
    segment = memory()
    recorder = Recorder(segment.ring)
    recorder.note_stall(b"{}", 90.0, 90.2)
    keep(recorder, record(1, total_ms=1000.0), at_s=90.5)  # 89.5 to 90.5: all of the stall, a fifth
    keep(recorder, record(2, total_ms=10_000.0), at_s=95.0)  # a fiftieth
    keep(recorder, record(3, total_ms=100.0), at_s=90.05)  # half of it
    keep(recorder, record(4, total_ms=100.0), at_s=95.0)  # after it
    assert sorted(of_kind("stalled", segment)) == ["r1", "r3"]


def test_a_request_may_be_of_several_kinds_and_a_stall_is_not_a_request() -> None:
    segment = memory()
    recorder = Recorder(segment.ring)
    recorder.note_stall(b'{"event":"stall"}', 90.0, 90.2)
    keep(recorder, record(1, "UT", total_ms=300.0), at_s=90.2)
    [ordinary, notable] = [RingReader(half) for half in halves(segment.ring)]
    assert list(ordinary.newest_first()) == []
    assert [entry.marks for entry in notable.newest_first()] == [FAILED | STALLED, STALL]
    assert ids(newest_lines([segment], marks=0, without=STALL, limit=10)) == ["r1"]
    assert newest_lines([segment], marks=STALL, without=0, limit=10) == [b'{"event":"stall"}']


def test_a_traced_request_that_is_too_large_is_kept_without_its_trace_and_one_that_still_is_counts_as_dropped() -> None:
    segment = memory(size=64 * 1024)
    recorder = Recorder(segment.ring)
    large = record_line(record(1), trace={"spans": [[0, 1, 2.5, 3.5, 1]] * 5000})
    recorder.keep(large, 1.0, "r1", marks=TRACED)
    assert of_kind("traced", segment) == []
    assert json.loads(line_of([segment], "r1") or b"") == json.loads(record_line(record(1)))
    recorder.keep(b"x" * 20_000, 2.0, "r2", marks=FAILED)
    assert RingReader(halves(segment.ring)[1]).dropped == 1
    assert of_kind("failed", segment) == []


def test_without_memory_nothing_is_kept() -> None:
    segment = memory(size=0)
    recorder = Recorder(segment.ring)
    assert not recorder.is_on
    keep(recorder, record(1, "UT"))
    assert (recorder.used_bytes, lines_after([segment], "", 10).lines) == (0, [])


def test_lines_of_all_processes_come_in_the_order_of_time_and_the_cursor_goes_on_after_them() -> None:
    segments = [memory(0), memory(1), memory(2, size=0)]
    recorders = [Recorder(one.ring) for one in segments]
    for number in range(10):
        keep(recorders[number % 2], record(number, "OK" if number % 3 else "UE"), at_s=float(number))
    first = lines_after(segments, "", 4)
    assert (ids(first.lines), first.lost, first.is_cut) == (["r0", "r1", "r2", "r3"], 0, True)
    second = lines_after(segments, first.cursor, 100)
    assert (ids(second.lines), second.lost, second.is_cut) == ([f"r{n}" for n in range(4, 10)], 0, False)
    assert lines_after(segments, second.cursor, 100).lines == []
    assert lines_after(segments, cursor_now(segments), 100).lines == []
    keep(recorders[1], record(10), at_s=10.0)
    assert ids(lines_after(segments, second.cursor, 100).lines) == ["r10"]


def test_what_was_overwritten_before_it_was_read_is_counted() -> None:
    segment = memory(size=64 * 1024)
    recorder = Recorder(segment.ring)
    keep(recorder, record(0))
    cursor = lines_after([segment], "", 10).cursor
    for number in range(1, 1001):
        keep(recorder, record(number))
    found = lines_after([segment], cursor, 10_000)
    assert len(found.lines) + found.lost == 1000
    assert found.lost > 500


@pytest.mark.parametrize("cursor", ["x", "1", "1.2.3", "0.0.1.1_", "-1.0.0.0", "0.0.0.0\n", "1.1.1.1.1", "9" * 9999])
def test_what_is_not_a_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError):
        lines_after([memory()], cursor, 10)


def test_the_latest_of_each_kind_are_followed() -> None:
    segments = [memory(0), memory(1)]
    recorders = [Recorder(one.ring) for one in segments]
    latest = Latest({"failed": FAILED, "cancelled": CANCELLED, "slow": SLOW}, 3)
    assert latest.look(segments) == {"failed": [], "cancelled": [], "slow": []}
    for number in range(10):
        keep(recorders[number % 2], record(number, "UT" if number < 8 else "DC"), at_s=float(number))
    found = latest.look(segments)
    assert {kind: ids(lines) for kind, lines in found.items()} == {
        "failed": ["r7", "r6", "r5"],
        "cancelled": ["r9", "r8"],
        "slow": [],
    }
    assert latest.look(segments) == found
    keep(recorders[0], record(10, "UE"), at_s=10.0)
    assert ids(latest.look(segments)["failed"]) == ["r10", "r7", "r6"]
