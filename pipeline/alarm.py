"""Alarms that ring after a silence, for codecs that tick: a request has neither a task nor a cancel scope for its own.

All alarms of one interval are rung by one system task of the trio run, which sleeps until the first is due and ends
when it finds none. To put an alarm off, as each batch of a stream does, is to move it to the end of a queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import trio


class Alarm:
    """Calls ``ring`` after each ``interval_s`` seconds in which it was not put off, until it is stopped.

    ``ring`` runs in another task: it must neither wait nor raise.
    """

    __slots__ = ("_interval_s", "_ringer", "_silent_since_s", "ring")

    def __init__(self, interval_s: float, ring: Callable[[], object]) -> None:
        self.ring = ring
        self._interval_s = interval_s
        self._ringer = _ringer_of(interval_s)
        self.put_off()
        self._ringer.start()

    def put_off(self) -> None:
        """Have the silence begin now."""
        self._silent_since_s = now_s = trio.current_time()
        ringing = self._ringer.since_s
        ringing[self] = now_s
        ringing.move_to_end(self)

    def is_due(self) -> bool:
        """Whether the silence is as long as the interval."""
        return trio.current_time() >= self._silent_since_s + self._interval_s

    def stop(self) -> None:
        """Never ring again."""
        self._ringer.forget(self)


class _Ringer:
    """Rings the alarms of one interval."""

    __slots__ = ("_interval_s", "is_running", "since_s")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.since_s: OrderedDict[Alarm, float] = OrderedDict()  # since when each has been silent, the longest first
        self.is_running = False

    def start(self) -> None:
        if not self.is_running:
            self.is_running = True
            trio.lowlevel.spawn_system_task(self._run)

    def forget(self, alarm: Alarm) -> None:
        del self.since_s[alarm]

    async def _run(self) -> None:
        while self.since_s:
            alarm, since_s = next(iter(self.since_s.items()))
            await trio.sleep_until(since_s + self._interval_s)
            if self.since_s.get(alarm) == since_s:  # neither put off nor stopped meanwhile
                self.since_s[alarm] = trio.current_time()
                self.since_s.move_to_end(alarm)
                alarm.ring()
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
