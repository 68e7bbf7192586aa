"""A trace is opened by Perfetto's own trace processor: slices, counters and flows are there, and durations sum up."""

from __future__ import annotations

from typing import Any

import pytest
from kit.needs import PERFETTO_ENGINE, needs
from kit.study.made import BEGAN_S, as_request, as_stall, request_line, stall_line
from kit.study.perfetto_engine import Row, queried
from kit.study.traced import LINK, traced_line

from pipeline.study.perfetto import perfetto_trace

pytestmark = [needs(PERFETTO_ENGINE), pytest.mark.timeout(120)]

ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
IN_REQUEST = """
    select p.name as process, coalesce(t.name, th.name) as track, s.category, s.name, s.depth,
        count(*) as n, sum(s.dur) as ns
    from slice s
    join track t on t.id = s.track_id
    left join thread_track tt on tt.id = t.id left join thread th using (utid)
    left join process_track pt on pt.id = t.id
    join process p on p.upid = coalesce(th.upid, pt.upid)
    group by 1, 2, 3, 4, 5
"""


def one(rows: list[Row], **wanted: object) -> Row:
    """Return the only row with these values."""
    [found] = [row for row in rows if wanted.items() <= row.items()]
    return found


def test_a_request_that_was_traced_per_batch() -> None:
    line = traced_line("t-1", batches=20)
    trace = perfetto_trace([as_request(line)], [as_stall(stall_line(BEGAN_S + 0.1, 60.0))])
    slices, errors, flows, depth, batches, nested, begun = queried(
        trace,
        IN_REQUEST,
        ERRORS,
        "select count(*) as n, count(distinct trace_id) as batches from flow",
        "select value, count(*) as n from counter c join track t on t.id = c.track_id"
        f" where t.name = 'depth of {LINK}' group by 1",
        "select max(value) as most, count(*) as n from counter c join track t on t.id = c.track_id"
        " where t.name = 'batches'",
        "select p.name as around, s.name from slice s join slice p on p.id = s.parent_id where s.category = 'stage'"
        " group by 1, 2 order by 2",
        "select min(ts) as ts from slice where category = 'request'",
    )
    assert errors == []
    process = {"process": "request t-1"}
    whole = one(slices, **process, category="request")
    assert whole["ns"] == pytest.approx(line["total_ms"] * 1e6, abs=1000)
    assert begun[0]["ts"] == pytest.approx(BEGAN_S * 1e9, abs=1e6)  # the log has whole ms
    # Work and states: 20 batches each, exact to the nanosecond, the work within the states.
    for lane, name, us in (
        ("call_upstream", "call_upstream", 200),
        ("decode_events", "decode_events", 300.25),
        ("decode_events", "encode_chunks", 300),
        ("decode_events", "write_sse", 100),
    ):
        row = one(slices, **process, track=lane, category="stage", name=name)
        assert (row["n"], row["ns"], row["depth"]) == (20, 20 * round(us * 1000), 1)
    busy = one(slices, **process, track="decode_events", category="state", name="busy")
    assert (busy["n"], busy["ns"], busy["depth"]) == (20, 20 * 700_250, 0)
    assert {row["around"] for row in nested} == {"busy"}
    assert [row["name"] for row in nested] == ["call_upstream", "decode_events", "encode_chunks", "write_sse"]
    wait = one(slices, **process, track=f"link {LINK}", category="wait", name="ready")
    assert (wait["n"], wait["ns"]) == (20, 20 * 100_500)
    # Each batch goes once from lane to lane; the link has one batch at a time.
    assert flows == [{"n": 20, "batches": 20}]
    assert {row["value"]: row["n"] for row in depth} == {0.0: 20, 1.0: 20}
    assert batches == [{"most": 20.0, "n": 20}]
    # Parties and phases sum to the record, and the stall is on a track of its own.
    for party, ms in line["party_ms"].items():
        ns = sum(row["ns"] for row in slices if row["category"] == "party" and row["name"] == party)
        assert ns == pytest.approx(ms * 1e6, abs=20_000)
    assert sum(row["ns"] for row in slices if row["category"] == "phase") == pytest.approx(whole["ns"], abs=20_000)
    points = {row["name"] for row in slices if row["category"] == "point"}
    assert points == set(line["points_ms"])
    stall = one(slices, process="event loops", category="stall")
    assert (stall["name"], stall["ns"]) == ("stall: shout", 60_000_000)


ODD = {
    "lanes": ["a"],
    "stages": ["s"],
    "lane_of_stage": [0],
    "links": ["a>b"],
    "spans": [
        [3, 0, 0.0, 100.0, 1],
        [0, 0, 50.0, 100.0, 1],  # ends after its state
        [11, 0, 10.0, 100.0, 1],
        [11, 0, 20.0, 50.0, 2],  # waits at the same time
        [3, 9, 0.0, 1.0, 0],  # a lane that is not named
    ],
}


def test_real_requests_without_a_trace_have_their_sums_and_odd_spans_are_cut(real: list[dict[str, Any]]) -> None:
    odd = request_line("odd", trace=ODD)
    slices, errors, depth = queried(
        perfetto_trace(map(as_request, [*real, odd])),
        IN_REQUEST,
        ERRORS,
        "select max(value) as most from counter c join track t on t.id = c.track_id where t.name like 'depth of %'",
    )
    assert errors == []
    assert one(slices, category="stage", name="s")["ns"] == 50_000
    assert one(slices, category="state", name="busy")["n"] == 1
    assert one(slices, category="wait", name="queued")["ns"] == 150_000
    assert depth == [{"most": 2.0}]
    for line in real:
        process = f"request {line['request_id']}"
        for party, ms in line["party_ms"].items():
            rows = [
                row for row in slices if (row["process"], row["category"], row["name"]) == (process, "party", party)
            ]
            assert sum(row["ns"] for row in rows) == pytest.approx(ms * 1e6, abs=1000 * len(line["points_ms"]) + 1000)
        for name, lane in line["lanes"].items():
            track = f"{name} (sums, in no order)"
            rows = [row for row in slices if (row["process"], row["track"]) == (process, track)]
            states = sum(row["ns"] for row in rows if row["depth"] == 0)
            assert states == pytest.approx(lane["life_ms"] * 1e6, abs=8000), (process, name)
            work = {row["name"]: row["ns"] for row in rows if row["depth"] == 1}
            for stage in lane["stages"]:
                figures = line["stages"][stage]
                # A flush need not all be in the closing of its own lane: what does not fit is cut.
                least, most = figures["busy_ms"] * 1e6, (figures["busy_ms"] + figures["flush_ms"]) * 1e6
                assert least - 2000 <= work.get(stage, 0) <= most + 2000, (process, stage)
