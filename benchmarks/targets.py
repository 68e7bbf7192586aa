"""What we want the service to reach, and how each figure is found in the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.bench_gateway import LOG_MEASURES, cost_of_record, worker_ratio
from benchmarks.bench_meters import SHARE_LIMIT, share_of_figures
from benchmarks.bench_records import ALLOWED_MS, error_at_p99
from benchmarks.recording import Recording, number

OURS = "headrace"
LIMIT = "byte splice"
Found = float | None
Results = Mapping[str, Recording]
"""The newest recording of each benchmark, by its name."""
Find = Callable[[Results], Found]


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        what: the load and the figure.
        bound: the number to reach.
        is_least: whether more is better.
        find: returns the figure, or None if it was not measured.
        unit: what it is counted in.
        measure: the load in the recording of the whole service, for its flags.
        compared: a figure measured elsewhere, which shows the order of magnitude.
    """

    what: str
    bound: float
    is_least: bool
    find: Find
    unit: str = ""
    measure: str = ""
    compared: str = ""

    def row(self, results: Results) -> list[str]:
        """Return the target's row in the table of targets."""
        value = self.find(results)
        if value is None:
            verdict = "not measured, or not well enough"
        else:
            verdict = "met" if (value >= self.bound) == self.is_least or value == self.bound else "**missed**"
        row = results["gateway"].row(OURS, self.measure) if "gateway" in results else None
        remarks = "; ".join(dict.fromkeys(row.flags)) if row else ""
        sign = ">=" if self.is_least else "<="
        bound = f"{sign} {number(self.bound)} {self.unit}".strip()
        return [self.what, bound, number(value), verdict, self.compared, remarks]


def _in(benchmark: str, find: Callable[[Recording], Found]) -> Find:
    """Look in the recording of one benchmark."""
    return lambda results: find(results[benchmark]) if benchmark in results else None


def _of(load: str, figure: str) -> Find:
    return _in("gateway", lambda gateway: gateway.median(OURS, load, figure))


def _ratio(load: str, figure: str, other: str) -> Find:
    """Compare with another service of the same run: rates of different runs are not comparable."""

    def find(peers: Recording) -> Found:
        mine, theirs = peers.median(OURS, load, figure), peers.median(other, load, figure)
        return mine / theirs if mine is not None and theirs else None

    return _in("peers", find)


def _percent(share: Find) -> Find:
    def find(results: Results) -> Found:
        value = share(results)
        return None if value is None else value * 100

    return find


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
        41,
        False,
        _of("memory, speaking, 5000 streams", "kb_per_stream"),
        "KB",
        "memory, speaking, 5000 streams",
        "httpx's own client alone: 70-87 KB",
    ),
    Target("start-up to ready", 1.0, False, _of("start-up", "ready_s"), "s", "start-up", "LiteLLM 1.106: 14 s"),
    Target(
        "2 workers against 1: requests",
        1.7,
        True,
        _in("gateway", lambda gateway: worker_ratio(gateway, "requests")),
        "x",
    ),
    Target(
        "2 workers against 1: short streams",
        1.7,
        True,
        _in("gateway", lambda gateway: worker_ratio(gateway, "short")),
        "x",
    ),
    Target(
        "the figures' share in the CPU of a paced event",
        SHARE_LIMIT * 100,
        False,
        _percent(_in("meters", share_of_figures)),
        "%",
    ),
    Target(
        "what the log adds to the CPU of a request",
        LOG_MEASURES["log requests"].limit * 100,
        False,
        _percent(_in("gateway", cost_of_record)),
        "%",
    ),
    Target(
        "error of the total in a log record, p99, more than the splice's",
        ALLOWED_MS,
        False,
        _in("records", error_at_p99),
        "ms",
        compared="before the records began with the kernel's stamp, beside a blocked loop: 98 ms",
    ),
)
