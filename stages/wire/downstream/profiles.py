"""What clients want differently: one row for each kind of client, and no other place where they differ on the wire."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

ReasoningDisplay: TypeAlias = Literal["reasoning_content", "think", "details", "none"]
"""Where a client sees the model's reasoning: in a field of its own (what the AI SDK and most bridges read), as a block
of that form at the start of the answer's text (for builds of Cursor that show no such field; cursor-wire facts,
section 2), or nowhere."""


class Profile(Struct, frozen=True, kw_only=True):
    """How a kind of client is answered.

    Attributes:
        name: a metric and log label.
        usage_always: send usage also if the client did not ask for it.
        usage_zeros: report the cached and reasoning tokens as 0 where the upstream says nothing about them.
        errors_as_400: answer every failure before the first byte that is not about our own key or model with a 400.
        failure_as_text: tell a failure in mid-stream as text and a clean end, instead of as an ``error`` object.
        reasoning_display: where the model's reasoning is shown, streaming and not.
    """

    name: str
    usage_always: bool = False
    usage_zeros: bool = False
    errors_as_400: bool = False
    failure_as_text: bool = False
    reasoning_display: ReasoningDisplay = "reasoning_content"


OPENAI = Profile(name="openai")
"""The OpenAI SDKs and their like. All of them raise on an ``error`` object (mapping facts, rule 12)."""

CURSOR = Profile(name="cursor", usage_always=True, usage_zeros=True, errors_as_400=True, failure_as_text=True)
"""The Cursor IDE: usage drives its context meter, it hides the text of 429 and 5xx answers, and to an ``error`` object
in a chunk it says ``invalid_argument`` (Firzus/codex-cursor-proxy; cursor-wire facts, sections 2 and 4; payloads
13-15)."""
