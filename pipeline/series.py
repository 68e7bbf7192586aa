"""Counters, gauges and histograms in a segment of shared memory, which anybody can read while they are written.

Each process writes to its own segment (`pipeline.segments`), so that a value is changed with no lock, by adding to a
cell: ``cell[0] += 1``. The series describe themselves: a reader needs no list of them, and may be of another version.
A series that a process had begun stays where it is, and the process that has the segment next goes on with it; only
gauges begin again at 0, since they say how things are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from pipeline.histogram import SLOTS, slot_of, slot_of_size
from pipeline.segments import Segment, SegmentView

Labels: TypeAlias = tuple[tuple[str, str], ...]
MAX_SERIES: Final = 1000
"""Of one family: a label whose values are chosen by others must not fill the memory."""
SUM_AT: Final = SLOTS
"""The word of a log-linear histogram that has the sum of its values."""
OTHER: Final = "other"
"""The value of all labels of the series that has what came after `MAX_SERIES` others."""


class Cell(Protocol):
    """The words of a series. Its first word is the value; a histogram has `SUM_AT` for the sum, after its slots."""

    # Any: whole numbers or others, as its kind says
    def __getitem__(self, at: int, /) -> Any: ...
    def __setitem__(self, at: int, value: Any, /) -> None: ...


class Kind(IntEnum):
    """What a series counts, and how."""

    COUNT = 1
    """A counter of whole numbers."""
    SECONDS = 2
    """A counter of time: in ns inside, in seconds for readers."""
    GAUGE = 3
    """A number that rises and falls."""
    DURATIONS = 4
    """A log-linear histogram of durations: `pipeline.histogram.slot_of`."""
    SIZES = 5
    """A log-linear histogram of whole numbers: `pipeline.histogram.slot_of_size`."""
    AMOUNT = 6
    """A counter of any numbers."""
    BUCKETS = 7
    """A histogram with limits of its own."""


@dataclass(frozen=True, slots=True)
class Series:
    """What one series has come to.

    Attributes:
        labels: names and values.
        value: the number; the sum of a histogram's values. Times are in seconds.
        slots: how many values each slot of a log-linear histogram has, without those that have none.
        buckets: of a histogram with limits of its own: each limit, and how many values are up to it and above the one
            before.
    """

    labels: Labels
    value: float
    slots: dict[int, int] = field(default_factory=dict[int, int])
    buckets: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name.

    Attributes:
        name: as it is exported.
        about: what it counts; empty if its readers know.
        kind: of all of them.
        series: in the order in which they began.
    """

    name: str
    about: str
    kind: Kind
    series: list[Series]


NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_READS: Final = 100
"""How often a segment is read, at most, while a process is putting it in order."""

_USED, _DROPPED = range(2)
_HEADER_BYTES: Final = 16
_ENTRY: Final = struct.Struct("qqq")
"""The head of an entry: its kind, the length of its name in bytes, and its words."""
_BETWEEN: Final = "\x1f"
"""Between the parts of a name: family, about, limits, and each label and its value."""
_FLOATS: Final = frozenset({Kind.GAUGE, Kind.AMOUNT, Kind.BUCKETS})
_LOG_LINEAR: Final = frozenset({Kind.DURATIONS, Kind.SIZES})

_Name: TypeAlias = tuple[str, str, str, Labels]


class SeriesWriter:
    """The series of this process. Gauges begin at 0.

    Args:
        segment: of this process; it is settled here.
        when_dead: what these gauges of the process before had, in whole numbers, counts in other families from now on,
            which are given by their names.
    """

    def __init__(self, segment: Segment, *, when_dead: Mapping[str, str] = NO_NAMES) -> None:
        self._segment = segment  # it is this process's as long as it is referred to
        self._bytes = segment.series
        self._words = segment.series.cast("q")
        self._floats = segment.series.cast("d")
        self._cells: dict[tuple[str, Labels, str], Cell] = {}  # by the limits too: a plugin may have been upgraded
        self._sizes: dict[str, int] = {}
        left: dict[tuple[str, Labels], float] = {}
        for kind, (family, _, limits, labels), at, size in _entries(segment.series):
            cell = self._cells[family, labels, limits] = self._cell(kind, at, size)
            self._sizes[family] = self._sizes.get(family, 0) + 1
            if kind is Kind.GAUGE:
                left[family, labels], cell[0] = cell[0], 0.0
        for (family, labels), value in left.items():
            if value and family in when_dead:
                self.cell(Kind.COUNT, when_dead[family], labels)[0] += int(value)
        segment.settle()

    @property
    def dropped(self) -> int:
        """How many series there was no room for; nobody sees what they have counted."""
        return self._words[_DROPPED]

    def cell(
        self, kind: Kind, family: str, labels: Labels = (), *, about: str = "", limits: Sequence[float] = ()
    ) -> Cell:
        """Return the cell of a series, which begins at 0 if it is new.

        Args:
            kind: the same for all series of the family.
            family: the name.
            labels: in the order of the family.
            about: what it counts, if readers do not know.
            limits: of the buckets, ascending, the last one infinite.
        """
        limits_text = " ".join(map(repr, limits)) if limits else ""
        if (cell := self._cells.get((family, labels, limits_text))) is not None:
            return cell
        if self._sizes.get(family, 0) >= MAX_SERIES:
            labels = tuple((name, OTHER) for name, _ in labels)
            if (cell := self._cells.get((family, labels, limits_text))) is not None:
                return cell
        size = SLOTS + 1 if kind in _LOG_LINEAR else len(limits) + 1 if kind is Kind.BUCKETS else 1
        name = _name_bytes((family, about, limits_text, labels))
        at = _HEADER_BYTES + self._words[_USED]
        words_at = at + _ENTRY.size + len(name)
        end = words_at + 8 * size
        if end > len(self._bytes):
            self._words[_DROPPED] += 1
            cell = [0.0 if kind in _FLOATS else 0] * size
        else:
            self._bytes[at:words_at] = _ENTRY.pack(kind, len(name), size) + name
            self._words[_USED] = end - _HEADER_BYTES  # last: then it is complete for readers
            cell = self._cell(kind, words_at, size)
        self._cells[family, labels, limits_text] = cell
        self._sizes[family] = self._sizes.get(family, 0) + 1
        return cell

    def _cell(self, kind: Kind, at: int, size: int) -> Cell:
        at //= 8
        return self._floats[at : at + size] if kind in _FLOATS else self._words[at : at + size]


def count_duration(cell: Cell, ns: int) -> None:
    """Count a duration in a histogram."""
    cell[slot_of(ns)] += 1
    cell[SUM_AT] += ns


def count_size(cell: Cell, size: int) -> None:
    """Count a whole number in a histogram."""
    cell[slot_of_size(size)] += 1
    cell[SUM_AT] += size


class Reading(NamedTuple):
    """The series of one process, all of one moment.

    Attributes:
        is_alive: whether the process lives.
        entries: of each series its kind, its name and its words.
    """

    is_alive: bool
    entries: list[tuple[Kind, _Name, list[float]]]

    def sum(self, family: str, label: tuple[str, str] | None = None) -> float:
        """Return the sum of a family's series, or of those with a label; a gauge has what it had last."""
        return sum(
            _Sum(words, limits).series(kind, labels).value
            for kind, (name, _, limits, labels), words in self.entries
            if name == family and (label is None or label in labels)
        )


def summed(readings: Iterable[Reading], *, when_dead: Mapping[str, str] = NO_NAMES) -> dict[str, Family]:
    """Return all series of all processes, by family; those with the same labels are summed.

    Args:
        readings: of all processes.
        when_dead: as in `SeriesWriter`, for those whose segment nobody has; their other gauges count for nothing.
    """
    found: dict[str, tuple[Kind, str, dict[Labels, _Sum]]] = {}
    for is_alive, entries in readings:
        for kind, (name, about, limits, labels), words in entries:
            if kind is Kind.GAUGE and not is_alive:
                if name not in when_dead:
                    continue
                name, kind, words = when_dead[name], Kind.COUNT, [int(words[0])]
            first_kind, _, sums = found.setdefault(name, (kind, about, {}))
            if kind is not first_kind:  # two versions of a plugin disagree: the older one's is shown
                continue
            if labels not in sums:
                sums[labels] = _Sum([0] * len(words), limits)
            if limits == sums[labels].limits:  # the same for two versions that have other buckets
                sums[labels].add(words)
    return {
        name: Family(name, about, kind, [one.series(kind, labels) for labels, one in sums.items()])
        for name, (kind, about, sums) in found.items()
    }


@dataclass(slots=True)
class _Sum:
    words: list[float]
    limits: str

    def add(self, words: Sequence[float]) -> None:
        if len(words) == 1:
            self.words[0] += words[0]
        else:
            self.words = [mine + theirs for mine, theirs in zip(self.words, words, strict=True)]

    def series(self, kind: Kind, labels: Labels) -> Series:
        if kind is Kind.BUCKETS:
            limits = map(float, self.limits.split(" "))
            *counts, total = self.words
            return Series(labels, total, buckets=tuple(zip(limits, map(int, counts), strict=True)))
        value = self.words[-1]
        if kind in (Kind.SECONDS, Kind.DURATIONS):
            value /= 1e9
        if kind not in _LOG_LINEAR:
            return Series(labels, value)
        counts = self.words[:SLOTS]
        return Series(labels, value, slots={slot: int(count) for slot, count in enumerate(counts) if count})


def read_segment(view: SegmentView) -> Reading:
    """Return the series of one process; gauges are what it had last, even if it has died."""
    attempts = 0
    while True:
        before, was_changing = view.changes, view.is_changing
        is_alive = view.is_alive
        found = [
            (kind, name, [*view.series[at : at + 8 * size].cast("d" if kind in _FLOATS else "q")])
            for kind, name, at, size in _entries(view.series)
        ]
        attempts += 1
        is_of_one_moment = before == view.changes and not was_changing and not view.is_changing
        if is_of_one_moment or attempts == _MAX_READS:
            return Reading(is_alive, found)
        os.sched_yield()  # a process is putting it in order, which takes less than a millisecond


def _entries(area: memoryview) -> Iterator[tuple[Kind, _Name, int, int]]:
    """Return of each entry its kind, its name, where its words begin, and how many there are."""
    at = _HEADER_BYTES
    end = at + area[:_HEADER_BYTES].cast("q")[_USED]
    while at < end:
        kind, name_bytes, size = _ENTRY.unpack_from(area, at)
        at += _ENTRY.size
        name = bytes(area[at : at + name_bytes])
        at += name_bytes
        yield Kind(kind), _name_of(name), at, size
        at += 8 * size


def _name_bytes(name: _Name) -> bytes:
    family, about, limits, labels = name
    parts = [family, about, limits, *[part for pair in labels for part in pair]]
    text = _BETWEEN.join(part.replace(_BETWEEN, " ") for part in parts).encode("utf-8", "backslashreplace")
    return text + b"\0" * (-len(text) % 8)


def _name_of(name: bytes) -> _Name:
    family, about, limits, *labels = name.rstrip(b"\0").decode("utf-8", "replace").split(_BETWEEN)
    return family, about, limits, tuple(zip(labels[::2], labels[1::2], strict=True))
