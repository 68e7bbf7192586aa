"""Each Python of a machine is found once, by what it says of itself."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from kit.release.interpreters import find_interpreters


def program(folder: Path, name: str, answer: str, status: int = 0) -> None:
    """Write a program that answers as a Python would."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n", encoding="utf-8")
    file.chmod(0o755)


def test_each_version_is_found_once_in_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    program(one, "python3.13", "CPython 3.13.0 /opt/new/python3.13")
    program(one, "python3.9", "CPython 3.9.18 /opt/old/python3.9")
    program(one, "python3.13-config", "CPython 3.13.9 /opt/config")
    program(other, "python3.11", "CPython 3.11.10 /opt/a folder/python3.11")
    program(other, "python3.12", "CPython 3.11.9 /opt/shim/python3.11")
    program(other, "python3.13", "CPython 3.13.0 /opt/again/python3.13")
    assert find_interpreters([one, other, tmp_path / "missing"]) == {
        "3.11.9": Path("/opt/shim/python3.11"),
        "3.11.10": Path("/opt/a folder/python3.11"),
        "3.13.0": Path("/opt/new/python3.13"),
    }


def test_what_is_not_a_cpython_or_does_not_run_is_left_out(tmp_path: Path) -> None:
    program(tmp_path, "python3.11", "PyPy 3.11.1 /opt/pypy")
    program(tmp_path, "python3.12", "CPython 3.12.1 /opt/shim", status=127)
    program(tmp_path, "python3.13", "")
    (tmp_path / "python3.14").write_text("not executable", encoding="utf-8")
    assert find_interpreters([tmp_path]) == {}


def test_the_link_of_an_environment_leads_to_its_python(tmp_path: Path) -> None:
    (tmp_path / f"python3.{sys.version_info.minor}").symlink_to(sys.executable)
    assert list(find_interpreters([tmp_path])) == [platform.python_version()]


def test_this_python_is_among_those_that_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    assert platform.python_version() in find_interpreters()
