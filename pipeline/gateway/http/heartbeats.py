"""Which workers have been silent for too long, and whether that is their fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

HUNG_AFTER_S: Final = 5.0
"""A worker that sends no heartbeat for this long is hung. Together with the start of another one it is under 10 s."""
CHECK_PAUSE_S: Final = 0.5
LATE_S: Final = 1.0
"""A check that is later than this was not scheduled in time: the machine was suspended, or has no time for anyone."""


class Heard(Protocol):
    """What sends heartbeats; ``heard_at`` is when the last one came."""

    heard_at: float


HeardT = TypeVar("HeardT", bound=Heard)


class HeartbeatCheck:
    """Checks all heartbeats, every `CHECK_PAUSE_S`.

    Args:
        now: the time of its start; all times are on one clock, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._checked_at = now

    def silent(self, judged: Iterable[HeardT], now: float) -> list[HeardT]:
        """Return those that have not been heard for `HUNG_AFTER_S`.

        If this check itself is late nobody is blamed, and all are counted anew from now on.
        """
        is_late = now - self._checked_at > CHECK_PAUSE_S + LATE_S
        self._checked_at = now
        if not is_late:
            return [one for one in judged if now - one.heard_at > HUNG_AFTER_S]
        for one in judged:
            one.heard_at = now
        return []
