"""What the providers of clouds are sent: the path, the key, and a body that they take."""

from __future__ import annotations

from typing import Any

import pytest
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import good_answer
from kit.service.running import model, serving
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import Received, Step, end, events, scripted_upstream, sse_head

SECRET = "sk-upstream-secret-0123456789"
CHUNKS: tuple[Step, ...] = (
    sse_head(),
    events([chat_stream.chunk({"content": "Hello"}), chat_stream.chunk(finish="stop")]),
    end(),
)
MESSAGES: tuple[Step, ...] = (
    sse_head(),
    events(
        [anthropic_stream.head(), *anthropic_stream.text(0, "Hello"), anthropic_stream.last(), anthropic_stream.STOP]
    ),
    end(),
)
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
}
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hello"}],
    "tools": [TOOL],
    "tool_choice": "auto",
    "stream": True,
    "user": "somebody",
    "stop": ["x"],
    "presence_penalty": 0.5,
    "logit_bias": {"5": 1},
    "reasoning_effort": "medium",
    "store": False,
}
"""What Cursor and others send, with parameters that not every provider takes."""


async def sent(upstream: str, script: tuple[Step, ...], path: str = "", **params: Any) -> Received:
    """Return the request that a deployment at a scripted server gets for `BODY`; its answer must arrive."""
    async with (
        scripted_upstream(*script) as up,
        serving(model("up", up.url + path, upstream=upstream, **params)) as service,
    ):
        answer = await service.post({"model": "up", **BODY})
        assert answer.status_code == 200, answer.text
        assert fold_stream(answer.content).content == "Hello"
    (request,) = up.requests
    assert request.method == "POST"
    return request


ROWS: list[tuple[str, str, tuple[Step, ...], dict[str, Any], str, str, set[str]]] = [
    # model, path of the base, answer, parameters; path, header with the key, fields that must not be sent
    ("cohere/command-a-reasoning-08-2025", "/v2/chat", CHUNKS, {}, "/compatibility/v1/chat/completions",
     "authorization", {"user", "logit_bias", "store"}),
    ("cloudflare/@cf/meta/llama-3.3-70b", "/client/v4/accounts/a/ai/run/", CHUNKS, {},
     "/client/v4/accounts/a/ai/v1/chat/completions", "authorization", {"store"}),
    ("vertex_ai/gemini-3-pro", "", CHUNKS, {"vertex_project": "p", "vertex_location": "global"},
     "/v1/projects/p/locations/global/endpoints/openapi/chat/completions", "authorization",
     {"user", "store", "presence_penalty", "logit_bias"}),
    ("vertex_ai/qwen/qwen3-coder-480b-a35b-instruct-maas", "", CHUNKS, {"vertex_project": "p"},
     "/v1/projects/p/locations/us-central1/endpoints/openapi/chat/completions", "authorization", {"store"}),
    ("bedrock/us.anthropic.claude-opus-5", "", MESSAGES, {}, "/anthropic/v1/messages", "authorization",
     {"user", "store", "logit_bias", "presence_penalty", "stop"}),
    ("bedrock_mantle/anthropic.claude-haiku-4-5", "", MESSAGES, {}, "/anthropic/v1/messages", "x-api-key",
     {"user", "store", "logit_bias", "presence_penalty", "stop"}),
    ("bedrock/us.openai.gpt-6-sol", "", good_answer(), {}, "/openai/v1/responses", "authorization",
     {"stop", "logit_bias", "presence_penalty"}),
    ("bedrock/us.xai.grok-4.7", "", CHUNKS, {}, "/openai/v1/chat/completions", "authorization",
     {"user", "store", "logit_bias", "presence_penalty", "stop"}),
    ("bedrock/qwen.qwen3-32b", "", CHUNKS, {}, "/v1/chat/completions", "authorization", {"store"}),
    ("azure_ai/claude-opus-5", "", MESSAGES, {}, "/anthropic/v1/messages", "x-api-key", {"store", "stop"}),
    ("snowflake/claude-opus-5", "/api/v2", MESSAGES, {}, "/api/v2/cortex/v1/messages", "authorization", {"store"}),
    ("snowflake/llama4-maverick", "/api/v2", CHUNKS, {}, "/api/v2/cortex/v1/chat/completions", "authorization",
     {"store"}),
    ("huggingface/deepseek-ai/DeepSeek-V3.2", "", CHUNKS, {}, "/v1/chat/completions", "authorization", {"store"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("upstream", "base", "script", "params", "path", "header", "absent"), ROWS, ids=[row[0] for row in ROWS]
)
async def test_a_cloud_gets_the_path_the_key_and_no_field_that_it_does_not_take(
    upstream: str,
    base: str,
    script: tuple[Step, ...],
    params: dict[str, Any],
    path: str,
    header: str,
    absent: set[str],
) -> None:
    request = await sent(upstream, script, base, **params)
    assert request.path == path
    assert request.headers[header].removeprefix("Bearer ") == SECRET
    body = request.json()
    assert not absent & set(body)
    assert body["model"].removeprefix("google/") == upstream.partition("/")[2]
    assert body["stream"] is True
    assert len(body["tools"]) == 1
    if path.endswith("messages"):
        assert request.headers["anthropic-version"] == "2023-06-01"


async def test_the_efforts_of_a_cloud_are_the_models() -> None:
    assert (await sent("cohere/command-a-reasoning-08-2025", CHUNKS)).json()["reasoning_effort"] == "high"
    assert "reasoning_effort" not in (await sent("cohere/command-a-03-2025", CHUNKS)).json()
    assert (await sent("bedrock/us.openai.gpt-6-sol", good_answer())).json()["reasoning"]["effort"] == "medium"
