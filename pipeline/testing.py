"""Checks that every stage must pass, for the authors of stages: ``from pipeline.testing import check_stage``.

`check_stage` runs them all, each in a trio loop of its own on a virtual clock, so a stage that sleeps for a minute is
tested in no time. The single checks are coroutines for tests that want one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import trio
import trio.testing

from pipeline import alarm
from pipeline.channel import Inlet, Outlet
from pipeline.context import RequestContext
from pipeline.graph import Pipeline
from pipeline.host import Host
from pipeline.lane import BUSY, CLOSING, OUTSIDE, Lane
from pipeline.line import CodecStage
from pipeline.registry import Plugin, opened
from pipeline.stage import Stage

In = TypeVar("In")
Out = TypeVar("Out")

NewContext = Callable[[], RequestContext]


def new_context() -> RequestContext:
    """Return the context of a request that has no notes and no deadline."""
    return RequestContext("test")


def virtual_ns() -> int:
    """Return trio's clock in ns: pass it as a context's ``clock`` in tests on virtual time."""
    return round(trio.current_time() * 1e9)


def check_stage(
    stage: Stage[In, Out],
    *events: In,
    context: NewContext = new_context,
    normalise: Callable[[list[Out]], object] = list,
    holds_all: bool = False,
) -> list[Out]:
    """Run every check of this module on ``stage`` with ``events`` as its input, and return what it gives.

    Not from inside a trio loop: it starts its own.

    Args:
        stage: the stage to check.
        events: a typical stream, end included; a dozen events find most mistakes.
        context: makes the context of one run, for a stage that reads notes.
        normalise: makes outputs comparable when they may be cut differently, for instance by joining bytes.
        holds_all: whether the stage collects its whole input by design, so that backpressure cannot be asked of it.

    Raises:
        AssertionError: if the stage breaks a rule; the message says which and how.
    """

    def on_virtual_time(check: Callable[[], Awaitable[Any]]) -> Any:
        return trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))

    async def given() -> list[Out]:
        return await collect(stage, *events, context=context)

    on_virtual_time(lambda: assert_forgets_requests(stage, *events, context=context, normalise=normalise))
    on_virtual_time(lambda: assert_blind_to_batching(stage, *events, context=context, normalise=normalise))
    on_virtual_time(lambda: assert_waits_declared(stage, *events, context=context))
    if not holds_all:
        on_virtual_time(lambda: assert_backpressure(stage, *events, context=context))
    on_virtual_time(
        lambda: assert_cancels_cleanly(lambda: collect(stage, *events, batches_of=2, context=context)),
    )
    result: list[Out] = on_virtual_time(given)
    return result


OK_RECORD = SimpleNamespace(end="OK")
"""What of a good request's record most observers need."""


# Any: the options and the stage are of the plugin's own types.
def check_plugin(
    plugin: Plugin[Any],
    options: Any = None,
    *events: Any,
    context: NewContext = new_context,
    record: object = OK_RECORD,
) -> list[Any]:
    """Open a plugin on a virtual clock, check what it makes, close it, and return what that gives.

    A stage gets ``events``: one request alone, many in turns, and one that is cancelled. An observer is told of a
    request. Not from inside a trio loop.

    Args:
        plugin: with a maker or with a lifetime.
        options: of the plugin's type; made without arguments by default.
        events: a typical stream, end included.
        context: makes the context of one request.
        record: what an observer is told at the end.

    Raises:
        AssertionError: if requests that run at the same time change each other's output, a request that was cancelled
            goes on, or the plugin does not close; the message says which.
        PluginError: if it cannot be opened.
    """
    chosen = plugin.options() if options is None else options

    async def living() -> list[Any]:
        async with opened(plugin, chosen, Host(plugin.name)) as made:
            if plugin.kind == "observer":
                made.on_start(context())
                made.on_end(record)
                given: list[Any] = []
            else:
                given = await collect(made, *events, context=context)
                await assert_separates_requests(made, *events, context=context)
                await assert_lets_go(made, *events, context=context)
            since_s = trio.current_time()
        took_s = trio.current_time() - since_s
        assert took_s <= CLOSE_LIMIT_S, f"{plugin.name} took {took_s:g} s to close: {CLOSE_LIMIT_S:g} are allowed"
        return given

    result: list[Any] = trio.run(living, clock=trio.testing.MockClock(autojump_threshold=0))
    return result


CLOSE_LIMIT_S = 10.0
"""How long a plugin may take to close."""


async def assert_separates_requests(
    stage: Stage[In, Out], *events: In, context: NewContext = new_context, requests: int = 4
) -> None:
    """Check that requests that run at the same time, event by event in turns, give what one of them gives alone."""
    alone = await collect(stage, *events, context=context)
    given: dict[int, list[Out]] = {}

    async def run(number: int) -> None:
        async def in_turns() -> AsyncIterator[list[In]]:
            for event in events:
                await trio.sleep(0.001 * number)
                yield [event]

        given[number] = await _alone(stage).run(in_turns(), context())

    async with trio.open_nursery() as nursery:
        for number in range(requests):
            nursery.start_soon(run, number)
    for number in range(requests):
        assert given[number] == alone, (
            f"{stage.name} mixes requests up: alone one gives {alone!r}, beside others {given[number]!r}"
        )


async def assert_lets_go(stage: Stage[In, Out], *events: In, context: NewContext = new_context) -> None:
    """Check that a stage ends when its request is cancelled, and does not take that for the end of its input."""

    async def endless() -> AsyncIterator[list[In]]:
        for event in events:
            yield [event]
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_alone(stage).run, endless(), context())
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught, f"{stage.name} goes on after its request was cancelled: let Cancelled through"


async def collect(
    stage: Stage[In, Out], *events: In, batches_of: int = 1, context: NewContext = new_context
) -> list[Out]:
    """Run one stage alone on ``events`` and return all that it gives, batch boundaries removed."""
    return await _alone(stage).run(_batches(events, batches_of), context())


def _alone(stage: Stage[In, Out]) -> Pipeline[In, Out]:
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
    first = normalise(await collect(stage, *events, context=context))
    again = normalise(await collect(stage, *events, context=context))
    assert again == first, f"{stage.name} remembers an earlier request: first it gave {first!r}, then {again!r}"


async def assert_blind_to_batching(
    stage: Stage[In, Out],
    *events: In,
    context: NewContext = new_context,
    normalise: Callable[[list[Out]], object] = list,
) -> None:
    """Check that how events are batched changes nothing but the speed."""
    want = normalise(await collect(stage, *events, batches_of=max(1, len(events)), context=context))
    for size in range(1, len(events)):
        got = normalise(await collect(stage, *events, batches_of=size, context=context))
        assert got == want, f"{stage.name} depends on batching: in batches of {size} {got!r}, all at once {want!r}"


async def assert_waits_declared(stage: Stage[In, Out], *events: In, context: NewContext = new_context) -> None:
    """Check that time passes for ``stage`` only where the figures see it, and that a lane's states sum to its life.

    On a virtual clock code takes no time, so any busy time is a wait that the stage did not put in
    ``with outlet.outside():``.
    """
    ctx = context()
    ctx.timeline.clock = virtual_ns
    await _alone(stage).run(_batches(events, 1), ctx)
    for main in ctx.lanes:
        assert_time_conserved(main)
        for lane in (main, *main.more):
            busy_ns = lane.spent_ns[BUSY] + lane.spent_ns[CLOSING]
            assert busy_ns == 0, (
                f"{lane.name} waited {busy_ns / 1e9:g} s without saying so: put it in `with outlet.outside():`"
            )


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

    with trio.move_on_after(60):
        await _alone(stage).then(TakeNothing()).run(endless(), context())
    assert taken <= limit, f"{stage.name} took {taken} events while nobody took its output: it buffers without bound"


async def assert_cancels_cleanly(run: Callable[[], Awaitable[object]], *, limit: int = 10_000) -> int:
    """Cancel ``run()`` at its 1st, 2nd, 3rd ... task step until it finishes first; return how many steps it has.

    Nothing but the cancellation may come out, and no task may stay behind.
    """
    for step in range(1, limit):
        before = _tasks_living()
        with trio.CancelScope() as scope:
            probe = _CancelAtStep(scope, step)
            trio.lowlevel.add_instrument(probe)
            try:
                await run()
            finally:
                trio.lowlevel.remove_instrument(probe)
        left = _tasks_living() - before
        assert left == 0, f"cancelled at step {step}, {left} tasks stayed behind"
        if not scope.cancel_called:
            return step
    raise AssertionError(f"it did not end within {limit} task steps")


def _tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living - alarm.tasks_living()  # those are nobody's in particular


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


def _batches(events: Sequence[In], size: int) -> list[list[In]]:
    return [list(events[at : at + size]) for at in range(0, len(events), size)]
