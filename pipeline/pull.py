"""A run of a chain that gives its batches to who asks for them, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import trio

from pipeline.channel import EndOfInput, Link, Source, Taker
from pipeline.context import RequestContext
from pipeline.errors import PipelineError
from pipeline.graph import Pipeline, Run
from pipeline.lane import BUSY, STARVED, Lane
from pipeline.loop import current_loop
from pipeline.pulled_link import Unwound

In = TypeVar("In")
Out = TypeVar("Out")


class Pull(Generic[Out]):
    """Runs a chain, and takes what it gives batch by batch. After `begin` it must be ended.

    If it can (`Pipeline.may_be_pulled`), the whole chain runs in the task of who takes, and only while that waits for a
    batch. Else it has tasks of its own, as in `Pipeline.run`, which work ahead by a batch.

    Args:
        chain: what to run.
        source: its batches.
        ctx: a part of the request (`RequestContext.nested`): lanes and links are added to it.
        lane: of the task in which it begins.
    """

    def __init__(self, chain: Pipeline[In, Out], source: Iterable[list[In]], ctx: RequestContext, lane: Lane) -> None:
        self._running: _InOneTask[Out] | _InTasks[Out] = (
            _InOneTask(chain, source, ctx) if chain.may_be_pulled else _InTasks(chain, source, ctx, lane)
        )

    async def begin(self) -> None:
        """Begin to run it. `end` belongs into the same task."""
        await self._running.begin()

    async def take(self, lane: Lane) -> list[Out] | None:
        """Return the next batch; None at the end.

        Args:
            lane: of the task that asks.

        Raises:
            PipelineError: the first failure in the chain; after that it is at its end.
        """
        running = self._running
        lane.switch(STARVED, lane.clock())
        with suppress(EndOfInput, Unwound):
            return await running.taker.take(lane)
        lane.switch(BUSY, lane.clock())
        running.check()
        return None

    async def end(self, *, is_answered: bool) -> None:
        """Stop what still runs, and wait until it has ended.

        Args:
            is_answered: whether its last batch was taken: then it ends by itself.

        Raises:
            PipelineError: what fails in the chain at that.
        """
        await self._running.end(is_answered=is_answered)


class _InOneTask(Generic[Out]):
    """All stages are coroutines of one task."""

    def __init__(self, chain: Pipeline[Any, Out], source: Iterable[list[Any]], ctx: RequestContext) -> None:
        self._run = Run(ctx, is_pulled=True)
        self._end: BaseException | None = Unwound()  # as long as it has not ended
        lanes = ctx.begin_lanes([task.names for task in chain.tasks], current_loop())
        self._links = self._run.lead(chain.tasks, Source(source), lanes)
        self.taker: Taker[Out] = self._links[-1]

    async def begin(self) -> None:
        """Do nothing: each stage begins when it is first asked."""

    def check(self) -> None:
        """Note that it has ended, and raise what has failed."""
        if isinstance(self._end, Unwound):
            self._end = None
        if self._run.failures:
            self._end = self._run.first_failure()
            raise self._end

    async def end(self, *, is_answered: bool) -> None:
        """As in `Pull`."""
        run, last, end = self._run, self._links[-1], self._end
        self._end = None
        for link in reversed(self._links):
            await link.aclose(is_answered=is_answered and link is last)
        if is_answered and isinstance(end, Unwound):
            end = None
        known = end
        if run.failures:
            end = run.first_failure()
        if run.ctx.open_codecs:
            end = run.close_codecs(end)
        try:
            if end is not None and end is not known:
                raise end
        finally:
            del end, known  # else its traceback holds this frame, which holds it: only the collector frees the request


class _InTasks(Generic[Out]):
    """The stages have tasks of their own, in a nursery. What fails in them is kept, so that no group leaves it."""

    def __init__(self, chain: Pipeline[Any, Out], source: Iterable[list[Any]], ctx: RequestContext, lane: Lane) -> None:
        self._chain = chain
        self._source = source
        self._ctx = ctx
        self._lane = lane
        self._link: Link[Out] = ctx.begin_link("pulled", 1)
        self.taker: Taker[Out] = self._link
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None
        self._error: PipelineError | None = None

    async def begin(self) -> None:
        """Open the nursery."""
        self._nursery = await self._manager.__aenter__()
        self._lane.timeline.enter(self._lane.clock())
        self._nursery.start_soon(self._work, name="pulled")

    def check(self) -> None:
        """Raise what has failed, once."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # as above

    async def end(self, *, is_answered: bool) -> None:
        """As in `Pull`."""
        assert self._nursery is not None  # it was begun
        if not is_answered:
            self._nursery.cancel_scope.cancel()
        self._link.abandon()
        await self._manager.__aexit__(None, None, None)

    async def _work(self) -> None:
        lane = self._lane
        try:
            await self._chain.run_into(self._link, self._source, self._ctx)
        except PipelineError as error:
            self._error = error
            self._link.complete()
        finally:
            lane.timeline.leave(lane.clock())
