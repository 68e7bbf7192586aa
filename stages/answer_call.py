"""Answer the call through what is installed around it: retries, fallbacks, caches ...

Takes: UpstreamCall, one. Gives: StreamEvent, n; the last one is Finished or Failed.
Holds: the first batch of each open attempt. Waits: for its attempts, whose lanes have that time; for what is around the
call only as that declares it. Fills: CALL with the call that was answered, USAGE, FAILURE, ATTEMPTS, AROUNDS.
Raises: what the last attempt raised, if none began well.
On cancellation every open attempt is closed at once. After the last event, what is around the call has 5 s for what it
still has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from traceback import walk_tb
from types import TracebackType
from typing import Final, cast

import trio

from pipeline import Inlet, Lane, Outlet, Party, Pipeline, PipelineError, RequestContext, StageBug, UpstreamFault
from pipeline.channel import DownstreamGone
from pipeline.errors import blame
from pipeline.lane import BUSY, OUTSIDE
from pipeline.pull import Pull
from stages.answer import GIVEN_UP, Answer, Around, AroundTime, Attempt, Next, attempt_at
from stages.events import Failed, Finished, Heartbeat, Started, StreamEvent, Usage, has_output, has_reasoning
from stages.slots import AROUNDS, ATTEMPTS, CALL, FAILURE, RESPONSE, USAGE
from stages.upstreams import UpstreamCall
from stages.upstreams.faults import failed_from, fault_from

Attempts = Pipeline[UpstreamCall, StreamEvent]

END_LIMIT_S: Final = 5.0
"""How long what is around the call may go on after the end of an answer."""

_SILENT = frozenset({Started, Heartbeat})
"""What says nothing yet: an answer that fails after it can still be asked for again."""


class AnswerCall:
    """The stage.

    Args:
        arounds: what stands around the call, the outermost first.
        attempt: the stages of one attempt.
    """

    name = "answer_call"
    accepts = UpstreamCall
    emits = StreamEvent

    def __init__(self, arounds: Sequence[Around], attempt: Attempts) -> None:
        self._arounds = tuple(arounds)
        self._attempt = attempt

    async def run(self, inlet: Inlet[UpstreamCall], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        """Answer each call."""
        ctx[ATTEMPTS] = []
        times = [AroundTime(name) for name in (self.name, *(around.name for around in self._arounds))]
        ctx[AROUNDS] = times[1:]
        chain: Next = _Innermost(self._attempt, ctx, inlet.lane, times[-1])
        for around, asking, own in reversed(list(zip(self._arounds, times[:-1], times[1:], strict=True))):
            chain = _Link(around, chain, asking, own)
        async for batch in inlet:
            for call in batch:
                await self._answer(chain(call), inlet.lane, outlet, ctx)

    async def _answer(
        self, opening: AbstractAsyncContextManager[Answer], lane: Lane, outlet: Outlet[StreamEvent], ctx: RequestContext
    ) -> None:
        lane.origin_ns = 0  # until this task takes a batch of an attempt
        with trio.CancelScope() as ending:
            async with opening as answer:
                ctx[CALL] = answer.call
                if (response := ctx.get(RESPONSE)) is not None:
                    response.answered_by(answer.call.deployment.id, len(ctx[ATTEMPTS]))
                try:
                    is_end = await self._pass_on(answer, lane, outlet, ctx)
                except (PipelineError, DownstreamGone):
                    raise
                except Exception as error:  # in an iterator, or a function for `Answer.changed`, of one of them
                    raise blame(error, self._culprit(error))  # noqa: B904 - it bears its cause
                if is_end:
                    # What is around the call may have more to do, such as to keep the answer. The client does not
                    # wait for that, and the last stage, which ends now, does not cancel it.
                    outlet.giver.complete()
                    ending.shield = True
                    ending.deadline = trio.current_time() + END_LIMIT_S

    async def _pass_on(self, answer: Answer, lane: Lane, outlet: Outlet[StreamEvent], ctx: RequestContext) -> bool:
        """Send the events of an answer; return whether its last one has come."""
        timeline = ctx.timeline
        async for events in answer:
            if not events:
                continue
            if not lane.origin_ns:  # they were made here, or came by another task
                lane.origin_ns = timeline.origin_ns = lane.clock()
            if not timeline.has_token and (has_output(events) or has_reasoning(events)):
                timeline.see_token(is_output=has_output(events))
            for event in events:
                if isinstance(event, Usage):
                    ctx[USAGE] = event
                elif isinstance(event, Failed):
                    ctx[FAILURE] = event
            is_end = isinstance(events[-1], Finished | Failed)
            await outlet.send(events)
            lane.origin_ns = 0
            if is_end:
                return True
        return False

    def _culprit(self, error: Exception) -> str:
        """Return the name of the around in whose module it happened."""
        modules = {type(around).__module__: around.name for around in self._arounds}
        names = [modules.get(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
        return next(filter(None, reversed(names)), self.name)


def answer_call(arounds: Sequence[Around], attempt: Attempts) -> AnswerCall:
    """Return the stage."""
    return AnswerCall(arounds, attempt)


class _Link:
    """Asks one `Around`, which may ask the next."""

    def __init__(self, around: Around, following: Next, asking: AroundTime, own: AroundTime) -> None:
        self._around = around
        self._following = following
        self._asking = asking
        self._own = own

    @property
    def ctx(self) -> RequestContext:
        return self._following.ctx

    def __call__(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[Answer]:
        return _OpenAround(self._around, call, self._following, self._asking, self._own)

    def outside(self, party: Party = Party.OURS) -> AbstractContextManager[object]:
        return self._following.outside(party)


class _OpenAround:
    """The answer of one `Around`, as a context manager; what fails in the around is blamed on it."""

    __slots__ = ("_around", "_asking", "_call", "_clock", "_following", "_opening", "_own")

    def __init__(
        self, around: Around, call: UpstreamCall, following: Next, asking: AroundTime, own: AroundTime
    ) -> None:
        self._around = around
        self._call = call
        self._following = following
        self._asking = asking
        self._own = own
        self._clock = following.ctx.timeline.clock
        self._opening: AbstractAsyncContextManager[Answer] | None = None

    async def __aenter__(self) -> Answer:
        _pass_on(self._asking, self._own, self._clock())
        try:
            self._opening = self._around.call(self._call, self._following)
            return await self._opening.__aenter__()
        except Exception as error:
            failure = _blamed(_alone(error), self._around.name)
        finally:
            _pass_on(self._own, self._asking, self._clock())
        try:
            raise failure  # here: there, a group would become its context, and that refers to it
        finally:
            del failure

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._opening is not None  # entered
        _pass_on(self._asking, self._own, self._clock())
        try:
            return await self._opening.__aexit__(kind, error, traceback)
        except Exception as worse:
            if (failure := _alone(worse)) is error:
                return False
            failure = _blamed(failure, self._around.name)
        finally:
            _pass_on(self._own, self._asking, self._clock())
        try:
            raise failure
        finally:
            del failure


def _pass_on(giving: AroundTime, taking: AroundTime, now_ns: int) -> None:
    """Note that one waits for the other from now on."""
    giving.change(-1, now_ns)
    taking.change(1, now_ns)


def _alone(error: Exception) -> Exception:
    """Return the first failure in a group: a nursery of an around's makes one even of a single failure."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error


def _blamed(error: Exception, name: str) -> Exception:
    """Return ``error`` as a failure of an around; what is not a failure, as it is."""
    return error if isinstance(error, DownstreamGone) else blame(error, name)


class _Innermost:
    """Makes attempts."""

    def __init__(self, attempt: Attempts, ctx: RequestContext, lane: Lane, asking: AroundTime) -> None:
        self._attempt = attempt
        self._lane = lane
        self._asking = asking
        self._task = trio.lowlevel.current_task()
        self.ctx = ctx

    def __call__(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[Answer]:
        return _OpenAttempt(self._attempt, call, self.ctx, self._lane, self._task, self._asking)

    def outside(self, party: Party = Party.OURS) -> AbstractContextManager[object]:
        # The lane is of the task that runs the around; another one's pause is not that one's.
        return self._lane.outside(party) if trio.lowlevel.current_task() is self._task else nullcontext()


class _OpenAttempt:
    """One attempt, as a context manager, and the iterator over what it gives."""

    def __init__(
        self,
        stages: Attempts,
        call: UpstreamCall,
        ctx: RequestContext,
        lane: Lane,
        task: trio.lowlevel.Task,
        asking: AroundTime,
    ) -> None:
        self._stages = stages
        self._call = call
        self._ctx = ctx.nested()
        self._ctx[CALL] = call
        self._all: list[Attempt] = ctx[ATTEMPTS]
        self._record = attempt_at(call, self._ctx.lanes, self._ctx.links, lane.clock())
        self._lane = lane  # of the stage
        self._task = task  # the stage's
        self._asking = asking
        self._further: Lane | None = None  # of another task, if that has opened it
        self._is_open = False
        self._first: list[StreamEvent] = []

    async def __aenter__(self) -> Answer:
        self._asking.change(-1, self._lane.clock())
        try:
            return await self._begin()
        finally:
            self._asking.change(1, self._lane.clock())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._asking.change(-1, self._lane.clock())
        try:
            await self._end()
        finally:
            self._asking.change(1, self._lane.clock())

    async def _begin(self) -> Answer:
        self._all.append(self._record)
        if trio.lowlevel.current_task() is not self._task:  # an attempt beside another one
            self._further = self._lane.further(f"attempt {len(self._all)}")
        self._pull = Pull(self._stages, [[self._call]], self._ctx, self._further or self._lane)
        await self._pull.begin()
        try:
            while not (self._first and _SILENT.isdisjoint(map(type, self._first[-1:]))):
                batch = await self._take()
                if batch is None:
                    raise UpstreamFault("the upstream's answer was empty", code="upstream_protocol")
                self._first += batch
            failed = next((event for event in self._first if type(event) not in _SILENT), None)
            if isinstance(failed, Failed):
                raise fault_from(failed)
        except BaseException:
            await self._end()
            raise
        self._is_open = True
        self._pause()
        return Answer(self._call, self)

    async def _end(self) -> None:
        was_open, self._is_open = self._is_open, False
        try:
            await self._pull.end(is_answered=self._record.end != GIVEN_UP)
        finally:
            self._record.ended_ns = self._lane.clock()
            if (further := self._further) is not None:
                if was_open:
                    self._go_on(further)
                further.begin_closing()
                further.timeline.leave(further.since_ns)

    def __aiter__(self) -> _OpenAttempt:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        if not self._is_open:  # the task that has opened it has left it, as when both are being cancelled
            await trio.lowlevel.checkpoint()
        first, self._first = self._first, []
        batch = first or await self._take()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def _pause(self) -> None:
        """Have a further task wait for nothing of ours: it does what the around has it do."""
        if (further := self._further) is not None:
            further.switch(OUTSIDE, further.clock())
            further.timeline.leave(further.since_ns)

    def _go_on(self, further: Lane) -> None:
        further.switch(BUSY, further.clock())
        further.timeline.enter(further.since_ns)

    async def _take(self) -> list[StreamEvent] | None:
        """Take the next batch; None at the end. A failure of the open answer is its last event, but for a bug."""
        record, further = self._record, self._further
        lane = self._lane if further is None or trio.lowlevel.current_task() is self._task else further
        is_back = lane is further and self._is_open
        if further is not None and is_back:
            self._go_on(further)
        batch: list[StreamEvent] | None
        try:
            batch = await self._pull.take(lane)
        except PipelineError as error:
            record.end, record.upstream_status = error.code, error.status_hint
            if not self._is_open or isinstance(error, StageBug):
                raise
            batch = [failed_from(error)]
        finally:
            if is_back:
                self._pause()
        if batch is not None:
            record.events += len(batch)
            if isinstance(end := batch[-1], Finished | Failed):
                record.end = end.code if isinstance(end, Failed) else "OK"
        return batch
