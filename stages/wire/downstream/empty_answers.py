"""An answer that would be empty says in one sentence why, for clients that would show nothing at all.

Cursor ends such a turn as if nothing had been asked (docs/facts/cursor.md, "The stream that Cursor reads"). Both the
encoder and the collector pass their events through here, so a stream and a document are alike.
"""

from __future__ import annotations

from typing import Final

from stages.events import Finished, ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted

OPENING: Final = "[no answer: "
"""How the sentence begins. It comes back as the assistant's text, and is removed (`shown_failures`)."""

_FILTERED: Final = "the upstream's content filter stopped it"
_ONLY_THOUGHT: Final = "the model thought and then ended its turn without a word; ask it to go on"
_THOUGHT_TOO_LONG: Final = "the model's thinking used up all the tokens of the answer"
_TOO_LONG: Final = "the limit for the tokens of the answer was reached before its first word"
_NOTHING: Final = "the upstream's answer is empty; try again"


class EmptyAnswers:
    """Add a sentence to one answer if it has no text, refusal or call. Blank text counts as none.

    Args:
        mended: words of `stages.mending.MENDS`.

    Attributes:
        is_over: whether the answer has something, so that no more events need to come here.
    """

    __slots__ = ("_has_reasoning", "_mended", "is_over")

    def __init__(self, mended: set[str]) -> None:
        self._mended = mended
        self._has_reasoning = False
        self.is_over = False

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the events, with the sentence before the end if it is needed."""
        for at, event in enumerate(batch):
            match event:
                case TextDelta() | RefusalDelta():
                    self.is_over = bool(event.text.strip())
                case ToolCallStarted() | ToolCallDelta():
                    self.is_over = True
                case ReasoningDelta():
                    self._has_reasoning = True
                case Finished():
                    self.is_over = True
                    self._mended.add("empty_answer")
                    return [*batch[:at], TextDelta(self._words_for(event)), *batch[at:]]
                case _:
                    pass
            if self.is_over:
                break
        return batch

    def _words_for(self, end: Finished) -> str:
        note = end.note
        if note is None:
            if end.reason == "content_filter":
                note = _FILTERED
            elif end.reason == "length":
                note = _THOUGHT_TOO_LONG if self._has_reasoning else _TOO_LONG
            else:
                note = _ONLY_THOUGHT if self._has_reasoning else _NOTHING
        return note if note.startswith("![") else f"{OPENING}{note}]"
