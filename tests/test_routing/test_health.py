"""When a deployment is ejected, for how long, and how it returns."""

from __future__ import annotations

import pytest

from stages.routing.faults import FaultKind
from stages.routing.health import Health
from stages.routing.settings import RoutingSettings


def failing(
    times: int, kind: FaultKind = "internal", *, at: float = 0.0, settings: RoutingSettings | None = None
) -> Health:
    health = Health(settings or RoutingSettings())
    for _ in range(times):
        health.failed(at, kind)
    return health


def test_it_is_ejected_after_more_failures_in_a_minute_than_are_allowed() -> None:
    assert failing(3).is_ready(0.0)
    assert not failing(4).is_ready(0.0)
    assert failing(1, settings=RoutingSettings(allowed_fails=1)).is_ready(0.0)
    assert not failing(1, settings=RoutingSettings(allowed_fails=0)).is_ready(0.0)


def test_failures_of_more_than_a_minute_ago_do_not_count() -> None:
    health = failing(3)
    health.failed(60.0, "internal")
    assert health.is_ready(60.0)


@pytest.mark.parametrize(
    ("allowed_fails", "answers", "is_ready"),
    [(3, 2, False), (3, 3, True), (100, 2, True)],
    ids=["half", "less", "a number of its own"],
)
def test_it_is_ejected_if_more_than_half_of_at_least_five_fail_unless_a_number_is_set(
    allowed_fails: int, answers: int, is_ready: bool
) -> None:
    health = failing(2, settings=RoutingSettings(allowed_fails=allowed_fails))
    for _ in range(answers):
        health.answered(1.0, 0.9)
    health.failed(1.0, "timeout")
    assert health.is_ready(1.0) is is_ready


@pytest.mark.parametrize("kind", ["auth", "not_found", "rate_limit"])
def test_some_failures_eject_at_once(kind: FaultKind) -> None:
    assert not failing(1, kind).is_ready(0.0)


@pytest.mark.parametrize("kind", ["bad_request", "content_policy", "context_window"])
def test_what_the_request_is_to_blame_for_ejects_never(kind: FaultKind) -> None:
    assert failing(100, kind).is_ready(0.0)


def test_a_policy_counts_a_kind_apart() -> None:
    settings = RoutingSettings(allowed_fails_policy={"rate_limit": 2})
    assert failing(2, "rate_limit", settings=settings).is_ready(0.0)
    assert not failing(3, "rate_limit", settings=settings).is_ready(0.0)
    mixed = failing(2, "rate_limit", settings=settings)
    for _ in range(3):
        mixed.answered(0.1, 0.0)
        mixed.failed(0.0, "internal")
    assert mixed.is_ready(0.0)


def test_cool_downs_can_be_switched_off() -> None:
    assert failing(100, "auth", settings=RoutingSettings(has_cooldowns=False)).is_ready(0.0)


def test_one_request_tries_it_afterwards_and_decides() -> None:
    health = failing(4)
    assert not health.is_ready(4.9)
    assert not health.begin(4.9)  # nobody else was ready
    health.end()
    assert health.is_ready(5.0)
    assert health.begin(5.0)
    assert not health.is_ready(5.0)
    health.answered(5.1, 5.0)
    health.end_probe()
    health.end()
    assert (health.is_ready(5.1), health.in_flight, health.ejected_until_s) == (True, 0, None)


def test_a_probe_that_is_cancelled_decides_nothing() -> None:
    health = failing(4)
    assert health.begin(5.0)
    health.end_probe()
    health.end()
    assert health.is_ready(5.0)


def test_each_failed_probe_doubles_the_cool_down_up_to_a_minute() -> None:
    health, now_s, lengths = failing(4), 0.0, list[float]()
    for _ in range(6):
        until_s = health.ejected_until_s
        assert until_s is not None
        lengths.append(until_s - now_s)
        now_s = until_s
        assert health.begin(now_s)
        health.failed(now_s, "internal")
        health.end_probe()
        health.end()
    assert lengths == [5, 10, 20, 40, 60, 60]


def test_failures_of_what_was_on_its_way_do_not_prolong_it() -> None:
    health = failing(12)
    assert health.ejected_until_s == 5.0


def test_retry_after_is_heeded_up_to_a_minute() -> None:
    for asked_s, until_s in ((2.0, 5.0), (30.0, 30.0), (3600.0, 60.0)):
        health = Health(RoutingSettings())
        health.failed(0.0, "rate_limit", asked_s)
        assert health.ejected_until_s == until_s


def test_latency_is_smoothed() -> None:
    health = Health(RoutingSettings())
    for latency_s in (1.0, 2.0):
        health.answered(latency_s, 0.0)
    assert health.latency_s == pytest.approx(1.2)


def test_its_state_is_told_in_one_word() -> None:
    health = Health(RoutingSettings(allowed_fails=0))
    assert health.state(0.0) == "unknown"
    assert health.failed(0.0, "internal")
    assert [health.state(now_s) for now_s in (0.0, 4.9, 5.0)] == ["ejected", "ejected", "half-open"]
    assert health.answered(6.0, 5.5)
    assert not health.answered(7.0, 6.5)
    assert health.state(7.0) == "healthy"


def test_what_has_happened_in_the_last_minute_is_counted_by_kind_until_an_ejection_has_ended() -> None:
    health = failing(1, "bad_request")
    health.answered(30.0, 29.9)
    health.failed(40.0, "timeout")
    health.failed(41.0, "timeout")
    assert health.last_minute(42.0) == {"bad_request": 1, "answered": 1, "timeout": 2}
    assert health.last_minute(60.0) == {"answered": 1, "timeout": 2}
    assert health.failed(61.0, "rate_limit")
    assert health.last_minute(61.0) == {"answered": 1, "timeout": 2, "rate_limit": 1}
    health.answered(66.0, 65.9)
    assert health.last_minute(66.0) == {"answered": 1}


def test_the_answer_to_a_check_does_not_change_the_latency() -> None:
    health = Health(RoutingSettings())
    health.answered(9.0, 0.0, is_check=True)
    assert health.latency_s is None
    health.answered(1.0, 0.0)
    health.answered(9.0, 0.0, is_check=True)
    assert health.latency_s == 1.0


def test_what_was_asked_before_an_ejection_neither_ends_nor_prolongs_it() -> None:
    health = failing(1, "rate_limit", at=10.0)
    assert not health.answered(11.0, 9.0)
    assert not health.is_ready(11.0)
    assert not health.failed(16.0, "unavailable", asked_s=9.0)
    assert (health.ejections, health.is_ready(16.0)) == (1, True)
    assert health.answered(16.5, 16.0)


def test_one_that_fails_again_soon_after_its_return_is_left_out_for_longer() -> None:
    health = failing(1, "rate_limit")
    for returned_s, cooldown_s in ((6.0, 10.0), (20.0, 20.0), (50.0, 40.0)):
        assert health.answered(returned_s, returned_s)
        assert health.failed(returned_s + 1, "rate_limit")
        assert health.ejected_until_s == returned_s + 1 + cooldown_s
    assert health.answered(100.0, 100.0)
    assert health.failed(161.0, "rate_limit")
    assert health.ejected_until_s == 166.0


def test_without_a_cool_down_nothing_is_ejected_unless_it_says_for_how_long() -> None:
    settings = RoutingSettings(cooldown_s=0.0)
    health = failing(1, "rate_limit", settings=settings)
    health.begin(1.0)
    assert (health.is_ready(1.0), health.state(1.0)) == (True, "healthy")
    assert health.failed(1.0, "rate_limit", 3.0)
    assert health.ejected_until_s == 4.0


def test_when_it_wants_to_be_asked_again_is_not_forgotten_for_another_failure() -> None:
    health = failing(1, "rate_limit")
    health.failed(1.0, "rate_limit", 30.0)
    health.failed(2.0, "internal")
    assert health.retry_at_s == 31.0
    assert health.answered(40.0, 35.0)
    assert health.retry_at_s == 40.0
