"""CI holds us to `benchmarks/budgets.toml`: a stage that becomes slower is named, and a noisy machine is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from kit.needs import LINUX, needs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks import bench_budget  # noqa: E402
from benchmarks.bench_budget import BUDGETS, Compared, compared, summary  # noqa: E402
from pipeline.study.budget import Budget, BudgetVerdict, Judgement, read_budget  # noqa: E402
from pipeline.study.figures import Samples  # noqa: E402
from pipeline.study.recording import StudyError  # noqa: E402


def judgement(value: float | None, at_most: float = 3.0) -> Judgement:
    verdict: BudgetVerdict = "cannot tell" if value is None else "exceeded" if value > at_most else "within"
    return Judgement(limit="a.p50", figure="a.p50", verdict=verdict, value=value, at_most=at_most, requests=50)


@pytest.mark.parametrize(
    ("ours", "copy", "verdict"),
    [
        (2.9, 1.0, "within"),
        (3.1, 3.2, "exceeded"),
        (3.1, 2.9, "cannot tell"),  # the same program, at the same time
        (2.9, 3.1, "cannot tell"),
        (3.1, 4.2, "cannot tell"),  # they differ by more than a third of the limit
        (60.0, 90.0, "exceeded"),  # by more than they differ
        (None, 3.1, "cannot tell"),
    ],
)
def test_a_limit_is_exceeded_only_if_it_is_by_the_copy_too(
    ours: float | None, copy: float | None, verdict: str
) -> None:
    assert Compared(judgement(ours), judgement(copy)).verdict == verdict


def test_what_is_exceeded_is_a_line_each() -> None:
    found = [Compared(judgement(3.1), judgement(3.2)), Compared(judgement(None), judgement(None))]
    *_, few, exceeded, kept = summary(found).splitlines()
    assert few == "cannot tell: 1 figures, of which there are too few requests"
    assert exceeded == "exceeded: a.p50 is 3.10 ms, and 3.20 ms in its copy; it may be 3.00 ms at most"
    assert kept == "0 of 2 limits are kept"


def test_a_limit_of_a_figure_that_is_gone_is_an_error() -> None:
    samples = Samples()
    samples.add("total_ms", 1.0)
    budget = Budget(requests=1, limits={"stages.old.busy_ms.p50": 1.0}, growth={}, baseline=None)
    with pytest.raises(StudyError, match=r"no request has stages\.old\.busy_ms\.p50"):
        compared(budget, samples, samples)


def test_a_stage_that_is_3_ms_slower_exceeds_its_limit() -> None:
    """No limit of a stage is so high that it would not be found, whichever stage it is."""
    limits = read_budget(str(BUDGETS)).limits
    of_stages = {name: at_most for name, at_most in limits.items() if re.fullmatch(r"stages\..*\.p75", name)}
    assert "stages.*.busy_ms.p75" in of_stages
    assert max(of_stages.values()) < 3


@needs(LINUX)
@pytest.mark.timeout(300)  # it starts several processes
def test_a_slow_stage_of_a_real_service_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    slow = "stages: [{use: chaos_busy, options: {ms: 3, every: 5}}]"  # at four tokens of twenty: beyond all noise
    assert bench_budget.main(["--requests", "30", "--settings", slow]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^exceeded: stages\.chaos_busy\.busy_ms\.p75 is \d+\.\d+ ms", printed, re.MULTILINE)
