"""How an answer of a Chat Completions upstream ends: its usage and its failures, in our words."""

from __future__ import annotations

from msgspec import Raw

from stages.events import Failed, Usage
from stages.wire.answers.failures import Error, error_of, failure_of
from stages.wire.answers.finish import NO_REASON
from stages.wire.answers.usage import TOKEN_DETAILS, TokenDetails
from stages.wire.chat.records import CHAT_USAGE, CHUNK, Chunk
from stages.wire.foreign_json import LIST, count, read, text


def usage_of(raw: Raw) -> Usage | None:
    """Read a ``usage`` object; None if it is absent or has no counts."""
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
    """Return the failure that a chunk reports, in any of the shapes that servers use.

    ``{"error": {...}}`` and ``{"error": "..."}`` (OpenAI and most, even beside choices), ``{"object": "error",
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
    """Return the failure that Gemini wraps in an array, ``[{"error": {...}}]``; None for anything else."""
    for element in read(LIST, data) or ():
        chunk = read(CHUNK, element)
        if chunk is not None and (failed := failure_in(chunk)) is not None:
            return failed
    return None
