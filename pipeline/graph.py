"""Compose stages and run them: one nursery per request, one task per stage, first failure in time wins.

A chain that needs no stage to work ahead of the next runs in one task instead (`Pipeline.pulled`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar, cast

import trio

from pipeline.channel import DownstreamGone, Giver, Inlet, Outlet, Sink, Source, Taker
from pipeline.context import RequestContext
from pipeline.errors import DeadlineExceeded, PipelineError, blame
from pipeline.lane import BUSY, Lane
from pipeline.line import CodecStage, Line
from pipeline.loop import Loop, current_loop
from pipeline.outcome import CANCELLED, COMPLETED, Outcome
from pipeline.pulled_link import PulledLink, Unwound
from pipeline.stage import Stage

In = TypeVar("In")
Out = TypeVar("Out")
New = TypeVar("New")


class Task:
    """What one task of a chain runs: one stage, or neighbouring codec stages joined.

    Attributes:
        stages: what it runs.
        capacity: of the link that leads to it.
        names: the names of its stages, the first of which names the task.
        is_line: whether they are codec stages.
    """

    __slots__ = ("capacity", "is_line", "names", "stages")

    def __init__(self, stages: tuple[Stage[Any, Any], ...], capacity: int) -> None:
        self.stages = stages
        self.capacity = capacity
        self.names = tuple(stage.name for stage in stages)
        self.is_line = isinstance(stages[0], CodecStage)


@dataclass(frozen=True, slots=True)
class StageDescription:
    """What is known of a stage of a pipeline.

    Attributes:
        name: the stage's name.
        accepts, emits: its item types; None if they are not known.
        is_codec: whether it is made of a codec; it can then share a task with its neighbours.
        is_waiting: whether that codec waits for the world.
        tick_s: after how many seconds of silence that codec is asked; None if it does not tick.
    """

    name: str
    accepts: object
    emits: object
    is_codec: bool
    is_waiting: bool = False
    tick_s: float | None = None

    @classmethod
    def of(cls, stage: Stage[Any, Any]) -> StageDescription:
        """Describe a stage."""
        accepts, emits = getattr(stage, "accepts", None), getattr(stage, "emits", None)
        if isinstance(stage, CodecStage):
            return cls(stage.name, accepts, emits, True, stage.is_waiting, stage.tick_s)
        return cls(stage.name, accepts, emits, is_codec=False)


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What is known of a task of a pipeline.

    Attributes:
        stages: what it runs, in this order; the first names its lane.
        link: the name of the link that leads to it; None for the first task, which takes straight from the source, and
            if the chain is pulled.
        capacity: how many batches that link holds.
    """

    stages: tuple[StageDescription, ...]
    link: str | None
    capacity: int


DEFAULT_CAPACITY = 1
"""Batches per link. One lets a stage work on the next batch while its consumer has the last; more only adds latency
and memory (a link holds at most capacity x the largest read, 64 KiB)."""


class Pipeline(Generic[In, Out]):
    """An immutable chain of stages, built once at start-up and run for every request.

    Example:
        ``Pipeline(decode_events).then(strip_thinking).then(encode_chunks)`` type-checks only if each stage takes
        what the one before it gives.

    Attributes:
        tasks: what it runs.
        link_names: of the links between them.
        may_be_pulled: whether all of them can be run in one task.
        is_pulled: whether they are.
    """

    is_pulled = False

    def __init__(self, first: Stage[In, Out], *others: Never) -> None:
        if others or not callable(getattr(first, "run", None)):
            raise TypeError("Pipeline takes its first stage, and `then` each further one: Pipeline(a).then(b)")
        self._set_tasks((Task((first,), DEFAULT_CAPACITY),))  # it takes from the source, without a link

    def then(self, stage: Stage[Out, New], *, capacity: int = DEFAULT_CAPACITY) -> Pipeline[In, New]:
        """Return a chain with ``stage`` at its end, the link to it holding at most ``capacity`` batches.

        Raises:
            ValueError: if the chain already has a stage of that name: their figures would be confused.
        """
        return self._with_tasks((*self.tasks, Task((stage,), capacity)))

    def fused(self) -> Pipeline[In, Out]:
        """Return the same chain with every run of neighbouring codec stages joined into one task.

        The results are the same. It saves a hop per batch and a task per request for each member but the first; it
        costs the queues between them, so that one member cannot work ahead of the next. The link into a joined run
        keeps the capacity of its first member.
        """
        tasks: list[Task] = []
        for task in self.tasks:
            is_joined = bool(tasks) and task.is_line and tasks[-1].is_line
            # The first task takes from the source, and cannot be woken there to tick.
            if is_joined and not (len(tasks) == 1 and any(_tick_s(stage) is not None for stage in task.stages)):
                tasks[-1] = Task((*tasks[-1].stages, *task.stages), tasks[-1].capacity)
            else:
                tasks.append(task)
        return self._with_tasks(tuple(tasks))

    def pulled(self) -> Pipeline[In, Out]:
        """Return the same chain, run in one task: each stage works only while the one behind it asks for a batch.

        The results are the same, and so are the lanes; there are no links. It saves a nursery, and a task and a link
        for each of its tasks but one; it costs what a stage could do while the one behind it works or waits. A chain
        with a stage that cannot be pulled is returned as it is.
        """
        other = self._with_tasks(self.tasks)
        other.is_pulled = self.may_be_pulled
        return other

    def describe(self) -> tuple[TaskDescription, ...]:
        """Return what is known of its tasks, in the order of their stages."""
        links = [None] * len(self.tasks) if self.is_pulled else [None, *self.link_names]
        return tuple(
            TaskDescription(tuple(map(StageDescription.of, task.stages)), link, task.capacity)
            for task, link in zip(self.tasks, links, strict=True)
        )

    def _with_tasks(self, tasks: tuple[Task, ...]) -> Pipeline[In, Any]:
        other = cast("Pipeline[In, Any]", Pipeline(tasks[0].stages[0]))
        other._set_tasks(tasks)
        return other

    def _set_tasks(self, tasks: tuple[Task, ...]) -> None:
        if _tick_s(tasks[0].stages[0]) is not None:
            raise ValueError(
                f"stage {tasks[0].stages[0].name!r} ticks, so it cannot be the first: it could not be woken while it "
                "waits for the source; put it behind another stage"
            )
        seen: set[str] = set()
        for task in tasks:
            if task.capacity < 0:
                raise ValueError(
                    f"the link to {task.names[0]!r} cannot hold {task.capacity} batches: give it 0 or more"
                )
            for name in task.names:
                if name in seen:
                    raise ValueError(f"two stages of one pipeline are named {name!r}: give one of them another name")
                seen.add(name)
        self.tasks = tasks
        self.may_be_pulled = all(_may_be_pulled(stage) for task in tasks for stage in task.stages)
        self.link_names = [f"{before.names[-1]}>{task.names[0]}" for before, task in itertools.pairwise(tasks)]

    def run(
        self,
        source: Iterable[list[In]] | AsyncIterable[list[In]],
        ctx: RequestContext,
    ) -> Coroutine[Any, Any, list[Out]]:
        """Push the batches of ``source`` through, and return what comes out of the last stage.

        One lane per task is appended to ``ctx.lanes``, and one link for each channel to ``ctx.links``, before the first
        stage starts, so the figures are there however the run ends. The first stage takes straight from the source, in
        its own task; if it puts a deadline on its inlet, the source must bear that its ``__anext__`` is cancelled and
        called again (a generator does not).

        Raises:
            PipelineError: the first failure in time, with later ones as its notes; even if it happened while
                the run was being cancelled. No exception group leaves.
            DeadlineExceeded: if ``ctx.deadline`` passed before the last stage had returned.
        """
        # Not `async`, but a coroutine: each turn of the request has a frame fewer.
        out: list[Out] = []
        return Run(ctx, is_pulled=self.is_pulled).run(self.tasks, self.link_names, source, Sink(out), out)

    async def run_into(
        self, giver: Giver[Out], source: Iterable[list[In]] | AsyncIterable[list[In]], ctx: RequestContext
    ) -> None:
        """Push the batches of ``source`` through as `run` does, and what comes out into ``giver`` as it comes.

        Raises:
            PipelineError: as `run` does; ``giver`` has then not been completed.
        """
        await Run(ctx, is_pulled=self.is_pulled).run(self.tasks, self.link_names, source, giver, [])


def _tick_s(stage: Stage[Any, Any]) -> float | None:
    return stage.tick_s if isinstance(stage, CodecStage) else None


def _may_be_pulled(stage: Stage[Any, Any]) -> bool:
    if isinstance(stage, CodecStage):
        return stage.tick_s is None or stage.tick_ends
    return getattr(stage, "may_be_pulled", False)


class Run:
    """One request on its way through a pipeline.

    Args:
        ctx: the request.
        is_pulled: whether all stages run in the task that asks for what the last one gives.
    """

    __slots__ = ("complete", "ctx", "failures", "is_pulled", "own_lane", "scope")

    def __init__(self, ctx: RequestContext, *, is_pulled: bool = False) -> None:
        self.ctx = ctx
        self.is_pulled = is_pulled
        self.failures: list[PipelineError] = []
        self.complete = False
        self.own_lane: Lane | None = None  # of the last stage
        self.scope: trio.CancelScope | None = None  # of all stages; None if there is nothing to stop

    async def run(
        self, tasks: tuple[Task, ...], link_names: list[str], source: Any, giver: Giver[Any], out: list[Any]
    ) -> list[Any]:
        end: BaseException | None = None
        loop = current_loop()
        loop.streams += 1
        try:
            try:
                await self._run_tasks(tasks, link_names, Source(source), giver, loop)
            finally:
                loop.streams -= 1
                if isinstance(source, AsyncGenerator):
                    await cast("AsyncGenerator[list[Any]]", source).aclose()  # it may be left half-way
        except BaseException as unwinding:
            end = _most_urgent(unwinding)
        # A stage that breaks while the request is being cancelled from outside must not vanish behind the Cancelled.
        if self.failures and (end is None or isinstance(end, trio.Cancelled | Unwound)):
            end = self.first_failure()
        elif end is None and not self.complete:
            end = _deadline_exceeded()
        if self.ctx.open_codecs:
            end = self.close_codecs(end)
        if end is None:
            return out
        try:
            raise end
        finally:
            del end  # else its traceback holds this frame, which holds it: garbage that only the collector frees

    def close_codecs(self, end: BaseException | None) -> BaseException | None:
        """Tell the codecs that want to know how the run ended, and return how it has if one of them fails at that."""
        outcome = COMPLETED if end is None else Outcome(error=end) if isinstance(end, PipelineError) else CANCELLED
        codecs, self.ctx.open_codecs = self.ctx.open_codecs, []
        for name, codec in reversed(codecs):
            try:
                codec.close(outcome)
            except Exception as error:
                bug = blame(error, name)
                if end is None:
                    end = bug
                else:
                    end.add_note(f"then {name} failed too, when it was closed: {type(error).__name__}")
        return end

    async def _run_tasks(
        self, tasks: tuple[Task, ...], link_names: list[str], source: Source[Any], sink: Giver[Any], loop: Loop
    ) -> None:
        """Run all tasks but the last as such, and the last one here; or all of them here, if they are pulled.

        The first takes straight from the source and the last gives straight into the sink: a chain of n has n - 1
        tasks of its own and n - 1 channels.
        """
        ctx = self.ctx
        lanes = ctx.begin_lanes([task.names for task in tasks], loop)
        self.own_lane = lanes[-1]
        if self.is_pulled or len(tasks) == 1:  # a scope is a third of a nursery's price, and none is free
            if ctx.deadline == math.inf:
                await self._run_here(tasks, source, sink, lanes)
                return
            with trio.CancelScope(deadline=ctx.deadline) as self.scope:
                await self._run_here(tasks, source, sink, lanes)
            return
        async with trio.open_nursery() as nursery:
            self.scope = nursery.cancel_scope
            if ctx.deadline < math.inf:
                self.scope.deadline = ctx.deadline
            taker: Taker[Any] = source
            for at, link_name in enumerate(link_names):
                link = ctx.begin_link(link_name, tasks[at + 1].capacity)
                ctx.links.append(link)
                ctx.timeline.enter(lanes[at].born_ns)
                nursery.start_soon(self.supervise, tasks[at], taker, link, lanes[at], name=lanes[at].name)
                taker = link
            if await self.supervise(tasks[-1], taker, sink, lanes[-1]):
                self.complete = True
                if nursery.child_tasks:  # what is left of the others is not needed
                    self.scope.cancel()

    async def _run_here(self, tasks: tuple[Task, ...], source: Taker[Any], sink: Giver[Any], lanes: list[Lane]) -> None:
        links = self.lead(tasks[:-1], source, lanes)
        try:
            self.complete = await self.supervise(tasks[-1], links[-1] if links else source, sink, lanes[-1])
        finally:
            for link in reversed(links):
                await link.aclose()

    def lead(self, tasks: tuple[Task, ...], source: Taker[Any], lanes: list[Lane]) -> list[PulledLink[Any]]:
        """Have each task run as far as who takes from its link asks for, and return their links."""
        links: list[PulledLink[Any]] = []
        taker = source
        for task, lane in zip(tasks, lanes, strict=False):
            link: PulledLink[Any] = PulledLink()
            link.lead_from(self.supervise(task, taker, link, lane))
            links.append(link)
            taker = link
        return links

    async def supervise(self, task: Task, taker: Taker[Any], giver: Giver[Any], lane: Lane) -> bool:
        """Run what one task has to run, and say whether it ended well.

        Its ends are closed only then, so that a broken stream never looks complete.
        """
        try:
            if task.is_line:
                await Line(cast("tuple[CodecStage[Any, Any], ...]", task.stages), self.ctx, lane, taker, giver).run()
            else:
                lane.switch(BUSY, lane.clock())
                await task.stages[0].run(Inlet(taker, lane), Outlet(giver, lane), self.ctx)
        except BaseException as error:
            # What a codec of a line raised bears its name already.
            failed = self._note_failures(error, lane.name)
            if not isinstance(error, Exception):
                raise
            if failed:
                return False
        finally:
            lane.begin_closing()
            if lane is not self.own_lane and not self.is_pulled:  # that is the request's own task, with more to do
                lane.timeline.leave(lane.since_ns)
        giver.complete()
        taker.abandon()
        return True

    def _note_failures(self, error: BaseException, stage: str) -> bool:
        """Note what failed in a stage, if anything did, and stop the others.

        Not a failure: `DownstreamGone` (its consumers are satisfied: stopping early is a normal end), Cancelled, and
        what is not for a stage to raise, as KeyboardInterrupt. A group comes from a nursery of the stage's own.
        """
        failures = [
            blame(leaf, stage)
            for leaf in _leaves(error)
            if isinstance(leaf, Exception) and not isinstance(leaf, DownstreamGone)
        ]
        if failures:
            if trio.current_time() >= self.ctx.deadline and not self.failures and not self.complete:
                self.failures.append(_deadline_exceeded())  # that came first
            self.failures.extend(failures)
            if self.scope is not None:
                self.scope.cancel()
        return bool(failures)

    def first_failure(self) -> PipelineError:
        """Take the first failure, the others as its notes; the list is left empty, for the sake of `run`."""
        first, *later = self.failures
        for error in later:
            first.add_note(f"then {error.stage} failed too: {error!r}")
        self.failures = []
        return first


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the request took longer than it may; ask for less, or raise request_timeout_s")


def _most_urgent(error: BaseException) -> BaseException:
    """Return the one exception of a group that must go on: KeyboardInterrupt and its kind, else Cancelled.

    The failures in it have been noted.
    """
    return min(_leaves(error), key=lambda leaf: (isinstance(leaf, Exception), isinstance(leaf, trio.Cancelled)))


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions of nested groups, in the order in which they were raised."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for child in group.exceptions for leaf in _leaves(child)]
    return [error]
