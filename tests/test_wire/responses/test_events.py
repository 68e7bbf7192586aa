"""Every event and item of the Responses API: what the upstream sends, and what the client ends up with.

docs/facts/translation.md lists them in "Events of a Responses stream" and "Output items". Each row is a small but
complete stream with the event in its place; the result is that of a client that folds the chunks. If the terminal
snapshot is complete, the same response as a document has the same result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

import pytest
from kit.clients.chat_fold import Folded, data_of, fold_document, fold_stream
from kit.strategies.streams import sse
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent

from stages.wire.answers.request_traits import RequestTraits
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.errors import error_frame
from stages.wire.responses.decoder import ResponsesDecoder, decode_document

Json = dict[str, Any]

HINT = (
    "openai-python has {new} without a row in this table: read its documentation, decide what a chat client must "
    "see of it (docs/facts/translation.md, 'Events of a Responses stream'), and add a row"
)


@dataclass
class Row:
    """One event or item in its stream, and the result."""

    about: str
    events: list[Json | str]
    content: str | None = None
    refusal: str | None = None
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, name and arguments."""
    finish: str | None = "stop"
    citations: list[Json] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """The tokens with log probabilities."""
    usage: int | None = None
    """Total tokens."""
    error: tuple[str, str] | None = None
    """Code and message."""
    tier: str = ""
    comments: int = 0
    hosted: bool = False
    """The request declares tools that the upstream runs itself."""
    custom: tuple[str, ...] = ("ApplyPatch",)
    used: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.about


def at(kind: str, output_index: int = 0, content_index: int | None = None, **fields: Any) -> Json:
    place: Json = {"output_index": output_index, "item_id": f"item_{output_index}"}
    if content_index is not None:
        place["content_index"] = content_index
    return {"type": kind, "sequence_number": 7} | place | fields


def text(delta: str, output_index: int = 0, content_index: int = 0, **fields: Any) -> Json:
    return at("response.output_text.delta", output_index, content_index, delta=delta, **fields)


def added(item: Json, output_index: int = 0) -> Json:
    return at("response.output_item.added", output_index, item=item)


def done(item: Json, output_index: int = 0) -> Json:
    return at("response.output_item.done", output_index, item=item)


def response(status: str = "completed", *output: Json, **fields: Any) -> Json:
    return {
        "id": "resp_1",
        "created_at": 1790000000,
        "model": "gpt-5",
        "status": status,
        "output": list(output),
    } | fields


def ended(kind: str = "completed", *output: Json, **fields: Any) -> Json:
    status = {"done": "completed", "failed": "failed"}.get(kind, kind)
    return {"type": f"response.{kind}", "response": response(status, *output, **fields)}


def message(*parts: Json | str, **fields: Any) -> Json:
    content = [
        {"type": "output_text", "text": part, "annotations": []} if isinstance(part, str) else part for part in parts
    ]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content} | fields


def call(arguments: str = "", name: str = "Read", call_id: str | None = "call_a", **fields: Any) -> Json:
    item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return item | fields


def patch(given: str = "", name: str = "ApplyPatch", call_id: str = "call_p", **fields: Any) -> Json:
    return {
        "type": "custom_tool_call",
        "id": f"ctc_{call_id}",
        "call_id": call_id,
        "name": name,
        "input": given,
    } | fields


def thought(*summary: str, content: tuple[str, ...] = (), **fields: Any) -> Json:
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": part} for part in summary],
        "content": [{"type": "reasoning_text", "text": part} for part in content],
    } | fields


CREATED: Json = {"type": "response.created", "response": response("in_progress")}
SAID = [text("Hi"), ended("completed", message("Hi"))]
"""An ordinary end, for rows about events that must have no effect."""
READ = ("call_a", "Read", '{"path":"a"}')
PATCHED = ("call_p", "ApplyPatch", "*** Begin Patch\n*** End Patch")
CITED: Json = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
NESTED: Json = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2},
}
LOGPROB: Json = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
TOKENS: Json = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def nothing(kind: str, *more: Json, **fields: Any) -> Row:
    """Make a row for an event that a chat client does not see, in an answer with text."""
    return Row(kind, [CREATED, at(kind, 1, **fields), *more, *SAID], content="Hi", hosted=True)


LIFECYCLE = [
    Row("response.created", [CREATED, *SAID], content="Hi"),
    Row(
        "response.created with a service tier",
        [
            {"type": "response.created", "response": response("in_progress", service_tier="flex")},
            *SAID,
        ],
        content="Hi",
        tier="flex",
    ),
    Row(
        "response.created with a tier that chat does not know",
        [
            {"type": "response.created", "response": response("in_progress", service_tier="ultrafast")},
            *SAID,
        ],
        content="Hi",
    ),
    Row("response.queued", [{"type": "response.queued", "response": response("queued")}, *SAID], content="Hi"),
    Row(
        "response.in_progress",
        [CREATED, {"type": "response.in_progress", "response": response("in_progress")}, *SAID],
        content="Hi",
    ),
    Row("no response.created at all", [*SAID], content="Hi"),
    Row(
        "keepalive",
        [{"type": "keepalive", "sequence_number": 0}, CREATED, text("Hi"), {"type": "keepalive"}, ended()],
        content="Hi",
        comments=1,
    ),
    Row(
        "response.keep_alive", [CREATED, text("Hi"), {"type": "response.keep_alive"}, ended()], content="Hi", comments=1
    ),
    Row("response.completed", [CREATED, ended("completed", message("Hi"), usage=TOKENS)], content="Hi", usage=5),
    Row("response.completed without output", [CREATED, text("Hi"), ended(usage=TOKENS)], content="Hi", usage=5),
    Row("response.completed with nothing at all", [CREATED, ended()]),
    Row(
        "response.completed that repeats everything",
        [
            CREATED,
            text("Hi"),
            added(call(), 1),
            done(call('{"path":"a"}'), 1),
            ended("completed", message("Hi"), call('{"path":"a"}')),
        ],
        content="Hi",
        calls=[READ],
        finish="tool_calls",
    ),
    Row("response.done", [CREATED, text("Hi"), ended("done", usage=TOKENS)], content="Hi", usage=5),
    Row("[DONE] after the end", [CREATED, *SAID, "[DONE]"], content="Hi"),
    Row(
        "[DONE] instead of an end",
        [CREATED, text("Hi"), "[DONE]"],
        content="Hi",
        finish=None,
        error=("upstream_protocol", "The upstream's stream ended before its answer was complete; try again."),
    ),
    Row(
        "no end at all",
        [CREATED, text("Hi")],
        content="Hi",
        finish=None,
        error=("upstream_protocol", "The upstream's stream ended before its answer was complete; try again."),
    ),
    Row(
        "response.incomplete",
        [
            CREATED,
            text("Hi"),
            ended("incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=TOKENS),
        ],
        content="Hi",
        finish="length",
        usage=5,
    ),
    *(
        Row(
            f"response.incomplete because of {reason}",
            [CREATED, text("Hi"), ended("incomplete", incomplete_details={"reason": reason})],
            content="Hi",
            finish=finish,
        )
        for reason, finish in (
            ("content_filter", "content_filter"),
            ("steered", "stop"),
            ("max_messages", "length"),
            ("new", "length"),
        )
    ),
    Row(
        "response.incomplete without details", [CREATED, text("Hi"), ended("incomplete")], content="Hi", finish="length"
    ),
    Row(
        "response.incomplete in the middle of a call",
        [
            CREATED,
            added(call()),
            at("response.function_call_arguments.delta", delta='{"pa'),
            ended("incomplete", call('{"pa', status="incomplete"), incomplete_details={"reason": "max_output_tokens"}),
        ],
        calls=[("call_a", "Read", '{"pa')],
        finish="length",
    ),
    Row(
        "response.completed whose status is incomplete",
        [
            CREATED,
            text("Hi"),
            {"type": "response.completed", "response": response("incomplete")},
        ],
        content="Hi",
        finish="length",
    ),
    Row(
        "response.failed",
        [
            CREATED,
            text("Hi"),
            ended("failed", error={"code": "rate_limit_exceeded", "message": "Slow down."}),
        ],
        content="Hi",
        finish=None,
        error=("upstream_rate_limited", "Slow down."),
    ),
    Row(
        "response.failed without a reason",
        [CREATED, text("Hi"), ended("failed", error=None)],
        content="Hi",
        finish=None,
        error=("upstream_error", "The upstream reported a failure and gave no reason for it; try again."),
    ),
    Row(
        "response.failed before any output",
        [
            CREATED,
            ended("failed", error={"code": "invalid_prompt", "message": "No."}),
        ],
        finish=None,
        error=("upstream_rejected", "No."),
    ),
    Row(
        "response.cancelled",
        [CREATED, text("Hi"), ended("cancelled")],
        content="Hi",
        finish=None,
        error=("upstream_error", "The upstream cancelled the answer; try again."),
    ),
    Row(
        "error",
        [CREATED, text("Hi"), {"type": "error", "code": "server_error", "message": "Oh.", "param": None}],
        content="Hi",
        finish=None,
        error=("upstream_error", "Oh."),
    ),
    Row(
        "error, nested",
        [
            CREATED,
            text("Hi"),
            {"type": "error", "error": {"type": "server_error", "code": None, "message": "Oh."}},
        ],
        content="Hi",
        finish=None,
        error=("upstream_error", "Oh."),
    ),
    Row(
        "error without a type",
        [CREATED, text("Hi"), {"error": {"message": "Oh.", "code": 429}}],
        content="Hi",
        finish=None,
        error=("upstream_rate_limited", "Oh."),
    ),
    Row(
        "response.error",
        [CREATED, text("Hi"), {"type": "response.error", "error": {"message": "Oh."}}],
        content="Hi",
        finish=None,
        error=("upstream_error", "Oh."),
    ),
    Row(
        "error and then response.failed",
        [
            CREATED,
            text("Hi"),
            {"type": "error", "error": {"message": "Oh."}},
            ended("failed", error={"message": "Again."}),
        ],
        content="Hi",
        finish=None,
        error=("upstream_error", "Oh."),
    ),
    Row(
        "error after a whole text",
        [
            CREATED,
            text("Hi"),
            at("response.output_text.done", 0, 0, text="Hi"),
            done(message("Hi")),
            {"type": "error", "error": {"message": "Oh."}},
        ],
        content="Hi",
        finish=None,
        error=("upstream_error", "Oh."),
    ),
]

TEXTS = [
    Row("response.output_item.added of a message", [CREATED, added(message()), *SAID], content="Hi"),
    Row(
        "response.content_part.added",
        [CREATED, at("response.content_part.added", 0, 0, part={"type": "output_text", "text": ""}), *SAID],
        content="Hi",
    ),
    Row(
        "response.output_text.delta", [CREATED, text("H"), text(""), text("i", obfuscation="x"), ended()], content="Hi"
    ),
    Row(
        "response.output_text.delta with another id in each event",
        [
            CREATED,
            text("H", item_id="a"),
            text("i", item_id="b"),
            ended("completed", message("Hi", id="c"), id="resp_2"),
        ],
        content="Hi",
    ),
    Row(
        "response.output_text.done",
        [CREATED, text("H"), at("response.output_text.done", 0, 0, text="Hi", logprobs=[]), ended()],
        content="Hi",
    ),
    Row(
        "response.output_text.done that does not begin with what was sent",
        [CREATED, text("Ho"), at("response.output_text.done", 0, 0, text="Hi"), ended()],
        content="Ho",
    ),
    Row(
        "response.content_part.done",
        [CREATED, at("response.content_part.done", 0, 0, part={"type": "output_text", "text": "Hi"}), ended()],
        content="Hi",
    ),
    Row("response.output_item.done of a message", [CREATED, done(message("Hi")), ended()], content="Hi"),
    Row(
        "several parts",
        [CREATED, text("H", 0, 0), text("i", 0, 1), ended("completed", message("H", "i"))],
        content="Hi",
    ),
    Row(
        "several messages",
        [CREATED, text("H", 0), text("i", 1), ended("completed", message("H"), message("i"))],
        content="Hi",
    ),
    Row(
        "a message of commentary and one of answer",
        [
            CREATED,
            added(message(phase="commentary")),
            text("Wait", 0),
            added(message(phase="final_answer"), 1),
            text("Hi", 1),
            ended("completed", message("Wait", phase="commentary"), message("Hi", phase="final_answer")),
        ],
        content="Wait\n\nHi",
    ),
    Row(
        "interleaved with reasoning",
        [CREATED, text("H", 1), at("response.reasoning_text.delta", 0, 0, delta="r"), text("i", 1), ended()],
        content="Hi",
        reasoning="r",
    ),
    Row(
        "log probabilities in the deltas",
        [CREATED, text("Hi", logprobs=[LOGPROB]), ended()],
        content="Hi",
        tokens=["Hi"],
    ),
    Row(
        "log probabilities in the done event only",
        [CREATED, text("Hi"), at("response.output_text.done", 0, 0, text="Hi", logprobs=[LOGPROB]), ended()],
        content="Hi",
        tokens=["Hi"],
    ),
    Row(
        "response.output_text.annotation.added",
        [
            CREATED,
            text("Hi"),
            at("response.output_text.annotation.added", 0, 0, annotation_index=0, annotation=CITED),
            ended(),
        ],
        content="Hi",
        citations=[NESTED],
    ),
    Row(
        "the same citation in every place",
        [
            CREATED,
            text("Hi"),
            at("response.output_text.annotation.added", 0, 0, annotation_index=0, annotation=CITED),
            done(message({"type": "output_text", "text": "Hi", "annotations": [CITED]})),
            ended("completed", message({"type": "output_text", "text": "Hi", "annotations": [CITED]})),
        ],
        content="Hi",
        citations=[NESTED],
    ),
    Row(
        "citations that have no form in chat",
        [
            CREATED,
            text("Hi"),
            *(
                at(
                    "response.output_text.annotation.added",
                    0,
                    0,
                    annotation_index=n,
                    annotation={"type": kind, "file_id": "f"},
                )
                for n, kind in enumerate(("file_citation", "container_file_citation", "file_path", "new"))
            ),
            ended(),
        ],
        content="Hi",
    ),
    Row(
        "a bare citation",
        [
            CREATED,
            text("Hi"),
            at(
                "response.output_text.annotation.added",
                0,
                0,
                annotation_index=0,
                annotation={"type": "url_citation", "url": "https://b.example"},
            ),
            ended(),
        ],
        content="Hi",
        citations=[
            {
                "type": "url_citation",
                "url_citation": {"url": "https://b.example", "title": "", "start_index": 0, "end_index": 0},
            }
        ],
    ),
    Row(
        "a citation in a later part",
        [
            CREATED,
            text("Hi", 0),
            text("Hi", 1),
            at("response.output_text.annotation.added", 1, 0, annotation_index=0, annotation=CITED),
            ended(),
        ],
        content="HiHi",
        citations=[
            {
                "type": "url_citation",
                "url_citation": {"url": "https://a.example", "title": "A", "start_index": 2, "end_index": 4},
            }
        ],
    ),
    Row("response.refusal.delta", [CREATED, at("response.refusal.delta", 0, 0, delta="No."), ended()], refusal="No."),
    Row(
        "response.refusal.done",
        [
            CREATED,
            at("response.refusal.delta", 0, 0, delta="N"),
            at("response.refusal.done", 0, 0, refusal="No."),
            ended(),
        ],
        refusal="No.",
    ),
    Row(
        "a refusal in the final message",
        [CREATED, ended("completed", message({"type": "refusal", "refusal": "No."}))],
        refusal="No.",
    ),
    Row(
        "a refusal in a part that is done",
        [CREATED, at("response.content_part.done", 0, 0, part={"type": "refusal", "refusal": "No."}), ended()],
        refusal="No.",
    ),
]

REASONING = [
    Row(
        "response.reasoning_summary_part.added",
        [
            CREATED,
            at("response.reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""}),
            at("response.reasoning_summary_text.delta", summary_index=0, delta="r"),
            text("Hi", 1),
            ended(),
        ],
        content="Hi",
        reasoning="r",
    ),
    Row(
        "response.reasoning_summary_text.delta",
        [
            CREATED,
            at("response.reasoning_summary_text.delta", summary_index=0, delta="r"),
            at("response.reasoning_summary_text.delta", summary_index=1, delta="s"),
            ended("completed", thought("r", "s")),
        ],
        reasoning="r\n\ns",
    ),
    Row(
        "response.reasoning_summary_text.done",
        [CREATED, at("response.reasoning_summary_text.done", summary_index=0, text="r"), ended()],
        reasoning="r",
    ),
    Row(
        "response.reasoning_summary_part.done",
        [
            CREATED,
            at("response.reasoning_summary_text.delta", summary_index=0, delta="r"),
            at("response.reasoning_summary_part.done", summary_index=0, part={"type": "summary_text", "text": "r"}),
            ended(),
        ],
        reasoning="r",
    ),
    Row(
        "response.reasoning_text.delta",
        [CREATED, at("response.reasoning_text.delta", 0, 0, delta="r"), ended("completed", thought(content=("r",)))],
        reasoning="r",
    ),
    Row(
        "response.reasoning_text.done",
        [CREATED, at("response.reasoning_text.done", 0, 0, text="r"), ended()],
        reasoning="r",
    ),
    Row("response.reasoning.delta", [CREATED, at("response.reasoning.delta", 0, 0, delta="r"), ended()], reasoning="r"),
    Row("response.reasoning.done", [CREATED, at("response.reasoning.done", 0, 0, text="r"), ended()], reasoning="r"),
    Row(
        "response.reasoning_part.added",
        [
            CREATED,
            at("response.reasoning_part.added", 0, 0, part={"type": "reasoning_text", "text": ""}),
            at("response.reasoning_text.delta", 0, 0, delta="r"),
            ended(),
        ],
        reasoning="r",
    ),
    Row(
        "response.reasoning_part.done",
        [
            CREATED,
            at("response.reasoning_text.delta", 0, 0, delta="r"),
            at("response.reasoning_part.done", 0, 0, part={"type": "reasoning_text", "text": "r"}),
            ended(),
        ],
        reasoning="r",
    ),
    Row(
        "a reasoning part that is done",
        [CREATED, at("response.content_part.done", 0, 0, part={"type": "reasoning_text", "text": "r"}), ended()],
        reasoning="r",
    ),
    Row(
        "summary and raw text of one item: only what came first",
        [
            CREATED,
            at("response.reasoning_text.delta", 0, 0, delta="raw"),
            at("response.reasoning_summary_text.delta", summary_index=0, delta="summary"),
            ended(),
        ],
        reasoning="raw",
    ),
    Row(
        "an item that shows nothing but its encrypted content",
        [
            CREATED,
            done(thought(encrypted_content="gAAAA")),
            text("Hi", 1),
            ended("completed", thought(), message("Hi")),
        ],
        content="Hi",
    ),
    Row(
        "reasoning items are kept apart",
        [CREATED, done(thought("r")), done(thought("s"), 1), ended("completed", thought("r"), thought("s"))],
        reasoning="r\n\ns",
    ),
]

CALLS = [
    Row(
        "response.output_item.added of a call",
        [CREATED, added(call()), done(call('{"path":"a"}')), ended()],
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "response.output_item.added with all of the arguments, and deltas too",
        [
            CREATED,
            added(call('{"path":"a"}')),
            at("response.function_call_arguments.delta", delta='{"path":"a"}'),
            ended(),
        ],
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "response.function_call_arguments.delta",
        [
            CREATED,
            added(call()),
            at("response.function_call_arguments.delta", delta='{"path"'),
            at("response.function_call_arguments.delta", delta=""),
            at("response.function_call_arguments.delta", delta=':"a"}', item_id="rotated"),
            ended(),
        ],
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "response.function_call_arguments.done",
        [
            CREATED,
            added(call()),
            at("response.function_call_arguments.done", arguments='{"path":"a"}', name="Read"),
            ended(),
        ],
        calls=[READ],
        finish="tool_calls",
    ),
    Row("a call that is only done", [CREATED, done(call('{"path":"a"}')), ended()], calls=[READ], finish="tool_calls"),
    Row(
        "a call in the terminal snapshot only",
        [CREATED, ended("completed", call('{"path":"a"}'))],
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "a call without arguments",
        [CREATED, added(call()), done(call()), ended("completed", call())],
        calls=[("call_a", "Read", "{}")],
        finish="tool_calls",
    ),
    Row(
        "a call with text beside it",
        [CREATED, text("Hi"), done(call('{"path":"a"}'), 1), ended()],
        content="Hi",
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "parallel calls, interleaved, after a reasoning item",
        [
            CREATED,
            done(thought("r")),
            added(call(), 1),
            added(call(name="Grep", call_id="call_b"), 2),
            at("response.function_call_arguments.delta", 1, delta='{"path"'),
            at("response.function_call_arguments.delta", 2, delta="{}"),
            at("response.function_call_arguments.delta", 1, delta=':"a"}'),
            ended("completed", thought("r"), call('{"path":"a"}'), call("{}", "Grep", "call_b")),
        ],
        reasoning="r",
        calls=[READ, ("call_b", "Grep", "{}")],
        finish="tool_calls",
    ),
    Row(
        "a call id that is used again",
        [CREATED, done(call("{}", call_id="call_0", id="fc_new")), ended()],
        calls=[("fc_new", "Read", "{}")],
        finish="tool_calls",
        used=("call_0",),
    ),
    Row(
        "a call without a call id",
        [CREATED, done(call("{}", call_id=None, id="fc_1")), ended()],
        calls=[("fc_1", "Read", "{}")],
        finish="tool_calls",
    ),
    Row(
        "a call with a namespace and a caller",
        [
            CREATED,
            done(call('{"path":"a"}', namespace="files", caller={"type": "program"}, status="completed")),
            ended(),
        ],
        calls=[READ],
        finish="tool_calls",
    ),
    Row(
        "response.custom_tool_call_input.delta",
        [
            CREATED,
            added(patch()),
            at("response.custom_tool_call_input.delta", delta="*** Begin Patch\n"),
            at("response.custom_tool_call_input.delta", delta="*** End Patch"),
            ended("completed", patch(PATCHED[2])),
        ],
        calls=[PATCHED],
        finish="tool_calls",
    ),
    Row(
        "response.custom_tool_call_input.done",
        [CREATED, added(patch()), at("response.custom_tool_call_input.done", input=PATCHED[2]), ended()],
        calls=[PATCHED],
        finish="tool_calls",
    ),
    Row(
        "a custom call that is only done",
        [CREATED, done(patch(PATCHED[2])), ended()],
        calls=[PATCHED],
        finish="tool_calls",
    ),
    Row(
        "a custom call with nothing in it stays empty",
        [CREATED, done(patch()), ended("completed", patch())],
        calls=[("call_p", "ApplyPatch", "")],
        finish="tool_calls",
    ),
    Row(
        "a custom call of a hosted tool (xAI's x_search)",
        [
            CREATED,
            added(patch(name="x_search")),
            at("response.custom_tool_call_input.delta", delta="q"),
            done(patch("q", "x_search")),
            text("Hi", 1),
            ended("completed", patch("q", "x_search"), message("Hi")),
        ],
        content="Hi",
        hosted=True,
    ),
    Row(
        "a custom call that was declared, among hosted tools",
        [CREATED, done(patch(PATCHED[2])), ended()],
        calls=[PATCHED],
        finish="tool_calls",
        hosted=True,
    ),
]


def native(kind: str, name: str, **body: Any) -> Row:
    """Make a row for an item that the client executes although it is not a function call."""
    item = {"type": kind, "id": "n_1", "call_id": "call_n", "status": "completed"} | body
    arguments = json.dumps(next(value for key, value in body.items() if key in ("action", "operation", "arguments")))
    return Row(
        f"{kind} for the client",
        [CREATED, added(item | {"status": "in_progress"}), done(item), ended("completed", item)],
        calls=[("call_n", name, arguments)],
        finish="tool_calls",
    )


NATIVE = [
    native("local_shell_call", "local_shell", action={"type": "exec", "command": ["ls"]}),
    native("apply_patch_call", "apply_patch", operation={"type": "update_file", "path": "a", "diff": "+"}),
    native("computer_call", "computer", action={"type": "click", "x": 1, "y": 2}),
    native("shell_call", "shell", action={"commands": ["ls"]}, environment={"type": "local"}),
    native("shell_call", "shell", action={"commands": ["ls"]}, environment=None),
    native("tool_search_call", "tool_search", arguments={"paths": ["crm"]}, execution="client"),
    Row(
        "a shell call that ran in a container",
        [
            CREATED,
            done({"type": "shell_call", "call_id": "c", "action": {}, "environment": {"type": "container_reference"}}),
            *SAID,
        ],
        content="Hi",
    ),
    Row(
        "a shell call whose output the upstream gives",
        [
            CREATED,
            done({"type": "shell_call", "call_id": "c", "action": {}, "environment": None}, 1),
            done({"type": "shell_call_output", "call_id": "c", "output": []}, 2),
            *SAID,
        ],
        content="Hi",
    ),
    Row(
        "a tool search that the server did",
        [CREATED, done({"type": "tool_search_call", "execution": "server", "arguments": {}}, 1), *SAID],
        content="Hi",
    ),
    Row(
        "response.shell_call_command.*",
        [
            CREATED,
            at("response.shell_call_command.added", 1, command_index=0, command=""),
            at("response.shell_call_command.delta", 1, command_index=0, delta="ls"),
            at("response.shell_call_command.done", 1, command_index=0, command="ls"),
            *SAID,
        ],
        content="Hi",
    ),
    Row(
        "response.apply_patch_call_operation_diff.*",
        [
            CREATED,
            at("response.apply_patch_call_operation_diff.delta", 1, delta="+"),
            at("response.apply_patch_call_operation_diff.done", 1, diff="+"),
            *SAID,
        ],
        content="Hi",
    ),
]

SILENT = [
    nothing("response.mcp_call_arguments.delta", delta="{}"),
    nothing("response.mcp_call_arguments.done", arguments="{}"),
    nothing("response.mcp_call.in_progress"),
    nothing("response.mcp_call.completed"),
    nothing("response.mcp_call.failed"),
    nothing("response.mcp_list_tools.in_progress"),
    nothing("response.mcp_list_tools.completed"),
    nothing("response.mcp_list_tools.failed"),
    nothing("response.web_search_call.in_progress"),
    nothing("response.web_search_call.searching"),
    nothing("response.web_search_call.completed"),
    nothing("response.file_search_call.in_progress"),
    nothing("response.file_search_call.searching"),
    nothing("response.file_search_call.completed"),
    nothing("response.code_interpreter_call.in_progress"),
    nothing("response.code_interpreter_call.interpreting"),
    nothing("response.code_interpreter_call.completed"),
    nothing("response.code_interpreter_call_code.delta", delta="print(1)"),
    nothing("response.code_interpreter_call_code.done", code="print(1)"),
    nothing("response.image_generation_call.in_progress"),
    nothing("response.image_generation_call.generating"),
    nothing("response.image_generation_call.completed"),
    nothing("response.image_generation_call.partial_image", partial_image_b64="AAAA", partial_image_index=0),
    nothing("response.audio.delta", delta="AAAA"),
    nothing("response.audio.done"),
    nothing("response.audio.transcript.delta", delta="x"),
    nothing("response.audio.transcript.done"),
    nothing("response.shell_call_command.added", command_index=0, command=""),
    nothing("response.shell_call_command.delta", command_index=0, delta="ls"),
    nothing("response.shell_call_command.done", command_index=0, command="ls"),
    nothing("response.shell_call_output_content.delta", command_index=0, delta={"stdout": "x"}),
    nothing("response.shell_call_output_content.done", command_index=0, output=[]),
    nothing("response.compaction.compacting"),
    # Events of single vendors: xAI, the ChatGPT backend, Azure; and events that do not exist yet.
    nothing("response.x_search_call.in_progress"),
    nothing("response.x_search_call.searching"),
    nothing("response.x_search_call.completed"),
    nothing("response.code_execution_call.in_progress"),
    nothing("response.code_interpreter_call.executing"),
    nothing("response.mcp_call.executing"),
    nothing("response.mcp_call_output.delta", delta="x"),
    nothing("response.mcp_call_output.done", output="x"),
    nothing("codex.rate_limits", rate_limits={"primary": {"used_percent": 5}}),
    nothing("codex.response.metadata", metadata={}),
    nothing("response.metadata", metadata={}),
    nothing("responsesapi.websocket_timing", timing={}),
    nothing("response.content_filter_results", content_filters=[]),
    nothing("response.inject.created"),
    nothing("response.steer.accepted"),
    nothing("response.of.tomorrow", delta="x", text="x", arguments="x"),
]

HOSTED: dict[str, Json] = {
    "web_search_call": {"action": {"type": "search", "query": "q"}},
    "file_search_call": {"queries": ["q"], "results": []},
    "code_interpreter_call": {"code": "1", "outputs": []},
    "image_generation_call": {"result": "AAAA"},
    "mcp_call": {"name": "f", "arguments": "{}", "output": "x", "server_label": "s"},
    "mcp_list_tools": {"tools": []},
    "mcp_approval_request": {"name": "f", "arguments": "{}", "server_label": "s"},
    "mcp_approval_response": {"approve": True},
    "shell_call_output": {"call_id": "c", "output": []},
    "tool_search_output": {"tools": [], "execution": "server"},
    "additional_tools": {"tools": []},
    "compaction": {"encrypted_content": "x"},
    "program": {"code": "1", "call_id": "c"},
    "program_output": {"call_id": "c", "result": "x"},
    "function_call_output": {"call_id": "c", "output": "x"},
    "custom_tool_call_output": {"call_id": "c", "output": "x"},
    "computer_call_output": {"call_id": "c", "output": {}},
    "local_shell_call_output": {"output": "x"},
    "apply_patch_call_output": {"call_id": "c", "output": "x"},
    "x_search_call": {"action": {}},
    "item_of_tomorrow": {"text": "x", "arguments": "x"},
}

HOSTED_ITEMS = [
    *(
        Row(
            f"an item: {kind}",
            [
                CREATED,
                added({"type": kind, "id": "h_1"}, 1),
                done({"type": kind, "id": "h_1"} | body, 1),
                text("Hi"),
                ended("completed", message("Hi"), {"type": kind, "id": "h_1"} | body),
            ],
            content="Hi",
            hosted=True,
        )
        for kind, body in HOSTED.items()
    ),
]

ROWS = [*LIFECYCLE, *TEXTS, *REASONING, *CALLS, *NATIVE, *SILENT, *HOSTED_ITEMS]


def options(row: Row) -> dict[str, Any]:
    return {
        "custom_tools": frozenset(row.custom),
        "has_hosted_tools": row.hosted,
        "wants_logprobs": bool(row.tokens),
        "used_call_ids": frozenset(row.used),
    }


def streamed(row: Row) -> bytes:
    decoder = ResponsesDecoder(RequestTraits(**options(row)))
    encoder = ChunkEncoder(model="alias", chunk_id="chatcmpl-1", created=1, include_usage=True)
    frames = encoder.feed(decoder.feed([sse(*row.events)]) + decoder.flush()) + encoder.flush()
    return b"".join(frames) if encoder.failed is None else error_frame(encoder.failed)


def assert_result(folded: Folded, row: Row) -> None:
    assert folded.content == row.content
    assert folded.refusal == row.refusal
    assert folded.reasoning == row.reasoning
    assert [(call["id"], call["name"], _loose(call["arguments"])) for call in folded.tool_calls] == [
        (call_id, name, _loose(arguments)) for call_id, name, arguments in row.calls
    ]
    assert folded.annotations == row.citations
    assert [entry["token"] for entry in folded.logprobs] == row.tokens
    assert folded.finish_reason == row.finish
    assert (folded.usage or {}).get("total_tokens") == row.usage
    assert folded.service_tier in (row.tier, None)
    if row.error is None:
        assert folded.error is None
        assert folded.is_done
    else:
        assert folded.error is not None
        assert (folded.error["code"], folded.error["message"]) == row.error
        assert not folded.is_done


def _loose(arguments: str) -> Any:
    """Remove the upstream's own spaces from the JSON of native calls."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_stream_gives_what_its_row_says(row: Row) -> None:
    stream = streamed(row)
    assert_result(fold_stream(stream), row)
    assert stream.count(b": keepalive\n\n") == row.comments
    assert all(data == "[DONE]" or json.loads(data) for data in data_of(stream))


WHOLE = [
    row
    for row in ROWS
    if isinstance(row.events[-1], dict) and row.events[-1].get("response", {}).get("output") and not row.tokens
]


@pytest.mark.parametrize("row", WHOLE, ids=str)
def test_the_final_response_as_a_document_has_the_same_result(row: Row) -> None:
    assert isinstance(row.events[-1], dict)
    final = row.events[-1]["response"] | {"service_tier": row.tier or None}
    collector = CompletionCollector(model="alias", chunk_id="chatcmpl-1", created=1)
    [document] = collector.feed(decode_document(json.dumps(final).encode(), RequestTraits(**options(row))))
    assert_result(fold_document(document), row)


def types_in(value: Any) -> set[str]:
    """Return every ``type`` of events, and of items as ``item:<type>``."""
    events = [event for event in value if isinstance(event, dict)]
    items = [event["item"] for event in events if "item" in event]
    items += [item for event in events for item in event.get("response", {}).get("output", ())]
    return {event["type"] for event in events if "type" in event} | {f"item:{item['type']}" for item in items}


COVERED = set().union(*(types_in(row.events) for row in ROWS))


def union_of(union: Any) -> set[str]:
    """Return the ``type`` of each member of one of the SDK's unions."""
    union = get_args(union)[0] if get_origin(union) is Annotated else union
    return {name for member in get_args(union) for name in get_args(member.model_fields["type"].annotation)}


def test_every_event_of_the_sdk_has_a_row() -> None:
    known = union_of(ResponseStreamEvent)
    assert len(known) >= 59
    assert not (new := known - COVERED), HINT.format(new=sorted(new))


def test_every_item_of_the_sdk_has_a_row() -> None:
    known = {f"item:{name}" for name in union_of(ResponseOutputItem)}
    assert len(known) >= 28
    assert not (new := known - COVERED), HINT.format(new=sorted(new))


def test_the_table_has_the_events_that_are_in_no_sdk() -> None:
    others = {
        "keepalive",
        "response.keep_alive",
        "response.done",
        "response.cancelled",
        "response.error",
        "response.reasoning.delta",
        "response.reasoning.done",
        "response.reasoning_part.added",
        "response.reasoning_part.done",
        "response.apply_patch_call_operation_diff.delta",
        "response.apply_patch_call_operation_diff.done",
        "response.x_search_call.completed",
        "response.code_execution_call.in_progress",
        "response.mcp_call_output.delta",
        "codex.rate_limits",
        "codex.response.metadata",
        "response.metadata",
    }
    assert others <= COVERED
