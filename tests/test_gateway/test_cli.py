"""The ``headrace`` command as users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from kit.clients.chat_fold import fold_document, fold_stream
from kit.service.plugins import install
from kit.time.patience import PATIENCE_S, PROCESSES_S, patiently_with_processes

from pipeline.gateway import cli, service, supervision
from pipeline.gateway.config.describe import CheckedConfig
from pipeline.gateway.config.keys import key_digest
from pipeline.gateway.config.load import load_settings
from pipeline.gateway.help_text import GROUPS, CommandParser
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.logs import Log

pytestmark = pytest.mark.timeout(300)  # processes

GOOD = """\
model_list:
  - model_name: echo
    litellm_params: {model: canned/echo}
general_settings:
  master_key: sk-cli-test-0123456789abcdef
"""


def run(*arguments: str, entry: tuple[str, ...] = ("-m", "pipeline.gateway")) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process of its own."""
    command = [sys.executable, *entry, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PROCESSES_S, check=False)


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_the_version_is_that_of_the_distribution() -> None:
    script = Path(sys.executable).with_name("headrace")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "pipeline.gateway"]
    ran = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=PROCESSES_S, check=True)
    assert ran.stdout == f"headrace {version('headrace')}\n"


def test_without_a_command_the_help_is_shown() -> None:
    ran = run()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: headrace ")
    assert "get started:\n  init " in ran.stderr


def test_a_mistyped_command_gets_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["srve"]) == 2
    assert "there is no command 'srve'; did you mean 'serve'?" in capsys.readouterr().err


def test_a_mistyped_flag_gets_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "--prot", "5"])
    assert ended.value.code == 2
    assert "headrace serve: unknown: --prot 5; did you mean --port?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def commands() -> Mapping[str, CommandParser]:
    return cli.parser().commands.choices


HIDDEN = {"docs"}
"""What only those need who work on headrace itself."""


def test_every_command_is_in_a_group_or_hidden(commands: Mapping[str, CommandParser]) -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(commands) - set(listed) == HIDDEN


def test_every_command_has_a_sentence_an_example_and_a_line_that_fits(
    commands: Mapping[str, CommandParser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, command in commands.items():
        text = command.format_help()
        assert (command.description or "").rstrip().endswith("."), name
        assert re.search(rf"^examples?:\n  headrace {name}\b|^  .*headrace {name}\b", text, re.MULTILINE), name
        assert 0 < len(command.summary) <= 62, name
        assert max(map(len, text.splitlines())) <= 100, name
        for action in command._actions:
            assert action.help, (name, action.dest)


def test_every_example_is_a_command_line_that_is_understood(commands: Mapping[str, CommandParser]) -> None:
    for name, command in commands.items():
        _, _, lines = (command.epilog or "").rpartition("example")
        for line in lines.splitlines()[1:]:
            for part in line.strip().removeprefix("export HEADRACE_MASTER_KEY=$(").removesuffix(")").split(" | "):
                program, *words = part.split()
                assert program == "headrace", (name, line)
                assert cli.parser().parse_args(words).command, line


WRONG = {
    "study --upstream nonsense://x": "does not start with http://",
    "study --upstream http://127.0.0.1:1 --port 70000": "expected a port number, 1 to 65535, or 0 for any free one",
    "study --upstream http://127.0.0.1:1 --record no/such/x": "there is no folder no/such",
    "demo --port many": "expected a port number",
    "demo --host 192.0.2.1 --port 0": "this machine does not have that address",
    "situation slow-head --port 99999": "expected a port number",
    "situation slow-head --record no/such/x": "there is no folder no/such",
    "serve --port 70000": "expected a port number",
    "serve --config .": "is a folder: name the file in it",
    "serve --host host.invalid": "no address is known for that host",
    "doctor config.yaml": "config.yaml is a file: write --config config.yaml",
    "doctor https://h:99999": "a port that does not exist",
    "doctor --idle x": "expected seconds from 0 to 590",
    "graph .": "is a folder: name the file in it",
    "graph --url http://127.0.0.1:1": "cannot be reached (Connection refused): is the service running there?",
    "graph --url nonsense": "--url is not a URL such as",
    "why --slowest .": ". is a folder: name a file in it",
    "report nowhere": "there is no such file",
    "compare . .": "is a folder",
    "trace --slowest . --output x": "is a folder",
    "record --url http://127.0.0.1:1 --output x --key x": "is the service running there?",
    "record --url http://127.0.0.1:1 --output x --seconds abc": "expected a number of seconds from 0;",
    "top --url http://127.0.0.1:1 --interval 0": "expected a number of seconds from 0.1 to 3600",
    "new-stage x --kind event --into /proc/x": "/proc/x cannot be written (",
}


@pytest.mark.parametrize("line", WRONG)
def test_whatever_is_wrong_is_a_sentence_and_no_number_of_the_system(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervision, "configure_logging", lambda format, level: None)
    monkeypatch.setattr(service, "configure_logging", lambda format, level, worker: Log(LineSink(2), "text", "error"))
    write(tmp_path, GOOD)
    try:
        status = cli.main(line.split())
    except SystemExit as ended:  # argparse
        status = int(ended.code or 0)
    err = capfd.readouterr().err
    assert (status, WRONG[line] in err) == (2, True), err
    assert "Errno" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("line", ["--help", "new-key", "doctor --offline"])
def test_a_reader_that_has_seen_enough_gets_no_traceback(line: str, tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "w") as closed:
        command = [sys.executable, "-m", "pipeline.gateway", *line.split()]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        environ.pop("PYTHONUNBUFFERED", None)  # with it nothing is left to be written at the end
        ran = subprocess.run(
            command, cwd=tmp_path, env=environ, stdout=closed, stderr=subprocess.PIPE, timeout=PROCESSES_S, check=False
        )
    assert ran.stderr == b""


def test_a_new_key_is_alone_on_its_line_and_its_digest_is_what_the_configuration_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new-key"]) == 0
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{32}\n", capsys.readouterr().out)
    assert cli.main(["new-key", "--hash"]) == 0
    key, digest = capsys.readouterr().out.splitlines()
    keys = f"pipeline_settings: {{keys: [{{name: a, key: '{digest}'}}]}}\n"
    assert load_settings(write(tmp_path, GOOD + keys)).keys[0].digest == key_digest(key)


def test_check_config_and_graph_find_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    for command in ("check-config", "graph", "serve", "dev"):
        assert cli.main([command]) == 2
        assert "`headrace init` writes one" in capsys.readouterr().err
    write(tmp_path, GOOD)
    for command in ("check-config", "graph"):
        assert cli.main([command]) == 0
        assert "echo" in capsys.readouterr().out
    monkeypatch.chdir("/")
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "config.yaml"))
    assert cli.main(["check-config"]) == 0
    assert "echo" in capsys.readouterr().out


def test_a_good_configuration_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", write(tmp_path, GOOD)]) == 0
    out, err = capsys.readouterr()
    assert "echo" in out
    assert "sk-cli-test" not in out + err


WARNED = GOOD + "litellm_settings:\n  cache: true\n"
"""With one warning."""


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (WARNED, 1), (GOOD + "pipeline_settings: {prot: 5}\n", 2)])
def test_with_strict_a_warning_is_a_status_of_its_own(
    text: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, text)
    assert cli.main(["check-config", path]) == status - status % 2
    assert cli.main(["check-config", "--strict", path]) == status
    assert cli.main(["check-config", "--json", path]) == status - status % 2
    assert cli.main(["check-config", "--strict", "--json", path]) == status
    capsys.readouterr()


def test_the_document_about_a_configuration_has_all_that_the_text_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, WARNED)
    assert cli.main(["check-config", "--json", path]) == 0
    out, err = capsys.readouterr()
    assert (err, "sk-cli-test" in out) == ("", False)
    assert json.loads(out) == {
        "file": path,
        "usable": True,
        "errors": [],
        "warnings": [
            {
                "file": path,
                "line": 7,
                "path": "litellm_settings.cache",
                "message": "is not supported yet and is ignored",
                "others": [],
            }
        ],
        "deployments": [
            {
                "id": "echo",
                "model_name": "echo",
                "provider": "canned",
                "model": "echo",
                "api": "canned",
                "host": "",
            }
        ],
    }
    assert msgspec.json.decode(out, type=CheckedConfig).usable


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (WARNED.replace("canned/echo", "canned/ecko"), [(3, "model_list[0].litellm_params.model")]),
        (WARNED + "pipeline_settings:\n  stages:\n    - {use: nope, after: decode_events}\n", [(None, "")]),
        ("model_list:\n\t- a\n", [(2, "")]),
        (None, [(None, "")]),
    ],
    ids=["field", "stage", "not YAML", "no file"],
)
def test_the_document_about_an_unusable_configuration_has_its_errors_and_warnings(
    text: str | None, where: list[tuple[int | None, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "none.yaml") if text is None else write(tmp_path, text)
    assert cli.main(["check-config", "--json", path]) == 2
    document = msgspec.json.decode(capsys.readouterr().out, type=CheckedConfig)
    assert (document.file, document.usable, document.deployments) == (path, False, ())
    assert [(one.line, one.path) for one in document.errors] == where
    assert len(document.warnings) == ("cache" in (text or ""))
    assert all(one.message for one in document.errors)


def test_warnings_are_shown_beside_errors_after_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, WARNED + "pipeline_settings: {prot: 5, prt: 6}\n")
    assert cli.main(["check-config", path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{path}: not usable, 2 errors, 1 warning\n\n"
        f"{path}:8: pipeline_settings.prot: is not a setting; did you mean port?\n"
        f"{path}:8: pipeline_settings.prt: is not a setting; did you mean port?\n\n"
        f"warnings:\n{path}:7: litellm_settings.cache: is not supported yet and is ignored\n"
    )


BAD = {
    "model_list: 5\n": "1",
    GOOD + "pipeline_settings: {prot: 5}\n": "6",
    GOOD.replace("canned/echo", "canned/ecko"): "3",
    GOOD + "pipeline_settings:\n  workers: many\n": "7",
    GOOD + "pipeline_settings:\n  stages:\n    - {use: nope, after: decode_events}\n": "8",
}


@pytest.mark.parametrize("text", BAD, ids=["no list", "unknown setting", "unknown embedded model", "type", "stage"])
@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_an_invalid_configuration_is_status_2_and_names_the_line(
    command: str, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        supervision, "configure_logging", lambda format, level: None
    )  # it would change the logging of this process
    path = write(tmp_path, text)
    arguments = [command, path] if command == "check-config" else [command, "--config", path, "--port", "0"]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(rf"config\.yaml\D+{BAD[text]}\b", err), err
    assert "Traceback" not in err
    assert "sk-cli-test" not in err


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "/no/such/config.yaml"]) == 2
    assert "/no/such/config.yaml" in capsys.readouterr().err


def test_an_invalid_configuration_in_a_process_of_its_own(tmp_path: Path) -> None:
    ran = run("serve", "--config", write(tmp_path, GOOD + "pipeline_settings: {prot: 5}\n"))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "did you mean port" in ran.stderr


def test_built_in_and_installed_stages_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path)
    assert cli.main(["stages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert {"authenticate", "parse_request", "decode_events", "write_sse"} <= set(names)
    assert "shout                Say it louder: the answer's text in capitals." in lines


@pytest.mark.parametrize("files", [{"RECORD": "pipeline/__init__.py,,\n"}, {"top_level.txt": "other\npipeline\n"}])
def test_another_distribution_with_our_package_names_is_refused(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (installed := tmp_path / "other_pipe-1.0.dist-info").mkdir()
    for name, text in {"METADATA": "Metadata-Version: 2.1\nName: other-pipe\nVersion: 1.0\n", **files}.items():
        (installed / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["stages"]) == 2
    assert "'other-pipe' also has a package named 'pipeline'" in capsys.readouterr().err


def test_only_our_distribution_owns_the_packages() -> None:
    cli.check_ownership()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = run("serve", "--config", write(tmp_path, GOOD), "--host", "127.0.0.1", "--port", port)
    assert ran.returncode == 2
    assert (
        f"headrace: cannot listen on 127.0.0.1 port {port}, which another program uses: choose another port, such as "
        "--port "
    ) in ran.stderr
    assert "Traceback" not in ran.stderr


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[trio.Process, str]]:
    """Run the demo; yield its process and what it printed."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipeline.gateway", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        printed = b""
        with patiently_with_processes():
            while b"Your own models" not in printed:
                chunk = await process.stdout.receive_some(4096)
                assert chunk, printed
                printed += chunk
        yield process, printed.decode()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdout.aclose()


async def test_the_demo_prints_commands_that_work_unchanged() -> None:
    async with demo() as (process, printed):
        [key] = re.findall(r"^  key +(sk-\S+)$", printed, re.MULTILINE)
        assert len(key) > 30
        assert f" doctor https://YOUR-HOST --key {key}` checks that." in printed  # no variable has the key
        commands = re.findall(r"^  curl (.*?)\n\n", printed, re.MULTILINE | re.DOTALL)
        assert len(commands) == 2
        answers: list[httpx.Response] = []
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as client:
            for command in commands:
                [url] = re.findall(r"http://\S+", command)
                headers = dict(header.split(": ", 1) for header in re.findall(r"-H '(.*?)'", command))
                [data] = re.findall(r"-d '(.*?)'", command, re.DOTALL)
                body = json.loads(data) | {"max_output_tokens": 20}  # the story takes seven seconds
                answers.append(await client.post(url, headers=headers, json=body))
        story, echo = answers
        assert fold_stream(story.content).content
        assert fold_document(echo.content).content == "Hello there"
        process.send_signal(signal.SIGTERM)
        with patiently_with_processes():
            assert await process.wait() == 0


def test_the_environment_is_not_needed(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
    command = [sys.executable, "-m", "pipeline.gateway", "check-config", write(tmp_path, GOOD)]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PROCESSES_S, check=True)
    assert "echo" in ran.stdout
