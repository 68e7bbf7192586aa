"""The spans of traced requests, and what must be true of all of them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable

from pipeline.lane import BUSY, CLOSING, STATES, Lane
from pipeline.tracing import FIRST_STATE, WAIT_QUEUED, WAIT_READY, WORK, Trace, TracedLane

Named = tuple[str, str, float, float, int]
"""What it is, of which stage, lane or link, when it began and how long it lasted in s, and which batch it was about."""

_WAITS = {WAIT_READY: "waits ready", WAIT_QUEUED: "waits queued"}


def named_spans(trace: Trace, born_ns: int = 0) -> list[Named]:
    """Return the spans with names, in the order in which they began; batches are counted from 1."""
    origins = sorted({origin_ns for *_, origin_ns in trace if origin_ns})
    found: list[Named] = []
    for kind, index, began_ns, ns, origin_ns in trace:
        if kind == WORK:
            what, name = "works", trace.stages[index]
        elif kind in _WAITS:
            what, name = _WAITS[kind], trace.links[index]
        else:
            what, name = STATES[kind - FIRST_STATE], trace.lanes[index]
        batch = origins.index(origin_ns) + 1 if origin_ns else 0
        found.append((what, name, (began_ns - born_ns) / 1e9, ns / 1e9, batch))
    return sorted(found, key=lambda span: span[2])


def assert_spans_sum(trace: Trace, mains: Iterable[Lane]) -> None:
    """Check the spans of a whole request.

    Those of a lane sum to its states and do not overlap; those of a stage sum to its work, do not overlap either, and
    lie where a lane of the stage was busy or closing.

    Args:
        trace: of the request; none of its spans may be lost.
        mains: all its lanes, those of attempts too; those of further tasks are checked with them.
    """
    assert trace.lost == 0
    spent_ns, work_ns = Counter[tuple[int, int]](), Counter[int]()
    at_work: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    states: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for kind, index, began_ns, ns, _ in trace:
        assert ns > 0
        if kind == WORK:
            work_ns[index] += ns
            at_work[index].append((began_ns, began_ns + ns))
        elif kind not in _WAITS:
            state = kind - FIRST_STATE
            spent_ns[index, state] += ns
            states[index].append((began_ns, began_ns + ns, state))
    stages = iter(enumerate(trace.stages))
    mains = sorted(mains, key=_index)
    assert [trace.lanes[_index(main)] for main in mains] == [main.name for main in mains]
    for main in mains:
        lanes = [main, *main.more]
        for lane in lanes:
            index = _index(lane)
            assert [spent_ns[index, state] for state in range(len(STATES))] == lane.spent_ns, lane.name
            assert_apart((began, ended) for began, ended, _ in states[index])
        for times in main.stages:
            at, name = next(stages)
            assert (times.name, _index(main)) == (name, trace.lane_of_stage[at])
            assert work_ns[at] == times.busy_ns + times.flush_ns, name
            for began_ns, ended_ns in at_work[at]:
                assert any(_covers(states[_index(lane)], began_ns, ended_ns) for lane in lanes), name
            if not main.more:
                assert_apart(at_work[at])
    assert not list(stages)


def assert_apart(spans: Iterable[tuple[int, int]]) -> None:
    """Check that spans do not overlap."""
    for (_, ended_ns), (began_ns, _) in itertools.pairwise(sorted(spans)):
        assert ended_ns <= began_ns


def _index(lane: Lane) -> int:
    assert isinstance(lane, TracedLane)
    return lane.index


def _covers(spans: Iterable[tuple[int, int, int]], began_ns: int, ended_ns: int) -> bool:
    """Return whether a lane was busy or closing all of that time."""
    covered_ns = sum(
        max(0, min(ended_ns, ended) - max(began_ns, began)) for began, ended, state in spans if state in (BUSY, CLOSING)
    )
    return covered_ns == ended_ns - began_ns
