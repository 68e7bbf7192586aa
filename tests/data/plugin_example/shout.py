"""Say it louder: the answer's text in capitals."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline import per_event
from stages.events import StreamEvent, TextDelta


@per_event
def shout(event: StreamEvent) -> Iterator[StreamEvent]:
    """Takes and gives StreamEvent, 1:1; only text changes."""
    if isinstance(event, TextDelta):
        yield TextDelta(event.text.upper())
    else:
        yield event
