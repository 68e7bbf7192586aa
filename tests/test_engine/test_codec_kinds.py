"""Codecs that wait and codecs that tick, in tasks of their own and fused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from pipeline import (
    ClientFault,
    CodecStage,
    Doing,
    Inlet,
    Meter,
    Outlet,
    Pipeline,
    RequestContext,
    async_codec_stage,
    per_event,
    ticking_stage,
)
from pipeline.testing import assert_cancels_cleanly, assert_time_conserved, check_stage, virtual_ns


class Store:
    """Waits ``wait_s`` for each batch, and returns the number of events at the end."""

    def __init__(self, wait_s: float, meter: Meter) -> None:
        self.wait_s = wait_s
        self.meter = meter
        self.count = 0

    async def feed(self, batch: list[str], /) -> list[str]:
        with self.meter.outside():
            await trio.sleep(self.wait_s)
        self.count += len(batch)
        return batch

    async def flush(self) -> list[str]:
        with self.meter.outside():
            await trio.sleep(self.wait_s)
        return [f"{self.count} in all"]


def storing(wait_s: float = 2) -> CodecStage[str, str]:
    return async_codec_stage("store", lambda ctx, meter: Store(wait_s, meter))


class Ticks:
    def __init__(self) -> None:
        self.number = 0

    def feed(self, batch: list[str], /) -> list[str]:
        return [event for event in batch if event != "silence"]

    def flush(self) -> list[str]:
        return ["end"]

    def tick(self) -> list[str]:
        self.number += 1
        return [f"tick {self.number}"] if self.number != 2 else []


def ticking(tick_s: float = 10) -> CodecStage[str, str]:
    return ticking_stage("tick", lambda ctx: Ticks(), tick_s)


@per_event
def exclaim(event: str) -> list[str]:
    return [event + "!"]


class Script:
    """Plays its script: strings are sent at once, numbers are waits in seconds."""

    name = "script"

    def __init__(self, *script: str | float) -> None:
        self.script = script

    async def run(self, inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
        async for _ in inlet:
            for item in self.script:
                if isinstance(item, str):
                    await outlet.send([item])
                else:
                    with outlet.meter.outside():
                        await trio.sleep(item)
        await outlet.send([])


def test_an_asynchronous_codec_passes_every_check() -> None:
    assert check_stage(storing(), "a", "b", "c") == ["a", "b", "c", "3 in all"]


def test_a_ticking_codec_passes_every_check() -> None:
    assert check_stage(ticking(), "a", "b") == ["a", "b", "end"]


async def test_the_declared_waits_of_a_codec_are_outside(autojump_clock: trio.testing.MockClock) -> None:
    ctx = RequestContext("r")
    await Pipeline(exclaim).then(storing(3)).run([["a"], ["b"]], ctx, clock=virtual_ns)
    assert ctx.meters[1].spent_ns[Doing.OUTSIDE] == 9e9


@pytest.mark.parametrize("fused", [False, True])
async def test_a_tick_ends_each_silence_once_per_interval_and_output_puts_it_off(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    pipeline = Pipeline(Script(25.0, "a", 9.0, "b", 9.0, "silence", 5.0, "c")).then(ticking()).then(exclaim)
    ctx = RequestContext("r")
    given = await (pipeline.fused() if fused else pipeline).run([[1]], ctx, clock=virtual_ns)
    # The second tick, after 20 s, returned nothing; the last comes 10 s after "b".
    assert given == ["tick 1!", "a!", "b!", "tick 3!", "c!", "end!"]
    for meter in ctx.meters:
        assert_time_conserved(meter)


@pytest.mark.parametrize("fused", [False, True])
async def test_a_slow_consumer_causes_no_ticks_and_loses_nothing(
    fused: bool, autojump_clock: trio.testing.MockClock
) -> None:
    events = [str(number) for number in range(5)]
    pipeline = Pipeline(Script(*events)).then(ticking(1)).then(storing(100))
    given = await (pipeline.fused() if fused else pipeline).run([[1]], RequestContext("r"))
    assert [event for event in given if not event.startswith("tick")] == [*events, "end", f"{len(given) - 1} in all"]
    assert sum(event.startswith("tick") for event in given) <= 1


async def test_a_batch_that_arrives_during_a_tick_waits_for_it(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline(Script(11.0, "a", "b")).then(ticking()).then(storing(5))
    assert await pipeline.fused().run([[1]], RequestContext("r")) == ["tick 1", "a", "b", "end", "4 in all"]


@pytest.mark.parametrize("failing", ["script", "tick", "store", "late"])
async def test_the_stage_that_fails_is_named(failing: str, autojump_clock: trio.testing.MockClock) -> None:
    fault = ClientFault("no")

    class Fails:
        def feed(self, batch: list[str], /) -> list[str]:
            raise fault

        def flush(self) -> list[str]:
            return []

        tick = flush

    class FailsLater:
        async def feed(self, batch: list[str], /) -> list[str]:
            raise fault

        async def flush(self) -> list[str]:
            raise fault

    class FailingHead(Script):
        async def run(self, inlet: Inlet[int], outlet: Outlet[str], ctx: RequestContext) -> None:
            await outlet.send(["a"])
            raise fault

    head = FailingHead() if failing == "script" else Script("a")
    tick = ticking_stage("tick", lambda ctx: Fails(), 1) if failing == "tick" else ticking()
    store = async_codec_stage("store", lambda ctx, meter: FailsLater()) if failing == "store" else storing()
    late = async_codec_stage("late", lambda ctx, meter: FailsLater()) if failing == "late" else exclaim
    with pytest.raises(ClientFault) as failed:
        await Pipeline(head).then(tick).then(store).then(late).fused().run([[1]], RequestContext("r"))
    assert failed.value is fault
    assert fault.stage == failing


async def test_fused_or_not_the_stages_count_events_and_divide_time_alike(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pipeline = Pipeline(Script(2.0, "a", 3.0, "b")).then(exclaim).then(storing(1))
    counts: list[list[tuple[str, int, int, int, int]]] = []
    for chain in (pipeline, pipeline.fused()):
        ctx = RequestContext("r")
        assert await chain.run([[1]], ctx, clock=virtual_ns) == ["a!", "b!", "2 in all"]
        counts.append([(m.name, m.batches_in, m.batches_out, m.events_in, m.events_out) for m in ctx.meters])
        for meter in ctx.meters:
            assert_time_conserved(meter)
        head, _, store = ctx.meters
        assert head.spent_ns[Doing.OUTSIDE] == 5e9
        assert store.spent_ns[Doing.OUTSIDE] == 3e9
    assert counts[0] == counts[1]


async def test_a_run_can_be_cancelled_at_every_step(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline(Script(25.0, "a", 1.0, "b")).then(ticking()).then(storing(3)).fused()
    assert await assert_cancels_cleanly(lambda: pipeline.run([[1]], RequestContext("r"))) > 8


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


async def test_each_of_several_ticking_codecs_has_its_own_silence(autojump_clock: trio.testing.MockClock) -> None:
    fast = ticking_stage("fast", lambda ctx: TicksOf("fast"), 10)
    slow = ticking_stage("slow", lambda ctx: TicksOf("slow"), 15)
    # Output of the first ends the silence of the second; output of the second does not affect the first.
    assert await Pipeline(Script(31.0)).then(fast).then(slow).fused().run([[1]], RequestContext("r")) == ["fast"] * 3
    given = await Pipeline(Script(31.0)).then(slow).then(fast).fused().run([[1]], RequestContext("r"))
    assert given == ["fast", "slow", "fast", "slow"]


async def test_two_codecs_that_are_due_at_the_same_time_both_tick(autojump_clock: trio.testing.MockClock) -> None:
    silent = ticking_stage("silent", lambda ctx: Ticks(), 5)  # its second tick returns nothing
    other = ticking_stage("other", lambda ctx: TicksOf("other"), 5)
    given = await Pipeline(Script(11.0)).then(silent).then(other).fused().run([[1]], RequestContext("r"))
    assert given == ["tick 1", "other", "end"]


@pytest.mark.parametrize("fused", [False, True])
async def test_a_tick_that_fails_is_blamed_on_its_stage(fused: bool, autojump_clock: trio.testing.MockClock) -> None:
    class Breaks(TicksOf):
        def tick(self) -> list[str]:
            raise ClientFault("no")

    breaks = ticking_stage("breaks", lambda ctx: Breaks(""), 5)
    pipeline = Pipeline(Script(11.0)).then(exclaim).then(breaks)
    ctx = RequestContext("r")
    with pytest.raises(ClientFault) as failed:
        await (pipeline.fused() if fused else pipeline).run([[1]], ctx, clock=virtual_ns)
    assert failed.value.stage == "breaks"
    assert trio.current_time() == 5
    for meter in ctx.meters:
        assert_time_conserved(meter)


async def test_the_meters_of_a_running_request_are_plausible_and_add_up(autojump_clock: trio.testing.MockClock) -> None:
    worked_ns = 0

    def clock() -> int:
        return virtual_ns() + worked_ns

    @per_event
    def work(event: str) -> list[str]:
        nonlocal worked_ns
        worked_ns += 3 * 10**9
        return [event]

    seen: list[tuple[list[int], list[int]]] = []

    async def look() -> None:
        await trio.sleep(20)
        seen.append(([*ctx.meters[1].spent_ns], [*ctx.meters[2].spent_ns]))
        for meter in ctx.meters:
            assert_time_conserved(meter)
            meter_lifetime = meter.lifetime_ns
            assert meter_lifetime == sum(meter.spent_ns)

    ctx = RequestContext("r")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        pipeline = Pipeline(Script(1.0, "a", 4.0, "b", 100.0)).then(work).then(exclaim).fused()
        await pipeline.run([[1]], ctx, clock=clock)
    # Two times three seconds of work; the rest, from the task's first step, is waiting. The other has not worked yet.
    assert seen == [([20 * 10**9, 6 * 10**9, 0, 0, 0], [0, 0, 0, 0, 0])]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_ticking_stage_ends_with_a_source_that_fails_or_is_cancelled(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def breaking() -> AsyncIterator[list[str]]:
        yield ["a"]
        await trio.sleep(11)
        raise ClientFault("no more")

    ctx = RequestContext("r")
    if how == "fails":
        with pytest.raises(ClientFault) as failed:
            await Pipeline(ticking()).run(breaking(), ctx, clock=virtual_ns)
        assert failed.value.stage == "source"
    else:
        with trio.move_on_after(5):
            await Pipeline(ticking()).run(breaking(), ctx, clock=virtual_ns)
        assert trio.current_time() == 5
    assert_time_conserved(ctx.meters[0])


async def test_a_ticking_stage_ends_with_its_input(autojump_clock: trio.testing.MockClock) -> None:
    async def slow() -> AsyncIterator[list[str]]:
        yield ["a"]
        await trio.sleep(11)
        yield ["b"]

    assert await Pipeline(ticking()).run(slow(), RequestContext("r")) == ["a", "tick 1", "b", "end"]
