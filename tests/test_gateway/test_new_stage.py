"""What ``headrace new-stage`` writes: five packages that pass their own tests and every check, unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kit.service.plugins import install
from kit.time.patience import PROCESSES_S

from pipeline.gateway import cli, stage_commands
from pipeline.gateway.new_stage import KINDS, MAX_NAME_CHARACTERS
from pipeline.registry import discover

ROOT = Path(__file__).parents[2]
NAMES = {kind: f"written_{kind}" for kind in KINDS}

pytestmark = pytest.mark.timeout(300)  # processes


def folder_of(name: str) -> str:
    return f"headrace-{name.replace('_', '-')}"


def write(name: str, kind: str, *more: str) -> int:
    return cli.main(["new-stage", name, "--kind", kind, *more])


@pytest.fixture(scope="session")  # once: a process that has imported them finds their names taken
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one package of each kind."""
    folder = tmp_path_factory.mktemp("packages")
    for kind, name in NAMES.items():
        assert write(name, kind, "--into", str(folder / folder_of(name))) == 0
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a module on the packages, with this checkout, whichever headrace is installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MYPYPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # their tests need nothing but pytest
    }
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PROCESSES_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_command_line_offers_every_kind() -> None:
    assert tuple(KINDS) == stage_commands.KINDS


def test_their_tests_pass_unchanged(packages: Path) -> None:
    printed = run(packages, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-W", "error", ".")
    tests = re.findall(r"test_written_(\w+)\.py::\w+ PASSED", printed)
    assert set(tests) == set(KINDS)


def test_what_is_not_a_function_of_one_event_is_tested_by_the_kits_whole_check(packages: Path) -> None:
    for kind, check in {"run": "check_plugin", "around": "check_around", "observer": "check_plugin"}.items():
        folder = packages / folder_of(NAMES[kind])
        assert f"{check}(plugin, " in (folder / f"test_{NAMES[kind]}.py").read_text()
        assert "import test_" not in (folder / f"benchmark_{NAMES[kind]}.py").read_text()  # the test may change


def test_they_pass_mypy_strict(packages: Path, tmp_path: Path) -> None:
    modules = [str(path) for path in packages.glob("*/*.py")]
    assert len(modules) == 3 * len(KINDS)
    run(packages, "-m", "mypy", "--config-file=", "--strict", f"--cache-dir={tmp_path}", *modules)


def test_they_pass_ruff_however_long_their_name_is(packages: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        assert write("a", kind, "--into", str(tmp_path / f"a_{kind}")) == 0
        longest = f"a_{kind}_".ljust(MAX_NAME_CHARACTERS, "x")
        assert write(longest, kind, "--into", str(tmp_path / longest)) == 0
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        run(packages, "-m", "ruff", *command, str(packages), str(tmp_path))


def test_their_benchmarks_print_microseconds(packages: Path) -> None:
    program = (
        "import runpy, sys; from pathlib import Path\n"
        "for path in sorted(Path('.').glob('*/benchmark_*.py')):\n"
        "    sys.path.insert(0, str(path.parent)); runpy.run_path(str(path), run_name='__main__')\n"
    )
    lines = run(packages, "-c", program).splitlines()
    assert [line.partition(":")[0] for line in lines] == sorted(NAMES.values())
    assert all(re.search(r": -?\d+\.\d+ us per (event|call|request)", line) for line in lines)


def test_where_pip_and_pytest_are_missing_as_in_pipxs_environments_they_are_not_taken_for_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert write("written_here", "event") == 0
    install = f"uv pip install --python {sys.executable}"
    assert f"\n  {install} --no-deps --editable .\n  {install} pytest\n" in capsys.readouterr().out


def test_they_are_found_and_the_lines_that_were_printed_configure_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    for kind, name in NAMES.items():
        assert write(name.replace("_", "-"), kind) == 0
        printed = capsys.readouterr().out
        folder = tmp_path / folder_of(name)
        python = sys.executable  # not that of another environment, which may come first in the PATH
        commands = (
            f"  {python} -m pip install --no-deps --editable .\n  {python} -m pytest\n  {python} benchmark_{name}.py"
        )
        assert f"  cd {folder.name}\n{commands}\n" in printed
        [line] = re.findall(r"^ +(- \{use: .*\})$", printed, re.MULTILINE)
        assert line in (folder / "README.md").read_text()
        lines.append(line)
        install(monkeypatch, tmp_path / f"site_{kind}", folder)
    plugins = discover()
    assert {plugins[NAMES[kind]].kind for kind in ("event", "codec", "run")} == {"stage"}
    assert [plugins[NAMES[kind]].kind for kind in ("around", "observer")] == ["around", "observer"]
    assert all("headrace stages" in plugins[name].summary for name in NAMES.values())
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list: [{model_name: echo, litellm_params: {model: canned/echo}}]\n"
        "general_settings: {master_key: sk-new-stage-0123456789}\n"
        "pipeline_settings:\n  stages:\n" + "".join(f"    {line}\n" for line in lines)
    )
    assert cli.main(["check-config", str(config)]) == 0
    capsys.readouterr()
    assert cli.main(["graph", str(config)]) == 0
    assert all(name in capsys.readouterr().out for name in [NAMES["codec"]])


def test_no_placeholder_is_left(packages: Path) -> None:
    for path in packages.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert re.findall(r"@[A-Z]+@", path.read_text()) == [], path
    for kind, name in NAMES.items():
        about = tomllib.loads((packages / folder_of(name) / "pyproject.toml").read_text())["project"]
        assert about["name"] == folder_of(name)
        entry = KINDS[kind].entry or name
        assert about["entry-points"]["pipeline.stages"] == {name: f"{name}:{entry}"}


REFUSED = {
    "Strip": "'Strip' cannot be the name of a stage: write a verb phrase in snake_case",
    "2nd": "cannot be the name of a stage",
    "a__b": "cannot be the name of a stage",
    "_hidden": "cannot be the name of a stage",
    "../escape": "cannot be the name of a stage",
    "größer": "cannot be the name of a stage",
    "x" * (MAX_NAME_CHARACTERS + 1): f"at most {MAX_NAME_CHARACTERS} characters",
    "": "cannot be the name of a stage",
    "while": "'while' is a keyword of Python",
    "decode-events": "a built-in stage is already named 'decode_events'",
    "shout": "an installed stage is already named 'shout'",
    "test_it": "is the name of a test",
    "json": "there is already a Python module named 'json'",
    "pipeline": "there is already a Python module named 'pipeline'",
    "per_event": "'per_event' is used in the code that is written",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_used_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path / "site")
    (folder := tmp_path / "empty").mkdir()
    monkeypatch.chdir(folder)
    assert write(name, "event") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert REFUSED[name] in err
    assert list(folder.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace-quiet-down").mkdir()
    assert write("quiet_down", "event") == 2
    assert "headrace-quiet-down already exists" in capsys.readouterr().err
    assert write("quiet_down", "event", "--into", "parents/are/made") == 0
    assert (tmp_path / "parents/are/made/quiet_down.py").is_file()
    assert list((tmp_path / "headrace-quiet-down").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert write("quiet_down", "event", "--into", str(tmp_path / "file" / "folder")) == 2
    assert "file is not a folder: name another one" in capsys.readouterr().err


def test_an_unknown_kind_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        write("quiet_down", "filter")
    assert ended.value.code == 2
    assert "'event', 'codec', 'run', 'around', 'observer'" in capsys.readouterr().err


def test_a_broken_installed_stage_does_not_prevent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project := tmp_path / "broken").mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "broken"\nversion = "1"\n[project.entry-points."pipeline.stages"]\nbroken_one = "nope:x"\n'
    )
    install(monkeypatch, tmp_path / "site", project)
    assert list(discover().broken) == ["broken_one"]
    assert write("quiet_down", "event", "--into", str(tmp_path / "new")) == 0
    assert write("broken_one", "event", "--into", str(tmp_path / "other")) == 2
    assert "an installed stage is already named 'broken_one'" in capsys.readouterr().err
