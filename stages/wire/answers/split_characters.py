"""Characters that an upstream cut in two: the halves of a surrogate pair in two deltas, as two escapes.

A server that cuts its text by UTF-16 units sends an emoji as ``"...\\ud83d"`` and ``"\\ude00..."``. Neither
half is a character. So they are joined in the JSON itself: the first is taken out of its delta and put in front of the
next one of the same text. Then the text on its way to the client, the copy for the next turn and the arguments of calls
are what the model wrote.

Only events that hold such an escape, and those that follow one, come here.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final, NamedTuple

MAX_WAITING: Final = 64
"""How many texts may wait for the second half of a character; more than any answer has calls at a time."""

_REPLACEMENT: Final = rb"\ufffd"

_LONE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""What looks like half a pair; `_ESCAPE` decides."""

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""One escape sequence; group 1 is half a pair."""

_LAST_HALF: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
_SECOND_HALF: Final = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")

_TOKEN: Final = re.compile(
    rb'"(?P<body>[^"\\]*(?:\\.[^"\\]*)*)"(?P<name>\s*:(?:\s*(?P<number>-?\d+))?)?|(?P<brace>[{}])', re.DOTALL
)
"""A string of JSON, which is a value, or a name with its value if that is a number; or the edge of an object."""

_DELTAS: Final = frozenset(
    b"arguments content delta input partial_json reasoning reasoning_content refusal summary text thinking".split()
)
"""The fields in which upstreams of all APIs send pieces of text."""
_INDICES: Final = frozenset((b"index", b"output_index", b"content_index", b"summary_index"))

_DELTA_TYPE: Final = re.compile(rb'"type"\s*:\s*"(response\.[\w.]+\.delta)"')

_END: Final = re.compile(
    rb'^\s*\[DONE\]|"finish_reason"\s*:\s*"(?!"|null")|"error"\s*:\s*["{]|'
    rb'"type"\s*:\s*"(?:response\.[\w.]*(?:done|completed|incomplete|failed|cancelled|error)"|'
    rb'message_(?:delta|stop)"|content_block_stop"|error")'
)
"""An event after which nothing is added to a text."""


def may_be_split(data: bytes) -> bool:
    """Return whether an event holds half a character, or looks as if it did."""
    # One byte is found ten times as fast as three, and most events have none.
    return b"\\" in data and (b"\\ud" in data or b"\\uD" in data) and _LONE.search(data) is not None


class _Place(NamedTuple):
    """Which text a string is a piece of."""

    kind: bytes
    field: bytes
    indices: tuple[bytes, ...]


class _Waiting(NamedTuple):
    half: bytes
    alone: bytes
    """The event that held it, with U+FFFD as its only text, in case the other half never comes."""


class SplitCharacters:
    """Join the halves of characters in the events of one stream.

    Holds half a character of each text of which one came last, and the event around it, `MAX_WAITING` at most.

    Attributes:
        is_waiting: whether a half is held: then every event must pass through `mend`.
    """

    def __init__(self, mended: set[str]) -> None:
        self.is_waiting = False
        self._mended = mended
        self._waiting: dict[_Place, _Waiting] = {}

    def mend(self, data: bytes) -> list[bytes]:
        """Return the events to decode instead of ``data``, without halves: it, and before it halves that stay alone."""
        is_end = _END.search(data) is not None
        strings = _strings_of(data)
        kinds = {(place.kind, place.field) for place, _, body in strings if place is not None and body}
        joined = {place for place, _, body in strings if _SECOND_HALF.match(body)}
        is_full = len(self._waiting) >= MAX_WAITING
        alone = [
            place
            for place in self._waiting
            if place not in joined and (is_end or is_full or (kinds and (place.kind, place.field) not in kinds))
        ]
        out = [self._waiting.pop(place).alone for place in alone]
        bodies: list[bytes] = []
        held: list[tuple[_Place, int, bytes]] = []
        for number, (place, _, body) in enumerate(strings):
            half = b""
            if place is not None and body:
                if (waiting := self._waiting.pop(place, None)) is not None:
                    body = (waiting.half if _SECOND_HALF.match(body) else _REPLACEMENT) + body
                if not is_end:
                    body, half = _without_last_half(body)
                if half and len(self._waiting) + len(held) >= MAX_WAITING:
                    body, half = body + _REPLACEMENT, b""
                    self._mended.add("split_emoji")
            bodies.append(self._whole(body))
            if place is not None and half:
                held.append((place, number, half))
        out.append(_with_bodies(data, strings, bodies))
        for place, number, half in held:
            others = [b"" if of is not None else body for (of, _, _), body in zip(strings, bodies, strict=True)]
            others[number] = _REPLACEMENT
            self._waiting[place] = _Waiting(half, _with_bodies(data, strings, others))
            self._mended.add("split_emoji")
        self.is_waiting = bool(self._waiting)
        return out

    def flush(self) -> list[bytes]:
        """Take the end of the stream, and return events for the halves that stayed alone."""
        alone = [waiting.alone for waiting in self._waiting.values()]
        self._waiting.clear()
        self.is_waiting = False
        return alone

    def _whole(self, body: bytes) -> bytes:
        def without_lone(escape: re.Match[bytes]) -> bytes:
            if not escape[1]:
                return escape[0]
            self._mended.add("split_emoji")
            return _REPLACEMENT

        return _ESCAPE.sub(without_lone, body) if b"\\u" in body else body


def _strings_of(data: bytes) -> list[tuple[_Place | None, tuple[int, int], bytes]]:
    """List the strings that are values: which text each is a piece of, if any, where it is, and what it says."""
    kind = found[1] if (found := _DELTA_TYPE.search(data)) else b""
    strings: list[tuple[bytes, tuple[list[bytes], ...], re.Match[bytes]]] = []
    objects: list[list[bytes]] = [[]]  # those around a token, each with its indices, which may come after the text
    field = b""
    for token in _TOKEN.finditer(data):
        if brace := token["brace"]:
            if brace == b"{":
                objects.append([])
            elif len(objects) > 1:
                objects.pop()
        elif token["name"]:
            field = token["body"]
            if field in _INDICES and token["number"]:
                objects[-1].append(token["number"])
        else:
            strings.append((field, tuple(objects) if field in _DELTAS else (), token))
    return [
        (_Place(kind, field, tuple(chain(*around))) if around else None, token.span("body"), token["body"])
        for field, around, token in strings
    ]


def _without_last_half(body: bytes) -> tuple[bytes, bytes]:
    """Return a string without the first half of a pair at its end, and that half."""
    if not _LAST_HALF.match(body, len(body) - 6):
        return body, b""
    # A backslash before it, or the first half of a pair, may be an escape of its own.
    *_, last = _ESCAPE.finditer(body)
    return (body[: last.start()], body[last.start() :]) if last[1] else (body, b"")


def _with_bodies(
    data: bytes, strings: list[tuple[_Place | None, tuple[int, int], bytes]], bodies: list[bytes]
) -> bytes:
    out: list[bytes] = []
    start = 0
    for (_, (at, end), _), body in zip(strings, bodies, strict=True):
        out += (data[start:at], body)
        start = end
    return b"".join((*out, data[start:]))
