"""The stalls of a recording: which stages held the loop, for how long, and which requests waited meanwhile."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from pipeline.study.records import Recorded, RecordedRequest, RecordedStall
from pipeline.study.tables import Paint, number, table, wrapped

MOST_WAITERS: Final = 10
"""So many of the requests that waited are named, those that waited longest."""


class StalledStage(Struct, kw_only=True):
    """What one stage did to the loop.

    Attributes:
        stage: its name; None for turns that no single stage held, and for what was not logged.
        is_logged: False for the stalls of any stage that a log only counts, each shorter than the one that it has of
            that second: only their ``count`` is known.
        count: how many stalls there were.
        total_ms, max_ms: for how long they held it.
        streams_max: the most requests in flight, which all waited.
        requests: the ids of those whose stage it was, the longest first.
        waited: how many other requests of the recording were in flight meanwhile.
        waiters: for how many ms, by their ids, those that waited longest.
    """

    stage: str | None
    is_logged: bool = True
    count: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0
    streams_max: int = 0
    requests: list[str] = []
    waited: int = 0
    waiters: dict[str, float] = {}


def stalled_stages(events: Iterable[Recorded]) -> list[StalledStage]:
    """Return what each stage did to the loop, the worst first; last the stalls that were not logged."""
    stalls: list[RecordedStall] = []
    flights: list[tuple[float, float, int | None, str]] = []
    for event in events:
        if isinstance(event, RecordedRequest):
            began_s, ended_s = event.began_s, event.ended_s
            if began_s is not None and ended_s is not None:
                flights.append((began_s, ended_s, event.worker, event.request_id))
        else:
            stalls.append(event)
    flights.sort(key=lambda flight: flight[1])
    ends = [flight[1] for flight in flights]
    stages: dict[str | None, StalledStage] = {}
    held_ms: dict[str | None, dict[str, float]] = {}
    waited_ms: dict[str | None, dict[str, float]] = {}
    for stall in stalls:
        one = stages.setdefault(stall.stage, StalledStage(stage=stall.stage))
        one.count += 1
        one.total_ms += stall.ms
        one.max_ms = max(one.max_ms, stall.ms)
        one.streams_max = max(one.streams_max, stall.streams)
        own = held_ms.setdefault(stall.stage, {})
        if stall.request_id is not None:
            own[stall.request_id] = own.get(stall.request_id, 0.0) + stall.ms
        if (until_s := stall.ended_s) is None:
            continue
        since_s = until_s - stall.ms / 1000
        waiting = waited_ms.setdefault(stall.stage, {})
        for began_s, ended_s, worker, request_id in flights[bisect_left(ends, since_s) :]:
            overlap_ms = (min(ended_s, until_s) - max(began_s, since_s)) * 1000
            if overlap_ms > 1 and worker == stall.worker and request_id != stall.request_id:
                waiting[request_id] = waiting.get(request_id, 0.0) + overlap_ms
    for stage, one in stages.items():
        one.requests = sorted(held_ms[stage], key=lambda id: -held_ms[stage][id])[:MOST_WAITERS]
        waiting = waited_ms.get(stage, {})
        one.waited = len(waiting)
        longest = sorted(waiting.items(), key=lambda item: -item[1])[:MOST_WAITERS]
        one.waiters = {request_id: round(ms, 3) for request_id, ms in longest}
    found = sorted(stages.values(), key=lambda one: -one.total_ms)
    if unlogged := sum(stall.unlogged for stall in stalls):
        found.append(StalledStage(stage=None, is_logged=False, count=unlogged))
    return found


def stalls_page(found: list[StalledStage], paint: Paint) -> list[str]:
    """Return the lines for people."""
    if not found:
        return ["No stall is in the recording: no turn of a stage took over 20 ms, and none of the loop over 50 ms."]
    rows = [
        [
            one.stage or "(no single stage)",
            str(one.count),
            number(one.total_ms),
            number(one.max_ms),
            str(one.streams_max),
            str(one.waited),
        ]
        if one.is_logged
        else ["(not logged)", str(one.count), "-", "-", "-", "-"]
        for one in found
    ]
    head = ["stage", "stalls", "total ms", "max ms", "streams", "waited"]
    lines = table(head, rows)
    lines[0] = paint(lines[0], "dim")
    for one in found:
        name = one.stage or "no single stage"
        if one.requests:
            lines += ["", *wrapped(f"{name} was at work for {', '.join(one.requests)}.")]
        if one.waiters:
            waiters = ", ".join(f"{request_id} ({number(ms)} ms)" for request_id, ms in one.waiters.items())
            more = f", and {one.waited - len(one.waiters)} more" if one.waited > len(one.waiters) else ""
            lines += wrapped(f"For {name} waited: {waiters}{more}.")
    return lines
