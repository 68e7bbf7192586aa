"""Type checkers reject a badly ordered chain, at the line where it is written, and accept a well-ordered one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GOOD, BAD = (ROOT / "tests/typing" / name for name in ("well_ordered.py", "badly_ordered.py"))

Errors = dict[tuple[str, int], set[str]]
"""The codes of the errors, by file and line."""


def marked(module: Path) -> Errors:
    """Read the marks: ``# error: `` and mypy's codes for the line."""
    lines = enumerate(module.read_text().splitlines(), 1)
    marks = ((number, line.partition("  # error: ")[2]) for number, line in lines)
    return {(module.name, number): set(codes.split(", ")) for number, codes in marks if codes}


def run(folder: Path, tool: str, *arguments: str) -> str:
    """Run a checker on copies of both modules: the project's configuration leaves the originals out."""
    for module in (GOOD, BAD):
        shutil.copy(module, folder)
    command = [sys.executable, "-m", tool, *arguments, GOOD.name, BAD.name]
    environment = os.environ | {"MYPYPATH": str(ROOT)}  # this checkout, whichever headrace is installed
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr  # errors were found; 2 is a failure of the checker
    return ran.stdout


@pytest.mark.timeout(150)
def test_mypy_rejects_exactly_the_marked_lines(tmp_path: Path) -> None:
    printed = run(tmp_path, "mypy", "--config-file=", "--strict", "--no-pretty", f"--cache-dir={tmp_path}")
    errors: Errors = {}
    for name, line, code in re.findall(r"^(.*?):(\d+): error: .*\[([a-z-]+)\]$", printed, re.MULTILINE):
        errors.setdefault((name, int(line)), set()).add(code)
    assert errors == marked(BAD), printed


@pytest.mark.timeout(150)
def test_pyright_rejects_exactly_the_marked_lines(tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "basic", "extraPaths": [str(ROOT)]}))
    printed = run(tmp_path, "pyright", "--outputjson", "--pythonpath", sys.executable)
    found = json.loads(printed)["generalDiagnostics"]
    errors = {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found}
    assert errors == marked(BAD).keys(), printed


def test_every_kind_of_mistake_is_marked() -> None:
    assert len(marked(BAD)) > 30
    assert marked(GOOD) == {}
