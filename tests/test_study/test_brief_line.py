"""The line that `headrace study` prints for each request."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

from pipeline.study.brief_line import brief_line, shown, slowest_stage, stall_line

ENDED_S = 12 * 3600 + 67.9
RECORD: dict[str, Any] = {
    "model": "gpt-5",
    "stream": True,
    "end": "OK",
    "status": 200,
    "total_ms": 5121.9,
    "party_ms": {"client": 3.1, "ours": 9.4, "upstream": 5101.2},
    "points_ms": {"head_read": 1.5, "routed": 2.0, "upstream_sent": 2.9, "first_token": 412.9, "ended": 5121.9},
    "stages": {
        "call_upstream": {"busy_ms": 2.0, "flush_ms": 0.0, "outside_ms": 5100.0},
        "decode_events": {"busy_ms": 4.9, "flush_ms": 0.1, "outside_ms": 0.0},
    },
}


def line(**changes: Any) -> str:
    return brief_line({**RECORD, **changes}, ENDED_S, zone=UTC)


def test_a_stream_says_whose_time_it_was_as_the_documentation_shows() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "study-proxy.md").read_text(encoding="utf-8")
    assert f"\n{line()}\n" in page
    assert line() == (
        "12:01:07 gpt-5 stream OK 5122 ms: upstream 5101 ms (first token after 410 ms, sent in 0.90 ms), ours 9.4 ms, "
        "client 3.1 ms; slowest stage decode_events 5.0 ms"
    )


def test_an_answer_that_is_not_streamed_comes_as_a_whole() -> None:
    assert " gpt-5 OK 5122 ms: upstream 5101 ms (answer after 410 ms, sent in 0.90 ms)," in line(stream=False)


def test_a_failure_says_its_status_and_code() -> None:
    failed = line(
        end="UE",
        status=401,
        error="upstream_unauthorized",
        upstream_status=401,
        points_ms={"routed": 2.0, "upstream_sent": 3.0},
    )
    assert " gpt-5 stream UE 401 (upstream_unauthorized) 5122 ms: upstream 5101 ms (sent in 1.0 ms), ours" in failed
    assert " UE 502 (upstream_error, the upstream answered 500) " in line(
        end="UE", status=502, error="upstream_error", upstream_status=500
    )


def test_a_request_that_did_not_get_far_leaves_out_what_did_not_happen() -> None:
    refused = {"model": None, "stream": None, "end": "BR", "status": 400, "error": "invalid_request", "total_ms": 1.0}
    assert brief_line(refused, ENDED_S, zone=UTC) == "12:01:07 (no model) BR 400 (invalid_request) 1.0 ms"
    left = line(end="DC", status=None, points_ms={}, stages={})
    assert left == "12:01:07 gpt-5 stream DC no status 5122 ms: upstream 5101 ms, ours 9.4 ms, client 3.1 ms"


def test_a_terminal_marks_the_end_and_the_longest_party() -> None:
    coloured = brief_line(RECORD, ENDED_S, zone=UTC, has_colour=True)
    assert "\x1b[32mOK\x1b[0m" in coloured
    assert "\x1b[1mupstream 5101 ms\x1b[0m (" in coloured
    assert "\x1b[31mUE 401\x1b[0m" in brief_line({**RECORD, "end": "UE", "status": 401}, ENDED_S, has_colour=True)


def test_a_name_cannot_write_to_the_terminal() -> None:
    assert " gpt?[31m?5 stream" in line(model="gpt\x1b[31m\n5")
    assert shown("m" * 61) == "m" * 57 + "..."
    assert shown("m" * 60) == "m" * 60


def test_the_slowest_stage_does_not_wait_for_its_socket() -> None:
    stages = {**RECORD["stages"], "check_policy": {"busy_ms": 0.1, "flush_ms": 0.0, "outside_ms": 7.0}}
    assert slowest_stage(stages) == ("check_policy", 7.1)
    assert slowest_stage({}) is None


def test_a_stall_names_what_held_the_loop() -> None:
    stall = {"stage": "shout", "ms": 120.4, "streams": 3}
    assert stall_line(stall, ENDED_S, zone=UTC) == (
        "12:01:07 stall: shout held the event loop for 120 ms; 3 streams waited"
    )
    assert stall_line({"stage": None, "ms": 51.0, "streams": 1}, ENDED_S, zone=UTC) == (
        "12:01:07 stall: something outside of the stages held the event loop for 51.0 ms; 1 stream waited"
    )
