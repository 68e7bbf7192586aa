"""Turns come in the order in which they are asked for, and those that do not come end in time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pipeline import Overloaded
from stages.admission.counts import Counts
from stages.admission.quota import Taken
from stages.admission.turns import POLL_S, Turns


def turns(counts: Counts | None = None, *, running: int = 1, queued: int = 10, timeout_s: float = 5.0) -> Turns:
    return Turns(counts or Counts(), max_in_flight=running, max_queued=queued, timeout_s=timeout_s)


class Asked:
    """Requests that want a turn, and when each has got it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.got: list[tuple[str, float]] = []
        self.refused: list[tuple[str, float]] = []
        self.scopes: dict[str, trio.CancelScope] = {}

    async def ask(self, name: str, of: Turns, runs_s: float) -> None:
        """Begin, and wait until it can go no further."""
        self._nursery.start_soon(self._run, name, of, runs_s)
        await trio.testing.wait_all_tasks_blocked()

    async def _run(self, name: str, of: Turns, runs_s: float) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                taken = of.take_nowait() or await of.wait()
            except Overloaded:
                self.refused.append((name, trio.current_time()))
                return
            self.got.append((name, trio.current_time()))
            await trio.sleep(runs_s)
            of.end(taken)


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    one = turns(running=2)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        for name in "abcde":
            await asked.ask(name, one, 1.0)
        assert one.waiting == 3
    assert asked.got == [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 2)]


async def test_a_turn_that_does_not_come_in_time_is_a_503_and_so_is_a_queue_that_is_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one = turns(queued=2, timeout_s=5)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        for name in "abcd":
            await asked.ask(name, one, 7.0)
        assert asked.refused == [("d", 0)]
    assert sorted(asked.refused) == [("b", 5), ("c", 5), ("d", 0)]
    assert one.waiting == 0
    taken = one.take_nowait()
    assert taken is not None
    with pytest.raises(Overloaded, match=r"serves 1 requests at a time .* none has ended within 5 s: try again"):
        await one.wait()


@pytest.mark.parametrize(("queued", "timeout_s"), [(0, 5.0), (5, 0.0)])
async def test_without_a_queue_nobody_waits(
    queued: int, timeout_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    one = turns(queued=queued, timeout_s=timeout_s)
    assert one.take_nowait() is not None
    assert one.take_nowait() is None
    with pytest.raises(Overloaded, match="and no more may wait"):
        await one.wait()


async def test_a_client_that_leaves_is_taken_out_of_the_queue_at_once(autojump_clock: trio.testing.MockClock) -> None:
    one = turns(queued=2)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        for name in "abc":
            await asked.ask(name, one, 1.0)
        asked.scopes["b"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert one.waiting == 1
        await asked.ask("d", one, 1.0)
    assert asked.got == [("a", 0), ("c", 1), ("d", 2)]


async def test_a_place_that_another_worker_frees_is_found(autojump_clock: trio.testing.MockClock) -> None:
    counts = Counts()
    one, other = turns(counts), turns(counts)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        await asked.ask("a", one, 1.0)
        await asked.ask("b", other, 1.0)
        await asked.ask("c", other, 1.0)
    (_, b_s), (_, c_s) = asked.got[1:]
    assert 1 <= b_s <= 1 + POLL_S
    assert c_s == b_s + 1


async def test_nobody_overtakes_those_that_wait_elsewhere(autojump_clock: trio.testing.MockClock) -> None:
    counts = Counts()
    one, other = turns(counts), turns(counts)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        await asked.ask("a", one, 1.0)
        await asked.ask("b", other, 1.0)
        await trio.sleep(1)  # a has ended, and b does not know it
        assert one.take_nowait() is None
        await asked.ask("c", one, 1.0)
    assert [name for name, _ in asked.got] == ["a", "b", "c"]


async def test_all_places_are_used_as_soon_as_they_are_free(autojump_clock: trio.testing.MockClock) -> None:
    counts = Counts()
    one, other = turns(counts, running=3), turns(counts, running=3)
    async with trio.open_nursery() as nursery:
        asked = Asked(nursery)
        for name in "abc":
            await asked.ask(name, one, 1.0)
        for name in "def":
            await asked.ask(name, other, 1.0)
    assert {round(at_s) for name, at_s in asked.got if name in "def"} == {1}
    assert isinstance(one.take_nowait(), Taken)
