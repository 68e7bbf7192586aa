"""A stage's stopwatch: every nanosecond of its life is in exactly one of five buckets.

One bucket is running at any moment, and one clock read closes it and opens the next, so the buckets sum to the
stage's lifetime by construction. That identity is what makes the figures trustworthy; the test kit asserts it.

Codecs that share a task take turns many times per batch, and switches would cost more than their work. Their meters
rest meanwhile, and the work is summed beside the running bucket, which gives it up when it closes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from time import perf_counter_ns
from types import TracebackType
from typing import Final

Clock = Callable[[], int]
"""Gives the time in nanoseconds. Tests pass one that follows trio's virtual clock."""


class Doing(IntEnum):
    """What a stage's task is doing right now."""

    STARVED = 0
    """Waiting for its inlet."""
    BUSY = 1
    """Running its own code."""
    OUTSIDE = 2
    """In a declared wait for the world: a socket, a disk."""
    BLOCKED = 3
    """Waiting for room in its outlet: backpressure."""
    CLOSING = 4
    """From the end of its input, or from its cancellation, to its exit."""


# An attribute of an enum class is a slow look-up on Python 3.11, and a member a slow index; these stand in every hop.
_STARVED: Final = int(Doing.STARVED)
_BUSY: Final = int(Doing.BUSY)
_OUTSIDE: Final = int(Doing.OUTSIDE)
_CLOSING: Final = int(Doing.CLOSING)


class Meter:
    """Where the time of one stage of one request went, and what passed through it.

    Attributes:
        name: the stage's name.
        fused: whether the stage shared its task with the stage before it.
        home: the bucket of its own work: busy, or closing once the end has begun.
        worked_ns: work done while the running bucket was that of a rest, and to be taken out of it.
        queued_ns: how long the batches it took had waited in its inlet's channel, summed.
        batches_in, batches_out, events_in, events_out: what went through.
    """

    __slots__ = (
        "_doing",
        "_since",
        "_spent_ns",
        "batches_in",
        "batches_out",
        "born_ns",
        "clock",
        "events_in",
        "events_out",
        "fused",
        "home",
        "name",
        "queued_ns",
        "worked_ns",
    )

    def __init__(self, name: str, clock: Clock = perf_counter_ns, *, fused: bool = False) -> None:
        self.name = name
        self.fused = fused
        self.clock = clock
        self.home: int = _BUSY
        self._doing: int = _STARVED  # until its task has its first turn
        self.born_ns = self._since = clock()
        self._spent_ns = [0, 0, 0, 0, 0]
        self.worked_ns = self.queued_ns = 0
        self.batches_in = self.batches_out = self.events_in = self.events_out = 0

    def enter(self, doing: int) -> int:
        """Close the running bucket and open that of ``doing``, a `Doing`; return the time of the switch, in ns."""
        now = self.clock()
        spent_ns = self._spent_ns
        spent_ns[self._doing] += now - self._since
        if self.worked_ns:
            spent_ns[self._doing] -= self.worked_ns
            spent_ns[self.home] += self.worked_ns
            self.worked_ns = 0
        self._doing = doing
        self._since = now
        return now

    def resume(self) -> int:
        """Go back to work after a wait: busy, or closing once the end has begun; return the time, in ns."""
        return self.enter(self.home)

    def rest(self) -> int:
        """Stop working until more input comes: starved, or closing once the end has begun; return the time, in ns."""
        return self.enter(_STARVED if self.home == _BUSY else _CLOSING)

    def begin_closing(self) -> int:
        """Charge what is left of this life to the end of it; return the time, in ns."""
        now = self.enter(_CLOSING)
        self.home = _CLOSING
        return now

    def outside(self) -> AbstractContextManager[None]:
        """Give a context manager that charges its block to the world rather than to the stage."""
        return self  # a context of its own would be made and thrown away with every read of a stream

    def __enter__(self) -> None:
        self.enter(_OUTSIDE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.enter(self.home)
        else:  # cancelled while outside; perhaps only by a deadline of the stage's own, so it may resume
            self.enter(_CLOSING)

    @property
    def spent_ns(self) -> list[int]:
        """One figure per `Doing`, in its order, from birth to the last switch."""
        self._charge_work()
        return self._spent_ns

    @property
    def lifetime_ns(self) -> int:
        """From birth to the last switch."""
        self._charge_work()
        return self._since - self.born_ns

    def _charge_work(self) -> None:
        if self.worked_ns:  # of a request that is still running: only a switch can tell work from rest
            self.enter(self._doing)
