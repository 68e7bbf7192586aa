"""A failure that was shown as text: how it is written, and how it is removed from a history that comes back.

A client that does not understand an ``error`` object is shown the failure at the end of the answer's text, and sends it
back as if the assistant had said it. Models then imitate it, or apologise for it in each turn; so it is removed.
"""

from __future__ import annotations

import re
from typing import Final

_OPEN: Final = "[upstream error: "
_CLOSE: Final = "]"
_PARAGRAPHS: Final = re.compile(r"\n\s*\n")


def failure_note(code: str, message: str) -> str:
    """Return the last paragraph of an answer that has failed."""
    note = _PARAGRAPHS.sub("\n", f"{code}: {message}")
    return f"\n\n{_OPEN}{note}{_CLOSE}"


def strip_failure_note(text: str) -> str:
    """Return an assistant's text without the note at its end; the same string if there is none.

    Only a last paragraph in exactly our form is removed. The client may have trimmed the text.
    """
    trimmed = text.rstrip()
    if trimmed[-1:] != _CLOSE:  # nearly all texts
        return text
    start = trimmed.rfind("\n\n") + 2 if "\n\n" in trimmed else 0
    return trimmed[:start].rstrip("\n") if trimmed.startswith(_OPEN, start) else text
