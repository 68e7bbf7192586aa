"""A chain in the task of who asks it for batches: the same results, without tasks, and no work before it is asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing
from kit.engine.clocks import SECOND_NS
from kit.engine.lanes import spent_s
from kit.engine.pulls import asking, pull_of, pulled
from kit.engine.stages import Acting

from pipeline import (
    ClientFault,
    DeadlineExceeded,
    Inlet,
    Outcome,
    Outlet,
    Pipeline,
    RequestContext,
    StageBug,
    UpstreamFault,
    codec_stage,
)
from pipeline.outcome import CANCELLED, COMPLETED
from pipeline.testing import assert_cancels_cleanly, assert_time_conserved, virtual_ns


class Pulled(Acting):
    """A stage that gives in its own task, outside of scopes and nurseries."""

    may_be_pulled = True


class Relay:
    """Passes each batch on after a second, and notes what it has done."""

    may_be_pulled = True
    name = "relay"

    def __init__(self, *, fails_at: int = 1000, fails_to_close: bool = False) -> None:
        self.fails_at = fails_at
        self.fails_to_close = fails_to_close
        self.log: list[str] = []

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        try:
            async for batch in inlet:
                self.log.append(f"took {batch[0]}")
                if batch[0] == self.fails_at:
                    raise UpstreamFault("it broke")
                with outlet.outside():
                    await trio.sleep(1)
                await outlet.send(batch)
        finally:
            self.log.append("answered" if outlet.is_abandoned else "closed")
            with trio.CancelScope(shield=True), outlet.outside():
                await trio.sleep(0.5)
            if self.fails_to_close:
                raise UpstreamFault("it does not close")


class Noting:
    """Passes all on, until a number is negative; notes its outcome."""

    done = False

    def __init__(self, told: list[Outcome]) -> None:
        self.told = told

    def feed(self, batch: list[int], /) -> list[int]:
        self.done = batch[-1] < 0
        if batch[0] == 99:
            raise ClientFault("no")
        return batch

    def flush(self) -> list[int]:
        return [100]

    def close(self, outcome: Outcome) -> None:
        self.told.append(outcome)


def noting(told: list[Outcome]) -> Any:
    return codec_stage("note", lambda ctx: Noting(told), codec=Noting)


def context() -> RequestContext:
    return RequestContext("r1", clock=virtual_ns)


def chain(relay: Relay, told: list[Outcome] | None = None) -> Pipeline[int, int]:
    return Pipeline(relay).then(noting([] if told is None else told))


async def test_nothing_works_before_it_is_asked_and_no_further_than_the_next_batch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    relay, ctx, tasks = Relay(), context(), trio.lowlevel.current_statistics().tasks_living
    pull = pull_of(chain(relay), [[1], [2], [3]], ctx)
    await pull.begin()
    await trio.sleep(5)
    assert relay.log == []
    assert await pull.take(asking(ctx)) == [1]
    await trio.sleep(5)
    assert relay.log == ["took 1"]
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert await pull.take(asking(ctx)) == [2]
    await pull.end(is_answered=False)
    assert relay.log == ["took 1", "took 2", "closed"]


async def test_each_stage_has_a_lane_that_adds_up(autojump_clock: trio.testing.MockClock) -> None:
    relay, ctx = Relay(), context()
    pull = pull_of(chain(relay), [[1], [2]], ctx)
    await pull.begin()
    assert [await pull.take(asking(ctx)) for _ in range(2)] == [[1], [2]]
    await trio.sleep(3)
    assert [await pull.take(asking(ctx)) for _ in range(3)] == [[100], None, None]
    await pull.end(is_answered=True)
    gives, takes = ctx.lanes
    assert spent_s(gives) == {"outside": 2.5, "blocked": 3}
    assert spent_s(takes) == {"starved": 2.5, "blocked": 3}
    for lane in ctx.lanes:
        assert_time_conserved(lane)
        assert lane.lifetime_ns == 5.5 * SECOND_NS
    assert [(stage.events_in, stage.events_out) for lane in ctx.lanes for stage in lane.stages] == [(2, 2), (2, 3)]


async def test_what_has_all_it_wants_ends_those_before_it(autojump_clock: trio.testing.MockClock) -> None:
    relay, told = Relay(), list[Outcome]()
    assert await pulled(chain(relay, told), [[1], [-2], [3]], context()) == [1, -2, 100]
    assert relay.log == ["took 1", "took -2", "answered"]
    assert told == [COMPLETED]


async def test_after_its_last_batch_it_ends_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    relay, told = Relay(), list[Outcome]()

    class Last(Noting):
        def flush(self) -> list[int]:
            return []

    pull = pull_of(
        Pipeline(relay).then(codec_stage("note", lambda ctx: Last(told), codec=Last)), [[-1], [2]], (ctx := context())
    )
    await pull.begin()
    assert await pull.take(asking(ctx)) == [-1]
    await pull.end(is_answered=True)
    assert relay.log == ["took -1", "answered"]
    assert told == [COMPLETED]


async def test_what_gives_on_after_its_last_batch_is_stopped(autojump_clock: trio.testing.MockClock) -> None:
    relay = Relay()
    pull = pull_of(chain(relay), [[1], [2], [3]], (ctx := context()))
    await pull.begin()
    assert await pull.take(asking(ctx)) == [1]
    await pull.end(is_answered=True)
    assert relay.log == ["took 1", "took 2", "closed"]


async def test_one_that_was_never_asked_does_nothing(autojump_clock: trio.testing.MockClock) -> None:
    relay, told = Relay(), list[Outcome]()
    pull = pull_of(chain(relay, told), [[1]], context())
    await pull.begin()
    await pull.end(is_answered=False)
    assert (relay.log, told) == ([], [])


async def test_one_that_is_given_up_was_cancelled_for_its_codecs(autojump_clock: trio.testing.MockClock) -> None:
    relay, told = Relay(), list[Outcome]()
    pull = pull_of(chain(relay, told), [[1], [2]], (ctx := context()))
    await pull.begin()
    await pull.take(asking(ctx))
    await pull.end(is_answered=False)
    assert told == [CANCELLED]


@pytest.mark.parametrize("at", [1, 2])
async def test_a_failure_of_a_stage_is_raised_once_and_ends_the_others(
    at: int, autojump_clock: trio.testing.MockClock
) -> None:
    relay, told = Relay(fails_at=at), list[Outcome]()
    pull = pull_of(chain(relay, told), [[1], [2]], (ctx := context()))
    await pull.begin()
    for number in range(1, at):
        assert await pull.take(asking(ctx)) == [number]
    with pytest.raises(UpstreamFault, match="it broke") as raised:
        await pull.take(asking(ctx))
    assert raised.value.stage == "relay"
    assert await pull.take(asking(ctx)) is None
    await pull.end(is_answered=True)
    [outcome] = told
    assert outcome.error is raised.value


async def test_a_failure_behind_is_the_codecs_own_and_closes_those_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    relay = Relay()
    with pytest.raises(ClientFault) as raised:
        await pulled(chain(relay), [[1], [99]], context())
    assert raised.value.stage == "note"
    assert relay.log[-1] == "closed"


async def test_what_fails_when_it_is_stopped_is_raised(autojump_clock: trio.testing.MockClock) -> None:
    pull = pull_of(chain(Relay(fails_to_close=True)), [[1], [2]], (ctx := context()))
    await pull.begin()
    await pull.take(asking(ctx))
    with pytest.raises(UpstreamFault, match="it does not close"):
        await pull.end(is_answered=False)


async def test_a_codec_that_fails_at_its_end_is_blamed(autojump_clock: trio.testing.MockClock) -> None:
    class Breaks(Noting):
        def close(self, outcome: Outcome) -> None:
            raise OSError

    broken = codec_stage("breaks", lambda ctx: Breaks([]), codec=Breaks)
    with pytest.raises(StageBug) as raised:
        await pulled(Pipeline(Relay()).then(broken), [[1]], context())
    assert raised.value.stage == "breaks"


class Silence:
    """Is done after three seconds of silence behind a 7."""

    done = False
    ticks = False
    tick_ends = True

    def feed(self, batch: list[int], /) -> list[int]:
        self.ticks = 7 in batch
        return batch

    def flush(self) -> list[int]:
        return []

    def tick(self) -> list[int]:
        self.done = True
        return [8]


silence = codec_stage("silence", lambda ctx: Silence(), codec=Silence, tick_s=3)


@pytest.mark.parametrize("pause_s", [0.0, 10.0], ids=["at once", "while nobody asks"])
async def test_a_tick_that_is_the_end_stops_what_still_waits(
    pause_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    ends: list[bool] = []

    async def gives(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            try:
                await outlet.send(batch)
                with outlet.outside():
                    await trio.sleep(100 if batch[0] == 7 else 5)
            finally:
                ends.append(outlet.is_abandoned)

    pull = pull_of(Pipeline(Pulled(gives)).then(silence), [[1], [7], [9]], (ctx := context()))
    await pull.begin()
    assert await pull.take(asking(ctx)) == [1]
    assert await pull.take(asking(ctx)) == [7]
    await trio.sleep(pause_s)
    assert await pull.take(asking(ctx)) == [8]
    assert 8 <= trio.current_time() <= 5 + pause_s + 3.5
    assert await pull.take(asking(ctx)) is None
    await pull.end(is_answered=True)
    assert ends == [False, True]


async def test_a_batch_that_comes_in_time_is_not_lost_to_a_tick(autojump_clock: trio.testing.MockClock) -> None:
    assert await pulled(Pipeline(Relay()).then(silence), [[7], [7], [1]], context()) == [7, 7, 1]


async def test_it_can_be_cancelled_at_each_of_its_steps(autojump_clock: trio.testing.MockClock) -> None:
    async def run() -> None:
        relay = Relay()
        try:
            await pulled(chain(relay), [[1], [2]], RequestContext("r1"))
        finally:
            assert relay.log == [] or relay.log[-1] in ("closed", "answered")

    assert await assert_cancels_cleanly(run) >= 5


async def own_scope(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
    async for batch in inlet:
        with trio.move_on_after(60):
            await outlet.send(batch)


def in_tasks(*more: Any) -> Pipeline[int, int]:
    """Return a chain with a stage that cannot stand still where it gives."""
    pipeline: Pipeline[int, int] = Pipeline(Acting(own_scope))
    for stage in more:
        pipeline = pipeline.then(stage)
    assert not pipeline.may_be_pulled
    return pipeline


async def test_what_cannot_stand_still_has_tasks_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Outcome] = []
    ctx = context()
    assert await pulled(in_tasks(noting(told)), [[1], [2]], ctx) == [1, 2, 100]
    assert told == [COMPLETED]
    assert [lane.name for lane in ctx.lanes] == ["own_scope", "note"]
    for lane in ctx.lanes:
        assert_time_conserved(lane)


async def test_a_chain_with_tasks_raises_its_failure_and_can_be_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(ClientFault):
        await pulled(in_tasks(noting([])), [[1], [99]], context())
    told: list[Outcome] = []
    pull = pull_of(in_tasks(noting(told)), [[1], [2], [3], [4], [5]], (ctx := context()))
    await pull.begin()
    assert await pull.take(asking(ctx)) == [1]
    await pull.end(is_answered=False)
    assert told == [CANCELLED]


async def test_what_ticks_on_has_tasks_of_its_own() -> None:
    class Ticks(Silence):
        tick_ends = False

    ticking = codec_stage("ticks", lambda ctx: Ticks(), codec=Ticks, tick_s=3)
    assert not Pipeline(Relay()).then(ticking).may_be_pulled


# A whole run in one task: `Pipeline.pulled`.


async def test_a_pulled_run_gives_the_same_in_the_same_lanes_without_tasks_or_links(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found: dict[bool, Any] = {}
    for is_pulled in (False, True):
        told: list[Outcome] = []
        relay, ctx = Relay(), context()
        pipeline = chain(relay, told).pulled() if is_pulled else chain(relay, told)
        before = trio.lowlevel.current_statistics().tasks_living
        given = await pipeline.run([[1], [2], [3]], ctx)
        lanes = [(lane.name, [stage.name for stage in lane.stages]) for lane in ctx.lanes]
        assert trio.lowlevel.current_statistics().tasks_living == before
        for lane in ctx.lanes:
            assert_time_conserved(lane)
        assert sum(ctx.timeline.parties_ns(virtual_ns())) == virtual_ns() - ctx.timeline.born_ns
        assert len(ctx.links) == (0 if is_pulled else 1)
        found[is_pulled] = given, told, lanes, relay.log
    assert found[True] == found[False]
    assert found[True][:2] == ([1, 2, 3, 100], [COMPLETED])


async def test_a_pulled_run_stops_those_before_one_that_has_all_it_wants(
    autojump_clock: trio.testing.MockClock,
) -> None:
    relay, told = Relay(), list[Outcome]()
    assert await chain(relay, told).pulled().run([[1], [-2], [3]], context()) == [1, -2, 100]
    assert (relay.log, told) == (["took 1", "took -2", "answered"], [COMPLETED])


@pytest.mark.parametrize("deadline_s", [math.inf, 60.0], ids=["no deadline", "a deadline"])
@pytest.mark.parametrize(("source", "kind"), [([[1], [7]], UpstreamFault), ([[1], [99]], ClientFault)])
async def test_a_pulled_run_raises_the_first_failure_and_closes_the_others(
    source: list[list[int]], kind: type[Exception], deadline_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    relay, told = Relay(fails_at=7), list[Outcome]()
    ctx = RequestContext("r1", deadline=trio.current_time() + deadline_s, clock=virtual_ns)
    with pytest.raises(kind) as failed:
        await chain(relay, told).pulled().run(source, ctx)
    assert relay.log[-1] == "closed"
    assert [outcome.error for outcome in told] == [failed.value]


async def test_a_pulled_run_ends_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    relay, told = Relay(), list[Outcome]()
    ctx = RequestContext("r1", deadline=trio.current_time() + 1.5, clock=virtual_ns)
    with pytest.raises(DeadlineExceeded):
        await chain(relay, told).pulled().run([[1], [2], [3]], ctx)
    assert relay.log == ["took 1", "took 2", "closed"]


async def test_a_pulled_run_can_be_cancelled_at_each_of_its_steps() -> None:
    told: list[Outcome] = []

    async def run() -> None:
        relay = Pulled(pass_each_on, "relay")
        given = await Pipeline(relay).then(noting(told)).pulled().run([[1], [2], [3]], RequestContext("r1"))
        assert given == [1, 2, 3, 100]

    assert await assert_cancels_cleanly(run) > 3
    assert told.count(COMPLETED) == 1
    assert set(told) == {COMPLETED, CANCELLED}


async def pass_each_on(inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
    async for batch in inlet:
        with outlet.outside():
            await trio.lowlevel.checkpoint()
        await outlet.send(batch)


def test_a_chain_with_what_cannot_stand_still_is_not_pulled() -> None:
    assert chain(Relay()).pulled().is_pulled
    assert not Pipeline(Acting(pass_each_on)).then(noting([])).pulled().is_pulled
    assert [task.link for task in chain(Relay()).pulled().describe()] == [None, None]
