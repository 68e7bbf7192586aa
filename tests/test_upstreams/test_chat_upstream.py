"""The Chat Completions upstream: its requests, and what it refuses before it sends anything."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio
from kit.upstreams.opened import open_answer
from kit.upstreams.scripted import Step, end, error, events, json_answer, scripted_upstream, sse_head

from pipeline import ClientFault, UpstreamFault
from stages.events import Finished, Started, TextDelta
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.upstreams.providers import quirks_in, quirks_of
from stages.upstreams.transport.transport import HeadraceTransport
from stages.wire.chat.api import CHAT
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.responses.api import RESPONSES

KEY = "sk-proj-abcdefgh1234567890SECRET"
CHUNKS = [
    {"id": "c", "model": "m", "created": 7, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}]},
    {"id": "c", "model": "m", "created": 7, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
GOOD: tuple[Step, ...] = (sse_head(), events(CHUNKS), end())


def deployment(url: str, provider: str = "openai") -> Deployment:
    return Deployment(
        id="d1",
        model_name="nice",
        model="deepseek-chat",
        provider=provider,
        kind="chat",
        url=url,
        headers=(("Authorization", f"Bearer {KEY}"),),
    )


def call_to(url: str, *, stream: bool = True, provider: str = "deepseek", **body: object) -> UpstreamCall:
    return UpstreamCall(
        request=ResponsesRequest(
            requested_model="nice", stream=stream, include_usage=False, body={"input": "hi", **body}
        ),
        deployment=deployment(f"{url}/chat/completions", provider),
        model="deepseek-chat",
    )


async def ask(transport: HeadraceTransport, call: UpstreamCall) -> bytes:
    got = b""
    async with aclosing(await open_answer(HttpUpstream(CHAT, lambda _: transport), call)) as answer:
        assert answer.is_stream == call.request.stream
        while chunk := await answer.receive():
            got += chunk
    return got


async def test_the_upstream_gets_chat_completions_and_its_answer_is_decoded() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        call = call_to(up.url, instructions="be kind", max_output_tokens=5, store=False)
        decoder = ChatDecoder()
        assert decoder.feed([await ask(transport, call)]) + decoder.flush() == [
            Started("c", "m", 7),
            TextDelta("hi"),
            Finished("stop"),
        ]
        (request,) = up.requests
    assert (request.method, request.path) == ("POST", "/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "text/event-stream"
    assert request.json() == {
        "model": "deepseek-chat",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
    }


async def test_a_document_is_requested_and_decoded() -> None:
    message = {"role": "assistant", "content": "hi"}
    body = {
        "id": "c",
        "model": "m",
        "created": 7,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    async with scripted_upstream(json_answer(body)) as up, HeadraceTransport() as transport:
        answer = await ask(transport, call_to(up.url, stream=False))
        assert up.requests[0].json() == {"model": "deepseek-chat", "messages": [{"role": "user", "content": "hi"}]}
        assert up.requests[0].headers["accept"] == "application/json"
    assert decode_chat_document(answer) == [Started("c", "m", 7), TextDelta("hi"), Finished("stop")]


async def test_a_request_that_cannot_be_translated_is_the_clients_fault_and_is_not_sent() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        with pytest.raises(ClientFault) as caught:
            await ask(transport, call_to(up.url, input=[{"type": "compaction", "encrypted_content": "gA_1"}]))
        assert up.requests == []
    assert (caught.value.param, caught.value.code) == ("input[0]", "invalid_request")
    assert "gA_1" not in caught.value.public
    assert caught.value.__context__ is None or caught.value.__suppress_context__


async def test_an_error_status_is_the_upstreams_fault() -> None:
    async with scripted_upstream(error(429, b'{"error":{"message":"slow down, %b"}}' % KEY.encode())) as up:
        async with HeadraceTransport() as transport:
            with pytest.raises(UpstreamFault) as caught:
                await ask(transport, call_to(up.url))
    assert caught.value.code == "upstream_rate_limited"
    assert "SECRET" not in caught.value.public


async def test_one_upstream_serves_many_calls_of_a_deployment_at_once() -> None:
    async with scripted_upstream(*GOOD) as up, HeadraceTransport() as transport:
        upstream = HttpUpstream(CHAT, lambda _: transport)
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


@pytest.mark.parametrize(
    ("url", "provider", "expected"),
    [
        ("https://api.openai.com/v1/chat/completions", "openai", "openai"),
        ("https://eu.api.openai.com/v1/chat/completions", "openai", "openai"),
        ("http://localhost:8000/v1/chat/completions", "openai", "openai_compatible"),
        ("https://notopenai.com/v1/chat/completions", "openai", "openai_compatible"),
        ("https://x.openai.azure.com/openai/deployments/d/chat/completions", "openai", "azure"),
        ("https://x.openai.azure.com/openai/deployments/d/chat/completions", "azure", "azure"),
        (
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "azure",
            "azure dated",
        ),
        ("http://[bad", "openai", "openai_compatible"),
        ("http://localhost:8000/v1/chat/completions", "deepseek", "deepseek"),
    ],
)
def test_openai_with_another_address_is_any_compatible_server(url: str, provider: str, expected: str) -> None:
    assert quirks_of(CHAT, deployment(url, provider), "m") == quirks_in(CHAT, expected, "m")


@pytest.mark.parametrize(
    ("url", "provider", "expected"),
    [
        ("https://api.openai.com/v1/responses", "openai", "openai"),
        ("http://localhost:8000/v1/responses", "openai", "openai elsewhere"),
        ("https://x.openai.azure.com/openai/v1/responses", "openai", "azure"),
        ("https://gateway.example/openai/v1/responses?api-version=preview", "azure", "azure"),
        ("https://gateway.example/openai/responses?api-version=2025-04-01-preview", "azure", "azure dated"),
    ],
)
def test_an_address_of_responses_has_the_quirks_of_who_is_there(url: str, provider: str, expected: str) -> None:
    assert quirks_of(RESPONSES, deployment(url, provider), "m") == quirks_in(RESPONSES, expected, "m")
