"""Whole services that take their turns side by side: under equal loads at the same time, on the same core.

Turns one after the other cannot tell 1 %: a load needs a second to show an event's cost, and within a second the
machine changes by more. Side by side the services alternate with each batch of events, as the scheduler has it, and
what slows one down for a while slows all of them down. Each has a load generator of its own; all are few enough
streams for one core.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from benchmarks.children import Child
from benchmarks.gateways import serving
from benchmarks.loads import Subject, Tools, open_generator, patience_s, shape
from benchmarks.processes import busy_ns, cpu_ns
from benchmarks.recording import Figures
from benchmarks.turns import COST, Turn, hash_seed

_MARGINS: Final = {"warmup_s": 0.2, "cooldown_s": 0.1}
"""The loads of a turn do not begin and end at once: no service may be alone while another one is measured."""
_PACED: Final[dict[str, Any]] = {
    "model": "mock-n3000-d20000-t1-r1",
    "connections": 33,
    "mode": "hold",
    "open_per_s": 0.0,
}
_REQUESTS: Final[dict[str, Any]] = {"model": "mock-n20-t0", "connections": 8, "open_per_s": 0.0}
LOADS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "paced": ("cpu_us_per_event", {**_PACED, **_MARGINS}),
    "requests": ("cpu_us_per_request", {**_REQUESTS, **_MARGINS, "stream": False}),
    "short": ("cpu_us_per_request", {**_REQUESTS, **_MARGINS}),
}
"""The works, each with its figure and its load. The first offers 1 650 events/s to each service."""
_SETTLE_LIMIT_S: Final = 5.0
_KEPT: Final = ("events_per_s", "requests_per_s", "server_cpu", "load_cpu", "error_count")


@contextlib.contextmanager
def side_by_side(
    tools: Tools, sides: Mapping[str, Mapping[str, Any]], session: int = 0
) -> Generator[list[tuple[Subject, Child]]]:
    """Start a service for each side, and a load generator for each service; the arguments are those of `services`."""
    seed = hash_seed(session)
    with contextlib.ExitStack() as stack:
        present: list[tuple[Subject, Child]] = []
        for name, options in sides.items():
            subject = stack.enter_context(serving(tools, name=name, environ=seed, **options))
            present.append((subject, stack.enter_context(open_generator())))
        yield present


@contextlib.contextmanager
def services(
    tools: Tools, sides: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float], session: int
) -> Generator[Turn]:
    """Start a service for each side, for one session.

    Args:
        tools: the upstream.
        sides: the arguments of `gateways.serving` of each.
        seconds: the length of a turn at each work.
        session: its number.
    """
    with side_by_side(tools, sides, session) as present:
        # Which of them begins its turn first matters a little, in spite of the margins.
        draw = random.Random(session)
        permutations = list(itertools.permutations(present))
        orders = {work: itertools.cycle(draw.sample(permutations, len(permutations))) for work in seconds}

        def turn(work: str) -> dict[str, tuple[Figures, list[str]]]:
            found = _turn(tools, next(orders[work]), work, seconds[work])
            return {name: found[name] for name in sides}

        yield turn


def _turn(
    tools: Tools, present: Sequence[tuple[Subject, Child]], work: str, seconds: float
) -> dict[str, tuple[Figures, list[str]]]:
    figure, fields = LOADS[work]
    _settle(tools)
    ours = [tools.upstream.pid, *(pid for subject, child in present for pid in (*subject.pids, child.process.pid))]
    before_ns, busy_before_ns, since = cpu_ns(ours), busy_ns(), time.monotonic()
    for subject, generator in present:
        load = shape("", subject, seconds=seconds, **fields)
        generator.order(load)
    found = {subject.name: generator.reply(patience_s(load)) for subject, generator in present}
    others_ns = busy_ns() - busy_before_ns - (cpu_ns(ours) - before_ns)
    others = round(max(0.0, others_ns / 1e9 / (time.monotonic() - since)), 4)
    return {
        name: (
            {COST: figures[figure], **{kept: figures[kept] for kept in _KEPT}, "foreign_cpu": others},
            [f"{figures['error_count']} errors: {figures['errors']}"] if figures["error_count"] else [],
        )
        for name, figures in found.items()
    }


def _settle(tools: Tools) -> None:
    """Wait until the services have noticed that the clients of the last turn are gone."""
    limit = time.monotonic() + _SETTLE_LIMIT_S
    while tools.stats().get("active") and time.monotonic() < limit:
        time.sleep(0.01)
