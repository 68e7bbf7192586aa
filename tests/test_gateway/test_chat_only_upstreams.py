"""Servers under ``openai/`` that have Chat Completions only: one failed attempt in all, then they are asked by chat."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, good_answer, post_bytes
from kit.clients.raw import RawClient
from kit.service.running import model, serving
from kit.upstreams.chat_stream import chunk, document
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import (
    Action,
    Exchange,
    Script,
    ScriptedUpstream,
    Step,
    end,
    error,
    events,
    json_answer,
    scripted_upstream,
    sse_head,
    stall,
)

from pipeline import Plugin
from pipeline.registry import AnyPlugin, NoOptions
from stages.answer import Answer, Next
from stages.upstreams import UpstreamCall

NOT_FOUND = error(404, b'{"detail":"Not Found"}')
NO_MODEL = json_answer({"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, 404)
PATHS = (
    "/cursor/chat/completions",
    "/cursor/v1/chat/completions",
    "/v1/chat/completions",
    "/chat/completions",
    "/openai/deployments/up/chat/completions",
)
TOOL = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object", "properties": {}}}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "it is there"}
BODIES: tuple[dict[str, Any], ...] = (
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "reasoning": {"effort": "low"}},
    {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [USE]},
            {"role": "user", "content": [RESULT]},
        ],
        "tools": [{"name": "Read", "input_schema": {"type": "object", "properties": {}}}],
    },
)
"""Shaped as Responses, as Chat Completions, and with Anthropic's blocks."""
UNKNOWN_ROUTES = {
    "FastAPI": NOT_FOUND,
    "Express": error(
        404, b"<html><title>Error</title><pre>Cannot POST /v1/responses</pre></html>", content_type="text/html"
    ),
    "OpenAI": json_answer({"error": {"message": "Invalid URL (POST /v1/responses)"}}, 404),
    "Go": error(404, b"404 page not found", content_type="text/plain"),
    "Kong": json_answer({"message": "no Route matched with those values"}, 404),
    "method": error(405),
    "not implemented": error(501),
    "LM Studio": json_answer({"error": "Unexpected endpoint or method. (POST /v1/responses)"}),
    "vLLM": json_answer({"error": {"message": "The model does not support Responses API", "code": 400}}, 400),
}


def by_path(*, chat: Script | None = None, responses: Script = (NOT_FOUND,)) -> Action:
    """Return a script: ``chat`` answers Chat Completions, well if it is not given, and ``responses`` the rest."""

    async def step(exchange: Exchange) -> None:
        script = responses
        if exchange.request.path.endswith("/chat/completions"):
            script = chat or good_chat(stream=exchange.request.json().get("stream") is True)
        for step in script:
            if isinstance(step, bytes):
                await exchange.send(step)
            else:
                await step(exchange)

    return step


def good_chat(*, stream: bool) -> tuple[Step, ...]:
    if stream:
        return (ANSWERS["chat"].whole(),)
    return (error(200, document({"content": "Hello"})),)


def asked(upstream: ScriptedUpstream) -> list[str]:
    """Return by which endpoints it was asked."""
    return [request.path.removeprefix("/v1") for request in upstream.requests]


class PassOn:
    name = "pass_on"

    def call(self, call: UpstreamCall, next: Next, /) -> AbstractAsyncContextManager[Answer]:
        return next(call)


PASS_ON: AnyPlugin = Plugin("pass_on", lambda _: PassOn(), NoOptions, kind="around")
AROUND: dict[str, Any] = {"pipeline": "  stages: [{use: pass_on}]", "plugins": {"pass_on": PASS_ON}}
plain_and_around = pytest.mark.parametrize("added", [{}, AROUND], ids=["plain", "around"])


@plain_and_around
@pytest.mark.parametrize("unknown", UNKNOWN_ROUTES.values(), ids=UNKNOWN_ROUTES)
async def test_every_route_is_answered_with_one_failed_attempt_in_all(unknown: bytes, added: dict[str, Any]) -> None:
    async with (
        scripted_upstream(by_path(responses=(unknown,))) as upstream,
        serving(model("up", upstream.url), **added) as service,
    ):
        for stream in (True, False):
            for path in PATHS:
                for body in BODIES:
                    answer = await service.post({"model": "up", "stream": stream, **body}, path=path)
                    assert answer.status_code == 200
                    if stream:
                        assert fold_stream(answer.content).content == "Hello"
                    else:
                        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
        assert asked(upstream) == ["/responses", *["/chat/completions"] * 2 * len(PATHS) * len(BODIES)]
        first = await service.record()
        assert [attempt["end"] == "OK" for attempt in first["attempts"]] == [False, True]
        second = await service.record(1)
        assert all(attempt["end"] == "OK" for attempt in second.get("attempts", []))


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_answer_says_that_there_were_two_attempts_and_the_next_that_there_was_one(stream: bool) -> None:
    async with scripted_upstream(by_path()) as upstream, serving(model("up", upstream.url)) as service:
        counts = [(await service.post(ask(stream=stream))).headers["x-headrace-attempts"] for _ in range(3)]
        assert counts == ["2", "1", "1"]
        health = service.app.deployments.router.health["up"]
        assert (health.in_flight, health.ejections, health.is_ready(trio.current_time())) == (0, 0, True)


async def test_models_of_a_wildcard_are_asked_by_chat_with_their_own_names() -> None:
    async with (
        scripted_upstream(by_path()) as upstream,
        serving(model("local/*", upstream.url, upstream="openai/*")) as service,
    ):
        for name in ("qwen", "llama"):
            assert (await service.post(ask(f"local/{name}"))).status_code == 200
        assert [request.json()["model"] for request in upstream.requests] == ["qwen", "qwen", "llama"]


async def test_one_log_line_names_the_setting_that_saves_the_first_attempt(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted_upstream(by_path()) as upstream, serving(model("up", upstream.url)) as service:
        for _ in range(3):
            await service.post(ask())
    (line,) = [record.getMessage() for record in caplog.records if "/responses" in record.getMessage()]
    assert "deployment up" in line
    assert "use_chat_completions_api: true" in line


async def test_requests_at_the_same_time_may_each_fail_once_and_later_ones_do_not() -> None:
    async with scripted_upstream(by_path()) as upstream, serving(model("up", upstream.url)) as service:

        async def one() -> None:
            assert (await service.post(ask())).status_code == 200

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
        at_first = asked(upstream).count("/responses")
        assert 1 <= at_first <= 4
        await one()
        assert asked(upstream).count("/responses") == at_first


async def test_what_was_found_out_is_kept_if_the_client_leaves_in_the_middle_of_the_answer() -> None:
    begun = (sse_head(), events([chunk({"role": "assistant", "content": "Hel"})]), stall())
    async with (
        scripted_upstream(by_path(chat=begun)) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        for number in range(2):
            async with await RawClient.open(("127.0.0.1", service.port)) as client:
                await client.send(post_bytes(ask()))
                await client.read_until(b'"content":"Hel"')
            assert (await service.record(number))["end"] == "DC"
        assert asked(upstream) == ["/responses", "/chat/completions", "/chat/completions"]


@plain_and_around
async def test_if_both_are_unknown_the_error_names_api_base_and_what_was_tried(added: dict[str, Any]) -> None:
    other = error(404, b'{"detail":"Nothing here"}')
    async with (
        scripted_upstream(by_path(chat=(other,))) as upstream,
        serving(model("up", upstream.url), **added) as service,
    ):
        for _ in range(2):
            answer = await service.post(ask(stream=False))
            assert answer.json()["error"]["code"] == "upstream_not_found"
            assert answer.json()["error"]["message"] == (
                "upstream answered 404: Not Found; /responses was tried, then /chat/completions: check api_base"
            )
        assert asked(upstream) == ["/responses", "/chat/completions"] * 2
        record = await service.record(1)
        assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_not_found"] * 2


async def test_a_missing_model_is_not_asked_for_by_chat() -> None:
    async with (
        scripted_upstream(by_path(responses=(NO_MODEL,))) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        answer = await service.post(ask())
        assert answer.json()["error"]["message"] == "upstream answered 404: The model `x` does not exist"
        assert asked(upstream) == ["/responses"]


async def test_of_two_errors_the_more_useful_one_is_told() -> None:
    async with (
        scripted_upstream(by_path(chat=(NO_MODEL,))) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        answer = await service.post(ask())
        assert answer.json()["error"]["message"] == "upstream answered 404: The model `x` does not exist"
        assert asked(upstream) == ["/responses", "/chat/completions"]


async def test_what_chat_refuses_is_not_asked_by_responses_again() -> None:
    async with (
        scripted_upstream(by_path(chat=(error(400),))) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        for _ in range(2):
            assert (await service.post(ask(stream=False))).status_code == 400
        assert asked(upstream) == ["/responses", "/chat/completions", "/chat/completions"]


async def test_one_that_fails_by_chat_is_left_for_the_next_deployment() -> None:
    async with (
        scripted_upstream(by_path(chat=(error(503),))) as down,
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", down.url, order=1) + model("up", upstream.url, order=2)) as service,
    ):
        answer = await service.post(ask())
        assert fold_stream(answer.content).content == "Hello"
        assert answer.headers["x-headrace-attempts"] == "3"
        assert asked(down) == ["/responses", "/chat/completions"]


async def test_an_entry_that_asks_for_responses_is_told_the_remedy() -> None:
    async with (
        scripted_upstream(by_path()) as upstream,
        serving(model("up", upstream.url, upstream="openai/responses/gpt-5")) as service,
    ):
        answer = await service.post(ask())
        assert answer.json()["error"]["message"] == (
            "upstream answered 404: Not Found; if that server has Chat Completions only, "
            "set use_chat_completions_api: true"
        )
        assert asked(upstream) == ["/responses"]


@plain_and_around
async def test_reasoning_of_the_other_api_is_not_sent_by_chat(added: dict[str, Any]) -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "SECRET PLAN"}],
        "encrypted_content": "ENCRYPTED",
    }
    called = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_0123456789abcdefABCDEF01",
        "name": "Read",
        "arguments": "{}",
    }
    created: dict[str, Any] = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5"}}
    completed: dict[str, Any] = {
        "type": "response.completed",
        "response": {"id": "resp_1", "status": "completed", "output": [thought, called]},
    }
    items: list[dict[str, Any]] = [
        {"type": f"response.output_item.{what}", "output_index": place, "item": item}
        for place, item in enumerate((thought, called))
        for what in ("added", "done")
    ]
    answered = (sse_head(), events([created, *items, completed]), end())
    is_old = [True]

    async def responses(exchange: Exchange) -> None:
        sent = exchange.request.body
        if is_old[0]:
            for step in answered:
                await (exchange.send(step) if isinstance(step, bytes) else step(exchange))
        else:
            assert b"ENCRYPTED" in sent, "the turn's reasoning is restored for the API that it is of"
            await exchange.send(NOT_FOUND)

    first = [{"role": "user", "content": "hi"}]
    tools = [{"type": "function", "name": "Read", "parameters": {"type": "object", "properties": {}}}]
    turn = [{k: v for k, v in called.items() if k != "id"}]
    output = [{"type": "function_call_output", "call_id": called["call_id"], "output": "it is there"}]
    async with (
        scripted_upstream(by_path(responses=(responses,))) as upstream,
        serving(model("up", upstream.url), **added) as service,
    ):
        assert (await service.post(ask(input=first, tools=tools))).status_code == 200
        is_old[0] = False
        answer = await service.post(ask(input=[*first, *turn, *output], tools=tools))
        assert fold_stream(answer.content).content == "Hello"
        assert asked(upstream) == ["/responses", "/responses", "/chat/completions"]
        sent = json.dumps(upstream.requests[-1].json())
        assert "it is there" in sent
        assert "ENCRYPTED" not in sent
        assert "SECRET PLAN" not in sent
