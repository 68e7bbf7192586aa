"""LiteLLM's limits: those that are enforced are read, any other keeps the gateway from starting, and all have a row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kit.service.config_texts import MASTER, model, parse, problems

from pipeline.gateway import cli
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.litellm_names import KEY_BUDGETS, LIMITS, LIMITS_WITHIN
from pipeline.gateway.config.load import ConfigError, Settings, describe, load_settings
from stages.limits import NO_LIMITS, Limits

ROOT = Path(__file__).parents[3]
ANNA = "sk-anna-0123456789abcdef"
IGNORED = {"HEADRACE_IGNORE_LIMITS": "true"}


class Row(NamedTuple):
    """A row of the table in docs/config.md, and how it is shown.

    Attributes:
        word: LiteLLM's word.
        places: where it stands, as the page says.
        outcome: what the page says becomes of it.
        value: an example.
        found: what the settings have of the example, if it is enforced.
    """

    word: str
    places: tuple[str, ...]
    outcome: str
    value: Any
    found: Callable[[Settings], object] | None = None


ENFORCED, REFUSED, NOTHING = "enforced", "refuses to start", "no meaning here"
ENTRY = ("model_list", "litellm_params", "model_info")


def of_key(settings: Settings) -> Limits:
    return settings.keys[0].limits


def of_key_and_model(settings: Settings) -> Limits:
    return settings.keys[0].model_limits["m"]


def of_deployment(settings: Settings) -> Limits:
    return settings.deployments[0].limits


def of_each_key(settings: Settings) -> Limits:
    return settings.deployments[0].key_limits


ROWS = (
    Row("rpm_limit", ("keys",), ENFORCED, 7, lambda found: of_key(found).rpm),
    Row("tpm_limit", ("keys",), ENFORCED, 7, lambda found: of_key(found).tpm),
    Row("max_parallel_requests", ("keys",), ENFORCED, 7, lambda found: of_key(found).parallel),
    Row("model_rpm_limit", ("keys",), ENFORCED, {"m": 7}, lambda found: of_key_and_model(found).rpm),
    Row("model_tpm_limit", ("keys",), ENFORCED, {"m": 7}, lambda found: of_key_and_model(found).tpm),
    Row("model_max_parallel_requests", ("keys",), ENFORCED, {"m": 7}, lambda found: of_key_and_model(found).parallel),
    Row("rpm", ENTRY, ENFORCED, 7, lambda found: of_deployment(found).rpm),
    Row("tpm", ENTRY, ENFORCED, 7, lambda found: of_deployment(found).tpm),
    Row("max_parallel_requests", ENTRY, ENFORCED, 7, lambda found: of_deployment(found).parallel),
    Row("default_api_key_rpm_limit", ("litellm_params",), ENFORCED, 7, lambda found: of_each_key(found).rpm),
    Row("default_api_key_tpm_limit", ("litellm_params",), ENFORCED, 7, lambda found: of_each_key(found).tpm),
    Row("default_max_parallel_requests", ("router_settings",), ENFORCED, 7,
        lambda found: of_deployment(found).parallel),
    Row("max_parallel_requests", ("general_settings", "litellm_settings"), ENFORCED, 7,
        lambda found: of_deployment(found).parallel),
    Row("global_max_parallel_requests", ("general_settings",), ENFORCED, 7,
        lambda found: found.pipeline.max_requests_in_flight),
    Row("max_budget", ("litellm_settings", "litellm_params", "keys"), REFUSED, 100),
    Row("soft_budget", ("keys",), REFUSED, 50),
    Row("default_soft_budget", ("litellm_settings",), REFUSED, 50),
    Row("budget_limits", ("keys",), REFUSED, [{"budget_duration": "1d", "max_budget": 5}]),
    Row("budget_id", ("keys",), REFUSED, "small"),
    Row("model_max_budget", ("keys",), REFUSED, {"m": {"budget_limit": 5, "time_period": "1d"}}),
    Row("temp_budget_increase", ("keys",), REFUSED, 5),
    Row("max_end_user_budget", ("litellm_settings",), REFUSED, 1),
    Row("max_end_user_budget_id", ("litellm_settings",), REFUSED, "small"),
    Row("max_internal_user_budget", ("litellm_settings",), REFUSED, 1),
    Row("default_max_internal_user_budget", ("litellm_settings",), REFUSED, 1),
    Row("max_user_budget", ("litellm_settings",), REFUSED, 1),
    Row("provider_budget_config", ("router_settings", "litellm_settings"), REFUSED,
        {"openai": {"budget_limit": 100, "time_period": "1d"}}),
    Row("tag_budget_config", ("litellm_settings",), REFUSED, {"product:a": {"max_budget": 1, "budget_duration": "1d"}}),
    Row("itpm", ENTRY, REFUSED, 1000),
    Row("otpm", ENTRY, REFUSED, 1000),
    Row("rpd", ("model_list", "litellm_params"), REFUSED, 1000),
    Row("tpd", ("model_list", "litellm_params"), REFUSED, 1000),
    Row("max_in_flight_requests_per_worker", ("general_settings",), REFUSED, 50),
    Row("token_rate_limit_type", ("general_settings",), REFUSED, "output"),
    Row("priority_reservation", ("litellm_settings",), REFUSED, {"prod": 0.9}),
    Row("fairness_settings", ("litellm_settings",), REFUSED, {"enabled": True}),
    Row("default_key_generate_params", ("litellm_settings",), REFUSED, {"max_budget": 1, "models": ["m"]}),
    Row("upperbound_key_generate_params", ("litellm_settings",), REFUSED, {"tpm_limit": 1}),
    Row("default_internal_user_params", ("litellm_settings", "top level"), REFUSED, {"rpm_limit": 1}),
    Row("default_team_params", ("litellm_settings",), REFUSED, {"team_member_rpm_limit": 1}),
    Row("default_team_settings", ("litellm_settings", "top level"), REFUSED, [{"team_id": "a", "max_budget": 1}]),
    Row("default_litellm_params", ("router_settings",), REFUSED, {"rpm": 1}),
    Row("budget_duration", ("litellm_settings", "litellm_params", "keys"), NOTHING, "30d"),
    Row("internal_user_budget_duration", ("litellm_settings",), NOTHING, "30d"),
    Row("temp_budget_expiry", ("keys",), NOTHING, "2026-12-31"),
    Row("max_ui_session_budget", ("litellm_settings",), NOTHING, 10),
    Row("priority_reservation_settings", ("litellm_settings",), NOTHING, {"default_priority": 0.5}),
    Row("rpm_limit_type", ("keys",), NOTHING, "guaranteed_throughput"),
    Row("tpm_limit_type", ("keys",), NOTHING, "best_effort_throughput"),
    Row("fail_closed_budget_enforcement", ("general_settings",), NOTHING, True),
    Row("disable_budget_reservation", ("general_settings",), NOTHING, True),
    Row("disable_reset_budget", ("general_settings",), NOTHING, True),
    Row("disable_retry_on_max_parallel_request_limit_error", ("general_settings",), NOTHING, True),
    Row("proxy_budget_rescheduler_min_time", ("general_settings",), NOTHING, 1),
    Row("proxy_budget_rescheduler_max_time", ("general_settings",), NOTHING, 1),
)  # fmt: skip
CASES = [pytest.param(row, place, id=f"{row.word} in {place}") for row in ROWS for place in row.places]


def with_limit(word: str, place: str, value: object) -> str:
    """Return a configuration that has one limit."""
    entry: dict[str, Any] = {"model_name": "m", "litellm_params": {"model": "canned/echo"}, "model_info": {}}
    top: dict[str, Any] = {"model_list": [entry]}
    if place == "keys":
        top["pipeline_settings"] = {"keys": [{"name": "anna", "key": ANNA, word: value}]}
    elif place == "model_list":
        entry[word] = value
    elif place in ("litellm_params", "model_info"):
        entry[place][word] = value
    elif place == "top level":
        top[word] = value
    else:
        top[place] = {word: value}
    return yaml.safe_dump(top, sort_keys=False)


def limited(params: str, **others: object) -> str:
    """Return a configuration with one deployment, ``m``, and other sections."""
    rest = yaml.safe_dump(others, sort_keys=False) if others else ""
    return model(f"{{model: canned/echo, {params}}}") + rest


def keyed(key: dict[str, object]) -> dict[str, object]:
    return {"keys": [{"name": "anna", "key": ANNA, **key}]}


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "place"), CASES)
def test_row_83_a_limit_is_enforced_or_refuses_to_start_and_is_never_just_ignored(row: Row, place: str) -> None:
    """The configuration has a limit: it is enforced, or headrace refuses to start and names the line to add."""
    text = with_limit(row.word, place, row.value)
    if row.outcome == REFUSED:
        [problem] = problems(text)
        assert row.word in problem
        assert "is a limit that headrace does not enforce" in problem
        assert problem.endswith(
            "ignore_limits: true, in pipeline_settings (config.yaml:6)"
            if place == "keys"
            else "pipeline_settings: {ignore_limits: true}"
        )
        warnings = parse(text, **IGNORED).warnings
        assert any("is a limit that is not enforced (ignore_limits)" in warning for warning in warnings)
    else:
        settings = parse(text)
        assert settings.warnings == ()
        assert row.found is None or row.found(settings) == 7


def test_the_page_has_a_row_for_each_limit() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    section = text.partition("\n### Limits\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([a-z ]+) \| [^|]+ \|$", section, re.MULTILINE)
    assert [(word, tuple(places.replace("`", "").split(", ")), outcome) for word, places, outcome in rows] == [
        (row.word, row.places, row.outcome) for row in ROWS
    ]


def test_each_word_for_a_limit_has_a_row() -> None:
    words = {row.word for row in ROWS}
    within = {"team_member_rpm_limit", "team_member_tpm_limit", "team_member_budget", "max_budget_in_team"}
    assert words | within >= LIMITS | LIMITS_WITHIN | KEY_BUDGETS
    assert {row.word for row in ROWS if row.outcome == REFUSED} <= LIMITS | LIMITS_WITHIN


@pytest.mark.parametrize("word", sorted(LIMITS - {"token_rate_limit_type"}))
@pytest.mark.parametrize("place", ["litellm_params", "general_settings", "router_settings", "top level"])
def test_a_word_for_a_limit_is_never_just_ignored_wherever_it_stands(word: str, place: str) -> None:
    honoured = {(row.word, one) for row in ROWS for one in row.places if row.outcome == ENFORCED}
    if (word, place) not in honoured:
        [problem] = problems(with_limit(word, place, 5))
        assert "is a limit that headrace does not enforce" in problem


# --- refusing ---------------------------------------------------------------------------------------------------------

REFUSING = """\
  - model_name: b
    litellm_params: {model: canned/echo, max_budget: 3}
litellm_settings:
  max_budget: 100
  budget_duration: 30d
"""


def test_row_83_one_message_names_all_limits_and_the_line_to_add() -> None:
    """Limits that are not enforced are named together, with the line that starts headrace without them."""
    assert problems(limited("max_budget: 5") + REFUSING) == (
        "config.yaml:3: model_list[0].litellm_params.max_budget: is a limit that headrace does not enforce (also on "
        "line 6), and so is litellm_settings.max_budget (line 8): remove them, or add this line to start without "
        "them: pipeline_settings: {ignore_limits: true}",
    )


def test_limits_in_other_files_are_named_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("litellm_settings: {max_budget: 1, max_user_budget: 1}\n")
    (tmp_path / "config.yaml").write_text("include: [more.yaml]\n" + limited("max_budget: 5", pipeline_settings=None))
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "config.yaml", {"HEADRACE_MASTER_KEY": MASTER})
    [problem] = caught.value.problems
    assert f"litellm_settings.max_budget ({tmp_path}/more.yaml:1)" in problem
    assert problem.endswith(f"ignore_limits: true, in pipeline_settings ({tmp_path}/config.yaml:6)")


def test_a_limit_that_an_alias_repeats_is_named_once() -> None:
    text = (
        "model_list:\n"
        "- {model_name: a, litellm_params: &shared {model: canned/echo, max_budget: 1}}\n"
        "- {model_name: b, litellm_params: *shared}\n"
        "- model_name: c\n  litellm_params:\n    <<: *shared\n    soft_budget: 3\n"
    )
    [problem] = problems(text)
    assert problem.startswith(
        "config.yaml:2: model_list[0].litellm_params.max_budget: is a limit that headrace does not enforce, and so is "
        "model_list[2].litellm_params.soft_budget (line 7): remove them"
    )


def test_row_83_with_ignore_limits_it_starts_and_says_what_is_not_enforced() -> None:
    """With `ignore_limits: true` headrace starts all the same, with a warning for each limit."""
    text = limited("max_budget: 5", pipeline_settings={"ignore_limits": True}, litellm_settings={"max_budget": 9})
    assert parse(text).warnings == (
        "config.yaml:3: model_list[0].litellm_params.max_budget: is a limit that is not enforced (ignore_limits)",
        "config.yaml:8: litellm_settings.max_budget: is a limit that is not enforced (ignore_limits)",
    )


@pytest.mark.parametrize("command", [["check-config"], ["graph"], ["serve", "--port", "0", "--config"]])
def test_row_83_check_config_and_graph_refuse_what_serve_refuses(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`headrace check-config` says the same as `headrace serve`, and fails too."""
    file = tmp_path / "config.yaml"
    file.write_text(limited("max_budget: 5", general_settings={"master_key": MASTER}))
    assert cli.main([*command, str(file)]) == 2
    said = capsys.readouterr()
    assert "add this line to start without it: pipeline_settings: {ignore_limits: true}" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "text",
    [
        limited("max_budget: null, itpm: null, rpm: null", litellm_settings={"max_budget": None}),
        limited("weight: 1", litellm_settings={"provider_budget_config": {}, "tag_budget_config": None}),
        limited("weight: 1", litellm_settings={"max_budget": 0, "default_team_settings": [{"team_id": "a"}]}),
        limited("weight: 1", general_settings={"token_rate_limit_type": "total", "max_parallel_requests": None}),
        limited("weight: 1", pipeline_settings=keyed({"max_budget": None, "model_rpm_limit": {"m": None}})),
    ],
)
def test_null_and_empty_values_set_no_limit(text: str) -> None:
    settings = parse(text)
    assert all("default_team_settings" in warning for warning in settings.warnings)
    assert settings.deployments[0].limits == settings.deployments[0].key_limits == NO_LIMITS


def test_the_limits_of_entries_that_are_left_out_do_not_count() -> None:
    text = model("{model: bedrock/claude, max_budget: 3, rpm: many}")
    text += "  - {model_name: another, litellm_params: {model: canned/echo}}\n"
    assert [warning for warning in parse(text).warnings if "limit" in warning] == []


def test_notes_in_model_info_set_no_limit() -> None:
    assert parse(model("{model: canned/echo}", "{max_budget: 5, rpm_limit: 3}")).warnings == ()


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "found"),
    [("100", 100), ("0", 0), ("100.0", 100), ("'100'", 100), ("'100.0'", 100), ("1e3", 1000), ("os.environ/RPM", 60)],
)
def test_a_limit_is_a_whole_number_and_zero_is_one(written: str, found: int) -> None:
    assert parse(limited(f"rpm: {written}"), RPM="60").deployments[0].limits == Limits(rpm=found)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("-1", "found -1 (a number)"),
        ("1.5", "found 1.5 (a number)"),
        ("'1.5'", 'found "1.5" (text)'),
        ("true", "found true (a yes/no value)"),
        ("many", 'found "many" (text)'),
        ("[1]", "found a list"),
        ("os.environ/RPM", "found text"),
    ],
)
def test_another_value_is_an_error_with_its_line(written: str, said: str) -> None:
    assert problems(limited(f"rpm: {written}"), RPM="a lot") == (
        f"config.yaml:3: model_list[0].litellm_params.rpm: {said}, expected a whole number from 0, such as 100",
    )


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ("general_settings", "global_max_parallel_requests"),
        ("general_settings", "max_parallel_requests"),
        ("router_settings", "default_max_parallel_requests"),
    ],
)
def test_zero_for_the_whole_gateway_is_an_error(section: str, word: str) -> None:
    assert problems(limited("weight: 1", **{section: {word: 0}})) == (
        f"config.yaml:6: {section}.{word}: found 0 (a number), expected a whole number from 1, such as 100",
    )


# --- where they are found ---------------------------------------------------------------------------------------------


def test_the_entry_wins_over_its_parameters_and_those_over_its_info() -> None:
    text = (
        model("{model: canned/echo, rpm: 2, tpm: 20}", "{rpm: 3, tpm: 30, max_parallel_requests: 4}") + "    rpm: 1\n"
    )
    assert parse(text).deployments[0].limits == Limits(rpm=1, tpm=20, parallel=4)


def test_a_deployments_own_number_wins_over_the_default_and_none_is_derived_from_rates() -> None:
    defaults = {
        "router_settings": {"default_max_parallel_requests": 9},
        "general_settings": {"max_parallel_requests": 8},
    }
    assert parse(limited("rpm: 60, tpm: 6000", **defaults)).deployments[0].limits == Limits(
        rpm=60, tpm=6000, parallel=9
    )
    assert parse(limited("max_parallel_requests: 0", **defaults)).deployments[0].limits == Limits(parallel=0)
    assert parse(limited("rpm: 60, tpm: 6000")).deployments[0].limits == Limits(rpm=60, tpm=6000)


@pytest.mark.parametrize(
    "params",
    [
        "{model: openai/gpt-5, api_base: 'http://h', api_key: k, %s}",
        "{model: 'openai/chat_completions/*', api_key: k, %s}",
    ],
)
def test_all_forms_of_a_deployment_have_its_limits(params: str) -> None:
    text = model(params % "rpm: 5, default_api_key_rpm_limit: 2", name="*" if "*" in params else "m")
    [one] = parse(text).deployments
    other = one.on_chat or one.on_responses
    assert other is not None
    assert (one.limits, one.key_limits) == (other.limits, other.key_limits) == (Limits(rpm=5), Limits(rpm=2))


def test_what_each_key_may_have_of_a_model_is_the_least_that_its_deployments_say() -> None:
    entries = [
        {"model_name": name, "litellm_params": {"model": "canned/echo", **limits}}
        for name, limits in (
            ("m", {"default_api_key_rpm_limit": 5}),
            ("m", {"default_api_key_rpm_limit": 3, "default_api_key_tpm_limit": 9}),
            ("other", {"default_api_key_rpm_limit": 1}),
        )
    ]
    found = [one.key_limits for one in parse(yaml.safe_dump({"model_list": entries})).deployments]
    assert found == [Limits(rpm=3, tpm=9), Limits(rpm=3, tpm=9), Limits(rpm=1)]


def test_a_key_has_its_limits_and_the_one_that_presents_it_too() -> None:
    own = keyed({"rpm_limit": 5, "model_tpm_limit": {"m": 100}, "model_max_parallel_requests": {"m": 0}})
    settings = parse(limited("weight: 1", pipeline_settings=own))
    principal = KeyStore(None, settings.keys).authenticate(ANNA.encode())
    assert principal is not None
    assert principal.limits == Limits(rpm=5)
    assert principal.model_limits == {"m": Limits(tpm=100, parallel=0)}


def test_the_limit_of_an_alias_is_that_of_its_model_and_the_stricter_one_counts() -> None:
    own = keyed({"model_rpm_limit": {"old": 3, "m": 5}, "model_tpm_limit": {"old": 9}})
    aliases = {"model_group_alias": {"old": "m"}}
    settings = parse(limited("weight: 1", pipeline_settings=own, router_settings=aliases))
    assert settings.keys[0].model_limits == {"m": Limits(rpm=3, tpm=9)}


def test_the_limit_of_a_model_that_does_not_exist_is_a_warning() -> None:
    settings = parse(limited("weight: 1", pipeline_settings=keyed({"model_rpm_limit": {"nope": 3}})))
    assert settings.keys[0].model_limits == {}
    assert settings.warnings == (
        "config.yaml:10: pipeline_settings.keys[0].model_rpm_limit.nope: is the limit of a model that no model_name "
        "answers to, and has no effect",
    )


def test_one_model_of_a_wildcard_has_a_limit_of_its_own_under_each_of_its_names() -> None:
    own = keyed({"model_rpm_limit": {"m/*": 3, "m/one": 2}, "model_tpm_limit": {"fast": 1}})
    others = {"pipeline_settings": own, "router_settings": {"model_group_alias": {"fast": "m/one"}}}
    text = model("{model: 'openai/*', api_key: k}", name="m/*") + yaml.safe_dump(others)
    assert parse(text).keys[0].model_limits == {"m/*": Limits(rpm=3), "m/one": Limits(rpm=2, tpm=1)}


def test_the_limit_of_a_variant_is_not_enforced() -> None:
    [problem] = problems(limited("weight: 1", pipeline_settings=keyed({"model_rpm_limit": {"m-high": 3}})))
    assert "model_rpm_limit.m-high: is a limit that headrace does not enforce" in problem


def test_limits_by_model_are_a_mapping() -> None:
    [problem] = problems(limited("weight: 1", pipeline_settings=keyed({"model_rpm_limit": 3})))
    assert problem.endswith("found 3 (a number), expected a mapping of numbers by model, such as {gpt-5: 100}")


def test_ours_wins_over_litellms_limit_of_the_whole_gateway() -> None:
    general = {"global_max_parallel_requests": 5}
    text = limited("weight: 1", general_settings=general, pipeline_settings={"max_requests_in_flight": 3})
    assert parse(text).pipeline.max_requests_in_flight == 3


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_check_config_shows_the_limits_of_keys_and_deployments() -> None:
    own = keyed({"max_parallel_requests": 2, "model_rpm_limit": {"m": 0}})
    text = limited("rpm: 100, tpm: 5000, max_parallel_requests: 5, default_api_key_rpm_limit: 9", pipeline_settings=own)
    shown = describe(parse(text)).splitlines()
    most = "at most 100 requests/min, 5000 tokens/min, 5 at a time; each key at most 9 requests/min"
    assert f"  m -> canned/echo (canned); {most}" in shown
    assert "  anna; at most 2 at a time; of m at most 0 requests/min" in shown
