"""A LiteLLM file starts as in LiteLLM: what cannot work is left out, with one warning for each reason."""

from __future__ import annotations

import pytest
from kit.service.config_texts import MASTER, model, parse

from pipeline.gateway.config.load import ConfigError, Settings, parse_settings
from pipeline.gateway.config.problems import did_you_mean

ECHO = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"


def entry(params: str, name: str = "m") -> str:
    """Return one entry of a list, on one line."""
    return f"  - {{model_name: {name}, litellm_params: {{{params}}}}}\n"


def entries(*lines: str) -> str:
    return "model_list:\n" + "".join(lines)


def names(settings: Settings) -> list[str]:
    return [deployment.model_name for deployment in settings.deployments]


def refused(text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    return caught.value


UNSET = "the environment variable NOPE is not set, or is empty; 1 deployment is left out: m"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ("model: openai/gpt-5, api_key: os.environ/NOPE", "api_key"),
        ("model: openai/gpt-5, api_key: k, api_base: os.environ/NOPE", "api_base"),
        ("model: os.environ/NOPE, api_key: k", "model"),
        ("model: azure/x, api_base: 'http://h', api_key: k, api_version: os.environ/NOPE", "api_version"),
        ("model: openai/gpt-5, api_key: k, custom_llm_provider: os.environ/NOPE", "custom_llm_provider"),
        ("model: openai/gpt-5, api_key: k, extra_headers: {X-A: os.environ/NOPE}", "extra_headers.X-A"),
        ("model: openai/gpt-5, api_key: k, temperature: os.environ/NOPE", "temperature"),
        ("model: openai/gpt-5, api_key: k, thinking: {type: os.environ/NOPE}", "thinking.type"),
        ("model: openai/gpt-5, api_key: k, extra_body: {a: [os.environ/NOPE]}", "extra_body.a[0]"),
        ("model: openai/gpt-5, api_key: k, timeout: os.environ/NOPE", "timeout"),
        ("model: openai/gpt-5, api_key: k, rpm: os.environ/NOPE", "rpm"),
        ("model: openai/gpt-5, api_key: k, max_retries: os.environ/NOPE", "max_retries"),
        ("model: canned/echo, timeout: os.environ/NOPE", "timeout"),
    ],
)
def test_a_variable_that_is_not_set_leaves_out_the_deployment_whichever_field_names_it(params: str, field: str) -> None:
    settings = parse(entries(entry(params), ECHO))
    assert names(settings) == ["echo"]
    assert settings.warnings == (f"config.yaml:2: model_list[0].litellm_params.{field}: {UNSET}",)
    assert names(parse(entries(entry(params), ECHO), NOPE=" ")) == ["echo"]


def test_a_field_that_is_not_read_may_name_any_variable() -> None:
    settings = parse(entries(entry("model: openai/gpt-5, api_key: k, mock_response: os.environ/NOPE")))
    assert names(settings) == ["m"]


def test_deployments_that_lack_one_variable_are_one_warning_with_their_number_names_and_lines() -> None:
    lines = [entry("model: groq/llama, api_key: os.environ/GROQ_API_KEY", f"llama-{number}") for number in range(6)]
    settings = parse(entries(ECHO, *lines[:2], entry("model: groq/qwen", "qwen")))
    assert names(settings) == ["echo"]
    assert settings.warnings == (
        "config.yaml:3: model_list[1].litellm_params.api_key: the environment variable GROQ_API_KEY is not set, or is "
        "empty; 3 deployments are left out: llama-0, llama-1, qwen (lines 3, 4, 5)",
    )
    (warning,) = parse(entries(ECHO, *lines)).warnings
    assert warning.endswith(
        "6 deployments are left out: llama-0, llama-1, llama-2, llama-3, llama-4, ... (6 lines: 3, 4, 5, 6, 7, ...)"
    )


def test_each_variable_that_a_deployment_lacks_is_named() -> None:
    text = entries(ECHO, entry("model: azure/a", "az"), entry("model: azure/b, api_key: os.environ/KEY_B", "bz"))
    assert [warning.partition(": the ")[2] for warning in parse(text).warnings] == [
        "environment variable AZURE_API_BASE is not set, or is empty; 2 deployments are left out: az, bz (lines 3, 4)",
        "environment variable AZURE_OPENAI_API_KEY is not set, or is empty; 1 deployment is left out: az",
        "environment variable KEY_B is not set, or is empty; 1 deployment is left out: bz",
    ]


def test_a_value_of_the_wrong_type_stays_an_error_in_an_entry_that_is_left_out() -> None:
    assert refused(entries(ECHO, entry("model: groq/llama, timeout: soon"))).problems == (
        'config.yaml:3: model_list[1].litellm_params.timeout: found "soon" (text), expected seconds, more than 0, '
        "such as 60",
    )


def test_variables_that_sections_of_litellm_name_count_as_absent_settings() -> None:
    settings = parse(
        entries(ECHO)
        + "litellm_settings:\n  request_timeout: os.environ/T\n  allowed_fails: os.environ/N\n"
        + "router_settings:\n  num_retries: os.environ/N\n  cooldown_time: os.environ/N\n"
        + "general_settings:\n  background_health_checks: os.environ/N\n  database_url: os.environ/DATABASE_URL\n"
        + "environment_variables:\n  A: os.environ/N\n"
    )
    assert settings.warnings == (
        "config.yaml:4: litellm_settings.request_timeout: the environment variable T is not set, or is empty: the "
        "setting counts as absent",
        "config.yaml:5: litellm_settings.allowed_fails: the environment variable N is not set, or is empty: the "
        "setting counts as absent (lines 5, 7, 8, 10, 13)",
        "config.yaml:11: general_settings.database_url: is not supported yet and is ignored "
        "(see pipeline_settings.keys)",
    )


def test_a_variable_that_our_own_section_names_has_to_be_set() -> None:
    error = refused(
        entries(ECHO) + "pipeline_settings:\n  port: os.environ/P\n  keys: [{name: a, key: os.environ/K}]\n"
    )
    assert [problem.partition(": ")[2] for problem in error.problems] == [
        "pipeline_settings.port: the environment variable P is not set, or is empty: set it, or write the value here",
        "pipeline_settings.keys[0].key: the environment variable K is not set, or is empty: set it, or write the value "
        "here",
    ]


NONE = (
    "config.yaml: has no deployment that can be used: write one into model_list, such as `- {model_name: my-gpt, "
    "litellm_params: {model: openai/gpt-5, api_key: os.environ/OPENAI_API_KEY}}`, or let `headrace init` write a "
    "configuration"
)
ALL = (
    "config.yaml: has no deployment that can be used: all entries of model_list are left out, and the warnings say "
    "why; where a variable is not set, set it in the environment, or in headrace.env beside the configuration"
)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n", "model_list: []\n", "model_list:\n"])
def test_a_configuration_without_any_deployment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="config.yaml", environ={"HEADRACE_MASTER_KEY": MASTER})
    assert caught.value.problems == (NONE,)
    assert caught.value.warnings == ()


def test_why_deployments_were_left_out_is_told_beside_the_error_that_none_is_left() -> None:
    error = refused(entries(entry("model: groq/llama"), entry("model: triton/claude", "c")))
    assert error.problems == (ALL,)
    assert error.warnings == (
        "config.yaml:2: model_list[0].litellm_params.api_key: the environment variable GROQ_API_KEY is not set, or is "
        "empty; 1 deployment is left out: m",
        "config.yaml:3: model_list[1]: provider triton is not supported yet; 1 deployment is left out: c",
    )


def test_an_entry_with_an_error_is_not_told_once_more_as_a_missing_deployment() -> None:
    assert len(refused(model("{model: 5}")).problems) == 1


def test_a_field_or_section_that_is_given_twice_is_a_warning_and_the_last_one_counts() -> None:
    settings = parse(
        "pipeline_settings: {port: 1}\nlitellm_settings: {num_retries: 1}\n"
        + entries(ECHO)
        + "pipeline_settings:\n  port: 2\n  port: 3\n"
    )
    assert settings.pipeline.port == 3
    assert settings.warnings == (
        "config.yaml:1: pipeline_settings: is given more than once, and the last one counts (lines 1, 5)",
        "config.yaml:6: pipeline_settings.port: is given more than once, and the last one counts (lines 6, 7)",
    )


def test_headers_that_headrace_sets_itself_are_not_sent() -> None:
    headers = "extra_headers: {Content-Type: application/json, X-A: a}, headers: {accept: text/event-stream, Host: h}"
    line = entry(f"model: openai/gpt-5, api_key: k, {headers}")
    settings = parse(entries(line, line))
    assert settings.deployments[0].headers == (("authorization", "Bearer k"), ("X-A", "a"))
    told = "is a header that headrace sets itself: this one is not sent (lines 2, 3)"
    assert sorted(settings.warnings) == [
        f"config.yaml:2: model_list[0].litellm_params.extra_headers.Content-Type: {told}",
        f"config.yaml:2: model_list[0].litellm_params.headers.Host: {told}",
        f"config.yaml:2: model_list[0].litellm_params.headers.accept: {told}",
    ]


def test_the_same_warning_at_many_places_is_one_with_their_lines() -> None:
    line = entry("model: canned/echo, tags: [a]")
    assert parse(entries(*[line] * 2)).warnings == (
        "config.yaml:2: model_list[0].litellm_params.tags: is not supported yet and is ignored (lines 2, 3)",
    )
    (warning,) = parse(entries(*[line] * 30)).warnings
    assert warning.endswith("(30 lines: 2, 3, 4, 5, 6, ...)")


def test_unknown_fields_of_an_entry_that_is_left_out_are_told_too() -> None:
    text = entries(
        ECHO,
        "  - {modelname: a, model_name: x, litellm_params: {model: opnai/gpt-5, apikey: k, aws_region_name: eu}}\n",
    )
    assert sorted(parse(text).warnings) == [
        "config.yaml:3: model_list[1].litellm_params.apikey: is not a known setting and is ignored; did you mean "
        "api_key?",
        "config.yaml:3: model_list[1].modelname: is not a known setting and is ignored; did you mean model_name?",
        "config.yaml:3: model_list[1]: the provider of its model is not known (expected a prefix, as in openai/gpt-5); "
        "did you mean openai/?; 1 deployment is left out: x",
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("model_lists:\n" + ECHO, "model_list"),
        ("Model_List:\n" + ECHO, "model_list"),
        ("model_list:\n  - {model_name: m, litellm_parms: {model: canned/echo}}\n", "litellm_params"),
        ("model_list:\n  - {modelName: m, litellm_params: {model: canned/echo}}\n", "model_name"),
        (entries(entry("model: openai/m, API_KEY: k")), "api_key"),
        (entries(entry("model: openai/m, apibase: 'http://h'")), "api_base"),
        (entries(entry("model: open_ai/m")), "openai/"),
        (entries(entry("model: Anthropic/m")), "anthropic/"),
        (entries(entry("model: m, custom_llm_provider: mistrall")), "mistral/"),
        (entries(ECHO) + "litellm_setting: {drop_params: true}\n", "litellm_settings"),
        (entries(ECHO) + "router_settings: {numretries: 3}\n", "num_retries"),
        (entries(ECHO) + "pipeline_settings: {logformat: text}\n", "log_format"),
    ],
)
def test_a_near_miss_is_told_with_what_was_meant(text: str, meant: str) -> None:
    try:
        told = parse(text).warnings
    except ConfigError as error:
        told = (*error.problems, *error.warnings)
    assert any(f"did you mean {meant}?" in one for one in told), told


@pytest.mark.parametrize(
    ("text", "home"),
    [
        ("model_list:\n  - {model_name: m, litellm_params: {model: canned/echo}, timeout: 5}\n", "litellm_params"),
        (entries(entry("model: canned/echo, mode: chat")), "model_info"),
        (entries(ECHO) + "num_retries: 3\n", "litellm_settings"),
        (entries(ECHO) + "general_settings: {routing_strategy: least-busy}\n", "litellm_settings"),
        (entries(ECHO) + "general_settings: {port: 4000}\n", "pipeline_settings"),
        (entries(ECHO) + "litellm_settings: {background_health_checks: true}\n", "general_settings"),
    ],
)
def test_a_field_of_another_section_is_told_with_its_section(text: str, home: str) -> None:
    (warning,) = parse(text).warnings
    assert warning.endswith(f"is not a known setting and is ignored; it belongs in {home}")


def test_what_is_not_a_near_miss_has_no_hint() -> None:
    assert did_you_mean("temperature", ["model", "api_key"]) == ""


@pytest.mark.parametrize(
    "written", ["$OPENAI_API_KEY", "${OPENAI_API_KEY}", "environ/OPENAI_API_KEY", "os.environ.OPENAI_API_KEY"]
)
def test_what_only_looks_like_a_variable_is_a_warning(written: str) -> None:
    settings = parse(entries(entry(f"model: openai/gpt-5, api_key: '{written}'")))
    assert settings.warnings == (
        "config.yaml:2: model_list[0].litellm_params.api_key: looks like the name of a variable, but is used as it "
        "stands: os.environ/NAME, as the whole value, is a variable",
    )


def test_protections_that_are_missing_come_first_and_then_what_is_left_out() -> None:
    text = entries(entry("model: openai/gpt-5, api_key: k, tags: [a]"), entry("model: groq/llama", "c"))
    warnings = parse(text + "guardrails: [{guardrail_name: pii}]\n").warnings
    assert ["NOT enforced" in warnings[0], "left out: c" in warnings[1], ".tags: " in warnings[2]] == [True] * 3


def test_fields_of_an_entry_whose_variable_is_not_set_are_reported_at_once() -> None:
    text = entries(entry("model: openai/gpt-5, api_key: k"), entry("model: groq/llama, tags: [a], api_kee: k", "c"))
    assert [warning.partition(": ")[2].partition(":")[0] for warning in parse(text).warnings] == [
        "model_list[1].litellm_params.api_key",
        "model_list[1].litellm_params.tags",
        "model_list[1].litellm_params.api_kee",
    ]


def test_only_the_names_of_chat_models_are_known_as_left_out() -> None:
    text = entries(
        entry("model: openai/gpt-5, api_key: k"),
        entry("model: groq/llama", "c"),
        entry("model: openai/text-embedding-3-large, api_key: k", "e"),
    )
    assert parse(text).left_out == {"c"}
