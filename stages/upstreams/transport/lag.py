"""How late tasks get their turn: what tells a transport that this process has more to do than it can.

Under overload it pays to read each stream less often: what gathers in its socket meanwhile is one batch, and costs the
whole chain of stages once. Without overload it would only make streams late. So a transport looks at the lag of the
scheduler, and lets its streams rest between two reads the longer, the higher that is (ADR 0014).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sized

import trio

HIGH_LAG_S = 0.005
"""Below this nothing rests. A turn of a stream takes some 0.1 ms, so that some 50 of them stand in a queue."""

RESTS_PER_LAG = 5.0
"""How many times the lag a stream rests. With 4 the core is full when 1 000 streams bring 50 000 events a second, with
10 it is at 76 %, and the events are half as late again (ADR 0014 has the figures)."""

MAX_REST_S = 0.2
"""The longest rest: nobody minds text that arrives five times a second, and every deadline is much longer."""

GATHER_BYTES = 4096
"""A read that gave more, some 20 events, is batch enough: the stream does not rest, and a burst is not slowed."""

SAMPLE_S = 0.01
"""How often the lag is measured: some 15 us of CPU each time."""

MIN_STREAMS = 32
"""With fewer streams nothing is measured: what makes their turns late is not their number."""

_WEIGHT = 0.2
"""Of a new sample, so that some 50 ms count: a sample by itself depends on its place in the queue."""


class Lag:
    """Measures, with a task that exists only while there are many streams, how much too late a sleep ends.

    Attributes:
        rest_s: how long a stream is to rest after a read; 0 unless the lag is high.

    Args:
        streams: those that are open; a live view of which only the size is looked at.
    """

    __slots__ = ("_is_measuring", "_is_stopped", "_resting", "_streams", "rest_s")

    def __init__(self, streams: Sized) -> None:
        self._streams = streams
        self._is_measuring = False
        self._is_stopped = False
        self._resting: defaultdict[int, list[trio.lowlevel.Task]] = defaultdict(list)  # by the sample that wakes them
        self.rest_s = 0.0

    async def rest_until(self, moment: float) -> None:
        """Wait until ``moment`` on trio's clock, or for up to two samples longer. Only while `rest_s` is not 0.

        Who rests is woken by the task that measures: a sleep of its own, with its cancel scope and its place among the
        deadlines, would cost a stream a third of its turn.
        """
        task = trio.lowlevel.current_task()
        waking = self._resting[_sample_at(moment) + 1]
        waking.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            waking.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def watch(self) -> None:
        """Begin to measure if there are many streams now; it ends by itself when there are not."""
        if len(self._streams) >= MIN_STREAMS and not self._is_measuring:
            self._is_measuring = True
            trio.lowlevel.spawn_system_task(self._measure, name="upstream lag")

    def stop(self) -> None:
        """End the measuring when its sleep ends."""
        self._is_stopped = True

    async def _measure(self) -> None:
        lag_s = 0.0
        while len(self._streams) >= MIN_STREAMS and not self._is_stopped:
            due_at = trio.current_time() + SAMPLE_S
            await trio.sleep_until(due_at)
            now = trio.current_time()
            lag_s += _WEIGHT * (now - due_at - lag_s)
            self.rest_s = min(RESTS_PER_LAG * lag_s, MAX_REST_S) if lag_s > HIGH_LAG_S else 0.0
            self._wake(_sample_at(now) if self.rest_s else math.inf)
        self.rest_s = 0.0
        self._is_measuring = False
        self._wake(math.inf)

    def _wake(self, until: float) -> None:
        for sample in [sample for sample in self._resting if sample <= until]:
            for task in self._resting.pop(sample):
                trio.lowlevel.reschedule(task)


def _sample_at(moment: float) -> int:
    return int(moment / SAMPLE_S)
