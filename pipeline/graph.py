"""Compose stages and run them: one nursery per request, one task per stage, first failure in time wins."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from time import perf_counter_ns
from typing import Any, Generic, TypeVar, cast

import trio

from pipeline.channel import DownstreamGone, Inlet, Outlet, Sink, Source, open_link
from pipeline.context import RequestContext
from pipeline.errors import DeadlineExceeded, PipelineError, blame
from pipeline.meter import Clock, Meter
from pipeline.stage import CodecStage, FusedStage, Stage

In = TypeVar("In")
Out = TypeVar("Out")
New = TypeVar("New")

Links = tuple[tuple[Stage[Any, Any], int], ...]
"""Stages in order, each with the capacity of the link that leads to it."""

DEFAULT_CAPACITY = 1
"""Batches per link. One lets a stage work on the next batch while its consumer has the last; more only adds latency
and memory (a link holds at most capacity x the largest read, 64 KiB)."""


class Pipeline(Generic[In, Out]):
    """An immutable chain of stages, built once at start-up and run for every request.

    Example:
        ``Pipeline(decode_events).then(strip_thinking).then(encode_chunks)`` type-checks only if each stage takes
        what the one before it gives.
    """

    def __init__(self, first: Stage[In, Out]) -> None:
        self._set_links(((first, DEFAULT_CAPACITY),))  # it takes from the source, without a link

    def then(self, stage: Stage[Out, New], *, capacity: int = DEFAULT_CAPACITY) -> Pipeline[In, New]:
        """Give a chain with ``stage`` at its end, the link to it holding at most ``capacity`` batches.

        Raises:
            ValueError: if the chain already has a stage of that name: their meters would be confused.
        """
        longer = cast("Pipeline[In, New]", Pipeline(self._links[0][0]))
        longer._set_links((*self._links, (stage, capacity)))
        return longer

    def fused(self) -> Pipeline[In, Out]:
        """Give the same chain with every run of neighbouring codec stages joined into one task.

        The link into a joined run keeps the capacity of its first member.
        """
        links: list[tuple[Stage[Any, Any], int]] = []
        for are_codecs, run in itertools.groupby(self._links, lambda link: isinstance(link[0], CodecStage)):
            stages = list(run)
            if are_codecs and len(stages) > 1:
                links.append(
                    (FusedStage(tuple(cast("CodecStage[Any, Any]", stage) for stage, _ in stages)), stages[0][1])
                )
            else:
                links += stages
        joined = cast("Pipeline[In, Out]", Pipeline(self._links[0][0]))
        joined._set_links(tuple(links))
        return joined

    def _set_links(self, links: Links) -> None:
        self._links = links
        self._names = tuple(_names(stage) for stage, _ in links)  # for each stage those of its members
        seen: set[str] = set()
        for (stage, capacity), names in zip(links, self._names, strict=True):
            if capacity < 0:
                raise ValueError(f"the link to {stage.name!r} cannot hold {capacity} batches: give it 0 or more")
            for name in names:
                if name in seen:
                    raise ValueError(f"two stages of one pipeline are named {name!r}: give one of them another name")
                seen.add(name)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of all stages in order, members of fused stages one by one."""
        return tuple(name for names in self._names for name in names)

    async def run(
        self,
        source: Iterable[list[In]] | AsyncIterable[list[In]],
        ctx: RequestContext,
        *,
        clock: Clock = perf_counter_ns,
    ) -> list[Out]:
        """Push the batches of ``source`` through, and return what comes out of the last stage.

        One meter per stage is appended to ``ctx.meters`` before the first stage starts, so the figures are there
        however the run ends. The first stage takes straight from the source, in its own task; if it puts a deadline
        on its inlet, the source must bear that its ``__anext__`` is cancelled and called again (a generator does not).

        Raises:
            PipelineError: the first failure in time, with later ones as its notes; also when it happened while
                the run was being cancelled. No exception group leaves.
            DeadlineExceeded: if ``ctx.deadline`` passed before the last stage had returned.
        """
        return await _Run(ctx, clock).run(self._links, self._names, source)


def _names(stage: Stage[Any, Any]) -> tuple[str, ...]:
    return stage.member_names if isinstance(stage, FusedStage) else (stage.name,)


class _Run:
    """One request on its way through a pipeline."""

    __slots__ = ("clock", "complete", "ctx", "failures", "scope")

    def __init__(self, ctx: RequestContext, clock: Clock) -> None:
        self.ctx = ctx
        self.clock = clock
        self.failures: list[PipelineError] = []
        self.complete = False
        self.scope: trio.CancelScope | None = None  # of all stages; None if there is nothing to stop

    async def run(self, links: Links, names: tuple[tuple[str, ...], ...], source: Any) -> list[Any]:
        clock = self.clock
        groups = [[Meter(name, clock, fused=i > 0) for i, name in enumerate(members)] for members in names]
        for group in groups:
            self.ctx.meters += group
        out: list[Any] = []
        end: BaseException | None = None
        try:
            try:
                await self._run_stages(links, groups, Source(source, clock), out)
            finally:
                if isinstance(source, AsyncGenerator):
                    await cast("AsyncGenerator[list[Any]]", source).aclose()  # it may be left half-way
        except BaseException as unwinding:
            end = _most_urgent(unwinding)
        # A stage that breaks while the request is being cancelled from outside must not vanish behind the Cancelled.
        if self.failures and (end is None or isinstance(end, trio.Cancelled)):
            end = self._first_failure()
        elif end is None and not self.complete:
            end = _deadline_exceeded()
        if end is None:
            return out
        try:
            raise end
        finally:
            del end  # else its traceback holds this frame, which holds it: garbage that only the collector frees

    async def _run_stages(self, links: Links, groups: list[list[Meter]], source: Source[Any], out: list[Any]) -> None:
        """Run all stages but the last in tasks of their own, and the last one here.

        The first takes straight from the source and the last gives straight into ``out``: a chain of n stages has
        n - 1 tasks and n - 1 channels.
        """
        inlet: Inlet[Any] = Inlet(source, groups[0][0])
        end: Outlet[Any] = Outlet(Sink(out), groups[-1][-1])
        if len(links) == 1:  # nobody to run beside it: a scope is a third of a nursery's price, and none is free
            if self.ctx.deadline == math.inf:
                self.complete = await self._supervise(links[0][0], inlet, end, groups[0])
                return
            with trio.CancelScope(deadline=self.ctx.deadline) as self.scope:
                self.complete = await self._supervise(links[0][0], inlet, end, groups[0])
            return
        async with trio.open_nursery() as nursery:
            self.scope = nursery.cancel_scope
            if self.ctx.deadline < math.inf:
                self.scope.deadline = self.ctx.deadline
            for at in range(len(links) - 1):
                stage = links[at][0]
                outlet, following = open_link(links[at + 1][1], groups[at][-1], groups[at + 1][0])
                nursery.start_soon(self._supervise, stage, inlet, outlet, groups[at], name=stage.name)
                inlet = following
            if await self._supervise(links[-1][0], inlet, end, groups[-1]):
                self.complete = True
                if nursery.child_tasks:  # what is left of the others is not needed
                    self.scope.cancel()

    async def _supervise(
        self, stage: Stage[Any, Any], inlet: Inlet[Any], outlet: Outlet[Any], meters: list[Meter]
    ) -> bool:
        """Run one stage, and say whether it ended well.

        Its ends are closed only then, so that a broken stream never looks complete.
        """
        try:
            if isinstance(stage, FusedStage):
                await stage.line(outlet, self.ctx, meters).run(inlet)
            else:
                meters[0].resume()
                await stage.run(inlet, outlet, self.ctx)
        except BaseException as error:
            # What a codec of a fused stage raised bears its name already.
            failed = self._note_failures(error, meters[0].name)
            if not isinstance(error, Exception):
                raise
            if failed:
                return False
        finally:
            for meter in meters:
                meter.begin_closing()
        outlet.close()
        inlet.close()
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

    def _first_failure(self) -> PipelineError:
        """Take the first failure, the others as its notes; the list is left empty, for the sake of `run`."""
        first, *later = self.failures
        for error in later:
            first.add_note(f"then {error.stage} failed too: {error!r}")
        self.failures = []
        return first


def _deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the request took longer than it may; ask for less, or raise request_timeout_s")


def _most_urgent(error: BaseException) -> BaseException:
    """Give the one exception of a group that must go on: KeyboardInterrupt and its kind, else Cancelled.

    The failures in it have been noted.
    """
    return min(_leaves(error), key=lambda leaf: (isinstance(leaf, Exception), isinstance(leaf, trio.Cancelled)))


def _leaves(error: BaseException) -> list[BaseException]:
    """Give the exceptions of nested groups, in the order in which they were raised."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for child in group.exceptions for leaf in _leaves(child)]
    return [error]
