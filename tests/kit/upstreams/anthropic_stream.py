"""What an Anthropic upstream sends, for tests: events and documents."""

from __future__ import annotations

import json
from typing import Any

from stages.events import Started

Json = dict[str, Any]

STARTED = Started("msg_1", "claude-x", 0)
"""The start of every stream and document that is made here."""
STOP = {"type": "message_stop"}


def head(**more: Any) -> Json:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [], **more}
    return {"type": "message_start", "message": message}


def begin(at: int, kind: str, **more: Any) -> Json:
    return {"type": "content_block_start", "index": at, "content_block": {"type": kind, **more}}


def more(at: int, kind: str, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": at, "delta": {"type": kind, **fields}}


def stop(at: int) -> Json:
    return {"type": "content_block_stop", "index": at}


def text(at: int, *deltas: str) -> list[Json]:
    return [begin(at, "text", text=""), *(more(at, "text_delta", text=delta) for delta in deltas), stop(at)]


def thinking(at: int, signature: str, *deltas: str) -> list[Json]:
    return [
        begin(at, "thinking", thinking="", signature=""),
        *(more(at, "thinking_delta", thinking=delta) for delta in deltas),
        more(at, "signature_delta", signature=signature),
        stop(at),
    ]


def tool(at: int, call_id: str, name: str, *deltas: str, **fields: Any) -> list[Json]:
    parts = [more(at, "input_json_delta", partial_json=delta) for delta in deltas]
    return [begin(at, "tool_use", id=call_id, name=name, **{"input": {}, **fields}), *parts, stop(at)]


def last(reason: str | None = "end_turn", **usage: Any) -> Json:
    found: Json = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
    return {**found, "usage": usage} if usage else found


def document(*content: Any, reason: Any = "end_turn", **fields: Any) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content)}
    return json.dumps({**message, "stop_reason": reason, "stop_sequence": None, **fields}).encode()
