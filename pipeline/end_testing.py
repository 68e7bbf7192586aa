"""Check how a stage ends: cancelled at any step, or when another stage fails; authors import `pipeline.testing`."""

from __future__ import annotations

import copy
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import outcome
import trio
import trio.testing

from pipeline import alarm
from pipeline.channel import DownstreamGone, Inlet, Outlet, Sink
from pipeline.context import RequestContext
from pipeline.errors import UpstreamFault
from pipeline.graph import Pipeline
from pipeline.lane import Lane
from pipeline.line import CodecStage
from pipeline.outcome import Outcome
from pipeline.stage import Stage
from pipeline.stage_testing import NewContext, alone, batches_of_size, new_context, run_named

In = TypeVar("In")
Out = TypeVar("Out")

STEPS_TO_END: Final = 100
"""After its cancellation a stage may close what it holds; one that takes more turns than this goes on."""
END_LIMIT_S: Final = 10.0
"""How long it may take for that: a client that has left must not keep the resources of its request."""


async def assert_cancels_cleanly(run: Callable[[], Awaitable[object]], *, limit: int = 10_000) -> int:
    """Cancel ``run()`` at its 1st, 2nd, 3rd ... task step until it finishes first; return how many steps it has.

    Nothing but the cancellation may come out, and no task may stay behind.
    """
    return await _cancel_at_each_step(lambda probe: run(), limit)


async def _cancel_at_each_step(
    run: Callable[[_CancelAtStep], Awaitable[object]], limit: int = 10_000, *, after: bool = False, name: str = "it"
) -> int:
    """As `assert_cancels_cleanly`; ``run`` gets what cancels it, before a step or ``after`` it."""
    for step in range(1, limit):
        before = _tasks_living()
        is_overdue = False
        with trio.CancelScope() as scope:
            probe = _CancelAtStep(scope, step, after=after)
            trio.lowlevel.add_instrument(probe)
            try:
                await run(probe)
            finally:
                trio.lowlevel.remove_instrument(probe)
                is_overdue = await probe.watch.end()
        assert not is_overdue, (
            f"cancelled at step {step}, {name} had not ended {END_LIMIT_S:g} s later: "
            "shield only what closes something, with a deadline of a few seconds"
        )
        left = _tasks_living() - before
        assert left <= 0, f"cancelled at step {step}, {left} tasks stayed behind"
        if not scope.cancel_called:
            return step
    raise AssertionError(f"it did not end within {limit} task steps")


async def assert_lets_go(stage: Stage[In, Out], *events: In, context: NewContext = new_context) -> None:
    """Check that ``stage``, cancelled at any step, ends soon and with that, gives nothing more, and is closed once."""

    async def run(probe: _CancelAtStep) -> None:
        watched = _Watched(stage, probe)
        try:
            await run_named(alone(watched), _Paced(batches_of_size(2, events)), context())
        finally:
            watched.check()

    await _cancel_at_each_step(run, name=stage.name)
    await _cancel_at_each_step(run, after=True, name=stage.name)  # while it waits


async def assert_closes_once(stage: Stage[In, Out], *events: In, context: NewContext = new_context) -> None:
    """Check that the codec's ``close`` is called once if a run is completed, and once if another stage fails."""

    async def check(how: str, chain_of: Callable[[Stage[In, Out]], Pipeline[In, Out]]) -> None:
        closes: list[list[Outcome]] = []
        with suppress(UpstreamFault):
            await run_named(chain_of(counting_closes(stage, closes)), batches_of_size(1, events), context())
        check_closes(stage.name, closes, how)

    await check("its run was complete", alone)
    await check("the stage before it failed", Pipeline(_BreakOff[In]()).then)


def counting_closes(stage: Stage[In, Out], closes: list[list[Outcome]]) -> Stage[In, Out]:
    """Return the stage, with one list in ``closes`` for each codec that it opens: what its ``close`` is called with."""
    if not isinstance(stage, CodecStage) or not stage.has_close:
        return stage
    inner = stage.open

    def open(ctx: RequestContext) -> Any:
        codec = inner(ctx)
        kind: Any = codec.__class__
        closes.append(outcomes := [])

        def close(self: Any, outcome: Outcome) -> None:
            outcomes.append(outcome)
            kind.close(self, outcome)

        # Its class, and not the codec, so that a call from within is seen too, and a class may have slots.
        codec.__class__ = type(kind.__name__, (kind,), {"__slots__": (), "close": close})
        return codec

    counted = copy.copy(stage)
    counted.open = open
    return counted


def check_closes(name: str, closes: Sequence[Sequence[Outcome]], how: str) -> None:
    """Check that each codec was closed once."""
    for outcomes in closes:
        assert len(outcomes) == 1, (
            f"the codec of {name} was closed {len(outcomes)} times, not once, when {how}: "
            "the pipeline calls `close`, and nobody else does"
        )


class _Paced(Generic[In]):
    """Batches that take a moment each, and so does the end: without that there were no step to be cancelled at."""

    def __init__(self, batches: Sequence[list[In]]) -> None:
        self._batches = iter(batches)

    def __aiter__(self) -> _Paced[In]:
        return self

    async def __anext__(self) -> list[In]:
        await trio.lowlevel.checkpoint()
        for batch in self._batches:
            return batch
        raise StopAsyncIteration


class _BreakOff(Generic[In]):
    """Passes every batch on, and fails at the end."""

    name = "break_off"

    async def run(self, inlet: Inlet[In], outlet: Outlet[In], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
        raise UpstreamFault("the stage before it has failed")


class _Watched(trio.abc.Instrument, Generic[In, Out]):
    """A stage, and what it does after its cancellation has reached it. It serves one run.

    Args:
        stage: the stage.
        probe: cancels it. A Cancelled of other origin is of a deadline of the stage's own, after which it may go on.
    """

    def __init__(self, stage: Stage[In, Out], probe: _CancelAtStep) -> None:
        self.name = stage.name
        self.is_cancelled = False
        self.fault = ""
        self._closes: list[list[Outcome]] = []
        self._stage = counting_closes(stage, self._closes)
        self._probe = probe
        self._steps_left = STEPS_TO_END
        self._task: trio.lowlevel.Task | None = None
        self._is_reached = False  # whether a Cancelled that it is resumed with is the probe's

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        self._task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        try:
            await self._seen(self._stage.run(inlet, Outlet(_LateSink(self), inlet.lane), ctx))
        except DownstreamGone:
            raise
        except Exception as error:
            if self._probe.has_cancelled:
                self.note(f"raised {error!r}")
            raise
        finally:
            trio.lowlevel.remove_instrument(self)
        if self.is_cancelled:
            self.note("returned as if its output were complete")

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._is_reached = self._probe.is_delivering

    def note(self, fault: str) -> None:
        """Note what the stage does wrong; the first thing counts."""
        self.fault = self.fault or fault

    def check(self) -> None:
        """Raise what was noted."""
        assert not self.fault, (
            f"{self.name} was cancelled and {self.fault}: let trio.Cancelled pass, and catch Exception, not more"
        )
        check_closes(self.name, self._closes, "it was cancelled")

    @types.coroutine
    def _seen(self, running: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await a coroutine, looking at what the loop resumes it with."""
        with suppress(StopIteration):
            trap = running.send(None)
            while True:
                resumed = yield trap
                if self.is_cancelled:
                    self._steps_left -= 1
                elif self._is_reached and isinstance(resumed, outcome.Error):
                    self.is_cancelled = isinstance(resumed.error, trio.Cancelled)
                if not self._steps_left:
                    self.note(f"goes on, {STEPS_TO_END} steps later")
                    with suppress(RuntimeError):
                        running.close()
                    return
                trap = running.send(resumed)


class _LateSink(Sink[Any]):
    """Takes everything, and notes what comes after the cancellation."""

    __slots__ = ("_watched",)

    def __init__(self, watched: _Watched[Any, Any]) -> None:
        super().__init__([])
        self._watched = watched

    def give_nowait(self, batch: list[Any], lane: Lane, now_ns: int) -> bool:
        if self._watched.is_cancelled:
            self._watched.note("gave output after that")
        return super().give_nowait(batch, lane, now_ns)


def _tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living - alarm.tasks_living()  # those are nobody's in particular


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope, step: int, *, after: bool) -> None:
        self._scope = scope
        self._left = step
        self._after = after
        self._is_in_step = True  # that in which it is made
        self.watch = _Watch(scope)

    @property
    def has_cancelled(self) -> bool:
        """Whether the scope has been cancelled."""
        return self._scope.cancel_called

    @property
    def is_delivering(self) -> bool:
        """Whether a task that becomes runnable now, if with a Cancelled, does so because of this.

        That happens where the scope is cancelled, or at the end of the first step that wants to wait after that;
        deadlines expire between steps.
        """
        return self._scope.cancel_called and self._is_in_step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._is_in_step = True
        if not self._after:
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._after:
            self._count()
        self._is_in_step = False

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()
            self.watch.begin()


class _Watch:
    """Ends what goes on for too long after its cancellation, as in a shielded wait, which nothing else would end."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope  # what was cancelled
        self._waiting = trio.CancelScope()
        self._ended: trio.Event | None = None  # of its own task
        self._is_overdue = False

    def begin(self) -> None:
        """Begin to wait."""
        self._ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._run, self._ended)

    async def end(self) -> bool:
        """Wait no longer; return whether it took too long."""
        self._waiting.cancel()
        if self._ended is not None:
            with trio.CancelScope(shield=True):
                await self._ended.wait()
        return self._is_overdue

    async def _run(self, ended: trio.Event) -> None:
        with self._waiting:
            is_early = True
            while is_early:
                await trio.sleep(END_LIMIT_S)
                await trio.testing.wait_all_tasks_blocked()  # whose thread has just ended goes on first
                # The virtual clock does not wait for a thread.
                is_early = trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
            self._is_overdue = True
            # Trio has no public way to get at a scope of somebody else's, and the test would hang.
            statuses: list[Any] = [getattr(self._scope, "_cancel_status", None)]
            while statuses:
                if (status := statuses.pop()) is not None:  # pragma: no branch - unless trio changes
                    getattr(status, "_scope").cancel()  # noqa: B009 - not ours
                    statuses += getattr(status, "_children", ())
        ended.set()
