"""The short forms of a stage: per_event and codec_stage, and what they read from a function or a class."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pytest
import trio.testing
from kit.engine.stages import Machine, machine, pass_on

from pipeline import Codec, Lane, Pipeline, RequestContext, Slot, StageBug, WaitingCodec, codec_stage, per_event
from pipeline.line import CodecStage
from pipeline.testing import check_stage, collect

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")

LIMIT: Slot[int] = Slot("limit")


class Windows:
    """Sums windows of ``size`` numbers; an incomplete window is summed at the end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: list[int] = []

    def feed(self, batch: list[int], /) -> list[float]:
        self.held += batch
        given: list[float] = []
        while len(self.held) >= self.size:
            given.append(sum(self.held[: self.size]))
            del self.held[: self.size]
        return given

    def flush(self) -> list[float]:
        return [sum(self.held)] if self.held else []


# per_event


async def test_a_function_of_one_event_becomes_a_stage_of_its_name() -> None:
    @per_event
    def shout(text: str) -> Iterator[str]:
        if text:
            yield text.upper()

    assert shout.name == "shout"
    assert repr(shout) == "<stage shout>"
    assert await collect(shout, "a", "", "b") == ["A", "B"]


async def test_a_function_may_return_any_iterable_for_an_event() -> None:
    @per_event
    def spread(number: int) -> Iterable[int]:
        return range(number)

    assert await collect(spread, 0, 1, 3, batches_of=3) == [0, 0, 1, 2]


def test_a_per_event_stage_passes_every_check() -> None:
    @per_event
    def double(number: int) -> Iterator[int]:
        yield 2 * number

    assert check_stage(double, 1, 2, 3) == [2, 4, 6]


def test_the_annotations_are_the_item_types() -> None:
    @per_event
    def parse(text: str | bytes) -> Iterator[int | float]:
        yield float(text)

    assert parse.accepts == str | bytes
    assert parse.emits == int | float


def test_what_is_not_annotated_is_not_checked() -> None:
    def bare(event):  # type: ignore[no-untyped-def]
        return [event]

    def vague(event: int) -> Iterable:  # type: ignore[type-arg]
        return [event]

    def half(event: Decimal) -> Iterator[int]:
        yield int(event)

    assert (per_event(bare).accepts, per_event(bare).emits) == (None, None)
    assert (per_event(vague).accepts, per_event(vague).emits) == (int, None)
    # Decimal is imported for type checkers only.
    assert (per_event(half).accepts, per_event(half).emits) == (None, None)


async def test_a_function_that_returns_none_is_a_bug_whose_cause_says_so() -> None:
    @per_event
    def forget(number: int) -> Iterator[int]:
        return None  # type: ignore[return-value]

    with pytest.raises(StageBug) as failed:
        await collect(forget, 1)
    assert failed.value.stage == "forget"
    assert "not iterable" in str(failed.value.__cause__)


# codec_stage


async def test_every_request_has_a_codec_of_its_own() -> None:
    stage = codec_stage("sum_windows", lambda ctx: Windows(2), codec=Windows)
    assert await collect(stage, 1, 2, 3) == [3, 3]
    assert await collect(stage, 1, 2, 3) == [3, 3]


async def test_a_codec_may_read_the_context_when_it_opens() -> None:
    stage = codec_stage("sum_windows", lambda ctx: Windows(ctx[LIMIT]), codec=Windows)
    ctx = RequestContext("r1")
    ctx[LIMIT] = 3
    assert await Pipeline(stage).run([[1, 2], [3, 4]], ctx) == [6, 4]


def test_a_codec_passes_every_check() -> None:
    stage = codec_stage("sum_windows", lambda ctx: Windows(2), codec=Windows)
    assert check_stage(stage, 1, 2, 3, 4, 5) == [3, 7, 5]


async def test_a_codec_is_opened_before_input_arrives() -> None:
    opened: list[str] = []

    async def source() -> AsyncIterator[list[int]]:
        await trio.testing.wait_all_tasks_blocked()
        opened.append("input")
        yield [1]

    def open(ctx: RequestContext) -> Machine:
        opened.append("codec")
        return Machine(pass_on, list)

    await Pipeline(codec_stage("pass_on", open)).run(source(), RequestContext("r1"))
    assert opened == ["codec", "input"]


# What codec_stage reads from a codec's class.


class Words:
    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    def feed(self, batch: list[str], /) -> list[bytes]:
        return [text.encode() for text in batch]

    def flush(self) -> list[bytes]:
        return []


class PatientWords(Words):
    def tick(self) -> list[bytes]:
        return [b"."]


class Writer:
    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    async def feed(self, batch: list[bytes | str], lane: Lane, /) -> list[int]:
        return [len(batch)]

    async def flush(self, lane: Lane, /) -> list[int]:
        return []


class Held(Generic[T]):
    """A codec of any type."""

    def __init__(self, ctx: RequestContext) -> None:
        self.held: list[T] = []

    def feed(self, batch: list[T], /) -> list[T]:
        self.held += batch
        return []

    def flush(self) -> list[T]:
        return self.held


def shape(stage: CodecStage[Any, Any]) -> tuple[object, object, bool, float | None]:
    return stage.accepts, stage.emits, stage.is_waiting, stage.tick_s


def open_words(ctx: RequestContext) -> Words:
    return Words(ctx)


class Opening:
    """Its method opens codecs."""

    def open(self, ctx: RequestContext, more: int = 0) -> Words:
        return Words(ctx)


@pytest.mark.parametrize(
    "stage",
    [
        codec_stage("words", Words),
        codec_stage("words", open_words),
        codec_stage("words", Opening().open),
        codec_stage("words", lambda ctx: Words(ctx), codec=Words),
        codec_stage("words", functools.partial(Words), codec=Words),
    ],
    ids=["class", "function", "method", "lambda", "partial"],
)
async def test_the_shape_is_that_of_the_class_however_it_is_known(stage: CodecStage[str, bytes]) -> None:
    assert shape(stage) == (str, bytes, False, None)
    assert stage.name == "words"
    assert await collect(stage, "a", "b") == [b"a", b"b"]


async def test_a_class_with_async_methods_makes_a_waiting_stage() -> None:
    stage = codec_stage("write", Writer)
    assert shape(stage) == (bytes | str, int, True, None)
    assert await collect(stage, b"a", b"b", batches_of=2) == [2]


def test_a_class_with_a_tick_makes_a_ticking_stage() -> None:
    stage = codec_stage("words", PatientWords, tick_s=15)
    assert shape(stage) == (str, bytes, False, 15)
    assert check_stage(stage, "a", "b") == [b"a", b"b"]


class EndsItself(Words):
    done: bool


class EndsBySlot(Words):
    __slots__ = ("done",)


class EndsByDefault(Words):
    done = False


class EndsByProperty(Words):
    @property
    def done(self) -> bool:
        return True


class EndsLikeItsBase(EndsItself):
    """Declares nothing itself."""


class EndsWhileItWrites(Writer):
    done: bool


class TicksAtTimes(PatientWords):
    ticks = False


@pytest.mark.parametrize(
    ("kind", "has_done", "has_ticks"),
    [
        (Words, False, False),
        (EndsItself, True, False),
        (EndsBySlot, True, False),
        (EndsByDefault, True, False),
        (EndsByProperty, True, False),
        (EndsLikeItsBase, True, False),
        (EndsWhileItWrites, True, False),
        (TicksAtTimes, False, True),
    ],
)
def test_what_a_codec_may_have_is_what_its_class_declares(kind: Any, has_done: bool, has_ticks: bool) -> None:
    stage = codec_stage("words", kind, tick_s=1) if has_ticks else codec_stage("words", kind)
    assert (stage.has_done, stage.has_ticks) == (has_done, has_ticks)


def test_the_class_that_is_passed_counts_more_than_the_annotation() -> None:
    def open(ctx: RequestContext) -> Words:
        return PatientWords(ctx)

    assert shape(codec_stage("words", open, codec=PatientWords, tick_s=1)) == (str, bytes, False, 1)


def test_item_types_that_are_passed_count_more_than_the_annotations() -> None:
    assert shape(codec_stage("words", Words, accepts=object)) == (object, bytes, False, None)
    assert shape(codec_stage("words", Words, emits=object)) == (str, object, False, None)


def test_a_type_variable_stays_one_and_an_annotation_for_type_checkers_is_not_known() -> None:
    class Money:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        def feed(self, batch: list[Decimal], /) -> list[int]:
            return []

        def flush(self) -> list[int]:
            return []

    class Bare:
        def __init__(self, ctx: RequestContext) -> None:
            self.request_id = ctx.request_id

        def feed(self, batch, /):  # type: ignore[no-untyped-def]
            return batch

        def flush(self):  # type: ignore[no-untyped-def]
            return []

    assert shape(codec_stage("hold", Held)) == (T, T, False, None)
    assert shape(codec_stage("money", Money)) == (None, None, False, None)
    assert shape(codec_stage("bare", Bare)) == (None, None, False, None)


async def test_the_annotation_may_be_a_protocol_or_a_class_of_a_type() -> None:
    def open_codec(ctx: RequestContext) -> Codec[str, bytes]:
        return Words(ctx)

    def open_waiting(ctx: RequestContext) -> WaitingCodec[bytes | str, int]:
        return Writer(ctx)

    def open_held(ctx: RequestContext) -> Held[str]:
        return Held(ctx)

    assert not codec_stage("words", open_codec).is_waiting
    assert codec_stage("write", open_waiting).is_waiting
    assert await collect(codec_stage("write", open_waiting), "a") == [1]
    assert await collect(codec_stage("hold", open_held), "a", "b") == ["a", "b"]


# What codec_stage refuses.


class NeverFlushes:
    def __init__(self, ctx: RequestContext) -> None:
        self.request_id = ctx.request_id

    def feed(self, batch: list[str], /) -> list[str]:
        return batch


class FlushIsAFigure(NeverFlushes):
    flush = 3


class WaitsToFeed(NeverFlushes):
    async def flush(self) -> list[str]:
        return []


class WaitsToTick(Words):
    async def tick(self) -> list[bytes]:
        return []


class WritesAndTicks(Writer):
    def tick(self) -> list[int]:
        return []


class TickIsAFigure(Words):
    tick = 3


class TakesNothing(Words):
    def __init__(self) -> None:
        self.request_id = "none"


class Feeds(Protocol):
    def feed(self, batch: list[str], /) -> list[str]: ...


def open_anything(ctx: RequestContext):  # type: ignore[no-untyped-def]
    return Words(ctx)


def open_later(ctx: RequestContext) -> Decimal:
    raise NotImplementedError


def open_one_of_two(ctx: RequestContext) -> Words | Writer:
    return Words(ctx)


def open_what_feeds(ctx: RequestContext) -> Feeds:
    return Words(ctx)  # type: ignore[return-value]


UNKNOWN = "its codec is not known: annotate what `open` returns, or pass the class as codec="


@pytest.mark.parametrize(
    ("open", "options", "message"),
    [
        (lambda ctx: Words(ctx), {}, UNKNOWN),
        (functools.partial(Words), {}, UNKNOWN),
        (open_anything, {}, UNKNOWN),
        (open_later, {}, UNKNOWN),  # its annotation is imported for type checkers only
        (open_one_of_two, {}, "UnionType is not a codec: it has no method feed"),
        (TakesNothing, {}, "`open` must take one argument, the request's context"),
        (lambda: Words, {"codec": Words}, "`open` must take one argument, the request's context"),
        (lambda ctx, meter: Words(ctx), {"codec": Words}, "`open` must take one argument, the request's context"),
        (NeverFlushes, {}, "NeverFlushes is not a codec: it has no method flush"),
        (FlushIsAFigure, {}, "FlushIsAFigure is not a codec: it has no method flush"),
        (open_what_feeds, {}, "Feeds is not a codec: it has no method flush"),
        (dict, {"codec": dict}, "dict is not a codec: it has no method feed"),
        (WaitsToFeed, {}, "feed and flush of WaitsToFeed must both be async, or neither"),
        (PatientWords, {}, "PatientWords has a tick, so give it tick_s= too"),
        (Words, {"tick_s": 3}, "Words has tick_s=, so give it a method tick too"),
        (WaitsToTick, {"tick_s": 3}, "WaitsToTick ticks, so neither its feed nor its tick may be async"),
        (WritesAndTicks, {"tick_s": 3}, "WritesAndTicks ticks, so neither its feed nor its tick may be async"),
        (TickIsAFigure, {"tick_s": 3}, "TickIsAFigure is not a codec: it has no method tick"),
    ],
)
def test_what_is_not_a_codec_is_refused_at_start_up_with_what_is_missing(
    open: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError) as refused:
        codec_stage("words", open, **options)
    assert str(refused.value) == f"stage 'words': {message}"


def test_a_machine_of_the_kit_is_a_codec() -> None:
    assert check_stage(machine("double", lambda batch: [2 * number for number in batch]), 1, 2, 3) == [2, 4, 6]


async def waits(event: int) -> list[int]:
    return [event]


def gives_one(event: int) -> int:
    return event


def gives_nothing(event: int) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (waits, "must not be async"),
        (gives_one, "is annotated to return one thing"),
        (gives_nothing, "return one thing"),
    ],
)
def test_a_function_of_one_event_gives_several_and_does_not_wait(function: Any, fault: str) -> None:
    with pytest.raises(TypeError, match=fault):
        per_event(function)
