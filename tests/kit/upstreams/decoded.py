"""Decode what an upstream sends, check that it ends correctly, and encode it for a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from kit.strategies.streams import cuts, sse

from stages.events import Failed, Finished, Started, StreamEvent, ToolCallDelta, ToolCallStarted
from stages.wire.answers.stream_decoder import StreamDecoder
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.errors import error_frame

MakeDecoder = Callable[[], StreamDecoder[Any]]


def decode(make_decoder: MakeDecoder, *events: dict[str, Any] | str | bytes) -> list[StreamEvent]:
    """Decode a stream, and check that it decodes the same whole and byte by byte."""
    stream = sse(*events)
    decoder = make_decoder()
    whole = decoder.feed([stream]) + decoder.flush()
    assert decoder.feed([stream]) == []
    assert decoder.flush() == []
    assert read_all(make_decoder, ([stream[i : i + 1]] for i in range(len(stream)))) == whole
    assert_one_end(whole)
    return whole


def decode_anything(make_decoder: MakeDecoder, stream: bytes, data: st.DataObject) -> list[StreamEvent]:
    """Decode an arbitrary stream, and check that it decodes the same however it is cut."""
    whole = read_all(make_decoder, [[stream]])
    assert read_all(make_decoder, data.draw(cuts(stream))) == whole
    assert_one_end(whole)
    assert sum(isinstance(event, Started) for event in whole) <= 1
    folded_calls(whole)
    return whole


def read_all(make_decoder: MakeDecoder, reads: Iterable[list[bytes]]) -> list[StreamEvent]:
    decoder = make_decoder()
    return [event for read in reads for event in decoder.feed(read)] + decoder.flush()


def assert_one_end(events: list[StreamEvent]) -> None:
    assert isinstance(events[-1], Finished | Failed)
    assert not any(isinstance(event, Finished | Failed) for event in events[:-1])


def folded_calls(events: Iterable[StreamEvent]) -> list[tuple[str, str, str, bool]]:
    """Return the calls as id, name, arguments and whether they are custom."""
    started: list[ToolCallStarted] = []
    arguments: list[str] = []
    for event in events:
        if isinstance(event, ToolCallStarted):
            assert event.index == len(started)
            started.append(event)
            arguments.append("")
        elif isinstance(event, ToolCallDelta):
            assert event.arguments
            arguments[event.index] += event.arguments
    return [(it.call_id, it.name, given, it.is_custom) for it, given in zip(started, arguments, strict=True)]


def encode(events: list[StreamEvent]) -> bytes:
    """Return the stream that a client receives."""
    encoder = ChunkEncoder(model="alias", chunk_id="chatcmpl-1", created=1, include_usage=True)
    frames = encoder.feed(events) + encoder.flush()
    return b"".join(frames) if encoder.failed is None else error_frame(encoder.failed)


def collect(events: list[StreamEvent]) -> bytes:
    """Return the document that a client receives."""
    collector = CompletionCollector(model="alias", chunk_id="chatcmpl-1", created=1)
    (completion,) = collector.feed(events) + collector.flush()
    return completion
