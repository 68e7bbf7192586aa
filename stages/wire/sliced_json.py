"""Read and write large JSON in small steps, with a pause after each.

msgspec reads and writes a whole document in one call, during which no other thread runs. So a document is cut between
the elements of its arrays and objects. One regular expression finds the last comma of the present container within a
window, and msgspec reads the elements before it: a thousand small messages at a time. Only a value that is larger than
the window is entered. Nothing is checked here that msgspec checks in the pieces.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stages.wire.foreign_json import Json, encode, is_list, is_object, whole_characters
from stages.wire.slices import Pause

FIRST_WINDOW_BYTES: Final = 8 * 1024
WINDOW_BYTES: Final = 64 * 1024
"""The most that is read at once, but for a single string: of the smallest elements, that is 2 ms. After an element that
did not fit, the first is tried again: what is scanned in vain costs 4 us for each KiB."""

MAX_STRING_BYTES: Final = 4 * 1024 * 1024
"""A longer string is read and written in parts: one with many escapes takes 4 ms for each MiB."""

GROUP_ELEMENTS: Final = 64
GROUP_KEYS: Final = 1024
GROUP_BYTES: Final = 64 * 1024
MAX_ENTERED_LEVELS: Final = 5
"""Elements of a list are written together, more of them as long as they are small. A large one is entered: the items,
their content, its parts, what is in those."""

_FOLLOWED_LEVELS: Final = 4

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_PLAIN: Final = rb"[^\"\[\]{}]++"


def _nested(levels: int) -> bytes:
    """Return a pattern for a container with so many levels in it; whether its brackets match is not checked here."""
    inner = rb"|".join([_PLAIN, _STRING, *([_nested(levels - 1)] if levels else [])])
    return rb"[\[{](?:" + inner + rb")*+[\]}]"


_ELEMENT: Final = rb"(?:[^\"\[\]{},]++|" + _STRING + rb"|" + _nested(_FOLLOWED_LEVELS - 1) + rb")*+"
_ELEMENTS: Final = re.compile(rb"((?:" + _ELEMENT + rb",)*+)" + _ELEMENT, re.DOTALL)
"""Elements of a container, which in an object are keys with values; group 1 is what ends in a comma."""

_BRACKET: Final = re.compile(_STRING + rb"?+|[\[\]{}]", re.DOTALL)
"""A bracket, or a string, which may be unfinished: else each quote in it would be tried as the beginning of another."""
_IN_STRING: Final = re.compile(
    rb"(?:[^\"\\]++|\\[^u]|\\u(?:[dD][89abAB]..(?:\\u....|(?=[^\\]|\\[^u]))|(?![dD][89abAB])....))*+", re.DOTALL
)
"""A part of a string that does not end within an escape, or between those of a surrogate pair."""
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_SCALAR: Final = re.compile(rb"[^\"\[\]{}, \t\r\n]*+")
_OPENING: Final = (b"{", b"[")
_CLOSING: Final = (b"}", b"]")
_BACKSLASH: Final = ord("\\")
_BYTE: Final = re.compile(r"\(byte (\d+)\)")


class TooDeep(ValueError):
    """The document is nested more deeply than allowed."""


class NotUtf8(ValueError):
    """The document is not UTF-8. Python's own error holds all of it."""


def decode_sliced(body: bytes | bytearray, *, max_levels: int, mended: set[str], pause: Pause) -> Json:
    """Read a document as ``msgspec.json.decode`` does; halves of surrogate pairs are replaced.

    Args:
        body: the document.
        max_levels: how deeply containers may be nested, besides the few levels that are read together.
        mended: receives ``lone_surrogate`` if there was one.
        pause: called after each step.

    Raises:
        TooDeep: if the containers are nested more deeply.
        NotUtf8: if it is not UTF-8.
        msgspec.DecodeError: if it is not JSON.
    """
    return _DocumentReader(body, max_levels, mended, pause).read()


class _DocumentReader:
    """Reads one document; see `decode_sliced`."""

    def __init__(self, body: bytes | bytearray, max_levels: int, mended: set[str], pause: Pause) -> None:
        self._body = body
        self._max_levels = max_levels
        self._mended = mended
        self._pause = pause
        self._at = 0

    def read(self) -> Json:
        opening = self._next()
        value = self._container(opening) if opening in _OPENING else self._simple(opening)
        if self._next():
            raise self._malformed("trailing characters")
        return value

    def _container(self, opening: bytes | bytearray) -> Json:
        """Read the container that begins here, with all that is in it."""
        body = self._body
        root: Json = {} if opening == b"{" else []
        within = root
        parents: list[Json] = []
        must_follow = False  # another element, because a comma came
        window_bytes = FIRST_WINDOW_BYTES
        self._at += 1
        while True:
            self._pause()
            start, window_end = self._at, min(self._at + window_bytes, len(body))
            found = _ELEMENTS.match(body, start, window_end)
            assert found is not None  # it matches no elements, too
            end, cut = found.end(), found.end(1)
            if end < window_end and (closing := body[end : end + 1]) in _CLOSING:
                self._take(within, end, is_needed=must_follow)
                if (closing == b"]") is not is_list(within):
                    raise self._malformed("expected ',' or the end of what was begun")
                self._at += 1
                if not parents:
                    return root
                within = parents.pop()
                must_follow = self._separator()
            elif cut > start:
                self._take(within, cut - 1, is_needed=True)
                self._at, must_follow = cut, True
                window_bytes = min(window_bytes * 2, WINDOW_BYTES)
            elif end < window_end and (whole := self._deep_element(window_end, self._max_levels - len(parents) - 1)):
                self._take(within, whole, is_needed=True)
                must_follow = self._separator()
            else:
                window_bytes = FIRST_WINDOW_BYTES
                key = self._key() if is_object(within) else ""
                opening = self._next()
                if opening not in _OPENING:
                    _put(within, key, self._simple(opening))
                    must_follow = self._separator()
                    continue
                parents.append(within)
                if len(parents) == self._max_levels:
                    raise TooDeep
                opened: Json = {} if opening == b"{" else []
                _put(within, key, opened)
                within, must_follow = opened, False
                self._at += 1

    def _deep_element(self, window_end: int, max_levels: int) -> int:
        """Return the end of the element that begins here, by counting its brackets; 0 if it is not in the window."""
        levels = 0
        for found in _BRACKET.finditer(self._body, self._at, window_end):
            match found[0]:
                case b"[" | b"{":
                    levels += 1
                    if levels > max_levels:
                        raise TooDeep
                case b"]" | b"}":
                    levels -= 1
                    if levels <= 0:
                        return found.end() if levels == 0 else 0
                case _:
                    pass
        return 0

    def _key(self) -> str:
        if (opening := self._next()) != b'"':
            raise self._malformed('expected a key in "')
        key = self._simple(opening)
        if self._next() != b":":
            raise self._malformed("expected ':'")
        self._at += 1
        return str(key)

    def _simple(self, opening: bytes | bytearray) -> Json:
        """Read a string, or what is neither that nor a container."""
        body, start = self._body, self._at
        if opening != b'"':
            found = _SCALAR.match(body, start)
            assert found is not None  # it matches nothing, too
            self._at = found.end()
            return self._decoded(start, self._at)
        end = body.find(b'"', start + 1)
        if end > start and body[end - 1] != _BACKSLASH and end - start < MAX_STRING_BYTES:  # such as an image in base64
            self._at = end + 1
            return self._decoded(start, self._at)
        return self._long_string()

    def _long_string(self) -> str:
        """Read a string in parts."""
        body, size = self._body, len(self._body)
        parts: list[str] = []
        at = self._at + 1
        while True:
            found = _IN_STRING.match(body, at, min(at + WINDOW_BYTES, size))
            assert found is not None  # it matches nothing, too
            end = found.end()
            is_last = body[end : end + 1] == b'"'
            while not is_last and end > at and body[end : end + 1] and body[end] & 0xC0 == 0x80:
                end -= 1  # within a character
            if end == at and not is_last:
                self._at = size
                raise self._malformed("")
            parts.append(self._decoded(at, end, b'"', b'"'))
            at = end
            if is_last:
                self._at = end + 1
                return "".join(parts)
            self._pause()

    def _separator(self) -> bool:
        """Pass what follows an element that was read alone; return whether another one must follow."""
        following = self._next()
        if following == b",":
            self._at += 1
            return True
        if following in _CLOSING:
            return False
        raise self._malformed("expected ',' or the end of what was begun")

    def _take(self, within: list[Json] | dict[str, Json], end: int, *, is_needed: bool) -> None:
        """Read the elements of a container until ``end``."""
        self._next()
        if self._at < end:
            brackets = (b"[", b"]") if is_list(within) else (b"{", b"}")
            elements = self._decoded(self._at, end, *brackets)
            if isinstance(within, list):
                within += elements
            else:
                within.update(elements)
        elif is_needed:
            raise self._malformed("expected a value")
        self._at = end

    def _decoded(self, start: int, end: int, before: bytes = b"", after: bytes = b"") -> Json:
        with memoryview(self._body) as whole, whole[start:end] as part:
            data = b"".join((before, part, after)) if before else part
            read = _read(data)
            if not isinstance(read, ValueError):
                return read
            repaired = whole_characters(bytes(data))
        if repaired is not None and not isinstance(again := _read(repaired), ValueError):
            self._mended.add("lone_surrogate")
            return again
        if isinstance(read, NotUtf8):
            raise read
        reason, place, number = str(read).partition("(byte ")
        raise msgspec.DecodeError(f"{reason}(byte {int(number[:-1]) + start - len(before)})" if place else reason)

    def _next(self) -> bytes | bytearray:
        """Pass white space, and return the byte that follows; nothing at the end."""
        found = _SPACE.match(self._body, self._at)
        assert found is not None  # it matches nothing, too
        self._at = found.end()
        return self._body[self._at : self._at + 1]

    def _malformed(self, what: str) -> msgspec.DecodeError:
        if self._at >= len(self._body):
            return msgspec.DecodeError("Input data was truncated")
        return msgspec.DecodeError(f"JSON is malformed: {what} (byte {self._at})")


def _put(within: Json, key: str, value: Json) -> None:
    if is_list(within):
        within.append(value)
    else:
        within[key] = value


def _read(data: bytes | memoryview) -> Json | ValueError:
    """Read, or return what is wrong."""
    try:
        return msgspec.json.decode(data)
    except UnicodeDecodeError:
        return NotUtf8()
    except msgspec.DecodeError as error:
        return error.with_traceback(None)


def encode_sliced(value: Json, pause: Pause) -> bytearray:
    """Write a value as ``msgspec.json.encode`` does."""
    out = bytearray()
    _write(value, out, pause, MAX_ENTERED_LEVELS)
    return out


def _write(value: Json, out: bytearray, pause: Pause, levels: int) -> None:
    if is_list(value) and value and levels:
        _write_list(value, out, pause, levels - 1)
    elif is_object(value) and value and levels:
        _write_object(value, out, pause, levels - 1)
    elif isinstance(value, str) and len(value) > MAX_STRING_BYTES:
        out += b'"'
        for at in range(0, len(value), WINDOW_BYTES):
            out += encode(value[at : at + WINDOW_BYTES])[1:-1]
            pause()
        out += b'"'
    else:
        out += encode(value)
        pause()


def _write_list(elements: list[Json], out: bytearray, pause: Pause, levels: int) -> None:
    out += b"["
    at, count = 0, 1
    while at < len(elements):
        begun = len(out)
        if count == 1:
            _write(elements[at], out, pause, levels)
            out += b","
        else:
            out += encode(elements[at : at + count])[1:-1]
            out += b","
            pause()
        at += count
        count = min(count * 2, GROUP_ELEMENTS) if len(out) - begun < GROUP_BYTES else 1
    out[-1:] = b"]"


def _write_object(fields: dict[str, Json], out: bytearray, pause: Pause, levels: int) -> None:
    out += b"{"
    if len(fields) > GROUP_KEYS:
        keys = list(fields)
        for at in range(0, len(keys), GROUP_KEYS):
            out += encode({key: fields[key] for key in keys[at : at + GROUP_KEYS]})[1:-1]
            out += b","
            pause()
    else:
        for key, value in fields.items():
            out += encode(key)
            out += b":"
            _write(value, out, pause, levels)
            out += b","
    out[-1:] = b"}"
