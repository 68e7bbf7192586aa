"""Reasoning in tags at the start of the text, as Gemini's OpenAI-compatible endpoint sends it.

With ``include_thoughts`` its text is ``<thought>...</thought>`` and then the answer, the tags anywhere in its deltas
(ai.google.dev/gemini-api/docs/openai, "Thinking", 2026-11). Other vendors' tags stay text: a model may write of them.
"""

from __future__ import annotations

from typing import Final

_OPEN: Final = "<thought>"
_CLOSE: Final = "</thought>"


class ThoughtTags:
    """Tell reasoning from text in the deltas of one answer. Holds what may be the start of a tag, and blank text.

    Attributes:
        is_over: whether the rest of the answer is text, so that no more deltas need to come here.
    """

    __slots__ = ("_held", "_is_thought", "is_over")

    def __init__(self) -> None:
        self._held = ""
        self._is_thought = False
        self.is_over = False

    def feed(self, delta: str) -> tuple[str, str]:
        """Take a delta; return the reasoning and the text in it, which follows the reasoning."""
        held, self._held = self._held + delta, ""
        thoughts: list[str] = []
        while True:
            if self._is_thought:
                thought, tag, held = held.partition(_CLOSE)
                if not tag:
                    kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
                    self._held = thought[len(thought) - kept :]
                    thoughts.append(thought[: len(thought) - kept])
                    return "".join(thoughts), ""
                thoughts.append(thought)
                self._is_thought = False
            started = held.lstrip()
            if started.startswith(_OPEN):
                self._is_thought = True
                held = started[len(_OPEN) :]
            elif _OPEN.startswith(started):  # so does blank text
                self._held = held
                return "".join(thoughts), ""
            else:
                self.is_over = True
                return "".join(thoughts), held

    def flush(self) -> tuple[str, str]:
        """Take the end of the answer's text; return what was held, as reasoning and as text."""
        held, self._held = self._held, ""
        return (held, "") if self._is_thought else ("", held)
