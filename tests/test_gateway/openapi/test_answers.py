"""What the running service answers is what the document at /openapi.json says, down to each chunk and each line.

`Service` holds all of its answers to the document, in all tests; here are those that must be among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from jsonschema import ValidationError
from kit.clients.chat_posts import CURSOR, begun, failed_event
from kit.clients.held_streams import Held, open_stream
from kit.openapi import check_answer, document, validator
from kit.service.command import configured, headrace_serve
from kit.service.running import KEY, Service, model, serving
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import end, error, event, scripted_upstream

from pipeline.gateway.openapi.examples import ANSWER, CHUNKS, ERROR, REQUESTS

Json = dict[str, Any]
DEMO = "".join(
    f"  - model_name: headrace-{name}\n    litellm_params: {{model: canned/{name}}}\n"
    for name in ("echo", "story", "agent")
)
ASKED = ("headrace-echo", "headrace-agent")
LIMITED = "sk-limited-key-0123456789"
SLOW = "sk-slow-key-0123456789"
SDK = "OpenAI/Python 2.8.1"


async def ask(service: Service, body: Any, *, key: str | None = KEY, **headers: str) -> httpx.Response:
    """Post a chat as an SDK does."""
    return await service.post(body, path="/v1/chat/completions", key=key, **{"user_agent": SDK, **headers})


async def test_the_requests_of_the_examples_are_answered() -> None:
    """All at once, because a story takes seven seconds."""
    async with serving(DEMO) as service, trio.open_nursery() as nursery:

        async def answer(body: Json, agent: str) -> None:
            found = await ask(service, body, user_agent=agent)
            assert found.status_code == 200
            media_type = "text/event-stream" if body["stream"] else "application/json"
            assert found.headers["content-type"].partition(";")[0] == media_type

        for example in REQUESTS.values():
            for agent in (SDK, CURSOR):
                for stream in (False, True):
                    nursery.start_soon(answer, {**example["value"], "stream": stream}, agent)
                usage = {"stream": True, "stream_options": {"include_usage": True}}
                nursery.start_soon(answer, {**example["value"], **usage}, agent)


@pytest.mark.parametrize(
    "path", ["/openai/deployments/echo/chat/completions", "/cursor/v1/engines/echo/chat/completions"]
)
async def test_a_path_that_names_the_model_is_answered_in_the_same_way(path: str) -> None:
    async with serving() as service:
        assert (await service.post({"model": "m", "input": "hi"}, path=path)).status_code == 200


def same(answer: Json) -> Json:
    """Return what does not differ from one request to the next."""
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


async def test_the_answers_of_the_examples_are_those_of_the_service() -> None:
    async with serving(DEMO) as service:
        body = REQUESTS["responses"]["value"]
        assert same((await ask(service, body)).json()) == same(ANSWER)
        assert same((await ask(service, REQUESTS["chat"]["value"])).json())["choices"] == ANSWER["choices"]
        lines = (await ask(service, {**body, "stream": True})).text.splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert list(map(same, chunks)) == list(map(same, CHUNKS))
        assert (await ask(service, {**body, "temperature": "hot"})).json() == ERROR


async def test_errors_are_those_that_their_status_lists() -> None:
    async with serving("", "  max_body_mb: 0.001") as service:
        chat = {"model": "echo", "input": "hi"}
        found = [
            await ask(service, b"{"),
            await ask(service, chat, key=None),
            await ask(service, chat, key="sk-wrong"),
            await ask(service, chat, x_api_key="sk-another"),
            await ask(service, {**chat, "model": "story"}, key=LIMITED),
            await ask(service, {**chat, "model": "nope"}),
            await ask(service, {**chat, "input": "x" * 2000}),
            await ask(service, chat, content_encoding="br"),
            await service.get("/v1/models", key=None, user_agent=SDK),
            await service.get("/v1/models", x_api_key="sk-another", user_agent=SDK),
            await service.get("/v1/models/nope", user_agent=SDK),
            await service.get("/v1/models", method="DELETE", user_agent=SDK),
            await service.get("/health", key=LIMITED, user_agent=SDK),
            await service.get("/cursor/doctor", key=LIMITED, user_agent=SDK),
            await service.get("/nope", user_agent=SDK),
        ]
        assert [answer.status_code for answer in found] == [
            *(400, 401, 401, 400, 403, 404, 413, 415),
            *(401, 400, 404, 405, 403, 403, 404),
        ]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_failures_of_an_upstream_are_those_that_their_status_lists(status: int) -> None:
    body = b'{"error": {"message": "not like this", "code": "its_own"}}'
    async with scripted_upstream(error(status, body)) as upstream, serving(model("up", upstream.url)) as service:
        for agent in (SDK, CURSOR):
            for stream in (False, True):
                answer = await ask(service, {"model": "up", "input": "hi", "stream": stream}, user_agent=agent)
                assert answer.status_code >= 400


@pytest.mark.parametrize("agent", [SDK, CURSOR])
async def test_a_stream_that_fails_is_as_the_document_says(agent: str) -> None:
    script = (*begun("Hello"), event(failed_event("server_error", "oops")), end())
    async with scripted_upstream(*script) as upstream, serving(model("up", upstream.url)) as service:
        answer = await ask(service, {"model": "up", "input": "hi", "stream": True}, user_agent=agent)
        assert answer.status_code == 200
        assert "oops" in answer.text


async def test_a_limit_and_a_restart_are_as_the_document_says() -> None:
    async with serving(pipeline=f"    - {{name: slow, key: {SLOW}, rpm_limit: 1}}\n") as service:
        chat = {"model": "echo", "input": "hi"}
        answers = [await ask(service, chat, key=SLOW) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert "retry-after" in answers[1].headers
        assert all("x-ratelimit-remaining-requests" in answer.headers for answer in answers)
        service.application.generations.cut_off()
        refused = await ask(service, chat)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)


async def test_an_answer_that_is_not_as_the_document_says_is_noticed() -> None:
    """So that the other tests here mean something."""
    chunk = validator("components", "schemas", "ChatCompletionChunk")
    chunk.validate(CHUNKS[0])
    for wrong in ({**CHUNKS[0], "extra": 1}, {**CHUNKS[0], "choices": None}, {**CHUNKS[0], "object": "chunk"}):
        with pytest.raises(ValidationError):
            chunk.validate(wrong)


async def test_the_pages_of_one_process_are_as_the_document_says() -> None:
    async with serving() as service:
        paths = ["/v1/models", "/v1/models/echo", "/", "/cursor", "/health", "/cursor/doctor", "/openapi.json"]
        for path in (*paths, "/livez", "/health/liveliness", "/health/liveness", "/readyz", "/health/readiness"):
            assert (await service.get(path)).status_code == 200, path
        service.application.generations.cut_off()
        assert (await service.get("/readyz")).status_code == 503


@pytest.mark.timeout(120)  # a process
async def test_the_figures_of_a_service_with_traffic_are_as_the_document_says(tmp_path: Path) -> None:
    async with (
        scripted_upstream(Held()) as upstream,
        headrace_serve(tmp_path, configured(DEMO + model("up", upstream.url)), workers=1) as running,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{running.port}", headers={"authorization": f"Bearer {KEY}"}, trust_env=False
        ) as client,
    ):

        async def get(path: str, status: int = 200, **headers: str) -> httpx.Response:
            answer = await client.get(path, headers={name.replace("_", "-"): headers[name] for name in headers})
            assert answer.status_code == status, (path, answer.text)
            check_answer(answer)
            return answer

        for model_name in ASKED:
            headers = {"x-headrace-trace": "1", "x-request-id": model_name}
            body = {**REQUESTS["agent"]["value"], "model": model_name}
            check_answer(await client.post("/v1/chat/completions", json=body, headers=headers))
        check_answer(await client.post("/v1/chat/completions", json={"model": "nope", "input": "hi"}))
        async with await open_stream(running.port):
            with patiently_with_processes():
                while not (await get("/latency/running")).json():
                    await trio.sleep(0.05)
                while len((await get("/latency/requests")).json()) < len(ASKED) + 1:
                    await trio.sleep(0.05)
            now = (await get("/latency/now")).json()
            assert now["running"]
            assert now["recent"]["failed"]
        assert (await get("/latency/requests?kind=failed&limit=1")).json()[0]["end"] == "BR"
        assert (await get("/latency/requests/headrace-echo")).json()["trace"]
        await get("/latency/requests/headrace-echo/trace")
        lines = await get("/latency/records")
        assert len(lines.text.splitlines()) > len(ASKED)
        assert lines.headers["x-headrace-cursor"]
        await get("/latency/records?after=now")
        page = await get("/latency")
        await get("/latency", 304, if_none_match=page.headers["etag"])
        for path in ("/latency/static/app.js", "/latency/static/latency.css", "/metrics", "/health", "/doctor"):
            await get(path)
        for path, status in (
            *(
                ("/latency/requests/nobody", 404),
                ("/latency/static/nothing.js", 404),
                ("/latency/records?after=x", 400),
            ),
            *(("/latency/requests?kind=x", 400), ("/latency/requests?limit=0", 400), ("/latency/nothing", 404)),
        ):
            await get(path, status)
        for path, item in document()["paths"].items():
            [(method, operation)] = [(name, item[name]) for name in ("get", "post") if name in item]
            anonymous = client.build_request(method, path)
            del anonymous.headers["authorization"]
            answer = await client.send(anonymous)
            check_answer(answer)
            assert (answer.status_code == 401) == (operation.get("security") != []), path
