"""The stopwatch alone, on a clock that the test moves by hand."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Doing, Meter
from pipeline.testing import assert_time_conserved


class HandClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


def spent(meter: Meter) -> dict[str, int]:
    return {doing.name: meter.spent_ns[doing] for doing in Doing if meter.spent_ns[doing]}


def wait_and_raise(meter: Meter, clock: HandClock, error: BaseException) -> None:
    with meter.outside():
        clock.now_ns += 30
        raise error


def test_a_new_meter_is_starved_until_its_task_has_its_first_turn() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    assert (meter.name, meter.born_ns, meter.lifetime_ns, meter.fused) == ("work", 1_000, 0, False)
    assert spent(meter) == {}
    clock.now_ns += 7
    meter.resume()
    clock.now_ns += 2
    meter.begin_closing()
    assert spent(meter) == {"STARVED": 7, "BUSY": 2}


def test_a_switch_charges_the_time_to_the_bucket_that_was_running() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    for doing, ns in [(Doing.STARVED, 1), (Doing.BUSY, 20), (Doing.OUTSIDE, 300), (Doing.BLOCKED, 4_000)]:
        assert meter.enter(doing) == clock.now_ns
        clock.now_ns += ns
    meter.begin_closing()
    clock.now_ns += 50_000
    meter.begin_closing()
    assert spent(meter) == {"STARVED": 1, "BUSY": 20, "OUTSIDE": 300, "BLOCKED": 4_000, "CLOSING": 50_000}
    assert meter.lifetime_ns == 54_321


def test_work_after_the_end_of_input_is_closing_and_not_busy() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    meter.begin_closing()
    meter.resume()
    clock.now_ns += 5
    meter.rest()
    clock.now_ns += 6
    meter.begin_closing()
    assert spent(meter) == {"CLOSING": 11}


def test_rest_counts_as_starved_while_input_may_come() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    meter.rest()
    clock.now_ns += 5
    meter.resume()
    assert spent(meter) == {"STARVED": 5}


def test_a_declared_wait_is_outside_and_what_follows_it_is_busy() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    with meter.outside():
        clock.now_ns += 30
    clock.now_ns += 2
    meter.begin_closing()
    assert spent(meter) == {"OUTSIDE": 30, "BUSY": 2}


def test_handling_the_failure_of_a_declared_wait_is_busy() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    with pytest.raises(OSError, match="refused"):
        wait_and_raise(meter, clock, OSError("refused"))
    clock.now_ns += 2
    meter.begin_closing()
    assert spent(meter) == {"OUTSIDE": 30, "BUSY": 2}


def test_unwinding_after_a_cancelled_wait_is_closing() -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    with pytest.raises(KeyboardInterrupt):
        wait_and_raise(meter, clock, KeyboardInterrupt())
    clock.now_ns += 2
    meter.begin_closing()
    assert spent(meter) == {"OUTSIDE": 30, "CLOSING": 2}


async def test_a_stage_that_handles_its_own_timeout_is_busy_again_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    with trio.move_on_after(1), meter.outside():
        await trio.sleep(2)
    meter.rest()
    clock.now_ns += 40
    meter.resume()
    clock.now_ns += 2
    meter.begin_closing()
    assert spent(meter) == {"STARVED": 40, "BUSY": 2}


def test_a_meter_uses_the_performance_counter_by_default() -> None:
    meter = Meter("work")
    assert meter.resume() > 0
    assert meter.lifetime_ns >= 0


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["enter", "resume", "rest", "outside", "begin_closing"]),
        st.sampled_from(list(Doing)),
        st.integers(0, 10**12),
    )
)


@given(MOVES)
def test_the_buckets_sum_to_the_lifetime_whatever_happens(moves: list[tuple[str, Doing, int]]) -> None:
    clock = HandClock()
    meter = Meter("work", clock)
    for move, doing, ns in moves:
        clock.now_ns += ns
        if move == "enter":
            meter.enter(doing)
        elif move == "outside":
            with meter.outside():
                clock.now_ns += ns
        else:
            getattr(meter, move)()
    clock.now_ns += 1
    meter.begin_closing()
    assert_time_conserved(meter)
    assert meter.lifetime_ns == clock.now_ns - 1_000
