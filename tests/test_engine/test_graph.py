"""A whole pipeline: how it is composed, how it runs, and every way in which it can end."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from time import perf_counter_ns
from typing import Any

import pytest
import trio
import trio.testing
from kit.engine.clocks import SECOND_NS, WorkClock
from kit.engine.lanes import counts, link_figures, spent_s
from kit.engine.stages import Acting, machine

from pipeline import (
    ClientFault,
    DeadlineExceeded,
    DownstreamGone,
    Inlet,
    Outlet,
    Party,
    Pipeline,
    PipelineError,
    RequestContext,
    Stage,
    StageBug,
    UpstreamFault,
    codec_stage,
    per_event,
)
from pipeline.kernel_time import Clock
from pipeline.lane import BUSY
from pipeline.loop import current_loop
from pipeline.testing import assert_cancels_cleanly, assert_time_conserved, virtual_ns


@per_event
def double(number: int) -> Iterator[int]:
    yield 2 * number


@per_event
def double_again(number: int) -> Iterator[int]:
    yield 2 * number


@per_event
def repeat(number: int) -> Iterator[int]:
    yield from (number, number)


@per_event
def drop_odd(number: int) -> Iterator[int]:
    if number % 2 == 0:
        yield number


@per_event
def explode(number: int) -> Iterator[int]:
    raise ValueError(f"cannot stand {number}")
    yield


@Acting
async def pass_on(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
    async for batch in inlet:
        await outlet.send(batch)


@Acting
async def take_one(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
    async for batch in inlet:
        await outlet.send(batch)
        return


class Recording:
    """Passes batches on and records what it saw, including the end of its input."""

    name = "record"

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            self.seen.append(batch)
            await outlet.send(batch)
        self.seen.append("end")


async def forever() -> AsyncIterator[list[int]]:
    for number in itertools.count():
        yield [number]
        await trio.lowlevel.checkpoint()


def sleeping(seconds: float) -> Acting:
    """Make a stage that passes batches on, each after an undeclared sleep."""

    async def sleep(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            await trio.sleep(seconds)
            await outlet.send(batch)

    return Acting(sleep)


def asking(seconds: float, name: str = "ask") -> Acting:
    """Make a stage that passes batches on, each after a declared wait."""

    async def ask(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside():
                await trio.sleep(seconds)
            await outlet.send(batch)

    return Acting(ask, name)


def failing(error: BaseException, *, after_s: float = 0, name: str = "fail") -> Acting:
    """Make a stage that passes batches on for a while and then raises ``error``."""

    async def fail(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on.run, inlet, outlet, ctx)
            await trio.sleep(after_s)
            nursery.cancel_scope.cancel()
        raise error

    return Acting(fail, name)


def failing_when_cancelled(error: Exception, name: str = "clean_up") -> Acting:
    """Make a stage that raises ``error`` instead of the Cancelled that reaches it."""

    async def clean_up(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            async for batch in inlet:
                await outlet.send(batch)
            await trio.sleep_forever()
        finally:
            raise error

    return Acting(clean_up, name)


def context(deadline: float = math.inf, clock: Clock = perf_counter_ns) -> RequestContext:
    return RequestContext("r1", deadline=deadline, clock=clock)


async def failure_of(pipeline: Pipeline[Any, Any], source: Any = ([1], [2]), ctx: RequestContext | None = None) -> Any:
    """Run to the failure and return it."""
    ctx = ctx or context()
    with pytest.raises(PipelineError) as failed:
        await pipeline.run(source, ctx)
    for lane in ctx.lanes:
        assert_time_conserved(lane)
    return failed.value


# How it is composed.


async def test_what_comes_out_of_the_last_stage_is_returned() -> None:
    assert await Pipeline(double).then(repeat).run([[1, 2], [3]], context()) == [2, 2, 4, 4, 6, 6]


async def test_a_source_may_be_synchronous_or_asynchronous() -> None:
    async def numbers() -> AsyncIterator[list[int]]:
        yield [1]
        yield [2]

    assert await Pipeline(double).run(numbers(), context()) == [2, 4]
    assert await Pipeline(double).run(([n] for n in (1, 2)), context()) == [2, 4]
    assert await Pipeline(double).run([], context()) == []


async def test_an_asynchronous_source_need_not_be_a_generator() -> None:
    class Numbers:
        def __init__(self) -> None:
            self.left = [[2], [1]]

        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> list[int]:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert await Pipeline(double).run(Numbers(), context()) == [2, 4]


async def test_a_pipeline_can_run_for_many_requests_at_once() -> None:
    pipeline = Pipeline(double).then(pass_on)
    results: dict[int, list[int]] = {}

    async def request(number: int) -> None:
        results[number] = await pipeline.run([[number], [number]], context())

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(request, number)
    assert results == {number: [2 * number, 2 * number] for number in range(20)}


async def tasks_of(pipeline: Pipeline[int, Any]) -> list[list[str]]:
    """Run a pipeline, and return the stages of each of its tasks."""
    ctx = context()
    await pipeline.run([[1]], ctx)
    return [[stage.name for stage in lane.stages] for lane in ctx.lanes]


async def test_then_and_fused_return_new_pipelines_and_do_not_change_the_old_ones() -> None:
    short = Pipeline(double)
    long = short.then(drop_odd)
    joined = long.fused()
    assert await tasks_of(short.then(repeat)) == [["double"], ["repeat"]]
    assert await tasks_of(joined) == [["double", "drop_odd"]]
    assert await tasks_of(long) == [["double"], ["drop_odd"]]
    assert await tasks_of(short) == [["double"]]


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^two stages of one pipeline are named 'double': give one of them another"):
        Pipeline(double).then(pass_on).then(double)


def test_a_name_that_a_joined_run_has_already_is_refused_too() -> None:
    with pytest.raises(ValueError, match="'double'"):
        Pipeline(repeat).then(double).fused().then(double)
    with pytest.raises(ValueError, match="'repeat'"):
        Pipeline(repeat).then(double).fused().then(repeat)


class Ticks:
    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []

    tick = flush


def test_a_stage_that_ticks_cannot_be_the_first() -> None:
    ticking = codec_stage("tick", Ticks, tick_s=10)
    with pytest.raises(ValueError, match=r"^stage 'tick' ticks, so it cannot be the first: .* behind another stage$"):
        Pipeline(ticking)
    Pipeline(double).then(ticking).fused()


def test_a_negative_capacity_is_refused_when_the_pipeline_is_built() -> None:
    with pytest.raises(ValueError, match=r"^the link to 'repeat' cannot hold -2 batches: give it 0 or more$"):
        Pipeline(double).then(repeat, capacity=-2)


async def test_fused_joins_neighbouring_codec_stages() -> None:
    pipeline: Pipeline[int, Any] = Pipeline(double).then(repeat, capacity=9).then(pass_on, capacity=3)
    pipeline = pipeline.then(machine("lone"), capacity=4).then(take_one, capacity=0)
    pipeline = pipeline.then(drop_odd, capacity=5).then(machine("last"))
    joined = [["double", "repeat"], ["pass_on"], ["lone"], ["take_one"], ["drop_odd", "last"]]
    assert await tasks_of(pipeline.fused()) == joined
    assert await tasks_of(pipeline) == [[name] for names in joined for name in names]


async def test_a_line_can_be_fused_with_what_follows_it() -> None:
    joined = Pipeline(pass_on).then(double).then(repeat).fused().then(drop_odd)
    assert await tasks_of(joined) == [["pass_on"], ["double", "repeat"], ["drop_odd"]]
    assert await tasks_of(joined.fused()) == [["pass_on"], ["double", "repeat", "drop_odd"]]
    assert await joined.fused().run([[1]], context()) == [2, 2]


async def test_the_links_are_named_after_the_stages_beside_them() -> None:
    ctx = context()
    await Pipeline(double).then(repeat).then(pass_on).then(drop_odd).fused().run([[1]], ctx)
    assert [link.name for link in ctx.links] == ["repeat>pass_on", "pass_on>drop_odd"]


# Where the time goes.


async def every(pause_s: float, batches: Iterable[list[int]]) -> AsyncIterator[list[int]]:
    for batch in batches:
        await trio.sleep(pause_s)
        yield batch


async def test_waiting_for_a_source_is_starved_and_a_declared_wait_is_outside(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ctx = context(clock=virtual_ns)
    await Pipeline(asking(2)).run(every(10, [[1], [2], [3]]), ctx)
    (ask,) = ctx.lanes
    assert spent_s(ask) == {"starved": 10 + 10 + 10, "outside": 6}
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 36 * SECOND_NS, 0)  # neither says whose time it is


async def test_a_slow_consumer_makes_its_producer_blocked_and_its_batches_queue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ctx = context(clock=virtual_ns)
    await Pipeline(double).then(asking(5)).run([[1], [2], [3]], ctx)
    doubling, ask = ctx.lanes
    assert spent_s(doubling) == {"blocked": 5}
    assert spent_s(ask) == {"outside": 15}
    assert link_figures(ctx.links[0]) == {"queued_s": 0 + 5 + 10, "full_s": 5, "batches": 3, "most_waiting": 2}


async def test_more_capacity_moves_the_waiting_from_the_producer_to_the_link(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ctx = context(clock=virtual_ns)
    await Pipeline(double).then(asking(5), capacity=2).run([[1], [2], [3]], ctx)
    assert spent_s(ctx.lanes[0]) == {}
    assert link_figures(ctx.links[0]) == {"queued_s": 15, "batches": 3, "most_waiting": 2}


async def test_the_time_until_a_task_has_its_first_turn_is_ready(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()

    async def work_at_once(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        clock.work(3)
        await pass_on.run(inlet, outlet, ctx)

    ctx = context(clock=clock)
    await Pipeline(pass_on).then(Acting(work_at_once)).run([[1]], ctx)
    assert spent_s(ctx.lanes[0]) == {"ready": 3}
    assert spent_s(ctx.lanes[1]) == {"busy": 3}


async def test_the_stages_own_code_is_busy_and_what_follows_the_end_of_input_is_closing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def linger(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            await trio.sleep(3)
            await outlet.send(batch)
        await trio.sleep(7)
        with outlet.outside():
            await trio.sleep(1)
        await trio.sleep(4)

    ctx = context(clock=virtual_ns)
    await Pipeline(Acting(linger)).then(pass_on).run([[1]], ctx)
    lingering, passing = ctx.lanes
    assert spent_s(lingering) == {"busy": 3, "closing": 11, "outside": 1}
    assert spent_s(passing) == {"starved": 15}


async def test_unwinding_after_a_cancellation_is_closing(autojump_clock: trio.testing.MockClock) -> None:
    async def release(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            await pass_on.run(inlet, outlet, ctx)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)

    ctx = context(clock=virtual_ns)
    with trio.move_on_after(5):
        await Pipeline(Acting(release)).run(forever_quiet(), ctx)
    assert spent_s(ctx.lanes[0]) == {"starved": 5, "closing": 2}


async def test_each_instant_is_the_clients_the_upstreams_or_ours(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()

    async def call(inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        waiting = outlet.outside(Party.UPSTREAM)
        async for _ in inlet:
            for event in ("a", "b"):
                with waiting:
                    await trio.sleep(10)
                    waiting.arrived_ns = clock() - 2 * SECOND_NS  # it waited for the loop meanwhile
                await outlet.send([event])

    @per_event
    def decode(event: str) -> list[str]:
        clock.work(1)
        return [event]

    async def write(inlet: Inlet[str], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for _ in inlet:
            with outlet.outside(Party.CLIENT):
                await trio.sleep(3)

    ctx = context(clock=clock)
    await Pipeline(Acting(call)).then(decode).then(Acting(write)).run([[1]], ctx)
    # The second wait takes 11 s, as the loop works for one of them, and overlaps with that and with 3 s for the client.
    client_s, ours_s, upstream_s = (ns / SECOND_NS for ns in ctx.timeline.parties_ns(clock()))
    assert (client_s, ours_s, upstream_s) == (3 + 3, (2 + 1) + (2 + 1), 8 + (11 - 1 - 3 - 2))


async def test_waiting_for_a_client_that_reads_slowly_is_never_the_upstreams(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def write(inlet: Inlet[int], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for _ in inlet:
            with outlet.outside(Party.CLIENT):
                await trio.sleep(5)

    async def call(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        for number in range(4):
            with outlet.outside(Party.UPSTREAM):
                await trio.sleep(1)
            await outlet.send([number])

    ctx = context(clock=virtual_ns)
    await Pipeline(Acting(call)).then(Acting(write)).run([[1]], ctx)
    assert ctx.timeline.parties_ns(virtual_ns()) == (20 * SECOND_NS, 0, SECOND_NS)


async def test_a_task_that_has_ended_is_inside_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    async def call_at_the_end(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
        with outlet.outside(Party.UPSTREAM):
            await trio.sleep(10)
        with outlet.outside():
            await trio.sleep(3)

    ctx = context(clock=virtual_ns)
    assert await Pipeline(double).then(Acting(call_at_the_end)).run([[1]], ctx) == [2]
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 3 * SECOND_NS, 10 * SECOND_NS)


@pytest.mark.parametrize("how", ["ends", "is cancelled", "fails"])
async def test_a_request_that_goes_on_after_a_run_is_ours_again(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def call(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        with outlet.outside(Party.UPSTREAM):
            await trio.sleep(10)
        if how == "fails":
            raise ClientFault("no")
        if how == "is cancelled":
            await trio.sleep_forever()

    ctx = context(clock=virtual_ns)
    with trio.move_on_after(10.0), contextlib.suppress(ClientFault):
        await Pipeline(Acting(call)).then(pass_on).then(double).run([[1]], ctx)
    await trio.sleep(5)
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 5 * SECOND_NS, 10 * SECOND_NS)
    with trio.CancelScope() as scope:
        scope.cancel()
        await Pipeline(pass_on).then(double).then(repeat).run(forever_quiet(), ctx)
    await trio.sleep(3)
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 8 * SECOND_NS, 10 * SECOND_NS)


async def test_a_stage_may_run_another_chain_for_its_request(autojump_clock: trio.testing.MockClock) -> None:
    async def call_upstream(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        with outlet.outside(Party.UPSTREAM):
            await trio.sleep(10)

    async def host(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside():
                given = await Pipeline(asking(2)).then(double).run([batch], ctx)
            await outlet.send(given)

    ctx = context(clock=virtual_ns)
    assert await Pipeline(repeat).then(Acting(host)).run([[1]], ctx) == [2, 2]
    await Pipeline(Acting(call_upstream)).run([[1]], ctx)
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 2 * SECOND_NS, 10 * SECOND_NS)
    assert [lane.name for lane in ctx.lanes] == ["repeat", "host", "ask", "double", "call_upstream"]


async def test_two_tasks_of_a_stage_have_a_lane_each(autojump_clock: trio.testing.MockClock) -> None:
    async def relay(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async def read() -> None:
            with outlet.lane("reader") as reading:
                for number in (10, 20):
                    with reading.outside(Party.UPSTREAM):
                        await trio.sleep(4)
                    await reading.send([number])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for batch in inlet:
                with outlet.outside():
                    await trio.sleep(1)
                await outlet.send(batch)
            with outlet.outside():
                await trio.sleep(9)

    ctx = context(clock=virtual_ns)
    assert await Pipeline(double).then(Acting(relay)).then(double_again).run([[1], [2]], ctx) == [4, 8, 20, 40]
    _, main, _ = ctx.lanes
    (reader,) = main.more
    assert (main.name, reader.name) == ("relay", "relay.reader")
    assert spent_s(main) == {"outside": 11}
    assert spent_s(reader) == {"outside": 8}
    assert main.stages[0].outside_ns == 19 * SECOND_NS
    assert counts([main]) == [("relay", 2, 4, 2, 4)]
    assert_time_conserved(main)
    assert ctx.timeline.parties_ns(virtual_ns()) == (0, 11 * SECOND_NS, 0)


async def forever_quiet() -> AsyncIterator[list[int]]:
    await trio.sleep_forever()
    yield []


async def breaking_off() -> AsyncIterator[list[int]]:
    yield [1]
    await trio.sleep(2)
    raise OSError("the disk is gone")


class End:
    """One way to end: the last stages of the chain, its source, and the expected failure."""

    def __init__(
        self, *stages: Stage[Any, Any], source: Callable[[], Any] = lambda: every(1, [[1], [2, 3], [4]]),
        deadline_s: float = math.inf, cancel_s: float = math.inf, expect: type[Exception] | None = None,
    ) -> None:  # fmt: skip
        self.stages = stages
        self.source = source
        self.deadline_s = deadline_s
        self.cancel_s = cancel_s
        self.expect = expect


ENDS = {
    "success": End(pass_on),
    "no input": End(pass_on, source=list),
    "a codec fails": End(explode, expect=StageBug),
    "a task fails": End(failing(OSError("gone"), after_s=2.5), expect=StageBug),
    "a stage blames the client": End(failing(ClientFault("no"), after_s=1.5), expect=ClientFault),
    "the source fails": End(pass_on, source=breaking_off, expect=StageBug),
    "a consumer returns early": End(take_one, sleeping(3)),
    "the last stage returns early": End(take_one, source=forever),
    "cancelled from outside": End(sleeping(3), cancel_s=2.5),
    "cancelled while blocked": End(asking(1000, "ask_again"), source=forever, cancel_s=2.5),
    "out of time": End(sleeping(3), deadline_s=2.5, expect=DeadlineExceeded),
    "a failure while being cancelled": End(failing_when_cancelled(OSError("gone")), cancel_s=2.5, expect=StageBug),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_time_is_conserved_however_a_run_ends(
    end: End, fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    pipeline: Pipeline[int, Any] = Pipeline(double).then(repeat).then(asking(0.5)).then(drop_odd)
    for stage in end.stages:
        pipeline = pipeline.then(stage)
    if fused:
        pipeline = pipeline.fused()
    now_s = trio.current_time()
    ctx = context(now_s + end.deadline_s, virtual_ns)
    before = trio.lowlevel.current_statistics().tasks_living
    outcome: object = None
    with trio.CancelScope(deadline=now_s + end.cancel_s) as scope:
        try:
            await pipeline.run(end.source(), ctx)
        except PipelineError as error:
            outcome = type(error)
    assert outcome is end.expect
    assert scope.cancelled_caught == (end.cancel_s < math.inf and end.expect is None)
    assert trio.lowlevel.current_statistics().tasks_living == before
    names = [stage.name for lane in ctx.lanes for stage in lane.stages]
    assert names == ["double", "repeat", "ask", "drop_odd", *(stage.name for stage in end.stages)]
    assert len(ctx.links) == len(ctx.lanes) - 1
    for lane in ctx.lanes:
        assert_time_conserved(lane)
        assert lane.born_ns == round(now_s * SECOND_NS)
    assert max(lane.lifetime_ns for lane in ctx.lanes) == virtual_ns() - round(now_s * SECOND_NS)
    assert sum(ctx.timeline.parties_ns(virtual_ns())) == virtual_ns() - ctx.timeline.born_ns
    assert current_loop().streams == 0


async def test_time_is_conserved_on_the_real_clock() -> None:
    ctx = context()
    pipeline = Pipeline(double).then(repeat).then(pass_on).then(drop_odd)
    await pipeline.run([[n] for n in range(100)], ctx)
    for lane in ctx.lanes:
        assert_time_conserved(lane)
        assert lane.spent_ns[BUSY] > 0
    *links, last = ctx.links
    for link in links:
        assert link.ready_ns + link.queued_ns > 0
    assert last.batches == 100  # what is pushed waits for nothing
    assert counts(ctx.lanes) == [
        ("double", 100, 100, 100, 100),
        ("repeat", 100, 100, 100, 200),
        ("pass_on", 100, 100, 200, 200),
        ("drop_odd", 100, 100, 200, 200),
    ]


async def test_the_figures_are_there_before_the_first_stage_starts() -> None:
    seen: list[tuple[int, int]] = []

    def look(ctx: RequestContext) -> Ticks:
        seen.append((len(ctx.lanes), current_loop().streams))
        return Ticks(ctx)

    looking = codec_stage("look", look, tick_s=60)
    await Pipeline(pass_on).then(double).then(looking).run([[1]], context())
    assert seen == [(3, 1)]


async def test_several_runs_of_one_request_add_to_its_figures() -> None:
    ctx = context()
    await Pipeline(double).then(repeat).run([[1]], ctx)
    await Pipeline(drop_odd).run([[1]], ctx)
    assert [lane.name for lane in ctx.lanes] == ["double", "repeat", "drop_odd"]
    assert [link.name for link in ctx.links] == ["double>repeat"]


# How much is in flight.


@pytest.mark.parametrize("capacity", [0, 1, 4])
async def test_the_link_to_a_stage_holds_as_many_batches_as_its_capacity(
    capacity: int, autojump_clock: trio.testing.MockClock
) -> None:
    pulled = 0

    def source() -> Iterator[list[int]]:
        nonlocal pulled
        for number in range(100):
            pulled += 1
            yield [number] * 50

    async def take_nothing(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1):
        await Pipeline(pass_on).then(Acting(take_nothing), capacity=capacity).run(source(), context())
    assert pulled == capacity + 1


async def test_the_link_into_a_joined_run_keeps_the_capacity_of_its_first_member(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pulled = 0

    def source() -> Iterator[list[int]]:
        nonlocal pulled
        for pulled in range(1, 100):
            yield [pulled]

    async def take_nothing(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await trio.sleep_forever()

    pipeline = Pipeline(pass_on).then(double, capacity=7).then(repeat, capacity=20)
    with trio.move_on_after(1):
        await pipeline.then(Acting(take_nothing), capacity=0).fused().run(source(), context())
    assert pulled == 1 + 7 + 1  # one that waits for room, those in the link, and the one in the run


# The first failure in time wins.


async def test_a_failure_keeps_its_kind_and_gets_the_name_of_its_stage() -> None:
    error = ClientFault("no model was named", code="invalid_model", param="model")
    failed = await failure_of(Pipeline(double).then(failing(error, name="choose")).then(pass_on))
    assert failed is error
    assert (failed.stage, failed.code, failed.param) == ("choose", "invalid_model", "model")
    assert not hasattr(failed, "__notes__")


async def test_anything_undeclared_becomes_a_bug_of_its_stage_with_the_cause_attached() -> None:
    failed = await failure_of(Pipeline(double).then(explode).then(pass_on))
    assert isinstance(failed, StageBug)
    assert failed.stage == "explode"
    assert repr(failed.__cause__) == "ValueError('cannot stand 2')"
    assert "cannot stand" not in str(failed)


async def test_the_first_failure_in_time_wins_and_later_ones_become_notes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    first = UpstreamFault("the model is silent")
    pipeline = (
        Pipeline(failing_when_cancelled(OSError("late"), "first_in_line"))
        .then(failing(first, after_s=1, name="second"))
        .then(failing_when_cancelled(ClientFault("later"), "third"))
    )
    failed = await failure_of(pipeline, forever_quiet())
    assert failed is first
    assert failed.stage == "second"
    assert sorted(note.split(":")[0] for note in failed.__notes__) == [
        "then first_in_line failed too",
        "then third failed too",
    ]
    assert any("ClientFault('later')" in note for note in failed.__notes__)
    assert not any("late')" in note and "OSError" in note for note in failed.__notes__)


async def test_a_failure_is_not_lost_when_the_run_is_cancelled_at_the_same_time() -> None:
    error = UpstreamFault("broke while closing")
    with trio.CancelScope() as scope:
        ctx = context()
        with pytest.raises(UpstreamFault) as failed:
            await Pipeline(double).then(failing_when_cancelled(error)).run(cancelling(scope), ctx)
    assert failed.value is error
    assert not scope.cancelled_caught
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def cancelling(scope: trio.CancelScope) -> AsyncIterator[list[int]]:
    yield [1]
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
    await trio.sleep_forever()


@pytest.mark.parametrize("capacity", [0, 1])
async def test_a_failing_stage_never_makes_the_stream_look_complete_to_the_next_one(capacity: int) -> None:
    record = Recording()
    pipeline = Pipeline(failing(OSError("gone"), after_s=0)).then(record, capacity=capacity)
    await failure_of(pipeline, forever())
    assert "end" not in record.seen


async def test_a_broken_stream_does_not_look_complete_even_to_a_shielded_consumer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    record = Recording()

    async def shield(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        with trio.move_on_after(5, shield=True):
            await record.run(inlet, outlet, ctx)

    await failure_of(Pipeline(failing(OSError("gone"), after_s=1.5)).then(Acting(shield)), every(1, [[1], [2]]))
    assert record.seen == [[1]]
    record.seen.clear()
    await failure_of(Pipeline(Acting(shield)), breaking_off())
    assert record.seen == [[1]]


async def test_a_codec_that_fails_at_its_end_does_not_complete_the_stream() -> None:
    def break_off() -> list[int]:
        raise UpstreamFault("the stream broke off")

    record = Recording()
    failed = await failure_of(Pipeline(machine("decode", flush=break_off)).then(record), [[1], [2]])
    assert failed.stage == "decode"
    assert record.seen in ([[1], [2]], [[1]], [])


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failing_source_is_named_and_does_not_complete_the_stream(asynchronous: bool) -> None:
    def broken() -> Iterator[list[int]]:
        yield [1]
        raise OSError("connection reset")

    async def broken_later() -> AsyncIterator[list[int]]:
        for batch in broken():
            yield batch

    record = Recording()
    failed = await failure_of(Pipeline(record), broken_later() if asynchronous else broken())
    assert isinstance(failed, StageBug)
    assert failed.stage == "source"
    assert isinstance(failed.__cause__, OSError)
    assert "end" not in record.seen


async def test_empty_batches_of_a_source_are_passed_over() -> None:
    assert await Pipeline(double).run([[], [1], [], []], context()) == [2]


async def test_a_source_may_raise_an_error_that_names_who_is_at_fault() -> None:
    def too_slow() -> Iterator[list[int]]:
        raise ClientFault("the body did not arrive in time", code="body_timeout")
        yield

    failed = await failure_of(Pipeline(pass_on), too_slow())
    assert (failed.stage, failed.code) == ("source", "body_timeout")


async def test_an_asynchronous_source_is_closed_when_the_run_stops_before_its_end() -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[list[int]]:
        try:
            for number in itertools.count():
                yield [number]
        finally:
            closed.append("closed")

    assert await Pipeline(take_one).run(source(), context()) == [0]
    assert closed == ["closed"]


# Stages with a nursery of their own, and the exceptions that are not failures.


def with_children(*children: Callable[[], Awaitable[None]]) -> Acting:
    """Make a stage that runs ``children`` in a nursery of its own beside its loop."""

    async def branch(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(child)
            await pass_on.run(inlet, outlet, ctx)

    return Acting(branch)


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return child


def raising_at_cancel(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    return child


async def test_a_failure_in_a_stages_own_nursery_is_raised_without_a_group() -> None:
    error = UpstreamFault("half of it is gone")
    failed = await failure_of(Pipeline(with_children(raising(error))), forever_quiet())
    assert failed is error
    assert failed.stage == "branch"


async def test_several_failures_in_a_stages_own_nursery_become_one_failure_with_notes() -> None:
    children = raising(ValueError("one")), raising_at_cancel(ClientFault("two"))
    failed = await failure_of(Pipeline(with_children(*children)), forever_quiet())
    assert isinstance(failed, StageBug)
    assert repr(failed.__cause__) == "ValueError('one')"
    assert failed.__notes__ == ["then branch failed too: ClientFault('two')"]


async def test_a_failure_mixed_with_cancellation_in_a_stages_own_nursery_is_not_lost() -> None:
    error = UpstreamFault("broke while closing")

    async def also_waiting() -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        pipeline = Pipeline(with_children(raising_at_cancel(error), also_waiting))
        with pytest.raises(UpstreamFault) as failed:
            await pipeline.run(cancelling(scope), context())
    assert failed.value is error


async def test_a_source_with_a_nursery_of_its_own_is_treated_like_a_stage() -> None:
    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> list[int]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raising_at_cancel(OSError("gone")))
                nursery.start_soon(trio.sleep_forever)
            raise AssertionError

    scope = trio.CancelScope()

    async def cancel(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.sleep_forever()

    with scope, pytest.raises(StageBug) as failed:
        await Pipeline(pass_on).then(Acting(cancel)).run(Source(), context())
    assert failed.value.stage == pass_on.name  # the source runs in the task of the stage that takes from it


async def test_a_consumer_that_left_is_a_normal_end_even_in_a_stages_own_nursery() -> None:
    async def spread(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on.run, inlet, outlet, ctx)

    assert await Pipeline(Acting(spread)).then(take_one).then(sleeping(0)).run(forever(), context()) == [0]


@pytest.mark.parametrize(
    "place", ["stage", "nursery of a stage", "nursery with a failure in it", "source", "cancelled"]
)
async def test_a_keyboard_interrupt_is_raised_unchanged(place: str) -> None:
    interrupt = KeyboardInterrupt("ctrl-c")
    stages = {
        "stage": failing(interrupt),
        "nursery of a stage": with_children(raising(interrupt)),
        "nursery with a failure in it": with_children(raising(ValueError("early")), raising_at_cancel(interrupt)),
        "cancelled": failing_when_cancelled(OSError("late")),
    }

    def source() -> Iterator[list[int]]:
        yield [1]
        if place in ("source", "cancelled"):
            raise interrupt

    ctx = context()
    with pytest.raises(KeyboardInterrupt) as stopped:
        await Pipeline(pass_on).then(stages.get(place, double)).run(source(), ctx)
    assert stopped.value is interrupt
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def test_downstream_gone_reaches_a_stage_whose_consumer_left_and_is_a_normal_end() -> None:
    noticed: list[str] = []

    async def count_on(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            for number in itertools.count():
                await outlet.send([number])
        except DownstreamGone:
            noticed.append("gone")
            raise

    async def wait_and_give(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            await trio.testing.wait_all_tasks_blocked()
            await outlet.send(batch)

    got = await Pipeline(Acting(count_on)).then(take_one).then(Acting(wait_and_give)).run([], context())
    assert got == [0]
    assert noticed == ["gone"]


async def test_a_source_whose_consumer_left_is_a_normal_end(autojump_clock: trio.testing.MockClock) -> None:
    assert await Pipeline(take_one).then(sleeping(1)).run(forever(), context()) == [0]


# Cancellation and deadlines.


async def test_a_cancellation_from_outside_is_raised_as_one_plain_cancelled() -> None:
    with trio.CancelScope() as scope:
        with pytest.raises(BaseException) as left:
            await Pipeline(double).then(pass_on).then(repeat).run(cancelling(scope), context())
        assert type(left.value) is trio.Cancelled
        raise left.value
    assert scope.cancelled_caught


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("capacity", [0, 1])
async def test_a_run_can_be_cancelled_at_every_step(fused: bool, capacity: int) -> None:
    pipeline = Pipeline(double).then(repeat, capacity=capacity).then(pass_on, capacity=capacity)
    pipeline = pipeline.then(drop_odd, capacity=capacity)
    contexts: list[RequestContext] = []

    async def run() -> None:
        contexts.append(context())
        chosen = pipeline.fused() if fused else pipeline
        assert await chosen.run([[1], [2, 3], [4]], contexts[-1]) == [2, 2, 4, 4, 6, 6, 8, 8]

    steps = await assert_cancels_cleanly(run)
    assert steps > 5
    for ctx in contexts:
        for lane in ctx.lanes:
            assert_time_conserved(lane)


async def test_a_deadline_that_passes_is_reported_as_such(autojump_clock: trio.testing.MockClock) -> None:
    ctx = context(trio.current_time() + 3)
    failed = await failure_of(Pipeline(double), forever_quiet(), ctx)
    assert isinstance(failed, DeadlineExceeded)
    assert "request_timeout_s" in str(failed)
    assert virtual_ns() == 3e9


async def test_a_deadline_that_is_long_past_stops_the_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    failed = await failure_of(Pipeline(double), forever(), context(trio.current_time() - 1))
    assert isinstance(failed, DeadlineExceeded)


async def test_a_run_that_meets_its_deadline_is_not_affected(autojump_clock: trio.testing.MockClock) -> None:
    ctx = context(trio.current_time() + 3)
    assert await Pipeline(sleeping(1)).run([[1], [2]], ctx) == [1, 2]


async def test_a_failure_before_the_deadline_wins_even_if_closing_takes_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def close_slowly(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    error = ClientFault("no")
    pipeline = Pipeline(failing(error, after_s=1)).then(Acting(close_slowly))
    assert await failure_of(pipeline, forever_quiet(), context(trio.current_time() + 3)) is error


async def test_a_deadline_that_passes_after_a_failure_is_not_reported(autojump_clock: trio.testing.MockClock) -> None:
    error = ClientFault("no")
    pipeline = Pipeline(failing(error, after_s=1)).then(failing_slowly(OSError("late"), after_s=60))
    failed = await failure_of(pipeline, forever_quiet(), context(trio.current_time() + 3))
    assert failed is error
    assert [note.partition(":")[0] for note in failed.__notes__] == ["then close_slowly failed too"]


async def test_a_deadline_that_passes_after_the_output_was_complete_is_not_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pipeline = Pipeline(failing_slowly(OSError("late"), after_s=60)).then(take_one)
    failed = await failure_of(pipeline, every(1, [[1]]), context(trio.current_time() + 3))
    assert repr(failed.__cause__) == "OSError('late')"
    assert not hasattr(failed, "__notes__")


def failing_slowly(error: Exception, *, after_s: float) -> Acting:
    """Make a stage that takes ``after_s`` to end when it is cancelled, and then fails."""

    async def close_slowly(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            await pass_on.run(inlet, outlet, ctx)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(after_s)
            raise error

    return Acting(close_slowly)


async def test_a_failure_after_the_deadline_is_a_note_of_it(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline(failing_when_cancelled(ClientFault("late")))
    failed = await failure_of(pipeline, forever_quiet(), context(trio.current_time() + 3))
    assert isinstance(failed, DeadlineExceeded)
    assert failed.__notes__ == ["then clean_up failed too: ClientFault('late')"]


async def test_output_that_was_complete_before_the_deadline_is_returned_even_if_closing_takes_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def close_slowly(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        try:
            await pass_on.run(inlet, outlet, ctx)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    ctx = context(trio.current_time() + 3)
    assert await Pipeline(Acting(close_slowly)).then(take_one).run(every(1, [[1]]), ctx) == [1]


async def test_a_failure_after_complete_output_is_still_reported(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline(failing_when_cancelled(OSError("cannot close"), "hold")).then(take_one)
    failed = await failure_of(pipeline, every(1, [[1]]))
    assert (failed.stage, repr(failed.__cause__)) == ("hold", "OSError('cannot close')")
    assert not hasattr(failed, "__notes__")


def is_ours(thing: object) -> bool:
    return isinstance(thing, trio.Cancelled) or type(thing).__module__.startswith("pipeline.")


@pytest.mark.parametrize("last", [Acting(pass_on.run, "pass_on"), repeat], ids=["a task", "a line"])
@pytest.mark.parametrize("how", ["fails", "is cancelled", "succeeds"])
async def test_a_run_leaves_no_garbage_for_the_collector(how: str, last: Any) -> None:
    async def run() -> None:
        with trio.CancelScope() as scope:
            source: Any = cancelling(scope) if how == "is cancelled" else [[1], [2]]
            with contextlib.suppress(StageBug):
                failing = explode if how == "fails" else double
                await Pipeline(Acting(pass_on.run)).then(failing).then(last).run(source, context())

    await run()
    gc.collect()
    gc.disable()
    try:
        await run()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [thing for thing in gc.garbage if is_ours(thing)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


def test_stages_that_are_not_chained_are_told_how() -> None:
    @per_event
    def same(number: int) -> list[int]:
        return [number]

    make: Any = Pipeline
    for given in ((same, same), ([same, same],), (None,)):
        with pytest.raises(TypeError, match=r"each further one: Pipeline\(a\)\.then\(b\)$"):
            make(*given)
