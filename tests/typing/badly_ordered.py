"""Chains whose stages do not fit, and stages that are not what they claim to be.

mypy reports each line with a mark, with the codes that follow, and pyright reports it too; neither reports any other
line. ``tests/test_typing.py`` compares. The ordinary checks leave this module out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Never

from pipeline import (
    Codec,
    Inlet,
    Lane,
    Outlet,
    Pipeline,
    Plugin,
    RequestContext,
    Slot,
    Stage,
    WaitingCodec,
    codec_stage,
    per_event,
)
from pipeline.line import CodecStage
from pipeline.testing import check_stage, collect
from stages.authenticate import Keys, authenticate
from stages.call_upstream import call_upstream
from stages.collect_completion import collect_completion
from stages.decode_events import decode_events
from stages.encode_chunks import encode_chunks
from stages.events import StreamEvent, TextDelta
from stages.keep_alive import keep_alive
from stages.parse_request import parse_request
from stages.restore_reasoning import restore_reasoning
from stages.write_json import write_json
from stages.write_sse import write_sse


@per_event
def to_text(number: int) -> Iterator[str]:
    yield str(number)


@per_event
def to_number(text: str) -> Iterator[int]:
    yield int(text)


class Words:
    def feed(self, batch: list[str], /) -> list[bytes]:
        return [text.encode() for text in batch]

    def flush(self) -> list[bytes]:
        return []


class Writer:
    async def feed(self, batch: list[bytes], lane: Lane, /) -> list[Never]:
        return []

    async def flush(self, lane: Lane, /) -> list[Never]:
        return []


words = codec_stage("words", lambda ctx: Words(), codec=Words)
write = codec_stage("write", lambda ctx: Writer(), codec=Writer)

# A stage after one that sends items of another type.

Pipeline(to_text).then(to_text)  # error: arg-type
Pipeline(to_number).then(words)  # error: arg-type
Pipeline(to_text).then(words).then(to_number)  # error: arg-type
Pipeline(to_text).then(to_number, capacity=4).then(words)  # error: arg-type
Pipeline(to_text).then(words).fused().then(words)  # error: arg-type
Pipeline(words).then(write).then(write)  # error: arg-type
Pipeline(to_text).then(to_number).fused().then(to_number)  # error: arg-type


def join(first: Stage[int, str], second: Stage[int, bytes]) -> None:
    Pipeline(first).then(second)  # error: arg-type


# A chain that is used as one of other types than it has.

chain: Pipeline[int, bytes] = Pipeline(to_text).then(to_number)  # error: arg-type
stage: Stage[str, str] = to_text  # error: assignment


async def run(ctx: RequestContext) -> None:
    await Pipeline(to_text).run([["1"]], ctx)  # error: list-item
    await Pipeline(to_text).run([1, 2], ctx)  # error: list-item
    await collect(to_text, "1")  # error: misc
    check_stage(words, b"a")  # error: misc


async def numbers(ctx: RequestContext) -> list[int]:
    return await Pipeline(to_text).run([[1]], ctx)  # error: return-value


# Codecs and stages that are not what they are declared to be.


class FeedsOneByOne:
    def __init__(self, ctx: RequestContext) -> None:
        pass

    def feed(self, item: str, /) -> bytes:
        return item.encode()

    def flush(self) -> list[bytes]:
        return []


class FlushesOtherItems:
    def __init__(self, ctx: RequestContext) -> None:
        pass

    def feed(self, batch: list[str], /) -> list[bytes]:
        return []

    def flush(self) -> list[str]:
        return []


class NeverFlushes:
    def __init__(self, ctx: RequestContext) -> None:
        pass

    def feed(self, batch: list[str], /) -> list[bytes]:
        return []


class FeedsInVain:
    def __init__(self, ctx: RequestContext) -> None:
        pass

    async def feed(self, batch: list[str], lane: Lane, /) -> list[bytes]:
        return []

    def flush(self) -> list[bytes]:
        return []


class WaitsWithoutLane:
    def __init__(self, ctx: RequestContext) -> None:
        pass

    async def feed(self, batch: list[str], /) -> list[bytes]:
        return []

    async def flush(self) -> list[bytes]:
        return []


def open_words(ctx: RequestContext) -> Codec[str, bytes]:
    return Words()


texts: CodecStage[str, str] = codec_stage("texts", open_words)  # error: arg-type
codec_stage("feeds_one_by_one", FeedsOneByOne)  # error: arg-type
codec_stage("flushes_other_items", FlushesOtherItems)  # error: misc
codec_stage("never_flushes", NeverFlushes)  # error: arg-type
codec_stage("feeds_in_vain", FeedsInVain)  # error: arg-type
codec_stage("waits_without_lane", WaitsWithoutLane)  # error: arg-type
codec_stage("waits_and_ticks", lambda ctx: Writer(), codec=Writer, tick_s=1.0)  # error: arg-type, return-value
codec_stage("takes_nothing", Words)  # error: arg-type
codec_stage("takes_more", lambda ctx, lane: Words(), codec=Words)  # error: arg-type, misc
codec: Codec[bytes, Never] = Writer()  # error: assignment
waiting: WaitingCodec[str, bytes] = Words()  # error: assignment


@per_event  # error: arg-type
def gives_one(number: int) -> int:
    return number


class Nameless:
    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        pass


class Synchronous:
    name = "synchronous"

    def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        pass


class SendsItems:
    name = "sends_items"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch[0])  # error: arg-type


class SendsText:
    name = "sends_text"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send([str(number) for number in batch])  # error: misc


class TakesText:
    name = "takes_text"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send([len(text) for text in batch])  # error: arg-type


class WaitsForNobody:
    name = "waits_for_nobody"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.outside("upstream"):  # error: arg-type
                await outlet.send(batch)
            async with outlet.lane("reader"):  # error: attr-defined
                await outlet.send(batch)


Pipeline(Nameless())  # error: arg-type
Pipeline(Synchronous())  # error: arg-type

# What the stages of a request share, and what a plugin is made of.

LIMIT: Slot[int] = Slot("limit")


def share(ctx: RequestContext) -> str:
    ctx[LIMIT] = "one"  # error: misc
    return ctx[LIMIT]  # error: return-value


def make_words(marks: int) -> Stage[str, bytes]:
    return words


Plugin("words", make_words, str)  # error: arg-type

# The built-in stages.


@per_event
def shout(event: StreamEvent) -> Iterator[StreamEvent]:
    yield TextDelta(event.text.upper()) if isinstance(event, TextDelta) else event


def accept(keys: Keys) -> None:
    Pipeline(authenticate(keys)).then(restore_reasoning(None))  # error: arg-type


Pipeline(parse_request(1000)).then(call_upstream({}))  # error: arg-type
Pipeline(call_upstream({})).then(shout)  # error: arg-type
Pipeline(call_upstream({})).then(keep_alive(15))  # error: arg-type
Pipeline(decode_events).then(decode_events)  # error: arg-type
Pipeline(decode_events).then(write_sse)  # error: arg-type
Pipeline(decode_events).then(encode_chunks).then(shout)  # error: arg-type
Pipeline(decode_events).then(keep_alive(15)).then(encode_chunks)  # error: arg-type
Pipeline(collect_completion).then(encode_chunks)  # error: arg-type
Pipeline(write_json).then(collect_completion)  # error: arg-type
