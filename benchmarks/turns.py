"""Two sides take turns at the same work, and a copy of the first one shows what the machine makes of equal things.

What we want: to see a difference of 1 % in CPU time. Why it is hard: on a shared machine the work that fits into a
millisecond of CPU time varies by 20 % and more, in waves of some ten milliseconds; and two processes with the same
program differ by one or two percent for as long as they live, by where their memory happens to be. What does not work:
differences of wall clocks; one side after the other; long turns; one process for each side, however long it runs. What
we do: CPU time of processes on one core, in slices of milliseconds, all sides in every order, so that a wave meets all
of them; the ratio of two sides' costs in each turn; new processes every few turns (a *session*); the median of the
ratios, with an interval of 95 % from drawing sessions, and turns within them, again and again (a cluster bootstrap).
The first side has an identical copy, which takes turns too: if it differs by a third of the limit in question, there is
no verdict. How it can still fail: a neighbour that slows one kind of work down more than another.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.children import open_child
from benchmarks.processes import SERVER_CORES, module_with_tree
from benchmarks.recording import Figures, Recording, number, table

COST: Final = "cpu_us"
"""The figure of a turn that is compared."""
TURNS: Final = 64
SESSIONS: Final = 8
SLICES: Final = 6
"""Of a turn: three sides have six orders."""
_DRAWS: Final = 500

Turn = Callable[[str], Mapping[str, tuple[Figures, list[str]]]]
"""Has all sides take one turn at the named work; returns each one's figures, with `COST`, and reasons to doubt them."""


@contextlib.contextmanager
def engines(sides: Mapping[str, Sequence[str]], amounts: Mapping[str, int], session: int) -> Generator[Turn]:
    """Start `benchmarks.engine_work` for each side, for one session.

    Args:
        sides: the command of each; see `engine_command`.
        amounts: of each work, in one slice of a turn.
        session: its number.
    """
    seed = hash_seed(session)
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(open_child(command, SERVER_CORES, seed)) for name, command in sides.items()
        }
        orders = itertools.cycle(itertools.permutations(workers))

        def turn(work: str) -> dict[str, tuple[Figures, list[str]]]:
            costs: dict[str, list[float]] = {name: [] for name in workers}
            for _ in range(SLICES):
                for name in next(orders):
                    workers[name].order({"work": work, "amount": amounts[work]})
                    costs[name].append(workers[name].reply()[COST])
            return {name: ({COST: round(statistics.fmean(found), 4)}, []) for name, found in costs.items()}

        yield turn


def engine_command(tree: Path, *arguments: str) -> list[str]:
    """Return the command of `benchmarks.engine_work` with the engine of ``tree``."""
    return module_with_tree("benchmarks.engine_work", tree, *arguments)


def hash_seed(session: int) -> dict[str, str]:
    """Return the environment in which all processes of a session hash alike: which dictionaries collide matters."""
    return {"PYTHONHASHSEED": str(session + 1)}


def take_turns(
    recording: Recording,
    open_session: Callable[[int], AbstractContextManager[Turn]],
    works: Sequence[str],
    *,
    turns: int,
    sessions: int,
    label: str = "",
) -> None:
    """Take turns at all works, and record each turn as a round of the row (side, label and work).

    Args:
        recording: where the rounds go.
        open_session: starts the processes of all sides anew; called with the number of the session.
        works: their names.
        turns: how many turns each work gets, in all sessions together; at least one in each.
        sessions: how often the processes are started.
        label: what distinguishes these works from others of their names.
    """
    taken = 0
    for session in range(sessions):
        until = max(turns * (session + 1) // sessions, taken + 1)
        with open_session(session) as turn:
            for work in works:
                turn(work)  # the first time is slower, and does not count
            for _ in range(taken, until):
                for work in works:
                    for side, (figures, reasons) in turn(work).items():
                        recording.add(side, f"{label}{work}", {**figures, "session": session}, reasons)
        taken = until
        print(f"{label}{', '.join(works)}: {taken} of {turns} turns", flush=True)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The cost of one side in relation to that of another, at the same work.

    Attributes:
        median: of the turns' ratios.
        low, high: the 95 % interval of that median.
        turns: their number.
    """

    median: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        return f"{self.median - 1:+.1%} ({self.low - 1:+.1%} to {self.high - 1:+.1%})"


def ratio(recording: Recording, side: str, other: str, measure: str, figure: str = COST) -> Ratio | None:
    """Compare what ``side`` and ``other`` recorded, or return None if one of them did not take a turn."""
    mine, theirs = recording.row(side, measure), recording.row(other, measure)
    sessions: dict[int, list[float]] = {}
    if mine is not None and theirs is not None:
        for one, another in zip(mine.rounds, theirs.rounds, strict=True):
            if not (one[figure] and another[figure]):
                continue  # a service that was stopped for the whole turn completed nothing
            sessions.setdefault(one["session"], []).append(one[figure] / another[figure])
    clusters = list(sessions.values())
    if not clusters:
        return None
    draw = random.Random(len(clusters))  # the same recording always has the same interval
    medians = sorted(
        statistics.median([value for _ in clusters for value in _redrawn(draw, draw.choice(clusters))])
        for _ in range(_DRAWS)
    )
    every = [value for cluster in clusters for value in cluster]
    return Ratio(
        statistics.median(every), medians[round(_DRAWS * 0.025)], medians[round(_DRAWS * 0.975) - 1], len(every)
    )


def _redrawn(draw: random.Random, values: list[float]) -> list[float]:
    return draw.choices(values, k=len(values))


def can_tell(control: Ratio, limit: float) -> bool:
    """Return whether equal things were so equal that a difference of ``limit``, such as 0.01, means something."""
    return abs(control.median - 1) < limit / 3


def verdict(found: Ratio, control: Ratio, limit: float) -> str:
    """Say what a ratio means, if it means something.

    Args:
        found: the cost of a side in relation to another.
        control: that of a copy of one of them in relation to it.
        limit: the difference that matters.
    """
    if not can_tell(control, limit):
        return f"no verdict: the copy differs by {control.median - 1:+.2%}"
    low, high = found.low - 1, found.high - 1
    if high < -limit:
        return f"less, by more than {100 * limit:g}%"
    if low > limit:
        return f"more, by more than {100 * limit:g}%"
    if low >= -limit and high <= limit:
        return f"the same within {100 * limit:g}%"
    if high <= limit:
        return f"at most {100 * limit:g}% more"
    if low >= -limit:
        return f"at most {100 * limit:g}% less"
    return "undecided: more turns are needed"


class Measure(NamedTuple):
    """What was measured.

    Attributes:
        title: what cost it is.
        limit: the difference that matters, such as 0.01.
    """

    title: str
    limit: float


def comparison(
    recording: Recording, measures: Mapping[str, Measure], *, side: str, copy: str, markdown: bool = False
) -> str:
    """Format what ``side`` costs, and that in relation to each other side.

    Args:
        recording: of `take_turns`.
        measures: the rows, by their measures in the recording.
        side: the side that is compared with the others.
        copy: the copy of it.
        markdown: the form of the table.
    """
    present = [measure for measure in measures if recording.row(side, measure) is not None]
    others = [name for name in recording.subjects() if name not in (side, copy) and _has(recording, name, present)]
    rows = [["CPU time", side, "its copy", *(head for other in others for head in (f"against {other}", "so it is"))]]
    for measure in present:
        title, limit = measures[measure]
        control = ratio(recording, copy, side, measure)
        cells = [title, f"{number(recording.median(side, measure, COST))} us", str(control or "-")]
        for other in others:
            found = ratio(recording, side, other, measure)
            cells += [str(found), verdict(found, control, limit)] if found and control else ["-", "-"]
        rows.append(cells)
    turns = sorted({len(row.rounds) for row in recording.rows if row.measure in present})
    how = f"Medians of {' to '.join(map(str, turns))} turns; in brackets the 95 % interval of the median of the ratios."
    return table(rows, markdown=markdown) + f"\n\n{how}" if present else ""


def _has(recording: Recording, side: str, measures: Sequence[str]) -> bool:
    return any(recording.row(side, measure) is not None for measure in measures)


def add_turn_options(parser: argparse.ArgumentParser, turns: int, sessions: int) -> None:
    """Add the options that say how many turns there are, with these numbers as the usual ones."""
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--turns", type=int, help=f"turns at each work ({turns}; quick: 6)")
    parser.add_argument("--sessions", type=int, help=f"how often processes are started anew ({sessions}; quick: 2)")
    parser.add_argument(
        "--length", type=float, default=1.0, help="of a turn; 1: a second of paced events (%(default)s)"
    )


def turns_and_sessions(options: argparse.Namespace, turns: int, sessions: int) -> tuple[int, int]:
    """Return how many of each the options of `add_turn_options` ask for."""
    return options.turns or (6 if options.quick else turns), options.sessions or (2 if options.quick else sessions)
