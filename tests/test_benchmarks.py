"""The benchmarks work: each runs briefly and yields real figures in the form that the report reads."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.needs import LINUX, needs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks import __main__ as everything  # noqa: E402
from benchmarks import bench_codec, bench_engine, bench_gateway, bench_peers, profile_service, report  # noqa: E402
from benchmarks.behaviour import STAMP, script  # noqa: E402
from benchmarks.loads import LOADS, TITLES, Subject, Tools, flags, measure, open_tools, shape  # noqa: E402
from benchmarks.processes import free_port  # noqa: E402
from benchmarks.recording import Recording, load, number, table  # noqa: E402

pytestmark = [
    needs(LINUX),
    pytest.mark.timeout(300),  # some start six processes, one after the other
]
SECONDS = "1"
"""The length of each round: even on a slow or busy machine something must finish within it."""


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    with open_tools() as opened:
        yield opened


def direct(tools: Tools, dialect: str) -> Subject:
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}[dialect]
    return Subject("upstream", tools.port, [tools.upstream.pid], settings={"path": path, "dialect": dialect})


def results(path: Path, name: str) -> Recording:
    raw = json.loads(path.read_text())
    assert set(raw) == {
        *("name", "schema", "started", "duration_s", "command", "is_quick", "tools", "machine", "versions", "notes"),
        "rows",
    }
    assert (raw["name"], raw["schema"]) == (name, 1)
    assert raw["machine"]["cores"] >= 1
    assert {"python", "trio", "headrace", "commit"} <= set(raw["versions"])
    assert all(row["rounds"] for row in raw["rows"])
    return load(path)


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_a_stream_from_the_mock_upstream_is_counted_to_its_end(tools: Tools, dialect: str) -> None:
    subject = direct(tools, dialect)
    figures, _ = measure(tools, subject, shape("short", subject, mode="once", connections=3, open_per_s=0.0))
    assert (figures["complete"], figures["events"], figures["errors"]) == (3, 60, {})
    assert figures["first_ms"]["n"] == 3


def test_connections_are_reused(tools: Tools) -> None:
    subject = direct(tools, "responses")
    measure(tools, subject, shape("requests", subject, seconds=0.5))
    counters = tools.stats()
    assert counters["requests"] > 100
    assert counters["accepted"] < 20  # ten of the load generator, and those that request the figures


def test_a_free_port_is_unused_and_below_the_ephemeral_ports() -> None:
    state = random.getstate()
    with socket.socket() as taken:
        port = free_port()
        assert 20_000 <= port < 30_000
        taken.bind(("127.0.0.1", port))
        random.setstate(state)  # the same port is tried first again
        assert free_port() != port


def test_time_stamps_yield_the_added_latency(tools: Tools) -> None:
    subject = direct(tools, "responses")
    model = "mock-n5-d10000-t1"
    figures, _ = measure(tools, subject, shape("", subject, model=model, mode="once", connections=4, events=5))
    assert figures["added_ms"]["n"] == 20
    assert figures["added_ms"]["p50"] > 0
    assert tools.stats()["lag_ms"]["n"] == 20


def test_a_wrong_answer_counts_as_an_error_and_not_as_a_request(tools: Tools) -> None:
    subject = direct(tools, "chat")

    def errors(model: str, **changes: Any) -> dict[str, int]:
        figures, reasons = measure(tools, subject, shape("", subject, model=model, mode="once", **changes))
        assert figures["complete"] == 0
        assert any("1 errors" in reason for reason in reasons)
        counts: dict[str, int] = figures["errors"]
        return counts

    assert errors("mock-h503") == {"status 503": 1}
    assert errors("mock-n9-x3-d1000") == {"cut": 1}
    assert errors("mock-n9-t0", events=10) == {"short": 1}
    assert errors("mock-n9-t0", dialect="responses") == {"no end": 1}


def test_chunk_sizes_of_stamped_deltas_are_right() -> None:
    answer = script("mock-n12-d1000-t1-e1", chat=False, stream=True)
    for template in answer.deltas:
        size, _, data = (template % 1234567890).partition(b"\r\n")
        assert int(size, 16) == len(data) - 2
        assert STAMP.findall(data) == [b"%016x" % 1234567890]


def test_every_load_has_a_title_and_is_a_valid_load() -> None:
    assert list(LOADS) == list(TITLES)
    for name in LOADS:
        assert shape(name, Subject("any", 1)).model.startswith("mock-")


def test_rounds_that_measure_the_tools_instead_of_the_service_are_flagged() -> None:
    figures = {"tools_cpu": 0.95, "server_cpu": 0.5, "foreign_cpu": 0.0, "error_count": 0, "errors": {}}
    assert flags(figures, Subject("any", 1, [1])) == ["limited by the load generator"]
    assert flags({**figures, "server_cpu": 0.95}, Subject("any", 1, [1])) == []
    assert flags({**figures, "server_cpu": 0.95}, Subject("any", 1, [1], cores=2)) == ["limited by the load generator"]


def test_bench_engine_measures_hops_and_meters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_engine.main(["--rounds", "1", "--batches", "100", "--output", str(tmp_path / "engine.json")])
    recording = results(tmp_path / "engine.json", "engine")
    assert (recording.median("set-up of 7 stages, tasks", "engine", "ns") or 0) > 1000
    assert (recording.median("7 stages, tasks, ready", "meters", "bare_ns") or 0) > 1000
    assert "hop, ready source" in capsys.readouterr().out


def test_bench_codec_measures_each_kind_of_stream(tmp_path: Path) -> None:
    bench_codec.main(["--rounds", "1", "--events", "256", "--output", str(tmp_path / "codec.json")])
    recording = results(tmp_path / "codec.json", "codec")
    assert recording.subjects() == ["text", "argument", "reasoning", "ignored"]
    assert all((row.median("both_ns_per_event") or 0) > 100 for row in recording.rows)


def test_bench_gateway_measures_the_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "2026-01-01-gateway.json"
    arguments = ["--only", "ceiling,loads,start-up,memory", "--loads", "requests,short", "--seconds", SECONDS]
    assert bench_gateway.main([*arguments, "--rounds", "1", "--quick", "--streams", "10", "--output", str(output)]) == 0
    recording = results(output, "gateway")
    for name in ("requests", "short"):
        assert (recording.median("headrace", name, "requests_per_s") or 0) > 0
        assert (recording.median("headrace", name, "cpu_us_per_request") or 0) > 10
        assert recording.median("headrace", name, "error_count") == 0
        assert (recording.median("tools alone", name, "requests_per_s") or 0) > 0
    assert (recording.median("headrace", "start-up", "ready_s") or 0) > 0.05
    assert recording.median("headrace", "memory, speaking, 10 streams", "active") == 10
    assert "short" in capsys.readouterr().out

    (tmp_path / "docs").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "1-before.txt").write_text("py-spy top\n 50 % sse.py\n")
    folders = ["--results", str(tmp_path), "--docs", str(tmp_path / "docs"), "--profiles", str(tmp_path / "profiles")]
    assert report.main(folders) == 1, "a quick run is not used unless requested"
    assert report.main([*folders, "--quick"]) == 0
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert re.search(r"\| short streams of 20 events +\| +>= 1,500 /s \| +[\d,.]+ \|", page)
    assert "not measured" in page
    assert "```text\npy-spy top\n 50 % sse.py\n```" in page
    for image in re.findall(r"\(img/([\w.-]+)\)", page):
        assert ElementTree.parse(tmp_path / "docs" / "img" / image).getroot().tag.endswith("svg")
    assert "img/memory.svg" in page


def test_a_profile_orders_the_functions_by_their_own_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_service.main(["--load", "requests", "--seconds", SECONDS]) == 0
    first, what, _, head, everything, *functions = capsys.readouterr().out.splitlines()
    assert first == f"$ python -m benchmarks.profile_service --load requests --seconds {SECONDS}"
    assert what.endswith(", requests, per request")
    assert head.split()[0] == "own"
    assert "everything" in everything
    assert len(functions) == profile_service.TOP
    assert any(re.search(r"pipeline/stage\.py: _forward$", line) for line in functions)
    own_us = [float(line.split()[0]) for line in functions]
    assert own_us == sorted(own_us, reverse=True)


def test_bench_peers_lists_the_peers_it_finds_and_measures_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "peers.json"
    arguments = ["--peers", "byte splice", "--loads", "short", "--rounds", "1", "--seconds", SECONDS]
    assert bench_peers.main([*arguments, "--output", str(output)]) == 0
    recording = results(output, "peers")
    assert (recording.median("byte splice", "short", "requests_per_s") or 0) > 0
    assert (recording.median("headrace", "short", "requests_per_s") or 0) > 0
    printed = capsys.readouterr().out
    assert re.search(r"LiteLLM .* not selected", printed)
    assert re.search(r"short +byte splice .* 1\.00 x", printed)


def test_bench_peers_prints_how_to_install_missing_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.peers.FOLDER", tmp_path)
    assert bench_peers.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "LiteLLM" in printed
    assert "not found; to install: python3 -m venv benchmarks/.peers" in printed


def test_help_is_printed_and_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        everything.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m benchmarks")
    assert "==" not in printed


def test_tables_and_figures_are_readable() -> None:
    assert [number(value) for value in (None, 0.1234, 12.34, 1234.5)] == ["-", "0.12", "12.3", "1,234"]
    assert table([["a", "b"], ["x", "1"]], markdown=True) == "| a | b |\n|---|--:|\n| x | 1 |"
