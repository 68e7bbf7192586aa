"""What the log says of deployments that are left out, and that are back."""

from __future__ import annotations

import logging

import pytest

from pipeline.gateway.health_log import PAUSE_S, HealthLog
from stages.routing.health import Change

CODE = "upstream_rate_limited"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "headrace")
    return caplog


def test_an_ejection_and_its_end_have_a_line_each(lines: pytest.LogCaptureFixture) -> None:
    log = HealthLog()
    for change in (Change("eu", 0.0, CODE, 5.0, 1), Change("eu", 5.0, CODE, 10.0, 2), Change("eu", 15.0)):
        log.note(change)
    assert lines.messages == [
        "deployment eu is left out for 5 s after upstream_rate_limited (ejection 1 in a row)",
        "deployment eu is left out for 10 s after upstream_rate_limited (ejection 2 in a row)",
        "deployment eu answers again",
    ]


def test_one_that_fails_and_answers_by_turns_has_two_lines_a_minute(lines: pytest.LogCaptureFixture) -> None:
    log = HealthLog()
    for number in range(100):
        log.note(Change("eu", number / 10, CODE, 5.0, 1))
        log.note(Change("eu", number / 10))
    assert len(lines.messages) == 2
    log.note(Change("eu", PAUSE_S, CODE, 5.0, 1))
    assert lines.messages[-1].endswith("(ejection 1 in a row; 99 more were not logged)")
    log.note(Change("us", PAUSE_S, CODE, 5.0, 1))
    assert len(lines.messages) == 4


def test_one_that_does_not_come_back_is_logged_at_its_next_failed_try(lines: pytest.LogCaptureFixture) -> None:
    log = HealthLog()
    for change in (Change("eu", 0.0, CODE, 5.0, 1), Change("eu", 1.0), Change("eu", 2.0, CODE, 5.0, 1)):
        log.note(change)
    assert lines.messages[-1] == "deployment eu answers again"
    log.note(Change("eu", 7.0, CODE, 10.0, 2))
    assert "ejection 2" in lines.messages[-1]


def test_of_what_is_configured_no_more_nothing_is_kept(lines: pytest.LogCaptureFixture) -> None:
    log = HealthLog()
    for id in ("eu", "us"):
        log.note(Change(id, 0.0, CODE, 5.0, 1))
        log.note(Change(id, 1.0))
        log.note(Change(id, 2.0, CODE, 5.0, 1))
    log.keep_only({"us"})
    lines.clear()
    log.note(Change("eu", 3.0, CODE, 5.0, 1))  # another one of that name
    log.note(Change("us", 3.0, CODE, 5.0, 1))
    assert lines.messages == ["deployment eu is left out for 5 s after upstream_rate_limited (ejection 1 in a row)"]
