"""Measure what the figures cost, of an event and of a request: the service with and without them, side by side.

Run: ``python -m benchmarks.bench_meters`` (about 8 minutes), or ``--against DIR`` to compare with another tree instead.
Figures are CPU time of processes, with an identical copy of the service as a control; `benchmarks.turns` says how.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.engine_work import WORKS, amounts_of
from benchmarks.gateways import LOG_LEVELS
from benchmarks.loads import open_tools
from benchmarks.processes import ROOT, NotReady
from benchmarks.recording import Recording, begin, commit
from benchmarks.service_turns import services
from benchmarks.turns import (
    Measure,
    add_turn_options,
    can_tell,
    comparison,
    engine_command,
    engines,
    ratio,
    take_turns,
    turns_and_sessions,
)

OURS: Final = "headrace"
COPY: Final = "headrace, copy"
WITHOUT: Final = "headrace without figures"
TURNS: Final = 64
SESSIONS: Final = 16
"""Many: two services with the same program differ by a percent for as long as they live."""
TRACED: Final = "headrace, every request traced"
PARTS: Final = ("events", "requests", "engine", "tracing")
SECONDS: Final = {"paced": 1.0, "requests": 0.7}
"""The length of a turn."""
MEASURES: Final = {
    "info paced": Measure("an event of a paced stream", 0.025),
    "info requests": Measure("a request, log level info", 0.03),
    "warning requests": Measure("a request, log level warning", 0.03),
    "traced paced": Measure("an event of a paced stream, beside traced ones", 0.01),
    "engine accept": Measure(f"engine alone: {WORKS['accept'].title}", 0.03),
    "engine answer": Measure(f"engine alone: {WORKS['answer'].title}", 0.03),
    "engine event": Measure(f"engine alone: {WORKS['event'].title}", 0.03),
}
"""Everything that is measured. The log's level changes nothing for an event: only requests have a record there."""
PACED: Final = "info paced"
SHARE_LIMIT: Final = 0.03
"""What the figures may have of a paced event."""
TRACED_PACED: Final = "traced paced"
TRACED_SHARE: Final = 0.01
"""The share of requests that are traced by default (``trace_one_in``)."""


def _works(prefix: str) -> list[str]:
    return [measure.removeprefix(prefix) for measure in MEASURES if measure.startswith(prefix)]


def _name(against: Path | None) -> str:
    return f"headrace {commit(against)}" if against is not None else WITHOUT


def in_services(
    recording: Recording, against: Path | None, parts: Collection[str], turns: int, sessions: int, length: float
) -> None:
    """Compare whole services, under equal loads at the same time: events of streams, and whole requests."""
    other: dict[str, Any] = {"module": "benchmarks.unmetered"}
    if against is not None:
        other = {"source": against}
    lengths = {
        work: SECONDS[work] * length for part, work in (("events", "paced"), ("requests", "requests")) if part in parts
    }
    with open_tools() as tools:
        for level in LOG_LEVELS:
            label = f"{level} "
            works = [work for work in _works(label) if work in lengths]
            if not works:
                continue
            options: dict[str, dict[str, Any]] = {OURS: {}, COPY: {}, _name(against): other}
            sides = {name: {**option, "log_level": level} for name, option in options.items()}
            session = partial(services, tools, sides, lengths)
            take_turns(recording, session, works, turns=turns, sessions=sessions, label=label)


def in_traced_services(recording: Recording, turns: int, sessions: int, length: float) -> None:
    """Compare a service that traces every request with one as it is: one of a hundred costs a hundredth of that."""
    sides: dict[str, dict[str, Any]] = {OURS: {}, COPY: {}, TRACED: {"settings": "trace_one_in: 1"}}
    with open_tools() as tools:
        session = partial(services, tools, sides, {"paced": SECONDS["paced"] * length})
        take_turns(recording, session, _works("traced "), turns=turns, sessions=sessions, label="traced ")


def in_engines(recording: Recording, against: Path | None, turns: int, sessions: int, length: float) -> None:
    """Compare engines alone, whose stages do nothing: there the share of the figures is the largest that it can be."""
    other = engine_command(ROOT, "--without-figures") if against is None else engine_command(against)
    sides = {OURS: engine_command(ROOT), COPY: engine_command(ROOT), _name(against): other}
    session = partial(engines, sides, amounts_of(length))
    take_turns(recording, session, _works("engine "), turns=turns, sessions=sessions, label="engine ")


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format what everything costs, in relation to the service without figures or to the other tree."""
    text = comparison(recording, MEASURES, side=OURS, copy=COPY, markdown=markdown)
    if (share := share_of_figures(recording)) is not None:
        text += f"\n\nThe figures have a share of {share:.1%} in the CPU time of a paced event."
    if (traced := ratio(recording, TRACED, OURS, TRACED_PACED)) is not None:
        shares = [TRACED_SHARE * (part - 1) for part in (traced.median, traced.low, traced.high)]
        text += "\n\nTraces of {:.0%} of all requests add {:.2%} ({:.2%} to {:.2%}) to a paced event.".format(
            TRACED_SHARE, *shares
        )
    return text


def share_of_figures(recording: Recording) -> float | None:
    """Return the share of the figures in a paced event of the service, or None if it cannot be told."""
    found, control = ratio(recording, OURS, WITHOUT, PACED), ratio(recording, COPY, OURS, PACED)
    if found is None or control is None or not can_tell(control, SHARE_LIMIT):
        return None
    return 1 - 1 / found.median


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure what the figures cost, in CPU time.")
    parser.add_argument("--only", help=f"parts to measure, separated by commas: {','.join(PARTS)}")
    add_turn_options(parser, TURNS, SESSIONS)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another tree of headrace, with its figures")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-meters.json)")
    options = parser.parse_args(arguments)
    parts = options.only.split(",") if options.only else PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()!r}: {', '.join(PARTS)}")
    turns, sessions = turns_and_sessions(options, TURNS, SESSIONS)
    against = options.against.resolve() if options.against is not None else None
    recording = begin("meters", is_quick=options.quick)
    try:
        if "events" in parts or "requests" in parts:
            in_services(recording, against, parts, turns, sessions, options.length)
        if "tracing" in parts:
            in_traced_services(recording, turns, sessions, options.length)
        if "engine" in parts:
            in_engines(recording, against, turns, sessions, options.length)
    except NotReady as error:
        print(f"a server did not start: {error}")
        return 1
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
