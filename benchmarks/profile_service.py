"""Where the service spends its time under a load: the functions with the most time of their own.

Run: ``python -m benchmarks.profile_service --load requests``. Figures are per request or event. Counts of calls are
exact. Times are those of a profiler, which adds about 0.1 us to each call, so small functions look more expensive than
they are; compare shares, and two trees.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pstats
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from benchmarks.gateways import serving
from benchmarks.loads import LOADS, Subject, Tools, measure, open_tools, shape
from benchmarks.processes import ROOT, worker_of
from benchmarks.recording import commit, table

TOP = 40
"""The number of functions shown."""

_WRITE_LIMIT_S = 10.0


@contextlib.contextmanager
def profiled(tools: Tools, source: Path = ROOT, **options: Any) -> Generator[tuple[Subject, Path]]:
    """Run a tree's service so that it can be profiled; yield it and the file for its profile."""
    with tempfile.TemporaryDirectory(prefix="headrace-profile-") as folder:
        file = Path(folder, "profile")
        environ = {"HEADRACE_PROFILE": str(file)}
        with serving(tools, source=source, module="benchmarks.profiled", environ=environ, **options) as subject:
            yield subject, file


def top_list(tools: Tools, subject: Subject, file: Path, load: str, source: Path, seconds: float) -> str:
    """Profile a service under one load, and return the table."""
    measure(tools, subject, shape(load, subject, seconds=min(seconds, 1.0)))  # the first requests are slower
    worker = worker_of(subject.pids[0])
    os.kill(worker, signal.SIGUSR2)
    figures, _ = measure(tools, subject, shape(load, subject, seconds=seconds, warmup_s=0.0))
    os.kill(worker, signal.SIGUSR2)
    until = time.monotonic() + _WRITE_LIMIT_S
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)
    unit = "event" if figures["events_per_s"] else "request"
    count = seconds * figures[f"{unit}s_per_s"]
    return f"{commit(source)}, {load}, per {unit}\n\n{_laid_out(pstats.Stats(str(file)), count, str(source))}"


def _laid_out(statistics: Any, count: float, source: str) -> str:
    """Return the functions by their own time, without the wait for events, which is not work."""
    found = [
        (own_s, calls, whole_s, _name(place, source))
        for place, (_, calls, own_s, whole_s, _) in statistics.stats.items()
        if place[2] != "<method 'poll' of 'select.epoll' objects>"
    ]
    found.sort(reverse=True)
    total_s, total_calls = sum(row[0] for row in found), sum(row[1] for row in found)
    rows = [["own us", "share", "calls", "with callees us", "function"]]
    rows.append([f"{total_s / count * 1e6:.1f}", "100 %", f"{total_calls / count:.1f}", "", "everything"])
    for own_s, calls, whole_s, name in found[:TOP]:
        cells = [f"{own_s / count * 1e6:.2f}", f"{own_s / total_s:.1%}", f"{calls / count:.2f}"]
        rows.append([*cells, f"{whole_s / count * 1e6:.1f}", name])
    return table(rows)


def _name(place: tuple[str, int, str], source: str) -> str:
    file, _, function = place
    if file == "~":
        return function
    shown = file.removeprefix(source + "/").rpartition("site-packages/")[2].rpartition("/lib/python3.11/")[2]
    return f"{shown}: {function}"


def main(arguments: list[str] | None = None) -> int:
    """Profile and print."""
    parser = argparse.ArgumentParser(description="List the functions in which the service spends its time.")
    parser.add_argument("--load", default="requests", choices=list(LOADS), help="(%(default)s)")
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="the tree to profile, with this tree's profiled.py (this one)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="(%(default)s)")
    parser.add_argument("--tools", choices=("python", "c"), default="python", help="(%(default)s)")
    options = parser.parse_args(arguments)
    source = options.source.resolve()
    with open_tools(options.tools) as tools, profiled(tools, source) as (subject, file):
        text = top_list(tools, subject, file, options.load, source, options.seconds)
    given = sys.argv[1:] if arguments is None else arguments
    print(f"$ {shlex.join(['python', '-m', 'benchmarks.profile_service', *given])}\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
