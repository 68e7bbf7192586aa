"""The short forms of a stage: per_event, codec_stage, fuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import (
    ClientFault,
    CodecStage,
    Doing,
    Inlet,
    Meter,
    Outlet,
    Pipeline,
    RequestContext,
    Slot,
    StageBug,
    codec_stage,
    fuse,
    per_event,
)
from pipeline.channel import open_link
from pipeline.testing import assert_time_conserved, check_stage, collect, rebatched, virtual_ns

if TYPE_CHECKING:
    from decimal import Decimal

LIMIT: Slot[int] = Slot("limit")


class Machine:
    """A codec of two functions."""

    def __init__(
        self, feed: Callable[[list[Any]], list[Any]] = lambda batch: batch, flush: Callable[[], list[Any]] = list
    ) -> None:
        self.feed = feed
        self.flush = flush


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


# per_event


async def test_a_function_of_one_event_becomes_a_stage_of_its_name() -> None:
    @per_event
    def shout(text: str) -> Iterator[str]:
        if text:
            yield text.upper()

    assert shout.name == "shout"
    assert repr(shout) == "<stage shout>"
    assert await collect(shout, "a", "", "b") == ["A", "B"]


async def test_a_function_may_return_any_iterable_for_an_event() -> None:
    @per_event
    def spread(number: int) -> Iterable[int]:
        return range(number)

    assert await collect(spread, 0, 1, 3, batches_of=3) == [0, 0, 1, 2]


def test_a_per_event_stage_passes_every_check() -> None:
    @per_event
    def double(number: int) -> Iterator[int]:
        yield 2 * number

    assert check_stage(double, 1, 2, 3) == [2, 4, 6]


def test_the_annotations_are_the_item_types() -> None:
    @per_event
    def parse(text: str | bytes) -> Iterator[int | float]:
        yield float(text)

    assert parse.accepts == str | bytes
    assert parse.emits == int | float


def test_what_is_not_annotated_is_not_checked() -> None:
    def bare(event):  # type: ignore[no-untyped-def]
        return [event]

    def vague(event: int) -> Iterable:  # type: ignore[type-arg]
        return [event]

    def half(event: Decimal) -> Iterator[int]:
        yield int(event)

    assert (per_event(bare).accepts, per_event(bare).emits) == (None, None)
    assert (per_event(vague).accepts, per_event(vague).emits) == (int, None)
    assert (per_event(half).accepts, per_event(half).emits) == (
        None,
        None,
    )  # Decimal is imported for type checkers only


async def test_a_function_that_returns_none_is_a_bug_whose_cause_says_so() -> None:
    @per_event
    def forget(number: int) -> Iterator[int]:
        return None  # type: ignore[return-value]

    with pytest.raises(StageBug) as failed:
        await collect(forget, 1)
    assert failed.value.stage == "forget"
    assert "not iterable" in str(failed.value.__cause__)


# codec_stage


async def test_every_request_has_a_codec_of_its_own() -> None:
    stage = codec_stage("sum_windows", lambda ctx: Windows(2), accepts=int, emits=int)
    assert (stage.name, stage.accepts, stage.emits) == ("sum_windows", int, int)
    assert await collect(stage, 1, 2, 3) == [3, 3]
    assert await collect(stage, 1, 2, 3) == [3, 3]


async def test_a_codec_may_read_the_context_when_it_opens() -> None:
    stage = codec_stage("sum_windows", lambda ctx: Windows(ctx[LIMIT]))
    ctx = RequestContext("r1")
    ctx[LIMIT] = 3
    assert await Pipeline(stage).run([[1, 2], [3, 4]], ctx) == [6, 4]


def test_a_codec_passes_every_check() -> None:
    assert check_stage(codec_stage("sum_windows", lambda ctx: Windows(2)), 1, 2, 3, 4, 5) == [3, 7, 5]


async def test_a_codec_is_opened_before_input_arrives() -> None:
    opened: list[str] = []

    async def source() -> AsyncIterator[list[int]]:
        await trio.testing.wait_all_tasks_blocked()
        opened.append("input")
        yield [1]

    def open(ctx: RequestContext) -> Machine:
        opened.append("codec")
        return Machine()

    await Pipeline(codec_stage("pass_on", open)).run(source(), RequestContext("r1"))
    assert opened == ["codec", "input"]


# fuse


def machines(draw: Callable[[st.SearchStrategy[Any]], Any]) -> CodecStage[int, int]:
    """Draw a codec with some memory."""
    kind = draw(st.sampled_from(["windows", "repeat", "drop", "delay", "per_event"]))
    size = draw(st.integers(1, 4))
    name = f"{kind}_{size}"
    if kind == "windows":
        return codec_stage(name, lambda ctx: Windows(size))
    if kind == "repeat":
        return codec_stage(
            name, lambda ctx: Machine(lambda batch: [n for n in batch for _ in range(size)], lambda: [7])
        )
    if kind == "drop":
        return codec_stage(name, lambda ctx: Machine(lambda batch: [n for n in batch if n % (size + 1)]))
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

    stage = per_event(spread)
    stage.name = name
    return stage


@st.composite
def chains(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[CodecStage[int, int]]:
    stages = [machines(draw) for _ in range(draw(st.integers(2, 5)))]
    for at, stage in enumerate(stages):
        stage.name = f"{stage.name}_at_{at}"
    return stages


@given(
    stages=chains(),
    events=st.lists(st.integers(0, 50), max_size=25),
    cuts=st.lists(st.integers(0, 25), max_size=8),
    capacity=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_fused_stages_return_and_count_the_same_as_separate_tasks(
    stages: list[CodecStage[int, int]], events: list[int], cuts: list[int], capacity: int
) -> None:
    separate: Pipeline[int, int] = Pipeline(stages[0])
    for stage in stages[1:]:
        separate = separate.then(stage, capacity=capacity)
    by_hand: Pipeline[int, int] = Pipeline(fuse(stages[0], stages[1], *stages[2:]))
    outcomes = []
    for pipeline in (separate, separate.fused(), by_hand):
        ctx = RequestContext("r1")
        given = trio.run(pipeline.run, rebatched(events, cuts), ctx)
        counts = [(m.name, m.batches_in, m.batches_out, m.events_in, m.events_out) for m in ctx.meters]
        outcomes.append((given, counts))
        for meter in ctx.meters:
            assert_time_conserved(meter)
    assert outcomes[1] == outcomes[0]
    assert outcomes[2] == outcomes[0]


@pytest.mark.parametrize("fused", [False, True])
async def test_members_flush_in_order_and_what_they_flush_passes_through_the_later_ones(fused: bool) -> None:
    fed: list[tuple[str, object]] = []

    def recording_codec(name: str) -> CodecStage[str, str]:
        def feed(batch: list[str]) -> list[str]:
            fed.append((name, list(batch)))
            return [item + name for item in batch]

        def flush() -> list[str]:
            fed.append((name, "flush"))
            return ["end of " + name + ":"]

        return codec_stage(name, lambda ctx: Machine(feed, flush))

    pipeline = Pipeline(recording_codec("a")).then(recording_codec("b")).then(recording_codec("c"))
    got = await (pipeline.fused() if fused else pipeline).run([["x"]], RequestContext("r1"))
    assert got == ["xabc", "end of a:bc", "end of b:c", "end of c:"]
    assert [what for name, what in fed if name == "c"] == [["xab"], ["end of a:b"], ["end of b:"], "flush"]
    if fused:
        assert fed[-3:] == [("b", "flush"), ("c", ["end of b:"]), ("c", "flush")]


async def test_a_fused_stage_has_one_meter_per_member() -> None:
    ctx = RequestContext("r1")
    doubling = codec_stage("double", lambda ctx: Machine(lambda batch: [n for n in batch for _ in (1, 2)]))
    dropping = codec_stage("drop_small", lambda ctx: Machine(lambda batch: [n for n in batch if n > 1]))
    passing = codec_stage("pass_on", lambda ctx: Machine())
    await Pipeline(fuse(doubling, dropping, passing)).run([[1], [2, 3]], ctx)
    assert [(m.name, m.fused) for m in ctx.meters] == [("double", False), ("drop_small", True), ("pass_on", True)]
    assert [(m.batches_in, m.batches_out, m.events_in, m.events_out) for m in ctx.meters] == [
        (2, 2, 3, 6),
        (2, 1, 6, 4),
        (1, 1, 4, 4),
    ]


class WorkClock:
    """Virtual time plus the working time that codecs report."""

    def __init__(self) -> None:
        self.worked_ns = 0

    def __call__(self) -> int:
        return virtual_ns() + self.worked_ns

    def working(self, name: str, *, open_s: int = 0, feed_s: int = 0, flush_s: int = 0) -> CodecStage[int, int]:
        def work(seconds: int) -> None:
            self.worked_ns += seconds * 10**9

        def feed(batch: list[int]) -> list[int]:
            work(feed_s)
            return batch

        def flush() -> list[int]:
            work(flush_s)
            return [0]

        def open(ctx: RequestContext) -> Machine:
            work(open_s)
            return Machine(feed, flush)

        return codec_stage(name, open)


async def test_the_time_of_a_fused_task_is_charged_to_the_member_at_work(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()

    async def source() -> AsyncIterator[list[int]]:
        yield [1]
        yield [2]
        yield [3]
        await trio.sleep(1000)

    class Ask:
        name = "ask"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async for batch in inlet:
                with outlet.meter.outside():
                    await trio.sleep(100)
                await outlet.send(batch)

    ctx = RequestContext("r1")
    first = clock.working("first", open_s=1, feed_s=10, flush_s=2)
    second = clock.working("second", open_s=3, feed_s=20, flush_s=4)
    third = clock.working("third", open_s=5, feed_s=30)
    await Pipeline(fuse(first, second, third)).then(Ask()).run(source(), ctx, clock=clock)
    members, ask = ctx.meters[:3], ctx.meters[3]

    def in_s(doing: Doing) -> list[float]:
        return [meter.spent_ns[doing] / 1e9 for meter in members]

    assert in_s(Doing.BUSY) == [1 + 30, 3 + 60, 5 + 90]
    # Each of three batches blocks all members alike; what the third flushes blocks the third alone.
    assert in_s(Doing.BLOCKED) == [100, 100, 200]
    assert in_s(Doing.CLOSING) == [2 + 20 + 30 + 4 + 30 + 100] * 2 + [2 + 20 + 30 + 4 + 30]
    for meter in (*members, ask):
        assert_time_conserved(meter)
    assert len({meter.lifetime_ns for meter in members}) == 1


@pytest.mark.parametrize("when", ["open", "feed", "flush", "feed of what the first flushed"])
@pytest.mark.parametrize("fused", [False, True])
async def test_the_member_that_fails_is_the_one_that_is_named(when: str, fused: bool) -> None:
    cause = ValueError("cannot go on")

    def fail(*_: object) -> list[int]:
        raise cause

    def open_failing(ctx: RequestContext) -> Machine:
        if when == "open":
            fail()
        return Machine(list, fail) if when == "flush" else Machine(fail)

    flushing = codec_stage("flushing", lambda ctx: Machine(lambda batch: [], lambda: [1]))
    passing = codec_stage("passing", lambda ctx: Machine())
    first = flushing if when == "feed of what the first flushed" else passing
    pipeline = (
        Pipeline(first).then(codec_stage("failing", open_failing)).then(codec_stage("last", lambda ctx: Machine()))
    )
    ctx = RequestContext("r1")
    with pytest.raises(StageBug) as failed:
        await (pipeline.fused() if fused else pipeline).run([[1]], ctx)
    assert failed.value.stage == "failing"
    assert failed.value.__cause__ is cause
    for meter in ctx.meters:
        assert_time_conserved(meter)


@pytest.mark.parametrize("fused", [False, True])
async def test_a_member_keeps_its_own_kind_of_failure_and_its_cause(fused: bool) -> None:
    error = ClientFault("no such model")
    cause = KeyError("gpt-9")

    def refuse(batch: list[int]) -> list[int]:
        raise error from cause

    passing = codec_stage("passing", lambda ctx: Machine())
    pipeline = Pipeline(passing).then(codec_stage("refuse", lambda ctx: Machine(refuse)))
    with pytest.raises(ClientFault) as failed:
        await (pipeline.fused() if fused else pipeline).run([[1]], RequestContext("r1"))
    assert failed.value is error
    assert failed.value.stage == "refuse"
    assert failed.value.__cause__ is cause


async def test_a_fused_stage_can_run_inside_another_stage_whose_meter_has_all_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inner = fuse(
        codec_stage("repeat", lambda ctx: Machine(lambda batch: batch * 2)),
        codec_stage("drop_all", lambda ctx: Machine(lambda batch: batch[:1])),
    )
    assert inner.name == "repeat+drop_all"
    outlet, inlet = open_link(1, Meter("source", virtual_ns), meter := Meter("wrap", virtual_ns))
    after, result = open_link(1, meter, Meter("sink", virtual_ns))
    got: list[int] = []

    async def run() -> None:
        await inner.run(inlet, after, RequestContext("r1"))
        after.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(5)
        await outlet.send([3])
        outlet.close()
        async for batch in result:
            got += batch
    meter.begin_closing()
    assert got == [3]
    assert (meter.batches_in, meter.batches_out, meter.events_in, meter.events_out) == (1, 1, 1, 1)
    assert meter.spent_ns[Doing.STARVED] == 5e9
    assert_time_conserved(meter)
