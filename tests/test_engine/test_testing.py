"""Negative tests of the kit itself: each kind of bad stage is caught, with a message that says what to do."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from kit.engine.clocks import HandClock
from kit.engine.lanes import new_lane

from pipeline import (
    Inlet,
    Lane,
    Outcome,
    Outlet,
    Pipeline,
    Plugin,
    RequestContext,
    Slot,
    StageBug,
    UpstreamFault,
    codec_stage,
    per_event,
)
from pipeline.channel import DownstreamGone
from pipeline.end_testing import assert_closes_once
from pipeline.lane import BUSY, OUTSIDE
from pipeline.registry import NoOptions
from pipeline.stage_testing import on_virtual_time
from pipeline.testing import (
    assert_backpressure,
    assert_blind_to_batching,
    assert_cancels_cleanly,
    assert_forgets_requests,
    assert_lets_go,
    assert_time_conserved,
    assert_waits_declared,
    check_stage,
    collect,
    new_context,
    rebatched,
    virtual_ns,
)

PREFIX: Slot[str] = Slot("prefix")


@per_event
def double(number: int) -> Iterator[int]:
    yield 2 * number


class CountBatches:
    """Numbers the batches, so its output depends on batching."""

    def __init__(self, ctx: RequestContext) -> None:
        self.number = 0

    def feed(self, batch: list[int], /) -> list[int]:
        self.number += 1
        return [self.number]

    def flush(self) -> list[int]:
        return []


class SleepQuietly:
    name = "sleep_quietly"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await trio.sleep(0.25)
            await outlet.send(batch)


class SleepAtTheEnd:
    name = "sleep_at_the_end"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
        await trio.sleep(60)


class SleepInATask:
    """Sleeps in another task, while its own waits for that as it should."""

    name = "sleep_in_a_task"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async def sleep() -> None:
            with outlet.lane("sleeper"):
                await trio.sleep(7)

        async with trio.open_nursery() as nursery:
            async for batch in inlet:
                nursery.start_soon(sleep)
                with outlet.outside():
                    await trio.sleep(8)
                await outlet.send(batch)


class SendInsideAWait:
    """Sends inside its declared wait; the wait for its consumer is not part of that."""

    name = "send_inside_a_wait"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside():
                await trio.sleep(1)
                await outlet.send(batch)
                await trio.sleep(2)


class AskInATask:
    """Asks in another task, and gives from there."""

    name = "ask_in_a_task"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            asked = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, batch, outlet, asked)
                with outlet.outside():
                    await asked.wait()

    async def _ask(self, batch: list[int], outlet: Outlet[int], asked: trio.Event) -> None:
        with outlet.lane("asker") as asking:
            with asking.outside():
                await trio.sleep(60)
            await asking.send(batch)
        asked.set()


class AskProperly:
    name = "ask_properly"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside():
                await trio.sleep(3600)
            await outlet.send(batch)


class CollectAll:
    name = "collect_all"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        held: list[int] = []
        async for batch in inlet:
            held += batch
        await outlet.send(held)


class ConvertCancel:
    """Turns its cancellation into a failure."""

    name = "convert_cancel"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        try:
            async for batch in inlet:
                await outlet.send(batch)
        except trio.Cancelled:
            raise ConnectionError("interrupted") from None


def test_a_good_stage_passes_and_its_output_is_returned() -> None:
    assert check_stage(double, 1, 2, 3) == [2, 4, 6]


def test_a_stage_can_be_checked_without_any_events() -> None:
    assert check_stage(double) == []
    assert check_stage(double, 1) == [2]


def test_a_declared_wait_of_hours_passes_and_takes_no_time() -> None:
    assert check_stage(AskProperly(), 1, 2) == [1, 2]
    assert check_stage(AskInATask(), 1, 2) == [1, 2]


def test_a_send_inside_a_declared_wait_is_caught() -> None:
    with pytest.raises(
        AssertionError, match=r"^send_inside_a_wait sends inside `with outlet.outside\(\):`: send after"
    ):
        check_stage(SendInsideAWait(), 1, 2)


class Blinks:
    """Ticks, which only a task can be woken for that does not wait for its source."""

    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []

    def tick(self) -> list[int]:
        return [0]


def test_a_ticking_stage_is_checked_behind_a_relay() -> None:
    assert check_stage(codec_stage("blink", Blinks, tick_s=5), 1, 2, 3) == [1, 2, 3]


async def test_the_relay_before_a_ticking_stage_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    contexts: list[RequestContext] = []

    def context() -> RequestContext:
        contexts.append(RequestContext("test", clock=virtual_ns))
        return contexts[-1]

    assert await collect(codec_stage("blink", Blinks, tick_s=5), 1, 2, context=context) == [1, 2]
    assert [lane.name for lane in contexts[0].lanes] == ["relay", "blink"]
    assert virtual_ns() == 0


def test_dependence_on_batching_is_caught() -> None:
    stage = codec_stage("count_batches", CountBatches)
    with pytest.raises(AssertionError) as caught:
        check_stage(stage, 5, 6, 7)
    assert str(caught.value).startswith(
        "count_batches depends on batching: in batches of 1 [1, 2, 3], all at once [1]",
    )


def test_output_that_is_only_cut_differently_can_be_normalised() -> None:
    joining = codec_stage("join", lambda ctx: JoinBatch(), codec=JoinBatch)
    with pytest.raises(AssertionError, match="join depends on batching"):
        check_stage(joining, b"a", b"b", b"c")
    assert check_stage(joining, b"a", b"b", b"c", normalise=b"".join) == [b"a", b"b", b"c"]


class JoinBatch:
    """Emits one item per batch."""

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        return [b"".join(batch)]

    def flush(self) -> list[bytes]:
        return []


def test_memory_of_an_earlier_request_is_caught() -> None:
    shared: list[int] = []

    @per_event
    def accumulate(number: int) -> Iterator[int]:
        shared.append(number)
        yield sum(shared)

    with pytest.raises(AssertionError) as caught:
        check_stage(accumulate, 1, 2)
    assert str(caught.value).startswith("accumulate remembers an earlier request: first it gave [7, 9], then [10, 12]")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (SleepQuietly(), "sleep_quietly waited 0.5 s without saying so: put it in `with outlet.outside():`"),
        (SleepAtTheEnd(), "sleep_at_the_end waited 60 s without saying so"),
        (SleepInATask(), "sleep_in_a_task.sleeper waited 7 s without saying so"),
    ],
)
def test_an_undeclared_wait_is_caught(stage: Any, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(stage, 1, 2)
    assert str(caught.value).startswith(message)


class WorkInAThread:
    """Waits for a thread, which takes no virtual time."""

    name = "work_in_a_thread"

    def __init__(self, *, is_declared: bool) -> None:
        self._is_declared = is_declared

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside() if self._is_declared else nullcontext():
                await trio.to_thread.run_sync(time.sleep, 0.001)
            await outlet.send(batch)


def test_an_undeclared_wait_for_a_thread_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"^work_in_a_thread waited \d+(\.\d+)? s without saying so"):
        check_stage(WorkInAThread(is_declared=False), 1, 2)
    assert check_stage(WorkInAThread(is_declared=True), 1, 2) == [1, 2]


class SendsOneList:
    """Fills the list again that it has given away."""

    def __init__(self) -> None:
        self._batch: list[int] = []

    def feed(self, batch: list[int], /) -> list[int]:
        self._batch[:] = batch
        return self._batch

    def flush(self) -> list[int]:
        return []


def test_a_batch_that_is_changed_after_it_was_sent_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"^reuse changes a batch that it has sent, from \[1\] to \[2\]"):
        check_stage(codec_stage("reuse", lambda ctx: SendsOneList(), codec=SendsOneList), 1, 2)


class Lines:
    """Whole lines come out. How it says what it holds is to be checked."""

    def __init__(self) -> None:
        self.held = ""
        self.taken = ""

    def feed(self, batch: list[str], /) -> list[str]:
        self.taken += "".join(batch)
        lines, end, self.held = (self.held + "".join(batch)).rpartition("\n")
        return [lines + end] if end else []

    def flush(self) -> list[str]:
        text, self.held = self.held, ""
        return [text] if text else []


class HoldsIt(Lines):
    def skip(self) -> list[str]:
        return [self.held] if self.held else []


class Flushes(Lines):
    def skip(self) -> list[str]:
        return self.flush()


class Loses(Lines):
    def skip(self) -> list[str]:
        return []


class Doubles(Lines):
    def skip(self) -> list[str]:
        return [self.taken] if self.taken else []


@pytest.mark.parametrize(
    ("codec", "fault"),
    [
        (
            Flushes,
            r"^skip of lines changes the codec: after 1 events it gave \[\], and \[\] at the end; if nobody calls",
        ),
        (
            Loses,
            r"^lines holds \['a'\] after 1 events, but skip returns \[\]: a request that goes on",
        ),
        (Doubles, r"^lines holds \[\] after 2 events, but skip returns \['ab\\n'\]: "),
    ],
)
def test_a_codec_that_does_not_return_what_it_holds_is_caught(codec: type[Any], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_stage(codec_stage("lines", lambda ctx: codec(), codec=codec), "a", "b\n", "c", normalise="".join)


def test_a_codec_that_returns_what_it_holds_passes_even_if_it_changes_text_or_adds_some() -> None:
    class Counts(HoldsIt):
        def flush(self) -> list[str]:
            return [*super().flush(), f"{len(self.taken)} characters"]

    class Shouts(HoldsIt):
        def feed(self, batch: list[str], /) -> list[str]:
            return [text.upper() for text in super().feed(batch)]

    for stage in (
        codec_stage("lines", lambda ctx: HoldsIt(), codec=HoldsIt),
        codec_stage("lines", lambda ctx: Counts(), codec=Counts),
        codec_stage("lines", lambda ctx: Shouts(), codec=Shouts),
    ):
        assert check_stage(stage, "a", "b\n", "c", normalise="".join)


def test_a_buffer_without_bound_is_caught() -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(CollectAll(), 1, 2)
    assert str(caught.value).startswith("collect_all took ")
    assert "while nobody took its output: it buffers without bound" in str(caught.value)


def test_a_stage_that_holds_everything_by_design_can_declare_it() -> None:
    assert check_stage(CollectAll(), 1, 2, holds_all=True) == [1, 2]


async def test_a_stage_without_output_cannot_be_bounded_by_its_consumer(autojump_clock: Any) -> None:
    @per_event
    def swallow(number: int) -> list[int]:
        return []

    await assert_backpressure(swallow, 1, 2)


def test_a_cancellation_turned_into_a_failure_is_caught() -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(ConvertCancel(), 1, 2)
    assert str(caught.value) == (
        "convert_cancel was cancelled and raised ConnectionError('interrupted'): let trio.Cancelled pass, and catch "
        "Exception, not more"
    )


class Clings:
    """Goes on after its cancellation, in a shielded wait."""

    name = "clings"

    def __init__(self, seconds: float, *, in_a_task: bool = False) -> None:
        self._seconds = seconds
        self._in_a_task = in_a_task

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            try:
                with outlet.outside():
                    await trio.sleep(1)
            except trio.Cancelled:
                async with trio.open_nursery() as nursery:
                    if self._in_a_task:
                        nursery.start_soon(self._cling)
                    else:
                        await self._cling()
                raise
            await outlet.send(batch)

    async def _cling(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(self._seconds)


@pytest.mark.parametrize("in_a_task", [False, True])
@pytest.mark.parametrize("seconds", [3600, math.inf])
def test_a_stage_that_ends_late_or_never_after_its_cancellation_is_caught(seconds: float, in_a_task: bool) -> None:
    with pytest.raises(
        AssertionError, match=r"^cancelled at step \d+, clings had not ended 10 s later: shield only what"
    ):
        check_stage(Clings(seconds, in_a_task=in_a_task), 1, 2)


def test_a_stage_that_closes_something_after_its_cancellation_passes() -> None:
    assert check_stage(Clings(5), 1, 2) == [1, 2]


def test_the_id_of_another_request_is_caught() -> None:
    ids: list[str] = []

    class Identify:
        def __init__(self, ctx: RequestContext) -> None:
            ids.append(ctx.request_id)

        def feed(self, batch: list[int], /) -> list[str]:
            return [ids[0] for _ in batch]

        def flush(self) -> list[str]:
            return []

    with pytest.raises(AssertionError, match=r"^identify gives the id of an earlier request to a later one"):
        check_stage(codec_stage("identify", Identify), 1)


def test_other_things_than_stages_are_sent_to_their_checks() -> None:
    with pytest.raises(TypeError, match="is not a stage: a Plugin, or an observer, is checked by check_plugin"):
        check_stage(Plugin("double", lambda _: double, NoOptions))  # type: ignore[arg-type]


async def test_tasks_that_stay_behind_after_a_cancellation_are_caught() -> None:
    async def leave_a_task_behind() -> None:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)  # until trio cancels it at the end of the test
        await trio.sleep(0)

    with pytest.raises(AssertionError, match=r"^cancelled at step 1, 1 tasks stayed behind"):
        await assert_cancels_cleanly(leave_a_task_behind)


async def test_a_run_that_never_ends_by_itself_is_caught(autojump_clock: Any) -> None:
    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match=r"^it did not end within 50 task steps"):
        await assert_cancels_cleanly(spin, limit=50)


async def test_every_step_of_a_run_is_cancelled_once() -> None:
    reached: list[int] = []

    async def three_steps() -> None:
        reached.append(0)
        for step in (1, 2, 3):
            await trio.lowlevel.checkpoint()
            reached[-1] = step

    steps = await assert_cancels_cleanly(three_steps)
    assert reached[:3] == [0, 1, 2]
    assert reached[-1] == 3
    assert steps == len(reached)


async def test_a_run_that_survives_one_cancellation_is_still_cancelled_at_its_later_steps() -> None:
    async def forgive_once() -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            return
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise OSError("found") from None

    with pytest.raises(OSError, match="found"):
        await assert_cancels_cleanly(forgive_once)


async def test_a_failure_of_the_run_itself_is_raised() -> None:
    async def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await assert_cancels_cleanly(fail)


# Figures that do not add up.


def worked(*members: str) -> Lane:
    """Return the lane of a task that has worked for 100 ns, half of it outside."""
    clock = HandClock()
    lane = new_lane(clock, members=members)
    lane.switch(BUSY, clock())
    lane.switch(OUTSIDE, clock.advance(50))
    clock.advance(50)
    lane.begin_closing()
    return lane


def test_a_task_whose_states_do_not_add_up_is_caught() -> None:
    lane = worked()
    assert_time_conserved(lane)
    lane.spent_ns[0] += 1
    with pytest.raises(AssertionError, match=r"^work: \[1, 0, 50, 50, 0, 0\] sum to 101, not 100$"):
        assert_time_conserved(lane)


def test_another_task_of_a_stage_whose_states_do_not_add_up_is_caught() -> None:
    lane = worked()
    further = lane.further("reader")
    further.begin_closing()
    assert_time_conserved(lane)
    further.spent_ns[0] += 1
    with pytest.raises(AssertionError, match=r"^work.reader: .* sum to 1, not 0$"):
        assert_time_conserved(lane)


@pytest.mark.parametrize("what", ["busy", "outside"])
def test_stages_whose_times_are_not_those_of_their_task_are_caught(what: str) -> None:
    lane = worked("first", "second")
    first, second = lane.stages
    first.busy_ns, second.busy_ns, second.outside_ns = 20, 30, 50
    assert_time_conserved(lane)
    setattr(second, f"{what}_ns", 29)
    with pytest.raises(AssertionError, match=rf"^the stages of first were {what} for \[.*, 29\], it for 50$"):
        assert_time_conserved(lane)


def test_a_context_can_be_passed_for_a_stage_that_reads_slots() -> None:
    class Prefix:
        def __init__(self, ctx: RequestContext) -> None:
            self.prefix = ctx[PREFIX]

        def feed(self, batch: list[str], /) -> list[str]:
            return [self.prefix + text for text in batch]

        def flush(self) -> list[str]:
            return []

    def context() -> RequestContext:
        ctx = new_context()
        ctx[PREFIX] = "> "
        return ctx

    stage = codec_stage("prefix", Prefix)
    assert check_stage(stage, "a", "b", context=context) == ["> a", "> b"]
    with pytest.raises(StageBug) as failed:
        check_stage(stage, "a", "b")
    assert "'prefix'" in str(failed.value.__cause__)


async def test_a_check_of_waits_sees_the_stages_time_on_any_clock_that_its_context_has(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = HandClock()
    with pytest.raises(AssertionError, match=r"^sleep_at_the_end waited 60 s"):
        await assert_waits_declared(SleepAtTheEnd(), 1, context=lambda: RequestContext("test", clock=clock))


def test_virtual_time_is_zero_at_the_start_of_a_run_on_it() -> None:
    async def times() -> list[int]:
        before_ns = virtual_ns()
        await Pipeline(AskProperly()).run([[1]], new_context())
        return [before_ns, virtual_ns()]

    ran = trio.run(times, clock=trio.testing.MockClock(autojump_threshold=0))
    assert ran == [0, 3_600_000_000_000]


async def test_each_check_can_be_used_alone(autojump_clock: Any) -> None:
    await assert_blind_to_batching(double, 1, 2, 3)
    await assert_forgets_requests(double, 1, 2, 3)
    await assert_waits_declared(double, 1, 2, 3)
    await assert_backpressure(double, 1, 2, 3)
    assert await collect(double, 1, 2, 3, batches_of=2) == [2, 4, 6]


def test_rebatched_cuts_at_the_given_places() -> None:
    assert rebatched([1, 2, 3, 4], [1, 3]) == [[1], [2, 3], [4]]
    assert rebatched([1, 2], [2, 0, 0, -5, 99]) == [[1, 2]]
    assert rebatched([], [1]) == []


@given(st.lists(st.integers()), st.lists(st.integers()))
def test_rebatched_keeps_every_event_in_order(events: list[int], cuts: list[int]) -> None:
    batches = rebatched(events, cuts)
    assert [event for batch in batches for event in batch] == events
    assert all(batches)


# How a stage ends.


class Forgive:
    """Takes its cancellation for the end of its input."""

    name = "forgive"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        with suppress(trio.Cancelled):
            async for batch in inlet:
                await outlet.send(batch)


class Insist:
    """Asks again and again."""

    name = "insist"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        while True:
            with suppress(trio.Cancelled):
                batch = await anext(inlet, None)
                if batch is None:
                    return
                await outlet.send(batch)


class InsistOnAll(Insist):
    """Does so whatever comes, even if it is closed."""

    name = "insist_on_all"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        while True:
            try:
                batch = await anext(inlet, None)
            except BaseException:  # the mistake that is to be found
                continue
            if batch is None:
                return
            await outlet.send(batch)


class SendTheRest:
    """Sends what it holds, however it ends."""

    name = "send_the_rest"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        held: list[int] = []
        try:
            async for batch in inlet:
                await outlet.send(held)
                held = batch
        finally:
            await outlet.send(held)


class AskOrGoOn:
    """Waits for somebody, and does without if that fails in any way."""

    async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:
        with suppress(BaseException), lane.outside():
            await trio.sleep(1)
        return batch

    async def flush(self, lane: Lane, /) -> list[int]:
        return []


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        (Forgive(), "forgive was cancelled and returned as if its output were complete"),
        (Insist(), "insist was cancelled and goes on, 100 steps later"),
        (SendTheRest(), "send_the_rest was cancelled and gave output after that"),
        (codec_stage("ask", lambda ctx: AskOrGoOn(), codec=AskOrGoOn), "ask was cancelled and gave output after that"),
    ],
)
def test_a_stage_that_swallows_its_cancellation_is_caught(stage: Any, fault: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(stage, 1, 2, 3, holds_all=True)
    assert str(caught.value) == f"{fault}: let trio.Cancelled pass, and catch Exception, not more"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # for it, there is no way to end it
def test_a_stage_that_swallows_everything_is_caught() -> None:
    with pytest.raises(AssertionError, match="insist_on_all was cancelled and goes on, 100 steps later"):
        check_stage(InsistOnAll(), 1, 2, 3)
    gc.collect()  # so that the warning is this test's


class Patient:
    """Sends each batch after a deadline of its own has passed."""

    name = "patient"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside(), trio.move_on_after(1):
                await trio.sleep_forever()
            await outlet.send(batch)


class CleanUp:
    """Closes what it has, with a deadline, before its cancellation goes on."""

    name = "clean_up"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        try:
            async for batch in inlet:
                await outlet.send(batch)
        finally:
            with trio.move_on_after(5, shield=True), outlet.outside():
                await trio.sleep_forever()


def test_a_deadline_of_its_own_and_an_orderly_end_pass() -> None:
    assert check_stage(Patient(), 1, 2, 3) == [1, 2, 3]
    assert check_stage(CleanUp(), 1, 2, 3) == [1, 2, 3]


class Closing:
    """A codec that is told its end."""

    __slots__ = ("_told",)

    def __init__(self, told: list[Outcome]) -> None:
        self._told = told

    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []

    def close(self, outcome: Outcome) -> None:
        self._told.append(outcome)


class ClosingEarly(Closing):
    """Closes itself at the end of its input."""

    __slots__ = ()

    def flush(self) -> list[int]:
        self.close(Outcome(is_complete=True))
        return []


class ClosingOnCancel(Closing):
    """Closes itself where it is cancelled, although it is told."""

    __slots__ = ()

    async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:  # type: ignore[override]  # it waits
        try:
            with lane.outside():
                await trio.sleep(1)
        except BaseException:
            self.close(Outcome())
            raise
        return batch

    async def flush(self, lane: Lane, /) -> list[int]:  # type: ignore[override]  # it waits
        return []


def test_a_codec_that_is_closed_once_passes_and_is_told_how_its_run_ended() -> None:
    told: list[Outcome] = []
    assert check_stage(codec_stage("closing", lambda ctx: Closing(told), codec=Closing), 1, 2) == [1, 2]
    assert {(outcome.is_complete, outcome.is_cancelled) for outcome in told} == {
        (True, False),
        (False, True),
        (False, False),
    }


def test_a_codec_that_closes_itself_too_is_caught() -> None:
    with pytest.raises(AssertionError) as caught:
        check_stage(codec_stage("closing_early", lambda ctx: ClosingEarly([]), codec=ClosingEarly), 1, 2)
    assert str(caught.value) == (
        "the codec of closing_early was closed 2 times, not once, when it was cancelled: "
        "the pipeline calls `close`, and nobody else does"
    )


async def test_each_way_to_end_is_named(autojump_clock: Any) -> None:
    early: Any = codec_stage("early", lambda ctx: ClosingEarly([]), codec=ClosingEarly)
    with pytest.raises(AssertionError, match="closed 2 times, not once, when its run was complete"):
        await assert_closes_once(early, 1, 2)
    on_cancel: Any = codec_stage("on_cancel", lambda ctx: ClosingOnCancel([]), codec=ClosingOnCancel)
    with pytest.raises(AssertionError, match="closed 2 times, not once, when the stage before it failed"):
        await assert_closes_once(on_cancel, 1, 2)
    with pytest.raises(AssertionError, match="closed 2 times, not once, when it was cancelled"):
        await assert_lets_go(on_cancel, 1, 2)


# What a stage raises.


@per_event
def look_up(number: int) -> list[int]:
    return [{1: 10}[number]]


def test_a_bug_names_its_stage_and_its_cause() -> None:
    with pytest.raises(StageBug) as caught:
        check_stage(look_up, 1, 2)
    assert str(caught.value) == (
        "stage 'look_up' raised KeyError(2), which it does not declare: "
        "raise a PipelineError that says whose fault it is, or mend it"
    )
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.stage == "look_up"


def test_what_failed_after_a_bug_is_still_noted() -> None:
    class Fail:
        name = "fail"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fail, "first")
                nursery.start_soon(self._fail, "second")

        async def _fail(self, text: str) -> None:
            raise ValueError(text)

    with pytest.raises(StageBug) as caught:
        check_stage(Fail())
    assert len(caught.value.__notes__) == 1
    assert caught.value.__notes__[0].startswith("then fail failed too")


def test_a_bug_that_its_author_has_named_keeps_its_words() -> None:
    @per_event
    def give_up(number: int) -> list[int]:
        raise StageBug("this cannot be")

    with pytest.raises(StageBug, match=r"^this cannot be$"):
        check_stage(give_up, 1)


def test_a_nursery_that_is_left_open_is_caught() -> None:
    async def open_and_forget() -> None:
        await trio.open_nursery().__aenter__()

    with pytest.raises(AssertionError, match=r"^it has left a nursery or a cancel scope open"):
        on_virtual_time(open_and_forget, "it")


def test_another_runtime_error_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        on_virtual_time(fail, "it")


class DiesOfCancellation:
    """Makes a mistake of its own while it is being cancelled."""

    name = "dies"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        try:
            async for batch in inlet:
                await outlet.send(batch)
        except trio.Cancelled:
            raise KeyError("state") from None


async def test_a_stage_that_fails_as_it_is_cancelled_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"dies was cancelled and raised KeyError"):
        await assert_lets_go(DiesOfCancellation(), 1, 2)


class FailsAtOnce:
    """Does not even begin."""

    name = "fails"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        raise UpstreamFault("it is down")


class FailsLater:
    """Takes two batches, gives the first, and takes no third one."""

    name = "fails_later"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        taken = 0
        async for batch in inlet:
            taken += 1
            if taken == 1:
                await outlet.send(batch)
            if taken > 2:
                raise UpstreamFault("that is too much")


async def test_a_failure_of_its_own_is_not_taken_for_backpressure(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(UpstreamFault):
        await assert_backpressure(FailsLater(), 1, 2)


def test_a_codec_that_is_done_and_gives_numbers_is_checked_for_what_it_holds() -> None:
    class TakesTwo:
        done = False

        def __init__(self) -> None:
            self.left = 2

        def feed(self, batch: list[int], /) -> list[int]:
            taken = batch[: self.left]
            self.left -= len(taken)
            self.done = not self.left
            return taken

        def flush(self) -> list[int]:
            return []

        def skip(self) -> list[int]:
            return []

    assert check_stage(codec_stage("takes_two", lambda ctx: TakesTwo(), codec=TakesTwo), 1, 2, 3) == [1, 2]


async def test_a_failure_of_its_own_is_not_taken_for_a_late_end() -> None:
    with pytest.raises(UpstreamFault):
        await assert_lets_go(FailsAtOnce(), 1, 2)


class StopsEarly:
    """Behaves as if nobody wanted more."""

    name = "stops"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
            raise DownstreamGone


async def test_an_early_end_is_a_good_end() -> None:
    await assert_lets_go(StopsEarly(), 1, 2)
