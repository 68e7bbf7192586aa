"""Each situation for real: what was lost on purpose is what the records say, what the clients have measured, and what
``headrace why`` names, asked of the running service and of the recording of the same run.

A machine that is busy with something else makes everything longer, and what was injected cannot be told from what it
took. So a situation is played again if it was not found, but only if the service and its clients had to wait for a
processor for so long that it matters: on an idle machine the first run counts.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest
import trio
from kit.service.records import assert_sums
from kit.time.patience import PROCESSES_S, patiently_with_processes
from kit.time.run_queue import waited_for_processor_ms

from pipeline.gateway.cli import main
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.generation import Generation
from pipeline.gateway.installed import known_plugins
from pipeline.gateway.publishing import PUBLISH_EVERY_S
from pipeline.gateway.situations.clients import Seen, ask_all
from pipeline.gateway.situations.own_service import RunningService, serving
from pipeline.gateway.situations.recorded import Recorded, lost_ms, read_recording
from pipeline.gateway.situations.run import play, waits_ms
from pipeline.gateway.situations.table import SITUATIONS, Load, Loss, Situation
from pipeline.study.budget import read_budget
from pipeline.study.live import now
from pipeline.study.path import ABOUT_POINT
from pipeline.study.tables import ms_text
from stages.chaos import CHAOS, ChaosOptions

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/studying-latency.md").read_text(encoding="utf-8")
TRIES = 3
EXACT = 0.05
BUSY_MS = 15
"""Waits for a processor that matter: less than any 5 % that is checked. On a machine without other work they are 8."""
LATE_MS = 300

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


def exactly(ms: float) -> Any:
    return pytest.approx(ms, rel=EXACT)


def concerned(situation: Situation, recorded: Recorded) -> list[dict[str, Any]]:
    """Return the records of the requests that lost the time."""
    loss = situation.loss
    found = [one for one in recorded.requests if loss.deployment in (None, one["deployment"])]
    if loss.is_longest:
        return [max(found, key=lambda one: one["total_ms"])]
    return found


class LiveLook:
    """Asks the running service, as a person would who has an id or none.

    Attributes:
        slowest: what it said of the slowest request.
        by_id: what it said when asked for the id of that request.
        waited_ms: for how long the service and this process have waited for a processor.
    """

    slowest: list[dict[str, Any]]
    by_id: list[dict[str, Any]]
    waited_ms: float

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    @asynccontextmanager
    async def watching(self, service: RunningService) -> AsyncGenerator[None]:
        figures = await trio.to_thread.run_sync(now, service.url, service.key)
        pids = ["self", *(worker["pid"] for worker in figures["workers"])]
        before_ms = waited_for_processor_ms(*pids)
        yield
        self.waited_ms = waited_for_processor_ms(*pids) - before_ms
        self.slowest = await self._asked(service, "--slowest")
        self.by_id = await self._asked(service, self.slowest[0]["request_id"])

    async def _asked(self, service: RunningService, whom: str) -> list[dict[str, Any]]:
        asked = ["why", whom, "--json", "--url", service.url, "--key", service.key]
        return await trio.to_thread.run_sync(said, self._capsys, asked)


# Any: the documents of the command.
def said(capsys: pytest.CaptureFixture[str], command: list[str]) -> Any:
    capsys.readouterr()
    assert main(command) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", SITUATIONS)
async def test_what_was_lost_is_found(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    situation, recording = SITUATIONS[name], tmp_path / f"{name}.jsonl"
    for left in reversed(range(TRIES)):
        live = LiveLook(capsys)
        seen = await play(situation, recording, lambda _: None, around=live.watching)
        recorded = read_recording(recording)
        try:
            check(situation, seen, recorded)
            of_file = said(capsys, ["why", "--slowest", "--json", str(recording)])
            for found in (of_file, live.slowest, live.by_id):
                check_why(situation, found, seen, recorded)
            assert live.slowest == live.by_id
            assert live.slowest[0]["request_id"] == of_file[0]["request_id"]
        except AssertionError:
            if not left or live.waited_ms < BUSY_MS:
                raise
        else:
            break
    commands = [one for one in commands_of(name) if one[0] != "situation" and "--url" not in one]
    assert ["why", "--slowest", recording.name] in commands
    for command in commands:
        capsys.readouterr()
        assert main([word.replace(recording.name, str(recording)) for word in command]) == 0
        if command[0] == "why":
            check_sample(name, capsys.readouterr().out)


def check_sample(name: str, real: str) -> None:
    """Check that what the tutorial shows of `why` has the words of a real one: of all situations those of the table."""
    sample = TUTORIAL.partition(f"\n$ headrace why --slowest {name}.jsonl\n")[2].partition("\n```")[0]
    assert sample.startswith("request ")
    rows = sample.partition("\nup to ")[2].partition("\n\n")[0].splitlines()[1:]
    for row in rows:
        point, *_, about = re.split(" {2,}", row)
        assert about == ABOUT_POINT[point]
    if rows:
        assert _words(sample.partition("\n\n")[2].partition("up to ")[0]) == _words(
            real.partition("\n\n")[2].partition("up to ")[0]
        )
        assert re.findall("^up to .+$", sample, re.MULTILINE) == re.findall("^up to .+$", real, re.MULTILINE)


def _words(text: str) -> list[str]:
    return re.sub(r"\d+(\.\d+)?", "N", text).split()


def commands_of(name: str) -> list[list[str]]:
    """Return the commands of a section of the tutorial."""
    section = TUTORIAL.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    return [shlex.split(line, comments=True) for line in re.findall(r"^\$ headrace (.+)$", section, re.MULTILINE)]


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


def check_why(situation: Situation, found: list[dict[str, Any]], seen: list[Seen], recorded: Recorded) -> None:
    """Check that the culprit is named, with what was injected.

    Of a queue it is what its client has measured. Of a stall it may be that, too: streams that have waited for the loop
    are then served in one turn, which is a stall of its own on a machine that is slow at that moment.
    """
    [(request_id, culprit)] = [(one["request_id"], one["culprit"]) for one in found]
    loss = situation.loss
    assert (culprit["kind"], culprit["party"]) == (situation.culprit, situation.party), found
    [one] = [one for one in seen if one.request_id == request_id]
    longest_ms = max(loss.ms, one.silence_ms) if loss.kind == "stall" else loss.ms
    assert (1 - EXACT) * loss.ms <= culprit["ms"] <= (1 + EXACT) * longest_ms
    if loss.kind in ("busy", "outside", "stall"):
        assert culprit["stage"] == loss.name
    if loss.kind == "stall":
        assert culprit["request_id"] == recorded.stalls[0]["request_id"]
    if loss.deployment is not None:
        assert culprit["deployment"] == loss.deployment
    if situation.culprit == "overload":
        assert culprit["ms"] == exactly(waits_ms(seen)[[one.request_id for one in seen].index(request_id)])


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


def test_all_that_the_command_shows_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It serves until it is interrupted, and leaves a recording; each command that it prints is run."""
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "pipeline.gateway", "situation", "slow-head", "--keep-serving"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_LOG_LEVEL": "error"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        shown = read_until(process, "/latency#key=")
        [key] = re.findall(r"^  export HEADRACE_MASTER_KEY=(\S+)$", shown, re.MULTILINE)
        monkeypatch.setenv("HEADRACE_MASTER_KEY", key)
        outputs = run_shown(shown, capsys)
        [(url, of_page)] = re.findall(r"^  (http://127\.0\.0\.1:\d+)/latency#key=(\S+)$", shown, re.MULTILINE)
        [top] = [one for one in commands_of("slow-head") if "--url" in one]
        assert main([{"$URL": url, "3": "0.1"}.get(word, word) for word in top]) == 0
        with urlopen(f"{url}/latency") as page:
            assert b"<title>" in page.read()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PROCESSES_S)
    assert process.returncode == 0
    assert of_page == key
    block = TUTORIAL.partition("--keep-serving\nexport")[2].partition("```")[0]
    for line in re.findall(r"^headrace (.+)$", block, re.MULTILINE):
        assert f"  headrace {line.partition(' #')[0].rstrip().replace('$URL', url)}\n" in shown
    assert "injected  800 ms in each request: phase upstream_sent..upstream_head" in shown
    assert list(outputs) == ["top", "why --now", "why --slowest", "trace", "record"]
    assert "in flight" in outputs["top"]
    assert outputs["why --slowest"].startswith("request ")
    assert "1 request, " in outputs["trace"]  # traced per batch
    assert b'"trace":' in (tmp_path / "slow-head-traced.jsonl").read_bytes()
    outputs = run_shown(rest, capsys)
    assert list(outputs) == ["why --slowest", "report"]
    assert "between the request being sent and the head of its answer" in outputs["why --slowest"].replace("\n", " ")
    with pytest.raises(OSError, match="failed"):
        trio.run(trio.open_tcp_stream, "127.0.0.1", int(url.rpartition(":")[2]))
    assert len(read_recording(tmp_path / "slow-head.jsonl").requests) >= 4


def run_shown(shown: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Run each command that is shown, those that would go on only once; return what they print."""
    outputs: dict[str, str] = {}
    for line in re.findall(r"^  headrace (.+)$", shown, re.MULTILINE):
        words = shlex.split(line.replace("--seconds 10", "--seconds 0"))
        capsys.readouterr()
        assert main([*words, *(["--once"] if words[0] == "top" else [])]) == 0
        outputs[" ".join(words[:2] if words[0] == "why" else words[:1])] = capsys.readouterr().out
    return outputs


HANGING = Situation(
    "hanging",
    "The upstream does not begin.",
    (("chat", "first", "timed:head=60s"),),
    (Load("chat", 1),),
    Loss(60_000, "phase", "upstream_sent..upstream_head"),
    "upstream",
    "head",
)


async def test_a_request_that_hangs_names_its_upstream_and_since_when(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(HANGING, tmp_path / "a.jsonl", 0) as service, trio.open_nursery() as nursery:
        sent_s = trio.current_time()
        nursery.start_soon(ask_all, service.port, service.key, HANGING.loads)
        why = ["why", "--now", "--url", service.url, "--key", service.key]
        rows: list[dict[str, Any]] = []
        with patiently_with_processes():
            while not rows:
                rows = await trio.to_thread.run_sync(said, capsys, [*why, "--json"])
        since_ms = (trio.current_time() - sent_s) * 1000
        [row] = rows
        assert (row["model"], row["deployment"], row["waits_for"]) == ("chat", "first", "upstream")
        assert (row["point"], row["events"]) == ("upstream_sent", 0)
        # What a worker shows is up to a second old, and it has waited since just after its birth.
        assert since_ms - 1000 * PUBLISH_EVERY_S - LATE_MS <= row["age_ms"] <= since_ms
        assert row["age_ms"] - LATE_MS <= row["idle_ms"] <= row["age_ms"]
        assert f"has waited for the upstream (deployment first) for {ms_text(row['idle_ms'])}" in row["sentence"]
        assert row["sentence"].endswith("for the head of the answer.")
        nursery.cancel_scope.cancel()


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
