"""Complete bodies on the chat path: every recorded Cursor payload, every kind of bad input, and arbitrary bytes."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.normal_requests import check_normal
from kit.recordings import combined, payloads, sibling
from kit.strategies.requests import bodies, json_values, spoiled

from stages.request import ResponsesRequest
from stages.upstreams.providers import quirks_in
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.model_variants import variants, with_variant
from stages.wire.downstream.request import MAX_DEPTH_LEVELS, MAX_MODEL_CHARS, parse_body
from stages.wire.responses.api import RESPONSES
from stages.wire.responses.request import native_request
from stages.wire.tool_names import legal_tool_name


def parse(**fields: Any) -> ResponsesRequest:
    return parse_body(json.dumps({"model": "m", "input": "hi"} | fields).encode())


def refusal(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


def refusal_of(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_body(body)
    return caught.value


# What Cursor sends


@pytest.mark.parametrize(("payload", "provider"), combined(payloads(but=["08"]), ["openai", "azure"]))
def test_a_payload_of_cursor_gives_exactly_the_expected_upstream_request(
    payload: dict[str, Any], provider: str
) -> None:
    request = parse_body(json.dumps(payload["request"]["body"]).encode())
    # One payload asks for a model variant; here every model is configured under its upstream name.
    asked, expected = request.requested_model, payload["expected_upstream_request"]
    reading = next((one for one in variants(asked) if one.name == expected["model"]), None)
    body = request.body if reading is None else with_variant(request.body, reading)
    sent = native_request(
        body, quirks=quirks_in(RESPONSES, provider, expected["model"]), model=expected["model"], stream=request.stream
    )
    if "stream" not in expected:
        assert sent.pop("stream") is False
    if request.stream and "stream_options" not in expected:
        assert sent.pop("stream_options") == {"include_obfuscation": False}
    assert sent == expected
    assert asked == payload["request"]["body"]["model"]


@pytest.mark.parametrize("payload", payloads("08"))
def test_payload_08_leaves_its_calls_for_a_chat_upstream_and_its_shown_reasoning_out(payload: dict[str, Any]) -> None:
    asked = payload["request"]["body"]
    system, user, assistant, output = asked["messages"]
    (call,) = assistant["tool_calls"]
    assert parse_body(json.dumps(asked).encode()).body["input"] == [
        system,
        user,
        {"type": "function_call", "call_id": call["id"], **call["function"]},
        {"type": "function_call_output", "call_id": call["id"], "output": output["content"]},
    ]


@pytest.mark.parametrize("payload", payloads("01"))
def test_the_fields_beside_the_body_are_filled(payload: dict[str, Any]) -> None:
    request = parse_body(json.dumps(payload["request"]["body"]).encode())
    assert request.stream
    assert request.include_usage
    assert request.shape == "responses"
    assert request.custom_tools == {"ApplyPatch"}
    assert not request.has_hosted_tools
    assert not request.wants_logprobs
    probe = parse_body(json.dumps(sibling(payload, "10")["request"]["body"]).encode())
    assert (probe.stream, probe.include_usage, probe.shape) == (False, False, "messages")


def test_a_body_may_start_with_the_utf8_byte_order_mark() -> None:
    assert parse_body(b'\xef\xbb\xbf{"model":"m","input":"hi"}').body == {"input": "hi"}


def test_a_bytearray_is_accepted_like_bytes() -> None:
    assert parse_body(bytearray(b'{"model":"m","input":"hi"}')).requested_model == "m"


def test_the_last_of_duplicate_keys_counts() -> None:
    assert parse_body(b'{"model":"a","model":"b","input":"hi"}').requested_model == "b"


def test_the_model_in_the_path_takes_precedence_over_that_in_the_body() -> None:
    assert parse_body(b'{"input":"hi"}', model="gpt-5").requested_model == "gpt-5"
    assert parse_body(b'{"model":5,"input":"hi"}', model="gpt-5").requested_model == "gpt-5"


# Shape


def test_input_is_preferred_when_both_are_usable() -> None:
    request = parse(input=[{"role": "user", "content": "a"}], messages=[{"role": "user", "content": "b"}])
    assert request.body == {"input": [{"role": "user", "content": "a"}]}
    assert request.shape == "responses"


@pytest.mark.parametrize("unusable", [None, "", [], 5, {}])
def test_messages_are_used_when_input_is_not_usable(unusable: Any) -> None:
    request = parse(input=unusable, messages=[{"role": "user", "content": "b"}])
    assert request.body == {"input": [{"role": "user", "content": "b"}]}
    assert request.shape == "messages"


@pytest.mark.parametrize("payload", payloads("01"))
def test_items_and_tools_that_need_no_change_are_not_copied(payload: dict[str, Any]) -> None:
    body = payload["request"]["body"]
    decoded: list[Any] = []
    original = msgspec.json.decode

    def decode(data: bytes) -> Any:
        decoded.append(original(data))
        return decoded[-1]

    try:
        msgspec.json.decode = decode  # type: ignore[assignment]  # one of its overloads
        request = parse_body(json.dumps(body).encode())
    finally:
        msgspec.json.decode = original
    assert all(new is old for new, old in zip(request.body["input"], decoded[0]["input"], strict=True))
    assert all(new is old for new, old in zip(request.body["tools"], decoded[0]["tools"], strict=True))


def test_anthropics_system_field_is_read() -> None:
    blocks = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": "hi"}]
    for system, content in (("be brief", "be brief"), (blocks, [{**blocks[0], "type": "input_text"}])):
        request = parse(input=None, messages=messages, system=system, stop_sequences=["END"])
        assert request.body == {"input": [{"role": "system", "content": content}, *messages], "stop": ["END"]}
    assert parse(system="not with input").body == {"input": "hi"}


def test_anthropics_setting_against_parallel_calls_is_read() -> None:
    tools = [{"name": "LS", "input_schema": {}}]
    choice = {"type": "any", "disable_parallel_tool_use": True}
    body = parse(tools=tools, tool_choice=choice).body
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert parse(tools=tools, tool_choice=choice, parallel_tool_calls=True).body["parallel_tool_calls"] is True
    assert "parallel_tool_calls" not in parse(tools=tools, tool_choice={"type": "any"}).body


def test_a_reference_is_kept_only_if_the_upstream_stores_responses() -> None:
    items = [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}, {"role": "user", "content": "hi"}]
    assert parse(input=items).body["input"] == items
    assert parse(input=items, store=True).body["input"] == items
    assert parse(input=items, store=False).body["input"] == items[2:]


@pytest.mark.parametrize("elsewhere", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"store": True}])
def test_an_output_may_answer_a_call_that_the_upstream_has_stored(elsewhere: dict[str, Any]) -> None:
    items = [{"type": "function_call_output", "call_id": "c", "output": "x"}]
    if "store" in elsewhere:
        items.insert(0, {"type": "item_reference", "id": "fc_1"})
    assert parse(input=items, **elsewhere).body["input"] == items


# Defects of LiteLLM (docs/facts/litellm.md, "Defects that are not repeated")


def test_litellm_22_chat_fields_in_an_input_body_are_translated_and_a_small_limit_is_raised_only_for_openai() -> None:
    chat_only = {
        "max_tokens": 5,
        "stop": ["x"],
        "seed": 1,
        "presence_penalty": 1,
        "response_format": {"type": "json_object"},
    }
    history = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]
    body = parse(input=history, **chat_only, logprobs=True).body
    assert body["input"] == [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ]
    rest = {key: body[key] for key in body if key != "input"}
    assert rest == {
        "max_output_tokens": 5,
        "text": {"format": {"type": "json_object"}},
        "include": ["message.output_text.logprobs"],
        **{key: chat_only[key] for key in ("stop", "seed", "presence_penalty")},
    }
    for provider, limit in (("openai", 16), ("openrouter", 5)):
        sent = native_request(body, quirks=quirks_in(RESPONSES, provider, "m"), model="m", stream=True)
        assert sent["max_output_tokens"] == limit
        assert not {"stop", "seed", "presence_penalty"} & sent.keys()


def test_litellm_23_of_input_and_messages_only_one_is_sent() -> None:
    body = parse(input="a", messages=[{"role": "user", "content": "b"}]).body
    assert native_request(body, quirks=quirks_in(RESPONSES, "openai", "m"), model="m", stream=False) == {
        "input": "a",
        "model": "m",
        "stream": False,
    }


# What is mended


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"a \ud83d b", "a \ufffd b"),
        (rb"a \uDE00 b", "a \ufffd b"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (b"a \xed\xa0\xbd b", "a \ufffd b"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\U0001f600"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(written: bytes, text: str) -> None:
    request = parse_body(b'{"model":"m","input":"' + written + b'"}')
    assert request.body == {"input": text}
    assert request.mended == {"lone_surrogate"}


def test_whole_surrogate_pairs_are_not_mended() -> None:
    request = parse_body(rb'{"model":"m","input":"\ud83d\ude00"}')
    assert (request.body, request.mended) == ({"input": "\U0001f600"}, set())


def late(*tools: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "additional_tools", "role": "developer", "tools": list(tools), **more}


def test_the_tools_that_an_item_declares_count_when_the_history_is_read() -> None:
    nested = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object", "properties": {}}}}
    call = {"type": "function_call", "call_id": "c", "name": "Patch", "arguments": "*** Begin"}
    items = [{"role": "user", "content": "hi"}, call, late({"type": "custom", "name": "Patch"}, nested)]
    request = parse(input=items, tool_choice={"type": "function", "name": "Patch"}, parallel_tool_calls=False)
    assert request.custom_tools == {"Patch"}
    assert request.body["tool_choice"] == {"type": "custom", "name": "Patch"}
    assert request.body["parallel_tool_calls"] is False
    assert "tools" not in request.body
    assert request.body["input"][1]["type"] == "custom_tool_call"
    (declared,) = [item for item in request.body["input"] if item.get("type") == "additional_tools"]
    assert [tool["name"] for tool in declared["tools"]] == ["Patch", "Read"]
    assert parse(input=[items[0], late({"type": "web_search"})]).has_hosted_tools
    assert parse(input=[items[0], late(tools=None)]).body["input"] == items[:1]
    chat = parse(
        input=None,
        messages=[{"role": "user", "content": "hi"}, late({"type": "custom", "name": "Patch"}), late(tools=None)],
    )
    assert chat.custom_tools == {"Patch"}
    assert len(chat.body["input"]) == 2


def test_names_of_tools_that_an_upstream_refuses_are_the_same_wherever_they_occur() -> None:
    long, dotted = "mcp__" + "x" * 80, "fs.read"
    tools = [{"type": "function", "name": long}, {"type": "function", "name": dotted}]
    tools.append({"type": "namespace", "name": "n" * 60, "tools": [tools[1], {"type": "x"}]})  # type: ignore[dict-item]
    tools.append({"type": "namespace", "name": "plain", "tools": [{"type": "function", "name": "f"}]})  # type: ignore[dict-item]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": dotted}]}
    call = {"type": "function_call", "call_id": "c", "name": long, "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    request = parse(input=[call, output], tools=tools, tool_choice=choice)
    sent = [tool["name"] for tool in request.body["tools"][:2]]
    assert [request.tool_names[name] for name in sent] == [long, dotted]
    assert request.body["input"][0]["name"] == sent[0]
    assert request.body["tool_choice"]["tools"] == [{"type": "function", "name": sent[1]}]
    assert [tool.get("name") for tool in request.body["tools"][2]["tools"]] == [sent[1], None]
    flat = f"{'n' * 60}__{sent[1]}"  # the namespace's name is put before one that is taken
    assert request.tool_names[legal_tool_name(flat)] == flat
    assert request.mended == {"tool_name"}
    legacy = parse(input="hi", functions=[{"name": dotted, "parameters": {}}], function_call={"name": dotted})
    assert legacy.body["tool_choice"]["name"] == legacy.body["tools"][0]["name"] == sent[1]


# Bad input


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n ", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"{", "not valid JSON"),
        (b'{"model": "m", "input": "hi"} x', "trailing characters"),
        (b'{"model": "m", "input": "hi",}', "not valid JSON"),
        (b'{"model": "m", "input": "\xff"}', "UTF-8"),
        (b'{"model": "m", "\xff\xfe": "hi"}', "UTF-8"),
        (b'{"model": "m", "input": "\xed\xa0\x80 \xff"}', "UTF-8"),
        ('{"model": "m"}'.encode("utf-16"), "UTF-16"),
        ('{"model": "m"}'.encode("utf-16-le"), "UTF-16"),
        ('{"model": "m"}'.encode("utf-32-be"), "UTF-16"),
        (b'{"model": "m", "input": "hi", "temperature": NaN}', "not valid JSON"),
        (b'{"model": "m", "input": "hi", "temperature": Infinity}', "not valid JSON"),
        (b'{"model": "m", "input": "hi", "temperature": 1e999}', "out of range"),
        (b'{"model": "m", "input": "hi", "seed": ' + b"9" * 5000 + b"}", "out of range"),
        (rb'{"model": "m", "input": "\ud800" x}', "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"model": "m", "input": ' + b"[" * 100_000, "nested too deeply"),
        (b"[]", "JSON object, not an empty array"),
        (b"null", "JSON object, not null"),
        (b'"text"', "JSON object, not a string"),
        (b"5", "JSON object, not a number"),
        (b"true", "JSON object, not a boolean"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused_with_a_message(body: bytes, words: str) -> None:
    error = refusal_of(body)
    assert words in error.message
    assert (error.param, error.code) == (None, "invalid_request")
    assert error.__cause__ is None


def test_nesting_is_limited_far_below_what_the_encoder_supports() -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: Any = {}
        for _ in range(levels - 2):  # one level is the innermost, one the body
            value = {"a": value}
        return {"metadata": value}

    assert "metadata" in parse(**nested(MAX_DEPTH_LEVELS)).body
    error = refusal(**nested(MAX_DEPTH_LEVELS + 1))
    assert error.param == "metadata"
    assert "200 levels" in error.message


def test_a_body_may_have_more_objects_than_levels() -> None:
    items = [{"role": "user", "content": str(number)} for number in range(2 * MAX_DEPTH_LEVELS)]
    assert parse(input=items).body == {"input": items}


def test_a_long_key_is_cut_in_the_message() -> None:
    value: Any = []
    for _ in range(MAX_DEPTH_LEVELS):
        value = [value]
    assert refusal(**{"k" * 1000: value}).param == "k" * 40 + "..."


@pytest.mark.parametrize("model", [None, "", "  ", 5, ["m"], {}, True])
def test_a_request_without_a_model_name_is_refused(model: Any) -> None:
    assert refusal(model=model).param == "model"


def test_a_model_name_has_a_limit() -> None:
    assert parse(model="m" * MAX_MODEL_CHARS).requested_model == "m" * MAX_MODEL_CHARS
    assert "512 are allowed" in refusal(model="m" * (MAX_MODEL_CHARS + 1)).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": None, "messages": "hi"}, "messages"),
        ({"input": None, "messages": []}, "messages"),
        ({"input": None, "messages": {}}, "messages"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": None, "messages": [None]}, "messages"),
        ({"input": None, "messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]}, "input[1].role"),
        ({"input": [{"role": 5, "content": "b"}]}, "input[0].role"),
        ({"input": [{"content": "b"}]}, "input[0].role"),
        ({"input": [{"type": "message", "id": "msg_1"}]}, "input[0].role"),
        ({"input": None, "messages": [{"id": "x"}]}, "messages[0].role"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": "x"}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": []}, "top_p"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_tokens": False}, "max_tokens"),
        ({"max_completion_tokens": {}}, "max_completion_tokens"),
        ({"tools": "x"}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": 5}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "name": 5}]}, "tools[0].name"),
        ({"tools": [{"type": 5, "name": "x"}]}, "tools[0].type"),
        ({"tools": [{}]}, "tools[0].name"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": []}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"functions": 5}, "functions"),
        ({"metadata": "x"}, "metadata"),
        ({"user": 5}, "user"),
        ({"include": "x"}, "include"),
        ({"include": [5]}, "include"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"text": "x"}, "text"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": 5}}, "response_format.json_schema"),
        ({"instructions": 5}, "instructions"),
        ({"store": "no"}, "store"),
        ({"n": 2}, "n"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"seed": 1.5}, "seed"),
        ({"frequency_penalty": "much"}, "frequency_penalty"),
        ({"presence_penalty": True}, "presence_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"store": False, "input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"logprobs": 3}, "logprobs"),
        ({"previous_response_id": 5}, "previous_response_id"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert param.rpartition(".")[2].partition("[")[0] in error.message
    assert error.code == "invalid_request"


def test_a_body_with_neither_input_nor_messages_is_refused_as_such() -> None:
    assert "neither input nor messages" in refusal_of(b'{"model":"m"}').message


def test_an_error_message_names_what_was_found_and_what_is_expected() -> None:
    assert refusal(temperature="hot").message == "temperature must be a number, not a string."
    assert refusal(stream="true").message == "stream must be true or false, not a string."
    assert "known roles are system, developer" in refusal(input=[{"role": "x" * 99}]).message
    assert "x" * 41 not in refusal(input=[{"role": "x" * 99}]).message


def test_a_null_stream_means_no_stream() -> None:
    assert parse(stream=None).stream is False
    assert parse(stream=True).stream is True


# Arbitrary input


def outcome(body: bytes) -> ResponsesRequest | BadRequest:
    """Parse a body; anything but a request or a refusal fails the test."""
    try:
        return parse_body(body)
    except BadRequest as refused:
        return refused


def check(body: dict[str, Any]) -> None:
    """Assert that a body is accepted in normal form, or refused with a message that names one of its fields."""
    match outcome(json.dumps(body).encode()):
        case BadRequest() as refused:
            check_refusal(refused, {"model", "input", *body})
        case ResponsesRequest() as request:
            check_normal(request)


def check_refusal(refused: BadRequest, fields: set[str]) -> None:
    assert 0 < len(refused.message) < 600
    if refused.param is not None:
        (name,) = [name for name in fields if re.match(rf"{re.escape(name)}(?![^.\[])", refused.param)]
        assert name in refused.message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_message(body: bytes) -> None:
    refused = outcome(body)
    assert isinstance(refused, BadRequest)
    check_refusal(refused, {"model"})


@given(st.binary(max_size=200))
def test_arbitrary_bytes_in_a_body_become_its_text_or_are_refused(body: bytes) -> None:
    whole = b'{"model":"m","input":"' + body + b'"}'
    match outcome(whole):
        case BadRequest() as refusal:
            check_refusal(refusal, {"input"})
        case ResponsesRequest() as request:
            assert request.body == {"input": json.loads(whole)["input"]}
    refused = outcome(b'{"model":"m","input":[' + body + b"]}")
    assert isinstance(refused, BadRequest)  # random bytes are too short to be an item
    check_refusal(refused, {"input"})


RICH: dict[str, Any] = {
    "model": "m",
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [
        {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}},
        {"type": "custom", "custom": {"name": "ApplyPatch", "format": {"type": "grammar", "grammar": {"syntax": "x"}}}},
        {"name": "LS", "input_schema": {"type": "object"}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "tool", "name": "LS"}]}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "reasoning_effort": "low",
    "logprobs": True,
    "input": [
        {"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}, "bare"]},
        {"role": "assistant", "content": None, "refusal": "no", "function_call": {"name": "Read", "arguments": "{}"}},
        {"role": "function", "name": "Read", "content": "x"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "t"}, {"type": "tool_use", "id": "a", "name": "LS", "input": {}}],
            "tool_calls": [
                {"id": "b", "type": "function", "function": {"name": "ApplyPatch", "arguments": "*** Begin"}},
                {"id": "c", "type": "custom", "custom": {"name": "ApplyPatch", "input": "*** Begin"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"text": "r"}]}]},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "r"}]},
        {"type": "function_call", "id": "x", "call_id": "d" * 80, "name": "Read", "arguments": {"a": 1}},
        {"type": "function_call_output", "call_id": "d" * 80, "output": [{"type": "input_text", "text": "r"}]},
        {"type": "custom_tool_call", "call_id": "e", "name": "ApplyPatch", "input": "p"},
        {"type": "custom_tool_call_output", "call_id": "e", "output": None},
        {"type": "reasoning", "id": "rs_1", "summary": []},
    ],
}  # fmt: skip


KEYS = st.sampled_from([*RICH, "messages", "functions", "function_call", "max_tokens", "include", "text", "metadata"])


@given(st.dictionaries(KEYS, json_values, max_size=5))
def test_arbitrary_values_of_known_fields_are_accepted_or_refused(fields: dict[str, Any]) -> None:
    check({"model": "m", "input": "hi", **fields})


@given(spoiled(st.sampled_from([RICH, {**RICH, "input": None, "messages": RICH["input"]}])))
def test_a_valid_body_with_one_odd_value_is_accepted_or_refused(body: dict[str, Any]) -> None:
    check(body)


@given(bodies)
def test_a_body_in_any_mix_of_dialects_is_accepted_or_refused(body: dict[str, Any]) -> None:
    check(body)


@given(spoiled())
def test_a_mixed_body_with_one_odd_value_is_accepted_or_refused(body: dict[str, Any]) -> None:
    check(body)


def test_the_rich_body_itself_is_accepted() -> None:
    request = parse_body(json.dumps(RICH).encode())
    check_normal(request)
    assert [item.get("type", item.get("role")) for item in request.body["input"]] == [
        "system", "user", "assistant", "function_call", "function_call_output", "assistant", "function_call",
        "custom_tool_call", "custom_tool_call", "custom_tool_call_output", "function_call_output",
        "custom_tool_call_output", "function_call", "function_call_output", "custom_tool_call",
        "custom_tool_call_output", "reasoning",
    ]  # fmt: skip
    assert request.has_hosted_tools
    assert request.wants_logprobs
