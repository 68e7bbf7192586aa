"""Take raw text out of a one-string function's arguments while they stream: ``{"input": "..."}``.

A tool that takes raw text is offered to upstreams without such tools as a function with one string property named
``input``. What the model then streams is JSON; the client wants the text in it, as it arrives.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from stages.wire.foreign_json import Json

FIELD = "input"
"""The name of the one property."""

_HEAD = f'{{"{FIELD}":"'
_GAPS = frozenset({0, 1, len(FIELD) + 3, len(FIELD) + 4})
"""Where in the head JSON allows whitespace: before the brace, the name, the colon and the value."""

_WHITESPACE = " \t\n\r"
_SPECIAL = re.compile(r'["\\]')
_ESCAPE = re.compile(
    r"\\(?:"
    r"u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u(?P<unit>[0-9a-fA-F]{4})"
    r'|(?P<letter>["\\/bfnrt]))'
)
_UNFINISHED_ESCAPE = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?\Z"
)
_LETTERS = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

_OBJECT = msgspec.json.Decoder(dict[str, Json])

_State = Literal["head", "string", "closing", "over", "other", "raw"]


class StringFieldUnwrapper:
    r"""Return the text of ``{"input": "..."}`` as it arrives, however it was cut.

    A model's mistakes lose no text: an unescaped quote, a raw line end or an escape unknown to JSON is returned as
    received, and so are arguments that are not an object. Text that was returned is never taken back.
    Of an object that starts with another field, the ``input`` is returned at the end, or else its only field if that is
    a string (``content``, ``patch`` ...), or else all of it as received. Half a surrogate pair becomes U+FFFD.

    Holds an unfinished escape; of an object that starts with another field, all of it.
    """

    __slots__ = ("_held", "_place", "_state")

    def __init__(self) -> None:
        self._state: _State = "head"
        self._held: list[str] = []
        self._place = 0  # in the head

    def feed(self, text: str) -> str:
        """Take more of the arguments and return the text that is certain now; it may be empty."""
        if self._state == "head":
            text = self._after_head(text)
        if self._state in ("string", "closing"):
            return self._unescape(text)
        if self._state == "raw":
            return text
        if self._state == "other":
            self._held.append(text)
        return ""

    def flush(self) -> str:
        """Take the end of the arguments and return the rest of the text."""
        state, self._state = self._state, "over"
        rest = "".join(self._held)
        self._held = []
        match state:
            case "head" | "other":
                return _text_of(rest)
            case "string":
                return _ESCAPE.sub(_unescaped, rest)  # an unfinished escape, as far as it came
            case _:
                return ""

    def _after_head(self, text: str) -> str:
        """Follow the head through ``text``; return the rest of it, for the next state."""
        for position, character in enumerate(text):
            if character == _HEAD[self._place]:
                self._place += 1
                if self._place == len(_HEAD):
                    self._state = "string"
                    self._held = []
                    return text[position + 1 :]
            elif character not in _WHITESPACE or self._place not in _GAPS:
                break
        else:
            self._held.append(text)
            return ""
        if self._place:
            self._state = "other"
            return text
        self._state = "raw"
        text = "".join((*self._held, text))
        self._held = []
        return text

    def _unescape(self, text: str) -> str:
        if self._state == "closing":
            return self._after_quote(text)
        if self._held:
            text = self._held.pop() + text
        parts: list[str] = []
        start = 0
        while special := _SPECIAL.search(text, start):
            at = special.start()
            parts.append(text[start:at])
            if text[at] == '"':
                self._state = "closing"
                parts.append(self._after_quote(text[at + 1 :]))
                return "".join(parts)
            if _UNFINISHED_ESCAPE.match(text, at):
                self._held.append(text[at:])
                return "".join(parts)
            escape = _ESCAPE.match(text, at)
            if escape is None:  # unknown to JSON
                parts.append("\\")
                start = at + 1
            else:
                parts.append(_unescaped(escape))
                start = escape.end()
        parts.append(text[start:])
        return "".join(parts)

    def _after_quote(self, text: str) -> str:
        """Decide whether a quote ended the string, or is a part of it that the model did not escape."""
        following = text.lstrip(_WHITESPACE)
        if not following:
            self._held.append(text)
            return ""
        before = "".join((*self._held, text[: len(text) - len(following)]))
        self._held = []
        if following[0] in "},":
            self._state = "over"
            return ""
        self._state = "string"
        return f'"{before}{self._unescape(following)}'


def _unescaped(escape: re.Match[str]) -> str:
    letter, unit, high, low = escape.group("letter", "unit", "high", "low")
    if letter is not None:
        return _LETTERS[letter]
    if unit is not None:
        code = int(unit, 16)
        return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)
    return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))


def _text_of(arguments: str) -> str:
    """Return the text of whole arguments, by the rules of `StringFieldUnwrapper`."""
    try:
        fields = _OBJECT.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return arguments
    if isinstance(value := fields.get(FIELD), str):
        return value
    if len(fields) == 1 and isinstance(value := next(iter(fields.values())), str):
        return value
    return arguments if fields else ""
