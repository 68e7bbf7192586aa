"""Calls of custom tools that were offered as functions become raw text again."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from stages.events import Failed, Finished, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted, Usage
from stages.wire.responses.wrapped_calls import WrappedCalls

PATCH = '*** Begin Patch\n*** Add File: a "b".py\n+π = 3 \\ 1 😀\n*** End Patch'


def raw(events: list[StreamEvent], index: int) -> str:
    return "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == index)


@given(st.lists(st.integers(0, 200)), st.booleans())
def test_the_text_is_extracted_however_the_arguments_are_cut(cuts: list[int], escape: bool) -> None:
    wrapped = json.dumps({"input": PATCH}, ensure_ascii=escape)
    points = sorted({min(cut, len(wrapped)) for cut in cuts} | {0, len(wrapped)})
    pieces = [wrapped[a:b] for a, b in itertools.pairwise(points)]
    calls = WrappedCalls(frozenset({"ApplyPatch"}))
    events = calls.feed([ToolCallStarted(0, "call_a", "ApplyPatch")])
    for piece in pieces:
        events += calls.feed([ToolCallDelta(0, piece)])
    events += calls.feed([Usage(1, 2, 3), Finished("tool_calls")])
    assert events[0] == ToolCallStarted(0, "call_a", "ApplyPatch", is_custom=True)
    assert raw(events, 0) == PATCH
    assert events[-1] == Finished("tool_calls")
    assert all(event.arguments for event in events if isinstance(event, ToolCallDelta))


def test_other_calls_and_events_are_passed_on_unchanged() -> None:
    calls = WrappedCalls(frozenset({"ApplyPatch"}))
    events: list[StreamEvent] = [
        TextDelta("hi"),
        ToolCallStarted(0, "call_a", "ReadFile"),
        ToolCallDelta(0, '{"input":"x"}'),
        Failed("upstream_error", "it broke"),
    ]
    assert calls.feed(events) == events


def test_held_text_comes_before_the_end_even_if_the_stream_fails() -> None:
    calls = WrappedCalls(frozenset({"ApplyPatch"}))
    events = calls.feed(
        [
            ToolCallStarted(0, "call_a", "ApplyPatch"),
            ToolCallDelta(0, '{"patch": "raw"'),
            Failed("upstream_error", "it broke"),
        ]
    )
    assert raw(events, 0) == '{"patch": "raw"'
    assert isinstance(events[-1], Failed)
