"""Silence is blamed on a worker only if it was listened for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.gateway.http.heartbeats import CHECK_PAUSE_S, HUNG_AFTER_S, HeartbeatCheck


@dataclass
class Heart:
    heard_at: float


def test_one_that_is_silent_for_too_long_is_named() -> None:
    check, silent, heard = HeartbeatCheck(0.0), Heart(0.0), Heart(0.0)
    now, named = 0.0, list[Heart]()
    while not named:
        now += CHECK_PAUSE_S
        heard.heard_at = now
        named = check.silent([silent, heard], now)
    assert named == [silent]
    assert HUNG_AFTER_S < now <= HUNG_AFTER_S + CHECK_PAUSE_S


def test_after_a_suspension_nobody_is_blamed_and_all_are_counted_anew() -> None:
    check, silent = HeartbeatCheck(0.0), Heart(0.0)
    woken_at = 3600.0
    assert check.silent([silent], woken_at) == []
    assert silent.heard_at == woken_at
    now = woken_at
    while now + CHECK_PAUSE_S <= woken_at + HUNG_AFTER_S:
        now += CHECK_PAUSE_S
        assert check.silent([silent], now) == []
    assert check.silent([silent], now + CHECK_PAUSE_S) == [silent]


def test_a_check_that_is_a_little_late_still_counts() -> None:
    check, silent = HeartbeatCheck(0.0), Heart(-HUNG_AFTER_S)
    assert check.silent([silent], CHECK_PAUSE_S + 0.9) == [silent]
