"""Results as JSON: every raw round, with the machine, the versions and the command that produced them."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import CORES, ROOT

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("headrace", "trio", "hypercorn", "quart", "quart-trio", "httpx", "httptools", "msgspec")

Figures = dict[str, Any]
"""One round: figures by name, with the unit in the name; distributions are objects with their percentiles."""


class Row(msgspec.Struct, kw_only=True):
    """The figures of one subject at one measure, round by round.

    Attributes:
        subject: what was measured, such as ``headrace``.
        measure: the load or other measure, such as ``paced-100``.
        rounds: the raw figures of each round.
        flags: reasons to doubt them; one entry per round and reason.
    """

    subject: str
    measure: str
    rounds: list[Figures] = []
    flags: list[str] = []

    def median(self, figure: str) -> float | None:
        """Return the median of a figure over the rounds (``first_ms.p50`` for one inside an object), or None."""
        values = [value for figures in self.rounds if (value := pick(figures, figure)) is not None]
        return statistics.median(values) if values else None


class Recording(msgspec.Struct, kw_only=True):
    """One run of one benchmark."""

    name: str
    schema: int = SCHEMA
    started: str = ""
    duration_s: float = 0.0
    command: list[str] = []
    is_quick: bool = False
    tools: str = "python"
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}
    notes: list[str] = []
    rows: list[Row] = []

    def add(self, subject: str, measure: str, figures: Figures, flags: list[str] | None = None) -> None:
        """Record one round."""
        row = self.row(subject, measure)
        if row is None:
            row = Row(subject=subject, measure=measure)
            self.rows.append(row)
        row.rounds.append(figures)
        row.flags += flags or []

    def row(self, subject: str, measure: str) -> Row | None:
        """Return the row of ``subject`` at ``measure``, or None."""
        return next((row for row in self.rows if (row.subject, row.measure) == (subject, measure)), None)

    def median(self, subject: str, measure: str, figure: str) -> float | None:
        """Return the median of one figure, or None if it was not measured."""
        row = self.row(subject, measure)
        return row.median(figure) if row else None

    def subjects(self) -> list[str]:
        """Return what was measured, in order of appearance."""
        return list(dict.fromkeys(row.subject for row in self.rows))

    def save(self, path: Path | None = None) -> Path:
        """Save it to ``path``, or to results/<date>-<name>.json, and print where."""
        began = datetime.datetime.fromisoformat(self.started)
        self.duration_s = round((datetime.datetime.now(datetime.UTC) - began).total_seconds(), 1)
        suffix = "-quick" if self.is_quick else ""
        path = path or RESULTS / f"{began.date()}-{self.name}{suffix}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        print(f"\nwritten: {os.path.relpath(path)}")
        return path


def begin(name: str, *, is_quick: bool = False, tools: str = "python") -> Recording:
    """Start a recording, with the machine and the versions."""
    return Recording(
        name=name,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=["python", "-m", f"benchmarks.bench_{name}", *sys.argv[1:]],
        is_quick=is_quick,
        tools=tools,
        machine=machine(),
        versions=versions(),
    )


def load(path: Path) -> Recording:
    """Read a recording.

    Raises:
        msgspec.ValidationError: if the file is not a recording.
    """
    return msgspec.json.decode(path.read_bytes(), type=Recording)


def pick(figures: Figures, name: str) -> float | None:
    """Return one figure of a round, or None."""
    value: Any = figures
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def machine() -> dict[str, Any]:
    """Describe this machine."""
    model = platform.processor()
    memory_kb = 0
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
        memory_kb = int(Path("/proc/meminfo").read_text().split(maxsplit=2)[1])
    except (OSError, ValueError):
        pass
    return {
        "cores": len(CORES),
        "model": model,
        "memory_gib": round(memory_kb / 2**20, 1),
        "system": platform.platform(),
        "load_before": [round(average, 2) for average in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the versions of what is measured, including the commit."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    return {**found, "commit": commit(ROOT)}


def commit(folder: Path) -> str:
    """Return the commit of a folder, marked if there are uncommitted changes."""
    ask = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def table(rows: list[list[str]], *, markdown: bool = False) -> str:
    """Format a table; the first row is its head, the first column has the labels."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    if not markdown:
        return "\n".join("  ".join(row).rstrip() for row in cells)
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float | None, digits: int | None = None) -> str:
    """Format a figure with its significant digits."""
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


class Stopwatch:
    """``with Stopwatch() as watch: ...``, then ``watch.ns``."""

    ns = 0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.ns = time.perf_counter_ns() - self._start
