"""Request parameters in ``litellm_params``: which values are mistakes, and which entries are not for chats."""

from __future__ import annotations

import pytest
from kit.service.config_texts import model, only, parse, problems

PLACE = "config.yaml:3: model_list[0].litellm_params"

MISTAKES = [
    ("temperature: hot", "temperature: found \"hot\" (text), expected a number"),
    ("temperature: true", "temperature: found true (a yes/no value), expected a number"),
    ("temperature: .inf", "temperature: found .inf (a number), expected what JSON can express"),
    ("max_tokens: 0", "max_tokens: found 0 (a number), expected a whole number above 0"),
    ("max_tokens: 1.5", "max_tokens: found 1.5 (a number), expected a whole number above 0"),
    ("reasoning_effort: 3", "reasoning_effort: found 3 (a number), expected a string"),
    ("thinking: true", "thinking: found true (a yes/no value), expected a mapping such as "
     "{type: enabled, budget_tokens: 4000}"),
    ("thinking: {type: on, budget_tokens: 1}", "thinking: found a mapping, expected a mapping such as "
     "{type: enabled, budget_tokens: 4000}"),
    ("thinking: {type: enabled, budget_tokens: many}", "thinking: found a mapping, expected a mapping such as "
     "{type: enabled, budget_tokens: 4000}"),
    ("stop: [1]", "stop: found a list, expected a string or an array of strings"),
    ("top_k: true", "top_k: found true (a yes/no value), expected a whole number"),
    ("extra_body: [a]", "extra_body: found a list, expected a mapping"),
    ("additional_drop_params: temperature", "additional_drop_params: found \"temperature\" (text), expected a list "
     "such as [reasoning_effort]"),
    ("response_format: {type: json_schema}", "response_format: response_format.json_schema is missing; "
     "it must be an object."),
    ("temperature: os.environ/HOT", "temperature: found text, expected a number"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "problem"), MISTAKES, ids=[params for params, _ in MISTAKES])
def test_a_value_of_the_wrong_type_is_an_error_with_its_line(params: str, problem: str) -> None:
    assert problems(model(f"{{model: openai/m, api_key: k-1, {params}}}"), HOT="s3cret-heat") == (f"{PLACE}.{problem}",)


def test_values_come_from_the_environment() -> None:
    text = model(
        "{model: openai/m, api_key: k-1, temperature: os.environ/T, service_tier: os.environ/TIER, "
        "extra_body: {a: [{b: os.environ/T}], c: 1}}"
    )
    parameters = only(text, T="0.5", TIER="flex").parameters
    assert parameters is not None
    assert parameters.defaults == {"temperature": 0.5, "service_tier": "flex"}
    assert parameters.extra_body == {"a": [{"b": "0.5"}], "c": 1}


def test_a_deployment_without_any_has_none() -> None:
    for params in ("", "temperature: null", "extra_body: {}", "drop_params: true"):
        assert only(model(f"{{model: openai/m, api_key: k-1, {params}}}")).parameters is None


def test_what_cannot_be_replaced_or_dropped_is_warned_about() -> None:
    settings = parse(
        model(
            "{model: openai/m, api_key: k-1, extra_body: {model: other, stream: false, a: 1}, "
            "additional_drop_params: [stream_options, 'tools[*].strict', seed]}"
        )
    )
    (deployment,) = settings.deployments
    assert deployment.parameters is not None
    assert (deployment.parameters.extra_body, deployment.parameters.dropped) == ({"a": 1}, (("seed",),))
    assert sorted(settings.warnings) == [
        f"{PLACE}.additional_drop_params: lists a field within another one, which is not supported yet and is ignored",
        f"{PLACE}.additional_drop_params: lists stream_options, which is not supported yet and is ignored",
        f"{PLACE}.extra_body: contains model, which it cannot replace: that is ignored",
        f"{PLACE}.extra_body: contains stream, which it cannot replace: that is ignored",
    ]


# --- models of other modes --------------------------------------------------------------------------------------------


def entry(name: str, written: str, info: str = "{}", more: str = "") -> str:
    params = f"{{model: {written}, api_key: k-1, api_base: 'http://up/v1'{more}}}"
    return f"  - {{model_name: '{name}', litellm_params: {params}, model_info: {info}}}\n"


def test_models_that_are_not_for_chats_are_left_out_with_one_warning() -> None:
    settings = parse(
        "model_list:\n"
        + entry("gpt-5", "openai/gpt-5")
        + entry("emb", "openai/text-embedding-3-small")
        + entry("speak", "openai/m", "{mode: audio_speech}")
        + entry("rerank", "cohere/rerank-v3.5")
        + entry("azure-emb", "azure/ours", "{base_model: text-embedding-3-large}")
        + entry("dall", "bedrock/m", "{mode: image_generation}")
    )
    assert [deployment.model_name for deployment in settings.deployments] == ["gpt-5"]
    assert settings.warnings == (
        "config.yaml:3: model_list[1]: is not for chats (if it is, write mode: chat into model_info); 5 deployments "
        "are left out: emb (embedding), speak (audio speech), rerank (reranking), azure-emb (embedding), "
        "dall (image generation) (lines 3, 4, 5, 6, 7)",
    )


@pytest.mark.parametrize(
    ("written", "info", "more"),
    [
        ("openai/text-embedding-3-small", "{mode: chat}", ""),
        ("openai/text-embedding-3-small", "{mode: responses}", ""),
        ("openai/text-embedding-3-small", "{supported_endpoints: [/v1/chat/completions]}", ""),
        ("openai/text-embedding-3-small", "{}", ", use_chat_completions_api: true"),
        ("openai/chat_completions/text-embedding-3-small", "{}", ""),
        ("openai/gpt-4o-audio-preview", "{}", ""),
        ("openai/our-embed", "{base_model: gpt-5}", ""),
    ],
)
def test_an_entry_that_says_that_it_is_for_chats_is_believed(written: str, info: str, more: str) -> None:
    assert only("model_list:\n" + entry("m", written, info, more)).model_name == "m"
