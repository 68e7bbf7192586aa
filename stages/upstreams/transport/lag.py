"""Measure how late the scheduler runs tasks, so that a transport backs off when the process is overloaded.

Under overload it pays to read each stream less often: what accumulates in its socket meanwhile becomes one batch, and
passes through the stages once. Without overload that would only delay the streams. So each stream of a transport backs
off between two reads, for a time proportional to the lag of the scheduler (ADR 0014).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sized

import trio

HIGH_LAG_S = 0.005
"""The lag from which streams back off. A stream's turn takes about 0.1 ms, so about 50 turns are queued then."""

BACKOFFS_PER_LAG = 5.0
"""The back-off as a multiple of the lag. With 4, one core is fully busy when 1 000 streams bring 50 000 events a
second; with 10, it is at 76 %, and the events are half as late again (figures in ADR 0014)."""

MAX_BACKOFF_S = 0.2
"""The longest back-off: text that arrives five times a second still reads well, and every deadline is much longer."""

GATHER_BYTES = 4096
"""A read that returned this much, about 20 events, is a large enough batch: the stream does not back off, so that
bursts stay fast."""

SAMPLE_S = 0.01
"""The interval between measurements of the lag; each takes about 15 us of CPU."""

MIN_STREAMS = 32
"""With fewer streams nothing is measured, as their number is not what delays their turns."""

_WEIGHT = 0.2
"""The weight of a new sample, which averages over about 50 ms: a single sample depends on its place in the queue."""


class Lag:
    """Measures how late sleeps end, with a task that exists only while there are many streams.

    Attributes:
        backoff_s: how long a stream is to back off after a read; 0 unless the lag is high.

    Args:
        streams: the open streams; a live view of which only the size is used.
    """

    __slots__ = ("_is_measuring", "_is_stopped", "_sleepers", "_streams", "backoff_s")

    def __init__(self, streams: Sized) -> None:
        self._streams = streams
        self._is_measuring = False
        self._is_stopped = False
        self._sleepers: defaultdict[int, list[trio.lowlevel.Task]] = defaultdict(list)  # by the sample that wakes them
        self.backoff_s = 0.0

    async def back_off_until(self, moment: float) -> None:
        """Wait until ``moment`` on trio's clock, or up to two samples longer. Call it only while `backoff_s` is not 0.

        The task that measures wakes the caller: a sleep of its own, with its cancel scope and its deadline, would cost
        a third of a stream's turn.
        """
        task = trio.lowlevel.current_task()
        sleepers = self._sleepers[_sample_at(moment) + 1]
        sleepers.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            sleepers.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def watch(self) -> None:
        """Start measuring if there are many streams; it ends by itself when there are few."""
        if len(self._streams) >= MIN_STREAMS and not self._is_measuring:
            self._is_measuring = True
            trio.lowlevel.spawn_system_task(self._measure, name="upstream lag")

    def stop(self) -> None:
        """Stop measuring when the current sample ends."""
        self._is_stopped = True

    async def _measure(self) -> None:
        lag_s = 0.0
        while len(self._streams) >= MIN_STREAMS and not self._is_stopped:
            due_at = trio.current_time() + SAMPLE_S
            await trio.sleep_until(due_at)
            now = trio.current_time()
            lag_s += _WEIGHT * (now - due_at - lag_s)
            self.backoff_s = min(BACKOFFS_PER_LAG * lag_s, MAX_BACKOFF_S) if lag_s > HIGH_LAG_S else 0.0
            self._wake(_sample_at(now) if self.backoff_s else math.inf)
        self.backoff_s = 0.0
        self._is_measuring = False
        self._wake(math.inf)

    def _wake(self, until: float) -> None:
        for sample in [sample for sample in self._sleepers if sample <= until]:
            for task in self._sleepers.pop(sample):
                trio.lowlevel.reschedule(task)


def _sample_at(moment: float) -> int:
    return int(moment / SAMPLE_S)
