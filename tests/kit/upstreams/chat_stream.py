"""What a Chat Completions upstream sends, for tests: chunks and documents."""

from __future__ import annotations

import json
from typing import Any

from stages.events import Started

Json = dict[str, Any]

DONE = "[DONE]"
STARTED = Started("c1", "m", 7)
"""The start of every stream and document that is made here."""


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice], **more}


def calls(*entries: Json) -> Json:
    return chunk({"tool_calls": list(entries)})


def call(index: int | None, call_id: str | None, name: str | None, arguments: Any, **more: Any) -> Json:
    entry: Json = {"function": {"arguments": arguments}, **more}
    if index is not None:
        entry["index"] = index
    if call_id is not None:
        entry["id"] = call_id
    if name is not None:
        entry["function"]["name"] = name
    return entry


def document(message: Json, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    head = {"id": "c1", "object": "chat.completion", "created": 7, "model": "m", "choices": [choice]}
    return json.dumps({**head, **more}).encode()
