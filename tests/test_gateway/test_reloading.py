"""What a reload reads, what it says, and what it leaves as it was."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import trio
from kit.clients.chat_posts import ask
from kit.clients.raw import RawClient
from kit.service.running import CONFIG, KEY, Service, serving
from kit.time.patience import patiently_with_processes

from pipeline.gateway.config.load import load_settings
from pipeline.gateway.config.problems import Problem
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.logs import Log
from pipeline.gateway.reloading import Reloader, new_warnings
from pipeline.gateway.restarts import OF_A_PROCESS, OF_THE_SERVICE, needed_restart
from pipeline.registry import Plugins

HELLO = {"model": "echo", "input": "Hello there"}
NEW_MODEL = "  - {model_name: new, litellm_params: {model: canned/echo}}\n"
NEW_KEY = "sk-new-key-0123456789"


def text_of(models: str = "", pipeline: str = "", key: str = KEY) -> str:
    return CONFIG.format(models=models, pipeline=pipeline, key=key)


@pytest.fixture(autouse=True)
def levels() -> Generator[None]:
    """Restore the levels of loggers: a reload sets them."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("httpx", "httpcore", "h2", "hpack"))]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text_of())
    return path


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def reloader(service: Service, reread: Callable[[], tuple[Settings, Plugins]], log: Log | None = None) -> Reloader:
    return Reloader(service.application.generations, reread, log or Log(LineSink(2), "json", "info"))


def reading(file: Path, **environ: str) -> Callable[[], tuple[Settings, Plugins]]:
    return lambda: (load_settings(file, environ), Plugins())


async def test_row_68_a_file_that_is_not_valid_changes_nothing_and_the_log_says_why(
    file: Path, lines: pytest.LogCaptureFixture
) -> None:
    """The new configuration is not valid: everything goes on with the old one, and one line says what is wrong."""
    async with serving() as service:
        reload = reloader(service, reading(file))
        generation = service.app
        file.write_text(text_of(NEW_MODEL, "  prot: 5\n  workers: many"))
        await reload()
        assert lines.messages == [
            f"configuration not reloaded, generation 1 goes on: {file}:15: pipeline_settings.prot: is not a setting; "
            f'did you mean port?; {file}:16: pipeline_settings.workers: found "many" (text), expected a number of '
            "processes, such as 2"
        ]
        assert lines.records[0].levelname == "ERROR"
        assert service.app is generation
        assert (await service.post(HELLO)).status_code == 200
        assert (await service.post(ask("new"))).status_code == 404
        lines.clear()
        file.write_text(text_of(NEW_MODEL))
        await reload()
        assert lines.messages[0] == "configuration reloaded: 4 models, 2 keys (generation 2)"
        assert (await service.post(ask("new"))).status_code == 200


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda file: file.unlink(), "there is no such file"),
        (lambda file: file.write_text("model_list: ["), "config.yaml:"),
        (lambda file: file.write_bytes(b"\xff"), "is not UTF-8"),
        (lambda file: file.write_text(text_of(pipeline="  stages: [{use: nobody}]")), "no stage named 'nobody'"),
        (lambda file: file.write_text(text_of(pipeline="  ca_file: config.yaml")), "the certificates of ca_file, "),
    ],
)
async def test_whatever_is_wrong_is_said_and_the_generation_goes_on(
    file: Path, broken: Callable[[Path], Any], reason: str, lines: pytest.LogCaptureFixture
) -> None:
    async with serving() as service:
        broken(file)
        await reloader(service, reading(file))()
        [said] = lines.messages
        assert said.startswith("configuration not reloaded, generation 1 goes on: ")
        assert reason in said
        assert (await service.post(HELLO)).status_code == 200


async def test_the_text_of_an_unexpected_error_is_not_logged(lines: pytest.LogCaptureFixture) -> None:
    def reread() -> tuple[Settings, Plugins]:
        raise RuntimeError("it quotes sk-something-secret")

    async with serving() as service:
        await reloader(service, reread)()
    [said] = lines.messages
    assert "RuntimeError" in said
    assert "test_reloading.py" in said
    assert "secret" not in said


async def test_a_reload_while_the_process_stops_is_refused(file: Path, lines: pytest.LogCaptureFixture) -> None:
    async with serving() as service:
        service.application.generations.drain()
        await reloader(service, reading(file))()
        assert lines.messages == ["configuration not reloaded, generation 1 goes on: this process is about to stop"]


async def test_a_variable_that_has_vanished_leaves_out_its_deployments_and_the_log_says_so(
    file: Path, lines: pytest.LogCaptureFixture
) -> None:
    entry = "  - {model_name: %s, litellm_params: {model: deepseek/m, api_key: os.environ/%s}}\n"
    file.write_text(text_of(entry % ("both", "KEY_A") + entry % ("both", "KEY_B") + entry % ("lost", "KEY_B")))
    variables = file.with_name("headrace.env")
    variables.write_text("KEY_A=sk-a\nKEY_B=sk-b\n")
    async with serving() as service:
        reload = reloader(service, reading(file))
        await reload()
        lines.clear()
        variables.write_text("KEY_A=sk-a\n")
        await reload()
        assert [record.getMessage() for record in lines.records if record.levelname == "WARNING"] == [
            f"{file}:9: model_list[4].litellm_params.api_key: the environment variable KEY_B is not set, or is empty; "
            "2 deployments are left out: both, lost (lines 9, 10)",
            "no longer served: lost",
        ]
        deployments = service.application.generations.current.settings.deployments
        assert [one.id for one in deployments] == ["echo", "story", "agent", "both"]
        variables.unlink()
        file.write_text(
            f"model_list:\n{entry % ('both', 'KEY_A')}general_settings: {{master_key: {KEY}}}\n",
        )
        await reload()
        [refused] = [record.getMessage() for record in lines.records if record.levelname == "ERROR"]
        assert refused.startswith(f"configuration not reloaded, generation 3 goes on: {file}: has no deployment that")
        assert service.application.generations.current.settings.deployments == deployments


async def test_the_level_of_the_log_changes_at_once(file: Path) -> None:
    log = Log(LineSink(2), "json", "info")
    async with serving() as service:
        reload = reloader(service, reading(file), log)
        file.write_text(text_of(pipeline="  log_level: error"))
        await reload()
        assert not log.writes_requests
        assert logging.getLogger().level == logging.ERROR
        file.write_text(text_of(pipeline="  log_level: debug"))
        await reload()
        assert log.writes_requests
        assert logging.getLogger().level == logging.DEBUG
        assert logging.getLogger("httpx").level == logging.WARNING


async def test_what_needs_a_restart_is_named_at_each_reload_until_it_is_as_it_was(
    file: Path, lines: pytest.LogCaptureFixture
) -> None:
    async with serving() as service:
        reload = reloader(service, reading(file))
        file.write_text(text_of(pipeline="  host: 10.0.0.1\n  port: 5\n  max_connections: 9"))
        for _ in range(2):
            lines.clear()
            await reload()
            said = [record.getMessage() for record in lines.records if record.levelname == "WARNING"]
            assert said == [
                "host, port have changed: restart the service to use the new value",
                "max_connections has changed: new workers use the new value; SIGUSR1 replaces all of them",
            ]
        file.write_text(text_of())
        lines.clear()
        await reload()
        assert [record for record in lines.records if record.levelname == "WARNING"] == []


def test_the_settings_that_a_reload_cannot_change_exist() -> None:
    names = (*OF_A_PROCESS, *OF_THE_SERVICE)
    assert len(set(names)) == len(names)
    assert set(names) < set(PipelineSettings.__struct_fields__)
    assert needed_restart(names, PipelineSettings(), PipelineSettings(max_body_mb=1, log_level="error")) is None


async def test_a_new_store_of_reasoning_is_announced(file: Path, lines: pytest.LogCaptureFixture) -> None:
    async with serving() as service:
        reload = reloader(service, reading(file))
        said: list[str] = []
        sqlite = f"  reasoning_store: sqlite\n  reasoning_store_file: {file.parent}/reasoning.sqlite"
        for pipeline in ("", "  reasoning_max_mb: 1", sqlite, "  restore_reasoning: false", ""):
            lines.clear()
            file.write_text(text_of(pipeline=pipeline))
            await reload()
            said += [record.getMessage() for record in lines.records if record.levelname == "WARNING"]
        assert said == [
            "the settings of the reasoning store have changed: it is a new one, and running conversations go on "
            "without the reasoning of their earlier turns",
            "the settings of the reasoning store have changed: it was opened anew",
            "restore_reasoning is off now: what was remembered of the models' reasoning is forgotten",
        ]


def test_only_new_warnings_are_logged_although_lines_have_moved() -> None:
    before = [Problem("config.yaml", 7, "x", "is ignored", (8,)), Problem("config.yaml", 9, "y", "is ignored")]
    now = [Problem("config.yaml", 8, "x", "is ignored", (9, 12)), Problem("config.yaml", 9, "z", "is ignored")]
    assert new_warnings(before, now) == now[1:]


@pytest.mark.timeout(300)
async def test_row_68_sighup_reloads_a_running_process_and_does_not_end_it(file: Path) -> None:
    """SIGHUP: the process reads its configuration again, with its flags and environment."""
    own = "  port: 1\n  host: 127.0.0.1\n  log_level: info"
    file.write_text(text_of(pipeline=own))
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(file), "--port", "0"]
    environ = {**os.environ, "NEW_KEY": NEW_KEY}
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=environ)
    log = bytearray()
    news = trio.Event()

    async def collect() -> None:
        nonlocal news
        assert process.stderr is not None
        async for chunk in process.stderr:
            log.extend(chunk)
            news.set()
            news = trio.Event()

    async def logged(text: bytes) -> None:
        with patiently_with_processes():
            while text not in log:
                await news.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        try:
            await logged(b"serving http")
            port = int(log.split(b"http://127.0.0.1:")[1].split(b'"')[0])
            async with await RawClient.open(("127.0.0.1", port)) as client:
                file.write_text(text_of(NEW_MODEL, own, "os.environ/NEW_KEY"))
                process.send_signal(signal.SIGHUP)
                await logged(b"configuration reloaded: 4 models, 2 keys (generation 2)")
                for key, status in ((KEY, 401), (NEW_KEY, 200)):
                    body = b'{"model": "new", "input": "hi"}'
                    headers = f"Authorization: Bearer {key}\r\n"
                    answer = await client.ask("POST", "/v1/chat/completions", body=body, headers=headers)
                    assert answer.status == status
                file.write_text("model_list: [")
                process.send_signal(signal.SIGHUP)
                await logged(b"SIGHUP: the configuration is invalid, so nothing changes: ")
            process.send_signal(signal.SIGTERM)
            with patiently_with_processes():
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    assert KEY.encode() not in log
    assert NEW_KEY.encode() not in log
    assert b"port has changed" not in log
