"""The request that arrives at an upstream with the Responses API, over a real socket."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
from kit.service.contexts import deployment
from kit.upstreams.opened import open_answer
from kit.upstreams.scripted import end, events, scripted_upstream, sse_head

from stages.upstreams import UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import HeadraceTransport
from stages.wire.downstream.request import parse_body
from stages.wire.responses.api import RESPONSES

BODY = {
    "model": "nice",
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 10,
    "stop": ["END"],
    "tools": [{"type": "custom", "name": "ApplyPatch"}],
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "d", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n", "reasoning_content": "hm"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "p", "index": 0, "function": {"name": "ApplyPatch", "arguments": "*** Begin"}}],
        },
    ],
}
DEVELOPER = {"role": "developer", "content": [{"type": "input_text", "text": "d"}]}


async def arrived(provider: str, body: dict[str, Any]) -> Any:
    async with (
        scripted_upstream(sse_head(), events([{"type": "response.completed"}]), end()) as up,
        HeadraceTransport(ssl_context=client_context()) as transport,
    ):
        call = UpstreamCall(
            request=parse_body(json.dumps(body).encode()),
            deployment=deployment("nice", "up", provider=provider, url=f"{up.url}/v1/responses"),
            model="up",
        )
        async with aclosing(await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call)) as answer:
            while await answer.receive():
                pass
        (request,) = up.requests
        return request.json()


async def test_openai_gets_its_own_form() -> None:
    assert await arrived("openai", BODY) == {
        "model": "up",
        "stream": True,
        "max_output_tokens": 16,
        "tools": [{"type": "custom", "name": "ApplyPatch"}],
        "input": [
            DEVELOPER,
            {"type": "custom_tool_call", "call_id": "p", "name": "ApplyPatch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "p", "output": ""},
        ],
    }


@pytest.mark.parametrize("provider", ["hosted_vllm", "lm_studio"])
async def test_a_local_server_gets_functions_and_reasoning_as_text(provider: str) -> None:
    sent = await arrived(provider, BODY)
    (tool,) = sent.pop("tools")
    assert (tool["type"], tool["name"], tool["parameters"]["required"]) == ("function", "ApplyPatch", ["input"])
    reasoning = sent["input"].pop(1)
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert sent == {
        "model": "up",
        "stream": True,
        "max_output_tokens": 10,
        "input": [
            {**DEVELOPER, "role": "system"},
            {"type": "function_call", "call_id": "p", "name": "ApplyPatch", "arguments": '{"input":"*** Begin"}'},
            {"type": "function_call_output", "call_id": "p", "output": ""},
        ],
    }
