"""Raw text is extracted from the arguments of a one-string function as it arrives, however they are cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.strategies.streams import texts

from stages.wire.unwrap import StringFieldUnwrapper


def unwrap(pieces: list[str]) -> str:
    unwrapper = StringFieldUnwrapper()
    return "".join([unwrapper.feed(piece) for piece in pieces]) + unwrapper.flush()


def both_ways(arguments: str) -> str:
    whole = unwrap([arguments])
    assert unwrap(list(arguments)) == whole
    return whole


@settings(max_examples=60)
@given(st.lists(texts).map("".join), st.booleans(), st.sampled_from([None, 1]), st.data())
def test_wrapped_text_is_extracted_whatever_the_cuts(
    text: str, escaped: bool, indent: int | None, data: st.DataObject
) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=escaped, indent=indent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=8)))
    pieces = [arguments[i:j] for i, j in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    assert unwrap(pieces) == text
    assert unwrap(list(arguments)) == text


@given(st.text(alphabet='{}":,\\ninputd83ce0 \n[]x'), st.data())
def test_any_input_is_unwrapped_the_same_however_it_is_cut(arguments: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=8)))
    pieces = [arguments[i:j] for i, j in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    assert unwrap(pieces) == both_ways(arguments)


@given(st.text(alphabet='"\\u d83ce0nx,}'), st.data())
def test_a_valid_or_invalid_string_is_unwrapped_the_same_however_it_is_cut(tail: str, data: st.DataObject) -> None:
    arguments = '{"input":"' + tail
    cut = data.draw(st.integers(0, len(arguments)))
    assert unwrap([arguments[:cut], arguments[cut:]]) == both_ways(arguments)


def test_text_is_returned_as_soon_as_it_is_available() -> None:
    unwrapper = StringFieldUnwrapper()
    pieces = ['{"in', 'put": "', "*** Begin", "\\", "n", "+ \\ud83d", "\\ude00", " end", '"', "}"]
    given = [unwrapper.feed(piece) for piece in pieces]
    assert given == ["", "", "*** Begin", "", "\n", "+ ", "😀", " end", "", ""]
    assert unwrapper.flush() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"content": "a patch"}', "a patch"),
        ('{"patch":"x\\ny"}', "x\ny"),
        ('{"why": "because", "input": "the patch"}', "the patch"),
        ('{"inpu":"x"}', "x"),
        ("{}", ""),
        ("", ""),
    ],
)
def test_another_field_is_used_instead_at_the_end(arguments: str, text: str) -> None:
    assert both_ways(arguments) == text


@pytest.mark.parametrize(
    "arguments",
    [
        "*** Begin Patch\n*** End Patch",
        " \n*** Begin Patch",
        '"a JSON string"',
        '{"input": 5}',
        '{"input": {"a": "b"}}',
        '{"a": "b", "c": "d"}',
        '{"a": "b',
        "{oops",
        "[1]",
        "   ",
        '{"a":"\ud83d"}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=range(13),
)
def test_any_other_value_is_returned_unchanged(arguments: str) -> None:
    assert unwrap([arguments]) == arguments
    assert unwrap([arguments[:3], arguments[3:]]) == arguments


def test_raw_text_is_not_held_back() -> None:
    assert StringFieldUnwrapper().feed("*** Begin") == "*** Begin"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ('print("hi")', 'print("hi")'),
        ('a"b" c', 'a"b" c'),
        ('a" \n b', 'a" \n b'),
        ("line\nline", "line\nline"),
        ("a\\d \\' \\u12", "a\\d \\' \\u12"),
        ("\\ud83d", "\ufffd"),
        ("\\ud83d\\u0041", "\ufffdA"),
        ("\\ude00x", "\ufffdx"),
        ("\\ud83d\\n", "\ufffd\n"),
        ('\\u00e9\\/\\b\\f\\r\\t\\\\\\"', 'é/\b\f\r\t\\"'),
    ],
)
def test_the_models_mistakes_inside_the_string_are_kept(inside: str, text: str) -> None:
    assert both_ways('{"input":"' + inside + '"}') == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input":"cut off', "cut off"),
        ('{"input":"cut off\\', "cut off\\"),
        ('{"input":"cut off\\u00', "cut off\\u00"),
        ('{"input":"cut off\\ud83d', "cut off\ufffd"),
        ('{"input":"whole"', "whole"),
        ('{"input":"whole" ', "whole"),
        ('{"input":"whole", "why": "that"}', "whole"),
        ('{"input":"whole"}{"input":"again"}', "whole"),
    ],
)
def test_truncated_arguments_are_returned_as_far_as_they_go(arguments: str, text: str) -> None:
    assert both_ways(arguments) == text


def test_nothing_is_returned_after_the_end() -> None:
    unwrapper = StringFieldUnwrapper()
    unwrapper.feed('{"input":"x')
    assert unwrapper.flush() == ""
    assert unwrapper.feed("y") == ""
    assert unwrapper.flush() == ""


@pytest.mark.parametrize(
    ("head", "unit", "text"),
    [
        ('{"input":"', "a\\n", lambda times: "a\n" * times),
        ("{", " ", lambda times: "{" + " " * times),
        ('{"input":"x"', " ", lambda times: "x"),
        ("", " ", lambda times: " " * times),
    ],
    ids=["escapes", "in the head", "after the quote", "blank"],
)
def test_the_work_is_linear_in_the_length(head: str, unit: str, text: Callable[[int], str]) -> None:
    def seconds(times: int) -> float:
        pieces = list(head + unit * times)
        begun = process_time()
        assert unwrap(pieces) == text(times)
        return process_time() - begun

    # Ten times the text: linear work takes ten times as long, quadratic work a hundred times.
    short, long = (min(seconds(times) for _ in range(5)) for times in (10_000, 100_000))
    assert long < 40 * short
