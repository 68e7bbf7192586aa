"""Each of LiteLLM's settings is honoured, without effect, not supported, or a limit: none is ignored without a word."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.service.config_texts import parse

from pipeline.gateway.config import litellm_names
from pipeline.gateway.config.litellm_ignored import GUARDS, PRICES
from pipeline.gateway.config.litellm_names import Names

KEYS = tomllib.loads((Path(__file__).parents[2] / "data" / "litellm_keys.toml").read_text(encoding="utf-8"))
SECTIONS: dict[str, Names] = {
    name: getattr(litellm_names, name.upper()) for name, keys in KEYS.items() if isinstance(keys, list)
}
NOTES = "model_info"
"""Where users may write what they like: a name in no set has no warning."""
LEFT_OUT = {"litellm_credential_name"}
"""What leaves out its deployment, with a warning of its own."""


def written(section: str, settings: dict[str, Any]) -> str:
    """Return a configuration with these settings in one section, and one deployment."""
    entry: dict[str, Any] = {"model_name": "m", "litellm_params": {"model": "canned/echo"}, "model_info": {}}
    top: dict[str, Any] = {"model_list": [entry]}
    place = {"top_level": top, "model_list_entry": entry}.get(section) or entry.get(section)
    if place is None:
        place = top[section] = {}
    place.update(settings)
    return yaml.safe_dump(top, sort_keys=False)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_setting_of_litellm_is_in_exactly_one_set(section: str) -> None:
    names = SECTIONS[section]
    ignored = names.ignored
    sets = {
        "honoured": names.honoured,
        "limits": names.limits - names.honoured,
        "harmless": ignored.harmless.keys(),
        "unsupported": ignored.unsupported.keys(),
        "protections": ignored.protections.keys(),
    }
    for key in sorted({*KEYS[section], *names.known}):
        found = [name for name, keys in sets.items() if key in keys] + ["prices"] * bool(PRICES.match(key))
        assert len(found) == 1 or (section == NOTES and not found), (key, found)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_setting_that_is_ignored_has_one_warning_unless_it_is_without_effect(section: str) -> None:
    names = SECTIONS[section]
    told = {*names.ignored.unsupported, *names.ignored.protections} - LEFT_OUT
    settings = {*KEYS[section], *names.ignored.harmless, *told} - LEFT_OUT - names.honoured - names.limits
    warnings = parse(written(section, dict.fromkeys(settings, 7))).warnings
    assert sorted(re.findall(r"([\w-]+): is (?:not supported yet|a protection)", "\n".join(warnings))) == sorted(told)
    assert len(warnings) == len(told)


@pytest.mark.parametrize(
    ("section", "settings", "said"),
    [
        ("general_settings", {"allowed_ips": ["10.0.0.1"]}, "clients of every address are served"),
        ("general_settings", {"custom_auth": "mine.check"}, "clients are admitted by the master key and"),
        ("top_level", {"guardrails": [{"guardrail_name": "pii"}]}, "no request and no answer is checked"),
        ("model_list_entry", {"blocked": True}, "the model is served"),
    ],
)
def test_a_protection_that_is_missing_is_told_loudly_with_what_is_open(
    section: str, settings: dict[str, Any], said: str
) -> None:
    [warning] = parse(written(section, settings)).warnings
    assert f": is a protection that is NOT enforced: {said}" in warning


@pytest.mark.parametrize("name", sorted(GUARDS))
def test_a_callback_that_checks_requests_is_a_protection(name: str) -> None:
    [warning] = parse(written("litellm_settings", {"callbacks": [name]})).warnings
    assert warning == (
        f"config.yaml:8: litellm_settings.callbacks[0]: {name} is a protection that is NOT enforced: "
        "no request and no answer is checked"
    )


def test_what_there_is_instead_is_named() -> None:
    [warning] = parse(written("litellm_settings", {"http2": True})).warnings
    assert warning == (
        "config.yaml:7: litellm_settings.http2: is not supported yet and is ignored (see pipeline_settings.http2)"
    )


@pytest.mark.parametrize(
    ("section", "setting", "usual"),
    [
        ("litellm_settings", "ssl_verify", True),
        ("general_settings", "health_check_details", True),
        ("litellm_settings", "cache", False),
        ("general_settings", "allowed_ips", []),
    ],
)
def test_a_setting_that_asks_for_nothing_has_no_warning(section: str, setting: str, usual: object) -> None:
    assert parse(written(section, {setting: usual})).warnings == ()
