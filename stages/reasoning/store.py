"""The protocol of a store of reasoning, and the store in memory.

A store maps keys to values that it does not interpret. It is a cache: a lost entry costs the model its train of
thought, but never fails the request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

import trio
from msgspec import Struct

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

ENTRY_OVERHEAD_BYTES = 300
"""What an entry costs besides its value: the key, two objects and a slot in the table (measured, CPython 3.11)."""


class StoreLimits(Struct, frozen=True, kw_only=True):
    """How much is kept, and how long; the least recently used entry is dropped first."""

    max_entries: int
    max_bytes: int
    """Counted for values and their overhead."""
    max_age_s: float
    """Counted from the last use, so that an active conversation stays complete, and its prompt cached."""


MEMORY_LIMITS = StoreLimits(max_entries=20_000, max_bytes=64 << 20, max_age_s=DAY_S)
DISK_LIMITS = StoreLimits(max_entries=100_000, max_bytes=512 << 20, max_age_s=30 * DAY_S)


class StoreError(Exception):
    """A store cannot be opened; the message names the file, the cause and a remedy."""


class ReasoningStore(Protocol):
    """A store of reasoning, to be entered before use. One serves all requests of a process."""

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreError: if it cannot be opened.
        """
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Finish writing and close the store."""
        ...

    def put(self, key: bytes, value: bytes, /) -> None:
        """Keep ``value`` under ``key``, replacing an earlier value. Never waits; the value can be found at once."""
        ...

    async def find(self, keys: Iterable[bytes], /) -> dict[bytes, bytes]:
        """Return what is kept under any of ``keys``, and mark it as used. A broken store returns nothing."""
        ...


class MemoryStore:
    """Keeps everything in this process.

    Args:
        limits: how much is kept, and how long.
        clock: returns the time in seconds.
    """

    def __init__(self, limits: StoreLimits = MEMORY_LIMITS, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._limits = limits
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def __aenter__(self) -> Self:
        """Return the store; there is nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Drop everything."""
        self._entries.clear()
        self.size_bytes = 0

    def put(self, key: bytes, value: bytes, /) -> None:
        """Keep a value, unless it is larger than the whole store."""
        self._drop(key)
        cost = len(value) + ENTRY_OVERHEAD_BYTES
        if cost > self._limits.max_bytes:
            return
        now = self._clock()
        self._entries[key] = (value, now)
        self.size_bytes += cost
        self._shrink(now)

    async def find(self, keys: Iterable[bytes], /) -> dict[bytes, bytes]:
        """Return what is kept. Does not wait."""
        return self.find_nowait(keys)

    def find_nowait(self, keys: Iterable[bytes], /) -> dict[bytes, bytes]:
        """Return what is kept, as `find` does."""
        now = self._clock()
        self._shrink(now)
        found: dict[bytes, bytes] = {}
        for key in keys:
            if (entry := self._entries.get(key)) is not None:
                found[key] = entry[0]
                self._entries[key] = (entry[0], now)
                self._entries.move_to_end(key)
        return found

    def take_all(self) -> dict[bytes, bytes]:
        """Return everything, the least recently used first, and drop it."""
        taken = {key: value for key, (value, _) in self._entries.items()}
        self._entries.clear()
        self.size_bytes = 0
        return taken

    def _drop(self, key: bytes) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.size_bytes -= len(entry[0]) + ENTRY_OVERHEAD_BYTES

    def _shrink(self, now: float) -> None:
        """Drop entries beyond the limits; the first is the least recently used, and so the oldest."""
        limits = self._limits
        while self._entries:
            key, (_, used) = next(iter(self._entries.items()))
            is_over = len(self._entries) > limits.max_entries or self.size_bytes > limits.max_bytes
            if not is_over and now - used <= limits.max_age_s:
                return
            self._drop(key)
