"""Codecs in a row in one task: fused or not, waiting, ticking and done, and whose time each of them spends."""

from __future__ import annotations

import math
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.clocks import SECOND_NS, WorkClock
from kit.engine.lanes import Counts, counts, link_figures, spent_s
from kit.engine.pulls import pulled
from kit.engine.stages import Acting, Machine, Script, machine

from pipeline import (
    ClientFault,
    Codec,
    Inlet,
    Lane,
    Outlet,
    Party,
    Pipeline,
    PipelineError,
    RequestContext,
    StageBug,
    WaitingCodec,
    alarm,
    codec_stage,
    per_event,
)
from pipeline.line import CodecStage
from pipeline.testing import assert_cancels_cleanly, assert_time_conserved, check_stage, rebatched, virtual_ns

Clock = Callable[[], int]


@per_event
def exclaim(event: str) -> list[str]:
    return [event + "!"]


def context(clock: Clock = virtual_ns) -> RequestContext:
    return RequestContext("r", clock=clock)


def chosen(pipeline: Pipeline[Any, Any], fused: bool) -> Pipeline[Any, Any]:
    return pipeline.fused() if fused else pipeline


def stages_s(ctx: RequestContext, figure: str) -> dict[str, float]:
    """Return one time of each stage that has some, in seconds."""
    found = {stage.name: getattr(stage, figure) / SECOND_NS for lane in ctx.lanes for stage in lane.stages}
    return {name: seconds for name, seconds in found.items() if seconds}


both_ways = pytest.mark.parametrize("fused", [False, True], ids=["tasks", "fused"])


# Codecs that wait.


class Store:
    """Waits ``wait_s`` for each batch, and returns the number of events at the end."""

    def __init__(self, wait_s: float, party: Party = Party.OURS) -> None:
        self.wait_s = wait_s
        self.party = party
        self.count = 0

    async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
        with lane.outside(self.party):
            await trio.sleep(self.wait_s)
        self.count += len(batch)
        return batch

    async def flush(self, lane: Lane, /) -> list[str]:
        with lane.outside(self.party):
            await trio.sleep(self.wait_s)
        return [f"{self.count} in all"]


def storing(wait_s: float = 2, name: str = "store", party: Party = Party.OURS) -> CodecStage[str, str]:
    return codec_stage(name, lambda ctx: Store(wait_s, party), codec=Store)


def test_a_waiting_codec_passes_every_check() -> None:
    assert check_stage(storing(), "a", "b", "c") == ["a", "b", "c", "3 in all"]


async def test_the_declared_waits_of_a_codec_are_outside(autojump_clock: trio.testing.MockClock) -> None:
    ctx = context()
    await Pipeline(exclaim).then(storing(3)).run([["a"], ["b"]], ctx)
    assert spent_s(ctx.lanes[1])["outside"] == 9
    assert stages_s(ctx, "outside_ns") == {"store": 9}


async def test_each_waiting_codec_of_a_line_has_its_own_waits(autojump_clock: trio.testing.MockClock) -> None:
    ctx = context()
    pipeline = Pipeline(storing(3, "first")).then(exclaim).then(storing(5, "second", Party.CLIENT)).fused()
    assert await pipeline.run([["a"], ["b"]], ctx) == ["a!", "b!", "2 in all!", "3 in all"]
    assert stages_s(ctx, "outside_ns") == {"first": 9, "second": 20}
    assert_time_conserved(ctx.lanes[0])
    assert ctx.timeline.client_ns == 20 * SECOND_NS


# Codecs that tick.


class Ticks:
    def __init__(self, ctx: RequestContext) -> None:
        self.number = 0

    def feed(self, batch: list[str], /) -> list[str]:
        return [event for event in batch if event != "silence"]

    def flush(self) -> list[str]:
        return ["end"]

    def tick(self) -> list[str]:
        self.number += 1
        return [f"tick {self.number}"] if self.number != 2 else []


def ticking(tick_s: float = 10) -> CodecStage[str, str]:
    return codec_stage("tick", Ticks, tick_s=tick_s)


class TicksOf:
    """Passes everything on, and sends its name at each tick."""

    def __init__(self, name: str) -> None:
        self.name = name

    def feed(self, batch: list[str], /) -> list[str]:
        return batch

    def flush(self) -> list[str]:
        return []

    def tick(self) -> list[str]:
        return [self.name]


def ticks_of(name: str, tick_s: float) -> CodecStage[str, str]:
    return codec_stage(name, lambda ctx: TicksOf(name), codec=TicksOf, tick_s=tick_s)


def test_a_ticking_codec_passes_every_check() -> None:
    assert check_stage(ticking(), "a", "b") == ["a", "b", "end"]


@both_ways
async def test_a_tick_ends_each_silence_once_per_interval_and_output_puts_it_off(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    pipeline = Pipeline(Script(25.0, "a", 9.0, "b", 9.0, "silence", 5.0, "c")).then(ticking()).then(exclaim)
    ctx = context()
    given = await chosen(pipeline, fused).run([[1]], ctx)
    # The second tick, after 20 s, returned nothing; the last comes 10 s after "b".
    assert given == ["tick 1!", "a!", "b!", "tick 3!", "c!", "end!"]
    for lane in ctx.lanes:
        assert_time_conserved(lane)


@both_ways
async def test_a_slow_consumer_causes_no_ticks_and_loses_nothing(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    events = [str(number) for number in range(5)]
    pipeline = Pipeline(Script(*events)).then(ticking()).then(storing(60))
    assert await chosen(pipeline, fused).run([[1]], context()) == [*events, "end", "6 in all"]


async def test_a_tick_comes_while_the_next_task_of_a_chain_waits(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline(Script(11.0, "a", "b")).then(ticking()).then(storing(5))
    assert await pipeline.fused().run([[1]], context()) == ["tick 1", "a", "b", "end", "4 in all"]


async def test_each_of_several_ticking_codecs_has_its_own_silence(autojump_clock: trio.testing.MockClock) -> None:
    fast, slow = ticks_of("fast", 10), ticks_of("slow", 15)
    # Output of the first ends the silence of the second; output of the second does not affect the first.
    assert await Pipeline(Script(31.0)).then(fast).then(slow).fused().run([[1]], context()) == ["fast"] * 3
    given = await Pipeline(Script(31.0)).then(slow).then(fast).fused().run([[1]], context())
    assert given == ["fast", "slow", "fast", "slow"]


async def test_two_codecs_that_are_due_at_the_same_time_both_tick(autojump_clock: trio.testing.MockClock) -> None:
    # The second tick of the first returns nothing.
    given = await Pipeline(Script(11.0)).then(ticking(5)).then(ticks_of("other", 5)).fused().run([[1]], context())
    assert given == ["tick 1", "other", "end"]


@both_ways
async def test_a_tick_that_fails_is_blamed_on_its_stage(fused: bool, autojump_clock: trio.testing.MockClock) -> None:
    class Breaks(TicksOf):
        def tick(self) -> list[str]:
            raise ClientFault("no")

    breaks = codec_stage("breaks", lambda ctx: Breaks(""), codec=Breaks, tick_s=5)
    ctx = context()
    with pytest.raises(ClientFault) as failed:
        await chosen(Pipeline(Script(11.0)).then(exclaim).then(breaks), fused).run([[1]], ctx)
    assert failed.value.stage == "breaks"
    assert trio.current_time() == 5
    for lane in ctx.lanes:
        assert_time_conserved(lane)


@pytest.mark.parametrize("how", ["fails", "is cancelled", "ends"])
async def test_a_ticking_stage_ends_with_its_source(how: str, autojump_clock: trio.testing.MockClock) -> None:
    async def source() -> AsyncIterator[list[str]]:
        yield ["a"]
        await trio.sleep(11)
        if how == "fails":
            raise ClientFault("no more")
        yield ["b"]

    ctx, got = context(), list[str]()
    pipeline = Pipeline(exclaim).then(ticking())
    if how == "fails":
        with pytest.raises(ClientFault) as failed:
            await pipeline.run(source(), ctx)
        assert failed.value.stage == "source"
    else:
        with trio.move_on_after(5 if how == "is cancelled" else math.inf) as scope:
            got = await pipeline.run(source(), ctx)
        assert scope.cancelled_caught == (how == "is cancelled")
        assert got == ([] if scope.cancelled_caught else ["a!", "tick 1", "b!", "end"])
    for lane in ctx.lanes:
        assert_time_conserved(lane)
    await no_alarm_is_left()


async def no_alarm_is_left() -> None:
    """Check that nothing rings any more."""
    await trio.sleep(1_000)
    assert alarm.tasks_living() == 0


class TicksOnRequest:
    """Wants to be asked only between ``on`` and ``off``, of which nothing comes out."""

    ticks: bool

    def __init__(self, ctx: RequestContext, *, ticks: bool = False, ticks_once: bool = False) -> None:
        self.ticks = ticks
        self.ticks_once = ticks_once

    def feed(self, batch: list[str], /) -> list[str]:
        for event in batch:
            if event in ("on", "off"):
                self.ticks = event == "on"
        return [event for event in batch if event not in ("on", "off")]

    def flush(self) -> list[str]:
        return []

    def tick(self) -> list[str]:
        if self.ticks_once:
            self.ticks = False
        return [f"at {trio.current_time():g}"]


@both_ways
async def test_a_codec_is_asked_only_while_a_silence_means_something_to_it(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    script = Script(25.0, "on", 15.0, "off", 30.0, "on", 5.0, "x", 9.0, "x", 5.0, "on", 6.0, "off", 20.0, "y")
    pipeline = Pipeline(script).then(codec_stage("tick", TicksOnRequest, tick_s=10)).then(exclaim)
    got = await chosen(pipeline, fused).run([[1]], context())
    assert got == ["at 35!", "x!", "x!", "at 94!", "y!"]
    await no_alarm_is_left()


async def test_a_codec_may_want_to_be_asked_from_its_start_and_only_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    once = partial(TicksOnRequest, ticks=True, ticks_once=True)
    stage: CodecStage[str, str] = codec_stage("tick", once, codec=TicksOnRequest, tick_s=10)
    pipeline = Pipeline(Script(25.0, "x", 25.0, "on", 25.0)).then(stage)
    assert await pipeline.run([[1]], context()) == ["at 10", "x", "at 60"]
    await no_alarm_is_left()


async def test_an_alarm_is_not_set_while_a_codec_does_not_want_to_be_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    living: list[int] = []

    async def look(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        for event in ("x", "on", "off"):
            await outlet.send([event])
            await trio.testing.wait_all_tasks_blocked()
            living.append(alarm.tasks_living())
        await trio.sleep(11)
        living.append(alarm.tasks_living())

    pipeline = Pipeline(Acting(look)).then(codec_stage("tick", TicksOnRequest, tick_s=10))
    assert await pipeline.run([[1]], context()) == ["x"]
    assert living == [0, 1, 1, 0]


async def test_what_a_flush_feeds_to_a_ticking_codec_sets_no_alarm(autojump_clock: trio.testing.MockClock) -> None:
    flushing = machine("flushing", flush=lambda: ["on", "last"])
    asked = codec_stage("asked", TicksOnRequest, tick_s=10)
    pipeline = Pipeline(Script("a")).then(flushing).then(ticks_of("tick", 10)).then(asked).then(exclaim).fused()
    assert await pipeline.run([[1]], context()) == ["a!", "last!"]
    await no_alarm_is_left()


@pytest.mark.parametrize("error", [ClientFault("no"), OSError("gone")])
async def test_a_codec_that_cannot_be_opened_leaves_no_alarm_of_those_before_it(
    error: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    def refuse(ctx: RequestContext) -> TicksOf:
        raise error

    refusing = codec_stage("refusing", refuse, tick_s=10)
    pipeline = Pipeline(Script(25.0)).then(ticks_of("tick", 10)).then(refusing).fused()
    with pytest.raises(PipelineError) as failed:
        await pipeline.run([[1]], context())
    assert failed.value.stage == "refusing"
    await no_alarm_is_left()


async def test_a_ticking_codec_inside_the_first_stage_is_never_asked(autojump_clock: trio.testing.MockClock) -> None:
    async def source() -> AsyncIterator[list[str]]:
        yield ["a", "on"]
        await trio.sleep(60)
        yield ["b"]

    inner: CodecStage[str, str] = codec_stage("asked", TicksOnRequest, tick_s=10)

    async def host(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        await inner.run(inlet, outlet, ctx)

    assert await Pipeline(Acting(host)).run(source(), context()) == ["a", "b"]
    assert await Pipeline(exclaim).then(Acting(host)).run(source(), context()) == ["a!", "on!", "b!"]
    assert alarm.tasks_living() == 0


async def test_what_a_tick_gives_came_of_no_batch(autojump_clock: trio.testing.MockClock) -> None:
    origins: list[tuple[str, float]] = []

    async def look(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for batch in inlet:
            origins.extend((event, inlet.lane.origin_ns / SECOND_NS) for event in batch)

    async def arrive(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        for event in ("a", "b"):
            with outlet.outside(Party.UPSTREAM):
                await trio.sleep(11)
            await outlet.send([event])

    pipeline = Pipeline(Acting(arrive)).then(ticks_of("tick", 10)).then(exclaim).fused().then(Acting(look))
    await pipeline.run([[1]], context())
    assert origins == [("tick!", 0), ("a!", 11), ("tick!", 0), ("b!", 22)]


async def test_two_ticks_at_the_same_time_are_charged_to_their_codecs_and_the_wait_between_them_to_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()

    class TicksSlowly(TicksOf):
        def tick(self) -> list[str]:
            clock.work(3)
            return [self.name]

    first, second = (
        codec_stage(name, partial(lambda name, ctx: TicksSlowly(name), name), codec=TicksSlowly, tick_s=10)
        for name in ("first", "second")
    )
    swallow = machine("swallow", lambda batch: [event for event in batch if event != "first"])
    # What the first gives does not come to the second, so that both are due at once.
    pipeline = Pipeline(Script(11.0)).then(first).then(swallow).then(second).fused().then(storing(7), capacity=0)
    ctx = context(clock)
    assert await pipeline.run([[1]], ctx) == ["second", "1 in all"]
    assert stages_s(ctx, "busy_ns") == {"first": 3, "second": 3}
    assert spent_s(ctx.lanes[1])["busy"] == 6
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def test_a_codec_knows_when_the_batch_arrived_at_which_it_works(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[str, float]] = []

    class Looks:
        def __init__(self, ctx: RequestContext) -> None:
            self.timeline = ctx.timeline

        def feed(self, batch: list[str], /) -> list[str]:
            seen.extend((event, self.timeline.origin_ns / SECOND_NS) for event in batch)
            self.timeline.see_token(is_output=True)
            return batch

        def flush(self) -> list[str]:
            return []

    async def arrive(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        for event in ("a", "b"):
            with outlet.outside(Party.UPSTREAM):
                await trio.sleep(3)
            await outlet.send([event])

    async def deliver(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for _ in inlet:
            with outlet.outside(Party.CLIENT):
                await trio.sleep(1)
            ctx.timeline.deliver(inlet.lane.origin_ns)

    ctx = context()
    await (
        Pipeline(Acting(arrive))
        .then(codec_stage("look", Looks))
        .then(exclaim)
        .fused()
        .then(Acting(deliver))
        .run([[1]], ctx)
    )
    assert seen == [("a", 3), ("b", 6)]
    points_s = {point: ns / SECOND_NS for point, ns in ctx.timeline.points.items()}
    assert points_s == {"first_token": 3, "first_output_token": 3, "first_byte_out": 4, "first_token_out": 4}
    [transit_ns] = ctx.timeline.transits_ns(1)
    assert abs(transit_ns - SECOND_NS) <= 0.032 * SECOND_NS


class Batch(list[str]):
    """A list that says when it is gone."""


async def test_a_line_that_waits_has_let_go_of_its_last_batch() -> None:
    batches: list[weakref.ref[Batch]] = []

    async def give(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        batch = Batch(["a"])
        batches.append(weakref.ref(batch))
        await outlet.send(batch)
        del batch
        await trio.testing.wait_all_tasks_blocked()
        assert [ref() for ref in batches] == [None]

    swallow = machine("swallow", lambda batch: [])
    assert await Pipeline(Acting(give)).then(exclaim).then(swallow).fused().run([[1]], context(lambda: 0)) == []


# Codecs that are done.


class Takes:
    """Passes on ``size`` events, then is done; notes what it was asked."""

    done: bool

    def __init__(self, size: int, log: list[str]) -> None:
        self.left = size
        self.log = log
        self.done = False

    def feed(self, batch: list[str], /) -> list[str]:
        assert not self.done, "it was fed although it was done"
        taken = batch[: self.left]
        self.left -= len(taken)
        self.done = not self.left
        self.log.append(f"fed {len(batch)}")
        return taken

    def flush(self) -> list[str]:
        self.log.append("flushed")
        return ["taken"]


def taking(size: int, log: list[str], name: str = "take") -> CodecStage[str, str]:
    return codec_stage(name, lambda ctx: Takes(size, log), codec=Takes)


def telling(name: str, log: list[str]) -> CodecStage[str, str]:
    """Return a stage that passes everything on, and something at its end."""

    def flush() -> list[str]:
        log.append(name)
        return [f"end of {name}"]

    return machine(name, flush=flush)


async def never_ending(first: list[list[str]]) -> AsyncIterator[list[str]]:
    for batch in first:
        yield batch
    await trio.sleep_forever()


@both_ways
async def test_a_codec_that_is_done_ends_the_run_without_the_rest_of_the_input(fused: bool) -> None:
    log: list[str] = []
    pipeline = Pipeline(telling("before", log)).then(taking(3, log)).then(telling("after", log))
    got = await chosen(pipeline, fused).run(never_ending([["a", "b"], ["c", "d"]]), context())
    assert got == ["a", "b", "c", "taken", "end of after"]
    assert log == ["fed 2", "fed 2", "flushed", "after"]  # nobody wants what the one before it holds


async def test_a_done_codec_takes_no_batch_that_was_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    log: list[str] = []
    stopped: list[str] = []

    async def hurl(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        try:
            for event in "abcdefgh":
                await outlet.send([event])
        finally:
            stopped.append("stopped")

    ctx = context()
    pipeline = Pipeline(Acting(hurl)).then(taking(2, log), capacity=3)
    assert await pipeline.run([[1]], ctx) == ["a", "b", "taken"]
    assert log == ["fed 1", "fed 1", "flushed"]
    assert stopped == ["stopped"]
    assert link_figures(ctx.links[0])["batches"] == 2


async def test_the_stage_before_a_done_codec_is_stopped_even_while_it_waits_for_the_world(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log: list[str] = []
    abandoned: list[bool] = []

    async def ask(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        await outlet.send(["a", "b"])
        try:
            with outlet.outside(Party.UPSTREAM):
                await trio.sleep(60)
        finally:
            abandoned.append(outlet.is_abandoned)

    ctx = context()
    assert await Pipeline(Acting(ask)).then(taking(1, log)).run([[1]], ctx) == ["a", "taken"]
    assert abandoned == [True]
    assert trio.current_time() == 0
    for lane in ctx.lanes:
        assert_time_conserved(lane)


@both_ways
async def test_of_two_codecs_that_are_done_with_one_batch_the_later_one_counts(fused: bool) -> None:
    log: list[str] = []
    others: list[str] = []
    pipeline = Pipeline(Script("a")).then(taking(1, others, "first")).then(taking(1, log, "second"))
    assert await chosen(pipeline, fused).run([[1]], context()) == ["a", "taken"]
    assert log == ["fed 1", "flushed"]


async def test_a_codec_that_a_flush_has_ended_is_fed_no_more() -> None:
    log: list[str] = []
    pipeline = Pipeline(telling("one", log)).then(telling("two", log)).then(taking(2, log)).fused()
    assert await pipeline.run([["a"]], context()) == ["a", "end of one", "taken"]
    assert log == ["fed 1", "one", "fed 1", "flushed"]


async def test_a_waiting_codec_may_be_done(autojump_clock: trio.testing.MockClock) -> None:
    class Writes:
        done: bool

        def __init__(self, ctx: RequestContext) -> None:
            self.done = False

        async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
            with lane.outside(Party.CLIENT):
                await trio.sleep(1)
            self.done = "end" in batch
            return batch

        async def flush(self, lane: Lane, /) -> list[str]:
            return []

    pipeline = Pipeline(exclaim).then(codec_stage("write", Writes)).fused()
    assert await Pipeline(codec_stage("write", Writes)).run(never_ending([["a"], ["end"]]), context()) == ["a", "end"]
    assert await pipeline.run([["end"], ["more"]], context()) == ["end!", "more!"]


class EndsAfterSilence:
    """Is done at a tick, of which its last event comes."""

    done: bool

    def __init__(self, ctx: RequestContext) -> None:
        self.done = False

    def feed(self, batch: list[str], /) -> list[str]:
        return batch

    def flush(self) -> list[str]:
        return ["flushed"]

    def tick(self) -> list[str]:
        self.done = True
        return ["silence"]


@both_ways
async def test_a_tick_may_end_the_input(fused: bool, autojump_clock: trio.testing.MockClock) -> None:
    ending = codec_stage("ending", EndsAfterSilence, tick_s=10)
    pipeline = Pipeline(Script(5.0, "a", 60.0, "b")).then(ending).then(exclaim)
    ctx = context()
    assert await chosen(pipeline, fused).run([[1]], ctx) == ["a!", "silence!", "flushed!"]
    assert trio.current_time() == 15
    for lane in ctx.lanes:
        assert_time_conserved(lane)
    await no_alarm_is_left()


# Which task they are in.


async def test_a_ticking_member_of_the_first_line_has_a_task_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def source() -> AsyncIterator[list[str]]:
        yield ["a"]
        await trio.sleep(25)
        yield ["b"]

    ctx = context()
    pipeline = Pipeline(exclaim).then(machine("two")).then(ticks_of("tick", 10)).then(machine("four")).fused()
    assert await pipeline.run(source(), ctx) == ["a!", "tick", "tick", "b!"]
    assert [[stage.name for stage in lane.stages] for lane in ctx.lanes] == [["exclaim", "two"], ["tick", "four"]]
    assert [link.name for link in ctx.links] == ["two>tick"]
    again = context()
    assert await pipeline.fused().run([["a"]], again) == ["a!"]
    assert [lane.name for lane in again.lanes] == ["exclaim", "tick"]


async def test_a_ticking_member_of_a_later_line_is_joined() -> None:
    ctx = context(lambda: 0)
    await Pipeline(Script("a")).then(exclaim).then(ticks_of("tick", 10)).fused().run([[1]], ctx)
    assert [[stage.name for stage in lane.stages] for lane in ctx.lanes] == [["script"], ["exclaim", "tick"]]


# Fused or not, the results are the same.


class Windows:
    """Sums windows of ``size`` numbers; an incomplete window is summed at the end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: list[int] = []

    def feed(self, batch: list[int], /) -> list[int]:
        self.held += batch
        given: list[int] = []
        while len(self.held) >= self.size:
            given.append(sum(self.held[: self.size]))
            del self.held[: self.size]
        return given

    def flush(self) -> list[int]:
        return [sum(self.held)] if self.held else []


class WaitingWindows(Windows):
    """The same with a step of the loop in each call."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.inner = Windows(size)

    async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:  # type: ignore[override]
        with lane.outside():
            await trio.lowlevel.checkpoint()
        return self.inner.feed(batch)

    async def flush(self, lane: Lane, /) -> list[int]:  # type: ignore[override]
        return self.inner.flush()


class PushedWindows(WaitingWindows):
    """The same, in whichever task it is fed: it asks for its own before it waits, which it does every other time."""

    may_be_pushed = True
    calls = 0

    async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:  # type: ignore[override]
        self.calls += 1
        if self.calls % 2:
            return self.inner.feed(batch)
        await lane.own_task()
        return await super().feed(batch, lane)


class TakesNumbers:
    """Is done after ``size`` numbers."""

    done: bool

    def __init__(self, size: int) -> None:
        self.left = size
        self.done = False

    def feed(self, batch: list[int], /) -> list[int]:
        taken = batch[: self.left]
        self.left -= len(taken)
        self.done = not self.left
        return taken

    def flush(self) -> list[int]:
        return [-1]


def codecs(draw: Callable[[st.SearchStrategy[Any]], Any], kinds: list[str], at: int) -> CodecStage[Any, Any]:
    """Draw a codec with some memory."""
    kind, size = draw(st.sampled_from(kinds)), draw(st.integers(1, 4))
    name = f"{kind}_{size}_at_{at}"
    if kind == "windows":
        return codec_stage(name, lambda ctx: Windows(size), codec=Windows)
    if kind == "waits":
        return CodecStage(name, lambda ctx: WaitingWindows(size), accepts=int, emits=int, is_waiting=True)
    if kind == "pushed":
        return codec_stage(name, lambda ctx: PushedWindows(size), codec=PushedWindows)
    if kind == "takes":
        return codec_stage(name, lambda ctx: TakesNumbers(size), codec=TakesNumbers)
    if kind == "repeat":
        return machine(name, lambda batch: [n for n in batch for _ in range(size)], lambda: [7])
    if kind == "drop":
        return machine(name, lambda batch: [n for n in batch if n % (size + 1)])
    if kind == "delay":

        def open(ctx: RequestContext) -> Machine:
            held: list[int] = []

            def feed(batch: list[int]) -> list[int]:
                held.extend(batch)
                given = held[:-size]
                del held[:-size]
                return given

            return Machine(feed, lambda: held)

        return codec_stage(name, open)

    def spread(number: int) -> list[int]:
        return [number + size] * (number % 3)

    spread.__name__ = name
    return per_event(spread)


KINDS = ["windows", "waits", "pushed", "repeat", "drop", "delay", "per_event"]


@st.composite
def chains(draw: Callable[[st.SearchStrategy[Any]], Any], kinds: list[str]) -> list[CodecStage[Any, Any]]:
    return [codecs(draw, kinds, at) for at in range(draw(st.integers(2, 5)))]


def run_each_way(
    stages: list[CodecStage[Any, Any]], events: list[int], cuts: list[int], capacity: int
) -> list[tuple[list[int], list[Counts]]]:
    """Return what comes out, and what passed each stage: of separate tasks and of a line, in three kinds of runs."""
    separate: Pipeline[Any, Any] = Pipeline(stages[0])
    for stage in stages[1:]:
        separate = separate.then(stage, capacity=capacity)
    outcomes: list[tuple[list[int], list[Counts]]] = []
    for pipeline in (separate, separate.fused()):
        for run in (pipeline.run, partial(pulled, pipeline), pipeline.pulled().run):
            ctx = RequestContext("r1")
            got = trio.run(run, rebatched(events, cuts), ctx)
            outcomes.append((got, counts(ctx.lanes)))
            for lane in ctx.lanes:
                assert_time_conserved(lane)
            assert len(ctx.links) == (len(ctx.lanes) - 1 if run == pipeline.run else 0)
    return outcomes


@given(
    stages=chains(KINDS),
    events=st.lists(st.integers(0, 50), max_size=25),
    cuts=st.lists(st.integers(0, 25), max_size=8),
    capacity=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_fused_stages_return_and_count_the_same_as_separate_tasks(
    stages: list[CodecStage[Any, Any]], events: list[int], cuts: list[int], capacity: int
) -> None:
    separate, *others = run_each_way(stages, events, cuts, capacity)
    assert others == [separate] * 5


@given(
    stages=chains([*KINDS, "takes", "takes"]),
    events=st.lists(st.integers(0, 50), max_size=25),
    cuts=st.lists(st.integers(0, 25), max_size=8),
    capacity=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_fused_stages_return_the_same_as_separate_tasks_even_if_some_are_done_early(
    stages: list[CodecStage[Any, Any]], events: list[int], cuts: list[int], capacity: int
) -> None:
    # What the stages before a done one have taken depends on how far they were ahead.
    separate, *others = run_each_way(stages, events, cuts, capacity)
    assert [got for got, _ in others] == [separate[0]] * 5


# --- A line whose work is done in the task that gives it a batch ------------------------------------------------------


async def relay(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
    async for batch in inlet:
        await outlet.send(batch)


class Pushed:
    """Says in which task it works; for each "wait" it waits a second, in its own task; "fail" and "done" do that."""

    may_be_pushed = True
    done = False

    def __init__(self, ctx: RequestContext) -> None:
        self.ctx = ctx

    async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
        given = [trio.lowlevel.current_task().name]
        for word in batch:
            if word == "wait":
                await lane.own_task()
                with lane.outside():
                    await trio.sleep(1)
                given.append(trio.lowlevel.current_task().name)
            elif word == "wait rudely":
                await trio.sleep(1)
            elif word == "fail":
                raise ClientFault("no")
            elif word == "done":
                self.done = True
        return given

    async def flush(self, lane: Lane, /) -> list[str]:
        return [trio.lowlevel.current_task().name]


pushed = codec_stage("pushed", Pushed)


async def gone_through(*batches: list[str]) -> tuple[list[str], RequestContext]:
    """Return in which tasks a pushed line has worked."""
    ctx = context()
    names: list[str] = await Pipeline(Acting(relay)).then(pushed).run(batches, ctx)
    for lane in ctx.lanes:
        assert_time_conserved(lane)
    own = trio.lowlevel.current_task().name
    return ["own" if name == own else name for name in names], ctx


async def test_what_need_not_wait_is_done_in_the_task_that_gives_it(autojump_clock: trio.testing.MockClock) -> None:
    names, ctx = await gone_through(["a"], ["b"])
    assert names == ["relay", "relay", "own"]
    [link] = ctx.links
    assert (link.batches, link.ready_ns, link.queued_ns, link.full_ns) == (2, 0, 0, 0)
    assert counts(ctx.lanes) == [("relay", 2, 2, 2, 2), ("pushed", 2, 3, 2, 3)]


async def test_what_has_to_wait_goes_on_in_its_own_task_and_nothing_overtakes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names, ctx = await gone_through(["a"], ["wait"], ["b"], ["wait"], ["c"])
    assert names == ["relay", "relay", "own", "own", "own", "own", "own", "own"]
    assert trio.current_time() == 2
    assert stages_s(ctx, "outside_ns") == {"pushed": 2}
    assert spent_s(ctx.lanes[0])["blocked"] == 1  # "c" found room only when "b" had been taken


async def test_what_has_to_wait_at_the_very_end_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    names, _ = await gone_through(["wait"])
    assert names == ["relay", "own", "own"]


async def test_a_giver_waits_for_the_loop_while_its_batch_is_worked_at(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()

    class Works:
        def feed(self, batch: list[int], /) -> list[int]:
            clock.work(3)
            return batch

        def flush(self) -> list[int]:
            return []

    ctx = context(clock)
    works = codec_stage("works", lambda ctx: Works(), codec=Works)
    assert await Pipeline(Acting(relay)).then(works).run([[1], [2]], ctx) == [1, 2]
    giver, line = ctx.lanes
    assert (spent_s(giver)["ready"], spent_s(line)["busy"]) == (6, 6)
    assert stages_s(ctx, "busy_ns") == {"works": 6}


async def test_a_failure_in_the_task_that_gives_is_that_of_the_codec(autojump_clock: trio.testing.MockClock) -> None:
    for batches in ([["fail"]], [["a"], ["fail"], ["b"]]):
        with pytest.raises(ClientFault, match="no") as failed:
            await gone_through(*batches)
        assert failed.value.stage == "pushed"


async def test_a_codec_that_is_done_in_the_task_that_gives_ends_the_run(autojump_clock: trio.testing.MockClock) -> None:
    async def relay_and_stay(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await relay(inlet, outlet, ctx)
        with outlet.outside():
            await trio.sleep_forever()

    assert len(await Pipeline(Acting(relay_and_stay)).then(pushed).run([["a"], ["done"]], context())) == 3


async def test_a_line_that_is_done_has_ended_although_the_loop_has_yet_to_come_to_its_task(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()

    async def relay_and_work(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await relay(inlet, outlet, ctx)
        clock.work(5)  # the line's task can only run after that

    ctx = context(clock)
    assert len(await Pipeline(Acting(relay_and_work)).then(pushed).run([["done"]], ctx)) == 2
    giver, line = ctx.lanes
    assert (giver.lifetime_ns, line.lifetime_ns) == (5 * SECOND_NS, 0)
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def test_a_codec_that_waits_in_the_task_that_gives_it_a_batch_is_a_bug(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(StageBug) as failed:
        await gone_through(["wait rudely"])
    assert failed.value.stage == "pushed"
    assert "own_task" in str(failed.value.__cause__)


@pytest.mark.parametrize("word", ["a", "wait", "fail"])
async def test_a_request_may_be_cancelled_by_what_it_does_in_the_task_that_gives(
    word: str, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.CancelScope() as scope:

        @per_event
        def cancel(item: str) -> list[str]:
            scope.cancel()
            return [item]

        ctx = context()
        chain = Pipeline(Acting(relay)).then(cancel).then(pushed).fused()
        if word == "fail":
            with pytest.raises(ClientFault):
                await chain.run([[word]], ctx)
        else:
            await chain.run([[word]], ctx)
    assert scope.cancelled_caught == (word != "fail")
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def test_a_line_that_is_pushed_may_be_cancelled_at_every_step(autojump_clock: trio.testing.MockClock) -> None:
    await assert_cancels_cleanly(lambda: gone_through(["a"], ["wait"], ["b"], ["wait", "c"]))


@both_ways
async def test_members_flush_in_order_and_what_they_flush_passes_through_the_later_ones(fused: bool) -> None:
    fed: list[tuple[str, object]] = []

    def recording_codec(name: str) -> CodecStage[str, str]:
        def feed(batch: list[str]) -> list[str]:
            fed.append((name, list(batch)))
            return [item + name for item in batch]

        def flush() -> list[str]:
            fed.append((name, "flush"))
            return ["end of " + name + ":"]

        return machine(name, feed, flush)

    pipeline = Pipeline(recording_codec("a")).then(recording_codec("b")).then(recording_codec("c"))
    got = await chosen(pipeline, fused).run([["x"]], context())
    assert got == ["xabc", "end of a:bc", "end of b:c", "end of c:"]
    assert [what for name, what in fed if name == "c"] == [["xab"], ["end of a:b"], ["end of b:"], "flush"]
    if fused:
        assert fed[-3:] == [("b", "flush"), ("c", ["end of b:"]), ("c", "flush")]


@both_ways
async def test_every_stage_counts_what_passes_it(fused: bool) -> None:
    ctx = context()
    pipeline = (
        Pipeline(machine("double", lambda batch: [n for n in batch for _ in (1, 2)]))
        .then(machine("drop_small", lambda batch: [n for n in batch if n > 1]))
        .then(machine("pass_on"))
    )
    await chosen(pipeline, fused).run([[1], [2, 3]], ctx)
    assert counts(ctx.lanes) == [("double", 2, 2, 3, 6), ("drop_small", 2, 1, 6, 4), ("pass_on", 1, 1, 4, 4)]
    assert [lane.name for lane in ctx.lanes] == (["double"] if fused else ["double", "drop_small", "pass_on"])


# Which stage is blamed.


@both_ways
@pytest.mark.parametrize("when", ["open", "feed", "flush", "feed of what the first flushed"])
async def test_the_member_that_fails_is_the_one_that_is_named(when: str, fused: bool) -> None:
    cause = ValueError("cannot go on")

    def fail(*_: object) -> list[int]:
        raise cause

    def open_failing(ctx: RequestContext) -> Machine:
        if when == "open":
            fail()
        return Machine(list, fail) if when == "flush" else Machine(fail, list)

    flushing = machine("flushing", lambda batch: [], lambda: [1])
    first = flushing if when == "feed of what the first flushed" else machine("passing")
    pipeline = Pipeline(first).then(codec_stage("failing", open_failing)).then(machine("last"))
    ctx = context(lambda: 0)
    with pytest.raises(StageBug) as failed:
        await chosen(pipeline, fused).run([[1]], ctx)
    assert failed.value.stage == "failing"
    assert failed.value.__cause__ is cause


@both_ways
async def test_a_member_keeps_its_own_kind_of_failure_and_its_cause(fused: bool) -> None:
    error = ClientFault("no such model")
    cause = KeyError("gpt-9")

    def refuse(batch: list[int]) -> list[int]:
        raise error from cause

    pipeline = Pipeline(machine("passing")).then(machine("refuse", refuse))
    with pytest.raises(ClientFault) as failed:
        await chosen(pipeline, fused).run([[1]], context())
    assert failed.value is error
    assert failed.value.stage == "refuse"
    assert failed.value.__cause__ is cause


@pytest.mark.parametrize("failing", ["script", "tick", "store", "late"])
async def test_the_stage_that_fails_is_named(failing: str, autojump_clock: trio.testing.MockClock) -> None:
    fault = ClientFault("no")

    class Fails:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        def feed(self, batch: list[str], /) -> list[str]:
            raise fault

        def flush(self) -> list[str]:
            return []

        tick = flush

    class FailsLater:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
            raise fault

        async def flush(self, lane: Lane, /) -> list[str]:
            raise fault

    async def fail_at_once(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        await outlet.send(["a"])
        raise fault

    head = Acting(fail_at_once, "script") if failing == "script" else Script("a")
    tick = codec_stage("tick", Fails, tick_s=1) if failing == "tick" else ticking()
    store = codec_stage("store", FailsLater) if failing == "store" else storing()
    late = codec_stage("late", FailsLater) if failing == "late" else exclaim
    with pytest.raises(ClientFault) as failed:
        await Pipeline(head).then(tick).then(store).then(late).fused().run([[1]], context())
    assert failed.value is fault
    assert fault.stage == failing


# Where the time goes.


class Works:
    """Works, by the account of a clock, and waits as it is told; nothing comes out of it before its end."""

    def __init__(self, clock: WorkClock, *, feed_s: float = 0, flush_s: float = 0, gives: bool = True) -> None:
        self.clock = clock
        self.feed_s = feed_s
        self.flush_s = flush_s
        self.gives = gives

    def feed(self, batch: list[str], /) -> list[str]:
        self.clock.work(self.feed_s)
        return batch if self.gives else []

    def flush(self) -> list[str]:
        self.clock.work(self.flush_s)
        return ["last"]


def working(
    clock: WorkClock, name: str, *, open_s: float = 0, feed_s: float = 0, flush_s: float = 0, gives: bool = True
) -> CodecStage[str, str]:
    def open(ctx: RequestContext) -> Works:
        clock.work(open_s)
        return Works(clock, feed_s=feed_s, flush_s=flush_s, gives=gives)

    return codec_stage(name, open)


async def test_the_time_of_a_line_is_charged_to_the_member_at_work(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()
    ctx = context(clock)

    async def source() -> AsyncIterator[list[str]]:
        for event in "abc":
            yield [event]
        await trio.sleep(1000)

    async def ask(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside():
                await trio.sleep(100)
            await outlet.send(batch)

    first = working(clock, "first", open_s=1, feed_s=10, flush_s=2)
    second = working(clock, "second", open_s=3, feed_s=20, flush_s=4)
    third = working(clock, "third", open_s=5, feed_s=30, flush_s=6)
    await Pipeline(first).then(second).then(third).fused().then(Acting(ask)).run(source(), ctx)
    # Three batches, then what the first has flushed passes two more, and what the second has flushed one more.
    assert stages_s(ctx, "busy_ns") == {
        "first": 1 + 3 * 10,
        "second": 3 + (3 + 1) * 20,
        "third": 5 + (3 + 2) * 30,
    }
    assert stages_s(ctx, "flush_ns") == {"first": 2, "second": 4, "third": 6}
    assert stages_s(ctx, "outside_ns") == {"ask": 600}
    line, _ = ctx.lanes
    assert spent_s(line)["closing"] == 2 + 4 + 6
    assert spent_s(line)["busy"] == 31 + 83 + 155
    for lane in ctx.lanes:
        assert_time_conserved(lane)


@pytest.mark.parametrize("fused", [False, True])
async def test_a_flush_is_charged_once_to_its_codec_and_to_the_lane_even_if_that_ends_with_it(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    class Ends:
        done = False

        def feed(self, batch: list[str], /) -> list[str]:
            self.done = True
            return batch

        def flush(self) -> list[str]:
            clock.work(5)
            return []

    clock = WorkClock()
    stage = codec_stage("ends", lambda ctx: Ends(), codec=Ends)
    pushed, alone = context(clock), context(clock)
    await chosen(Pipeline(Acting(relay)).then(stage), fused).run([["a"]], pushed)
    await Pipeline(Acting(stage.run, "ends")).run([["a"]], alone)
    for ctx in (pushed, alone):
        assert spent_s(ctx.lanes[-1])["closing"] == 5
        assert stages_s(ctx, "flush_ns") == {"ends": 5}


async def test_a_waiting_codec_is_charged_with_its_work_and_its_waits_and_with_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()

    class Asks:
        """Works for 1 s, waits for the upstream for 10 s, whose bytes arrive 4 s before they are read, and works."""

        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
            clock.work(1)
            waiting = lane.outside(Party.UPSTREAM)
            with waiting:
                await trio.sleep(10)
                waiting.arrived_ns = clock() - 4 * SECOND_NS
            clock.work(2)
            return batch

        async def flush(self, lane: Lane, /) -> list[str]:
            clock.work(3)
            with lane.outside():
                await trio.sleep(20)
            clock.work(4)
            return ["last"]

    ctx = context(clock)
    before, after = working(clock, "before", feed_s=100), working(clock, "after", feed_s=200)
    await Pipeline(before).then(codec_stage("ask", Asks)).then(after).fused().run([["a"]], ctx)
    # The batch, and what those before have flushed.
    assert stages_s(ctx, "busy_ns") == {"before": 100, "ask": 2 * 3, "after": 3 * 200}
    assert stages_s(ctx, "outside_ns") == {"ask": 2 * 6 + 20}
    assert stages_s(ctx, "flush_ns") == {"ask": 7}
    assert spent_s(ctx.lanes[0]) == {"busy": 706, "outside": 32, "ready": 8, "closing": 7}
    assert ctx.timeline.parties_ns(clock())[Party.UPSTREAM] == 12 * SECOND_NS
    assert_time_conserved(ctx.lanes[0])


@pytest.mark.parametrize("then", ["goes on", "gives up"])
async def test_a_deadline_of_a_codecs_own_does_not_confuse_the_figures(
    then: str, autojump_clock: trio.testing.MockClock
) -> None:
    clock = WorkClock()

    class Impatient:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
            clock.work(1)
            with trio.move_on_after(10), lane.outside():
                await trio.sleep(60)
            clock.work(2)
            if then == "gives up":
                raise ClientFault("too slow")
            return batch

        async def flush(self, lane: Lane, /) -> list[str]:
            return []

    ctx = context(clock)
    pipeline = Pipeline(codec_stage("wait", Impatient)).then(working(clock, "after", feed_s=4)).fused()
    if then == "gives up":
        with pytest.raises(ClientFault, match="too slow"):
            await pipeline.run([["a"]], ctx)
        assert stages_s(ctx, "busy_ns") == {"wait": 1}
        assert spent_s(ctx.lanes[0])["closing"] == 2
    else:
        assert await pipeline.run([["a"]], ctx) == ["a", "last"]
        assert stages_s(ctx, "busy_ns") == {"wait": 3, "after": 4}
    assert stages_s(ctx, "outside_ns") == {"wait": 10}
    assert_time_conserved(ctx.lanes[0])


class Trouble:
    """Works for a second at each call, and fails, waits or is done where it is told."""

    done: bool

    def __init__(self, clock: WorkClock, fails_at: str, waits_at: str) -> None:
        self.clock = clock
        self.fails_at = fails_at
        self.waits_at = waits_at
        self.done = False

    async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
        await self._work("feed", lane)
        self.done = self.fails_at == "done"
        return batch

    async def flush(self, lane: Lane, /) -> list[str]:
        await self._work("flush", lane)
        return ["last"]

    async def _work(self, call: str, lane: Lane) -> None:
        self.clock.work(1)
        if self.waits_at == call:
            with lane.outside():
                await trio.sleep(60)
        elif self.waits_at == f"{call}, undeclared":
            await trio.sleep(60)
        if self.fails_at == call:
            raise ClientFault("no")


@both_ways
@pytest.mark.parametrize("cancel_s", [2, 12, 70, 130, math.inf])
@pytest.mark.parametrize("waits_at", ["feed", "flush", "feed, undeclared", "flush, undeclared", "never"])
@pytest.mark.parametrize("fails_at", ["feed", "flush", "done", "never"])
async def test_the_stages_times_sum_to_their_tasks_however_a_line_ends(
    fails_at: str, waits_at: str, cancel_s: float, fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    clock = WorkClock(read_ns=1)
    trouble = codec_stage("trouble", lambda ctx: Trouble(clock, fails_at, waits_at), codec=Trouble)
    pipeline = (
        Pipeline(Script(11.0, "a", "b"))
        .then(working(clock, "before", open_s=1, feed_s=1, flush_s=1))
        .then(ticks_of("tick", 5))
        .then(trouble)
        .then(working(clock, "after", feed_s=1, flush_s=1, gives=False))
    )
    ctx = context(clock)
    failures: list[ClientFault] = []
    with trio.move_on_after(cancel_s) as scope:
        try:
            await chosen(pipeline, fused).run([[1]], ctx)
        except ClientFault as error:
            failures.append(error)
    assert [error.stage for error in failures] in ([], ["trouble"])
    assert bool(failures) == (fails_at in ("feed", "flush") and not scope.cancelled_caught)
    for lane in ctx.lanes:
        assert_time_conserved(lane)
    ended_ns = clock()
    assert sum(ctx.timeline.parties_ns(ended_ns)) == ended_ns - ctx.timeline.born_ns
    await no_alarm_is_left()


async def test_a_member_that_fails_is_charged_until_then(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()

    def fail(*_: object) -> list[str]:
        clock.work(5)
        raise OSError("gone")

    ctx = context(clock)
    pipeline = Pipeline(working(clock, "before", feed_s=2)).then(machine("fail", fail)).fused()
    with pytest.raises(StageBug):
        await pipeline.run([["a"]], ctx)
    assert stages_s(ctx, "busy_ns") == {"before": 2, "fail": 5}
    assert_time_conserved(ctx.lanes[0])


async def test_the_figures_of_a_running_request_are_plausible(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()
    seen: list[tuple[dict[str, float], list[int]]] = []

    async def look() -> None:
        await trio.sleep(20)
        line = ctx.lanes[1]
        assert_time_conserved(line)
        seen.append((spent_s(line), [stage.busy_ns // SECOND_NS for stage in line.stages]))

    ctx = context(clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        line = Pipeline(Script(1.0, "a", 4.0, "b", 100.0)).then(working(clock, "work", feed_s=3)).then(exclaim).fused()
        await line.run([[1]], ctx)
    # Twice three seconds of work. It waits for the third batch since then, which is charged when it comes.
    assert seen == [({"starved": 5, "busy": 6}, [6, 0])]


async def test_fused_or_not_the_stages_count_events_and_divide_time_alike(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pipeline = Pipeline(Script(2.0, "a", 3.0, "b")).then(exclaim).then(storing(1))
    found: list[list[Counts]] = []
    for chain in (pipeline, pipeline.fused()):
        ctx = context()
        assert await chain.run([[1]], ctx) == ["a!", "b!", "2 in all"]
        found.append(counts(ctx.lanes))
        for lane in ctx.lanes:
            assert_time_conserved(lane)
        assert stages_s(ctx, "outside_ns") == {"script": 5, "store": 3}
    assert found[0] == found[1]


@both_ways
async def test_a_run_can_be_cancelled_at_every_step(fused: bool, autojump_clock: trio.testing.MockClock) -> None:
    contexts: list[RequestContext] = []
    ending = codec_stage("ending", EndsAfterSilence, tick_s=7)
    pipeline = Pipeline(Script(25.0, "a", 1.0, "b", 60.0)).then(ticking()).then(storing(3)).then(ending)

    async def run() -> None:
        contexts.append(context())
        await chosen(pipeline, fused).run([[1]], contexts[-1])

    assert await assert_cancels_cleanly(run) > 6
    for ctx in contexts:
        for lane in ctx.lanes:
            assert_time_conserved(lane)
    await no_alarm_is_left()


# A codec stage inside another stage.


async def test_a_codec_stage_can_run_inside_another_stage_whose_lane_has_all_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()
    inner = working(clock, "inner", open_s=1, feed_s=2, flush_s=4)

    async def host(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        clock.work(8)
        await inner.run(inlet, outlet, ctx)
        await outlet.send(["of the host"])
        clock.work(16)

    ctx = context(clock)
    pipeline = Pipeline(Script(5.0, "a", "b")).then(Acting(host))
    assert await pipeline.run([[1]], ctx) == ["a", "b", "last", "of the host"]
    _, lane = ctx.lanes
    assert counts([lane]) == [("host", 2, 4, 2, 4)]
    assert (lane.stages[0].busy_ns, lane.stages[0].flush_ns) == (13 * SECOND_NS, 20 * SECOND_NS)
    assert_time_conserved(lane)


def test_the_protocols_are_those_of_the_codecs_here() -> None:
    codec: Codec[str, str] = TicksOf("name")
    waiting: WaitingCodec[str, str] = Store(1)
    assert codec.flush() == []
    assert isinstance(waiting, Store)
