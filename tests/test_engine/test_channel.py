"""A link alone: order, capacity, cancellation, and what the meters see of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Doing, DownstreamGone, Inlet, Meter, Outlet
from pipeline.channel import EndOfInput, Link, Source, Woken, open_link
from pipeline.testing import assert_time_conserved, virtual_ns


def link(capacity: int = 1) -> tuple[Outlet[int], Inlet[int]]:
    """Open a link in virtual time between two stages that have started."""
    outlet, inlet = open_link(capacity, Meter("producer", virtual_ns), Meter("consumer", virtual_ns))
    outlet.meter.resume()
    inlet.meter.resume()
    return outlet, inlet


def waiting(channel: Outlet[int] | Inlet[int]) -> tuple[int, int]:
    """Return how many batches are in the channel and how many tasks wait to send."""
    link = channel.link
    return len(link._entries), int(link._giver is not None)


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
        outlet, inlet = link(capacity)
        got: list[list[int]] = []

        async def produce() -> None:
            for batch in batches:
                await outlet.send(list(batch))
                assert waiting(outlet)[0] <= capacity
            outlet.close()

        pauses = iter(taker_pauses)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for batch in inlet:
                got.append(batch)
                if next(pauses, False):
                    await trio.testing.wait_all_tasks_blocked()
        consumer, producer = inlet.meter, outlet.meter
        sizes = [len(batch) for batch in batches if batch]
        assert producer.batches_out == consumer.batches_in == len(sizes)
        assert producer.events_out == consumer.events_in == sum(sizes)
        return got

    assert trio.run(main) == [batch for batch in batches if batch]


@pytest.mark.parametrize("capacity", [0, 1, 3])
async def test_a_link_holds_as_many_batches_as_its_capacity_however_large_they_are(capacity: int) -> None:
    outlet, inlet = link(capacity)

    async def produce() -> None:
        while True:
            await outlet.send(list(range(1_000)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert waiting(inlet) == (capacity, 1)
        nursery.cancel_scope.cancel()


async def test_a_second_writer_or_reader_that_would_have_to_wait_is_refused() -> None:
    outlet, inlet = link(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.send, [1])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="one writer"):
            await outlet.send([2])
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, inlet)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="one reader"):
            await anext(inlet)
        nursery.cancel_scope.cancel()


async def test_an_empty_batch_is_dropped_even_if_there_is_no_room() -> None:
    outlet, inlet = link(0)
    await outlet.send([])
    outlet.close()
    assert [batch async for batch in inlet] == []
    assert outlet.meter.batches_out == 0


async def test_a_send_that_finds_room_does_not_wait_even_when_cancelled() -> None:
    outlet, inlet = link(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await outlet.send([1])
    assert not scope.cancelled_caught
    assert await anext(inlet) == [1]


async def test_a_batch_is_handed_over_without_copying_it() -> None:
    outlet, inlet = link(1)
    batch = [1, 2]
    await outlet.send(batch)
    assert await anext(inlet) is batch


async def test_sending_after_the_consumer_has_left_raises_downstream_gone() -> None:
    outlet, inlet = link(1)
    inlet.close()
    with pytest.raises(DownstreamGone):
        await outlet.send([1])


async def test_a_consumer_that_leaves_wakes_a_producer_that_waits_for_room() -> None:
    outlet, inlet = link(0)
    outcomes: list[str] = []

    async def produce() -> None:
        try:
            await outlet.send([1])
        except DownstreamGone:
            outcomes.append("gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        inlet.close()
    assert outcomes == ["gone"]
    assert outlet.meter.batches_out == 0


async def test_what_was_sent_before_the_close_still_arrives() -> None:
    outlet, inlet = link(2)
    await outlet.send([1])
    await outlet.send([2])
    outlet.close()
    assert [batch async for batch in inlet] == [[1], [2]]


async def test_iterating_over_an_inlet_again_continues_where_it_stopped() -> None:
    outlet, inlet = link(2)
    await outlet.send([1])
    await outlet.send([2])
    outlet.close()
    async for batch in inlet:
        assert batch == [1]
        break
    assert [batch async for batch in inlet] == [[2]]


async def _give_and_take_with_cancels(
    outlet: Outlet[int], inlet: Inlet[int], sends: list[int], takes: list[int]
) -> list[int]:
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
                    await outlet.send([number])
                    sent = True
                passes += 1
        outlet.close()

    async def consume() -> None:
        patience = iter(takes)
        ended = False
        while not ended:
            passes = next(patience, 50)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled_after, passes, nursery.cancel_scope)
                try:
                    got.extend(await anext(inlet))
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
        outlet, inlet = link(capacity)
        got = await _give_and_take_with_cancels(outlet, inlet, sends, takes)
        return got, outlet.meter.batches_out, inlet.meter.batches_in

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
        made: Link[int] = Link(capacity)
        got: list[int] = []

        async def produce() -> None:
            for number, pause in enumerate(pauses):
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                if not made.give_nowait(0, [number]):
                    await made.give(0, [number])
            made.complete()

        async def wake() -> None:
            for pause in wakes:
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                made.wake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            nursery.start_soon(wake)
            while True:
                try:
                    got += (await made.take())[1]
                except Woken:
                    continue
                except EndOfInput:
                    return got

    assert trio.run(main) == list(range(len(pauses)))


async def test_waking_has_no_effect_when_no_task_waits() -> None:
    made: Link[int] = Link(1)
    made.wake()
    assert made.give_nowait(7, [1])
    made.wake()
    assert await made.take() == (7, [1])


async def test_a_batch_of_a_source_is_not_lost_when_taking_it_is_cancelled() -> None:
    source: Source[int] = Source([[1], [2]], lambda: 7)
    for number in (1, 2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.take()
        assert scope.cancelled_caught
        assert await source.take() == (7, [number])
    with pytest.raises(EndOfInput):
        await source.take()


async def test_waiting_for_room_is_blocked_and_waiting_for_input_is_starved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outlet, inlet = link(1)
    producer, consumer = outlet.meter, inlet.meter
    async with trio.open_nursery() as nursery:

        async def produce() -> None:
            await trio.sleep(2)  # counts as busy: the meter cannot tell
            await outlet.send([1])
            await outlet.send([2])
            await outlet.send([3])
            producer.begin_closing()
            outlet.close()

        nursery.start_soon(produce)
        async for _ in inlet:
            await trio.sleep(5)
    consumer.begin_closing()
    assert producer.spent_ns[Doing.BUSY] == 2e9
    assert producer.spent_ns[Doing.BLOCKED] == 5e9
    assert consumer.spent_ns[Doing.STARVED] == 2e9
    assert consumer.spent_ns[Doing.BUSY] == 15e9
    assert consumer.queued_ns == (0 + 5 + 10) * 1e9
    assert_time_conserved(producer)
    assert_time_conserved(consumer)


async def test_a_cancelled_wait_is_charged_and_what_follows_is_closing(autojump_clock: trio.testing.MockClock) -> None:
    outlet, inlet = link(0)
    with trio.move_on_after(3):
        await outlet.send([1])
    await trio.sleep(1)
    with trio.move_on_after(4):
        await anext(inlet)
    await trio.sleep(2)
    outlet.meter.begin_closing()
    inlet.meter.begin_closing()
    assert outlet.meter.spent_ns == [0, 0, 0, 3e9, 7e9]
    assert inlet.meter.spent_ns == [4e9, 4e9, 0, 0, 2e9]
    assert outlet.meter.batches_out == inlet.meter.batches_in == 0
