"""Blocks of shown reasoning are removed from the history, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wire.downstream.shown_reasoning import (
    DETAILS_CLOSE,
    DETAILS_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    strip_shown_reasoning,
)

FORMS = [(THINK_OPEN, THINK_CLOSE), (DETAILS_OPEN, DETAILS_CLOSE)]


@pytest.mark.parametrize(("start", "end"), FORMS)
def test_a_block_at_the_start_is_taken_out(start: str, end: str) -> None:
    assert strip_shown_reasoning(f"{start}hm\n\nso{end}The answer.\n") == "The answer.\n"
    assert strip_shown_reasoning(f"{start}hm{end}") == ""
    assert strip_shown_reasoning(f"{start}{end}x") == "x"


@pytest.mark.parametrize(("start", "end"), FORMS)
def test_a_block_whose_end_was_trimmed_is_taken_out(start: str, end: str) -> None:
    assert strip_shown_reasoning(f"{start}hm{end}".rstrip()) == ""
    assert strip_shown_reasoning(f"{start}hm{end.rstrip()}\nx") == "x"


@pytest.mark.parametrize(("start", "end"), FORMS)
def test_a_block_that_was_never_closed_is_all_there_is(start: str, end: str) -> None:
    assert strip_shown_reasoning(f"{start}I was stopped in the mid") == ""
    assert strip_shown_reasoning(start) == ""


def test_several_blocks_of_both_forms_are_removed() -> None:
    think, details = f"{THINK_OPEN}a{THINK_CLOSE}", f"{DETAILS_OPEN}b{DETAILS_CLOSE}"
    assert strip_shown_reasoning(f"{think}{details}{think}c") == "c"


def test_the_form_of_deepseek_cursor_proxy_is_taken_out() -> None:
    assert strip_shown_reasoning("<details>\n<summary>Thinking</summary>\n\nI should call LS\n</details>\n\n") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer.",
        "<",
        "<thinking>\nx\n</thinking>\n\ny",
        "<think>x</think>y",
        " <think>\nx\n</think>\n\ny",
        "See:\n<think>\nx\n</think>\n\ny",
        "<details>\n<summary>Logs</summary>\n\nx\n\n</details>\n\ny",
        "<details><summary>Thinking</summary>x</details>",
    ],
)
def test_words_of_the_model_stay(text: str) -> None:
    assert strip_shown_reasoning(text) == text


def test_a_tag_inside_a_line_of_reasoning_does_not_end_it() -> None:
    assert strip_shown_reasoning(f"{THINK_OPEN}a\n</think> is a tag{THINK_CLOSE}b") == "b"


@given(st.sampled_from(FORMS), st.text(), st.text())
def test_only_the_answer_remains_whatever_was_shown(form: tuple[str, str], thought: str, answer: str) -> None:
    start, end = form
    if answer.startswith("\n") or any(end.strip() in shown for shown in (thought, answer)):
        return
    assert strip_shown_reasoning(start + thought + end + answer) == strip_shown_reasoning(answer)
    assert strip_shown_reasoning(strip_shown_reasoning(answer)) == strip_shown_reasoning(answer)
