"""What differs between kinds of clients: one row for each kind, and nowhere else do they differ on the wire."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

ReasoningDisplay: TypeAlias = Literal["reasoning_content", "think", "details", "none"]
"""Where a client sees the model's reasoning: in a field of its own (which the AI SDK and most bridges read), as a block
of that form at the start of the answer's text (for builds of Cursor that show no such field; docs/facts/cursor.md,
"Reasoning on display"), or nowhere."""


class Profile(Struct, frozen=True, kw_only=True):
    """How responses to one kind of client differ.

    Attributes:
        name: a metric and log label.
        usage_always: send usage even if the client did not ask for it.
        usage_zeros: report the cached and reasoning tokens as 0 if the upstream does not report them.
        errors_as_upstream: answer a failure of the upstream with the upstream's own status and code (`headrace study`).
        errors_as_400: answer every failure before the first byte with a 400, except those of our own key or model.
        failure_as_text: report a failure in mid-stream as text and a clean end, instead of as an ``error`` object.
        reasoning_display: where the model's reasoning is shown, streaming and not.
        refusal_as_text: repeat the model's refusal as text, because the client may not show a refusal.
        explains_empty: say in one sentence why an answer is empty (`empty_answers`).
    """

    name: str
    usage_always: bool = False
    usage_zeros: bool = False
    errors_as_upstream: bool = False
    errors_as_400: bool = False
    failure_as_text: bool = False
    reasoning_display: ReasoningDisplay = "reasoning_content"
    refusal_as_text: bool = False
    explains_empty: bool = False


OPENAI = Profile(name="openai")
"""The OpenAI SDKs and similar clients. All of them raise on an ``error`` object (docs/facts/translation.md, "Failures
in a stream")."""

CURSOR = Profile(
    name="cursor",
    usage_always=True,
    usage_zeros=True,
    errors_as_400=True,
    failure_as_text=True,
    refusal_as_text=True,
    explains_empty=True,
)
"""The Cursor IDE: usage drives its context meter, it hides the text of 429 and 5xx responses, and for an ``error``
object in a chunk it shows ``invalid_argument`` (Firzus/codex-cursor-proxy; docs/facts/cursor.md, "The stream that
Cursor reads" and "Errors that Cursor shows")."""
