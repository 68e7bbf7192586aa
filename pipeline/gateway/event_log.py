"""What is logged a little later than it happens: finished requests, to save time, and stalls, to save lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

from pipeline.gateway.logs import Log, StallRecord
from pipeline.gateway.request_record import FinishedRequest, request_record
from pipeline.loop import Stall
from pipeline.observe import Observed
from stages.wire.redaction import redact

REQUEST_LOG_PAUSE_S: Final = 0.05
STALL_LOG_PAUSE_S: Final = 1.0
MAX_UNLOGGED: Final = 16
"""With so many they are logged at once. More would cost no less, and a pipe holds 64 KiB: two dozen records."""


class EventLog:
    """Logs finished requests, those of `REQUEST_LOG_PAUSE_S` together, and of each second the longest stall.

    One by one a request takes two to three times as long to log: nothing that it needs is in the processor's caches.
    And a loop that is held often has no time for more lines.

    Args:
        log: where to.
        observed: adds up what all requests were; None if nobody does.
    """

    def __init__(self, log: Log, observed: Observed | None = None) -> None:
        self._log = log
        self._observed = observed
        self._finished: list[FinishedRequest] = []
        self._has_finished = trio.Event()
        self._longest: Stall | None = None  # since the last line
        self._longest_ended_s = 0.0
        self._stalls = 0

    def note_request(self, finished: Callable[[], FinishedRequest]) -> None:
        """Count a finished request, and keep it until it is logged and added up."""
        if self._log.writes_requests or self._observed is not None:
            request = finished()
            if self._observed is not None:
                self._observed.end(request.end)
            self._finished.append(request)
            self._has_finished.set()
            if len(self._finished) >= MAX_UNLOGGED:
                self.flush_requests()

    def note_stall(self, stall: Stall) -> None:
        """Count a stall, and keep it for the next line if it is the longest."""
        if self._observed is not None:
            self._observed.note_stall(stall.stage, stall.ns)
        self._stalls += 1
        if self._longest is None or stall.ns > self._longest.ns:
            self._longest, self._longest_ended_s = stall, time.time()  # noqa: TID251 - the time of the log's line

    async def run(self) -> None:
        """Log until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._log_requests)
            while True:
                await trio.sleep(STALL_LOG_PAUSE_S)
                self.flush_stalls()

    async def _log_requests(self) -> None:
        while True:
            await self._has_finished.wait()
            await trio.sleep(REQUEST_LOG_PAUSE_S)
            self.flush_requests()

    def flush_requests(self) -> None:
        """Log and add up all requests that were noted, if there are any."""
        if not self._finished:
            return
        self._has_finished = trio.Event()
        finished, self._finished = self._finished, []
        if self._observed is not None:
            for one in finished:
                fold(one, self._observed)
        if self._log.writes_requests:
            self._log.requests([request_record(one) for one in finished], [one.ended_s for one in finished])

    def flush_stalls(self) -> None:
        """Log the longest stall since the last line, if there was one."""
        if (stall := self._longest) is not None:
            request_id = None if stall.request_id is None else redact(stall.request_id)
            record = StallRecord(stall.stage, request_id, stall.ns // 1000 / 1000, stall.streams, self._stalls - 1)
            self._log.stall(record, self._longest_ended_s)
            self._longest, self._stalls = None, 0


def fold(finished: FinishedRequest, observed: Observed) -> None:
    """Add a finished request, and its attempts that have failed, to the figures of all."""
    usage = finished.usage
    observed.fold(
        finished.timeline,
        deployment=finished.deployment,
        is_stream=finished.stream,
        end=finished.end,
        tokens=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
    )
    observed.fold_tasks(finished.lanes, finished.links)
    for attempt in finished.attempts:
        observed.fold_tasks(attempt.lanes, attempt.links)
