"""Work on a large body: in a thread, and while it lasts all other tasks go on."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Generator
from functools import partial

import pytest
import trio

from stages.large_bodies import in_slices
from stages.wire.slices import LARGE_BYTES, current_pause


async def test_work_on_a_small_body_is_done_at_once() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await in_slices(LARGE_BYTES - 1, threading.get_ident) == threading.get_ident()
        assert await in_slices(LARGE_BYTES - 1, current_pause) is None


async def test_row_66_all_tasks_have_their_turn_again_and_again_while_a_large_body_is_worked_on() -> None:
    """The work on a large body waits for the loop, not the loop for it: other tasks run while it lasts."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    def work() -> str:
        pause = current_pause()
        assert pause is not None
        before = -1
        for _ in range(5):  # it goes on only when others had their turn since
            while turns == before:
                pause()
            before = turns
        return "done"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        assert await in_slices(LARGE_BYTES, work) == "done"
        nursery.cancel_scope.cancel()


async def test_the_work_of_a_cancelled_request_ends_at_its_next_pause() -> None:
    has_begun = trio.Event()
    token = trio.lowlevel.current_trio_token()
    ended: list[BaseException] = []

    def work() -> None:
        pause = current_pause()
        assert pause is not None
        token.run_sync_soon(has_begun.set)
        try:
            while True:
                pause()
        except BaseException as error:
            ended.append(error)
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_slices, LARGE_BYTES, work)
        await has_begun.wait()
        nursery.cancel_scope.cancel()
    assert [type(error) for error in ended] == [trio.Cancelled]
    assert await in_slices(LARGE_BYTES, lambda: "the next") == "the next"


async def test_large_bodies_are_worked_on_one_at_a_time() -> None:
    at_work: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        at_work.append(number)
        pause = current_pause()
        assert pause is not None
        for _ in range(100):
            most.append(len(at_work))
            pause()
        at_work.remove(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(in_slices, LARGE_BYTES, partial(work, number))
    assert max(most) == 1


async def test_what_the_work_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        await in_slices(LARGE_BYTES, fail)


class Body:
    """What the work has, and must not be kept."""


@pytest.fixture
def no_collector() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


async def test_row_64_work_that_fails_leaves_nothing_for_the_collector(no_collector: None) -> None:
    """The parse of a large body fails in its thread: the body is let go of at once."""
    kept: list[weakref.ref[Body]] = []

    def fail() -> None:
        body = Body()
        kept.append(weakref.ref(body))
        raise ValueError

    try:
        await in_slices(LARGE_BYTES, fail)
    except ValueError:
        assert kept[0]() is not None, "its traceback has it"
    assert kept[0]() is None


async def test_row_64_work_that_is_cancelled_leaves_nothing_for_the_collector(no_collector: None) -> None:
    """A client leaves while its large body is parsed in a thread: the body is let go of as soon as that ends."""
    kept: list[weakref.ref[Body]] = []
    has_begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def work() -> None:
        body = Body()
        kept.append(weakref.ref(body))
        pause = current_pause()
        assert pause is not None
        token.run_sync_soon(has_begun.set)
        while True:
            pause()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_slices, LARGE_BYTES, work)
        await has_begun.wait()
        nursery.cancel_scope.cancel()
    assert kept[0]() is None
