"""`compare` finds a stage that is 3 ms slower, says so of nothing else, and says when it cannot tell."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from math import sqrt
from time import perf_counter

import pytest
import trio
from kit.service.running import KEY, Service, serving
from kit.study.made import as_request, request_line, varied_lines

from pipeline.gateway.installed import known_plugins
from pipeline.gateway.situations.clients import ask_all
from pipeline.gateway.situations.table import Load
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


MODELS = ("before", "same", "after")
"""They are asked in turn, so that whatever else the machine does happens to all of them."""
ROUNDS = 50
TOKENS = 5


async def real_samples() -> dict[str, Samples]:
    """Ask for three models, of two services of this process: a stage works 2 ms at each token, of the last 5 ms."""
    samples = {name: Samples() for name in MODELS}
    async with served(["before", "same"], ms=2) as one, served(["after"], ms=5) as other:
        for _ in range(ROUNDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_all, one.port, KEY, [Load("before", 1), Load("same", 1)])
                nursery.start_soon(ask_all, other.port, KEY, [Load("after", 1)])
        for service, models in ((one, 2), (other, 1)):
            await service.record(models * ROUNDS - 1)
            for record in service.records:
                samples_of([as_request(record)], samples[record["model"]])
    return samples


def served(names: list[str], *, ms: float) -> AbstractAsyncContextManager[Service]:
    models = "".join(
        f"  - {{model_name: {name}, litellm_params: {{model: canned/timed:head=10ms;tokens={TOKENS};gap=15ms}}}}\n"
        for name in names
    )
    stages = f"  stages: [{{use: chaos_busy, options: {{ms: {ms}}}}}]\n"
    return serving(models, pipeline=stages, plugins=known_plugins())


@pytest.fixture(scope="module")
def real() -> dict[str, Samples]:
    return trio.run(real_samples)


@pytest.mark.alone
def test_of_real_requests_the_stage_is_found_and_not_the_wait_that_it_shortens(real: dict[str, Samples]) -> None:
    """While the stage works, the upstream goes on: the wait for tokens is shorter, by as much or by more."""
    slack_ms = 0.05 * 3 * TOKENS
    for a, b, verdict, ms in (("before", "after", "slower", 3 * TOKENS), ("after", "same", "faster", -3 * TOKENS)):
        comparison = compared(real[a], real[b])
        first = comparison.figures[0]
        assert (comparison.culprit, first.verdict) == ("stages.chaos_busy.busy_ms", verdict)
        assert first.median_low - slack_ms <= ms <= first.median_high + slack_ms
        tokens = next(one for one in comparison.figures if one.figure == "parts.tokens")
        assert tokens.median_difference * first.median_difference < 0


@pytest.mark.alone
def test_of_real_requests_that_are_alike_no_difference_is_found(real: dict[str, Samples]) -> None:
    comparison = compared(real["before"], real["same"])
    assert [one.figure for one in comparison.figures if one.differs] == []


def with_waits(stage_ms: float, loop_ms: float, tokens_ms: float) -> Samples:
    lines = [
        request_line(
            f"r-{at}", work_ms={"shout": stage_ms + at % 7 / 10}, loop_ms=loop_ms + at % 5 / 10, tokens_ms=tokens_ms
        )
        for at in range(100)
    ]
    return samples_of(map(as_request, lines))


@pytest.mark.parametrize(
    ("stage_ms", "loop_ms", "tokens_ms", "culprit", "then"),
    [
        (30, 10, 377, "stages.shout.busy_ms", ["parts.tokens"]),
        (30, 300, 80, "stages.shout.busy_ms", ["parts.tokens", "parts.loop"]),  # ten of them at the same time
        (10, 10, 300, "parts.tokens", []),
        (10, 90, 400, "parts.loop", []),
        (20, 10, 200, "parts.tokens", ["stages.shout.busy_ms"]),  # the stage does not explain so much
        (20, 10, 600, "parts.tokens", ["stages.shout.busy_ms"]),  # both are slower
    ],
)
def test_a_wait_is_a_consequence_if_a_stage_explains_it(
    stage_ms: float, loop_ms: float, tokens_ms: float, culprit: str, then: list[str]
) -> None:
    comparison = compared(with_waits(10, 10, 400), with_waits(stage_ms, loop_ms, tokens_ms))
    assert [one.figure for one in comparison.figures if one.is_cause and one.differs] == [culprit, *then]


def test_a_stage_that_only_one_recording_has_is_found() -> None:
    def lines(**work_ms: float) -> Samples:
        return samples_of(as_request(request_line(f"r-{at}", work_ms=work_ms)) for at in range(50))

    comparison = compared(lines(), lines(shout=12.0))
    assert comparison.culprit == "stages.shout.busy_ms"
    assert comparison.figures[0].median_difference == 12.0


@pytest.mark.parametrize(("ms", "verdict"), [(2.06, "no difference"), (2.5, "no difference"), (6.0, "slower")])
def test_what_is_little_of_the_request_does_not_matter(ms: float, verdict: str) -> None:
    """Half a percent of 600 ms are 3 ms."""

    def lines(ms: float) -> Samples:
        return samples_of(as_request(request_line(f"r-{at}", work_ms={"s": ms}, tokens_ms=540)) for at in range(50))

    figures = {one.figure: one for one in compared(lines(2.0), lines(ms)).figures}
    assert figures["stages.s.busy_ms"].verdict == verdict


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
            request_line(f"r-{at}", work_ms={"shout": 500.0 + at % 7 if 37 * at % 100 < share * 100 else 5 + at % 3})
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
    tries = 60
    for seed in range(tries):
        generator = random.Random(seed)
        a, b = ([generator.lognormvariate(0, 0.5) for _ in range(100)] for _ in range(2))
        median = median_interval(a, b, 1.0, seed)
        mean = mean_interval(a, b, 1.0, seed)
        hits["median"] += median.low <= 0 <= median.high
        hits["mean"] += mean.low <= 0 <= mean.high
    assert min(hits.values()) >= 0.85 * tries, hits


def alike(count: int, seed: int, likeness: float) -> list[float]:
    """Return values that vary by 30 %, each as like the one before it as ``likeness`` (an AR(1) process)."""
    generator = random.Random(seed)
    state, values = generator.gauss(0, 1), []
    for _ in range(count):
        values.append(10 * (1 + 0.3 * state))
        state = likeness * state + sqrt(1 - likeness**2) * generator.gauss(0, 1)
    return values


@pytest.mark.parametrize("likeness", [0.5, 0.9, 0.98])
def test_neighbours_that_are_alike_make_no_culprit_in_two_recordings_of_the_same(likeness: float) -> None:
    tries, culprits, misses = 40, 0, {"median": 0, "mean": 0}
    for seed in range(tries):
        a, b = alike(1000, 2 * seed, likeness), alike(1000, 2 * seed + 1, likeness)
        for name, interval in (("median", median_interval), ("mean", mean_interval)):
            _, low, high = interval(a, b, 1.0)
            misses[name] += not low <= 0 <= high
        one, other = Samples(), Samples()
        for samples, values in ((one, a), (other, b)):
            for value in values:
                samples.add("total_ms", value)
                samples.add("stages.s.busy_ms", value)
        culprits += compared(one, other).culprit is not None
    assert (culprits, max(misses.values()) <= 0.1 * tries) == (0, True), (culprits, misses)


def test_among_neighbours_that_are_alike_a_real_difference_is_found() -> None:
    a, b = alike(3000, 1, 0.9), [value + 3 for value in alike(3000, 2, 0.9)]
    _, low, high = median_interval(a, b, widening(100))
    assert 0 < low < 3 < high


def test_more_figures_make_intervals_wider() -> None:
    assert widening(1) == pytest.approx(1)
    assert widening(100) == pytest.approx(1.776, abs=0.001)
