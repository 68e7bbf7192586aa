"""The requests that run at a time, over all workers, and the queue of those that wait for their turn.

Turns are given in the order in which they are asked for, in each worker and generation of the configuration. None of
these is told when another one frees a place: while any of its requests wait, it looks every `POLL_S`. A request that
comes while others wait anywhere waits too.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import trio

from pipeline import Overloaded
from stages.admission.counts import Counts
from stages.admission.quota import Quota, Taken
from stages.limits import Limits

POLL_S: Final = 0.02


class Turns:
    """The turns of all requests.

    Args:
        counts: where it is counted, with all other workers.
        max_in_flight: how many requests may run at a time.
        max_queued: how many more may wait.
        timeout_s: how long they wait.
    """

    def __init__(self, counts: Counts, *, max_in_flight: int, max_queued: int, timeout_s: float) -> None:
        self._running = Quota(counts, "service", "the service", Limits(parallel=max_in_flight))
        self._queue = Quota(counts, "queue", "the queue", Limits(parallel=max_queued))
        self._timeout_s = timeout_s
        self._waiting: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        """How many wait in this process."""
        return len(self._waiting)

    def take_nowait(self) -> Taken | None:
        """Return a turn if one is free and nobody waits for it."""
        if self._waiting or (self._queue.in_flight and self._queue.recount()):
            return None
        taken = self._running.take()
        return taken if isinstance(taken, Taken) else None

    async def wait(self) -> Taken:
        """Wait for a turn, and return it.

        Raises:
            Overloaded: if too many wait already, or it does not come in time.
        """
        place = self._queue.take() if self._timeout_s else None
        if not isinstance(place, Taken):
            raise self._refusal("and no more may wait")
        own = _Waiter()
        self._waiting.append(own)
        taken: Taken | None = None
        try:
            with trio.move_on_after(self._timeout_s):
                taken = await self._turn_of(own)
        finally:
            self._waiting.remove(own)
            place.end(None)
            self._wake_first()  # it may have become the first, or there may be more than one free place
        if taken is None:
            raise self._refusal(f"and none has ended within {self._timeout_s:g} s")
        return taken

    def end(self, taken: Taken) -> None:
        """Return a turn, and wake the request that has waited for the longest time."""
        taken.end(None)
        self._wake_first()

    async def _turn_of(self, own: _Waiter) -> Taken:
        may_take = self._queue.in_flight <= len(self._waiting)  # else others have waited longer
        while True:
            is_first = self._waiting[0] is own
            if is_first and may_take and isinstance(taken := self._running.take(), Taken):
                return taken
            may_take = True
            own.woken = trio.Event()
            with trio.move_on_after(POLL_S if is_first else math.inf):
                await own.woken.wait()

    def _wake_first(self) -> None:
        if self._waiting:
            self._waiting[0].woken.set()

    def _refusal(self, why: str) -> Overloaded:
        return Overloaded(
            f"the gateway serves {self._running.limits.parallel} requests at a time "
            f"(pipeline_settings.max_requests_in_flight), {why}: try again shortly"
        )


class _Waiter:
    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken = trio.Event()
