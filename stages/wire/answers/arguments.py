"""The arguments of a call, which come in pieces: whether they are whole, found out in one pass over them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_COMPACT_AT_PIECES: Final = 256

_EDGE: Final = re.compile(r'["{}\[\]]')
_IN_STRING: Final = re.compile(r'(?:[^"\\]+|\\.)*+', re.DOTALL)

_MAX_WORD: Final = 16
"""What is whole without a brace is short: ``null``, ``""``, ``[]``."""


class Arguments:
    """What came so far of the arguments of one call.

    A server that repeats the name with each delta makes us ask after each whether the arguments are whole. So no
    character is examined twice.
    """

    __slots__ = ("_depth", "_has_ended", "_head", "_is_escaped", "_is_in_string", "_is_whole", "_seen", "_tail")

    def __init__(self) -> None:
        self._head: list[str] = []
        self._tail: list[str] = []
        self._seen = 0  # pieces of the head that were examined
        self._depth = 0  # of the braces around the end
        self._is_in_string = False
        self._is_escaped = False
        self._has_ended = False  # the outermost brace is closed
        self._is_whole: bool | None = None  # known once it has ended

    def append(self, piece: str) -> None:
        """Add a piece, which is not empty."""
        self._tail.append(piece)
        if len(self._tail) > _COMPACT_AT_PIECES:
            self._compact()

    def text(self) -> str:
        """Return all of them."""
        return "".join(self._head) + "".join(self._tail)

    def is_whole(self) -> bool:
        """Return whether nothing can follow: they are empty or a whole JSON value."""
        if not self._head and len(self._tail) < _MAX_WORD:
            text = "".join(self._tail)
            if len(text) < _MAX_WORD:
                return not text or _is_json(text)
        return self.is_object()

    def is_object(self) -> bool:
        """Return whether they are a whole object."""
        last = self._tail[-1] if self._tail else self._head[-1] if self._head else "."
        if last.rstrip()[-1:] not in ("", "}"):  # saves the rest for nearly every delta
            return False
        if self._tail:
            self._compact()
        for piece in self._head[self._seen :]:
            self._examine(piece)
        self._seen = len(self._head)
        if self._has_ended and self._is_whole is None:
            self._is_whole = _is_json(self.text())
        return bool(self._is_whole)

    def _compact(self) -> None:
        """Join the pieces so far: as 10 000 short strings a stream would take 0.6 MB instead of 40 KB."""
        self._head.append("".join(self._tail))
        self._tail.clear()

    def _examine(self, piece: str) -> None:
        at = 1 if self._is_escaped else 0
        self._is_escaped = False
        while at < len(piece) and not self._has_ended:
            if self._is_in_string:
                found = _IN_STRING.match(piece, at)
                at = found.end() if found is not None else at
                self._is_in_string = piece[at : at + 1] != '"'
                self._is_escaped = piece[at : at + 1] == "\\"  # the last character
                at += 1
            elif (edge := _EDGE.search(piece, at)) is None:
                return
            else:
                at = edge.end()
                if edge[0] == '"':
                    self._is_in_string = True
                else:
                    self._depth += 1 if edge[0] in "{[" else -1
                    self._has_ended = self._depth <= 0
        if piece[at:].strip():
            self._is_whole = False


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True
