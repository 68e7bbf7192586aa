"""A sliding minute: how much was counted in the last 60 seconds, in buckets of one second.

The window is never too short: it has the running second and the 60 before it, so that any 60 seconds are within it.
What was counted is forgotten 60 to 61 seconds later, which is at most one second late.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 61
WINDOW_WORDS: Final = 2 + BUCKETS
"""The second up to which it is valid, the total, and a bucket for each second, at its number modulo `BUCKETS`."""

_EMPTY: Final = memoryview(bytes(8 * BUCKETS)).cast("q")


class Minute:
    """A window in memory that other processes count in as well; whoever calls it holds the lock of that memory.

    Args:
        words: the memory, `WINDOW_WORDS` words of 8 bytes; zeros are an empty window.
    """

    __slots__ = ("_buckets", "_oldest", "_words")

    def __init__(self, words: memoryview[int]) -> None:
        self._words = words
        self._buckets = words[2:WINDOW_WORDS]
        self._oldest = 0  # the second before which nothing is counted: it never goes back, whoever counts

    def advance(self, second: int) -> int:
        """Forget what is too old at ``second``, and return what is counted; to be called before anything else."""
        words = self._words
        last, total = words[0], words[1]
        if second <= last:
            return total
        if second - last >= BUCKETS or not total:
            if total:
                self._buckets[:] = _EMPTY
                total = 0
        else:
            buckets = self._buckets
            for passed in range(last + 1, second + 1):
                if count := buckets[passed % BUCKETS]:
                    total -= count
                    buckets[passed % BUCKETS] = 0
        words[0], words[1] = second, total
        return total

    def add(self, count: int) -> None:
        """Count so much now."""
        words = self._words
        self._buckets[words[0] % BUCKETS] += count
        words[1] += count

    def remove(self, count: int, second: int) -> None:
        """Take back what was counted in ``second``, unless it is forgotten already."""
        words = self._words
        if words[0] - second < BUCKETS:
            self._buckets[second % BUCKETS] -= count
            words[1] -= count

    def relief_s(self, count: int, now_s: float) -> float:
        """Return after how many seconds at least ``count`` of what is counted will be forgotten; 0 if nothing is."""
        buckets, second = self._buckets, self._words[0]
        first = max(self._oldest, second + 1 - BUCKETS)
        while first < second and not buckets[first % BUCKETS]:
            first += 1
        self._oldest = first
        for passed in range(first, second + 1):
            count -= buckets[passed % BUCKETS]
            if count <= 0:
                return passed + BUCKETS - now_s
        return 0.0
