"""Call ids over the limit are mapped, not cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wire.call_ids import MAX_CALL_ID_CHARS, legal_call_id, numbered_call_id, short_call_id


def test_an_id_at_the_limit_is_kept_and_a_longer_one_is_not() -> None:
    assert short_call_id("c" * 64) == "c" * 64
    assert short_call_id("c" * 65) != "c" * 65


def test_a_composite_id_of_cursor_gets_its_known_short_form() -> None:
    composite = "call-0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d-12\nfc_0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d_12"
    assert short_call_id(composite) == "call-0b7c2f0e-9a55-4b0e-8f5c-6d1f2a3b4c5d-12\nfc_5fe0eeded5a5013d"


def test_long_ids_with_one_prefix_stay_distinct() -> None:
    shorts = {short_call_id("call_" + "a" * 80 + str(number)) for number in range(1000)}
    assert len(shorts) == 1000


@given(st.text(min_size=65, max_size=200))
def test_any_long_id_fits_and_maps_to_the_same_short_one_every_time(call_id: str) -> None:
    assert len(short_call_id(call_id)) == MAX_CALL_ID_CHARS
    assert short_call_id(call_id) == short_call_id(call_id)
    assert short_call_id(short_call_id(call_id)) == short_call_id(call_id)


@pytest.mark.parametrize("call_id", ["toolu_01", "call-1", "c" * 64])
def test_a_valid_id_is_kept(call_id: str) -> None:
    assert legal_call_id(call_id) == call_id


def test_invalid_ids_are_made_valid_and_stay_distinct() -> None:
    illegal = [
        "functions.AskUserQuestion:1",
        "functions:AskUserQuestion.1",
        "call-a\nfc_a",
        "a b",
        "a_b ",
        "é",
        ":" * 99,
    ]
    legal = [legal_call_id(call_id) for call_id in illegal]
    assert len({*legal, legal_call_id("a_b")}) == len(illegal) + 1
    assert legal[0].startswith("functions_AskUserQuestion_1_")
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call_id) for call_id in legal)


@given(st.text(min_size=1))
def test_any_id_becomes_valid_and_a_valid_one_is_kept(call_id: str) -> None:
    legal = legal_call_id(call_id)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", legal)
    assert legal_call_id(legal) == legal


def test_the_first_call_with_an_id_keeps_it_and_later_ones_get_new_ids() -> None:
    numbered = [numbered_call_id("call_0", number) for number in range(1, 100)]
    assert numbered[0] == "call_0"
    assert len(set(numbered)) == 99
    assert all(len(numbered_call_id("c" * 64, number)) <= MAX_CALL_ID_CHARS for number in (1, 2))
