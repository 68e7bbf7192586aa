"""Alarms that ring after a silence, for codecs that tick: a request has neither a task nor a cancel scope for its own.

All alarms of one interval are rung by one system task of the trio run, which sleeps until the first is due and ends
when it finds none. To put an alarm off, as each batch of a stream does, is to note the time: nothing is sorted, and the
task looks at all alarms when it wakes, which busy streams make it do about once per interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

LOOKS_PER_INTERVAL: Final = 64
"""How often the alarms are looked at, at most: one that was put off to just after another may ring late by as much."""


TRIES_PER_INTERVAL: Final = 8
"""How often to ring again if nobody was there to hear it."""


class Alarm:
    """Calls ``ring`` after each ``interval_s`` seconds in which it was not put off, until it is stopped.

    ``ring`` runs in another task: it must neither wait nor raise. If it returns False, nobody was there to hear it, and
    it is called again soon.
    """

    __slots__ = ("_interval_s", "_ringer", "_rung_at_s", "_silent_since_s", "ring")

    def __init__(self, interval_s: float, ring: Callable[[], object]) -> None:
        self.ring = ring
        self._interval_s = interval_s
        self._rung_at_s = -math.inf
        self._ringer = _ringer_of(interval_s)
        self.put_off()
        self._ringer.add(self)

    def put_off(self) -> None:
        """Have the silence begin now."""
        self._silent_since_s = trio.current_time()

    def is_due(self) -> bool:
        """Whether the silence is as long as the interval."""
        return trio.current_time() >= self._silent_since_s + self._interval_s

    def ring_if_due(self, now_s: float) -> float:
        """Ring if the silence is as long as the interval, and was not rung for; return when to look again."""
        since_s = max(self._silent_since_s, self._rung_at_s)
        if now_s < since_s + self._interval_s:
            return since_s + self._interval_s
        if self.ring() is False:
            return now_s + self._interval_s / TRIES_PER_INTERVAL
        self._rung_at_s = now_s
        return now_s + self._interval_s

    def stop(self) -> None:
        """Never ring again."""
        self._ringer.forget(self)


class _Ringer:
    """Rings the alarms of one interval."""

    __slots__ = ("_alarms", "_interval_s", "is_running")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._alarms: set[Alarm] = set()
        self.is_running = False

    def add(self, alarm: Alarm) -> None:
        self._alarms.add(alarm)
        if not self.is_running:
            self.is_running = True
            trio.lowlevel.spawn_system_task(self._run)

    def forget(self, alarm: Alarm) -> None:
        self._alarms.remove(alarm)

    async def _run(self) -> None:
        look_at_s = trio.current_time() + self._interval_s
        while self._alarms:
            await trio.sleep_until(look_at_s)
            now_s = trio.current_time()
            due_at_s = [alarm.ring_if_due(now_s) for alarm in tuple(self._alarms)]
            look_at_s = max(min(due_at_s, default=now_s), now_s + self._interval_s / LOOKS_PER_INTERVAL)
        self.is_running = False


_RINGERS: Final[trio.lowlevel.RunVar[dict[float, _Ringer]]] = trio.lowlevel.RunVar("ringers of alarms")


def _ringer_of(interval_s: float) -> _Ringer:
    try:
        ringers = _RINGERS.get()
    except LookupError:
        _RINGERS.set(ringers := {})
    if (ringer := ringers.get(interval_s)) is None:
        ringer = ringers[interval_s] = _Ringer(interval_s)
    return ringer


def tasks_living() -> int:
    """Return how many tasks ring alarms in this trio run: they outlive the requests whose alarms they have rung."""
    return sum(ringer.is_running for ringer in _RINGERS.get({}).values())
