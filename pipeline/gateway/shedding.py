"""Refusing new requests while the loop is overloaded, so that those that run can be served in time.

A stream costs the loop a part of each turn. When all of them together need more than there is, turns become longer and
everybody waits, also those who only ask whether the process is alive. So from a lag on, `max_lag_ms`, fewer come in,
and from half of it on only a few more than end.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from pipeline import Overloaded
from pipeline.loop import Loop

LOG_PAUSE_S: Final = 10.0

log = logging.getLogger("headrace")


class Shedding:
    """What the routes of one process refuse because of its lag.

    Args:
        max_lag_ms: the limit; 0 for none.

    Attributes:
        total: the requests that were refused.
    """

    def __init__(self, max_lag_ms: float) -> None:
        self.total = 0
        self._max_lag_ms = max_lag_ms
        self._loop = Loop()  # one that nobody watches is never overloaded
        self._logged = 0
        self._log_again_at_s = -math.inf

    def watch(self, loop: Loop) -> None:
        """Take the lag of ``loop`` from now on, and set its limit."""
        self._loop = loop
        loop.max_lag_ns = int(self._max_lag_ms * 1e6)

    def is_due(self) -> bool:
        """Return whether to refuse a new request; ask once for each."""
        return self._loop.refuses()

    def refuse(self, now_s: float) -> Overloaded:
        """Count a request that is refused, and return what its client is told."""
        self.total += 1
        if now_s >= self._log_again_at_s:
            self._log_again_at_s = now_s + LOG_PAUSE_S
            log.warning(
                "overloaded: the loop is held for %.0f ms at a time, and max_lag_ms is %g "
                "(from half of it on, streams may grow only slowly): %d requests refused since the last such line, "
                "with %d in flight; add workers or machines, or set max_requests_in_flight",
                self._loop.lag_ns / 1e6,
                self._max_lag_ms,
                self.total - self._logged,
                self._loop.streams,
            )
            self._logged = self.total
        return Overloaded("this server is overloaded: try again shortly")
