"""Measure the whole service as a process: throughput, latency, memory, start-up, workers, and the cost of its log.

Run: ``python -m benchmarks.bench_gateway`` (about 15 minutes), or with ``--quick`` (under two). The service has
the first core to itself; the mock upstream and the load generator have the others. README.md explains the figures.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gateways import LOG_LEVELS, SILENT, LogLevel, serving, start_up_s
from benchmarks.loads import LOADS, TITLES, Tools, compare, measure, medians, open_tools, print_round, shape
from benchmarks.processes import NotReady, raise_descriptor_limit
from benchmarks.recording import Recording, begin, commit, number, table
from benchmarks.service_turns import services
from benchmarks.turns import Measure, can_tell, comparison, ratio, take_turns

OURS = "headrace"
COPY = "headrace, copy"
TWO = "headrace, 2 workers"
PARTS = ("ceiling", "loads", "log", "start-up", "memory", "workers")
LOG_MEASURES = {
    "log requests": Measure("a request, with its record", 0.06),
    "log short": Measure("a stream of 20 events, with its record", 0.06),
}
"""What is measured with and without the record of each request in the log, and what the record may cost of it."""
LOG_TURNS = 48
LOG_SESSIONS = 8
WORKER_LOADS = ("requests", "short", "long")


def ceiling(recording: Recording, tools: Tools, names: Sequence[str], seconds: float) -> None:
    """Put the loads on the upstream itself, once: no service can reach more than that here."""
    compare(recording, tools, [tools.direct()], names, rounds=1, seconds=seconds)


def loads(
    recording: Recording,
    tools: Tools,
    names: Sequence[str],
    rounds: int,
    seconds: float,
    against: Path | None,
    settings: str,
    log_level: LogLevel,
) -> None:
    """Put the loads on the service, in turn with another tree of it or with other settings, if requested."""
    sides: dict[str, dict[str, Any]] = {OURS: {}}
    if against is not None:
        sides[f"headrace {commit(against)}"] = {"source": against}
    if settings:
        sides[f"headrace ({settings})"] = {"settings": settings}
    with contextlib.ExitStack() as stack:
        subjects = [
            stack.enter_context(serving(tools, name=name, log_level=log_level, **side)) for name, side in sides.items()
        ]
        compare(recording, tools, subjects, names, rounds=rounds, seconds=seconds)


def log(recording: Recording, tools: Tools, turns: int, sessions: int, seconds: float) -> None:
    """Compare the service at its default log level with itself without the record of each request, side by side."""
    sides: dict[str, dict[str, Any]] = {OURS: {}, COPY: {}, SILENT: {"log_level": "warning"}}
    works = [measure.removeprefix("log ") for measure in LOG_MEASURES]
    session = partial(services, tools, sides, dict.fromkeys(works, seconds))
    take_turns(recording, session, works, turns=turns, sessions=sessions, label="log ")


def start_up(recording: Recording, tools: Tools, rounds: int, against: Path | None) -> None:
    """Start the service once in each round."""
    for round_number in range(rounds):
        for name, source in (("headrace", None), (f"headrace {commit(against)}" if against else "", against)):
            if name:
                seconds = start_up_s(tools, source) if source else start_up_s(tools)
                recording.add(name, "start-up", {"ready_s": round(seconds, 4)})
                print(f"{round_number + 1}  start-up    {name:<22} ready after {seconds:.2f} s", flush=True)


MEMORY_MODELS = {"silent": "mock-n1-s600000000-r0", "speaking": "mock-n600-d1000000-t1-r1"}


def memory(
    recording: Recording,
    tools: Tools,
    counts: Sequence[int],
    seconds: float,
    kinds: Sequence[str] = tuple(MEMORY_MODELS),
) -> None:
    """Open many streams on a fresh service, and record its growth per stream, for silent and active streams."""
    for kind in kinds:
        for count in counts:
            with serving(tools) as subject:
                # Its first requests need memory once.
                measure(tools, subject, shape("requests", subject, seconds=0.2, warmup_s=0.0))
                hold = {
                    "mode": "hold",
                    "awaits_head": kind == "speaking",
                    "open_per_s": 1000.0,
                    "warmup_s": min(1.0, seconds),
                }
                load = shape(
                    "", subject, model=MEMORY_MODELS[kind], connections=count, seconds=seconds, limit_s=60.0, **hold
                )
                figures, reasons = measure(tools, subject, load)
            grown_kb = figures["rss_kb"] - figures["rss_before_kb"]
            figures["kb_per_stream"] = round(grown_kb / figures["active"], 2) if figures["active"] else 0
            if figures["active"] < count:
                reasons.append(f"only {figures['active']} of {count} streams came up")
            recording.add("headrace", f"memory, {kind}, {count} streams", figures, reasons)
            print(
                f"1  memory      {count} {kind} streams: {figures['kb_per_stream']:.1f} KB each {reasons or ''}",
                flush=True,
            )


def workers(recording: Recording, tools: Tools, rounds: int, seconds: float) -> None:
    """Compare two processes with one."""
    with serving(tools, name="headrace, 1 worker") as one, serving(tools, name=TWO, workers=2) as two:
        for round_number in range(rounds):
            for name in WORKER_LOADS:
                for subject in (one, two):
                    load = shape(name, subject, seconds=seconds, connections=32)
                    figures, reasons = measure(tools, subject, load)
                    recording.add(subject.name, f"workers {name}", figures, reasons)
                    print_round(round_number, name, subject.name, figures, reasons)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format all medians as tables."""
    names = [name for name in LOADS if any(row.measure == name for row in recording.rows)]
    parts = [medians(recording, names, markdown=markdown)] if names else []
    rest = [["what", "service", "figure", "remarks"]]
    for row in recording.rows:
        remarks = "; ".join(dict.fromkeys(row.flags))
        if row.measure == "start-up":
            rest.append(["start-up to ready", row.subject, number(row.median("ready_s")) + " s", remarks])
        elif row.measure.startswith("memory"):
            rest.append([row.measure, row.subject, number(row.median("kb_per_stream"), 1) + " KB/stream", remarks])
    for name in WORKER_LOADS:
        if (factor := worker_ratio(recording, name)) is not None:
            two = recording.row(TWO, f"workers {name}")
            remarks = "; ".join(dict.fromkeys(two.flags if two else []))
            rest.append([f"2 workers, {name}", "headrace", f"{factor:.2f} x 1 worker", remarks])
    parts += [table(rest, markdown=markdown)] if len(rest) > 1 else []
    record = comparison(recording, LOG_MEASURES, side=OURS, copy=COPY, markdown=markdown)
    return "\n\n".join([*parts, record] if record else parts)


def cost_of_record(recording: Recording) -> float | None:
    """Return what the log adds to the CPU time of a request, in relation to one without it; None if it is not known."""
    measure = "log requests"
    found, control = ratio(recording, OURS, SILENT, measure), ratio(recording, COPY, OURS, measure)
    if found is None or control is None or not can_tell(control, LOG_MEASURES[measure].limit):
        return None
    return found.median - 1


def worker_ratio(recording: Recording, load: str) -> float | None:
    """Return the rate of two workers relative to one, or None if it was not measured."""
    figure = "events_per_s" if load == "long" else "requests_per_s"
    one = recording.median("headrace, 1 worker", f"workers {load}", figure)
    two = recording.median(TWO, f"workers {load}", figure)
    return two / one if one and two is not None else None


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure the whole service.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", help=f"parts to measure, separated by commas: {','.join(PARTS)}")
    parser.add_argument("--loads", help=f"loads to measure, separated by commas: {','.join(LOADS)}")
    parser.add_argument("--rounds", type=int, help="rounds (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="measured seconds of each round (5; quick: 1.5)")
    parser.add_argument("--streams", help="numbers of streams for memory, separated by commas (1000,5000; quick: 500)")
    parser.add_argument(
        "--tools", choices=("python", "c"), default="python", help="c: those in C, if they are installed (%(default)s)"
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="another tree of headrace, measured in turn with this one"
    )
    parser.add_argument(
        "--settings", default="", help="pipeline_settings of a second subject, such as 'execution: tasks'"
    )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="of the part loads; info logs each request (%(default)s)",
    )
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-gateway.json)")
    options = parser.parse_args(arguments)
    parts = options.only.split(",") if options.only else PARTS
    names = options.loads.split(",") if options.loads else list(LOADS)
    if unknown := [*(set(parts) - set(PARTS)), *(set(names) - set(LOADS))]:
        parser.error(f"there is no {unknown[0]!r} (parts: {', '.join(PARTS)}; loads: {', '.join(LOADS)})")
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = options.seconds or (1.5 if options.quick else 5.0)
    counts = [int(count) for count in (options.streams or ("500" if options.quick else "1000,5000")).split(",")]
    limit = raise_descriptor_limit()

    recording = begin("gateway", is_quick=options.quick, tools=options.tools)
    if options.log_level != "info":
        recording.notes.append(f"the loads were put on a service at log level {options.log_level}")
    for name in names:
        print(f"   {name:<11} {TITLES[name]}")
    try:
        with open_tools(options.tools) as tools:
            if "ceiling" in parts:
                ceiling(recording, tools, names, min(seconds, 2.0))
            if "loads" in parts:
                loads(recording, tools, names, rounds, seconds, options.against, options.settings, options.log_level)
            if "log" in parts:
                turns, sessions = (6, 2) if options.quick else (LOG_TURNS, LOG_SESSIONS)
                log(recording, tools, turns, sessions, min(seconds, 0.7))
            if "start-up" in parts:
                start_up(recording, tools, rounds if options.quick else max(rounds, 5), options.against)
            if "memory" in parts:
                possible = [count for count in counts if 2 * count + 100 <= limit]
                recording.notes += [
                    f"{c} streams not measured: only {limit} descriptors" for c in counts if c not in possible
                ]
                memory(recording, tools, possible, min(seconds, 3.0))
            if "workers" in parts:
                workers(recording, tools, rounds, seconds)
    except NotReady as error:
        print(f"a server did not start: {error}")
        return 1
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
