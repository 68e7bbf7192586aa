"""Reasoning is restored before what it led to, completely or not at all, and the same every time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
import trio
from kit.service.contexts import context, deployment, request
from msgspec import Raw
from msgspec.structs import replace

from pipeline.testing import check_stage, collect
from stages.events import Finished, ReasoningItem, StreamEvent, TextDelta, ToolCallStarted
from stages.principal import Principal
from stages.reasoning.keys import Scope, text_of
from stages.reasoning.store import MemoryStore
from stages.remember_reasoning import remember_reasoning
from stages.restore_reasoning import restore_reasoning
from stages.slots import SENT_REASONING
from stages.upstreams import Deployment, UpstreamCall
from stages.wire.downstream.request import parse_body
from stages.wire.normal_form import ENCRYPTED

Json = dict[str, Any]
CONVERSATION = {"cursorConversationId": "3f0b6f7e-6d0e-4a83-9a51-1e2f7c2a9b10"}
SYSTEM: Json = {"role": "system", "content": "You are an agent."}
TASK: Json = {"role": "user", "content": "fix it"}


def said(text: str) -> Json:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


def called(call_id: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "Read", "arguments": "{}"}


def result(call_id: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": "ok"}


def reasoning(name: str) -> Json:
    return {"type": "reasoning", "summary": [], "id": name, "encrypted_content": f"ENC-{name}"}


class Chat:
    """A conversation with one deployment: answers pass remember_reasoning, requests pass restore_reasoning."""

    def __init__(self, **fields: Any) -> None:
        self.store = MemoryStore()
        self.deployment: Deployment = deployment(**fields)
        self.model = "gpt-5"
        self.principal = Principal("anna")
        self.headers: dict[bytes, bytes] = {}

    def call(self, items: Any, **body: Any) -> UpstreamCall:
        whole = {"input": items, "metadata": CONVERSATION, **body}
        return UpstreamCall(request=request(body=whole), deployment=self.deployment, model=self.model)

    async def answer(self, items: Any, *answer: str, form: Any = "responses") -> None:
        """Let the model answer ``items`` with reasoning (``r:``; ``j:`` as JSON), calls (``c:``), text (``t:``)."""
        events: list[StreamEvent] = []
        index = said_chars = 0
        for kind, _, value in (part.partition(":") for part in answer):
            if kind in ("r", "j"):
                payload = reasoning(value) if kind == "r" and form == "responses" else json.loads(value)
                offset = said_chars if form == "anthropic" else 0
                events.append(ReasoningItem(form, Raw(json.dumps(payload).encode()), offset))
            elif kind == "c":
                events.append(ToolCallStarted(index, value, "Read"))
                index += 1
            else:
                said_chars += len(value) if said_chars else len(value.lstrip())
                events.append(TextDelta(value))
        events.append(Finished("tool_calls" if index else "stop"))
        ctx = context(upstream_call=self.call(items), principal=self.principal, headers=self.headers)
        await collect(remember_reasoning(self.store), *events, context=lambda: ctx)

    async def ask(self, items: Any, **body: Any) -> UpstreamCall:
        asked = self.call(items, **body)
        ctx = context(upstream_call=asked, principal=self.principal, headers=self.headers)
        (completed,) = await collect(restore_reasoning(self.store), asked, context=lambda: ctx)
        assert asked.request.body["input"] is items, "the stage must not change the request"
        return completed

    async def input(self, items: Any, **body: Any) -> list[Json]:
        """Return the upstream's input, with reasoning replaced by its id."""
        sent = (await self.ask(items, **body)).request.body["input"]
        return [item["id"] if item.get("type") == "reasoning" and "id" in item else item for item in sent]


START = [SYSTEM, TASK]


async def test_reasoning_comes_before_its_calls_once_for_a_parallel_group() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a", "c:call_b")
    history = [*START, called("call_a"), called("call_b"), result("call_a"), result("call_b")]
    got = await chat.input(history)
    assert got == [*START, "rs1", *history[2:]]


async def test_the_item_is_the_upstreams_without_fields_that_it_would_refuse() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a")
    sent = (await chat.ask([*START, called("call_a"), result("call_a")])).request.body["input"]
    assert sent[2] == {"type": "reasoning", "summary": [], "id": "rs1", "encrypted_content": "ENC-rs1"}


async def test_calls_with_results_between_them_are_still_one_turn() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a", "r:rs2", "c:call_b")
    got = await chat.input([*START, called("call_a"), result("call_a"), called("call_b"), result("call_b")])
    expected = [*START, "rs1", called("call_a"), result("call_a"), "rs2", called("call_b"), result("call_b")]
    assert got == expected


async def test_reasoning_comes_before_the_text_that_a_client_puts_before_the_calls() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "t:I look.", "r:rs2", "c:call_a")
    got = await chat.input([*START, said("I look."), called("call_a"), result("call_a")])
    assert got == [*START, "rs1", said("I look."), "rs2", called("call_a"), result("call_a")]


async def test_reasoning_before_a_text_after_the_calls_comes_before_the_text() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a", "r:rs2", "t:Now wait.")
    got = await chat.input([*START, said("Now wait."), called("call_a"), result("call_a")])
    assert got == [*START, "rs1", "rs2", said("Now wait."), called("call_a"), result("call_a")]


async def test_a_custom_call_that_comes_back_in_a_function_envelope_is_found() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_patch")
    body = {
        "model": "gpt-5",
        "messages": [
            *START,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_patch", "type": "function", "function": {"name": "ApplyPatch", "arguments": "*** x"}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_patch", "content": "ok"},
        ],
        "tools": [{"type": "custom", "name": "ApplyPatch"}],
    }
    items = parse_body(json.dumps(body).encode()).body["input"]
    got: list[Any] = await chat.input(items)
    assert got[2] == "rs1"
    assert (got[3]["type"], got[3]["call_id"]) == ("custom_tool_call", "call_patch")


async def test_a_turn_without_calls_is_found_by_its_text_and_its_place() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "t:Done.")
    again = [*START, said("Done. "), TASK]
    await chat.answer(again, "r:rs2", "t:Done.")
    got = await chat.input([*again, said("Done."), TASK])
    assert got == [*START, "rs1", said("Done. "), TASK, "rs2", said("Done."), TASK]


async def test_a_text_is_found_in_a_body_of_the_other_shape_without_a_conversation_name() -> None:
    chat = Chat()
    parts = [{"type": "input_text", "text": "fix it\n"}]
    again = [SYSTEM, {"role": "user", "content": " "}, {"role": "user", "content": parts}, said("Done."), TASK]
    await chat.answer(START, "r:rs1", "t:Done.")
    await chat.answer([*START, {"role": "assistant", "content": "Done."}, TASK], "r:rs2", "t:Done.")
    got = await chat.input([*again, said("Done.")], metadata={})
    assert got == [*again[:3], "rs1", *again[3:], "rs2", said("Done.")]


@pytest.mark.parametrize("asked", ["fix that", "", "fix itfix it"])
async def test_the_same_text_after_other_user_messages_is_another_turn(asked: str) -> None:
    chat = Chat()
    await chat.answer([*START, TASK], "r:rs1", "t:Done.")
    other = [*START, {"role": "user", "content": asked}, said("Done.")]
    assert await chat.input(other) == other


async def test_a_plain_text_input_becomes_a_user_message_in_the_next_turn() -> None:
    chat = Chat()
    await chat.answer("fix it", "r:rs1", "t:Done.")
    assert await chat.input([TASK, said("Done."), TASK]) == [TASK, "rs1", said("Done."), TASK]


async def test_a_whole_conversation_has_the_same_prefix_in_every_turn_and_every_replay() -> None:
    chat = Chat()
    history: list[Json] = list(START)
    sent: list[bytes] = []
    for turn in range(10):
        ids = [f"call_{turn}_{part}" for part in range(1 + turn % 3)]
        sent.append(msgspec.json.encode((await chat.ask(list(history))).request.body["input"]))
        await chat.answer(list(history), f"r:rs{turn}", *(f"c:{call_id}" for call_id in ids))
        history += [*map(called, ids), *map(result, ids)]
    for shorter, longer in itertools.pairwise(sent):
        assert longer.startswith(shorter[:-1])
    final = [msgspec.json.encode((await chat.ask(list(history))).request.body) for _ in range(2)]
    assert final[0] == final[1]
    assert final[0].count(b'"reasoning"') == 10


async def test_other_turns_are_restored_even_if_one_was_lost() -> None:
    chat = Chat()
    lost = Chat()
    await lost.answer(START, "r:rs0", "c:call_a")
    history = [*START, called("call_a"), result("call_a")]
    await chat.answer(history, "r:rs1", "c:call_b")
    got = await chat.input([*history, called("call_b"), result("call_b")])
    assert got == [*history, "rs1", called("call_b"), result("call_b")]


@pytest.mark.parametrize(
    "history",
    [
        [*START, called("call_a"), result("call_a")],
        [*START, called("call_b"), called("call_a"), result("call_a"), result("call_b")],
        [*START, reasoning("rs1"), called("call_a"), called("call_b"), result("call_a"), result("call_b")],
        [*START, called("call_a"), reasoning("own"), called("call_b"), result("call_a"), result("call_b")],
        [*START, {"type": "function_call", "call_id": 5}, {"type": None}, {"role": "assistant", "content": None}],
    ],
    ids=["a call is missing", "another order", "already there", "other reasoning", "odd items"],
)
async def test_a_turn_that_differs_from_the_stored_one_is_not_changed(history: list[Json]) -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a", "r:rs2", "c:call_b")
    assert (await chat.ask(history)).request.body["input"] is history


@pytest.mark.parametrize(
    "change",
    [
        {"principal": Principal("bob")},
        {"deployment": deployment(id="other-account")},
        {"deployment": deployment(kind="chat")},
        {"deployment": deployment(kind="canned")},
    ],
    ids=["another key", "another account", "another kind", "canned"],
)
async def test_reasoning_stays_with_its_key_and_its_deployment(change: Json) -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a")
    history = [*START, called("call_a"), result("call_a")]
    for name, value in change.items():
        setattr(chat, name, value)
    assert await chat.input(history) == history


async def test_reasoning_stays_with_its_model_and_its_conversation() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a")
    history = [*START, called("call_a"), result("call_a")]
    assert await chat.input(history, metadata={"cursorConversationId": "another"}) == history
    asked = replace(chat.call(history), model="gpt-6")
    ctx = context(upstream_call=asked, principal=chat.principal)
    (completed,) = await collect(restore_reasoning(chat.store), asked, context=lambda: ctx)
    assert completed.request.body["input"] is history


async def test_an_id_of_openai_without_a_digit_identifies_its_turn_in_every_conversation() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_dLXwVUJfvwADLqatGvdmpbvR")
    history = [*START, called("call_dLXwVUJfvwADLqatGvdmpbvR"), result("call_dLXwVUJfvwADLqatGvdmpbvR")]
    got = await chat.input(history, metadata={"cursorConversationId": "another"})
    assert len(got) == len(history) + 1


async def test_text_and_signed_blocks_are_valid_for_every_deployment_of_the_model() -> None:
    chat = Chat(kind="chat", id="first")
    await chat.answer(START, 'r:{"reasoning_content": "Let me look."}', "c:call_a", form="chat")
    chat.deployment = deployment(kind="chat", id="second", url="http://elsewhere/v1")
    got = await chat.input([*START, called("call_a"), result("call_a")])
    assert got[2] == {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me look."}],
    }


COMMENTARY = 'j:{"type": "message", "phase": "commentary"}'
FINAL = 'j:{"type": "message", "phase": "final_answer"}'


async def test_the_phase_of_a_turn_comes_back_whatever_the_shape_of_its_text() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", COMMENTARY, "t:I look.", "c:call_a")
    history = [*START, said("I look."), called("call_a"), result("call_a")]
    await chat.answer(history, FINAL, "t:Done.")
    plain = {"role": "assistant", "content": "Done."}
    assert await chat.input([*history, plain, TASK]) == [
        *START,
        "rs1",
        {**said("I look."), "phase": "commentary"},
        *history[3:],
        {**plain, "phase": "final_answer"},
        TASK,
    ]


async def test_a_phase_that_the_client_sends_itself_is_kept() -> None:
    chat = Chat()
    await chat.answer(START, COMMENTARY, "t:Done.")
    sent = [*START, {**said("Done."), "phase": "final_answer"}, TASK]
    assert await chat.input(sent) == sent


async def test_the_namespace_of_a_call_comes_back() -> None:
    chat = Chat()
    await chat.answer(START, "c:call_a", 'j:{"type": "function_call", "namespace": "mcp"}', "c:call_b", "c:call_c")
    calls = [called("call_a"), called("call_b"), called("call_c")]
    results = [result("call_a"), result("call_b"), result("call_c")]
    named = [calls[0], {**calls[1], "namespace": "mcp"}, calls[2]]
    assert await chat.input([*START, *calls, *results]) == [*START, *named, *results]
    assert await chat.input([*START, *named, *results]) == [*START, *named, *results]
    without = [*START, calls[0], results[0]]
    assert await chat.input(without) == without


async def test_details_of_reasoning_that_came_last_belong_to_the_last_call() -> None:
    chat = Chat(kind="chat")
    late = 'r:{"reasoning_details": [{"type": "reasoning.encrypted", "data": "E"}]}'
    await chat.answer(START, "c:call_a", late, form="chat")
    await chat.answer([TASK], 'r:{"reasoning_content": "t"}', "t:Done.", late, form="chat")
    got = await chat.input([*START, called("call_a"), result("call_a")])
    details = {"type": "reasoning", "summary": [], "reasoning_details": [{"type": "reasoning.encrypted", "data": "E"}]}
    assert got == [*START, details, called("call_a"), result("call_a")]
    got = await chat.input([TASK, said("Done."), TASK])
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}
    assert got == [TASK, thought, details, said("Done."), TASK]


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_deepseeks_pro_and_flash_read_each_others_reasoning(kind: str) -> None:
    chat = Chat(kind=kind)
    chat.model = "deepseek-v4-pro"
    thought = 'j:{"content": [{"type": "reasoning_text", "text": "t"}], "reasoning_content": "t"}'
    await chat.answer(START, thought, "c:call_a", form=kind)
    history = [*START, called("call_a"), result("call_a")]
    for model, is_restored in [("deepseek-flash", True), ("deepseek-v4-flash", True), ("deepseek-v3", False)]:
        chat.model = model
        chat.deployment = replace(chat.deployment, id=model)
        assert (len(await chat.input(history)) > len(history)) is is_restored, model


async def test_anthropic_blocks_come_back_with_their_signature() -> None:
    chat = Chat(kind="anthropic")
    block = {"type": "thinking", "thinking": "t", "signature": "s"}
    await chat.answer(START, f"r:{json.dumps(block)}", "t:Hm.", "c:call_a", form="anthropic")
    got = await chat.input([*START, said("Hm."), called("call_a"), result("call_a")])
    assert got[2] == {"type": "reasoning", "summary": [], "anthropic_blocks": [block]}


def block(name: str) -> Json:
    return {"type": "thinking", "thinking": "", "signature": name}


def signatures(items: list[Json]) -> list[Any]:
    """Return the items, those of reasoning as their signatures, and the assistant's messages as their text."""
    return [
        "+".join(one["signature"] for one in item["anthropic_blocks"])
        if "anthropic_blocks" in item
        else text_of(item)
        if item.get("role") == "assistant"
        else item
        for item in items
    ]


TURN = ("r:A", "t: I look. ", "r:B", "t:Then I ", "t:write.", "r:C", "r:D")
"""A turn of Claude, without its end. The client joins the texts, and may trim them."""


async def answered(*end: str, **fields: Any) -> Chat:
    chat = Chat(kind="anthropic", **fields)
    events = [f"r:{json.dumps(block(part[2:]))}" if part[0] == "r" else part for part in (*TURN, *end)]
    await chat.answer(START, *events, form="anthropic")
    return chat


@pytest.mark.parametrize("text", [" I look. Then I write.", "I look. Then I write.\n"])
async def test_text_is_divided_where_claude_thought(text: str) -> None:
    chat = await answered("c:call_a")
    first, second = text[: text.index("Then")], text[text.index("Then") :]
    for content in (text, [{"type": "output_text", "text": text}]):
        history = [*START, {"role": "assistant", "content": content, "id": "m"}, called("call_a"), result("call_a")]
        sent = (await chat.ask(history)).request.body["input"]
        assert signatures(sent) == [*START, "A", first, "B", second, "C+D", called("call_a"), result("call_a")]
        assert "id" not in sent[3]


async def test_a_turn_without_calls_is_divided_too_and_a_second_time_the_same() -> None:
    chat = Chat(kind="anthropic")
    thoughts = [f"r:{json.dumps(block(name))}" for name in "AB"]
    await chat.answer(START, thoughts[0], "t:One.", thoughts[1], "t:Two.", form="anthropic")
    history = [*START, said("One.Two."), TASK]
    for _ in range(2):
        sent = (await chat.ask(history)).request.body["input"]
        assert signatures(sent) == [*START, "A", "One.", "B", "Two.", TASK]


async def test_text_before_the_first_thought_counts_too() -> None:
    chat = Chat(kind="anthropic")
    await chat.answer(START, "t:One.", f"r:{json.dumps(block('A'))}", "t:Two.", "c:call_a", form="anthropic")
    end = [called("call_a"), result("call_a")]
    sent = (await chat.ask([*START, said("One.Two."), *end])).request.body["input"]
    assert signatures(sent) == [*START, "One.", "A", "Two.", *end]


async def test_a_text_that_came_back_in_parts_or_messages_is_divided_all_the_same() -> None:
    chat = await answered("c:call_a")
    end = [called("call_a"), result("call_a")]
    parts = [{"type": "output_text", "text": text} for text in ("I lo", "", "ok. Then", " I write.")]
    cached = {"role": "assistant", "content": parts, "cache_control": {"type": "ephemeral"}}
    sent = (await chat.ask([*START, cached, *end])).request.body["input"]
    assert signatures(sent) == [*START, "A", "I look. ", "B", "Then I write.", "C+D", *end]
    assert [item.get("cache_control") for item in sent[3:6:2]] == [None, {"type": "ephemeral"}]
    two = [said("I look. "), said("Then I write.")]
    sent = (await chat.ask([*START, *two, *end])).request.body["input"]
    assert signatures(sent) == [*START, "A", "I look. ", "B", "Then I write.", "C+D", *end]


async def test_a_text_that_was_cut_off_or_left_out_keeps_the_blocks_in_their_order() -> None:
    chat = await answered("c:call_a")
    end = [called("call_a"), result("call_a")]
    sent = (await chat.ask([*START, said("I look."), *end])).request.body["input"]
    assert signatures(sent) == [*START, "A", "I look.", "B", "C+D", *end]
    sent = (await chat.ask([*START, said("I"), said("look"), *end])).request.body["input"]
    assert signatures(sent) == [*START, "A", "I", "look", "B", "C+D", *end]
    sent = (await chat.ask([*START, *end])).request.body["input"]
    assert signatures(sent) == [*START, "A", "B", "C+D", *end]


async def forgotten(chat: Chat, items: list[Json]) -> None:
    """Ask, and forget all reasoning of the request, as call_upstream does when it was refused."""
    asked = chat.call(items)
    ctx = context(upstream_call=asked, principal=chat.principal)
    await collect(restore_reasoning(chat.store), asked, context=lambda: ctx)
    sent = ctx[SENT_REASONING]
    sent.forget()


async def test_forgotten_reasoning_stays_away_and_what_is_made_later_comes_back() -> None:
    chat = await answered("c:call_a")
    history = [*START, said("I look. Then I write."), called("call_a"), result("call_a")]
    await forgotten(chat, history)
    assert await chat.input(history) == history
    await chat.answer(history, f"r:{json.dumps(block('E'))}", "t:Done.", form="anthropic")
    longer = [*history, said("Done."), TASK]
    sent = (await chat.ask(longer)).request.body["input"]
    assert signatures(sent) == [*signatures(history), "E", "Done.", TASK]


async def test_reasoning_that_the_client_sent_itself_is_forgotten_too() -> None:
    chat = Chat(kind="anthropic")
    own = {"type": "reasoning", "summary": [], "anthropic_blocks": [block("own"), {"type": "redacted_thinking"}]}
    history = [*START, own, said("Hm."), TASK]
    assert await chat.input(history) == history
    await forgotten(chat, history)
    assert await chat.input(history) == [*START, said("Hm."), TASK]
    later = {**own, "anthropic_blocks": [{"type": "redacted_thinking", "data": "x"}, 5]}
    assert await chat.input([*history, later, said("Hm.")]) == [*START, said("Hm."), TASK, later, said("Hm.")]


async def test_a_request_without_reasoning_has_nothing_to_forget() -> None:
    chat = Chat(kind="anthropic")
    asked = chat.call([*START, said("Hm."), TASK])
    ctx = context(upstream_call=asked, principal=chat.principal)
    await collect(restore_reasoning(chat.store), asked, context=lambda: ctx)
    assert ctx.get(SENT_REASONING) is None


@pytest.mark.parametrize(("model", "is_bound"), [("claude-opus-5-5", False), ("claude-sonnet-5-5", True)])
def test_blocks_of_some_models_are_bound_to_the_deployment(model: str, is_bound: bool) -> None:
    keys = {
        Scope(
            Principal("anna"),
            UpstreamCall(request=request(), deployment=deployment(id=name, kind="anthropic"), model=model),
            "c",
        ).of_call("call_1")
        for name in ("one", "other")
    }
    assert len(keys) == 1 + is_bound


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
async def test_a_conversation_stored_by_the_upstream_is_not_changed(field: str) -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a")
    history = [*START, called("call_a"), result("call_a")]
    asked = chat.call(history, store=True, **{field: "resp_1"})
    (completed,) = await collect(restore_reasoning(chat.store), asked, context=lambda: context(upstream_call=asked))
    assert completed is asked


# The name of the conversation.


async def key_of(chat: Chat, items: Any, **body: Any) -> Any:
    return (await chat.ask(items, **body)).request.body.get("prompt_cache_key")


async def test_the_prompt_cache_key_is_the_clients_or_the_conversation() -> None:
    chat = Chat()
    assert await key_of(chat, START, prompt_cache_key="mine") == "mine"
    assert await key_of(chat, START) == CONVERSATION["cursorConversationId"]
    chat.headers = {b"x-cursor-conversation-id": b"from-header"}
    assert await key_of(chat, START, metadata={}) == "from-header"
    assert await key_of(chat, START) == CONVERSATION["cursorConversationId"]


async def test_without_a_name_the_conversation_is_the_first_user_messages_and_never_user() -> None:
    chat = Chat()
    first = await key_of(chat, START, metadata={}, user="u1")
    assert len(first) == 64
    later = [*START, said("hm"), {"role": "user", "content": "go on"}]
    assert await key_of(chat, later, metadata=None, user="u2") == first
    info: Json = {"role": "user", "content": [{"type": "input_text", "text": "OS: linux"}]}
    one, other = [[SYSTEM, info, {"role": "user", "content": query}] for query in ("a", "b")]
    assert await key_of(chat, one, metadata={}) != await key_of(chat, other, metadata={})
    assert await key_of(chat, "fix it", metadata={}) == first


async def test_a_long_conversation_id_is_shortened_to_openais_limit() -> None:
    chat = Chat()
    keys = [await key_of(chat, START, metadata={"cursorConversationId": "x" * 90 + end}) for end in "ab"]
    assert [len(key) for key in keys] == [64, 64]
    assert keys[0] != keys[1]


async def test_without_a_store_the_conversation_is_still_named() -> None:
    asked = Chat().call(START, reasoning={"effort": "low"}, store=False)
    (completed,) = await collect(restore_reasoning(None), asked, context=lambda: context(upstream_call=asked))
    assert completed.request.body["prompt_cache_key"] == CONVERSATION["cursorConversationId"]
    assert "include" not in completed.request.body


@pytest.mark.parametrize(
    ("body", "include"),
    [
        ({"store": False, "reasoning": {"effort": "low"}}, [ENCRYPTED]),
        ({"tools": [{}], "reasoning": {"effort": "low"}}, [ENCRYPTED]),
        ({"store": False, "reasoning": {}, "include": ["x"]}, ["x", ENCRYPTED]),
        ({"store": False, "reasoning": {"effort": "low"}, "include": ["x"]}, ["x", ENCRYPTED]),
        ({"store": False, "reasoning": {"effort": "low"}, "include": [ENCRYPTED]}, [ENCRYPTED]),
        ({"reasoning": {"effort": "low"}}, None),
        ({"store": False}, [ENCRYPTED]),  # GPT-5 thinks anyway
        ({"store": True, "reasoning": {"effort": "low"}, "tools": [{}]}, None),
    ],
)
async def test_encrypted_reasoning_is_requested_where_it_can_be_sent_back(body: Json, include: Any) -> None:
    assert (await Chat().ask(START, **body)).request.body.get("include") == include
    assert "include" not in (await Chat(kind="chat").ask(START, store=False, reasoning={"x": 1})).request.body


def test_it_passes_every_check_and_declares_its_wait() -> None:
    class SlowStore(MemoryStore):
        async def find(self, keys: Iterable[bytes], /) -> dict[bytes, bytes]:
            await trio.sleep(3)
            return await super().find(keys)

    asked = Chat().call([*START, called("call_a"), result("call_a")])
    (given,) = check_stage(restore_reasoning(SlowStore()), asked, context=lambda: context(upstream_call=asked))
    assert given.request.body["input"] == asked.request.body["input"]


async def test_a_value_from_another_version_is_ignored() -> None:
    chat = Chat()
    await chat.answer(START, "r:rs1", "c:call_a")
    for key in list(chat.store.take_all()):
        chat.store.put(key, b'{"another": "form"}')
    history = [*START, called("call_a"), result("call_a")]
    assert await chat.input(history) == history
