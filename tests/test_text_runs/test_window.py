"""A window replaces what `re.sub` replaces, however the text is cut, and holds no more than it must."""

from __future__ import annotations

import gc
import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text_runs import Edit, SlidingWindow, Window

PATTERNS = [
    "abc",
    "ab+",
    "ab*c?",
    "a[bc]{2,4}",
    "a[bc]{2,4}?",
    "a[^]b]c",
    "(?:ab|abc)b",
    "ab|abca",
    "abca|ab",
    "(ab){1,3}",
    r"\bab\b",
    r"\Bb",
    "^ab",
    "(?m)^ab$",
    "ab$",
    r"ab\Z",
    "a(?=b)",
    "a(?=bc)b",
    "a(?!bc)",
    "a(?!b)c?",
    "a(?=b*c)[bc]",
    "a(?!.*c$)b+",
    "a(?=(?:b|bc)(?!a))b?",
    "(?<=a(?=b))b",
    "(?<=b)a",
    "(?<!b)ab",
    "(?<=(?:b))c",
    "a[bc]+(?<!c)",
    "a[bc]+(?<=c)b?",
    "(?:a(?:b|.)?){2}(?<![.])",
    r"[ab]+(?<=\bab)",
    "b+(?<=^b)",
    "(?<=a(?=bc))b",
    r"(?<=a$)\n",
    "(?=[ab]+(?<!b))a.",
    "(?:ab*(?<!b))+c?",
    r"a\.b",
    r"\x61\u0062",
    r"[\]a]b",
    "(?i)AB",
    "(?i:A)b",
    "a(?#a comment)b",
    r"(a|b)c\1",
    r"(?P<x>a|b)c(?P=x)",
    "(a)?b(?(1)c|a)",
    "(?x) a b # ab",
    "(?P<x>ab)c",
    "(?>ab|a)c",
    "ab?+b",
    "a++b",
    r"[^\n]b\n?",
    "a.c",
    "(?s)a.c",
    "a{b",
    "a{,2}b",
    "",
    "a?",
]
LONGEST = 40
"""No text is longer, so each match fits into a window of this size."""

texts = st.text("abc .\n{]\\", max_size=LONGEST - 1)


def pieces(text: str, points: list[int]) -> list[str]:
    cuts = [0, *sorted(min(point, len(text)) for point in points), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def run(window: SlidingWindow, parts: list[str]) -> str:
    return "".join([window.feed(part) for part in parts]) + window.flush()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_cut_gives_what_re_sub_gives_for_the_whole(pattern: str) -> None:
    window = Window([pattern], "<>", max_match=LONGEST)

    @settings(max_examples=80)
    @given(texts, st.lists(st.integers(0, LONGEST), max_size=8))
    def check(text: str, points: list[int]) -> None:
        assert run(window.open(), pieces(text, points)) == _without_empty_matches(pattern, text)
        assert run(window.open(), list(text)) == _without_empty_matches(pattern, text)

    check()


PARTS = ["a", "b", "c", ".", "[ab]", "[^a]", r"\n", r"\w", r"\s"]
EDGES = [r"\b", r"\B", "^", "$", "(?=a)", "(?!ab)", "(?<=a)", "(?<!b)", "(?<![ab])", r"(?<=a\b)", "(?<=^)", "(?=a*c)"]
patterns = st.recursive(
    st.builds(str.__add__, st.sampled_from(PARTS), st.sampled_from(["", "", "?", "*", "+", "+?", "{2}", "{1,3}"])),
    lambda inner: (
        st.builds("{}{}".format, inner, st.sampled_from(EDGES) | inner)
        | st.builds("{}{}".format, st.sampled_from(EDGES), inner)
        | st.builds("(?:{}|{})".format, inner, inner)
        | st.builds("({}){}".format, inner, st.sampled_from(["", "?", "{1,2}"]))
    ),
    max_leaves=5,
)


@settings(max_examples=600)
@given(st.sampled_from(["", "(?i)", "(?m)", "(?s)"]), patterns, texts, st.lists(st.integers(0, LONGEST), max_size=8))
def test_any_expression_finds_the_same_for_every_cut(flags: str, pattern: str, text: str, points: list[int]) -> None:
    window = Window([flags + pattern], "<>", max_match=LONGEST)
    expected = _without_empty_matches(flags + pattern, text)
    assert run(window.open(), pieces(text, points)) == expected
    assert run(window.open(), list(text)) == expected


@pytest.mark.parametrize("flag", ["", "(?x)"])
@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\bsk-[A-Za-z0-9_-]{8,}(?<![-_])", "key sk-abcdefgh-ijklmnop ok"),
        ("(?:[0-9]{4}-?){4}(?<!-)", "card 1234-5678-1234-5678."),
    ],
)
def test_a_secret_that_is_cut_before_what_an_expression_looks_back_at_is_found(
    flag: str, pattern: str, text: str
) -> None:
    window = Window([flag + pattern], "*", max_match=64)
    for cut in range(len(text)):
        assert run(window.open(), [text[:cut], text[cut:]]) == re.sub(pattern, "*", text)


@pytest.mark.parametrize("text", ["password: abc\n", "password: ", "sk-", "sk-aaaaaaaaaaaaaaaaaaaa ", "hello "])
def test_a_large_delta_takes_time_in_proportion_to_its_size(text: str) -> None:
    window = Window([r"\bsk-[\w-]{16,}", r"\bAKIA[0-9A-Z]{16}\b", r"(?i)\bpassword: \S+"], "*", max_match=512)
    assert _seconds(window, (text * 65536)[:65536]) < 0.5  # 25 ms, and 2 to 15 s when all of it was searched each time


def test_beginnings_without_an_end_take_time_in_proportion_to_the_window() -> None:
    window = Window([r"-----BEGIN [A-Z ]+-----[\s\S]+?-----END [A-Z ]+-----"], "*", max_match=4096)
    assert _seconds(window, "-----BEGIN A----- " * 3000) < 2  # 0.2 s, and over 5 s when all of it was searched


def _seconds(window: Window, text: str) -> float:
    """Return how long this thread works on a text that comes at once: the least of three, and without the collector.

    A collection walks all that the tests before have left, which can take half a second.
    """
    gc.disable()
    try:
        return min(_once(window, text) for _ in range(3))
    finally:
        gc.enable()


def _once(window: Window, text: str) -> float:
    start = time.thread_time()
    run(window.open(), [text])
    return time.thread_time() - start


def _without_empty_matches(pattern: str, text: str) -> str:
    """Return what ``re.sub`` gives, for an expression that prefers a match at the same place to an empty one."""
    out, at = [], 0
    compiled = re.compile(pattern)
    while at < len(text):
        found = compiled.match(text, at)
        if found and found[0]:
            out.append("<>")
            at = found.end()
        else:
            out.append(text[at])
            at += 1
    return "".join(out)


@given(texts, st.lists(st.integers(0, LONGEST), max_size=8), st.integers(1, 5))
def test_a_window_that_is_too_small_gives_the_same_for_every_cut(text: str, points: list[int], most: int) -> None:
    window = Window(["a[abc ]*c", r"b+\b", "c(?=.b)"], lambda found: f"<{found}>", max_match=most)
    whole = run(window.open(), [text])
    assert run(window.open(), pieces(text, points)) == whole
    assert run(window.open(), list(text)) == whole


@given(texts, st.integers(1, 6))
def test_it_holds_less_than_a_match_may_have(text: str, most: int) -> None:
    window = Window(["a[abc ]*c", "(b)c*\\1"], "", max_match=most).open()
    given_out = 0
    for taken, character in enumerate(text, 1):
        given_out += len(window.feed(character))
        changed = sum(edit.end - edit.start - edit.size for edit in window.edits)
        assert taken - given_out - changed < most


@given(texts, st.lists(st.integers(0, LONGEST), max_size=8))
def test_the_edits_say_what_has_changed(text: str, points: list[int]) -> None:
    window = Window(["ab+", "c"], "<*>", max_match=8).open()
    changed = run(window, pieces(text, points))
    again, at = "", 0
    for start, end, size in window.edits:
        again += text[at:start] + "<*>"
        assert size == 3
        at = end
    assert again + text[at:] == changed


def test_only_what_could_become_a_match_is_held() -> None:
    window = Window([r"sk-\w{4,}", "(?i)password: \\S+"], "***").open()
    assert window.feed("Hello, I as") == "Hello, I a"
    assert window.feed("k") == ""
    assert window.feed("ed. sk") == "sked. "
    assert window.feed("-12345") == ""
    assert window.feed(" and PASS") == "*** and "
    assert window.feed("ed") == "PASSed"
    assert window.flush() == ""
    assert window.edits == [Edit(16, 24, 3)]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("secret", "a secret"),
        ("ab(?!c)", "abx"),
        ("ab(?=cd)", "abcde"),
        (r"ab\b", "ab."),
        ("ab|abc", "ab"),
        ("ab{1,2}", "abb"),
    ],
)
def test_a_match_that_is_complete_is_given_at_once(pattern: str, text: str) -> None:
    window = Window([pattern], "*")
    assert window.open().feed(text) == re.sub(pattern, "*", text)


def test_the_first_of_several_expressions_wins_at_the_same_place() -> None:
    window = Window(["ab", "abc"], lambda found: f"<{found}>")
    assert run(window.open(), ["abc", "x"]) == "<ab>cx"
    window = Window(["abc", "ab"], lambda found: f"<{found}>")
    assert run(window.open(), ["ab", "c", "ab", "x"]) == "<abc><ab>x"


def test_a_long_text_is_not_kept() -> None:
    window = Window(["abc"], "", max_match=16).open()
    for _ in range(1000):
        window.feed("nothing here, ab")
    assert len(window._buffer) < 64


def test_an_expression_that_is_not_valid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression: missing \)"):
        Window(["("], "")
    with pytest.raises(ValueError, match="max_match"):
        Window(["a"], "", max_match=0)
