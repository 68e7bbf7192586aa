"""The stopwatch of one task, on a clock that the test moves by hand."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from kit.engine.clocks import HandClock
from kit.engine.lanes import new_lane, spent

from pipeline import Lane, Outlet, Party, RequestContext
from pipeline.channel import Sink
from pipeline.lane import BLOCKED, BUSY, CLOSING, OUTSIDE, READY, STARVED, STATES
from pipeline.loop import STAGE_TURN_NS, Loop, Stall
from pipeline.testing import assert_time_conserved
from pipeline.timeline import Timeline


class Bench:
    """A lane at work, its clock, and the timeline of its request."""

    def __init__(self, *members: str, loop: Loop | None = None) -> None:
        self.clock = HandClock()
        self.timeline = Timeline(self.clock)
        self.loop = loop or Loop()
        self.lane = new_lane(self.clock, timeline=self.timeline, loop=self.loop, members=members)
        self.outlet: Outlet[int] = Outlet(Sink([]), self.lane)
        self.lane.switch(BUSY, self.clock())

    def spend(self, state: int, ns: int) -> None:
        """Be in a state for so long."""
        self.lane.switch(state, self.clock())
        self.clock.advance(ns)

    def spent(self) -> dict[str, int]:
        """End the running state, and return the time in each."""
        self.lane.switch(self.lane.state, self.clock())
        return spent(self.lane)

    def parties(self) -> tuple[int, int, int]:
        """The time of the client, ours and the upstream's until now."""
        return self.timeline.parties_ns(self.clock())


# States.


def test_a_new_lane_is_ready_until_its_task_has_its_first_turn() -> None:
    clock = HandClock()
    lane = new_lane(clock)
    assert (lane.name, lane.born_ns, lane.lifetime_ns, spent(lane)) == ("work", 1_000, 0, {})
    lane.switch(BUSY, clock.advance(7))
    lane.switch(STARVED, clock.advance(2))
    assert spent(lane) == {"ready": 7, "busy": 2}
    assert lane.lifetime_ns == 9


def test_a_switch_charges_the_time_to_the_state_that_ends() -> None:
    bench = Bench()
    for at, state in enumerate((STARVED, READY, BUSY, OUTSIDE, BLOCKED, CLOSING)):
        bench.spend(state, 10**at)
    assert bench.spent() == dict(zip(STATES, (1, 10, 100, 1_000, 10_000, 100_000), strict=True))
    assert bench.lane.lifetime_ns == 111_111


def test_what_follows_the_beginning_of_the_end_is_closing() -> None:
    bench = Bench()
    bench.clock.advance(3)
    bench.lane.begin_closing()
    bench.clock.advance(5)
    with bench.outlet.outside():
        bench.clock.advance(30)
    bench.clock.advance(6)
    bench.lane.begin_closing()
    assert bench.spent() == {"busy": 3, "outside": 30, "closing": 11}
    assert bench.lane.stages[0].flush_ns == 11


# Declared waits.


def test_a_declared_wait_is_outside_and_what_follows_it_is_busy() -> None:
    bench = Bench()
    bench.clock.advance(1)
    waiting = bench.outlet.outside()
    for _ in range(2):
        with waiting:
            bench.clock.advance(30)
        bench.clock.advance(2)
    assert bench.spent() == {"busy": 5, "outside": 60}
    assert (bench.lane.stages[0].busy_ns, bench.lane.stages[0].outside_ns) == (5, 60)
    assert bench.parties() == (0, 65, 0)  # nobody's but ours


def wait_and_raise(bench: Bench, error: BaseException, party: Party = Party.OURS) -> None:
    with bench.lane.outside(party):
        bench.clock.advance(30)
        raise error


@pytest.mark.parametrize("party", Party)
def test_handling_the_failure_of_a_declared_wait_is_busy(party: Party) -> None:
    bench = Bench()
    with pytest.raises(OSError, match="refused"):
        wait_and_raise(bench, OSError("refused"), party)
    bench.clock.advance(2)
    assert bench.spent() == {"outside": 30, "busy": 2}
    assert bench.parties()[party] >= 30


def test_unwinding_after_a_cancelled_wait_is_closing() -> None:
    bench = Bench()
    with pytest.raises(KeyboardInterrupt):
        wait_and_raise(bench, KeyboardInterrupt())
    bench.clock.advance(2)
    assert bench.spent() == {"outside": 30, "closing": 2}


async def test_a_stage_that_handles_its_own_timeout_is_starved_and_busy_again_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bench = Bench()
    with trio.move_on_after(1), bench.outlet.outside():
        await trio.sleep(2)
    bench.spend(STARVED, 40)
    bench.spend(BUSY, 2)
    assert bench.spent() == {"starved": 40, "busy": 2}


def test_a_send_inside_a_declared_wait_does_not_confuse_the_figures() -> None:
    bench = Bench()
    with bench.outlet.outside():
        bench.clock.advance(30)
        bench.spend(BLOCKED, 4)
        bench.lane.switch(OUTSIDE, bench.clock())
        bench.clock.advance(50)
    assert bench.spent() == {"outside": 80, "blocked": 4}
    assert bench.lane.stages[0].outside_ns == 80
    assert_time_conserved(bench.lane)


# Whose time a declared wait is.


def test_a_wait_for_the_client_is_the_clients() -> None:
    bench = Bench()
    with bench.outlet.outside(Party.CLIENT):
        bench.clock.advance(30)
    bench.clock.advance(2)
    assert bench.parties() == (30, 2, 0)
    assert bench.lane.origin_ns == 0


def test_a_wait_for_the_upstream_is_the_upstreams_and_what_it_brought_arrived_at_its_end() -> None:
    bench = Bench()
    bench.clock.advance(5)
    with bench.outlet.outside(Party.UPSTREAM):
        bench.clock.advance(30)
    bench.clock.advance(2)
    assert bench.parties() == (0, 7, 30)
    assert bench.lane.origin_ns == 1_035


@pytest.mark.parametrize(
    ("arrived_ns", "outside_ns", "ready_ns"),
    [
        (0, 100, 0),  # not known
        (1_070, 60, 40),
        (1_110, 100, 0),
        (1_000, 0, 100),  # before the wait
        (1_999, 100, 0),  # not yet: no clock is perfect
    ],
)
def test_what_follows_the_arrival_of_the_bytes_is_a_wait_for_the_loop(
    arrived_ns: int, outside_ns: int, ready_ns: int
) -> None:
    bench = Bench()
    bench.clock.advance(10)
    waiting = bench.outlet.outside(Party.UPSTREAM)
    with waiting:
        bench.clock.advance(100)
        waiting.arrived_ns = arrived_ns
    bench.clock.advance(1)
    expected = {"busy": 11, "outside": outside_ns, "ready": ready_ns}
    assert bench.spent() == {state: ns for state, ns in expected.items() if ns}
    assert bench.lane.stages[0].outside_ns == outside_ns
    assert bench.parties() == (0, 11 + ready_ns, outside_ns)
    assert bench.lane.origin_ns == 1_010 + outside_ns


def test_an_arrival_counts_for_one_wait_only() -> None:
    bench = Bench()
    waiting = bench.outlet.outside(Party.UPSTREAM)
    with waiting:
        bench.clock.advance(100)
        waiting.arrived_ns = bench.clock.now_ns - 10
    with waiting:
        bench.clock.advance(100)
    assert bench.spent() == {"outside": 190, "ready": 10}


# Further tasks of a stage.


def test_another_task_of_a_stage_has_a_lane_whose_time_is_the_stages_too() -> None:
    bench = Bench()
    bench.clock.advance(10)
    with bench.outlet.lane("reader") as reading:
        bench.clock.advance(1)
        with reading.outside(Party.UPSTREAM):
            bench.clock.advance(20)
        bench.clock.advance(2)
    bench.clock.advance(4)
    bench.lane.begin_closing()
    bench.clock.advance(5)
    bench.lane.begin_closing()
    (reader,) = bench.lane.more
    assert (reader.name, reader.born_ns) == ("work.reader", 1_010)
    assert spent(reader) == {"busy": 3, "outside": 20}
    assert spent(bench.lane) == {"busy": 37, "closing": 5}
    stage = bench.lane.stages[0]
    assert (stage.busy_ns, stage.outside_ns, stage.flush_ns) == (40, 20, 5)
    assert_time_conserved(bench.lane)


async def test_what_another_task_sends_is_counted_for_its_stage() -> None:
    bench = Bench()
    with bench.outlet.lane("reader") as reading:
        await reading.send([1, 2])
        await bench.outlet.send([3])
    assert (bench.lane.stages[0].batches_out, bench.lane.stages[0].events_out) == (2, 3)


def test_the_upstream_is_not_waited_for_while_another_task_of_the_stage_works() -> None:
    bench = Bench()
    with bench.outlet.lane("reader") as reading:
        with reading.outside(Party.UPSTREAM):
            bench.clock.advance(20)  # the stage's main task is at work
            with bench.outlet.outside(Party.UPSTREAM):
                bench.clock.advance(300)  # now both wait
            bench.clock.advance(20)
        bench.clock.advance(4_000)
    with bench.outlet.outside(Party.UPSTREAM):
        bench.clock.advance(50_000)  # the other task has ended
    assert bench.parties() == (0, 4_040, 50_300)


# Long turns.


def turns(*members: str) -> tuple[Bench, list[Stall]]:
    loop, stalls = Loop(), list[Stall]()
    loop.on_stall = stalls.append
    loop.streams = 3
    bench = Bench(*members, loop=loop)
    loop.clock = bench.clock
    return bench, stalls


@pytest.mark.parametrize("state", [BUSY, CLOSING])
def test_a_turn_of_a_stage_over_the_limit_is_a_stall(state: int) -> None:
    bench, stalls = turns()
    bench.spend(state, STAGE_TURN_NS)
    bench.spend(state, STAGE_TURN_NS + 1)
    bench.spend(STARVED, 0)
    assert stalls == [Stall("work", "request 7", STAGE_TURN_NS + 1, 3)]


@pytest.mark.parametrize("state", [STARVED, READY, OUTSIDE, BLOCKED])
def test_a_wait_is_not_a_stall_however_long(state: int) -> None:
    bench, stalls = turns()
    bench.spend(state, 60_000_000_000)
    bench.spend(BUSY, 1)
    assert stalls == []


def test_work_during_which_the_loop_turned_has_not_held_it() -> None:
    bench, stalls = turns()
    bench.spend(BUSY, STAGE_TURN_NS)
    bench.loop.after_io_wait(0)
    bench.clock.advance(STAGE_TURN_NS)
    bench.spend(STARVED, 1)
    bench.spend(BUSY, STAGE_TURN_NS + 2)
    bench.spend(STARVED, 1)
    assert [stall.ns for stall in stalls] == [STAGE_TURN_NS + 2]


def test_a_line_reports_its_members_turns_itself() -> None:
    bench, stalls = turns("first", "second")
    bench.spend(BUSY, STAGE_TURN_NS + 1)
    bench.spend(STARVED, 1)
    assert stalls == []


def test_a_long_turn_of_another_task_is_its_stages() -> None:
    bench, stalls = turns()
    with bench.outlet.lane("reader"):
        bench.clock.advance(STAGE_TURN_NS + 1)
    assert stalls == [Stall("work", "request 7", STAGE_TURN_NS + 1, 3)]


# Sums.

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["switch", "closing", "fail", *Party]),
        st.integers(0, len(STATES) - 1),
        st.integers(0, 10**12),
        st.integers(-(10**12), 10**12),
    )
)


@given(MOVES)
def test_the_states_sum_to_the_lifetime_and_the_parties_to_the_total_whatever_happens(
    moves: list[tuple[str | Party, int, int, int]],
) -> None:
    bench = Bench()
    for move, state, ns, arrived_ns in moves:
        bench.clock.advance(ns)
        if isinstance(move, Party):
            waiting = bench.outlet.outside(move)
            with waiting:
                bench.clock.advance(ns)
                waiting.arrived_ns = bench.clock() + arrived_ns
        elif move == "switch":
            bench.lane.switch(state, bench.clock())
        elif move == "closing":
            bench.lane.begin_closing()
        else:
            with pytest.raises(trio.TooSlowError):
                wait_and_raise(bench, trio.TooSlowError())
    bench.clock.advance(1)
    bench.lane.begin_closing()
    assert_time_conserved(bench.lane)
    assert bench.lane.lifetime_ns == bench.clock() - 1_000
    assert sum(bench.parties()) == bench.lane.lifetime_ns
    assert min(bench.parties()) >= 0


def test_members_of_a_line_take_what_the_one_before_gave() -> None:
    lane: Lane = Bench("first", "second").lane
    first, second = lane.stages
    first.batches_out, first.events_out = 3, 4
    assert (second.name, second.batches_in, second.events_in) == ("second", 3, 4)
    assert (first.name, first.batches_in, first.events_in) == ("first", 0, 0)
    assert (lane.name, first.busy_ns, first.outside_ns, first.flush_ns) == ("first", 0, 0, 0)


def test_a_request_uses_the_performance_counter_by_default() -> None:
    lane = new_lane(RequestContext("r1").timeline.clock)
    lane.begin_closing()
    assert lane.lifetime_ns > 0
    assert lane.born_ns > 0


def test_what_a_further_task_waits_for_is_not_ours() -> None:
    bench = Bench()
    further = bench.lane.further("sender")
    with bench.lane.outside(Party.UPSTREAM):
        with further.outside():
            bench.clock.advance(30)
        bench.clock.advance(5)
    further.begin_closing()
    assert bench.parties() == (0, 5, 30)


def test_a_further_task_that_waits_for_the_client_waits_for_the_client() -> None:
    bench = Bench()
    further = bench.lane.further("sender")
    with bench.lane.outside(Party.UPSTREAM), further.outside(Party.CLIENT):
        bench.clock.advance(30)
    further.begin_closing()
    assert bench.parties() == (30, 0, 0)
