"""What the flight recorders of all processes have, living and dead ones, as any process can read it."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple, Protocol
from zlib import crc32

from pipeline.gateway.recorder import halves
from pipeline.gateway.rings import Entry, Place, RingReader

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""So many bytes of lines are read at a time, and one line at least: traced ones may be large."""
_MOST_LOOKED_AT: Final = 4096
"""Entries of one ring that `Latest` looks at in one call: it takes 4 ms."""
_CURSOR: Final = re.compile(r"[0-9.]{1,4096}(?:_[0-9.]{1,4096}){0,1024}")


class RingOwner(Protocol):
    """One process's part of the shared file, as far as it matters here: `pipeline.segments.SegmentView`."""

    @property
    def index(self) -> int: ...
    @property
    def ring(self) -> memoryview: ...


class Lines(NamedTuple):
    """Lines in the order of time.

    Attributes:
        lines: without a newline.
        cursor: what to go on from.
        lost: how many were overwritten before they could be read.
        is_cut: whether there are more.
    """

    lines: list[bytes]
    cursor: str
    lost: int
    is_cut: bool


def lines_after(segments: Iterable[RingOwner], cursor: str, limit: int) -> Lines:
    """Return up to ``limit`` lines after a cursor; an empty one, or one of another service, stands for all there is.

    Raises:
        ValueError: if the cursor is not one.
    """
    places = _parse(cursor)
    found = [_after(key, ring, places.get(key, Place()), limit) for key, ring in rings_of(segments)]
    lines: list[bytes] = []
    size = lost = 0
    is_cut = False
    for line in heapq.merge(*found, key=lambda line: line.at_s):
        size += len(line.text)
        if lines and (size > MAX_ANSWER_BYTES or len(lines) >= limit):
            is_cut = True
            break
        key, place = line.key, line.place
        if (last := places.get(key)) is not None and last.number:
            lost += max(0, place.number - last.number - 1)
        places[key] = place
        lines.append(line.text)
    return Lines(lines, _write(places), lost, is_cut)


def cursor_now(segments: Iterable[RingOwner]) -> str:
    """Return the cursor of what comes from now on."""
    return _write({key: ring.newest for key, ring in rings_of(segments)})


def line_of(segments: Iterable[RingOwner], request_id: str) -> bytes | None:
    """Return the line of the newest request with this id; None if it is not there, or not any more."""
    id_sum = crc32(request_id.encode(errors="replace"))
    best: tuple[float, bytes] | None = None
    for _, ring in rings_of(segments):
        for entry in ring.newest_first():
            if entry.id_sum == id_sum and (text := ring.text(entry)) is not None and _is_of(text, request_id):
                if best is None or entry.at_s > best[0]:
                    best = entry.at_s, text
                break
    return None if best is None else best[1]


def newest_lines(segments: Iterable[RingOwner], *, marks: int, without: int, limit: int) -> list[bytes]:
    """Return the newest lines with one of ``marks`` (0: any) and none of ``without``, the newest first.

    They have at most `MAX_ANSWER_BYTES` together, but for a single one.
    """

    def chosen(ring: RingReader) -> Iterator[tuple[float, RingReader, Entry]]:
        for entry in ring.newest_first():
            if (not marks or entry.marks & marks) and not entry.marks & without:
                yield -entry.at_s, ring, entry

    lines: list[bytes] = []
    size = 0
    for _, ring, entry in heapq.merge(*[chosen(ring) for _, ring in rings_of(segments)], key=lambda one: one[0]):
        size += entry.length
        if lines and (len(lines) >= limit or size > MAX_ANSWER_BYTES):
            break
        if (text := ring.text(entry)) is not None:
            lines.append(text)
    return lines


class Latest:
    """The newest lines of each kind, followed from one call to the next, each of which looks only at what is new.

    Args:
        kinds: the mark of each kind.
        count: how many lines to keep of each.
    """

    def __init__(self, kinds: Mapping[str, int], count: int) -> None:
        self._kinds = kinds
        self._count = count
        self._places: dict[tuple[int, int], Place] = {}
        self._lines: dict[str, list[tuple[float, bytes]]] = {kind: [] for kind in kinds}

    def look(self, segments: Iterable[RingOwner]) -> dict[str, list[bytes]]:
        """Return the lines of each kind, the newest first."""
        for key, ring in rings_of(segments):
            known, newest = self._places.get(key, Place()), ring.newest
            if newest != known:
                self._places[key] = newest
                self._look_at(ring, known)
        return {kind: [text for _, text in lines] for kind, lines in self._lines.items()}

    def _look_at(self, ring: RingReader, known: Place) -> None:
        fresh: dict[str, list[tuple[float, bytes]]] = {kind: [] for kind in self._kinds}
        for looked, entry in enumerate(ring.newest_first()):
            if entry.place.number <= known.number or looked >= _MOST_LOOKED_AT:
                break
            for kind, mark in self._kinds.items():
                if entry.marks & mark and len(fresh[kind]) < self._count and (text := ring.text(entry)) is not None:
                    fresh[kind].append((entry.at_s, text))
        for kind, lines in fresh.items():
            if lines:
                merged = sorted([*lines, *self._lines[kind]], key=lambda one: one[0], reverse=True)
                self._lines[kind] = merged[: self._count]


class _PlacedLine(NamedTuple):
    at_s: float
    key: tuple[int, int]
    place: Place
    text: bytes


def _after(key: tuple[int, int], ring: RingReader, place: Place, limit: int) -> Iterator[_PlacedLine]:
    for entry, text in islice(ring.after(place), limit):
        yield _PlacedLine(entry.at_s, key, entry.place, text)


def rings_of(segments: Iterable[RingOwner]) -> Iterator[tuple[tuple[int, int], RingReader]]:
    """Yield the rings of all processes, each with what tells it from the others."""
    for segment in segments:
        for number, memory in enumerate(halves(segment.ring)):
            if memory:
                yield (segment.index, number), RingReader(memory)


def _is_of(text: bytes, request_id: str) -> bool:
    return b'"event":"request","request_id":"%b"' % request_id.encode(errors="replace") in text[:400]


def _parse(cursor: str) -> dict[tuple[int, int], Place]:
    if not cursor:
        return {}
    if _CURSOR.fullmatch(cursor) is None:
        raise ValueError("not a cursor")
    places: dict[tuple[int, int], Place] = {}
    for part in cursor.split("_"):
        segment, number, position, count = map(int, part.split("."))
        places[segment, number] = Place(position, count)
    return places


def _write(places: dict[tuple[int, int], Place]) -> str:
    return "_".join(f"{segment}.{ring}.{place.position}.{place.number}" for (segment, ring), place in places.items())
