"""Run a stage alone, and check how it takes, waits and gives; authors import it from `pipeline.testing`."""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import trio
import trio.testing

from pipeline.channel import Giver, Inlet, Outlet, Sink
from pipeline.context import RequestContext
from pipeline.errors import PipelineError, StageBug
from pipeline.graph import Pipeline
from pipeline.lane import BUSY, CLOSING, OUTSIDE, Lane
from pipeline.line import CodecStage
from pipeline.stage import Stage

In = TypeVar("In")
Out = TypeVar("Out")
Result = TypeVar("Result")

_MARK: Final = "request-of-another-client"

NewContext = Callable[[], RequestContext]


def new_context() -> RequestContext:
    """Return the context of a request that has no notes and no deadline."""
    return RequestContext("test")


def virtual_ns() -> int:
    """Return trio's clock in ns: pass it as a context's ``clock`` in tests on virtual time."""
    return round(trio.current_time() * 1e9)


def on_virtual_time(check: Callable[[], Awaitable[Result]], name: str) -> Result:
    """Run a check in a trio loop of its own, whose clock jumps whenever nothing is left to do but wait.

    Args:
        check: what to run.
        name: of what is checked.

    Raises:
        AssertionError: if it confuses trio.
    """
    try:
        return trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))
    except RuntimeError as error:
        if "stack corrupted" not in str(error):
            raise
        raise AssertionError(
            f"{name} has left a nursery or a cancel scope open, or closed it in another task: use `async with`"
        ) from error


async def collect(
    stage: Stage[In, Out], *events: In, batches_of: int = 1, context: NewContext = new_context
) -> list[Out]:
    """Run one stage alone on ``events`` and return all that it gives, batch boundaries removed."""
    return await run_named(alone(stage), batches_of_size(batches_of, events), context())


async def run_named(
    chain: Pipeline[In, Out],
    source: Iterable[list[In]] | AsyncIterable[list[In]],
    ctx: RequestContext,
    giver: Giver[Out] | None = None,
) -> list[Out]:
    """Run a chain. What a stage raises undeclared is named in the text: what a client is shown does not say it.

    What comes out goes into ``giver`` if there is one, and is returned otherwise.

    Raises:
        StageBug: with the name of the stage and the cause in its text, and the cause as its cause.
        PipelineError: otherwise as `Pipeline.run` does.
    """
    results: list[Out] = []
    try:
        await chain.run_into(Sink(results) if giver is None else giver, source, ctx)
        return results
    except StageBug as bug:
        if (cause := bug.__cause__) is None:
            raise  # its author has raised it, and has said what it is
        named = StageBug(
            f"stage {bug.stage!r} raised {cause!r}, which it does not declare: "
            "raise a PipelineError that says whose fault it is, or mend it"
        )
        named.stage = bug.stage
        for note in getattr(bug, "__notes__", ()):
            named.add_note(note)
        raise named from cause


def alone(stage: Stage[In, Out]) -> Pipeline[In, Out]:
    """Return a chain of one stage, behind a relay if it ticks: it could not be woken while it waits for the source."""
    if isinstance(stage, CodecStage) and stage.tick_s is not None:
        return Pipeline(_Relay[In]()).then(stage)
    return Pipeline(stage)


class _Relay(Generic[In]):
    """Passes every batch on."""

    name = "relay"

    async def run(self, inlet: Inlet[In], outlet: Outlet[In], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)


def rebatched(events: Sequence[In], cuts: Iterable[int]) -> list[list[In]]:
    """Split ``events`` at the given indexes, which may come in any order, repeated or out of range."""
    points = sorted({min(max(cut, 0), len(events)) for cut in cuts} | {0, len(events)})
    return [list(events[start:end]) for start, end in itertools.pairwise(points)]


async def assert_forgets_requests(
    stage: Stage[In, Out],
    *events: In,
    context: NewContext = new_context,
    normalise: Callable[[list[Out]], object] = list,
) -> None:
    """Check that ``stage`` keeps nothing of one request for the next: all requests share it."""
    earlier, later = context(), context()
    earlier.request_id, later.request_id = f"{_MARK}-1", f"{_MARK}-2"
    for ctx in (earlier, later):
        given = await run_named(alone(stage), batches_of_size(1, events), ctx)
    assert f"{_MARK}-1" not in repr(given), f"{stage.name} gives the id of an earlier request to a later one: {given!r}"
    first = normalise(await collect(stage, *events, context=context))
    again = normalise(await collect(stage, *events, context=context))
    assert again == first, f"{stage.name} remembers an earlier request: first it gave {first!r}, then {again!r}"


def check_same_again(
    name: str, first: list[Out], again: list[Out], normalise: Callable[[list[Out]], object] = list
) -> None:
    """Check what a stage gives after requests that were cancelled or have failed."""
    got, want = normalise(again), normalise(first)
    assert got == want, f"{name} remembers a request that was cancelled or has failed: it gave {want!r}, now {got!r}"


async def assert_blind_to_batching(
    stage: Stage[In, Out],
    *events: In,
    context: NewContext = new_context,
    normalise: Callable[[list[Out]], object] = list,
) -> None:
    """Check that how events are batched changes nothing but the speed."""

    async def given(batches_of: int) -> list[Out]:
        return await collect(stage, *events, batches_of=batches_of, context=context)

    await assert_same_for_all_sizes(stage.name, given, len(events), normalise)


async def assert_same_for_all_sizes(
    name: str,
    given: Callable[[int], Awaitable[list[Out]]],
    most: int,
    normalise: Callable[[list[Out]], object] = list,
) -> None:
    """Check that ``given`` returns the same for batches of 1, 2, 3 ... ``most`` events."""
    want = normalise(await given(max(1, most)))
    for size in range(1, most):
        got = normalise(await given(size))
        assert got == want, f"{name} depends on batching: in batches of {size} {got!r}, all at once {want!r}"


async def assert_waits_declared(
    stage: Stage[In, Out], *events: In, context: NewContext = new_context, wait: str = "outlet.outside()"
) -> None:
    """Check that time passes for ``stage`` only where the figures see it, and that a lane's states sum to its life.

    On a virtual clock code takes no time, so any busy time is a wait that the stage did not put in
    ``with outlet.outside():``. Nor may it send there: whose time the wait was would then be wrong.
    """
    ctx = context()
    sink = _StrictSink[Out]()
    outer = _OuterWaits()
    trio.lowlevel.add_instrument(outer)
    try:
        ctx.timeline.clock = outer.clock
        await run_named(alone(stage), batches_of_size(1, events), ctx, sink)
    finally:
        trio.lowlevel.remove_instrument(outer)
    for main in ctx.lanes:
        assert_time_conserved(main)
        for lane in (main, *main.more):
            busy_ns = lane.spent_ns[BUSY] + lane.spent_ns[CLOSING]
            assert busy_ns == 0, f"{lane.name} waited {busy_ns / 1e9:g} s without saying so: put it in `with {wait}:`"
    assert not sink.is_sent_outside, f"{stage.name} sends inside `with {wait}:`: send after that block"
    sink.check_unchanged(stage.name)


class _OuterWaits(trio.abc.Instrument):
    """Sees waits that take no virtual time: those for a thread, a socket, a process.

    Attributes:
        clock: the virtual time, and the real time that has passed in them, in ns.
    """

    def __init__(self) -> None:
        self._ns = 0
        self._scheduled: set[trio.lowlevel.Task] = set()
        self._idle_since_ns = 0  # 0 while a task runs, or can
        self._idle_at = 0.0  # in virtual time

    def clock(self) -> int:
        return virtual_ns() + self._ns

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._scheduled.add(task)
        if self._idle_since_ns and trio.current_time() == self._idle_at:  # else a deadline has woken it
            self._ns += time.perf_counter_ns() - self._idle_since_ns
        self._idle_since_ns = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._scheduled.discard(task)
        self._idle_since_ns = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._scheduled:
            self._idle_since_ns, self._idle_at = time.perf_counter_ns(), trio.current_time()


class _StrictSink(Sink[Out]):
    """Takes everything, and looks at how it comes and what becomes of it."""

    __slots__ = ("_taken", "is_sent_outside")

    def __init__(self) -> None:
        super().__init__([])
        self.is_sent_outside = False
        self._taken: list[tuple[list[Out], list[Out]]] = []

    def give_nowait(self, batch: list[Out], lane: Lane, now_ns: int) -> bool:
        self.is_sent_outside |= lane.state == OUTSIDE
        self._taken.append((batch, [*batch]))
        return True

    def check_unchanged(self, name: str) -> None:
        """Check that no batch has changed since it came."""
        for batch, taken in self._taken:
            is_same = len(batch) == len(taken) and all(map(operator.is_, batch, taken))
            assert is_same, f"{name} changes a batch that it has sent, from {taken!r} to {batch!r}: send another list"


def assert_time_conserved(lane: Lane) -> None:
    """Check that a task's states sum to its lifetime, and its stages' times to the task's, to the nanosecond.

    Args:
        lane: that of the main task of its stages; those of further tasks are checked with it.
    """
    lanes = (lane, *lane.more)
    for each in lanes:
        total_ns = sum(each.spent_ns)
        assert total_ns == each.lifetime_ns, f"{each.name}: {each.spent_ns} sum to {total_ns}, not {each.lifetime_ns}"
    for what, state, times in (("busy", BUSY, "busy_ns"), ("outside", OUTSIDE, "outside_ns")):
        parts_ns = [getattr(stage, times) for stage in lane.stages]
        whole_ns = sum(each.spent_ns[state] for each in lanes)
        assert sum(parts_ns) == whole_ns, f"the stages of {lane.name} were {what} for {parts_ns}, it for {whole_ns}"


async def assert_skips_exactly(stage: Stage[In, Out], *events: In, context: NewContext = new_context) -> None:
    """Check that a codec's ``skip`` returns what it holds, and changes nothing; a stage without one passes.

    With ``on_error: skip`` it is called before each event. What is lost or comes twice is seen wherever the codec, if
    its input ended there, would have given all text that it was given, unchanged.
    """
    if not isinstance(stage, CodecStage) or not stage.has_skip or stage.is_waiting:
        return
    name = stage.name

    def fed(count: int, *, asked: bool) -> tuple[list[Out], list[Out], list[Out]]:
        """Return what it has given after as many events, what it then holds, and what it gives if that is the end."""
        codec, given = stage.open(context()), list[Out]()
        for event in events[:count]:
            if asked:
                codec.skip()
            given += codec.feed([event])
            if stage.has_done and codec.done:
                break
        held = [*codec.skip()] if asked else []
        return given, held, [*codec.flush()]

    for count in range(len(events) + 1):
        given, held, rest = fed(count, asked=True)
        want = fed(count, asked=False)
        assert [given, rest] == [want[0], want[2]], (
            f"skip of {name} changes the codec: after {count} events it gave {given!r}, and {rest!r} at the end; if "
            f"nobody calls skip, {want[0]!r} and {want[2]!r}. It is called before each event, so it must not flush"
        )
        if _gist([*given, *rest]) == _gist(events[:count]):
            assert _gist([*given, *held]) == _gist(events[:count]), (
                f"{name} holds {rest!r} after {count} events, but skip returns {held!r}: a request that goes on "
                "without it would lose or repeat output"
            )


def _gist(items: Sequence[object]) -> object:
    """Return the text of items of each type, however it is cut, and the other items as they are."""
    texts: dict[type, Any] = {}
    others: list[object] = []
    for item in items:
        text = item if isinstance(item, str | bytes) else getattr(item, "text", None)
        if isinstance(text, str | bytes):
            texts[type(item)] = texts.get(type(item), text[:0]) + text
        else:
            others.append(item)
    return texts, others


async def assert_backpressure(
    stage: Stage[In, Out], *events: In, context: NewContext = new_context, slack_batches: int = 4
) -> None:
    """Check that ``stage`` stops taking input soon after its consumer has stopped taking output.

    The events are repeated without end in front of a consumer that takes nothing. A stage that gives nothing for
    them is not bounded by its consumer and passes.
    """
    if not await collect(stage, *events, context=context):
        return
    limit = (slack_batches + 1) * max(1, len(events))
    taken = 0

    async def endless() -> AsyncIterator[list[In]]:
        nonlocal taken
        while taken <= limit:
            for event in events:
                yield [event]
                taken += 1
                await trio.lowlevel.checkpoint()

    class TakeNothing:
        name = "take_nothing"

        async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
            with outlet.outside():
                await trio.sleep_forever()

    with trio.move_on_after(60) as scope:
        try:
            await run_named(alone(stage).then(TakeNothing()), endless(), context())
        except PipelineError as error:
            if not scope.cancel_called:
                raise
            raise AssertionError(
                f"{stage.name} was cancelled and raised {error.__cause__ or error!r}: let trio.Cancelled pass, and "
                "catch Exception, not more"
            ) from error
    assert taken <= limit, f"{stage.name} took {taken} events while nobody took its output: it buffers without bound"


def batches_of_size(size: int, events: Sequence[In]) -> list[list[In]]:
    """Split ``events`` into batches of ``size``, the last of which may be smaller."""
    return [list(events[at : at + size]) for at in range(0, len(events), size)]
