"""Stalls are summed by stage, and joined by time with the requests that waited."""

from __future__ import annotations

from kit.study.made import BEGAN_S, as_request, as_stall, request_line, stall_line

from pipeline.study.stalls import stalled_stages, stalls_page
from pipeline.study.tables import WIDTH, Paint

REQUESTS = [request_line(f"r-{at}", began_s=BEGAN_S + at, head_ms=500) for at in range(5)]  # each takes 660 ms


def test_stalls_are_summed_by_stage_with_those_that_waited() -> None:
    stalls = [
        stall_line(BEGAN_S + 0.4, 100.0, "shout", "r-9"),
        stall_line(BEGAN_S + 1.1, 300.0, "shout", "r-9"),  # r-0 has ended, and r-1 has begun 100 ms before its end
        {**stall_line(BEGAN_S + 2.5, 50.0, "shout", "r-2"), "unlogged": 4},
        stall_line(BEGAN_S + 2.5, 80.0, None, None),
    ]
    # In any order: a recording of several workers is not sorted.
    found = stalled_stages([*map(as_stall, stalls[2:]), *map(as_request, REQUESTS), *map(as_stall, stalls[:2])])
    shout, unnamed, unlogged = found
    assert (shout.stage, shout.count, shout.total_ms, shout.max_ms) == ("shout", 3, 450, 300)
    # They may have been any stage's: the log has the longest stall of a second, and how many more there were.
    assert (unlogged.stage, unlogged.is_logged, unlogged.count, unlogged.total_ms) == (None, False, 4, 0)
    assert unnamed.is_logged
    assert stalls_page(found, Paint())[3].split() == ["(not", "logged)", "4", "-", "-", "-", "-"]
    assert shout.requests == ["r-9", "r-2"]  # the longest first; r-2 did not wait for itself
    assert {name: round(ms) for name, ms in shout.waiters.items()} == {"r-0": 100, "r-1": 100}
    assert (unnamed.stage, unnamed.waited, unnamed.requests) == (None, 1, [])
    assert {name: round(ms) for name, ms in unnamed.waiters.items()} == {"r-2": 80}


def test_other_workers_did_not_wait() -> None:
    stall = {**stall_line(BEGAN_S + 0.4, 100.0), "worker": 2}
    [found] = stalled_stages([as_request({**REQUESTS[0], "worker": 1}), as_stall(stall)])
    assert found.waited == 0


def test_the_page_names_them_within_its_width() -> None:
    stalls = [as_stall(stall_line(BEGAN_S + at / 10, 99.0, "shout", f"holder-{at}")) for at in range(40)]
    lines = stalls_page(stalled_stages([*map(as_request, REQUESTS), *stalls]), Paint())
    assert max(map(len, lines)) <= WIDTH
    assert lines[1].split() == ["shout", "40", "3960.0", "99.0", "3", "4"]
    assert stalls_page([], Paint()) == [
        "No stall is in the recording: no turn of a stage took over 20 ms, and none of the loop over 50 ms."
    ]
