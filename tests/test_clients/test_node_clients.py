"""openai-node and the AI SDK against the running service: docs/facts/translation.md, "How clients react".

`make test-clients` installs them from ``clients/package-lock.json`` into a throw-away folder, and runs this.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from kit.clients.chat_posts import CREATED, delta, response_of
from kit.needs import NODE_CLIENTS, NODE_CLIENTS_FOLDER, needs
from kit.service.running import KEY, Service, model, serving
from kit.upstreams.scripted import Exchange, scripted_upstream, sse_head

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = NODE_CLIENTS_FOLDER
NODE = shutil.which("node") or "node"

pytestmark = needs(NODE_CLIENTS)

PATCH = "*** Begin Patch\n*** Update File: a.py\n+ü\n*** End Patch"


def item(kind: str, at: int, **fields: Any) -> list[Json]:
    whole = {"type": kind, "id": f"item_{at}"} | fields
    empty = whole | {name: "" for name in ("arguments", "input") if name in fields}
    deltas: list[Json] = []
    for name, event in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
        if text := fields.get(name):
            halves = (text[: len(text) // 2], text[len(text) // 2 :])
            deltas = [{"type": f"response.{event}.delta", "output_index": at, "delta": half} for half in halves]
    return [
        {"type": "response.output_item.added", "output_index": at, "item": empty},
        *deltas,
        {"type": "response.output_item.done", "output_index": at, "item": whole},
    ]


def final(events: list[Json], text: str = "") -> Json:
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    response = response_of(text)
    return {"type": "response.completed", "response": response | {"output": items or response["output"]}}


READ = item("function_call", 0, call_id="call_a", name="Read", arguments='{"path":"a"}')
READ_TOO = item("function_call", 1, call_id="call_b", name="Read", arguments='{"path":"b"}')
APPLY = item("custom_tool_call", 0, call_id="call_p", name="ApplyPatch", input=PATCH)
REFUSAL = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "I can't."}
REFUSED = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I can't."}]}
THOUGHT = [
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": text}
    for text in ("Let me ", "think.")
]
ERROR = {"type": "error", "error": {"code": "server_error", "message": "The model broke.", "type": "server_error"}}
EARLY = "The upstream's stream ended before its answer was complete; try again."

SCENARIOS: dict[str, list[Json]] = {
    "text": [delta("Hel"), delta("lo"), final([], "Hello")],
    "parallel": [*READ, *READ_TOO, final([*READ, *READ_TOO])],
    "custom": [*APPLY, final(APPLY)],
    "refusal": [REFUSAL, {"type": "response.completed", "response": response_of("") | {"output": [REFUSED]}}],
    "reasoning": [*THOUGHT, delta("Hello") | {"output_index": 1}, final([], "Hello")],
    "early_end": [delta("Hel")],
    "mid_error": [delta("Hel"), ERROR],
}
CALLS = {
    "parallel": [
        {"id": "call_a", "name": "Read", "arguments": '{"path":"a"}'},
        {"id": "call_b", "name": "Read", "arguments": '{"path":"b"}'},
    ],
    "custom": [{"id": "call_p", "name": "ApplyPatch", "arguments": PATCH}],
}
TEXT = {"text": "Hello", "reasoning": "Hello", "early_end": "Hel", "mid_error": "Hel"}
BROKEN = {"early_end": EARLY, "mid_error": "The model broke."}


async def upstream_of(exchange: Exchange) -> None:
    asked = exchange.request.json()
    events = SCENARIOS[asked["model"]]
    await exchange.send(sse_head())
    for event in [CREATED, *events]:
        await exchange.send_chunk(b"data: %b\n\n" % json.dumps(event).encode())
    await exchange.send(b"0\r\n\r\n")


@asynccontextmanager
async def service_with_scenarios() -> AsyncIterator[Service]:
    async with (
        scripted_upstream(upstream_of) as up,
        serving(model("*", up.url, upstream="openai/*")) as service,
    ):
        yield service


async def run_client(service: Service, script: str, *arguments: str) -> Json:
    """Run a script beside its node_modules, and read what it prints."""
    shutil.copy(ROOT / "clients" / script, FOLDER / script)
    command = [NODE, str(FOLDER / script), f"{service.url}/v1", KEY, *arguments]
    ended = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b"", "a client warned"
    printed: Json = json.loads(ended.stdout)
    return printed


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_openai_node_reads_it(scenario: str) -> None:
    async with service_with_scenarios() as service:
        seen = await run_client(service, "openai_node.mjs", scenario)
    ways = {"iteration": seen["iteration"], "helper": seen["helper"], "whole": seen["whole"]}
    if scenario in BROKEN:
        for way in ways.values():
            assert BROKEN[scenario] in way["error"]["message"]
        assert ways["iteration"]["content"] == "Hel"
        assert ways["iteration"]["finish"] is None
        return
    for name, way in ways.items():
        assert way["error"] is None, name
        assert way["content"] == TEXT.get(scenario, "")
        assert way["refusal"] == ("I can't." if scenario == "refusal" else "")
        assert way["calls"] == CALLS.get(scenario, [])
        assert way["finish"] == ("tool_calls" if scenario in CALLS else "stop")
        assert way["usage"] == 5, name
    assert ways["iteration"]["reasoning"] == ("Let me think." if scenario == "reasoning" else "")


@pytest.mark.parametrize("provider", ["compatible", "openai"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_ai_sdk_reads_it(scenario: str, provider: Literal["compatible", "openai"]) -> None:
    async with service_with_scenarios() as service:
        seen = await run_client(service, "ai_sdk.mjs", scenario, provider)
    by_provider, streamed = seen["provider"], seen["streamText"]
    assert seen["warnings"] == []
    assert by_provider["warnings"] == []
    if scenario in BROKEN:
        for way in (by_provider, streamed):
            assert way["text"] == "Hel"
            assert [error["message"] for error in way["errors"]] == [BROKEN[scenario]]
            assert way["finish"] not in ("stop", "tool-calls")
        return
    for way in (by_provider, streamed):
        assert way["errors"] == []
    # It has no part for a refusal; only the compatible provider shows it, as text (docs/facts/translation.md).
    shown = by_provider["text"] if scenario == "refusal" else TEXT.get(scenario, "")
    assert by_provider["text"] == streamed["text"] == shown
    assert shown in ("", "I can't.") or scenario != "refusal"
    assert by_provider["calls"] == CALLS.get(scenario, [])
    if scenario != "refusal":
        assert by_provider["finish"] == ("tool-calls" if scenario in CALLS else "stop")
    assert by_provider["usage"] == 2
    # Only the compatible provider reads reasoning_content; OpenAI's own has no such field.
    reasoning = "Let me think." if scenario == "reasoning" and provider == "compatible" else ""
    assert by_provider["reasoning"] == streamed["reasoning"] == reasoning
    if scenario == "parallel":
        assert [call["input"] for call in streamed["calls"]] == [{"path": "a"}, {"path": "b"}]


async def test_a_client_sees_a_failure_before_the_first_byte_as_a_status() -> None:
    async with serving() as service:
        seen = await run_client(service, "openai_node.mjs", "no-such-model")
        for way in ("iteration", "helper", "whole"):
            assert (seen[way]["error"]["status"], seen[way]["error"]["code"]) == (404, "model_not_found")
