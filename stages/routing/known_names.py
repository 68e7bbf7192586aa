"""What is said of a model's name that does not exist, or that a key may not use: the names that it may use."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

MAX_SHOWN: Final = 5
MAX_COMPARED: Final = 200
"""Comparing takes about 10 us for each name."""
MAX_SHOWN_CHARS: Final = 80


def usable(names: Sequence[str], asked: str) -> str:
    """Return the end of a sentence about ``asked``: which names can be used, those first that are like it.

    Cursor shows the message of an error and nothing else, so whoever has mistyped a name there finds it in the message.
    """
    if not names:
        return "this API key may use no model"
    near = get_close_matches(asked, names, n=MAX_SHOWN) if len(names) <= MAX_COMPARED else []
    shown = [*near, *(name for name in names if name not in near)][:MAX_SHOWN]
    listed = ", ".join(repr(name if len(name) <= MAX_SHOWN_CHARS else f"{name[:MAX_SHOWN_CHARS]}...") for name in shown)
    left = len(names) - len(shown)
    more = f" and {left} more (GET /cursor/models lists them)" if left else ""
    return f"this API key may use {listed}{more}"
