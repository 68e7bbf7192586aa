"""The events that flow from the decoder to the encoder: a closed, tagged union of small frozen records.

Every kind of upstream is decoded *into* these, and the encoder and the collector know nothing else. A match over
`StreamEvent` ends in ``assert_never``; a new kind of event needs an ADR.

``gc=False`` hides a record from the cycle collector, so it is set only where every field is a leaf.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Raw, Struct

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]


class Started(Struct, frozen=True, gc=False, tag=True):
    """The upstream has started its answer; the first event of every stream that gets that far."""

    response_id: str
    model: str
    created: int
    """Seconds since the epoch; 0 if the upstream did not report it."""
    service_tier: str | None = None


class TextDelta(Struct, frozen=True, gc=False, tag=True):
    """More of the answer's text. Never empty."""

    text: str


class RefusalDelta(Struct, frozen=True, gc=False, tag=True):
    """More of the model's refusal. Never empty."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False, tag=True):
    """More of the model's reasoning, or of its summary. Never empty; separators between parts are included."""

    text: str


class ReasoningItem(Struct, frozen=True, tag=True):
    """A finished piece of reasoning in the upstream's own form, to be sent back in the next turn. Never shown.

    It comes before the calls and the text that it led to.

    ``responses``: a ``reasoning`` item with ``encrypted_content`` or text; or one of the fields that clients drop:
    ``{"type": "message", "phase": "..."}`` before a message's text, ``{"type": "function_call", "namespace": "..."}``
    before a call. ``chat``: ``{"reasoning_content": "..."}`` and, from Gemini, the signature in ``extra_content``, from
    OpenRouter and MiniMax ``reasoning_details``.
    ``anthropic``: a ``thinking`` block with its signature, or a ``redacted_thinking`` block.
    """

    form: Literal["responses", "chat", "anthropic"]
    payload: Raw
    text_offset: int = 0
    """How many characters of the answer's text came before it, white space at the start not counted (``anthropic``)."""


class ToolCallStarted(Struct, frozen=True, gc=False, tag=True):
    """The model calls one of the client's tools. ``index`` counts 0, 1, 2 ... in order of appearance."""

    index: int
    call_id: str
    name: str
    is_custom: bool = False
    """A custom tool: its arguments are raw text, not JSON."""


class ToolCallDelta(Struct, frozen=True, gc=False, tag=True):
    """More of the arguments (or of the raw input) of call ``index``. Never empty."""

    index: int
    arguments: str


class Citation(Struct, frozen=True, gc=False):
    """A page that a range of the answer's text cites; indices count characters of the whole answer."""

    url: str
    title: str = ""
    start_index: int = 0
    end_index: int = 0


class Annotations(Struct, frozen=True, tag=True):
    """All citations of the answer; at most once per stream, before `Finished`."""

    citations: tuple[Citation, ...]


class LogProbs(Struct, frozen=True, tag=True):
    """Token log probabilities in the form of Chat Completions, one JSON object each."""

    content: tuple[Raw, ...]


class Usage(Struct, frozen=True, gc=False, tag=True):
    """The tokens that the answer used; a detail is None if the upstream did not report it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Finished(Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """The answer is complete. The last event of a good stream (`Usage` and `Annotations` come before it)."""

    reason: FinishReason
    note: str | None = None
    """What there is instead of text and calls, for clients that would show an empty answer: why the model refused, what
    it asks for, an image. A sentence without its capital and full stop, or Markdown."""


class Failed(Struct, frozen=True, gc=False, tag=True):
    """The answer broke off. The last event of a bad stream; everything before it is good.

    It is an event, not an exception, because an exception overtakes the events that are still on their way.
    ``message`` is safe to show to the client; ``code`` is one of the upstream codes in ``docs/errors.md``.
    """

    code: str
    message: str
    upstream_code: str | None = None
    """The upstream's own error code, for example ``rate_limit_exceeded``."""
    retry_after_s: float | None = None


class Heartbeat(Struct, frozen=True, gc=False, tag=True):
    """The upstream is alive but has no output yet."""


StreamEvent: TypeAlias = (
    Started
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ReasoningItem
    | ToolCallStarted
    | ToolCallDelta
    | Annotations
    | LogProbs
    | Usage
    | Finished
    | Failed
    | Heartbeat
)

_OUTPUT: Final = frozenset({TextDelta, RefusalDelta, ToolCallStarted, ToolCallDelta})


def has_output(events: Iterable[StreamEvent]) -> bool:
    """Return whether some of the answer itself is among the events: text, a refusal or a call."""
    return not _OUTPUT.isdisjoint(map(type, events))


def has_reasoning(events: Iterable[StreamEvent]) -> bool:
    """Return whether some of the model's reasoning is among the events."""
    return ReasoningDelta in map(type, events)
