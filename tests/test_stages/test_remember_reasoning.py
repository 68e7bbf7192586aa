"""Reasoning is stored under a key made of what the client will send back, and the stream is unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kit.service.contexts import call as new_call
from kit.service.contexts import context, deployment
from msgspec import Raw
from msgspec.structs import replace

from pipeline import RequestContext
from pipeline.testing import check_stage, collect
from stages.events import (
    Failed,
    Finished,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.principal import Principal
from stages.reasoning.keys import Scope, conversation_of, digest_of, prompts_of
from stages.reasoning.store import MemoryStore
from stages.reasoning.turns import BEFORE_TEXT, LEADING, Turn, read_turn
from stages.remember_reasoning import remember_reasoning
from stages.upstreams import UpstreamCall

BODY = {"input": [{"role": "user", "content": "fix it"}], "metadata": {"cursorConversationId": "c-1"}}
CALL = new_call(body=BODY)
START = Started(response_id="r", model="m", created=1)
END = (Usage(1, 1, 2), Finished("tool_calls"))


def reasoned(name: str) -> ReasoningItem:
    item: dict[str, object] = {
        "type": "reasoning",
        "id": name,
        "summary": [],
        "encrypted_content": name * 3,
        "status": None,
    }
    return ReasoningItem("responses", Raw(json.dumps(item).encode()))


def calls(index: int) -> tuple[ToolCallStarted, ToolCallDelta]:
    return ToolCallStarted(index, f"call_{index}x", "Read"), ToolCallDelta(index, "{}")


def contexts(call: UpstreamCall = CALL) -> Callable[[], RequestContext]:
    return lambda: context(upstream_call=call)


def scope(call: UpstreamCall = CALL) -> Scope:
    return Scope(Principal("somebody"), call, conversation_of(call.request, {}))


async def stored(*events: StreamEvent, key: bytes, call: UpstreamCall = CALL) -> Turn | None:
    """Run the events through the stage, and return what is stored under ``key``."""
    store = MemoryStore()
    assert await collect(remember_reasoning(store), *events, context=contexts(call)) == list(events)
    found = await store.find([key])
    assert len(store) == len(found), "something was stored under another key"
    return read_turn(found[key]) if found else None


def places(turn: Turn | None) -> list[tuple[int, str]]:
    assert turn is not None
    return [(piece.place, piece.item["id"]) for piece in turn.pieces]


def test_it_passes_every_check_and_passes_all_events_on() -> None:
    events = (START, reasoned("rs"), *calls(0), reasoned("rs2"), *calls(1), TextDelta("done"), *END)
    given = check_stage(remember_reasoning(MemoryStore()), *events, context=contexts())
    assert given == list(events)


async def test_a_turn_with_calls_is_stored_under_its_first_call() -> None:
    events = (START, reasoned("rs"), *calls(0), *calls(1), *END)
    turn = await stored(*events, key=scope().of_call("call_0x"))
    assert places(turn) == [(LEADING, "rs")]
    assert turn is not None
    assert turn.pieces[0].item == {"type": "reasoning", "summary": [], "id": "rs", "encrypted_content": "rs" * 3}


async def test_reasoning_between_calls_keeps_its_place() -> None:
    events = (reasoned("a"), reasoned("b"), *calls(0), reasoned("c"), *calls(1), reasoned("d"), TextDelta("ok"), *END)
    turn = await stored(*events, key=scope().of_call("call_0x"))
    assert places(turn) == [(LEADING, "a"), (LEADING, "b"), (1, "c"), (BEFORE_TEXT, "d")]


async def test_calls_before_the_first_reasoning_count_too() -> None:
    turn = await stored(TextDelta("hm"), *calls(0), reasoned("a"), *calls(1), *END, key=scope().of_call("call_0x"))
    assert places(turn) == [(1, "a")]


async def test_a_turn_without_calls_is_stored_under_its_text_without_surrounding_white_space() -> None:
    digest = digest_of("Hello  world.")
    assert digest is not None
    key = scope().of_text(digest, prompts_of(BODY["input"]))
    texts = [TextDelta(text) for text in ("\n", " Hello ", " ", "world", ".", " \n", "\n")]
    assert places(await stored(reasoned("a"), *texts, Finished("stop"), key=key)) == [(LEADING, "a")]


@pytest.mark.parametrize("end", [(), (Failed("upstream_error", "it broke"),)], ids=["cut off", "failed"])
async def test_calls_that_have_started_are_stored_even_if_the_answer_breaks_off(end: tuple[StreamEvent, ...]) -> None:
    turn = await stored(reasoned("a"), calls(0)[0], reasoned("b"), *end, key=scope().of_call("call_0x"))
    assert places(turn) == [(LEADING, "a")]


@pytest.mark.parametrize(
    "events",
    [
        (TextDelta("hi"), Finished("stop")),
        (*calls(0), *END),
        (reasoned("a"), Finished("stop")),
        (reasoned("a"), TextDelta("hi"), Failed("upstream_error", "it broke")),
        (reasoned("a"), RefusalDelta("no"), Finished("stop")),
        (TextDelta("hi"), reasoned("a"), TextDelta("ho"), Finished("stop")),
        (ReasoningItem("responses", Raw(b"{not json")), *calls(0), *END),
        (ReasoningItem("chat", Raw(b'{"reasoning_content": "x"}')), *calls(0), *END),
    ],
    ids=["text", "calls", "reasoning only", "text broke off", "refusal", "text first", "not JSON", "foreign form"],
)
async def test_nothing_is_stored_that_could_not_be_restored(events: tuple[StreamEvent, ...]) -> None:
    store = MemoryStore()
    await collect(remember_reasoning(store), *events, context=contexts())
    assert len(store) == 0


async def test_nothing_is_stored_if_there_are_hosted_tools_whose_calls_the_client_never_sees() -> None:
    call = new_call(body=BODY, has_hosted_tools=True)
    assert await stored(reasoned("a"), *calls(0), *END, key=scope(call).of_call("call_0x"), call=call) is None


async def test_a_long_call_id_is_found_by_the_short_form_that_comes_back() -> None:
    long_id = "call-0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d-12\nfc_0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d_12"
    turn = await stored(reasoned("a"), ToolCallStarted(0, long_id, "Read"), *END, key=scope().of_call(long_id))
    assert places(turn) == [(LEADING, "a")]


@pytest.mark.parametrize(
    ("kind", "payloads", "items"),
    [
        (
            "chat",
            [{"reasoning_content": "Let me look."}],
            [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Let me look."}]}],
        ),
        (
            "anthropic",
            [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}],
            [
                {
                    "type": "reasoning",
                    "summary": [],
                    "anthropic_blocks": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "redacted_thinking", "data": "d"},
                    ],
                }
            ],
        ),
    ],
)
async def test_other_kinds_are_stored_in_the_normal_form(kind: Any, payloads: list[Any], items: list[Any]) -> None:
    call = replace(CALL, deployment=deployment(kind=kind))
    events = [ReasoningItem(kind, Raw(json.dumps(payload).encode())) for payload in payloads]
    turn = await stored(*events, *calls(0), *END, key=scope(call).of_call("call_0x"), call=call)
    assert turn is not None
    assert [piece.item for piece in turn.pieces] == items


async def test_nothing_that_the_client_wrote_is_stored() -> None:
    class Spy(MemoryStore):
        seen = b""

        def put(self, key: bytes, value: bytes, /) -> None:
            self.seen += key + value
            super().put(key, value)

    store = Spy()
    await collect(
        remember_reasoning(store), reasoned("a"), TextDelta("the answer"), Finished("stop"), context=contexts()
    )
    assert store.seen
    for text in (b"fix it", b"the answer", b"c-1", b"somebody"):
        assert text not in store.seen
