"""A sliding minute, against a list of what happened when."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stages.admission.window import BUCKETS, WINDOW_WORDS, Minute

STEPS = st.lists(st.tuples(st.integers(0, 70_000), st.integers(1, 9)), max_size=60)
"""How many ms later, how many are counted."""


def minute() -> Minute:
    return Minute(memoryview(bytearray(8 * WINDOW_WORDS)).cast("q"))


def counted(events: Sequence[tuple[int, int]], since_ms: int) -> int:
    return sum(count for at_ms, count in events if at_ms > since_ms)


@given(STEPS)
def test_it_counts_at_least_the_last_60_seconds_and_at_most_the_last_61(steps: list[tuple[int, int]]) -> None:
    window, now_ms, events = minute(), 0, list[tuple[int, int]]()
    for gap_ms, count in steps:
        now_ms += gap_ms
        total = window.advance(now_ms // 1000)
        assert counted(events, now_ms - 60_000) <= total <= counted(events, now_ms - 61_000)
        window.add(count)
        events.append((now_ms, count))


@given(STEPS, st.integers(1, 20))
def test_relief_comes_when_it_says_and_not_before(steps: list[tuple[int, int]], wanted: int) -> None:
    window, now_ms = minute(), 0
    for gap_ms, count in steps:
        now_ms += gap_ms
        window.advance(now_ms // 1000)
        window.add(count)
    total = window.advance(now_ms // 1000)
    if not total:
        assert window.relief_s(wanted, now_ms / 1000) == 0
        return
    wanted = min(wanted, total)
    wait_s = window.relief_s(wanted, now_ms / 1000)
    at = round(now_ms / 1000 + wait_s)
    assert 0 < wait_s <= BUCKETS
    assert window.advance(at - 1) > total - wanted
    assert window.advance(at) <= total - wanted


def test_what_is_taken_back_is_not_counted_unless_it_was_forgotten() -> None:
    window = minute()
    window.advance(5)
    window.add(3)
    window.advance(10)
    window.add(4)
    window.remove(2, 5)
    assert window.advance(64) == 5
    assert window.advance(66) == 4
    window.remove(1, 5)
    assert window.advance(66) == 4


def test_after_a_long_silence_it_is_empty() -> None:
    window = minute()
    window.advance(5)
    window.add(3)
    assert window.advance(10_000_000) == 0
    window.add(1)
    assert window.advance(10_000_060) == 1
    assert window.advance(10_000_061) == 0


def test_time_does_not_go_back() -> None:
    window = minute()
    window.advance(100)
    window.add(3)
    assert window.advance(99) == 3
    window.add(1)
    assert window.advance(160) == 4
    assert window.advance(161) == 0
