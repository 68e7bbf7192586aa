"""Each stage is in the file of its name, documents its contract, and has its test file."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import stages
from pipeline.gateway.insertions import BUILT_IN
from pipeline.gateway.reference import built_in_stages

TESTS = Path(__file__).parent
NAMES = [name for name, _ in built_in_stages()]


def test_the_table_has_every_stage() -> None:
    folder = Path(stages.__file__).parent
    vocabulary = {
        "__init__",
        "answer",
        "chaos",
        "events",
        "faults",
        "large_bodies",
        "limits",
        "mending",
        "principal",
        "request",
        "slots",
        "testing",
    }
    assert sorted(NAMES) == sorted({path.stem for path in folder.glob("*.py")} - vocabulary)


def test_no_plugin_can_take_the_name_of_a_stage() -> None:
    assert sorted(BUILT_IN) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_stage_has_its_file_its_name_its_contract_and_its_test(name: str) -> None:
    module = importlib.import_module(f"stages.{name}")
    stage = getattr(module, name)
    if not hasattr(stage, "run"):  # a function that makes the stage from settings
        assert callable(stage)
    else:
        assert stage.name == name
    for heading in ("Takes:", "Gives:", "Raises:"):
        assert heading in (module.__doc__ or ""), f"the docstring of stages/{name}.py has no {heading!r}"
    assert (TESTS / f"test_{name}.py").is_file()
