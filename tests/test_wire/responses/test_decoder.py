"""The decoder of Responses output: each rule of docs/facts/translation.md, "Answers", by name; and arbitrary input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.strategies.streams import cuts, sse, upstream_events, upstream_responses

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
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
from stages.wire.normal_form import call_ids_of
from stages.wire.responses.decoder import ResponsesDecoder, decode_document

DATA = Path(__file__).parents[2] / "data" / "streams" / "responses"
STARTED = Started("resp_1", "gpt-5", 1790000000, "default")
STOP = Finished("stop")
CALLS = Finished("tool_calls")

Json = dict[str, Any]


def created(**fields: Any) -> Json:
    response = {"id": "resp_1", "model": "gpt-5", "created_at": 1790000000, "service_tier": "default"} | fields
    return {"type": "response.created", "response": response}


def shown(events: list[StreamEvent]) -> list[StreamEvent]:
    """Leave out what is only remembered for the next turn."""
    return [event for event in events if not isinstance(event, ReasoningItem)]


def text(delta: Any, output_index: int | None = 0, content_index: int = 0, **fields: Any) -> Json:
    at = {"output_index": output_index, "content_index": content_index}
    return {"type": "response.output_text.delta", "delta": delta} | at | fields


def added(output_index: int = 0, **item: Any) -> Json:
    return {"type": "response.output_item.added", "output_index": output_index, "item": item}


def done(output_index: int = 0, **item: Any) -> Json:
    return {"type": "response.output_item.done", "output_index": output_index, "item": item}


def call(name: str = "f", call_id: str = "call_a", **fields: Any) -> Json:
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name} | fields


def custom(name: str = "ApplyPatch", call_id: str = "call_a", **fields: Any) -> Json:
    return {"type": "custom_tool_call", "id": f"ctc_{call_id}", "call_id": call_id, "name": name} | fields


def arguments(delta: Any, output_index: int = 0) -> Json:
    return {"type": "response.function_call_arguments.delta", "output_index": output_index, "delta": delta}


def message(*parts: Json, **fields: Any) -> Json:
    return {"type": "message", "content": list(parts)} | fields


def output_text(text: str, **fields: Any) -> Json:
    return {"type": "output_text", "text": text} | fields


def completed(*output: Any, **fields: Any) -> Json:
    return {"type": "response.completed", "response": {"status": "completed", "output": list(output)} | fields}


def run(*events: Json | str | bytes, **options: Any) -> list[StreamEvent]:
    decoder = ResponsesDecoder(RequestTraits(**options))
    return decoder.feed([sse(*events)]) + decoder.flush()


def body(*events: Json | str | bytes, **options: Any) -> list[StreamEvent]:
    """Decode a stream that starts and ends; return the events after the start."""
    first, *between, last = run(created(), *events, **options)
    assert first == STARTED
    assert isinstance(last, Finished | Failed)
    return [*between, last]


# The start


def test_id_model_and_time_come_from_the_first_event_with_a_response() -> None:
    queued = {"type": "response.queued", "response": {"id": "a", "model": "m", "created_at": 1764265411.5}}
    assert run(queued, created(), text("x"), completed())[0] == Started("a", "m", 1764265411, None)
    assert run(created(), {"type": "response.in_progress"}, completed(id="other")) == [STARTED, STOP]


@pytest.mark.parametrize(
    "event",
    [
        text("x"),
        arguments("x"),
        text("x", output_index=None),  # the slow path
        {"type": "response.reasoning_text.delta", "delta": "x"},
    ],
)
def test_a_stream_without_a_start_event_starts_with_its_first_event(event: Json) -> None:
    assert run(event, completed())[0] == Started("", "", 0)


def test_invalid_values_in_the_start_event_count_as_absent() -> None:
    odd = created(id=5, model=None, created_at="now", service_tier=["x"])
    assert run(odd, completed()) == [Started("", "", 0), STOP]
    assert run(created(created_at=True), completed())[0] == Started("resp_1", "gpt-5", 0, "default")
    assert run({"type": "response.created", "response": 7}, completed())[0] == Started("", "", 0)


# Text


def test_text_deltas_are_emitted_one_by_one_without_empty_ones() -> None:
    assert body(text("a"), text(""), text("b"), completed()) == [TextDelta("a"), TextDelta("b"), STOP]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "abc"},
        {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": output_text("abc")},
        done(0, **message(output_text("abc"))),
        done(0, **message({"type": "text", "text": "abc"})),
        completed(message(output_text("abc"))),
    ],
    ids=["text.done", "part.done", "item.done", "item.done with a part called text", "completed"],
)
def test_text_that_is_missing_from_the_deltas_is_completed_once(event: Json) -> None:
    final = completed(message(output_text("abc")))
    assert body(event, event, final) == [TextDelta("abc"), STOP]
    assert body(text("a"), event, event, final) == [TextDelta("a"), TextDelta("bc"), STOP]
    assert body(text("abc"), event, final) == [TextDelta("abc"), STOP]
    assert body(text("abcd"), event, completed()) == [TextDelta("abcd"), STOP]
    assert body(text("x"), event, final) == [TextDelta("x"), STOP]  # text is never corrected


def test_deltas_after_a_completed_part_are_appended() -> None:
    whole = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "ab"}
    assert body(text("a"), whole, text("c"), completed()) == [TextDelta("a"), TextDelta("b"), TextDelta("c"), STOP]


def test_a_long_text_is_compared_whole() -> None:
    deltas = [text(f"{n} ") for n in range(1000)]
    whole = "".join(f"{n} " for n in range(1000))
    decoder = ResponsesDecoder()
    events = [event for delta in [created(), *deltas] for event in decoder.feed([sse(delta)])]
    events += decoder.feed([sse(completed(message(output_text(whole + "end"))))])
    assert events[-2:] == [TextDelta("end"), STOP]
    assert len(events) == 1003


def test_parts_are_distinguished_by_both_indices() -> None:
    events = body(text("a", 0, 0), text("b", 0, 1), text("c", 1, 0), text("d", 0, 0), completed())
    assert events == [TextDelta("a"), TextDelta("b"), TextDelta("c"), TextDelta("d"), STOP]
    final = completed(message(output_text("ad!"), output_text("b")), message(output_text("c")))
    events = body(text("a", 0, 0), text("b", 0, 1), text("c", 1, 0), text("d", 0, 0), final)
    assert events[-2:] == [TextDelta("!"), STOP]


def test_item_ids_are_ignored_because_some_upstreams_change_them_in_each_event() -> None:
    events = body(text("a", item_id="x"), text("b", item_id="y"), completed(message(output_text("ab"), id="z")))
    assert events == [TextDelta("a"), TextDelta("b"), STOP]


def test_messages_are_joined_without_a_separator() -> None:
    assert body(text("a"), text("b", 1), completed()) == [TextDelta("a"), TextDelta("b"), STOP]
    assert body(completed(message(output_text("{")), message(output_text("}"))))[:-1] == [
        TextDelta("{"),
        TextDelta("}"),
    ]


def test_a_blank_line_follows_a_message_of_commentary() -> None:
    commentary = added(0, type="message", phase="commentary")
    answer = added(1, type="message", phase="final_answer")
    events = shown(body(commentary, text("a"), text("b", 0, 1), answer, text("c", 1), text("d", 2), completed()))
    assert events[:-1] == [TextDelta("a"), TextDelta("b"), TextDelta("\n\nc"), TextDelta("d")]
    final = completed(message(output_text("a"), phase="commentary"), message(output_text("c"), phase="final_answer"))
    assert shown(body(final))[:-1] == [TextDelta("a"), TextDelta("\n\nc")]
    cold = [commentary, text("a", logprobs=[]), text("c", 1, logprobs=[]), completed()]
    assert shown(body(*cold, wants_logprobs=True))[:-1] == [TextDelta("a"), TextDelta("\n\nc")]


# Refusals


def test_a_refusal_is_emitted_and_completed() -> None:
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "I can"}
    empty = delta | {"delta": ""}
    whole = {"type": "response.refusal.done", "output_index": 0, "content_index": 0, "refusal": "I can't"}
    final = completed(message({"type": "refusal", "refusal": "I can't."}))
    assert body(delta, empty, whole, whole, final) == [
        RefusalDelta("I can"),
        RefusalDelta("'t"),
        RefusalDelta("."),
        STOP,
    ]
    assert body(whole | {"refusal": ""}, final) == [RefusalDelta("I can't."), STOP]


# Reasoning


def summary(delta: Any, summary_index: int = 0, output_index: int = 0) -> Json:
    at = {"output_index": output_index, "summary_index": summary_index}
    return {"type": "response.reasoning_summary_text.delta", "delta": delta} | at


def raw(delta: Any, output_index: int = 0, kind: str = "reasoning_text") -> Json:
    return {"type": f"response.{kind}.delta", "delta": delta, "output_index": output_index, "content_index": 0}


def test_parts_and_items_of_reasoning_are_separated_by_a_blank_line() -> None:
    events = body(summary("a"), summary("b"), summary("c", 1), raw("d", 1), raw(None, 1), completed())
    assert events == [
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        ReasoningDelta("\n\nc"),
        ReasoningDelta("\n\nd"),
        STOP,
    ]


def test_open_responses_has_another_name_for_raw_reasoning() -> None:
    whole = {"type": "response.reasoning.done", "output_index": 0, "content_index": 0, "text": "ab"}
    assert body(raw("a", kind="reasoning"), whole, completed()) == [ReasoningDelta("a"), ReasoningDelta("b"), STOP]


@pytest.mark.parametrize("first", ["summary", "raw"])
def test_the_first_kind_wins_if_an_item_has_a_summary_and_raw_reasoning(first: str) -> None:
    events = [summary("s"), raw("r")] if first == "summary" else [raw("r"), summary("s")]
    item = {"type": "reasoning", "summary": [{"text": "s"}], "content": [{"type": "reasoning_text", "text": "r"}]}
    final = completed(item)
    assert body(*events, done(0, **item), final) == [ReasoningDelta(first[0]), STOP]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.reasoning_summary_text.done", "output_index": 0, "summary_index": 0, "text": "abc"},
        {"type": "response.reasoning_text.done", "output_index": 0, "content_index": 0, "text": "abc"},
        {
            "type": "response.content_part.done",
            "output_index": 0,
            "content_index": 0,
            "part": {"type": "reasoning_text", "text": "abc"},
        },
        done(0, type="reasoning", summary=[{"type": "summary_text", "text": "abc"}, 5], content=None),
        done(0, type="reasoning", summary=[], content=[{"type": "reasoning_text", "text": "abc"}]),
        completed({"type": "reasoning", "summary": [{"type": "summary_text", "text": "abc"}]}),
    ],
)
def test_reasoning_that_is_missing_from_the_deltas_is_completed_once(event: Json) -> None:
    assert body(event, event, completed())[:-1] == [ReasoningDelta("abc")]
    is_raw = "reasoning_text" in json.dumps(event)
    delta = raw("a", kind="reasoning_text") if is_raw else summary("a")
    slow = delta | {"content_index": None, "summary_index": None}
    assert body(delta, event, completed())[:-1] == [ReasoningDelta("a"), ReasoningDelta("bc")]
    assert body(slow, event, completed())[:-1] == [ReasoningDelta("a"), ReasoningDelta("bc")]


# Tool calls


def test_a_function_call_streams_its_arguments() -> None:
    events = body(
        added(1, **call(arguments="")), arguments('{"a"', 1), arguments("", 1), arguments(":1}", 1), completed()
    )
    assert events == [
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, '{"a"'),
        ToolCallDelta(0, ":1}"),
        CALLS,
    ]


def test_an_empty_delta_without_an_output_index_is_left_out_too() -> None:
    events = body(added(0, **call()), *uncounted(arguments(""), arguments("{}")), completed())
    assert events == [ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{}"), CALLS]


def test_calls_are_numbered_by_appearance_and_not_by_output_index() -> None:
    events = body(
        added(2, **call("f", "call_a")),
        added(5, **call("g", "call_b")),
        arguments("b", 5),
        arguments("a", 2),
        completed(),
    )
    assert events == [
        ToolCallStarted(0, "call_a", "f"),
        ToolCallStarted(1, "call_b", "g"),
        ToolCallDelta(1, "b"),
        ToolCallDelta(0, "a"),
        CALLS,
    ]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}', "name": "f"},
        done(0, **call(arguments='{"a":1}')),
        completed(call(arguments='{"a":1}')),
    ],
    ids=["arguments.done", "item.done", "completed"],
)
def test_arguments_that_are_missing_from_the_deltas_are_completed_once(event: Json) -> None:
    final = completed(call(arguments='{"a":1}'))
    started, rest = ToolCallStarted(0, "call_a", "f"), [CALLS]
    assert body(added(0, **call()), event, event, final) == [started, ToolCallDelta(0, '{"a":1}'), *rest]
    assert body(added(0, **call()), arguments('{"a"'), event, final) == [
        started,
        ToolCallDelta(0, '{"a"'),
        ToolCallDelta(0, ":1}"),
        *rest,
    ]
    assert body(added(0, **call()), arguments("{}"), event, final) == [started, ToolCallDelta(0, "{}"), *rest]


def test_a_call_of_which_only_the_end_is_sent_is_emitted_whole() -> None:
    expected = [ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{1}"), CALLS]
    assert body(done(3, **call(arguments="{1}")), completed()) == expected
    assert body(completed(call(arguments="{1}"))) == expected


def test_arguments_in_the_announcement_of_a_call_are_not_sent_twice() -> None:
    announced = added(0, **call(arguments="{1}"))
    assert body(announced, arguments("{1}"), completed())[1:] == [ToolCallDelta(0, "{1}"), CALLS]
    assert body(announced, done(0, **call(arguments="{1}")), completed())[1:] == [ToolCallDelta(0, "{1}"), CALLS]


def test_arguments_wait_for_the_name_of_their_call() -> None:
    whole = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": "{1}"}
    expected = [ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{1"), ToolCallDelta(0, "}"), CALLS]
    assert body(arguments("{"), arguments("1"), whole, done(0, **call(arguments="{1}")), completed()) == expected
    nameless = added(0, **call(name=""))
    assert body(nameless, arguments("{1"), done(0, **call(arguments="{1}")), completed()) == expected
    assert body(arguments("{1"), completed(call(arguments="{1}"))) == expected
    assert body(arguments("{1"), completed()) == [STOP]  # the tool to call is unknown


def test_a_function_without_arguments_gets_an_empty_object() -> None:
    expected = [ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{}"), CALLS]
    assert body(added(0, **call()), done(0, **call(arguments="")), completed()) == expected
    assert body(added(0, **call()), completed()) == expected
    assert body(completed(call(arguments=None))) == expected


def test_a_custom_tool_without_input_gets_no_delta() -> None:
    expected = [ToolCallStarted(0, "call_a", "ApplyPatch", is_custom=True), CALLS]
    assert body(added(0, **custom()), done(0, **custom(input="")), completed()) == expected


def test_a_truncated_call_is_not_completed() -> None:
    incomplete = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}
    started = ToolCallStarted(0, "call_a", "f")
    assert body(added(0, **call()), incomplete) == [started, Finished("length")]
    cut = done(0, **call(arguments="", status="incomplete"))
    assert body(added(0, **call()), cut, incomplete) == [started, Finished("length")]


def test_the_input_of_a_custom_tool_is_passed_on_unchanged() -> None:
    delta = {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "*** Begin"}
    whole = {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": "*** Begin Patch"}
    started = ToolCallStarted(0, "call_a", "ApplyPatch", is_custom=True)
    expected = [started, ToolCallDelta(0, "*** Begin"), ToolCallDelta(0, " Patch"), ToolCallDelta(0, '\n"'), CALLS]
    for first in (delta, delta | {"output_index": None}):
        events = body(added(0, **custom()), first, whole, done(0, **custom(input='*** Begin Patch\n"')), completed())
        assert events == expected
    early = body(delta, done(0, **custom(input="*** Begin Patch")), completed())
    assert early == [started, ToolCallDelta(0, "*** Begin"), ToolCallDelta(0, " Patch"), CALLS]


def test_undeclared_custom_calls_are_dropped_when_hosted_tools_are_declared() -> None:
    # xAI reports its own search this way; docs/facts/translation.md, "Calls of hosted tools".
    delta = {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": "q"}
    search = custom("x_search", input="q")
    stream = [delta, added(0, **search), delta, done(0, **search), text("found", 1), completed(search)]
    assert body(*stream, has_hosted_tools=True) == [TextDelta("found"), STOP]
    hosted = {"has_hosted_tools": True, "custom_tools": frozenset({"x_search"})}
    assert body(*stream, **hosted)[-1] == CALLS
    assert body(*stream)[-1] == CALLS
    assert body(added(0, **call("f")), completed(), has_hosted_tools=True)[-1] == CALLS


def test_a_call_id_that_the_conversation_has_used_is_replaced_by_the_item_id() -> None:
    def id_of(used: tuple[str, ...] = (), **fields: Any) -> str:
        ids: set[str] = set()
        for stream in ([added(0, **call(**fields)), completed()], [completed(call(**fields))]):
            started = body(*stream, used_call_ids=frozenset(used))[0]
            assert isinstance(started, ToolCallStarted)
            ids.add(started.call_id)
        [call_id] = ids
        return call_id

    assert id_of(call_id="call_0", id="fc_x") == "call_0"
    assert id_of(("call_0",), call_id="call_0", id="fc_x") == "fc_x"
    assert id_of(("call_0",), call_id="call_0", id=None) == "call_resp_1_0"
    assert id_of(("call_0",), call_id="call_1", id="fc_x") == "call_1"
    assert id_of(call_id="", id="fc_x") == "fc_x"
    assert id_of(call_id="", id="") == "call_resp_1_0"
    twice = body(added(0, **call("f", "call_0", id="fc_x")), added(1, **call("g", "call_0", id="fc_y")), completed())
    assert [event.call_id for event in twice if isinstance(event, ToolCallStarted)] == ["call_0", "fc_y"]


def test_the_ids_of_a_conversation_are_those_of_its_calls_and_outputs() -> None:
    items = [{"role": "user", "content": "hi"}, call("f", "call_0"), "x", {"type": "function_call", "call_id": 5}]
    assert call_ids_of({"input": items}) == {"call_0"}
    assert call_ids_of({"input": "hi"}) == call_ids_of({}) == frozenset()


def test_calls_of_an_upstream_that_does_not_number_its_items_are_kept_apart() -> None:
    events = body(
        added(0, **call("f", "call_a")),
        arguments("{1}"),
        done(0, **call("f", "call_a", arguments="{1}")),
        added(0, **call("g", "call_b")),
        arguments("{2}"),
        done(0, **call("h", "call_c", arguments="{3}")),
        done(0, **call("i", "call_d", arguments="{4}")),
        completed(),
    )
    assert [event for event in events if isinstance(event, ToolCallStarted)] == [
        ToolCallStarted(0, "call_a", "f"),
        ToolCallStarted(1, "call_b", "g"),
        ToolCallStarted(2, "call_d", "i"),
    ]
    open_call = body(added(0, **call("f", "call_a")), added(0, **call("g", "call_b")), completed())
    assert ToolCallDelta(0, "{}") in open_call


def uncounted(*events: Json) -> list[Json]:
    """Leave out the output index."""
    return [{name: value for name, value in event.items() if name != "output_index"} for event in events]


def anonymous(*events: Json) -> list[Json]:
    """Leave out the output index and the ids of the items."""
    return uncounted(
        *({**event, "item": {**event["item"], "id": None}} if "item" in event else event for event in events)
    )


INTERLEAVED: list[StreamEvent] = [
    ToolCallStarted(0, "call_a", "f"),
    ToolCallStarted(1, "call_b", "ApplyPatch", is_custom=True),
    ToolCallStarted(2, "call_c", "g"),
    ToolCallDelta(2, "{3"),
    ToolCallDelta(1, "*** "),
    ToolCallDelta(0, "{1"),
    ToolCallDelta(1, "Begin"),
    ToolCallDelta(2, "}"),
    ToolCallDelta(0, "}"),
    CALLS,
]


@pytest.mark.parametrize("name", ["id", "call_id"])
@pytest.mark.parametrize("ending", ["arguments.done", "item.done", "completed"])
def test_interleaved_calls_without_an_output_index_are_kept_apart_by_their_ids(name: str, ending: str) -> None:
    items = [call("f", "call_a"), custom("ApplyPatch", "call_b"), call("g", "call_c")]
    a, b, c = ({"item_id": item[name]} for item in items)
    by_function, by_custom = "response.function_call_arguments.", "response.custom_tool_call_input."
    whole: list[Json] = [
        items[0] | {"arguments": "{1}"},
        items[1] | {"input": "*** Begin"},
        items[2] | {"arguments": "{3}"},
    ]
    ends: dict[str, list[Json]] = {
        "arguments.done": [
            {"type": f"{by_custom}done", "input": "*** Begin"} | b,
            {"type": f"{by_function}done", "arguments": "{3}"} | c,
            {"type": f"{by_function}done", "arguments": "{1}"} | a,
        ],
        "item.done": uncounted(done(**whole[1]), done(**whole[2]), done(**whole[0])),
        "completed": [],
    }
    events = body(
        *uncounted(*(added(**item) for item in items)),
        {"type": f"{by_function}delta", "delta": "{3"} | c,
        {"type": f"{by_custom}delta", "delta": "*** "} | b,
        {"type": f"{by_function}delta", "delta": "{1"} | a,
        *ends[ending],
        completed(*whole),
    )
    if ending == "completed":  # which has the calls in their own order
        assert events[6:] == [INTERLEAVED[8], INTERLEAVED[6], INTERLEAVED[7], CALLS]
        events[6:] = INTERLEAVED[6:]
    assert events == INTERLEAVED


def test_an_event_without_index_and_id_belongs_to_the_latest_item_of_its_kind() -> None:
    patch = {"type": "response.custom_tool_call_input.delta", "delta": "*** Begin"}
    thought: Json = {"type": "reasoning", "summary": [{"text": "r"}], "encrypted_content": "x"}
    events = body(
        *anonymous(added(type="reasoning"), summary("r"), done(**thought)),
        *anonymous(added(**call("f", "call_a")), added(**custom("ApplyPatch", "call_b"))),
        *anonymous(arguments("{1"), patch, arguments("}")),
        *anonymous(done(**call("f", "call_a", arguments="{1}")), added(**call("g", "call_c")), arguments("{3}")),
        *anonymous(text("a"), text("b")),
        completed(usage=None),
    )
    assert isinstance(events.pop(1), ReasoningItem)
    assert events == [
        ReasoningDelta("r"),
        ToolCallStarted(0, "call_a", "f"),
        ToolCallStarted(1, "call_b", "ApplyPatch", is_custom=True),
        ToolCallDelta(0, "{1"),
        ToolCallDelta(1, "*** Begin"),
        ToolCallDelta(0, "}"),
        ToolCallStarted(2, "call_c", "g"),
        ToolCallDelta(2, "{3}"),
        TextDelta("a"),
        TextDelta("b"),
        CALLS,
    ]


def test_an_index_takes_precedence_over_an_id_because_some_upstreams_change_the_id() -> None:
    wrong = {"item_id": "fc_call_a"}
    for index, expected in ((1, 1), (None, 0), ("1", 0)):
        events = body(
            added(0, **call("f", "call_a")),
            added(1, **call("g", "call_b")),
            arguments("{}") | wrong | {"output_index": index},
            completed(),
        )
        assert events[2] == ToolCallDelta(expected, "{}")
    rotating = [event | {"item_id": f"x{n}"} for n, event in enumerate(uncounted(arguments("{"), arguments("}")))]
    events = body(*uncounted(added(0, **call("f", "call_a")), added(0, **call("g", "call_b"))), *rotating, completed())
    assert events[2:4] == [ToolCallDelta(1, "{"), ToolCallDelta(1, "}")]


def test_texts_and_reasoning_without_an_output_index_are_not_mixed_up() -> None:
    def of(item_id: str, *events: Json) -> list[Json]:
        return [event | {"item_id": item_id} for event in uncounted(*events)]

    whole = {"type": "response.output_text.done", "content_index": 0}
    thoughts: list[Json] = [{"type": "reasoning", "id": f"rs_{n}", "summary": [{"text": f"r{n}"}]} for n in (1, 2)]
    first = message(output_text("ab"), id="msg_1", phase="commentary")
    second = message(output_text("cd"), id="msg_2")
    stream = [
        *uncounted(*(added(**{**item, "summary": []}) for item in thoughts)),
        *of("rs_2", summary("r")),
        *of("rs_1", summary("r")),
        *of("rs_2", {"type": "response.reasoning_summary_text.done", "summary_index": 0, "text": "r2"}),
        *uncounted(*(done(**item) for item in thoughts)),
        *uncounted(added(**{**first, "content": []}), added(**{**second, "content": []})),
        *of("msg_1", text("a")),
        *of("msg_2", text("c")),
        *of("msg_1", whole | {"text": "ab"}),
        *of("msg_2", whole | {"text": "cd"}),
        *uncounted(done(**first), done(**second)),
        completed(*thoughts, first, second),
    ]
    reasoned = ["r", "\n\nr", "2", "1"]
    written = ["a", "\n\nc", "b", "d"]
    expected = [*map(ReasoningDelta, reasoned), *map(TextDelta, written), STOP]
    assert shown(body(*stream)) == expected
    assert shown(body(*stream, wants_logprobs=True)) == expected


def test_items_without_index_or_id_of_which_only_the_end_is_sent_are_all_emitted() -> None:
    items = [message(output_text("a")), message(output_text("b")), call("f", "call_a", arguments="{1}")]
    events = body(*anonymous(*(done(**item) for item in items)), completed(*items))
    started = ToolCallStarted(0, "call_a", "f")
    assert events == [TextDelta("a"), TextDelta("b"), started, ToolCallDelta(0, "{1}"), CALLS]


def test_a_long_text_without_an_output_index_is_compared_whole() -> None:
    deltas = uncounted(*(text(f"{n} ") for n in range(1000)))
    events = body(*deltas, completed(message(output_text("".join(f"{n} " for n in range(1000)) + "end"))))
    assert events[-2:] == [TextDelta("end"), STOP]
    assert len(events) == 1002


def test_a_call_that_is_announced_twice_starts_once() -> None:
    assert body(added(0, **call()), added(0, **call()), completed()) == [
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, "{}"),
        CALLS,
    ]


@pytest.mark.parametrize(
    ("item", "name", "expected"),
    [
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
            "local_shell",
            {"command": ["ls"]},
        ),
        ({"type": "shell_call", "action": {"commands": ["ls"]}}, "shell", {"commands": ["ls"]}),
        ({"type": "shell_call", "action": {"commands": []}, "environment": None}, "shell", {"commands": []}),
        ({"type": "shell_call", "action": {"commands": []}, "environment": {"type": "local"}}, "shell", {}),
        ({"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "é"}}, "apply_patch", {"path": "é"}),
        ({"type": "computer_call", "action": {"type": "click", "x": 1}}, "computer", {"x": 1}),
        ({"type": "tool_search_call", "execution": "client", "arguments": {"q": 1}}, "tool_search", {"q": 1}),
    ],
)
def test_calls_that_only_the_client_can_execute_become_function_calls(item: Json, name: str, expected: Json) -> None:
    item = {"id": "x_1", "call_id": "call_a"} | item
    events = body(added(0, **item), done(0, **item), completed(item))
    assert events[0] == ToolCallStarted(0, "call_a", name)
    assert isinstance(events[1], ToolCallDelta)
    assert expected.items() <= json.loads(events[1].arguments).items()
    assert events[2:] == [CALLS]
    assert body(completed(item)) == events


def test_a_computer_call_may_have_several_actions_or_none() -> None:
    item = {"type": "computer_call", "call_id": "call_a", "actions": [{"type": "click"}]}
    assert body(done(0, **item), completed())[1] == ToolCallDelta(0, '[{"type": "click"}]')
    assert body(done(0, type="computer_call", call_id="call_a"), completed())[1] == ToolCallDelta(0, "{}")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "shell_call", "action": {}, "environment": {"type": "container_reference"}},
        {"type": "tool_search_call", "execution": "server", "arguments": {}},
        {"type": "web_search_call", "action": {}},
        {"type": "mcp_call", "arguments": "{}", "name": "x"},
        {"type": "image_generation_call", "result": None},
        {"type": "something_new", "name": "x"},
        {"type": ["odd"]},
    ],
)
def test_what_the_upstream_executes_itself_is_not_shown(item: Json) -> None:
    assert body(added(0, **item), done(0, **item), completed(item)) == [STOP]


# Citations


def test_citations_are_emitted_once_before_the_end_with_their_place_in_the_whole_text() -> None:
    def annotation(**fields: Any) -> Json:
        return {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 1, "end_index": 3} | fields

    def cited(number: int, output_index: int, **fields: Any) -> Json:
        event = {"type": "response.output_text.annotation.added", "output_index": output_index, "content_index": 0}
        return event | {"annotation_index": number, "annotation": annotation(**fields)}

    events = body(
        added(0, type="message", phase="commentary"),
        text("12345"),
        cited(0, 0),
        text("67890", 1),
        cited(1, 1, url="https://c", title=None, start_index=None, end_index=None),
        cited(0, 1, url="https://b", start_index=1.0),
        cited(2, 1, type="file_citation"),
        cited(3, 1, url=""),
        {"type": "response.output_text.annotation.added", "annotation": "odd"},
        completed(usage={"input_tokens": 1, "output_tokens": 2}),
    )
    assert events[-3:] == [
        Annotations(
            (
                Citation("https://a", "A", 1, 3),
                Citation("https://b", "A", 1 + 7, 3 + 7),
                Citation("https://c", "", 0, 0),
            )
        ),
        Usage(1, 2, 3),
        STOP,
    ]
    part = output_text("12345", annotations=[annotation(url="https://final"), 5])
    final = Annotations((Citation("https://final", "A", 1, 3),))
    assert body(text("12345"), cited(0, 0), completed(message(part)))[-2:] == [final, STOP]
    assert body(cited(0, 0), completed())[0] == Annotations((Citation("https://a", "A", 1, 3),))


# Log probabilities

LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1}, {"token": 1}]}
CHAT_LOGPROB = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [{"token": "b", "logprob": -1, "bytes": None}],
}


def logprobs_in(events: list[StreamEvent]) -> list[Any]:
    return [json.loads(bytes(raw)) for event in events if isinstance(event, LogProbs) for raw in event.content]


@pytest.mark.parametrize("odd", [[97, 256], [-1], ["a"], [[]], {}, "a"])
def test_what_are_not_the_bytes_of_a_token_is_left_out(odd: Any) -> None:
    delta = text("a", logprobs=[{**LOGPROB, "bytes": odd}])
    events = body(delta, completed(), wants_logprobs=True)
    assert logprobs_in(events) == [{**CHAT_LOGPROB, "bytes": None}]


def test_requested_log_probabilities_come_before_their_text() -> None:
    delta = text("a", logprobs=[LOGPROB])
    events = body(delta, text("", logprobs=[LOGPROB]), completed(), wants_logprobs=True)
    assert [type(event) for event in events] == [LogProbs, TextDelta, Finished]
    assert logprobs_in(events) == [CHAT_LOGPROB]
    assert body(delta, completed()) == [TextDelta("a"), STOP]


def test_log_probabilities_that_arrive_only_at_the_end_are_emitted_then() -> None:
    odd = [{"token": "x"}, 5, {"token": None, "logprob": 0}]
    whole = {"type": "response.output_text.done", "text": "a", "logprobs": [*odd, LOGPROB]}
    final = completed(message(output_text("a", logprobs=[LOGPROB])))
    events = body(text("a", logprobs=[]), whole, final, wants_logprobs=True)
    assert logprobs_in(events) == [{"token": "", "logprob": 0, "bytes": None, "top_logprobs": []}, CHAT_LOGPROB]
    assert logprobs_in(body(text("a"), final, wants_logprobs=True)) == [CHAT_LOGPROB]
    assert logprobs_in(body(text("a", logprobs=[LOGPROB]), final, wants_logprobs=True)) == [CHAT_LOGPROB]


# The end


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("max_output_tokens", "length"),
        ("max_messages", "length"),
        (None, "length"),
        ("content_filter", "content_filter"),
        ("steered", "stop"),
    ],
)
def test_an_incomplete_response_has_its_reason_even_with_calls(reason: str | None, expected: str) -> None:
    end = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason}}}
    assert body(end)[-1] == Finished(expected)  # type: ignore[arg-type]
    assert body(added(0, **call()), arguments("{"), end)[-1] == Finished(expected)  # type: ignore[arg-type]


def test_calls_determine_the_finish_reason_even_with_text_or_without_a_final_output() -> None:
    assert body(text("a"), added(1, **call()), arguments("{}", 1), completed())[-1] == CALLS


def test_the_worse_counts_if_an_event_and_a_status_disagree() -> None:
    def last(kind: str, status: Any) -> StreamEvent:
        return body({"type": f"response.{kind}", "response": {"status": status}})[-1]

    assert last("done", "completed") == STOP
    assert last("done", None) == STOP
    assert last("completed", "in_progress") == STOP
    assert last("completed", "incomplete") == Finished("length")
    assert last("incomplete", "completed") == Finished("length")
    assert isinstance(last("done", "failed"), Failed)
    assert isinstance(last("failed", "completed"), Failed)
    cancelled = last("cancelled", "cancelled")
    assert isinstance(cancelled, Failed)
    assert "cancelled" in cancelled.message


def test_a_terminal_event_without_a_response_ends_the_stream() -> None:
    assert body({"type": "response.completed"}) == [STOP]
    assert run({"type": "response.completed"}) == [Started("", "", 0), STOP]


def test_usage_is_emitted_before_the_end_and_unknown_details_are_left_open() -> None:
    details = {"cached_tokens": 1, "cache_write_tokens": 2}
    usage = {
        "input_tokens": 10,
        "input_tokens_details": details,
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 31,
    }
    assert body(completed(usage=usage)) == [Usage(10, 20, 31, 1, 2, 3), STOP]
    bare = {"input_tokens": 10, "output_tokens": 2.0, "total_tokens": None, "input_tokens_details": None}
    assert body(completed(usage=bare)) == [Usage(10, 2, 12), STOP]
    assert body(completed(usage={"output_tokens": 2, "input_tokens": "x"})) == [Usage(0, 2, 2), STOP]
    odd: list[Any] = [None, {}, [], {"input_tokens": 1.5}]
    for nothing in odd:
        assert body(completed(usage=nothing)) == [STOP]


def test_usage_of_a_failed_response_is_emitted_too() -> None:
    failed = {"type": "response.failed", "response": {"usage": {"input_tokens": 5, "output_tokens": 0}}}
    assert body(failed)[0] == Usage(5, 0, 5)


def test_an_incomplete_final_output_repeats_nothing() -> None:
    final = completed(message(output_text("ab")), call("f", "call_a", arguments="{12}"), call("g", "call_b"))
    events = body(
        summary("r"), text("ab", 1), added(2, **call("f", "call_a")), arguments("{1", 2), arguments("", 2), final
    )
    assert events == [
        ReasoningDelta("r"),
        TextDelta("ab"),
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, "{1"),
        ToolCallDelta(0, "2}"),
        CALLS,
    ]


def test_an_incomplete_final_output_still_completes_what_was_not_sent() -> None:
    reasoning = {"type": "reasoning", "summary": [{"text": "late"}]}
    final = completed(5, message(output_text("no")), reasoning, call("f", "call_a", arguments="{1}"))
    events = body(text("ab", 7), final)
    assert events == [
        TextDelta("ab"),
        ReasoningDelta("late"),
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, "{1}"),
        CALLS,
    ]
    nameless = completed(message(output_text("ab")), call("f", "", arguments="{1}"))
    assert body(added(3, **call("f", "")), nameless)[:-1] == [
        ToolCallStarted(0, "fc_", "f"),
        TextDelta("ab"),
        ToolCallDelta(0, "{}"),
    ]


# Failures


def failure(*events: Json | str | bytes) -> Failed:
    last = run(*events)[-1]
    assert isinstance(last, Failed)
    return last


SERVER_ERROR = Failed("upstream_error", "It broke.", "server_error")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "It broke."},
        {"type": "error", "error": {"type": "x", "code": "server_error", "message": "It broke."}},
        {"type": "error", "error": {"type": "server_error", "code": None, "message": "It broke."}},
        {"type": "response.error", "error": {"code": "server_error", "message": "It broke."}},
        {"error": {"code": "server_error", "message": "It broke."}},
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "It broke."}}},
        {
            "type": "response.done",
            "response": {"status": "failed", "error": {"code": "server_error", "message": "It broke."}},
        },
    ],
)
def test_an_error_in_any_shape_ends_the_stream(event: Json) -> None:
    assert run(created(), text("a"), event, text("b")) == [STARTED, TextDelta("a"), SERVER_ERROR]


def test_an_error_followed_by_a_failed_response_is_one_failure() -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "again"}}}
    events = run(created(), {"type": "error", "code": "server_error", "message": "It broke."}, failed)
    assert events == [STARTED, SERVER_ERROR]


def test_an_error_after_a_whole_text_is_still_a_failure() -> None:
    finished = done(0, **message(output_text("all")))
    assert failure(created(), text("all"), finished, {"type": "error", "message": "It broke."}).message == "It broke."


def test_an_error_before_any_event_has_no_start() -> None:
    assert run({"type": "error", "code": "server_error", "message": "It broke."}) == [SERVER_ERROR]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "rate_limit_exceeded"}, "upstream_rate_limited"),
        ({"code": "insufficient_quota"}, "upstream_rate_limited"),
        ({"type": "rate_limit_error", "code": "x"}, "upstream_rate_limited"),
        ({"code": 429}, "upstream_rate_limited"),
        ({"code": "invalid_prompt"}, "upstream_rejected"),
        ({"code": "image_content_policy_violation"}, "upstream_rejected"),
        ({"code": "empty_image_file"}, "upstream_rejected"),
        ({"code": "cyber_policy"}, "upstream_rejected"),
        ({"code": "context_length_exceeded"}, "context_length_exceeded"),
        ({"type": "invalid_request_error", "code": None}, "upstream_rejected"),
        ({"code": 400}, "upstream_rejected"),
        ({"code": "server_error"}, "upstream_error"),
        ({"code": "vector_store_timeout"}, "upstream_error"),
        ({"code": 500}, "upstream_error"),
        ({"code": True}, "upstream_error"),
        ({}, "upstream_error"),
    ],
)
def test_the_upstreams_code_determines_ours(error: Json, code: str) -> None:
    assert failure({"type": "error", "error": {"message": "m"} | error}).code == code
    word = error.get("code") or error.get("type")
    assert failure({"type": "error", "error": error}).upstream_code == (None if word in (None, True) else str(word))


def test_a_failure_without_a_message_gets_one() -> None:
    for event in ({"type": "error"}, {"type": "response.failed"}, {"type": "error", "message": "  "}):
        assert failure(event).message == "The upstream reported a failure and gave no reason for it; try again."
    assert failure({"type": "error", "error": "Overheated"}).message == "Overheated"


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 1.5s.", 1.5),
        ("Please try again in 250ms.", 0.25),
        ("Please try again in 2m.", 120.0),
        ("Please try again in 3 months.", None),
        ("Please try again in a moment.", None),
    ],
)
def test_a_delay_that_the_message_names_is_passed_on(message: str, seconds: float | None) -> None:
    assert failure({"type": "error", "code": "rate_limit_exceeded", "message": message}).retry_after_s == seconds


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop",
        "sk-abc***********xyz",
        "gsk_abcdefghijkl",
        "AIzaSyABCDEFGHIJKLMN",
        "eyJhbGciOi.eyJzdWIiOiIx.abc",
    ],
)
def test_keys_are_not_shown(key: str) -> None:
    message = failure({"type": "error", "message": f"Incorrect API key provided: {key}. Find yours.", "code": key})
    assert key not in message.message
    assert key not in str(message.upstream_code)
    assert message.message == "Incorrect API key provided: [redacted]. Find yours."
    bearer = failure({"type": "error", "message": "sent 'Authorization: Bearer abcdefgh12345678' and failed"})
    assert bearer.message == "sent 'Authorization: Bearer [redacted]' and failed"


def test_a_long_message_is_clipped() -> None:
    assert failure({"type": "error", "message": "x" * 10_000}).message == "x" * 1999 + "…"
    assert failure({"type": "error", "message": "x" * 2000}).message == "x" * 2000


@pytest.mark.parametrize("events", [[], [created()], [created(), text("a")], [created(), "[DONE]"]])
def test_an_early_end_is_a_failure_and_never_a_stop(events: list[Json]) -> None:
    failed = failure(*events)
    assert failed.code == "upstream_protocol"
    assert failed.message == "The upstream's stream ended before its answer was complete; try again."


def test_done_after_the_terminal_event_is_ignored() -> None:
    assert run(created(), completed(), "[DONE]") == [STARTED, STOP]


# What is ignored, and what is tolerated


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.something.new", "output_index": 0, "delta": "x"},
        {"type": "codex.rate_limits"},
        {"type": "response.code_interpreter_call_code.delta", "output_index": 0, "delta": "x"},
        {"type": "response.mcp_call_arguments.delta", "output_index": 0, "delta": "{}"},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "aGk="},
        {"type": "response.output_item.added", "output_index": 0, "item": "odd"},
        {"type": "response.output_item.done", "output_index": 0},
        {"type": "response.content_part.done", "part": None},
        {"type": "response.content_part.done", "part": {"type": "something_new", "text": "x"}},
        {"type": 5},
        {"choices": [], "error": None},
        {},
        "[]",
        "null",
        "7",
        '"text"',
        r'"a lone \ud800"',
        done(0, **message(5)),  # type: ignore[arg-type]
        text(5),
        text(None),
        text(10**30),
        {"type": "response.output_text.done", "text": None},
    ],
)
def test_unknown_events_and_items_are_ignored(event: Json | str) -> None:
    assert body(text("a"), event, text("b"), completed()) == [TextDelta("a"), TextDelta("b"), STOP]


@pytest.mark.parametrize("kind", ["keepalive", "response.keep_alive"])
def test_the_upstreams_heartbeat_is_passed_on_even_before_the_start(kind: str) -> None:
    beat = {"type": kind, "sequence_number": 3}
    assert run(beat, created(), beat, completed()) == [Heartbeat(), STARTED, Heartbeat(), STOP]


@pytest.mark.parametrize("output_index", [None, "0", -1, 0.0, True])
def test_an_invalid_index_counts_as_the_first(output_index: Any) -> None:
    whole = {"type": "response.output_text.done", "output_index": output_index, "text": "abc"}
    assert body(text("a"), whole, completed()) == [TextDelta("a"), TextDelta("bc"), STOP]


def test_the_order_of_fields_and_whitespace_make_no_difference() -> None:
    last = '{ "delta" : "a" , "output_index":0,"content_index":0, "type" : "response.output_text.delta" }'
    assert body(last, text("b"), completed()) == [TextDelta("a"), TextDelta("b"), STOP]


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"a\ud800b", "a\ufffdb"),
        (r"\udc00", "\ufffd"),
        (r"\ud83d\ude00\uD83D", "😀\ufffd"),
        (r"\\ud800 \\\ud800", "\\ud800 \\\ufffd"),
        (r"a\u0000b", "a\0b"),
        (r"a\u2028\"", 'a\u2028"'),
    ],
)
def test_characters_cut_in_two_and_control_characters_do_not_break_the_stream(escaped: str, expected: str) -> None:
    event = '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"@"}'.replace("@", escaped)
    for sent in (event, event.replace('"delta":', '"x":"\\ud800","delta":')):
        *deltas, end = body(sent, completed())
        assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == expected
        assert end == STOP


def test_bytes_that_are_not_utf_8_do_not_break_the_stream() -> None:
    event = b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a\xffb\xed\xa0\x80"}'
    assert body(event, completed())[0] == TextDelta("a\ufffdb\ufffd\ufffd\ufffd")


# Documents


def test_a_document_decodes_to_the_events_of_its_stream() -> None:
    document = {
        "id": "resp_1",
        "model": "gpt-5",
        "created_at": 1790000000,
        "service_tier": "default",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "r"}]},
            message(output_text("a"), {"type": "refusal", "refusal": "no"}),
            call(arguments="{1}"),
            custom("x_search", input="q"),
        ],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }
    assert decode_document(json.dumps(document).encode(), RequestTraits(has_hosted_tools=True)) == [
        STARTED,
        ReasoningDelta("r"),
        TextDelta("a"),
        RefusalDelta("no"),
        ToolCallStarted(0, "call_a", "f"),
        ToolCallDelta(0, "{1}"),
        Usage(1, 2, 3),
        CALLS,
    ]
    document["status"] = "incomplete"
    assert decode_document(b"\xef\xbb\xbf" + json.dumps(document).encode())[-1] == Finished("length")
    assert decode_document(b'{"output": []}') == [Started("", "", 0), STOP]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"error": {"code": "server_error", "message": "It broke."}}', SERVER_ERROR),
        ('{"status": "completed", "error": {"code": "server_error", "message": "It broke."}}', SERVER_ERROR),
        ('{"error": "It broke."}', Failed("upstream_error", "It broke.")),
        ('{"status": "in_progress"}', "still in progress"),
        ('{"status": "queued", "output": []}', "still in progress"),
        ('{"status": "cancelled"}', "cancelled"),
        ("{}", "not a Responses API document"),
        ('{"detail": "Not Found"}', "not a Responses API document"),
        ("[]", "not a Responses API document"),
        ("", "not a Responses API document"),
        ("<html>", "not a Responses API document"),
        ('{"a":' * 50_000, "not a Responses API document"),
    ],
)
def test_a_document_that_is_not_an_answer_is_a_failure(document: str, expected: Failed | str) -> None:
    [failed] = decode_document(document.encode())
    assert isinstance(failed, Failed)
    if isinstance(expected, Failed):
        assert failed == expected
    else:
        assert expected in failed.message


def test_a_failed_document_with_an_id_has_a_start() -> None:
    body = b'{"id": "r", "status": "failed", "error": {"code": "server_error", "message": "It broke."}}'
    assert decode_document(body) == [Started("r", "", 0), SERVER_ERROR]


# Whole streams, and arbitrary input


def test_an_agents_answer_is_decoded_whole() -> None:
    decoder = ResponsesDecoder(RequestTraits(custom_tools=frozenset({"ApplyPatch"})))
    patch = ["*** Begin Patch\n*** Update File: a.py\n", "@@\n-print('hi')\n+print(\"hello\")\n", "*** End Patch"]
    events = decoder.feed([(DATA / "agent.sse").read_bytes()]) + decoder.flush()
    assert [type(event) for event in events].count(ReasoningItem) == 3  # see test_reasoning_items.py
    assert shown(events) == [
        Started("resp_agent", "gpt-5.4", 1790000000, "default"),
        Heartbeat(),
        ReasoningDelta("**Looking"),
        ReasoningDelta("**"),
        ReasoningDelta("\n\n**Patching**"),
        TextDelta("I will look, "),
        TextDelta("then patch."),
        ToolCallStarted(0, "call_read", "ReadFile"),
        ToolCallStarted(1, "call_grep", "Grep"),
        ToolCallDelta(0, '{"path":'),
        ToolCallDelta(1, '{"pattern":"é\u2028'),
        ToolCallDelta(0, '"a.py"}'),
        ToolCallDelta(1, '"}'),
        ToolCallStarted(2, "call_patch", "ApplyPatch", is_custom=True),
        ToolCallDelta(2, patch[0]),
        ToolCallDelta(2, patch[1]),
        ToolCallDelta(2, patch[2]),
        TextDelta("\n\nDone."),
        Usage(100, 50, 150, 64, None, 20),
        CALLS,
    ]


@settings(max_examples=60)  # 50 ms each
@given(st.data(), st.lists(upstream_events, max_size=12))
def test_any_events_have_one_declared_outcome_however_they_are_cut(data: st.DataObject, events: list[Json]) -> None:
    stream = sse(*events)
    options: dict[str, Any] = {"has_hosted_tools": data.draw(st.booleans()), "wants_logprobs": data.draw(st.booleans())}
    whole = run(*events, **options)
    decoder = ResponsesDecoder(RequestTraits(**options))
    assert [event for read in data.draw(cuts(stream)) for event in decoder.feed(read)] + decoder.flush() == whole
    assert_well_formed(whole)


def test_a_failed_document_with_only_usage_has_a_start_before_the_failure() -> None:
    events = decode_document(b'{"status": "failed", "usage": {"output_tokens": 3}}')
    assert [type(event) for event in events] == [Started, Usage, Failed]


@given(upstream_responses)
def test_any_document_has_one_declared_outcome(response: Json) -> None:
    assert_well_formed(decode_document(json.dumps(response).encode()))


@given(
    st.data(),
    st.binary(max_size=80) | st.text(max_size=40).map(lambda text: f"data: {text}\n\n".encode("utf-8", "replace")),
)
def test_any_bytes_have_one_declared_outcome(data: st.DataObject, stream: bytes) -> None:
    decoder = ResponsesDecoder()
    events = [event for read in data.draw(cuts(stream)) for event in decoder.feed(read)] + decoder.flush()
    assert_well_formed(events)
    assert_well_formed(decode_document(stream))


def assert_well_formed(events: list[StreamEvent]) -> None:
    """Assert what `stages.events` promises about every sequence."""
    *before, last = events
    assert isinstance(last, Finished | Failed)
    assert not any(isinstance(event, Finished | Failed) for event in before)
    without_beats = [event for event in before if not isinstance(event, Heartbeat)]
    assert all(isinstance(event, Started) == (n == 0) for n, event in enumerate(without_beats))
    begun = 0
    for event in before:
        match event:
            case TextDelta(value) | ReasoningDelta(value) | RefusalDelta(value):
                assert value
                value.encode()
            case ToolCallStarted(index, call_id, name):
                assert index == begun
                assert call_id
                assert name
                begun += 1
            case ToolCallDelta(index, value):
                assert index < begun
                assert value
            case _:
                pass
    assert sum(isinstance(event, Annotations) for event in before) <= 1
    assert sum(isinstance(event, Usage) for event in before) <= 1
    if last == CALLS:
        assert begun


def test_a_shell_call_that_the_upstream_has_executed_is_not_left_to_the_client() -> None:
    shell = {"type": "shell_call", "call_id": "call_s", "action": {"commands": ["ls"]}, "environment": None}
    output = {"type": "shell_call_output", "call_id": "call_s", "output": []}
    assert body(done(0, **shell), done(1, **output), completed(shell, output)) == [STOP]
    assert body(completed(shell, output)) == [STOP]
    other = {"type": "shell_call_output", "call_id": "call_t", "output": []}
    started = ToolCallStarted(0, "call_s", "shell")
    events = body(done(0, **shell), done(1, **other), completed(shell, other))
    assert events == [started, ToolCallDelta(0, '{"commands": ["ls"]}'), CALLS]
    local = shell | {"environment": {"type": "local"}}
    assert body(done(0, **local), text("x", 1), completed())[0] == started  # needs no waiting for an output
