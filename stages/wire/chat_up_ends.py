"""How an answer of a Chat Completions upstream ends: finish reasons, usage and failures in our words."""

from __future__ import annotations

from msgspec import Raw

from stages.events import Failed, FinishReason, Usage
from stages.wire.chat_up_records import CHAT_USAGE, CHUNK, Chunk
from stages.wire.responses_failures import error_of, failure_of
from stages.wire.responses_records import (
    LIST,
    TOKEN_DETAILS,
    Error,
    TokenDetails,
    count,
    read,
    text,
)

NO_REASON = "The upstream reported a failure and gave no reason for it; try again."

# Words of vendors, in lower case. OpenAI, DeepSeek (insufficient_system_resource: it was interrupted), Mistral
# (model_length), Zhipu (sensitive, network_error), Gemini (native names come through some gateways), Anthropic's behind
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
    "model_context_window_exceeded": "length",
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


def finish_of(word: str, *, has_calls: bool) -> FinishReason | Failed:
    """Give the finish reason that a vendor's ``word`` stands for, or the failure that it tells.

    A word that nobody knows ends a complete answer. Whether calls were made is seen, not believed: Mistral and Ollama
    say ``stop`` after calls.
    """
    word = word.lower()
    if word in _BROKEN:
        return Failed("upstream_error", "The upstream broke off its answer; try again.", upstream_code=word)
    if "malformed" in word:  # Gemini's `function_call_filter: MALFORMED_FUNCTION_CALL`
        message = "The model made a tool call that the upstream could not read; try again."
        return Failed("upstream_error", message, upstream_code="malformed_function_call")
    reason = _FINISH.get(word, "stop")
    if reason in ("stop", "tool_calls"):
        return "tool_calls" if has_calls else "stop"
    return reason


def usage_of(raw: Raw) -> Usage | None:
    """Read a ``usage`` object; None if it is absent or tells nothing."""
    usage = read(CHAT_USAGE, raw)
    if usage is None:
        return None
    prompt, completion = count(usage.prompt_tokens), count(usage.completion_tokens)
    if prompt is None and completion is None:
        return None
    total = count(usage.total_tokens)
    of_prompt = read(TOKEN_DETAILS, usage.prompt_tokens_details) or TokenDetails()
    of_completion = read(TOKEN_DETAILS, usage.completion_tokens_details) or TokenDetails()
    cached = (of_prompt.cached_tokens, usage.cached_tokens, usage.prompt_cache_hit_tokens)
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        total_tokens=(prompt or 0) + (completion or 0) if total is None else total,
        cached_tokens=next((known for value in cached if (known := count(value)) is not None), None),
        cache_write_tokens=count(of_prompt.cache_write_tokens),
        reasoning_tokens=count(of_completion.reasoning_tokens),
    )


def failure_in(chunk: Chunk) -> Failed | None:
    """Give the failure that a chunk tells, in one of the shapes that servers have for it.

    ``{"error": {...}}`` and ``{"error": "..."}`` (OpenAI and most, also beside choices), ``{"object": "error",
    "message": ...}`` (vLLM, Mistral), ``{"message": ...}`` or ``{"detail": ...}`` alone (gateways).
    """
    error = error_of(chunk.error)
    if error is not None:
        return failure_of(error, default=NO_REASON)
    if chunk.object == "error" or chunk.type == "error" or (not len(chunk.choices) and not chunk.id):
        message = text(chunk.message) or text(chunk.detail)
        if message or chunk.object == "error" or chunk.type == "error":
            return failure_of(Error(code=chunk.code, type=chunk.type, message=message), default=NO_REASON)
    return None


def failure_in_list(data: bytes) -> Failed | None:
    """Give the failure that Gemini wraps in an array, ``[{"error": {...}}]``; None if it is something else."""
    for element in read(LIST, data) or ():
        chunk = read(CHUNK, element)
        if chunk is not None and (failed := failure_in(chunk)) is not None:
            return failed
    return None
