"""The stage protocol, and the short forms that make most stages a few lines long.

Three levels, the first that suffices: `per_event` (a function of one event), a `Codec` (state between events, no IO),
and a `Stage` with an async `run` (when it must wait for something other than its inlet and its outlet).
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from pipeline.alarm import Alarm
from pipeline.channel import EndOfInput, Inlet, Link, Outlet, Source, Woken
from pipeline.context import RequestContext
from pipeline.errors import PipelineError, blame
from pipeline.meter import Doing, Meter

In = TypeVar("In")
Out = TypeVar("Out")
New = TypeVar("New")

_BLOCKED: Final = int(Doing.BLOCKED)


class Stage(Protocol[In, Out]):
    """One step of a pipeline: an immutable value, built at start-up and shared by all requests.

    What belongs to one request lives in the locals of `run`, or in the context.
    """

    @property
    def name(self) -> str:
        """A verb phrase, unique in its pipeline: it is the file's name and the metric label."""
        ...

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        """Take batches from ``inlet`` and send batches to ``outlet`` until the inlet ends.

        Returning normally says that the output is complete; it closes the outlet. Waits for anything but the inlet
        and the outlet go in ``with outlet.meter.outside():``.

        Raises:
            PipelineError: a subclass that says whose fault it is. Anything else becomes a `StageBug`.
        """
        ...


class Codec(Protocol[In, Out]):
    """A pure, synchronous state machine: the sans-IO heart of a stage, one per request."""

    def feed(self, batch: list[In], /) -> list[Out]:
        """Give what can be given after this much input; how the input was batched changes nothing."""
        ...

    def flush(self) -> list[Out]:
        """Give what is left when the input is complete."""
        ...


class AsyncCodec(Protocol[In, Out]):
    """A codec that waits for the world, as a writer does; one per request, never fed by two tasks at once."""

    async def feed(self, batch: list[In], /) -> list[Out]:
        """Give what can be given after this much input; waits go in ``with meter.outside():``."""
        ...

    async def flush(self) -> list[Out]:
        """Give what is left when the input is complete."""
        ...


class TickingCodec(Codec[In, Out], Protocol[In, Out]):
    """A codec that also has something to say when nothing has come out of it for a while."""

    def tick(self) -> list[Out]:
        """Give what is to be given after a silence. Not called while a batch is on its way behind it."""
        ...


AnyCodec = Codec[Any, Any] | AsyncCodec[Any, Any]


class CodecStage(Generic[In, Out]):
    """A codec lifted into a stage; build it with `codec_stage`, `async_codec_stage`, `ticking_stage` or `per_event`.

    Attributes:
        name: the stage's name.
        open: makes the codec of one request, given its context and its meter.
        accepts, emits: item types where they are known, for the check at start-up; None is not checked.
        is_async: whether it is an `AsyncCodec`.
        tick_s: after how long a silence a `TickingCodec` is asked; None for the others.
    """

    __slots__ = ("accepts", "emits", "is_async", "name", "open", "tick_s")

    def __init__(
        self,
        name: str,
        open: Callable[[RequestContext, Meter], AnyCodec],
        *,
        accepts: object = None,
        emits: object = None,
        is_async: bool = False,
        tick_s: float | None = None,
    ) -> None:
        self.name = name
        self.open = open
        self.accepts = accepts
        self.emits = emits
        self.is_async = is_async
        self.tick_s = tick_s

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        """Feed every batch to a codec of this request's own, and flush it at the end."""
        await _Line((self,), ctx, [outlet.meter], outlet).run(inlet)

    def __repr__(self) -> str:
        return f"<stage {self.name}>"


def codec_stage(
    name: str, open: Callable[[RequestContext], Codec[In, Out]], *, accepts: object = None, emits: object = None
) -> CodecStage[In, Out]:
    """Make a stage of a codec; ``open`` is called once per request.

    ``accepts`` and ``emits`` are the item types, needed only by plugins: the registry checks them at start-up.
    """
    return CodecStage(name, lambda ctx, meter: open(ctx), accepts=accepts, emits=emits)


def async_codec_stage(
    name: str,
    open: Callable[[RequestContext, Meter], AsyncCodec[In, Out]],
    *,
    accepts: object = None,
    emits: object = None,
) -> CodecStage[In, Out]:
    """Make a stage of a codec that waits for the world; it declares its waits on the meter that it is given."""
    return CodecStage(name, open, accepts=accepts, emits=emits, is_async=True)


def ticking_stage(
    name: str,
    open: Callable[[RequestContext], TickingCodec[In, Out]],
    tick_s: float,
    *,
    accepts: object = None,
    emits: object = None,
) -> CodecStage[In, Out]:
    """Make a stage of a codec that is also asked after each ``tick_s`` seconds in which it has given nothing."""
    return CodecStage(name, lambda ctx, meter: open(ctx), accepts=accepts, emits=emits, tick_s=tick_s)


class _PerEvent(Generic[In, Out]):
    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[[In], Iterable[Out]]) -> None:
        self._fn = fn

    def feed(self, batch: list[In], /) -> list[Out]:
        fn = self._fn
        return [out for event in batch for out in fn(event)]

    def flush(self) -> list[Out]:
        return []


def per_event(fn: Callable[[In], Iterable[Out]]) -> CodecStage[In, Out]:
    """Turn a function of one event, giving any number of events, into a stage of the same name.

    The function keeps nothing between events. If it must (text that is split over two deltas, a count), write a
    codec. Its annotations become the stage's item types.
    """
    codec = _PerEvent(fn)
    accepts, emits = _annotated_types(fn)
    return CodecStage(fn.__name__, lambda ctx, meter: codec, accepts=accepts, emits=emits)


def _annotated_types(fn: Callable[..., object]) -> tuple[object, object]:
    """Read ``(event: A) -> Iterator[B]`` as (A, B); None where it does not say."""
    try:
        hints = typing.get_type_hints(fn)
    except NameError:  # an annotation that exists for type checkers only
        return None, None
    gives = typing.get_args(hints.pop("return", None))
    takes = list(hints.values())
    return (takes[0] if takes else None), (gives[0] if gives else None)


class FusedStage(Generic[In, Out]):
    """Neighbouring codec stages run in one task; build it with `fuse`. The results are the same.

    Each member keeps its meter. There is no queue between members: one that is not at work is starved while the
    task waits for input or another member works, and blocked while the task waits for room.

    Attributes:
        codecs: the members.
        member_names: their names, in order.
    """

    __slots__ = ("codecs", "member_names", "name")

    def __init__(self, codecs: tuple[CodecStage[Any, Any], ...]) -> None:
        self.codecs = codecs
        self.member_names = tuple(codec.name for codec in codecs)
        self.name = "+".join(self.member_names)

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        """Run inside another stage: its meter has the whole."""
        await self.line(outlet, ctx, [outlet.meter] * len(self.codecs)).run(inlet)

    def line(self, outlet: Outlet[Out], ctx: RequestContext, meters: list[Meter]) -> _Line:
        """Open the codecs of one request; ``meters`` has one for each, the ends' being the inlet's and the outlet's."""
        return _Line(self.codecs, ctx, meters, outlet)


class _Line:
    """The codecs of one request in a row, in one task.

    Only one of them works at a time, so one clock read ends the work of one and begins that of the next. Their meters
    rest meanwhile, and the work is summed beside (`Meter.worked_ns`); only a codec that waits for the world has its
    meter switched, because it switches it too.
    """

    __slots__ = ("_alarms", "_clock", "_codecs", "_is_closing", "_members", "_meters", "_outlet")

    def __init__(
        self,
        members: tuple[CodecStage[Any, Any], ...],
        ctx: RequestContext,
        meters: list[Meter],
        outlet: Outlet[Any],
    ) -> None:
        self._members = members
        self._meters = meters
        self._outlet = outlet
        self._alarms: dict[int, Alarm] = {}  # those of the members that tick, by position
        self._is_closing = False
        self._codecs: list[Any] = []
        self._clock = clock = outlet.meter.clock
        since_ns = meters[0].rest()
        for at, member in enumerate(members):
            meter = meters[at]
            try:
                self._codecs.append(member.open(ctx, meter))
            except Exception as error:
                raise self._blame(error, at, since_ns)  # noqa: B904 - see there
            now_ns = clock()
            meter.worked_ns += now_ns - since_ns
            since_ns = now_ns

    async def run(self, inlet: Inlet[Any]) -> None:
        """Take batches from ``inlet``, and push them through."""
        link, alarms = inlet.link, self._alarms
        for at, member in enumerate(self._members):
            if member.tick_s is not None:
                if isinstance(link, Source):
                    return await self._run_behind_pump(link, inlet.meter)
                alarms[at] = Alarm(member.tick_s, link.wake)
        clock, meter = self._clock, self._meters[0]
        try:
            while True:
                offered_ns, batch = 0, None  # let go of the last one: it may hold 64 KiB, and the wait be long
                try:
                    offered_ns, batch = await link.take()
                except EndOfInput:
                    break
                except Woken:
                    pass  # ticks outside of the handler: what they raise has nothing to do with this
                if batch is None:
                    await self._tick()
                    continue
                taken_ns = clock()
                meter.queued_ns += taken_ns - offered_ns
                meter.batches_in += 1
                meter.events_in += len(batch)
                await self._forward(batch, 0, taken_ns)
        finally:
            for alarm in alarms.values():
                alarm.stop()
            alarms.clear()
        await self._finish()

    async def _run_behind_pump(self, source: Source[Any], meter: Meter) -> None:
        """Run on a link, from which an alarm can wake: a task of its own moves the batches from the source to there."""
        link: Link[Any] = Link(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, source, link)
            await self.run(Inlet(link, meter))
            nursery.cancel_scope.cancel()

    async def _forward(self, batch: list[Any], position: int, since_ns: int) -> None:
        """Push ``batch`` through the codecs from ``position`` on, and what comes out into the outlet.

        The work of the first begins at ``since_ns``.
        """
        clock, members, codecs, meters, alarms = self._clock, self._members, self._codecs, self._meters, self._alarms
        for at in range(position, len(codecs)):
            member, meter = members[at], meters[at]
            if at and (giver := meters[at - 1]) is not meter:  # the inlet's batches and the outlet's are counted there
                size = len(batch)
                giver.batches_out += 1
                giver.events_out += size
                meter.batches_in += 1
                meter.events_in += size
            try:
                if member.is_async:
                    meter.enter(meter.home)
                    batch = await codecs[at].feed(batch)
                    since_ns = meter.rest()
                else:
                    batch = codecs[at].feed(batch)
                    now_ns = clock()
                    meter.worked_ns += now_ns - since_ns
                    since_ns = now_ns
            except Exception as error:
                raise self._blame(error, at, since_ns)  # noqa: B904 - see there
            if not batch:
                return
            if at in alarms:
                alarms[at].put_off()
        outlet = self._outlet
        size = len(batch)  # the consumer may change the batch as soon as it has it
        if outlet.link.give_nowait(since_ns, batch):
            outlet.meter.batches_out += 1
            outlet.meter.events_out += size
            return
        if not self._is_closing:
            for meter in meters:
                meter.enter(_BLOCKED)
        await outlet.wait_and_send(batch)
        for meter in meters:
            meter.rest()

    async def _tick(self) -> None:
        """Ask the codecs that have given nothing for their interval."""
        for at, alarm in self._alarms.items():
            if alarm.is_due():
                alarm.put_off()
                since_ns = self._clock()
                try:
                    batch = self._codecs[at].tick()
                except Exception as error:
                    raise self._blame(error, at, since_ns)  # noqa: B904 - see there
                now_ns = self._clock()
                self._meters[at].worked_ns += now_ns - since_ns
                if batch:
                    await self._forward(batch, at + 1, now_ns)

    async def _finish(self) -> None:
        """Flush the codecs one after the other, each through the ones behind it."""
        for meter in self._meters:
            meter.begin_closing()
        self._is_closing = True
        for at, (member, codec) in enumerate(zip(self._members, self._codecs, strict=True)):
            try:
                rest = await codec.flush() if member.is_async else codec.flush()
            except Exception as error:
                raise blame(error, member.name)  # noqa: B904 - it bears its cause; a name for it would make a cycle
            if rest:
                await self._forward(rest, at + 1, self._clock())

    def _blame(self, error: Exception, at: int, since_ns: int) -> PipelineError:
        """Charge the codec that failed with its work until now, and name it.

        The error bears its cause; where it is raised, a name for it would make a cycle.
        """
        member, meter = self._members[at], self._meters[at]
        if not member.is_async:
            meter.worked_ns += self._clock() - since_ns
        return blame(error, member.name)


async def _pump(source: Source[Any], link: Link[Any]) -> None:
    """Move batches until there are no more."""
    try:
        while True:
            offered_ns, batch = await source.take()
            if not link.give_nowait(offered_ns, batch):
                await link.give(offered_ns, batch)
    except EndOfInput:
        link.complete()


def fuse(
    first: CodecStage[In, New], second: CodecStage[New, Out], /, *more: CodecStage[Any, Any]
) -> FusedStage[In, Any]:
    """Join neighbouring codec stages into one task, one meter per stage kept.

    It saves a channel hop per batch and a task per request for each member but the first; it costs the queues between
    them, so one member cannot work ahead of the next.
    """
    return FusedStage((first, second, *more))
