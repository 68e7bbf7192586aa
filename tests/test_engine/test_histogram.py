"""Log-linear histograms: where values are counted, and what is known of them then."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.histogram import (
    SLOTS,
    STEPS,
    added_up,
    limit_s,
    middle_s,
    quantiles_s,
    size_limit,
    slot_of,
    slot_of_size,
    slots_at,
)

GENAI_LIMITS_S = [0.01 * 2**k for k in range(14)]
"""Of gen_ai.client.operation.duration: OpenTelemetry's semantic conventions, 2026-08."""


def test_slots_follow_each_other_without_a_gap() -> None:
    limits = [size_limit(slot) for slot in range(SLOTS)]
    for slot in range(SLOTS - 1):
        assert slot_of_size(limits[slot] - 1) == slot
        assert slot_of_size(limits[slot]) == slot + 1


def test_what_is_beyond_the_last_slot_is_in_it_and_what_is_negative_in_the_first() -> None:
    assert slot_of_size(10**12) == slot_of(10**18) == SLOTS - 1
    assert slot_of_size(-5) == slot_of(-1) == 0


@pytest.mark.parametrize("limit", GENAI_LIMITS_S)
def test_the_limits_of_octaves_are_those_that_opentelemetry_asks_for(limit: float) -> None:
    ns = round(limit * 1e9)
    assert slot_of(ns) == slot_of(ns - 1) + 1
    assert limit_s(slot_of(ns - 1)) == limit


@given(st.integers(0, 10**13))
def test_a_duration_is_known_within_three_percent_or_a_third_of_a_microsecond(ns: int) -> None:
    assert abs(middle_s(slot_of(ns)) * 1e9 - ns) <= max(0.032 * ns, 306)


@given(st.lists(st.integers(10_000, 10**12), min_size=1))
def test_quantiles_are_those_of_the_sorted_values(durations_ns: list[int]) -> None:
    counts = Counter(map(slot_of, durations_ns))
    half_s, longest_s = quantiles_s(counts, 0.5, 1)
    assert half_s == pytest.approx(statistics.median_low(durations_ns) / 1e9, rel=0.032)
    assert longest_s == pytest.approx(max(durations_ns) / 1e9, rel=0.032)


@given(st.lists(st.integers(10_000, 10**12), min_size=1), st.sampled_from([2, 4, 8, STEPS]))
def test_slots_that_are_added_up_keep_all_values_and_their_quantiles(durations_ns: list[int], step: int) -> None:
    counts = Counter(map(slot_of, durations_ns))
    coarse = added_up(counts, step)
    assert coarse.total() == counts.total()
    assert all(slot % step == 0 for slot in coarse)
    [fine_s], [coarse_s] = quantiles_s(counts, 0.5), quantiles_s(coarse, 0.5, step=step)
    assert coarse_s == pytest.approx(fine_s, rel=0.032 * step)


def test_neighbouring_slots_are_added_up_to_the_first_of_them() -> None:
    assert added_up({0: 1, 3: 2, 4: 3, 11: 4}, 4) == {0: 3, 4: 3, 8: 4}


def test_nothing_has_no_quantiles() -> None:
    assert quantiles_s({}, 0.5) == []
    assert slots_at({7: 0}, [1]) == []
