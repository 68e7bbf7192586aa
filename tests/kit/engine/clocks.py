"""Clocks that a test moves, for the figures of the engine."""

from __future__ import annotations

from pipeline.testing import virtual_ns

SECOND_NS = 1_000_000_000


class HandClock:
    """A clock that only the test moves."""

    def __init__(self, now_ns: int = 1_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, ns: int) -> int:
        """Let ``ns`` pass, and return the time."""
        self.now_ns += ns
        return self.now_ns


class WorkClock:
    """Trio's virtual time plus the time for which code has worked, by its own account: virtual time knows only waits.

    Args:
        read_ns: how long each look at the clock takes, so that no two moments are the same.
    """

    def __init__(self, read_ns: int = 0) -> None:
        self.worked_ns = 0
        self._read_ns = read_ns

    def __call__(self) -> int:
        self.worked_ns += self._read_ns
        return virtual_ns() + self.worked_ns

    def work(self, seconds: float) -> None:
        """Let code work for so many seconds."""
        self.worked_ns += round(seconds * SECOND_NS)
