"""What each provider with a Responses API gets, and what is not sent to it."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from kit.strategies.requests import bodies
from kit.upstreams.providers import providers_with_quirks

from stages.upstreams.providers import quirks_in
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.request import parse_body
from stages.wire.responses.api import RESPONSES
from stages.wire.responses.request import native_request

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
CACHE: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
BASIC = ["xai", "hosted_vllm", "vllm", "ollama", "ollama_chat", "lm_studio"]
NO_CUSTOM = [*BASIC, "fireworks_ai", "perplexity"]
LIKE_OPENAI = ["openai", "azure", "openrouter", "litellm_proxy", "github_copilot", "databricks", "somebody"]


def sent(provider: str = "openai", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"input": "hi", **fields}
    before = copy.deepcopy(body)
    request = native_request(body, quirks=quirks_in(RESPONSES, provider, "up"), model="up", stream=stream)
    assert body == before
    assert request.pop("model") == "up"
    assert request.pop("stream") is stream
    if stream and provider in ("openai", "azure"):
        assert request.pop("stream_options") == {"include_obfuscation": False}
    if request["input"] == "hi":
        del request["input"]
    return request


def items(provider: str, *history: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = sent(provider, input=list(history), **fields)["input"]
    return kept


SAID: dict[str, Any] = {"role": "assistant", "content": "so"}
USER: dict[str, Any] = {"role": "user", "content": "hi"}
CALL: dict[str, Any] = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{ not json"}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "c", "output": "x"}
PATCH: dict[str, Any] = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "p", "name": "P", "input": 'a"b'}
PATCHED: dict[str, Any] = {"type": "custom_tool_call_output", "call_id": "p", "output": "Done"}


# Families of OpenAI's models


def sent_to(model: str, provider: str = "openai", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"input": "hi", **fields}
    before = copy.deepcopy(body)
    request = native_request(body, quirks=quirks_in(RESPONSES, provider, model), model=model, stream=False)
    assert body == before
    assert (request.pop("model"), request.pop("stream")) == (model, False)
    if request["input"] == "hi":
        del request["input"]
    return request


SAMPLING: dict[str, Any] = {"temperature": 0, "top_p": 1, "top_logprobs": 2, "include": [LOGPROBS, "x"]}
SIX = ["gpt-6-astra", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-sol", "gpt-6.1-terra", "gpt-6.2-astra", "gpt-6.2-sol"]


@pytest.mark.parametrize("provider", ["openai", "azure", "openai elsewhere"])
@pytest.mark.parametrize("model", SIX)
def test_gpt_6_gets_no_sampling_parameters_and_no_effort_below_low(model: str, provider: str) -> None:
    for effort, name in [(None, None), ("none", "low"), ("minimal", "low"), ("low", "low"), ("max", "max")]:
        reasoning: dict[str, Any] = {} if effort is None else {"reasoning": {"effort": effort}}
        got = sent_to(model, provider, **SAMPLING, **reasoning)
        assert got == {
            "include": ["x"],
            "reasoning": {"summary": "auto"} if name is None else {"effort": name, "summary": "auto"},
        }
    assert sent_to(model, "somebody", **SAMPLING) == SAMPLING


@pytest.mark.parametrize(("model", "tier"), [("gpt-6.2-sol", None), ("gpt-6.1-sol", "flex"), ("gpt-5.4", "flex")])
def test_gpt_6_2_is_not_asked_for_the_tier_flex(model: str, tier: str | None) -> None:
    assert sent_to(model, service_tier="flex").get("service_tier") == tier
    assert sent_to(model, service_tier="priority")["service_tier"] == "priority"


@pytest.mark.parametrize("model", ["chat-latest", "gpt-chat-latest", "openai/chat-latest"])
def test_chat_latest_gets_nothing_of_reasoning_or_sampling(model: str) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E"}
    got = sent_to(
        model,
        **{**SAMPLING, "include": [LOGPROBS, ENCRYPTED]},
        store=False,
        reasoning={"effort": "low", "summary": "auto"},
        input=[USER, thought, SAID, USER],
    )
    assert got == {"store": False, "input": [USER, SAID, USER]}


@pytest.mark.parametrize(
    ("model", "effort", "is_shown"),
    [
        ("gpt-6-sol", None, True),
        ("gpt-5", None, True),
        ("gpt-5", "none", False),
        ("gpt-5.2-codex", None, True),
        ("gpt-5.1", None, False),
        ("gpt-5.10", None, False),
        ("gpt-5.4", None, False),
        ("gpt-5.4", "low", True),
        ("gpt-5.4", "none", False),
        ("o3", None, True),
        ("o1", "high", False),
        ("gpt-5-chat-latest", "low", False),
        ("gpt-4o", "low", False),
        ("m", "low", False),
    ],
)
def test_the_summary_is_asked_for_where_the_model_thinks_anyway(model: str, effort: str | None, is_shown: bool) -> None:
    reasoning: dict[str, Any] = {} if effort is None else {"reasoning": {"effort": effort}}
    got = sent_to(model, **reasoning).get("reasoning", {})
    assert got == {**reasoning.get("reasoning", {}), **({"summary": "auto"} if is_shown else {})}
    assert sent_to(model, reasoning={"summary": "detailed"})["reasoning"] == {"summary": "detailed"}


def test_what_is_shown_can_be_sent_back_too() -> None:
    assert sent_to("gpt-6-sol", store=False)["include"] == [ENCRYPTED]
    assert "include" not in sent_to("gpt-5.4", store=False)
    assert "include" not in sent_to("gpt-6-sol", store=True)


def test_a_change_of_the_configuration_passes_and_does_not_follow_from_reasoning() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "E"}
    change = {"type": "configuration_update", "reasoning": {"effort": "high"}}
    tools = {"type": "additional_tools", "role": "developer", "tools": []}
    history = [USER, thought, SAID, change, USER]
    assert items("openai", *history) == history
    assert items("openai", thought, change, tools, USER) == [change, tools, USER]


def test_obfuscation_is_switched_off_only_where_it_is_known() -> None:
    assert sent("openai", stream=True) == {}  # `sent` has seen the option
    for provider in ("openai elsewhere", "azure dated", "somebody", "hosted_vllm"):
        assert "stream_options" not in sent(provider, stream=True)


def test_deepseek_gets_its_efforts_and_reasoning_as_text() -> None:
    for effort, name in [("minimal", "low"), ("medium", "high"), ("xhigh", "max"), ("none", "none")]:
        assert sent("deepseek", reasoning={"effort": effort}) == {"reasoning": {"effort": name}}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}
    history = [USER, thought, PATCH, PATCHED]
    assert items("deepseek", *history, store=False, include=[ENCRYPTED]) == history
    assert sent("deepseek", store=False, include=[ENCRYPTED]) == {}


# Parameters


@pytest.mark.parametrize("provider", providers_with_quirks(RESPONSES))
def test_what_only_other_apis_have_is_never_sent(provider: str) -> None:
    foreign = {"stop": ["a"], "seed": 1, "logit_bias": {}, "frequency_penalty": 1, "presence_penalty": 1, **CACHE}
    assert sent(provider, **foreign, thinking={"type": "enabled"}, prediction={}, web_search_options={}) == {}
    assert "stream_options" not in sent(provider, stream=False)


def test_unknown_parameters_are_passed_on() -> None:
    fields: dict[str, Any] = {"prompt_cache_key": "k", "from_the_future": {"a": [1]}, "metadata": {"a": "b"}}
    assert sent("openai", **fields) == fields
    assert sent("somebody", **fields) == fields


@pytest.mark.parametrize(("provider", "limit"), [("openai", 16), ("azure", 16), ("xai", 10), ("somebody", 10)])
def test_a_limit_that_openai_refuses_is_raised(provider: str, limit: int) -> None:
    assert sent(provider, max_output_tokens=10) == {"max_output_tokens": limit}
    assert sent(provider, max_output_tokens=17) == {"max_output_tokens": 17}


def test_parameters_that_a_provider_refuses_are_removed() -> None:
    fields: dict[str, Any] = {"metadata": {}, "service_tier": "priority", "prompt_cache_retention": "24h"}
    fields["context_management"] = []
    assert sent("xai", **fields, prompt_cache_key="k") == {"prompt_cache_key": "k"}
    assert sent("azure", **fields) == {key: fields[key] for key in fields if key != "context_management"}


def test_encrypted_reasoning_is_requested_if_nothing_is_stored() -> None:
    effort: dict[str, Any] = {"reasoning": {"effort": "low"}}
    assert sent(store=False, **effort)["include"] == [ENCRYPTED]
    assert sent(store=False, include=["x"], **effort)["include"] == ["x", ENCRYPTED]
    assert sent(store=False, include=[ENCRYPTED], **effort)["include"] == [ENCRYPTED]
    assert "include" not in sent(store=False)
    assert "include" not in sent(**effort)
    assert "include" not in sent(store=True, **effort)
    assert "include" not in sent("hosted_vllm", store=False, include=[ENCRYPTED], **effort)
    assert sent("xai", include=["x"], store=False, **effort)["include"] == [ENCRYPTED]
    assert sent("fireworks_ai", include=[ENCRYPTED, "x"])["include"] == ["x"]


@pytest.mark.parametrize(
    ("provider", "asked", "given"),
    [
        ("openai", "max", "max"),
        ("ollama", "minimal", "low"),
        ("ollama", "xhigh", "high"),
        ("ollama", "max", "max"),
        ("ollama", "none", "none"),
        ("xai", "xhigh", "high"),
        ("lm_studio", "minimal", "low"),
        ("hosted_vllm", "medium", "medium"),
        ("hosted_vllm", "from_the_future", "from_the_future"),
    ],
)
def test_an_unknown_effort_becomes_the_nearest_known_one(provider: str, asked: str, given: str) -> None:
    assert sent(provider, reasoning={"effort": asked, "summary": "auto"}) == {
        "reasoning": {"effort": given, "summary": "auto"}
    }
    assert sent(provider, reasoning={"effort": 5}) == {"reasoning": {"effort": 5}}


def test_verbosity_is_sent_only_to_providers_that_know_it() -> None:
    text = {"verbosity": "low", "format": {"type": "json_object"}}
    assert sent("openai", text=text) == {"text": text}
    assert sent("ollama", text=text) == {"text": {"format": {"type": "json_object"}}}
    assert sent("ollama", text={"verbosity": "low"}) == {}
    assert sent("ollama", text={}) == {"text": {}}


# Tools

FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
CUSTOM: dict[str, Any] = {"type": "custom", "name": "P", "description": "Patches.", "format": GRAMMAR}


@pytest.mark.parametrize("provider", LIKE_OPENAI)
def test_known_tools_are_kept_as_the_same_objects(provider: str) -> None:
    tools = [FUNCTION, CUSTOM, {"type": "web_search"}]
    given = sent(provider, tools=tools, tool_choice={"type": "custom", "name": "P"})
    assert all(new is old for new, old in zip(given["tools"], tools, strict=True))
    assert given["tool_choice"] == {"type": "custom", "name": "P"}
    assert sent(provider, tools=[{**FUNCTION, **CACHE}])["tools"] == [FUNCTION]


@pytest.mark.parametrize("provider", NO_CUSTOM)
def test_a_custom_tool_becomes_a_function_with_one_string_where_it_is_unknown(provider: str) -> None:
    given = sent(provider, tools=[{**CUSTOM, **CACHE}], tool_choice={"type": "custom", "name": "P"})
    (tool,) = given["tools"]
    assert (tool["type"], tool["name"], tool["strict"]) == ("function", "P", False)
    assert tool["parameters"]["required"] == ["input"]
    assert tool["parameters"]["properties"]["input"]["type"] == "string"
    assert tool["description"].startswith("Patches.\n\n")
    assert tool["description"].endswith("lark grammar:\nstart: WORD")
    assert given["tool_choice"] == {"type": "function", "name": "P"}
    (bare,) = sent(provider, tools=[{"type": "custom", "name": "P"}])["tools"]
    assert bare["description"] == ""
    assert not quirks_in(RESPONSES, provider, "m").has_custom_tools


@pytest.mark.parametrize("provider", ["hosted_vllm", "vllm"])
def test_custom_tools_of_a_namespace_become_functions_too(provider: str) -> None:
    space = {"type": "namespace", "name": "n", "tools": [FUNCTION, CUSTOM, {"type": "custom"}, "odd"]}
    wrapped = sent(provider, tools=[CUSTOM])["tools"]
    assert sent(provider, tools=[space])["tools"] == [
        {**space, "tools": [FUNCTION, *wrapped, {"type": "custom"}, "odd"]}
    ]
    for untouched in ({"type": "namespace", "name": "n", "tools": [FUNCTION]}, {"type": "namespace", "tools": 5}):
        assert sent(provider, tools=[untouched])["tools"][0] is untouched
    assert sent("openai", tools=[space])["tools"] == [space]


def test_nothing_is_wrapped_where_custom_tools_are_known() -> None:
    for provider in ("openai", "somebody"):
        assert quirks_in(RESPONSES, provider, "m").has_custom_tools
        assert sent(provider, tools=[CUSTOM])["tools"] == [CUSTOM]


def test_hosted_tools_are_sent_only_to_providers_that_have_them() -> None:
    tools = [FUNCTION, {"type": "web_search"}, {"type": "mcp"}]
    assert sent("ollama", tools=tools)["tools"] == [FUNCTION]
    assert sent("lm_studio", tools=tools)["tools"] == [FUNCTION, {"type": "mcp"}]
    only: dict[str, Any] = {"tools": tools[1:], "tool_choice": "required", "parallel_tool_calls": False}
    assert sent("ollama", **only) == {}
    assert sent("ollama", tools=tools, tool_choice={"type": "web_search"}) == {"tools": [FUNCTION]}
    assert sent("openai", tools=tools, tool_choice={"type": "web_search"})["tool_choice"] == {"type": "web_search"}


def test_a_choice_among_tools_loses_the_tools_that_are_not_sent() -> None:
    def choice(*tools: dict[str, Any]) -> dict[str, Any]:
        return {"type": "allowed_tools", "mode": "required", "tools": list(tools)}

    tools = [FUNCTION, CUSTOM, {"type": "web_search"}]
    asked = choice({"type": "custom", "name": "P"}, {"type": "web_search"})
    assert sent("openai", tools=tools, tool_choice=asked)["tool_choice"] == asked
    assert sent("ollama", tools=tools, tool_choice=asked)["tool_choice"] == choice({"type": "function", "name": "P"})
    assert "tool_choice" not in sent("ollama", tools=tools, tool_choice=choice({"type": "web_search"}))


# Items


@pytest.mark.parametrize("provider", LIKE_OPENAI)
def test_known_items_are_kept_as_the_same_objects(provider: str) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"}
    parts = [{"type": "output_text", "text": "so"}, "odd"]
    history = [
        {"role": "developer", "content": "d"},
        USER,
        thought,
        CALL,
        OUTPUT,
        thought,
        {"role": "assistant", "content": parts},
        {**OUTPUT, "output": [{"type": "input_image", "image_url": "u"}]},
        PATCH,
        PATCHED,
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "item_reference", "id": "msg_1"},
    ]
    assert all(new is old for new, old in zip(items(provider, *history), history, strict=True))


TEXT = {"role": "assistant", "content": "so"}
PART = {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]}


@pytest.mark.parametrize(
    ("provider", "model", "form"),
    [
        ("openai", "gpt-5.4", PART),
        ("azure", "o3", PART),
        ("openrouter", "openai/gpt-5.4", TEXT),
        ("somebody", "gpt-5.4", TEXT),
        ("hosted_vllm", "gpt-5.4", TEXT),
        ("openai", "kimi-k3", None),  # the server is unknown
        ("azure", "my-own-name", None),
    ],
)
def test_the_assistants_text_has_one_form_whichever_form_it_arrived_in(provider: str, model: str, form: Any) -> None:
    for came in (TEXT, PART):
        message = {"type": "message", **came, "phase": "final_answer"}
        request = native_request(
            {"input": [message]}, quirks=quirks_in(RESPONSES, provider, model), model=model, stream=True
        )
        assert request["input"] == [{**message, **(form or came)}]


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}]},
        {"content": [{"type": "output_text", "text": "a", "annotations": [{"type": "url_citation"}]}]},
        {"content": [{"type": "output_text", "text": "a", "from_the_future": 1}]},
        {"content": [{"type": "refusal", "refusal": "no"}]},
        {"content": [{"type": "output_text", "text": 5}]},
        {"content": []},
        {"content": ""},
        {"content": None},
        {"id": "msg_1", "status": "completed", "content": [{"type": "output_text", "text": "a"}]},
    ],
)
@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-5.4"), ("somebody", "m")])
def test_what_is_more_than_a_text_keeps_its_form(provider: str, model: str, message: dict[str, Any]) -> None:
    said = {"role": "assistant", **message}
    (sent_on,) = native_request(
        {"input": [said]}, quirks=quirks_in(RESPONSES, provider, model), model=model, stream=True
    )["input"]
    assert sent_on is said


@pytest.mark.parametrize("provider", providers_with_quirks(RESPONSES))
def test_the_notes_for_anthropic_are_taken_off(provider: str) -> None:
    part = {"type": "input_text", "text": "a"}
    given = items(
        provider,
        {**USER, **CACHE},
        {"role": "user", "content": [{**part, **CACHE}, part, "odd"]},
        {"type": "reasoning", "summary": [], "anthropic_blocks": [{"type": "thinking"}]},
        {**CALL, **CACHE},
        {**OUTPUT, "output": [{**part, **CACHE}], "is_error": True, **CACHE},
    )
    assert given[:2] == [USER, {"role": "user", "content": [part, part, "odd"]}]
    assert given[2].keys() == CALL.keys()
    assert given[3:] == [{**OUTPUT, "output": [part]}]


@pytest.mark.parametrize(
    ("arguments", "object_text"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": ', '{"input":"{\\"a\\": "}'),
        ("*** Begin", '{"input":"*** Begin"}'),
        ("[]", '{"input":"[]"}'),
        ("", "{}"),
        ("[" * 5000, json.dumps({"input": "[" * 5000}, separators=(",", ":"))),
    ],
)
def test_arguments_that_are_not_an_object_become_one_only_for_servers_that_parse_them(
    arguments: str, object_text: str
) -> None:
    for provider, text in (("ollama", object_text), ("hosted_vllm", object_text), ("openai", arguments)):
        (given,) = items(provider, {**CALL, "arguments": arguments})
        assert given["arguments"] == text


@pytest.mark.parametrize(("provider", "is_kept"), [("openai", True), ("azure", True), ("hosted_vllm", False)])
def test_tools_that_items_declare_stay_there_only_where_that_is_known(provider: str, is_kept: bool) -> None:
    late = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]}
    body = {"input": [{"role": "user", "content": "hi"}, late], "tool_choice": "auto"}
    quirks = quirks_in(RESPONSES, provider, "m")
    sent = native_request(body, quirks=quirks, model="m", stream=True)
    assert (late in sent["input"]) is is_kept
    assert sent.get("tools") == (None if is_kept else late["tools"])
    assert sent["tool_choice"] == "auto"


def test_an_unknown_item_with_a_role_is_not_taken_for_a_message() -> None:
    odd = {"type": "from_the_future", "role": "assistant", "content": ["text"]}
    assert items("xai", USER, odd) == [USER]
    assert items("openai", USER, odd) == [USER, odd]


@pytest.mark.parametrize("item", [{"id": "rs_1"}, {"type": "web_search_call", "id": "ws_1"}])
def test_what_other_models_do_not_miss_is_left_out_without_a_word(item: dict[str, Any]) -> None:
    mended: set[str] = set()
    hi = {"role": "user", "content": "hi"}
    for odd, words in ((item, set[str]()), ({"type": "from_the_future"}, {"unknown_item"})):
        quirks = quirks_in(RESPONSES, "hosted_vllm", "m")
        sent = native_request({"input": [hi, odd]}, quirks=quirks, model="m", stream=True, mended=mended)
        assert (sent["input"], mended) == ([hi], words)


def test_reasoning_is_kept_if_the_upstream_can_use_it() -> None:
    encrypted = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"}
    known = {"type": "reasoning", "id": "rs_1", "summary": []}
    plain = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert items("openai", encrypted, SAID, store=False) == [encrypted, SAID]
    assert items("openai", known, SAID) == [known, SAID]
    assert items("openai", known, SAID, store=False) == [SAID]
    assert items("openai", plain, SAID) == [SAID]
    assert items("fireworks_ai", known, SAID) == [SAID]
    assert items("ollama", encrypted, SAID) == [encrypted, SAID]
    assert items("hosted_vllm", known, SAID) == [SAID]
    assert items("hosted_vllm", {**encrypted, **plain}, SAID) == [{**plain, "id": "rs_1"}, SAID]
    kept, call = items("lm_studio", plain, CALL)
    assert kept == {**plain, "id": kept["id"]}
    assert kept["id"].startswith("rs_")
    assert call is CALL
    assert items("lm_studio", plain, CALL)[0] == kept


@pytest.mark.parametrize("after", [[], [USER], [OUTPUT], [{"role": "developer", "content": "x"}]])
def test_reasoning_without_its_result_is_dropped(after: list[dict[str, Any]]) -> None:
    encrypted = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"}
    assert items("openai", USER, encrypted, *after) == [USER, *after]
    assert items("openai", encrypted, encrypted, CALL, *after) == [encrypted, encrypted, CALL, *after]


def test_azure_gets_no_status() -> None:
    status = {"status": "completed"}
    message = {"type": "message", "role": "assistant", "content": []}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    history = [{**thought, **status}, {**message, **status}, {**CALL, **status}]
    assert items("azure", *history) == [thought, message, {**CALL, **status}]
    assert items("openai", *history) == history


@pytest.mark.parametrize("provider", BASIC)
def test_local_servers_get_only_items_that_they_know(provider: str) -> None:
    texts = [
        {"type": "output_text", "text": "a"},
        {"type": "output_text", "text": "b"},
        {"type": "refusal", "refusal": "c"},
    ]
    assert items(
        provider,
        {"role": "developer", "content": "d"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "item_reference", "id": "rs_1"},
        {"role": "assistant", "content": [*texts, {"type": "from_the_future"}, {"type": "output_text", "text": 5}]},
        PATCH,
        PATCHED,
    ) == [
        {"role": "system", "content": "d"},
        {"role": "assistant", "content": "abc"},
        {"type": "function_call", "call_id": "p", "name": "P", "arguments": '{"input":"a\\"b"}'},
        {"type": "function_call_output", "call_id": "p", "output": "Done"},
    ]  # fmt: skip


@pytest.mark.parametrize("provider", BASIC)
@pytest.mark.parametrize(
    "item",
    [{"type": "item_reference", "id": "msg_1"}, {"id": "fc_1"}, {"type": "compaction", "encrypted_content": "x"}],
)
def test_local_servers_cannot_read_what_is_stored_elsewhere(provider: str, item: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="only the upstream that wrote it") as refused:
        items(provider, {"role": "user", "content": "u"}, item, OUTPUT)
    assert refused.value.param == "input[1]"


def test_a_conversation_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(BadRequest, match="holds nothing"):
        items("xai", {"type": "output_text", "text": "so"})


@given(bodies)
def test_every_accepted_body_can_be_sent_to_every_provider(body: dict[str, Any]) -> None:
    try:
        request = parse_body(json.dumps(body).encode())
    except BadRequest:
        return
    before = msgspec.json.encode(request.body)
    for provider in providers_with_quirks(RESPONSES):
        try:
            given = native_request(
                request.body, quirks=quirks_in(RESPONSES, provider, "up"), model="up", stream=request.stream
            )
        except BadRequest:  # of some conversations nothing is left for some servers
            continue
        encoded = msgspec.json.encode(given)
        assert not any(note in encoded for note in (b'"cache_control"', b'"is_error"', b'"anthropic_blocks"'))
        again = native_request(
            {key: value for key, value in given.items() if key not in ("model", "stream")},
            quirks=quirks_in(RESPONSES, provider, "up"),
            model="up",
            stream=request.stream,
        )
        assert again == given  # translating the translated request changes nothing
    assert msgspec.json.encode(request.body) == before


@pytest.mark.parametrize(
    ("provider", "model", "effort", "kept"),
    [
        ("openai", "gpt-5.4", "medium", False),
        ("azure", "o3", None, False),
        ("openai", "gpt-5.4", "none", True),
        ("openai", "gpt-4.1", None, True),
        ("openai", "gpt-5-chat-latest", None, True),
        ("openrouter", "openai/gpt-5", "high", True),
    ],
)
def test_sampling_parameters_are_left_out_where_a_reasoning_model_refuses_them(
    provider: str, model: str, effort: str | None, kept: bool
) -> None:
    body: dict[str, Any] = {"input": "hi", "temperature": 0, "top_p": 0.5}
    if effort is not None:
        body["reasoning"] = {"effort": effort}
    sent = native_request(body, quirks=quirks_in(RESPONSES, provider, model), model=model, stream=True)
    assert ("temperature" in sent, "top_p" in sent) == (kept, kept)
    assert body["temperature"] == 0
