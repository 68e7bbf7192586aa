"""Chat requests as bytes, for tests that write to the socket themselves, and the events of a small upstream answer."""

from __future__ import annotations

import json
from typing import Any

from kit.service.running import KEY
from kit.upstreams.scripted import Step, end, event, events, sse_head

OPENAI_LIKE = "openai-like/1.0"
CURSOR = "Cursor/1.0"
AGENTS = (OPENAI_LIKE, CURSOR)


def post_bytes(
    body: Any,
    *,
    agent: str = OPENAI_LIKE,
    path: str = "/cursor/chat/completions",
    length: int | None = None,
    key: str = KEY,
    host: str = "test",
) -> bytes:
    """Return a complete POST; ``length`` declares a length other than the body's."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {agent}",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(content) if length is None else length}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + content


def ask(model: str = "up", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    """Return a small request's body."""
    return {"model": model, "input": "hi", "stream": stream, **fields}


CREATED: dict[str, Any] = {
    "type": "response.created",
    "response": {
        "id": "resp_1",
        "created_at": 1_790_000_000,
        "model": "gpt-5",
        "status": "in_progress",
        "output": [],
    },
}


def delta(text: str) -> dict[str, Any]:
    """Return an event with text."""
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text}


def completed(text: str) -> dict[str, Any]:
    """Return the last event of an answer that is ``text``."""
    return {"type": "response.completed", "response": response_of(text)}


def response_of(text: str) -> dict[str, Any]:
    """Return the document of a complete answer."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_790_000_000,
        "model": "gpt-5",
        "status": "completed",
        "output": [
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }


def good_answer(text: str = "Hello") -> tuple[Step, ...]:
    """Return the script of a complete, successful stream."""
    return (sse_head(), events([CREATED, delta(text), completed(text)]), end())


def begun(*texts: str) -> tuple[Step, ...]:
    """Return the script of a stream that has sent ``texts`` and has not ended."""
    return (sse_head(), event(CREATED), *(event(delta(text)) for text in texts))


def failed_event(code: str, message: str) -> dict[str, Any]:
    """Return the last event of an answer that failed."""
    return {"type": "response.failed", "response": {"status": "failed", "error": {"code": code, "message": message}}}
