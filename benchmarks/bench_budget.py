"""Hold headrace to the limits of `budgets.toml`: what CI does with every change, and users can do with their own.

Run: ``python -m benchmarks.bench_budget`` (``make budget``, 25 seconds). Two services with the same program get the
same light load at the same time: streams, and requests without. Their logs are recordings, which are judged as
``headrace budget`` judges them. The second service is a control, as in `benchmarks.turns`: a limit is exceeded only if
it is by both of them. It ends with 1 and a line for each limit that is exceeded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from benchmarks.children import Child
from benchmarks.loads import Subject, Tools, open_tools, shape
from benchmarks.processes import NotReady
from benchmarks.recording import number, table
from benchmarks.service_turns import side_by_side
from pipeline.study.budget import Budget, BudgetVerdict, Judgement, judged, read_budget
from pipeline.study.figures import Samples, samples_of
from pipeline.study.recording import Recording, StudyError
from pipeline.study.records import RecordedRequest

OURS: Final = "headrace"
COPY: Final = "its copy"
BUDGETS: Final = Path(__file__).with_name("budgets.toml")
REQUESTS: Final = 300
"""Of each work, to each service: a p99 needs a hundred."""
_FIRST: Final = 24
"""Before these: everything that happens once, happens now."""
WORKS: Final[dict[str, dict[str, Any]]] = {
    "short": {"model": "mock-n20-d10000-t1-r1", "connections": 4},
    "requests": {"model": "mock-n20-t0", "connections": 1, "stream": False},
}
"""Streams of 20 events, 10 ms apart, four at a time: 400 events/s to each service. And requests, one at a time."""
_LIMIT_S: Final = 120.0
_LOG_LIMIT_S: Final = 10.0


class Compared(Struct, frozen=True):
    """One limit, at both services.

    Attributes:
        ours, copy: what became of it there.
    """

    ours: Judgement
    copy: Judgement

    @property
    def difference(self) -> float:
        """By how much the two differ, in ms."""
        return abs((self.ours.value or 0.0) - (self.copy.value or 0.0))

    @property
    def verdict(self) -> BudgetVerdict:
        """Whether the limit is kept, as far as that can be told on this machine.

        It cannot if only one service exceeds it. It cannot either if the two differ by more than a third of the limit,
        unless both exceed it by more than they differ.
        """
        verdicts = {self.ours.verdict, self.copy.verdict}
        if verdicts == {"exceeded"}:
            at_most = self.ours.at_most
            excess = min(self.ours.value or 0.0, self.copy.value or 0.0) - at_most
            return "exceeded" if self.difference <= at_most / 3 or excess > self.difference else "cannot tell"
        return "within" if verdicts == {"within"} else "cannot tell"

    def __str__(self) -> str:
        """Return it as a line."""
        both = f"{number(self.ours.value)} ms, and {number(self.copy.value)} ms in {COPY}"
        return f"{self.verdict}: {self.ours.figure} is {both}; it may be {number(self.ours.at_most)} ms at most"


def samples(tools: Tools, requests: int, settings: str) -> dict[str, Samples]:
    """Put the load on both services, and return the figures of each.

    Raises:
        NotReady: if a request failed, or its record is missing.
    """
    sides = {name: {"settings": settings} for name in (OURS, COPY)}
    with side_by_side(tools, sides) as present:
        for prefix, count in (("first-", min(_FIRST, requests)), ("", requests)):
            for work, fields in WORKS.items():
                for subject, generator in present:
                    ids = f"{prefix}{work}-"
                    generator.order(shape("", subject, ids=ids, requests=count, limit_s=_LIMIT_S, **fields))
                for subject, generator in present:
                    _check(subject, generator, count)
        return {subject.name: samples_of(_records(subject, len(WORKS) * requests)) for subject, _ in present}


def _check(subject: Subject, generator: Child, count: int) -> None:
    figures = generator.reply(_LIMIT_S + 30)
    if figures["complete"] != count:
        raise NotReady(f"{subject.name}: {figures['complete']} of {count} requests were answered: {figures['errors']}")


def _records(subject: Subject, expected: int) -> list[RecordedRequest]:
    """Return the records of all requests but the first ones, as soon as the log has them."""
    assert subject.server is not None
    limit = time.monotonic() + _LOG_LIMIT_S
    while True:
        found = list(_measured(Recording(subject.server.output.read_bytes().splitlines(keepends=True))))
        if len(found) == expected:
            return found
        if time.monotonic() > limit:
            raise NotReady(f"{subject.name}: {len(found)} records of {expected} requests")
        time.sleep(0.05)


def _measured(recording: Recording) -> Iterator[RecordedRequest]:
    for event in recording:
        if isinstance(event, RecordedRequest) and event.request_id.startswith(tuple(WORKS)):
            yield event


def compared(budget: Budget, ours: Samples, copy: Samples) -> list[Compared]:
    """Judge both services, and return each limit with both of its verdicts.

    Raises:
        StudyError: if a limit is of a figure that no request has: its stage has another name now, or is gone.
    """
    copies = {(one.limit, one.figure): one for one in judged(budget, copy, None)}
    return [
        Compared(one, other)
        for one in judged(budget, ours, None)
        if (other := copies.get((one.limit, one.figure))) is not None
    ]


def summary(found: list[Compared]) -> str:
    """Format each limit with the figure that comes nearest to it, and a line for each that is not kept."""
    nearest: dict[str, Compared] = {}
    for one in found:
        before = nearest.setdefault(one.ours.limit, one)
        if (one.ours.value or 0.0) > (before.ours.value or 0.0):
            nearest[one.ours.limit] = one
    rows = [["figure, in ms", OURS, COPY, "at most", "so it is"]]
    rows += [
        [one.ours.figure, number(one.ours.value), number(one.copy.value), number(one.ours.at_most), one.verdict]
        for one in nearest.values()
    ]
    few = sum(one.ours.value is None for one in found)
    lines = [f"cannot tell: {few} figures, of which there are too few requests"] if few else []
    for verdict in ("cannot tell", "exceeded"):
        lines += [str(one) for one in found if one.verdict == verdict and one.ours.value is not None]
    kept = sum(one.verdict == "within" for one in found)
    return "\n".join([table(rows), "", *lines, f"{kept} of {len(found)} limits are kept"])


def main(arguments: list[str] | None = None) -> int:
    """Measure, judge and print."""
    parser = argparse.ArgumentParser(description="Hold headrace to the limits of budgets.toml.")
    parser.add_argument("--budgets", type=Path, default=BUDGETS, help="the file of limits")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help=f"of each work, to each service (default {REQUESTS})"
    )
    parser.add_argument("--settings", default="", help="pipeline_settings of both services, to see a limit exceeded")
    options = parser.parse_args(arguments)
    try:
        budget = read_budget(str(options.budgets))
        with open_tools() as tools:
            found = samples(tools, options.requests, options.settings)
        limits = compared(budget, found[OURS], found[COPY])
    except (NotReady, StudyError) as error:
        print(error)
        return 1
    print(summary(limits))
    return int(any(one.verdict == "exceeded" for one in limits))


if __name__ == "__main__":
    raise SystemExit(main())
