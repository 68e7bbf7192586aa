"""Where a client sees the model's reasoning: in a field of its own, at the start of the answer's text, or nowhere.

Both the encoder and the collector pass their events through here first, so a stream and a document are alike.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from stages.events import (
    Annotations,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.wire.downstream.profiles import ReasoningDisplay
from stages.wire.downstream.shown_reasoning import DETAILS_CLOSE, DETAILS_OPEN, THINK_CLOSE, THINK_OPEN


class HiddenReasoning:
    """``none``: reasoning is left out."""

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the events that are not reasoning."""
        return [event for event in batch if type(event) is not ReasoningDelta]

    def close(self) -> list[StreamEvent]:
        """Return nothing: no block is ever open."""
        return []


class ShownReasoning:
    """``think`` and ``details``: reasoning becomes a block at the very start of the answer's text, as it arrives.

    Only a block at the start can be removed from the history again (``shown_reasoning.py``). So there is at most one,
    it is closed before any other output, and reasoning that comes after that is left out. A tag in the reasoning that
    would end the block is broken by a space.
    """

    __slots__ = ("_close", "_end", "_held", "_is_open", "_is_past", "_length", "_open")

    def __init__(self, opening: str, closing: str) -> None:
        self._open, self._close = opening, closing
        self._end = closing.strip()  # "</think>"
        self._held = ""  # the start of what may become `_end`
        self._is_open = self._is_past = False
        self._length = 0

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the events with the reasoning as text."""
        out: list[StreamEvent] = []
        for event in batch:
            match event:
                case ReasoningDelta():
                    if not self._is_past:
                        self._show(event.text, out)
                case Annotations():
                    out += self.close()
                    out.append(self._moved(event))
                case (
                    TextDelta()
                    | RefusalDelta()
                    | ToolCallStarted()
                    | ToolCallDelta()
                    | LogProbs()
                    | Finished()
                    | Failed()
                ):
                    # Log probabilities are sent with the text that follows them, which must not be our own.
                    if not self._is_past:
                        out += self.close()
                        self._is_past = True
                    out.append(event)
                case Started() | ReasoningItem() | Usage() | Heartbeat():
                    out.append(event)
                case _:  # pragma: no cover - the type checkers prove it
                    assert_never(event)
        return out

    def close(self) -> list[StreamEvent]:
        """End the block if one is open."""
        if not self._is_open:
            return []
        self._is_open, self._is_past = False, True
        rest = self._held + self._close
        self._length += len(rest)
        return [TextDelta(rest)]

    def _show(self, reasoning: str, out: list[StreamEvent]) -> None:
        text = (self._held + reasoning).replace(self._end, f"< {self._end[1:]}")
        kept = next((n for n in range(len(self._end) - 1, 0, -1) if text.endswith(self._end[:n])), 0)
        text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if not self._is_open:
            self._is_open = True
            text = self._open + text
        if text:
            self._length += len(text)
            out.append(TextDelta(text))

    def _moved(self, event: Annotations) -> Annotations:
        """Move the citations past the block: their indices count from the start of the whole text."""
        if not self._length:
            return event
        return Annotations(
            tuple(
                replace(it, start_index=it.start_index + self._length, end_index=it.end_index + self._length)
                for it in event.citations
            )
        )


def display_of(setting: ReasoningDisplay) -> HiddenReasoning | ShownReasoning | None:
    """Return the transformation for one answer; None if its events stay as they are."""
    match setting:
        case "reasoning_content":
            return None
        case "none":
            return HiddenReasoning()
        case "think":
            return ShownReasoning(THINK_OPEN, THINK_CLOSE)
        case "details":
            return ShownReasoning(DETAILS_OPEN, DETAILS_CLOSE)
        case _:  # pragma: no cover - the type checkers prove it
            assert_never(setting)
