"""Characters that an upstream cut in two: the halves of a surrogate pair in two deltas, as two escapes.

A server in JavaScript that cuts its text by UTF-16 units sends an emoji as ``"...\\ud83d"`` and ``"\\ude00..."``. Neither
is a character, and no JSON parser returns either. So the halves are joined in the JSON itself: the first is taken out
of its delta and put in front of the next one of the same text. Then everything after it, the text on its way to the
client, the copy for the next turn and the arguments of calls, is what the model wrote.

Only events that hold such an escape, and those that follow one, come here.
"""

from __future__ import annotations

import re
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

_FIRST_HALF: Final = re.compile(rb"u[dD][89abAB]")
_SECOND_HALF: Final = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")

_STRING: Final = re.compile(rb'"(?P<body>[^"\\]*(?:\\.[^"\\]*)*)"(?P<name>\s*:(?:\s*(?P<number>-?\d+))?)?', re.DOTALL)
"""A string of JSON: a value, or a name with what makes it one and its value if that is a number."""

_DELTAS: Final = frozenset(
    (b"content", b"text", b"reasoning_content", b"reasoning", b"thinking", b"refusal", b"arguments", b"partial_json")
    + (b"delta", b"input", b"summary")
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
    return (b"\\ud" in data or b"\\uD" in data) and _LONE.search(data) is not None


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
        out: list[bytes] = []
        kinds = {(place.kind, place.field) for place, _, body in strings if place is not None and body}
        joined = {place for place, _, body in strings if _SECOND_HALF.match(body)}
        for place in self._waiting.keys() - joined:
            if is_end or (kinds and (place.kind, place.field) not in kinds) or len(self._waiting) > MAX_WAITING:
                out.append(self._waiting.pop(place).alone)
        bodies: list[bytes] = []
        held: list[tuple[_Place, int, bytes]] = []
        for number, (place, _, body) in enumerate(strings):
            half = b""
            if place is not None and body:
                if (waiting := self._waiting.pop(place, None)) is not None:
                    body = (waiting.half if _SECOND_HALF.match(body) else _REPLACEMENT) + body
                if not is_end:
                    body, half = _without_last_half(body)
            bodies.append(self._whole(body))
            if place is not None and half:
                held.append((place, number, half))
        out.append(_with_bodies(data, strings, bodies))
        for place, number, half in held:
            alone = [b"" if of is not None else body for (of, _, _), body in zip(strings, bodies, strict=True)]
            alone[number] = _REPLACEMENT
            self._waiting[place] = _Waiting(half, _with_bodies(data, strings, alone))
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
    strings: list[tuple[_Place | None, tuple[int, int], bytes]] = []
    indices: list[bytes] = []
    field = b""
    for string in _STRING.finditer(data):
        body = string["body"]
        if string["name"]:
            field = body
            if field in _INDICES and string["number"]:
                indices.append(string["number"])
        else:
            # A chunk of Chat Completions may have deltas of several calls, each after its own index.
            place = _Place(kind, field, tuple(indices[-1:])) if field in _DELTAS else None
            strings.append((place, string.span("body"), body))
    if len(strings) and kind:  # one delta, but its indices may be on either side of it
        strings = [(place and place._replace(indices=tuple(indices)), where, body) for place, where, body in strings]
    return strings


def _without_last_half(body: bytes) -> tuple[bytes, bytes]:
    """Return a string without the first half of a pair at its end, and that half."""
    last = None
    for last in _ESCAPE.finditer(body):
        pass
    if last is None or not last[1] or last.end() < len(body) or not _FIRST_HALF.match(last[1]):
        return body, b""
    return body[: last.start()], body[last.start() :]


def _with_bodies(
    data: bytes, strings: list[tuple[_Place | None, tuple[int, int], bytes]], bodies: list[bytes]
) -> bytes:
    out: list[bytes] = []
    start = 0
    for (_, (at, end), _), body in zip(strings, bodies, strict=True):
        out += (data[start:at], body)
        start = end
    return b"".join((*out, data[start:]))
