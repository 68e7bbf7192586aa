"""Request bodies: parsed, normalised, given a deployment, and translated for upstreams of every kind.

An input is the body as a client posts it. It becomes a valid body for the upstream, or a refusal in the 4xx.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from fuzz.cutting import reads, seeded, spoiled
from fuzz.json_trees import encoded, mutated
from fuzz.served import BY_KIND, Service, check_refusal, strict_json
from fuzz.target import DATA, Target
from kit.upstreams.claude_rules import check as check_claude
from msgspec.structs import replace

from pipeline import ClientFault
from stages.request import ResponsesRequest

Json = dict[str, Any]

_WORDS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\x00",
    b"\xff",
    b"null",
    b"1e9",
    b'{"a":',
    b'"model":"m",',
)


class Bodies(Target):
    """Bodies of requests."""

    name = "bodies"

    def __init__(self) -> None:
        super().__init__()
        self._trees = [tree for tree in map(_tree, self.seeds) if tree is not None]
        self._service = Service()

    def recorded(self) -> list[bytes]:
        payloads = (json.loads(path.read_bytes()) for path in sorted((DATA / "requests").glob("*.json")))
        return [json.dumps(payload["request"]["body"]).encode() for payload in payloads]

    def mutated(self, data: bytes, rng: Random) -> bytes:
        tree = _tree(data)
        if tree is None or rng.random() < 0.03:
            return spoiled(data, _WORDS, rng)
        return encoded(mutated(tree, self._trees, rng), rng)

    async def outcome(self, data: bytes) -> str:
        service, rng = self._service, seeded(data)
        try:
            call = await service.accepted(reads(data, rng), service.context(rng))
        except ClientFault as fault:
            check_refusal(fault)
            return f"refused as {fault.code}"
        words: list[str] = []
        once = b""
        for kind, deployments in BY_KIND.items():
            deployment = rng.choice(deployments)
            its_call = replace(call, deployment=deployment, model=deployment.model)
            try:
                body = service.prepared(its_call)
            except ClientFault as fault:
                check_refusal(fault)
                continue
            words.append(kind)
            if kind == "responses":
                once, again = body, its_call
            _CHECKS[kind](strict_json(body), call.request)
        if once:
            assert service.prepared(again) == once, "a translation has changed the request that others share"
        return f"sent to {', '.join(words)}" if words else "has no form in any API"


def _tree(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _check_responses(body: Json, request: ResponsesRequest) -> None:
    """Check what OpenAI's Responses API checks first: the types, and that calls have their outputs."""
    assert body["model"]
    assert body.get("stream") in (None, request.stream)
    assert isinstance(body["input"], str | list)
    assert body["input"]
    if isinstance(body["input"], str):
        return
    is_whole = not any(body.get(name) for name in ("previous_response_id", "conversation"))
    is_whole &= not any(item.get("type") in (None, "item_reference") and "role" not in item for item in body["input"])
    waiting: dict[str, str] = {}
    for item in body["input"]:
        kind = item.get("type", "message")
        assert isinstance(kind, str)
        if kind == "message" and "role" in item:
            assert item["role"] in ("system", "developer", "user", "assistant")
            assert isinstance(item["content"], str | list)
        elif kind in ("function_call", "custom_tool_call"):
            assert item["name"]
            assert isinstance(item["arguments" if kind == "function_call" else "input"], str)
            assert item["call_id"] not in waiting
            waiting[item["call_id"]] = f"{kind}_output"
        elif kind in ("function_call_output", "custom_tool_call_output"):
            assert waiting.pop(item["call_id"], None if is_whole else kind) == kind, "an output without its call"
            assert isinstance(item["output"], str | list)
    assert not (is_whole and waiting), "a call without its output"


def _check_chat(body: Json, request: ResponsesRequest) -> None:
    """Check what Chat Completions checks first: the roles, and that the results of calls follow them."""
    assert body["model"]
    assert body.get("stream") in (None, request.stream)
    assert body["messages"]
    waiting: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            assert isinstance(message["content"], str | list)
            continue
        assert not waiting, "a call without its result"
        assert message["role"] in ("system", "developer", "user", "assistant")
        calls = message.get("tool_calls") or []
        waiting = [call["id"] for call in calls]
        assert len(set(waiting)) == len(waiting)
        for call in calls:
            inner = call[call["type"]]
            assert inner["name"]
            assert isinstance(inner["arguments" if call["type"] == "function" else "input"], str)
        assert message.get("content") or calls, "an empty message"
    assert not waiting, "a call without its result"


def _check_anthropic(body: Json, request: ResponsesRequest) -> None:
    assert bool(body.pop("stream", False)) is request.stream
    check_claude(body)


_CHECKS = {"responses": _check_responses, "chat": _check_chat, "anthropic": _check_anthropic}
