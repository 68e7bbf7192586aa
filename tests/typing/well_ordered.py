"""Chains whose stages fit: no type checker may object to a line of this module, and each type is inferred as stated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Never, assert_type

from pipeline import (
    Codec,
    Inlet,
    Lane,
    Outlet,
    Party,
    Pipeline,
    RequestContext,
    Stage,
    WaitingCodec,
    codec_stage,
    per_event,
)
from pipeline.line import CodecStage
from pipeline.testing import check_stage, collect
from stages.call_upstream import call_upstream
from stages.collect_completion import collect_completion
from stages.decode_events import decode_events
from stages.encode_chunks import encode_chunks
from stages.events import Failed, StreamEvent, TextDelta
from stages.keep_alive import keep_alive
from stages.upstreams import UpstreamCall
from stages.write_json import write_json
from stages.write_sse import write_sse

# Each kind of stage has the item types of the function, the codec or the `run` that it is made of.


@per_event
def to_text(number: int) -> Iterator[str]:
    yield str(number)


@per_event
def to_number(text: str) -> Iterator[int]:
    yield int(text)


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
    done: bool

    def __init__(self, ctx: RequestContext) -> None:
        self.done = False

    async def feed(self, batch: list[bytes], lane: Lane, /) -> list[Never]:
        with lane.outside(Party.CLIENT) as waiting:
            assert_type(waiting.arrived_ns, int)
        return []

    async def flush(self, lane: Lane, /) -> list[Never]:
        return []


class Countdown:
    """A codec with other options than the context."""

    def __init__(self, size: int) -> None:
        self.size = size

    def feed(self, batch: list[int], /) -> list[int]:
        return batch[: self.size]

    def flush(self) -> list[int]:
        return []


class Count:
    name = "count"

    async def run(self, inlet: Inlet[bytes], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send([len(batch)])


class Relay:
    """A stage with a further task."""

    name = "relay"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            with outlet.lane("reader") as reading:
                assert_type(reading, Outlet[int])
                with reading.outside():
                    await reading.send(batch)


def open_writer(ctx: RequestContext) -> WaitingCodec[bytes, Never]:
    return Writer(ctx)


def open_words(ctx: RequestContext) -> Codec[str, bytes]:
    return Words(ctx)


words = codec_stage("words", Words)
patient_words = codec_stage("patient_words", PatientWords, tick_s=1.0)
write = codec_stage("write", Writer)

assert_type(codec_stage("words", open_words), CodecStage[str, bytes])
assert_type(codec_stage("words", lambda ctx: Words(ctx), codec=Words), CodecStage[str, bytes])
assert_type(codec_stage("write", open_writer), CodecStage[bytes, Never])
assert_type(codec_stage("write", lambda ctx: Writer(ctx), codec=Writer), CodecStage[bytes, Never])
assert_type(codec_stage("count_down", lambda ctx: Countdown(3), codec=Countdown), CodecStage[int, int])
assert_type(codec_stage("words", PatientWords, accepts=str, emits=bytes, tick_s=3), CodecStage[str, bytes])
assert_type(to_text, CodecStage[int, str])
assert_type(words, CodecStage[str, bytes])
assert_type(patient_words, CodecStage[str, bytes])
assert_type(write, CodecStage[bytes, Never])

# A chain takes what its first stage takes, and returns what its last one sends.

assert_type(Pipeline(to_text), Pipeline[int, str])
assert_type(Pipeline(to_text).then(to_number), Pipeline[int, int])
assert_type(Pipeline(to_text).then(words).then(Count()).then(to_text, capacity=2), Pipeline[int, str])
assert_type(Pipeline(to_text).then(patient_words).then(write).fused(), Pipeline[int, Never])
assert_type(Pipeline(to_text).then(to_number).fused().then(Relay()).then(to_text).fused(), Pipeline[int, str])


async def results(ctx: RequestContext) -> None:
    assert_type(await Pipeline(to_text).then(words).run([[1], [2, 3]], ctx), list[bytes])
    assert_type(await collect(to_text, 1, 2), list[str])
    assert_type(check_stage(Count(), b"a", b"b"), list[int])


# What a function returns may be annotated with the protocol.


def chosen(is_patient: bool) -> Stage[str, bytes]:
    return patient_words if is_patient else words


assert_type(Pipeline(to_text).then(chosen(True)).then(Count()), Pipeline[int, int])

# The built-in stages, with one of an author between them.


@per_event
def shout(event: StreamEvent) -> Iterator[StreamEvent]:
    yield TextDelta(event.text.upper()) if isinstance(event, TextDelta) else event


assert_type(Pipeline(call_upstream({})), Pipeline[UpstreamCall, bytes | Failed])
events = Pipeline(call_upstream({})).then(decode_events).then(shout)
assert_type(events.then(encode_chunks).then(keep_alive(15)).then(write_sse), Pipeline[UpstreamCall, Never])
assert_type(events.then(collect_completion).then(write_json), Pipeline[UpstreamCall, Never])
