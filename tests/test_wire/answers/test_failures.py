"""Failures that are reported within an answer: their codes, and the upstream's own code and reason."""

from __future__ import annotations

import pytest

from stages.events import Failed
from stages.wire.answers.failures import Error, failure_of
from stages.wire.answers.finish import failure_of_empty, finish_of

CLAUDE = "prompt is too long: 208310 tokens > 200000 maximum"
SENTENCE = (
    "This model's maximum context length is 200000 tokens. However, your messages resulted in 208310 tokens. Please "
    "reduce the length of the messages."
)


def test_the_vendors_document_in_metadata_gives_reason_and_code() -> None:
    raw = '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'
    error = Error(code=502, message="Provider returned error", metadata={"raw": raw})
    failed = Failed("upstream_rate_limited", "Provider returned error: slow down", "rate_limit_exceeded")
    assert failure_of(error, default="?") == failed


def test_a_conversation_that_is_too_long_has_its_own_code() -> None:
    error = Error(type="invalid_request_error", message=CLAUDE)
    assert failure_of(error, default="?") == Failed(
        "context_length_exceeded", f"{SENTENCE} {CLAUDE}", "invalid_request_error"
    )


@pytest.mark.parametrize("word", ["model_context_window_exceeded", "Context_Length_Exceeded"])
def test_a_full_window_is_a_failure_only_of_an_empty_answer(word: str) -> None:
    assert finish_of(word, has_calls=False, has_text=True) == "length"
    assert finish_of(word, has_calls=True, has_text=False) == "length"
    failed = finish_of(word, has_calls=False, has_text=False)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.upstream_code) == ("context_length_exceeded", word.lower())
    assert failure_of_empty("max_tokens") is None
    assert finish_of("max_tokens", has_calls=False, has_text=False) == "length"
