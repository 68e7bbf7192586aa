"""The parts of a request's time, and its path: both sum to what the record says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.study.made import as_request, request_line

from pipeline.study.parts import PARTIES, parts_of
from pipeline.study.path import path_of
from pipeline.study.records import RecordedRequest

MS = st.floats(min_value=0, max_value=10_000).map(lambda ms: round(ms, 3))
PAST_ATTEMPT = {"deployment": "d-0", "model": "m", "end": "UE", "began_ms": 0.1, "ms": 40.0, "events": 0}
LAST_ATTEMPT = {"deployment": "d-1", "model": "m", "end": "OK", "began_ms": 90.1, "ms": 160.0, "events": 20}


def assert_conserved(request: RecordedRequest) -> None:
    """Check that parts and path sum to the parties, and the path to the total."""
    parts, path = parts_of(request), path_of(request)
    for party in PARTIES:
        ms = request.party_ms.get(party, 0.0)
        assert sum(part.ms for part in parts if part.party == party) == pytest.approx(ms, abs=0.001), party
        shown = sum(step.party_ms.get(party, 0.0) for step in path)
        assert shown == pytest.approx(ms, abs=0.001 * (len(path) + 1)), party
    assert sum(step.ms for step in path) == pytest.approx(request.total_ms, abs=0.001 * (len(path) + 1))
    for step in path:
        assert sum(step.party_ms.values()) == pytest.approx(step.ms, abs=0.004)


def test_parts_and_path_of_real_requests_are_conserved(real: list[dict[str, Any]]) -> None:
    assert {line["end"] for line in real} >= {"OK", "BR"}
    for line in real:
        assert_conserved(as_request(line))


TIMES = ("arrival_ms", "upload_ms", "head_ms", "first_ms", "tokens_ms", "reading_ms", "loop_ms")


@given(st.lists(MS, min_size=len(TIMES), max_size=len(TIMES)))
def test_parts_and_path_are_conserved_whatever_takes_long(times: list[float]) -> None:
    figures: dict[str, Any] = dict(zip(TIMES, times, strict=True))
    assert_conserved(as_request(request_line(**figures)))


@given(MS, MS, MS)
def test_parties_are_conserved_even_if_the_phases_contradict_them(client: float, ours: float, upstream: float) -> None:
    line = request_line()
    line["party_ms"] = {"client": client, "ours": ours, "upstream": upstream}
    request = as_request(line)
    for party in PARTIES:
        found = sum(part.ms for part in parts_of(request) if part.party == party)
        assert found == pytest.approx(line["party_ms"][party], abs=0.001)


def test_each_wait_is_a_part_of_its_own() -> None:
    request = as_request(
        request_line(arrival_ms=3, queue_ms=40, upload_ms=5, connect_ms=7, wait_ms={"steer": 11}, work_ms={"shout": 13})
    )
    parts = {part.name: part.ms for part in parts_of(request)}
    assert parts == pytest.approx(
        {
            "upload": 5,
            "reading": 1,
            "queue": 40,
            "work.shout": 13,
            "wait.steer": 11,
            "loop": 3.5,
            "work.decode_events": 0.5,
            "work.encode_chunks": 0.3,
            "connect": 7,
            "head": 50,
            "first_token": 10,
            "tokens": 100,
        }
    )


def test_attempts_that_failed_and_their_pauses_are_not_taken_for_a_wait_for_the_pool() -> None:
    request = as_request(request_line(pause_ms=50, attempts=[PAST_ATTEMPT, {**LAST_ATTEMPT, "pause_ms": 50.0}]))
    parts = {part.name: part.ms for part in parts_of(request)}
    assert (parts["attempts"], parts["pause"]) == (40, 50)
    assert "pool" not in parts
    [step] = [step for step in path_of(request) if step.point == "upstream_slot"]
    assert step.about == "attempts that failed, and pauses"
    assert step.party_ms == pytest.approx({"ours": 50, "upstream": 40}, abs=0.2)


def test_work_behind_a_wait_for_the_client_is_not_counted_twice() -> None:
    line = request_line(reading_ms=500, work_ms={"shout": 200})
    line["party_ms"]["ours"] = 100.0  # the stage worked while the client was waited for
    parts = parts_of(as_request(line))
    assert sum(part.ms for part in parts if part.party == "ours") == pytest.approx(100)
