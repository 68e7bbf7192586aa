"""docs/recordings.md: its queries run on a recording, its budgets and its JSON are those of the commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from kit.needs import ROOT
from kit.study.made import stall_line, varied_lines, written

from pipeline.gateway.cli import main
from pipeline.study.budget import Judgement
from pipeline.study.compare import ComparedFigure
from pipeline.study.parts import PARTIES, PartKind
from pipeline.study.recording import RecordingHeader
from pipeline.study.report import Report
from pipeline.study.stalls import StalledStage
from pipeline.study.why import Culprit, Explanation

PAGE = (ROOT / "docs" / "recordings.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```\w+ (\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
QUERIES = ("duckdb", "polars", "pandas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, real: list[dict[str, Any]]) -> Path:
    """Return a folder with the recording that the page queries: with a header, and a stall."""
    made = tmp_path_factory.mktemp("queries")
    message = {"ts": "2026-11-30T12:00:00.000Z", "level": "info", "logger": "headrace", "message": "is up after 0.5 s"}
    lines = [json.loads(BLOCKS["header"]), message, *real, *varied_lines(100, seed=1), stall_line(1.0, 50.0)]
    written(made / "today.jsonl", lines)
    return made


def test_each_query_runs_and_finds_what_is_there(folder: Path, real: list[dict[str, Any]]) -> None:
    # In one process of their own: they take long to import, and have warnings of theirs.
    checks = """
assert {"decode_events", "encode_chunks"} <= {row[0] for row in stages.fetchall()}
assert dict(stages.project("stage, requests").fetchall())["encode_chunks"] > 100
assert parties.filter(pl.col("deployment") == "d-1")["requests"].to_list() == [100]
assert abs(parties.filter(pl.col("deployment") == "slow")["upstream"][0] - SLOW) < 0.01
assert slowest.loc[SLOW_ID, "phase"] == "upstream_head"
assert len(slowest) == REQUESTS
"""
    [slow] = [line for line in real if line["deployment"] == "slow"]
    names = {"SLOW": slow["party_ms"]["upstream"], "SLOW_ID": slow["request_id"], "REQUESTS": len(real) + 100}
    program = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    program += "\n".join(BLOCKS[name] for name in QUERIES) + checks
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_the_header_is_one() -> None:
    header = msgspec.json.decode(BLOCKS["header"], type=RecordingHeader)
    assert json.loads(msgspec.json.encode(header)) == json.loads(BLOCKS["header"])


def test_the_budgets_are_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "budgets.toml").write_text(BLOCKS["budgets"])
    written(folder / "main.jsonl", varied_lines(100, seed=2))
    assert main(["budget", str(folder / "budgets.toml"), str(folder / "today.jsonl")]) == 0
    assert "limits are kept" in capsys.readouterr().out


def test_the_fields_of_each_json_document_are_listed() -> None:
    listed = PAGE.partition("## JSON")[2].partition("## Traces")[0]
    for document in (Report, Explanation, Culprit, StalledStage, ComparedFigure, Judgement):
        missing = [name for name in document.__struct_fields__ if f"`{name}`" not in listed]
        assert missing == [], document


def test_all_parts_are_listed() -> None:
    listed = PAGE.partition("## How `why` decides")[2].partition("## How `compare`")[0]
    for name in (*PARTIES, *get_args(PartKind)):
        assert f"`{name}`" in listed, name
