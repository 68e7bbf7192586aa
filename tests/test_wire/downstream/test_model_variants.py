"""Names of model variants, in every reading that they allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wire.downstream.model_variants import Variant, variants, with_variant
from stages.wire.normal_form import EFFORTS


@pytest.mark.parametrize(
    ("asked", "readings"),
    [
        ("gpt-5", []),
        ("kimi-k2-thinking", []),
        ("gpt-5.1-codex-max", []),
        ("-fast", []),
        ("-high", []),
        ("gpt-5-fast", [("gpt-5", None, True)]),
        ("gpt-5-xhigh", [("gpt-5", "xhigh", False)]),
        ("gpt-5-extra", [("gpt-5", "xhigh", False)]),
        ("gpt-5-extra-high", [("gpt-5-extra", "high", False), ("gpt-5", "xhigh", False)]),
        ("gpt-5:max", [("gpt-5", "max", False)]),
        ("gpt-5-fast-medium", [("gpt-5-fast", "medium", False), ("gpt-5", "medium", True)]),
        ("gpt-5-medium-fast", [("gpt-5-medium", None, True), ("gpt-5", "medium", True)]),
        ("gpt-5-high-low", [("gpt-5-high", "low", False)]),
        ("gpt-5-fast-fast", [("gpt-5-fast", None, True)]),
        ("claude-opus-5-thinking-max", [("claude-opus-5", "max", False)]),
        (
            "claude-4.6-opus-high-thinking",
            [("claude-4.6-opus", "high", False), ("claude-opus-4-6", "high", False)],
        ),
        ("claude-4-sonnet-fast", [("claude-4-sonnet", None, True), ("claude-sonnet-4", None, True)]),
        ("claude-4.5-haiku", [("claude-haiku-4-5", None, False)]),
        ("claude-3.7-sonnet", []),
        ("claude-opus-5-thinking-high", [("claude-opus-5-thinking", "high", False), ("claude-opus-5", "high", False)]),
    ],
)
def test_the_readings_that_keep_most_of_the_name_come_first(asked: str, readings: list[tuple[str, str, bool]]) -> None:
    assert [(one.name, one.effort, one.is_fast) for one in variants(asked)] == readings


@pytest.mark.parametrize("effort", EFFORTS)
def test_only_thinking_with_an_effort_is_unambiguous(effort: str) -> None:
    certain = [one for one in variants(f"claude-opus-5-thinking-{effort}-fast") if one.is_certain]
    assert certain == [Variant("claude-opus-5", effort, is_fast=True, is_certain=True)]
    assert not any(one.is_certain for one in variants(f"gpt-5-{effort}-fast"))


@given(
    st.lists(st.sampled_from(["gpt", "-fast", "-thinking", "-high", ":low", "-extra", "-thinking-none"]), max_size=9)
)
def test_readings_are_few_and_distinct_and_start_as_the_name_does(parts: list[str]) -> None:
    asked = "".join(parts)
    names = [one.name for one in variants(asked)]
    assert len(set(names)) == len(names) <= 8
    assert all(name and asked.startswith(name) and name != asked for name in names)


def test_a_body_that_needs_no_change_is_returned_as_the_same_object() -> None:
    body = {"input": "hi", "reasoning": {"effort": "low"}, "service_tier": "default"}
    assert with_variant(body, Variant("m")) is body
    assert with_variant(body, Variant("m", "high", is_fast=True)) is body
    assert with_variant({"input": "hi"}, Variant("m", "high", is_fast=True)) == {
        "input": "hi",
        "reasoning": {"effort": "high"},
        "service_tier": "priority",
        "speed": "fast",
    }
