"""How an answer of an Anthropic upstream ends: its usage and its failures, in our words."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from stages.events import Failed, Usage
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED
from stages.wire.answers.failures import Error, error_of, failure_of
from stages.wire.answers.finish import NO_REASON
from stages.wire.anthropic.records import MESSAGE_USAGE, OUTPUT_DETAILS, AnthropicEvent, OutputDetails
from stages.wire.foreign_json import TEXT, count, read, text

# Types of errors that other vendors do not have, by what their HTTP statuses mean (Anthropic's API reference, "Errors",
# 2026-08). The other types are errors of the upstream itself (api_error, timeout_error, overloaded_error) or known
# already.
_CODES = {
    "authentication_error": "upstream_unauthorized",  # 401
    "billing_error": "upstream_rejected",  # 402
    "permission_error": "upstream_unauthorized",  # 403
    "not_found_error": "upstream_not_found",  # 404
    "request_too_large": "upstream_rejected",  # 413
}


class UsageSoFar:
    """The tokens of an answer so far: each report is cumulative, so its values replace those of earlier reports.

    Attributes:
        service_tier: the tier that served the request, if it was reported.
    """

    def __init__(self) -> None:
        self.service_tier: str | None = None
        self._input: int | None = None
        self._output: int | None = None
        self._cache_read = 0
        self._cache_written = 0
        self._thinking: int | None = None

    def add(self, raw: Raw) -> None:
        """Take a ``usage`` object, of a message or of a ``message_delta``."""
        usage = read(MESSAGE_USAGE, raw)
        if usage is None:
            return
        details = read(OUTPUT_DETAILS, usage.output_tokens_details) or OutputDetails()
        self._input = _newer(usage.input_tokens, self._input)
        self._output = _newer(usage.output_tokens, self._output)
        self._cache_read = _newer(usage.cache_read_input_tokens, self._cache_read) or 0
        self._cache_written = _newer(usage.cache_creation_input_tokens, self._cache_written) or 0
        self._thinking = _newer(details.thinking_tokens, self._thinking)
        self.service_tier = text(usage.service_tier) or self.service_tier

    def total(self) -> Usage | None:
        """Return the usage; None if nothing was reported. ``input_tokens`` does not include tokens from the cache."""
        if self._input is None and self._output is None:
            return None
        prompt = (self._input or 0) + self._cache_read + self._cache_written
        completion = self._output or 0
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=self._cache_read,
            cache_write_tokens=self._cache_written or None,
            reasoning_tokens=self._thinking,
        )


def _newer(value: object, known: int | None) -> int | None:
    reported = count(value)
    return known if reported is None else reported


def failure_in(event: AnthropicEvent) -> Failed | None:
    """Return the failure that an event reports: ``{"type": "error", "error": {...}}``, or either half of it alone."""
    error = error_of(event.error)
    if error is None:
        if event.type != "error":
            return None
        error = Error(code=event.code, message=text(read(TEXT, event.message)))
    failed = failure_of(error, default=NO_REASON)
    if failed.code == CONTEXT_LENGTH_EXCEEDED:
        return failed
    return msgspec.structs.replace(failed, code=_CODES.get(failed.upstream_code or "", failed.code))
