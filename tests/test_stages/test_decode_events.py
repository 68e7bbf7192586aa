"""The upstream's bytes become events, whatever the upstream does."""

from __future__ import annotations

import json

from kit.service.contexts import call, context, deployment
from kit.upstreams.fake_answer import FakeAnswer
from msgspec import structs

from pipeline import RequestContext
from pipeline.testing import check_stage, collect
from stages.decode_events import MAX_DOCUMENT_BYTES, decode_events
from stages.events import Failed, Finished, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted, Usage
from stages.slots import ANSWER, FAILURE, USAGE

COMPLETED = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}
EVENTS: list[dict[str, object]] = [
    {"type": "response.created", "response": {**COMPLETED, "status": "in_progress", "output": [], "usage": None}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "lo"},
    {"type": "response.completed", "response": COMPLETED},
]
FRAMES = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS]


def text(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_it_passes_every_check() -> None:
    events = check_stage(decode_events, *FRAMES, context=context)
    assert text(events) == "Hello"
    assert events[-1] == Finished("stop")


async def test_usage_is_stored() -> None:
    ctx = context()
    await collect(decode_events, *FRAMES, context=lambda: ctx)
    assert ctx[USAGE] == Usage(3, 2, 5)
    assert ctx.get(FAILURE) is None


async def test_a_stream_without_its_end_is_a_failure_after_its_text() -> None:
    ctx = context()
    events = await collect(decode_events, *FRAMES[:2], context=lambda: ctx)
    assert text(events) == "Hel"
    assert isinstance(events[-1], Failed)
    assert ctx[FAILURE] is events[-1]
    assert events[-1].code == "upstream_protocol"


async def test_the_cause_of_an_early_end_is_reported_instead_of_the_missing_end() -> None:
    broken = Failed("upstream_timeout", "nothing came for 60 s")
    for batches_of in (1, 3):
        events = await collect(decode_events, *FRAMES[:2], broken, batches_of=batches_of, context=context)
        assert text(events) == "Hel"
        assert events[-1] == broken
        assert sum(isinstance(event, Failed) for event in events) == 1


async def test_a_connection_that_breaks_after_the_end_does_not_matter() -> None:
    events = await collect(decode_events, *FRAMES, Failed("upstream_protocol", "reset"), context=context)
    assert events[-1] == Finished("stop")


async def test_a_custom_tool_that_was_sent_as_a_function_is_unwrapped() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "ApplyPatch", "arguments": ""}
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"input":"*** Begin'}
    frames = [
        b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in (
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            delta,
            {**delta, "delta": ' Patch"}'},
            {"type": "response.completed", "response": {**COMPLETED, "output": []}},
        )
    ]
    wrapped = call(custom_tools=frozenset({"ApplyPatch"}))
    wrapped = structs.replace(wrapped, deployment=deployment(provider="xai"))
    events = await collect(decode_events, *frames, context=lambda: context(upstream_call=wrapped))
    assert ToolCallStarted(0, "call_a", "ApplyPatch", is_custom=True) in events
    assert "".join(e.arguments for e in events if isinstance(e, ToolCallDelta)) == "*** Begin Patch"


def documents() -> RequestContext:
    ctx = context()
    ctx[ANSWER] = FakeAnswer(is_stream=False)
    return ctx


def test_a_document_becomes_the_same_events_as_its_stream() -> None:
    body = json.dumps(COMPLETED).encode()
    events = check_stage(decode_events, body[:40], body[40:41], body[41:], context=documents, holds_all=True)
    assert text(events) == "Hello"
    assert events[-1] == Finished("stop")


async def test_a_document_over_the_limit_is_a_failure() -> None:
    chunk = b" " * (MAX_DOCUMENT_BYTES // 2 + 1)
    events = await collect(decode_events, chunk, chunk, context=documents)
    assert [type(event) for event in events] == [Failed]


async def test_no_bytes_at_all_is_a_failure() -> None:
    (event,) = await collect(decode_events, context=context)
    assert isinstance(event, Failed)
