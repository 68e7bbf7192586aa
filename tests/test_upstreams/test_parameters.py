"""Request parameters in ``litellm_params``: what arrives at each API, and who has the last word."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from kit.service.config_texts import model, only

from stages.upstreams import UpstreamCall
from stages.upstreams.apis import APIS
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.request import parse_body

OPENAI = "openai/gpt-4.1"
O3 = "openai/o3"
CHAT = "custom_openai/qwen3"
CLAUDE = "anthropic/claude-sonnet-4-5"
TOOL = {"type": "function", "name": "read", "parameters": {"type": "object"}}


def sent(name: str, params: str, **asked: Any) -> Any:
    """Return the body that a deployment with these parameters gets for a request."""
    deployment = only(
        model(f"{{model: {name}, api_base: 'http://up/v1', api_key: k-1, {params}}}"), SECRET="s3cret-value"
    )
    request = parse_body(json.dumps({"model": "m", "input": "hi", **asked}).encode())
    before = json.dumps(request.body)
    upstream = HttpUpstream(APIS[deployment.kind], lambda _: httpx.AsyncHTTPTransport())
    prepared = upstream.prepare(UpstreamCall(request=request, deployment=deployment, model=deployment.model))
    assert json.dumps(request.body) == before
    return json.loads(prepared.body)


DEFAULTS = [
    (OPENAI, "temperature: 0.2, top_p: 0.9", {"temperature": 0.2, "top_p": 0.9}),
    (OPENAI, "max_tokens: 4096", {"max_output_tokens": 4096}),
    (OPENAI, "max_completion_tokens: 4096, max_tokens: 5", {"max_output_tokens": 4096}),
    (OPENAI, "max_output_tokens: 4096", {"max_output_tokens": 4096}),
    (OPENAI, "verbosity: low, response_format: {type: json_object}",
     {"text": {"verbosity": "low", "format": {"type": "json_object"}}}),
    (OPENAI, "service_tier: flex, user: team-a, store: false",
     {"service_tier": "flex", "user": "team-a", "store": False}),
    (O3, "reasoning_effort: high", {"reasoning": {"effort": "high", "summary": "auto"}}),
    (O3, "reasoning_effort: {effort: low, summary: detailed}", {"reasoning": {"effort": "low", "summary": "detailed"}}),
    (O3, "reasoning: {effort: low, summary: detailed}", {"reasoning": {"effort": "low", "summary": "detailed"}}),
    (CHAT, "temperature: 0, max_tokens: 4096", {"temperature": 0, "max_tokens": 4096}),
    (CHAT, "seed: 7, stop: [END], presence_penalty: 0.5, frequency_penalty: -1, logit_bias: {'50': -100}, user: a",
     {"seed": 7, "stop": ["END"], "presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"50": -100},
      "user": "a"}),
    (CHAT, "top_k: 20, min_p: 0.1, repetition_penalty: 1.05, chat_template_kwargs: {enable_thinking: false}",
     {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05, "chat_template_kwargs": {"enable_thinking": False}}),
    (CHAT, "reasoning_effort: low", {"reasoning_effort": "low"}),
    (CHAT, "enable_thinking: true, thinking_budget: 900", {"enable_thinking": True, "thinking_budget": 900}),
    (CHAT, "response_format: {type: json_schema, json_schema: {name: n, schema: {type: object}}}",
     {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}}),
    (CLAUDE, "temperature: 0.2, max_tokens: 4096, top_k: 5, stop: END",
     {"temperature": 0.2, "max_tokens": 4096, "top_k": 5, "stop_sequences": ["END"]}),
    (CLAUDE, "thinking: {type: enabled, budget_tokens: 5000}, max_tokens: 9000",
     {"thinking": {"type": "enabled", "budget_tokens": 5000}, "max_tokens": 14000}),
    (CLAUDE, "reasoning_effort: medium", {"thinking": {"type": "enabled", "budget_tokens": 10_000}}),
    ("anthropic/claude-opus-4-7", "thinking: {type: adaptive}, reasoning_effort: high",
     {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}}),
    # Text that reads as a number, as the environment has it.
    (OPENAI, "temperature: '0.2', store: 'False'", {"temperature": 0.2, "store": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "expected"), DEFAULTS, ids=[f"{n} {p}" for n, p, _ in DEFAULTS])
def test_what_the_client_does_not_set_is_the_deployments(name: str, params: str, expected: dict[str, Any]) -> None:
    plain, body = sent(name, ""), sent(name, params)
    assert {key: value for key, value in body.items() if plain.get(key) != value} == expected


OVERRIDDEN: list[tuple[str, str, dict[str, Any]]] = [
    (OPENAI, "temperature: 0.2", {"temperature": 1}),
    (OPENAI, "max_completion_tokens: 4096", {"max_tokens": 100}),
    (OPENAI, "max_tokens: 4096", {"max_output_tokens": 100}),
    (O3, "reasoning_effort: high", {"reasoning": {"effort": "low"}}),
    (O3, "reasoning_effort: high", {"reasoning_effort": "low"}),
    (OPENAI, "verbosity: low", {"text": {"verbosity": "high"}}),
    (OPENAI, "response_format: {type: json_object}", {"text": {"format": {"type": "text"}}}),
    (CHAT, "stop: END, seed: 1", {"stop": ["###"], "seed": 2}),
    (CHAT, "thinking: {type: enabled}", {"thinking": {"type": "disabled"}}),
    (CHAT, "enable_thinking: true, thinking: {type: enabled}", {"reasoning": {"effort": "none"}}),
    (CHAT, "reasoning_effort: high", {"enable_thinking": False}),
    (CLAUDE, "thinking: {type: enabled, budget_tokens: 5000}", {"reasoning": {"effort": "none"}}),
    (CLAUDE, "thinking: {type: enabled, budget_tokens: 5000}", {"reasoning": {"effort": "high"}}),
    (CLAUDE, "reasoning_effort: high", {"thinking": {"type": "disabled"}}),
    (OPENAI, "parallel_tool_calls: false", {"tools": [TOOL], "parallel_tool_calls": True}),
]


@pytest.mark.parametrize(("name", "params", "asked"), OVERRIDDEN, ids=[f"{n} {p}" for n, p, _ in OVERRIDDEN])
def test_what_the_client_sets_wins_in_whatever_spelling(name: str, params: str, asked: dict[str, Any]) -> None:
    assert sent(name, params, **asked) == sent(name, "", **asked)
    assert sent(name, params) != sent(name, "") or "tools" in asked


def test_each_setting_of_a_group_is_a_default_of_its_own() -> None:
    body = sent(O3, "reasoning: {effort: high, summary: detailed}, verbosity: low", reasoning={"effort": "low"})
    assert (body["reasoning"], body["text"]) == ({"effort": "low", "summary": "detailed"}, {"verbosity": "low"})
    body = sent(O3, "reasoning_effort: high", reasoning={"summary": "concise"})
    assert body["reasoning"] == {"effort": "high", "summary": "concise"}
    assert "reasoning" not in sent(CHAT, "reasoning_effort: high", thinking={"type": "disabled"})


def test_parallel_calls_are_not_mentioned_without_tools() -> None:
    assert "parallel_tool_calls" not in sent(OPENAI, "parallel_tool_calls: false")
    assert sent(OPENAI, "parallel_tool_calls: false", tools=[TOOL])["parallel_tool_calls"] is False


DROPPED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (O3, "[reasoning_effort]", {"reasoning": {"effort": "high"}}, {}),
    (CHAT, "[reasoning]", {"reasoning": {"effort": "high"}}, {}),
    (CHAT, "[max_tokens, temperature]", {"max_completion_tokens": 5, "temperature": 1, "seed": 1}, {"seed": 1}),
    (OPENAI, "[response_format]", {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
     {"text": {"verbosity": "low"}}),
    (OPENAI, "[tools]", {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
    (OPENAI, "[reasoning_effort]", {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "names", "asked", "left"), DROPPED, ids=[f"{n} {d}" for n, d, *_ in DROPPED])
def test_what_is_to_be_dropped_is(name: str, names: str, asked: dict[str, Any], left: dict[str, Any]) -> None:
    assert sent(name, f"additional_drop_params: {names}", **asked) == sent(name, "", **left)


def test_a_parameter_of_the_client_can_be_dropped_for_the_deployments() -> None:
    params = "additional_drop_params: [reasoning_effort], thinking: {type: enabled, budget_tokens: 5000}"
    assert sent(CLAUDE, params, reasoning={"effort": "low"})["thinking"]["budget_tokens"] == 5000
    assert "temperature" not in sent(OPENAI, "temperature: 1, additional_drop_params: [temperature]")


def test_extra_body_has_the_last_word() -> None:
    extra = "extra_body: {temperature: 0.5, provider: {order: [a]}, reasoning: {exclude: true}, store: null}"
    body = sent(O3, f"reasoning_effort: low, {extra}", temperature=1, reasoning={"effort": "high"})
    assert (body["temperature"], body["provider"], body["store"]) == (0.5, {"order": ["a"]}, None)
    assert body["reasoning"] == {"exclude": True}  # whole, as the SDK does it


def test_what_extra_body_asks_anthropic_for_has_its_header() -> None:
    deployment = only(model(f"{{model: {CLAUDE}, api_key: k-1, extra_body: {{speed: fast, thinking: null}}}}"))
    upstream = HttpUpstream(APIS["anthropic"], lambda _: httpx.AsyncHTTPTransport())
    request = parse_body(b'{"model": "m", "input": "hi"}')
    prepared = upstream.prepare(UpstreamCall(request=request, deployment=deployment, model=deployment.model))
    assert prepared.headers == {"anthropic-beta": "fast-mode-2026-02-01"}


def test_values_are_not_shown() -> None:
    deployment = only(
        model(
            "{model: openai/m, api_base: 'http://up', extra_body: {token: os.environ/SECRET}, user: os.environ/SECRET}"
        ),
        SECRET="s3cret-value",
    )
    assert deployment.parameters is not None
    assert "s3cret-value" in deployment.secrets
    assert "s3cret-value" not in repr(deployment) + repr(deployment.parameters)
    assert deployment.parameters.extra_body == {"token": "s3cret-value"}
