"""Hypothesis strategies for the wire: cuts of a stream, events that a decoder may emit, what upstreams may send."""

from __future__ import annotations

import json
from typing import Any, get_args

from hypothesis import strategies as st

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    FinishReason,
    Heartbeat,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
"""Never empty; with NUL, U+2028, quotes, astral characters."""

any_texts = st.text(max_size=12)
"""With lone surrogates too, which a plugin might produce."""


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[list[bytes]]:
    """Cut a stream into reads of one or more chunks."""
    points = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[i:j] for i, j in zip([0, *points], [*points, len(stream)], strict=True)]
    return draw(batched(pieces))


@st.composite
def batched(draw: st.DrawFn, items: list[Any]) -> list[list[Any]]:
    """Cut a list into batches, none of them empty."""
    batches: list[list[Any]] = []
    rest = items
    while rest:
        size = draw(st.integers(1, len(rest)))
        batches.append(rest[:size])
        rest = rest[size:]
    return batches


counts = st.integers(0, 10**9)
details = st.none() | counts
usages = st.builds(Usage, counts, counts, counts, details, details, details)
citations = st.builds(Citation, url=texts, title=any_texts, start_index=counts, end_index=counts)
failures = st.builds(
    Failed,
    code=st.sampled_from(["upstream_error", "upstream_rate_limited", "upstream_rejected", "upstream_protocol"]),
    message=any_texts,
    upstream_code=st.none() | any_texts,
)


@st.composite
def event_sequences(draw: st.DrawFn, *, whole: bool | None = None) -> list[StreamEvent]:
    """Draw what a decoder may emit: deltas in any order, numbered calls, and one end."""
    created = st.sampled_from([0, 1790000000])
    tiers = st.sampled_from([None, "default", "ultrafast"])
    events: list[StreamEvent] = [draw(st.builds(Started, st.just("resp_1"), st.just("m"), created, tiers))]
    deltas = st.builds(TextDelta, any_texts) | st.builds(ReasoningDelta, texts) | st.builds(RefusalDelta, texts)
    calls = 0
    for _ in range(draw(st.integers(0, 12))):
        match draw(st.integers(0, 5)):
            case 0:
                events.append(ToolCallStarted(calls, f"call_{calls}x", draw(texts), draw(st.booleans())))
                calls += 1
            case 1 | 2 if calls:
                events.append(ToolCallDelta(draw(st.integers(0, calls - 1)), draw(texts)))
            case 3:
                events.append(Heartbeat())
            case _:
                events.append(draw(deltas))
    if draw(st.booleans()):
        events.append(Annotations(tuple(draw(st.lists(citations, min_size=1, max_size=3)))))
    if draw(st.booleans()):
        events.append(draw(usages))
    if whole is None:
        whole = draw(st.booleans())
    events.append(Finished(draw(st.sampled_from(get_args(FinishReason)))) if whole else draw(failures))
    return events


def sse(*events: dict[str, Any] | str | bytes) -> bytes:
    """Frame upstream events; text and bytes are framed unchanged."""
    frames: list[bytes] = []
    for event in events:
        if isinstance(event, dict):
            event = json.dumps(event)
        frames.append(b"data: %b\n\n" % (event.encode() if isinstance(event, str) else event))
    return b"".join(frames)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
_index = st.sampled_from([0, 1, 2]) | _json
_types = st.sampled_from(
    [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_text.annotation.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.reasoning.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
        "keepalive",
        "unknown",
    ]
)
_short = st.sampled_from(["a", "ab", "abc", "", "{}"]) | _json
_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["output_text", "refusal", "reasoning_text", "summary_text"]) | _json},
    optional={
        "text": _short,
        "refusal": _short,
        "annotations": _json
        | st.lists(st.fixed_dictionaries({"type": st.just("url_citation"), "url": _short, "start_index": _json})),
        "logprobs": _json | st.lists(st.fixed_dictionaries({"token": _short, "logprob": _json, "top_logprobs": _json})),
    },
)
_items = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message", "reasoning", "function_call", "custom_tool_call", "shell_call", "tool_search_call"]
        )
        | _json
    },
    optional={
        "id": st.sampled_from(["i1", "i2"]) | _json,
        "call_id": st.sampled_from(["call_1", "call_a", "call_b"]) | _json,
        "name": st.sampled_from(["f", "g"]) | _json,
        "arguments": _short,
        "input": _short,
        "action": _json,
        "environment": _json,
        "execution": _json,
        "phase": st.sampled_from(["commentary"]) | _json,
        "content": _json | st.lists(_parts, max_size=2),
        "summary": _json | st.lists(_parts, max_size=2),
    },
)
_responses = st.fixed_dictionaries(
    {},
    optional={
        "id": _short,
        "created_at": _json,
        "status": st.sampled_from(["completed", "incomplete", "failed", "in_progress"]) | _json,
        "output": _json | st.lists(_items, max_size=3),
        "usage": _json | st.fixed_dictionaries({"input_tokens": _json, "output_tokens": _json}),
        "error": _json | st.fixed_dictionaries({"code": _short, "message": _short}),
        "incomplete_details": _json,
    },
)
upstream_events = st.fixed_dictionaries(
    {"type": _types | _json},
    optional={
        "output_index": _index,
        "content_index": _index,
        "summary_index": _index,
        "annotation_index": _index,
        "delta": _short,
        "text": _short,
        "refusal": _short,
        "arguments": _short,
        "input": _short,
        "item": _json | _items,
        "part": _json | _parts,
        "annotation": _json | st.fixed_dictionaries({"type": st.just("url_citation"), "url": _short}),
        "logprobs": _json,
        "response": _json | _responses,
        "error": _json,
        "message": _json,
        "code": _json,
    },
)
"""Events with valid names, and fields of every kind, valid and invalid."""

upstream_responses = _responses
