"""A stage that is skipped from its first failure on, at whichever item that is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.engine.stages import Acting

from pipeline import Inlet, Outcome, Outlet, Pipeline, RequestContext, codec_stage, per_event
from pipeline.skipping import skipping
from pipeline.testing import check_stage, rebatched


class Pairs:
    """Pairs numbers, the larger one first, and fails at one of them."""

    def __init__(
        self, fails_at: int | None, *, fails_to_flush: bool = False, closed: list[Outcome] | None = None
    ) -> None:
        self._fails_at = fails_at
        self._fails_to_flush = fails_to_flush
        self._closed = closed
        self._held: list[int] = []

    def feed(self, batch: list[int], /) -> list[int]:
        given: list[int] = []
        for number in batch:
            if number == self._fails_at:
                raise OSError("the prompt was: hello")
            self._held.append(number)
            if len(self._held) == 2:
                given += sorted(self._held, reverse=True)
                self._held.clear()
        return given

    def flush(self) -> list[int]:
        if self._fails_to_flush:
            raise OSError
        return self._held

    def skip(self) -> list[int]:
        return self._held

    def close(self, outcome: Outcome) -> None:
        if self._closed is not None:
            self._closed.append(outcome)


def pairs(fails_at: int | None = None, **settings: Any) -> Any:
    return skipping(codec_stage("pairs", lambda ctx: Pairs(fails_at, **settings), codec=Pairs))


def test_a_stage_that_does_not_fail_is_as_it_was() -> None:
    assert check_stage(pairs(), 1, 2, 3, 4, 5) == [2, 1, 4, 3, 5]


@given(st.integers(0, 6), st.lists(st.integers(0, 6), max_size=4))
async def test_what_it_held_comes_first_and_the_rest_passes(fails_at: int, cuts: list[int]) -> None:
    got = await Pipeline(pairs(fails_at)).run(rebatched(range(6), cuts), RequestContext("r"))
    whole = fails_at // 2 * 2  # of those before it
    swapped = [number + 1 - 2 * (number % 2) for number in range(whole)]
    assert got == [*swapped, *range(whole, 6)]


class Hasty(Pairs):
    """Takes an item before it looks at it, and forgets what it gives before it has given it."""

    def feed(self, batch: list[int], /) -> list[int]:
        self._held += batch
        if len(self._held) == 2:
            held, self._held = self._held, []
            return super().feed(held)
        return [] if batch != [self._fails_at] else super().feed(batch)

    def flush(self) -> list[int]:
        self._held.clear()
        raise OSError


@pytest.mark.parametrize("fails_at", range(6))
async def test_what_it_held_is_exact_wherever_in_its_code_it_fails(fails_at: int) -> None:
    stage = skipping(codec_stage("hasty", lambda ctx: Hasty(fails_at), codec=Hasty))
    got = await Pipeline(stage).run([[number] for number in range(6)], RequestContext("r"))
    assert sorted(got) == [0, 1, 2, 3, 4, 5]
    assert await Pipeline(stage).run([[7]], RequestContext("r")) == [7]  # it fails at the end


async def test_a_failure_at_the_end_loses_nothing() -> None:
    got = await Pipeline(pairs(fails_to_flush=True)).run([[1, 2, 3]], RequestContext("r"))
    assert got == [2, 1, 3]


async def test_that_it_is_skipped_is_logged_once_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    ctx = RequestContext("r7")
    with caplog.at_level(logging.WARNING):
        await Pipeline(pairs(1)).run([[1], [1]], ctx.nested())
    assert ctx.skipped == ["pairs"]
    [message] = caplog.messages
    assert message.startswith("stage pairs failed in request r7 and is skipped: builtins.OSError at\n")
    assert f"{__file__}:" in message
    assert "hello" not in caplog.text


async def test_one_that_cannot_say_what_it_held_costs_only_that(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(Pairs):
        def skip(self) -> list[int]:
            raise KeyError("the prompt was: hello")

    stage = skipping(codec_stage("forgets", lambda ctx: Forgetful(1), codec=Forgetful))
    with caplog.at_level(logging.WARNING):
        assert await Pipeline(stage).run([[0, 1, 2]], RequestContext("r7")) == [1, 2]
    assert caplog.messages[1].startswith("stage forgets lost what it held in request r7: builtins.KeyError at\n")


async def test_it_is_closed_once_although_it_was_skipped() -> None:
    closed: list[Outcome] = []
    await Pipeline(pairs(1, closed=closed)).run([[1], [2]], RequestContext("r"))
    assert [outcome.is_complete for outcome in closed] == [True]


async def test_a_codec_that_cannot_be_opened_is_skipped_from_the_start() -> None:
    def fail(ctx: RequestContext) -> Pairs:
        raise OSError

    assert await Pipeline(skipping(codec_stage("pairs", fail))).run([[1], [2]], RequestContext("r")) == [1, 2]


async def test_a_function_of_one_event_can_be_skipped() -> None:
    @per_event
    def invert(number: int) -> list[float]:
        return [1 / number]

    assert await Pipeline(skipping(invert)).run([[1, 2, 0, 4]], RequestContext("r")) == [1, 0.5, 0, 4]


async def test_a_codec_that_is_done_stays_done() -> None:
    class TakesTwo:
        done = False

        def __init__(self) -> None:
            self._taken = 0

        def feed(self, batch: list[int], /) -> list[int]:
            self._taken += len(batch)
            self.done = self._taken >= 2
            return batch

        def flush(self) -> list[int]:
            return []

        def skip(self) -> list[int]:
            return []

    taking = skipping(codec_stage("takes_two", lambda ctx: TakesTwo(), codec=TakesTwo))
    assert await Pipeline(taking).run([[1, 2, 3], [4]], RequestContext("r")) == [1, 2]


class Ticks:
    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []

    def tick(self) -> list[int]:
        return [0]


async def relay(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
    async for batch in inlet:
        await outlet.send(batch)


@pytest.mark.parametrize("stage", [Acting(relay), codec_stage("ticks", lambda ctx: Ticks(), codec=Ticks, tick_s=1)])
def test_what_waits_or_ticks_cannot_be_skipped(stage: Any) -> None:
    with pytest.raises(ValueError, match="needs a codec that neither waits nor ticks"):
        skipping(stage)


def test_a_codec_that_may_hold_something_must_say_what() -> None:
    class Silent:
        def feed(self, batch: list[int], /) -> list[int]:
            return batch

        def flush(self) -> list[int]:
            return []

    with pytest.raises(ValueError, match="give it a method `skip"):
        skipping(codec_stage("silent", lambda ctx: Silent(), codec=Silent))
