"""Take raw text out of a one-string function's arguments while they stream: ``{"input": "..."}``.

A tool that takes raw text is offered to upstreams that know no such tools as a function with one string property
named ``input``. What such a model streams back is JSON; the client wants the text in it, as it arrives.
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
    r"""Give the text of ``{"input": "..."}`` as it arrives, however it was cut.

    What a model gets wrong loses nothing: an unescaped quote, a raw line end or an escape that JSON does not know is
    given as it was received, and so are arguments that are no object. Text that was given is never taken back.
    Of an object that starts with another field, the ``input`` is given at the end, or else its only field if that is a
    string (``content``, ``patch`` ...), or else all of it as received. Half a surrogate pair gives U+FFFD.

    Holds an unfinished escape; of an object that starts with another field, all of it.
    """

    __slots__ = ("_held", "_place", "_state")

    def __init__(self) -> None:
        self._state: _State = "head"
        self._held: list[str] = []
        self._place = 0  # in the head

    def feed(self, text: str) -> str:
        """Take more of the arguments, give the text that is certain now; it may be empty."""
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
        """Take the end of the arguments, give the rest of the text."""
        state, self._state = self._state, "over"
        rest = "".join(self._held)
        self._held = []
        match state:
            case "head" | "other":
                return _text_of(rest)
            case "string":
                return _ESCAPE.sub(_unescaped, rest)  # what is there of an escape
            case _:
                return ""

    def _after_head(self, text: str) -> str:
        """Follow the head through ``text``; give what is left for the state that comes after it."""
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
        given: list[str] = []
        start = 0
        while special := _SPECIAL.search(text, start):
            at = special.start()
            given.append(text[start:at])
            if text[at] == '"':
                self._state = "closing"
                given.append(self._after_quote(text[at + 1 :]))
                return "".join(given)
            if _UNFINISHED_ESCAPE.match(text, at):
                self._held.append(text[at:])
                return "".join(given)
            escape = _ESCAPE.match(text, at)
            if escape is None:  # not one that JSON knows
                given.append("\\")
                start = at + 1
            else:
                given.append(_unescaped(escape))
                start = escape.end()
        given.append(text[start:])
        return "".join(given)

    def _after_quote(self, text: str) -> str:
        """See whether a quote ended the string, or is a part of it that was not escaped."""
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
    """Give the text of arguments that are here as a whole, the way that `StringFieldUnwrapper` says."""
    try:
        fields = _OBJECT.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return arguments
    if isinstance(value := fields.get(FIELD), str):
        return value
    if len(fields) == 1 and isinstance(value := next(iter(fields.values())), str):
        return value
    return arguments if fields else ""
