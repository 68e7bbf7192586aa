"""The responses of the admin paths."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline import PipelineError
from pipeline.gateway.failures import render
from pipeline.gateway.http.asgi import Scope, Send
from pipeline.gateway.http.door import OwnAnswer
from pipeline.gateway.http.http1 import Headers

SAFE: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
NOT_KEPT: Final[Headers] = [(b"cache-control", b"no-store"), *SAFE]


def data_answer(body: bytes, content_type: bytes, more: Headers | None = None) -> OwnAnswer:
    """Return a response that nobody may keep."""
    return OwnAnswer(200, [(b"content-type", content_type), *_length(body), *(more or []), *NOT_KEPT], body)


def json_answer(value: Any) -> OwnAnswer:
    """Return a value as JSON; bytes are JSON already."""
    return data_answer(value if isinstance(value, bytes) else msgspec.json.encode(value), b"application/json")


def failure_answer(error: PipelineError, more: Headers | None = None) -> OwnAnswer:
    """Return an error document."""
    rendered = render(error)
    return OwnAnswer(rendered.status, [*rendered.headers, *(more or []), *NOT_KEPT], rendered.body)


async def send_answer(scope: Scope, send: Send, answer: OwnAnswer) -> None:
    """Send a response, to HEAD without its body."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


def _length(body: bytes) -> Headers:
    return [(b"content-length", b"%d" % len(body))]
