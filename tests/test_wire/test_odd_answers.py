"""Odd answers are mended, never garbled, and an empty one says why: each row of `kit.upstreams.odd_answers`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.odd_answers import (
    EMPTY_ANSWERS,
    FIRST,
    ODD_ANSWERS,
    SECOND,
    EmptyAnswer,
    OddAnswer,
    X,
    call_item,
    choice,
    event,
    message_item,
    nameless,
    responses,
)
from kit.upstreams.scripted import sse

from stages.events import Failed, Finished, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from stages.mending import MENDS
from stages.request import ResponsesRequest
from stages.upstreams.apis import APIS
from stages.upstreams.quirks import GEMINI_CHAT
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.answers.split_characters import MAX_WAITING, SplitCharacters, may_be_split
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document
from stages.wire.api import AnswerDecoder
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.profiles import CURSOR, OPENAI, Profile
from stages.wire.responses.decoder import ResponsesDecoder, decode_document

Json = dict[str, Any]


def request() -> ResponsesRequest:
    return ResponsesRequest(requested_model="m", stream=True, include_usage=False, body={"input": "hi"})


def decoder_for(kind: str, asked: ResponsesRequest) -> AnswerDecoder:
    if kind == "gemini":
        return APIS["chat"].open_decoder(asked, GEMINI_CHAT)
    return APIS[kind].open_decoder(asked, APIS[kind].usual_quirks(""))


def decode(kind: str, stream: bytes, asked: ResponsesRequest) -> list[StreamEvent]:
    """Decode a stream, and check that it decodes the same byte by byte."""
    decoder = decoder_for(kind, asked)
    whole = decoder.feed([stream]) + decoder.flush()
    decoder = decoder_for(kind, request())
    pieces = [got for i in range(len(stream)) for got in decoder.feed([stream[i : i + 1]])] + decoder.flush()
    assert pieces == whole
    return whole


def folded(events: list[StreamEvent], profile: Profile = OPENAI, mended: set[str] | None = None) -> Folded:
    """Encode events in one batch, one by one and as a document, which must be alike."""
    results: list[Folded] = []
    for batches in ([events], [[one] for one in events]):
        encoder = ChunkEncoder(model="m", chunk_id="c", created=1, include_usage=False, profile=profile, mended=mended)
        results.append(fold_stream(b"".join(frames for batch in batches for frames in encoder.feed(batch))))
    collector = CompletionCollector(model="m", chunk_id="c", created=1, profile=profile, mended=mended)
    [document] = [document for one in events for document in collector.feed([one])]
    results.append(replace(fold_document(document), usage=results[0].usage))
    assert results[0] == results[1] == results[2]
    return results[0]


@pytest.mark.parametrize("case", ODD_ANSWERS, ids=lambda case: case.name)
def test_an_odd_answer_is_mended(case: OddAnswer) -> None:
    asked = request()
    result = folded(decode(case.kind, b"".join(case.events), asked))
    assert result.content == case.text
    assert result.reasoning == case.reasoning
    assert [(call["name"], call["arguments"]) for call in result.tool_calls] == list(case.calls)
    assert len({call["id"] for call in result.tool_calls}) == len(case.calls)
    assert [found["url_citation"]["url"] for found in result.annotations] == list(case.urls)
    assert result.finish_reason == ("tool_calls" if case.calls else "stop")
    assert asked.mended == set(case.mended)
    assert asked.mended <= MENDS.keys()


@pytest.mark.parametrize("case", EMPTY_ANSWERS, ids=lambda case: case.name)
def test_an_empty_answer_says_why_to_cursor_and_to_nobody_else(case: EmptyAnswer) -> None:
    events = decode(case.kind, b"".join(case.events), request())
    mended: set[str] = set()
    shown = folded(events, CURSOR, mended)
    assert shown.content == case.shown
    assert mended == {"empty_answer"}
    assert (shown.finish_reason, shown.reasoning) == (case.finish, case.reasoning)
    plain = folded(events, OPENAI, mended)
    assert (plain.content, plain.finish_reason, plain.reasoning) == (None, case.finish, case.reasoning)


# Finish reasons.


@pytest.mark.parametrize("kind", ["chat", "anthropic"])
def test_a_finish_reason_null_in_words_before_a_cut_is_not_a_finish(kind: str) -> None:
    asked = request()
    stream = {
        "chat": sse(chat_stream.chunk({"content": "a"}, "null")),
        "anthropic": b"".join(
            map(sse, [anthropic_stream.head(), *anthropic_stream.text(0, "a"), anthropic_stream.last("null")])
        ),
    }[kind]
    events = decode(kind, stream, asked)
    assert isinstance(events[-1], Failed)
    assert asked.mended == {"finish"}


def test_a_finish_reason_null_in_words_before_the_end_is_one() -> None:
    events = decode("chat", sse(chat_stream.chunk({"content": "a"}, "null")) + b"data: [DONE]\n\n", request())
    assert events[-1] == Finished("stop")


# Documents.


def test_a_chat_document_with_reasoning_of_every_kind() -> None:
    def reasoning_of(message: Json, *, tags_thoughts: bool = False) -> tuple[str, str]:
        events = decode_chat_document(chat_stream.document(message), tags_thoughts=tags_thoughts)
        thoughts = [event.text for event in events if isinstance(event, ReasoningDelta)]
        return "".join(thoughts), "".join(event.text for event in events if isinstance(event, TextDelta))

    detail = {"type": "reasoning.text", "text": "hm"}
    assert reasoning_of({"content": "a", "thinking": "hm"}) == ("hm", "a")
    assert reasoning_of({"content": "a", "reasoning_details": [detail]}) == ("hm", "a")
    assert reasoning_of({"content": "a", "reasoning": "hm", "reasoning_details": [detail]}) == ("hm", "a")
    assert reasoning_of({"content": "<thought>hm</thought>a"}, tags_thoughts=True) == ("hm", "a")
    assert reasoning_of({"content": "<thought>hm"}, tags_thoughts=True) == ("hm", "")


def test_documents_with_object_arguments() -> None:
    item = call_item({"x": 1})
    of_responses = decode_document(json.dumps({"id": "r", "status": "completed", "output": [item]}).encode())
    message = {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}]}
    for events in (of_responses, decode_chat_document(chat_stream.document(message, "tool_calls"))):
        assert [event.arguments for event in events if isinstance(event, ToolCallDelta)] == ['{"x": 1}']


def test_a_refusal_in_a_document_keeps_its_explanation() -> None:
    details = {"category": None, "explanation": "No."}
    events = decode_anthropic_document(anthropic_stream.document(reason="refusal", stop_details=details))
    assert events[-1] == Finished("content_filter", "the model refused to answer: No.")


# Refusals, as text.


def test_a_refusal_is_repeated_as_text_for_cursor() -> None:
    stream = b"".join(responses(event("refusal.delta", content_index=0, delta="No"), event("refusal.delta", delta=".")))
    events = decode("responses", stream, request())
    shown = folded(events, CURSOR)
    assert (shown.content, shown.refusal, shown.finish_reason) == ("No.", "No.", "stop")
    plain = folded(events, OPENAI)
    assert (plain.content, plain.refusal) == (None, "No.")


def test_blank_text_is_as_empty_as_none() -> None:
    shown = folded([TextDelta("\n\n"), ReasoningDelta("hm"), TextDelta(" "), Finished("stop")], CURSOR)
    assert shown.content is not None
    assert shown.content.startswith("\n\n [no answer: the model thought")


def test_an_answer_with_text_says_nothing_of_its_image() -> None:
    shown = folded([TextDelta("a"), Finished("stop", "![image](data:,)")], CURSOR)
    assert shown.content == "a"


# Event names.


def test_a_name_counts_only_where_the_json_has_no_type() -> None:
    asked = request()
    created, *_ = responses()
    done = sse(event("completed", response={"id": "r", "status": "completed", "output": [message_item("Hi")]}))
    stream = created + done.replace(b'{"type": "response.completed", ', b'{"type": null, ')
    assert decode("responses", stream, asked)[1:] == [TextDelta("Hi"), Finished("stop")]
    assert asked.mended == {"event_name"}
    renamed = created + done.replace(b"event: response.completed", b"event: response.failed")
    assert decode("responses", renamed, request())[1:] == [TextDelta("Hi"), Finished("stop")]


def test_an_event_without_a_type_or_a_name_is_ignored() -> None:
    created, done = responses(output=(message_item("Hi"),))
    stream = created + b'data: {"x": 1}\n\n: ping\n\nevent: ping\ndata: {}\n\n' + done
    assert decode("responses", stream, request())[1:-2] == [TextDelta("Hi")]


def test_an_event_that_has_only_a_name_ends_an_unfinished_stream() -> None:
    """The last event lacks its empty line."""
    told = b"".join(nameless(*responses(output=(message_item("Hi"),))))
    assert decode("responses", told[:-2], request())[1:-2] == [TextDelta("Hi")]


# Halves of characters.


def test_half_a_character_is_not_lost_with_the_connection() -> None:
    decoder = ChatDecoder()
    decoder.feed([sse(choice({"content": f"a{FIRST}"}))])
    broken = Failed("upstream_protocol", "Cut.")
    assert decoder.break_off(broken) == [TextDelta("\ufffd"), broken]
    ended = ChatDecoder()
    ended.feed([sse(choice({"content": f"a{FIRST}"}))])
    assert ended.flush()[0] == TextDelta("\ufffd")


def test_half_a_character_goes_before_what_is_said_after_it() -> None:
    events = decode("chat", b"".join(map(sse, (choice({"content": FIRST}), choice({"content": "b"})))), request())
    assert events[1:-1] == [TextDelta("\ufffdb")]


def test_a_failure_comes_after_half_a_character() -> None:
    failed = {"error": {"message": "oops"}}
    events = decode("chat", b"".join(map(sse, (choice({"content": f"a{FIRST}"}), failed))), request())
    assert events[1:3] == [TextDelta("a"), TextDelta("\ufffd")]
    assert isinstance(events[-1], Failed)


def test_nothing_is_decoded_after_an_end_between_two_halves() -> None:
    first = sse(choice({"content": f"a{FIRST}"}))
    decoder = ChatDecoder()
    decoder.feed([first])
    assert isinstance(decoder.feed([sse({"error": {"message": "oops"}}) + first])[-1], Failed)
    assert decoder.feed([first]) == []


def test_a_character_is_joined_in_a_list_of_parts() -> None:
    def parts(text: str) -> Json:
        return choice({"content": [{"type": "text", "text": text}]})

    stream = b"".join(map(sse, (parts(f"a{FIRST}"), parts(SECOND)))) + b"data: [DONE]\n\n"
    assert decode("chat", stream, request())[1:3] == [TextDelta("a"), TextDelta("😀")]


def test_an_escaped_backslash_is_not_half_a_character() -> None:
    mended: set[str] = set()
    halves = SplitCharacters(mended)
    for data in (rb'{"content":"\\ud83d"}', rb'{"content":"\\\\ud83d\\ude00"}', rb'{"content":"\ud83d\ude00 \\"}'):
        assert halves.mend(data) == [data]
    assert mended == set()
    assert not halves.is_waiting
    assert halves.mend(rb'}{"content":"\ud83dx"}') == [rb'}{"content":"\ufffdx"}']
    assert halves.mend(rb'{"content":"\\\ud83d"}') == [rb'{"content":"\\"}']
    assert halves.mend(rb'{"content":"\ude00","x":"\udE00"}') == [rb'{"content":"\ud83d\ude00","x":"\ufffd"}']
    assert mended == {"split_emoji"}


def test_only_what_may_be_half_a_character_is_searched() -> None:
    assert not may_be_split(rb'{"content":"\ud83d\ude00 \u00e4"}')
    assert not may_be_split("😀".encode())
    assert may_be_split(rb'"\uD83d"')
    assert may_be_split(rb'"\ude00"')


def test_an_upstream_cannot_make_halves_pile_up() -> None:
    halves = SplitCharacters(set())
    for at in range(3 * MAX_WAITING):
        halves.mend(json.dumps(chat_stream.calls(chat_stream.call(at, None, None, FIRST))).encode())
    assert 0 < len(halves.flush()) <= MAX_WAITING
    assert halves.flush() == []


def test_halves_of_one_event_cannot_pile_up_either() -> None:
    """Each half that waits keeps a copy of its event."""
    mended: set[str] = set()
    halves = SplitCharacters(mended)
    event = chat_stream.calls(*(chat_stream.call(at, None, None, f"a{FIRST}") for at in range(2 * MAX_WAITING)))
    [sent] = halves.mend(json.dumps(event).encode())
    said = [call["function"]["arguments"] for call in json.loads(sent)["choices"][0]["delta"]["tool_calls"]]
    assert said == ["a"] * MAX_WAITING + ["a\ufffd"] * MAX_WAITING
    assert mended == {"split_emoji"}
    assert len(halves.flush()) == MAX_WAITING


# Corners of calls.


def test_a_brace_within_the_arguments_does_not_start_a_call() -> None:
    pieces = ('{"a":', '{"b":', "1}", "}")
    events = [chat_stream.calls(chat_stream.call(0, "c", "f", ""))]
    events += [chat_stream.calls(chat_stream.call(0, None, None, piece)) for piece in pieces]
    nested = [chat_stream.calls(chat_stream.call(0, None, None, piece)) for piece in ('{"a":"}', '{"', "}")]
    for sent, whole in ((events, '{"a":{"b":1}}'), (events[:1] + nested, '{"a":"}{"}')):
        stream = b"".join(map(sse, sent)) + sse(chat_stream.chunk({}, "tool_calls")) + b"data: [DONE]\n\n"
        [call] = folded(decode("chat", stream, request())).tool_calls
        assert call["arguments"] == whole


def test_a_placeholder_is_all_arguments_once_the_block_has_ended() -> None:
    decoder = AnthropicDecoder()
    *block, stop = anthropic_stream.tool(0, "a", "f", "{}")
    decoder.feed([*map(sse, [anthropic_stream.head(), *block])])
    assert decoder.feed([sse(stop)]) == [ToolCallDelta(0, "{}")]


def test_a_placeholder_of_a_call_without_a_name_is_not_sent() -> None:
    decoder = AnthropicDecoder()
    block = anthropic_stream.tool(0, "a", "", "{}")
    assert not any(isinstance(found, ToolCallDelta) for found in decoder.feed([*map(sse, block)]))


def test_a_placeholder_before_the_arguments_of_a_custom_tool_is_dropped() -> None:
    decoder = ChatDecoder(RequestTraits(custom_tools=frozenset({"patch"})))
    pieces = [chat_stream.call(0, "a", "patch", "{}"), chat_stream.call(0, None, None, '{"input":"x"}')]
    events = decoder.feed([sse(chat_stream.calls(*pieces)), sse(chat_stream.chunk({}, "tool_calls"))]) + decoder.flush()
    assert [found.arguments for found in events if isinstance(found, ToolCallDelta)] == ["x"]


def test_a_second_object_is_noticed_right_after_the_deltas_were_joined() -> None:
    events = [chat_stream.calls(chat_stream.call(0, "c", "f", "{"))]
    events += [chat_stream.calls(chat_stream.call(0, None, None, " ")) for _ in range(255)]
    events += [chat_stream.calls(chat_stream.call(0, None, None, piece)) for piece in ("}", X)]
    stream = b"".join(map(sse, events)) + sse(chat_stream.chunk({}, "tool_calls")) + b"data: [DONE]\n\n"
    first, second = folded(decode("chat", stream, request())).tool_calls
    assert (first["arguments"], second["arguments"]) == ("{" + " " * 255 + "}", X)


def test_traits_without_a_request_have_a_set_of_their_own() -> None:
    mended: set[str] = set()
    traits = RequestTraits(mended=mended)
    for decoder in (ChatDecoder(traits), AnthropicDecoder(traits), ResponsesDecoder(traits)):
        decoder.feed([b'data: {"content":"\\ud83d"}\n\n'])
    assert mended == {"split_emoji"}
    assert RequestTraits().mended == set()
