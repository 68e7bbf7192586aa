"""The stage protocol, and the short forms that make most stages a few lines long.

Three levels, the first that suffices: `per_event` (a function of one event), a `Codec` (state between events, no IO),
and a `Stage` with an async `run` (when it must wait for something other than its inlet and its outlet).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Any, Generic, Protocol, TypeVar, overload

from pipeline.channel import Inlet, Outlet
from pipeline.context import RequestContext
from pipeline.lane import Lane
from pipeline.line import CodecStage

In = TypeVar("In")
Out = TypeVar("Out")


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
        and the outlet go in ``with outlet.outside():``.

        Raises:
            PipelineError: a subclass that says whose fault it is. Anything else becomes a `StageBug`.
        """
        ...


class Codec(Protocol[In, Out]):
    """A pure, synchronous state machine: the sans-IO heart of a stage, one per request.

    Its class may also declare:

    - ``done: bool``: true after a `feed` that ends its input. It is flushed, and the stages before it are stopped.
    - ``tick(self) -> list[Out]``: what is to be given after a silence of ``tick_s``, in which nothing has come out of
      it. Not called while a batch is on its way behind it.
    - ``ticks: bool``: false while a silence means nothing to it; it is not asked then.
    - ``close(self, outcome: Outcome) -> None``: told how the run ended, exactly once, when all of its stages have,
      even if the request failed or was cancelled. Then `flush` may not have been called. It must not wait.
    - ``skip(self) -> list[Out]``: what it has taken and not given; it changes nothing. For a stage that is configured
      with ``on_error: skip``: it is called before each event, and if `feed` fails at that one, the request goes on with
      what it returned, then the event itself, and without the codec. One that holds no output returns [].
    """

    def feed(self, batch: list[In], /) -> list[Out]:
        """Return what can be given after this much input; how the input was batched changes nothing."""
        ...

    def flush(self) -> list[Out]:
        """Return what is left when the input is complete."""
        ...


class WaitingCodec(Protocol[In, Out]):
    """A codec that waits for the world, as a writer does; one per request, never fed by two tasks at once.

    If its class says ``may_be_pushed = True``, and it awaits ``lane.own_task()`` before the first wait in each call,
    what needs no wait is done at once, in the task of whoever gives it a batch.

    Its class may declare ``done`` and ``close`` as well, but no ``tick``.
    """

    async def feed(self, batch: list[In], lane: Lane, /) -> list[Out]:
        """Return what can be given after this much input; waits go in ``with lane.outside():``."""
        ...

    async def flush(self, lane: Lane, /) -> list[Out]:
        """Return what is left when the input is complete."""
        ...


@overload
def codec_stage(
    name: str,
    open: Callable[[RequestContext], Codec[In, Out]],
    *,
    codec: type | None = None,
    accepts: object = None,
    emits: object = None,
    tick_s: float | None = None,
) -> CodecStage[In, Out]: ...
@overload
def codec_stage(
    name: str,
    open: Callable[[RequestContext], WaitingCodec[In, Out]],
    *,
    codec: type | None = None,
    accepts: object = None,
    emits: object = None,
) -> CodecStage[In, Out]: ...
def codec_stage(
    name: str,
    open: Callable[[RequestContext], Any],
    *,
    codec: type | None = None,
    accepts: object = None,
    emits: object = None,
    tick_s: float | None = None,
) -> CodecStage[Any, Any]:
    """Make a stage of a codec.

    Whether the codec waits or ticks, and its item types, are read from its class: ``open`` itself, or what ``open`` is
    annotated to return.

    Args:
        name: the stage's name.
        open: makes the codec of one request; called once per request.
        codec: the codec's class, if ``open`` is a function without that annotation, such as a lambda.
        accepts, emits: the item types, if the annotations of ``feed`` do not say; the registry checks them at start-up.
        tick_s: after how many seconds of silence ``tick`` is called.

    Raises:
        TypeError: if the class is not known, or is not a codec's; the message says what is missing.
    """
    kind = codec or (open if isinstance(open, type) else hints_of(open).get("return"))
    if not isinstance(kind := typing.get_origin(kind) or kind, type):
        raise TypeError(
            f"stage {name!r}: its codec is not known: annotate what `open` returns, or pass the class as codec="
        )
    feed, flush = (_method(name, kind, method) for method in ("feed", "flush"))
    try:
        inspect.signature(open).bind(None)
    except TypeError:
        raise TypeError(f"stage {name!r}: `open` must take one argument, the request's context") from None
    is_waiting = inspect.iscoroutinefunction(feed)
    if is_waiting != inspect.iscoroutinefunction(flush):
        raise TypeError(f"stage {name!r}: feed and flush of {kind.__name__} must both be async, or neither")
    if (tick_s is not None) != hasattr(kind, "tick"):
        has, lacks = ("a tick", "tick_s=") if tick_s is None else ("tick_s=", "a method tick")
        raise TypeError(f"stage {name!r}: {kind.__name__} has {has}, so give it {lacks} too")
    if tick_s is not None and (is_waiting or inspect.iscoroutinefunction(_method(name, kind, "tick"))):
        raise TypeError(f"stage {name!r}: {kind.__name__} ticks, so neither its feed nor its tick may be async")
    if has_close := hasattr(kind, "close"):
        close = _method(name, kind, "close")
        if inspect.iscoroutinefunction(close):
            raise TypeError(f"stage {name!r}: close of {kind.__name__} must not be async: the request is over")
    hints = hints_of(feed)
    gives = _item_of(hints.pop("return", None))
    takes = _item_of(next(iter(hints.values()), None))
    return CodecStage(
        name,
        open,
        accepts=takes if accepts is None else accepts,
        emits=gives if emits is None else emits,
        is_waiting=is_waiting,
        may_be_pushed=bool(getattr(kind, "may_be_pushed", False)),
        tick_ends=bool(getattr(kind, "tick_ends", False)),
        has_done=_declares(kind, "done"),
        has_ticks=_declares(kind, "ticks"),
        has_close=has_close,
        has_skip=callable(getattr(kind, "skip", None)),
        tick_s=tick_s,
    )


def _method(stage: str, kind: type, method: str) -> Any:
    if not callable(found := getattr(kind, method, None)):
        raise TypeError(f"stage {stage!r}: {kind.__name__} is not a codec: it has no method {method}")
    return found


def _declares(kind: type, name: str) -> bool:
    """Return whether instances of a class have an attribute, as far as the class says."""
    return hasattr(kind, name) or any(name in vars(base).get("__annotations__", {}) for base in kind.__mro__)


def hints_of(fn: Any) -> dict[str, Any]:
    """Return the annotations of a function; none if some exist for type checkers only, or it is not a function."""
    try:
        return typing.get_type_hints(fn)
    except (NameError, TypeError):
        return {}


def _item_of(hint: Any) -> object:
    """Return T of ``list[T]`` and of ``Iterable[T]``; None if there is no T."""
    return next(iter(typing.get_args(hint)), None)


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

    Raises:
        TypeError: if the function is async, or is annotated to return something else than several events.
    """
    hints = hints_of(fn)
    returned = hints.pop("return", None)
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{fn.__name__} must not be async: what waits needs a class with an async `run`")
    kind = typing.get_origin(returned) or returned
    if (
        returned is type(None)
        or kind in (typing.Union, UnionType)
        or (isinstance(kind, type) and not issubclass(kind, Iterable))
    ):
        raise TypeError(
            f"{fn.__name__} is annotated to return one thing, but gives any number of events: yield them "
            "(-> Iterator[...]), or return a list"
        )
    codec = _PerEvent(fn)
    return CodecStage(
        fn.__name__,
        lambda ctx: codec,
        accepts=next(iter(hints.values()), None),
        emits=_item_of(returned),
        holds_nothing=True,
    )
