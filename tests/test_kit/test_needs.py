"""Skips are counted in one line, and a skip for an unknown reason fails the run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit import needs

MISSING = """
import dataclasses
from kit import needs
RECORDINGS = dataclasses.replace(needs.RECORDINGS, is_met=False)
"""
KNOWN = """
import pytest
@needs.needs(RECORDINGS)
def test_a() -> None: ...
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=needs.needs(RECORDINGS))])
def test_b(x: int) -> None: ...
"""
UNKNOWN = "import pytest\ndef test_c() -> None: pytest.skip('too tired')\n"
WHOLE_MODULE = "import pytest\npytest.skip('not today', allow_module_level=True)\n"
OVER_NOTHING = "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_d(x: int) -> None: ...\n"


def run(folder: Path, *modules: str, options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Run pytest over modules with these sources, with this project's settings; return its status and its output."""
    kit = folder / "tests" / "kit"
    kit.mkdir(parents=True)
    shutil.copy(needs.__file__, kit)
    shutil.copy(needs.ROOT / "tests" / "conftest.py", folder)
    shutil.copy(needs.ROOT / "pyproject.toml", folder)
    for number, module in enumerate(modules):
        (folder / f"test_{number}.py").write_text(module)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    command += options
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_known_skips_are_counted_in_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    status, output = run(tmp_path, MISSING + KNOWN, options=options)
    assert status == 0
    assert [line for line in output if "skipped" in line] == [
        "skipped: 2 tests need the recordings of ../shared",
        output[-1],
    ]
    assert output[-1].startswith("1 passed, 2 skipped in ")


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_another_skip_fails_the_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    status, output = run(tmp_path, MISSING + KNOWN, UNKNOWN, WHOLE_MODULE, options=options)
    assert status == 1
    said = "skipped for a reason that tests/kit/needs.py does not list: "
    told = sorted(line.removeprefix(said) for line in output if line.startswith(said))
    assert told == ["test_1.py::test_c: too tired", "test_2.py: not today"]
    assert "skipped: 2 tests need the recordings of ../shared" in output


def test_parameters_over_nothing_are_an_error(tmp_path: Path) -> None:
    status, output = run(tmp_path, OVER_NOTHING)
    assert status != 0
    assert any("Empty parameter set" in line for line in output)


def test_several_needs_share_the_line() -> None:
    reasons = ["needs the recordings of ../shared", "needs Node.js clients (make test-clients)"]
    assert needs.skipped_line([*reasons, reasons[0], "too tired"]) == (
        "skipped: 2 tests need the recordings of ../shared; 1 test needs Node.js clients (make test-clients)"
    )
    assert needs.skipped_line(["too tired"]) == needs.skipped_line([]) == ""
