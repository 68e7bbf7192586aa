"""Cursor's Azure settings: the model in the path, the key in ``api-key``, a version in the query, any shape of body.

Newer builds of Cursor have these and no base URL (docs/facts/cursor.md, "Paths"). The upstream refuses what OpenAI's
API refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.service.running import KEY, Service, model, routed, serving
from kit.upstreams.agent_conversation import Cursor, Json, Output, Reply, Said, StrictResponses, User
from kit.upstreams.scripted import scripted_upstream

NAME = "azure-fast"
"""What a person has entered as the deployment's name."""
PATH = f"/openai/deployments/{NAME}/chat/completions"
QUERY = "?api-version=2024-10-21"
LISTING = ("call_MxY0jbrft7EcfC6iNZSUGeIy", "Shell", '{"command":"ls"}')
READING = ("call_x7aKw382RHPpIpNnCOf0PCk9", "ReadFile", '{"path":"main.py"}')


def _with_turns(model: str) -> Cursor:
    """Return a Cursor in whose chat a tool has been used."""
    cursor = Cursor(model)
    cursor.history += [User("What is here?"), Said("", [LISTING]), Output(LISTING[0], "Shell", "main.py")]
    return cursor


def chat_body(model: str) -> Json:
    return _with_turns(model).body("ask")


def responses_body(model: str) -> Json:
    return _with_turns(model).body("agent")


def anthropic_body(model: str) -> Json:
    """Return what a client sends to Anthropic's Messages API."""
    call = {"type": "tool_use", "id": "toolu_01LISTING", "name": "Shell", "input": {"command": "ls"}}
    thinking = {"type": "thinking", "thinking": "I look.", "signature": "c2lnbmF0dXJl"}
    result = {"type": "tool_result", "tool_use_id": "toolu_01LISTING", "content": [{"type": "text", "text": "main.py"}]}
    shell = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
    return {
        "model": model,
        "max_tokens": 8192,
        "stream": True,
        "system": [{"type": "text", "text": "You are a pair programmer.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 4096},
        "metadata": {"user_id": "user_01HASH"},
        "tool_choice": {"type": "auto"},
        "tools": [{"name": "Shell", "description": "Runs a command.", "input_schema": shell}],
        "messages": [
            {"role": "user", "content": "What is here?"},
            {"role": "assistant", "content": [thinking, {"type": "text", "text": "I will look."}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "And in main.py?"}]},
        ],
    }


BODIES = {"chat": chat_body, "responses": responses_body, "anthropic": anthropic_body}

each_shape = pytest.mark.parametrize("shape", BODIES)
streaming_or_not = pytest.mark.parametrize("stream", [True, False])


@asynccontextmanager
async def azure(*replies: Reply, names: tuple[str, ...] = (NAME,)) -> AsyncIterator[tuple[Service, StrictResponses]]:
    double = StrictResponses("gpt-5.4", list(replies))
    async with scripted_upstream(double) as up:
        models = "".join(model(name, up.url, upstream="openai/gpt-5.4") for name in names)
        async with serving(models) as service:
            yield service, double


async def post(service: Service, body: Json, path: str = PATH + QUERY) -> httpx.Response:
    return await service.post(body, path=path, key=None, api_key=KEY, user_agent="Cursor/1.0")


def folded(answer: httpx.Response) -> Folded:
    assert answer.status_code == 200, answer.text
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    return fold_stream(answer.content) if is_stream else fold_document(answer.content)


@each_shape
@streaming_or_not
@pytest.mark.parametrize("base", ["", "/cursor", "/cursor/", "//"])
async def test_every_shape_of_body_is_answered(shape: str, stream: bool, base: str) -> None:
    async with azure(Reply("It prints.", [READING])) as (service, double):
        body = BODIES[shape]("a-label-in-cursor") | {"stream": stream}
        answer = folded(await post(service, body, base + PATH + QUERY))
        assert double.refusals == []
        assert (answer.content, answer.finish_reason, answer.is_done) == ("It prints.", "tool_calls", True)
        assert [(call["name"], call["arguments"]) for call in answer.tool_calls] == [READING[1:]]
        assert answer.model == NAME
        assert answer.usage is not None  # it was not asked for in every shape, but Cursor gets it always
        [sent] = double.bodies
        kinds = [item.get("type", item.get("role")) for item in sent["input"]]
        assert kinds.count("function_call") == kinds.count("function_call_output") == 1
        assert "Shell" in {tool["name"] for tool in sent["tools"]}
        record = await service.record()
        assert (record["model"], record["stream"], record["end"]) == (NAME, stream, "OK")


@each_shape
async def test_the_path_names_the_model_whatever_the_body_says(shape: str) -> None:
    async with azure(Reply("a"), Reply("b"), Reply("c"), names=(NAME, "other")) as (service, _):
        body = BODIES[shape]("other")
        assert folded(await post(service, body)).model == NAME
        without = {name: value for name, value in body.items() if name != "model"}
        assert folded(await post(service, without)).model == NAME
        assert folded(await post(service, body, "/openai/v1/chat/completions" + QUERY)).model == "other"
        missing = await post(service, without, "/openai/v1/chat/completions")
        assert (missing.status_code, missing.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("query", ["", "?api-version=", "?api-version=preview", "?api-version=%00&x=1&api-version=v1"])
async def test_every_api_version_is_accepted(query: str) -> None:
    async with azure(Reply("Hello.")) as (service, _):
        assert folded(await post(service, chat_body("x"), PATH + query)).content == "Hello."


async def test_a_deployment_that_does_not_exist_is_named_with_those_that_do() -> None:
    async with azure() as (service, double):
        answer = await post(service, chat_body(NAME), "/openai/deployments/azur-fast/chat/completions" + QUERY)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "model_not_found")
        assert "'azur-fast' (the deployment that the path names) does not exist: " in error["message"]
        assert f"this API key may use '{NAME}'" in error["message"]
        limited = await service.post(
            chat_body("echo"), path=PATH, key=None, api_key="sk-limited-key-0123456789", user_agent="Cursor/1.0"
        )
        error = limited.json()["error"]
        assert (limited.status_code, error["code"]) == (403, "model_forbidden")
        assert error["message"].endswith("this API key may use 'echo'")
        assert double.bodies == []


async def test_a_failure_is_a_400_with_a_text_as_on_the_other_paths() -> None:
    async with serving(model(NAME, "http://127.0.0.1:9", upstream="openai/gpt-5.4")) as service:
        for shape in BODIES.values():
            answer = await post(service, shape(NAME))
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upstream_unreachable")


# --- the check of a key ----------------------------------------------------------------------------------------------

PROBE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "You are a test assistant."},
        {"role": "user", "content": "Testing. Just say hi and nothing else."},
    ]
}
"""What older builds send for the button *Verify* (docs/facts/cursor.md, "Paths")."""
AZURE_PROBE: dict[str, Any] = {**PROBE, "max_tokens": 10, "n": 1, "top_p": 1, "stream": False}
PROBED = "gpt-3.5-turbo"
WITH_ALIAS = routed("{num_retries: 0, model_group_alias: {gpt-3.5-turbo: {model: azure-fast, hidden: true}}}")
"""What docs/cursor.md recommends for such builds."""


async def test_the_check_of_azure_settings_is_answered_by_the_model() -> None:
    async with azure(Reply("hi")) as (service, double):
        assert folded(await post(service, AZURE_PROBE)).content == "hi"
        assert double.bodies[0]["max_output_tokens"] >= 16


async def test_the_check_of_a_key_names_the_models_that_there_are() -> None:
    async with azure() as (service, _):
        answer = await service.post({"model": PROBED, **PROBE}, user_agent="Cursor/1.0")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert error["message"].startswith(f"the model '{PROBED}' does not exist: this API key may use ")
        assert f"'{NAME}'" in error["message"]
        wrong = await service.post({"model": PROBED, **PROBE}, key="sk-wrong", user_agent="Cursor/1.0")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "unauthorized")


async def test_with_a_hidden_alias_a_real_model_answers_the_check_of_a_key() -> None:
    double = StrictResponses("gpt-5.4", [Reply("hi")])
    async with scripted_upstream(double) as up:
        async with serving(model(NAME, up.url, upstream="openai/gpt-5.4"), config=WITH_ALIAS) as service:
            answer = await service.post({"model": PROBED, **PROBE}, user_agent="Cursor/1.0")
            assert (folded(answer).content, answer.json()["model"]) == ("hi", PROBED)
            listed = [entry["id"] for entry in (await service.get("/cursor/models")).json()["data"]]
            assert PROBED not in listed
