"""What a recording says of one request and of one stall: the lines of the JSON log, as docs/latency.md explains them.

Whatever a line does not have gets a default, so that recordings of other versions, and lines that were cut down, can
be read; fields that are not known here are ignored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import Struct

ON_SOCKETS: Final = {"call_upstream": "upstream", "write_sse": "client", "write_json": "client"}
"""The stages whose waits are the upstream's or the client's; those of the others are ours."""


class RecordedLane(Struct, kw_only=True):
    """The time of one task, in ms."""

    stages: list[str] = []
    life_ms: float = 0.0
    starved_ms: float = 0.0
    ready_ms: float = 0.0
    busy_ms: float = 0.0
    outside_ms: float = 0.0
    blocked_ms: float = 0.0
    closing_ms: float = 0.0


class RecordedStage(Struct, kw_only=True, gc=False):
    """What one stage did."""

    busy_ms: float = 0.0
    outside_ms: float = 0.0
    flush_ms: float = 0.0
    batches_in: int = 0
    events_in: int = 0
    batches_out: int = 0
    events_out: int = 0

    @property
    def work_ms(self) -> float:
        """How long its own code ran."""
        return self.busy_ms + self.flush_ms


class RecordedLink(Struct, kw_only=True, gc=False):
    """How long batches waited between two tasks."""

    ready_ms: float = 0.0
    queued_ms: float = 0.0
    full_ms: float = 0.0
    batches: int = 0


class RecordedAttempt(Struct, kw_only=True):
    """One attempt at an answer."""

    deployment: str | None = None
    model: str | None = None
    reason: str | None = None
    pause_ms: float = 0.0
    end: str = "OK"
    upstream_status: int | None = None
    began_ms: float = 0.0
    ms: float = 0.0
    events: int = 0
    lanes: dict[str, RecordedLane] = {}
    stages: dict[str, RecordedStage] = {}
    links: dict[str, RecordedLink] = {}


class RecordedTrace(Struct, kw_only=True):
    """The spans of a request that was traced per batch, in microseconds since its birth.

    Attributes:
        lanes, stages, links: the names that the spans refer to.
        lane_of_stage: the index of the lane of each stage.
        spans: kind, index, start, duration and the number of the batch.
        lost: how many spans were not kept.
    """

    lanes: list[str] = []
    stages: list[str] = []
    links: list[str] = []
    lane_of_stage: list[int] = []
    spans: list[tuple[int, int, float, float, int]] = []
    lost: int = 0


class RecordedRequest(Struct, kw_only=True):
    """A finished request; its fields are those of the log, in ms."""

    ts: str = ""
    worker: int | None = None
    request_id: str = ""
    key: str | None = None
    model: str | None = None
    target_model: str | None = None
    deployment: str | None = None
    stream: bool | None = None
    end: str = "OK"
    status: int | None = None
    events: int = 0
    generation: int = 1
    total_ms: float = 0.0
    before_ms: float | None = None
    first_byte_ms: float | None = None
    first_token_ms: float | None = None
    error: str | None = None
    stage: str | None = None
    party_ms: dict[str, float] = {}
    points_ms: dict[str, float] = {}
    lanes: dict[str, RecordedLane] = {}
    stages: dict[str, RecordedStage] = {}
    links: dict[str, RecordedLink] = {}
    transit_ms: dict[str, float] | None = None
    attempts: list[RecordedAttempt] = []
    arounds_ms: dict[str, float] = {}
    trace: RecordedTrace | None = None

    @property
    def ended_s(self) -> float | None:
        """When it ended, in seconds since the epoch; None if its line does not say."""
        return seconds_of(self.ts)

    @property
    def began_s(self) -> float | None:
        """When it began."""
        return None if (ended_s := self.ended_s) is None else ended_s - self.total_ms / 1000

    @property
    def phases_ms(self) -> dict[str, float]:
        """How long it took from each point to the next, by the name of the latter; they sum to the total."""
        phases: dict[str, float] = {}
        before_ms = 0.0
        for name, ms in sorted(self.points_ms.items(), key=lambda point: point[1]):
            phases[name] = max(0.0, ms - before_ms)
            before_ms = ms
        return phases


class RecordedStall(Struct, kw_only=True):
    """The loop was held for so many ms; ``ts`` is when that was over."""

    ts: str = ""
    worker: int | None = None
    stage: str | None = None
    request_id: str | None = None
    ms: float = 0.0
    streams: int = 0
    unlogged: int = 0

    @property
    def ended_s(self) -> float | None:
        """When it was over, in seconds since the epoch."""
        return seconds_of(self.ts)


Recorded = RecordedRequest | RecordedStall


def seconds_of(ts: str) -> float | None:
    """Return a time of the log in seconds since the epoch; None if it is not one."""
    try:
        return datetime.fromisoformat(ts).timestamp()
    except ValueError:
        return None
