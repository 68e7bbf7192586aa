"""The examples in docs/examples: each is typed strictly, passes its own tests, can be installed, and is short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from kit.service.plugins import describe

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "docs/examples").glob("*/pyproject.toml"))
LIMITS = {"smooth": 38, "scrub": 45, "mirror": 39, "steer": 27, "cache": 48, "chaos": 60, "hedge": 52}
"""The most lines of code that an example may have, without docstrings, comments and blank lines."""

all_examples = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which all examples are installed, for processes of their own."""
    site = tmp_path_factory.mktemp("site")
    for folder in FOLDERS:
        describe(site, folder)
    path = os.pathsep.join(map(str, [ROOT, site, *FOLDERS]))
    return os.environ | {"PYTHONPATH": path, "MYPYPATH": path, "HEADRACE_MASTER_KEY": "sk-a-master-key-of-the-tests"}


def run(environment: dict[str, str], *command: str, cwd: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.timeout(150)
def test_they_are_typed_strictly(environment: dict[str, str], tmp_path: Path) -> None:
    modules = [str(path) for folder in FOLDERS for path in folder.glob("*.py")]
    options = ("--config-file=", "--strict", "--no-pretty", "--explicit-package-bases", "--namespace-packages")
    run(environment, "mypy", *options, f"--cache-dir={tmp_path}", *modules, cwd=tmp_path)


@pytest.mark.timeout(150)
def test_their_own_tests_pass(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntrio_mode = true\n")
    options = ("-q", "-rA", "-p", "no:cacheprovider", "-c", "pytest.ini", "--import-mode=importlib")
    printed = run(environment, "pytest", *options, *map(str, FOLDERS), cwd=tmp_path)
    for folder in FOLDERS:
        assert re.search(rf"^PASSED .*\btest_{folder.name}\.py::", printed, re.MULTILINE), f"{folder.name} has no tests"


def test_they_are_found_when_they_are_installed(environment: dict[str, str], tmp_path: Path) -> None:
    """And each configuration in a README is accepted, in the words in which it is written there."""
    listed = run(environment, "pipeline.gateway", "stages", cwd=tmp_path)
    for folder in FOLDERS:
        names = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["pipeline.stages"]
        assert [name for name in names if name not in listed] == []
        config = {
            "model_list": [{"model_name": "demo", "litellm_params": {"model": "canned/story"}}],
            "general_settings": {"master_key": "os.environ/HEADRACE_MASTER_KEY"},
        }
        [block] = re.findall(r"^```yaml\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        path = tmp_path / f"{folder.name}.yaml"
        path.write_text(yaml.safe_dump(config) + block)
        run(environment, "pipeline.gateway", "check-config", str(path), cwd=tmp_path)


@all_examples
def test_each_has_its_module_its_tests_and_a_short_page(folder: Path) -> None:
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert files == {f"{folder.name}.py", f"test_{folder.name}.py", "pyproject.toml", "README.md"}
    assert 8 <= len((folder / "README.md").read_text().splitlines()) <= 30


@all_examples
def test_each_is_as_short_as_promised(folder: Path) -> None:
    lines = lines_of_code((folder / f"{folder.name}.py").read_text())
    assert lines <= LIMITS[folder.name]


def lines_of_code(source: str) -> int:
    """Count the lines that are neither blank nor a comment, nor part of a docstring."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(number not in left_out and line.strip() != "" and line.strip()[0] != "#" for number, line in lines)


def test_docstrings_comments_and_blank_lines_do_not_count() -> None:
    assert lines_of_code('"""A\nB."""\n\nX = 1  # one\n"""C."""\n# two\ndef f():\n    """D."""\n    return "E"\n') == 3
