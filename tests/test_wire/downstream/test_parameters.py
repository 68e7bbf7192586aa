"""Parameters other than the conversation: what is passed on, translated, or never sent to the upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.wire.bad_request import BadRequest
from stages.wire.downstream.parameters import expected_type
from stages.wire.downstream.request import parse_body

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def sent(**fields: Any) -> dict[str, Any]:
    body = parse_body(json.dumps({"model": "m", "input": "hi"} | fields).encode()).body
    assert body.pop("input") == "hi"
    return body


def test_parameters_of_the_responses_api_and_unknown_ones_are_passed_on_unchanged() -> None:
    fields = {
        "instructions": "be brief",
        "temperature": 0,
        "top_p": 0.5,
        "max_output_tokens": 16,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "truncation": "disabled",
        "metadata": {"cursorConversationId": "c"},
        "prompt_cache_key": "k",
        "service_tier": "priority",
        "user": "u",
        "previous_response_id": "resp_1",
        "from_the_future": {"deep": [1, 2]},
    }
    assert sent(**fields) == fields


def test_null_counts_as_absent_everywhere() -> None:
    assert (
        sent(previous_response_id=None, temperature=None, tools=None, metadata=None, stop=None, custom_field=None) == {}
    )


@pytest.mark.parametrize(
    "field",
    [
        "api_base", "base_url", "api_key", "api_version", "organization", "extra_headers", "extra_body", "headers",
        "timeout", "mock_response", "litellm_metadata", "litellm_call_id", "fallbacks", "custom_llm_provider",
        "aws_secret_access_key", "azure_ad_token", "vertex_credentials", "user_api_key_hash", "model_info", "cache",
        "user_config", "background", "stream_options", "messages", "modalities", "audio", "system",
    ],
)  # fmt: skip
def test_our_own_parameters_and_meaningless_ones_do_not_reach_any_upstream(field: str) -> None:
    value = {"include_obfuscation": True} if field == "stream_options" else "sk-evil"
    assert sent(**{field: value}) == {}


def test_the_chat_names_of_the_limit_are_translated_unless_the_native_one_is_present() -> None:
    assert sent(max_tokens=5) == {"max_output_tokens": 5}
    assert sent(max_completion_tokens=7, max_tokens=5) == {"max_output_tokens": 7}
    assert sent(max_output_tokens=9, max_completion_tokens=7) == {"max_output_tokens": 9}
    assert sent(max_completion_tokens=None, max_tokens=5) == {"max_output_tokens": 5}


def test_effort_and_verbosity_move_to_their_groups_unless_set_there() -> None:
    assert sent(reasoning_effort="low") == {"reasoning": {"effort": "low"}}
    assert sent(reasoning_effort="low", reasoning={"summary": "auto"}) == {
        "reasoning": {"summary": "auto", "effort": "low"}
    }
    assert sent(reasoning_effort="low", reasoning={"effort": "high"}) == {"reasoning": {"effort": "high"}}
    assert sent(verbosity="low", text={"format": {"type": "text"}}) == {
        "text": {"format": {"type": "text"}, "verbosity": "low"}
    }


@pytest.mark.parametrize(
    ("response_format", "text"),
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": None}},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
        ),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
        ),
    ],
)
def test_response_format_becomes_the_text_format(response_format: Any, text: Any) -> None:
    assert sent(response_format=response_format) == text


def test_logprobs_are_requested_in_include() -> None:
    assert sent(logprobs=True, top_logprobs=3) == {"include": ["message.output_text.logprobs"], "top_logprobs": 3}
    assert sent(logprobs=True, include=["x"]) == {"include": ["x", "message.output_text.logprobs"]}
    native = {"include": ["message.output_text.logprobs"]}
    assert sent(logprobs=True, **native) == native
    assert sent(logprobs=False) == {}
    assert parse_body(json.dumps({"model": "m", "input": "hi", **native}).encode()).wants_logprobs


def test_tool_parameters_are_sent_only_with_tools() -> None:
    fields = {"tool_choice": "auto", "parallel_tool_calls": False}
    assert sent(**fields, tools=[FUNCTION]) == {**fields, "tools": [FUNCTION]}
    assert sent(tools=[FUNCTION]) == {"tools": [FUNCTION]}
    assert sent(**fields, tools=[]) == {}
    assert sent(**fields) == {}


def test_legacy_functions_are_used_if_there_are_no_tools() -> None:
    legacy = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}
    assert sent(**legacy) == {
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
        ],
        "tool_choice": {"type": "function", "name": "f"},
    }
    assert sent(functions=None, function_call=None) == {}
    assert sent(**legacy, tools=[FUNCTION], tool_choice="none") == {"tools": [FUNCTION], "tool_choice": "none"}


def test_parameters_of_chat_are_kept_for_a_chat_upstream() -> None:
    fields = {"stop": ["a"], "seed": -5, "frequency_penalty": 0.5, "presence_penalty": 1, "logit_bias": {"5": 1}}
    assert sent(**fields, n=1, prediction={"type": "content"}) == {**fields, "prediction": {"type": "content"}}
    assert sent(stop="a", stop_sequences=["b"]) == {"stop": "a"}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('"n":3', "n must be 1 (a request has one answer), not another number."),
        ('"max_output_tokens":-1', "max_output_tokens must be a whole number above 0, not another number."),
        ('"temperature":1e999', "The request body is not valid JSON: Number out of range."),
    ],
)
def test_the_message_about_an_invalid_number_is_accurate(field: str, expected: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_body(b'{"model":"m","input":"x",%b}' % field.encode())
    assert refused.value.message == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("temperature", "warm", "a number"), ("temperature", 0.5, None), ("unknown", "anything", None)],
)
def test_what_a_parameter_must_be_is_said_only_if_it_is_something_else(
    name: str, value: str | float, expected: str | None
) -> None:
    assert expected_type(name, value) == expected
