"""The strings within JSON are changed, and it stays JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text_runs import JsonStrings, Window

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NOTHING = Window([], "")


def run(strings: JsonStrings, parts: list[str]) -> str:
    return "".join([strings.feed(part) for part in parts]) + strings.flush()


@given(values, st.booleans(), st.sampled_from([None, 2]), st.integers(1, 4))
def test_without_a_change_the_meaning_stays_however_it_is_cut(
    value: object, is_ascii: bool, indent: int | None, size: int
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    given_out = run(JsonStrings(NOTHING.open), parts)
    assert json.loads(given_out) == value
    assert given_out == run(JsonStrings(NOTHING.open), [text])


@given(values, st.text(max_size=5), st.integers(1, 4))
def test_whatever_is_put_in_it_stays_json(value: object, mask: str, size: int) -> None:
    text = json.dumps(value)
    window = Window(["[a-z0-9]+", "."], mask)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    given_out = run(JsonStrings(window.open), parts)
    json.loads(given_out)
    assert given_out == run(JsonStrings(window.open), [text])


@given(st.text('"\\u{}[]:,d8caf0n z', max_size=20), st.integers(1, 3))
def test_what_is_not_json_is_handed_on_the_same_for_every_cut(text: str, size: int) -> None:
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert run(JsonStrings(NOTHING.open), parts) == run(JsonStrings(NOTHING.open), [text])


def test_the_meaning_of_a_string_is_what_is_matched() -> None:
    window = Window([r"\bsk-\S+", r"\d{16}", "é"], '"\\')
    text = r'{"a\nsk-1": "x sk-\"2\\ y", "n": 4111111111111111, "e": "\u00e9", "t": true}'
    changed = run(JsonStrings(window.open), list(text))
    assert json.loads(changed) == {'a\n"\\': 'x "\\ y', "n": '"\\', "e": '"\\', "t": True}


def test_a_match_does_not_span_two_strings() -> None:
    assert run(JsonStrings(Window(["a.*b"], "X").open), ['{"a": "b", "ab": 1}']) == '{"a": "b", "X": 1}'


@pytest.mark.parametrize(
    "text", ['{"a": "cut off', '{"a": "cut\\', '{"a": "cut\\u00', '{"a": 12', r'{"a": "\q \u12zz"}']
)
def test_json_that_is_cut_or_wrong_stays_so(text: str) -> None:
    assert run(JsonStrings(NOTHING.open), list(text)) == text


def test_a_string_with_escapes_that_comes_at_once_is_changed_at_once() -> None:
    fed: list[str] = []

    class Noted:
        def feed(self, text: str, /) -> str:
            fed.append(text)
            return text

        def flush(self) -> str:
            return ""

    strings = JsonStrings(Noted)
    text = json.dumps({"file": 'print("x")\n' * 1000, "": "\\"})
    assert run(strings, [text[:-30], text[-30:]]) == text
    assert "".join(fed) == "file" + 'print("x")\n' * 1000 + "\\"
    assert len(fed) == 4
