"""The shapes of what ``/latency/...`` answers, as types: the lines of records, and the document of ``now``.

The writers are `pipeline.gateway.logs`, which puts a time and a kind before each record, and `now`. ``/openapi.json``
is made of these types.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from msgspec import UNSET, UnsetType

from pipeline.gateway.admin.summaries import RequestSummary
from pipeline.gateway.board import RunningRequest
from pipeline.gateway.logs import StallRecord
from pipeline.gateway.request_record import RequestRecord


class RequestLine(RequestRecord, kw_only=True):
    """A finished request: its line of the JSON log.

    Attributes:
        ts: when it ended.
        worker: the number of the process that served it, if there are several.
    """

    ts: str
    worker: int | UnsetType = UNSET
    event: Literal["request"]


class StallLine(StallRecord, frozen=True, kw_only=True):
    """The loop of a process was held: its line of the JSON log.

    Attributes:
        ts: when that was over.
        worker: the number of the process, if there are several.
    """

    ts: str
    worker: int | UnsetType = UNSET
    event: Literal["stall"]


class WorkerNow(TypedDict):
    """One process.

    Attributes:
        alive: whether it runs.
        is_silent: whether it runs, and shows nothing of what it does.
        lag_s: how late its loop has been last.
    """

    worker: int
    pid: int
    alive: bool
    is_silent: bool
    lag_s: float
    resident_bytes: int
    in_flight: int
    client_sockets: int
    upstream_sockets: int


class StageNow(TypedDict):
    """What a stage has done since the start."""

    busy_s: float
    outside_s: float
    events_in: int
    events_out: int


class LinkNow(TypedDict):
    """How batches have waited in a link since the start, and how many wait there now (``depth``)."""

    ready_s: float
    queued_s: float
    full_s: float
    batches: int
    depth: int


class HistogramNow(TypedDict):
    """A log-linear histogram of durations.

    Attributes:
        step: how many neighbouring slots are added up to one.
        slots: of each slot that is not empty its number and its count.
    """

    step: int
    slots: list[tuple[int, int]]
    sum_s: float


class NowDocument(TypedDict):
    """What the service has counted since its start, and what it does now.

    Attributes:
        now_s: the time, in seconds since the epoch.
        headrace: the version.
        is_watched: whether all processes show what they do; they begin to when this is asked for.
        ended: how many requests have ended with each end code.
        lost: how many requests have ended with a process that died.
        party_s: whose time it was.
        party_at_s: until when that is known.
        phase_s: the time that requests took from each point to the next.
        stall_s: for how long each stage has held the loop.
        lanes_s: what the tasks did with their time, by lane and state.
        running: the requests that have been idle for the longest.
        recent: the last requests of some kinds.
    """

    now_s: float
    headrace: str
    is_watched: bool
    workers: list[WorkerNow]
    ended: dict[str, int]
    in_flight: int
    lost: int
    party_s: dict[str, float]
    party_at_s: float
    phase_s: dict[str, float]
    stall_s: dict[str, float]
    lanes_s: dict[str, dict[str, float]]
    stages: dict[str, StageNow]
    links: dict[str, LinkNow]
    histograms: dict[str, HistogramNow]
    stalls: list[StallLine]
    running: list[RunningRequest]
    recent: dict[str, list[RequestSummary]]
