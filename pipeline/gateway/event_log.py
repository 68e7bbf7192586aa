"""What is logged and recorded a little later than it happens: finished requests, to save time, and stalls, to save
lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from pipeline.gateway.failures import row_of
from pipeline.gateway.logs import Log, StallRecord
from pipeline.gateway.recorder import Recorder
from pipeline.gateway.request_record import FinishedRequest, RequestRecord, as_recorded, request_record
from pipeline.loop import Stall
from pipeline.observe import Observed
from stages.answer import GIVEN_UP
from stages.wire.redaction import redact

REQUEST_LOG_PAUSE_S: Final = 0.05
STALL_LOG_PAUSE_S: Final = 1.0
MAX_UNLOGGED: Final = 16
"""With so many they are logged at once. More would cost no less, and a pipe holds 64 KiB: two dozen records."""


class RecordLog(Protocol):
    """Where records are written; `pipeline.gateway.logs.Log` is one."""

    def requests(self, records: Sequence[RequestRecord], ended_s: Sequence[float], lines: Sequence[bytes]) -> None:
        """Write finished requests.

        Args:
            records: without their traces.
            ended_s: the time of the end of each, in seconds since the epoch.
            lines: the same as recordings have them, with their traces.
        """
        ...

    def stall(self, record: StallRecord, noted_s: float) -> None:
        """Write that the loop was held."""
        ...


class EventLog:
    """Logs finished requests, those of `REQUEST_LOG_PAUSE_S` together, and of each second the longest stall.

    One by one a request takes two to three times as long to log: nothing that it needs is in the processor's caches.
    And a loop that is held often has no time for more lines.

    Args:
        log: where to.
        observed: adds up what all requests were; None if nobody does.
        recorder: keeps the lines of the log; None if nobody does.
        extra: where all of it is written as well, whatever the log leaves out; None for nowhere.
    """

    def __init__(
        self,
        log: Log,
        observed: Observed | None = None,
        recorder: Recorder | None = None,
        extra: RecordLog | None = None,
    ) -> None:
        self._log = log
        self._extra = extra
        self._observed = observed
        self._recorder = recorder if recorder is not None and recorder.is_on else None
        self._finished: list[FinishedRequest] = []
        self._has_finished = trio.Event()
        self._longest: Stall | None = None  # since the last line
        self._longest_s = 0.0  # when it was over
        self._stalls = 0

    def note_request(self, finished: Callable[[], FinishedRequest]) -> None:
        """Count a finished request, and keep it until it is logged and added up."""
        if self._log.writes_requests or self._observed is not None or self._extra is not None:
            request = finished()
            if self._observed is not None:
                self._observed.end(request.end)
            self._finished.append(request)
            self._has_finished.set()
            if len(self._finished) >= MAX_UNLOGGED:
                self.flush_requests()

    def note_stall(self, stall: Stall) -> None:
        """Count and record a stall, and keep it for the next line of the log if it is the longest."""
        if self._observed is not None:
            self._observed.note_stall(stall.stage, stall.ns)
        now_s = time.time()  # noqa: TID251 - compared with the times of requests
        if self._recorder is not None:
            [line] = self._log.json_lines("stall", [_stall_record(stall, unlogged=0)], [now_s])
            self._recorder.note_stall(line, now_s - stall.ns / 1e9, now_s)
        self._stalls += 1
        if self._longest is None or stall.ns > self._longest.ns:
            self._longest, self._longest_s = stall, now_s

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
        """Log, record and add up all requests that were noted, if there are any."""
        if not self._finished:
            return
        self._has_finished = trio.Event()
        finished, self._finished = self._finished, []
        if self._observed is not None:
            for one in finished:
                fold(one, self._observed)
            self._observed.publish()
        if not self._log.writes_requests and self._recorder is None and self._extra is None:
            return
        records, ended_s = [request_record(one) for one in finished], [one.ended_s for one in finished]
        lines = None
        if self._recorder is not None or self._extra is not None:
            lines = self._log.json_lines("request", records, ended_s)
            recorded = [as_recorded(*each) for each in zip(records, lines, finished, strict=True)]
            whole = [line for _, line in recorded]
            if self._recorder is not None:
                self._recorder.keep_requests(whole, [record for record, _ in recorded], ended_s)
            if self._extra is not None:
                self._extra.requests(records, ended_s, whole)
        self._log.requests(records, ended_s, lines)

    def flush_stalls(self) -> None:
        """Log the longest stall since the last line, if there was one."""
        if (stall := self._longest) is not None:
            record = _stall_record(stall, unlogged=self._stalls - 1)
            if self._extra is not None:
                self._extra.stall(record, self._longest_s)
            self._log.stall(record, self._longest_s)
            self._longest, self._stalls = None, 0


def _stall_record(stall: Stall, *, unlogged: int) -> StallRecord:
    request_id = None if stall.request_id is None else redact(stall.request_id)
    return StallRecord(stall.stage, request_id, stall.ns // 1000 / 1000, stall.streams, unlogged)


def fold(finished: FinishedRequest, observed: Observed) -> None:
    """Add a finished request, and its attempts that have failed, to the figures of all."""
    usage = finished.usage
    observed.fold(
        finished.timeline,
        deployment=finished.deployment,
        is_stream=finished.stream,
        end=finished.end,
        tokens=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
        attempts=_attempts(finished) if finished.attempts else (),
    )
    observed.fold_tasks(finished.lanes, finished.links)
    if finished.trace is not None:
        observed.fold_turns(finished.trace.stage_turns())
    for attempt in finished.attempts:
        observed.fold_tasks(attempt.lanes, attempt.links)


def _attempts(finished: FinishedRequest) -> list[tuple[str, str, int]]:
    """Return of each attempt its deployment, its end code and its ns; without those that were given up in a pause."""
    answered_ns = finished.timeline.points.get("upstream_end", 0)
    found: list[tuple[str, str, int]] = []
    for attempt in finished.attempts:
        began_ns, end = attempt.began_ns, attempt.end
        # The one that answered was noted when the client had all of it.
        ended_ns = min(attempt.ended_ns, answered_ns) if end == "OK" and answered_ns > began_ns else attempt.ended_ns
        if ended_ns < began_ns:
            continue
        if end == GIVEN_UP:
            end = GIVEN_UP if finished.end == "OK" else finished.end  # another one answered, or the request ended
        elif end != "OK":
            end = row_of(end).end
        found.append((attempt.deployment, end, ended_ns - began_ns))
    return found
