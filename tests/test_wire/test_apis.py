"""Each upstream API as one record: it builds a request, and decodes the stream and the document that answer it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from kit.strategies.streams import sse
from kit.upstreams import anthropic_stream as anthropic
from kit.upstreams import chat_stream as chat

from stages.events import Failed, Finished, Started, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted
from stages.request import ResponsesRequest
from stages.upstreams.apis import APIS
from stages.wire.anthropic.api import ANTHROPIC
from stages.wire.api import Api
from stages.wire.chat.api import CHAT
from stages.wire.responses.api import RESPONSES
from stages.wire.responses.quirks import ResponsesQuirks

Json = dict[str, Any]

BROKEN = Failed("upstream_unreachable", "The connection broke.")


def asked(*, custom_tools: frozenset[str] = frozenset()) -> ResponsesRequest:
    tools = [{"type": "custom", "name": name} for name in custom_tools]
    body: Json = {"input": "hi"} | ({"tools": tools} if tools else {})
    return ResponsesRequest(requested_model="m", stream=True, include_usage=False, body=body, custom_tools=custom_tools)


def responses_message(text: str) -> Json:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


def responses_response(*output: Json) -> Json:
    return {"id": "resp_1", "model": "m", "created_at": 7, "status": "completed", "output": list(output)}


@dataclass(frozen=True)
class Exchange:
    """The text ``a`` from one API.

    Attributes:
        text: the events up to the end of the text.
        end: the events after it; the answer is complete with the first of them.
        body: what the request holds that names the model ``m`` and asks for a stream.
    """

    api: Api[Any]
    text: list[Json]
    end: list[Json | str]
    document: bytes
    body: Json = field(default_factory=lambda: {"model": "m", "stream": True})


EXCHANGES = [
    Exchange(
        RESPONSES,
        text=[
            {"type": "response.created", "response": responses_response()},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"},
        ],
        end=[{"type": "response.completed", "response": responses_response(responses_message("a"))}],
        document=json.dumps(responses_response(responses_message("a"))).encode(),
    ),
    Exchange(
        CHAT,
        text=[chat.chunk({"content": "a"})],
        end=[chat.chunk({}, "stop"), chat.DONE],
        document=chat.document({"content": "a"}),
    ),
    Exchange(
        ANTHROPIC,
        text=[anthropic.head(), *anthropic.text(0, "a")],
        end=[anthropic.last(), anthropic.STOP],
        document=anthropic.document({"type": "text", "text": "a"}),
    ),
]

ENDING_LATER = [exchange for exchange in EXCHANGES if len(exchange.end) > 1]

each_api = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.api.name)


def decode(api: Api[Any], request: ResponsesRequest, stream: bytes, quirks: Any = None) -> list[StreamEvent]:
    decoder = api.open_decoder(request, quirks or api.usual_quirks("m"))
    return decoder.feed([stream]) + decoder.flush()


def test_every_api_is_tested_here() -> None:
    assert [exchange.api.name for exchange in EXCHANGES] == list(APIS)


@each_api
def test_a_request_is_built_and_its_stream_and_document_are_decoded(exchange: Exchange) -> None:
    api = exchange.api
    quirks = api.usual_quirks("m")
    body = api.build_request(asked(), "m", quirks)
    assert api.headers_of(body) == {}, "only what is not yet stable in an API needs a header"
    assert body.items() >= exchange.body.items()
    started, *events = decode(api, asked(), sse(*exchange.text, *exchange.end))
    assert isinstance(started, Started)
    assert events == [TextDelta("a"), Finished("stop")]
    assert api.decode_document(exchange.document, asked(), quirks)[1:] == events


@each_api
def test_a_failure_of_the_connection_ends_an_answer_that_is_not_complete(exchange: Exchange) -> None:
    decoder = exchange.api.open_decoder(asked(), exchange.api.usual_quirks("m"))
    assert decoder.feed([sse(*exchange.text)])[-1] == TextDelta("a")
    assert decoder.break_off(BROKEN) == [BROKEN]


@pytest.mark.parametrize("exchange", ENDING_LATER, ids=lambda exchange: exchange.api.name)
def test_a_failure_of_the_connection_after_the_finish_reason_is_the_end(exchange: Exchange) -> None:
    decoder = exchange.api.open_decoder(asked(), exchange.api.usual_quirks("m"))
    decoder.feed([sse(*exchange.text, exchange.end[0])])
    assert decoder.break_off(BROKEN) == [Finished("stop")]


WITHOUT_CUSTOM_TOOLS = ResponsesQuirks(has_custom_tools=False)
CALL: Json = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "Patch"}
PATCHED: list[StreamEvent] = [
    ToolCallStarted(0, "call_a", "Patch", is_custom=True),
    ToolCallDelta(0, "*** x"),
    Finished("tool_calls"),
]


def test_custom_tools_of_a_responses_server_without_them_are_wrapped_and_unwrapped() -> None:
    request = asked(custom_tools=frozenset({"Patch"}))
    [tool] = RESPONSES.build_request(request, "m", WITHOUT_CUSTOM_TOOLS)["tools"]
    assert (tool["type"], tool["name"]) == ("function", "Patch")
    called = responses_response({**CALL, "arguments": '{"input":"*** x"}'})
    stream = sse({"type": "response.completed", "response": called})
    assert decode(RESPONSES, request, stream, WITHOUT_CUSTOM_TOOLS)[1:] == PATCHED
    assert RESPONSES.decode_document(json.dumps(called).encode(), request, WITHOUT_CUSTOM_TOOLS)[1:] == PATCHED


def test_what_an_open_custom_call_holds_comes_before_the_failure_of_the_connection() -> None:
    request = asked(custom_tools=frozenset({"Patch"}))
    decoder = RESPONSES.open_decoder(request, WITHOUT_CUSTOM_TOOLS)
    started = {"type": "response.output_item.added", "output_index": 0, "item": CALL}
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"patch": "raw"'}
    assert decoder.feed([sse(started, delta)])[-1] == PATCHED[0]
    assert decoder.break_off(BROKEN) == [ToolCallDelta(0, '{"patch": "raw"'), BROKEN]
