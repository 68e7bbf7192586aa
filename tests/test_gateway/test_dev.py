"""``headrace dev`` and ``watch_config``: what changes on the disk is what serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.raw import RawClient
from kit.service.command import Command, configured, headrace_serve

from pipeline.gateway.cli import main

pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")
pytestmark = pytest.mark.timeout(300)  # processes

ECHO = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
OTHER = "  - {model_name: other, litellm_params: {model: canned/echo}}\n"


async def status_of(command: Command, model: str) -> int:
    """Return how a short request for a model is answered."""
    async with await RawClient.open(("127.0.0.1", command.port)) as client:
        await client.send(post_bytes(ask(model, stream=False)))
        return (await client.read_head()).status


async def test_row_68_a_changed_file_is_reloaded_without_a_signal(tmp_path: Path) -> None:
    """The configuration changes on the disk, with `watch_config`: it is reloaded; one that is not valid is not."""
    async with headrace_serve(tmp_path, configured(ECHO, "watch_config: true"), workers=1) as command:
        assert (await status_of(command, "echo"), await status_of(command, "other")) == (200, 404)
        command.config.write_text(configured(ECHO + OTHER, "watch_config: true"))
        await command.logged(b"configuration reloaded: 2 models")
        assert await status_of(command, "other") == 200
        command.config.write_text(configured(ECHO, "watch_config: perhaps"))
        await command.logged(b"is invalid, so nothing changes")
        assert await status_of(command, "other") == 200


async def test_variables_that_come_later_are_noticed(tmp_path: Path) -> None:
    """A deployment is left out for want of its key; then ``headrace.env`` is written, which did not exist."""
    other = "  - {model_name: other, litellm_params: {model: canned/echo, api_key: os.environ/OTHER_KEY}}\n"
    async with headrace_serve(tmp_path, configured(ECHO + other, "watch_config: true"), workers=1) as command:
        assert await status_of(command, "other") == 404
        (tmp_path / "headrace.env").write_text("OTHER_KEY=sk-upstream-secret-0123456789\n")
        await command.logged(b"configuration reloaded: 2 models")
        assert await status_of(command, "other") == 200


async def test_workers_are_replaced_when_the_code_of_a_stage_changes(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    stage = folder / "stage.py"
    stage.write_text("NUMBER = 1\n")
    dev = ("dev", "--reload", "--watch", str(folder))
    async with headrace_serve(tmp_path, configured(ECHO), workers=1, command=dev) as command:
        stage.write_text("NUMBER = 2\n")
        await command.logged(b"restarted: 1 worker replaced")
        assert b"the code of stages has changed" in command.log
        assert await status_of(command, "echo") == 200
        command.config.write_text(configured(ECHO + OTHER))
        await command.logged(b"configuration reloaded: 2 models")


def test_watching_without_its_package_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = tmp_path / "config.yaml"
    config.write_text(configured(ECHO))
    assert main(["dev", "--config", str(config)]) == 2
    assert "pip install 'headrace[watch]'" in capsys.readouterr().err
