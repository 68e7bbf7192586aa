"""Each situation for real: what was lost on purpose is what the records say, what the clients have measured, and what
``headrace why`` names.

A machine that is busy with something else makes everything longer, so that a situation may be played three times.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
import trio
from kit.service.records import assert_sums
from kit.time.patience import PROCESSES_S

from pipeline.gateway.cli import known_plugins, main
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.generation import Generation
from pipeline.gateway.situations.clients import Seen
from pipeline.gateway.situations.recorded import Recorded, lost_ms, read_recording
from pipeline.gateway.situations.run import play, waits_ms
from pipeline.gateway.situations.table import SITUATIONS, Loss, Situation
from pipeline.study.budget import read_budget
from stages.chaos import CHAOS, ChaosOptions

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/studying-latency.md").read_text(encoding="utf-8")
TRIES = 3
EXACT = 0.05

pytestmark = pytest.mark.timeout(300)


def exactly(ms: float) -> Any:
    return pytest.approx(ms, rel=EXACT)


def concerned(situation: Situation, recorded: Recorded) -> list[dict[str, Any]]:
    """Return the records of the requests that lost the time."""
    loss = situation.loss
    found = [one for one in recorded.requests if loss.deployment in (None, one["deployment"])]
    if loss.is_longest:
        return [max(found, key=lambda one: one["total_ms"])]
    return found


@pytest.mark.parametrize("name", SITUATIONS)
async def test_what_was_lost_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "recording.jsonl"
    for left in reversed(range(TRIES)):
        said: list[str] = []
        seen = await play(SITUATIONS[name], recording, said.append)
        try:
            recorded = read_recording(recording)
            check(SITUATIONS[name], seen, recorded)
            capsys.readouterr()
            assert main(["why", "--slowest", "--json", str(recording)]) == 0
            check_why(SITUATIONS[name], json.loads(capsys.readouterr().out), recorded)
        except AssertionError:
            if not left:
                raise
        else:
            return


def check(situation: Situation, seen: list[Seen], recorded: Recorded) -> None:
    asked = sum(load.clients for load in situation.loads)
    assert {record["request_id"] for record in recorded.requests} == {one.request_id for one in seen}
    assert len(seen) == asked
    for record in recorded.requests:
        assert (record["end"], record["status"]) == ("OK", 200)
        assert_sums(record)
    found = concerned(situation, recorded)
    assert lost_ms(situation.loss, recorded) == [exactly(situation.loss.ms)] * (
        1 if situation.loss.kind == "stall" else len(found)
    )
    for record in found:
        party_ms = record["party_ms"]
        assert max(party_ms, key=lambda party: party_ms[party]) == situation.party
        assert party_ms[situation.party] >= (1 - EXACT) * situation.loss.ms
    if situation.name in CHECKS:
        CHECKS[situation.name](seen, recorded)


def check_why(situation: Situation, found: list[dict[str, Any]], recorded: Recorded) -> None:
    """Check that the culprit is named, with what was injected."""
    [culprit] = [one["culprit"] for one in found]
    loss = situation.loss
    assert (culprit["kind"], culprit["party"]) == (situation.culprit, situation.party), found
    assert culprit["ms"] == exactly(loss.ms)
    if loss.kind in ("busy", "outside", "stall"):
        assert culprit["stage"] == loss.name
    if loss.kind == "stall":
        assert culprit["request_id"] == recorded.stalls[0]["request_id"]
    if loss.deployment is not None:
        assert culprit["deployment"] == loss.deployment


def check_slow_head(seen: list[Seen], recorded: Recorded) -> None:
    assert median(one.first_token_ms for one in seen) == exactly(800)
    assert [record["party_ms"]["upstream"] for record in recorded.requests] == [exactly(890)] * 4


def check_slow_client(seen: list[Seen], recorded: Recorded) -> None:
    [one], [record] = seen, recorded.requests
    assert record["party_ms"]["client"] == exactly(one.paused_ms)
    assert record["stages"]["write_sse"]["outside_ms"] == exactly(one.paused_ms)


def check_slow_stage(seen: list[Seen], recorded: Recorded) -> None:
    [record] = recorded.requests
    busy_ms = {name: stage["busy_ms"] for name, stage in record["stages"].items()}
    assert max(busy_ms, key=lambda name: busy_ms[name]) == "chaos_busy"
    assert record["stages"]["chaos_busy"]["outside_ms"] == 0


def check_waiting_stage(seen: list[Seen], recorded: Recorded) -> None:
    for record in recorded.requests:
        assert record["stages"]["chaos_wait"]["busy_ms"] < 100
        assert record["party_ms"]["ours"] == exactly(1010)  # and what it takes to wake up 20 times


def check_blocked_loop(seen: list[Seen], recorded: Recorded) -> None:
    """The victims' records say for how long, and the stall says for whom."""
    [stall] = recorded.stalls
    [rude] = [record for record in recorded.requests if record["model"] == "rude"]
    assert (stall["stage"], stall["request_id"]) == ("chaos_busy", rude["request_id"])
    assert stall["streams"] == 41
    for record in recorded.requests:
        ended_s = seconds(record)
        assert ended_s - record["total_ms"] / 1000 <= seconds(stall) - stall["ms"] / 1000
        assert seconds(stall) <= ended_s + 0.002  # both have whole milliseconds
    victims = [one for one in seen if one.deployment == "chat"]
    assert median(one.silence_ms for one in victims) == pytest.approx(600, rel=2 * EXACT)
    held_ms = [record["party_ms"]["ours"] for record in recorded.requests if record["model"] == "chat"]
    assert median(held_ms) == pytest.approx(600, rel=2 * EXACT)  # 40 streams are not served in no time afterwards


def seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["ts"]).timestamp()


def check_overload(seen: list[Seen], recorded: Recorded) -> None:
    """The queue wait of each request is what its client has measured."""
    measured_ms = {one.request_id: ms for one, ms in zip(seen, waits_ms(seen), strict=True)}
    queued = [record for record in recorded.requests if "admitted" in record["points_ms"]]
    assert len(queued) == 6
    for record in queued:
        waited_ms = record["points_ms"]["admitted"] - record["points_ms"]["head_read"]
        assert waited_ms == exactly(measured_ms[record["request_id"]])


def check_slow_deployment(seen: list[Seen], recorded: Recorded) -> None:
    fast = Loss(50, "phase", "upstream_sent..upstream_head", deployment="fast")
    assert median(lost_ms(fast, recorded)) == pytest.approx(50, abs=10)
    assert {one.deployment for one in seen} == {"fast", "slow"}


CHECKS = {
    "slow-head": check_slow_head,
    "slow-client": check_slow_client,
    "slow-stage": check_slow_stage,
    "waiting-stage": check_waiting_stage,
    "blocked-loop": check_blocked_loop,
    "overload": check_overload,
    "slow-deployment": check_slow_deployment,
}


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    """And the service ends with it, and has left a recording."""
    command = [sys.executable, "-m", "pipeline.gateway", "situation", "slow-head", "--keep-serving"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_LOG_LEVEL": "error"}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        shown = read_until(process, "/latency#key=")
        [port] = {int(found) for found in re.findall(r"http://127\.0\.0\.1:(\d+)", shown)}
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PROCESSES_S)
    assert process.returncode == 0
    assert "injected  800 ms in each request: phase upstream_sent..upstream_head" in shown
    assert "headrace why --slowest slow-head.jsonl" in rest
    with pytest.raises(OSError, match="failed"):
        trio.run(trio.open_tcp_stream, "127.0.0.1", port)
    recorded = read_recording(tmp_path / "slow-head.jsonl")
    assert len(recorded.requests) >= 4


def read_until(process: subprocess.Popen[str], words: str) -> str:
    shown = ""
    assert process.stdout is not None
    while words not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    return shown


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["situation", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SITUATIONS)


def test_a_wrong_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["situation", "slow-haed"]) == 2
    assert "did you mean 'slow-head'?" in capsys.readouterr().err


async def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="cannot listen on 127"):
            await play(SITUATIONS["slow-head"], tmp_path / "a.jsonl", lambda _: None, port=taken.getsockname()[1])


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_configuration_is_usable_and_explained(name: str) -> None:
    situation = SITUATIONS[name]
    settings = parse_settings(
        situation.config(0), source="situation.yaml", environ={"HEADRACE_MASTER_KEY": "sk-0123456789abcdef"}
    )
    assert settings.warnings == ()
    assert {load.model for load in situation.loads} == {one.model_name for one in settings.deployments}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_tutorial_has_each_situation(name: str) -> None:
    situation = SITUATIONS[name]
    loss = situation.loss
    row = (
        f"| [`{name}`](#{name}) | {situation.about} | {loss.ms:.0f} ms: {loss.kind} `{loss.name}` | {situation.party} |"
    )
    assert row in TUTORIAL.splitlines()
    assert f"## {name}\n" in TUTORIAL
    assert f"headrace situation {name}\n" in TUTORIAL


def test_the_tutorial_has_no_other() -> None:
    assert re.findall(r"^\| \[`([\w-]+)`\]", TUTORIAL, re.MULTILINE) == list(SITUATIONS)


def test_the_files_of_the_tutorial_are_usable(tmp_path: Path) -> None:
    files = re.findall(r"^```(?:yaml|toml) (\S+)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text)
    assert [name for name, _ in files] == ["stage.yaml", "budgets.toml"]
    environ = {"HEADRACE_MASTER_KEY": "sk-0123456789abcdef", "STAGE_MS": "2"}
    settings = parse_settings((tmp_path / "stage.yaml").read_text(), source="stage.yaml", environ=environ)
    assert settings.warnings == ()
    Generation(settings, plugins=known_plugins(), on_end=lambda finished: None)
    assert read_budget(str(tmp_path / "budgets.toml")).requests == 50


def test_every_parameter_and_option_is_documented() -> None:
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    for name in ("head", "first", "tokens", "gap", "stall", "fail", "bytes"):
        assert re.search(rf"^\| `{name}` \|", page, re.MULTILINE)
    for plugin in CHAOS:
        assert re.search(rf"^\| `{plugin.name}` \|", page, re.MULTILINE)
    for field in msgspec.structs.fields(ChaosOptions):
        assert re.search(rf"^\| `{field.name}` \|", page, re.MULTILINE)
