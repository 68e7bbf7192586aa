"""An answer that ends because the model's context window is full: valid if it has some output, else a failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kit.upstreams import anthropic_stream, chat_stream

from stages.events import Failed, Finished, StreamEvent, Usage
from stages.wire.answers.context_length import NO_NUMBERS
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.responses.decoder import ResponsesDecoder

FULL = "model_context_window_exceeded"
TOO_LONG = Failed("context_length_exceeded", NO_NUMBERS, FULL)


def events_of(decoder: Any, *payloads: Any) -> list[StreamEvent]:
    stream = b"".join(b"data: %b\n\n" % json.dumps(payload).encode() for payload in payloads)
    events: list[StreamEvent] = decoder.feed([stream]) + decoder.flush()
    return events


def anthropic(*content: Any) -> list[StreamEvent]:
    head, end = anthropic_stream.head(), anthropic_stream.last(FULL, input_tokens=9, output_tokens=0)
    return events_of(AnthropicDecoder(), head, *content, end, anthropic_stream.STOP)


def test_anthropic() -> None:
    assert anthropic()[-2:] == [Usage(9, 0, 9, cached_tokens=0), TOO_LONG]
    assert anthropic(*anthropic_stream.thinking(0, "sig", "hm"))[-1] == TOO_LONG
    assert anthropic(*anthropic_stream.text(0, "a"))[-1] == Finished("length")
    assert anthropic(*anthropic_stream.tool(0, "t", "f", "{}"))[-1] == Finished("length")
    assert decode_anthropic_document(anthropic_stream.document(reason=FULL))[-1] == TOO_LONG
    said = {"type": "text", "text": "a"}
    assert decode_anthropic_document(anthropic_stream.document(said, reason=FULL))[-1] == Finished("length")


@pytest.mark.parametrize(
    ("delta", "end"),
    [
        ({}, TOO_LONG),
        ({"reasoning_content": "hm"}, TOO_LONG),
        ({"content": "a"}, Finished("length")),
        ({"refusal": "no"}, Finished("length")),
        ({"tool_calls": [chat_stream.call(0, "t", "f", "{}")]}, Finished("length")),
    ],
)
def test_chat(delta: dict[str, Any], end: StreamEvent) -> None:
    assert events_of(ChatDecoder(), chat_stream.chunk(delta), chat_stream.chunk({}, FULL))[-1] == end
    assert decode_chat_document(chat_stream.document(delta, FULL))[-1] == end


@pytest.mark.parametrize("usage", [None, {"input_tokens": 9, "output_tokens": 0}])
def test_responses(usage: Any) -> None:
    response: dict[str, Any] = {"status": "incomplete", "incomplete_details": {"reason": FULL}, "usage": usage}
    end = {"type": "response.incomplete", "response": response}
    found = [event for event in events_of(ResponsesDecoder(), end) if isinstance(event, Usage | Failed)]
    assert found == [*([Usage(9, 0, 9)] if usage else []), TOO_LONG]
    text = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"}
    assert events_of(ResponsesDecoder(), text, end)[-1] == Finished("length")
    response["incomplete_details"] = {"reason": "max_output_tokens"}
    assert events_of(ResponsesDecoder(), end)[-1] == Finished("length")


def test_an_error_of_anthropics_keeps_the_code_whatever_its_type() -> None:
    error = {"type": "error", "error": {"type": "request_too_large", "message": "prompt is too long"}}
    failed = events_of(AnthropicDecoder(), error)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "context_length_exceeded"
