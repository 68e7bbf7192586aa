"""The text within single events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from stages.events import ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, ToolCallDelta


def text_of(event: StreamEvent) -> str:
    """Return the text, reasoning, refusal or arguments that an event adds; empty if it adds none."""
    match event:
        case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text) | ToolCallDelta(_, text):
            return text
        case _:
            return ""


def with_text(event: StreamEvent, text: str) -> StreamEvent:
    """Return the same event with another text; an event that adds none as it is."""
    match event:
        case TextDelta() | ReasoningDelta() | RefusalDelta():
            return replace(event, text=text)
        case ToolCallDelta():
            return replace(event, arguments=text)
        case _:
            return event


def pieces(events: Iterable[StreamEvent], most: int) -> Iterator[StreamEvent]:
    """Yield the events in order, each one that adds more than ``most`` characters cut into several."""
    for event in events:
        text = text_of(event)
        if len(text) <= most:
            yield event
        else:
            for at in range(0, len(text), most):
                yield with_text(event, text[at : at + most])
