"""Reasoning that was shown as text: how such a block is written, and how it is taken out of a history that comes back.

Cursor has no field for reasoning and drops what it does not know, so a setting may show it at the start of the text of
an answer (``think`` or ``details``). Cursor then replays it as if the assistant had said it. Left there it costs
context, and models begin to imitate it (mapping.md section 3: one wrote a literal ``<think>`` of its own). So it is
taken out in every setting: a conversation may have begun under another one.
"""

from __future__ import annotations

from typing import Final

THINK_OPEN: Final = "<think>\n"
THINK_CLOSE: Final = "\n</think>\n\n"
DETAILS_OPEN: Final = "<details>\n<summary>Thinking</summary>\n\n"
DETAILS_CLOSE: Final = "\n\n</details>\n\n"

_FORMS: Final = ((THINK_OPEN, "\n</think>"), (DETAILS_OPEN, "\n</details>"))
"""How a block begins, and the line that ends it. Of the line breaks around that line any number is taken: Cursor trims
the text of a message, and deepseek-cursor-proxy, whose form ours is, writes one before ``</details>``."""


def strip_mirrored(text: str) -> str:
    """Give what an assistant said without the blocks of shown reasoning at its start.

    Only blocks that begin with the very first character are taken, and only in exactly our form; whatever follows the
    first other character stays as it is. A block that is not closed takes the whole text: the answer was stopped while
    the model was still thinking.
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
    """Give what follows the first line that is ``end`` alone."""
    while (found := text.find(end, at)) >= 0:
        rest = text[found + len(end) :]
        if not rest or rest.startswith("\n"):
            return rest.removeprefix("\n").removeprefix("\n")
        at = found + len(end)
    return ""
