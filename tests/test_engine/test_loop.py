"""What holds the loop, on a clock that the test moves by hand."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, perf_counter_ns

import pytest
import trio
import trio.testing
from kit.engine.clocks import HandClock
from kit.time.patience import AT_ONCE_S

from pipeline import Inlet, Lane, Outlet, Party, Pipeline, RequestContext, codec_stage, per_event
from pipeline.loop import (
    GROWTH_AT_ONCE,
    GROWTH_PER_S,
    LAG_WINDOW_NS,
    LATE_NS,
    LOOP_TURN_NS,
    MAX_STALLS,
    MOST_GROWTH,
    STAGE_TURN_NS,
    Loop,
    LoopClock,
    Stall,
    current_loop,
    watch_loop,
)

MS = 1_000_000


class Watched:
    """A loop, its clock, and its stalls."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.loop = Loop()
        self.loop.clock = self.clock
        self.stalls: list[Stall] = []
        self.loop.on_stall = self.stalls.append

    def turn(self, *acts: int | Callable[[], object]) -> list[Stall]:
        """Have the loop make a turn: numbers are work, in ms. Returns the stalls of this turn."""
        self.stalls.clear()
        self.clock.advance(1_000 * MS)  # it has waited for IO
        self.loop.after_io_wait(1)
        for act in acts:
            if isinstance(act, int):
                self.clock.advance(act * MS)
            else:
                act()
        self.loop.before_io_wait(1)
        return self.stalls


# The loop alone.


def test_a_long_turn_without_a_culprit_is_a_stall_of_nobody() -> None:
    watched = Watched()
    watched.loop.streams = 4
    assert watched.turn(50) == []
    assert watched.turn(30, 21) == [Stall(None, None, 51 * MS, 4)]
    assert watched.turn(51) == [Stall(None, None, 51 * MS, 4)]
    assert watched.turn(0) == []


def test_waiting_for_io_is_not_a_turn_however_long() -> None:
    watched = Watched()
    watched.turn(1)
    watched.clock.advance(3_600_000 * MS)
    assert watched.turn(1) == []


def test_time_that_a_stage_accounts_for_is_not_reported_again() -> None:
    watched = Watched()

    def note(ms: int) -> Callable[[], None]:
        return lambda: watched.loop.note_stage_turn("decode", "r1", ms * MS)

    decoding = Stall("decode", "r1", 90 * MS, 0)
    assert watched.turn(90, note(90), 50) == [decoding]
    assert watched.turn(90, note(90), 51) == [decoding, Stall(None, None, 51 * MS, 0)]
    assert watched.turn(90, note(90), 90, note(90)) == [decoding, decoding]
    assert watched.turn(51) == [Stall(None, None, 51 * MS, 0)]  # what was accounted for before does not count


def test_the_loop_is_late_after_a_long_turn_or_a_stall_in_this_one() -> None:
    watched = Watched()
    seen: list[bool] = []
    assert not watched.loop.is_late
    watched.turn(LATE_NS // MS)
    assert not watched.loop.is_late
    watched.turn(LATE_NS // MS + 1)
    assert watched.loop.is_late
    watched.turn(lambda: seen.append(watched.loop.is_late), 1)
    assert (seen, watched.loop.is_late) == ([True], False)
    watched.turn(
        lambda: watched.loop.note_stage_turn("decode", "r1", 25 * MS),
        lambda: seen.append(watched.loop.is_late),
    )
    assert (seen, watched.loop.is_late) == ([True, True], False)


def test_only_the_newest_stalls_are_kept() -> None:
    loop = Loop()
    for number in range(MAX_STALLS + 3):
        loop.note_stage_turn("decode", f"r{number}", 21 * MS)
    assert [stall.request_id for stall in loop.stalls] == [f"r{number}" for number in range(3, MAX_STALLS + 3)]


def test_the_loop_has_turned_since_a_moment_before_its_last_wait_for_io() -> None:
    watched = Watched()
    before_ns = watched.clock()
    assert not watched.loop.has_turned_since(before_ns)
    watched.turn(1)
    assert watched.loop.has_turned_since(before_ns)
    assert not watched.loop.has_turned_since(watched.clock())


# Its lag.


def test_the_lag_is_the_mean_length_of_the_turns_of_the_last_second_by_their_time() -> None:
    watched = Watched()

    def lag_ms() -> int:
        return round(watched.loop.lag_ns / MS)

    def turns(ms: int, count: int, idle_ms: int = 0) -> None:
        for _ in range(count):
            watched.clock.advance(idle_ms * MS)
            watched.loop.after_io_wait(0)
            watched.clock.advance(ms * MS)
            watched.loop.before_io_wait(0)

    assert lag_ms() == 0
    turns(40, 100)
    assert lag_ms() == 40
    turns(120, 40)
    assert lag_ms() == 120
    turns(120, 40, idle_ms=120)
    assert lag_ms() in range(53, 70)  # for half of the time it is idle; a turn has just ended
    watched.clock.advance(LAG_WINDOW_NS)
    assert lag_ms() in range(19, 26)
    watched.clock.advance(10 * LAG_WINDOW_NS)
    assert lag_ms() == 0
    turns(1, 10_000)  # they are too short to count
    assert lag_ms() == 0


def work(watched: Watched, turn_ms: int, count: int) -> None:
    """Let so many turns of this length pass, one after the other."""
    for _ in range(count):
        watched.loop.after_io_wait(0)
        watched.clock.advance(turn_ms * MS)
        watched.loop.before_io_wait(0)


def refused(watched: Watched, *, of: int = 100) -> int:
    """Return how many of so many requests are refused."""
    return sum(watched.loop.refuses() for _ in range(of))


def test_without_a_limit_a_loop_is_never_strained() -> None:
    watched = Watched()
    work(watched, 150, 20)
    assert not watched.loop.is_strained
    assert refused(watched) == 0


def test_a_loop_is_strained_above_half_of_its_limit_until_that_has_passed() -> None:
    watched = Watched()
    watched.loop.max_lag_ns = 100 * MS
    work(watched, 45, 30)
    assert not watched.loop.is_strained
    work(watched, 55, 30)
    assert watched.loop.is_strained
    watched.clock.advance(LAG_WINDOW_NS)
    assert not watched.loop.is_strained


def come(loop: Loop, count: int) -> int:
    """Return how many of so many streams that come one after the other are let in; they stay."""
    before = loop.streams
    for _ in range(count):
        loop.streams += not loop.refuses()
    return loop.streams - before


def strained(streams: int) -> Watched:
    """Return a loop with so many streams that is strained."""
    watched = Watched()
    watched.loop.max_lag_ns = 100 * MS
    watched.loop.streams = streams
    work(watched, 70, 30)
    return watched


def test_after_one_long_turn_nobody_is_refused_unless_many_have_come() -> None:
    watched = Watched()
    watched.loop.max_lag_ns = 100 * MS
    watched.turn(480)
    assert come(watched.loop, GROWTH_AT_ONCE) == GROWTH_AT_ONCE
    assert come(watched.loop, 10) == 0


def test_while_a_loop_is_strained_its_streams_grow_slowly() -> None:
    watched = strained(1000)
    assert come(watched.loop, 300) == GROWTH_AT_ONCE
    work(watched, 100, 10)  # a second
    assert come(watched.loop, 300) == pytest.approx(1100 * GROWTH_PER_S, abs=1)
    watched.loop.streams -= 20
    assert come(watched.loop, 300) == 20
    work(watched, 20, 100)
    assert come(watched.loop, 1000) == 1000  # it is not strained any more


def test_a_long_strain_does_not_save_up_room_for_any_burst() -> None:
    watched = strained(500)
    for _ in range(60):
        watched.loop.refuses()
        work(watched, 70, 15)  # a second
    most = GROWTH_AT_ONCE + MOST_GROWTH * 500
    assert come(watched.loop, 1000) == most - 500


def test_a_later_strain_begins_anew_even_if_nobody_has_asked_between() -> None:
    watched = strained(5)
    assert come(watched.loop, 1) == 1
    watched.clock.advance(4 * LAG_WINDOW_NS)
    watched.loop.streams = 400  # they came while nobody needed to ask
    watched.turn(480)
    assert come(watched.loop, 300) == GROWTH_AT_ONCE


@pytest.mark.parametrize(("turn_ms", "share"), [(90, 0), (110, 0.2), (125, 0.5), (140, 0.8), (190, 1)])
def test_the_share_of_refused_requests_grows_with_the_lag(turn_ms: int, share: float) -> None:
    watched = Watched()
    watched.loop.max_lag_ns = 100 * MS
    work(watched, turn_ms, 100)
    assert refused(watched) == pytest.approx(100 * share, abs=1)


def test_a_loop_is_held_in_a_long_turn_and_after_one() -> None:
    watched = Watched()
    loop = watched.loop
    assert not loop.is_held(watched.clock())  # nobody watches
    loop.after_io_wait(0)
    assert not loop.is_held(watched.clock() + LATE_NS)
    assert loop.is_held(watched.clock() + LATE_NS + 1)
    watched.clock.advance(LATE_NS + 1)
    loop.before_io_wait(0)
    loop.after_io_wait(0)
    assert loop.is_held(watched.clock())


# In trio.


class Worker:
    """Stages that work, which takes time on the test's clock only."""

    def __init__(self) -> None:
        self.clock = HandClock()

    def work(self, ms: int) -> None:
        self.clock.advance(ms * MS)

    def context(self, request_id: str = "r1") -> RequestContext:
        return RequestContext(request_id, clock=self.clock)


async def test_a_stage_that_holds_the_loop_is_named_with_its_request() -> None:
    worker = Worker()

    class Crunch:
        name = "crunch"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async for batch in inlet:
                for ms in batch:
                    worker.work(ms)
                await outlet.send(batch)

    @per_event
    def calculate(ms: int) -> list[int]:
        worker.work(ms)
        return [ms]

    stalls: list[Stall] = []
    with watch_loop(stalls.append, worker.clock) as loop:
        assert loop is current_loop()
        await Pipeline(Crunch()).run([[10, 10], [11, 10]], worker.context("r1"))
        await Pipeline(calculate).run([[20], [30]], worker.context("r2"))
        assert list(loop.stalls) == stalls
    assert stalls == [Stall("crunch", "r1", 21 * MS, 1), Stall("calculate", "r2", 30 * MS, 1)]


async def test_many_small_turns_that_hold_the_loop_together_are_a_stall_of_nobody() -> None:
    worker = Worker()

    @per_event
    def calculate(ms: int) -> list[int]:
        worker.work(ms)
        return [ms]

    stalls: list[Stall] = []
    with watch_loop(stalls.append, worker.clock):
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(Pipeline(calculate).run, [[10]], worker.context(f"r{number}"))
        await trio.testing.wait_all_tasks_blocked()
    assert stalls == [Stall(None, None, 60 * MS, stalls[0].streams)]
    assert sum(stall.ns for stall in current_loop().stalls) == 60 * MS


async def test_a_stall_says_how_many_streams_waited() -> None:
    worker = Worker()

    class Silent:
        name = "silent"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            with outlet.outside():
                await trio.sleep_forever()

    @per_event
    def calculate(ms: int) -> list[int]:
        worker.work(ms)
        return [ms]

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(Pipeline(Silent()).run, [[1]], worker.context())
        await trio.testing.wait_all_tasks_blocked()
        assert current_loop().streams == 3
        await Pipeline(calculate).run([[70]], worker.context("r7"))
        nursery.cancel_scope.cancel()
    assert current_loop().streams == 0
    assert list(current_loop().stalls) == [Stall("calculate", "r7", 70 * MS, 4)]  # noted although nobody watched


async def test_work_during_which_the_loop_turned_is_not_a_stall() -> None:
    worker = Worker()

    class WaitQuietly:
        """Waits without saying so: its work is not what takes the time."""

        name = "wait_quietly"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async for batch in inlet:
                worker.work(15)
                await trio.testing.wait_all_tasks_blocked()
                worker.work(15)
                await outlet.send(batch)

    stalls: list[Stall] = []
    with watch_loop(stalls.append, worker.clock):
        await Pipeline(WaitQuietly()).run([[1]], worker.context())
    assert stalls == []


async def test_every_kind_of_work_of_a_codec_is_seen() -> None:
    worker = Worker()

    class Slow:
        def __init__(self, ctx: RequestContext) -> None:
            worker.work(21)

        def feed(self, batch: list[int], /) -> list[int]:
            worker.work(22)
            return batch

        def flush(self) -> list[int]:
            worker.work(23)
            return []

    class Fails:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        def feed(self, batch: list[int], /) -> list[int]:
            worker.work(24)
            raise OSError("gone")

        def flush(self) -> list[int]:
            return []

    class Waits:
        """Works before, between and after its waits."""

        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        async def feed(self, batch: list[int], lane: Lane, /) -> list[int]:
            for ms in (31, 1, 32):
                worker.work(ms)
                with lane.outside(Party.CLIENT):
                    await trio.testing.wait_all_tasks_blocked()
            worker.work(33)
            return batch

        async def flush(self, lane: Lane, /) -> list[int]:
            worker.work(34)
            with lane.outside():
                await trio.testing.wait_all_tasks_blocked()
            worker.work(35)
            return []

    slow, waits, fails = (codec_stage(kind.__name__, kind) for kind in (Slow, Waits, Fails))
    stalls: list[Stall] = []
    with watch_loop(stalls.append, worker.clock):
        await Pipeline(slow).then(waits).fused().run([[1]], worker.context())
        with pytest.raises(Exception, match="inside the gateway"):
            await Pipeline(fails).run([[1]], worker.context())
    found = [(stall.stage, stall.ns // MS) for stall in stalls]
    assert found == [
        *(("Slow", ms) for ms in (21, 22)),
        *(("Waits", ms) for ms in (31, 32, 33)),
        ("Slow", 23),
        *(("Waits", ms) for ms in (34, 35)),
        ("Fails", 24),
    ]


async def test_a_codec_stage_inside_another_stage_is_reported_once_and_its_host_after_it() -> None:
    worker = Worker()

    @per_event
    def calculate(ms: int) -> list[int]:
        worker.work(ms)
        return [ms]

    class Host:
        name = "host"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            await calculate.run(inlet, outlet, ctx)
            worker.work(40)

    stalls: list[Stall] = []
    with watch_loop(stalls.append, worker.clock):
        assert await Pipeline(Host()).run([[30]], worker.context()) == [30]
    assert [(stall.stage, stall.ns // MS) for stall in stalls] == [("host", 30), ("host", 40)]


async def test_watching_ends_with_its_block_and_may_begin_again() -> None:
    clock = HandClock()
    stalls: list[Stall] = []
    for _ in range(2):
        with watch_loop(stalls.append, clock) as loop:
            await trio.testing.wait_all_tasks_blocked()
            loop.note_stage_turn("decode", "r1", STAGE_TURN_NS + 1)
        assert (loop.on_stall, loop.is_late, loop.clock) == (None, False, perf_counter_ns)
        clock.advance(10 * LOOP_TURN_NS)
        await trio.testing.wait_all_tasks_blocked()
    assert [stall.stage for stall in stalls] == ["decode", "decode"]  # what passed unwatched is nobody's stall
    loop.note_stage_turn("decode", "r1", STAGE_TURN_NS + 1)
    assert len(stalls) == 2


async def test_watching_ends_with_its_block_even_if_it_fails() -> None:
    loop = current_loop()

    def fail() -> None:
        with watch_loop(list[Stall]().append):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert loop.on_stall is None
    with watch_loop(list[Stall]().append) as again:  # trio lets go of the same instrument only once
        assert again is loop


def test_each_trio_run_has_a_loop_of_its_own() -> None:
    async def loops() -> tuple[Loop, Loop]:
        return current_loop(), current_loop()

    first, second = trio.run(loops), trio.run(loops)
    assert first[0] is first[1]
    assert first[0] is not second[0]


@pytest.mark.parametrize("makes_clock", [LoopClock, lambda: None])
def test_turns_are_the_same_whether_a_clock_or_hooks_tell_them(makes_clock: Callable[[], LoopClock | None]) -> None:
    worker = Worker()
    stalls: list[Stall] = []

    async def work(*turns_ms: int) -> None:
        for ms in turns_ms:
            worker.work(ms)
            await trio.lowlevel.checkpoint()  # the loop looks for IO, but does not wait

    async def scenario() -> None:
        work_unwatched = worker.work
        work_unwatched(90)
        with watch_loop(stalls.append, worker.clock):
            await work(0, 40, 20, 51)
            async with trio.open_nursery() as nursery:  # two tasks in one turn
                nursery.start_soon(work, 30)
                nursery.start_soon(work, 31)
            await trio.sleep(0.001)
            trio.current_time()  # asked by a task, which begins no turn
            worker.work(60)
            trio.current_time()
            await trio.sleep(0.001)
        work_unwatched(90)
        await trio.sleep(0)

    trio.run(scenario, clock=makes_clock())
    assert [stall.ns // MS for stall in stalls] == [51, 61, 60]


def test_the_clock_of_the_loop_keeps_time() -> None:
    async def sleeps() -> tuple[float, bool]:
        since_s = perf_counter()
        with watch_loop(list[Stall]().append), trio.move_on_after(0.02) as scope:
            await trio.sleep_forever()
        return perf_counter() - since_s, scope.cancelled_caught

    took_s, is_woken = trio.run(sleeps, clock=LoopClock())
    assert is_woken
    assert 0.02 <= took_s < 0.02 + AT_ONCE_S
