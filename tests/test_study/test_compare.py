"""`compare` finds a stage that is 3 ms slower, says so of nothing else, and says when it cannot tell."""

from __future__ import annotations

import random
from time import perf_counter

import pytest
from kit.study.made import as_request, request_line, varied_lines

from pipeline.study.bootstrap import mean_interval, median_interval, widening
from pipeline.study.compare import compared
from pipeline.study.compare_page import compare_page
from pipeline.study.figures import Samples, samples_of
from pipeline.study.tables import WIDTH, Paint


def samples(count: int, seed: int, **figures: float) -> Samples:
    return samples_of(map(as_request, varied_lines(count, seed, **figures)))


@pytest.fixture(scope="module")
def a() -> Samples:
    return samples(300, seed=1)


def test_a_stage_that_is_3_ms_slower_is_the_culprit(a: Samples) -> None:
    comparison = compared(a, samples(300, seed=2, extra_ms=3.0))
    assert comparison.culprit == "stages.encode_chunks.busy_ms"
    first = comparison.figures[0]
    assert (first.figure, first.verdict, first.by) == ("stages.encode_chunks.busy_ms", "slower", "median")
    assert first.median_low < 3.0 < first.median_high
    assert first.median_high - first.median_low < 0.5
    causes = [one.figure for one in comparison.figures if one.is_cause and one.verdict in ("slower", "faster")]
    assert causes == ["stages.encode_chunks.busy_ms"]
    page = compare_page(comparison, Paint())
    assert page[0].startswith("stages.encode_chunks.busy_ms is slower in B: its median went from ")
    assert max(map(len, page)) <= WIDTH
    assert max(map(len, compare_page(comparison, Paint(), shows_all=True))) <= WIDTH


def test_the_other_way_around_it_is_faster(a: Samples) -> None:
    comparison = compared(samples(300, seed=2, extra_ms=3.0), a)
    assert comparison.figures[0].verdict == "faster"
    assert comparison.culprit == "stages.encode_chunks.busy_ms"


def test_of_two_recordings_of_the_same_no_difference_is_found(a: Samples) -> None:
    for seed in range(10, 13):
        comparison = compared(a, samples(300, seed=seed))
        assert comparison.culprit is None, comparison.figures[0]
        assert compare_page(comparison, Paint())[0] == "No difference was found."
    same = {one.figure: one.verdict for one in compared(a, a, margin=0.5).figures}
    assert set(same.values()) == {"no difference"}


def test_the_upstreams_head_is_a_cause_too(a: Samples) -> None:
    comparison = compared(a, samples(300, seed=3, head_ms=40.0))
    assert comparison.culprit == "parts.head"
    assert comparison.figures[0].median_low < 40 < comparison.figures[0].median_high


def test_too_few_requests_cannot_tell(a: Samples) -> None:
    comparison = compared(a, samples(5, seed=4, extra_ms=30.0))
    assert {one.verdict for one in comparison.figures} == {"cannot tell"}
    assert compare_page(comparison, Paint())[0].startswith("Cannot tell: there are too few requests")


def test_what_varies_too_much_for_the_number_of_requests_cannot_be_told() -> None:
    def wild(seed: int) -> Samples:
        generator = random.Random(seed)
        lines = [request_line(f"r-{at}", head_ms=generator.expovariate(1 / 300)) for at in range(30)]
        return samples_of(map(as_request, lines))

    verdicts = {one.figure: one.verdict for one in compared(wild(1), wild(2)).figures}
    assert verdicts["parts.head"] == "cannot tell"


def test_what_only_the_slowest_feel_is_found_by_the_mean() -> None:
    def with_tail(share: float) -> Samples:
        lines = [
            request_line(f"r-{at}", work_ms={"shout": 500.0 + at % 7 if at % 100 < share * 100 else 5 + at % 3})
            for at in range(1000)
        ]
        return samples_of(map(as_request, lines))

    comparison = compared(with_tail(0.0), with_tail(0.2))
    [shout] = [one for one in comparison.figures if one.figure == "stages.shout.busy_ms"]
    assert (shout.verdict, shout.by) == ("slower", "mean")
    assert shout.mean_low < 0.2 * 497 < shout.mean_high


def test_ten_thousand_requests_take_seconds() -> None:
    generator = random.Random(5)
    one, other = Samples(), Samples()
    for number in range(30):
        for of in (one, other):
            for _ in range(10_000):
                of.add(f"lanes.l{number}.busy_ms", generator.random())
    began_s = perf_counter()
    compared(one, other)
    assert perf_counter() - began_s < 20


def test_intervals_hold_as_often_as_they_say() -> None:
    hits = {"median": 0, "mean": 0}
    tries = 50
    for seed in range(tries):
        generator = random.Random(seed)
        a, b = ([generator.lognormvariate(0, 0.5) for _ in range(100)] for _ in range(2))
        median = median_interval(sorted(a), sorted(b), 1.0, seed)
        mean = mean_interval(a, b, 1.0, seed)
        hits["median"] += median.low <= 0 <= median.high
        hits["mean"] += mean.low <= 0 <= mean.high
    assert min(hits.values()) >= 0.9 * tries, hits


def test_more_figures_make_intervals_wider() -> None:
    assert widening(1) == pytest.approx(1)
    assert widening(100) == pytest.approx(1.776, abs=0.001)
