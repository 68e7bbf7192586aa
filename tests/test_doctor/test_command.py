"""The command: what it prints, its exit status, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from kit.service.running import KEY, serving
from kit.time.patience import patiently_with_processes

from pipeline.gateway.cli import main
from pipeline.gateway.doctor.command import key_for
from pipeline.gateway.doctor.findings import CHECKS, ok, problem, untested, warning
from pipeline.gateway.doctor.report import as_json, in_short, last_line, line_of

ROOT = Path(__file__).parents[2]
CONFIG = """\
model_list: [{model_name: m, litellm_params: {model: canned/echo}}]
general_settings: {master_key: sk-master-0123456789abcdef}
pipeline_settings: {port: 0}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HEADRACE_CONFIG", "HEADRACE_MASTER_KEY", "LITELLM_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_good_configuration_has_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert main(["doctor"]) == 0
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("ok          configuration")
    assert "\x1b" not in lines[0]
    assert last.endswith("3 not tested")
    assert "problem" not in last


def test_a_bad_configuration_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("pipeline_settings: {prot: 1}\n")
    assert main(["doctor", "--config", "bad.yaml", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["has_problem"] is True
    assert document["findings"][0]["check"] == "configuration"
    assert "prot" in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no configuration"),
        (["ftp://host/cursor"], "URL is not a base URL"),
    ],
)
def test_what_cannot_work_is_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("idle", ["-1", "600", "nan", "soon"])
def test_the_silence_is_limited(idle: str) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "http://127.0.0.1:1", "--idle", idle])


def test_the_key_comes_from_the_argument_the_environment_or_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.service.config_texts import parse

    settings = parse(CONFIG)
    assert key_for(None, settings) == "sk-master-0123456789abcdef"
    monkeypatch.setenv("HEADRACE_MASTER_KEY", "sk-of-the-environment")
    assert key_for(None, settings) == "sk-of-the-environment"
    assert key_for("sk-of-the-argument", settings) == "sk-of-the-argument"
    monkeypatch.setenv("HEADRACE_MASTER_KEY", "sha256:" + "0" * 64)
    assert key_for(None, None) == ""


def test_checks_that_were_not_made_for_one_reason_are_one_line() -> None:
    why = "because of what was found before"
    found = [untested("key", why), untested("stream", why), untested("idle", "--idle 0"), ok("https", "TLSv1.3")]
    lines = [line_of(one, has_colour=False) for one in in_short(found)]
    assert [" ".join(line.split()) for line in lines] == [
        f"not tested 2 checks {why}: key, stream",
        "not tested idle --idle 0",
        "ok https TLSv1.3",
    ]


def test_findings_as_lines_and_as_json() -> None:
    found = [
        ok("key", "accepted"),
        warning("idle", "late", "do this"),
        problem("model", "refused\nby all", "replace it", about="gpt-5"),
        untested("azure", "no key"),
    ]
    lines = [line_of(one, has_colour=False) for one in found]
    assert lines[1] == "warning     idle            late -> do this"
    assert lines[2] == "problem     model           gpt-5: refused by all -> replace it"
    assert line_of(found[2], has_colour=True).startswith("\x1b[31mproblem")
    assert last_line(found) == "1 problem, 1 warning, 1 ok, 1 not tested"
    assert json.loads(as_json(found))["findings"][2]["about"] == "gpt-5"
    assert all(one.check in CHECKS for one in found)


@pytest.mark.timeout(300)
async def test_a_running_server_is_examined_and_ctrl_c_ends_that(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_MASTER_KEY": KEY}
    program = [sys.executable, "-m", "pipeline.gateway", "doctor"]
    async with serving() as service:
        with patiently_with_processes():
            url = f"{service.url}/cursor"
            ran = await trio.run_process(
                [*program, url, "--idle", "0", "--json"], env=environ, capture_stdout=True, check=False
            )
            found = {one["check"]: one["status"] for one in json.loads(ran.stdout)["findings"]}
            assert ran.returncode == 1  # Cursor refuses 127.0.0.1
            assert found["stream"] in ("ok", "warning")
            assert found["configuration"] == "not tested"
            assert KEY.encode() not in ran.stdout

            process = await trio.lowlevel.open_process(
                [*program, url, "--idle", "500"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stderr is not None
            seen = b""
            while b"address" not in seen:
                seen += await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            await process.wait()
            assert process.returncode == 130
            assert await process.stderr.receive_some() == b""
            await process.stdout.aclose()
            await process.stderr.aclose()

            ended = await trio.lowlevel.open_process(
                [*program, url, "--idle", "0"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert ended.stdout is not None
            assert ended.stderr is not None
            seen = b""
            while b"client address" not in seen:  # what follows is found by several tasks
                seen += await ended.stdout.receive_some()
            await ended.stdout.aclose()  # as `head` does
            await ended.wait()
            assert (ended.returncode, await ended.stderr.receive_some()) == (1, b"")
            await ended.stderr.aclose()
