"""Every recorded stream through the whole service, over real sockets: the client gets the expected result.

This covers all three kinds of upstream. `tests/test_wire` tests the wire code alone, with many more cuts.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kit.clients.chat_fold import Folded, assert_as_expected, fold_document, fold_stream
from kit.clients.chat_posts import AGENTS, CURSOR, OPENAI_LIKE
from kit.recordings import expected_of, has_whole_snapshot, needs_shared, own_recordings, recordings, shared_recordings
from kit.service.running import Service, model, replay, serving
from kit.upstreams.recorded_documents import Json, anthropic_document, chat_document, responses_document
from kit.upstreams.scripted import Exchange, head, scripted_upstream, sse_head

DEPLOYMENTS = {"responses": "openai/*", "chat": "openai/chat_completions/*", "anthropic": "anthropic/*"}
"""How an upstream of each kind is configured."""
PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "anthropic": "/v1/messages"}
"""The path of each kind, if ``api_base`` has only a host."""
DOCUMENTS: dict[str, Callable[[Path], Json]] = {
    "responses": responses_document,
    "chat": chat_document,
    "anthropic": anthropic_document,
}
"""The answer of each kind to a request without ``stream``."""

BYTE_BY_BYTE_BYTES = 5_000 if os.environ.get("HYPOTHESIS_PROFILE") is None else 1 << 20
"""Recordings up to this size are also sent byte by byte, with a system call for each on both sides; in CI, all are."""

each_recording = pytest.mark.parametrize("path", recordings(*DEPLOYMENTS))
each_responses_recording = pytest.mark.parametrize("path", recordings("responses"))


def kind_of(path: Path) -> str:
    """Return the kind of upstream that a recording is of."""
    return path.parent.name


def cuts(data: bytes, mode: str, seed: str) -> list[bytes]:
    """Cut ``data``: ``whole``, into ``bytes``, or at ``random`` places, often in the middle of characters and lines."""
    if mode == "whole":
        return [data]
    if mode == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    rng = random.Random(seed)
    places = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.choice((3, 40, 200))))})
    return [data[i:j] for i, j in pairwise(places)]


@asynccontextmanager
async def playing(path: Path) -> AsyncIterator[Service]:
    """Serve a recording from a socket as ``socket/<cut mode>``, and by `canned/replay:` as ``<its file name>``.

    ``socket/document`` is the upstream's answer without ``stream``. (The replay supports only the Responses API.)
    """
    kind = kind_of(path)

    async def play(exchange: Exchange) -> None:
        assert exchange.request.path == PATHS[kind]
        asked = exchange.request.json()
        mode = asked["model"]
        if mode == "document":
            assert not asked.get("stream")
            body = json.dumps(DOCUMENTS[kind](path)).encode()
            fields = [("content-type", "application/json"), ("content-length", str(len(body)))]
            await exchange.send(head(200, fields) + body)
            return
        recorded = path.read_bytes()
        if mode == "whole":
            await exchange.send(sse_head(length=len(recorded)) + recorded)
            return
        await exchange.send(sse_head())
        for piece in cuts(recorded, mode, path.stem):
            await exchange.send_chunk(piece)
        await exchange.send(b"0\r\n\r\n")

    async with scripted_upstream(play) as upstream:
        models = model("socket/*", upstream.url, upstream=DEPLOYMENTS[kind])
        if kind == "responses":
            models += replay(path)
        async with serving(models) as service:
            yield service


async def ask(service: Service, name: str, *, stream: bool, agent: str = OPENAI_LIKE) -> Folded:
    """Send one request; return the client's final result, which may be an error document."""
    body: dict[str, Any] = {"model": name, "input": "hi", "stream": stream}
    if agent != CURSOR:
        body["stream_options"] = {"include_usage": True}
    answer = await service.post(body, user_agent=agent)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) - {"upstream_code"} == {"message", "type", "code", "param"}
        return Folded(error=error)
    folded = fold_stream(answer.content) if stream else fold_document(answer.content)
    assert folded.model in (name, None)
    return folded


def assert_expected_by(agent: str, folded: Folded, expected: dict[str, Any]) -> None:
    """Compare, allowing for the differences in responses to Cursor: failures, refusals, empty answers, usage of zero.

    Expected results have no time for kinds whose recordings do not have one in every chunk.
    """
    if expected["created"] == 0 and not expected["error"]:
        assert folded.created is not None
        assert folded.created > 1_600_000_000
        expected = {**expected, "created": folded.created}
    if agent == CURSOR and expected["error"] and folded.error is None:  # reported as text, after the text so far
        assert folded.content is not None
        assert folded.content.endswith(f": {expected['error']['message']}]")
        assert (folded.finish_reason, folded.is_done) == ("stop", True)
        return
    if agent == CURSOR and not expected["error"]:
        has_text = any(message["text"].strip() for message in expected["content_by_message"])
        has_calls = expected["tool_calls"] or expected["native_client_calls"]
        assert folded.content or has_calls, "Cursor would show nothing"
        if expected["refusal"]:
            assert folded.content is not None
            assert folded.content.endswith(expected["refusal"])
            folded = replace(folded, content=folded.content.removesuffix(expected["refusal"]))
        elif not has_text and not has_calls:
            assert folded.content is not None
            assert folded.content.startswith(("[no answer: ", "![image](data:"))
            folded = replace(folded, content=None)
    if agent == CURSOR and expected["usage"]:
        assert folded.usage is not None
        for name, value in expected["usage"].items():
            given = folded.usage[name]
            assert (given if isinstance(value, int) else {key: given[key] for key in value}) == value
        folded = replace(folded, usage=expected["usage"])
    assert_as_expected(folded, expected)


@each_responses_recording
async def test_a_replayed_recording_reaches_each_client_as_expected(path: Path) -> None:
    expected = expected_of(path)
    async with playing(path) as service:
        for agent in AGENTS:
            assert_expected_by(agent, await ask(service, path.name, stream=True, agent=agent), expected)
            if has_whole_snapshot(path):
                assert_expected_by(agent, await ask(service, path.name, stream=False, agent=agent), expected)
        ends = {str(record["end"]) for record in service.records}
        assert ends <= ({"UE", "RL"} if expected["error"] else {"OK"})


@each_recording
async def test_a_recording_from_a_socket_reaches_the_client_as_expected_however_it_is_cut(path: Path) -> None:
    expected = expected_of(path)
    modes = ["whole", "random"]
    if path.stat().st_size <= BYTE_BY_BYTE_BYTES:
        modes.append("bytes")
    async with playing(path) as service:
        for mode in modes:
            assert_expected_by(OPENAI_LIKE, await ask(service, f"socket/{mode}", stream=True), expected)
        assert_expected_by(CURSOR, await ask(service, "socket/random", stream=True, agent=CURSOR), expected)
        # An upstream that streams although the request does not ask for it: the answer is collected from the stream.
        assert_expected_by(OPENAI_LIKE, await ask(service, "socket/random", stream=False), expected)


@pytest.mark.parametrize("path", recordings(*DEPLOYMENTS, only=has_whole_snapshot))
async def test_the_document_of_a_recording_reaches_each_client_as_expected(path: Path) -> None:
    expected = expected_of(path)
    async with playing(path) as service:
        for agent in AGENTS:
            assert_expected_by(agent, await ask(service, "socket/document", stream=False, agent=agent), expected)


@needs_shared
def test_every_shared_recording_is_here() -> None:
    assert [len(shared_recordings(kind)) for kind in ("responses", "chat", "anthropic")] == [33, 9, 9]


@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_enough_streams_are_small_enough_for_single_bytes(kind: str) -> None:
    assert sum(path.stat().st_size <= BYTE_BY_BYTE_BYTES for path in own_recordings(kind)) >= 5


# More about the project's own streams.


# Every stream is cut at every byte in tests/test_wire; over sockets, calls, a failure and a refusal are enough.
CUT_OVER_SOCKETS = [
    path for path in own_recordings("responses") if path.stem in ("agent", "error_mid_stream", "refusal")
]


@pytest.mark.parametrize("path", CUT_OVER_SOCKETS, ids=lambda path: path.stem)
async def test_our_own_streams_have_the_same_result_however_they_are_cut(path: Path) -> None:
    async with playing(path) as service:
        for agent in AGENTS:
            replayed = await ask(service, path.name, stream=True, agent=agent)
            for mode in ("whole", "random", "bytes"):
                cut = await ask(service, f"socket/{mode}", stream=True, agent=agent)
                assert replace(cut, id=None, model=None) == replace(replayed, id=None, model=None)


async def test_our_own_agent_reasons_calls_tools_and_patches() -> None:
    [path] = [path for path in own_recordings("responses") if path.stem == "agent"]
    async with playing(path) as service:
        for stream in (True, False):
            # From the socket, because `replay:` uses the snapshot, which has no output here, as with some gateways.
            folded = await ask(service, "socket/random", stream=stream, agent=CURSOR)
            assert folded.finish_reason == "tool_calls"
            assert folded.reasoning == "**Looking**\n\n**Patching**"
            assert len(folded.tool_calls) >= 3
            assert [call["name"] for call in folded.tool_calls].count("ApplyPatch") == 1
            assert any(call["arguments"].startswith("*** Begin Patch") for call in folded.tool_calls)


async def test_our_own_broken_stream_keeps_its_text() -> None:
    [path] = [path for path in own_recordings("responses") if path.stem == "error_mid_stream"]
    message = "Rate limit reached for gpt-5.4. Please try again in 1.5s."
    async with playing(path) as service:
        reported = await ask(service, path.name, stream=True)
        assert (reported.content, reported.is_done) == ("Let me", False)
        assert reported.error is not None
        assert (reported.error["code"], reported.error["message"]) == ("upstream_rate_limited", message)
        shown = await ask(service, path.name, stream=True, agent=CURSOR)
        assert shown.content == f"Let me\n\n[upstream error: rate_limit_exceeded: {message}]"
        assert (shown.finish_reason, shown.is_done, shown.error) == ("stop", True, None)
        refused = await service.post({"model": "socket/whole", "input": "hi", "stream": False})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert [record["end"] for record in service.records] == ["RL", "RL", "RL"]


async def test_an_empty_stream_is_reported_as_one_that_ended_early() -> None:
    async with scripted_upstream(head(200, [("content-type", "text/event-stream"), ("content-length", "0")])) as up:
        async with serving(model("empty", up.url)) as service:
            answer = await service.post({"model": "empty", "input": "hi", "stream": True})
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
