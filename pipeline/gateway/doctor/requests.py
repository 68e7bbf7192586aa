"""Requests as Cursor sends them: with its tools, in Azure's form, with images, to a base URL that ends in a slash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import trio

from pipeline.gateway.doctor.client import error_of, failure_text, posting
from pipeline.gateway.doctor.findings import Finding, ok, problem, untested, warning
from pipeline.gateway.doctor.proxies import remedy_for
from pipeline.gateway.doctor.streaming import CHAT, HELLO, see_log, what_came
from pipeline.gateway.doctor.streams import Streamed, stream
from pipeline.gateway.doctor.target import USER_AGENT, Visit

API_VERSION: Final = "2024-10-21"
_MIB: Final = 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024

PROMPT: Final = "Count from one to thirty in words. Do not call a tool."
CURSOR_BODY: Final[dict[str, Any]] = {
    "input": [
        {"role": "system", "content": "You are a test of the connection between Cursor and a model."},
        {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
    ],
    "tools": [
        {
            "type": "function",
            "name": "Shell",
            "description": "Run a command.",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
            },
        },
        {
            "type": "function",
            "name": "ReadFile",
            "description": "Read a file.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
        {
            "type": "custom",
            "name": "ApplyPatch",
            "description": "Change files by a patch.",
            "format": {
                "type": "grammar",
                "syntax": "lark",
                "definition": 'start: "*** Begin Patch" LF hunk "*** End Patch" LF?\nhunk: /(.|\\n)+/ LF\n'
                "%import common.LF",
            },
        },
    ],
    "tool_choice": "auto",
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "stream_options": {"include_usage": True},
    "metadata": {"cursorConversationId": "headrace-doctor", "cursorRequestId": "headrace-doctor"},
}
"""The Responses body that Cursor's agent posts to the chat path (docs/facts/cursor.md), with three of its tools."""


async def probe_cursor(visit: Visit) -> list[Finding]:
    """Ask a real model as Cursor's agent does; without a ``page``, its stream also says something of buffering."""
    plan = visit.plan
    model = plan.model or next((name for name in visit.models if "*" not in name), None)
    if not plan.asks_models or model is None:
        why = "--offline" if not plan.asks_models else "the server lists no model with a whole name: use --model NAME"
        found = [untested("cursor request", why)]
        return found if visit.page is not None else [*found, untested("stream", why)]
    streamed = await stream(visit.client, visit.target, visit.target.url(CHAT), {"model": model, **CURSOR_BODY})
    found = [judge_cursor(streamed, model, visit)]
    return found if visit.page is not None else [*found, judge_unknown_stream(streamed, model)]


def judge_cursor(streamed: Streamed, model: str, visit: Visit) -> Finding:
    """Return whether an answer is a stream that Cursor can show."""
    name = "cursor request"
    if not streamed.is_stream or not streamed.is_done:
        return problem(name, f"{model}: {what_came(streamed, visit)}", see_log(streamed))
    failed = next((chunk.error for chunk in streamed.chunks if chunk.error is not None), None)
    if failed is not None:
        said = visit.target.hide_key(failed.message)
        return problem(name, f"{model}: the stream ends with an error: {said}", see_log(streamed))
    choices = [choice for chunk in streamed.chunks for choice in chunk.choices]
    calls = {call.index for choice in choices for call in choice.delta.tool_calls or ()}
    needed = {
        "first part with a role": any(choice.delta.role for choice in choices),
        "text and no calls": bool(calls) or any(choice.delta.content for choice in choices),
        "finish_reason": any(choice.finish_reason for choice in choices),
    }
    missing = [what for what, is_there in needed.items() if not is_there]
    if missing:
        return problem(
            name,
            f"{model}: the stream has no {', no '.join(missing)}",
            "is the server headrace, and the base URL its /cursor?",
        )
    text = f"{model}: {len(streamed.token_times_s)} parts of text, {len(calls)} calls of tools"
    first_s = streamed.arrivals[0].at_s
    return ok(name, f"{text}, the first event after {first_s:.2f} s, complete after {streamed.ended_s:.2f} s")


def judge_unknown_stream(streamed: Streamed, model: str) -> Finding:
    """Return what a stream of a real model says of buffering: nothing is known of when its parts were sent."""
    why = "with headrace's master key, a stream is timed for which no model is asked"
    times_s = [arrival.at_s for arrival in streamed.arrivals]
    spread_s = times_s[-1] - times_s[0] if times_s else 0.0
    if spread_s > 0.2:
        text = f"{model}: {len(times_s)} parts came over {spread_s:.1f} s: not buffered as a whole"
        return ok("stream", text)
    return untested("stream", f"{model}: all came at once: the model was fast, or something buffers", why)


async def probe_azure(visit: Visit) -> list[Finding]:
    """Ask as Cursor's Azure settings do: another path, and the key in ``api-key``."""
    target = visit.target
    headers = {"user-agent": USER_AGENT, "api-key": target.key}
    model = visit.probe_model("tokens=2") if visit.page is not None else "headrace-doctor"
    url = f"{target.root}/openai/deployments/{quote(model, safe='')}/chat/completions?api-version={API_VERSION}"
    # Without a page, a body that is refused: nothing is to be paid for.
    body = HELLO if visit.page is not None else {}
    return [judge_azure(await stream(visit.client, target, url, body, headers), visit)]


def judge_azure(streamed: Streamed, visit: Visit) -> Finding:
    """Return whether the path leads to headrace, and the key was found."""
    said = error_of(streamed.error)
    path = "/openai/deployments/NAME/chat/completions"
    if streamed.is_stream and streamed.is_done:
        return ok("azure", f"POST {path} with `api-key` is answered")
    if visit.page is None and streamed.status == 400 and said is not None:
        return ok("azure", f"POST {path} with `api-key` leads to the server")
    if visit.page is None:
        return untested("azure", f"status {streamed.status}; with headrace's master key it can be told why")
    return warning(
        "azure",
        f"POST {path}: {what_came(streamed, visit)}",
        f"only for Cursor's Azure settings: {remedy_for('azure', visit.proxy)}",
    )


_BEFORE: Final = b'{"messages":[{"role":"user","content":"'
_AFTER: Final = b'"}]}'


def _large_body(size: int) -> Iterator[bytes]:
    """Yield a chat without a model."""
    yield _BEFORE
    for at in range(0, size, _PIECE_BYTES):
        yield b"x" * min(size - at, _PIECE_BYTES)
    yield _AFTER


async def probe_large_body(visit: Visit) -> list[Finding]:
    """Send a large body that the server reads to its end and then refuses, as it names no model."""
    target, size = visit.target, visit.plan.body_bytes
    if not size:
        return [untested("large body", "switched off")]
    whole, began_s = len(_BEFORE) + size + len(_AFTER), trio.current_time()
    try:
        async with posting(visit.client, target.url(CHAT), target.headers(), _large_body(size), whole) as response:
            await response.aread()
    except httpx.HTTPError as error:
        return [_too_large(visit, f"{failure_text(error)} after {trio.current_time() - began_s:.1f} s")]
    return [judge_large_body(response.status_code, response.content, trio.current_time() - began_s, visit)]


def judge_large_body(status: int, answer: bytes, took_s: float, visit: Visit) -> Finding:
    """Return who has refused a large body, and for what reason."""
    size, said = f"{visit.plan.body_bytes / _MIB:g} MiB", error_of(answer)
    if said is not None and said.code == "body_too_large":
        return warning(
            "large body",
            f"{size} are more than headrace's own limit",
            "pipeline_settings.max_body_mb: 100; chats with many images are larger than 20 MiB",
        )
    if status == 413 or (status, visit.proxy) == (502, "Caddy"):  # Caddy 2.6 says so of a body above max_size
        return _too_large(visit, f"status {status}, from what is in front of headrace")
    if said is None and visit.page is None and status < 400:
        return ok("large body", f"{size} are accepted")
    if said is None:
        text = f"{size}: status {status}, from what is in front of headrace"
        return problem("large body", text, "see the log of the proxy")
    if visit.page is not None and said.code != "invalid_request":
        return warning("large body", f"{size}: {visit.target.hide_key(said.message)}", "see headrace's log")
    rate = visit.plan.body_bytes / _MIB / max(took_s, 1e-3)
    return ok("large body", f"{size} are accepted, in {took_s:.1f} s ({rate:.1f} MiB/s)")


def _too_large(visit: Visit, why: str) -> Finding:
    size = f"{visit.plan.body_bytes / _MIB:g} MiB"
    return problem("large body", f"{size} are not accepted: {why}", remedy_for("large body", visit.proxy))


async def probe_double_slash(visit: Visit) -> list[Finding]:
    """Ask as if the base URL had been typed with a slash at its end."""
    target = visit.target
    response = await visit.client.get(target.url("//models"), headers=target.headers())
    if response.status_code == 200:
        return [ok("double slash", f"{target.base}/ works as well as without the slash")]
    return [
        warning(
            "double slash",
            f"GET {target.url('//models')}: status {response.status_code}",
            "type the base URL without a slash at its end, or let the proxy pass `//` on: headrace reads one slash",
        )
    ]
