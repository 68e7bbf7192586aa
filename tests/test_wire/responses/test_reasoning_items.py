"""The reasoning items of a Responses upstream are kept for the next turn: each once, in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.recordings import recordings

from stages.events import Finished, ReasoningItem, StreamEvent, TextDelta, ToolCallStarted
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.responses.decoder import ResponsesDecoder, decode_document

Json = dict[str, Any]


def reasoning(encrypted: str | None = "ENC", **fields: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encrypted, **fields}


def call(number: int) -> Json:
    name = {"name": "Read", "arguments": "{}"}
    return {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_abc{number}", **name}


def message(text: str) -> Json:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def done(place: int, item: Json) -> Json:
    return {"type": "response.output_item.done", "output_index": place, "item": item}


def completed(*items: Json) -> Json:
    return {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": list(items)}}


def decode(*events: Json) -> list[StreamEvent]:
    return ResponsesDecoder().feed([b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)])


def shape(events: list[StreamEvent]) -> list[str]:
    """Return what matters here: the kinds of events in order."""
    names = {ReasoningItem: "reasoning", ToolCallStarted: "call", TextDelta: "text", Finished: "end"}
    return [names[type(event)] for event in events if type(event) in names]


def kept(events: list[StreamEvent]) -> list[Json]:
    return [json.loads(bytes(event.payload)) for event in events if isinstance(event, ReasoningItem)]


def test_a_finished_item_is_emitted_byte_for_byte_before_its_result() -> None:
    item = reasoning(summary=[{"type": "summary_text", "text": "Look first ☃"}], vendor={"x": [1.50]})
    events = decode(done(0, item), done(1, call(1)), completed(item, call(1)))
    assert shape(events) == ["reasoning", "call", "end"]
    assert kept(events) == [item]
    (given,) = (event for event in events if isinstance(event, ReasoningItem))
    assert bytes(given.payload) == json.dumps(item).encode()


def test_several_items_keep_their_places_among_the_calls() -> None:
    first, second = reasoning("A"), reasoning("B", id="rs_2")
    events = decode(done(0, first), done(1, call(1)), done(2, second), done(3, call(2)), completed())
    assert shape(events) == ["reasoning", "call", "reasoning", "call", "end"]
    assert [item["encrypted_content"] for item in kept(events)] == ["A", "B"]


def test_no_item_is_lost_if_the_upstream_does_not_number_its_items() -> None:
    events = decode(done(0, reasoning("A")), done(0, reasoning("B")), completed(reasoning("A"), reasoning("B")))
    assert [item["encrypted_content"] for item in kept(events)] == ["A", "B"]


@pytest.mark.parametrize("encrypted", [None, "", 7, ["x"]])
def test_an_item_without_encrypted_content_is_not_emitted(encrypted: Any) -> None:
    item = {**reasoning(), "encrypted_content": encrypted}
    assert kept(decode(done(0, item), done(1, message("hi")), completed(item, message("hi")))) == []


def test_an_item_that_was_cut_off_is_not_emitted() -> None:
    assert kept(decode(done(0, reasoning(status="incomplete")), completed())) == []
    assert len(kept(decode(done(0, reasoning(status="completed")), completed()))) == 1


def test_the_final_snapshot_provides_items_that_no_event_had() -> None:
    items = (reasoning("A"), call(1), reasoning("B"), message("hi"))
    events = decode(completed(*items))
    assert shape(events) == ["reasoning", "call", "reasoning", "text", "end"]


def test_a_document_yields_the_items_of_its_stream() -> None:
    items = (reasoning("A"), call(1), reasoning("B"), call(2))
    document = json.dumps({"id": "resp_1", "status": "completed", "output": items}).encode()
    assert shape(decode_document(document)) == ["reasoning", "call", "reasoning", "call", "end"]


def test_a_snapshot_with_other_ciphertext_repeats_nothing() -> None:
    # GitHub Copilot sends new ids, and may send new ciphertext, in every event.
    events = decode(done(0, reasoning("A")), done(1, call(1)), completed(reasoning("A2", id="rs_9"), call(1)))
    assert [item["encrypted_content"] for item in kept(events)] == ["A"]


WITH_ITEM = [
    "encrypted_reasoning",
    "vercel-openai-reasoning-encrypted-content.1.part1",
    "pydanticai-test_reused_tool_call_ids_stream_.2",
]


@pytest.mark.parametrize("path", recordings("responses", only=lambda path: path.stem in WITH_ITEM))
def test_recorded_items_are_emitted_whole_however_they_are_cut(path: Path) -> None:
    data = path.read_bytes()
    whole = ResponsesDecoder().feed([data])
    assert shape(whole)[:2] == ["reasoning", "call"]
    (item,) = kept(whole)
    assert item["type"] == "reasoning"
    assert len(item["encrypted_content"]) > 700
    decoder, cut = ResponsesDecoder(), list[StreamEvent]()
    for start in range(0, len(data), 97):
        cut += decoder.feed([data[start : start + 97]])
    assert kept(cut) == [item]
    assert shape(cut)[:2] == ["reasoning", "call"]


# What clients drop besides reasoning


def test_the_phase_of_a_message_is_kept_once_and_before_its_text() -> None:
    said = {**message("hi"), "phase": "commentary"}
    start = {"type": "response.output_item.added", "output_index": 0, "item": {**said, "content": []}}
    events = decode(start, done(0, said), done(1, call(1)), completed(said, call(1)))
    assert shape(events) == ["reasoning", "text", "call", "end"]
    assert kept(events) == [{"type": "message", "phase": "commentary"}]
    assert kept(decode(done(0, {**said, "phase": 7}), completed())) == []


def test_the_namespace_of_a_call_is_kept_before_the_call() -> None:
    plain, named = call(1), {**call(2), "namespace": "mcp"}
    events = decode(done(0, plain), done(1, named), completed(plain, named))
    assert shape(events) == ["call", "reasoning", "call", "end"]
    assert kept(events) == [{"type": "function_call", "namespace": "mcp"}]


# Reasoning as text


def decode_plain(*events: Json) -> list[StreamEvent]:
    decoder = ResponsesDecoder(keeps_plain=True)
    return decoder.feed([b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)])


def test_reasoning_as_text_is_kept_for_an_upstream_that_reads_it() -> None:
    thought = reasoning(None, content=[{"type": "reasoning_text", "text": "hm"}])
    events = decode_plain(done(0, thought), done(1, call(1)), completed(thought, call(1)))
    assert shape(events) == ["reasoning", "call", "end"]
    assert kept(events) == [thought]
    assert kept(decode(done(0, thought), completed(thought))) == []
    assert kept(decode_plain(done(0, reasoning(None, content=[])), completed())) == []


def test_a_document_keeps_reasoning_as_text_too() -> None:
    thought = reasoning(None, content=[{"type": "reasoning_text", "text": "hm"}])
    body = json.dumps({"id": "resp_1", "status": "completed", "output": [thought, call(1)]}).encode()
    assert kept(decode_document(body, keeps_plain=True)) == [thought]
    assert kept(decode_document(body)) == []


# What the upstream left out


@pytest.mark.parametrize(
    ("transformations", "mended"),
    [
        ([{"type": "reasoning_dropped", "reason": "prefix_mismatch"}], {"reasoning_dropped"}),
        ([], set()),
        (None, set()),
        ("odd", set()),
    ],
)
def test_reasoning_that_the_upstream_dropped_is_noted(transformations: Any, mended: set[str]) -> None:
    traits = RequestTraits()
    end = completed(message("hi"))
    end["response"]["input_transformations"] = transformations
    ResponsesDecoder(traits).feed([b"data: %b\n\n" % json.dumps(end).encode()])
    assert traits.mended == mended
