"""A failure that was shown as text: how it is written, and how it is removed from a history that comes back.

A client that does not understand an ``error`` object is shown the failure at the end of the answer's text, and sends it
back as if the assistant had said it. Models then imitate it, or apologise for it in each turn; so it is removed. So is
the sentence that says why there was no answer (`empty_answers`).
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED
from stages.wire.downstream.empty_answers import OPENING

_OPEN: Final = "[upstream error: "
_CLOSE: Final = "]"
_TOO_LONG: Final = f"{_OPEN}{CONTEXT_LENGTH_EXCEEDED}{_CLOSE}"
_PARAGRAPHS: Final = re.compile(r"\n\s*\n")


def failure_note(code: str, message: str, *, is_first: bool = False) -> str:
    """Return the last paragraph of an answer that has failed.

    A conversation that is too long is reported in a paragraph before that, because Cursor may look for the sentence.

    Args:
        code: what happened, in a word.
        message: the same, for the user.
        is_first: whether nothing is shown before it.
    """
    message = _PARAGRAPHS.sub("\n", message)
    if code == CONTEXT_LENGTH_EXCEEDED:
        gap = "" if is_first else "\n\n"
        return f"{gap}{message}\n\n{_TOO_LONG}"
    return f"\n\n{_OPEN}{code}: {message}{_CLOSE}"


def strip_failure_note(text: str, *, is_all: bool = True) -> str:
    """Return an assistant's text without the note at its end; the same string if there is none.

    Only a last paragraph in exactly our form is removed, with the one before it if that belongs to it; the sentence for
    an empty answer only if it is all of the message. The client may have trimmed the text.

    Args:
        text: the message's text, or its last part.
        is_all: whether nothing comes before it.
    """
    trimmed = text.rstrip()
    if trimmed[-1:] != _CLOSE:  # nearly all texts
        return text
    if is_all and trimmed.lstrip().startswith(OPENING):
        return ""
    kept, note = _parted(trimmed)
    if not note.startswith(_OPEN):
        return text
    return _parted(kept)[0] if note == _TOO_LONG else kept


def _parted(text: str) -> tuple[str, str]:
    """Return a text without its last paragraph, and that one."""
    start = text.rfind("\n\n") + 2 if "\n\n" in text else 0
    return text[:start].rstrip("\n"), text[start:]
