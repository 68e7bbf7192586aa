"""The embedded upstream's answers, in the events of the Responses API.

Pure: the same answer and head produce the same bytes. Events, fields and their order are those of OpenAI's streams as
recorded in 2025 and 2026 (docs/facts/recordings.md).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, TypeAlias, assert_never

import msgspec
from msgspec import Raw, Struct

from stages.request import ResponsesRequest

_TOKEN = re.compile(r"\s*\S+|\s+")
_INPUT_BYTES_PER_TOKEN = 4  # the usual rule of thumb for English and code


class CannedReasoning(Struct, frozen=True, gc=False):
    """A summary of the model's reasoning."""

    text: str


class CannedMessage(Struct, frozen=True, gc=False):
    """A message from the model."""

    text: str


class CannedCall(Struct, frozen=True, gc=False):
    """A call of one of the client's tools: arguments are JSON, or raw text for a custom tool."""

    name: str
    text: str
    is_custom: bool = False


Output: TypeAlias = CannedReasoning | CannedMessage | CannedCall


class Head(Struct, frozen=True):
    """What is known of an answer before its first output."""

    key: str
    """Hexadecimal digits, unique to this answer, from which all of its ids are made."""
    created_at: int
    model: str
    request: ResponsesRequest


class Frame(Struct, frozen=True, gc=False):
    """One event in wire format."""

    data: bytes
    is_token: bool
    """Whether it carries a token, which a model takes time to produce."""


def tokens(text: str) -> list[str]:
    """Split text into words, each with the white space before it; joined they are the text again."""
    return _TOKEN.findall(text)


def stream_answer(outputs: tuple[Output, ...], head: Head) -> Iterator[Frame]:
    """Yield the events of an answer, the terminal one last."""
    fitting, is_complete = _fit(outputs, head)
    number = 0

    def event(kind: str, fields: dict[str, Any], *, is_token: bool = False) -> Frame:
        nonlocal number
        data = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
        number += 1
        return Frame(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n", is_token)

    yield event("response.created", {"response": _response(head, "in_progress", [])})
    yield event("response.in_progress", {"response": _response(head, "in_progress", [])})
    for index, output in enumerate(fitting):
        status = "completed" if is_complete or index < len(fitting) - 1 else "incomplete"
        begun, done = _item(output, index, head, "in_progress", ""), _item(output, index, head, status, output.text)
        yield event("response.output_item.added", {"output_index": index, "item": begun})
        at: dict[str, Any] = {"item_id": begun["id"], "output_index": index}
        match output:
            case CannedReasoning(text):
                at["summary_index"] = 0
                part = {"type": "summary_text", "text": text}
                yield event("response.reasoning_summary_part.added", {**at, "part": {**part, "text": ""}})
                for token in tokens(text):
                    yield event("response.reasoning_summary_text.delta", {**at, "delta": token}, is_token=True)
                yield event("response.reasoning_summary_text.done", {**at, "text": text})
                yield event("response.reasoning_summary_part.done", {**at, "part": part})
            case CannedMessage(text):
                at["content_index"] = 0
                yield event("response.content_part.added", {**at, "part": _text_part("", head)})
                for token in tokens(text):
                    delta = {**at, "delta": token, "logprobs": _logprobs(token, head)}
                    yield event("response.output_text.delta", delta, is_token=True)
                yield event("response.output_text.done", {**at, "text": text, "logprobs": _logprobs(text, head)})
                yield event("response.content_part.done", {**at, "part": _text_part(text, head)})
            case CannedCall(_, text, is_custom):
                kind = "custom_tool_call_input" if is_custom else "function_call_arguments"
                for token in tokens(text):
                    yield event(f"response.{kind}.delta", {**at, "delta": token}, is_token=True)
                yield event(f"response.{kind}.done", {**at, "input" if is_custom else "arguments": text})
            case _:
                assert_never(output)
        yield event("response.output_item.done", {"output_index": index, "item": done})
    final = _final(fitting, head, is_complete=is_complete)
    yield event(f"response.{final['status']}", {"response": final})


def whole_answer(outputs: tuple[Output, ...], head: Head) -> bytes:
    """Return the answer as one JSON document, for a request without ``stream``."""
    fitting, is_complete = _fit(outputs, head)
    return msgspec.json.encode(_final(fitting, head, is_complete=is_complete))


def count_tokens(outputs: tuple[Output, ...]) -> int:
    """Return how many tokens an answer costs."""
    return sum(len(tokens(output.text)) for output in outputs)


def _fit(outputs: tuple[Output, ...], head: Head) -> tuple[tuple[Output, ...], bool]:
    """Cut the answer off at ``max_output_tokens``, even within a call, and return whether it is still whole."""
    left = head.request.body.get("max_output_tokens")
    if not isinstance(left, int) or count_tokens(outputs) <= left:
        return outputs, True
    fitting: list[Output] = []
    for output in outputs:
        words = tokens(output.text)
        if left > 0:
            fitting.append(msgspec.structs.replace(output, text="".join(words[:left])))
        left -= len(words)
    return tuple(fitting), False


def _final(outputs: tuple[Output, ...], head: Head, *, is_complete: bool) -> dict[str, Any]:
    status = "completed" if is_complete else "incomplete"
    last = len(outputs) - 1
    items = [
        _item(output, index, head, status if index == last else "completed", output.text)
        for index, output in enumerate(outputs)
    ]
    spent = count_tokens(outputs)
    reasoning = count_tokens(tuple(output for output in outputs if isinstance(output, CannedReasoning)))
    asked = max(1, len(msgspec.json.encode(head.request.body)) // _INPUT_BYTES_PER_TOKEN)
    usage = {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spent,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": asked + spent,
    }
    return _response(head, status, items) | {"usage": usage}


def _response(head: Head, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the response object, which echoes the request including its tools, as OpenAI's does."""
    body = head.request.body
    reasoning: dict[str, Any] = body.get("reasoning") or {}
    text: dict[str, Any] = body.get("text") or {}
    is_done = status == "completed"
    return {
        "id": f"resp_{head.key}",
        "object": "response",
        "created_at": head.created_at,
        "status": status,
        "background": False,
        "completed_at": head.created_at if is_done else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": head.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": {"effort": reasoning.get("effort", "medium"), "summary": reasoning.get("summary")},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default" if is_done else "auto",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": text.get("format", {"type": "text"}), "verbosity": text.get("verbosity", "medium")},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_logprobs": body.get("top_logprobs", 0),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata", {}),
    }


def _item(output: Output, index: int, head: Head, status: str, text: str) -> dict[str, Any]:
    """Return an output item that contains ``text`` so far."""
    key = f"{head.key}{index:02x}"
    match output:
        case CannedReasoning():
            item: dict[str, Any] = {"id": f"rs_{key}", "type": "reasoning"}
            if "reasoning.encrypted_content" in head.request.body.get("include", ()):
                item["encrypted_content"] = b64encode(f"canned reasoning {key}".encode()).decode()
            return item | {"summary": [{"type": "summary_text", "text": text}] if text else []}
        case CannedMessage():
            content = [_text_part(text, head)] if text else []
            return {"id": f"msg_{key}", "type": "message", "status": status, "content": content, "role": "assistant"}
        case CannedCall(name, _, is_custom):
            kind, prefix, field = (
                ("custom_tool_call", "ctc", "input") if is_custom else ("function_call", "fc", "arguments")
            )
            call_id = f"call_{key[-24:]}"
            return {
                "id": f"{prefix}_{key}", "type": kind, "status": status, field: text, "call_id": call_id, "name": name,
            }  # fmt: skip
        case _:
            assert_never(output)


def _text_part(text: str, head: Head) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": _logprobs(text, head), "text": text}


def _logprobs(text: str, head: Head) -> list[Raw]:
    """Return a log probability for each token, if the request asks for them."""
    if not head.request.wants_logprobs:
        return []
    return [
        Raw(msgspec.json.encode({"token": token, "bytes": list(token.encode()), "logprob": -0.1, "top_logprobs": []}))
        for token in tokens(text)
    ]
