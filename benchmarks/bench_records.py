"""Check the records in the log against the clients: is all the time that a client waited in the record of its request?

Run: ``python -m benchmarks.bench_records`` (about a minute), or ``--against DIR`` for another tree's records as well.
Clients send ids of their own. What a client measured, minus `total_ms` of the record with its id, is the *difference*.
A part of it is due to the measurement from outside: the way through the kernel, and a client process that comes late to
its sockets. A byte splice that writes records in the simplest way (`recording_splice`) gets the same loads in the same
run; the median of its differences is subtracted, and what is left is the *error* of a record. The splice's own errors
show how much of that is noise. A part of the requests arrives while another stream's stage holds the service's loop.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks import burn
from benchmarks.gateways import KEY, serving
from benchmarks.loads import Subject, Tools, open_generator, open_tools, run_load, shape
from benchmarks.processes import ROOT, SERVER_CORES, NotReady, free_port, python, raise_descriptor_limit, running
from benchmarks.recording import Figures, Recording, begin, commit, number, table

OURS: Final = "headrace"
SPLICE: Final = "byte splice"
REQUESTS: Final = 10_000
ROUNDS: Final = 4
"""How often each subject has its turn at each phase."""
ALLOWED_MS: Final = 1.0
ALLOWED_SHARE: Final = 0.01
"""An error may be so many ms, or such a share of what the client measured, whichever is more."""
ALL: Final = "all requests"
SUMS: Final = "sums"

_NO_TOKEN = "mock-n20-t0"
_STREAM = "mock-n5-d2000-s5000-t1-r1"
_AT_ONCE: Final[dict[str, Any]] = {"mode": "repeat", "connections": 10, "open_per_s": 0.0}
_ARRIVING: Final[dict[str, Any]] = {"mode": "once", "open_per_s": 150.0}


class Phase(NamedTuple):
    """One part of the requests.

    Attributes:
        name: what they are.
        share: of all requests.
        is_blocked: whether a stage of another stream holds the loop for 100 ms out of every 300 ms.
        load: what is sent. New connections while the loop is held, since it accepts and reads nothing then.
    """

    name: str
    share: float
    is_blocked: bool
    load: Mapping[str, Any]


PHASES: Final = (
    Phase("requests, 10 at a time", 0.4, False, {"model": _NO_TOKEN, "stream": False, **_AT_ONCE}),
    Phase("streams, 10 at a time", 0.3, False, {"model": "mock-n20-t0", "events": 20, **_AT_ONCE}),
    Phase("requests beside a blocked loop", 0.15, True, {"model": _NO_TOKEN, "stream": False, **_ARRIVING}),
    Phase("streams beside a blocked loop", 0.15, True, {"model": _STREAM, "events": 5, **_ARRIVING}),
)
_BLOCKER: Final = {"model": "mock-n2000-d300000-t1-r0", "connections": 1, "mode": "hold", "seconds": 600.0}
_LOG_LIMIT_S: Final = 5.0


@contextlib.contextmanager
def plugin(module: ModuleType = burn) -> Generator[Path]:
    """Yield a folder that offers a stage to a Python that has it on its path, as if it were installed.

    Args:
        module: contains it; both have the same name.
    """
    name = module.__name__.rpartition(".")[2]
    with tempfile.TemporaryDirectory(prefix="headrace-plugin-") as folder:
        info = Path(folder, f"headrace_{name}-1.dist-info")
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: headrace-{name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[pipeline.stages]\n{name} = headrace_{name}:{name}\n")
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        Path(folder, f"headrace_{name}.py").write_text(source, encoding="utf-8")
        yield Path(folder)


@contextlib.contextmanager
def splicing(tools: Tools) -> Generator[Subject]:
    """Run the splice for the duration of a block."""
    port = free_port()
    command = python("-m", "benchmarks.recording_splice", "--port", str(port), "--upstream", str(tools.port))
    with running(command, cores=SERVER_CORES) as server:
        server.wait_ready(port, "/stats")
        settings = {"path": "/v1/responses", "dialect": "responses", "token": KEY}
        yield Subject(SPLICE, port, [server.pid], settings=settings, server=server)


@contextlib.contextmanager
def blocked(tools: Tools, subject: Subject) -> Generator[None]:
    """Hold the subject's loop for 100 ms out of every 300 ms; without effect on the splice, which has no stages."""
    with open_generator() as blocker:
        tools.settle(subject)
        blocker.order(shape("", subject, ids="burn-", **_BLOCKER))
        limit = time.monotonic() + 10
        while not tools.stats().get("active") and time.monotonic() < limit:
            time.sleep(0.02)
        yield


class Pair(NamedTuple):
    """What a client measured, and the record of its request."""

    client_ms: float
    record: Mapping[str, Any]

    @property
    def difference_ms(self) -> float:
        """What is not in the record's total; less than 0 if there is too much."""
        return self.client_ms - float(self.record["total_ms"])

    @property
    def last_byte_ms(self) -> float | None:
        """When the client's socket had accepted the last byte, if the record says."""
        points: Mapping[str, float] = self.record.get("points_ms") or {}
        return points.get("last_byte_out")


class Log:
    """The records that a subject has written, by the ids of their requests."""

    def __init__(self, subject: Subject) -> None:
        assert subject.server is not None
        self._path = subject.server.output
        self._read_bytes = 0
        self.records: dict[str, dict[str, Any]] = {}

    def read(self) -> dict[str, dict[str, Any]]:
        """Return all records, those among them that were written since the last time."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            lines, _, _ = file.read().rpartition(b"\n")  # what follows is being written
        self._read_bytes += len(lines)
        for line in lines.split(b"\n"):
            if b'"event":"request"' in line:
                record = msgspec.json.decode(line)
                self.records[record["request_id"]] = record
        return self.records


def run_phase(tools: Tools, subject: Subject, log: Log, phase: Phase, ids: str, requests: int) -> list[Pair]:
    """Send requests of a phase, and return the pairs of those that have a response and a record."""
    counted = {"connections": requests} if phase.load["mode"] == "once" else {"requests": requests}
    load = shape("", subject, ids=ids, limit_s=120.0, **phase.load, **counted)
    with contextlib.ExitStack() as stack:
        if phase.is_blocked and subject.name != SPLICE:
            stack.enter_context(blocked(tools, subject))
        total_ns_of: dict[str, int] = run_load(tools.generator, load)["total_ns_of"]
    limit = time.monotonic() + _LOG_LIMIT_S
    while True:
        records = log.read()
        pairs = [Pair(ns / 1e6, records[name]) for name, ns in total_ns_of.items() if name in records]
        if len(pairs) == len(total_ns_of) or time.monotonic() > limit:
            return pairs
        time.sleep(0.05)


def figures_of(pairs: Sequence[Pair], usual_ms: float, missing: int) -> Figures:
    """Return the figures of a phase.

    Args:
        pairs: of one subject.
        usual_ms: the median of the splice's differences.
        missing: the number of requests without a pair.
    """
    errors = [pair.difference_ms - usual_ms for pair in pairs]
    pointed = [pair for pair in pairs if pair.last_byte_ms is not None]
    last_byte = [pair.client_ms - (pair.last_byte_ms or 0.0) - usual_ms for pair in pointed]
    client_ms = sum(pair.client_ms for pair in pairs)
    recorded_ms = sum(float(pair.record["total_ms"]) for pair in pairs)
    figures: Figures = {
        "requests": len(pairs),
        "without_record": missing,
        "client_ms": spread(pair.client_ms for pair in pairs),
        "difference_ms": spread(pair.difference_ms for pair in pairs),
        "error_ms": spread(errors),
        "size_ms": spread(map(abs, errors)),
        "within": within(errors, pairs),
        "missing_share": round(1 - recorded_ms / client_ms, 5) if client_ms else 0.0,
    }
    if pointed:
        figures |= {"last_byte_error_ms": spread(last_byte), "last_byte_within": within(last_byte, pointed)}
    return figures


def within(errors: Sequence[float], pairs: Sequence[Pair]) -> float:
    """Return the share of errors that are small enough."""
    small = sum(
        abs(error) <= max(ALLOWED_MS, ALLOWED_SHARE * pair.client_ms) for error, pair in zip(errors, pairs, strict=True)
    )
    return round(small / len(pairs), 5) if pairs else 0.0


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return percentiles of values that may be less than 0."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    last = len(ordered) - 1
    shares = {"min": 0.0, "p1": 0.01, "p50": 0.5, "p99": 0.99, "max": 1.0}
    return {"n": len(ordered), **{name: round(ordered[round(last * share)], 4) for name, share in shares.items()}}


def sums_of(records: Iterable[Mapping[str, Any]]) -> Figures:
    """Check that the parts of each record sum to its whole, but for the rounding of each part.

    Parties sum to the total; the last point is the total; the states of each lane sum to its life.
    """
    kept = list(records)
    texts = (f"{record['total_ms']:f}".rstrip("0") for record in kept)
    unit_ms = 10.0 ** -max((len(text.partition(".")[2]) for text in texts), default=0)
    counts = {"records": len(kept), "parties": 0, "points": 0, "lanes": 0, "wrong": 0}
    worst = {"parties": 0.0, "points": 0.0, "lanes": 0.0}

    def check(kind: str, whole: float, parts: Sequence[float]) -> None:
        counts[kind] += 1
        error_ms = abs(whole - sum(parts))
        worst[kind] = max(worst[kind], round(error_ms, 6))
        counts["wrong"] += error_ms > (len(parts) + 1) * unit_ms + 1e-9  # each may have been rounded down

    for record in kept:
        if parties := record.get("party_ms"):
            check("parties", record["total_ms"], list(parties.values()))
        if points := record.get("points_ms"):
            check("points", record["total_ms"], [max(points.values())])
        for lane in (record.get("lanes") or {}).values():
            states = [value for name, value in lane.items() if name.endswith("_ms") and name != "life_ms"]
            check("lanes", lane["life_ms"], states)
    return {**counts, "unit_ms": unit_ms, "worst_ms": worst}


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format the errors of the records, and of what was sent to the splice at the same time."""
    percentiles = ("p1", "p50", "p99", "max")
    rows = [
        [
            *("requests", "records of", "number", "client p50 ms", *(f"error {name} ms" for name in percentiles)),
            *("within", "missing", "last byte p1 ms", "p99", "within"),
        ]
    ]
    for measure in (*(phase.name for phase in PHASES), ALL):
        for row in recording.rows:
            if row.measure == measure:
                names = ("client_ms.p50", *(f"error_ms.{name}" for name in percentiles))
                last_byte = [number(row.median(f"last_byte_error_ms.{name}")) for name in ("p1", "p99")]
                rows.append(
                    [
                        *(measure, row.subject, number(row.median("requests"), 0)),
                        *(number(row.median(name)) for name in names),
                        *(_percent(row.median("within")), _percent(row.median("missing_share"))),
                        *(*last_byte, _percent(row.median("last_byte_within"))),
                    ]
                )
    text = table(rows, markdown=markdown)
    for row in recording.rows:
        if row.measure == SUMS:
            counts = ", ".join(f"{number(row.median(name), 0)} of {name}" for name in ("parties", "points", "lanes"))
            text += (
                f"\n\n{row.subject}: sums in {number(row.median('records'), 0)} records ({counts}) that are wrong by "
                f"more than rounding: {number(row.median('wrong'), 0)}."
            )
    return (
        f"{text}\n\nAn error is what the client measured, minus `total_ms` (for the last byte: minus the point "
        "`last_byte_out`), minus the median of the splice's differences. It is less than 0 if the record has too much. "
        f"*Within* is the share of requests whose error is at most {ALLOWED_MS:.0f} ms or {ALLOWED_SHARE:.0%} of what "
        "the client measured, *missing* what the records lack of all that clients measured."
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def error_at_p99(recording: Recording) -> float | None:
    """Return the size of the error that 99 % of the records do not exceed, less that of the splice's, in ms."""
    mine, splice = (recording.median(name, ALL, "size_ms.p99") for name in (OURS, SPLICE))
    return mine - splice if mine is not None and splice is not None else None


def measure(
    recording: Recording, tools: Tools, subjects: Sequence[Subject], requests: int, rounds: int = ROUNDS
) -> None:
    """Send all phases to all subjects, the splice among them, and record what the records say."""
    every: dict[str, list[Pair]] = {subject.name: [] for subject in subjects}
    logs = [(subject, Log(subject)) for subject in subjects]
    for at, phase in enumerate(PHASES):
        count = max(1, round(requests * phase.share / rounds))
        found: dict[str, list[Pair]] = {subject.name: [] for subject in subjects}
        for round_number in range(rounds):
            for subject, log in logs:
                found[subject.name] += run_phase(tools, subject, log, phase, f"p{at}r{round_number}-", count)
        usual_ms = statistics.median(pair.difference_ms for pair in found[SPLICE])
        for name, pairs in found.items():
            missing = count * rounds - len(pairs)
            figures = figures_of(pairs, usual_ms, missing)
            flags = [f"{missing} requests without a response or a record"] if missing else []
            recording.add(name, phase.name, figures, flags)
            every[name] += [Pair(pair.client_ms - usual_ms, pair.record) for pair in pairs]
            print(
                f"{phase.name:<32} {name:<22} error {figures['error_ms']}  within {figures['within']:.2%}"
                f"{'  ! ' + flags[0] if flags else ''}",
                flush=True,
            )
    for name, pairs in every.items():
        recording.add(name, ALL, figures_of(pairs, 0.0, 0))
        recording.add(name, SUMS, sums_of(pair.record for pair in pairs))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Check the records in the log against the clients.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--requests", type=int, help=f"sent to each service ({REQUESTS}; quick: {REQUESTS // 10})")
    parser.add_argument("--source", type=Path, default=ROOT, metavar="DIR", help="the tree of headrace (this one)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another tree of headrace, in the same run")
    parser.add_argument("--settings", default="", help="further pipeline_settings, such as 'execution: tasks'")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-records.json)")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    recording = begin("records", is_quick=options.quick)
    requests = options.requests or (REQUESTS // 10 if options.quick else REQUESTS)
    trees = {OURS: options.source.resolve()}
    if options.against is not None:
        trees[f"headrace {commit(options.against)}"] = options.against.resolve()
    settings = ", ".join(filter(None, ["stages: [{use: burn, after: decode_events}]", options.settings]))
    with contextlib.ExitStack() as stack:
        tools, path = stack.enter_context(open_tools()), stack.enter_context(plugin())
        try:
            subjects = [
                stack.enter_context(serving(tools, name=name, source=tree, settings=settings, path=path))
                for name, tree in trees.items()
            ]
            subjects.append(stack.enter_context(splicing(tools)))
        except NotReady as error:
            print(f"a server did not start: {error}")
            return 1
        measure(recording, tools, subjects, requests)
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
