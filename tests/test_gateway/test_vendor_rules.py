"""Rules of the vendors, enforced by doubles on real sockets: no turn of a chat breaks one of them.

Each double refuses with 400 what its vendor refuses, and keeps the conversation that it was
sent, so that a test can compare the prefixes of the turns.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kit.clients.chat_fold import Folded, fold_stream
from kit.service.running import Service, model, serving
from kit.upstreams.scripted import Exchange, end, error, event, scripted_upstream, sse_head

Json = dict[str, Any]
Rule = Callable[[str, Json], str | None]
"""Takes a path and a body; returns why they are refused."""

TOOLS: list[Json] = [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}]
CALL_IDS = ["call_MxY0jbrft7EcfC6iNZSUGeIy", "call_x7aKw382RHPpIpNnCOf0PCk9", "call_pIletEr8M2ysu6blIM1n4Xja"]
"""Random, like the vendors'."""


class Vendor:
    """A double: it refuses by its rules, and answers each accepted request with the next answer."""

    def __init__(self, answers: list[list[Json]], *rules: Rule, has_done: bool = True) -> None:
        self._answers = answers
        self._rules = rules
        self._has_done = has_done
        self.paths: list[str] = []
        self.bodies: list[Json] = []
        self.refusals: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        path, body = exchange.request.path, exchange.request.json()
        refused = next((why for rule in self._rules if (why := rule(path, body)) is not None), None)
        if refused is not None:
            self.refusals.append(refused)
            await exchange.send(error(400, json.dumps({"error": {"message": refused}}).encode()))
            return
        self.paths.append(path)
        self.bodies.append(body)
        await exchange.send(sse_head())
        for payload in self._answers[len(self.bodies) - 1]:
            await event(payload)(exchange)
        if self._has_done:
            await event(b"data: [DONE]\n\n")(exchange)
        await exchange.send(end())

    def conversations(self) -> list[list[str]]:
        """Return what was said before each request, item by item, as bytes would show it."""
        return [[json.dumps(it) for it in body.get("input") or body["messages"]] for body in self.bodies]


class Client:
    """An IDE that sends chat messages, and gives back nothing but text, calls and outputs."""

    def __init__(self, service: Service, **body: Any) -> None:
        self._service = service
        self._body = {"model": "m", "stream": True, "tools": TOOLS, **body}
        self.messages: list[Json] = [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": "fix it"},
        ]

    async def turn(self, **body: Any) -> Folded:
        """Send the conversation; add the answer to it, with outputs of its calls or the user's next message."""
        response = await self._service.post({**self._body, **body, "messages": self.messages})
        assert response.status_code == 200, response.text
        said = fold_stream(response.content)
        assert said.error is None, said.error
        calls = [
            {"id": it["id"], "type": "function", "function": {"name": it["name"], "arguments": it["arguments"]}}
            for it in said.tool_calls
        ]
        message: Json = {"role": "assistant", "content": said.content}
        self.messages.append({**message, "tool_calls": calls} if calls else message)
        self.messages += [{"role": "tool", "tool_call_id": it["id"], "content": "ok"} for it in calls]
        if not calls:
            self.messages.append({"role": "user", "content": "go on"})
        return said


@asynccontextmanager
async def chatting(vendor: Vendor, upstream: str, **body: Any) -> AsyncIterator[Client]:
    """Serve one model, ``m``, that a double answers."""
    async with scripted_upstream(vendor) as up, serving(model("m", up.url, upstream=upstream)) as service:
        yield Client(service, **body)


def assert_same_prefixes(vendor: Vendor, *, at_least: int = 3) -> None:
    """Assert that nothing was refused, and that each conversation begins with the one before, byte for byte."""
    assert vendor.refusals == []
    conversations = vendor.conversations()
    assert len(conversations) >= at_least
    for number, (before, now) in enumerate(itertools.pairwise(conversations), start=2):
        assert len(now) > len(before)
        assert now[: len(before)] == before, f"turn {number} changed what came before it"


# --- OpenAI ----------------------------------------------------------------------------------------------------------


def gpt_6(path: str, body: Json) -> str | None:
    """OpenAI's rules for GPT-6 (platform.openai.com/docs/guides/latest-model, 2026-11)."""
    if not path.partition("?")[0].endswith("/responses"):
        return "Function tools are not supported with this model in v1/chat/completions."
    if (effort := body.get("reasoning", {}).get("effort")) in ("none", "minimal"):
        return f"Unsupported value: 'reasoning.effort' does not support '{effort}' with this model."
    for name in ("temperature", "top_p", "top_logprobs"):
        if name in body:
            return f"Unsupported parameter: '{name}' is not supported with this model."
    if "message.output_text.logprobs" in body.get("include", ()):
        return "logprobs are not supported with reasoning models."
    if body.get("service_tier") == "flex" and body["model"].startswith("gpt-6.2"):
        return "Invalid service_tier argument"
    if (body.get("stream_options") or {}) != {"include_obfuscation": False}:
        return "a test: no obfuscation is wanted"
    return None


def responses(*items: Json, **fields: Any) -> list[Json]:
    """Return the events of an answer."""
    events: list[Json] = [{"type": "response.created", "response": {"id": "resp_1", "model": "up"}}]
    for place, item in enumerate(items):
        opened = {**item, "content": []} if item["type"] == "message" else item
        events.append({"type": "response.output_item.added", "output_index": place, "item": opened})
        events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    response = {"id": "resp_1", "status": "completed", "output": list(items), **fields}
    return [*events, {"type": "response.completed", "response": response}]


def thought(name: str) -> Json:
    summary = [{"type": "summary_text", "text": f"About {name}."}]
    return {"type": "reasoning", "id": f"rs_{name}", "summary": summary, "encrypted_content": f"ENC-{name}"}


def said(text: str, phase: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": f"msg_{phase}", "role": "assistant", "phase": phase, "content": [part]}


def called(number: int, **fields: Any) -> Json:
    call = {"call_id": CALL_IDS[number], "name": "Read", "arguments": "{}", "status": "completed"}
    return {"type": "function_call", "id": f"fc_{number}", **call, **fields}


GPT_ANSWERS = [
    responses(thought("a"), said("I look.", "commentary"), called(0)),
    responses(thought("b"), called(1, namespace="mcp")),
    responses(thought("c"), said("Done.", "final_answer")),
    responses(said("Yes.", "final_answer")),
]


@pytest.mark.parametrize("upstream", ["azure/gpt-6-sol", "azure/chat_completions/gpt-6.2-astra", "azure/gpt-6.1-terra"])
async def test_gpt_6_is_never_refused_and_keeps_reasoning_phases_and_namespaces(upstream: str) -> None:
    vendor = Vendor(GPT_ANSWERS, gpt_6, has_done=False)
    habits = {"temperature": 0, "top_p": 1, "logprobs": True, "top_logprobs": 2, "service_tier": "flex"}
    async with chatting(vendor, upstream, **habits) as client:
        for effort in (None, "none", "minimal", "low"):
            answer = await client.turn(**({} if effort is None else {"reasoning_effort": effort}))
            if len(vendor.bodies) < 4:
                assert "About" in answer.reasoning
    assert_same_prefixes(vendor, at_least=4)
    kept = [
        (it.get("encrypted_content"), it.get("phase"), it.get("namespace"))
        for it in vendor.bodies[-1]["input"]
        if it.get("role") == "assistant" or it.get("type") in ("reasoning", "function_call")
    ]
    assert kept == [
        ("ENC-a", None, None),
        (None, "commentary", None),
        (None, None, None),
        ("ENC-b", None, None),
        (None, None, "mcp"),
        ("ENC-c", None, None),
        (None, "final_answer", None),
    ]
    assert all(body["reasoning"]["summary"] == "auto" for body in vendor.bodies)


async def test_models_of_a_wildcard_by_chat_go_to_the_api_that_has_their_tools() -> None:
    answer = responses(said("Yes.", "final_answer"))
    chat = [chunk("stop", content="Yes.")]
    vendor = Vendor([answer, chat, answer], has_done=False)
    async with (
        scripted_upstream(vendor) as up,
        serving(model("gpt-*", up.url, upstream="azure/chat_completions/gpt-*")) as service,
    ):
        for name in ("gpt-6-sol", "gpt-4.1", "gpt-5.4-high"):
            assert (await Client(service, model=name).turn()).content == "Yes."
    assert vendor.paths == ["/openai/v1/responses", "/openai/v1/chat/completions", "/openai/v1/responses"]
    assert [body["model"] for body in vendor.bodies] == ["gpt-6-sol", "gpt-4.1", "gpt-5.4-high"]


async def test_chat_latest_gets_neither_reasoning_nor_sampling() -> None:
    def rule(_: str, body: Json) -> str | None:
        refused = {"reasoning", "temperature", "top_p", "reasoning_effort"} & body.keys()
        return f"Unsupported parameter: {refused}" if refused else None

    vendor = Vendor([responses(said("Yes.", "final_answer"))] * 3, rule, has_done=False)
    async with chatting(vendor, "openai/chat-latest", temperature=0, top_p=1, reasoning={"effort": "low"}) as client:
        for _ in range(3):
            await client.turn()
    assert_same_prefixes(vendor)


async def test_reasoning_that_the_upstream_dropped_is_in_the_record() -> None:
    dropped = [{"type": "reasoning_dropped", "reason": "prefix_mismatch"}]
    vendor = Vendor([responses(said("Yes.", "final_answer"), input_transformations=dropped)], has_done=False)
    async with (
        scripted_upstream(vendor) as up,
        serving(model("m", up.url, upstream="openai/gpt-6.2-sol")) as service,
    ):
        await Client(service).turn()
        assert (await service.record())["mended"] == ["reasoning_dropped"]


# --- Chat Completions ------------------------------------------------------------------------------------------------


def chunk(finish: str | None = None, **delta: Any) -> Json:
    return {"id": "gen-1", "model": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call_chunk(number: int, **fields: Any) -> Json:
    function = {"name": "Read", "arguments": "{}"}
    return chunk(tool_calls=[{"index": 0, "id": CALL_IDS[number], "type": "function", "function": function, **fields}])


def tool_turns(body: Json) -> list[Json]:
    return [message for message in body["messages"] if message.get("tool_calls")]


def deepseek_v4(_: str, body: Json) -> str | None:
    """api-docs.deepseek.com/guides/thinking_mode (2026-11)."""
    if any(not message.get("reasoning_content") for message in tool_turns(body)):
        return "The reasoning_content in the thinking mode must be passed back to the API."
    if body.get("reasoning_effort") not in (None, "low", "high", "max"):
        return "unknown reasoning_effort"
    return None


DEEPSEEK_ANSWERS = [
    [chunk(reasoning_content="I look."), call_chunk(0), chunk("tool_calls")],
    [chunk(reasoning_content="Once more."), call_chunk(1), chunk("tool_calls")],
    [chunk(reasoning_content="Good."), chunk(content="Done."), chunk("stop")],
    [chunk(content="Yes."), chunk("stop")],
]


async def test_deepseek_keeps_its_reasoning_when_pro_becomes_flash_and_back() -> None:
    vendor = Vendor(DEEPSEEK_ANSWERS, deepseek_v4)
    async with scripted_upstream(vendor) as up:
        models = "".join(model(name, up.url, upstream=f"deepseek/deepseek-v4-{name}") for name in ("pro", "flash"))
        async with serving(models) as service:
            client = Client(service, metadata={"cursorConversationId": "c-1"})
            for name, effort in [("pro", "medium"), ("flash", "minimal"), ("pro", "xhigh"), ("flash", "low")]:
                await client.turn(model=name, reasoning_effort=effort)
    assert_same_prefixes(vendor, at_least=4)
    thoughts = [message["reasoning_content"] for message in tool_turns(vendor.bodies[-1])]
    assert thoughts == ["I look.", "Once more."]
    assert [body["reasoning_effort"] for body in vendor.bodies] == ["high", "low", "max", "low"]


async def test_deepseeks_responses_are_stateless_and_end_without_done() -> None:
    def rule(path: str, body: Json) -> str | None:
        if path != "/responses":
            return f"there is nothing at {path}"
        if "previous_response_id" in body or "store" in body or body.get("include"):
            return "This API is stateless."
        kinds = [item.get("type", "") for item in body["input"]]
        calls = [n for n, kind in enumerate(kinds) if kind.endswith("_call")]
        return None if all(kinds[n - 1] == "reasoning" for n in calls) else "reasoning must be passed back"

    def plain(text: str) -> Json:
        content = [{"type": "reasoning_text", "text": text}]
        return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content, "status": "completed"}

    def thinking(text: str, *items: Json) -> list[Json]:
        events = responses(plain(text), *items)
        delta = {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": text}
        return [*events[:2], delta, *events[2:]]

    patch = {"type": "custom_tool_call", "id": "ctc_1", "call_id": CALL_IDS[1], "name": "Patch", "input": "*** Begin"}
    answers = [
        thinking("I look.", called(0)),
        thinking("I patch.", patch),
        thinking("Good.", said("Done.", "final_answer")),
    ]
    vendor = Vendor(answers, rule, has_done=False)
    tools = [*TOOLS, {"type": "custom", "name": "Patch"}]
    async with (
        scripted_upstream(vendor) as up,
        serving(model("m", f"{up.url}/responses", upstream="deepseek/responses/deepseek-v4-pro")) as service,
    ):
        client = Client(service, tools=tools, reasoning={"effort": "medium"})
        answered = [await client.turn() for _ in answers]
    assert_same_prefixes(vendor)
    assert [answer.reasoning for answer in answered] == ["I look.", "I patch.", "Good."]
    assert answered[1].tool_calls[0]["arguments"] == "*** Begin"
    assert vendor.bodies[0]["reasoning"] == {"effort": "high"}


async def test_gemini_shows_its_thoughts_and_gets_its_signatures_back() -> None:
    def rule(_: str, body: Json) -> str | None:
        if "extra_body" in body and "reasoning_effort" in body:
            return "Expected one of either `reasoning_effort` or custom `thinking_config`; found both."
        for message in tool_turns(body):
            google = message["tool_calls"][0].get("extra_content", {}).get("google", {})
            if not google.get("thought_signature", "").startswith("SIG"):
                return "Function call is missing a thought_signature in functionCall parts."
        return None

    def signed(number: int) -> Json:
        return call_chunk(number, extra_content={"google": {"thought_signature": f"SIG{number}"}})

    answers = [
        [signed(0), chunk("tool_calls")],
        [signed(1), chunk("tool_calls")],
        [chunk(content="Done."), chunk("stop")],
    ]
    vendor = Vendor(answers, rule)
    async with chatting(vendor, "gemini/gemini-3.8-flash", reasoning_effort="medium") as client:
        for _ in answers:
            await client.turn()
    assert_same_prefixes(vendor)
    config = {"include_thoughts": True, "thinking_level": "medium"}
    assert all(body["extra_body"] == {"google": {"thinking_config": config}} for body in vendor.bodies)


@pytest.mark.parametrize("upstream", ["openrouter/chat_completions/google/gemini-3-pro", "minimax/MiniMax-M3"])
async def test_reasoning_details_come_back_whole_in_every_tool_turn(upstream: str) -> None:
    def whole(number: int) -> list[Json]:
        text = {"type": "reasoning.text", "index": 0, "format": "x", "text": f"I think {number}.", "signature": "S"}
        return [text, {"type": "reasoning.encrypted", "index": 1, "data": f"E{number}", "id": CALL_IDS[number]}]

    def pieces(number: int) -> list[Json]:
        text, encrypted = whole(number)
        first = {**text, "text": "I think ", "signature": None}
        second = {"type": "reasoning.text", "index": 0, "text": f"{number}.", "signature": "S"}
        return [chunk(reasoning_details=[first]), chunk(reasoning_details=[second, encrypted])]

    def rule(_: str, body: Json) -> str | None:
        for number, message in enumerate(tool_turns(body)):
            if message.get("reasoning_details") != whole(number):
                return "Image or tool turns of this model need their reasoning_details."
        return None

    answers = [
        [*pieces(0), call_chunk(0), chunk("tool_calls")],
        [*pieces(1), call_chunk(1), chunk("tool_calls")],
        [*pieces(2), chunk(content="Done."), chunk("stop")],
        [chunk(content="Yes."), chunk("stop")],
    ]
    vendor = Vendor(answers, rule)
    async with chatting(vendor, upstream) as client:
        for _ in answers:
            await client.turn()
    assert_same_prefixes(vendor, at_least=4)
    (text_turn,) = [it for it in vendor.bodies[-1]["messages"] if it.get("content") == "Done."]
    assert text_turn["reasoning_details"] == whole(2)


@pytest.mark.parametrize(
    "upstream", ["moonshot/kimi-k3", "zai/glm-5", "dashscope/qwen3.7-max", "hosted_vllm/Qwen/Qwen4"]
)
async def test_kimi_glm_and_qwen_get_the_reasoning_of_their_tool_turns_back(upstream: str) -> None:
    def rule(_: str, body: Json) -> str | None:
        missing = any(not message.get("reasoning_content", "").strip() for message in tool_turns(body))
        return "reasoning_content is missing in assistant tool call message" if missing else None

    kind = f"{upstream.partition('/')[0]}/chat_completions/{upstream.partition('/')[2]}"
    vendor = Vendor(DEEPSEEK_ANSWERS, rule)
    async with chatting(vendor, kind if upstream.startswith("hosted") else upstream) as client:
        for _ in DEEPSEEK_ANSWERS:
            await client.turn()
    assert_same_prefixes(vendor, at_least=4)
