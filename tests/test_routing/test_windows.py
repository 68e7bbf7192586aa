"""The estimate of a request's tokens, and who is left out by it."""

from __future__ import annotations

from typing import Any

import pytest
from kit.service.contexts import deployment

from stages.routing.router import Candidate
from stages.routing.windows import BYTES_PER_TOKEN, TOKENS_PER_FILE, estimated_tokens, fitting

TEXT = "word " * 200  # 1000 bytes


def message(content: Any, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


@pytest.mark.parametrize(
    "body",
    [
        {"input": TEXT},
        {"instructions": TEXT},
        {"input": [message(TEXT)]},
        {"input": [message([{"type": "input_text", "text": TEXT}])]},
        {"input": [{"type": "function_call", "call_id": "c" * 99, "arguments": TEXT}]},
        {"input": [{"type": "function_call_output", "call_id": "c" * 99, "output": [{"text": TEXT}]}]},
        {"tools": [{"type": "function", "description": TEXT, "parameters": {"type": "object", "properties": {}}}]},
        {"input": TEXT, "metadata": {"note": TEXT}, "prompt_cache_key": TEXT},
        {"input": [message(TEXT), {"type": "reasoning", "encrypted_content": TEXT, "summary": [{"text": TEXT}]}]},
    ],
)
def test_all_text_of_the_input_counts_and_nothing_else(body: dict[str, Any]) -> None:
    assert estimated_tokens(body) == 1000 // BYTES_PER_TOKEN


def test_text_counts_by_its_bytes() -> None:
    assert estimated_tokens({"input": "語" * 1000}) == 3000 // BYTES_PER_TOKEN
    assert estimated_tokens({"input": "\ud83d" * 1000}) == 3000 // BYTES_PER_TOKEN


def test_an_image_or_a_file_counts_for_the_same_however_large() -> None:
    for part in (
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000},
        {"type": "input_file", "file_data": "data:application/pdf;base64," + "A" * 100_000},
    ):
        assert estimated_tokens({"input": [message([part, part])]}) == 2 * TOKENS_PER_FILE


@pytest.mark.parametrize("value", [None, 3, True, {}, [None, [[]], {"content": None}]])
def test_what_is_not_text_counts_for_nothing(value: Any) -> None:
    assert estimated_tokens({"input": value, "tools": value}) == 0


def test_who_has_too_small_a_window_is_left_out_and_an_unknown_one_fits() -> None:
    windows = {"small": 99, "just": 100, "large": 1000, "unknown": None}
    candidates = [Candidate(deployment("m", id=id, max_input_tokens=window), "m") for id, window in windows.items()]
    assert [one.deployment.id for one in fitting(candidates, 100)] == ["just", "large", "unknown"]
