"""What `headrace top` makes of two readings, and how it looks."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.histogram import middle_s, slot_of
from pipeline.study.top import Top, TopStage, TopWorker, carried, top_of
from pipeline.study.top_screen import lines_of

BEFORE: dict[str, Any] = {
    "now_s": 1_764_500_000.0,
    "ended": {"OK": 10},
    "party_s": {"client": 1.0, "ours": 1.0, "upstream": 10.0},
    "stages": {"decode_events": {"busy_s": 1.0, "events_in": 100}},
    "links": {"a>b": {"ready_s": 1.0, "queued_s": 0.0, "full_s": 0.0, "batches": 100, "depth": 0}},
    "histograms": {"transit": {"slots": [[slot_of(10**6), 100]], "sum_s": 0.1}},
    "stall_s": {"shout": 1.0},
}
AFTER: dict[str, Any] = {
    "now_s": 1_764_500_002.0,
    "in_flight": 3,
    "ended": {"OK": 30, "DC": 2},
    "party_s": {"client": 1.0, "ours": 2.0, "upstream": 15.0},
    "phase_s": {"routed": 0.5},
    "stages": {
        "decode_events": {"busy_s": 1.5, "events_in": 300},
        "write_sse": {"busy_s": 1.0, "events_in": 50},
    },
    "links": {"a>b": {"ready_s": 1.2, "queued_s": 0.4, "full_s": 1.0, "batches": 300, "depth": 4}},
    "histograms": {"transit": {"slots": [[slot_of(10**6), 150], [slot_of(10**8), 50]], "sum_s": 9.0}},
    "stall_s": {"shout": 1.25},
    "workers": [{"worker": 1, "alive": True, "lag_s": 0.002, "in_flight": 3, "resident_bytes": 64 * 2**20}],
    "running": [
        {
            "request_id": "r\x1b[2J1",
            "worker": 1,
            "age_ms": 12_000.0,
            "idle_ms": 9000.0,
            "model": None,
            "waits_for": "upstream",
            "point": "upstream_sent",
            "events": 0,
        }
    ],
}


def test_everything_is_a_difference() -> None:
    top = top_of(BEFORE, AFTER)
    assert (top.seconds, top.in_flight, top.ended_per_s) == (2.0, 3, {"OK": 10.0, "DC": 1.0})
    assert top.party == {"client": 0.0, "ours": 0.5, "upstream": 2.5}
    assert top.phase == {"routed": 0.25}
    assert top.stages == [TopStage("write_sse", 0.5, 25.0), TopStage("decode_events", 0.25, 100.0)]
    [link] = top.links
    assert (round(link.ready_ms, 9), round(link.queued_ms, 9), link.full, link.depth) == (1.0, 2.0, 0.5, 4)
    assert top.transit_ms is not None
    assert [round(ms) for ms in top.transit_ms] == [1, 103]  # within 3 %
    assert top.gap_ms is None
    assert top.stall_ms == {"shout": 250.0}
    assert top.workers == [TopWorker(1, True, 2.0, 3, 64.0)]


def test_neighbouring_slots_that_were_added_up_change_no_count() -> None:
    slot = slot_of(10**6) // 4 * 4
    before = {"now_s": 1.0, "histograms": {"transit": {"step": 1, "slots": [[slot, 50], [slot + 3, 50]]}}}
    after = {"now_s": 2.0, "histograms": {"transit": {"step": 4, "slots": [[slot, 100], [slot + 4, 7]]}}}
    transit_ms = top_of(before, after).transit_ms
    assert transit_ms == pytest.approx([middle_s(slot + 4, 4) * 1e3] * 2)


def test_whose_time_it_is_is_divided_by_the_time_between_two_boards() -> None:
    def reading(now_s: float, at_s: float, ours: float) -> dict[str, Any]:
        return {"now_s": now_s, "party_at_s": at_s, "party_s": {"ours": ours}}

    first, same, later = reading(2.0, 2.5, 15.0), reading(3.0, 2.5, 16.0), reading(4.0, 4.0, 45.0)
    top = top_of(reading(1.0, 1.0, 0.0), first)
    assert top.party == {"ours": 10.0}
    assert top_of(first, same, top).party == {"ours": 10.0}
    assert top_of(first, same).party == {"ours": 0.0}
    assert top_of(carried(first, same), later).party == {"ours": 20.0}


def test_a_service_that_has_restarted_or_lacks_fields_has_no_negative_figures() -> None:
    top = top_of(AFTER, BEFORE | {"now_s": AFTER["now_s"] + 1})
    assert top.ended_per_s == {"OK": 0.0}
    assert all(value >= 0 for value in top.party.values())
    assert isinstance(top_of({"now_s": 1.0}, {"now_s": 2.0}), Top)


def test_the_lines_name_what_is_wrong_and_obey_nobody_s_name() -> None:
    lines = lines_of(top_of(BEFORE, AFTER), url="http://x", has_colour=False, width=100)
    text = "\n".join(lines)
    assert "ended 11.0/s  in flight 3" in text
    assert "the loop was held by  shout 250 ms" in text
    assert "\x1b" not in text
    assert "r?[2J1" in text
    assert max(map(len, lines)) <= 100
    assert "[#######uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu]" in text
    coloured = "\n".join(lines_of(top_of(BEFORE, AFTER), url="http://x", has_colour=True))
    assert "\x1b[31m" in coloured
    assert "\x1b[2J" not in coloured


def test_without_anything_to_show_there_are_only_the_first_lines() -> None:
    assert len(lines_of(top_of({"now_s": 1.0}, {"now_s": 2.0}), url="http://x", has_colour=False)) == 3
