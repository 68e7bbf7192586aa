"""Details of reasoning are shown in pieces and given back whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.events import Finished, ReasoningItem, StreamEvent, TextDelta, ToolCallStarted
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document

Json = dict[str, Any]


def chunk(finish: str | None = None, **delta: Any) -> Json:
    return {"id": "gen-1", "model": "x/y", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def details(*pieces: Any) -> Json:
    return chunk(reasoning_details=list(pieces))


def piece(text: str | None = None, index: int = 0, **fields: Any) -> Json:
    return {"type": "reasoning.text", "index": index, **({} if text is None else {"text": text}), **fields}


def call(call_id: str = "call_1") -> Json:
    function = {"name": "Read", "arguments": "{}"}
    return chunk(tool_calls=[{"index": 0, "id": call_id, "type": "function", "function": function}])


STOP = chunk("stop")
CALLS = chunk("tool_calls")


def decode(*chunks: Json) -> list[StreamEvent]:
    data = b"".join(b"data: %b\n\n" % json.dumps(it).encode() for it in chunks) + b"data: [DONE]\n\n"
    decoder = ChatDecoder()
    return decoder.feed([data]) + decoder.flush()


def kept(events: list[StreamEvent]) -> list[Any]:
    items = [json.loads(bytes(event.payload)) for event in events if isinstance(event, ReasoningItem)]
    return [item.get("reasoning_details") for item in items]


def shape(events: list[StreamEvent]) -> list[str]:
    names = {ReasoningItem: "reasoning", ToolCallStarted: "call", TextDelta: "text", Finished: "end"}
    return [names[type(event)] for event in events if type(event) in names]


def test_pieces_of_one_object_are_put_together_before_the_call() -> None:
    events = decode(
        details(piece("I thi", format="anthropic-claude-v1", signature=None)),
        details(piece("nk.", format=None), piece(signature="SIG")),
        call(),
        CALLS,
    )
    assert shape(events) == ["reasoning", "call", "end"]
    assert kept(events) == [[piece("I think.", format="anthropic-claude-v1", signature="SIG")]]


def test_other_objects_stay_their_own_in_their_order() -> None:
    encrypted: Json = {"type": "reasoning.encrypted", "index": 1, "data": "E", "id": "call_1"}
    summary: Json = {"type": "reasoning.summary", "index": 0, "summary": "S"}
    first, second = piece("a", signature="1"), piece("b", signature="2")
    events = decode(
        details(summary, encrypted, encrypted), details(first), details(second, piece("c", 3)), call(), CALLS
    )
    assert kept(events) == [[summary, encrypted, encrypted, first, second, piece("c", 3)]]
    named = [piece("a", id="r1"), piece("b", id="r2"), piece("c", id="r2")]
    assert kept(decode(details(*named), call(), CALLS)) == [[piece("a", id="r1"), piece("bc", id="r2")]]


def test_a_text_that_minimax_repeats_from_its_start_is_not_doubled() -> None:
    def of(text: str) -> Json:
        return details(piece(text, format="MiniMax-response-v1"))

    (whole,) = kept(decode(of("I"), of("I think"), of("I think."), call(), CALLS))
    assert whole == [piece("I think.", format="MiniMax-response-v1")]
    (whole,) = kept(decode(of("I"), of(" think"), chunk(content="a"), STOP))
    assert whole == [piece("I think", format="MiniMax-response-v1")]
    (whole,) = kept(decode(details(piece("a")), details(piece("ab")), chunk(content="a"), STOP))
    assert whole == [piece("aab")]


def test_details_before_a_text_come_before_it() -> None:
    events = decode(details(piece("a")), chunk(content="hi"), chunk(content=" all"), STOP)
    assert shape(events) == ["reasoning", "text", "text", "end"]


def test_details_that_come_last_are_kept() -> None:
    signed = {"type": "reasoning.encrypted", "index": 0, "data": "E", "id": "call_1"}
    events = decode(details(piece("a")), call(), details(signed), CALLS)
    assert shape(events) == ["reasoning", "call", "reasoning", "end"]
    assert kept(events) == [[piece("a")], [signed]]


@pytest.mark.parametrize("odd", ["text", 7, {}, [None, 7, "x"], []])
def test_details_of_an_odd_form_are_ignored(odd: Any) -> None:
    assert kept(decode(chunk(reasoning_details=odd), call(), CALLS)) == []


def test_a_document_gives_them_too() -> None:
    whole = [piece("a", signature="S")]
    message = {"role": "assistant", "content": "hi", "reasoning_details": whole}
    body = {"id": "gen-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    events = decode_chat_document(json.dumps(body).encode())
    assert shape(events) == ["reasoning", "text", "end"]
    assert kept(events) == [whole]
