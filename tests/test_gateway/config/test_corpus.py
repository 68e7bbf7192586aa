"""Configurations as users of LiteLLM have them: what each leads to is stated beside it, and nothing else may happen.

``NAME.expected.toml`` has one ``[[case]]`` or more. ``set`` are the environment variables that are set (to a made-up
value; ``values`` has those whose value matters). Then there are either ``deployments`` or ``errors``, and ``warnings``:
of these, each phrase is in one message, and each message has one phrase.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.service.config_texts import MASTER

from pipeline.gateway.config.litellm_names import split_model
from pipeline.gateway.config.load import ConfigError, Settings, load_settings
from stages.upstreams import Deployment

FOLDER = Path(__file__).parents[2] / "data" / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))
ROWS = tomllib.loads((FOLDER / "rows.toml").read_text(encoding="utf-8"))


def expected(file: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = tomllib.loads(file.with_suffix(".expected.toml").read_text(encoding="utf-8"))["case"]
    return cases


CASES = [
    pytest.param(file, case, id=f"{file.stem}-{number}")
    for file in FILES
    for number, case in enumerate(expected(file), start=1)
]


def environ_of(case: dict[str, Any]) -> dict[str, str]:
    made_up = {name: MASTER if name.endswith("MASTER_KEY") else f"made-up-{name.lower()}" for name in case["set"]}
    values: dict[str, str] = case.get("values", {})
    return made_up | values


def shown(deployment: Deployment) -> str:
    apis = ", ".join([deployment.kind, *["chat"] * (deployment.on_chat is not None)])
    return f"{deployment.model_name} = {deployment.provider}/{deployment.model} ({apis})"


def assert_each_has_its_phrase(messages: tuple[str, ...], phrases: list[str]) -> None:
    """Assert that each phrase is in exactly one message, and that no other message is there."""
    found = {message: [phrase for phrase in phrases if phrase in message] for message in messages}
    assert {message: hits for message, hits in found.items() if not hits} == {}, "an unexpected message"
    assert [phrase for phrase in phrases if sum(phrase in hits for hits in found.values()) != 1] == []
    assert len(messages) == len(phrases)


@pytest.mark.parametrize(("file", "case"), CASES)
def test_a_configuration_leads_to_what_is_demanded_and_to_nothing_else(file: Path, case: dict[str, Any]) -> None:
    settings: Settings | ConfigError
    try:
        settings = load_settings(file, environ_of(case))
    except ConfigError as error:
        settings = error
    assert_each_has_its_phrase(settings.warnings, case.get("warnings", []))
    if isinstance(settings, ConfigError):
        assert_each_has_its_phrase(settings.problems, case.get("errors", []))
    else:
        assert [shown(deployment) for deployment in settings.deployments] == case.get("deployments")


@pytest.mark.parametrize("row", ROWS["rows"])
def test_each_row_of_what_users_have_is_in_a_file(row: str) -> None:
    pattern = re.compile(ROWS["rows"][row], re.MULTILINE | re.IGNORECASE)
    assert any(pattern.search(file.read_text(encoding="utf-8")) for file in FILES)


def test_each_provider_that_users_have_is_in_a_file() -> None:
    found: set[str | None] = set()
    for file in FILES:
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["model_list"]:
            model = entry["litellm_params"]["model"]
            found.add("none" if "/" not in model else split_model(model)[0])
    assert {*ROWS["providers"]} - found == set()


def test_each_case_says_what_it_leads_to() -> None:
    assert {file.name.partition(".")[0] for file in FOLDER.glob("*.toml")} == {"rows", *(file.stem for file in FILES)}
    for file in FILES:
        for case in expected(file):
            assert case.keys() <= {"set", "values", "deployments", "errors", "warnings"}, file
            assert ("deployments" in case) != ("errors" in case), file
