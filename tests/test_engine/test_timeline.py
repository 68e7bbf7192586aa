"""The time of one request as a whole: its points, its parties, its tokens and its transits."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.engine.clocks import HandClock

from pipeline import Party
from pipeline.histogram import SLOTS, slot_of
from pipeline.series import Cell
from pipeline.testing import virtual_ns
from pipeline.timeline import POINTS, BatchTimes, Timeline


class Story:
    """A timeline and the hands of its clock."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.timeline = Timeline(self.clock)

    def parties(self) -> tuple[int, int, int]:
        """The time of the client, ours and the upstream's until now."""
        return self.timeline.parties_ns(self.clock())

    def after(self, ns: int) -> int:
        return self.clock.advance(ns)


# Points.


def test_a_point_is_noted_when_it_is_passed_and_again_when_it_is_passed_again() -> None:
    story = Story()
    assert story.timeline.points == {}
    story.after(5)
    story.timeline.mark("routed")
    story.after(5)
    story.timeline.mark("upstream_sent")
    story.after(5)
    story.timeline.mark("upstream_sent")
    assert story.timeline.points == {"routed": 1_005, "upstream_sent": 1_015}


def test_an_answer_that_is_one_write_has_its_first_token_no_later_than_its_last_byte() -> None:
    story = Story()
    story.timeline.origin_ns = story.after(5)
    story.timeline.see_token(is_output=True)
    story.after(5)
    story.timeline.mark_once("first_byte_out")
    story.timeline.mark("last_byte_out")
    story.after(5)
    story.timeline.deliver(1_005)
    points = list(story.timeline.points.items())[-3:]
    assert points == [("first_byte_out", 1_010), ("first_token_out", 1_010), ("last_byte_out", 1_010)]


def test_a_point_that_counts_once_keeps_its_first_time() -> None:
    story = Story()
    story.timeline.mark_once("upstream_end")
    story.after(5)
    story.timeline.mark_once("upstream_end")
    assert story.timeline.points == {"upstream_end": 1_000}


def test_every_point_has_a_name_of_its_own() -> None:
    assert len(set(POINTS)) == len(POINTS)
    assert (POINTS[0], POINTS[-1]) == ("client_arrived", "ended")


# The arrival.


def test_a_request_begins_when_its_first_byte_arrived() -> None:
    story = Story()
    story.after(100)
    story.timeline.arrive(400, 550, 850)
    assert story.timeline.born_ns == 400
    assert story.timeline.points == {"client_arrived": 400, "head_read": 1_000}
    assert story.parties() == (300, 400, 0)  # it waited for us, then we for the rest of the head, then it for us


def test_a_request_whose_arrival_is_unknown_begins_with_its_first_read() -> None:
    story = Story()
    story.timeline.arrive(0, 550, 850)
    assert story.timeline.born_ns == 550
    assert story.timeline.points == {"head_read": 1_000}
    assert story.parties() == (300, 150, 0)


def test_a_request_of_which_no_time_is_known_begins_with_its_context() -> None:
    story = Story()
    story.after(7)
    story.timeline.arrive(0, 0, 0)
    assert story.timeline.born_ns == 1_000
    assert story.parties() == (0, 7, 0)


# Parties.


def test_time_is_ours_unless_nothing_is_inside() -> None:
    story = Story()
    timeline = story.timeline
    story.after(1)
    timeline.leave(story.after(20))
    timeline.enter(story.after(300))
    story.after(4_000)
    assert story.parties() == (0, 4_021, 300)


def test_time_is_the_upstreams_only_while_every_task_waits() -> None:
    story = Story()
    timeline = story.timeline
    timeline.enter(story.clock())  # a second task
    timeline.leave(story.after(1))  # the first waits for the second
    timeline.leave(story.after(20))
    timeline.enter(story.after(300))
    timeline.enter(story.after(4_000))
    timeline.leave(story.after(50_000))
    timeline.leave(story.after(600_000))
    timeline.enter(story.after(7_000_000))
    assert story.parties() == (0, 654_021, 7_000_300)


def test_what_arrived_before_the_last_task_went_away_costs_the_upstream_nothing() -> None:
    story = Story()
    story.timeline.leave(story.after(100))
    story.after(50)
    story.timeline.enter(1_060)  # known only now
    assert story.parties() == (0, 150, 0)


def test_a_wait_for_the_client_is_taken_from_ours() -> None:
    story = Story()
    story.after(100)
    story.timeline.client_ns += 30
    assert story.parties() == (30, 70, 0)


def test_the_parties_are_in_the_order_of_their_numbers() -> None:
    assert list(Party) == [Party.CLIENT, Party.OURS, Party.UPSTREAM] == [0, 1, 2]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**12), st.integers(0, 10**12))))
def test_the_parties_sum_to_the_total_and_none_is_negative(moves: list[tuple[bool, int, int]]) -> None:
    story = Story()
    inside = 1
    for is_arrival, ns, late_ns in moves:
        story.after(ns)
        if is_arrival and inside < 3:
            story.timeline.enter(max(story.timeline.born_ns, story.clock() - late_ns))
            inside += 1
        elif inside:
            story.timeline.leave(story.clock())
            inside -= 1
    assert sum(story.parties()) == story.clock() - 1_000
    assert min(story.parties()) >= 0


# The first token.


def token(story: Story, arrived_ns: int, *, is_output: bool) -> None:
    """Have a codec see a token in the batch that arrived then."""
    story.timeline.origin_ns = arrived_ns
    story.timeline.see_token(is_output=is_output)


def test_the_first_token_is_out_when_the_batch_that_had_it_is_delivered() -> None:
    story = Story()
    timeline = story.timeline
    story.after(100)
    timeline.deliver(1_050)  # the role, without a token
    story.after(50)
    token(story, 1_110, is_output=True)
    timeline.deliver(1_080)  # another batch before it
    story.after(50)
    timeline.deliver(1_110)
    story.after(50)
    timeline.deliver(1_250)
    assert timeline.points == {
        "first_byte_out": 1_100,
        "first_token": 1_150,
        "first_output_token": 1_150,
        "first_token_out": 1_200,
    }


def test_a_first_byte_that_has_the_first_token_is_both() -> None:
    story = Story()
    token(story, 1_000, is_output=True)
    story.after(9)
    story.timeline.deliver(1_000)
    points = story.timeline.points
    assert (points["first_byte_out"], points["first_token_out"]) == (1_009, 1_009)


def test_reasoning_is_a_token_but_no_output() -> None:
    story = Story()
    token(story, 1_000, is_output=False)
    story.after(30)
    token(story, 1_030, is_output=False)
    story.after(40)
    token(story, 1_070, is_output=True)
    story.after(50)
    token(story, 1_120, is_output=True)
    assert story.timeline.points == {"first_token": 1_000, "first_output_token": 1_070}


def test_the_first_token_that_comes_after_other_bytes_left_is_still_noted() -> None:
    story = Story()
    for arrived_ns in (1_000, 1_010):
        story.after(20)
        story.timeline.deliver(arrived_ns)
    token(story, 1_040, is_output=False)
    story.after(20)
    story.timeline.deliver(1_040)
    points = story.timeline.points
    assert (points["first_byte_out"], points["first_token_out"]) == (1_020, 1_060)


def test_a_delivery_that_has_begun_has_brought_the_first_byte_and_token_but_has_not_crossed() -> None:
    story = Story()
    timeline = story.timeline
    token(story, 1_000, is_output=True)
    story.after(10)
    timeline.begin_delivery(1_000)
    assert timeline.transits_ns(1) == []
    story.after(20)
    timeline.deliver(1_000)
    timeline.begin_delivery(1_030)
    assert (timeline.points["first_byte_out"], timeline.points["first_token_out"]) == (1_010, 1_010)
    assert len(timeline.transits_ns(1)) == 1


def test_what_came_of_no_batch_is_a_byte_but_has_not_crossed() -> None:
    story = Story()
    story.after(10)
    story.timeline.deliver(0)
    assert story.timeline.points == {"first_byte_out": 1_010}
    assert story.timeline.transits_ns(0.5, 1) == []


def test_a_token_that_a_stage_has_held_until_a_tick_is_out_with_the_tick() -> None:
    story = Story()
    token(story, 1_010, is_output=True)
    story.after(10)
    story.timeline.deliver(0)
    assert story.timeline.points["first_token_out"] == 1_010
    assert story.timeline.transits_ns(1) == []


# Transits.


def test_the_shares_of_the_transits_are_those_of_the_sorted_times() -> None:
    story = Story()
    for us in (9, 3, 5, 7, 1):
        story.timeline.deliver(story.clock())
        story.clock.now_ns = 2_000_000 * us  # each begins in another moment
        origin_ns = story.clock()
        story.after(1000 * us)
        story.timeline.deliver(origin_ns)
    transits_ns = story.timeline.transits_ns(0, 0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1)
    assert [round(ns / 1000) for ns in transits_ns] == [0, 0, 0, 1, 3, 5, 7, 9, 9]


def test_without_a_transit_there_are_no_shares() -> None:
    assert Story().timeline.transits_ns(0.5, 0.99, 1) == []


@pytest.mark.parametrize("ns", [0, 1, 600, 1_000, 9_000, 20_000, 123_456, 10**9, 3 * 10**10])
def test_a_transit_is_known_within_three_percent_or_a_third_of_a_microsecond(ns: int) -> None:
    story = Story()
    origin_ns = story.clock()
    story.after(ns)
    story.timeline.deliver(origin_ns)
    (transit_ns,) = story.timeline.transits_ns(0.5)
    assert abs(transit_ns - ns) <= max(0.032 * ns, 310)


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=60))
def test_every_share_of_the_transits_is_within_three_percent_of_the_true_one(transits_ns: list[int]) -> None:
    story = Story()
    for ns in transits_ns:
        origin_ns = story.clock()
        story.after(ns)
        story.timeline.deliver(origin_ns)
    ordered = sorted(transits_ns)
    half_ns, longest_ns = story.timeline.transits_ns(0.5, 1)
    true_half_ns = statistics.median_low(ordered)
    assert abs(half_ns - true_half_ns) <= max(0.032 * true_half_ns, 310)
    assert abs(longest_ns - ordered[-1]) <= max(0.032 * ordered[-1], 310)


# All requests together.


def histogram() -> list[int]:
    return [0] * (SLOTS + 1)


def counted(cell: Cell) -> int:
    return sum(cell[slot] for slot in range(SLOTS))


def test_batches_of_all_requests_are_counted_with_their_transits_and_gaps() -> None:
    times = BatchTimes(transit=histogram(), client_gap=histogram(), upstream_gap=histogram())
    clock = HandClock()
    timeline = Timeline(clock, times)
    for gap_ns, transit_ns in ((0, 20_000), (1_000_000, 30_000), (3_000_000, 20_000)):
        origin_ns = clock.advance(gap_ns)
        clock.advance(transit_ns)
        timeline.deliver(origin_ns)
    assert times.transit[SLOTS] == 70_000
    assert times.transit[slot_of(20_000)] == 2
    assert times.client_gap[SLOTS] == 1_030_000 + 3_020_000
    assert times.client_gap[slot_of(1_030_000)] == times.client_gap[slot_of(3_020_000)] == 1
    assert times.upstream_gap[SLOTS] == 1_020_000 + 3_030_000


def test_what_takes_longer_than_a_histogram_holds_is_in_its_last_slot_or_in_none() -> None:
    times = BatchTimes(transit=histogram(), client_gap=histogram(), upstream_gap=histogram())
    clock = HandClock()
    timeline = Timeline(clock, times)
    origin_ns = clock()
    timeline.deliver(origin_ns)
    clock.advance(10**15)
    timeline.deliver(clock())
    assert times.client_gap[SLOTS - 1] == times.upstream_gap[SLOTS - 1] == 1
    timeline.deliver(origin_ns)  # its transit is absurd
    assert counted(times.transit) == 2


def test_a_batch_that_arrived_before_the_last_one_makes_no_gap_of_the_upstream() -> None:
    times = BatchTimes(transit=histogram(), client_gap=histogram(), upstream_gap=histogram())
    clock = HandClock()
    timeline = Timeline(clock, times)
    clock.advance(5_000)
    timeline.deliver(5_000)
    timeline.deliver(4_000)
    assert counted(times.upstream_gap) == 0
    assert counted(times.client_gap) == 1


# While it runs.


def test_a_wait_that_goes_on_counts_for_whoever_is_waited_for() -> None:
    story = Story()
    timeline = story.timeline
    assert timeline.party is Party.OURS
    story.after(5)
    timeline.leave(story.clock())
    story.after(7)
    assert (timeline.party, story.parties()) == (Party.UPSTREAM, (0, 5, 7))
    timeline.enter(story.clock())
    timeline.client_since_ns = story.clock()
    story.after(3)
    assert (timeline.party, story.parties()) == (Party.CLIENT, (3, 5, 7))


def test_a_wait_is_the_clients_if_it_is_said_so() -> None:
    story = Story()
    with story.timeline.waiting_for_client():
        story.after(3)
        assert story.timeline.party is Party.CLIENT
    story.after(2)
    assert (story.timeline.party, story.parties()) == (Party.OURS, (3, 2, 0))


# Clocks.


def test_the_performance_counter_is_the_default_clock() -> None:
    timeline = Timeline()
    timeline.mark("routed")
    assert 0 < timeline.born_ns <= timeline.points["routed"]


async def test_a_timeline_follows_virtual_time_if_it_is_asked_to(autojump_clock: object) -> None:
    timeline = Timeline(virtual_ns)
    timeline.mark("routed")
    assert timeline.points["routed"] == timeline.born_ns == virtual_ns()


def test_whether_any_token_was_seen_is_known() -> None:
    timeline = Timeline(HandClock())
    assert not timeline.has_token
    timeline.see_token(is_output=False)
    assert timeline.has_token


def test_an_attempt_that_has_failed_unseen_leaves_no_points_of_its_answer() -> None:
    story, seen = Story(), []
    story.timeline.on_first_token = lambda: seen.append(story.clock())
    for point in ("upstream_head", "first_event", "upstream_end"):
        story.timeline.mark(point)
    story.timeline.origin_ns = story.after(5)
    story.timeline.see_token(is_output=True)
    story.timeline.forget_answer()
    assert list(story.timeline.points) == ["upstream_head"]
    story.after(7)
    story.timeline.see_token(is_output=False)
    assert story.timeline.points["first_token"] == story.clock()
    assert len(seen) == 2
