"""Measure the engine alone: what a hop, a codec stage, setting up a request and an event of an answer cost.

Run: ``python -m benchmarks.bench_engine``, or ``--against DIR`` to have another tree's engine do the same in turn.
Figures are CPU time of a process, per batch or per run. README.md explains the method, `benchmarks.turns` why.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks.engine_work import WORKS, amounts_of
from benchmarks.processes import ROOT
from benchmarks.recording import Recording, begin, commit
from benchmarks.turns import SESSIONS, TURNS, Measure, comparison, engine_command, engines, take_turns

OURS = "headrace"
COPY = "headrace, copy"
LIMIT = 0.03
"""The difference that matters, unless another is asked for: works as small as these cannot be told apart by less."""


def summary(recording: Recording, *, markdown: bool = False, limit: float = LIMIT) -> str:
    """Format what each work costs, and what the other tree needs for it."""
    measures = {name: Measure(work.title, limit) for name, work in WORKS.items()}
    return comparison(recording, measures, side=OURS, copy=COPY, markdown=markdown)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure what the engine costs, in CPU time.")
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--only", help=f"works to measure, separated by commas: {','.join(WORKS)}")
    parser.add_argument("--turns", type=int, help=f"turns of each side at each work ({TURNS}; quick: 6)")
    parser.add_argument("--sessions", type=int, help=f"how often processes are started anew ({SESSIONS}; quick: 1)")
    parser.add_argument("--length", type=float, default=1.0, help="of a turn; 1: some 50 ms of CPU time (%(default)s)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another tree of headrace")
    parser.add_argument("--limit", type=float, default=LIMIT, help="the difference that matters (%(default)s)")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-engine.json)")
    options = parser.parse_args(arguments)
    works = options.only.split(",") if options.only else list(WORKS)
    if unknown := set(works) - set(WORKS):
        parser.error(f"there is no work {unknown.pop()!r}: {', '.join(WORKS)}")
    trees = {OURS: ROOT, COPY: ROOT}
    if options.against is not None:
        trees[f"headrace {commit(options.against)}"] = options.against.resolve()
    commands = {name: engine_command(tree) for name, tree in trees.items()}
    recording = begin("engine", is_quick=options.quick)
    turns = options.turns or (6 if options.quick else TURNS)
    sessions = options.sessions or (1 if options.quick else SESSIONS)
    take_turns(recording, partial(engines, commands, amounts_of(options.length)), works, turns=turns, sessions=sessions)
    print(f"\n{summary(recording, limit=options.limit)}")
    recording.save(options.output)


if __name__ == "__main__":
    main()
