"""The chunk encoder and the document collector: each rule of docs/facts/translation.md, "Answers", by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clients.chat_fold import chunks_of, data_of, fold_document, fold_stream
from kit.strategies.streams import batched, event_sequences
from msgspec import Raw

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.errors import error_frame
from stages.wire.downstream.profiles import CURSOR, OPENAI, Profile
from stages.wire.responses.decoder import ResponsesDecoder

DATA = Path(__file__).parents[2] / "data" / "streams" / "responses"
STARTED = Started("resp_1", "gpt-5-2025", 1790000000, "default")
STOP = Finished("stop")
BROKEN = Failed("upstream_rate_limited", "Slow down.", "rate_limit_exceeded")
LOGPROB = b'{"token":"a","logprob":-0.5,"bytes":null,"top_logprobs":[]}'
ROLE = {"role": "assistant", "content": ""}


def encoder(*, include_usage: bool = False, profile: Profile = OPENAI) -> ChunkEncoder:
    return ChunkEncoder(
        model="gpt-5", chunk_id="chatcmpl-1", created=1700000000, include_usage=include_usage, profile=profile
    )


def encode(*events: StreamEvent, include_usage: bool = False, profile: Profile = OPENAI) -> bytes:
    encode = encoder(include_usage=include_usage, profile=profile)
    return b"".join([*encode.feed(list(events)), *encode.flush()])


def deltas(*events: StreamEvent) -> list[Any]:
    """Encode the events and return the deltas between the role and the finish reason."""
    role, *between, finish = [chunk["choices"][0] for chunk in chunks_of(encode(STARTED, *events, STOP))]
    assert role == {"index": 0, "delta": ROLE, "finish_reason": None}
    assert finish == {"index": 0, "delta": {}, "finish_reason": "stop"}
    for choice in between:
        assert choice["index"] == 0
        assert choice["finish_reason"] is None
    return [choice["delta"] for choice in between]


def collector() -> CompletionCollector:
    return CompletionCollector(model="gpt-5", chunk_id="chatcmpl-1", created=1700000000)


def collect(*events: StreamEvent) -> dict[str, Any]:
    [encoded] = collector().feed(list(events))
    document: dict[str, Any] = json.loads(encoded)
    return document


# Chunks


def test_a_text_becomes_the_role_its_deltas_and_the_end() -> None:
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"gpt-5",'
    head += b'"service_tier":"default","choices":[{"index":0,"delta":{'
    assert encode(STARTED, TextDelta("a"), TextDelta("b"), STOP) == (
        head
        + b'"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        + head
        + b'"content":"a"},"finish_reason":null}]}\n\n'
        + head
        + b'"content":"b"},"finish_reason":null}]}\n\n'
        + head
        + b'},"finish_reason":"stop"}]}\n\n'
        + b"data: [DONE]\n\n"
    )


def test_a_batch_becomes_one_bytes_object_and_no_events_none() -> None:
    encode = encoder()
    assert encode.feed([STARTED]) == []
    assert len(encode.feed([TextDelta("a"), ReasoningDelta("b"), TextDelta("c")])) == 1
    assert encode.feed([Usage(1, 2, 3)]) == []
    assert len(encode.feed([TextDelta("d")])) == 1
    assert len(encode.feed([STOP])) == 1
    assert encode.flush() == []
    assert encode.failed is None


def test_every_kind_of_delta_has_its_field() -> None:
    assert deltas(
        ReasoningDelta("r"),
        TextDelta("t"),
        RefusalDelta("n"),
        ReasoningDelta("s"),
        ReasoningDelta("s"),
    ) == [
        {"reasoning_content": "r"},
        {"content": "t"},
        {"refusal": "n"},
        {"reasoning_content": "s"},
        {"reasoning_content": "s"},
    ]


def test_a_call_is_named_once_and_then_known_by_its_index() -> None:
    found = deltas(
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, '{"a"'),
        ToolCallStarted(1, "call_b", 'g"', is_custom=True),
        ToolCallDelta(1, "*** Begin\n"),
        ToolCallDelta(0, ":1}"),
        ToolCallDelta(0, " "),
    )
    assert [call for delta in found for call in delta["tool_calls"]] == [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": 'g"', "arguments": ""}},
        {"index": 1, "function": {"arguments": "*** Begin\n"}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 0, "function": {"arguments": " "}},
    ]


@pytest.mark.parametrize(
    "event",
    [ReasoningDelta("x"), ToolCallStarted(0, "call_a", "f"), RefusalDelta("x"), ToolCallDelta(0, "x"), TextDelta("x")],
)
def test_the_role_comes_once_and_first_whatever_the_first_event_is(event: StreamEvent) -> None:
    first, *rest = chunks_of(encode(STARTED, event, event, STOP))
    assert first["choices"][0]["delta"] == ROLE
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in rest)
    assert len(rest) == 3


def test_an_empty_answer_has_a_role_and_an_end() -> None:
    assert deltas() == []


def test_the_time_is_the_upstreams_if_it_sends_one() -> None:
    assert chunks_of(encode(STARTED, STOP))[0]["created"] == 1790000000
    assert chunks_of(encode(Started("", "", 0), STOP))[0]["created"] == 1700000000
    assert chunks_of(encode(TextDelta("x"), STOP))[0]["created"] == 1700000000


@pytest.mark.parametrize(("tier", "is_given"), [("flex", True), ("fast", True), ("ultrafast", False), (None, False)])
def test_only_service_tiers_that_chat_has_are_shown(tier: str | None, is_given: bool) -> None:
    started = Started("", "", 0, tier)
    for answer in (*chunks_of(encode(started, TextDelta("x"), STOP)), collect(started, STOP)):
        assert answer.get("service_tier") == (tier if is_given else None)
        assert ("service_tier" in answer) == is_given


def test_citations_come_in_one_chunk_in_the_nested_form() -> None:
    found = deltas(TextDelta("x"), Annotations((Citation("https://a", "A", 1, 2), Citation("https://b"))))
    expected = [
        {"type": "url_citation", "url_citation": {"url": "https://a", "title": "A", "start_index": 1, "end_index": 2}},
        {"type": "url_citation", "url_citation": {"url": "https://b", "title": "", "start_index": 0, "end_index": 0}},
    ]
    assert found[1:] == [{"annotations": expected}]
    assert deltas(Annotations(())) == []
    message = collect(Annotations((Citation("https://a", "A", 1, 2), Citation("https://b"))), STOP)["choices"][0][
        "message"
    ]
    assert message["annotations"] == expected


def test_log_probabilities_are_sent_with_their_text() -> None:
    stream = encode(STARTED, LogProbs((Raw(LOGPROB),)), TextDelta("a"), TextDelta("b"), STOP)
    choices = [chunk["choices"][0] for chunk in chunks_of(stream)]
    assert [choice.get("logprobs") for choice in choices] == [
        None,
        {"content": [json.loads(LOGPROB)], "refusal": None},
        None,
        None,
    ]
    assert choices[1]["delta"] == {"content": "a"}


def test_log_probabilities_without_a_text_are_sent_before_the_end() -> None:
    stream = encode(STARTED, TextDelta("a"), LogProbs((Raw(LOGPROB),)), LogProbs((Raw(LOGPROB),)), STOP)
    assert len(fold_stream(stream).logprobs) == 2


@pytest.mark.parametrize("text", ["\0", "\u2028\u2029\x0b\x85", '"\\\n\r', "😀é", "\x7f"])
def test_any_text_becomes_one_line_of_valid_json(text: str) -> None:
    events = (TextDelta(text), ReasoningDelta(text), ToolCallStarted(0, "i", text), ToolCallDelta(0, text))
    folded = fold_stream(encode(STARTED, *events, *events[:2], STOP))
    assert folded.content == text * 2
    assert folded.reasoning == text * 2
    assert folded.tool_calls == [{"id": "i", "name": text, "arguments": text}]


def test_lone_surrogates_are_replaced() -> None:
    events: list[StreamEvent] = [
        TextDelta("a\ud83d"),
        TextDelta("\ude00b"),
        ToolCallStarted(0, "i\ud800", "f"),
        ToolCallDelta(0, "\ud83d\ude00"),
    ]
    folded = fold_stream(encode(STARTED, *events, STOP))
    assert folded.content == "a\ufffd\ufffdb"
    assert folded.tool_calls == [{"id": "i\ufffd", "name": "f", "arguments": "😀"}]
    [document] = collector().feed([*events, STOP])
    assert fold_document(document).content == "a😀b"  # joined before they are encoded
    [failed] = chunks_of(error_frame(Failed("upstream_error", "\ud800")))
    assert failed["error"]["message"] == "\ufffd"


def test_heartbeats_become_comments_after_the_first_output() -> None:
    # Earlier, a comment would commit us to a 200; long waits are handled by the keep_alive stage.
    encode = encoder()
    assert encode.feed([Heartbeat(), STARTED, Heartbeat()]) == []
    assert encode.feed([TextDelta("a"), Heartbeat()])[0].endswith(b": keepalive\n\n")
    assert encode.feed([Heartbeat()]) == [b": keepalive\n\n"]
    assert encode.feed([STOP, Heartbeat()])[0].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_the_finish_reason_comes_once_on_an_empty_delta(reason: Any) -> None:
    finish = chunks_of(encode(STARTED, TextDelta("a"), Finished(reason)))[-1]["choices"]
    assert finish == [{"index": 0, "delta": {}, "finish_reason": reason}]


def test_nothing_comes_after_the_end() -> None:
    encode = encoder()
    assert encode.feed([TextDelta("a"), STOP, TextDelta("b"), Started("", "", 5), STOP])[0].count(b"[DONE]") == 1
    assert encode.feed([TextDelta("c"), Failed("upstream_error", "late")]) == []
    assert encode.flush() == []
    assert encode.failed is None


# Usage

USAGE = Usage(10, 20, 30, 4, None, 5)
CHAT_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 20,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def test_usage_comes_last_without_choices_if_it_was_requested() -> None:
    *chunks, usage = chunks_of(encode(STARTED, TextDelta("a"), USAGE, STOP, include_usage=True))
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert usage["choices"] == []
    assert usage["usage"] == CHAT_USAGE
    assert {name: usage[name] for name in ("id", "object", "created", "model")} == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "gpt-5",
    }


def test_usage_is_neither_sent_unless_requested_nor_invented() -> None:
    for chunk in chunks_of(encode(STARTED, TextDelta("a"), USAGE, STOP)):
        assert "usage" not in chunk
    chunks = chunks_of(encode(STARTED, TextDelta("a"), STOP, include_usage=True))
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert all(chunk["choices"] for chunk in chunks)


def test_unknown_details_of_usage_are_left_out() -> None:
    bare = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert chunks_of(encode(Usage(1, 2, 3), STOP, include_usage=True))[-1]["usage"] == bare
    assert collect(Usage(1, 2, 3), STOP)["usage"] == bare
    written = collect(Usage(1, 2, 3, cache_write_tokens=7), STOP)["usage"]
    assert written == bare | {"prompt_tokens_details": {"cache_write_tokens": 7}}


def test_cursor_gets_usage_always_with_zeros_for_what_is_unknown() -> None:
    *chunks, usage = chunks_of(encode(STARTED, TextDelta("a"), Usage(1, 2, 3), STOP, profile=CURSOR))
    assert all("usage" not in chunk for chunk in chunks)
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


# Failures


def test_a_failure_after_output_is_one_error_and_nothing_after_it() -> None:
    encode = encoder(include_usage=True)
    [frames] = encode.feed([STARTED, TextDelta("a"), USAGE, BROKEN, STOP])
    assert data_of(frames)[-1] == json.dumps(
        {
            "error": {
                "message": "Slow down.",
                "type": "rate_limit_error",
                "param": None,
                "code": "upstream_rate_limited",
                "upstream_code": "rate_limit_exceeded",
            }
        },
        separators=(",", ":"),
    )
    assert b"[DONE]" not in frames
    assert b'"finish_reason":"' not in frames
    assert encode.failed is None
    assert encode.flush() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("upstream_rejected", "invalid_request_error"),
        ("upstream_error", "server_error"),
        ("upstream_protocol", "server_error"),
    ],
)
def test_an_error_names_its_type(code: str, kind: str) -> None:
    [chunk] = chunks_of(error_frame(Failed(code, "m")))
    assert chunk["error"] == {"message": "m", "type": kind, "code": code, "param": None}


@pytest.mark.parametrize("profile", [OPENAI, CURSOR])
def test_a_failure_before_any_output_is_left_to_the_stage(profile: Profile) -> None:
    encode = encoder(profile=profile)
    assert encode.feed([STARTED, Heartbeat(), Usage(1, 2, 3), BROKEN]) == []
    assert encode.failed == BROKEN
    assert encode.flush() == []
    folded = fold_stream(encode.in_band(BROKEN))
    assert (folded.error is None) == profile.failure_as_text
    assert folded.is_done == profile.failure_as_text


def test_cursor_gets_a_failure_as_text_with_a_regular_end() -> None:
    call = (ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{"))
    stream = encode(STARTED, TextDelta("Let me"), *call, USAGE, BROKEN, profile=CURSOR)
    folded = fold_stream(stream)
    assert folded.content == "Let me\n\n[upstream error: rate_limit_exceeded: Slow down.]"
    assert folded.finish_reason == "stop"
    assert folded.is_done
    assert folded.usage is None
    plain = fold_stream(encode(STARTED, TextDelta("a"), Failed("upstream_protocol", "Cut."), profile=CURSOR))
    assert plain.content == "a\n\n[upstream error: upstream_protocol: Cut.]"


def test_events_that_stop_without_an_end_are_a_failure() -> None:
    folded = fold_stream(encode(STARTED, TextDelta("a")))
    assert folded.error is not None
    assert folded.error["code"] == "upstream_protocol"
    silent = encoder()
    assert silent.flush() == []
    assert silent.failed is not None
    document = collector()
    assert document.feed([STARTED, TextDelta("a")]) == []
    assert document.flush() == []
    assert document.failed is not None
    assert document.failed.code == "upstream_protocol"


# Documents


def test_a_document_holds_the_whole_answer() -> None:
    collect = collector()
    assert collect.feed([STARTED, ReasoningDelta("r"), TextDelta("a"), Heartbeat()]) == []
    calls = [ToolCallStarted(0, "call_a", "f"), ToolCallStarted(1, "call_b", "g", is_custom=True)]
    arguments = [ToolCallDelta(1, "x"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}"), ToolCallDelta(7, "lost")]
    [document] = collect.feed(
        [TextDelta("b"), *calls, *arguments, LogProbs((Raw(LOGPROB),)), USAGE, Finished("tool_calls"), TextDelta("c")]
    )
    assert json.loads(document) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-5",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "ab",
                    "refusal": None,
                    "reasoning_content": "r",
                    "tool_calls": [
                        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "x"}},
                    ],
                },
                "logprobs": {"content": [json.loads(LOGPROB)], "refusal": None},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": CHAT_USAGE,
        "service_tier": "default",
    }
    assert collect.feed([TextDelta("c"), STOP]) == []
    assert collect.flush() == []
    assert collect.failed is None


@pytest.mark.parametrize(
    ("events", "content", "refusal"),
    [
        ([], "", None),
        ([ReasoningDelta("r")], "", None),
        ([ToolCallStarted(0, "i", "f")], None, None),
        ([RefusalDelta("no")], None, "no"),
        ([TextDelta("a"), RefusalDelta("no")], "a", "no"),
    ],
)
def test_the_content_is_null_only_if_something_else_replaces_it(
    events: list[StreamEvent], content: str | None, refusal: str | None
) -> None:
    message = collect(*events, STOP)["choices"][0]["message"]
    assert message["content"] == content
    assert message["refusal"] == refusal


def test_fields_that_an_answer_does_not_have_are_absent_from_its_document() -> None:
    document = collect(TextDelta("a"), STOP)
    assert set(document) == {"id", "object", "created", "model", "choices"}
    assert document["created"] == 1700000000
    assert set(document["choices"][0]["message"]) == {"role", "content", "refusal"}
    assert document["choices"][0]["logprobs"] is None


def test_a_failure_yields_no_document() -> None:
    collect = collector()
    assert collect.feed([STARTED, TextDelta("a"), BROKEN, STOP]) == []
    assert collect.flush() == []
    assert collect.failed == BROKEN


# Whole streams, and any events


def test_an_agents_answer_reaches_the_client_whole() -> None:
    decoder, encode = ResponsesDecoder(), encoder(include_usage=True)
    events = decoder.feed([(DATA / "agent.sse").read_bytes()]) + decoder.flush()
    folded = fold_stream(b"".join(encode.feed(events)))
    assert folded.content == "I will look, then patch.\n\nDone."
    assert folded.reasoning == "**Looking**\n\n**Patching**"
    assert [call["id"] for call in folded.tool_calls] == ["call_read", "call_grep", "call_patch"]
    assert json.loads(folded.tool_calls[1]["arguments"]) == {"pattern": "é\u2028"}
    assert folded.tool_calls[2]["arguments"].startswith("*** Begin Patch\n")
    assert folded.finish_reason == "tool_calls"
    assert folded.usage is not None
    assert folded.usage["total_tokens"] == 150


@pytest.mark.parametrize("profile", [OPENAI, CURSOR])
def test_an_error_in_mid_stream_reaches_the_client_once(profile: Profile) -> None:
    decoder, encode = ResponsesDecoder(), encoder(profile=profile)
    events = decoder.feed([(DATA / "error_mid_stream.sse").read_bytes()]) + decoder.flush()
    stream = b"".join(encode.feed(events))
    assert stream.count(b"Rate limit reached for gpt-5.4. Please try again in 1.5s.") == 1
    assert fold_stream(stream).is_done == profile.failure_as_text


def replaced(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(st.data(), event_sequences(), st.booleans(), st.sampled_from([OPENAI, CURSOR]))
def test_the_stream_does_not_depend_on_batches_and_matches_the_events(
    data: st.DataObject, events: list[StreamEvent], include_usage: bool, profile: Profile
) -> None:
    whole = encoder(include_usage=include_usage, profile=profile)
    stream = b"".join(whole.feed(events) + whole.flush())
    cut = encoder(include_usage=include_usage, profile=profile)
    outputs = [cut.feed(batch) for batch in data.draw(batched(events))] + [cut.flush()]
    assert all(len(output) <= 1 for output in outputs)
    assert b"".join(frame for output in outputs for frame in output) == stream
    assert cut.failed == whole.failed
    folded = fold_stream(stream)
    shown = (TextDelta, RefusalDelta) if profile.refusal_as_text else (TextDelta,)
    text = "".join(replaced(event.text) for event in events if isinstance(event, shown))
    end = events[-1]
    if isinstance(end, Finished):
        content = folded.content or ""
        if profile.explains_empty and not text.strip() and not folded.tool_calls:
            content, mark, _ = content.partition("[no answer: ")
            assert mark
        assert content == text
        assert folded.finish_reason == end.reason
        assert folded.is_done
    elif whole.failed is not None:
        assert whole.failed == end
        assert stream == b""
    else:
        assert (folded.content or "").startswith(text)
        assert (folded.error is None) == profile.failure_as_text


@given(st.data(), event_sequences(whole=True))
def test_a_document_has_the_same_content_as_the_stream(data: st.DataObject, events: list[StreamEvent]) -> None:
    collect = collector()
    documents = [document for batch in data.draw(batched(events)) for document in collect.feed(batch)]
    [document] = documents + collect.flush()
    assert collector().feed(events) == [document]
    streamed, collected = fold_stream(encode(*events, include_usage=True)), fold_document(document)
    for name in (
        "reasoning",
        "refusal",
        "tool_calls",
        "annotations",
        "finish_reason",
        "usage",
        "created",
        "service_tier",
    ):
        assert getattr(collected, name) == getattr(streamed, name)


TOO_LONG = Failed("context_length_exceeded", "Your input exceeds the context window of this model.", "400")


def test_a_conversation_that_is_too_long_is_reported_with_its_sentence_first() -> None:
    first = fold_stream(encoder(profile=CURSOR).in_band(TOO_LONG))
    assert first.content == f"{TOO_LONG.message}\n\n[upstream error: context_length_exceeded]"
    begun = encoder(profile=CURSOR)
    [frames] = begun.feed([STARTED, TextDelta("a"), TOO_LONG])
    assert fold_stream(frames).content == f"a\n\n{first.content}"
    assert fold_stream(encoder().in_band(TOO_LONG)).error == {
        "message": TOO_LONG.message,
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }


def test_a_code_that_cursor_takes_for_a_rate_limit_is_not_shown() -> None:
    overloaded = Failed("upstream_error", "Overloaded", "overloaded_error")
    assert fold_stream(encoder(profile=CURSOR).in_band(overloaded)).content == (
        "\n\n[upstream error: upstream_error: Overloaded]"
    )
    error = fold_stream(encoder().in_band(overloaded)).error
    assert error is not None
    assert "upstream_code" not in error
