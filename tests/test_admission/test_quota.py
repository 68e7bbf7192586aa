"""A quota, against a list of who was let in when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.admission.counts import Counts
from stages.admission.quota import PARALLEL_RETRY_S, Full, Quota, Taken
from stages.limits import Limits


class Limited:
    """A quota, with a clock that the test moves."""

    def __init__(self, **limits: int) -> None:
        self.now_s = 1000.0
        self.counts = Counts(clock=lambda: self.now_s)
        self.limits = Limits(**limits)
        self.quota = self.another()

    def another(self) -> Quota:
        return Quota(self.counts, "one", "the API key 'one'", self.limits, shows=True)

    def take(self, tokens: int = 0) -> Taken:
        taken = self.quota.take(tokens)
        assert isinstance(taken, Taken), taken
        return taken

    def full(self, tokens: int = 0) -> Full:
        full = self.quota.take(tokens)
        assert isinstance(full, Full)
        return full


@given(st.integers(1, 20), st.lists(st.integers(0, 20_000), max_size=120))
def test_never_more_than_rpm_in_any_60_s_and_no_refusal_below_it_in_61_s(rpm: int, gaps_ms: list[int]) -> None:
    world = Limited(rpm=rpm)
    now_ms, let_in = 1_000_000, list[int]()
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        world.now_s = now_ms / 1000
        if isinstance(world.quota.take(), Taken):
            let_in.append(now_ms)
            assert sum(at_ms > now_ms - 60_000 for at_ms in let_in) <= rpm
        else:
            assert sum(at_ms > now_ms - 61_000 for at_ms in let_in) >= rpm


@given(st.integers(1, 5), st.lists(st.integers(0, 20_000), max_size=30))
def test_after_the_time_that_a_refusal_says_there_is_a_place(rpm: int, gaps_ms: list[int]) -> None:
    world = Limited(rpm=rpm)
    for gap_ms in gaps_ms:
        world.now_s += gap_ms / 1000
        if isinstance(full := world.quota.take(), Full):
            assert full.limit == "rpm"
            assert 0 < full.retry_after_s <= 61
            world.now_s += full.retry_after_s + 1e-6
            world.take()


def test_what_is_left_is_shown_with_the_time_until_the_first_place_comes_back() -> None:
    world = Limited(rpm=3, tpm=1000)
    first = world.take(100)
    assert (first.standing.requests, first.standing.requests_reset_s) == (2, 61)  # type: ignore[union-attr]
    assert (first.standing.tokens, first.standing.tokens_reset_s) == (900, 61)  # type: ignore[union-attr]
    world.now_s += 20.5
    world.take()
    world.take()
    full = world.full()
    assert full.standing is not None
    assert (full.standing.requests, full.standing.requests_reset_s, full.retry_after_s) == (0, 40.5, 40.5)


def test_requests_at_a_time_are_counted_until_they_end() -> None:
    world = Limited(parallel=2)
    first, second = world.take(), world.take()
    full = world.full()
    assert (full.limit, full.retry_after_s, world.quota.in_flight) == ("parallel", PARALLEL_RETRY_S, 2)
    first.end(None)
    world.take()
    assert isinstance(world.quota.take(), Full)
    second.undo()
    world.take()


def test_reserved_tokens_are_replaced_by_those_that_were_used() -> None:
    world = Limited(tpm=1000)
    taken = world.take(300)
    world.now_s += 30
    assert world.quota.has_room()
    taken.end(900)  # 600 more, counted now
    assert world.full(200).limit == "tpm"
    world.now_s += 31
    assert world.full(401).limit == "tpm"  # what was reserved is forgotten, 600 are not
    world.take(400).end(0)
    world.take(400).end(None)
    assert world.full(1).limit == "tpm"


def test_a_request_that_used_less_returns_the_rest() -> None:
    world = Limited(tpm=1000)
    taken = world.take(800)
    assert world.full(300).limit == "tpm"
    taken.end(100)
    world.take(900)


def test_a_request_larger_than_the_limit_is_let_in_when_nothing_else_is_counted() -> None:
    world = Limited(tpm=1000)
    world.take(5000)
    full = world.full(1)
    assert (full.limit, full.retry_after_s) == ("tpm", 61)
    world.now_s += 61
    world.take(5000)


def test_with_many_tokens_the_wait_is_as_long_as_it_takes_until_they_fit() -> None:
    world = Limited(tpm=100)
    for _ in range(10):
        world.take(10)
        world.now_s += 1
    assert world.full(10).retry_after_s == 51
    assert world.full(30).retry_after_s == 53
    assert world.full(1000).retry_after_s == 60


def test_tokens_can_be_reserved_later_than_the_place() -> None:
    world = Limited(rpm=5, tpm=100)
    taken = world.take()
    world.now_s += 2
    assert world.quota.reserve(taken, 60) is None
    assert taken.standing is not None
    assert taken.standing.tokens == 40
    other = world.take()
    full = world.quota.reserve(other, 60)
    assert full is not None
    assert (full.limit, full.retry_after_s) == ("tpm", 61)
    taken.undo()
    other.undo()
    assert world.take(100).standing.requests == 4  # type: ignore[union-attr]


def test_nothing_is_taken_if_one_of_the_limits_is_reached() -> None:
    world = Limited(rpm=10, tpm=100, parallel=1)
    first = world.take(10)
    assert world.full(10).limit == "parallel"
    first.end(10)
    assert world.full(91).limit == "tpm"
    assert world.take(90).standing.requests == 8  # type: ignore[union-attr]


def test_the_same_name_has_the_same_counts_with_other_limits_too() -> None:
    world = Limited(rpm=3)
    world.take()
    world.take()
    world.limits = Limits(rpm=2)
    world.quota = world.another()
    assert world.full().retry_after_s == 61
    world.limits = Limits(rpm=1)
    world.quota = world.another()
    assert world.full().retry_after_s == 61


def test_with_a_limit_of_0_nothing_is_let_in() -> None:
    for limits in ({"rpm": 0}, {"tpm": 0}, {"parallel": 0}):
        full = Limited(**limits).full()
        assert [full.limit] == list(limits)
        assert full.retry_after_s >= 1
        assert not Limited(**limits).quota.has_room()


def test_a_refusal_says_what_is_full() -> None:
    assert Limited(rpm=0).full().sentence == "the API key 'one' has had its 0 requests a minute (rpm)"
    world = Limited(tpm=5)
    world.take(5)
    assert world.full().sentence == "the API key 'one' has had its 5 tokens a minute (tpm)"
    assert Limited(parallel=0).full().sentence == (
        "the API key 'one' has 0 requests running, as many as it may at a time"
    )
