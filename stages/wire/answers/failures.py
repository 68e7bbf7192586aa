"""Failures that upstreams report within an answer, as `Failed` events.

The shapes of an error event (docs/facts/translation.md, "Shapes of errors"): flat, ``{"type": "error", "code": ...,
"message": ...}`` (openai-python's type), and nested, ``{"type": "error", "error": {...}}`` (what OpenAI and Azure
send). A ``response.failed`` event has ``response.error``.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from stages.events import Failed
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED, beginning_with, sentence_on_length
from stages.wire.answers.reported_errors import code_of, joined, reason_in
from stages.wire.foreign_json import TEXT, read, text
from stages.wire.redaction import message_to_show

MAX_CODE_CHARACTERS = 64
"""An error's code is a word; what is longer is a message in the wrong place."""

# `code` or `type` of an error. OpenAI's ResponseError.code (openai-openapi 2.3.0), the error types of its HTTP API, and
# the statuses that OpenRouter and LiteLLM put there.
_RATE_LIMITED = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "insufficient_quota",
        "quota_exceeded",
        "billing_hard_limit_reached",
        "too_many_requests",
        "tokens",
        "requests",
        "slow_down",
        "throttling_error",
        "429",
    }
)
_REJECTED = frozenset(
    {
        "bad_request",
        "content_filter",
        "failed_to_download_image",
        "string_above_max_length",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        "missing_required_parameter",
        "400",
        "413",
        "422",
    }
)
_REJECTED_KIND = re.compile(r"^invalid_|image|policy")
"""``invalid_prompt``, ``image_too_large``, ``content_policy_violation``, ``cyber_policy`` ..."""

_TRY_AGAIN = re.compile(r"try again in (\d{1,6}(?:\.\d{1,6})?) ?(ms|s|m)\b")
"""As in "Please try again in 1.2s." of OpenAI's rate limits."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def failure_of(error: Error | None, *, default: str) -> Failed:
    """Return the failure that an upstream's ``error`` object reports; ``default`` is the message if it has none."""
    if error is None:
        error = Error()
    error = error_of(error.error) or error
    reason = reason_in(error.metadata)
    kind = reason.kind or text(error.type)
    word = reason.code or code_of(error.code) or kind
    message = joined(text(error.message), reason.message)
    shown = message_to_show(message)
    upstream_code = message_to_show(word, max_characters=MAX_CODE_CHARACTERS) if word and word != "error" else None
    if (sentence := sentence_on_length(message, word, kind)) is not None:
        return Failed(CONTEXT_LENGTH_EXCEEDED, beginning_with(sentence, shown), upstream_code)
    retry = _TRY_AGAIN.search(message)
    return Failed(
        code=_code_of(word, kind),
        message=shown or default,
        upstream_code=upstream_code,
        retry_after_s=float(retry[1]) * _SECONDS[retry[2]] if retry else None,
    )


def error_of(error: Raw) -> Error | None:
    """Read an ``error`` field: an object, or a string as some small servers send; None if it is neither."""
    message = text(read(TEXT, error))
    return Error(message=message) if message else read(ERROR, error)


def broken_protocol(message: str) -> Failed:
    """Return the failure of an upstream that violates its own protocol."""
    return Failed(code="upstream_protocol", message=message)


def _code_of(*words: str) -> str:
    for word in words:
        if word in _RATE_LIMITED:
            return "upstream_rate_limited"
        if word in _REJECTED or _REJECTED_KIND.search(word):
            return "upstream_rejected"
    return "upstream_error"


class Error(Struct):
    code: Any = None
    type: Any = None
    message: Any = None
    error: Raw = Raw()
    metadata: Any = None


ERROR = Decoder(Error)
