"""Run headrace for a long time under mixed load with random faults, then look for what is left behind.

Run: ``python -m benchmarks.soak --minutes 10`` (``make soak MINUTES=10``). With ``--paced`` the load is 5 000 streams
of 1.5 events a second, 1 % of whose clients leave and 1 % of whose upstreams fail; at the end 1 000 clients vanish at
once. It prints a report, and exits with 1 and the reasons if an answer was not as planned, a connection failed, or
anything was left: tasks, requests, connections, descriptors, memory. Times are judged with ``--strict`` only: on a busy
machine they say more about the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.gateways import KEY
from benchmarks.processes import (
    SERVER_CORES,
    TOOL_CORES,
    Server,
    cpu_ns,
    family,
    free_port,
    get,
    percentiles,
    python,
    raise_descriptor_limit,
    rss_kb,
    running,
    shared_rss_kb,
)
from benchmarks.soak_clients import Clients
from benchmarks.soak_plans import Plans
from pipeline.segments import BOARD_BYTES, DEFAULT_RING_BYTES, SERIES_BYTES

STREAMS, PACED_STREAMS = 120, 5000
PACED_GAP_US = 666_667
PACED_EVENTS = 60
WRITE_TIMEOUT_S = 3
"""So that readers that stall are reset while the load runs; nobody stalls in the paced one."""
SLACK_US = 1000
"""How precisely the upstream sends events: all of it runs on the cores of the service."""
VANISHING = 1000
CANCEL_P99_MS, ADDED_P99_MS, VANISH_S = 100.0, 50.0, 1.0
"""What the times must be at most, if they are judged."""
GROWTH_KB, GROWTH_SHARE = 16 * 1024, 0.04
"""So much may the memory grow from the second fifth of the load to the last, in all, whatever it lasted. It is the
processes' own memory, without what they share: the flight recorder fills its ring for as long as it takes."""
SHARED_KB: Final = (DEFAULT_RING_BYTES + SERIES_BYTES + BOARD_BYTES) // 1024 + 1024
"""What each worker may have of shared memory: its segment with a full ring, and a little for the counts of limits."""
SETTLE_S = 15.0
"""How long it may take until nothing is left: the longest wait is that of an upstream that is silent."""

_CONFIG = """\
model_list:
  - model_name: "mock-*"
    litellm_params: {{model: "openai/mock-*", api_base: "http://127.0.0.1:{port}/v1", api_key: sk-upstream, timeout: 8}}
general_settings: {{master_key: {key}}}
pipeline_settings:
  {{log_level: warning, write_timeout_s: {write_s}, max_connections: 20000, upstream_max_connections: 20000,
   max_lag_ms: 0}}
"""


@dataclass
class Service:
    """headrace under a soak."""

    port: int
    upstream_port: int
    server: Server
    held_folder: Path
    own: list[tuple[float, int]] = field(default_factory=list)
    shared_kb: int = 0

    @property
    def pids(self) -> list[int]:
        """The processes that serve: the workers if it has several, else itself."""
        return family(self.server.pid)[1:] or [self.server.pid]

    def held(self) -> dict[str, int]:
        """Return what its processes hold, in all; see `inspected`."""
        files = {pid: Path(self.held_folder, f"held-{pid}") for pid in self.pids}
        for pid, file in files.items():
            file.unlink(missing_ok=True)
            os.kill(pid, signal.SIGUSR2)
        until = time.monotonic() + 30
        while not all(file.exists() for file in files.values()):
            if time.monotonic() > until or self.server.process.poll() is not None:
                raise SystemExit(f"the service does not answer; it printed:\n{self.server.printed()[-3000:]}")
            time.sleep(0.01)
        total: Counter[str] = Counter(upstream_idle=self.upstream()["connections"])
        for pid, file in files.items():
            total.update(msgspec.json.decode(file.read_bytes()))
            total["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
        return total

    def upstream(self, path: str = "/counts") -> dict[str, Any]:
        """Return what the upstream has counted."""
        body = get(self.upstream_port, path, timeout_s=10).partition(b"\r\n\r\n")[2]
        counted: dict[str, Any] = msgspec.json.decode(body)
        return counted

    def note_memory(self) -> None:
        """Note how much memory it has now, of its own and shared."""
        pids = self.pids
        shared_kb = {pid: shared_rss_kb([pid]) for pid in pids}
        self.own.append((time.monotonic(), rss_kb(pids) - sum(shared_kb.values())))
        self.shared_kb = max(shared_kb.values())


@contextlib.contextmanager
def serving(write_timeout_s: int, workers: int) -> Generator[Service]:
    """Run the service and its upstream for the duration of a block; several workers may use all cores."""
    port, upstream_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-soak-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(_CONFIG.format(port=upstream_port, key=KEY, write_s=write_timeout_s))
        command = python("-m", "benchmarks.inspected", "serve", "--config", str(config), "--host", "127.0.0.1")
        upstream = python("-m", "benchmarks.upstream", "--port", str(upstream_port), "--slack-us", str(SLACK_US))
        with (
            running(upstream, cores=TOOL_CORES[:1]) as mock,
            running(
                [*command, "--port", str(port), "--workers", str(workers)],
                cores=SERVER_CORES if workers == 1 else (),
                environ={"HEADRACE_HELD": folder},
            ) as server,
        ):
            mock.wait_ready(upstream_port, "/stats")
            server.wait_ready(port)
            yield Service(port, upstream_port, server, Path(folder))


def soak(options: argparse.Namespace) -> list[str]:
    """Put the load on the service, print a report, and return what is wrong."""
    problems: list[str] = []
    with serving(WRITE_TIMEOUT_S if not options.paced else 20, options.workers) as service:
        plans = Plans(
            options.seed,
            faults=options.faults,
            paced=options.paced,
            events=PACED_EVENTS if options.paced else 20,
            gap_us=PACED_GAP_US if options.paced else 50_000,
        )
        clients = Clients(service.port, plans)
        _warm_up(clients, service, options)
        before = service.held()
        _load(clients, service, options)
        if not all((during := service.held())[name] for name in ("requests", "in_flight", "upstream_active")):
            problems.append(f"what is held is not seen: {during} under load")
        vanished = _vanish(clients, service, problems) if options.paced else array("q")
        clients.draws = False
        longest_s = PACED_EVENTS * PACED_GAP_US / 1e6 if options.paced else 10.0
        clients.run(time.monotonic() + longest_s + 30, lambda: not clients.open)
        unended = len(clients.open)
        clients.close()
        if unended:
            problems.append(f"{unended} answers have not ended")
        after = _settled(service, before)
        _judge(clients, service, before, after, vanished, options, problems)
        if (status := service.server.process.poll()) is not None:
            problems.append(f"the service has ended with {status}")
        if "Traceback" in (printed := service.server.printed()):
            problems.append(f"the service has logged a traceback:\n{printed[-3000:]}")
    return problems


def _warm_up(clients: Clients, service: Service, options: argparse.Namespace) -> None:
    """Have everything happen that happens once: imports, caches, compiled patterns."""
    clients.start(min(50, options.streams), 50)
    clients.run(time.monotonic() + min(4.0, options.minutes * 10))
    clients.draws = False
    clients.run(time.monotonic() + 40, lambda: not clients.open)
    _wait_idle(service)
    clients.draws = True


def _load(clients: Clients, service: Service, options: argparse.Namespace) -> None:
    per_s = options.streams / (PACED_EVENTS * PACED_GAP_US / 1e6) if options.paced else 100.0
    clients.start(options.streams, per_s)
    began = time.monotonic()
    ramp_s = options.streams / per_s + 1
    end = began + max(options.minutes * 60, 0) + (ramp_s if options.paced else 0)
    clients.added_ns = array("q")
    while (now := time.monotonic()) < end:
        clients.measures = options.paced and now > began + ramp_s
        if clients.measures or not options.paced:
            service.note_memory()
        clients.run(min(end, now + 1.0))
    clients.measures = False


def _vanish(clients: Clients, service: Service, problems: list[str]) -> array[int]:
    """Have a thousand clients vanish at once; return how long each upstream took to be closed, in ns."""
    marks = clients.vanish(VANISHING)
    clients.run(time.monotonic() + 3.0)
    found = service.upstream("/closed")
    closed: dict[str, int] = found["closed_ns"]
    if left := marks.keys() & set(found["running"]):  # the others ended just then, by themselves
        problems.append(f"{len(left)} of {len(marks)} upstreams were not closed within 3 s of their clients' end")
    return array("q", [closed[mark] - at for mark, at in marks.items() if mark in closed])


def _wait_idle(service: Service) -> dict[str, Any]:
    until = time.monotonic() + SETTLE_S
    while True:
        stats = service.upstream()
        if not stats["active"] or time.monotonic() > until:
            return stats
        time.sleep(0.2)


def _settled(service: Service, before: dict[str, int]) -> dict[str, int]:
    """Return what is held when it is as little as before, or when time is up."""
    until = time.monotonic() + SETTLE_S
    while True:
        _wait_idle(service)
        held = service.held()
        if time.monotonic() > until or not _left(before, held):
            return held
        time.sleep(0.5)


def _left(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return what is more than before. Connections to the upstream that are kept for further requests are not."""
    found = [f"{after[name]} {name} are left" for name in ("requests", "in_flight", "upstream_active") if after[name]]
    if after["tasks"] > before["tasks"]:
        found.append(f"{after['tasks']} tasks, before the load {before['tasks']}")
    base, own = (held["descriptors"] - held["upstream_idle"] for held in (before, after))
    if own > base:
        found.append(f"{own} descriptors besides idle connections to the upstream, before the load {base}")
    return found


def _judge(
    clients: Clients,
    service: Service,
    before: dict[str, int],
    after: dict[str, int],
    vanished: array[int],
    options: argparse.Namespace,
    problems: list[str],
) -> None:
    """Print the report, and add what is wrong."""
    closed = service.upstream("/closed")["closed_ns"]
    cancel = percentiles([closed[mark] - left for mark, left in clients.left_ns.items() if mark in closed], 1e6)
    added = percentiles(clients.added_ns, 1e6)
    print(
        f"\n{sum(clients.outcomes.values()):,} requests as planned, "
        f"{clients.events:,} events of whole answers, {clients.bytes:,} bytes"
    )
    for kind, count in sorted(clients.outcomes.items()):
        print(f"  {count:8,}  {kind}")
    print(f"cancel: client's close to upstream's end, ms: {cancel}")
    if options.paced:
        print(f"added latency, ms: {added}")
        print(f"{len(vanished)} clients vanished at once, upstreams closed after ms: {percentiles(vanished, 1e6)}")
    print(f"held before: {dict(before)}")
    print(f"held after:  {dict(after)}")
    print(f"CPU of the service: {cpu_ns(service.pids) / 1e9:.1f} s; load of the machine: {os.getloadavg()}")
    problems += [f"{count} x {what}" for what, count in clients.faults.items()]
    problems += [f"connection error: {count} x {what}" for what, count in clients.connection_errors.items()]
    problems += _left(before, after)
    if not clients.outcomes:
        problems.append("nothing was answered")
    _judge_memory(service, problems)
    if options.strict:
        limits = [(cancel, CANCEL_P99_MS, "p99", "cancel"), (added, ADDED_P99_MS, "p99", "added latency")]
        limits.append((percentiles(vanished, 1e6), VANISH_S * 1000, "max", "the upstreams of vanished clients"))
        for found, most, which, what in limits:
            if found.get(which, 0.0) > most:
                problems.append(f"{what}: {which} {found[which]:.1f} ms, at most {most:.0f} ms are wanted")


def _judge_memory(service: Service, problems: list[str]) -> None:
    sizes = [kb for _, kb in service.own]
    fifth = len(sizes) // 5
    if fifth < 2:
        print("memory: the load was too short to judge it")
        return
    early, late = statistics.median(sizes[fifth : 2 * fifth]), statistics.median(sizes[-fifth:])
    minutes = (service.own[-1][0] - service.own[0][0]) * 0.7 / 60
    print(
        f"memory: {early / 1024:.1f} MiB early, {late / 1024:.1f} MiB late, "
        f"{(late - early) / minutes / 1024:+.2f} MiB/min; highest {max(sizes) / 1024:.1f}; "
        f"shared {service.shared_kb / 1024:.1f}"
    )
    most = GROWTH_KB + GROWTH_SHARE * early
    if late - early > most:
        problems.append(
            f"memory has grown by {(late - early) / 1024:.1f} MiB, at most {most / 1024:.1f} MiB are allowed"
        )
    most_shared = SHARED_KB * len(service.pids)  # a process that serves an administrator maps all segments
    if service.shared_kb > most_shared:
        problems.append(
            f"a process shares {service.shared_kb / 1024:.1f} MiB, at most {most_shared / 1024:.1f} MiB are allowed"
        )


def main() -> None:
    """Parse the command line, run, and exit with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load, without warm-up (%(default)s)")
    parser.add_argument("--streams", type=int, help=f"at a time ({STREAMS}; with --paced {PACED_STREAMS})")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve (%(default)s)")
    parser.add_argument("--paced", action="store_true", help="thousands of streams at the pace of a model")
    parser.add_argument("--faults", type=float, default=0.01, help="share of failing upstreams, and of leaving clients")
    parser.add_argument("--strict", action="store_true", help="fail if a time is over its limit, too")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.streams = options.streams or (PACED_STREAMS if options.paced else STREAMS)
    raise_descriptor_limit()
    problems = soak(options)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("failed" if problems else "passed")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
