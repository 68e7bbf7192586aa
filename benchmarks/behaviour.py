"""What the mock upstream answers: bytes computed once per model name, in the Responses and the Chat dialect.

The model name is the script: ``mock-`` and letters with numbers, as in the C tools (`benchmarks.ctools`):
n delta events · d microseconds between bursts (0 = as fast as possible) · k events per burst · l extra text length ·
s microseconds before the first event · w 1 = one HTTP chunk per write, 0 = one per event · t 1 = a time stamp in each
delta, 0 = a constant one (a whole burst is then precomputed) · r 1 = random phase · e 1 = escapes and
non-ASCII text · x abort after x events · f how it aborts (`FAULTS`; with f, x may be 0) · z bytes of extra fields in
response.created · h HTTP status to answer with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

import msgspec

STAMP = re.compile(rb"@([0-9a-f]{16})@")
"""A time stamp inside a delta: nanoseconds of CLOCK_MONOTONIC, in hexadecimal."""

Stream: TypeAlias = tuple[list[bytes], Callable[[int], bytes], list[bytes]]
"""The frames before the deltas, the frame of the i-th delta, the frames after them."""

_DEFAULTS = {"n": 20, "d": 0, "k": 1, "l": 5, "s": 0, "w": 0, "t": 1, "r": 1, "e": 0, "x": 0, "z": 400, "h": 0, "f": 0}
_NO_STAMP = b"@" + b"0" * 16 + b"@"
_ITEM = "msg_68af0c1de2a4819c9d3f7b1c2a5e4f6008a1b2c3d4e5f607"
_RESPONSE = "resp_68af0c1dd9b8819c8f0a1b2c3d4e5f6008a1b2c3d4e5f607"
_CHAT = "chatcmpl-CTk1p9z8y7x6w5v4u3t2s1r0q"
_MODEL = "gpt-5-mock"
_CREATED = 1756302365
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nconnection: keep-alive\r\nopenai-version: 2020-10-01\r\n"
    b"x-request-id: req_68af0c1dd9b8819c8f0a1b2c\r\nopenai-processing-ms: 52\r\nserver: mock\r\n\r\n"
)


FAULTS = (
    *("close", "reset", "garbage", "error event", "bad JSON", "early end", "silence"),
    *("no head", "bad status line", "early reset"),
)
"""How a stream is aborted: by the letter f. From "no head" on it happens before the answer begins, whatever x is."""
_BEFORE_HEAD = FAULTS[FAULTS.index("no head") :]


@dataclass(frozen=True, slots=True)
class Script:
    """One behaviour, ready to send.

    Attributes:
        opening: the head of the response and what comes before the first delta.
        deltas: one template per event; ``template % stamp_ns`` if ``is_stamped``, otherwise the bytes themselves.
        ending: what comes after the last delta, including the last chunk.
        whole: the complete response, if it is sent as fast as possible and needs no stamps.
        fault: one of `FAULTS`, how it is aborted after ``abort_after`` events; "" if it is not.
        parting: the bytes that are sent before that.
    """

    opening: bytes
    deltas: list[bytes] = field(default_factory=list)
    ending: bytes = b""
    whole: bytes | None = None
    is_stamped: bool = False
    gap_ns: int = 0
    burst: int = 1
    silence_ns: int = 0
    has_random_phase: bool = False
    abort_after: int = 0
    fault: str = ""
    parting: bytes = b""


def parse_model(model: str) -> dict[str, int]:
    """Return the numbers in a model name, with defaults filled in."""
    numbers = dict(_DEFAULTS)
    for letter, number in re.findall(r"([a-z])(\d+)", model.partition("mock-")[2]):
        numbers[letter] = int(number)
    return numbers


@cache
def script(model: str, *, chat: bool, stream: bool) -> Script:
    """Return the answer to a request for ``model``, in the Chat or else the Responses dialect."""
    numbers = parse_model(model)
    if numbers["h"]:
        return _document(numbers["h"], {"error": {"message": "mock error", "type": "mock", "code": None}})
    text = ("xxxxx " * (numbers["n"] * numbers["l"] // 6 + 1))[:60_000]
    if not stream:
        return _document(200, _completion(text, numbers["n"]) if chat else _response("completed", text, numbers))
    before, make, after = _chat_stream(numbers) if chat else _responses_stream(numbers, text)
    is_stamped = bool(numbers["t"])
    deltas = [_chunk(make(i), is_template=is_stamped) for i in range(numbers["n"])]
    opening = _HEAD + b"".join(map(_chunk, before))
    ending = b"".join(map(_chunk, after)) + b"0\r\n\r\n"
    fault = FAULTS[numbers["f"]] if numbers["f"] or numbers["x"] else ""
    is_burst = not (is_stamped or numbers["d"] or numbers["s"] or fault)
    joined = _chunk(b"".join(map(make, range(numbers["n"])))) if numbers["w"] and is_burst else b"".join(deltas)
    return Script(
        opening=b"" if fault in _BEFORE_HEAD else opening,
        deltas=deltas,
        ending=ending,
        whole=opening + joined + ending if is_burst else None,
        is_stamped=is_stamped,
        gap_ns=numbers["d"] * 1000,
        burst=max(1, numbers["k"]) if numbers["d"] else 200,
        silence_ns=numbers["s"] * 1000,
        has_random_phase=bool(numbers["r"]),
        abort_after=0 if fault in _BEFORE_HEAD else numbers["x"],
        fault=fault,
        parting=_parting(fault, is_chat=chat),
    )


def _parting(fault: str, *, is_chat: bool) -> bytes:
    error = {"message": "mock error", "code": "server_error", "type": "server_error"}
    failed = (
        {"error": error} if is_chat else {"type": "response.failed", "response": {"status": "failed", "error": error}}
    )
    return {
        "garbage": b"zz\r\n",
        "error event": _chunk(b"data: %b\n\n" % msgspec.json.encode(failed)) + b"0\r\n\r\n",
        "bad JSON": _chunk(b"data: {nope\n\n"),
        "early end": b"0\r\n\r\n",
        "bad status line": b"HTP/1.1 abc\r\n\r\n",
    }.get(fault, b"")


def _text(numbers: dict[str, int], stamp: str) -> str:
    extra = '\n\u00e9"\u20ac ' if numbers["e"] else ""
    return stamp + extra + ("xxxxx " * (numbers["l"] // 6 + 1))[: numbers["l"]]


def _chunk(data: bytes, *, is_template: bool = False) -> bytes:
    size = len(data) + 16 - len("%016x") if is_template else len(data)  # as long as the stamp that replaces it
    return b"%x\r\n%b\r\n" % (size, data)


def _document(status: int, value: object) -> Script:
    body = msgspec.json.encode(value)
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return Script(opening=head + body, whole=head + body)


def _response(status: str, text: str | None, numbers: dict[str, int]) -> dict[str, object]:
    """Return a Response object with all the fields of a real one."""
    output: list[object] = []
    usage: object = None
    if text is not None:
        content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}]
        output = [{"id": _ITEM, "type": "message", "status": "completed", "content": content, "role": "assistant"}]
        usage = {
            "input_tokens": 57,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": numbers["n"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 57 + numbers["n"],
        }
    none = dict.fromkeys(("error", "incomplete_details", "max_output_tokens", "max_tool_calls", "previous_response_id"))
    return {
        "id": _RESPONSE,
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "background": False,
        "instructions": ("xxxxx " * (numbers["z"] // 6 + 1))[: numbers["z"]],
        **none,
        "model": _MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "reasoning": {"effort": "low", "summary": None},
        "service_tier": "auto",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def _responses_stream(numbers: dict[str, int], text: str) -> Stream:
    item = {"id": _ITEM, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    place = {"item_id": _ITEM, "output_index": 0, "content_index": 0}
    n = numbers["n"]
    ended = {**item, "status": "completed", "content": [{**part, "text": text}]}

    def frame(kind: str, sequence_number: int, **fields: object) -> bytes:
        event = {"type": kind, "sequence_number": sequence_number, **fields}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))

    def delta(i: int) -> bytes:
        rest = {**place, "logprobs": [], "obfuscation": "aB3xY9kQ"}
        return frame("response.output_text.delta", 4 + i, delta=_text(numbers, _stamp(numbers)), **rest)

    before = [
        frame("response.created", 0, response=_response("in_progress", None, numbers)),
        frame("response.in_progress", 1, response=_response("in_progress", None, numbers)),
        frame("response.output_item.added", 2, output_index=0, item=item),
        frame("response.content_part.added", 3, part=part, **place),
    ]
    after = [
        frame("response.output_text.done", 4 + n, text=text, logprobs=[], **place),
        frame("response.content_part.done", 5 + n, part={**part, "text": text}, **place),
        frame("response.output_item.done", 6 + n, output_index=0, item=ended),
        frame("response.completed", 7 + n, response=_response("completed", text, numbers)),
    ]
    return before, delta, after


def _chat_stream(numbers: dict[str, int]) -> Stream:
    def frame(choices: list[object], usage: object = None) -> bytes:
        chunk = {"id": _CHAT, "object": "chat.completion.chunk", "created": _CREATED, "model": _MODEL}
        return b"data: %b\n\n" % msgspec.json.encode({**chunk, "choices": choices, "usage": usage})

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return frame([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    before = [choice({"role": "assistant", "content": ""})]
    after = [choice({}, "stop"), frame([], _chat_usage(numbers["n"])), b"data: [DONE]\n\n"]
    return before, lambda i: choice({"content": _text(numbers, _stamp(numbers))}), after


def _stamp(numbers: dict[str, int]) -> str:
    return "@%016x@" if numbers["t"] else _NO_STAMP.decode()


def _completion(text: str, events: int) -> dict[str, object]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": _CHAT,
        "object": "chat.completion",
        "created": _CREATED,
        "model": _MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _chat_usage(events),
    }


def _chat_usage(events: int) -> dict[str, int]:
    return {"prompt_tokens": 57, "completion_tokens": events, "total_tokens": 57 + events}
