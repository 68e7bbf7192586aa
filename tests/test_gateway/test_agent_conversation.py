"""Ten turns of an agent against an upstream that refuses what OpenAI refuses: it refuses none of our requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from kit.clients.chat_fold import Folded, fold_stream
from kit.service.running import Service, model, serving
from kit.upstreams.agent_conversation import Cursor, Json, Output, Refused, Reply, Said, StrictResponses, User
from kit.upstreams.scripted import scripted_upstream

IMAGE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
PATCH = "*** Begin Patch\n*** Update File: /w/app/main.py\n@@\n-print('hi')\n+print(\"hello\")\n*** End Patch"
COMPOSITE = [
    f"call-0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d-{n}\nfc_0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d_{n}" for n in range(2)
]
"""Ids of another model's turns in the same chat: 86 characters, of which the first 64 are equal
(docs/facts/cursor.md, "Call ids")."""

# Random, like OpenAI's: such an id identifies its turn in every mode.
ID_READ = "call_MxY0jbrft7EcfC6iNZSUGeIy"
ID_LS = "call_x7aKw382RHPpIpNnCOf0PCk9"
ID_PATCHED = "call_pIletEr8M2ysu6blIM1n4Xja"
ID_RUN = "call_rLolUSEAxAtWyDzNFMZb5V2U"
ID_ASK = "call_LyyH8unOE7CbhPY9VNC0pZ9N"
ID_PATCH_AGAIN = "call_OUbKZP942TymEJCkN8u2s9LK"
ID_TEST = "call_xER0A41FnkDkcUrxxnv42un5"

REPLIES = [
    Reply(
        "I will look.",
        [
            (ID_READ, "ReadFile", '{"path":"main.py"}'),
            (ID_LS, "Shell", '{"command":"ls"}'),
        ],
    ),
    Reply("", [(ID_PATCHED, "ApplyPatch", PATCH)]),
    Reply("Done: it says hello."),
    Reply("The image shows a traceback.", [(ID_RUN, "Shell", '{"command":"python main.py"}')]),
    Reply("It runs now."),
    Reply("It prints hello."),
    Reply("", [(ID_ASK, "ReadFile", '{"path":"README.md"}')]),
    Reply("The README says so."),
    Reply(
        "",
        [
            (ID_PATCH_AGAIN, "ApplyPatch", PATCH),
            (ID_TEST, "Shell", '{"command":"make test"}'),
        ],
    ),
    Reply("All tests pass."),
]


async def ask(service: Service, cursor: Cursor, mode: Literal["agent", "ask"]) -> Folded:
    answer = await service.post(cursor.body(mode), user_agent="Cursor/1.0")
    assert answer.status_code == 200, answer.text
    return fold_stream(answer.content)


async def turn(service: Service, cursor: Cursor, mode: Literal["agent", "ask"]) -> Said:
    return cursor.take(await ask(service, cursor, mode))


@asynccontextmanager
async def talking() -> AsyncIterator[tuple[Service, StrictResponses]]:
    double = StrictResponses("gpt-5.4", REPLIES)
    async with (
        scripted_upstream(double) as up,
        serving(model("gpt-5.4", up.url, upstream="openai/gpt-5.4")) as service,
    ):
        yield service, double


async def converse(service: Service, **habits: Any) -> list[Said]:
    """Hold the whole conversation with a Cursor of these habits; return what the assistant said."""
    cursor = Cursor("gpt-5.4", **habits)
    # Earlier turns of another model in this chat.
    cursor.history += [
        User("<user_query>\nHello\n</user_query>"),
        Said("", [(COMPOSITE[0], "ReadFile", '{"path":"a"}'), (COMPOSITE[1], "ReadFile", '{"path":"b"}')]),
        Output(COMPOSITE[0], "ReadFile", "a"),
        Output(COMPOSITE[1], "ReadFile", "b"),
        Said("Hello.", []),
        User("<user_query>\nMake main.py say hello\n</user_query>"),
    ]
    said = [await turn(service, cursor, "agent")]
    cursor.history += [
        Output(ID_READ, "ReadFile", "print('hi')"),
        Output(ID_LS, "Shell", "main.py"),
    ]
    said.append(await turn(service, cursor, "agent"))
    cursor.history.append(Output(ID_PATCHED, "ApplyPatch", "Done"))
    said.append(await turn(service, cursor, "agent"))
    cursor.history.append(User("<user_query>\nI see this\n</user_query>", image=IMAGE))
    said.append(await turn(service, cursor, "agent"))
    cursor.history.append(Output(ID_RUN, "Shell", "hello"))
    said.append(await turn(service, cursor, "agent"))
    cursor.history.append(User("<user_query>\nWhat does it print?\n</user_query>"))
    said.append(await turn(service, cursor, "ask"))
    cursor.history.append(User("<user_query>\nAnd the README?\n</user_query>"))
    said.append(await turn(service, cursor, "ask"))
    cursor.history.append(Output(ID_ASK, "ReadFile", "It prints hello."))
    said.append(await turn(service, cursor, "ask"))
    cursor.model = "gpt-5.4-thinking-high"  # a variant of the same model
    cursor.history.append(User("<user_query>\nOnce more, with tests\n</user_query>"))
    said.append(await turn(service, cursor, "agent"))
    cursor.history += [
        Output(ID_PATCH_AGAIN, "ApplyPatch", "Done"),
        Output(ID_TEST, "Shell", "ok"),
    ]
    said.append(await turn(service, cursor, "agent"))
    return said


CHAT_SHAPED = {6, 7, 8}
"""The turns whose requests are chat messages, counted from 1."""


@pytest.mark.parametrize("replays_patches_as_functions", [False, True], ids=["custom", "function"])
async def test_ten_turns_of_an_agent_are_never_refused_and_keep_their_prefix(
    replays_patches_as_functions: bool,
) -> None:
    async with talking() as (service, upstream):
        said = await converse(service, replays_patches_as_functions=replays_patches_as_functions)
        assert upstream.refusals == []
        assert len(upstream.inputs) == 10
        # The client got what the model sent, with the raw patch and the model's own ids.
        assert [(it.text, it.calls) for it in said] == [(reply.text, reply.calls) for reply in REPLIES]
        for number, (before, now) in enumerate(zip(upstream.inputs, upstream.inputs[1:], strict=False), start=2):
            assert len(now) > len(before)
            assert as_json(now[: len(before)]) == as_json(before), f"turn {number} changed what came before it"
        # Each tool has the same bytes in both shapes; the client decides which there are, and in what order.
        assert len({as_json(sorted(body["tools"], key=lambda tool: tool["name"])) for body in upstream.bodies}) == 1
        # Ids of 86 characters stay distinct, and no message in between is lost.
        last = upstream.inputs[-1]
        ids = [item["call_id"] for item in last if "call_id" in item]
        assert len(set(ids)) == 9
        assert len(ids) == 18
        assert max(map(len, ids)) <= 64
        assert [part for item in last for part in parts_of(item) if part.get("image_url") == IMAGE]
        patches = [item for item in last if item.get("type") == "custom_tool_call"]
        assert [(item["name"], item["input"]) for item in patches] == [("ApplyPatch", PATCH)] * 2
        # The variant is the same model with another effort, unless the body names an effort.
        assert upstream.bodies[-1]["reasoning"]["effort"] == "medium"
        # The reasoning of every earlier turn is restored in its place: the double refuses reasoning that precedes
        # another item than it did originally.
        for number, items in enumerate(upstream.inputs, start=1):
            assert restored_turns(items) == set(range(1, number))


def restored_turns(items: list[Json]) -> set[int]:
    """Return the numbers of the turns whose reasoning is in an input."""
    return {int(item["encrypted_content"].split("-")[2]) for item in items if item.get("type") == "reasoning"}


async def test_a_temperature_that_a_reasoning_model_refuses_is_dropped() -> None:
    async with talking() as (service, upstream):
        await converse(service, sends_temperature=True)
    assert upstream.refusals == []


async def test_the_same_conversation_sends_the_same_bytes_twice() -> None:
    inputs: list[list[str]] = []
    for _ in range(2):
        async with talking() as (service, upstream):
            await converse(service)
            inputs.append([as_json(items) for items in upstream.inputs])
    assert inputs[0] == inputs[1]


async def test_each_turn_of_a_mode_has_the_same_cache_key() -> None:
    async with talking() as (service, upstream):
        await converse(service)
        keys = [body["prompt_cache_key"] for body in upstream.bodies]
        named = {key for number, key in enumerate(keys, start=1) if number not in CHAT_SHAPED}
        assert named == {Cursor.conversation}
        # Chat-shaped bodies do not name the conversation: its key is derived from the messages, never from the user.
        (unnamed,) = {key for number, key in enumerate(keys, start=1) if number in CHAT_SHAPED}
        assert len(unnamed) == 64


def as_json(items: list[Json]) -> str:
    return json.dumps(items)


def parts_of(item: Json) -> list[Json]:
    content: Any = item.get("content")
    return content if isinstance(content, list) else []


# The double itself


def good_body(**fields: Any) -> Json:
    return {"model": "gpt-5.4", "input": [{"role": "user", "content": "hi"}], "stream": True} | fields


CALL: Json = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
ANSWER: Json = {"type": "function_call_output", "call_id": "c", "output": "x"}


@pytest.mark.parametrize(
    "body",
    [
        good_body(messages=[]),
        good_body(stream_options={"include_usage": True}),
        good_body(temperature=0),
        good_body(max_output_tokens=5),
        good_body(metadata={"a": 1}),
        good_body(tool_choice="auto"),
        good_body(tools=[{"type": "function", "function": {"name": "f"}}]),
        good_body(tools=[{"type": "function", "name": "f", "parameters": {}}]),
        good_body(input="hi", model="gpt-5.4-thinking-high"),
        good_body(input=[{"role": "tool", "content": "x"}]),
        good_body(input=[{"role": "assistant", "content": None}]),
        good_body(input=[{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]),
        good_body(input=[{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
        good_body(input=[{"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]}]),
        good_body(input=[{"role": "user", "content": "hi", "name": "x"}]),
        good_body(input=[CALL]),
        good_body(input=[ANSWER]),
        good_body(input=[CALL, ANSWER, ANSWER]),
        good_body(input=[CALL, CALL, ANSWER]),
        good_body(input=[CALL | {"index": 0}, ANSWER]),
        good_body(input=[CALL | {"id": "call_1"}, ANSWER]),
        good_body(input=[CALL | {"call_id": "c" * 65}, ANSWER | {"call_id": "c" * 65}]),
        good_body(input=[CALL, ANSWER | {"type": "custom_tool_call_output"}]),
        good_body(input=[{"type": "reasoning", "summary": [], "encrypted_content": "made up"}]),
        good_body(input=[{"type": "item_reference", "id": "rs_1"}]),
    ],
    ids=lambda body: json.dumps(body)[27:90],
)
def test_the_double_refuses_what_openai_refuses(body: Json) -> None:
    with pytest.raises(Refused):
        StrictResponses("gpt-5.4", []).check(body)


def test_the_double_accepts_what_openai_accepts() -> None:
    StrictResponses("gpt-5.4", []).check(good_body(input=[{"role": "user", "content": "hi"}, CALL, ANSWER]))
