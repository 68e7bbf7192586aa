"""Reasoning that was shown as text: how such a block is written, and how it is removed from a history that comes back.

Cursor has no field for reasoning and drops fields that it does not know, so a setting may show the reasoning at the
start of the text of an answer (``think`` or ``details``). Cursor then replays it as if the assistant had written it. If
it stayed there it would cost context, and models start to imitate it (docs/facts/cursor.md, "Reasoning on display"). So
it is removed under every setting: a conversation may have started under another one.
"""

from __future__ import annotations

from typing import Final

THINK_OPEN: Final = "<think>\n"
THINK_CLOSE: Final = "\n</think>\n\n"
DETAILS_OPEN: Final = "<details>\n<summary>Thinking</summary>\n\n"
DETAILS_CLOSE: Final = "\n\n</details>\n\n"

_FORMS: Final = ((THINK_OPEN, "\n</think>"), (DETAILS_OPEN, "\n</details>"))
"""How a block starts, and the line that ends it. Any number of line breaks around that line is accepted: Cursor trims
the text of a message, and deepseek-cursor-proxy, whose form we use, writes one before ``</details>``."""


def strip_shown_reasoning(text: str) -> str:
    """Return an assistant's text without the blocks of shown reasoning at its start.

    Only blocks that start with the very first character are removed, and only in exactly our form; everything from the
    first other character on stays as it is. A block that is not closed extends to the end of the text: the answer was
    stopped while the model was still reasoning.
    """
    while text.startswith("<"):
        for start, end in _FORMS:
            if text.startswith(start):
                text = _after(text, end, len(start) - 1)  # an empty block's last line break may be its first
                break
        else:
            return text
    return text


def _after(text: str, end: str, at: int) -> str:
    """Return what follows the first line that consists of ``end`` alone."""
    while (found := text.find(end, at)) >= 0:
        rest = text[found + len(end) :]
        if not rest or rest.startswith("\n"):
            return rest.removeprefix("\n").removeprefix("\n")
        at = found + len(end)
    return ""
