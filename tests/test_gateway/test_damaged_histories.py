"""Histories that come back damaged: each is mended, sent to every kind of upstream, and noted in the record.

The rows are those of docs/facts/cursor.md and of what was found by running; a row's name is the test's id.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx
import pytest
from kit.clients.chat_fold import fold_stream
from kit.service.running import Service, model, serving
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import ScriptedUpstream, end, json_answer, scripted_upstream, sse, sse_head

from stages.wire.call_ids import numbered_call_id
from stages.wire.tool_names import legal_tool_name

Json = dict[str, Any]

KINDS: Final = ("responses", "chat", "anthropic")
VLLM: Final = "hosted_vllm/gpt-oss"
LIMITED: Final = "sk-limited-key-0123456789"
PNG: Final = "data:image/png;base64,iVBORw0KGgo="

# A conversation, in the words of no API.


class User(NamedTuple):
    text: str = "go on"


class Said(NamedTuple):
    text: str


class Call(NamedTuple):
    call_id: str
    arguments: str = "{}"


class Output(NamedTuple):
    call_id: str
    text: str


Turn = User | Said | Call | Output


def sent_as(kind: str, turns: Sequence[Turn]) -> list[Json]:
    """Return a conversation as an upstream of a kind must get it."""
    match kind:
        case "responses":
            return [_item(turn) for turn in turns]
        case "chat":
            return _messages(turns)
        case _:
            return _blocks(turns)


def _item(turn: Turn) -> Json:
    match turn:
        case User(text):
            return {"role": "user", "content": text}
        case Said(text):
            return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}
        case Call(call_id, arguments):
            return {"type": "function_call", "call_id": call_id, "name": "Read", "arguments": arguments}
        case Output(call_id, text):
            return {"type": "function_call_output", "call_id": call_id, "output": text}


def _messages(turns: Sequence[Turn]) -> list[Json]:
    messages: list[Json] = []
    for turn in turns:
        match turn:
            case User(text):
                messages.append({"role": "user", "content": text})
            case Said(text):
                messages.append({"role": "assistant", "content": text})
            case Call(call_id, arguments):
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                function = {"name": "Read", "arguments": arguments}
                calls = messages[-1].setdefault("tool_calls", [])
                calls.append({"id": call_id, "type": "function", "function": function})
            case Output(call_id, text):
                messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
    return messages


def _blocks(turns: Sequence[Turn]) -> list[Json]:
    messages: list[Json] = []
    for turn in turns:
        block: Json
        match turn:
            case User(text) | Said(text):
                block = {"type": "text", "text": text}
            case Call(call_id, arguments):
                block = {"type": "tool_use", "id": call_id, "name": "Read", "input": json.loads(arguments)}
            case Output(call_id, text):
                block = {"type": "tool_result", "tool_use_id": call_id, **({"content": text} if text else {})}
        role = "assistant" if isinstance(turn, Said | Call) else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].append(block)
        else:
            messages.append({"role": role, "content": [block]})
    return messages


# What clients post.

HI: Final = {"role": "user", "content": "hi"}
GO_ON: Final = {"role": "user", "content": "go on"}
TOOL: Final = {"type": "function", "name": "Read", "parameters": {"type": "object", "properties": {}}}


def asks(*calls: Json, content: Any = None) -> Json:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def call(call_id: Any, arguments: Any = "{}", name: str = "Read") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: Any, content: Any = "r") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


class Row(NamedTuple):
    history: list[Any]
    """After the first user message and before the last one."""
    left: Sequence[Turn]
    """The same, as an upstream gets it."""
    mended: list[str]


UNNAMED: Final = "call_without_id_1"

MESSAGES: Final[dict[str, Row]] = {
    "a call without an id": Row(
        [asks(call(None)), result(None)],
        [Call(UNNAMED), Output(UNNAMED, "r")],
        ["missing_call_id", "unpaired_call"],
    ),
    "a call without an id, whose output has one": Row(
        [asks(call("")), result("call_cut_off")],
        [Call(UNNAMED), Output(UNNAMED, "r")],
        ["missing_call_id", "unpaired_call"],
    ),
    "a call without an id that was stopped": Row(
        [asks(call(""))], [Call(UNNAMED), Output(UNNAMED, "")], ["missing_call_id", "unpaired_call"]
    ),
    "an output without an id": Row(
        [asks(call("a"), call("b")), result("a", "1"), result(None, "2")],
        [Call("a"), Call("b"), Output("a", "1"), Output("b", "2")],
        ["missing_call_id", "unpaired_call"],
    ),
    "a call without an id, and a later one without a name": Row(
        [asks(call("")), {"role": "user", "content": "2"}, asks(call("c2", name="")), result("c2", "of turn 2")],
        [Call(UNNAMED), Output(UNNAMED, ""), User("2")],
        ["empty_part", "missing_call_id", "unpaired_call"],
    ),
    "a call without an output, and a later output without an id": Row(
        [asks(call("c1")), {"role": "user", "content": "2"}, asks(call("c2", name="")), result("", "of turn 2")],
        [Call("c1"), Output("c1", ""), User("2")],
        ["empty_part", "missing_call_id", "unpaired_call"],
    ),
    "an output before its call": Row(
        [result("a"), asks(call("a"))], [Call("a"), Output("a", "r")], ["unpaired_call"]
    ),
    "an output without a call": Row([result("a")], [], ["unpaired_call"]),
    "a function's result without a call": Row(
        [{"role": "function", "name": "Read", "content": "r"}], [], ["missing_call_id", "unpaired_call"]
    ),
    "a call without a name": Row(
        [asks(call("a", name="")), result("a")], [], ["empty_part", "unpaired_call"]
    ),
    "a call that was answered twice": Row(
        [asks(call("a")), result("a", "1"), result("a", "2")], [Call("a"), Output("a", "2")], ["unpaired_call"]
    ),
    "an id that is used again": Row(
        [asks(call("a")), result("a", "1"), asks(call("a")), result("a", "2")],
        [Call("a"), Output("a", "1"), Call(numbered_call_id("a", 2)), Output(numbered_call_id("a", 2), "2")],
        ["unpaired_call"],
    ),
    "an id that is used again by a call without a name": Row(
        [asks(call("a")), result("a", "1"), {"role": "user", "content": "2"}, asks(call("a", name="")),
         result("a", "2")],
        [Call("a"), Output("a", "1"), User("2")],
        ["empty_part", "unpaired_call"],
    ),
    "an id that is used again, with the output before its call": Row(
        [asks(call("a")), result("a", "1"), {"role": "user", "content": "2"}, result("a", "2"), asks(call("a"))],
        [Call("a"), Output("a", "1"), User("2"), Call(numbered_call_id("a", 2)),
         Output(numbered_call_id("a", 2), "2")],
        ["unpaired_call"],
    ),
    "our own error text": Row(
        [{"role": "assistant", "content": "Let me\n\n[upstream error: overloaded: Try again.]"}],
        [Said("Let me")],
        ["own_error_text"],
    ),
    "nothing but our own error text": Row(
        [{"role": "assistant", "content": "[upstream error: overloaded: Try again.]"}],
        [],
        ["empty_part", "own_error_text"],
    ),
    "our own sentence for an empty answer": Row(
        [{"role": "assistant", "content": "[no answer: the upstream's answer is empty; try again]"}],
        [],
        ["empty_part", "own_error_text"],
    ),
    "our own error text before a call": Row(
        [asks(call("a"), content="\n\n[upstream error: draining: Bye.]"), result("a")],
        [Call("a"), Output("a", "r")],
        ["own_error_text"],
    ),
    "null content": Row([{"role": "assistant", "content": None}], [], ["empty_part"]),
    "an empty envelope": Row([None, {"role": "assistant", "content": [], "tool_calls": []}], [], ["empty_part"]),
    "an empty list of calls": Row([{"role": "assistant", "content": "ok", "tool_calls": []}], [Said("ok")], []),
    "calls that are null": Row(
        [{"role": "assistant", "content": "ok", "tool_calls": [None]}], [Said("ok")], ["empty_part"]
    ),
    "a null image": Row(
        [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": None}]},
         {"role": "assistant", "content": "I see."}],
        [User("see"), Said("I see.")],
        ["empty_part"],
    ),
    "an image whose URL is null": Row(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]},
         {"role": "assistant", "content": "I see."}],
        [Said("I see.")],
        ["empty_part"],
    ),
    "an image without data": Row(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]},
         {"role": "assistant", "content": "I see."}],
        [Said("I see.")],
        ["empty_part"],
    ),
    "content that is one part": Row(
        [{"role": "assistant", "content": {"type": "text", "text": "ok"}}], [Said("ok")], ["odd_value"]
    ),
    "content that is a number": Row([{"role": "assistant", "content": 5}], [Said("5")], ["odd_value"]),
    "a text that is a number": Row(
        [{"role": "assistant", "content": [{"type": "text", "text": 5}]}], [Said("5")], ["odd_value"]
    ),
    "a part without a type": Row(
        [{"role": "assistant", "content": [{"size": 1}]}], [Said('{"size":1}')], ["odd_value"]
    ),
    "roles in odd case": Row(
        [{"role": "Assistant", "content": "ok"}, {"role": "USER", "content": "and"},
         {"role": "model", "content": "so"}],
        [Said("ok"), User("and"), Said("so")],
        ["odd_value"],
    ),
    "names of speakers": Row(
        [{"role": "assistant", "content": "ok", "name": "A. B. C"}, {"role": "user", "content": "and", "name": "é"},
         {"role": "assistant", "content": "so", "name": None}],
        [Said("ok"), User("and"), Said("so")],
        [],
    ),
    "an output that is an object": Row(
        [asks(call("a")), result("a", {"ok": True})], [Call("a"), Output("a", '{"ok":true}')], ["odd_value"]
    ),
    "an output that is null": Row([asks(call("a")), result("a", None)], [Call("a"), Output("a", "")], ["odd_value"]),
    "an output that is a number": Row([asks(call("a")), result("a", 5)], [Call("a"), Output("a", "5")], ["odd_value"]),
}  # fmt: skip
"""Rows about chat-shaped bodies; the answers of all kinds have the same calls and texts."""


@asynccontextmanager
async def talking(kind: str, *, stream: bool = True, **params: Any) -> AsyncIterator[tuple[Service, ScriptedUpstream]]:
    """Run the service with an upstream of a kind, as the model ``up``."""
    script = [ANSWERS[kind].whole()] if stream else [json_answer(json.loads(DOCUMENTS[kind]))]
    params = {"upstream": ANSWERS[kind].upstream, **params}
    async with scripted_upstream(*script) as up, serving(model("up", up.url, **params)) as service:
        yield service, up


async def post(service: Service, body: Json | bytes, **options: Any) -> httpx.Response:
    answer = await service.post(body, user_agent="Cursor/1.0", **options)
    assert answer.status_code == 200, answer.text
    return answer


def received(kind: str, up: ScriptedUpstream, number: int = -1) -> list[Json]:
    """Return the conversation that the upstream got, without what is about caching and reasoning.

    A text in one part is that text.
    """
    body = up.requests[number].json()
    history: list[Json] = body["input" if kind == "responses" else "messages"]
    for message in history:
        message.pop("reasoning_content", None)
        match message.get("content"):
            case [{"type": "input_text", "text": text, **more}] if not more:
                message["content"] = text
        for block in message["content"] if isinstance(message.get("content"), list) else []:
            block.pop("cache_control", None)
    return history


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", MESSAGES)
async def test_a_damaged_history_is_mended(row: str, kind: str) -> None:
    history, left, mended = MESSAGES[row]
    async with talking(kind) as (service, up):
        body: Json = {"model": "up", "stream": True, "messages": [HI, *history, GO_ON]}
        await post(service, body)
        first = received(kind, up)
        assert first == sent_as(kind, [User("hi"), *left, User()])
        assert (await service.record(0)).get("mended", []) == mended
        # Once more with another turn: what was there keeps its bytes.
        await post(service, {**body, "messages": [*body["messages"], {"role": "assistant", "content": "ok"}, HI]})
        assert received(kind, up)[: len(first)] == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("written", "text"),
    [(rb"cut \ud83d", "cut \ufffd"), (rb"\uDE00 cut", "\ufffd cut"), (b"\xed\xa0\xbd\xed\xb8\x80", "\U0001f600")],
    ids=["the first half", "the second half", "halves as bytes"],
)
async def test_row_77_a_lone_surrogate_is_replaced(written: bytes, text: str, kind: str) -> None:
    """The request has half an emoji: it becomes U+FFFD, and the request is served."""
    async with talking(kind) as (service, up):
        await post(service, b'{"model":"up","stream":true,"messages":[{"role":"user","content":"' + written + b'"}]}')
        assert received(kind, up) == sent_as(kind, [User(text)])
        assert (await service.record(0))["mended"] == ["lone_surrogate"]


TRUNCATED: Final = '{"path": "/etc/ho'
WRAPPED: Final = json.dumps({"input": TRUNCATED}, separators=(",", ":"))


@pytest.mark.parametrize(
    ("kind", "upstream", "arguments", "mended"),
    [
        ("responses", None, TRUNCATED, []),  # OpenAI reads them as text
        ("responses", VLLM, WRAPPED, ["truncated_arguments"]),
        ("chat", None, WRAPPED, ["truncated_arguments"]),
        ("anthropic", None, WRAPPED, ["truncated_arguments"]),
    ],
)
async def test_truncated_arguments_are_kept_as_text(
    kind: str, upstream: str | None, arguments: str, mended: list[str]
) -> None:
    params: Json = {} if upstream is None else {"upstream": upstream}
    async with talking(kind, **params) as (service, up):
        messages = [HI, asks(call("a", TRUNCATED)), result("a"), GO_ON]
        await post(service, {"model": "up", "stream": True, "messages": messages})
        turns: list[Turn] = [User("hi"), Call("a", arguments), Output("a", "r"), User()]
        assert received(kind, up) == sent_as(kind, turns)
        assert (await service.record(0)).get("mended", []) == mended


@pytest.mark.parametrize("kind", KINDS)
async def test_a_local_shell_output_with_only_an_id_belongs_to_its_call(kind: str) -> None:
    shell = {"type": "local_shell_call", "id": "lsh_1", "call_id": "a", "action": {"command": ["ls"]}}
    output = {"type": "local_shell_call_output", "id": "lsh_1", "output": "r"}
    async with talking(kind) as (service, up):
        await post(service, {"model": "up", "stream": True, "input": [HI, shell, output, GO_ON]})
        history = received(kind, up)
        if kind == "responses":
            assert history == [HI, shell, output, GO_ON]
            return
        expected = sent_as(kind, [User("hi"), Call("a", '{"command":["ls"]}'), Output("a", "r"), User()])
        assert json.dumps(history) == json.dumps(expected).replace('"Read"', '"local_shell"')


@pytest.mark.parametrize(
    ("kind", "detail", "mended"),
    [("responses", "original", []), ("chat", "high", ["image_detail"]), ("anthropic", None, [])],
)
async def test_the_image_detail_original_becomes_high_where_it_is_not_known(
    kind: str, detail: str | None, mended: list[str]
) -> None:
    image = {"type": "image_url", "image_url": {"url": PNG, "detail": "original"}}
    async with talking(kind) as (service, up):
        await post(service, {"model": "up", "stream": True, "messages": [{"role": "user", "content": [image]}]})
        (message,) = received(kind, up)
        (part,) = message["content"]
        inner = part["image_url"] if kind == "chat" else part
        assert inner.get("detail") == detail
        assert (await service.record(0)).get("mended", []) == mended


@pytest.mark.parametrize("kind", KINDS)
async def test_an_image_without_a_media_type_is_sent_with_the_one_that_it_has(kind: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "/9j/AA=="}}
    async with talking(kind) as (service, up):
        await post(service, {"model": "up", "stream": True, "messages": [{"role": "user", "content": [image]}]})
        assert "image/jpeg" in up.requests[0].body.decode()


@pytest.mark.parametrize(
    ("kind", "upstream", "is_left_out"),
    [("responses", None, False), ("responses", VLLM, True), ("chat", None, True), ("anthropic", None, True)],
)
async def test_an_item_of_an_unknown_type_is_left_out_where_it_would_be_refused(
    kind: str, upstream: str | None, is_left_out: bool
) -> None:
    params: Json = {} if upstream is None else {"upstream": upstream}
    odd = {"type": "from_the_future", "id": "x_1"}
    async with talking(kind, **params) as (service, up):
        await post(service, {"model": "up", "stream": True, "input": [HI, odd, {"role": "assistant", "content": "ok"}]})
        history = received(kind, up)
        assert (odd not in history) is is_left_out
        assert (await service.record(0)).get("mended", []) == (["unknown_item"] if is_left_out else [])


# Tools.

LATE: Final = {
    "type": "additional_tools",
    "role": "developer",
    "tools": [{**TOOL, "name": "Late"}, {"type": "custom", "name": "Patch"}],
}


def names_of(kind: str, tools: list[Json]) -> list[str]:
    return [tool["function"]["name"] if kind == "chat" else tool["name"] for tool in tools]


@pytest.mark.parametrize(
    ("kind", "upstream", "is_kept"),
    [("responses", None, True), ("responses", VLLM, False), ("chat", None, False), ("anthropic", None, False)],
)
async def test_additional_tools_reach_the_upstream_as_it_knows_them(
    kind: str, upstream: str | None, is_kept: bool
) -> None:
    params: Json = {} if upstream is None else {"upstream": upstream}
    patch = {"type": "function_call", "call_id": "p", "name": "Patch", "arguments": "*** Begin"}
    patched = {"type": "function_call_output", "call_id": "p", "output": "Done"}
    async with talking(kind, **params) as (service, up):
        body = {"model": "up", "stream": True, "tools": [TOOL], "input": [HI, LATE, patch, patched, GO_ON]}
        await post(service, body)
        sent = up.requests[0].json()
        history = received(kind, up)
        assert (LATE in history) is is_kept
        assert names_of(kind, sent["tools"]) == (["Read"] if is_kept else ["Read", "Late", "Patch"])
        assert "*** Begin" in json.dumps(history)
        if is_kept:
            assert history[2]["type"] == "custom_tool_call"
        else:
            assert '"input"' in json.dumps(history).replace("\\", "")


LONG: Final = "mcp__a_server_with_a_rather_long_name__and_a_tool_with_a_long_name_too"
DOTTED: Final = "files.read"
NAMES: Final = [legal_tool_name(LONG), legal_tool_name(DOTTED)]

STREAMS: Final[dict[str, list[Json]]] = {
    "responses": [
        {"type": "response.output_item.added", "output_index": 0, "item": {
            "type": "function_call", "id": "fc_1", "call_id": "c9", "name": NAMES[0], "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": "{}"},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}},
    ],
    "chat": [chat_stream.calls(chat_stream.call(0, "c9", NAMES[0], "{}")), chat_stream.chunk(finish="tool_calls")],
    "anthropic": [
        anthropic_stream.head(),
        *anthropic_stream.tool(0, "c9", NAMES[0], "{}"),
        anthropic_stream.last("tool_use"),
        anthropic_stream.STOP,
    ],
}  # fmt: skip
DOCUMENTS: Final[dict[str, bytes]] = {
    "responses": json.dumps(
        {"id": "r", "object": "response", "status": "completed", "output": [
            {"type": "function_call", "id": "fc_1", "call_id": "c9", "name": NAMES[0], "arguments": "{}"}]}
    ).encode(),
    "chat": chat_stream.document({"tool_calls": [chat_stream.call(0, "c9", NAMES[0], "{}")]}, "tool_calls"),
    "anthropic": anthropic_stream.document(
        {"type": "tool_use", "id": "c9", "name": NAMES[0], "input": {}}, reason="tool_use"
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_names_of_tools_that_upstreams_refuse_are_shortened_and_restored(kind: str, stream: bool) -> None:
    tools = [{**TOOL, "name": LONG}, {**TOOL, "name": DOTTED}]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": DOTTED}]}
    streamed: list[Json] = STREAMS[kind]
    script = [sse_head(), *(b"%x\r\n%b\r\n" % (len(data), data) for data in map(sse, streamed)), end()]
    answer = script if stream else [json_answer(json.loads(DOCUMENTS[kind]))]
    params = {"upstream": ANSWERS[kind].upstream}
    async with scripted_upstream(*answer) as up, serving(model("up", up.url, **params)) as service:
        messages = [HI, asks(call("a", name=LONG), call("b", name=DOTTED)), result("a"), result("b"), GO_ON]
        body = {"model": "up", "stream": stream, "tools": tools, "messages": messages}
        response = await post(service, {**body, "tool_choice": {"type": "function", "function": {"name": DOTTED}}})
        if stream:
            calls = fold_stream(response.content).tool_calls
            assert [one["name"] for one in calls] == [LONG]
        else:
            (one,) = response.json()["choices"][0]["message"]["tool_calls"]
            assert one["function"]["name"] == LONG
        sent = up.requests[0].json()
        assert names_of(kind, sent["tools"]) == NAMES
        written = up.requests[0].body.decode()
        assert LONG not in written
        assert DOTTED not in written
        assert written.count(NAMES[0]) == 2  # the declaration and the call
        assert written.count(NAMES[1]) == 3  # the choice as well
        assert (await service.record(0))["mended"] == ["tool_name"]
        await post(service, {**body, "tool_choice": allowed})
        assert DOTTED not in up.requests[1].body.decode()


# Fields that choose another model, or that name something stored in an account.

STORED: Final = {"previous_response_id": "resp_1", "conversation": "conv_1", "prompt": {"id": "pmpt_1"}}
ROUTING: Final = {
    "models": ["openai/gpt-6-pro"],
    "route": "fallback",
    "provider": {"order": ["x"]},
    "plugins": [{"id": "auto-router"}],
    "transforms": ["middle-out"],
    "preset": "mine",
}
ODD_FIELDS: Final = {**STORED, **ROUTING}
OPENROUTER: Final[Json] = {"upstream": "openrouter/moonshotai/kimi-k2", "use_chat_completions_api": True}


@pytest.mark.parametrize(
    ("kind", "params"), [*((kind, {}) for kind in KINDS), ("chat", OPENROUTER), ("responses", {"upstream": VLLM})]
)
async def test_row_82_fields_that_choose_a_model_or_something_stored_are_not_sent(kind: str, params: Json) -> None:
    """The body names another model or something stored in the account: those fields are not sent."""
    async with talking(kind, **params) as (service, up):
        lost = {"type": "function_call_output", "call_id": "stored_elsewhere", "output": "r"}
        await post(service, {"model": "up", "stream": True, "input": [lost, HI], **ODD_FIELDS})
        assert up.requests[0].json().keys().isdisjoint(ODD_FIELDS)
        assert received(kind, up) == sent_as(kind, [User("hi")])
        assert (await service.record(0))["mended"] == ["unforwarded_field", "unpaired_call"]


async def test_a_request_that_is_stored_elsewhere_as_a_whole_is_refused() -> None:
    async with talking("responses") as (service, up):
        lost = {"type": "function_call_output", "call_id": "a", "output": "r"}
        body = {"model": "up", "input": [lost], "previous_response_id": "resp_1"}
        answer = await service.post(body, user_agent="Cursor/1.0")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "input"
        assert up.requests == []


@pytest.mark.parametrize(("kind", "params"), [("responses", {}), ("chat", {}), ("chat", OPENROUTER), ("anthropic", {})])
async def test_row_82_fields_that_the_deployment_forwards_are_sent(kind: str, params: Json) -> None:
    """Fields that the deployment forwards (`forward_fields`) are sent."""
    async with talking(kind, forward_fields=["models", "provider", "conversation"], **params) as (service, up):
        await post(service, {"model": "up", "stream": True, "input": "hi", **ODD_FIELDS})
        sent = up.requests[0].json()
        assert {name: sent[name] for name in sent.keys() & ODD_FIELDS.keys()} == {
            name: ODD_FIELDS[name] for name in ("models", "provider", "conversation")
        }
        assert (await service.record(0))["mended"] == ["unforwarded_field"]


async def test_row_82_a_key_for_some_models_cannot_reach_another_one_through_forwarded_fields() -> None:
    """A key for some models reaches no other one, even through forwarded fields."""
    forwarded = sorted(ODD_FIELDS)
    config = model("team/cheap", "URL", forward_fields=forwarded, **OPENROUTER)
    async with scripted_upstream(ANSWERS["chat"].whole()) as up, serving(config.replace("URL", up.url)) as service:
        body = {"model": "team/cheap", "stream": True, "input": "hi", **ODD_FIELDS}
        await post(service, body, key=LIMITED)
        await post(service, body)
        limited, master = (request.json() for request in up.requests)
        assert limited.keys() & ODD_FIELDS.keys() == {
            "provider",
            "transforms",
            "previous_response_id",
            "conversation",
        }
        assert limited["model"] == master["model"] == "moonshotai/kimi-k2"
        assert master.keys() >= ODD_FIELDS.keys()
        assert (await service.record(0))["mended"] == ["unforwarded_field"]
        assert "mended" not in await service.record(1)


async def test_row_82_a_key_for_some_models_names_nothing_stored_and_no_other_model_within_items_and_tools() -> None:
    """Neither does it through items and tools."""
    config = model("team/cheap", "URL")
    script = [ANSWERS["responses"].whole()]
    async with scripted_upstream(*script) as up, serving(config.replace("URL", up.url)) as service:
        search = {"type": "file_search", "vector_store_ids": ["vs_other"]}
        paint = {"type": "image_generation", "model": "gpt-image-large"}
        history = [{"type": "item_reference", "id": "msg_other"}, HI]
        body = {"model": "team/cheap", "stream": True, "input": history, "tools": [search, paint]}
        await post(service, body, key=LIMITED)
        await post(service, body)
        limited, master = (request.json() for request in up.requests)
        assert limited["input"] == [HI]
        assert limited["tools"] == [{"type": "image_generation"}]
        assert master["input"] == history
        assert master["tools"] == [search, paint]
        assert (await service.record(0))["mended"] == ["unforwarded_field"]
