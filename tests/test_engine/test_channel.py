"""A link alone: order, capacity, cancellation, waking, and what the lanes and its own figures say of it."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.clocks import SECOND_NS, HandClock, WorkClock
from kit.engine.lanes import link_figures, new_lane, spent_s

from pipeline import ClientFault, DownstreamGone, Inlet, Outlet, StageBug
from pipeline.channel import EndOfInput, Link, Sink, Source
from pipeline.kernel_time import Clock
from pipeline.lane import BUSY, STARVED
from pipeline.testing import assert_time_conserved, virtual_ns
from pipeline.timeline import Timeline


class Ends:
    """A link between two stages of one request that have started, and their ends of it."""

    def __init__(self, capacity: int = 1, clock: Clock = virtual_ns) -> None:
        self.timeline = Timeline(clock)
        self.link: Link[int] = Link("producer>consumer", capacity)
        self.producer, self.consumer = (
            new_lane(clock, name, timeline=self.timeline) for name in ("producer", "consumer")
        )
        for lane in (self.producer, self.consumer):
            lane.switch(BUSY, clock())
        self.outlet = Outlet(self.link, self.producer)
        self.inlet = Inlet(self.link, self.consumer)

    def upstream_s(self) -> float:
        """How long the request's only counted task, the consumer, waited for its producer."""
        return self.timeline.parties_ns(self.timeline.clock())[2] / SECOND_NS


# Order and capacity.


@given(
    batches=st.lists(st.lists(st.integers(), max_size=4), max_size=20),
    capacity=st.integers(0, 4),
    taker_pauses=st.lists(st.booleans(), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_batches_arrive_whole_and_in_order_whatever_the_capacity(
    batches: list[list[int]], capacity: int, taker_pauses: list[bool]
) -> None:
    async def main() -> list[list[int]]:
        ends = Ends(capacity)
        got: list[list[int]] = []

        async def produce() -> None:
            for batch in batches:
                await ends.outlet.send(list(batch))
            ends.link.complete()

        pauses = iter(taker_pauses)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for batch in ends.inlet:
                got.append(batch)
                if next(pauses, False):
                    await trio.testing.wait_all_tasks_blocked()
        sizes = [len(batch) for batch in batches if batch]
        [stage] = ends.producer.stages
        assert stage.batches_out == ends.consumer.stages[0].batches_in == ends.link.batches == len(sizes)
        assert stage.events_out == ends.consumer.stages[0].events_in == sum(sizes)
        assert ends.link.most_waiting <= capacity + 1  # one more waits with its giver
        return got

    assert trio.run(main) == [batch for batch in batches if batch]


@pytest.mark.parametrize("capacity", [0, 1, 3])
async def test_a_link_holds_as_many_batches_as_its_capacity_however_large_they_are(capacity: int) -> None:
    ends = Ends(capacity)
    sent = 0

    async def produce() -> None:
        nonlocal sent
        while True:
            await ends.outlet.send(list(range(1_000)))
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert sent == capacity
        assert await anext(ends.inlet) == list(range(1_000))
        await trio.testing.wait_all_tasks_blocked()
        assert sent == capacity + 1
        nursery.cancel_scope.cancel()


async def test_a_taker_that_waits_takes_no_room_in_the_link() -> None:
    ends = Ends(1)
    got: list[list[int]] = []

    async def consume() -> None:
        got.extend([batch async for batch in ends.inlet])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        given = [ends.link.give_nowait([number], ends.producer, 0) for number in range(3)]
        ends.link.complete()
    assert given == [True, True, False]
    assert got == [[0], [1]]


async def test_two_tasks_of_a_stage_may_wait_for_room_and_their_batches_keep_their_order() -> None:
    ends = Ends(0)
    async with trio.open_nursery() as nursery:
        with ends.outlet.lane("second") as second:
            for outlet, number in ((ends.outlet, 1), (second, 2)):
                nursery.start_soon(outlet.send, [number])
                await trio.testing.wait_all_tasks_blocked()
            assert [await anext(ends.inlet), await anext(ends.inlet)] == [[1], [2]]
    assert ends.producer.stages[0].batches_out == 2


async def test_a_second_reader_that_would_have_to_wait_is_refused() -> None:
    ends = Ends()
    other = Inlet(ends.link, new_lane(virtual_ns))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, ends.inlet)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="one reader"):
            await anext(other)
        await ends.outlet.send([1])


async def test_an_empty_batch_is_dropped_even_if_there_is_no_room() -> None:
    ends = Ends(0)
    await ends.outlet.send([])
    ends.link.complete()
    assert [batch async for batch in ends.inlet] == []
    assert ends.producer.stages[0].batches_out == 0


async def test_a_send_that_finds_room_does_not_wait_even_when_cancelled() -> None:
    ends = Ends(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ends.outlet.send([1])
    assert not scope.cancelled_caught
    assert await anext(ends.inlet) == [1]


async def test_a_batch_is_handed_over_without_copying_it() -> None:
    ends = Ends()
    batch = [1, 2]
    await ends.outlet.send(batch)
    assert await anext(ends.inlet) is batch


async def test_iterating_over_an_inlet_again_continues_where_it_stopped() -> None:
    ends = Ends(2)
    await ends.outlet.send([1])
    await ends.outlet.send([2])
    ends.link.complete()
    async for batch in ends.inlet:
        assert batch == [1]
        break
    assert [batch async for batch in ends.inlet] == [[2]]


# The ends.


async def test_what_was_sent_before_the_end_still_arrives() -> None:
    ends = Ends(2)
    await ends.outlet.send([1])
    await ends.outlet.send([2])
    ends.link.complete()
    assert [batch async for batch in ends.inlet] == [[1], [2]]


async def test_the_end_wakes_a_consumer_that_waits_and_is_told_again_to_one_that_asks_again() -> None:
    ends = Ends()
    async with trio.open_nursery() as nursery:

        async def consume() -> None:
            for _ in range(2):
                assert [batch async for batch in ends.inlet] == []

        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        ends.link.complete()
    assert ends.link.batches == 0


async def test_sending_after_the_consumer_has_left_raises_downstream_gone() -> None:
    ends = Ends()
    assert not ends.outlet.is_abandoned
    ends.link.abandon()
    assert ends.outlet.is_abandoned
    with pytest.raises(DownstreamGone):
        await ends.outlet.send([1])
    assert ends.producer.stages[0].batches_out == 0


class Batch(list[int]):
    """A list that says when it is gone."""


async def test_what_is_queued_is_dropped_when_the_consumer_leaves() -> None:
    ends = Ends()
    batch = Batch([1])
    ref = weakref.ref(batch)
    await ends.outlet.send(batch)
    del batch
    assert ref() == [1]
    ends.link.abandon()
    assert ref() is None


async def test_a_consumer_that_leaves_wakes_a_producer_that_waits_for_room() -> None:
    ends = Ends(0)
    outcomes: list[str] = []

    async def produce() -> None:
        try:
            await ends.outlet.send([1])
        except DownstreamGone:
            outcomes.append("gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        ends.link.abandon()
    assert outcomes == ["gone"]
    assert ends.producer.stages[0].batches_out == 0


async def test_a_sink_takes_everything_and_is_never_abandoned() -> None:
    results: list[int] = []
    sink = Sink(results)
    lane = new_lane(HandClock())
    outlet = Outlet(sink, lane)
    await outlet.send([1, 2])
    await sink.give([3], lane, 0)
    sink.complete()
    assert results == [1, 2, 3]
    assert not outlet.is_abandoned


# Cancelling and waking.


async def _give_and_take_with_cancels(ends: Ends, sends: list[int], takes: list[int]) -> list[int]:
    """Send and take 0, 1, 2 ..., cancelling each operation after a number of scheduler passes and then retrying it.

    Returns what was taken.
    """
    got: list[int] = []

    async def cancelled_after(passes: int, scope: trio.CancelScope) -> None:
        for _ in range(passes):
            await trio.lowlevel.cancel_shielded_checkpoint()
        scope.cancel()

    async def produce() -> None:
        for number, passes in enumerate(sends):
            sent = False
            while not sent:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancelled_after, passes, nursery.cancel_scope)
                    await ends.outlet.send([number])
                    sent = True
                passes += 1
        ends.link.complete()

    async def consume() -> None:
        patience = iter(takes)
        ended = False
        while not ended:
            passes = next(patience, 50)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled_after, passes, nursery.cancel_scope)
                try:
                    got.extend(await anext(ends.inlet))
                except StopAsyncIteration:
                    ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(consume)
    return got


@given(
    capacity=st.integers(0, 2),
    sends=st.lists(st.integers(0, 5), max_size=12),
    takes=st.lists(st.integers(0, 5), max_size=24),
)
@settings(max_examples=80, deadline=None)
def test_cancelling_a_send_or_a_receive_neither_loses_nor_duplicates_a_batch(
    capacity: int, sends: list[int], takes: list[int]
) -> None:
    async def main() -> tuple[list[int], int, int]:
        ends = Ends(capacity)
        got = await _give_and_take_with_cancels(ends, sends, takes)
        for lane in (ends.producer, ends.consumer):
            lane.begin_closing()
            assert_time_conserved(lane)
        return got, ends.producer.stages[0].batches_out, ends.consumer.stages[0].batches_in

    assert trio.run(main) == (list(range(len(sends))), len(sends), len(sends))


@given(
    capacity=st.integers(0, 2),
    pauses=st.lists(st.integers(0, 4), max_size=12),
    wakes=st.lists(st.integers(0, 3), max_size=24),
)
@settings(max_examples=80, deadline=None)
def test_waking_a_consumer_neither_loses_nor_duplicates_a_batch(
    capacity: int, pauses: list[int], wakes: list[int]
) -> None:
    async def main() -> list[int]:
        ends = Ends(capacity)
        link, got = ends.link, []

        async def produce() -> None:
            for number, pause in enumerate(pauses):
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                await ends.outlet.send([number])
            link.complete()

        async def wake() -> None:
            for pause in wakes:
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                link.wake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            nursery.start_soon(wake)
            while True:
                try:
                    got += await link.take(ends.consumer) or []
                except EndOfInput:
                    return got

    assert trio.run(main) == list(range(len(pauses)))


async def test_a_woken_task_is_told_that_no_batch_came_and_a_woken_stage_waits_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends = Ends()
    got: list[list[int] | None] = []

    async def consume() -> None:
        got.append(await ends.link.take(ends.consumer))
        got.append(await anext(ends.inlet))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            ends.link.wake()
        await trio.testing.wait_all_tasks_blocked()
        await ends.outlet.send([1])
    assert got == [None, [1]]
    assert link_figures(ends.link) == {"batches": 1}


async def test_a_batch_that_is_given_between_the_waking_and_the_end_still_arrives() -> None:
    ends = Ends()
    async with trio.open_nursery() as nursery:

        async def consume() -> None:
            assert [batch async for batch in ends.inlet] == [[1]]

        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        ends.link.wake()
        await ends.outlet.send([1])
        ends.link.complete()


async def test_waking_has_no_effect_when_no_task_waits() -> None:
    ends = Ends()
    ends.link.wake()
    await ends.outlet.send([1])
    ends.link.wake()
    assert await ends.link.take(ends.consumer) == [1]


Act = Callable[[Ends], object]


@pytest.mark.parametrize("capacity", [0, 1])
@pytest.mark.parametrize(
    ("act", "then"),
    [
        (lambda ends: ends.link.give_nowait([7], ends.producer, virtual_ns()), {0: [False, 5], 1: [True, 7]}),
        (lambda ends: ends.link.wake(), {0: [False, 5], 1: [False, 5]}),
        (lambda ends: ends.link.complete(), {0: [None, "end"], 1: [None, "end"]}),
    ],
    ids=["give", "wake", "complete"],
)
async def test_a_reader_that_is_cancelled_waits_no_longer_even_before_its_task_has_run(
    capacity: int, act: Act, then: dict[int, list[object]]
) -> None:
    ends = Ends(capacity)
    scope = trio.CancelScope()
    seen: list[object] = []

    async def consume() -> None:
        with scope:
            await anext(ends.inlet)
        await trio.testing.wait_all_tasks_blocked()
        try:
            seen.extend(await anext(ends.inlet))
        except StopAsyncIteration:
            seen.append("end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        seen.append(act(ends))  # in the same step, so that the reader has not noticed anything
        await trio.testing.wait_all_tasks_blocked()
        if seen == [then[capacity][0]] and then[capacity][1] == 5:
            await ends.outlet.send([5])
    assert scope.cancelled_caught
    assert seen == then[capacity]
    ends.consumer.begin_closing()
    assert_time_conserved(ends.consumer)


async def test_a_batch_that_arrives_before_the_cancellation_is_taken() -> None:
    ends = Ends()
    scope = trio.CancelScope()
    got: list[list[int]] = []

    async def consume() -> None:
        with scope:
            got.append(await anext(ends.inlet))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        await ends.outlet.send([1])
        scope.cancel()
    assert got == [[1]]
    assert not scope.cancelled_caught


async def test_of_two_tasks_that_wait_for_room_only_the_cancelled_one_sends_nothing() -> None:
    ends = Ends(0)
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            await ends.outlet.send([1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        with ends.outlet.lane("second") as second:
            nursery.start_soon(second.send, [2])
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert await anext(ends.inlet) == [2]
    assert ends.producer.stages[0].batches_out == 1


# Sources.


async def test_a_batch_of_a_source_is_not_lost_when_taking_it_is_cancelled() -> None:
    lane = new_lane(virtual_ns)
    source: Source[int] = Source([[1], [2]])
    for number in (1, 2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.take(lane)
        assert scope.cancelled_caught
        assert await source.take(lane) == [number]
    with pytest.raises(EndOfInput):
        await source.take(lane)


async def test_a_source_counts_what_it_gives_and_passes_over_what_is_empty() -> None:
    async def batches() -> AsyncIterator[list[int]]:
        yield []
        yield [1, 2]
        yield []
        yield [3]

    clock = HandClock()
    lane = new_lane(clock)
    source: Source[int] = Source(batches())
    lane.switch(STARVED, clock.advance(5))
    assert await source.take(lane) == [1, 2]
    assert (lane.state, lane.origin_ns) == (BUSY, clock.now_ns)
    assert await source.take(lane) == [3]
    assert (lane.stages[0].batches_in, lane.stages[0].events_in) == (2, 3)
    source.abandon()
    with pytest.raises(EndOfInput):
        await source.take(lane)


@pytest.mark.parametrize("error", [OSError("gone"), ClientFault("no")])
async def test_what_a_source_raises_is_blamed_on_it(error: Exception) -> None:
    def broken() -> Iterator[list[int]]:
        raise error
        yield

    lane = new_lane(HandClock())
    with pytest.raises((StageBug, ClientFault)) as failed:
        await Source(broken()).take(lane)
    assert failed.value.stage == "source"
    assert error in (failed.value, failed.value.__cause__)


# Where the time goes.


async def test_waiting_for_room_is_blocked_and_waiting_for_input_is_starved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends = Ends()
    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            await trio.sleep(2)  # counts as busy: the lane cannot tell
            await ends.outlet.send([1])
            await ends.outlet.send([2])
            await ends.outlet.send([3])
            ends.producer.begin_closing()
            ends.link.complete()

        nursery.start_soon(produce)
        async for _ in ends.inlet:
            await trio.sleep(5)
    assert spent_s(ends.producer) == {"busy": 2, "blocked": 5}
    assert spent_s(ends.consumer) == {"starved": 2, "busy": 15}
    assert link_figures(ends.link) == {"queued_s": 5 + 10, "full_s": 5, "batches": 3, "most_waiting": 2}
    assert ends.upstream_s() == 2
    assert_time_conserved(ends.producer)
    assert_time_conserved(ends.consumer)


async def test_a_batch_that_waits_for_the_loop_is_ready_and_one_that_waits_for_its_consumer_is_queued(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()
    ends = Ends(1, clock)
    got: list[list[int]] = []

    async def consume() -> None:
        async for batch in ends.inlet:
            got.append(batch)
            clock.work(7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.sleep(10)
        await ends.outlet.send([1])  # the consumer is ready at once, but this task works on
        clock.work(2)
        await ends.outlet.send([2])
        clock.work(3)
        ends.link.complete()
    assert got == [[1], [2]]
    assert spent_s(ends.consumer) == {"starved": 10, "ready": 5, "busy": 14}
    assert link_figures(ends.link) == {"ready_s": 5, "queued_s": 3 + 7, "batches": 2, "most_waiting": 1}
    assert ends.upstream_s() == 10


async def test_the_end_that_waits_for_the_loop_is_ready_too(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()
    ends = Ends(1, clock)

    async def consume() -> None:
        assert [batch async for batch in ends.inlet] == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.sleep(10)
        ends.link.complete()
        clock.work(3)
    ends.consumer.begin_closing()
    assert spent_s(ends.consumer) == {"starved": 10, "ready": 3}
    assert link_figures(ends.link) == {}


async def cancelled_after(seconds: float, wait: Callable[[], Awaitable[object]]) -> None:
    with trio.move_on_after(seconds) as scope:
        await wait()
    assert scope.cancelled_caught


async def test_a_cancelled_wait_is_charged_and_what_follows_is_closing(autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(0)
    await cancelled_after(3, lambda: ends.outlet.send([1]))
    await trio.sleep(1)
    await cancelled_after(4, lambda: anext(ends.inlet))
    await trio.sleep(2)
    for lane in (ends.producer, ends.consumer):
        lane.begin_closing()
    assert spent_s(ends.producer) == {"blocked": 3, "closing": 7}
    assert spent_s(ends.consumer) == {"busy": 4, "starved": 4, "closing": 2}
    assert ends.producer.stages[0].batches_out == ends.consumer.stages[0].batches_in == ends.link.batches == 0
    assert link_figures(ends.link) == {"full_s": 3, "most_waiting": 1}
    assert ends.upstream_s() == 4


async def test_a_cancelled_receive_leaves_the_batch_that_is_there_and_who_goes_on_was_busy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends = Ends()
    await ends.outlet.send([1])
    await cancelled_after(0, lambda: anext(ends.inlet))
    await trio.sleep(2)
    assert await anext(ends.inlet) == [1]
    assert spent_s(ends.consumer) == {"busy": 2}


async def test_a_cancelled_wait_for_a_source_is_charged_and_what_follows_is_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def silent() -> AsyncIterator[list[int]]:
        await trio.sleep_forever()
        yield []

    lane = new_lane(virtual_ns)
    inlet = Inlet(Source(silent()), lane)
    await cancelled_after(4, lambda: anext(inlet))
    await trio.sleep(2)
    lane.begin_closing()
    assert spent_s(lane) == {"starved": 4, "closing": 2}


async def test_a_stage_goes_on_as_before_after_a_wait_for_room_that_ended_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends = Ends(0)
    ends.producer.begin_closing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.outlet.send, [1])
        await trio.sleep(3)
        await anext(ends.inlet)
    await trio.sleep(1)
    ends.producer.begin_closing()
    assert spent_s(ends.producer) == {"blocked": 3, "closing": 1}


async def test_a_wait_for_a_consumer_that_left_is_blocked(autojump_clock: trio.testing.MockClock) -> None:
    ends = Ends(0)
    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            with pytest.raises(DownstreamGone):
                await ends.outlet.send([1])
            await trio.sleep(1)
            ends.producer.begin_closing()

        nursery.start_soon(produce)
        await trio.sleep(3)
        ends.link.abandon()
    assert spent_s(ends.producer) == {"blocked": 3, "busy": 1}
    assert ends.link.full_ns == 3 * SECOND_NS


async def test_a_batch_carries_the_arrival_of_what_it_came_from() -> None:
    clock = HandClock()
    ends = Ends(2, clock)
    for arrived_ns in (40, 50, 60):
        ends.producer.origin_ns = arrived_ns
        if arrived_ns < 60:
            await ends.outlet.send([arrived_ns])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.outlet.send, [60])
        await trio.testing.wait_all_tasks_blocked()
        origins: list[int] = []
        for arrived_ns in (40, 50, 60):
            assert await anext(ends.inlet) == [arrived_ns]
            origins.append(ends.consumer.origin_ns)
    assert origins == [40, 50, 60]
