"""Which configuration file a command is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.finding import find_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_that_is_named_comes_first_whether_it_exists_or_not(folder: Path) -> None:
    (folder / "config.yaml").touch()
    (folder / "other.yaml").touch()
    assert find_config("named.yaml", {"HEADRACE_CONFIG": "other.yaml"}) == "named.yaml"


def test_the_variable_comes_before_the_file_of_this_folder(folder: Path) -> None:
    (folder / "config.yaml").touch()
    (folder / "other.yaml").touch()
    assert find_config(None, {"HEADRACE_CONFIG": "other.yaml"}) == "other.yaml"
    assert find_config(None, {"HEADRACE_CONFIG": ""}) == "config.yaml"
    assert find_config(None, {}) == "config.yaml"


def test_a_variable_that_names_no_file_is_not_passed_over(folder: Path) -> None:
    (folder / "config.yaml").touch()
    with pytest.raises(CommandError, match=r"HEADRACE_CONFIG names gone\.yaml, and there is no such file"):
        find_config(None, {"HEADRACE_CONFIG": "gone.yaml"})


def test_without_any_the_three_ways_and_the_command_that_writes_one_are_named(folder: Path) -> None:
    with pytest.raises(CommandError) as refused:
        find_config(None, {})
    for way in ("--config FILE", "HEADRACE_CONFIG", "config.yaml", "headrace init"):
        assert way in str(refused.value)
