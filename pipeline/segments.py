"""A file in memory in which all processes of a node keep their measurements, each in a segment of its own.

The supervisor makes it, and its workers inherit it. A worker writes without a lock, since nobody else writes to its
segment, and everybody reads all of them, so that each process can answer for all. What a process that was killed had
counted stays, and the next process that has its segment goes on counting there.

A process holds two locks on its segment as long as it lives (`pipeline.open_file_locks`). With the first it has the
segment. The second says that it lives, and it takes that one only when it has put in order what the one before had
left: until then readers take the segment for that of a dead process, as it was. Meanwhile the segment's number of
changes is odd, and readers wait for that moment to pass.
"""

from __future__ import annotations

import mmap
import os
import time
import weakref
from typing import Final

from pipeline.open_file_locks import is_locked, lock_nowait, own_description, unlock

MAX_SEGMENTS: Final = 513
"""Processes at a time: the most workers that can be configured, as many that are draining, and one that starts."""
SERIES_BYTES: Final = 4 * 1024 * 1024
"""What a segment has for its series: a thousand histograms. Only the pages in use take memory."""
BOARD_BYTES: Final = 64 * 1024
"""What a segment has for its state at the moment."""
DEFAULT_RING_BYTES: Final = 32 * 1024 * 1024

_HEADER_BYTES: Final = mmap.PAGESIZE
# Words of the file's header.
_RING_BYTES, _USED, _WATCHED_UNTIL_NS = range(3)
# Words of a segment's header.
_WORKER, _PID, _CHANGES = range(3)
# Bytes that are locked: the header, segments that are taken, and those whose process lives.
_HEADER_LOCK: Final = 0
_TAKEN_LOCK: Final = 1
_ALIVE_LOCK: Final = _TAKEN_LOCK + MAX_SEGMENTS


class SegmentsFullError(Exception):
    """There is no segment left for another process."""


class SegmentView:
    """One segment, as anybody reads it.

    Attributes:
        index: its place in the file.
        series: the bytes of `pipeline.series`.
        board: the bytes for what the process does at the moment.
        ring: the bytes for finished requests.
    """

    __slots__ = ("_lock_fd", "_words", "board", "index", "ring", "series")

    def __init__(self, fd: int, lock_fd: int, index: int, ring_bytes: int) -> None:
        self._lock_fd = lock_fd
        self.index = index
        size = _segment_bytes(ring_bytes)
        whole = memoryview(mmap.mmap(fd, size, offset=_HEADER_BYTES + index * size))
        self._words = whole[:_HEADER_BYTES].cast("q")
        board_at = _HEADER_BYTES + SERIES_BYTES
        ring_at = board_at + BOARD_BYTES
        self.series = whole[_HEADER_BYTES:board_at]
        self.board = whole[board_at:ring_at]
        self.ring = whole[ring_at : ring_at + ring_bytes]

    @property
    def worker(self) -> int:
        """The number of the worker that has it, or had it last; from 1."""
        return self._words[_WORKER]

    @property
    def pid(self) -> int:
        """The process that has it, or had it last."""
        return self._words[_PID]

    @property
    def is_alive(self) -> bool:
        """Whether that process lives, and has put its segment in order."""
        return is_locked(self._lock_fd, _ALIVE_LOCK + self.index)

    @property
    def changes(self) -> int:
        """How often its process has changed, twice; an odd number while it is being put in order."""
        return self._words[_CHANGES]

    @property
    def is_changing(self) -> bool:
        """Whether a living process is putting it in order: one that was killed at that has left an odd number."""
        return self.changes % 2 == 1 and is_locked(self._lock_fd, _TAKEN_LOCK + self.index)


class Segment(SegmentView):
    """The segment of this process, to write to: as long as somebody refers to it, it is this process's."""

    __slots__ = ("__weakref__",)

    def begin(self, worker: int) -> None:
        """Note whose it is, and that it is being put in order."""
        self._words[_CHANGES] |= 1
        self._words[_WORKER] = worker
        self._words[_PID] = os.getpid()

    def settle(self) -> None:
        """Note that it has been put in order: from now on its process lives, for readers."""
        lock_nowait(self._lock_fd, _ALIVE_LOCK + self.index)
        self._words[_CHANGES] += 1


class SegmentFile:
    """The file, as one process has it.

    Args:
        fd: a descriptor of a file that `create` made.

    Attributes:
        fd: the descriptor, for a process to inherit.
        ring_bytes: the size of each ring.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._reading = own_description(fd)  # with other locks than the one that is held
        weakref.finalize(self, os.close, self._reading)
        self._header = memoryview(mmap.mmap(fd, _HEADER_BYTES)).cast("q")
        self.ring_bytes = self._header[_RING_BYTES]
        self._views: list[SegmentView] = []

    @classmethod
    def create(cls, *, ring_bytes: int = DEFAULT_RING_BYTES) -> SegmentFile:
        """Create the file, empty. It is for the process that starts the workers.

        Args:
            ring_bytes: the size of each ring; it is rounded up to whole pages.
        """
        ring_bytes = -(-ring_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("headrace-measurements")
        os.ftruncate(fd, _HEADER_BYTES + MAX_SEGMENTS * _segment_bytes(ring_bytes))
        memoryview(mmap.mmap(fd, _HEADER_BYTES)).cast("q")[_RING_BYTES] = ring_bytes
        return cls(fd)

    def claim(self, worker: int) -> Segment:
        """Return the first segment that no living process has, for this process; what is in it stays.

        The caller puts it in order, and then calls `Segment.settle`; `pipeline.series.SeriesWriter` does both.

        Raises:
            SegmentsFullError: if there is none.
        """
        mine = own_description(self.fd)
        for index in range(MAX_SEGMENTS):
            if lock_nowait(mine, _TAKEN_LOCK + index):
                break
        else:
            os.close(mine)
            raise SegmentsFullError(f"{MAX_SEGMENTS} processes measure already: start fewer workers")
        segment = Segment(self.fd, mine, index, self.ring_bytes)
        weakref.finalize(segment, os.close, mine)
        segment.begin(worker)
        while not lock_nowait(mine, _HEADER_LOCK):  # held for less than a microsecond
            os.sched_yield()
        self._header[_USED] = max(self._header[_USED], index + 1)
        unlock(mine, _HEADER_LOCK)
        return segment

    def views(self) -> list[SegmentView]:
        """Return all segments that were ever used, in their order; any thread may call it."""
        known = self._views
        if (used := self._header[_USED]) > len(known):
            # A new list, as another thread may be making one too: either of them is complete.
            more = [SegmentView(self.fd, self._reading, index, self.ring_bytes) for index in range(len(known), used)]
            self._views = known = [*known, *more]
        return list(known)

    def note_watching(self, seconds: float) -> None:
        """Ask all processes to publish what they do at the moment, for so long from now on."""
        until_ns = time.monotonic_ns() + int(seconds * 1e9)
        self._header[_WATCHED_UNTIL_NS] = max(until_ns, self._header[_WATCHED_UNTIL_NS])

    @property
    def is_watched(self) -> bool:
        """Whether anybody has asked for that."""
        return time.monotonic_ns() < self._header[_WATCHED_UNTIL_NS]


def _segment_bytes(ring_bytes: int) -> int:
    return _HEADER_BYTES + SERIES_BYTES + BOARD_BYTES + ring_bytes
