"""The Anthropic upstream: its requests, and what it refuses before it sends anything."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
import trio
from kit.upstreams.opened import open_answer
from kit.upstreams.scripted import Step, end, error, events, json_answer, scripted_upstream, sse_head
from kit.upstreams.transports import MAKES, Make
from msgspec.structs import replace

from pipeline import ClientFault, UpstreamFault
from stages.events import Failed, Finished, Started, StreamEvent, TextDelta
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.upstreams.transport.transport import HeadraceTransport
from stages.wire.anthropic.api import ANTHROPIC
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document

NEWEST = "claude-opus-5-5"
KEY = "sk-ant-api03-abcdefgh1234567890SECRET"
HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
STARTED: list[dict[str, Any]] = [
    {"type": "message_start", "message": HEAD},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
]
FINISHED: list[dict[str, Any]] = [
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
]
GOOD: tuple[Step, ...] = (sse_head(), events([*STARTED, *FINISHED]), end())
EVENTS: list[StreamEvent] = [Started("msg_1", "claude-x", 0), TextDelta("hi"), Finished("stop")]


def call_to(url: str, *, stream: bool = True, **body: object) -> UpstreamCall:
    return UpstreamCall(
        request=ResponsesRequest(
            requested_model="nice", stream=stream, include_usage=False, body={"input": "hi", **body}
        ),
        deployment=Deployment(
            id="d1",
            model_name="nice",
            model="claude-opus-4-1",
            provider="anthropic",
            kind="anthropic",
            url=f"{url}/v1/messages",
            headers=(("x-api-key", KEY), ("anthropic-version", "2023-06-01")),
        ),
        model="claude-opus-4-1",
    )


async def ask(transport: HeadraceTransport, call: UpstreamCall) -> bytes:
    got = b""
    async with aclosing(await open_answer(HttpUpstream(ANTHROPIC, lambda _: transport), call)) as answer:
        assert answer.is_stream == call.request.stream
        while chunk := await answer.receive():
            got += chunk
    return got


async def test_the_upstream_gets_a_messages_request_and_its_answer_is_decoded() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        decoder = AnthropicDecoder()
        answer = await ask(transport, call_to(up.url, instructions="be kind", max_output_tokens=5))
        assert decoder.feed([answer]) + decoder.flush() == EVENTS
        (request,) = up.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["accept"] == "text/event-stream"
    assert "authorization" not in request.headers
    body = request.json()
    assert body["model"] == "claude-opus-4-1"
    assert body["stream"] is True
    assert body["max_tokens"] == 5
    assert "be kind" in str(body["system"])
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "hi" in str(body["messages"][0]["content"])
    assert {"input", "instructions", "max_output_tokens", "stream_options"}.isdisjoint(body)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
async def test_what_is_not_yet_stable_is_asked_for_in_a_header_that_is_joined_with_the_deployments(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        upstream = HttpUpstream(ANTHROPIC, lambda _: transport)
        plain = call_to(up.url)
        own = (("Anthropic-Beta", "context-1m-2025-08-07, fast-mode-2026-02-01,"), *plain.deployment.headers)
        joined = replace(plain, deployment=replace(plain.deployment, id="d2", headers=own))
        for call, model in ((plain, "claude-opus-4-1"), (plain, NEWEST), (joined, NEWEST), (joined, "claude-opus-4-1")):
            asked = replace(call.request, body={**call.request.body, "speed": "fast"})
            async with aclosing(await open_answer(upstream, replace(call, model=model, request=asked))) as answer:
                while await answer.receive():
                    pass
        sent = [request.headers.get("anthropic-beta") for request in up.requests]
        assert all(request.headers["x-api-key"] == KEY for request in up.requests)
    binding, fast = "thinking-binding-controls-2026-08-01", "fast-mode-2026-02-01"
    assert sent == [
        None,
        f"{binding},{fast}",
        f"context-1m-2025-08-07,{fast},{binding}",
        f"context-1m-2025-08-07, {fast},",
    ]


async def test_a_document_is_requested_and_decoded() -> None:
    content = [{"type": "text", "text": "hi"}]
    async with (
        scripted_upstream(json_answer(HEAD | {"content": content, "stop_reason": "end_turn"})) as up,
        HeadraceTransport() as transport,
    ):
        answer = await ask(transport, call_to(up.url, stream=False))
        assert not up.requests[0].json().get("stream")
        assert up.requests[0].headers["accept"] == "application/json"
    assert decode_anthropic_document(answer) == EVENTS


async def test_a_request_that_cannot_be_translated_is_the_clients_fault_and_is_not_sent() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        with pytest.raises(ClientFault) as caught:
            await ask(transport, call_to(up.url, input=[{"type": "compaction", "encrypted_content": "gA_1"}]))
        assert up.requests == []
    assert (caught.value.param, caught.value.code) == ("input[0]", "invalid_request")
    assert "gA_1" not in caught.value.public
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_an_error_status_is_the_upstreams_fault() -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down, %b"}}' % KEY.encode()
    async with scripted_upstream(error(429, body, headers=[("retry-after", "7")])) as up:
        async with HeadraceTransport() as transport:
            with pytest.raises(UpstreamFault) as caught:
                await ask(transport, call_to(up.url))
    assert caught.value.code == "upstream_rate_limited"
    assert caught.value.retry_after_s == 7
    assert "slow down" in caught.value.public
    assert "SECRET" not in caught.value.public


async def test_529_is_an_upstream_error() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    async with scripted_upstream(error(529, body)) as up, HeadraceTransport() as transport:
        with pytest.raises(UpstreamFault) as caught:
            await ask(transport, call_to(up.url))
    assert (caught.value.code, caught.value.status_hint) == ("upstream_error", 529)
    assert "Overloaded" in caught.value.public


async def test_an_overload_in_the_middle_of_an_answer_is_reported_after_the_good_events() -> None:
    overload = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with (
        scripted_upstream(sse_head(), events([*STARTED, overload]), end()) as up,
        HeadraceTransport() as transport,
    ):
        decoder = AnthropicDecoder()
        got = decoder.feed([await ask(transport, call_to(up.url))]) + decoder.flush()
    assert got == [*EVENTS[:2], Failed("upstream_error", "Overloaded", "overloaded_error")]


async def test_one_upstream_serves_many_calls_of_a_deployment_at_once() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        upstream = HttpUpstream(ANTHROPIC, lambda _: transport)
        call = call_to(up.url)

        async def one() -> None:
            async with aclosing(await open_answer(upstream, call)) as answer:
                got = await answer.receive()
                while chunk := await answer.receive():
                    got += chunk
            assert b'"hi"' in got

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert len(up.requests) == 5
