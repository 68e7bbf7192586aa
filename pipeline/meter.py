"""A stage's stopwatch: every nanosecond of its life is in exactly one of five buckets.

One bucket is running at any moment, and one clock read closes it and opens the next, so the buckets sum to the
stage's lifetime by construction. That identity is what makes the figures trustworthy; the test kit asserts it.
"""

from __future__ import annotations

from collections.abc import Callable
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


# An attribute of an enum class is a slow look-up on Python 3.11, and these stand in every hop.
_STARVED: Final = Doing.STARVED
_BUSY: Final = Doing.BUSY
_OUTSIDE: Final = Doing.OUTSIDE
_CLOSING: Final = Doing.CLOSING


class Meter:
    """Where the time of one stage of one request went, and what passed through it.

    Attributes:
        name: the stage's name.
        fused: whether the stage shared its task with the stage before it.
        spent_ns: one figure per `Doing`, in its order.
        queued_ns: how long the batches it took had waited in its inlet's channel, summed.
        batches_in, batches_out, events_in, events_out: what went through.
    """

    __slots__ = (
        "_clock",
        "_doing",
        "_home",
        "_since",
        "batches_in",
        "batches_out",
        "born_ns",
        "events_in",
        "events_out",
        "fused",
        "name",
        "queued_ns",
        "spent_ns",
    )

    def __init__(self, name: str, clock: Clock = perf_counter_ns, *, fused: bool = False) -> None:
        self.name = name
        self.fused = fused
        self._clock = clock
        self._home: Doing = _BUSY
        self._doing: Doing = _STARVED  # until its task has its first turn
        self.born_ns = self._since = clock()
        self.spent_ns = [0, 0, 0, 0, 0]
        self.queued_ns = 0
        self.batches_in = self.batches_out = self.events_in = self.events_out = 0

    def enter(self, doing: Doing) -> int:
        """Close the running bucket and open another; return the time of the switch, in ns."""
        now = self._clock()
        self.spent_ns[self._doing] += now - self._since
        self._doing = doing
        self._since = now
        return now

    def resume(self) -> int:
        """Go back to work after a wait: busy, or closing once the end has begun; return the time, in ns."""
        return self.enter(self._home)

    def rest(self) -> int:
        """Stop working until more input comes: starved, or closing once the end has begun; return the time, in ns."""
        return self.enter(_STARVED if self._home is _BUSY else _CLOSING)

    def begin_closing(self) -> int:
        """Charge what is left of this life to the end of it; return the time, in ns."""
        self._home = _CLOSING
        return self.enter(_CLOSING)

    def outside(self) -> Outside:
        """Give a context manager that charges its block to the world rather than to the stage."""
        return Outside(self)

    @property
    def lifetime_ns(self) -> int:
        """From birth to the last switch."""
        return self._since - self.born_ns


class Outside:
    """The context manager behind `Meter.outside`: a class, because it stands in every read of a stream."""

    __slots__ = ("_meter",)

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._meter.enter(_OUTSIDE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self._meter.resume()
        else:  # cancelled while outside; perhaps only by a deadline of the stage's own, so it may resume
            self._meter.enter(_CLOSING)
