"""Series in shared memory: what one process writes, another one reads, even if the first is dead."""

from __future__ import annotations

import gc
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import series
from pipeline.histogram import slot_of, slot_of_size
from pipeline.segments import SegmentFile
from pipeline.series import Family, Kind, SeriesWriter, count_duration, count_size, read_segment, summed

LIMITS = (0.5, 1.0, math.inf)


def new_file() -> SegmentFile:
    return SegmentFile.create(ring_bytes=0)


def read_series(file: SegmentFile, when_dead: dict[str, str] | None = None) -> dict[str, Family]:
    return summed(map(read_segment, file.views()), when_dead=when_dead or {})


def only(families: dict[str, Family], name: str) -> series.Series:
    [found] = families[name].series
    return found


def test_each_kind_is_read_as_it_was_written() -> None:
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    writer.cell(Kind.COUNT, "count", (("a", "x"), ("b", "y")))[0] += 3
    writer.cell(Kind.SECONDS, "seconds")[0] += 1_500_000_000
    writer.cell(Kind.GAUGE, "gauge")[0] = -2.5
    writer.cell(Kind.AMOUNT, "amount", about="What a plugin counts.")[0] += 0.25
    count_duration(writer.cell(Kind.DURATIONS, "durations"), 2_000_000)
    count_size(writer.cell(Kind.SIZES, "sizes"), 1000)
    buckets = writer.cell(Kind.BUCKETS, "buckets", limits=LIMITS)
    buckets[1] += 2
    buckets[len(LIMITS)] += 1.75
    found = read_series(file)
    assert found["count"].kind is Kind.COUNT
    assert only(found, "count").labels == (("a", "x"), ("b", "y"))
    assert only(found, "count").value == 3
    assert only(found, "seconds").value == 1.5
    assert only(found, "gauge").value == -2.5
    assert (found["amount"].about, only(found, "amount").value) == ("What a plugin counts.", 0.25)
    assert (only(found, "durations").value, only(found, "durations").slots) == (0.002, {slot_of(2_000_000): 1})
    assert (only(found, "sizes").value, only(found, "sizes").slots) == (1000, {slot_of_size(1000): 1})
    assert only(found, "buckets").buckets == ((0.5, 0), (1.0, 2), (math.inf, 0))
    assert only(found, "buckets").value == 1.75


def test_a_series_that_is_asked_for_again_is_the_same() -> None:
    writer = SeriesWriter(new_file().claim(1))
    writer.cell(Kind.COUNT, "count", (("a", "x"),))[0] += 1
    writer.cell(Kind.COUNT, "count", (("a", "x"),))[0] += 1
    assert writer.cell(Kind.COUNT, "count", (("a", "x"),))[0] == 2


def test_processes_are_summed() -> None:
    file = new_file()
    for number in (1, 2):
        writer = SeriesWriter(segment := file.claim(number))
        writer.cell(Kind.COUNT, "count")[0] += number
        writer.cell(Kind.GAUGE, "gauge")[0] = number
        count_duration(writer.cell(Kind.DURATIONS, "durations"), 1_000_000)
        keep.append((writer, segment))
    found = read_series(file)
    assert only(found, "count").value == only(found, "gauge").value == 3
    assert only(found, "durations").slots == {slot_of(1_000_000): 2}


keep: list[object] = []
"""Segments are their process's as long as somebody refers to them."""


def test_the_next_process_goes_on_with_counters_and_begins_its_gauges_at_0() -> None:
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    writer.cell(Kind.COUNT, "count", (("a", "x"),))[0] += 5
    writer.cell(Kind.GAUGE, "running", (("a", "x"),))[0] = 3
    writer.cell(Kind.GAUGE, "idle")[0] = 2
    del writer
    gc.collect()
    dead = read_series(file)
    assert only(dead, "count").value == 5
    assert "running" not in dead
    lost = read_series(file, when_dead={"running": "lost"})
    assert (lost["lost"].kind, only(lost, "lost").value, only(lost, "lost").labels) == (Kind.COUNT, 3, (("a", "x"),))
    again = SeriesWriter(file.claim(2), when_dead={"running": "lost"})
    again.cell(Kind.COUNT, "count", (("a", "x"),))[0] += 1
    found = read_series(file, when_dead={"running": "lost"})
    assert (only(found, "count").value, only(found, "running").value, only(found, "idle").value) == (6, 0, 0)
    assert (only(found, "lost").value, only(found, "lost").labels) == (3, (("a", "x"),))


def test_a_segment_that_is_being_put_in_order_is_read_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    writer.cell(Kind.GAUGE, "running")[0] = 3
    del writer
    gc.collect()
    segment = file.claim(2)
    monkeypatch.setattr(os, "sched_yield", lambda: keep.append(SeriesWriter(segment, when_dead={"running": "lost"})))
    found = read_series(file, when_dead={"running": "lost"})
    assert (only(found, "lost").value, only(found, "running").value) == (3, 0)


def test_a_process_that_was_stopped_while_it_put_its_segment_in_order_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = new_file()
    segment = file.claim(1)
    yielded: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    assert read_series(file) == {}
    assert len(yielded) == 99
    assert segment.is_alive is False


def test_a_process_that_was_killed_while_it_put_its_segment_in_order_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = new_file()
    SeriesWriter(file.claim(1)).cell(Kind.COUNT, "count")[0] += 1
    gc.collect()
    unsettled = file.claim(2)
    del unsettled
    gc.collect()
    yielded: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    assert only(read_series(file), "count").value == 1
    assert yielded == []
    again = SeriesWriter(file.claim(3))
    assert again.cell(Kind.COUNT, "count")[0] == 1
    assert file.views()[0].is_alive


def test_too_many_series_of_a_family_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_SERIES", 2)
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    for label in "abcd":
        writer.cell(Kind.COUNT, "count", (("of", label),))[0] += 1
    values = {one.labels[0][1]: one.value for one in read_series(file)["count"].series}
    assert values == {"a": 1, "b": 1, "other": 2}


def test_what_has_no_room_is_counted_and_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    for number in range(1100):
        count_duration(writer.cell(Kind.DURATIONS, f"family {number}"), 1)
    writer.cell(Kind.GAUGE, "family " + "x" * 200)[0] = 1.0
    assert writer.dropped > 0
    found = read_series(file)
    assert len(found) + writer.dropped >= 1100
    assert all(one.slots == {0: 1} for name, family in found.items() if "x" not in name for one in family.series)


def test_buckets_with_other_limits_are_not_mixed() -> None:
    file = new_file()
    first, second = SeriesWriter(file.claim(1)), SeriesWriter(file.claim(2))
    first.cell(Kind.BUCKETS, "buckets", limits=LIMITS)[0] += 1
    second.cell(Kind.BUCKETS, "buckets", limits=(1.0, math.inf))[0] += 5
    assert only(read_series(file), "buckets").buckets == ((0.5, 1), (1.0, 0), (math.inf, 0))


def test_a_family_of_two_kinds_is_that_of_the_first() -> None:
    file = new_file()
    first, second = SeriesWriter(file.claim(1)), SeriesWriter(file.claim(2))
    first.cell(Kind.COUNT, "figure")[0] += 1
    second.cell(Kind.AMOUNT, "figure")[0] += 0.5
    assert (read_series(file)["figure"].kind, only(read_series(file), "figure").value) == (Kind.COUNT, 1)


@given(st.dictionaries(st.text(), st.text(), max_size=3), st.text(min_size=1).filter(lambda name: "\0" not in name))
def test_any_text_can_be_a_label(labels: dict[str, str], about: str) -> None:
    file = new_file()
    writer = SeriesWriter(file.claim(1))
    writer.cell(Kind.COUNT, "count", tuple(labels.items()), about=about)[0] += 1
    assert only(read_series(file), "count").value == 1


def test_the_series_of_one_process_are_read_apart_from_the_others() -> None:
    file = new_file()
    segments = [file.claim(1), file.claim(2)]
    for number, writer in enumerate(map(SeriesWriter, segments)):
        writer.cell(Kind.GAUGE, "gauge")[0] = float(number)
        writer.cell(Kind.SECONDS, "seconds", (("a", "x"),))[0] += 1_000_000_000 * number
        writer.cell(Kind.SECONDS, "seconds", (("a", "y"),))
    first, second = map(read_segment, file.views())
    assert (first.sum("gauge"), second.sum("gauge"), second.sum("none")) == (0.0, 1.0, 0)
    assert (second.sum("seconds"), second.sum("seconds", ("a", "x")), second.sum("seconds", ("a", "y"))) == (
        1.0,
        1.0,
        0,
    )
    assert (first.is_alive, second.is_alive) == (True, True)
