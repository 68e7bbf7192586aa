"""What all requests of a recording say together: stages, lanes, links, phases, parties, ends and deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from pipeline.study.figures import LANE_STATES, Samples, figures_of
from pipeline.study.parts import PARTIES
from pipeline.study.records import ON_SOCKETS, Recorded, RecordedRequest, RecordedStall
from pipeline.study.traced import first_token_work_ms

CONSERVED: float = 0.01
"""By how much of the total the parties may miss it: figures in JSON have lost up to a microsecond each."""


class StageRow(Struct, kw_only=True):
    """One stage, in ms per request; shares are of the sums over all requests.

    ``outside_of`` says whose time its waits are. ``first_token_share`` is None if no request was traced per batch.
    """

    requests: int
    busy_p50_ms: float
    busy_p99_ms: float
    outside_p50_ms: float
    outside_p99_ms: float
    outside_of: str
    total_share: float
    first_token_share: float | None
    events_in: int
    events_out: int


class Spread(Struct, kw_only=True):
    """A figure of many requests."""

    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    sum_ms: float
    share: float


class DeploymentRow(Struct, kw_only=True):
    """The requests of one deployment; ``ends`` has how many ended how."""

    requests: int
    ends: dict[str, int]
    total_p50_ms: float
    total_p99_ms: float
    first_token_p50_ms: float | None
    first_token_p99_ms: float | None
    upstream_share: float


class Report(Struct, kw_only=True):
    """What all requests say together.

    Attributes:
        requests, streams: how many there are, and how many of them streamed.
        began, ended: the first and the last time of a line.
        total, first_token: of the requests.
        parties: the time of each party.
        residual_ms: the total less the three parties; not more than rounding explains.
        is_conserved: whether that is true of each request.
        phases, stages, lanes, links, transit: as in the record.
        ends: how many requests ended how.
        deployments: by their ids.
        stalls, stall_ms: how many stalls there were, and for how long.
    """

    requests: int
    streams: int
    began: str
    ended: str
    total: Spread
    first_token: Spread | None
    parties: dict[str, Spread]
    residual_ms: float
    is_conserved: bool
    phases: dict[str, Spread]
    stages: dict[str, StageRow]
    lanes: dict[str, dict[str, Spread]]
    links: dict[str, dict[str, Spread]]
    transit: dict[str, Spread]
    ends: dict[str, int]
    deployments: dict[str, DeploymentRow]
    stalls: int
    stall_ms: float


class Reporter:
    """Collects requests, in memory that does not grow with their number, and makes the report."""

    def __init__(self) -> None:
        self._figures = Samples()
        self._deployments = Samples()
        self._ends: Counter[str] = Counter()
        self._ends_of: dict[str, Counter[str]] = {}
        self._events_in: Counter[str] = Counter()
        self._events_out: Counter[str] = Counter()
        self._early_ms: Counter[str] = Counter()
        self._traced_first_ms = 0.0
        self._times: list[str] = []
        self._requests = self._streams = self._stalls = 0
        self._residual_ms = self._stall_ms = 0.0
        self._is_conserved = True

    def add(self, event: Recorded) -> None:
        """Add a request or a stall."""
        if isinstance(event, RecordedStall):
            self._stalls += 1
            self._stall_ms += event.ms
            return
        self._requests += 1
        self._streams += bool(event.stream)
        self._ends[event.end] += 1
        if event.ts:
            self._times = [min([event.ts, *self._times]), max([event.ts, *self._times])]
        for name, ms in figures_of(event):
            self._figures.add(name, ms)
        self._add_residual(event)
        for name, stage in event.stages.items():
            self._events_in[name] += stage.events_in
            self._events_out[name] += stage.events_out
        deployment = event.deployment or "(none)"
        self._ends_of.setdefault(deployment, Counter())[event.end] += 1
        self._deployments.add(f"total {deployment}", event.total_ms)
        self._deployments.add(f"upstream {deployment}", event.party_ms.get("upstream", 0.0))
        if event.first_token_ms is not None:
            self._deployments.add(f"first {deployment}", event.first_token_ms)
        if event.trace is not None and event.first_token_ms is not None:
            self._traced_first_ms += event.first_token_ms
            self._early_ms.update(first_token_work_ms(event.trace, event.first_token_ms))

    def _add_residual(self, request: RecordedRequest) -> None:
        residual_ms = request.total_ms - sum(request.party_ms.values())
        self._residual_ms += residual_ms
        if request.party_ms and abs(residual_ms) > max(CONSERVED, 1e-6 * request.total_ms):
            self._is_conserved = False

    def report(self) -> Report:
        """Return the report."""
        ends = dict(self._ends.most_common())
        return Report(
            requests=self._requests,
            streams=self._streams,
            began=self._times[0] if self._times else "",
            ended=self._times[-1] if self._times else "",
            total=self._spread("total_ms"),
            first_token=self._spread("first_token_ms") if "first_token_ms" in self._figures else None,
            parties={party: self._spread(f"party.{party}") for party in PARTIES},
            residual_ms=round(self._residual_ms, 3),
            is_conserved=self._is_conserved,
            phases={name: self._spread(f"phases.{name}") for name in self._names("phases.")},
            stages={name: self._stage(name) for name in self._names("stages.", ".busy_ms")},
            lanes={
                name: {state.removesuffix("_ms"): self._spread(f"lanes.{name}.{state}") for state in LANE_STATES}
                for name in self._names("lanes.", ".busy_ms")
            },
            links={
                name: {
                    what.removesuffix("_ms"): self._spread(f"links.{name}.{what}")
                    for what in ("ready_ms", "queued_ms", "full_ms")
                }
                for name in self._names("links.", ".ready_ms")
            },
            transit={name: self._spread(f"transit_ms.{name}") for name in self._names("transit_ms.")},
            ends=ends,
            deployments={name: self._deployment(name) for name in sorted(self._ends_of)},
            stalls=self._stalls,
            stall_ms=round(self._stall_ms, 3),
        )

    def _names(self, before: str, after: str = "") -> Iterable[str]:
        for name in self._figures:
            if name.startswith(before) and name.endswith(after):
                yield name[len(before) : len(name) - len(after)]

    def _spread(self, name: str) -> Spread:
        sample = self._figures.of(name)
        whole = self._figures.of("total_ms").sum
        return Spread(
            requests=sample.count,
            p50_ms=round(sample.quantile(0.5), 3),
            p99_ms=round(sample.quantile(0.99), 3),
            max_ms=round(sample.max, 3),
            sum_ms=round(sample.sum, 3),
            share=round(sample.sum / whole, 6) if whole else 0.0,
        )

    def _stage(self, name: str) -> StageRow:
        busy, outside = self._figures.of(f"stages.{name}.busy_ms"), self._figures.of(f"stages.{name}.outside_ms")
        whole = self._figures.of("total_ms").sum
        own = busy.sum + (0.0 if name in ON_SOCKETS else outside.sum)
        early = self._early_ms.get(name, 0.0)
        return StageRow(
            requests=busy.count,
            busy_p50_ms=round(busy.quantile(0.5), 3),
            busy_p99_ms=round(busy.quantile(0.99), 3),
            outside_p50_ms=round(outside.quantile(0.5), 3),
            outside_p99_ms=round(outside.quantile(0.99), 3),
            outside_of=ON_SOCKETS.get(name, "ours"),
            total_share=round(own / whole, 6) if whole else 0.0,
            first_token_share=round(early / self._traced_first_ms, 6) if self._traced_first_ms else None,
            events_in=self._events_in[name],
            events_out=self._events_out[name],
        )

    def _deployment(self, name: str) -> DeploymentRow:
        total, first = self._deployments.of(f"total {name}"), self._deployments.of(f"first {name}")
        return DeploymentRow(
            requests=total.count,
            ends=dict(self._ends_of[name].most_common()),
            total_p50_ms=round(total.quantile(0.5), 3),
            total_p99_ms=round(total.quantile(0.99), 3),
            first_token_p50_ms=round(first.quantile(0.5), 3) if first.count else None,
            first_token_p99_ms=round(first.quantile(0.99), 3) if first.count else None,
            upstream_share=round(self._deployments.of(f"upstream {name}").sum / total.sum, 6) if total.sum else 0.0,
        )
