"""Text for people: durations, tables of at most 100 columns, and colour where there is a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

WIDTH: Final = 100
_COLOUR: Final = re.compile(r"(\x1b\[[0-9]{1,2}m)")
_COLOURS: Final = {"client": "36", "ours": "33", "upstream": "35", "bold": "1", "bad": "31", "good": "32", "dim": "2"}


def has_colour(*, is_terminal: bool, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether text has colour: on a terminal, unless NO_COLOR or TERM=dumb is set; FORCE_COLOR: anywhere.

    Source: no-color.org, force-color.org; an empty variable counts as absent.
    """
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (is_terminal and environ.get("TERM") != "dumb")


class Paint:
    """Colours words, if ``stream`` is to have colour: `has_colour`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        chosen: TextIO = sys.stdout if stream is None else stream
        self._is_on = has_colour(is_terminal=chosen.isatty())

    def __call__(self, text: str, colour: str) -> str:
        """Return the text in a colour: a party's, ``bold``, ``bad``, ``good`` or ``dim``."""
        text = printable(text)
        return coloured(text, colour) if self._is_on and colour in _COLOURS else text


def coloured(text: str, colour: str) -> str:
    """Return a text in a colour of `Paint`."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: clients choose names of models."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def painted(line: str) -> str:
    """Return a line as `printable` does, but with the colours of `Paint`.

    Names that others have chosen must have been made printable before: they may have colours in them as well.
    """
    return "".join(part if at % 2 else printable(part) for at, part in enumerate(_COLOUR.split(line)))


def ms_text(ms: float) -> str:
    """Return a duration with three digits or so: ``0.042 ms``, ``4.2 ms``, ``412 ms``, ``5.1 s``."""
    size = abs(ms)
    if size < 0.0005:
        return "0 ms"
    if size < 1:
        return f"{ms:.3f} ms" if size < 0.1 else f"{ms:.2f} ms"
    if size < 100:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if size < 10_000 else f"{ms / 1000:.1f} s"


def number(ms: float) -> str:
    """Return a number of ms for a column."""
    return "0" if ms == 0 else f"{ms:.3f}" if abs(ms) < 10 else f"{ms:.1f}" if abs(ms) < 10_000 else f"{ms:.0f}"


def percent(part: float, whole: float) -> str:
    """Return a share of a whole: ``12.3%``; a dash if there is none."""
    return f"{part / whole:.1%}" if whole > 0 else "-"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: names to the left, figures to the right; names are cut so that it fits."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    widths[0] = max(min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)), 8)
    return [
        "  ".join(_fitted(cell, width, at) for at, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in [head, *rows]
    ]


def wrapped(text: str) -> list[str]:
    """Return the lines of a sentence, each at most as long as a table is wide."""
    lines = [""]
    for word in printable(text).split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _fitted(cell: str, width: int, at: int) -> str:
    if at:
        return cell.rjust(width)
    return cell.ljust(width) if len(cell) <= width else f"{cell[: width - 3]}..."
