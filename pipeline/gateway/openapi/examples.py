"""Requests and answers of the built-in models, as `headrace demo` serves them. A test makes each of them."""

from __future__ import annotations

from typing import Final

from pipeline.gateway.openapi.schemas import Schema

REQUESTS: Final[dict[str, Schema]] = {
    "responses": {
        "summary": "In the shape of the Responses API",
        "value": {"model": "headrace-echo", "input": "Hello there"},
    },
    "chat": {
        "summary": "In the shape of Chat Completions",
        "value": {"model": "headrace-echo", "messages": [{"role": "user", "content": "Hello there"}]},
    },
    "stream": {
        "summary": "As a stream",
        "value": {"model": "headrace-story", "input": "Tell me a story", "stream": True},
    },
    "agent": {
        "summary": "With a tool",
        "value": {
            "model": "headrace-agent",
            "input": [{"role": "user", "content": "Look at the file"}],
            "tools": [
                {
                    "type": "function",
                    "name": "read_file",
                    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
                }
            ],
        },
    },
}
_HEAD: Final = {"id": "chatcmpl-e71eed18e692db7500000006", "created": 1796067477, "model": "headrace-echo"}
_USAGE: Final = {
    "prompt_tokens": 27,
    "completion_tokens": 2,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
ANSWER: Final[Schema] = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
    "service_tier": "default",
}
"""To ``responses``."""
_CHUNK: Final = {**_HEAD, "object": "chat.completion.chunk", "service_tier": "auto"}
CHUNKS: Final[list[Schema]] = [
    {**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hello"}, None),
        ({"content": " there"}, None),
        ({}, "stop"),
    )
]
"""To the same as a stream."""
ERROR: Final[Schema] = {
    "error": {
        "message": "temperature must be a number, not a string.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_request",
    }
}
"""To the same with a temperature that is a string."""
