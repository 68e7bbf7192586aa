"""The loads for comparing services, and how one round of a load is measured and assessed."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import ctools
from benchmarks.children import Child, open_child
from benchmarks.plan import Load
from benchmarks.processes import (
    TOOL_CORES,
    Server,
    busy_ns,
    cpu_ns,
    family,
    free_port,
    get,
    python,
    rss_kb,
    running,
)
from benchmarks.recording import Figures, Recording, number, table

LOADS: dict[str, dict[str, Any]] = {
    "requests": {"model": "mock-n20-t0", "stream": False, "connections": 10},
    "short": {"model": "mock-n20-t0", "events": 20, "connections": 16},
    "long": {"model": "mock-n2000-t0", "events": 2000, "connections": 16},
    "paced-100": {"model": "mock-n250-d20000-t1-r1", "events": 250, "connections": 100, "warmup_s": 1.0},
    "paced-500": {"model": "mock-n250-d20000-t1-r1", "events": 250, "connections": 500, "warmup_s": 2.0},
    "paced-1000": {"model": "mock-n250-d20000-t1-r1", "events": 250, "connections": 1000, "warmup_s": 3.0},
    # A stream takes 5 s: they are opened evenly over that time; burst-100 opens all at once.
    "slow-1000": {
        "model": "mock-n25-d200000-t1-r1", "events": 25, "connections": 1000, "open_per_s": 200.0, "warmup_s": 7.0,
    },
    "first-1": {"model": "mock-n20-t0", "events": 20, "connections": 1},
    "burst-100": {
        "model": "mock-n20-d20000-t1-r0", "events": 20, "connections": 100,
        "mode": "once", "open_per_s": 0.0, "limit_s": 30.0,
    },
}  # fmt: skip

TITLES = {
    "requests": "non-streaming requests, 10 at a time",
    "short": "streams of 20 events, as fast as possible, 16 at a time",
    "long": "streams of 2 000 events, as fast as possible, 16 at a time",
    "paced-100": "100 streams x 50 events/s (5 000 offered)",
    "paced-500": "500 streams x 50 events/s (25 000 offered)",
    "paced-1000": "1 000 streams x 50 events/s (50 000 offered)",
    "slow-1000": "1 000 streams x 5 events/s (5 000 offered)",
    "first-1": "first text of one stream at a time",
    "burst-100": "100 streams opened at once on new connections",
}

COLUMNS: dict[str, str] = {
    "requests/s": "requests_per_s",
    "events/s": "events_per_s",
    "cpu us/event": "cpu_us_per_event",
    "cpu us/request": "cpu_us_per_request",
    "first p50 ms": "first_ms.p50",
    "first p99 ms": "first_ms.p99",
    "added p50 ms": "added_ms.p50",
    "added p99 ms": "added_ms.p99",
    "server cpu": "server_cpu",
    "tools cpu": "tools_cpu",
    "others cpu": "foreign_cpu",
    "errors": "error_count",
}
"""The column heads of the result tables, each with its figure."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A service under load.

    Attributes:
        name: its name in the tables.
        cores: the number of cores that it may use.
        settings: the fields of `Load` that it needs: path, dialect, headers.
        model: the only model that it knows, if it does not know ours; the upstream's script is then in the message.
        server: its process, if we started it.
    """

    name: str
    port: int
    pids: Sequence[int] = ()
    cores: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    server: Server | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """A running mock upstream on ``port``, and a running load generator; ``kind`` is that of the one to use."""

    kind: str
    upstream: Server
    port: int
    generator: Child

    def direct(self) -> Subject:
        """Return the upstream itself as a subject: what the tools reach with nothing between them."""
        settings = {"path": "/v1/responses", "dialect": "responses"}
        return Subject("tools alone", self.port, settings=settings)

    def stats(self, *, reset: bool = False) -> dict[str, Any]:
        """Return the upstream's counters; the one in C has fewer."""
        body = get(self.port, "/reset" if reset else "/stats").partition(b"\r\n\r\n")[2]
        return msgspec.json.decode(body) if body else {}

    def settle(self, subject: Subject, patience_s: float = 5.0) -> None:
        """Wait until the previous round's streams have ended and the service is idle: their cleanup must not count."""
        limit = time.monotonic() + patience_s
        while time.monotonic() < limit:
            before = cpu_ns(family_of(subject))
            time.sleep(0.1)
            is_idle = cpu_ns(family_of(subject)) - before < 10_000_000  # a tenth of a core
            if is_idle and not self.stats().get("active"):
                return


@contextlib.contextmanager
def open_tools(kind: str = "python") -> Generator[Tools]:
    """Run the tools for the duration of a block, on cores that are not the server's."""
    port = free_port()
    if kind == "c":
        command = [str(ctools.compiled() / "mockup"), "-p", str(port)]
    else:
        command = python("-m", "benchmarks.upstream", "--port", str(port))
    with running(command, cores=TOOL_CORES[:1]) as upstream, open_generator() as generator:
        upstream.wait_ready(port, "/stats", patience_s=20)
        yield Tools(kind, upstream, port, generator)


def open_generator() -> contextlib.AbstractContextManager[Child]:
    """Run a load generator for the duration of a block."""
    return open_child(python("-m", "benchmarks.load"), TOOL_CORES[-1:])


def shape(name: str, subject: Subject, **changes: Any) -> Load:
    """Return a named load, adapted to ``subject``."""
    if "seconds" in changes:  # a very short round, as in tests, has no longer warm-up
        changes = {"warmup_s": min(LOADS.get(name, {}).get("warmup_s", 0.5), 2 * changes["seconds"]), **changes}
    fields = {**LOADS.get(name, {}), "port": subject.port, "pids": list(subject.pids), **subject.settings, **changes}
    if subject.model:
        fields |= {"model": subject.model, "hint": fields["model"]}
    return Load(**fields)


def measure(tools: Tools, subject: Subject, load: Load) -> tuple[Figures, list[str]]:
    """Put ``load`` on ``subject`` once; return the figures, and reasons to doubt them."""
    tools.settle(subject)
    tools.stats(reset=True)
    upstream = [tools.upstream.pid]
    before, busy_before, since = cpu_ns(upstream), busy_ns(), time.monotonic()
    server_before = cpu_ns(family_of(subject))
    figures = _run_c(load) if tools.kind == "c" and ctools.can_run(load) else run_load(tools.generator, load)
    elapsed_s = time.monotonic() - since
    # Over the whole run including warm-up: the upstream does not know when the measurement starts.
    upstream_cpu = (cpu_ns(upstream) - before) / 1e9 / elapsed_s
    server_cpu = (cpu_ns(family_of(subject)) - server_before) / 1e9 / elapsed_s
    machine_cpu = (busy_ns() - busy_before) / 1e9 / elapsed_s
    figures["upstream_cpu"] = round(upstream_cpu, 4)
    figures["upstream_lag_ms"] = tools.stats().get("lag_ms", {})
    load_cpu = figures["load_cpu"]
    figures["tools_cpu"] = round(max(upstream_cpu, load_cpu) if len(TOOL_CORES) > 1 else upstream_cpu + load_cpu, 4)
    figures["foreign_cpu"] = round(max(0.0, machine_cpu - upstream_cpu - server_cpu - load_cpu), 4)
    return figures, flags(figures, subject)


def flags(figures: Figures, subject: Subject) -> list[str]:
    """Return the reasons to doubt a round."""
    found = []
    if subject.pids and figures["tools_cpu"] > 0.9 and figures["server_cpu"] < 0.9 * subject.cores:
        found.append("limited by the load generator")
    if figures["foreign_cpu"] > 0.15:
        found.append(f"other processes used {figures['foreign_cpu']:.0%} of a core")
    if figures["error_count"]:
        found.append(f"{figures['error_count']} errors: {figures['errors']}")
    return found


def family_of(subject: Subject) -> list[int]:
    """Return all processes of a subject."""
    return [member for pid in subject.pids for member in family(pid)]


def run_load(generator: Child, load: Load) -> Figures:
    """Have a load generator run a load, and return the figures."""
    generator.order(load)
    figures: Figures = generator.reply(patience_s(load))
    return figures


def patience_s(load: Load) -> float:
    """Return how long to wait for the figures of a load."""
    return load.seconds + load.warmup_s + load.limit_s + 30


def _run_c(load: Load) -> Figures:
    rss_before_kb = rss_kb(member for pid in load.pids for member in family(pid))
    with tempfile.NamedTemporaryFile(suffix=".json") as output:
        with running(ctools.command(load, Path(output.name)), cores=TOOL_CORES[-1:]) as generator:
            try:
                status = generator.process.wait(patience_s(load))
            except subprocess.TimeoutExpired:
                status = None
            if status != 0:
                raise RuntimeError(f"the load generator ended with {status}: {generator.printed()[-2000:]}")
        return ctools.figures(load, Path(output.name), rss_before_kb)


def compare(
    recording: Recording,
    tools: Tools,
    subjects: Sequence[Subject],
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
) -> None:
    """Measure each load on each subject in turn, round after round, so that noise affects all of them alike."""
    for round_number in range(rounds):
        for name in names:
            for subject in subjects:
                figures, reasons = measure(tools, subject, shape(name, subject, seconds=seconds))
                recording.add(subject.name, name, figures, reasons)
                print_round(round_number, name, subject.name, figures, reasons)


def print_round(round_number: int, name: str, subject: str, figures: Figures, reasons: list[str]) -> None:
    """Print one round when it is done."""
    shown = (
        f"{number(figures['requests_per_s']):>8} req/s {number(figures['events_per_s']):>10} ev/s "
        f"{number(figures['cpu_us_per_event']):>7} us/ev  first p50 {number(figures['first_ms'].get('p50')):>6} ms  "
        f"added p50 {number(figures['added_ms'].get('p50')):>6} p99 {number(figures['added_ms'].get('p99')):>6} ms  "
        f"cpu {figures['server_cpu']:.0%}, tools {figures['tools_cpu']:.0%}"
    )
    print(
        f"{round_number + 1}  {name:<11} {subject:<22} {shown}{'  ! ' + '; '.join(reasons) if reasons else ''}",
        flush=True,
    )


def medians(recording: Recording, names: Sequence[str], *, markdown: bool = False, against: Sequence[str] = ()) -> str:
    """Format the medians of loads, with ratios of events or requests per second to the subjects ``against``."""
    rows = [["load", "service", *COLUMNS, *(f"x {other}" for other in against), "remarks"]]
    for name in names:
        for row in recording.rows:
            if row.measure == name:
                cells = [number(row.median(figure)) for figure in COLUMNS.values()]
                speed = "requests_per_s" if name in ("requests", "short") else "events_per_s"
                for other in against:
                    mine, theirs = row.median(speed), recording.median(other, name, speed)
                    cells.append(number(mine / theirs) if mine is not None and theirs else "-")
                rows.append([name, row.subject, *cells, "; ".join(dict.fromkeys(row.flags))])
    return table(rows, markdown=markdown)
