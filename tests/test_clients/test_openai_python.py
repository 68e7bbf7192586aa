"""The real OpenAI client for Python, on trio, against the running service: what its users' code gets to see."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
import trio.testing
from kit.clients.chat_posts import begun, failed_event, good_answer, response_of
from kit.service.running import KEY, Service, model, replay, serving
from kit.time.patience import PATIENCE_S
from kit.upstreams.scripted import end, error, event, json_answer, reset, scripted_upstream, stall
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall

pytestmark = pytest.mark.filterwarnings(r"ignore:Async generator '(openai|httpx|httpcore)\.:ResourceWarning")
"""The client stops reading at ``[DONE]`` and leaves its generators to the garbage collector; trio warns of that."""

DATA = Path(__file__).parents[1] / "data" / "streams" / "responses"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]},
        },
    }
    for name, field in (("read_file", "path"), ("grep_search", "pattern"))
]
APPLY_PATCH: dict[str, Any] = {"type": "custom", "name": "ApplyPatch", "description": "Patch files"}
"""As Cursor sends it: flat, among nested tools."""


@asynccontextmanager
async def client_of(service: Service, *, key: str = KEY, path: str = "/v1") -> AsyncIterator[AsyncOpenAI]:
    """Yield the asynchronous client, which runs on trio through httpx."""
    http: Any  # httpx's clients are accepted, but the annotations name only those of its successor
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as http:
        try:
            yield AsyncOpenAI(base_url=service.url + path, api_key=key, max_retries=0, http_client=http)
        finally:
            gc.collect()  # its generators, while this test's filter of warnings stands
            await trio.testing.wait_all_tasks_blocked()


async def test_a_whole_answer() -> None:
    async with serving() as service:
        for path in ("/v1", "/cursor", "/cursor/v1"):
            async with client_of(service, path=path) as client:
                answer = await client.chat.completions.create(model="echo", messages=HELLO)
                assert answer.object == "chat.completion"
                assert answer.model == "echo"
                [choice] = answer.choices
                assert (choice.message.role, choice.message.content) == ("assistant", "Hello there")
                assert (choice.finish_reason, choice.message.refusal, choice.message.tool_calls) == ("stop", None, None)
                assert answer.usage is not None
                assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


async def test_the_client_may_read_where_the_time_went_and_ignores_the_comment_that_says_so() -> None:
    async with serving() as service, client_of(service) as client:
        raw = await client.chat.completions.with_raw_response.create(model="echo", messages=HELLO)
        assert raw.headers["server-timing"].startswith("client;dur=")
        assert raw.parse().choices[0].message.content == "Hello there"
        told = {"x-headrace-server-timing": "1"}
        stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True, extra_headers=told)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_streamed_answer_with_and_without_usage() -> None:
    async with serving() as service, client_of(service) as client:
        stream = await client.chat.completions.create(model="echo", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
        assert all(chunk.usage is None for chunk in chunks)
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1

        stream = await client.chat.completions.create(
            model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = [chunk async for chunk in stream]
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens > 0
        assert all(chunk.usage is None for chunk in chunks)


async def test_the_stream_helper_puts_the_answer_together() -> None:
    async with serving() as service, client_of(service) as client:
        async with client.chat.completions.stream(
            model="echo", messages=HELLO, stream_options={"include_usage": True}
        ) as stream:
            kinds = [item.type async for item in stream]
            completion = await stream.get_final_completion()
        assert completion.choices[0].message.content == "Hello there"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        assert kinds.count("content.done") == 1
        assert kinds.count("content.delta") >= 1
        assert set(kinds) == {"chunk", "content.delta", "content.done"}


def assert_agents_turn(completion: ChatCompletion) -> None:
    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert calls is not None
    assert all(isinstance(call, ChatCompletionMessageFunctionToolCall) for call in calls)
    functions = [call.function for call in calls if isinstance(call, ChatCompletionMessageFunctionToolCall)]
    assert [function.name for function in functions] == ["read_file", "grep_search", "ApplyPatch"]
    assert json.loads(functions[0].arguments) == {"path": "README.md"}
    assert json.loads(functions[1].arguments) == {"pattern": "TODO"}
    assert functions[2].arguments.startswith("*** Begin Patch\n")
    assert functions[2].arguments.endswith("\n*** End Patch")
    assert len({call.id for call in calls}) == 3
    reasoning = (choice.message.model_extra or {})["reasoning_content"]
    assert reasoning.startswith("**Looking before touching**")


async def test_an_agents_turn_with_parallel_calls_and_a_patch() -> None:
    async with serving() as service, client_of(service) as client:
        tools = [*TOOLS, APPLY_PATCH]
        assert_agents_turn(await client.chat.completions.create(model="agent", messages=HELLO, tools=tools))

        pieces: dict[int, list[str]] = {}
        names: dict[int, tuple[str | None, str | None]] = {}
        stream = await client.chat.completions.create(model="agent", messages=HELLO, tools=tools, stream=True)
        finish: str | None = None
        async for chunk in stream:
            [choice] = chunk.choices
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                if call.index not in names:
                    names[call.index] = (call.function.name, call.type)
                    assert call.id
                pieces.setdefault(call.index, []).append(call.function.arguments or "")
        assert finish == "tool_calls"
        assert list(names.values()) == [
            ("read_file", "function"),
            ("grep_search", "function"),
            ("ApplyPatch", "function"),
        ]
        assert json.loads("".join(pieces[0])) == {"path": "README.md"}
        assert "".join(pieces[2]).startswith("*** Begin Patch\n")
        assert len(pieces[2]) > 3, "the patch comes as it is made"

        # The helper looks only at tools that it can parse; it must not trip over a call to another one.
        async with client.chat.completions.stream(model="agent", messages=HELLO, tools=TOOLS) as helped:
            async for _ in helped:
                pass
            final = await helped.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert [call.function.name for call in calls] == ["read_file", "grep_search"]


async def test_the_next_turn_of_an_agent() -> None:
    async with serving() as service, client_of(service) as client:
        answer = await client.chat.completions.create(model="agent", messages=HELLO, tools=TOOLS)
        message = answer.choices[0].message
        assert message.tool_calls is not None
        results: list[Any] = [
            {"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls
        ]
        history: list[Any] = [*HELLO, message.model_dump(exclude_none=True), *results]
        answer = await client.chat.completions.create(model="agent", messages=history, tools=TOOLS)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content is not None
        assert "2 tool results" in answer.choices[0].message.content


async def test_a_recorded_agent_through_the_helper() -> None:
    async with serving(replay(DATA / "agent.sse")) as service, client_of(service) as client:
        async with client.chat.completions.stream(model="agent.sse", messages=HELLO) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert "ApplyPatch" in [call.function.name for call in calls]
        assert final.choices[0].finish_reason == "tool_calls"


async def test_a_refusal() -> None:
    async with serving(replay(DATA / "refusal.sse")) as service, client_of(service) as client:
        answer = await client.chat.completions.create(model="refusal.sse", messages=HELLO)
        assert answer.choices[0].message.refusal == "I can't help with that."
        assert answer.choices[0].message.content is None
        async with client.chat.completions.stream(model="refusal.sse", messages=HELLO) as stream:
            done = [item.refusal async for item in stream if item.type == "refusal.done"]
            final = await stream.get_final_completion()
        assert done == ["I can't help with that."]
        assert final.choices[0].message.refusal == "I can't help with that."


async def test_the_models_are_listed() -> None:
    async with serving() as service, client_of(service) as client:
        assert [entry.id async for entry in client.models.list()] == ["echo", "story", "agent"]


async def test_an_unknown_model_and_wrong_keys_raise_what_they_should() -> None:
    async with serving() as service:
        async with client_of(service) as client:
            for stream in (True, False):
                with pytest.raises(openai.NotFoundError) as unknown:
                    await client.chat.completions.create(model="nope", messages=HELLO, stream=stream)
                assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
            with pytest.raises(openai.BadRequestError) as bad:
                await client.chat.completions.create(model="echo", messages=[])
            assert bad.value.param == "messages"
        async with client_of(service, key="sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.chat.completions.create(model="echo", messages=HELLO)
            assert refused.value.code == "unauthorized"
        async with client_of(service, key="sk-limited-key-0123456789") as client:
            with pytest.raises(openai.PermissionDeniedError):
                await client.chat.completions.create(model="story", messages=HELLO)


FAULTS: list[tuple[Any, type[openai.APIStatusError]]] = [
    (json_answer({"error": {"message": "slow down"}}, 429), openai.RateLimitError),
    (error(500), openai.InternalServerError),
    (json_answer({"error": {"message": "no"}}, 400), openai.BadRequestError),
    (reset(), openai.InternalServerError),
]


@pytest.mark.parametrize(("step", "kind"), FAULTS, ids=["429", "500", "400", "reset"])
async def test_an_upstreams_refusal_raises_its_kind(step: Any, kind: type[openai.APIStatusError]) -> None:
    async with (
        scripted_upstream(step) as upstream,
        serving(model("up", upstream.url)) as service,
        client_of(service) as client,
    ):
        for stream in (True, False):
            with pytest.raises(kind):
                await client.chat.completions.create(model="up", messages=HELLO, stream=stream)


async def listen(client: AsyncOpenAI, name: str, said: list[str]) -> None:
    """Read a stream to its end, noting its text."""
    async for chunk in await client.chat.completions.create(model=name, messages=HELLO, stream=True):
        said.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - what came before a failure is kept


async def listen_with_help(client: AsyncOpenAI, name: str) -> None:
    """Read a stream to its end by the client's helper."""
    async with client.chat.completions.stream(model=name, messages=HELLO) as stream:
        async for _ in stream:
            pass


BROKEN: dict[str, tuple[Any, ...]] = {
    "failed": (event(failed_event("server_error", "I broke")), end()),
    "reset": (reset(),),
    "ended early": (end(),),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_failure_in_mid_stream_raises_after_the_text(how: str) -> None:
    async with (
        scripted_upstream(*begun("Hello, "), *BROKEN[how]) as upstream,
        serving(model("up", upstream.url)) as service,
        client_of(service) as client,
    ):
        said: list[str] = []
        with pytest.raises(openai.APIError) as broken:
            await listen(client, "up", said)
        assert "".join(said) == "Hello, "
        assert broken.value.code == ("upstream_error" if how == "failed" else "upstream_protocol")
        with pytest.raises(openai.APIError):
            await listen_with_help(client, "up")


async def test_the_recorded_failure_raises() -> None:
    async with serving(replay(DATA / "error_mid_stream.sse")) as service, client_of(service) as client:
        said: list[str] = []
        with pytest.raises(openai.APIError, match="Rate limit reached"):
            await listen(client, "error_mid_stream.sse", said)
        assert "".join(said) == "Let me"


async def test_closing_the_stream_early_closes_the_upstream() -> None:
    nothing_is_written = "  keep_alive_interval_s: 0"  # a write would find out, too
    async with (
        scripted_upstream(*begun("Hello, "), stall()) as upstream,
        serving(model("up", upstream.url), nothing_is_written) as service,
        client_of(service) as client,
    ):
        stream = await client.chat.completions.create(model="up", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert upstream.open_connections == 1
        await stream.close()
        await upstream.connection_closed()
        assert (await service.record())["end"] == "DC"


async def test_the_synchronous_client_and_the_azure_path() -> None:
    def talk(url: str) -> tuple[str | None, str]:
        http: Any  # as in `client_of`
        with httpx.Client(trust_env=False, verify=False, timeout=PATIENCE_S) as http:
            client = OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0, http_client=http)
            whole = client.chat.completions.create(model="up", messages=HELLO).choices[0].message.content
            stream = client.chat.completions.create(model="up", messages=HELLO, stream=True)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            azure = openai.AzureOpenAI(
                azure_endpoint=url, api_version="2026-01-01", api_key=KEY, max_retries=0, http_client=http
            )
            assert azure.chat.completions.create(model="up", messages=HELLO).choices[0].message.content == whole
            return whole, said

    async with scripted_upstream(*good_answer()) as upstream, serving(model("up", upstream.url)) as service:
        assert await trio.to_thread.run_sync(talk, service.url) == ("Hello", "Hello")


async def test_the_request_reaches_the_upstream_as_a_responses_request() -> None:
    async with (
        scripted_upstream(json_answer(response_of("Hello"))) as upstream,
        serving(model("up", upstream.url)) as service,
        client_of(service) as client,
    ):
        answer = await client.chat.completions.create(
            model="up", messages=[{"role": "system", "content": "Be brief"}, *HELLO], tools=TOOLS, max_tokens=50
        )
        assert answer.choices[0].message.content == "Hello"
        [request] = upstream.requests
        assert request.path == "/v1/responses"
        body = request.json()
        assert (body["model"], body["max_output_tokens"]) == ("gpt-5", 50)
        assert [tool["name"] for tool in body["tools"]] == ["read_file", "grep_search"]
        assert "messages" not in body
        assert KEY not in str(request.headers) + request.body.decode()
