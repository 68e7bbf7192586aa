"""A ring of entries in memory that processes share: one writes, the others read meanwhile, without any lock.

Positions count all bytes that were ever written, so that they only grow; an entry is at its position modulo the size
of the ring, in one piece, and what is left at the end of the ring is a gap. The writer first moves the tail past what
it is about to overwrite, then writes the entry, then says that it is the newest. So a reader that has copied an entry
and finds the tail still before it has a whole one. The checksum is there for what nobody has thought of, and says
which entry it belongs to. A writer that is killed leaves at worst an entry that nobody knows of, and its successor
goes on after the newest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

_NEWEST, _TAIL, _COUNT, _DROPPED = range(4)
_WORDS_BYTES: Final = 64
_HEAD: Final = Struct("<IIIIQdII")
"""Of an entry: its length, how far back the one before it began, checksum, marks, number, time, checksum of its id."""
_LENGTH: Final = Struct("<I")
_LARGEST_SHARE: Final = 4
"""No entry takes more than one part in so many of its ring."""


class Place(NamedTuple):
    """Up to where a ring was read: the position and the number of the last entry; zeros if nothing was read."""

    position: int = 0
    number: int = 0


class Entry(NamedTuple):
    """What a ring knows of an entry without its text.

    Attributes:
        place: where it is; entries are numbered from 1.
        length: of its text, in bytes.
        before: how many bytes before it the one before begins; 0 if there is none.
        checksum: of its text.
        marks: what its writer says of it.
        at_s: when it happened, in seconds since the epoch.
        id_sum: the checksum of the id that it can be found by.
    """

    place: Place
    length: int
    before: int
    checksum: int
    marks: int
    at_s: float
    id_sum: int


class _Ring:
    """The two views of a ring's memory: its words, and its entries."""

    def __init__(self, memory: memoryview) -> None:
        self._size = max(0, len(memory) - _WORDS_BYTES) // 8 * 8
        self._words = memory[:_WORDS_BYTES].cast("Q") if self._size else memoryview(bytearray(_WORDS_BYTES)).cast("Q")
        self._data = memory[_WORDS_BYTES : _WORDS_BYTES + self._size] if self._size else memory[:0]

    @property
    def dropped(self) -> int:
        """How many entries were too large."""
        return self._words[_DROPPED]

    @property
    def used_bytes(self) -> int:
        """How much of it has entries that can still be read."""
        newest, tail = self._words[_NEWEST], self._words[_TAIL]
        return 0 if not newest else self._next(newest) - tail

    def _next(self, position: int) -> int:
        """Return the position after the entry, or the gap, at ``position``."""
        (length,) = _LENGTH.unpack_from(self._data, position % self._size)
        if not length:
            return position - position % self._size + self._size
        return position + _whole(length)


class RingWriter(_Ring):
    """Writes entries, over the oldest ones if there is no room. Only one may exist for a ring.

    Args:
        memory: of the ring; with what an earlier writer has left, or zeros.
    """

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory)
        self.largest_bytes = self._size // _LARGEST_SHARE - _HEAD.size - 8
        """The longest text that is kept."""
        if self._size and not self._words[_NEWEST]:
            self._words[_TAIL] = self._size  # not 0, which stands for nothing
        self._newest = self._words[_NEWEST]
        self._end = self._next(self._newest) if self._newest else self._size
        self._tail = self._words[_TAIL]
        self._number = self._words[_COUNT]

    def put(self, text: bytes, at_s: float, *, marks: int = 0, id_sum: int = 0) -> bool:
        """Write an entry; return whether it was small enough, else it is counted as dropped."""
        length = len(text)
        if not 0 < length <= self.largest_bytes:
            self._words[_DROPPED] += 1
            return False
        size, end = self._size, self._end
        offset, whole = end % size, _whole(length)
        begin = end if offset + whole <= size else end + size - offset
        free_to = begin + whole - size
        if self._tail < free_to:
            while self._tail < free_to:
                self._tail = self._next(self._tail)
            self._words[_TAIL] = self._tail
        if begin != end:
            _LENGTH.pack_into(self._data, offset, 0)
            offset = 0
        number = self._number + 1
        before = begin - self._newest if self._newest else 0
        checksum = crc32(text, number & 0xFFFFFFFF)
        _HEAD.pack_into(self._data, offset, length, before, checksum, marks, number, at_s, id_sum, 0)
        self._data[offset + _HEAD.size : offset + _HEAD.size + length] = text
        self._words[_COUNT] = number
        self._words[_NEWEST] = begin
        self._number, self._newest, self._end = number, begin, begin + whole
        return True


class RingReader(_Ring):
    """Reads entries while another process may write. All of its methods skip what is overwritten meanwhile."""

    @property
    def newest(self) -> Place:
        """The place of the newest entry."""
        entry = self._entry(self._words[_NEWEST])
        return Place() if entry is None else entry.place

    def newest_first(self) -> Iterator[Entry]:
        """Yield the entries, from the newest one back."""
        entry = self._entry(self._words[_NEWEST])
        while entry is not None:
            yield entry
            entry = self._entry(entry.place.position - entry.before) if entry.before else None

    def after(self, place: Place) -> Iterator[tuple[Entry, bytes]]:
        """Yield the entries after ``place`` with their texts, up to the one that is the newest now.

        If ``place`` is unknown, as it is if all of it was overwritten, they begin with the oldest one.
        """
        newest = self._words[_NEWEST]
        position = 0
        if place.position and (known := self._entry(place.position)) is not None and known.place == place:
            position += place.position + _whole(known.length)
        while newest:
            position = max(position, self._words[_TAIL])
            if position > newest:
                return
            if (entry := self._entry(position)) is not None and (text := self.text(entry)) is not None:
                yield entry, text
            following = self._next(position)
            if self._words[_TAIL] <= position:  # else it was read while it was overwritten
                position = following

    def text(self, entry: Entry) -> bytes | None:
        """Return the text of an entry; None if it was overwritten."""
        begin = entry.place.position % self._size + _HEAD.size
        text = bytes(self._data[begin : begin + entry.length])
        if self._words[_TAIL] > entry.place.position:
            return None
        return text if crc32(text, entry.place.number & 0xFFFFFFFF) == entry.checksum else None

    def _entry(self, position: int) -> Entry | None:
        """Return the entry at ``position``; None if there is none, or not any more."""
        if not self._words[_TAIL] <= position <= self._words[_NEWEST] or not position or position % 8:
            return None
        offset = position % self._size
        if offset + _HEAD.size > self._size:
            return None
        length, before, checksum, marks, number, at_s, id_sum, _ = _HEAD.unpack_from(self._data, offset)
        if self._words[_TAIL] > position or not 0 < length <= self._size - offset - _HEAD.size:
            return None
        return Entry(Place(position, number), length, before, checksum, marks, at_s, id_sum)


def _whole(length: int) -> int:
    """Return how many bytes an entry takes whose text has ``length``."""
    return (length + _HEAD.size + 7) & -8
