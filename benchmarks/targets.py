"""What we want the service to reach, and how each figure is found in the results."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench_gateway import meter_shares, worker_ratio
from benchmarks.recording import Recording, number

OURS = "headrace"
LIMIT = "byte splice"
Found = float | None


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        what: the load and the figure.
        bound: the number to reach.
        is_least: whether more is better.
        find: gives the figure of the two recordings (whole service, peers), None if it was not measured.
        unit: what it is counted in.
        measure: the load in the recordings, for its flags.
        compared: a figure measured elsewhere, which shows the order of magnitude.
    """

    what: str
    bound: float
    is_least: bool
    find: Callable[[Recording, Recording], Found]
    unit: str = ""
    measure: str = ""
    compared: str = ""

    def row(self, gateway: Recording, peers: Recording) -> list[str]:
        """Return the target's row in the table of targets."""
        value = self.find(gateway, peers)
        if value is None:
            verdict = "not measured, or not well enough"
        else:
            verdict = "met" if (value >= self.bound) == self.is_least or value == self.bound else "**missed**"
        row = gateway.row(OURS, self.measure)
        remarks = "; ".join(dict.fromkeys(row.flags)) if row else ""
        sign = ">=" if self.is_least else "<="
        bound = f"{sign} {number(self.bound)} {self.unit}".strip()
        return [self.what, bound, number(value), verdict, self.compared, remarks]


def _of(load: str, figure: str) -> Callable[[Recording, Recording], Found]:
    return lambda gateway, peers: gateway.median(OURS, load, figure)


def _ratio(load: str, figure: str, other: str) -> Callable[[Recording, Recording], Found]:
    """Compare with another service of the same run: rates of different runs are not comparable."""

    def find(gateway: Recording, peers: Recording) -> Found:
        mine, theirs = peers.median(OURS, load, figure), peers.median(other, load, figure)
        return mine / theirs if mine is not None and theirs else None

    return find


def _meters(gateway: Recording) -> Found:
    """Return the median share of the meters; None if the rounds vary by more than the target (then add rounds)."""
    shares = sorted(meter_shares(gateway, "paced-100"))
    if len(shares) < 5:
        return None
    quarter = len(shares) // 4
    scatter = (shares[-1 - quarter] - shares[quarter]) / len(shares) ** 0.5  # roughly that of the median
    return statistics.median(shares) if scatter <= 0.03 else None


TARGETS = (
    Target(
        "non-streaming requests",
        3000,
        True,
        _of("requests", "requests_per_s"),
        "/s",
        "requests",
        "LiteLLM 1.106: 53/s; the same connection class in the experiments: 2,900/s",
    ),
    Target("non-streaming requests, against LiteLLM", 50, True, _ratio("requests", "requests_per_s", "LiteLLM"), "x"),
    Target(
        "short streams of 20 events",
        1500,
        True,
        _of("short", "requests_per_s"),
        "/s",
        "short",
        "LiteLLM 1.106: 7-8 streams/s of 200 events",
    ),
    Target(
        "long bursts",
        350_000,
        True,
        _of("long", "events_per_s"),
        "events/s",
        "long",
        "LiteLLM 1.106: 1,600; a bare trio server with such a codec: 540,000; a byte splice: 2,240,000",
    ),
    Target(
        "100 streams x 50/s: CPU per event, against the splice",
        1.6,
        False,
        _ratio("paced-100", "cpu_us_per_event", LIMIT),
        "x",
    ),
    Target("100 streams x 50/s: added latency p50", 0.3, False, _of("paced-100", "added_ms.p50"), "ms", "paced-100"),
    Target("100 streams x 50/s: added latency p99", 5, False, _of("paced-100", "added_ms.p99"), "ms", "paced-100"),
    # Opening and ending a stream take a little of its time, so 50 000 offered never quite reach 50 000 per second.
    Target(
        "1 000 streams x 50/s: delivered", 49_000, True, _of("paced-1000", "events_per_s"), "events/s", "paced-1000"
    ),
    Target("1 000 streams x 50/s: added latency p50", 60, False, _of("paced-1000", "added_ms.p50"), "ms", "paced-1000"),
    Target("1 000 streams x 50/s: first text p50", 1000, False, _of("paced-1000", "first_ms.p50"), "ms", "paced-1000"),
    Target("1 000 streams x 5/s: added latency p99", 50, False, _of("slow-1000", "added_ms.p99"), "ms", "slow-1000"),
    Target(
        "first text, 1 stream, p50", 2, False, _of("first-1", "first_ms.p50"), "ms", "first-1", "LiteLLM 1.106: 22 ms"
    ),
    Target(
        "first text, 100 opened at once, p50",
        100,
        False,
        _of("burst-100", "first_ms.p50"),
        "ms",
        "burst-100",
        "LiteLLM 1.106: 2-3 s",
    ),
    Target(
        "memory of an active stream, 5 000 open",
        40,
        False,
        _of("memory, speaking, 5000 streams", "kb_per_stream"),
        "KB",
        "memory, speaking, 5000 streams",
        "httpx's own client alone: 70-87 KB",
    ),
    Target("start-up to ready", 1.0, False, _of("start-up", "ready_s"), "s", "start-up", "LiteLLM 1.106: 14 s"),
    Target("2 workers against 1: requests", 1.7, True, lambda gateway, _: worker_ratio(gateway, "requests"), "x"),
    Target("2 workers against 1: short streams", 1.7, True, lambda gateway, _: worker_ratio(gateway, "short"), "x"),
    Target(
        "share of the meters in the CPU per paced event",
        0.03,
        False,
        lambda gateway, _: _meters(gateway),
        "",
    ),
)
