"""The project's own JSON Schemas accept what OpenAI's reference describes, and reject what it does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jsonschema import ValidationError
from kit.schemas import validate_chunk, validate_completion

Json = dict[str, Any]

HEAD = {"id": "chatcmpl-1", "created": 1790000000, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}
TOKEN = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
CITATION = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example", "title": "", "start_index": 0, "end_index": 0},
}
CALL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE = {
    "role": "assistant",
    "content": "a",
    "refusal": None,
    "reasoning_content": "hm",
    "annotations": [CITATION],
    "tool_calls": [CALL],
}
COMPLETION: Json = {
    **HEAD,
    "object": "chat.completion",
    "service_tier": "default",
    "usage": USAGE,
    "choices": [
        {
            "index": 0,
            "message": MESSAGE,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [TOKEN], "refusal": None},
        }
    ],
}
CHUNK: Json = {
    **HEAD,
    "object": "chat.completion.chunk",
    "usage": None,
    "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL}]}, "finish_reason": None}],
}
LAST: Json = {**CHUNK, "choices": [], "usage": USAGE}

NOTHING = object()


def changed(document: Json, path: str, value: Any) -> Json:
    """Return a copy with another value at ``path``, or without the field if the value is `NOTHING`."""
    result = copy.deepcopy(document)
    *places, last = (int(place) if place.isdigit() else place for place in path.split("."))
    inner: Any = result
    for place in places:
        inner = inner[place]
    if value is NOTHING:
        del inner[last]
    else:
        inner[last] = value
    return result


def test_whole_and_streamed_completions_are_valid() -> None:
    validate_completion(COMPLETION)
    for chunk in (CHUNK, LAST):
        validate_chunk(chunk)
    for delta in ({}, {"role": "assistant", "content": ""}, {"annotations": [CITATION]}, {"refusal": "no"}):
        validate_chunk(changed(CHUNK, "choices.0.delta", delta))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("id", ""),
        ("created", 1.5),
        ("object", "chat.completion.chunk"),
        ("service_tier", "ultrafast"),
        ("system_fingerprint", None),
        ("usage", None),
        ("usage.total_tokens", NOTHING),
        ("usage.prompt_tokens_details.cached", 1),
        ("choices", []),
        ("choices.0.logprobs", NOTHING),
        ("choices.0.logprobs.refusal", NOTHING),
        ("choices.0.logprobs.content.0.bytes", [256]),
        ("choices.0.finish_reason", None),
        ("choices.0.finish_reason", "error"),
        ("choices.0.message.refusal", NOTHING),
        ("choices.0.message.reasoning", "hm"),
        ("choices.0.message.tool_calls", []),
        ("choices.0.message.tool_calls", NOTHING),  # the finish reason says that there are some
        ("choices.0.message.tool_calls.0.type", "custom"),
        ("choices.0.message.tool_calls.0.function.arguments", NOTHING),
        ("choices.0.message.annotations.0", {"type": "url_citation", "url": "https://a.example"}),
        ("choices.0.message.annotations.0.url_citation.title", NOTHING),
    ],
)
def test_an_invalid_completion_is_rejected(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        validate_completion(changed(COMPLETION, path, value))


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (CHUNK, "extra", 1),
        (CHUNK, "object", "chat.completion"),
        (CHUNK, "choices.0.index", 1),
        (CHUNK, "choices.0.finish_reason", NOTHING),
        (CHUNK, "choices.0.delta.reasoning", "hm"),
        (CHUNK, "choices.0.delta.tool_calls.0.index", NOTHING),
        (CHUNK, "choices.0.delta.tool_calls.0.type", NOTHING),
        (CHUNK, "choices.0.delta.tool_calls.0.custom", {"name": "f"}),
        (LAST, "usage", None),
        (LAST, "usage", NOTHING),
        (LAST, "error", {"message": "m"}),
    ],
)
def test_an_invalid_chunk_is_rejected(document: Json, path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        validate_chunk(changed(document, path, value))
