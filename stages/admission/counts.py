"""The memory in which all workers of a node count: what each name has had in the last minute, and what it has now.

It is a file without a name that the workers inherit and map, so that limits are exact over all of them, a restarted
worker goes on with what was counted, and a reload changes nothing. A check and what follows from it are one step under
a lock, which the kernel releases if its holder is killed. Requests at a time are counted in a row for each worker. A
worker holds a lock on its row as long as it lives; the row of one that was killed is cleared when somebody would be
refused because of it.

The locks are those of an open file description (`pipeline.open_file_locks`), of which each `Counts` has its own.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import time
import weakref
from collections.abc import Callable
from typing import Final

from pipeline.open_file_locks import lock_nowait, own_description, unlock
from stages.admission.window import WINDOW_WORDS, Minute

MAX_NAMES: Final = 16_384
"""Keys, pairs of a key and a model, and deployments that have limits."""
MAX_ROWS: Final = 513
"""Processes at a time: the most workers that can be configured, as many that are draining, and one that starts."""

LOCK_PATIENCE_NS: Final = 100_000_000
"""The lock is held for microseconds. If it is not free after so long, its holder was stopped (SIGSTOP, a debugger):
then a count that is off by one is better than workers that all stand still."""
STUCK_NS: Final = 1_000_000_000
"""For how long the lock is then not waited for."""

_DIGEST_BYTES: Final = 16
_NAME_WORDS: Final = 128
"""Two windows, with room to spare: 1 KiB for each name."""
_TOKENS_AT: Final = 64

_HEADER_BYTES: Final = mmap.PAGESIZE  # the number of names, and the number of rows that were ever used
_DIGESTS_AT: Final = _HEADER_BYTES
_WINDOWS_AT: Final = _DIGESTS_AT + MAX_NAMES * _DIGEST_BYTES
_ROWS_AT: Final = _WINDOWS_AT + MAX_NAMES * _NAME_WORDS * 8
SIZE_BYTES: Final = _ROWS_AT + MAX_ROWS * MAX_NAMES * 4
"""48 MiB, of which only the pages in use take memory."""

_EMPTY_ROW: Final = memoryview(bytes(MAX_NAMES * 4)).cast("i")

log = logging.getLogger("headrace")


class CountsFullError(Exception):
    """There is no room for another name, or another process; the text says what to do."""


def shared_file() -> int:
    """Create the file, empty; return its descriptor. It is for the process that starts the workers."""
    fd = os.memfd_create("headrace-counts")
    os.ftruncate(fd, SIZE_BYTES)
    return fd


class Counts:
    """The counts as one process sees them.

    Args:
        fd: the file of `shared_file`, or None to count in this process only.
        clock: returns the time in seconds; that of all processes must be the same.

    Raises:
        CountsFullError: if `MAX_ROWS` processes have it already.

    Attributes:
        clock: as above.
    """

    def __init__(self, fd: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._fd = None if fd is None else own_description(fd)
        if self._fd is not None:
            weakref.finalize(self, os.close, self._fd)
        self._map = mmap.mmap(-1 if self._fd is None else self._fd, SIZE_BYTES)
        whole = memoryview(self._map)
        self._header = whole[:_HEADER_BYTES].cast("q")
        self._words = whole[_WINDOWS_AT:_ROWS_AT].cast("q")
        self._rows = whole[_ROWS_AT:SIZE_BYTES].cast("i")
        self._stuck_until_ns = 0
        self.lock()
        try:
            self._row_at = self._claim_row() * MAX_NAMES
        finally:
            self.unlock()

    def index_of(self, name: str) -> int:
        """Return the index of a name, which is the same in all processes.

        Raises:
            CountsFullError: if it is new, and `MAX_NAMES` are known already.
        """
        digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
        self.lock()
        try:
            count = self._header[0]
            end = _DIGESTS_AT + count * _DIGEST_BYTES
            at = self._map.find(digest, _DIGESTS_AT, end)
            while at >= 0 and (at - _DIGESTS_AT) % _DIGEST_BYTES:  # parts of two digests
                at = self._map.find(digest, at + 1, end)
            if at >= 0:
                return (at - _DIGESTS_AT) // _DIGEST_BYTES
            if count >= MAX_NAMES:
                raise CountsFullError(
                    f"at most {MAX_NAMES} keys, pairs of a key and a model, and deployments can have limits, and so "
                    "many have had some since the start: restart the service, or use fewer limits"
                )
            self._map[end : end + _DIGEST_BYTES] = digest
            self._header[0] = count + 1
            return count
        finally:
            self.unlock()

    def windows(self, index: int) -> tuple[Minute, Minute]:
        """Return the requests and the tokens of a name in the last minute."""
        words = self._words[index * _NAME_WORDS : (index + 1) * _NAME_WORDS]
        return Minute(words[:WINDOW_WORDS]), Minute(words[_TOKENS_AT : _TOKENS_AT + WINDOW_WORDS])

    def lock(self) -> None:
        """Keep all other processes from counting; `unlock` must follow at once."""
        if self._fd is None:
            return
        if not self._lock_nowait(0):
            self._wait_for_lock()

    def unlock(self) -> None:
        """Let the others count."""
        self._unlock(0)

    def in_flight(self, index: int) -> int:
        """Return how many requests a name has now, perhaps with some of workers that were killed."""
        return sum(self._rows[index : self._header[1] * MAX_NAMES : MAX_NAMES])

    def recount(self, index: int) -> int:
        """Clear the rows of killed workers that have requests of a name, and return how many others it has now."""
        for row_at in range(0, self._header[1] * MAX_NAMES, MAX_NAMES):
            if row_at != self._row_at and self._rows[row_at + index]:
                lock_at = 1 + row_at // MAX_NAMES
                if self._fd is not None and self._lock_nowait(lock_at):  # its owner does not hold it
                    self._rows[row_at : row_at + MAX_NAMES] = _EMPTY_ROW
                    self._unlock(lock_at)
        return self.in_flight(index)

    def enter(self, index: int) -> None:
        """Count one request more of a name in this process."""
        self._rows[self._row_at + index] += 1

    def leave(self, index: int) -> None:
        """Count one request less; without the lock, as nobody else writes to this row."""
        self._rows[self._row_at + index] -= 1

    def _claim_row(self) -> int:
        """Return a row that no living process has, cleared."""
        row = 0
        while not self._lock_nowait(1 + row):
            row += 1
            if row == MAX_ROWS:
                raise CountsFullError(f"{MAX_ROWS} processes count requests already: start fewer workers")
        self._rows[row * MAX_NAMES : (row + 1) * MAX_NAMES] = _EMPTY_ROW
        self._header[1] = max(self._header[1], row + 1)
        return row

    def _lock_nowait(self, at: int) -> bool:
        return self._fd is None or lock_nowait(self._fd, at)

    def _unlock(self, at: int) -> None:
        if self._fd is not None:
            unlock(self._fd, at)

    def _wait_for_lock(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._stuck_until_ns:
            return
        until_ns = now_ns + LOCK_PATIENCE_NS
        while not self._lock_nowait(0):
            os.sched_yield()
            if time.monotonic_ns() > until_ns:
                self._stuck_until_ns = time.monotonic_ns() + STUCK_NS
                log.warning("a stopped process holds the lock of the limits: they are not exact until it goes on")
                return
