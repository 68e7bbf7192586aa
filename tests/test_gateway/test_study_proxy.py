"""`headrace study`: the real OpenAI client through it, against upstreams that record what they are sent."""

from __future__ import annotations

import gc
import json
import re
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
import trio.testing
import trustme
from kit.clients.chat_fold import fold_stream
from kit.service.running import Service, serving
from kit.time.patience import PATIENCE_S, patiently, patiently_with_processes
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    end,
    error,
    event,
    in_turn,
    json_answer,
    reset,
    scripted_upstream,
    sse_head,
    wait,
)
from openai import AsyncOpenAI

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.passing_on import PassingOn
from pipeline.gateway.study_proxy import deployment_of, settings_of

pytestmark = [
    pytest.mark.timeout(300),
    # As in test_clients/test_openai_python.py.
    pytest.mark.filterwarnings(r"ignore:Async generator '(openai|httpx|httpcore)\.:ResourceWarning"),
]

CLIENTS_KEY = "sk-clients-own-0123456789abcdef"
MASTER_KEY = "sk-page-0123456789abcdef"
HI: list[Any] = [{"role": "user", "content": "hi"}]
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"a"}'}}
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": None}


def document(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": LOGPROBS, "finish_reason": finish}
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 7,
        "model": "tiny-0613",
        "system_fingerprint": "fp_1",
        "service_tier": "default",
        "choices": [choice],
        "usage": USAGE,
    }


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "tiny-0613",
        "system_fingerprint": "fp_1",
        "choices": [choice],
    }


STREAM = (
    sse_head(),
    event(chunk({"role": "assistant", "content": ""})),
    event(chunk({"reasoning_content": "Hm."})),
    event(chunk({"content": "Hi"}, logprobs=LOGPROBS)),
    event(chunk({"tool_calls": [{"index": 0, **CALL}]})),
    event(chunk({}, "tool_calls")),
    event({**chunk({}), "choices": [], "usage": USAGE}),
    event(b"data: [DONE]\n\n"),
    end(),
)


@asynccontextmanager
async def studying(
    *script: Any, api: str = "chat", base: str = ""
) -> AsyncIterator[tuple[Service, ScriptedUpstream, AsyncOpenAI]]:
    """Run the proxy in this loop; yield it, the upstream, and a client with a key of its own."""
    async with scripted_upstream(*script) as up, in_front_of(up.url + base, api) as (service, client):
        yield service, up, client


@asynccontextmanager
async def in_front_of(url: str, api: str = "chat") -> AsyncIterator[tuple[Service, AsyncOpenAI]]:
    """Run the proxy in front of any address."""
    deployment = deployment_of(url, api)
    settings = settings_of(deployment, key=MASTER_KEY, host="127.0.0.1", port=0)
    around = partial(PassingOn, upstream=deployment)
    async with serving(change=lambda _: settings, around=around) as service, client_of(service.url) as client:
        yield service, client


@asynccontextmanager
async def client_of(url: str, **more: Any) -> AsyncIterator[AsyncOpenAI]:
    http: Any  # as in test_clients/test_openai_python.py
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as http:
        try:
            given = {"api_key": CLIENTS_KEY, "max_retries": 0, **more}
            yield AsyncOpenAI(base_url=f"{url}/v1", http_client=http, **given)
        finally:
            gc.collect()
            await trio.testing.wait_all_tasks_blocked()


# --- what gets there ---

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parameters": {
        "temperature": 0.2,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "max_completion_tokens": 50,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "logit_bias": {"50256": -100},
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "default",
        "reasoning_effort": "low",
        "verbosity": "low",
        "n": 1,
    },
    "the older limit": {"max_tokens": 50},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "tools": {
        "tools": [{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "read_file"}},
        "parallel_tool_calls": True,
        "messages": [
            *HI,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "text"},
        ],
    },
    "a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
        }
    },
    "an image": {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "sys"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                ],
            },
        ]
    },
    "fields of one server": {
        "extra_body": {
            "top_k": 5,
            "guided_grammar": "root ::= x",
            "cache_prompt": True,
            "options": {"num_ctx": 4096},
            "models": ["a", "b"],
            "custom_llm_provider": "x",
            "nothing": None,
        }
    },
}


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
async def test_a_chat_body_gets_there_unchanged(asked: dict[str, Any]) -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (service, up, client):
        sent: list[Any] = []
        client._client.event_hooks["request"] = [partial(_note, sent)]
        given = {"model": "vendor/tiny-thinking-high", "messages": HI, **asked}
        await client.chat.completions.create(**given)
        [received] = up.requests
        assert received.path == "/v1/chat/completions"
        assert received.json() == sent[0]
        assert list(received.json()) == list(sent[0])
        assert (await service.record())["model"] == "vendor/tiny-thinking-high"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_large_body_gets_there_unchanged(stream: bool) -> None:
    script = STREAM if stream else (json_answer(document({"content": "Hi"})),)
    async with studying(*script) as (service, up, _):
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'iVBORw0K' * 400_000}"}}
        turns = [{"role": "user", "content": [{"type": "text", "text": f"{number}"}, image]} for number in range(2)]
        body = {"model": "tiny", "messages": [*turns, {"role": "user", "content": "hi"}], "stream": stream, "odd": {}}
        assert (await service.post(body, key=CLIENTS_KEY)).status_code == 200
        assert up.requests[0].json() == body


async def test_an_odd_conversation_is_the_upstreams_to_judge() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (service, up, _):
        odd = [{"role": "user", "content": ""}, {"role": "tool", "tool_call_id": "lost", "content": "x"}, *HI]
        body = {"model": "tiny", "messages": odd, "user": None}
        assert (await service.post(body, key=CLIENTS_KEY)).status_code == 200
        assert up.requests[0].json() == body
        assert "mended" not in await service.record()


async def _note(sent: list[Any], request: httpx.Request) -> None:
    sent.append(json.loads(request.content))


async def test_the_clients_own_headers_get_there_and_nothing_of_ours() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (service, up, client):
        own = {"X-Title": "a title", "Cookie": "session=of-another-port", "Connection": "x-hop", "X-Hop": "1"}
        await client.with_options(organization="org-1", project="proj-1").chat.completions.create(
            model="tiny", messages=HI, extra_headers=own
        )
        [received] = up.requests
        headers = received.headers
        assert headers["authorization"] == f"Bearer {CLIENTS_KEY}"
        assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")
        assert headers["x-title"] == "a title"
        assert headers["user-agent"].startswith("AsyncOpenAI/Python")
        assert headers["host"] == up.url.removeprefix("http://")
        assert not {"cookie", "x-hop", "connection"} & headers.keys()
        assert "headrace" not in str(headers)
        assert CLIENTS_KEY not in json.dumps(service.records)
        assert CLIENTS_KEY not in repr(service.app.settings)


async def test_the_clients_place_in_a_trace_gets_there_unchanged() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (_, up, client):
        own = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
        await client.chat.completions.create(model="tiny", messages=HI, extra_headers=own)
        [received] = up.requests
        assert {name: received.headers[name] for name in own} == own


async def test_a_client_without_a_key_is_served_and_none_is_sent() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (service, up, _):
        for path in ("/v1/chat/completions", "/cursor/chat/completions"):
            answered = await service.post({"model": "tiny", "messages": HI}, key=None, path=path)
            assert answered.status_code == 200
        azure = await service.post({"model": "tiny", "messages": HI}, key=None, api_key=CLIENTS_KEY)
        assert azure.status_code == 200
        assert ["authorization" in one.headers for one in up.requests] == [False] * 3
        assert up.requests[2].headers["api-key"] == CLIENTS_KEY


async def test_each_client_has_its_own_key() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (_, up, client):
        for key in ("sk-one-0123456789", "sk-two-0123456789"):
            await client.with_options(api_key=key).chat.completions.create(model="tiny", messages=HI)
        assert [one.headers["authorization"][7:13] for one in up.requests] == ["sk-one", "sk-two"]


async def test_cursors_body_becomes_one_of_the_upstreams_api() -> None:
    async with studying(*STREAM) as (service, up, _):
        body = {"model": "tiny", "input": [{"role": "user", "content": "hi"}], "stream": True}
        answered = await service.post(body, key=CLIENTS_KEY)
        assert fold_stream(answered.content).content == "Hi"
        assert up.requests[0].json()["messages"] == HI
        assert up.requests[0].headers["authorization"] == f"Bearer {CLIENTS_KEY}"


@pytest.mark.parametrize(("key", "headers"), [
    ("sk-ant-api03-0123456789", {"x-api-key": "sk-ant-api03-0123456789"}),
    ("sk-ant-oat01-0123456789", {"authorization": "Bearer sk-ant-oat01-0123456789"}),
    ("local-0123456789", {"authorization": "Bearer local-0123456789", "x-api-key": "local-0123456789"}),
])  # fmt: skip
async def test_a_messages_upstream_gets_the_key_as_it_wants_it(key: str, headers: dict[str, str]) -> None:
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    async with studying(json_answer(answer), api="anthropic") as (_, up, client):
        answered = await client.with_options(api_key=key).chat.completions.create(model="claude", messages=HI)
        assert answered.choices[0].message.content == "Hi"
        [received] = up.requests
        assert received.path == "/v1/messages"
        sent = {name: value for name, value in received.headers.items() if name in ("authorization", "x-api-key")}
        assert sent == headers
        assert received.headers["anthropic-version"] == "2023-06-01"


# --- what comes back ---


async def test_an_answer_differs_only_in_what_the_documentation_says() -> None:
    message = {"content": "Hi", "tool_calls": [CALL], "reasoning_content": "Hm."}
    async with studying(json_answer(document(message, "tool_calls"))) as (_, up, client):
        given: dict[str, Any] = {"model": "tiny", "messages": HI, "logprobs": True, "tools": REQUESTS["tools"]["tools"]}
        through = await client.chat.completions.create(**given)
        async with client_of(up.url) as direct:
            expected = await direct.chat.completions.create(**given)
        was, is_now = expected.model_dump(), through.model_dump()
        assert {name for name in was if was[name] != is_now[name]} == {"id", "model", "system_fingerprint"}
        assert (is_now["model"], is_now["system_fingerprint"]) == ("tiny", None)


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_has_the_same_content(usage: bool) -> None:
    async with studying(*STREAM) as (_, up, client):
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
        stream = await client.chat.completions.create(
            model="tiny", messages=HI, stream=True, logprobs=True, tools=REQUESTS["tools"]["tools"], **options
        )
        chunks = [one async for one in stream]
        deltas = [one.choices[0].delta for one in chunks if one.choices]
        assert "".join(one.content or "" for one in deltas) == "Hi"
        assert "".join(getattr(one, "reasoning_content", None) or "" for one in deltas) == "Hm."
        calls = [call for one in deltas for call in one.tool_calls or ()]
        assert [call.function.name for call in calls if call.function and call.function.name] == ["read_file"]
        assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"path":"a"}'
        assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "tool_calls"
        [logprobs] = [one.choices[0].logprobs for one in chunks if one.choices and one.choices[0].logprobs]
        assert logprobs.model_dump()["content"] == LOGPROBS["content"]
        assert [one.usage.model_dump(exclude_none=True) for one in chunks if one.usage] == ([USAGE] if usage else [])
        assert ("stream_options" in up.requests[0].json()) == usage


async def test_more_than_one_choice_is_refused_in_words() -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (_, up, client):
        with pytest.raises(openai.BadRequestError, match=r"n must be 1 \(a request has one answer\)"):
            await client.chat.completions.create(model="tiny", messages=HI, n=2)
        assert up.requests == []


# --- failures ---


def failing(status: int, code: str | None, message: str) -> bytes:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return error(status, json.dumps(body).encode())


async def test_a_wrong_key_is_reported_as_the_upstream_does() -> None:
    refusal = failing(401, "invalid_api_key", f"Incorrect API key provided: {CLIENTS_KEY}.")
    async with studying(refusal) as (service, up, client):
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.chat.completions.create(model="tiny", messages=HI)
        assert raised.value.status_code == 401
        assert raised.value.code == "invalid_api_key"
        assert "upstream answered 401: Incorrect API key provided: [redacted]." in raised.value.message
        record = await service.record()
        assert (record["end"], record["status"], record["error"]) == ("UE", 401, "upstream_unauthorized")
        assert len(up.requests) == 1


@pytest.mark.parametrize(("status", "kind"), [
    (400, openai.BadRequestError), (403, openai.PermissionDeniedError), (429, openai.RateLimitError),
    (500, openai.InternalServerError), (503, openai.InternalServerError),
])  # fmt: skip
async def test_a_failure_keeps_its_status_and_is_not_repeated(status: int, kind: type[openai.APIStatusError]) -> None:
    async with studying(failing(status, "some_code", "It did not work")) as (_, up, client):
        for stream in (False, True):
            with pytest.raises(kind) as raised:
                await client.chat.completions.create(model="tiny", messages=HI, stream=stream)
            assert (raised.value.status_code, raised.value.code) == (status, "some_code")
        assert len(up.requests) == 2


async def test_an_address_without_the_route_says_what_to_check() -> None:
    async with studying(error(404, b'{"detail":"Not Found"}'), base="/api") as (_, up, client):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="tiny", messages=HI)
        assert raised.value.message.endswith(
            f"upstream answered 404: Not Found; the request went to {up.url}/api/chat/completions: "
            "check --upstream, which may have to end in /v1"
        )


async def test_a_model_that_does_not_exist_is_not_blamed_on_the_address() -> None:
    async with studying(failing(404, "model_not_found", "The model `tiny` does not exist")) as (_, _up, client):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="tiny", messages=HI)
        assert raised.value.message.endswith("upstream answered 404: The model `tiny` does not exist")


async def test_an_upstream_that_is_not_there_is_named_with_the_option() -> None:
    async with scripted_upstream() as up:
        pass
    async with in_front_of(up.url) as (_, client):
        for asking in (
            partial(client.chat.completions.create, model="tiny", messages=HI),
            partial(client.models.list),
        ):
            with pytest.raises(openai.InternalServerError) as raised:
                await asking()
            assert raised.value.status_code == 502
            assert "it refused the connection; check that it is running, and check --upstream" in raised.value.message


async def test_a_client_that_disconnects_ends_the_upstreams_answer() -> None:
    script = (*STREAM[:4], lambda exchange: trio.sleep_forever())
    async with studying(*script) as (service, up, client):
        stream = await client.chat.completions.create(model="tiny", messages=HI, stream=True)
        async for one in stream:
            if one.choices[0].delta.content:
                break
        await stream.close()
        assert (await up.connection_closed()).ended in ("fin", "rst")
        assert (await service.record())["end"] == "DC"


async def test_a_certificate_of_ones_own_is_trusted_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    async with scripted_upstream(json_answer(document({"content": "Hi"})), tls=tls) as up:
        async with in_front_of(up.url) as (service, client):
            with pytest.raises(openai.InternalServerError, match="check --upstream, or set SSL_CERT_FILE to that of"):
                await client.chat.completions.create(model="tiny", messages=HI)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with in_front_of(up.url) as (service, client):
            await client.chat.completions.create(model="tiny", messages=HI)
            assert (await service.get("/v1/models")).status_code == 200


# --- other paths ---


async def test_other_paths_below_v1_are_passed_on_as_they_are() -> None:
    models = {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 1, "owned_by": "me"}]}
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "tiny"}
    missing = error(404, b'{"detail":"Not Found"}', headers=[("x-reason", "none")])

    async def answer(exchange: Exchange) -> None:
        whole = {"/v1/models": json_answer(models), "/v1/embeddings": json_answer(vectors)}
        await exchange.send(whole.get(exchange.request.path.partition("?")[0], missing))

    async with studying(answer) as (service, up, client):
        assert [model.id async for model in await client.models.list()] == ["tiny"]
        vector = await client.embeddings.create(model="tiny", input="x", encoding_format="float")
        assert vector.data[0].embedding == [0.5]
        other = await service.get("/v1/files?limit=2", key=CLIENTS_KEY)
        assert (other.status_code, other.json(), other.headers["x-reason"]) == (404, {"detail": "Not Found"}, "none")
        assert (await service.get("/cursor/models", key=None)).json() == models
        assert (await service.get("/cursor/models/org%2Ftiny", key=CLIENTS_KEY)).status_code == 404
        assert [one.path for one in up.requests] == [
            *("/v1/models", "/v1/embeddings", "/v1/files?limit=2", "/v1/models", "/v1/models/org%2Ftiny"),
        ]
        assert up.requests[1].json() == {"model": "tiny", "input": "x", "encoding_format": "float"}
        keys = [one.headers.get("authorization") for one in up.requests]
        assert keys == [*[f"Bearer {CLIENTS_KEY}"] * 3, None, f"Bearer {CLIENTS_KEY}"]
        elsewhere = await service.get("/v2/models", key=CLIENTS_KEY)
        assert elsewhere.status_code == 404
        assert "there is no path /v2/models" in elsewhere.json()["error"]["message"]
        assert service.records == []


async def test_what_is_passed_on_ends_when_the_client_disconnects() -> None:
    async with studying(sse_head(), event(b"data: 1\n\n"), lambda exchange: trio.sleep_forever()) as (service, up, _):
        async with (
            httpx.AsyncClient(trust_env=False, verify=False) as http,
            http.stream("POST", f"{service.url}/v1/responses", json={"model": "tiny"}) as answer,
        ):
            async for data in answer.aiter_raw():
                assert data == b"data: 1\n\n"
                break
        assert (await up.connection_closed()).ended in ("fin", "rst")


async def test_an_answer_that_breaks_off_does_so_for_the_client_too(caplog: pytest.LogCaptureFixture) -> None:
    async with studying(sse_head(), event(b"data: 1\n\n"), wait(0.05), reset()) as (service, _up, _client):
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await service.post({"model": "tiny"}, path="/v1/responses", key=CLIENTS_KEY)
    [logged] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "the response to POST /v1/responses was not finished" in logged.message
    assert logged.exc_info is None


async def test_a_body_that_breaks_off_is_not_sent_even_if_the_disconnect_is_noticed_late() -> None:
    given = iter([{"type": "http.request", "body": b"hello", "more_body": True}, {"type": "http.disconnect"}])
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/files",
        "raw_path": b"/v1/files",
        "query_string": b"",
        "headers": [(b"transfer-encoding", b"chunked")],
    }
    async with scripted_upstream(json_answer({})) as up:

        async def receive() -> Any:
            if (message := next(given, None)) is not None:
                return message
            with trio.move_on_after(0.3):  # the time that a server may take for it
                await up.request_received()
            return {"type": "http.disconnect"}

        async def during(_scope: Any, _receive: Any, send: Any) -> None:
            await passing(scope, receive, send)

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        passing = PassingOn(during, deployment_of(up.url, "chat"))
        await passing({"type": "lifespan"}, receive, send)
        assert (up.requests, sent) == ([], [])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_web_page_from_elsewhere_cannot_use_it(path: str) -> None:
    async with studying(json_answer(document({"content": "Hi"}))) as (service, up, _):
        body = {"model": "tiny", "messages": HI}
        # null: of a frame that the page has put into a sandbox
        for origin in ("http://evil.example:4000", "null", "http://[", "http://[::1"):
            refused = await service.post(body, key=None, path=path, origin=origin)
            assert refused.status_code == 400
            assert "web pages may not use this proxy" in refused.json()["error"]["message"]
        assert up.requests == []
        for origin in ("http://localhost:3000", "vscode-file://vscode-app"):
            assert (await service.post(body, key=None, path=path, origin=origin)).status_code == 200


@pytest.mark.parametrize("path", [
    "/v1/models/org%2Fname%3Fa%23b", "/v1/files/a%20b?name=%2F%3F", "/v1/a%2525", "/v1/%00", "/v1/a%0D%0Ax-evil:%201",
])  # fmt: skip
async def test_a_path_stays_as_the_client_has_encoded_it(path: str) -> None:
    async with studying(json_answer({})) as (service, up, _client):
        assert (await service.get(path, key=CLIENTS_KEY)).status_code == 200
        assert [one.path for one in up.requests] == [path]
        assert "x-evil" not in up.requests[0].headers


async def test_a_prefix_that_is_encoded_is_not_passed_on() -> None:
    async with studying(json_answer({})) as (service, up, _client):
        assert (await service.get("/%761/files", key=CLIENTS_KEY)).status_code == 404
        assert up.requests == []


async def test_headers_that_are_repeated_are_passed_on_in_their_order() -> None:
    async with studying(json_answer({})) as (service, up, _client), httpx.AsyncClient(trust_env=False) as http:
        sent = [("openai-beta", "a"), ("x-title", "mine"), ("openai-beta", "b")]
        assert (await http.get(f"{service.url}/v1/files", headers=sent)).status_code == 200
        received = [line for line in up.requests[0].header_lines if line[0] in ("openai-beta", "x-title")]
        assert received == sent


@pytest.mark.parametrize(
    "framing", ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Content-Length: 9\r\n\r\nhello"]
)
async def test_a_body_that_breaks_off_never_reaches_the_upstream(framing: str) -> None:
    async with studying(json_answer({})) as (service, up, _client):
        await service.get("/v1/files")  # leaves an open connection to the upstream
        async with await trio.open_tcp_stream("127.0.0.1", service.port) as client:
            await client.send_all(f"POST /v1/files HTTP/1.1\r\nHost: a\r\n{framing}".encode())
            await client.send_eof()
            with patiently():
                while await client.receive_some():
                    pass
        await service.get("/v1/models")
        assert [(one.path, one.body) for one in up.requests] == [("/v1/files", b""), ("/v1/models", b"")]


async def test_only_the_key_of_the_pages_opens_them() -> None:
    async with studying() as (service, _up, _client):
        assert (await service.get("/health", key=MASTER_KEY)).status_code == 200
        assert (await service.get("/health", key=CLIENTS_KEY)).status_code == 403
        assert (await service.get("/health", key=None)).status_code == 403


# --- the address ---


@pytest.mark.parametrize(("given", "url"), [
    ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
    ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
    ("localhost:8000", "http://localhost:8000/v1/chat/completions"),
    ("api.example.com", "https://api.example.com/v1/chat/completions"),
    ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/chat/completions"),
    ("https://api.example.com/v1/chat/completions", "https://api.example.com/v1/chat/completions"),
])  # fmt: skip
def test_all_forms_of_the_address_are_understood(given: str, url: str) -> None:
    assert deployment_of(given, "chat").url == url


@pytest.mark.parametrize(("given", "why"), [
    ("ftp://example.com", "does not start with http:// or https://"),
    ("http://", "has no valid host"),
    ("http://me:secret@example.com", "contains a user name or password: remove it: the client sends the key"),
])  # fmt: skip
def test_an_address_that_cannot_be_used_is_an_error(given: str, why: str) -> None:
    with pytest.raises(CommandError, match=re.escape(why)):
        deployment_of(given, "chat")


def test_the_proxy_of_the_environment_is_used_but_not_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "")
    proxies = {
        url: settings_of(deployment_of(url, "chat"), key=MASTER_KEY, host="127.0.0.1", port=0).pipeline.proxy
        for url in ("https://api.example.com", "http://localhost:8000")
    }
    assert list(proxies.values()) == ["http://proxy.example:3128", None]


def test_no_configuration_file_sends_a_clients_headers_on() -> None:
    from pipeline.gateway.config.load import parse_settings

    text = "model_list: [{model_name: '*', litellm_params: {model: 'openai/*', api_key: sk-x, is_transparent: true}}]"
    settings = parse_settings(text, source="test", environ={"HEADRACE_MASTER_KEY": "sk-master-0123456789"})
    assert not settings.is_transparent


# --- the command ---


@dataclass
class Study:
    """A running ``headrace study``."""

    process: trio.Process
    said: str = ""
    """What it has written to stderr."""
    printed: str = ""

    @property
    def url(self) -> str:
        [url] = re.findall(r"OPENAI_BASE_URL=(http://\S+)/v1\n", self.said)
        return str(url)

    async def line(self, number: int) -> str:
        """Wait for a line of stdout."""
        assert self.process.stdout is not None
        with patiently():
            while self.printed.count("\n") <= number:  # a line may come in parts
                data = await self.process.stdout.receive_some()
                assert data, self.said
                self.printed += data.decode()
        return self.printed.splitlines()[number]


@asynccontextmanager
async def headrace_study(*arguments: str) -> AsyncIterator[Study]:
    command = [sys.executable, "-m", "pipeline.gateway", "study", *arguments]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    study = Study(process)
    try:
        with patiently_with_processes():
            while not re.search(r"  why: .*\n", study.said):
                data = await process.stderr.receive_some()
                assert data, study.said
                study.said += data.decode()
        yield study
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdout.aclose()
            await process.stderr.aclose()


LINE = (
    r"\d\d:\d\d:\d\d tiny stream OK \S+ m?s: upstream \S+ m?s \(first token after \S+ m?s, sent in \S+ m?s\), "
    r"ours \S+ m?s, client \S+ m?s; slowest stage \w+ \S+ m?s"
)


async def ask(url: str) -> None:
    async with client_of(url) as client:
        stream = await client.chat.completions.create(model="tiny", messages=HI, stream=True)
        assert "".join([one.choices[0].delta.content or "" async for one in stream]) == "Hi"


async def test_the_command_prints_a_line_for_each_request_and_records_it(tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    async with (
        scripted_upstream(*STREAM) as up,
        headrace_study("--upstream", up.url, "--port", "0", "--record", str(file)) as study,
    ):
        assert study.said.splitlines()[-4:-2] == [
            f"headrace study passes {study.url}/v1 on to {up.url}/v1, with each client's own key.",
            f"  client: OPENAI_BASE_URL={study.url}/v1",
        ]
        await ask(study.url)
        assert re.fullmatch(LINE, await study.line(0)), study.printed
        study.process.send_signal(signal.SIGINT)
        with patiently_with_processes():
            assert await study.process.wait() == 0
    header, record = [json.loads(line) for line in file.read_text().splitlines()]
    assert (header["event"], header["format"], header["workers"]) == ("recording", 1, 1)
    assert header["source"] == f"{up.url}/v1/chat/completions"
    assert (record["event"], record["model"], record["end"]) == ("request", "tiny", "OK")
    everything = study.said + study.printed + file.read_text()
    assert CLIENTS_KEY not in everything


async def run_headrace(*arguments: str) -> str:
    """Return what a command of ours prints."""
    with patiently_with_processes():
        ran = await trio.run_process(
            [sys.executable, "-m", "pipeline.gateway", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


async def test_the_printed_commands_explain_the_slowest_request_while_it_runs(tmp_path: Path) -> None:
    late = (wait(0.3), *STREAM)
    async with (
        scripted_upstream(in_turn(STREAM, late, STREAM)) as up,
        headrace_study("--upstream", up.url, "--port", "0") as study,
    ):
        for number in range(3):
            await ask(study.url)
            await study.line(number)
        [printed] = re.findall(r"  why:    headrace (.*)\n", study.said)
        why = shlex.split(printed)
        assert why[:4] == ["why", "--slowest", "--url", study.url]
        key = why[-1]

        shown = await run_headrace(*why)
        assert shown.startswith("request ")
        assert re.search(r"\d+ ms of \d+ ms until the first token was the upstream's", shown), shown
        [explained] = json.loads(await run_headrace(*why, "--json"))
        assert explained["culprit"]["party"] == "upstream"
        assert 290 <= explained["culprit"]["ms"] <= explained["first_token_ms"]

        trace = json.loads(await run_headrace("trace", *why[1:], "--json", "-o", str(tmp_path / "slowest.pftrace")))
        assert (trace["requests"], trace["traced"]) == (1, 1)

        async with httpx.AsyncClient(base_url=study.url, trust_env=False, verify=False, timeout=PATIENCE_S) as http:
            with_key = {"authorization": f"Bearer {key}"}
            assert (await http.get("/latency")).status_code == 200
            traced = (await http.get("/latency/requests?kind=traced&limit=9", headers=with_key)).json()
            assert [(one["model"], one["traced"]) for one in traced] == [("tiny", True)] * 3
            metrics = (await http.get("/metrics", headers=with_key)).text
            assert 'headrace_requests_total{end="OK"} 3\n' in metrics
            clients = {"authorization": f"Bearer {CLIENTS_KEY}"}
            for path in ("/metrics", "/latency/now", "/latency/records"):
                assert (await http.get(path, headers=clients)).status_code in (401, 403), path


async def test_json_prints_the_lines_of_a_recording() -> None:
    async with (
        scripted_upstream(*STREAM) as up,
        headrace_study("--upstream", up.url, "--port", "0", "--json") as study,
    ):
        await ask(study.url)
        record = json.loads(await study.line(0))
        assert (record["event"], record["model"], record["end"]) == ("request", "tiny", "OK")
        assert sum(record["party_ms"].values()) == pytest.approx(record["total_ms"], abs=0.01)


async def test_an_address_that_others_can_reach_is_pointed_out() -> None:
    async with headrace_study("--upstream", "localhost:1", "--port", "0", "--host", "0.0.0.0") as study:
        with patiently():
            assert study.process.stderr is not None
            while "asks for no key" not in study.said:
                study.said += (await study.process.stderr.receive_some()).decode()


@pytest.mark.parametrize(("arguments", "why"), [
    (("--upstream", "ftp://x"), "--upstream: the URL does not start with http:// or https://"),
    (("--upstream", "localhost:1", "--record", "{file}"), "--record: {file} exists: name another file, or remove it"),
    (("--upstream", "localhost:1", "--record", "x.zst"), "a recording is written as it is"),
])  # fmt: skip
def test_what_cannot_work_is_said_before_it_serves(tmp_path: Path, arguments: Sequence[str], why: str) -> None:
    file = tmp_path / "recording.jsonl"
    file.touch()
    given = [argument.format(file=file) for argument in arguments]
    command = [sys.executable, "-m", "pipeline.gateway", "study", *given]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 2
    assert f"headrace: {why.format(file=file)}" in ran.stderr or why in ran.stderr
