"""``headrace init``: what it asks, what it writes, and that the file works as it is written."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from kit.needs import ROOT
from kit.service.terminal import on_a_terminal
from kit.time.patience import PROCESSES_S

from pipeline.gateway.cli import INTERRUPTED, main
from pipeline.gateway.config.env_file import read_env_file
from pipeline.gateway.config.load import load_settings
from pipeline.gateway.config.model_list import REFUSED_BY_CURSOR
from pipeline.gateway.first_config import NONE, OFFERS, OWN_KEY, is_like_cursors
from stages.upstreams.providers import PROVIDERS

pytestmark = pytest.mark.timeout(300)  # processes

MASTER = "sk-init-test-0123456789abcdef"
KEY = "sk-of-the-provider-0123456789"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one, and an environment without keys."""
    monkeypatch.chdir(tmp_path)
    names = {"HEADRACE_MASTER_KEY", OWN_KEY, *(name for row in PROVIDERS.values() for name in row.key_names)}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def piped(*arguments: str, folder: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run it without a terminal."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.gateway", "init", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environ, input=typed, capture_output=True, text=True, timeout=PROCESSES_S, check=False
    )


@pytest.mark.parametrize("word", [*OFFERS, NONE, "groq", "github_copilot"])
def test_what_is_written_for_a_provider_can_be_used_as_it_is(
    word: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer = OFFERS.get(word)
    flags = ["--model", "some/model:8b"] if word != NONE and (offer is None or offer.model is None) else []
    flags += ["--api-base", "http://127.0.0.1:1/v1"] if word in ("azure", "compatible") else []
    assert main(["init", "--provider", word, *flags, "--key-from", "MY_KEY"][: None if word != NONE else 3]) == 0
    out = capsys.readouterr().out
    [master] = re.findall(r"^  export HEADRACE_MASTER_KEY=(sk-\S{32})$", out, re.MULTILINE)
    settings = load_settings("config.yaml", {"HEADRACE_MASTER_KEY": master, "MY_KEY": KEY})
    assert settings.warnings == ()
    assert len(settings.deployments) == (3 if word == NONE else 2)
    assert "headrace" in (folder / "config.yaml").read_text()
    assert master not in (folder / "config.yaml").read_text()
    for deployment in settings.deployments:
        assert not is_like_cursors(deployment.model_name)
        assert deployment.model_name not in REFUSED_BY_CURSOR
        assert deployment.model_name in out.partition("Add custom model")[2]


def test_the_usual_variable_of_the_provider_is_named_and_to_be_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--provider", "openai"]) == 0
    assert "  export OPENAI_API_KEY=...   # your key\n" in capsys.readouterr().out
    assert "api_key: os.environ/OPENAI_API_KEY" in (folder / "config.yaml").read_text()


def test_a_key_that_is_to_be_set_can_be_kept_beside_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--provider", "openai", "--env-file"]) == 0
    instead = "   # your key, or write OPENAI_API_KEY=... into headrace.env\n"
    assert f"  export OPENAI_API_KEY=...{instead}" in capsys.readouterr().out


def test_variables_that_are_set_are_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("HEADRACE_MASTER_KEY", MASTER)
    assert main(["init", "--provider", "gemini"]) == 0
    out = capsys.readouterr().out
    assert "api_key: os.environ/GEMINI_API_KEY" in (folder / "config.yaml").read_text()
    assert "export" not in out
    assert "the HEADRACE_MASTER_KEY of this shell" in out
    assert KEY not in out
    assert MASTER not in out


def test_keys_are_kept_in_a_file_that_only_the_owner_can_read_and_headrace_reads_it(folder: Path) -> None:
    ran = piped("--provider", "openai", "--key-from", "-", "--env-file", folder=folder, typed=f"{KEY}\n")
    assert ran.returncode == 0, ran.stderr
    assert stat.S_IMODE((folder / "headrace.env").stat().st_mode) == 0o600
    kept = read_env_file(folder / "headrace.env")
    assert kept["OPENAI_API_KEY"] == KEY
    assert load_settings("config.yaml", {}).master_key == kept["HEADRACE_MASTER_KEY"]
    assert not any(value in ran.stdout + (folder / "config.yaml").read_text() for value in kept.values())
    # A shell reads it too.
    shell = ["sh", "-c", "set -a; . ./headrace.env; exec printenv OPENAI_API_KEY"]
    assert subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=True).stdout == f"{KEY}\n"


def test_a_second_configuration_keeps_the_master_key_that_is_there(folder: Path) -> None:
    assert main(["init", "--provider", NONE, "--env-file"]) == 0
    kept = read_env_file(folder / "headrace.env")
    ran = piped(
        "--provider",
        "groq",
        "--model",
        "m",
        "--key-from",
        "-",
        "--env-file",
        "--file",
        "b.yaml",
        folder=folder,
        typed=KEY,
    )
    assert ran.returncode == 0, ran.stderr
    assert read_env_file(folder / "headrace.env") == {**kept, "GROQ_API_KEY": KEY}
    assert stat.S_IMODE((folder / "headrace.env").stat().st_mode) == 0o600
    assert "the HEADRACE_MASTER_KEY in headrace.env" in ran.stdout


def test_a_file_is_only_replaced_by_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text("mine: 1\n")
    assert main(["init", "--provider", NONE]) == 2
    assert "config.yaml exists, and is not overwritten" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == "mine: 1\n"
    assert main(["init", "--provider", NONE, "--force"]) == 0
    assert "mine" not in (folder / "config.yaml").read_text()


def test_a_file_name_with_a_space_is_quoted_in_what_is_to_be_pasted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--provider", NONE, "--file", "my config.yaml"]) == 0
    assert "serve --config 'my config.yaml'\n" in capsys.readouterr().out
    assert "headrace check-config 'my config.yaml'\n" in (folder / "my config.yaml").read_text()


WRONG = {
    "--provider opnai": "such as groq; did you mean 'openai'?\n",
    "--provider vllm": "needs --model",
    "--provider azure --model m": "needs --api-base",
    "--provider compatible --model m --api-base localhost:8000": "does not start with http://",
    "--provider compatible --model m --api-base http://u:p@h/": "contains a user name or password",
    "--provider none --model m": "takes no --model",
    "--provider none --name n": "takes no --model, --name",
    "--provider openai --key-from sk-abc": "write the name of a variable",
    "--provider openai --key-from -": "add --env-file",
    "--provider openai --key-from - --env-file": "the key is empty",
    "--provider openai --file no/such/config.yaml": "there is no folder no/such",
    "--provider openai --file .": "is a folder",
    "--provider openai --file /proc/config.yaml": "/proc/config.yaml cannot be written (",
    "": "name the provider with --provider (openai, ",
}


@pytest.mark.parametrize("flags", WRONG)
def test_what_is_wrong_is_a_sentence_and_nothing_is_written(flags: str, folder: Path) -> None:
    ran = piped(*flags.split(), folder=folder)
    assert ran.returncode == 2
    assert ran.stderr.startswith("headrace: ")
    assert WRONG[flags] in ran.stderr
    assert "Errno" not in ran.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("key", ["sk with space", "sk-\xe4", "sk-$(id)", "sk-'x'"])
def test_a_key_that_cannot_be_kept_is_refused_and_not_shown(key: str, folder: Path) -> None:
    ran = piped("--provider", "openai", "--key-from", "-", "--env-file", folder=folder, typed=f"{key}\n")
    assert ran.returncode == 2
    assert key not in ran.stderr
    assert list(folder.iterdir()) == []


def test_on_a_terminal_it_asks(folder: Path) -> None:
    status, shown = on_a_terminal(
        ["init"],
        [
            ("[openai]: ", "opnai\n"),
            ("did you mean 'openai'?", "2\n"),
            ("[claude-sonnet-5-5]: ", "\n"),
            ("[my-claude]: ", "claude-9\n"),
            ("such as my-claude-9\n", "my-opus\n"),
            ("Its key (", "bad key\n"),
            ("copy the key again", f"{KEY}\n"),
            ("[yes]: ", "\n"),
        ],
        folder=folder,
    )
    assert status == 0, shown
    assert KEY not in shown  # nothing that is typed as a key is shown
    settings = load_settings(folder / "config.yaml", {})
    assert [one.model_name for one in settings.deployments] == ["my-opus", "headrace-echo"]
    assert settings.deployments[0].provider == "anthropic"
    assert read_env_file(folder / "headrace.env")["ANTHROPIC_API_KEY"] == KEY


def test_on_a_terminal_a_server_of_ones_own_needs_an_address_and_no_key(folder: Path) -> None:
    status, shown = on_a_terminal(
        ["init"],
        [
            ("[openai]: ", "compatible\n"),
            ("Its address: ", "\n"),
            ("an answer is needed", "http://10.0.0.7:8000/v1\n"),
            ("by its name there: ", "Qwen/Qwen3-Coder\n"),
            ("[my-model]: ", "\n"),
            ("Its key (", "\n"),
            ("[yes]: ", "maybe\n"),
            ("write yes or no", "no\n"),
        ],
        folder=folder,
    )
    assert status == 0, shown
    assert not (folder / "headrace.env").exists()
    [master] = re.findall(r"^  export HEADRACE_MASTER_KEY=(\S+)$", shown, re.MULTILINE)
    [own, _] = load_settings(folder / "config.yaml", {"HEADRACE_MASTER_KEY": master}).deployments
    assert own.url == "http://10.0.0.7:8000/v1/chat/completions"


@pytest.mark.parametrize(("keys", "status"), [("\x03", INTERRUPTED), ("\x04", 2)], ids=["Ctrl-C", "end of input"])
@pytest.mark.parametrize("question", ["[openai]: ", "Its key ("])
def test_it_can_be_left_at_a_question_and_nothing_is_written(
    question: str, keys: str, status: int, folder: Path
) -> None:
    before = [("[openai]: ", "\n"), ("[gpt-6.2-sol]: ", "\n"), ("[my-gpt]: ", "\n")] if "key" in question else []
    ended, shown = on_a_terminal(["init"], [*before, (question, keys)], folder=folder)
    assert ended == status, shown
    assert "Traceback" not in shown
    assert ("nothing was written" in shown.partition(question)[2]) is (status == 2)
    assert list(folder.iterdir()) == []
