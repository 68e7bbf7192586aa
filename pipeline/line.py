"""The codecs of one request in a row, in one task: how codec stages run, alone or joined.

Only one of them works at a time, so one clock read ends the work of one and begins that of the next.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

from pipeline.alarm import Alarm
from pipeline.channel import EndOfInput, Giver, Inlet, Link, Outlet, Sink, Taker
from pipeline.context import RequestContext
from pipeline.errors import PipelineError, blame
from pipeline.lane import BUSY, CLOSING, OWN_TASK, READY, STARVED, Lane, StageTimes
from pipeline.loop import STAGE_TURN_NS
from pipeline.pulled_link import PulledLink

In = TypeVar("In")
Out = TypeVar("Out")


class CodecStage(Generic[In, Out]):
    """A codec lifted into a stage; `codec_stage` and `per_event` make it.

    Attributes:
        name: the stage's name.
        open: makes the codec of one request.
        accepts, emits: item types where they are known, for the check at start-up; None is not checked.
        is_waiting: whether it is a `WaitingCodec`.
        may_be_pushed: whether it may work in another's task: it never waits, or only after ``lane.own_task()``.
        has_done, has_ticks, has_close, has_skip: whether the codec has ``done``, ``ticks``, ``close`` and ``skip``.
        holds_nothing: whether the codec keeps nothing between two items.
        tick_s: after how long a silence it is asked; None if it does not tick.
        tick_ends: whether it is done when it has been asked.
    """

    __slots__ = (
        "accepts",
        "emits",
        "has_close",
        "has_done",
        "has_skip",
        "has_ticks",
        "holds_nothing",
        "is_waiting",
        "may_be_pushed",
        "name",
        "open",
        "tick_ends",
        "tick_s",
    )

    def __init__(
        self,
        name: str,
        open: Callable[[RequestContext], Any],
        *,
        accepts: object,
        emits: object,
        is_waiting: bool = False,
        may_be_pushed: bool = False,
        has_done: bool = False,
        has_ticks: bool = False,
        has_close: bool = False,
        has_skip: bool = False,
        holds_nothing: bool = False,
        tick_s: float | None = None,
        tick_ends: bool = False,
    ) -> None:
        self.name = name
        self.open = open
        self.accepts = accepts
        self.emits = emits
        self.is_waiting = is_waiting
        self.may_be_pushed = may_be_pushed or not is_waiting
        self.has_done = has_done
        self.has_ticks = has_ticks
        self.has_close = has_close
        self.has_skip = has_skip
        self.holds_nothing = holds_nothing
        self.tick_s = tick_s
        self.tick_ends = tick_ends

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        """Feed every batch to a codec of this request's own, and flush it at the end."""
        lane = inlet.lane
        stage = lane.stage
        try:
            await Line((self,), ctx, lane, inlet.taker, outlet.giver).run()
        finally:
            lane.stage = stage

    def __repr__(self) -> str:
        return f"<stage {self.name}>"


class Line:
    """The codecs of one request.

    Args:
        members: their stages.
        ctx: the request.
        lane: the figures of the task, with one `StageTimes` for each member, which the line charges.
        taker: where the first one's batches come from. Only on a link can those that tick be woken.
        giver: takes what the last one gives.
    """

    __slots__ = (
        "_alarms",
        "_codecs",
        "_done_at",
        "_failure",
        "_giver",
        "_idle",
        "_is_finished",
        "_lane",
        "_members",
        "_pending",
        "_steps",
        "_taker",
    )

    def __init__(
        self,
        members: Sequence[CodecStage[Any, Any]],
        ctx: RequestContext,
        lane: Lane,
        taker: Taker[Any],
        giver: Giver[Any],
    ) -> None:
        self._members = members
        self._lane = lane
        self._taker = taker
        self._giver = giver
        self._done_at = -1  # the last codec that has ended its input
        self._idle = STARVED  # the lane's state between two batches
        self._pending: Coroutine[Any, Any, None] | None = None  # what was pushed, and has to wait
        self._failure: Exception | None = None  # of what was pushed
        self._is_finished = False
        self._codecs: list[Any] = []
        self._alarms: dict[int, Alarm] = {}  # those that run, by the position of the codec
        # What a batch needs of each codec: feed, its figures, whether it waits, itself if it may be done, its alarm if
        # it always has one, itself if it says when it wants one.
        self._steps: list[tuple[Any, StageTimes, bool, Any, Alarm | None, Any]] = []
        clock = lane.clock
        lane.switch(BUSY, since_ns := clock())
        lane.stage = None
        for member, times in zip(members, lane.stages, strict=True):
            try:
                codec = member.open(ctx)
            except Exception as error:
                self._stop_alarms()
                raise self._blame(error, times, since_ns)  # noqa: B904 - see there
            if member.has_close:
                ctx.open_codecs.append((member.name, codec))
            alarm = asker = None
            if member.tick_s is not None:
                at = len(self._codecs)
                asker = codec if member.has_ticks else None
                if asker is None or asker.ticks:
                    self._set_alarm(at)
                    alarm = self._alarms.get(at) if asker is None else None
            self._codecs.append(codec)
            ender = codec if member.has_done else None
            self._steps.append((codec.feed, times, member.is_waiting, ender, alarm, asker))
            now_ns = clock()
            times.busy_ns += now_ns - since_ns
            if now_ns - since_ns > STAGE_TURN_NS:
                lane.report(times, since_ns, now_ns - since_ns)
            since_ns = now_ns
        lane.switch(STARVED, since_ns)
        if isinstance(taker, Link) and isinstance(giver, Sink) and all(member.may_be_pushed for member in members):
            taker.push = self._push

    async def run(self) -> None:
        """Take batches, and push them through, until the input ends or a codec is done."""
        lane, taker = self._lane, self._taker
        try:
            is_end = False
            while self._done_at < 0 and not is_end:
                batch = None  # let go of the last one: it may hold 64 KiB, and the wait be long
                try:
                    batch = await taker.take(lane)
                except EndOfInput:
                    is_end = True
                if batch is not None:
                    await self._forward(batch, 0)
                elif self._failure is not None or self._pending is not None:
                    await self._settle()
                elif not is_end:
                    await self._tick()
        finally:
            self._stop_alarms()
            if isinstance(taker, Link):
                taker.push = None  # else they would refer to each other: garbage that only the collector frees
            if self._pending is not None:
                self._pending.close()
            if self._failure is not None:  # it was cancelled by what failed, or while that was at work
                await self._settle()
        if not self._is_finished:
            await self._finish()

    def _push(self, batch: list[Any], giver: Lane, now_ns: int) -> None:
        """Push ``batch`` through in the task that gives it, while this line's own task waits to take.

        That saves the loop a turn and two switches of tasks, a tenth of a paced event. If a codec has to wait, its own
        task goes on; and in that task is raised what fails.
        """
        lane = self._lane
        was = giver.state
        giver.switch(READY, now_ns)  # to go on: this line has the loop
        lane.switch(BUSY, now_ns)
        lane.origin_ns = giver.origin_ns
        first = lane.stages[0]
        first.batches_taken += 1
        first.events_taken += len(batch)
        lane.is_pushed = True
        forwarding = self._forward_last(batch)
        needs_task = True
        try:
            trap = forwarding.send(None)
            if trap is not OWN_TASK:
                forwarding.close()  # here, in the task that it was in: left to the collector, it would be in any
                raise RuntimeError("a codec that may be pushed has waited without `await lane.own_task()` before")
            self._pending = forwarding
        except StopIteration:
            needs_task = self._done_at >= 0
        except Exception as error:
            self._failure = error
        finally:
            lane.is_pushed = False
            giver.switch(was, lane.clock())
        if needs_task:
            assert isinstance(self._taker, Link)  # else nothing is pushed
            self._taker.wake()

    async def _forward_last(self, batch: list[Any]) -> None:
        """Push ``batch`` through. If that ends it, do the rest, so that no turn of the loop counts for this lane."""
        await self._forward(batch, 0)
        if self._done_at >= 0:
            await self._finish()
            self._is_finished = self._lane.is_closed = True

    async def _settle(self) -> None:
        """Go on with what was pushed and has to wait, or raise what it has failed with."""
        if (failure := self._failure) is not None:
            self._failure = None
            try:
                raise failure
            finally:
                del failure
        pending, self._pending = self._pending, None
        assert pending is not None  # else there was nothing to settle
        await _go_on(pending)

    async def _forward(self, batch: list[Any], position: int) -> None:
        """Push ``batch`` through the codecs from ``position`` on, and what comes out into the giver.

        The lane is busy. A codec that waits is charged by the lane; for the others, one clock read ends the work of one
        and begins that of the next.
        """
        lane = self._lane
        clock, since_ns = lane.clock, lane.since_ns
        lane.timeline.origin_ns = lane.origin_ns
        at = position
        for feed, times, is_waiting, ender, alarm, asker in self._steps[at:] if at else self._steps:
            try:
                if is_waiting:
                    lane.switch(BUSY, since_ns)
                    lane.stage = times
                    batch = await feed(batch, lane)
                    since_ns = clock()
                    lane.switch(BUSY, since_ns)
                    lane.stage = None
                else:
                    batch = feed(batch)
                    now_ns = clock()
                    worked_ns = now_ns - since_ns
                    times.busy_ns += worked_ns
                    if worked_ns > STAGE_TURN_NS:
                        lane.report(times, since_ns, worked_ns)
                    since_ns = now_ns
            except Exception as error:
                raise self._blame(error, times, since_ns)  # noqa: B904 - see there
            if ender is not None and ender.done and at > self._done_at:
                self._done_at = at
            if asker is not None and (asker.ticks or at in self._alarms):
                self._heed(at, asker, has_output=bool(batch))
            if not batch:
                break
            if alarm is not None and self._alarms:  # else it is stopped: this comes of a flush
                alarm.put_off()
            times.batches_out += 1
            times.events_out += len(batch)
            at += 1
        lane.switch(self._idle, since_ns)
        if batch and not self._giver.give_nowait(batch, lane, since_ns):
            await self._giver.give(batch, lane, since_ns)

    def _heed(self, at: int, asker: Any, *, has_output: bool) -> None:
        """Set, put off or stop the alarm of a codec that says when it wants one."""
        alarm = self._alarms.get(at)
        if not asker.ticks:
            self._alarms.pop(at).stop()
        elif alarm is None:
            self._set_alarm(at)
        elif has_output:
            alarm.put_off()

    def _set_alarm(self, at: int) -> None:
        tick_s = self._members[at].tick_s
        taker = self._taker
        if tick_s is not None and isinstance(taker, Link | PulledLink) and self._idle == STARVED:
            if isinstance(taker, PulledLink):
                taker.is_watched = True
            self._alarms[at] = Alarm(tick_s, taker.wake)

    async def _tick(self) -> None:
        """Ask the codecs that have given nothing for their interval."""
        lane = self._lane
        for at, alarm in list(self._alarms.items()):
            if not alarm.is_due():
                continue
            alarm.put_off()
            codec, (_, times, _, ender, _, asker) = self._codecs[at], self._steps[at]
            lane.stage = times
            try:
                batch = codec.tick()
            except Exception as error:
                raise blame(error, times.name)  # noqa: B904 - as in `_blame`
            lane.switch(BUSY, lane.clock())
            lane.stage = None
            if ender is not None and ender.done and at > self._done_at:
                self._done_at = at
            if asker is not None:
                self._heed(at, asker, has_output=False)
            if batch:
                times.batches_out += 1
                times.events_out += len(batch)
                lane.origin_ns = 0  # it came of no batch
                await self._forward(batch, at + 1)
                lane.switch(BUSY, lane.since_ns)
        lane.switch(STARVED, lane.since_ns)

    async def _finish(self) -> None:
        """Flush the codecs one after the other, each through the ones behind it.

        From one that is done on: nobody wants what is left in those before it.
        """
        lane = self._lane
        clock = lane.clock
        lane.begin_closing()
        self._idle = CLOSING
        since_ns = lane.since_ns
        for at, codec in enumerate(self._codecs):
            if at < self._done_at:
                continue
            _, times, is_waiting, *_ = self._steps[at]
            try:
                if is_waiting:
                    lane.switch(CLOSING, since_ns)
                    lane.stage = times
                    rest = await codec.flush(lane)
                    since_ns = clock()
                    lane.switch(CLOSING, since_ns)
                    lane.stage = None
                else:
                    rest = codec.flush()
                    now_ns = clock()
                    times.flush_ns += now_ns - since_ns
                    if now_ns - since_ns > STAGE_TURN_NS:
                        lane.report(times, since_ns, now_ns - since_ns)
                    since_ns = now_ns
            except Exception as error:
                raise self._blame(error, times, since_ns)  # noqa: B904 - see there
            if rest:
                times.batches_out += 1
                times.events_out += len(rest)
                lane.switch(BUSY, since_ns)
                lane.home = BUSY
                await self._forward(rest, at + 1)
                lane.home = CLOSING
                since_ns = lane.since_ns

    def _blame(self, error: Exception, times: StageTimes, since_ns: int) -> PipelineError:
        """Name the codec that failed, and let the lane charge it with its work and with what is left of this life.

        The error bears its cause; where it is raised, a name for it would make a cycle.
        """
        lane = self._lane
        if lane.stage is None:
            lane.switch(lane.state, since_ns)
            lane.stage = times
        return blame(error, times.name)

    def _stop_alarms(self) -> None:
        for alarm in self._alarms.values():
            alarm.stop()
        self._alarms.clear()


@types.coroutine
def _go_on(begun: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Await a coroutine that was begun elsewhere, and has asked for its own task."""
    yield from begun
