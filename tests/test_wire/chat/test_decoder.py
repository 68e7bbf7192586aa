"""The decoder of Chat Completions upstreams: every vendor's stream becomes the same events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.clients.chat_fold import fold_stream
from kit.strategies.streams import sse
from kit.upstreams.chat_stream import DONE, STARTED, call, calls, chunk, document
from kit.upstreams.decoded import decode as decode_by
from kit.upstreams.decoded import decode_anything, encode, folded_calls

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    LogProbs,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document


def decode(*events: dict[str, Any] | str | bytes, **settings: Any) -> list[StreamEvent]:
    return decode_by(partial(ChatDecoder, RequestTraits(**settings)), *events)


def items(events: Iterable[StreamEvent]) -> list[Any]:
    return [json.loads(bytes(event.payload)) for event in events if isinstance(event, ReasoningItem)]


# --- text, reasoning, refusals ---------------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    assert decode(
        chunk({"role": "assistant", "content": ""}, service_tier="default"),
        chunk({"role": "assistant", "content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        chunk(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}) | {"choices": []},
        DONE,
    ) == [
        Started("c1", "m", 7, "default"),
        TextDelta("Hel"),
        TextDelta("lo"),
        Usage(1, 2, 3),
        Finished("stop"),
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_emitted_and_repeated_as_an_item_before_its_result(field: str) -> None:
    events = decode(
        chunk({"role": "assistant", field: ""}),
        chunk({field: "I "}),
        chunk({field: "see"}),
        chunk({"content": "", field: None}),
        chunk({"content": "Yes"}),
        chunk({field: " more"}),
        calls(call(0, "a", "f", "{}")),
        chunk({}, "tool_calls"),
        DONE,
    )
    assert events[1:6] == [
        ReasoningDelta("I "),
        ReasoningDelta("see"),
        ReasoningItem("chat", msgspec.Raw(b'{"reasoning_content":"I see"}')),
        TextDelta("Yes"),
        ReasoningDelta(" more"),
    ]
    assert items(events) == [{"reasoning_content": "I see"}, {"reasoning_content": " more"}]
    assert isinstance(events[6], ReasoningItem)
    assert isinstance(events[7], ToolCallStarted)


def test_reasoning_comes_before_text_of_the_same_chunk() -> None:
    (first, second) = (
        chunk({"role": "assistant"}),
        chunk({"content": "b", "reasoning": "a", "reasoning_content": "a"}),
    )
    assert decode(first, second, chunk({}, "stop"), DONE)[1:4] == [
        ReasoningDelta("a"),
        ReasoningItem("chat", msgspec.Raw(b'{"reasoning_content":"a"}')),
        TextDelta("b"),
    ]


def test_typed_content_parts_become_text_and_thinking() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]},
        {"type": "thinking", "thinking": "c"},
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "d"},
        {"type": "reference", "reference_ids": [1]},
        "e",
    ]
    events = decode(chunk({"content": parts}), chunk({}, "stop"), DONE)
    assert [type(event) for event in events[1:5]] == [ReasoningDelta, ReasoningDelta, ReasoningItem, TextDelta]
    assert items(events) == [{"reasoning_content": "abc"}]
    assert TextDelta("d") in events


def test_think_tags_remain_text() -> None:
    assert TextDelta("<think>x</think>") in decode(chunk({"content": "<think>x</think>"}), chunk({}, "stop"))


def test_a_refusal_becomes_a_refusal_delta() -> None:
    events = decode(chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk({}, "stop"), DONE)
    assert events == [STARTED, RefusalDelta("No"), RefusalDelta("."), Finished("stop")]


def test_requested_log_probabilities_come_before_their_text() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": None}
    one = chunk({"content": "a"})
    one["choices"][0]["logprobs"] = logprobs
    two = chunk({"content": "b"})
    two["choices"][0]["logprobs"] = None
    with_logprobs = decode(one, two, chunk({}, "stop"), DONE, wants_logprobs=True)
    assert isinstance(with_logprobs[1], LogProbs)
    assert [json.loads(bytes(token)) for token in with_logprobs[1].content] == logprobs["content"]
    assert with_logprobs[2:] == [TextDelta("a"), TextDelta("b"), Finished("stop")]
    assert decode(one, two, chunk({}, "stop"), DONE) == [STARTED, *with_logprobs[2:]]


def test_citations_come_once_without_duplicates() -> None:
    nested = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 1, "end_index": 2}}
    flat = {"type": "url_citation", "url": "v"}
    others = [{"type": "file_citation", "url": "w"}, {"type": "url_citation"}, 3]
    events = decode(
        chunk({"annotations": [nested, *others]}), chunk({"annotations": [nested, flat]}), chunk({}, "stop"), DONE
    )
    assert events == [STARTED, Annotations((Citation("u", "t", 1, 2), Citation("v"))), Finished("stop")]


# --- tool calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(
            [
                calls(call(0, "a", "f", "")),
                calls(call(0, None, None, '{"x"')),
                calls(call(0, None, None, ":1}")),
                calls(call(1, "b", "g", "")),
                calls(call(1, None, None, "{}")),
            ],
            id="OpenAI",
        ),
        pytest.param([calls(call(0, "a", "f", '{"x":1}'), call(1, "b", "g", "{}"))], id="whole, numbered"),
        pytest.param([calls(call(None, "a", "f", '{"x":1}'), call(None, "b", "g", "{}"))], id="Mistral"),
        pytest.param([calls(call(None, "a", "f", '{"x":1}')), calls(call(None, "b", "g", "{}"))], id="Gemini"),
        pytest.param([calls(call(0, "a", "f", '{"x":1}')), calls(call(0, "b", "g", "{}"))], id="all number 0"),
        pytest.param(
            [calls(call(0, "a", "f", '{"x":1}'), call(0, "b", "g", "{}"), call(0, "b", "g", ""))],
            id="all number 0, in one chunk",
        ),
        pytest.param(
            [
                calls(call(0, "a", "f", ""), call(1, "b", "g", "")),
                calls(call(1, None, None, "{")),
                calls(call(0, None, None, '{"x"')),
                calls(call(1, None, None, "}")),
                calls(call(0, None, None, ":1}")),
            ],
            id="interleaved",
        ),
        pytest.param(
            [calls(call(0, "a", "f", '{"x"')), calls(call(0, "a", "f", ":1}")), calls(call(1, "b", "g", "{}"))],
            id="name and id repeated",
        ),
        pytest.param(
            [
                calls(call(None, "a", "f", '{"x"')),
                calls(call(None, "a", "f", ":1}")),
                calls(call(None, "b", "g", "{}")),
            ],
            id="name and id repeated, no numbers",
        ),
        pytest.param(
            [
                calls(call(None, "a", "f", '{"x"')),
                calls(call(None, None, None, ":1}")),
                calls(call(None, "b", "g", "{}")),
            ],
            id="no numbers, then nothing at all",
        ),
        pytest.param(
            [calls(call(0, "a", "f", '{"x"')), calls(call(0, "", None, ":1}")), calls(call(3, "b", "g", "{}"))],
            id="Alibaba: empty ids, and a gap",
        ),
        pytest.param(
            [calls(call(0, "a", None, '{"x"')), calls(call(0, None, "f", ":1}")), calls(call(1, "b", "g", "{}"))],
            id="arguments before the name",
        ),
        pytest.param([calls(call(0, "a", "f", {"x": 1}), call(1, "b", "g", {}))], id="arguments as objects"),
        pytest.param([calls(call(0, "a", "f", '{"x":1}'), call(1, "b", "g", None))], id="no arguments: null"),
        pytest.param([calls(call(0, "a", "f", '{"x":1}'), call(1, "b", "g", ""))], id="no arguments: empty"),
        pytest.param([calls(call(0, "a", "f", '{"x":1}'), call(1, "b", "g", " "))], id="no arguments: blank"),
        pytest.param([calls(call(-1, "a", "f", '{"x":1}'), call(5, "b", "g", "{}"))], id="odd numbers"),
        pytest.param([calls(call("0", "a", "f", '{"x":1}'), call("1", "b", "g", "{}"))], id="numbers as text"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop", "function_call", "end_turn", "STOP", "tool_use"])
def test_two_calls_are_recognised_in_every_notation(chunks: list[dict[str, Any]], finish: str) -> None:
    events = decode(*chunks, chunk({}, finish), DONE)
    got = [
        (call_id, name, arguments.strip().replace(": ", ":")) for call_id, name, arguments, _ in folded_calls(events)
    ]
    assert got == [("a", "f", '{"x":1}'), ("b", "g", "{}")]
    assert events[-1] == Finished("tool_calls")


def test_parallel_calls_of_one_tool_without_indices_are_kept_apart() -> None:
    events = decode(calls(call(None, None, "f", '{"x":1}')), calls(call(None, None, "f", '{"x":2}')), chunk({}, "stop"))
    assert folded_calls(events) == [("call_c1_0", "f", '{"x":1}', False), ("call_c1_1", "f", '{"x":2}', False)]


def test_calls_without_arguments_that_share_an_index_are_kept_apart() -> None:
    events = decode(calls(call(0, "a", "f", ""), call(0, "b", "f", "")), chunk({}, "stop"))
    assert folded_calls(events) == [("a", "f", "{}", False), ("b", "f", "{}", False)]


def test_a_name_repeated_without_index_or_id_continues_an_unfinished_call() -> None:
    events = decode(calls(call(None, None, "f", '{"x"')), calls(call(None, None, "f", ":2}")), chunk({}, "stop"))
    assert folded_calls(events) == [("call_c1_0", "f", '{"x":2}', False)]


def test_an_id_that_changes_without_a_name_is_the_same_call() -> None:
    events = decode(calls(call(0, "a", "f", '{"x"')), calls(call(0, "b", None, ":2}")), chunk({}, "stop"))
    assert folded_calls(events) == [("a", "f", '{"x":2}', False)]


def test_the_id_that_replaces_a_known_one_is_new_too() -> None:
    made = [calls(call(0, "call_0", "f", "{}"), call(1, "call_1", "f", "{}")), chunk({}, "tool_calls")]
    used = frozenset({"call_0", "call_c1_0"})
    assert [it[0] for it in folded_calls(decode(*made, used_call_ids=used))] == ["call_c1_1", "call_1"]
    made[0]["id"] = None
    assert folded_calls(decode(*made, used_call_ids=used))[0][0] == "call_7_0"


def test_the_legacy_function_call_is_a_call() -> None:
    events = decode(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"x":1}'}}),
        chunk({}, "function_call"),
        DONE,
    )
    assert folded_calls(events) == [("call_c1_0", "f", '{"x":1}', False)]
    assert events[-1] == Finished("tool_calls")


def test_arguments_that_were_cut_off_are_not_completed() -> None:
    events = decode(calls(call(0, "a", "f", '{"x'), call(1, "b", "g", "")), chunk({}, "length"), DONE)
    assert folded_calls(events) == [("a", "f", '{"x', False), ("b", "g", "", False)]
    assert events[-1] == Finished("length")


def test_geminis_signature_comes_before_its_call() -> None:
    extra = {"google": {"thought_signature": "EjQK"}}
    events = decode(
        chunk({"reasoning_content": "hm"}),
        calls(call(None, "a", "f", "{}", extra_content=extra), call(None, "b", "f", "{}")),
        chunk({}, "stop"),
    )
    assert items(events) == [{"reasoning_content": "hm", "extra_content": extra}]
    assert isinstance(events[2], ReasoningItem)
    assert isinstance(events[3], ToolCallStarted)
    alone = decode(calls(call(0, "a", "f", "{}", extra_content=extra)), chunk({}, "stop"))
    assert items(alone) == [{"extra_content": extra}]


# --- custom tools ----------------------------------------------------------------------------------------------------

PATCH = '*** Begin Patch\n+ say("hé 😀 \\o/")\n*** End Patch\n'


@pytest.mark.parametrize("arguments", [json.dumps({"content": PATCH}), PATCH, json.dumps({"why": 1, "input": PATCH})])
def test_a_custom_tool_is_unwrapped_from_the_models_arguments(arguments: str) -> None:
    tools = frozenset({"ApplyPatch"})
    assert folded_calls(
        decode(calls(call(0, "a", "ApplyPatch", arguments)), chunk({}, "stop"), custom_tools=tools)
    ) == [("a", "ApplyPatch", PATCH, True)]


def test_a_native_custom_call_of_openai_is_already_raw() -> None:
    entries = [
        {"index": 0, "id": "a", "type": "custom", "custom": {"name": "T", "input": ""}},
        {"index": 0, "custom": {"input": '{"input":'}},
        {"index": 0, "custom": {"input": "1"}},
        {"index": 1, "id": "b", "type": "custom", "custom": {"name": "T", "input": ""}},
    ]
    events = decode(*map(calls, entries), chunk({}, "tool_calls"), DONE, custom_tools=frozenset({"T"}))
    assert folded_calls(events) == [("a", "T", '{"input":1', True), ("b", "T", "", True)]


def test_open_custom_calls_end_in_the_order_in_which_they_started() -> None:
    """The first to arrive is the second to start, because it has no name yet."""
    held = '{"why":1,"input":"%s"}'
    events = decode(
        calls(call(0, "a", None, held % "a"), call(1, "b", "T", held % "b")),
        calls(call(0, None, "T", "")),
        chunk({}, "tool_calls"),
        custom_tools=frozenset({"T"}),
    )
    assert events[1:] == [
        ToolCallStarted(0, "b", "T", is_custom=True),
        ToolCallStarted(1, "a", "T", is_custom=True),
        ToolCallDelta(0, "b"),
        ToolCallDelta(1, "a"),
        Finished("tool_calls"),
    ]


def test_an_undeclared_custom_call_belongs_to_the_upstream_if_it_has_hosted_tools() -> None:
    entries = [
        {"index": 0, "id": "a", "custom": {"input": "x"}},
        {"index": 0, "id": "a", "custom": {"name": "x_search", "input": "x"}},
        {"index": 0, "custom": {"input": "x"}},
    ]
    events = decode(*map(calls, entries), chunk({}, "tool_calls"), DONE, has_hosted_tools=True)
    assert events == [STARTED, Finished("stop")]
    assert folded_calls(decode(*map(calls, entries), chunk({}, "stop"))) == [("a", "x_search", "xxx", True)]


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("tool_calls", "stop"),
        ("whatever", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("insufficient_system_resource", "length"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("SAFETY", "content_filter"),
    ],
)
def test_finish_reasons_are_translated_to_those_of_openai(word: str, reason: Any) -> None:
    assert decode(chunk({"content": "a"}), chunk({}, word), DONE)[-1] == Finished(reason)


@pytest.mark.parametrize("word", ["abort", "network_error", "function_call_filter: MALFORMED_FUNCTION_CALL"])
def test_a_finish_reason_may_be_a_failure(word: str) -> None:
    end = decode(chunk({"content": "a"}), chunk({}, word), DONE)[-1]
    assert isinstance(end, Failed)
    assert end.code == "upstream_error"


def test_an_empty_finish_reason_counts_only_if_done_follows() -> None:
    early = "The upstream's stream ended before its answer was complete; try again."
    assert decode(chunk({"content": "a"}, ""))[-1] == Failed("upstream_protocol", early)
    assert decode(chunk({"content": "a"}, ""), chunk({}, ""), DONE)[-1] == Finished("stop")
    assert decode(chunk({"content": "a"}, ""), chunk({}, None), DONE)[-1] == Finished("stop")
    assert decode(chunk({"content": "a"}, ""), chunk({}, "length"), chunk({}, ""), DONE)[-1] == Finished("length")


def test_done_may_be_missing() -> None:
    assert decode(chunk({"content": "a"}, "stop"))[-1] == Finished("stop")


def test_what_comes_after_done_is_ignored() -> None:
    assert decode(chunk({}, "stop"), " [DONE] ", chunk({"content": "late"})) == [STARTED, Finished("stop")]


COUNTS = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([chunk({}, "stop"), chunk(usage=COUNTS) | {"choices": []}], id="OpenAI"),
        pytest.param([chunk({}, "stop", usage=COUNTS)], id="on the finish chunk"),
        pytest.param([chunk({}, "stop", x_groq={"id": "r", "usage": COUNTS})], id="Groq"),
        pytest.param([chunk({}, "stop"), chunk({"content": ""}, None, usage=COUNTS)], id="OpenRouter"),
        pytest.param(
            [chunk({}, usage={"prompt_tokens": 5}), chunk({}, "stop", usage=COUNTS), chunk({}, usage=None)],
            id="on every chunk",
        ),
        pytest.param(
            [chunk() | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": COUNTS}]}],
            id="Moonshot",
        ),
        pytest.param([chunk({}, "stop", usage={**COUNTS, "total_tokens": "?"})], id="no total"),
    ],
)
def test_usage_is_found_in_every_place(chunks: list[dict[str, Any]]) -> None:
    assert decode(chunk({"content": "a"}), *chunks, DONE)[2:] == [Usage(5, 6, 11), Finished("stop")]


def test_usage_details_are_kept() -> None:
    details = {
        "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert decode(chunk({}, "stop", usage={**COUNTS, **details}))[1] == Usage(5, 6, 11, 1, 2, 3)
    assert decode(chunk({}, "stop", usage={**COUNTS, "prompt_cache_hit_tokens": 4}))[1] == Usage(5, 6, 11, 4)
    assert decode(chunk({}, "stop", usage={**COUNTS, "cached_tokens": 0}))[1] == Usage(5, 6, 11, 0)
    assert decode(chunk({}, "stop", usage={"seconds": 3})) == [STARTED, Finished("stop")]


# --- failures --------------------------------------------------------------------------------------------------------

LIMIT = {"message": "Please try again in 2s.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
LIMITED = Failed("upstream_rate_limited", "Please try again in 2s.", "rate_limit_exceeded", 2.0)


@pytest.mark.parametrize(
    "event",
    [
        {"error": LIMIT},
        chunk({}, "error", error=LIMIT),
        chunk({"content": ""}, None, error=LIMIT),
        [{"error": LIMIT}],
        {"object": "error", **LIMIT},
        {"type": "error", **LIMIT, "code": "rate_limit_exceeded"},
        {"message": LIMIT["message"], "code": "rate_limit_exceeded"},
        {"id": "x", "x_groq": {"id": "r", "error": LIMIT}},
    ],
    ids=range(8),
)
def test_a_failure_is_recognised_in_every_shape_that_servers_use(event: Any) -> None:
    first = decode(json.dumps(event), DONE)
    assert first[-1].code == "upstream_rate_limited" if isinstance(first[-1], Failed) else False
    assert decode(chunk({"content": "a"}), json.dumps(event), DONE) == [STARTED, TextDelta("a"), first[-1]]
    if "type" not in event:
        assert first[-1] == LIMITED


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"error": "out of memory"}, "out of memory"),
        ({"detail": "not found"}, "not found"),
        ({"object": "error"}, "The upstream reported a failure and gave no reason for it; try again."),
        ({"error": {}}, "The upstream reported a failure and gave no reason for it; try again."),
    ],
)
def test_a_failure_without_details_is_a_failure(event: dict[str, Any], message: str) -> None:
    assert decode(event) == [Failed("upstream_error", message)]


def test_a_failure_before_the_start_comes_alone_and_contains_no_secret() -> None:
    (failed,) = decode({"error": {"message": "bad key sk-proj-abcdefgh12345678", "code": 429}})
    assert failed == Failed("upstream_rate_limited", "bad key [redacted]", "429")


def test_unusual_but_harmless_chunks_are_skipped() -> None:
    strange: list[Any] = [
        "5",
        "null",
        "[1]",
        {"id": "", "choices": [], "prompt_filter_results": []},
        {"choices": "x", "id": 5, "created": True, "usage": 5, "x_groq": 5},
    ]
    later: list[Any] = [
        {"id": "other", "choices": [5, {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]},
        {"choices": [{"index": 1, "delta": {"content": "no"}}]},
        {"choices": [{"index": 0, "content_filter_offsets": {}}]},
        {"choices": [{"delta": 5, "finish_reason": 5}]},
        {"choices": [{"delta": {"content": 5, "tool_calls": 5, "function_call": 5, "refusal": 5, "annotations": 5}}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "refusal": None}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 1}, {"index": 2, "id": "a"}, 5]}}]},
        {"choices": [{"delta": {"content": "b\ud83d"}}]},
    ]
    events = decode(*strange, chunk({"content": "a"}), *later, chunk({}, "stop"), DONE)
    assert events == [STARTED, TextDelta("a"), TextDelta("b"), TextDelta("\ufffd"), Finished("stop")]


def test_text_of_a_gateway_that_splits_text_and_calls_into_two_choices_is_joined() -> None:
    """GitHub Copilot does this for Claude."""
    both = chunk({"content": "a"}, "stop")
    both["choices"].append({"delta": {"tool_calls": [call(0, "x", "f", "{}")]}, "finish_reason": "tool_calls"})
    events = decode(both, DONE)
    assert events[1] == TextDelta("a")
    assert folded_calls(events) == [("x", "f", "{}", False)]
    assert events[-1] == Finished("tool_calls")


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_decodes_to_the_events_of_its_stream() -> None:
    message = {
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"id": "p", "type": "function", "function": {"name": "T", "arguments": '{"input":"raw"}'}},
        ],
    }
    events = decode_chat_document(
        document(message, "stop", usage=COUNTS, service_tier="flex"), RequestTraits(custom_tools=frozenset({"T"}))
    )
    assert events[:3] == [
        Started("c1", "m", 7, "flex"),
        ReasoningDelta("hm"),
        ReasoningItem("chat", msgspec.Raw(b'{"reasoning_content":"hm"}')),
    ]
    assert folded_calls(events) == [
        ("a", "f", '{"x":1}', False),
        ("call_c1_1", "f", "{}", False),
        ("p", "T", "raw", True),
    ]
    assert events[-2:] == [Usage(5, 6, 11), Finished("tool_calls")]


def test_a_document_with_logprobs_refusal_and_citations() -> None:
    body = json.loads(document({"content": "a", "refusal": "b", "annotations": [{"type": "url_citation", "url": "u"}]}))
    body["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1}]}
    events = decode_chat_document(b"\xef\xbb\xbf" + json.dumps(body).encode(), RequestTraits(wants_logprobs=True))
    assert [type(event) for event in events] == [Started, LogProbs, TextDelta, RefusalDelta, Annotations, Finished]


@pytest.mark.parametrize("body", [b'{"error":{"message":"m","code":"c"}}', b'[{"error":{"message":"m","code":"c"}}]'])
def test_a_document_may_be_a_failure(body: bytes) -> None:
    assert decode_chat_document(body) == [Failed("upstream_error", "m", "c")]


# --- arbitrary input -------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
_short = st.sampled_from(["a", "b", "", "{}", '{"input":"x', "error"]) | _json
_function = st.fixed_dictionaries({}, optional={"name": _short, "arguments": _short, "input": _short})
_call = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 2) | _json,
        "id": _short,
        "function": _function | _json,
        "custom": _function | _json,
        "extra_content": _json,
    },
)
_delta = st.fixed_dictionaries(
    {},
    optional={
        "content": _short | st.lists(st.fixed_dictionaries({"type": _short, "text": _short, "thinking": _short})),
        "reasoning": _short,
        "reasoning_content": _short,
        "refusal": _short,
        "tool_calls": st.lists(_call | _json, max_size=3) | _json,
        "function_call": _function | _json,
        "annotations": _json | st.lists(st.fixed_dictionaries({"url": _short}), max_size=2),
    },
)
_choice = st.fixed_dictionaries(
    {}, optional={"index": st.just(0) | _json, "delta": _delta | _json, "message": _delta, "finish_reason": _short,
                  "logprobs": _json, "usage": _json}
)  # fmt: skip
_chunk = st.fixed_dictionaries(
    {"choices": st.lists(_choice | _json, max_size=2) | _json},
    optional={"id": _short, "created": _json, "usage": _json, "error": _json, "message": _short, "object": _short},
)


@settings(max_examples=60)
@given(st.lists(_chunk, max_size=6), st.booleans(), st.data())
def test_any_input_has_exactly_one_end_and_cuts_make_no_difference(
    chunks: list[dict[str, Any]], hosted: bool, data: st.DataObject
) -> None:
    stream = sse(*chunks, DONE)
    wanted = {"custom_tools": frozenset({"a"}), "has_hosted_tools": hosted, "wants_logprobs": hosted}
    fold_stream(encode(decode_anything(partial(ChatDecoder, RequestTraits(**wanted)), stream, data)))  # type: ignore[arg-type]
    for one in chunks:
        assert isinstance(decode_chat_document(json.dumps(one).encode())[-1], Finished | Failed)
