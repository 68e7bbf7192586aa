"""The decoder of Anthropic Messages upstreams: streams and documents become the same events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.clients.chat_fold import fold_stream
from kit.recordings import recordings
from kit.strategies.streams import sse
from kit.upstreams.anthropic_stream import STARTED, STOP, begin, document, head, last, more, stop, text, thinking, tool
from kit.upstreams.decoded import decode as decode_by
from kit.upstreams.decoded import decode_anything, encode, folded_calls, read_all
from kit.upstreams.recorded_documents import anthropic_document

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
    ReasoningDelta,
    ReasoningItem,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document

Json = dict[str, Any]


def decode(
    *events: Json | str | bytes, tool_names: Mapping[str, str] = MappingProxyType({}), **traits: Any
) -> list[StreamEvent]:
    return decode_by(partial(AnthropicDecoder, RequestTraits(**traits), tool_names), *events)


def answer(*blocks: list[Json], reason: str = "end_turn", **settings: Any) -> list[StreamEvent]:
    """Decode a valid stream of these blocks and return what is between Started and the end."""
    events = decode(head(), *(event for block in blocks for event in block), last(reason), STOP, **settings)
    assert events[0] == STARTED
    assert isinstance(events[-1], Finished)
    return events[1:-1]


def item(*, text_offset: int = 0, **block: str) -> ReasoningItem:
    return ReasoningItem("anthropic", msgspec.Raw(msgspec.json.encode(block)), text_offset)


def signed(thought: str, signature: str, *, text_offset: int = 0) -> ReasoningItem:
    return item(type="thinking", thinking=thought, signature=signature, text_offset=text_offset)


# --- text ------------------------------------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    assert decode(
        head(usage={"input_tokens": 3, "output_tokens": 1, "service_tier": "standard"}),
        *text(0, "Hel", "", "lo"),
        last("end_turn", output_tokens=2),
        STOP,
    ) == [
        Started("msg_1", "claude-x", 0, "standard"),
        TextDelta("Hel"),
        TextDelta("lo"),
        Usage(3, 2, 5, 0),
        Finished("stop"),
    ]


def test_text_blocks_are_joined_without_a_separator() -> None:
    assert answer(text(0, "a."), text(1, "b")) == [TextDelta("a."), TextDelta("b")]


def test_text_in_the_start_of_its_block_is_used() -> None:
    assert answer([begin(0, "text", text="a"), more(0, "text_delta", text="b"), stop(0)]) == [
        TextDelta("a"),
        TextDelta("b"),
    ]


def test_deltas_without_a_block_start_are_accepted() -> None:
    assert answer([more(0, "thinking_delta", thinking="hm"), more(0, "text_delta", text="a")]) == [
        ReasoningDelta("hm"),
        TextDelta("a"),
    ]


def test_blocks_that_share_an_index_are_kept_apart() -> None:
    events = answer(
        [begin(0, "thinking"), more(0, "thinking_delta", thinking="hm"), more(0, "signature_delta", signature="s")],
        [begin(0, "text"), more(0, "text_delta", text="a")],
        [begin(0, "tool_use", id="t", name="f")],
        [begin(0, "tool_use", id="u", name="g"), more(0, "input_json_delta", partial_json='{"x":1}')],
        reason="tool_use",
    )
    assert events[:3] == [ReasoningDelta("hm"), signed("hm", "s"), TextDelta("a")]
    assert folded_calls(events) == [("t", "f", "{}", False), ("u", "g", '{"x":1}', False)]


def test_a_stream_without_a_message_start_is_an_answer() -> None:
    for events in (text(0, "a"), [more(0, "text_delta", text="a")]):
        assert decode(*events, last(), STOP) == [Started("", "", 0), TextDelta("a"), Finished("stop")]


def test_a_late_message_start_still_provides_the_usage() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1}
    late = head(usage=usage, content=[{"type": "text", "text": "a"}])
    events = decode(*text(0, "a"), late, last(), STOP)
    assert events == [Started("", "", 0), TextDelta("a"), Usage(3, 1, 4, 0), Finished("stop")]


def test_a_repeated_message_start_counts_once() -> None:
    first = head(usage={"input_tokens": 3, "output_tokens": 1})
    again = head(usage={"input_tokens": 9, "output_tokens": 9}, content=[{"type": "text", "text": "no"}])
    events = decode(first, again, *text(0, "a"), last("end_turn", output_tokens=2), again, STOP)
    assert events == [STARTED, TextDelta("a"), Usage(3, 2, 5, 0), Finished("stop")]


def test_a_ping_is_a_heartbeat_anywhere_in_the_stream() -> None:
    ping = {"type": "ping"}
    assert decode(ping, head(), ping, *text(0, "a"), ping, last(), ping, STOP) == [
        Heartbeat(),
        STARTED,
        Heartbeat(),
        TextDelta("a"),
        Heartbeat(),
        Heartbeat(),
        Finished("stop"),
    ]


# --- reasoning -------------------------------------------------------------------------------------------------------


def test_thinking_is_shown_and_returned_as_a_signed_item_before_its_result() -> None:
    events = answer(thinking(0, "c2ln", "I ", "", "see"), text(1, "Yes"), tool(2, "t", "f", '{"x":1}'))
    assert events == [
        ReasoningDelta("I "),
        ReasoningDelta("see"),
        signed("I see", "c2ln"),
        TextDelta("Yes"),
        ToolCallStarted(0, "t", "f"),
        ToolCallDelta(0, '{"x":1}'),
    ]


def test_a_thinking_block_is_returned_unchanged_even_if_its_text_is_omitted() -> None:
    """Models with ``display: omitted`` send an empty block with only a signature."""
    assert answer(thinking(0, "c2ln"), text(1, "a")) == [signed("", "c2ln"), TextDelta("a")]


def test_a_blank_line_separates_two_thoughts() -> None:
    events = answer(thinking(0, "s", "a", "b"), tool(1, "t", "f", "{}"), thinking(2, "s"), thinking(3, "r", "c"))
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["a", "b", "\n\nc"]
    assert [event for event in events if isinstance(event, ReasoningItem)] == [
        signed("ab", "s"),
        signed("", "s"),
        signed("c", "r"),
    ]


def test_unsigned_thinking_is_not_returned_for_the_next_turn() -> None:
    """Anthropic refuses it: the block was cut off."""
    cut = [begin(0, "thinking", thinking="a"), more(0, "thinking_delta", thinking="b"), stop(0)]
    assert answer(cut, reason="max_tokens") == [ReasoningDelta("a"), ReasoningDelta("b")]


def test_a_thinking_block_says_how_much_text_came_before_it() -> None:
    events = answer(
        [*thinking(0, "s0"), *text(1, "\n ", " ab", "c ")],
        [*thinking(2, "s2"), begin(3, "redacted_thinking", data="x"), stop(3), *text(4, "d"), *thinking(5, "s5", "e")],
    )
    items = [event for event in events if isinstance(event, ReasoningItem)]
    assert items == [
        signed("", "s0"),
        signed("", "s2", text_offset=4),
        item(type="redacted_thinking", data="x", text_offset=4),
        signed("e", "s5", text_offset=5),
    ]


def test_an_unfinished_thinking_block_ends_with_the_next_block_or_the_answer() -> None:
    unended = thinking(0, "s", "a")[:-1]
    assert answer(unended, text(1, "b")) == [ReasoningDelta("a"), signed("a", "s"), TextDelta("b")]
    assert answer(text(1, "b"), unended) == [TextDelta("b"), ReasoningDelta("a"), signed("a", "s", text_offset=1)]


def test_redacted_thinking_is_returned_for_the_next_turn_and_not_shown() -> None:
    redacted = [begin(0, "redacted_thinking", data="EmwKAh"), stop(0)]
    empty = [begin(1, "redacted_thinking", data=""), more(1, "text_delta", text="no"), stop(1)]
    assert answer(redacted, empty, text(2, "a")) == [item(type="redacted_thinking", data="EmwKAh"), TextDelta("a")]


def test_a_signature_without_thinking_is_ignored() -> None:
    stray = [more(0, "signature_delta", signature="s"), begin(1, "text"), more(1, "signature_delta", signature="s")]
    assert answer(stray) == []
    blank = [*thinking(0, "s", "a")[:-1], more(0, "signature_delta", signature=""), stop(0)]
    assert answer(blank) == [ReasoningDelta("a"), signed("a", "s")]


def test_a_long_thought_is_kept_whole() -> None:
    deltas = [f"{n} " for n in range(1000)]
    assert answer(thinking(0, "s", *deltas))[-1] == signed("".join(deltas), "s")


# --- tool calls ------------------------------------------------------------------------------------------------------


def test_calls_have_indices_of_their_own_and_arguments_are_passed_on_as_they_arrive() -> None:
    events = answer(text(0, "a"), tool(1, "t", "f", "", '{"x"', ":1}"), tool(2, "u", "g", "{}"), reason="tool_use")
    assert events == [
        TextDelta("a"),
        ToolCallStarted(0, "t", "f"),
        ToolCallDelta(0, '{"x"'),
        ToolCallDelta(0, ":1}"),
        ToolCallStarted(1, "u", "g"),
        ToolCallDelta(1, "{}"),
    ]


@pytest.mark.parametrize("deltas", [(), ("",), (" ",)])
def test_a_call_without_arguments_has_an_empty_object_before_the_next_block(deltas: tuple[str, ...]) -> None:
    events = answer(tool(0, "t", "f", *deltas), text(1, "a"), tool(2, "u", "g", *deltas), reason="tool_use")
    assert [(given[0], given[2].strip()) for given in folded_calls(events)] == [("t", "{}"), ("u", "{}")]
    assert events.index(ToolCallDelta(0, "{}")) == events.index(TextDelta("a")) - 1


def test_arguments_that_were_cut_off_are_not_completed() -> None:
    for cut in (tool(1, "u", "g"), tool(1, "u", "g")[:-1]):
        events = answer(tool(0, "t", "f"), cut, reason="max_tokens")
        assert folded_calls(events) == [("t", "f", "{}", False), ("u", "g", "", False)]
    events = decode(head(), *tool(0, "t", "f", '{"x'), last("max_tokens"), STOP)
    assert folded_calls(events) == [("t", "f", '{"x', False)]
    assert events[-1] == Finished("length")


@pytest.mark.parametrize("whole", [{"x": [1, {}]}, '{"x": [1, {}]}'])
def test_arguments_in_the_start_of_a_block_are_used_if_no_deltas_follow(whole: Any) -> None:
    events = answer(tool(0, "t", "f", input=whole), tool(1, "u", "g", '{"y":2}', input=whole), reason="tool_use")
    assert folded_calls(events) == [("t", "f", '{"x": [1, {}]}', False), ("u", "g", '{"y":2}', False)]


@pytest.mark.parametrize("odd", [None, {}, [], "", 5, "{ }"])
def test_an_invalid_input_counts_as_empty(odd: Any) -> None:
    assert folded_calls(answer(tool(0, "t", "f", input=odd))) == [("t", "f", "{}", False)]


def test_interleaved_calls_are_kept_apart() -> None:
    events = answer(
        [begin(0, "tool_use", id="t", name="f"), begin(1, "tool_use", id="u", name="g")],
        [more(1, "input_json_delta", partial_json="{"), more(0, "input_json_delta", partial_json='{"x":')],
        [more(1, "input_json_delta", partial_json="}"), more(0, "input_json_delta", partial_json="1}")],
        [stop(0), stop(1), stop(1), stop(7)],
    )
    assert folded_calls(events) == [("t", "f", '{"x":1}', False), ("u", "g", "{}", False)]


def test_a_call_made_by_the_upstreams_code_execution_is_left_to_the_client() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}, "caller": caller}
    expected = [ToolCallStarted(0, "t", "f"), ToolCallDelta(0, '{"x": 1}')]
    assert answer(tool(0, "t", "f", '{"x": 1}', caller=caller)) == expected
    early = head(content=[block, 5], stop_reason="tool_use")
    assert decode(early, STOP) == [STARTED, *expected, Finished("tool_calls")]
    assert decode(early, *text(1, "a"), last(), STOP)[1:-1] == [*expected, TextDelta("a")]
    assert decode(early, *tool(0, "t", "f", '{"x": 1}'), last(), STOP)[1:-1] == expected


@pytest.mark.parametrize(
    "block",
    [
        begin(0, "server_tool_use", id="s", name="web_search", input={}),
        begin(0, "mcp_tool_use", id="s", name="echo", input={}, server_name="e"),
        begin(0, "web_search_tool_result", tool_use_id="s", content=[{"type": "web_search_result", "url": "u"}]),
        begin(0, "mcp_tool_result", tool_use_id="s", content=[{"type": "text", "text": "no"}]),
        begin(0, "compaction", content="no"),
        begin(0, "fallback", to={"model": "m"}),
        begin(0, "container_upload", file_id="f"),
        begin(0, "whatever", text="no", thinking="no", input={"no": 1}, name="no"),
    ],
    ids=lambda block: block["content_block"]["type"],
)
def test_what_the_upstream_executed_itself_is_not_shown_to_the_client(block: Json) -> None:
    deltas = [
        more(0, "input_json_delta", partial_json='{"query":"x"}'),
        more(0, "compaction_delta", content="no"),
        more(0, "text_delta", text="no"),
        more(0, "thinking_delta", thinking="no"),
    ]
    assert answer([block, *deltas, stop(0)], text(1, "a")) == [TextDelta("a")]


# --- custom tools ----------------------------------------------------------------------------------------------------

PATCH = '*** Begin Patch\n+ say("hé 😀 \\o/")\n*** End Patch\n'


def test_a_custom_tool_whose_input_arrives_at_once_is_unwrapped() -> None:
    events = answer(tool(0, "t", "T", input={"input": PATCH}), custom_tools=frozenset({"T"}))
    assert folded_calls(events) == [("t", "T", PATCH, True)]


def test_a_tool_that_was_renamed_for_the_upstream_gets_the_clients_name_back() -> None:
    names = {"do_it_1f": "do it", "patch_2e": "patch!"}
    blocks = [tool(0, "t", "do_it_1f", '{"x":1}'), tool(1, "u", "patch_2e", '{"input":"raw"}'), tool(2, "v", "f")]
    expected = [("t", "do it", '{"x":1}', False), ("u", "patch!", "raw", True), ("v", "f", "{}", False)]
    events = answer(*blocks, custom_tools=frozenset({"patch!"}), tool_names=names)
    assert folded_calls(events) == expected
    content = [
        {"type": "tool_use", "id": "t", "name": "do_it_1f", "input": {"x": 1}},
        {"type": "tool_use", "id": "u", "name": "patch_2e", "input": {"input": "raw"}},
    ]
    events = decode_anthropic_document(
        document(*content), RequestTraits(custom_tools=frozenset({"patch!"})), tool_names=names
    )
    assert [given[1:] for given in folded_calls(events)] == [("do it", '{"x": 1}', False), ("patch!", "raw", True)]


# --- citations -------------------------------------------------------------------------------------------------------


def cite(at: int, **fields: Any) -> Json:
    return more(at, "citations_delta", citation=fields)


def test_cited_pages_are_emitted_once_with_the_range_of_text_that_cites_them() -> None:
    page = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "x"}
    events = answer(
        text(0, "Über "),
        [begin(1, "text", text=""), cite(1, **page), more(1, "text_delta", text="it rains"), cite(1, **page), stop(1)],
        text(2, ", says "),
        [begin(3, "text", citations=[{"url": "https://b.example"}, 5]), more(3, "text_delta", text="B")],
    )
    assert events[-1] == Annotations(
        (Citation("https://a.example", "A", 5, 13), Citation("https://b.example", "", 20, 21))
    )
    assert sum(isinstance(event, Annotations) for event in events) == 1


def test_a_search_result_is_cited_if_its_source_is_a_url() -> None:
    kind = "search_result_location"
    events = answer(
        [
            begin(0, "text"),
            cite(0, type=kind, source="https://a.example", title="A"),
            cite(0, type=kind, source="kb-12", title="B"),
            more(0, "text_delta", text="a"),
        ]
    )
    assert events[-1] == Annotations((Citation("https://a.example", "A", 0, 1),))


def test_citations_of_documents_are_left_out_of_chat_completions() -> None:
    places = [
        cite(0, type="char_location", document_index=0, document_title="D"),
        cite(0, type="page_location", document_index=0),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta"}},
        cite(9, type="web_search_result_location", url="https://nowhere.example"),
    ]
    assert answer([begin(0, "text", citations=None), *places, stop(0)]) == []


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("tool_use", "stop"),
        ("compaction", "stop"),
        ("whatever", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reasons_are_translated_to_those_of_openai(word: str, reason: Any) -> None:
    end = decode(head(), *text(0, "a"), last(word), STOP)[-1]
    assert isinstance(end, Finished)
    assert end.reason == reason


@pytest.mark.parametrize("word", ["tool_use", "end_turn", "pause_turn"])
def test_an_answer_with_a_call_finishes_with_tool_calls(word: str) -> None:
    assert decode(head(), *tool(0, "t", "f", "{}"), last(word), STOP)[-1] == Finished("tool_calls")


@pytest.mark.parametrize(("word", "reason"), [("max_tokens", "length"), ("refusal", "content_filter")])
def test_an_answer_that_was_cut_off_finishes_with_length_even_if_it_has_calls(word: str, reason: Any) -> None:
    end = decode(head(), *tool(0, "t", "f", '{"x'), last(word), STOP)[-1]
    assert isinstance(end, Finished)
    assert end.reason == reason


@pytest.mark.parametrize("end", [[STOP], [last(None), STOP]])
def test_litellm_20_an_end_without_a_reason_is_a_failure(end: list[Json]) -> None:
    failed = Failed("upstream_protocol", "The upstream's stream ended before its answer was complete; try again.")
    assert decode(head(), *text(0, "a"), *end) == [STARTED, TextDelta("a"), failed]


def test_done_also_ends_an_answer() -> None:
    assert decode(head(), last(), "[DONE]", STOP) == [STARTED, Finished("stop")]
    assert decode(head(), last(), STOP, "[DONE]") == [STARTED, Finished("stop")]


# --- usage -----------------------------------------------------------------------------------------------------------


def test_input_tokens_are_summed_and_the_latest_usage_counts() -> None:
    first = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "output_tokens": 1,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    assert decode(head(usage=first), last("end_turn", output_tokens=7), STOP)[1] == Usage(1110, 7, 1117, 100, 1000, 1)
    later = {"input_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    end = last("end_turn", **later, output_tokens=7, output_tokens_details={"thinking_tokens": 5})
    assert decode(head(usage=first), last(None, output_tokens=3), end, STOP)[1] == Usage(20, 7, 27, 0, None, 5)


@pytest.mark.parametrize("usage", [{"input_tokens": 4}, {"output_tokens": 4}])
def test_usage_may_be_incomplete(usage: Json) -> None:
    (counts,) = (event for event in decode(head(usage=usage), last(), STOP) if isinstance(event, Usage))
    assert counts.total_tokens == 4


@pytest.mark.parametrize("usage", [None, 5, {}, {"input_tokens": None}, {"cache_read_input_tokens": 1}])
def test_usage_without_counts_is_left_out(usage: Any) -> None:
    assert decode(head(usage=usage), last(), STOP) == [STARTED, Finished("stop")]


# --- failures --------------------------------------------------------------------------------------------------------


def failure(kind: str, message: str = "m") -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("overloaded_error", "upstream_error"),
        ("api_error", "upstream_error"),
        ("timeout_error", "upstream_error"),
        ("rate_limit_error", "upstream_rate_limited"),
        ("invalid_request_error", "upstream_rejected"),
        ("request_too_large", "upstream_rejected"),
        ("billing_error", "upstream_rejected"),
        ("authentication_error", "upstream_unauthorized"),
        ("permission_error", "upstream_unauthorized"),
        ("not_found_error", "upstream_not_found"),
        ("whatever", "upstream_error"),
    ],
)
def test_a_failure_gets_our_code_and_keeps_the_upstreams(kind: str, code: str) -> None:
    assert decode(failure(kind)) == [Failed(code, "m", kind)]
    assert decode(head(), *text(0, "a"), failure(kind), STOP) == [STARTED, TextDelta("a"), Failed(code, "m", kind)]
    assert decode_anthropic_document(json.dumps(failure(kind)).encode()) == [Failed(code, "m", kind)]


def test_litellm_20_a_failure_after_the_stop_reason_is_a_failure() -> None:
    assert decode(head(), last(), failure("api_error"), STOP)[-1] == Failed("upstream_error", "m", "api_error")


NO_REASON = "The upstream reported a failure and gave no reason for it; try again."


@pytest.mark.parametrize(
    ("event", "failed"),
    [
        ({"error": {"type": "overloaded_error", "message": "m"}}, Failed("upstream_error", "m", "overloaded_error")),
        ({"error": "out of memory"}, Failed("upstream_error", "out of memory")),
        ({"type": "error", "message": "m"}, Failed("upstream_error", "m")),
        ({"type": "error", "message": {}, "code": 429}, Failed("upstream_rate_limited", NO_REASON, "429")),
        ({"type": "error", "error": None}, Failed("upstream_error", NO_REASON)),
    ],
    ids=range(5),
)
def test_a_failure_is_recognised_in_every_shape_that_gateways_use(event: Json, failed: Failed) -> None:
    assert decode(head(), event) == [STARTED, failed]


def test_a_failure_contains_no_secret_and_says_when_to_retry() -> None:
    message = "key sk-ant-api03-abcdefgh12345678 is over its limit; please try again in 2s."
    (failed,) = decode(failure("rate_limit_error", message))
    shown = "key [redacted] is over its limit; please try again in 2s."
    assert failed == Failed("upstream_rate_limited", shown, "rate_limit_error", 2.0)


def test_unusual_but_harmless_events_are_skipped() -> None:
    strange: list[Any] = [
        "5",
        "null",
        "[1]",
        {},
        {"type": 5},
        {"type": "vendor_event", "error": None},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_start", "index": 0, "content_block": 5},
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": 5}},
        {"type": "content_block_stop"},
        {"type": "message_delta"},
        {"type": "message_delta", "delta": {"stop_reason": 5}, "usage": 5},
    ]
    later: list[Any] = [
        {"type": "content_block_delta", "index": None, "delta": {"type": "text_delta", "text": "b\ud83d"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": 5}},
    ]
    events = decode({"type": "message_start", "message": 5}, *strange, *later, last(), STOP)
    assert events == [Started("", "", 0), TextDelta("b"), TextDelta("\ufffd"), Finished("stop")]


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_decodes_to_the_events_of_its_stream() -> None:
    page = {"type": "web_search_result_location", "url": "https://a.example", "title": "A"}
    body = document(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "Hi", "citations": [page]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "tool_use", "id": "p", "name": "T", "input": {"input": "raw"}},
        5,
        reason="tool_use",
        usage={"input_tokens": 1, "output_tokens": 2, "service_tier": "priority"},
    )
    assert decode_anthropic_document(b"\xef\xbb\xbf" + body, RequestTraits(custom_tools=frozenset({"T"}))) == [
        Started("msg_1", "claude-x", 0, "priority"),
        ReasoningDelta("hm"),
        signed("hm", "s"),
        item(type="redacted_thinking", data="d"),
        TextDelta("Hi"),
        ToolCallStarted(0, "t", "f"),
        ToolCallDelta(0, '{"x": 1}'),
        ToolCallStarted(1, "call_msg_1_1", "f"),
        ToolCallDelta(1, "{}"),
        ToolCallStarted(2, "p", "T", is_custom=True),
        ToolCallDelta(2, "raw"),
        Annotations((Citation("https://a.example", "A", 0, 2),)),
        Usage(1, 2, 3, 0),
        Finished("tool_calls"),
    ]


def test_almost_every_field_of_a_document_may_be_missing() -> None:
    assert decode_anthropic_document(b'{"content":[{"type":"text","text":"a"}]}')[1] == TextDelta("a")
    assert decode_anthropic_document(document()) == [STARTED, Finished("stop")]


# --- arbitrary input -------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
_short = st.sampled_from(["a", "b", "", "{}", '{"input":"x', "https://a"]) | _json
_citation = st.fixed_dictionaries({}, optional={"url": _short, "source": _short, "title": _short}) | _json
_block = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use"]) | _json},
    optional={
        "id": _short,
        "name": _short,
        "text": _short,
        "thinking": _short,
        "signature": _short,
        "data": _short,
        "input": st.just({"input": "x"}) | _json,
        "citations": st.lists(_citation, max_size=2) | _json,
    },
)
_DELTAS = ["text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta"]
_delta = st.fixed_dictionaries(
    {"type": st.sampled_from(_DELTAS) | _json},
    optional={
        "text": _short,
        "thinking": _short,
        "signature": _short,
        "partial_json": _short,
        "citation": _citation,
        "stop_reason": st.sampled_from(["end_turn", "max_tokens", "error"]) | _json,
    },
)
_usage = st.fixed_dictionaries({}, optional={"input_tokens": _json, "output_tokens": _json}) | _json
_message = st.fixed_dictionaries(
    {"content": st.lists(_block | _json, max_size=2) | _json},
    optional={"id": _short, "type": _short, "stop_reason": _short, "usage": _usage},
)
_KINDS = ["content_block_start", "content_block_delta", "content_block_stop", "message_start", "message_delta", "ping"]
_event = st.fixed_dictionaries(
    {"type": st.sampled_from(_KINDS) | _json},
    optional={
        "index": st.integers(-1, 2) | _json,
        "content_block": _block | _json,
        "delta": _delta | _json,
        "message": _message | _json,
        "usage": _usage,
        "error": st.none() | st.none() | _json,
    },
)


@settings(max_examples=100)
@given(st.lists(_event, max_size=10), st.data())
def test_anything_ends_in_one_end_and_cuts_make_no_difference(events: list[Json], data: st.DataObject) -> None:
    make_decoder = partial(AnthropicDecoder, RequestTraits(custom_tools=frozenset({"a"})))
    fold_stream(encode(decode_anything(make_decoder, sse(*events, last(), STOP), data)))


@settings(max_examples=60)
@given(_message)
def test_any_document_gives_what_its_stream_gives(message: Json) -> None:
    whole = decode_anthropic_document(json.dumps(message).encode(), RequestTraits(custom_tools=frozenset({"a"})))
    assert isinstance(whole[-1], Finished | Failed)
    fold_stream(encode(whole))
    if isinstance(whole[-1], Finished) and message.get("stop_reason"):
        message_start = {"type": "message_start", "message": message}
        assert (
            decode(message_start, last(None), last("end_turn"), STOP, custom_tools=frozenset({"a"}))[:-1] == whole[:-1]
        )


# --- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", recordings("anthropic", only=lambda path: "thinking" in path.stem))
def test_the_signature_of_a_recording_is_kept_for_the_next_turn(path: Path) -> None:
    (kept,) = (event for event in read_all(AnthropicDecoder, [[path.read_bytes()]]) if isinstance(event, ReasoningItem))
    block = json.loads(bytes(kept.payload))
    assert block == anthropic_document(path)["content"][0]
    assert f'"signature":"{block["signature"]}"' in path.read_text("utf-8")
    assert block["signature"]
