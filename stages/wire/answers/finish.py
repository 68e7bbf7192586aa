"""Finish reasons: vendors' words translated to those of Chat Completions."""

from __future__ import annotations

from stages.events import Failed, FinishReason
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED, NO_NUMBERS, WINDOW_EXCEEDED

NO_REASON = "The upstream reported a failure and gave no reason for it; try again."
"""The message of a failure that the upstream does not explain."""

# Vendors' words, in lower case: OpenAI, DeepSeek (insufficient_system_resource: the answer was interrupted), Mistral
# (model_length), Zhipu (sensitive, network_error), Gemini (some gateways pass its native names on), Anthropic behind
# gateways, vLLM (abort), text-generation-inference (eos_token).
_FINISH: dict[str, FinishReason] = {
    "": "stop",
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    **dict.fromkeys(WINDOW_EXCEEDED, "length"),
    "insufficient_system_resource": "length",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}
_BROKEN = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "network_error"})


def finish_of(word: str, *, has_calls: bool, has_text: bool) -> FinishReason | Failed:
    """Return the finish reason for a vendor's ``word``, or the failure that the word reports.

    An unknown word ends a complete answer. ``has_calls`` decides whether the reason is ``tool_calls``, because the word
    cannot be relied on: Mistral and Ollama report ``stop`` after calls.
    """
    word = word.lower()
    if not (has_calls or has_text) and (failed := failure_of_empty(word)) is not None:
        return failed
    if word in _BROKEN:
        return Failed("upstream_error", "The upstream broke off its answer; try again.", upstream_code=word)
    if "malformed" in word:  # Gemini's `function_call_filter: MALFORMED_FUNCTION_CALL`
        message = "The model made a tool call that the upstream could not read; try again."
        return Failed("upstream_error", message, upstream_code="malformed_function_call")
    reason = _FINISH.get(word, "stop")
    if reason in ("stop", "tool_calls"):
        return "tool_calls" if has_calls else "stop"
    return reason


def failure_of_empty(word: str) -> Failed | None:
    """Return the failure that ``word`` reports if the answer has neither text nor calls; None if it reports none.

    That is so if the context window is full: the client has to shorten the conversation, and would take ``length`` for
    an answer. Reasoning alone does not count.
    """
    return Failed(CONTEXT_LENGTH_EXCEEDED, NO_NUMBERS, word) if word in WINDOW_EXCEEDED else None
