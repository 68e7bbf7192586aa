"""Prometheus' text format: what another program's parser reads is what was counted."""

from __future__ import annotations

import math
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.gateway.metrics.buckets import GEN_AI_SECONDS, SECONDS, SIZES
from pipeline.gateway.metrics.text import exposition, number
from pipeline.histogram import limit_s, size_limit, slot_of, slot_of_size
from pipeline.series import Family, Kind, Series

COUNTERS = (Kind.COUNT, Kind.SECONDS, Kind.AMOUNT)


def family(kind: Kind, *series: Series, name: str = "headrace_x", about: str = "What it is.") -> dict[str, Family]:
    return {name: Family(name, about, kind, list(series))}


def parsed(families: dict[str, Family]) -> dict[str, Metric]:
    return {metric.name: metric for metric in text_string_to_metric_families(exposition(families).decode())}


def samples(metric: Metric) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {(one.name, tuple(sorted(one.labels.items()))): one.value for one in metric.samples}
    assert len(found) == len(metric.samples)  # nothing twice
    return found


def test_a_counter_a_gauge_and_a_histogram_look_as_prometheus_documents() -> None:
    slots = {slot_of(9_999_999): 2, slot_of(10_000_000): 1, slot_of(100_000_000_000): 4}
    families = {
        **family(Kind.COUNT, Series((("end", "OK"),), 3), Series((("end", "DC"),), 1), name="headrace_b_total"),
        **family(Kind.GAUGE, Series((), 0.5), name="headrace_c", about="A \\ and\na line."),
        **family(Kind.DURATIONS, Series((), 1.25, slots), name="headrace_a_seconds"),
        **family(Kind.COUNT, name="headrace_without_series_total"),
    }
    lines = exposition(families).decode().splitlines()
    assert lines[:2] == ["# HELP headrace_a_seconds What it is.", "# TYPE headrace_a_seconds histogram"]
    assert lines[6:9] == [
        'headrace_a_seconds_bucket{le="0.005"} 0',
        'headrace_a_seconds_bucket{le="0.01"} 2',
        'headrace_a_seconds_bucket{le="0.02"} 3',
    ]
    assert lines[-12:] == [
        'headrace_a_seconds_bucket{le="40.96"} 3',
        'headrace_a_seconds_bucket{le="81.92"} 3',
        'headrace_a_seconds_bucket{le="+Inf"} 7',
        "headrace_a_seconds_sum 1.25",
        "headrace_a_seconds_count 7",
        "# HELP headrace_b_total What it is.",
        "# TYPE headrace_b_total counter",
        'headrace_b_total{end="DC"} 1',
        'headrace_b_total{end="OK"} 3',
        "# HELP headrace_c A \\\\ and\\na line.",
        "# TYPE headrace_c gauge",
        "headrace_c 0.5",
    ]


def test_numbers_are_exact() -> None:
    values = [0, 7, 2.0, -1.5, 0.1, 1e-9, 1e300, float(2**60), math.inf, -math.inf, math.nan]
    texts = ["0", "7", "2", "-1.5", "0.1", "1e-09", "1e+300", "1.152921504606847e+18", "+Inf", "-Inf", "NaN"]
    assert list(map(number, values)) == texts


def test_names_that_only_a_plugin_can_have_become_valid() -> None:
    labels = (("1st", "a"), ("le", "b"), ("sha-re", "c"), ("sha.re", "d"))
    (metric,) = parsed(family(Kind.GAUGE, Series(labels, 1.0), name="headrace_plugin_a-b_x.y")).values()
    assert metric.name == "headrace_plugin_a_b_x_y"
    assert metric.samples[0].labels == {"_1st": "a", "le_": "b", "sha_re": "c", "sha_re_": "d"}


LABELS = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda name: name != "le"), st.text(), max_size=3
).map(lambda labels: tuple(labels.items()))
VALUES = st.floats(allow_nan=False) | st.integers(0, 2**53)
SLOTS = st.dictionaries(st.integers(0, 511), st.integers(1, 2**40), max_size=20)


@given(
    st.sampled_from((*COUNTERS, Kind.GAUGE)),
    st.lists(st.builds(Series, LABELS, VALUES), min_size=1, unique_by=lambda one: dict(one.labels).__repr__()),
    st.text(),
)
def test_every_counter_and_gauge_is_read_as_it_was(kind: Kind, series: list[Series], about: str) -> None:
    unique = {tuple(sorted(one.labels)): one for one in series}
    families = family(kind, *unique.values(), name="headrace_x_total", about=about)
    (metric,) = parsed(families).values()
    assert metric.type == ("gauge" if kind is Kind.GAUGE else "counter")
    assert samples(metric) == {("headrace_x_total", labels): one.value for labels, one in unique.items()}
    assert exposition(families) == exposition(
        family(kind, *reversed(unique.values()), name="headrace_x_total", about=about)
    )


@given(st.sampled_from((Kind.DURATIONS, Kind.SIZES)), LABELS, SLOTS, st.floats(0, 1e12))
def test_every_histogram_is_read_as_it_was(
    kind: Kind, labels: tuple[tuple[str, str], ...], slots: dict[int, int], total: float
) -> None:
    (metric,) = parsed(family(kind, Series(labels, total, slots))).values()
    assert metric.type == "histogram"
    found = samples(metric)
    own = tuple(sorted(labels))
    assert found["headrace_x_count", own] == sum(slots.values())
    assert found["headrace_x_sum", own] == total
    limit_of = limit_s if kind is Kind.DURATIONS else size_limit
    limits = SECONDS if kind is Kind.DURATIONS else SIZES
    for limit in limits.limits:
        name = tuple(sorted([*labels, ("le", number(limit))]))
        # A slot's own limit does not belong to it: what is below a limit is what is in the slots up to it.
        is_exact = kind is Kind.SIZES and limit <= 16
        below = sum(
            count for slot, count in slots.items() if limit_of(slot) <= (limit + 1 if is_exact else limit * 1.000001)
        )
        assert found["headrace_x_bucket", name] == below
    assert found["headrace_x_bucket", tuple(sorted([*labels, ("le", "+Inf")]))] == sum(slots.values())


@given(st.lists(st.integers(0, 200_000_000_000), max_size=50))
def test_durations_are_on_the_right_side_of_every_limit(values_ns: list[int]) -> None:
    slots: dict[int, int] = {}
    for ns in values_ns:
        slots[slot_of(ns)] = slots.get(slot_of(ns), 0) + 1
    for limits in (SECONDS, GEN_AI_SECONDS):
        counts = limits.counts(slots)
        for at, limit in enumerate(limits.limits):
            assert sum(counts[: at + 1]) == sum(ns < round(limit * 1e9) for ns in values_ns), limit


@given(st.lists(st.integers(0, 2**28), max_size=50))
def test_sizes_are_on_the_right_side_of_every_limit(values: list[int]) -> None:
    slots: dict[int, int] = {}
    for value in values:
        slots[slot_of_size(value)] = slots.get(slot_of_size(value), 0) + 1
    counts = SIZES.counts(slots)
    for at, limit in enumerate(SIZES.limits):
        assert sum(counts[: at + 1]) == sum(value < limit + (limit <= 16) for value in values), limit


def test_the_limits_are_genais() -> None:
    assert GEN_AI_SECONDS.limits == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92
    )  # fmt: skip
    assert SECONDS.limits[:6] == (0.0003125, 0.000625, 0.00125, 0.0025, 0.005, 0.01)
    assert SECONDS.limits[5:] == GEN_AI_SECONDS.limits
    assert SIZES.limits == tuple(4.0**power for power in range(14))


def test_a_histogram_with_limits_of_its_own_keeps_them() -> None:
    series = Series((("stage", "shout"),), 7.5, buckets=((0.1, 1), (2.5, 3), (math.inf, 2)))
    (metric,) = parsed(family(Kind.BUCKETS, series)).values()
    assert [(one.name, one.labels.get("le"), one.value) for one in metric.samples] == [
        ("headrace_x_bucket", "0.1", 1),
        ("headrace_x_bucket", "2.5", 4),
        ("headrace_x_bucket", "+Inf", 6),
        ("headrace_x_sum", None, 7.5),
        ("headrace_x_count", None, 6),
    ]


def test_thousands_of_series_take_milliseconds() -> None:
    """A scrape with 6000 lines takes about 6 ms; here ten times as long is allowed, for a busy machine."""
    families: dict[str, Family] = {}
    for number_of in range(20):
        many = [
            Series((("deployment", f"d{at}"), ("end", "OK")), 1.5, dict.fromkeys(range(80, 400, 8), 3))
            for at in range(10)
        ]
        families |= family(Kind.DURATIONS, *many, name=f"headrace_a{number_of}_seconds")
        few = [Series((("deployment", f"d{at}"), ("end", "OK")), 1.5) for at in range(100)]
        families |= family(Kind.SECONDS, *few, name=f"headrace_b{number_of}_seconds_total")
    best_s = math.inf
    for _ in range(5):
        began_s = perf_counter()
        text = exposition(families)
        best_s = min(best_s, perf_counter() - began_s)
    assert text.count(b"\n") > 6000
    assert best_s < 0.06
