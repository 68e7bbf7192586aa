"""What becomes of everybody when twice as many streams come as one process can carry.

Run: ``python -m benchmarks.bench_overload`` (about 4 minutes), or ``--against DIR`` for another tree as well. For each
speed of the streams it looks for the capacity: the most streams at a time that keep up, without a limit. Then, in
turns, as many come and twice as many, at a steady rate, beside health checks, and each client on a connection of its
own. How latency and goodput differ between the two is the result: it is computed for each turn, since the machine
differs between turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arrivals import Arrivals
from benchmarks.children import Child, open_child
from benchmarks.gateways import serving
from benchmarks.loads import Subject, Tools, measure, open_tools, patience_s, shape
from benchmarks.plan import Load
from benchmarks.processes import ROOT, TOOL_CORES, NotReady, python, raise_descriptor_limit
from benchmarks.recording import Figures, Recording, begin, commit, number, pick, table

OURS = "headrace"
STREAM_S = 8.0
CHECKS_PER_S = 100.0
KEEPS_UP = 0.94
"""The share of the offered events that must arrive. A stream that begins 0.2 s late has 2 % less in its 8 seconds."""
AT_CAPACITY, OVERLOAD = 1.0, 2.0
ROUNDS = 3
STEP = 1.12
"""How exactly the capacity is found."""
COMPARED = {
    "events_per_s": "goodput",
    "first_ms.p50": "first p50",
    "first_ms.p99": "first p99",
    "added_ms.p50": "added p50",
    "added_ms.p99": "added p99",
}
"""What is told as a multiple of that at capacity."""

COLUMNS = {
    "events/s": "events_per_s",
    "livez p50 ms": "check_ms.p50",
    "livez p99 ms": "check_ms.p99",
    "answered/s": "answered_per_s",
    "refused/s": "refused_per_s",
    "refused p99 ms": "refused_ms.p99",
    "first p50 ms": "first_ms.p50",
    "first p99 ms": "first_ms.p99",
    "added p50 ms": "added_ms.p50",
    "added p99 ms": "added_ms.p99",
    "unanswered": "unanswered",
    "cpu": "server_cpu",
    "tools cpu": "tools_cpu",
    **{f"{title}, x": f"times.{title}" for title in COMPARED.values()},
}


def coming(subject: Subject, speed: int, count: int, seconds: float, stream_s: float) -> Load:
    """Return so many streams at a time, of ``speed`` events a second, which come evenly."""
    events = max(1, round(stream_s * speed))
    return shape(
        "",
        subject,
        model=f"mock-n{events}-d{1_000_000 // speed}-k1-t1-r1",
        events=events,
        connections=count,
        open_per_s=count / stream_s,
        warmup_s=1.2 * stream_s,
        seconds=seconds,
    )


def capacity(
    tools: Tools, subject: Subject, speed: int, bounds: tuple[int, int], seconds: float, stream_s: float
) -> Figures:
    """Return the figures of the most streams within ``bounds`` that keep up, which the lower one does."""
    least, most = bounds
    best: Figures = {}
    while not best or most > STEP * least:
        count = round((least * most) ** 0.5) if most > STEP * least else least
        figures, _ = measure(tools, subject, coming(subject, speed, count, seconds, stream_s))
        keeps_up = figures["events_per_s"] >= KEEPS_UP * count * speed
        print(
            f"   {count} streams x {speed}: {number(figures['events_per_s'])} events/s, "
            f"added p99 {number(figures['added_ms'].get('p99'))} ms, cpu {figures['server_cpu']:.0%}, "
            f"tools {figures['tools_cpu']:.0%}{'' if keeps_up else ': too many'}",
            flush=True,
        )
        if keeps_up or most <= STEP * least:
            least, best = count, {**figures, "streams": count}
        else:
            most = count
    return best


def come(
    tools: Tools, clients: Child, subject: Subject, speed: int, count: int, seconds: float, stream_s: float
) -> Figures:
    """Have so many streams come, and return the figures."""
    tools.settle(subject, patience_s=2 * stream_s)
    load = coming(subject, speed, count, seconds, stream_s)
    clients.order(Arrivals(load=load, checks_per_s=CHECKS_PER_S))
    figures: Figures = clients.reply(patience_s(load))
    figures["refused_per_s"] = round(figures["refused_ms"]["n"] / figures["seconds"], 1)
    figures["unanswered"] = figures["ends"].get("unanswered", 0)
    figures["tools_cpu"] = figures.pop("load_cpu")
    figures["streams"] = count
    return figures


def times(figures: Figures, base: Figures) -> dict[str, float]:
    """Return what multiple of ``base`` each compared figure is."""
    found: dict[str, float] = {}
    for figure, title in COMPARED.items():
        value, of = pick(figures, figure), pick(base, figure)
        if value is not None and of:
            found[title] = round(value / of, 3)
    return found


def measure_tree(
    recording: Recording,
    tools: Tools,
    name: str,
    source: Path,
    speeds: Sequence[int],
    *,
    bounds: tuple[int, int],
    seconds: float,
    rounds: int = ROUNDS,
    stream_s: float = STREAM_S,
) -> None:
    """Find one tree's capacity, and put that and twice as much on it in turns, for each speed."""
    unlimited = "max_lag_ms: 0" if name == OURS else ""
    with open_child(python("-m", "benchmarks.arrivals"), TOOL_CORES[-1:]) as clients:
        for speed in speeds:
            with serving(tools, name=name, source=source, settings=unlimited) as subject:
                found = capacity(tools, subject, speed, bounds, seconds / 2, stream_s)
            with serving(tools, name=name, source=source) as subject:
                for _ in range(rounds):
                    base: Figures = {}
                    for factor in (AT_CAPACITY, OVERLOAD):
                        count = round(factor * found["streams"])
                        figures = come(tools, clients, subject, speed, count, seconds, stream_s)
                        if base:
                            figures["times"] = times(figures, base)
                        base = base or figures
                        recording.add(name, f"{speed}/s, {factor:g} x capacity", figures)
                        shown = ", ".join(f"{title} {number(pick(figures, of))}" for title, of in COLUMNS.items())
                        print(f"   {name}, {count} x {speed}/s: {shown}; {figures['ends']}", flush=True)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format the figures."""
    rows = [["load", "service", "streams", *COLUMNS]]
    for row in sorted(recording.rows, key=lambda row: (float(row.measure.partition("/")[0]), row.measure, row.subject)):
        figures = ("streams", *COLUMNS.values())
        rows.append([row.measure, row.subject, *(number(row.median(figure)) for figure in figures)])
    return table(rows, markdown=markdown)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Twice as many streams as one process can carry.")
    parser.add_argument("--quick", action="store_true", help="short streams and rounds")
    parser.add_argument("--speeds", default="50,100", help="events a second of a stream, separated by commas")
    parser.add_argument("--rounds", type=int, help=f"turns ({ROUNDS}; quick: 1)")
    parser.add_argument("--seconds", type=float, help="measured seconds of each round (8; quick: 2)")
    parser.add_argument("--between", default="500,2000", help="the bounds of the capacity, in streams (%(default)s)")
    parser.add_argument(
        "--tools", choices=("python", "c"), default="python", help="c: those in C, if they are installed (%(default)s)"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="another tree of headrace")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-overload.json)")
    options = parser.parse_args(arguments)
    seconds = options.seconds or (2.0 if options.quick else 8.0)
    least, most = (int(count) for count in options.between.split(","))
    raise_descriptor_limit()
    recording = begin("overload", is_quick=options.quick, tools=options.tools)
    trees = {OURS: ROOT}
    if options.against is not None:
        trees = {f"headrace {commit(options.against)}": options.against.resolve(), **trees}
    try:
        with open_tools(options.tools) as tools:
            for name, source in trees.items():
                measure_tree(
                    recording,
                    tools,
                    name,
                    source,
                    [int(speed) for speed in options.speeds.split(",")],
                    bounds=(least, most),
                    seconds=seconds,
                    rounds=options.rounds or (1 if options.quick else ROUNDS),
                    stream_s=2.0 if options.quick else STREAM_S,
                )
    except NotReady as error:
        print(f"a server did not start: {error}")
        return 1
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
