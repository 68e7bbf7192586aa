"""A double of Claude that binds its thinking to what came before it, as the models since 5.1 do.

A signature stands for the system prompt, the tools and every block before it, without ``cache_control``. What it does
if one no longer fits: it answers 400, or drops the block if the request says so and has the beta header for that.

Source: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks (2026-11). It is stricter
than the real one, which accepts it if all blocks before a place are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from kit.upstreams.anthropic_stream import STOP, begin, document, head, last, text, thinking, tool
from kit.upstreams.scripted import Exchange, error, events, json_answer, sse_head

Json = dict[str, Any]

BINDING_BETA = "thinking-binding-controls-2026-08-01"
MISMATCH = (
    "messages.{}.content.{}: Invalid `signature` in `thinking` block. The block is bound to a different conversation."
)
_THOUGHTS = ("thinking", "redacted_thinking")


def said(kind: str, value: str, arguments: str = "{}") -> Json:
    """Return a block of an answer: ``thinking``, ``redacted_thinking``, ``text``, or ``tool_use`` with its id."""
    match kind:
        case "thinking":
            return {"type": kind, "thinking": value}
        case "redacted_thinking":
            return {"type": kind}
        case "text":
            return {"type": kind, "text": value}
        case _:
            return {"type": kind, "id": value, "name": "Shell", "input": json.loads(arguments)}


@dataclass
class BoundClaude:
    """The double; use it as the step of a scripted upstream.

    Attributes:
        replies: the blocks of each answer, in turn.
        honours_setting: whether it drops blocks on request; some versions answered 400 in any case.
        account: of the key; blocks of another one do not fit.
        accepted: the body of each request that was answered.
        headers: those of each request that was answered.
        refusals: the messages of the others.
        dropped: how many blocks were dropped.
    """

    replies: list[list[Json]]
    honours_setting: bool = True
    account: str = "a"
    accepted: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    dropped: int = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        body, headers = exchange.request.json(), exchange.request.headers
        if (message := self._refusal(body, headers.get("anthropic-beta", "").split(","))) is not None:
            self.refusals.append(message)
            details = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
            await exchange.send(error(400, json.dumps(details).encode()))
            return
        content = self._signed(body, self.replies[len(self.accepted)])
        self.accepted.append(body)
        self.headers.append(headers)
        reason = "tool_use" if content[-1]["type"] == "tool_use" else "end_turn"
        if not body["stream"]:
            await exchange.send(json_answer(json.loads(document(*content, reason=reason))))
            return
        await exchange.send(sse_head())
        await events([head(), *_events(content), last(reason), STOP])(exchange)
        await exchange.send(b"0\r\n\r\n")

    def sent_thoughts(self) -> list[int]:
        """Return how many thinking blocks each request that was answered had."""
        return [sum(block["type"] in _THOUGHTS for _, _, block in _blocks(body)) for body in self.accepted]

    def _refusal(self, body: Json, betas: list[str]) -> str | None:
        has_setting = "block_binding" in body.get("thinking", {})
        if has_setting != (BINDING_BETA in betas):
            return "thinking.block_binding: Extra inputs are not permitted"
        before = [self._start(body)]
        for place, position, block in _blocks(body):
            if block["type"] in _THOUGHTS and _proof(block) != _digest(before):
                if not (has_setting and self.honours_setting):
                    return MISMATCH.format(place, position)
                self.dropped += 1
            before.append(block)
        return None

    def _signed(self, body: Json, reply: list[Json]) -> list[Json]:
        before = [self._start(body), *(block for _, _, block in _blocks(body))]
        content: list[Json] = []
        for block in reply:
            if block["type"] in _THOUGHTS:
                block = {**block, "signature" if block["type"] == "thinking" else "data": _digest(before)}
            content.append(block)
            before.append(block)
        return content

    def _start(self, body: Json) -> Json:
        return {"system": _unmarked(body.get("system")), "tools": _unmarked(body.get("tools")), "of": self.account}


def _blocks(body: Json) -> Iterator[tuple[int, int, Json]]:
    for place, message in enumerate(body["messages"]):
        for position, block in enumerate(message["content"]):
            yield place, position, _unmarked(block)


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmarked(inner) for key, inner in value.items() if key != "cache_control"}
    return [_unmarked(inner) for inner in value] if isinstance(value, list) else value


def _proof(block: Json) -> str:
    return str(block.get("signature") or block.get("data"))


def _digest(before: list[Json]) -> str:
    return sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()


def _events(content: list[Json]) -> Iterator[Json]:
    for at, block in enumerate(content):
        match block["type"]:
            case "thinking":
                yield from thinking(at, block["signature"], *([block["thinking"]] if block["thinking"] else []))
            case "redacted_thinking":
                yield begin(at, "redacted_thinking", data=block["data"])
            case "text":
                yield from text(at, *block["text"].partition(" "))
            case _:
                yield from tool(at, block["id"], block["name"], json.dumps(block["input"]))
