"""The places of a request at deployments: one at a time, and none is left behind."""

from __future__ import annotations

from stages.admission.counts import Counts
from stages.admission.quota import Quota, Taken
from stages.events import Usage
from stages.limits import Limits
from stages.routing.places import Places


class Quotas:
    def __init__(self, **limits: int) -> None:
        counts = Counts(clock=lambda: 0.0)
        self.by_id = {id: Quota(counts, id, id, Limits(**limits)) for id in "ab"}

    def places(self, tokens: int = 10) -> Places:
        return Places(self.by_id, lambda: tokens)

    def in_flight(self) -> list[int]:
        return [quota.in_flight for quota in self.by_id.values()]


def test_another_place_replaces_the_one_that_was_not_used() -> None:
    quotas = Quotas(rpm=1, parallel=1)
    places = quotas.places()
    assert places.take("a")
    assert places.take("a")  # it is the same one
    assert places.take("b")
    assert quotas.in_flight() == [0, 1]
    assert places.take("unlimited")
    assert quotas.in_flight() == [0, 0]
    assert places.take("a")  # nothing was counted
    places.end(None, has_answered=True)
    assert not places.take("a")
    assert not places.has_room("a")
    assert places.has_room("b")
    assert places.has_room("unlimited")


def test_a_place_that_is_passed_on_is_that_of_the_next_one() -> None:
    quotas = Quotas(parallel=1)
    first = quotas.places()
    assert first.take("a")
    second = first.passed_on()
    first.undo()
    assert quotas.in_flight() == [1, 0]
    assert second.take("a")
    second.end(None, has_answered=False)
    assert quotas.in_flight() == [0, 0]


def test_tokens_count_as_they_were_used_or_as_they_were_estimated() -> None:
    for usage, has_answered, left in (
        (Usage(20, 30, 50), True, 50),
        (None, True, 90),
        (None, False, 100),
    ):
        quotas = Quotas(tpm=100)
        places = quotas.places()
        assert places.take("a")
        places.end(usage, has_answered=has_answered)
        taken = quotas.by_id["a"].take(left)
        assert isinstance(taken, Taken)
        assert not quotas.by_id["a"].has_room()


def test_only_who_was_refused_by_limits_is_told_of_them() -> None:
    quotas = Quotas(rpm=1)
    places = quotas.places()
    assert places.refusal("m") is None
    places.take("a")
    places.end(None, has_answered=True)
    places.take("a")
    refusal = places.refusal("m")
    assert refusal is not None
    assert refusal.code == "rate_limited"
