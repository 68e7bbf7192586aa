"""Chats with a Claude that binds its thinking to what came before it: no turn is refused, nothing is lost in vain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.service.running import Service, model, serving
from kit.upstreams.agent_conversation import Cursor, Output, User
from kit.upstreams.bound_claude import BINDING_BETA, BoundClaude, said
from kit.upstreams.scripted import end, error, events, in_turn, scripted_upstream, sse_head

Mode = Literal["agent", "ask"]
Json = dict[str, Any]

ID_A, ID_B, ID_C = "toolu_01A09q90qw90lq917835lq9a", "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "toolu_01WnHTqvxMVGzXcpTmQYVDqQ"
REPLIES = [
    [
        *(
            said("thinking", ""),
            said("text", "I look at it. "),
            said("thinking", "And at that."),
            said("text", "Both.\n"),
        ),
        *(said("redacted_thinking", ""), said("tool_use", ID_A, '{"command": "ls"}')),
    ],
    [said("thinking", "Hm."), said("tool_use", ID_B), said("tool_use", ID_C)],
    [said("thinking", ""), said("text", "It is "), said("thinking", ""), said("text", "done.")],
    [said("thinking", "More."), said("text", "Yes.")],
    [said("thinking", ""), said("text", "Again.")],
    [said("text", "The end.")],
]
RESTORED = [0, 3, 4, 6, 7, 8]
"""How many blocks each turn has behind it."""


@asynccontextmanager
async def talking(
    claude: BoundClaude, pipeline: str = "", *, name: str = "claude-opus-5-5", **params: Any
) -> AsyncIterator[Service]:
    async with (
        scripted_upstream(claude) as up,
        serving(model("claude", up.url, upstream=f"anthropic/{name}", **params), pipeline) as service,
    ):
        yield service


async def turn(service: Service, cursor: Cursor, mode: Mode = "agent", *, stream: bool = True) -> Folded:
    answer = await service.post({**cursor.body(mode), "stream": stream}, user_agent="Cursor/1.0")
    assert answer.status_code == 200, answer.text
    folded = fold_stream(answer.content) if stream else fold_document(answer.content)
    cursor.take(folded)
    return folded


async def first_turns(service: Service, cursor: Cursor, *, stream: bool = True) -> None:
    """Three turns: a call, two calls, and a text."""
    cursor.history.append(User("Do it"))
    await turn(service, cursor, stream=stream)
    cursor.history.append(Output(ID_A, "Shell", "a.py"))
    await turn(service, cursor, stream=stream)
    cursor.history += [Output(ID_B, "Shell", "b"), Output(ID_C, "Shell", "c")]
    await turn(service, cursor, stream=stream)
    cursor.history.append(User("And?"))


def prefix(body: Json, length: int | None = None) -> str:
    """Return the part of a body that the next turn must repeat, as text."""

    def unmarked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: unmarked(inner) for key, inner in value.items() if key != "cache_control"}
        return [unmarked(inner) for inner in value] if isinstance(value, list) else value

    parts = {name: body.get(name) for name in ("system", "tools")}
    return json.dumps(unmarked({**parts, "messages": body["messages"][:length]}))


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2"])
async def test_thinking_text_thinking_text_call_comes_back_in_its_order(
    name: str, stream: bool, transport: str
) -> None:
    claude, cursor = BoundClaude(REPLIES), Cursor("claude")
    async with talking(claude, f"  transport: {transport}", name=name) as service:
        await first_turns(service, cursor, stream=stream)
        for _ in range(2):
            await turn(service, cursor, stream=stream)
            cursor.history.append(User("And?"))
        final = await turn(service, cursor, stream=stream)
    assert final.content == "The end."
    assert claude.refusals == []
    assert claude.dropped == 0
    assert claude.sent_thoughts() == RESTORED
    for earlier, later in zip(claude.accepted, claude.accepted[1:], strict=False):
        assert prefix(later, len(earlier["messages"])) == prefix(earlier)
    assert all("mended" not in record for record in service.records)


@pytest.mark.parametrize("mode", ["agent", "ask"])
async def test_an_edited_history_has_its_blocks_dropped_and_goes_on(mode: Mode) -> None:
    claude, cursor = BoundClaude(REPLIES), Cursor("claude")
    async with talking(claude) as service:
        await first_turns(service, cursor)
        cursor.history[0] = User("Do it, please")
        await turn(service, cursor, mode)
    assert claude.refusals == []
    assert claude.dropped > 0


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", ["claude-opus-5-5", "claude-opus-5", "claude-sonnet-4-5"])
async def test_a_refused_history_is_asked_once_more_without_thinking_and_never_again(
    name: str, stream: bool, transport: str
) -> None:
    claude, cursor = BoundClaude(REPLIES, honours_setting=False), Cursor("claude")
    async with talking(claude, f"  transport: {transport}", name=name) as service:
        await first_turns(service, cursor, stream=stream)
        cursor.history[0] = User("Do it, please")
        answer = await turn(service, cursor, stream=stream)
        assert answer.content == "Yes."
        assert len(claude.refusals) == 1
        record = await service.record(3)
        assert record["mended"] == ["thinking_dropped"]
        assert record["end"] == "OK"
        for _ in range(2):
            cursor.history.append(User("And?"))
            await turn(service, cursor, stream=stream)
        assert "mended" not in await service.record(5)
    assert len(claude.refusals) == 1, "later turns need no second attempt"
    assert claude.sent_thoughts() == [*RESTORED[:3], 0, 1, 2], (
        "what was made before stays away, what came later is kept"
    )


async def test_blocks_of_another_account_are_dropped_and_those_of_the_new_one_are_kept() -> None:
    claude, cursor = BoundClaude(REPLIES, honours_setting=False), Cursor("claude")
    async with talking(claude) as service:
        await first_turns(service, cursor)
        claude.account = "b"
        for _ in range(3):
            await turn(service, cursor)
            cursor.history.append(User("And?"))
    assert len(claude.refusals) == 1
    assert claude.sent_thoughts() == [*RESTORED[:3], 0, 1, 2]


async def test_the_deployments_own_beta_header_is_kept() -> None:
    claude, cursor = BoundClaude(REPLIES), Cursor("claude")
    own = {"anthropic-beta": f"context-1m-2025-08-07, {BINDING_BETA}"}
    cursor.history.append(User("Do it"))
    async with talking(claude, extra_headers=own) as service:
        await turn(service, cursor)
    assert claude.headers[0]["anthropic-beta"] == f"context-1m-2025-08-07,{BINDING_BETA}"


async def test_a_fast_variant_asks_for_speed() -> None:
    claude, cursor = BoundClaude(REPLIES), Cursor("claude-fast")
    cursor.history.append(User("Do it"))
    async with talking(claude) as service:
        await turn(service, cursor)
    (body,) = claude.accepted
    assert body["speed"] == "fast"
    assert "service_tier" not in body
    assert claude.headers[0]["anthropic-beta"] == f"{BINDING_BETA},fast-mode-2026-02-01"


async def test_the_thinking_of_a_model_that_thinks_anyway_is_shown_in_both_shapes() -> None:
    for mode in ("agent", "ask"):
        claude, cursor = BoundClaude(REPLIES[3:]), Cursor("claude")
        cursor.history.append(User("Do it"))
        async with talking(claude) as service:
            body = {key: value for key, value in cursor.body(mode).items() if key != "reasoning"}
            answer = fold_stream((await service.post(body)).content)
        assert claude.accepted[0]["thinking"]["display"] == "summarized"
        assert answer.reasoning == "More."


async def test_a_compatible_endpoint_that_refuses_thinking_is_asked_once_more_without_it() -> None:
    refusal = {"error": {"message": "messages.1.content.0: Invalid `signature` in `thinking` block", "code": 400}}
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Yes."}, "finish_reason": "stop"}]}
    good = (sse_head(), events([chunk, b"data: [DONE]\n\n"]), end())
    messages: list[Json] = [
        {"role": "user", "content": "Do it"},
        {"role": "assistant", "content": "Hm.", "reasoning_content": "let me see"},
        {"role": "user", "content": "And?"},
    ]
    async with (
        scripted_upstream(in_turn((error(400, json.dumps(refusal).encode()),), good)) as up,
        serving(model("chat", up.url, upstream="deepseek/deepseek-chat")) as service,
    ):
        answer = await service.post({"model": "chat", "messages": messages, "stream": True})
        assert fold_stream(answer.content).content == "Yes."
        assert (await service.record())["mended"] == ["thinking_dropped"]
    first, second = (request.json()["messages"][1].get("reasoning_content") for request in up.requests)
    assert (first, second or "") == ("let me see", "")
