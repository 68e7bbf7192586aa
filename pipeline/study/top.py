"""What a service does now, as the difference of two readings of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from pipeline.histogram import added_up, quantiles_s

MAX_NAMES: Final = 8
"""Of phases, stages and links: those with the most time."""


class TopStage(Struct):
    """What a stage did: its share of one processor, and events per second."""

    name: str
    busy: float
    events_per_s: float


class TopLink(Struct):
    """What batches waited for between two tasks, in ms for each batch; how long a giver waited for room, as a share."""

    name: str
    ready_ms: float
    queued_ms: float
    full: float
    depth: int


class TopWorker(Struct):
    """One process."""

    worker: int
    alive: bool
    lag_ms: float
    in_flight: int
    resident_mb: float


class Top(Struct, kw_only=True):
    """One interval.

    Attributes:
        seconds: its length.
        ended_per_s: requests that have ended, by their end code.
        in_flight: requests that run.
        party: how many of the running requests waited for whom, on average.
        phase: how many were before which point, on average: of those that have ended in the interval.
        transit_ms, first_token_ms, gap_ms: the median and the 99th percentile; None if there were none.
        stall_ms: how long the loop was held, by the stage that held it.
        stalls, running: as the service gives them.
    """

    at_s: float
    seconds: float
    ended_per_s: dict[str, float]
    in_flight: int
    party: dict[str, float]
    phase: dict[str, float]
    stages: list[TopStage]
    links: list[TopLink]
    transit_ms: tuple[float, float] | None
    first_token_ms: tuple[float, float] | None
    gap_ms: tuple[float, float] | None
    workers: list[TopWorker]
    stall_ms: dict[str, float]
    stalls: list[dict[str, Any]]
    running: list[dict[str, Any]]


Figures = Mapping[str, Any]
"""`/latency/now`: its fields are those of docs/operations.md; what a server of another version lacks counts as 0."""


def top_of(before: Figures, after: Figures, last: Top | None = None) -> Top:
    """Return what has happened between two readings.

    Args:
        before, after: the readings.
        last: what was returned for the one before: whose time it is stays as it was until the workers say it again,
            which they do once a second.
    """
    seconds = max(1e-3, after["now_s"] - before["now_s"])
    party_seconds = after.get("party_at_s", after["now_s"]) - before.get("party_at_s", before["now_s"])

    def rate(field: str, seconds: float = seconds) -> dict[str, float]:
        was = before.get(field, {})
        return {name: max(0.0, value - was.get(name, 0.0)) / seconds for name, value in after.get(field, {}).items()}

    if party_seconds > 0:
        party = rate("party_s", party_seconds)
    else:
        party = dict.fromkeys(after.get("party_s", {}), 0.0) if last is None else last.party

    def grown(field: str, name: str, figure: str) -> float:
        was = before.get(field, {}).get(name, {}).get(figure, 0.0)
        return max(0.0, float(after[field][name].get(figure, 0.0) - was))

    stages = [
        TopStage(name, grown("stages", name, "busy_s") / seconds, grown("stages", name, "events_in") / seconds)
        for name in after.get("stages", {})
    ]
    links: list[TopLink] = []
    for name, now in after.get("links", {}).items():
        batches = grown("links", name, "batches") or 1
        ready_ms, queued_ms = (1e3 * grown("links", name, f"{kind}_s") / batches for kind in ("ready", "queued"))
        full = grown("links", name, "full_s") / seconds
        links.append(TopLink(name, ready_ms, queued_ms, full, int(now.get("depth", 0))))
    return Top(
        at_s=after["now_s"],
        seconds=seconds,
        ended_per_s=rate("ended"),
        in_flight=after.get("in_flight", 0),
        party=party,
        phase=_largest({name: value for name, value in rate("phase_s").items() if value}),
        stages=sorted(stages, key=lambda stage: -stage.busy)[:MAX_NAMES],
        links=sorted(links, key=lambda link: -(link.ready_ms + link.queued_ms + link.full))[:MAX_NAMES],
        transit_ms=_quantiles_ms(before, after, "transit"),
        first_token_ms=_quantiles_ms(before, after, "first_token"),
        gap_ms=_quantiles_ms(before, after, "gap_client"),
        workers=[
            TopWorker(one["worker"], one["alive"], one["lag_s"] * 1e3, one["in_flight"], one["resident_bytes"] / 2**20)
            for one in after.get("workers", [])
        ],
        stall_ms={name: 1e3 * value * seconds for name, value in rate("stall_s").items() if value},
        stalls=after.get("stalls", []),
        running=after.get("running", []),
    )


def carried(before: Figures, after: Figures) -> Figures:
    """Return ``after`` for the next interval to start from, which has what came to ``party_s`` without a new board."""
    if after.get("party_at_s", after["now_s"]) > before.get("party_at_s", before["now_s"]):
        return after
    return {**after, "party_s": before.get("party_s", {})}


def _largest(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the largest ones, in their own order."""
    names = sorted(figures, key=lambda name: -figures[name])[:MAX_NAMES]
    return {name: value for name, value in figures.items() if name in names}


def _quantiles_ms(before: Figures, after: Figures, name: str) -> tuple[float, float] | None:
    histograms = [reading.get("histograms", {}).get(name, {}) for reading in (before, after)]
    step = max(histogram.get("step", 1) for histogram in histograms)
    was, now = [added_up(dict(histogram.get("slots", [])), step) for histogram in histograms]
    counts = now - was  # without those of a service that has restarted
    if not counts:
        return None
    half_s, most_s = quantiles_s(counts, 0.5, 0.99, step=step)
    return half_s * 1e3, most_s * 1e3
