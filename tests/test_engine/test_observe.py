"""All requests together: each figure comes from the record of one request, and nothing of it is lost."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from kit.engine.clocks import HandClock
from kit.engine.lanes import new_lane

from pipeline import Pipeline, RequestContext, per_event
from pipeline.channel import Link
from pipeline.families import FAMILIES
from pipeline.histogram import slot_of, slot_of_size
from pipeline.lane import OUTSIDE, STATES
from pipeline.observe import Observed, read_all
from pipeline.segments import SegmentFile
from pipeline.series import Kind, Series
from pipeline.timeline import Timeline

MS = 1_000_000


class Figures:
    """The measurements of one process, and what anybody reads of them."""

    def __init__(self) -> None:
        self.file = SegmentFile.create(ring_bytes=0)
        self.observed = Observed(self.file.claim(1))

    def series(self, family: str, **labels: str) -> Series:
        if "observed" in vars(self):  # else its process has died
            self.observed.publish()
        [found] = [one for one in read_all(self.file)[family].series if dict(one.labels) == labels]
        return found

    def value(self, family: str, **labels: str) -> float:
        return self.series(family, **labels).value


def finished(clock: HandClock) -> Timeline:
    """Return the time of a request of 100 ms: 10 until its head was read, 60 for its upstream, 5 for its client."""
    timeline = Timeline(clock)
    began_ns = clock()
    timeline.born_ns = clock.advance(10 * MS)
    timeline.arrive(began_ns, 0, 0)
    timeline.mark("routed")
    clock.advance(5 * MS)
    timeline.mark("upstream_sent")
    timeline.leave(clock())
    clock.advance(40 * MS)
    timeline.mark("first_token")
    clock.advance(20 * MS)
    timeline.enter(clock())
    timeline.mark("upstream_end")
    timeline.client_ns += 5 * MS
    clock.advance(15 * MS)
    timeline.mark("first_token_out")
    clock.advance(10 * MS)
    timeline.mark("ended")
    return timeline


def test_requests_are_counted_at_their_begin_and_their_end() -> None:
    figures = Figures()
    for _ in range(4):
        figures.observed.begin()
    figures.observed.end("OK")
    figures.observed.end("UT")
    figures.observed.end("OK")
    assert figures.value("headrace_in_flight") == 1
    assert figures.value("headrace_requests_total", end="OK") == 2
    assert figures.value("headrace_requests_total", end="UT") == 1


def test_the_ends_that_are_expected_begin_at_0() -> None:
    figures = Figures()
    figures.observed.end("OK")
    figures.observed.expect_ends(["OK", "UT"])
    assert [figures.value("headrace_requests_total", end=end) for end in ("OK", "UT")] == [1, 0]


def test_the_requests_of_a_process_that_has_died_are_lost_and_stay_so() -> None:
    figures = Figures()
    figures.observed.begin()
    figures.observed.begin()
    figures.observed.end("OK")
    del figures.observed
    gc.collect()
    assert figures.value("headrace_requests_lost_total") == 1
    figures.observed = Observed(figures.file.claim(2))
    assert figures.value("headrace_requests_lost_total") == 1
    assert figures.value("headrace_in_flight") == 0
    assert figures.value("headrace_requests_total", end="OK") == 1


def test_a_finished_request_is_in_all_figures_of_whole_requests() -> None:
    figures = Figures()
    figures.observed.fold(finished(HandClock()), deployment="a", is_stream=True, end="OK", tokens=(100, 7))
    of = {"deployment": "a"}
    assert figures.series("headrace_request_seconds", **of, stream="true", end="OK").slots == {slot_of(100 * MS): 1}
    assert figures.value("headrace_request_party_seconds_total", party="client") == pytest.approx(0.005)
    assert figures.value("headrace_request_party_seconds_total", party="ours") == pytest.approx(0.035)
    assert figures.value("headrace_request_party_seconds_total", party="upstream") == pytest.approx(0.06)
    phases = {
        one.labels[0][1]: one.value for one in read_all(figures.file)["headrace_request_phase_seconds_total"].series
    }
    assert phases == pytest.approx(
        {"head_read": 0.01, "upstream_sent": 0.005, "first_token": 0.04, "upstream_end": 0.02}
        | {"first_token_out": 0.015, "ended": 0.01}
    )
    assert sum(phases.values()) == pytest.approx(0.1)
    figures.observed.fold(finished(HandClock()), deployment="a", is_stream=True, end="OK")
    assert figures.value("headrace_request_phase_seconds_total", phase="first_token") == pytest.approx(0.08)
    figures = Figures()
    figures.observed.fold(finished(HandClock()), deployment="a", is_stream=True, end="OK", tokens=(100, 7))
    assert figures.value("headrace_before_handler_seconds") == pytest.approx(0.01)
    assert figures.value("headrace_first_token_seconds", **of) == pytest.approx(0.09)
    assert figures.value("headrace_upstream_first_token_seconds", **of) == pytest.approx(0.04)
    assert figures.value("headrace_upstream_seconds", **of, end="OK") == pytest.approx(0.065)
    assert figures.value("headrace_tokens_total", **of, direction="completion") == 7
    assert figures.series("headrace_request_tokens", **of, direction="prompt").slots == {slot_of_size(100): 1}


def test_what_a_request_has_not_come_to_is_in_no_figure() -> None:
    figures = Figures()
    timeline = Timeline(HandClock())
    timeline.mark("ended")
    figures.observed.fold(timeline, deployment=None, is_stream=None, end="AU")
    assert figures.series("headrace_request_seconds", deployment="", stream="", end="AU").slots == {0: 1}
    found = read_all(figures.file)
    absent = ("before_handler", "first_token", "upstream_first_token", "upstream", "request_phase")
    assert not {f"headrace_{name}_seconds" for name in absent} & found.keys()
    assert figures.series("headrace_cancel_seconds").slots == {}


def test_a_cancelled_request_says_how_long_its_upstream_went_on() -> None:
    figures, clock = Figures(), HandClock()
    timeline = Timeline(clock)
    timeline.mark("left")
    clock.advance(3 * MS)
    timeline.mark("upstream_closed")
    timeline.mark("ended")
    figures.observed.fold(timeline, deployment="a", is_stream=False, end="DC")
    assert figures.value("headrace_cancel_seconds") == pytest.approx(0.003)


def test_what_was_over_before_it_could_be_timed_is_in_no_figure() -> None:
    figures, clock = Figures(), HandClock()
    timeline = Timeline(clock)
    for point in ("first_token", "upstream_sent", "upstream_closed", "left", "ended"):
        timeline.mark(point)
        clock.advance(MS)
    figures.observed.fold(timeline, deployment="a", is_stream=False, end="DC")
    assert figures.series("headrace_cancel_seconds").slots == {}
    assert "headrace_upstream_first_token_seconds" not in read_all(figures.file)


def test_the_first_stall_and_the_first_cancellation_are_a_step_from_0() -> None:
    figures = Figures()
    assert figures.value("headrace_stalls_total", stage="none") == 0
    assert figures.value("headrace_stall_seconds_total", stage="none") == 0
    assert figures.series("headrace_cancel_seconds").slots == {}


def test_a_collection_of_garbage_makes_no_series() -> None:
    figures = Figures()
    assert figures.series("headrace_gc_seconds").slots == {}
    before = bytes(figures.file.views()[0].series[:16])
    figures.observed.note_collection(5 * MS)
    assert bytes(figures.file.views()[0].series[:16]) == before


def test_each_attempt_counts_for_its_own_deployment() -> None:
    figures = Figures()
    attempts = [("a", "UT", 60 * MS), ("b", "OK", 5 * MS)]
    figures.observed.fold(finished(HandClock()), deployment="b", is_stream=True, end="OK", attempts=attempts)
    assert figures.value("headrace_upstream_seconds", deployment="a", end="UT") == pytest.approx(0.06)
    assert figures.value("headrace_upstream_seconds", deployment="b", end="OK") == pytest.approx(0.005)


async def test_the_figures_of_tasks_are_those_of_their_lanes_stages_and_links() -> None:
    def twice(event: int) -> list[int]:
        return [event, event]

    figures, ctx = Figures(), RequestContext("request 7")
    pipeline = Pipeline(per_event(twice)).then(per_event(lambda event: [event]), capacity=1)
    assert await pipeline.run([[1], [2, 3]], ctx) == [1, 1, 2, 2, 3, 3]
    figures.observed.fold_tasks(ctx.lanes, ctx.links)
    figures.observed.fold_tasks(ctx.lanes, ctx.links)  # another request like it
    for lane in ctx.lanes:
        for state, ns in zip(STATES, lane.spent_ns, strict=True):
            assert figures.value("headrace_lane_seconds_total", lane=lane.name, state=state) * 1e9 == pytest.approx(
                2 * ns
            )
        for stage in lane.stages:
            name = stage.name
            busy_s = figures.value("headrace_stage_busy_seconds_total", stage=name)
            assert busy_s * 1e9 == pytest.approx(2 * (stage.busy_ns + stage.flush_ns))
    assert figures.value("headrace_stage_events_total", stage="twice", direction="in") == 6
    assert figures.value("headrace_stage_events_total", stage="twice", direction="out") == 12
    for link in ctx.links:
        assert figures.value("headrace_link_batches_total", link=link.name) == 4
        ready = figures.series("headrace_link_wait_seconds", link=link.name, kind="ready")
        queued = figures.series("headrace_link_wait_seconds", link=link.name, kind="queued")
        assert sum(ready.slots.values()) + sum(queued.slots.values()) == 4
        assert ready.value * 1e9 == pytest.approx(2 * link.ready_ns)


def test_declared_waits_and_further_tasks_of_a_stage_count_once() -> None:
    figures, clock = Figures(), HandClock()
    lane = new_lane(clock, "mirror")
    further = lane.further("writer")
    clock.advance(2 * MS)
    lane.switch(OUTSIDE, clock())
    clock.advance(3 * MS)
    lane.begin_closing()
    further.begin_closing()
    figures.observed.fold_tasks([lane], [])
    assert figures.value("headrace_stage_outside_seconds_total", stage="mirror") == pytest.approx(0.003)
    assert figures.value("headrace_stage_busy_seconds_total", stage="mirror") * 1e9 == lane.stages[0].busy_ns
    assert figures.value("headrace_lane_seconds_total", lane="mirror.writer", state="busy") == pytest.approx(0.005)


async def test_the_waits_of_batches_in_a_link_are_counted_by_their_kind() -> None:
    figures, clock = Figures(), HandClock()
    link: Link[int] = Link("a>b", 2)
    giver, taker = new_lane(clock), new_lane(clock)
    assert link.give_nowait([1], giver, clock())
    clock.advance(3 * MS)
    assert await link.take(taker) == [1]
    figures.observed.fold_tasks([], [link])
    assert figures.series("headrace_link_wait_seconds", link="a>b", kind="queued").slots == {slot_of(3 * MS): 1}
    assert figures.value("headrace_link_wait_seconds", link="a>b", kind="queued") == pytest.approx(0.003)
    assert figures.series("headrace_link_wait_seconds", link="a>b", kind="ready").slots == {}


async def test_the_batches_that_wait_in_links_are_known_while_they_do() -> None:
    figures = Figures()
    link: Link[int] = Link("a>b", 2)
    lane = new_lane(HandClock())
    assert link.give_nowait([1], lane, 0)
    assert link.waiting == 1
    figures.observed.note_depths({"a>b": link.waiting})
    assert figures.value("headrace_link_depth", link="a>b") == 1
    figures.observed.note_depths({})
    assert figures.value("headrace_link_depth", link="a>b") == 0


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (lambda one: one.note_stall("shout", 30 * MS), {("headrace_stalls_total", "shout"): 1}),
        (lambda one: one.note_stall(None, 60 * MS), {("headrace_stall_seconds_total", "none"): 0.06}),
        (lambda one: one.note_refused_at_door(), {("headrace_refused_at_door_total",): 1}),
        (lambda one: one.note_collection(5 * MS), {("headrace_gc_seconds",): 0.005}),
        (lambda one: one.note_dropped_lines(4), {("headrace_log_lines_dropped_total",): 4}),
        (lambda one: one.note_recorder(1234), {("headrace_recorder_bytes",): 1234}),
        (lambda one: one.fold_turns({"shout": [MS, MS]}), {("headrace_stage_busy_seconds", "shout"): 0.002}),
        (
            lambda one: one.note_process(lag_s=0.5, resident_bytes=9, sockets={"client": 3, "upstream": 2}),
            {
                ("headrace_loop_lag_seconds", "1"): 0.5,
                ("headrace_resident_bytes", "1"): 9,
                ("headrace_sockets", "client"): 3,
                ("headrace_sockets", "upstream"): 2,
                ("headrace_series_dropped_total",): 0,
            },
        ),
    ],
    ids=["stage", "loop", "door", "collection", "log", "recorder", "turns", "process"],
)
def test_what_happens_to_the_process_is_counted(
    note: Callable[[Observed], object], expected: dict[tuple[str, ...], float]
) -> None:
    figures = Figures()
    note(figures.observed)
    found: dict[tuple[str, ...], float] = {
        (name, *(value for _, value in one.labels)): one.value
        for name, family in read_all(figures.file).items()
        for one in family.series
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_every_family_says_what_it_counts_and_is_named_for_it() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith("headrace_")
        assert family.about.endswith(".")
        assert family.name.endswith("_total") == (family.kind in (Kind.COUNT, Kind.SECONDS))
        assert family.name.endswith("_seconds") == (family.kind is Kind.DURATIONS) or family.kind is Kind.GAUGE


def test_what_another_part_of_the_process_counts_is_read_as_well() -> None:
    figures = Figures()
    figures.observed.series.cell(Kind.AMOUNT, "headrace_plugin_mirror_bytes_total", about="Bytes.")[0] += 2.5
    family = read_all(figures.file)["headrace_plugin_mirror_bytes_total"]
    assert (family.about, family.series[0].value) == ("Bytes.", 2.5)


def test_whose_time_it_was_is_known_to_the_process_itself() -> None:
    figures = Figures()
    figures.observed.fold(finished(HandClock()), deployment="d", is_stream=True, end="OK")
    assert figures.observed.party_s() == {"client": 0.005, "ours": 0.035, "upstream": 0.06}
