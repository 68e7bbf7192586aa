"""Whether the arguments of a call are whole, however they are cut, at a cost that grows with their size only."""

from __future__ import annotations

import time

import pytest

from stages.events import StreamEvent, ToolCallDelta, ToolCallStarted
from stages.wire.answers.arguments import Arguments
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.answers.tool_calls import ToolCalls

OBJECTS = ["{}", '{"x":1}', '{"x":"}"}\n', ' {"a":[{"b":"\\\\"},"\\"{"]} ', '{"x":"' + "y" * 20 + '"}']
OTHERS = ["null", '""', "[1,2]", "5", "true"]
BROKEN = [
    "{",
    '{"x":"}',
    '{"x":1}}',
    '{"x":1}{}',
    '{"x":1} x',
    "x}",
    '"x"}',
    '{"x":"\\"}',
    '{"x":[}]',
    "null and void and so on",
]


def in_pieces(text: str, size: int) -> Arguments:
    arguments = Arguments()
    for at in range(0, len(text), size):
        arguments.append(text[at : at + size])
    return arguments


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_whole_object_is_recognised_however_it_is_cut(size: int) -> None:
    for text in OBJECTS:
        arguments = in_pieces(text, size)
        assert (arguments.is_object(), arguments.is_whole(), arguments.text()) == (True, True, text)
        assert arguments.is_object()
    for text in OTHERS:
        assert (in_pieces(text, size).is_object(), in_pieces(text, size).is_whole()) == (False, True)
    for text in BROKEN:
        assert (in_pieces(text, size).is_object(), in_pieces(text, size).is_whole()) == (False, False)


def test_a_question_after_each_piece_changes_nothing() -> None:
    for text in (*OBJECTS, *BROKEN):
        arguments = Arguments()
        assert (arguments.is_object(), arguments.is_whole()) == (False, True)
        for at, character in enumerate(text):
            arguments.append(character)
            assert arguments.is_object() == in_pieces(text[: at + 1], 100).is_object()
        assert arguments.text() == text


def test_half_a_character_does_not_make_an_object() -> None:
    assert not in_pieces('{"x":"\ud83d"}', 100).is_whole()


def test_many_pieces_are_joined() -> None:
    text = '{"x":"' + "y" * 1000 + '"}'
    assert in_pieces(text, 1).is_object()
    assert in_pieces(text, 1).text() == text


@pytest.mark.parametrize(
    ("first", "more", "started"),
    [
        ((0, "a", "f", '{"x":"'), (0, "", "f", "abcdefg}"), 1),
        ((0, "a", "f", '{"x":"'), (0, "", "", "{}"), 1),
        ((None, "a", "f", '{"x":"'), (None, "", "f", "abcdefg}"), 1),
        ((None, "a", "f", "{}"), (None, "", "f", '{"x":1}'), 80_001),
    ],
    ids=["with an index", "without a name", "without an index", "many calls"],
)
def test_a_long_answer_does_not_hold_the_loop(
    first: tuple[int | None, str, str, str], more: tuple[int | None, str, str, str], started: int
) -> None:
    """Before, each of these took 8 s or more."""
    calls = ToolCalls(RequestTraits())
    out: list[StreamEvent] = []
    begin = time.process_time()
    calls.add(*first, out)
    number, _, name, piece = more
    for at in range(80_000):
        calls.add(number, f"b{at}" if name else "", name, piece, out)
    assert sum(isinstance(event, ToolCallStarted) for event in out) == started
    assert time.process_time() - begin < 4


def test_an_id_that_comes_with_the_name_is_known_afterwards() -> None:
    calls = ToolCalls(RequestTraits())
    out: list[StreamEvent] = []
    calls.add(0, "", "", '{"x"', out)
    calls.add(0, "a", "f", "", out)
    calls.add(1, "b", "g", "{}", out)
    calls.add(None, "a", "", ":1}", out)
    assert out[-1] == ToolCallDelta(0, ":1}")
