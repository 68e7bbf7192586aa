"""How durations look; and a terminal obeys no name of a recording: not even a colour."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from kit.study.made import BEGAN_S, as_request, as_stall, request_line, stall_line

from pipeline.study.budget import Budget, judged
from pipeline.study.budget_page import budget_page
from pipeline.study.compare import compared
from pipeline.study.compare_page import compare_page
from pipeline.study.figures import Samples, samples_of
from pipeline.study.records import Recorded, RecordedRequest, RecordedStall
from pipeline.study.report import Reporter
from pipeline.study.report_page import report_page
from pipeline.study.running import running_page
from pipeline.study.stalls import stalled_stages, stalls_page
from pipeline.study.tables import Paint, ms_text, painted
from pipeline.study.top import top_of
from pipeline.study.top_screen import lines_of
from pipeline.study.why import explained
from pipeline.study.why_page import why_page


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def events(mark: str) -> list[Recorded]:
    """Return requests and a stall whose names all have a mark in them."""
    found: list[Recorded] = []
    for number in range(20):
        line = request_line(
            f"r{mark}{number}", model=f"m{mark}", deployment=f"d{mark}", end=f"UE{mark}", error=f"e{mark}",
            work_ms={f"stage{mark}": 5.0 + number}, loop_ms=50.0,
        )  # fmt: skip
        line["lanes"] = {f"lane{mark}": line["lanes"]["call_upstream"]}
        line["links"] = {f"a{mark}>b": line["links"]["a>b"]}
        found.append(as_request(line))
    return [*found, as_stall(stall_line(BEGAN_S + 0.1, 60.0, f"stage{mark}", f"q{mark}"))]


def of_report(mark: str, paint: Paint) -> list[str]:
    reporter = Reporter()
    for event in events(mark):
        reporter.add(event)
    return report_page(reporter.report(), paint)


def of_why(mark: str, paint: Paint) -> list[str]:
    first, *_, stall = events(mark)
    assert isinstance(first, RecordedRequest)
    assert isinstance(stall, RecordedStall)
    return why_page(explained(first, [stall]), paint)


def of_stalls(mark: str, paint: Paint) -> list[str]:
    return stalls_page(stalled_stages(events(mark)), paint)


def of_compare(mark: str, paint: Paint) -> list[str]:
    return compare_page(compared(samples_of(events("x")), samples_of(events(mark))), paint, shows_all=True)


def of_budget(mark: str, paint: Paint) -> list[str]:
    limits = {"stages.*.busy_ms.p50": 0.1, f"stages.stage{mark}.busy_ms.p99": 1.0}  # too few for it
    budget = Budget(requests=10, limits=limits, growth={}, baseline=None)
    return budget_page(judged(budget, samples_of(events(mark)), Samples()), paint)


def of_running(mark: str, paint: Paint) -> list[str]:
    return running_page([{"request_id": f"r{mark}", "model": f"m{mark}", "deployment": f"d{mark}"}], paint)


def of_top(mark: str, paint: Paint) -> list[str]:
    row = {"request_id": f"r{mark}", "age_ms": 1.0, "idle_ms": 1.0, "model": f"m{mark}", "waits_for": f"w{mark}",
           "point": f"p{mark}", "events": 0}  # fmt: skip
    after = {
        "now_s": 2.0,
        "party_s": {"ours": 1.0},
        "ended": {f"OK{mark}": 1},
        "stages": {f"s{mark}": {"busy_s": 1.0}},
        "links": {f"a{mark}": {"ready_s": 1.0, "queued_s": 1.0, "full_s": 1.0, "batches": 1, "depth": 1}},
        "stall_s": {f"s{mark}": 1.0},
        "phase_s": {f"f{mark}": 1.0},
        "running": [row],
    }
    return lines_of(top_of({"now_s": 1.0}, after), url="http://x", has_colour=bool(paint("x", "bad") != "x"), width=300)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.0, "0 ms"),
        (0.042, "0.042 ms"),
        (0.94, "0.94 ms"),
        (9.44, "9.4 ms"),
        (99.4, "99.4 ms"),
        (412.3, "412 ms"),
        (5121.9, "5122 ms"),
        (123_456.0, "123.5 s"),
    ],
)
def test_a_duration_has_the_digits_that_matter(ms: float, text: str) -> None:
    assert ms_text(ms) == text


@pytest.mark.parametrize("page", [of_report, of_why, of_stalls, of_compare, of_budget, of_running, of_top])
def test_no_page_has_a_colour_that_a_name_has_chosen(
    page: Callable[[str, Paint], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    on, off = Paint(Terminal()), Paint(io.StringIO())
    harmless = "\n".join(map(painted, page("?[31m", on)))
    assert "\x1b[" in harmless
    assert "\n".join(map(painted, page("\x1b[31m", on))) == harmless
    assert "\x1b" not in "".join(map(painted, page("\x1b[31m", off)))
