"""A request traced batch by batch: the spans are what the figures are made of, and nobody else pays for them."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.clocks import HandClock, WorkClock
from kit.engine.pulls import pulled
from kit.engine.stages import Acting
from kit.engine.traces import assert_spans_sum, named_spans

from pipeline import ClientFault, Inlet, Lane, Outlet, Party, Pipeline, RequestContext, codec_stage
from pipeline.channel import Link
from pipeline.kernel_time import Clock
from pipeline.lane import BUSY, CLOSING, OUTSIDE, STARVED
from pipeline.line import CodecStage
from pipeline.loop import Loop
from pipeline.timeline import Timeline
from pipeline.tracing import MAX_SPANS, WAIT_READY, Trace, TracedLane, TracedLink


def traced(clock: Clock) -> tuple[RequestContext, Trace]:
    ctx = RequestContext("r", clock=clock)
    ctx.trace = trace = Trace()
    return ctx, trace


def lane_of(trace: Trace, clock: HandClock) -> TracedLane:
    return trace.new_lane(["work"], Timeline(clock), Loop(), "r")


class Works:
    """Works for so long on each batch and at its end, by the clock that it is told."""

    def __init__(self, clock: WorkClock, feed_s: float, flush_s: float, rest: list[str]) -> None:
        self.clock, self.feed_s, self.flush_s, self.rest = clock, feed_s, flush_s, rest

    def feed(self, batch: list[str], /) -> list[str]:
        self.clock.work(self.feed_s)
        return batch

    def flush(self) -> list[str]:
        self.clock.work(self.flush_s)
        return self.rest


def works(clock: WorkClock, name: str, feed_s: float, flush_s: float = 0, rest: list[str] | None = None) -> Any:
    return codec_stage(name, lambda ctx: Works(clock, feed_s, flush_s, rest or []), codec=Works)


async def read(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
    waiting = outlet.outside(Party.UPSTREAM)
    async for _ in inlet:
        for event in "cd":
            with waiting:
                await trio.sleep(10)
            await outlet.send([event])


class Delivers:
    """Waits for the client."""

    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    async def feed(self, batch: list[str], lane: Lane, /) -> list[str]:
        with lane.outside(Party.CLIENT):
            await trio.sleep(3)
        return batch

    async def flush(self, lane: Lane, /) -> list[str]:
        return []


deliver = codec_stage("deliver", Delivers)


async def test_each_state_and_each_turn_is_a_span_and_a_batch_has_one_number_in_all_lanes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = WorkClock()
    ctx, trace = traced(clock)
    chain = Pipeline(Acting(read)).then(works(clock, "decode", 1, 2)).then(deliver).fused()
    assert await chain.run([["a"]], ctx) == ["c", "d"]
    assert (trace.lanes, trace.stages, trace.lane_of_stage) == (
        ["read", "decode"],
        ["read", "decode", "deliver"],
        [0, 1, 1],
    )
    assert trace.links == ["read>decode"]
    # While the line waits for the client, what comes next is read; it is there when the line asks for more.
    assert named_spans(trace, ctx.timeline.born_ns) == [
        ("outside", "read", 0, 10, 0),
        ("starved", "decode", 0, 10, 0),
        ("works", "decode", 10, 1, 1),
        ("busy", "decode", 10, 1, 1),
        ("outside", "read", 10, 11, 0),
        ("outside", "decode", 11, 3, 1),
        ("starved", "decode", 14, 7, 0),
        ("works", "decode", 21, 1, 2),
        ("busy", "decode", 21, 1, 2),
        ("outside", "decode", 22, 3, 2),
        ("works", "decode", 25, 2, 2),
        ("closing", "decode", 25, 2, 2),
    ]
    assert_spans_sum(trace, ctx.lanes)
    assert trace.stage_turns() == {"decode": [1_000_000_000, 1_000_000_000, 2_000_000_000]}


async def test_a_batch_that_is_taken_late_has_waited_in_its_link(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()
    clock.work(1)
    ctx, trace = traced(clock)

    async def give(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for _ in inlet:
            await trio.sleep(1)
            await outlet.send(["handed to a taker that waits"])
            clock.work(2)  # the taker is ready meanwhile
            await trio.sleep(0)
            await outlet.send(["queued"])
            await trio.sleep(10)

    async def take(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for _ in inlet:
            with outlet.outside():
                await trio.sleep(5)

    await Pipeline(Acting(give)).then(Acting(take)).run([["a"]], ctx)
    waits = [span for span in named_spans(trace, ctx.timeline.born_ns) if span[0].startswith("waits")]
    assert waits == [("waits ready", "give>take", 1, 2, 1), ("waits queued", "give>take", 3, 5, 1)]
    [link] = ctx.links
    assert (link.ready_ns, link.queued_ns) == (2_000_000_000, 5_000_000_000)
    assert_spans_sum(trace, ctx.lanes)


async def test_what_comes_of_a_tick_has_no_number_and_waits_nowhere(autojump_clock: trio.testing.MockClock) -> None:
    class Ticks:
        def feed(self, batch: list[str], /) -> list[str]:
            return []

        def tick(self) -> list[str]:
            clock.work(1)
            return ["tick"]

        def flush(self) -> list[str]:
            return []

    clock = WorkClock()
    clock.work(1)
    ctx, trace = traced(clock)

    async def pause(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
            with outlet.outside():
                await trio.sleep(15)

    ticking = codec_stage("tick", lambda ctx: Ticks(), codec=Ticks, tick_s=10)
    assert await Pipeline(Acting(pause)).then(ticking).then(works(clock, "after", 2)).fused().run([["a"]], ctx) == [
        "tick"
    ]
    assert [span for span in named_spans(trace, ctx.timeline.born_ns) if span[0] == "works"] == [
        ("works", "tick", 10, 1, 1),
        ("works", "after", 11, 2, 0),
    ]
    assert not [span for span in trace if span[0] >= WAIT_READY]
    assert_spans_sum(trace, ctx.lanes)


def test_a_state_that_goes_on_is_one_span_unless_another_batch_has_come() -> None:
    clock, trace = HandClock(0), Trace()
    lane = lane_of(trace, clock)
    lane.switch(BUSY, 0)
    lane.switch(BUSY, 3_000)
    lane.switch(BUSY, 5_000)
    lane.origin_ns = 77
    lane.switch(STARVED, 6_000)
    lane.switch(STARVED, 6_000)
    lane.switch(BUSY, 8_000)
    assert [span for span in trace if span[0] == 1 + BUSY] == [(3, 0, 0, 5_000, 0), (3, 0, 5_000, 1_000, 77)]
    assert [span for span in trace if span[0] == 1 + STARVED] == [(1, 0, 6_000, 2_000, 0)]
    assert_spans_sum(trace, [lane])


def test_a_stage_goes_on_after_a_wait_that_its_own_deadline_has_cut_short() -> None:
    clock, trace = HandClock(0), Trace()
    lane = lane_of(trace, clock)
    lane.switch(CLOSING, clock())
    lane.switch(BUSY, clock.advance(4_000))
    lane.switch(STARVED, clock.advance(1_000))
    lane.begin_closing()
    lane.switch(CLOSING, clock.advance(2_000))
    assert [(kind, ns) for kind, _, _, ns, _ in trace if kind] == [(1 + BUSY, 5_000), (1 + CLOSING, 2_000)]
    assert_spans_sum(trace, [lane])


def test_nothing_is_noted_of_a_lane_that_is_closed() -> None:
    clock, trace = HandClock(0), Trace()
    lane = lane_of(trace, clock)
    lane.is_closed = True
    lane.switch(BUSY, 5_000)
    assert list(trace) == []


def test_a_wait_for_the_client_is_about_a_batch_and_one_for_the_upstream_about_none() -> None:
    clock, trace = HandClock(0), Trace()
    for party in (Party.CLIENT, Party.OURS, Party.UPSTREAM):
        lane = lane_of(trace, clock)
        lane.switch(BUSY, clock())
        lane.origin_ns = 5
        with lane.outside(party):
            clock.advance(10)
    assert [(index, ns, origin) for kind, index, _, ns, origin in trace if kind == 1 + OUTSIDE] == [
        (0, 10, 5),
        (1, 10, 5),
        (2, 10, 0),
    ]


async def test_the_work_of_further_tasks_is_in_lanes_of_their_own(autojump_clock: trio.testing.MockClock) -> None:
    clock = WorkClock()
    ctx, trace = traced(clock)

    async def fork(inlet: Inlet[str], outlet: Outlet[str], ctx: RequestContext) -> None:
        async def beside() -> None:
            with outlet.lane("beside") as own:
                clock.work(4)
                with own.outside():
                    await trio.sleep(1)

        async for batch in inlet:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beside)
                with outlet.outside():
                    await trio.sleep(20)
            clock.work(2)
            await outlet.send(batch)

    await Pipeline(Acting(fork)).run([["a"]], ctx)
    assert (trace.lanes, trace.stages) == (["fork", "fork.beside"], ["fork"])
    assert trace.stage_turns() == {"fork": [4_000_000_000, 2_000_000_000]}
    [lane] = ctx.lanes
    assert [type(further) for further in lane.more] == [TracedLane]
    assert_spans_sum(trace, ctx.lanes)


def test_of_too_many_spans_the_first_are_kept_and_the_others_counted() -> None:
    clock, trace = HandClock(0), Trace()
    lane = lane_of(trace, clock)
    lane.stage = None
    for _ in range(MAX_SPANS):
        lane.switch(BUSY, clock.advance(1))
        lane.switch(STARVED, clock.advance(1))
    lane.switch(STARVED, clock.advance(5))
    lane.stages[0].busy_ns += 5
    assert len(list(trace)) == MAX_SPANS
    assert trace.lost == MAX_SPANS + 2
    assert [began for _, _, began, _, _ in trace] == list(range(MAX_SPANS))


def test_what_is_not_traced_has_ordinary_lanes_and_links() -> None:
    ctx = RequestContext("r")
    [lane] = ctx.begin_lanes([["a"]], Loop())
    link: Link[Any] = ctx.begin_link("a>b", 1)
    assert (type(lane), type(lane.stages[0]).__name__, type(link)) == (Lane, "StageTimes", Link)
    assert ctx.nested().trace is None


def test_a_part_of_a_request_is_traced_with_it() -> None:
    ctx, trace = traced(HandClock())
    part = ctx.nested()
    assert part.trace is trace
    [lane] = part.begin_lanes([["a"]], Loop())
    assert (part.lanes, ctx.lanes, trace.lanes) == ([lane], [], ["a"])
    assert type(part.begin_link("a>b", 1)) is TracedLink


def test_the_lanes_of_a_trace_are_freed_without_the_collector() -> None:
    class Watched(Timeline):
        """Held by the lane alone; unlike a lane it can be watched."""

    lane = Trace().new_lane(["work"], Watched(HandClock()), Loop(), "r")
    lane.switch(BUSY, 5_000)
    held = weakref.ref(lane.timeline)
    gc.disable()
    try:
        del lane
        assert held() is None
    finally:
        gc.enable()


# --- All kinds of stages, in all kinds of runs ------------------------------------------------------------------------


class Drawn:
    """A codec that does what is drawn: works, waits, ticks, holds a batch, fails or is done at one."""

    def __init__(self, clock: WorkClock, kind: str, size: int) -> None:
        self.clock, self.kind, self.size = clock, kind, size
        self.done = False
        self.count = 0
        self.held: list[int] = []

    def take(self, batch: list[int]) -> list[int]:
        self.count += 1
        self.clock.work(self.size)
        if self.kind == "fails" and self.count > self.size:
            raise ClientFault("no")
        self.done = self.kind == "ends" and self.count > self.size
        if self.kind == "holds":
            self.held, batch = batch, self.held
        return batch * self.size if self.kind == "repeats" else batch

    def rest(self) -> list[int]:
        self.clock.work(self.size)
        return self.held


class DrawnCodec(Drawn):
    def feed(self, batch: list[int], /) -> list[int]:
        return self.take(batch)

    def flush(self) -> list[int]:
        return self.rest()


class DrawnTicking(DrawnCodec):
    def tick(self) -> list[int]:
        self.clock.work(self.size)
        return [self.size]


class DrawnWaiting(Drawn):
    may_be_pushed = True

    async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:
        given = self.take(batch)
        await lane.own_task()
        with lane.outside(Party.CLIENT):
            await trio.sleep(self.size)
        return given

    async def flush(self, lane: Lane, /) -> list[int]:
        await lane.own_task()
        with lane.outside():
            await trio.sleep(self.size)
        return self.rest()


Kind = tuple[str, int]


def stage_of(clock: WorkClock, kind: Kind, at: int) -> CodecStage[Any, Any]:
    what, size = kind
    name = f"{what}_{at}"
    if what == "waits":
        return codec_stage(name, lambda ctx: DrawnWaiting(clock, what, size), codec=DrawnWaiting)
    if what == "ticks":
        return codec_stage(name, lambda ctx: DrawnTicking(clock, what, size), codec=DrawnTicking, tick_s=3)
    return codec_stage(name, lambda ctx: DrawnCodec(clock, what, size), codec=DrawnCodec)


async def run_drawn(kinds: list[Kind], how: str, pauses_s: list[int], cancelled_after_s: int) -> None:
    clock = WorkClock(read_ns=1)
    ctx, trace = traced(clock)

    async def feed(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        waiting = outlet.outside(Party.UPSTREAM)
        async for _ in inlet:
            for number, pause_s in enumerate(pauses_s):
                with waiting:
                    await trio.sleep(pause_s)
                    waiting.arrived_ns = clock() - pause_s * 100_000_000
                clock.work(1)
                await outlet.send([number])

    chain: Pipeline[int, int] = Pipeline(Acting(feed))
    for at, kind in enumerate(kinds):
        chain = chain.then(stage_of(clock, kind, at))
    if how != "tasks":
        chain = chain.fused()
    with trio.move_on_after(cancelled_after_s):
        with suppress(ClientFault):
            await (pulled(chain, [[0]], ctx) if how == "pulled" else chain.run([[0]], ctx))
    assert_spans_sum(trace, ctx.lanes)
    assert [lane.lifetime_ns for lane in ctx.lanes] == [sum(lane.spent_ns) for lane in ctx.lanes]
    waits_ns = {10: 0, 11: 0}
    for wait, _, _, ns, _ in trace:
        if wait in waits_ns:
            waits_ns[wait] += ns
    if how != "pulled":  # else there is one more link, behind the chain
        assert waits_ns == {10: sum(link.ready_ns for link in ctx.links), 11: sum(link.queued_ns for link in ctx.links)}


@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(["works", "waits", "ticks", "holds", "repeats", "ends", "fails"]), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    ),
    how=st.sampled_from(["tasks", "fused", "pulled"]),
    pauses_s=st.lists(st.integers(0, 7), max_size=6),
    cancelled_after_s=st.integers(1, 60),
)
@settings(max_examples=150, deadline=None)
def test_the_spans_of_every_run_sum_to_its_figures(
    kinds: list[Kind], how: str, pauses_s: list[int], cancelled_after_s: int
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(run_drawn, kinds, how, pauses_s, cancelled_after_s, clock=clock)
