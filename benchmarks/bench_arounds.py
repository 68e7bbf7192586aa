"""Measure what it costs that something is around the call, or might be, and that there is a choice of deployments.

Run: ``python -m benchmarks.bench_arounds`` (about 8 minutes). The same source runs with several configurations, side by
side, with an identical copy as a control; `benchmarks.turns` says how.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import pass_on
from benchmarks.bench_records import plugin
from benchmarks.gateways import LOG_LEVELS, LogLevel
from benchmarks.loads import open_tools
from benchmarks.processes import NotReady
from benchmarks.recording import Recording, begin, number, table
from benchmarks.service_turns import LOADS, services
from benchmarks.turns import COST, Measure, add_turn_options, ratio, take_turns, turns_and_sessions, verdict

OURS: Final = "headrace"
COPY: Final = "headrace, copy"
SIDES: Final[dict[str, dict[str, Any]]] = {
    OURS: {},
    COPY: {},
    "an around that does nothing": {"settings": "stages: [{use: pass_on}]"},
    "one for other requests": {"settings": "stages: [{use: pass_on, when: {keys: [nobody]}}]"},
    "two healthy deployments": {"deployments": 2},
}
"""What is compared, each with the arguments of `gateways.serving`."""
TURNS: Final = 48
SESSIONS: Final = 12
SECONDS: Final = {"paced": 1.0, "requests": 0.7, "short": 0.7}
"""The length of a turn."""
MEASURES: Final = {
    "paced": Measure("an event of a paced stream", 0.01),
    "requests": Measure("a request", 0.03),
    "short": Measure("a stream of 20 events", 0.03),
}


def measure(
    recording: Recording, works: list[str], turns: int, sessions: int, length: float, log_level: LogLevel = "info"
) -> None:
    """Put the works on all sides, at the same time."""
    lengths = {work: SECONDS[work] * length for work in works}
    with open_tools() as tools, plugin(pass_on) as path:
        sides = {name: {**options, "path": path, "log_level": log_level} for name, options in SIDES.items()}
        session = partial(services, tools, sides, lengths)
        take_turns(recording, session, works, turns=turns, sessions=sessions)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format what each side costs more than the service without plugins."""
    rows = [["CPU time", "of", "median", f"more than {OURS}", "so it costs"]]
    for work, (title, limit) in MEASURES.items():
        control = ratio(recording, COPY, OURS, work)
        for side in SIDES:
            cost = recording.median(side, work, COST)
            if control is not None and cost is not None:
                cells = ["", ""]
                if side != OURS and (found := ratio(recording, side, OURS, work)) is not None:
                    cells = [str(found), "" if side == COPY else verdict(found, control, limit)]
                rows.append([title, side, f"{number(cost)} us", *cells])
    return table(rows, markdown=markdown)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure what something around the call costs, in CPU time.")
    parser.add_argument("--only", help=f"works to measure, separated by commas: {','.join(LOADS)}")
    add_turn_options(parser, TURNS, SESSIONS)
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="info logs each request (%(default)s)")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-arounds.json)")
    options = parser.parse_args(arguments)
    works = options.only.split(",") if options.only else list(LOADS)
    if unknown := set(works) - set(LOADS):
        parser.error(f"there is no work {unknown.pop()!r}: {', '.join(LOADS)}")
    turns, sessions = turns_and_sessions(options, TURNS, SESSIONS)
    recording = begin("arounds", is_quick=options.quick)
    try:
        measure(recording, works, turns, sessions, options.length, options.log_level)
    except NotReady as error:
        print(f"a server did not start: {error}")
        return 1
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
