"""A transformer of the strings within JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from stages.text_runs.transformer import Transformer

MAX_LITERAL: Final = 256
"""A number in JSON has fewer characters; no more of one is held."""


class JsonStrings:
    r"""A `Transformer` of JSON that applies another one to each string in it, keys included, and to each bare literal.

    The other one gets the text that the string means, without escapes, and may return any text: it is escaped again. So
    what was valid JSON stays valid. A number, or ``true``, that it changes becomes a string. Escapes that JSON does not
    demand, such as ``\/`` and ``\u00e9``, become the character itself.

    Holds: what the other one holds, and fewer than 256 characters.

    Args:
        open: makes the transformer of one string.
    """

    def __init__(self, open: Callable[[], Transformer]) -> None:
        self._open = open
        self._string: Transformer | None = None  # the string's that is open
        self._rest = ""  # what is not complete: an escape, a number

    def feed(self, text: str, /) -> str:
        """Return the JSON of what is decided."""
        return self._take(self._rest + text, is_end=False)

    def flush(self) -> str:
        """Return what is left; JSON that was cut stays cut."""
        given = self._take(self._rest, is_end=True)
        string, self._string = self._string, None
        return given if string is None else given + _escaped(string.flush())

    def _take(self, text: str, *, is_end: bool) -> str:
        out: list[str] = []
        meant: list[str] = []  # of the open string, since the other one was last fed
        at = 0
        while at < len(text):
            part = (_OUTSIDE if self._string is None else _INSIDE).match(text, at)
            assert part is not None  # both match any character
            kind = part.lastgroup
            if not is_end and (kind == "cut" or (kind == "literal" and _is_open(part))):
                break
            at = part.end()
            if self._string is None:
                if kind == "quote":
                    self._string = self._open()
                out.append(self._literal(part[0]) if kind == "literal" else part[0])
            elif kind in ("quote", "cut", "broken"):  # the last two are not JSON: they stay as they are
                if meant:
                    out.append(_escaped(self._string.feed("".join(meant))))
                    meant.clear()
                out += (_escaped(self._string.flush()), part[0])
                self._string = None if kind == "quote" else self._open()
            else:
                meant.append(_unescaped(part))
        if self._string is not None and meant:
            out.append(_escaped(self._string.feed("".join(meant))))
        self._rest = text[at:]
        return "".join(out)

    def _literal(self, text: str) -> str:
        transformer = self._open()
        changed = transformer.feed(text) + transformer.flush()
        return text if changed == text else f'"{_escaped(changed)}"'


_OUTSIDE: Final = re.compile(
    rf"""(?P<quote>")|(?P<literal>[^\s"{{}}\[\],:]{{1,{MAX_LITERAL}}})|(?P<other>[\s{{}}\[\],:]+)"""
)
_INSIDE: Final = re.compile(
    r"""(?P<quote>")
    |(?P<plain>[^"\\]+)
    |(?P<cut>\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?))?\Z)
    |(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
    |(?P<code>\\u[0-9a-fA-F]{4})
    |(?P<escape>\\["\\/bfnrt])
    |(?P<broken>\\)""",
    re.VERBOSE,
)
_MEANT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TO_ESCAPE: Final = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')


def _is_open(part: re.Match[str]) -> bool:
    """Return whether a literal may go on in the text that follows."""
    return part.end() == len(part.string) and part.end() - part.start() < MAX_LITERAL


def _unescaped(part: re.Match[str]) -> str:
    text = part[0]
    match part.lastgroup:
        case "pair":
            return chr(0x10000 + (int(text[2:6], 16) - 0xD800) * 0x400 + int(text[8:], 16) - 0xDC00)
        case "code":
            return chr(int(text[2:], 16))
        case "escape":
            return _MEANT.get(text[1], text[1])
        case _:
            return text


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(lambda found: _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}", text)
