"""Halves of surrogate pairs in the JSON of others: lone ones are replaced, and nothing else is touched."""

from __future__ import annotations

import re
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import Decoder

from stages.wire.foreign_json import count, read, whole_characters


@pytest.mark.parametrize(
    ("written", "repaired"),
    [
        (rb"cut \ud83d", rb"cut \ufffd"),
        (rb"\uDE00 cut", rb"\ufffd cut"),
        (rb"\ud83d\ud83d\ude00\ude00", rb"\ufffd\ud83d\ude00\ufffd"),
        (rb"\ud83d\n\ude00", rb"\ufffd\n\ufffd"),
        # An escaped backslash and the letters after it do not form an escape; what follows them may.
        (rb"\\ud83d \\\\ude00", rb"\\ud83d \\\\ude00"),
        (rb"\\\ud83d", rb"\\\ufffd"),
        (rb"\\ud83d\ude00", rb"\\ud83d\ufffd"),
        (rb"\\\ud83d\ude00", rb"\\\ud83d\ude00"),
        (rb"\ud83d\\ude00", rb"\ufffd\\ude00"),
        (rb"\\\\\ud83d\\\\", rb"\\\\\ufffd\\\\"),
        (b"\xed\xa0\xbd\xed\xb8\x80 \xed\xa0\xbd", "\U0001f600 \ufffd".encode()),
    ],
)
def test_lone_halves_are_replaced(written: bytes, repaired: bytes) -> None:
    assert whole_characters(b'"%b"' % written) == b'"%b"' % repaired


@pytest.mark.parametrize("data", [b'"whole \\n"', b'"not UTF-8 \xff \\ud83d"'])
def test_what_has_no_halves_or_is_not_utf_8_is_not_repaired(data: bytes) -> None:
    assert whole_characters(data) is None


def test_bytes_that_are_not_utf_8_do_not_spoil_the_rest() -> None:
    assert read(Decoder(str), b'"\xff \\ud83d \\ud83d\\ude00"') == "\ufffd \ufffd \U0001f600"


_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Every escape, one after the other: simple, but slow."""


@given(st.lists(st.sampled_from(["\\", "\\\\", "u", "\\ud83d", "\\uDE00", "ud83d", "n", "\\n", "\\u00e4"])))
def test_escapes_are_told_apart_as_if_read_one_by_one(pieces: list[str]) -> None:
    written = "".join([*pieces, " \\ud83d"])
    simple = _ESCAPE.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], written)
    assert whole_characters(written.encode()) == simple.encode()


def test_one_half_does_not_make_a_long_body_slow() -> None:
    body = rb'"%b\ud83d"' % (rb"line\n" * 500_000)  # 3 MB
    begun = thread_time()
    assert whole_characters(body) == body.replace(rb"\ud83d", rb"\ufffd")
    assert thread_time() - begun < 0.12  # 0.03 s, and 0.3 s when each escape was looked at in Python


@pytest.mark.parametrize(
    ("value", "counted"), [(3, 3), (3.0, 3), (0, 0), (-1, None), (-1.0, None), (0.5, None), (True, None)]
)
def test_a_count_is_whole_and_not_negative(value: object, counted: int | None) -> None:
    assert count(value) == counted
