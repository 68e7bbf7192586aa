"""Budgets are kept, exceeded, or cannot be judged; what is wrong with a file is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.study.made import as_request, varied_lines, written

from pipeline.study.budget import Judgement, judged, read_budget
from pipeline.study.budget_page import budget_page
from pipeline.study.figures import Samples, samples_of
from pipeline.study.recording import StudyError
from pipeline.study.tables import Paint


def samples(count: int, seed: int, **figures: float) -> Samples:
    return samples_of(map(as_request, varied_lines(count, seed, **figures)))


def judge(folder: Path, text: str, now: Samples, before: Samples | None = None) -> list[Judgement]:
    (folder / "b.toml").write_text(text)
    return judged(read_budget(str(folder / "b.toml")), now, before)


def verdicts(found: list[Judgement]) -> dict[str, str]:
    return {one.figure: one.verdict for one in found}


def test_limits_are_judged_by_their_statistic(tmp_path: Path) -> None:
    text = """
    [limits]
    "stages.encode_chunks.busy_ms.p50" = 1.5
    "stages.encode_chunks.busy_ms.p99" = 1.0
    "transit_ms.p99" = 0.9
    "transit_ms.max" = 1.3
    "party.upstream.mean" = 10_000
    """
    found = judge(tmp_path, text, samples(200, seed=1))
    assert verdicts(found) == {
        "stages.encode_chunks.busy_ms.p50": "within",
        "stages.encode_chunks.busy_ms.p99": "exceeded",
        "transit_ms.p99.p99": "within",
        "transit_ms.max.max": "exceeded",
        "party.upstream.mean": "within",
    }
    page = budget_page(found, Paint())
    assert page[0].startswith("exceeded: stages.encode_chunks.busy_ms.p99 is ")
    assert page[0].endswith(", and may be 1.0 ms at most")
    assert page[-1] == "3 of 5 limits are kept"


def test_a_wildcard_stands_for_all_figures_that_match(tmp_path: Path) -> None:
    found = judge(tmp_path, '[limits]\n"stages.*.busy_ms.p50" = 0.7', samples(100, seed=1))
    assert verdicts(found) == {
        "stages.decode_events.busy_ms.p50": "within",
        "stages.encode_chunks.busy_ms.p50": "exceeded",
        "stages.call_upstream.busy_ms.p50": "within",
        "stages.write_sse.busy_ms.p50": "within",
    }


def test_too_few_requests_cannot_be_judged(tmp_path: Path) -> None:
    text = 'requests = 20\n[limits]\n"total_ms.p99" = 1\n"total_ms.p50" = 1'
    found = judge(tmp_path, text, samples(50, seed=1))
    assert verdicts(found) == {
        "total_ms.p99": "cannot tell",
        "total_ms.p50": "exceeded",
    }
    assert found[0].reason == "50 requests have it, and 100 are needed"


@pytest.mark.parametrize(
    ("limit", "meant"),
    [
        ("stages.encode_chunk.busy_ms.p50", "; did you mean 'stages.encode_chunks.busy_ms.p50'?"),
        ("transit_m.p99", "; did you mean 'transit_ms.p99'?"),
        ("nobody.*.p50", ""),
    ],
)
@pytest.mark.parametrize(
    "section", ['limits]\n"{}" = 1', 'baseline]\nfile = "x"\n[baseline.growth]\n"{}" = {{ms = 1}}']
)
def test_a_figure_that_no_request_has_is_an_error(tmp_path: Path, section: str, limit: str, meant: str) -> None:
    if limit.endswith("p99") and "growth" in section:
        limit, meant = limit.replace("p99", "p50"), meant.replace("p99", "p50")
    with pytest.raises(StudyError) as error:
        judge(tmp_path, f"[{section.format(limit)}", samples(50, seed=1), samples(50, seed=2))
    assert str(error.value) == f"no request has {limit}: mend or remove this limit{meant}"


GROWTH = """
[baseline]
file = "main.jsonl"
[baseline.growth]
"stages.encode_chunks.busy_ms.p50" = {percent = 10, ms = 0.5}
"total_ms.mean" = {percent = 25}
"""


@pytest.mark.parametrize(("extra_ms", "verdict"), [(0.0, "within"), (3.0, "exceeded")])
def test_growth_over_a_baseline_is_judged_with_its_interval(tmp_path: Path, extra_ms: float, verdict: str) -> None:
    found = judge(tmp_path, GROWTH, samples(300, seed=2, extra_ms=extra_ms), samples(300, seed=1))
    encode, total = found
    assert (encode.verdict, total.verdict) == (verdict, "within")
    assert encode.low is not None
    assert encode.high is not None
    assert encode.low < extra_ms < encode.high
    assert encode.at_most == 0.5
    if extra_ms:
        assert budget_page(found, Paint())[0].startswith(
            "exceeded: stages.encode_chunks.busy_ms.p50 has grown by 3.0 ms ("
        )


@pytest.mark.parametrize(("ms", "verdict"), [(0.0, "within"), (1.5, "cannot tell"), (20.0, "exceeded")])
def test_growth_that_varies_much_is_within_if_it_is_at_most_half_of_the_limit(
    tmp_path: Path, ms: float, verdict: str
) -> None:
    now, before = Samples(), Samples()
    for number in range(40):
        now.add("total_ms", number * 7 % 10 + ms)
        before.add("total_ms", number * 7 % 10)
    [total] = judge(tmp_path, '[baseline]\nfile="x"\n[baseline.growth]\n"total_ms.p50" = {ms = 2}', now, before)
    assert total.verdict == verdict
    assert total.high is not None
    assert total.high > 2


def test_a_baseline_is_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(GROWTH)
    assert read_budget(str(tmp_path / "b.toml")).baseline == str(tmp_path / "main.jsonl")
    assert written(tmp_path / "main.jsonl", []) == str(tmp_path / "main.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no limit"),
        ("[limits]\ntotal_ms = 3", "must end in a statistic"),
        ("[limits]\n'total_ms.p50' = 'much'", r"is not a file of limits: Expected `float`.*limits"),
        ("[limit]\n'total_ms.p50' = 1", "unknown field `limit`; it has requests, limits, baseline; "),
        ("[limits", "is not a file of limits"),
        (
            "[baseline]\nfile='x'\n[baseline.growth]\n'total_ms.p99'={ms=1}",
            r"judged for \.p50 and \.mean",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(StudyError, match=message):
        read_budget(str(tmp_path / "b.toml"))
