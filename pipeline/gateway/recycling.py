"""`max_requests`: a worker that has served so many asks its supervisor for a successor."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pipeline.gateway.http.lifeline import REPLACE_ME, Lifeline
from pipeline.gateway.http.supervisor import jittered
from pipeline.gateway.request_record import FinishedRequest

log = logging.getLogger("headrace")

MakeFinished = Callable[[], FinishedRequest]


class RequestLimit:
    """Counts the chat requests that have ended, whatever became of them.

    Args:
        max_requests: the limit, from which that of this process differs a little.
        lifeline: over which it asks, once; what comes until it is replaced is served.
        on_end: also called at the end of each request.
    """

    def __init__(self, max_requests: int, lifeline: Lifeline, on_end: Callable[[MakeFinished], object]) -> None:
        self._limit = max(1, round(jittered(max_requests)))
        self._lifeline = lifeline
        self._on_end = on_end
        self._count = 0

    def note_request(self, finished: MakeFinished) -> None:
        """Count a request."""
        self._count += 1
        if self._count == self._limit:
            log.info("max_requests: %d requests served, a new worker is to replace this one", self._count)
            self._lifeline.report(REPLACE_ME)
        self._on_end(finished)
