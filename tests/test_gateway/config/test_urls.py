"""How an ``api_base`` becomes the address to post to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.service.config_texts import model, only, problems

from pipeline.gateway.config.urls import azure_url, base_problem, default_url, endpoint_url
from stages.upstreams import UpstreamKind
from stages.upstreams.apis import APIS
from stages.upstreams.providers import PROVIDERS, UNKNOWN


@pytest.mark.parametrize(("kind", "ending"), [(name, api.endpoint) for name, api in APIS.items()])
@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://h/v1", "http://h/v1%s"),
        ("http://h/v1/", "http://h/v1%s"),
        ("http://h/v1/responses", "http://h/v1%s"),
        ("http://h/v1/chat/completions", "http://h/v1%s"),
        ("http://h/v1/messages/", "http://h/v1%s"),
        ("http://h:11434/api/chat", "http://h:11434/v1%s"),
        ("http://h", "http://h/v1%s"),
        ("http://h:8000/", "http://h:8000/v1%s"),
        ("http://h/deep/v1", "http://h/deep/v1%s"),
        ("http://h/v1?a=b#c", "http://h/v1%s?a=b"),
        ("https://[::1]:8000/v1", "https://[::1]:8000/v1%s"),
    ],
)
def test_a_base_with_or_without_a_path_becomes_the_address_to_post_to(
    base: str, path: str, kind: UpstreamKind, ending: str
) -> None:
    assert endpoint_url(base, UNKNOWN, APIS[kind]) == path % ending
    assert endpoint_url(base, PROVIDERS["openai"], APIS[kind]) == path % ending


def test_a_path_of_ones_own_is_kept_and_gets_a_version_only_where_the_provider_has_one_always() -> None:
    base = "http://h/deep/path"
    assert endpoint_url(base, PROVIDERS["openai"], APIS["chat"]) == f"{base}/chat/completions"
    assert endpoint_url(base, PROVIDERS["groq"], APIS["chat"]) == f"{base}/chat/completions"
    assert endpoint_url(base, PROVIDERS["mistral"], APIS["chat"]) == f"{base}/v1/chat/completions"
    assert endpoint_url(base, PROVIDERS["hosted_vllm"], APIS["responses"]) == f"{base}/v1/responses"
    assert endpoint_url(base, PROVIDERS["anthropic"], APIS["anthropic"]) == f"{base}/v1/messages"
    assert endpoint_url(base, PROVIDERS["openai"], APIS["anthropic"]) == f"{base}/v1/messages"
    assert endpoint_url(f"{base}/messages", PROVIDERS["anthropic"], APIS["anthropic"]) == f"{base}/messages"


def test_gemini_is_asked_at_its_compatible_endpoint_wherever_its_version_ends() -> None:
    gemini = PROVIDERS["gemini"]
    for base, url in {
        "http://h/v1beta": "http://h/v1beta/openai/chat/completions",
        "http://h/v1beta/openai/": "http://h/v1beta/openai/chat/completions",
        "http://h/google": "http://h/google/v1beta/openai/chat/completions",
        "http://h/my/openai": "http://h/my/openai/chat/completions",
    }.items():
        assert endpoint_url(base, gemini, APIS["chat"]) == url


def test_an_engine_of_docker_is_kept() -> None:
    docker = PROVIDERS["docker_model_runner"]
    assert endpoint_url("http://h/engines/vllm", docker, APIS["chat"]) == "http://h/engines/vllm/v1/chat/completions"


def test_a_kind_that_a_provider_does_not_have_has_no_default_address() -> None:
    assert default_url(PROVIDERS["anthropic"], APIS["chat"]) is None
    assert default_url(PROVIDERS["azure"], APIS["chat"]) is None


RESPONSES = [
    ("https://a.com", None, "https://a.com/openai/v1/responses"),
    ("https://a.com/", "v1", "https://a.com/openai/v1/responses"),
    ("https://a.com", "preview", "https://a.com/openai/v1/responses?api-version=preview"),
    ("https://a.com", "latest", "https://a.com/openai/v1/responses?api-version=preview"),
    ("https://a.com", "2025-04-01-preview", "https://a.com/openai/responses?api-version=2025-04-01-preview"),
    ("https://a.com/openai/v1/", None, "https://a.com/openai/v1/responses"),
    ("https://a.com/openai/deployments/gpt-5", "2025-04-01", "https://a.com/openai/responses?api-version=2025-04-01"),
    ("https://a.com/openai/responses?api-version=2025-04-01", "2024-01-01",
     "https://a.com/openai/responses?api-version=2025-04-01"),
    ("https://a.com?api-version=2025-04-01", None, "https://a.com/openai/responses?api-version=2025-04-01"),
    ("https://a.com?x=y", "2025-04-01", "https://a.com/openai/responses?x=y&api-version=2025-04-01"),
    ("https://a.com/openai/v1/chat/completions", None, "https://a.com/openai/v1/responses"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "version", "url"), RESPONSES)
def test_azure_is_reached_by_its_v1_api_or_by_the_dated_one(base: str, version: str | None, url: str) -> None:
    assert azure_url(base, version) == url


DATED = "chat/completions?api-version=2024-10-21"
CHAT = [
    ("https://a.com", None, "https://a.com/openai/v1/chat/completions"),
    ("https://a.com/", "v1", "https://a.com/openai/v1/chat/completions"),
    ("https://a.com/openai/v1", "preview", "https://a.com/openai/v1/chat/completions?api-version=preview"),
    ("https://a.com/openai/v1/responses", "v1", "https://a.com/openai/v1/chat/completions"),
    ("https://a.com", "2024-10-21", f"https://a.com/openai/deployments/my%2Fname/{DATED}"),
    ("https://a.com/openai/", "2024-10-21", f"https://a.com/openai/deployments/my%2Fname/{DATED}"),
    ("https://a.com/gate/openai/deployments/other", "2024-10-21", f"https://a.com/gate/openai/deployments/other/{DATED}"),
    (f"https://a.com/openai/deployments/other/{DATED}", None, f"https://a.com/openai/deployments/other/{DATED}"),
    (f"https://a.com/openai/deployments/other/{DATED}", "2025-01-01", f"https://a.com/openai/deployments/other/{DATED}"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "version", "url"), CHAT)
def test_azures_chat_completions_have_the_deployment_in_the_path_of_the_dated_api(
    base: str, version: str | None, url: str
) -> None:
    assert azure_url(base, version, APIS["chat"], "my/name") == url


def test_azure_is_asked_by_chat_completions_when_the_entry_says_so() -> None:
    params = "{model: azure/gpt-5-eu, api_base: 'https://a.com', api_key: k, use_chat_completions_api: true%s}"
    deployment = only(model(params % ", api_version: 2024-10-21"))
    assert (deployment.kind, deployment.headers) == ("chat", (("api-key", "k"),))
    assert deployment.url == f"https://a.com/openai/deployments/gpt-5-eu/{DATED}"
    assert only(model(params % "")).url == "https://a.com/openai/v1/chat/completions"


def test_a_wildcard_cannot_be_put_into_azures_dated_address() -> None:
    params = "{model: 'azure/*', api_base: 'https://a.com', api_key: k, use_chat_completions_api: true%s}"
    assert problems(model(params % ", api_version: '2024-10-21'", name="azure/*")) == (
        "config.yaml:3: model_list[0].litellm_params.model: contains a *, which Azure's dated addresses cannot have: "
        "remove api_version, or name one model here",
    )
    assert only(model(params % "", name="azure/*")).url == "https://a.com/openai/v1/chat/completions"


def test_a_date_without_quotes_is_a_version_as_it_was_written() -> None:
    deployment = only(model("{model: azure/a, api_base: 'https://a.com', api_key: k, api_version: 2024-05-01}"))
    assert deployment.url == "https://a.com/openai/responses?api-version=2024-05-01"
    assert deployment.headers == (("api-key", "k"),)


@pytest.mark.parametrize("base", ["https://u:p@h", "https://tok/en@h", "https://tok?en@h", "https://tok#en@h"])
def test_what_stands_before_an_at_sign_is_taken_for_a_password_wherever_the_host_ends(base: str) -> None:
    assert base_problem(base) == ("the URL contains a user name or password: remove it, and set the key as api_key")


@given(
    path=st.text("/v1abopeni", max_size=24),
    name=st.sampled_from(sorted(PROVIDERS)),
    kind=st.sampled_from(sorted(APIS)),
)
@settings(max_examples=200, deadline=None)
def test_every_base_ends_in_the_endpoint_once_and_a_complete_address_stays(
    path: str, name: str, kind: UpstreamKind
) -> None:
    url = endpoint_url(f"https://h/{path}", PROVIDERS[name], APIS[kind])
    assert url.endswith(APIS[kind].endpoint)
    assert endpoint_url(url, PROVIDERS[name], APIS[kind]) == url
    assert url.count(APIS[kind].endpoint) == 1
