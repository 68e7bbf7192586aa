"""The report says of all requests what their records say, and that the parties sum to the total."""

from __future__ import annotations

from typing import Any

import pytest
from kit.study.made import as_request, as_stall, request_line, stall_line, varied_lines

from pipeline.study.figures import MOST_VALUES, Sample
from pipeline.study.records import RecordedRequest
from pipeline.study.report import Report, Reporter
from pipeline.study.report_page import report_page
from pipeline.study.tables import WIDTH, Paint


def report_of(*lines: dict[str, Any]) -> Report:
    reporter = Reporter()
    for line in lines:
        reporter.add(as_request(line) if line["event"] == "request" else as_stall(line))
    return reporter.report()


def test_the_parties_of_real_requests_sum_to_the_total(real: list[dict[str, Any]]) -> None:
    report = report_of(*real)
    assert report.is_conserved
    assert report.residual_ms == pytest.approx(0, abs=0.003 * len(real))
    parties_ms = sum(spread.sum_ms for spread in report.parties.values())
    assert parties_ms + report.residual_ms == pytest.approx(report.total.sum_ms, abs=0.01)
    assert sum(spread.share for spread in report.parties.values()) == pytest.approx(1, abs=0.001)
    assert sum(spread.sum_ms for spread in report.phases.values()) == pytest.approx(report.total.sum_ms, abs=0.01)
    assert report.requests == len(real) == sum(report.ends.values())
    assert report.ends["BR"] == 1


def test_a_request_that_is_not_conserved_is_reported() -> None:
    line = request_line()
    line["party_ms"]["ours"] += 5
    report = report_of(request_line(), line)
    assert not report.is_conserved
    assert report.residual_ms == pytest.approx(-5)
    assert any("NOT conserved" in text for text in report_page(report, Paint()))


def test_quantiles_are_those_of_the_requests() -> None:
    report = report_of(*[request_line(f"r-{at}", work_ms={"shout": at + 1}) for at in range(200)])
    shout = report.stages["shout"]
    assert (shout.requests, shout.busy_p50_ms, shout.busy_p99_ms, shout.outside_p99_ms) == (200, 100, 198, 0)
    assert shout.total_share == pytest.approx(sum(range(1, 201)) / report.total.sum_ms, abs=1e-6)
    assert report.stages["call_upstream"].outside_of == "upstream"
    assert report.stages["call_upstream"].total_share == 0  # its waits are the upstream's
    assert shout.first_token_share is None


def test_the_share_of_the_first_tokens_time_is_that_of_the_traced_requests() -> None:
    trace = {
        "lanes": ["call_upstream"],
        "stages": ["shout"],
        "lane_of_stage": [0],
        "links": [],
        "spans": [
            [0, 0, 0.0, 12_000.0, 1],
            [0, 0, 59_000.0, 3_000.0, 2],
            [0, 0, 9e4, 9e3, 3],
            [0, 7, 0, 1, 1],
        ],
    }
    line = request_line(upload_ms=0, work_ms={"shout": 24}, trace=trace)
    assert line["first_token_ms"] == 60
    report = report_of(line, request_line())
    assert report.stages["shout"].first_token_share == pytest.approx(13 / 60, abs=1e-6)


def test_deployments_ends_and_stalls_are_counted() -> None:
    lines = [request_line(f"a-{at}", deployment="a", head_ms=100) for at in range(10)]
    lines += [request_line(f"b-{at}", deployment="b", head_ms=900, end="UT") for at in range(5)]
    report = report_of(*lines, stall_line(1.0, 120.0))
    assert report.ends == {"OK": 10, "UT": 5}
    assert report.deployments["b"].ends == {"UT": 5}
    assert report.deployments["b"].first_token_p50_ms == pytest.approx(910.1)
    assert (report.stalls, report.stall_ms) == (1, 120)


def test_the_page_fits_its_width(real: list[dict[str, Any]]) -> None:
    long = request_line(deployment="a-deployment-with-a-name-" * 5, work_ms={"a_stage_with_a_name_" * 5: 3})
    lines = report_page(report_of(*real, long, *varied_lines(20, seed=1)), Paint())
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in "".join(lines)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    sample = Sample()
    for number in range(MOST_VALUES + 50_000):
        sample.add(float(number % 1000))
    assert len(sample.values) == MOST_VALUES
    assert sample.count == MOST_VALUES + 50_000
    assert sample.quantile(0.5) == pytest.approx(500, abs=10)
    assert sample.max == 999


def test_an_empty_record_is_counted() -> None:
    reporter = Reporter()
    reporter.add(RecordedRequest())
    assert reporter.report().requests == 1
    assert report_page(reporter.report(), Paint())
