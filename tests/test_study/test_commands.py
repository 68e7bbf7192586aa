"""The commands as users run them: what they print, and their exit status."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.study.made import BEGAN_S, request_line, stall_line, timestamp, varied_lines, written

from pipeline.gateway.cli import main
from pipeline.study.progress import Progress
from pipeline.study.tables import WIDTH, Paint


@pytest.fixture
def recording(tmp_path: Path, real: list[dict[str, Any]]) -> str:
    """Return the name of a recording of real requests, a slow one, and a stall."""
    lines = [*real, request_line("slow-one", head_ms=7000, deployment="far"), stall_line(BEGAN_S + 1, 80.0)]
    return written(tmp_path / "a.jsonl", lines)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(arguments) == status, capsys.readouterr()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "FILE"], "whose time"),
        (["why", "slow-one", "FILE"], "7000 ms of 7010 ms until the first token was the upstream's (deployment far)"),
        (["why", "--slowest", "FILE"], "request slow-one"),
        (["stalls", "FILE"], "shout was at work for r-2."),
    ],
)
def test_each_command_prints_text_that_fits_and_json(
    capsys: pytest.CaptureFixture[str], recording: str, arguments: list[str], words: str
) -> None:
    named = [recording if word == "FILE" else word for word in arguments]
    text = run(capsys, *named)
    assert words in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text  # it is not a terminal
    assert json.loads(run(capsys, *named, "--json"))


def test_the_fields_of_the_json_are_those_of_the_docs(capsys: pytest.CaptureFixture[str], recording: str) -> None:
    [why] = json.loads(run(capsys, "why", "slow-one", recording, "--json"))
    assert why["culprit"] == {
        "kind": "head",
        "party": "upstream",
        "ms": 7000.0,
        "deployment": "far",
    }
    assert why["path"][0].keys() == {"point", "about", "began_ms", "ms", "party_ms"}
    report = json.loads(run(capsys, "report", recording, "--json"))
    assert {"requests", "parties", "residual_ms", "stages", "lanes", "links", "phases", "deployments"} <= report.keys()


def test_filters_choose_requests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [
        request_line("a", model="x", deployment="d", began_s=BEGAN_S),
        request_line("b", model="y", deployment="e", began_s=BEGAN_S + 60, end="UT"),
        request_line("c", model="x", deployment="e", began_s=BEGAN_S + 120),
    ]
    file = written(tmp_path / "f.jsonl", lines)

    def count(*arguments: str) -> int:
        return int(json.loads(run(capsys, "report", file, "--json", *arguments))["requests"])

    assert count() == 3
    assert count("--model", "x") == 2
    assert count("--deployment", "e") == 2
    assert count("--end", "UT") == 1
    assert count("--since", timestamp(BEGAN_S + 30)) == 2
    assert count("--until", timestamp(BEGAN_S + 90), "--model", "x") == 1
    assert main(["report", file, "--model", "nobody"]) == 2
    assert main(["report", file, "--since", "yesterday"]) == 2
    assert "'yesterday' is not a time" in capsys.readouterr().err


def test_standard_input_is_a_recording(
    capsys: pytest.CaptureFixture[str], recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(recording).read_bytes())))
    assert "request slow-one" in run(capsys, "why", "--slowest", "-")


def test_compare_ends_with_1_if_something_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b, c = (
        written(tmp_path / f"{seed}.jsonl", varied_lines(200, seed, extra_ms=extra_ms))
        for seed, extra_ms in ((1, 0.0), (2, 3.0), (3, 0.0))
    )
    assert "stages.encode_chunks.busy_ms is slower in B" in run(capsys, "compare", a, b, status=1)
    assert json.loads(run(capsys, "compare", a, b, "--json", status=1))["culprit"] == "stages.encode_chunks.busy_ms"
    assert "No difference was found." in run(capsys, "compare", a, c)


def test_budget_ends_with_1_if_a_limit_is_exceeded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", varied_lines(60, 1))
    b = written(tmp_path / "b.jsonl", varied_lines(60, 2))
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[limits]\n"party.ours.p50" = 10\n"stages.decode_events.busy_ms.p99" = 10')
    assert run(capsys, "budget", str(budgets), a, b) == "2 of 2 limits are kept\n"
    assert "cannot tell: stages.decode_events.busy_ms.p99" in run(capsys, "budget", str(budgets), a)
    run(capsys, "budget", str(budgets), a, "--strict", status=1)
    assert main(["budget", str(budgets), a, "--model", "nobody"]) == 2
    assert "no request that was asked for is there; check --model" in capsys.readouterr().err
    budgets.write_text('[limits]\n"stages.encode_chunk.busy_ms.p50" = 0.0001')
    assert main(["budget", str(budgets), a]) == 2
    assert "did you mean 'stages.encode_chunks.busy_ms.p50'?" in capsys.readouterr().err
    budgets.write_text('[limits]\n"party.ours.p50" = 0.1\n[baseline]\nfile = "b.jsonl"\n[baseline.growth]\n')
    assert run(capsys, "budget", str(budgets), a, status=1).startswith("exceeded: party.ours.p50 is ")
    assert json.loads(run(capsys, "budget", str(budgets), a, "--json", status=1))[0]["verdict"] == "exceeded"


def test_trace_writes_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, recording: str) -> None:
    output = tmp_path / "x.pftrace"
    assert "3 requests (3 not traced" in run(capsys, "trace", "--slowest", "-n", "3", recording, "-o", str(output))
    assert b"request slow-one" in output.read_bytes()
    written_ = json.loads(run(capsys, "trace", "slow-one", recording, "-o", str(output), "--json"))
    assert (written_["requests"], written_["bytes"]) == (1, output.stat().st_size)


def test_a_missing_extra_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert main(["trace", "--slowest", recording, "-o", "x"]) == 2
    assert "need the package perfetto: pip install 'headrace[trace]'" in capsys.readouterr().err
    assert main(["report", str(Path(recording).rename(f"{recording}.zst"))]) == 2
    assert "need the package zstandard: pip install 'headrace[zstd]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["why", "FILE"], "name a request's id and a recording"),
        (["why", "a", "b", "FILE"], "name a request's id and a recording"),
        (["why", "--slowest", "-n", "0", "FILE"], "it must be at least 1"),
        (["why", "nobody", "FILE"], "no request with the id 'nobody' is in the recording"),
        (["report", "nowhere"], "nowhere: there is no such file: check its name"),
        (["trace", "slow-one", "FILE", "-o", "/nowhere/x"], "/nowhere/x cannot be written"),
    ],
)
def test_what_cannot_work_says_why_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], recording: str, arguments: list[str], message: str
) -> None:
    assert main([recording if word == "FILE" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Paint(Screen())("ours", "ours") == "\x1b[33mours\x1b[0m"
    assert Paint(io.StringIO())("ours", "ours") == "ours"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paint(Screen())("ours", "ours") == "ours"


def test_progress_is_shown_on_a_terminal_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 1.0, 1.05, 2.0])
    monkeypatch.setattr("pipeline.study.progress.monotonic", lambda: next(clock))
    screen = Screen()
    with Progress("reading", 200, screen) as progress:
        for done in (10, 100, 110, 200):
            progress.show(done)
    assert screen.getvalue() == "\rreading:  50%\x1b[K\rreading: 100%\x1b[K\r\x1b[K"
