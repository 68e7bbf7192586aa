"""Request parameters in ``litellm_params``, and models that are not for chats, through the real server."""

from __future__ import annotations

import json
from typing import Any

from kit.clients.chat_posts import ask, good_answer
from kit.service.running import CONFIG, model, serving
from kit.upstreams.scripted import error, scripted_upstream

TOOL = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
TOKEN = "gate-of-the-operator"
REFUSAL = json.dumps({"error": {"message": f"nobody opens {TOKEN} here"}}).encode()


async def test_each_attempt_has_the_parameters_of_its_own_deployment() -> None:
    async with scripted_upstream(error(503)) as down, scripted_upstream(*good_answer()) as upstream:
        models = model("up", down.url, order=1, temperature=0.1, max_tokens=100, upstream="openai/gpt-4.1")
        models += model("up", upstream.url, order=2, temperature=0.9, upstream="openai/gpt-4.1")
        async with serving(models) as service:
            assert (await service.post(ask())).status_code == 200
    first, second = down.requests[0].json(), upstream.requests[0].json()
    assert (first["temperature"], first["max_output_tokens"]) == (0.1, 100)
    assert second["temperature"] == 0.9
    assert "max_output_tokens" not in second


async def test_the_effort_in_a_models_name_wins() -> None:
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url, reasoning_effort="low")) as service,
    ):
        for name, effort in (("up", "low"), ("up-thinking-high", "high"), ("up:medium", "medium")):
            assert (await service.post(ask(name))).status_code == 200
            assert upstream.requests[-1].json()["reasoning"]["effort"] == effort


async def test_reasoning_is_kept_if_only_the_deployment_asks_for_it() -> None:
    body = {"model": "up", "messages": [{"role": "user", "content": "hi"}], "tools": [TOOL], "stream": True}
    includes: list[Any] = []
    async with scripted_upstream(*good_answer()) as upstream:
        for params in ({}, {"reasoning_effort": "high"}):
            async with serving(model("up", upstream.url, upstream="openai/gpt-5.1", **params)) as service:
                assert (await service.post(body)).status_code == 200
            includes.append(upstream.requests[-1].json().get("include"))
    assert includes == [None, ["reasoning.encrypted_content"]]


async def test_a_value_of_the_environment_is_not_shown_if_the_upstream_echoes_it() -> None:
    config = CONFIG + f"environment_variables: {{{{TOKEN: {TOKEN}}}}}\n"
    async with scripted_upstream(error(400, REFUSAL)) as upstream:
        models = model("up", upstream.url, extra_body={"token": "os.environ/TOKEN"})
        async with serving(models, config=config) as service:
            answer = await service.post(ask())
            record = json.dumps(await service.record())
    assert upstream.requests[0].json()["token"] == TOKEN
    assert "nobody opens [redacted] here" in answer.text
    assert TOKEN not in record


async def test_models_that_are_not_for_chats_are_neither_listed_nor_called() -> None:
    async with scripted_upstream(*good_answer()) as upstream:
        models = model("emb", upstream.url, upstream="openai/text-embedding-3-small")
        models += model("openai/*", upstream.url, upstream="openai/*")
        async with serving(models) as service:
            listed = {one["id"] for one in (await service.get("/cursor/models")).json()["data"]}
            assert "emb" not in listed
            assert (await service.post(ask("emb"))).status_code == 404
            refused = await service.post(ask("openai/whisper-1"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
            assert "is for transcription: this gateway serves chat models only" in refused.text
            assert not upstream.requests
            assert (await service.post(ask("openai/gpt-5"))).status_code == 200
