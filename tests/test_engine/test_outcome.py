"""A codec learns how its run ended: once, whatever happened."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import pytest
import trio
import trio.testing
from kit.engine.stages import Acting

from pipeline import (
    ClientFault,
    Inlet,
    Lane,
    Outcome,
    Outlet,
    Pipeline,
    RequestContext,
    Slot,
    StageBug,
    codec_stage,
    per_event,
)
from pipeline.channel import EndOfInput, Link
from pipeline.loop import current_loop
from pipeline.outcome import CANCELLED, COMPLETED

Told = list[tuple[str, Outcome]]

LATER_S = 1e12


def closing(name: str, told: Told, *, fails: bool = False) -> Any:
    """Return a stage whose codec notes how its run ended."""

    class Closing:
        def feed(self, batch: list[int], /) -> list[int]:
            return batch

        def flush(self) -> list[int]:
            return []

        def close(self, outcome: Outcome) -> None:
            told.append((name, outcome))
            if fails:
                raise OSError("disk full")

    return codec_stage(name, lambda ctx: Closing(), codec=Closing)


@per_event
def refuse(number: int) -> list[int]:
    raise ClientFault("no")


async def relay(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
    async for batch in inlet:
        await outlet.send(batch)


def chain(told: Told, *others: Any, fused: bool) -> Pipeline[Any, Any]:
    pipeline: Pipeline[Any, Any] = Pipeline(closing("first", told)).then(Acting(relay)).then(closing("last", told))
    for stage in others:
        pipeline = pipeline.then(stage)
    return pipeline.fused() if fused else pipeline


both_ways = pytest.mark.parametrize("fused", [True, False], ids=["fused", "tasks"])


@both_ways
async def test_a_run_that_is_complete_is_told_as_that(fused: bool) -> None:
    told: Told = []
    assert await chain(told, fused=fused).run([[1], [2]], RequestContext("r")) == [1, 2]
    assert sorted(told, key=itemgetter(0)) == [("first", COMPLETED), ("last", COMPLETED)]
    assert COMPLETED.is_complete
    assert not COMPLETED.is_cancelled


@both_ways
async def test_a_failure_of_any_stage_is_told_to_all(fused: bool) -> None:
    told: Told = []
    with pytest.raises(ClientFault) as failed:
        await chain(told, refuse, fused=fused).run([[1]], RequestContext("r"))
    assert sorted(name for name, _ in told) == ["first", "last"]
    assert {id(outcome.error) for _, outcome in told} == {id(failed.value)}
    assert not any(outcome.is_complete or outcome.is_cancelled for _, outcome in told)


@both_ways
async def test_a_run_that_is_cancelled_is_told_as_that(fused: bool, autojump_clock: trio.testing.MockClock) -> None:
    async def stay(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await trio.sleep_forever()

    told: Told = []
    with trio.move_on_after(1):
        await chain(told, Acting(stay), fused=fused).run([[1]], RequestContext("r"))
    assert sorted(told, key=itemgetter(0)) == [("first", CANCELLED), ("last", CANCELLED)]
    assert CANCELLED.is_cancelled


@both_ways
async def test_one_that_fails_when_it_is_told_fails_a_run_that_was_good(fused: bool) -> None:
    told: Told = []
    failing = closing("failing", told, fails=True)
    with pytest.raises(StageBug) as failed:
        await chain(told, failing, fused=fused).run([[1]], RequestContext("r"))
    assert failed.value.stage == "failing"
    assert sorted(name for name, _ in told) == ["failing", "first", "last"]


@both_ways
async def test_one_that_fails_when_it_is_told_of_a_failure_is_a_note_of_it(fused: bool) -> None:
    told: Told = []
    with pytest.raises(ClientFault) as failed:
        await chain(told, closing("failing", told, fails=True), refuse, fused=fused).run([[1]], RequestContext("r"))
    assert failed.value.__notes__ == ["then failing failed too, when it was closed: OSError"]


async def test_a_codec_that_could_not_be_opened_is_not_closed() -> None:
    def refuse_to_open(ctx: RequestContext) -> Any:
        raise ClientFault("no")

    told: Told = []
    refusing = codec_stage("refusing", refuse_to_open, codec=type(closing("x", told).open(RequestContext("r"))))
    with pytest.raises(ClientFault):
        await Pipeline(closing("first", told)).then(refusing).fused().run([[1]], RequestContext("r"))
    assert [name for name, _ in told] == ["first"]


def test_close_must_not_wait() -> None:
    class Closes:
        def feed(self, batch: list[int], /) -> list[int]:
            return batch

        def flush(self) -> list[int]:
            return []

        async def close(self, outcome: Outcome) -> None: ...

    with pytest.raises(TypeError, match="close of Closes must not be async"):
        codec_stage("closes", lambda ctx: Closes(), codec=Closes)


# --- A part of a request that is run on its own ----------------------------------------------------------------------


async def test_a_nested_context_begins_with_the_same_notes_and_keeps_its_own() -> None:
    word: Slot[str] = Slot("word")
    ctx = RequestContext("r7", deadline=LATER_S)
    ctx[word] = "before"
    part = ctx.nested()
    part[word] = "within"
    assert (part.request_id, part.deadline, part.timeline) == ("r7", LATER_S, ctx.timeline)
    assert ctx[word] == "before"
    await Pipeline(Acting(relay)).run([[1]], part)
    assert (len(part.lanes), ctx.lanes) == (1, [])


async def test_what_a_run_gives_can_be_taken_as_it_comes() -> None:
    ctx = RequestContext("r")
    link: Link[int] = Link("part>rest", 1)
    lane = Lane(["rest"], ctx.timeline, current_loop(), "r")
    taken: list[list[int] | None] = []

    async def take_all() -> None:
        while True:
            taken.append(await link.take(lane))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Pipeline(Acting(relay)).run_into, link, [[1], [2]], ctx.nested())
        with pytest.raises(EndOfInput):
            await take_all()
    assert taken == [[1], [2]]


async def test_a_run_that_fails_does_not_complete_what_it_gives_into() -> None:
    link: Link[int] = Link("part>rest", 1)
    with pytest.raises(ClientFault):
        await Pipeline(refuse).run_into(link, [[1]], RequestContext("r"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.take(Lane(["rest"], RequestContext("r").timeline, current_loop(), "r"))
    assert scope.cancelled_caught  # it waits


def test_a_chain_describes_its_tasks() -> None:
    pipeline: Pipeline[Any, Any] = Pipeline(Acting(relay)).then(refuse).then(closing("last", []), capacity=3)
    first, line = pipeline.fused().describe()
    assert [stage.name for stage in first.stages] == ["relay"]
    assert [stage.name for stage in line.stages] == ["refuse", "last"]
