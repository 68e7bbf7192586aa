"""The stage protocol, and the short forms that make most stages a few lines long.

Three levels, the first that suffices: `per_event` (a function of one event), a `Codec` (state between events, no IO),
and a `Stage` with an async `run` (when it must wait for something other than its inlet and its outlet).
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from pipeline.channel import Inlet, Outlet
from pipeline.context import RequestContext
from pipeline.errors import blame
from pipeline.meter import Doing, Meter

In = TypeVar("In")
Out = TypeVar("Out")
New = TypeVar("New")

_BLOCKED: Final = Doing.BLOCKED


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
    """A stage and the codec stages behind it run in one task; build it with `fuse`. The results are the same.

    Each member keeps its meter. There is no queue between members: one that is not at work is starved while the
    task waits for input or another member works, and blocked while the task waits for room.

    Attributes:
        head: the first member, if it is not a codec stage.
        codecs: the other members.
    """

    __slots__ = ("codecs", "head", "name")

    def __init__(self, head: Stage[Any, Any] | None, codecs: tuple[CodecStage[Any, Any], ...]) -> None:
        self.head = head
        self.codecs = codecs
        self.name = "+".join(self.member_names)

    @property
    def member_names(self) -> tuple[str, ...]:
        """The names of all members in order."""
        names = tuple(codec.name for codec in self.codecs)
        return names if self.head is None else (self.head.name, *names)

    async def run(self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext) -> None:
        """Run inside another stage: its meter has the whole, and nobody reads those of the members."""
        await self.run_metered(inlet, outlet, ctx, [Meter(name) for name in self.member_names])

    async def run_metered(
        self, inlet: Inlet[In], outlet: Outlet[Out], ctx: RequestContext, meters: list[Meter]
    ) -> None:
        """Run all members; ``meters`` has one for each. In a pipeline the ends' are the inlet's and the outlet's."""
        if self.head is None:
            await _Line(self.codecs, ctx, meters, outlet).run(inlet)
        else:
            line = _Line(self.codecs, ctx, meters[1:], outlet)
            await line.run_behind(self.head, inlet, ctx, meters[0])


class _Line:
    """The codecs of one request in a row, in one task, each working on its own meter."""

    __slots__ = ("_codecs", "_given_s", "_is_closing", "_is_working", "_members", "_meters", "_outlet", "_tick_ended")

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
        self._codecs: list[Any] = []
        for member, meter in zip(members, meters, strict=True):
            meter.resume()
            try:
                self._codecs.append(member.open(ctx, meter))
            except Exception as error:
                raise blame(error, member.name)  # noqa: B904 - it bears its cause; a name for it would make a cycle
            meter.rest()
        # Only for members that tick: when each of them last gave something, and who is at work.
        self._given_s = {at: trio.current_time() for at, member in enumerate(members) if member.tick_s is not None}
        self._is_working = self._is_closing = False
        self._tick_ended: trio.Event | None = None

    async def run(self, inlet: Inlet[Any]) -> None:
        """Take batches from ``inlet``, and push them through."""
        if self._given_s:
            await self._beside_ticks(self._take_all, inlet)
        else:
            await self._take_all(inlet)

    async def run_behind(self, head: Stage[Any, Any], inlet: Inlet[Any], ctx: RequestContext, meter: Meter) -> None:
        """Run ``head`` on ``inlet``, and push through what it gives."""
        relay = _Relay(self, meter)

        async def run_head() -> None:
            meter.resume()
            await head.run(inlet, relay, ctx)
            meter.begin_closing()
            await self._finish()

        if self._given_s:
            await self._beside_ticks(run_head)
        else:
            await run_head()

    async def push(self, batch: list[Any]) -> None:
        """Feed ``batch`` to the first codec, what comes out to the next, and the result to the outlet."""
        if not self._given_s:
            await self._forward(batch, 0)
            return
        if self._tick_ended is not None:
            await self._tick_ended.wait()
        self._is_working = True
        await self._forward(batch, 0)
        self._is_working = False

    async def _take_all(self, inlet: Inlet[Any]) -> None:
        async for batch in inlet:
            await self.push(batch)
        await self._finish()

    async def _finish(self) -> None:
        """Flush the codecs one after the other, each through the ones behind it."""
        for meter in self._meters:
            meter.begin_closing()
        self._is_closing = self._is_working = True  # no ticks from here on
        for at, (member, codec) in enumerate(zip(self._members, self._codecs, strict=True)):
            try:
                rest = await codec.flush() if member.is_async else codec.flush()
            except Exception as error:
                raise blame(error, member.name)  # noqa: B904 - it bears its cause; a name for it would make a cycle
            if rest:
                await self._forward(rest, at + 1)

    async def _forward(self, batch: list[Any], position: int) -> None:
        """Push ``batch`` through the codecs from ``position`` on, and what comes out into the outlet."""
        codecs, meters = self._codecs, self._meters
        for at in range(position, len(codecs)):
            meter = meters[at]
            meter.resume()
            if at:  # the inlet has counted for the first, the outlet will count for the last
                count_hand_over(meters[at - 1], meter, batch)
            member = self._members[at]
            try:
                batch = await codecs[at].feed(batch) if member.is_async else codecs[at].feed(batch)
            except Exception as error:
                raise blame(error, member.name)  # noqa: B904 - it bears its cause; a name for it would make a cycle
            meter.rest()
            if not batch:
                return
            if member.tick_s is not None:
                self._given_s[at] = trio.current_time()
        if self._outlet.offer(batch):
            meters[-1].rest()
            return
        if not self._is_closing:
            for meter in meters:
                meter.enter(_BLOCKED)
        await self._outlet.send(batch)
        for meter in meters:
            meter.rest()

    async def _beside_ticks(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        async with trio.open_nursery() as nursery:
            for at in self._given_s:
                nursery.start_soon(self._tick, at)
            await work(*arguments)
            nursery.cancel_scope.cancel()

    async def _tick(self, at: int) -> None:
        """Ask codec ``at`` for something to say whenever it has given nothing for its interval."""
        interval_s = self._members[at].tick_s or 0.0
        while True:
            await trio.sleep_until(self._given_s[at] + interval_s)
            now = trio.current_time()
            if now < self._given_s[at] + interval_s:
                continue
            self._given_s[at] = now
            if self._is_working or self._tick_ended is not None:
                continue  # something is on its way, perhaps to a client that does not read
            self._tick_ended = trio.Event()
            meter = self._meters[at]
            meter.resume()
            batch = self._codecs[at].tick()
            meter.rest()
            if batch:
                await self._forward(batch, at + 1)
            self._tick_ended.set()
            self._tick_ended = None


class _Relay(Outlet[Any]):
    """The outlet of a fused head: it has the codecs behind it work at once, in the head's own task."""

    __slots__ = ("_line",)

    def __init__(self, line: _Line, meter: Meter) -> None:
        self._line = line
        self.meter = meter

    async def send(self, batch: list[Any]) -> None:
        """Push the batch through; the head is starved meanwhile, as it is when another stage's task runs."""
        if batch:
            count_hand_over(self.meter, self._line._meters[0], batch)  # pyright: ignore[reportPrivateUsage] # one module
            self.meter.rest()
            await self._line.push(batch)
            self.meter.resume()

    def offer(self, batch: list[Any]) -> bool:
        """Refuse: what is behind may have to wait."""
        return not batch


def count_hand_over(giver: Meter, taker: Meter, batch: list[Any]) -> None:
    """Count a batch that goes from one stage to the next without a link."""
    size = len(batch)
    giver.batches_out += 1
    giver.events_out += size
    taker.batches_in += 1
    taker.events_in += size


def fuse(first: Stage[In, New], second: CodecStage[New, Out], /, *more: CodecStage[Any, Any]) -> FusedStage[In, Any]:
    """Join a stage and the codec stages behind it into one task, one meter per stage kept.

    It saves a channel hop per batch and a task per request for each member but the first; it costs the queues between
    them, so one member cannot work ahead of the next.
    """
    if isinstance(first, CodecStage):
        return FusedStage(None, (first, second, *more))
    return FusedStage(first, (second, *more))
