"""The text within single events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from kit.strategies.streams import event_sequences

from stages.events import Heartbeat, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, Usage
from stages.text_runs import pieces, text_of, with_text


def test_each_kind_of_delta_has_a_text_and_can_get_another_one() -> None:
    assert [text_of(event) for event in (TextDelta("a"), ToolCallDelta(2, "{}"), Usage(1, 2, 3))] == ["a", "{}", ""]
    assert with_text(ReasoningDelta("a"), "b") == ReasoningDelta("b")
    assert with_text(ToolCallDelta(2, "{}"), "[]") == ToolCallDelta(2, "[]")
    assert with_text(Heartbeat(), "b") == Heartbeat()


@given(event_sequences(), st.integers(1, 5))
def test_pieces_are_short_and_add_up_to_the_whole(events: list[StreamEvent], most: int) -> None:
    cut = list(pieces(events, most))
    assert all(len(text_of(event)) <= most for event in cut)
    for event in events:
        parts = [cut.pop(0)]
        while len(text := "".join(map(text_of, parts))) < len(text_of(event)):
            parts.append(cut.pop(0))
        assert text == text_of(event)
        assert {with_text(part, "") for part in parts if text} == ({with_text(event, "")} if text else set())
    assert cut == []
