"""The table of providers: which API each is asked by, where it is, and which key it gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.clients.chat_fold import fold_stream
from kit.service.config_texts import model, only, parse, problems
from kit.service.running import model as entry
from kit.service.running import serving
from kit.upstreams.scripted import Step, end, events, scripted_upstream, sse_head

from pipeline.gateway.config.litellm_names import UNREACHED, split_model
from pipeline.gateway.config.urls import default_url
from stages.upstreams import UpstreamKind
from stages.upstreams.apis import APIS
from stages.upstreams.provider import Provider
from stages.upstreams.providers import PROVIDERS, quirks_in

ROOT = Path(__file__).parents[3]
PLACES = {
    "AWS_REGION_NAME": "us-east-2",
    "CLOUDFLARE_ACCOUNT_ID": "acc-1",
    "SNOWFLAKE_ACCOUNT_ID": "acc-2",
    "VERTEXAI_PROJECT": "proj-1",
    "VERTEXAI_LOCATION": "europe-west1",
}
"""The parts of addresses that are different for each user."""


def placed(provider: Provider) -> Provider:
    """Return a row with its addresses as `PLACES` make them."""
    known = {part.name: next(PLACES[name] for name in part.variables if name in PLACES) for part in provider.parts}
    return provider.with_parts(known)


def in_words(provider: Provider) -> Provider:
    """Return a row with its addresses as the documentation has them."""
    return provider.with_parts({part.name: f"your-{part.name}" for part in provider.parts})


WITH_ADDRESS = [(name, placed(provider)) for name, provider in PROVIDERS.items() if provider.origin is not None]


def headers_with(provider: Provider, kind: UpstreamKind, key: str) -> dict[str, str]:
    """Return the headers of a deployment: those that carry the key, and those of the API."""
    is_bearer = provider.key_header == "authorization"
    expected = {provider.key_header: f"Bearer {key}" if is_bearer else key}
    api = APIS[kind]
    if api.key_header is not None:
        expected[api.key_header] = key
    return {**expected, **dict(api.headers)}


def test_every_provider_is_documented_as_the_table_has_it() -> None:
    text = (ROOT / "docs" / "config.md").read_text()
    text = text[text.index("### Providers") : text.index("#### Clouds")]
    rows: dict[str, list[str]] = {}
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        name, *columns = (column.strip() for column in line.split("|"))
        rows[name.strip("`")] = columns
    assert set(rows) == {*PROVIDERS, "canned"}
    for name, provider in PROVIDERS.items():
        kinds, address, keys, bases = rows[name]
        assert kinds.split(", ") == [f"`{kind}`" for kind in provider.kinds], name
        usual = default_url(in_words(provider), APIS[provider.kinds[0]])
        shown = "needs `api_base`" if usual is None else usual.removesuffix(APIS[provider.kinds[0]].endpoint)
        assert address == shown.removeprefix("https://"), name
        if provider.key_names:
            optional = "" if provider.needs_key else " (optional)"
            assert keys == ", ".join(f"`{key}`" for key in provider.key_names) + optional, name
        assert bases == ", ".join(f"`{base}`" for base in provider.base_names), name


def test_no_provider_is_both_reached_and_not_reached() -> None:
    assert not set(PROVIDERS) & set(UNREACHED)


def test_the_quirks_of_a_provider_are_those_of_apis_that_there_are_one_for_each() -> None:
    for name, provider in PROVIDERS.items():
        types = [type(quirks) for quirks in provider.quirks]
        assert len(set(types)) == len(types), name
        assert set(types) <= {api.quirks for api in APIS.values()}, name


def test_an_alias_has_the_quirks_of_the_provider_that_it_stands_for() -> None:
    assert quirks_in(APIS["chat"], "moonshotai", "m") is quirks_in(APIS["chat"], "moonshot", "m")


def test_the_quirks_of_a_provider_of_many_makers_models_are_those_of_the_model() -> None:
    chat, responses = APIS["chat"], APIS["responses"]
    assert quirks_in(chat, "vertex_ai", "google/gemini-3-pro") is quirks_in(chat, "gemini", "m")
    assert quirks_in(chat, "vertex_ai", "moonshotai/kimi-k2-maas") is quirks_in(chat, "somebody", "kimi")
    assert quirks_in(responses, "bedrock", "us.openai.gpt-6-sol").has_families
    assert quirks_in(chat, "bedrock", "us.xai.grok-4.7").passes == {"seed"}


KINDS = [(name, kind) for name, provider in PROVIDERS.items() for kind in provider.kinds]
JOINED = [(name, kind) for name, kind in KINDS if name != "azure"]  # whose are in test_deployment_urls.py


def asking(name: str, kind: UpstreamKind, base: str | None) -> str:
    """Write a configuration that asks a provider by one of its kinds."""
    address = f"api_base: '{base}', " if base is not None else ""
    return model(
        f"{{model: '{name}/vendor/gpt-5', {address}api_key: k-1}}",
        f"{{supported_endpoints: [/v1{APIS[kind].endpoint}]}}",
    )


@pytest.mark.parametrize(("name", "kind"), JOINED)
def test_every_form_of_a_base_leads_to_the_endpoint(name: str, kind: UpstreamKind) -> None:
    ending, provider = APIS[kind].endpoint, PROVIDERS[name]
    root = placed(provider).root_of(APIS[kind])
    for base, path in {
        "https://h.example": root,
        "https://h.example/": root,
        f"https://h.example{root}": root,
        f"https://h.example{root}/": root,
        f"https://h.example{root}{ending}": root,
        f"https://h.example{root}{ending}/": root,
        "https://h.example/x/v1": "/x/v1/openai" if name == "gemini" else "/x/v1",
        f"https://h.example/x/v1{ending}": "/x/v1",
    }.items():
        deployment = only(asking(name, kind, base), **PLACES)
        assert deployment.url == f"https://h.example{path}{ending}", base
        assert (deployment.kind, deployment.provider, deployment.model) == (kind, name, "vendor/gpt-5")
        assert dict(deployment.headers) == headers_with(provider, kind, "k-1")


@pytest.mark.parametrize(("name", "provider"), WITH_ADDRESS)
def test_every_kind_of_a_provider_has_a_default_address(name: str, provider: Provider) -> None:
    for kind in provider.kinds:
        deployment = only(asking(name, kind, None), **PLACES)
        assert (deployment.kind, deployment.url) == (kind, default_url(provider, APIS[kind]))
        assert deployment.url.startswith(f"{provider.origin}/")
        assert deployment.url.endswith(APIS[kind].endpoint)


@pytest.mark.parametrize(("name", "provider"), WITH_ADDRESS)
def test_a_key_comes_from_each_of_the_providers_variables_the_first_before_the_others(
    name: str, provider: Provider
) -> None:
    text = model(f"{{model: {name}/vendor/gpt-5}}")
    for variable in provider.key_names:
        deployment = only(text, **PLACES, **{variable: "key-of-the-environment"})
        assert deployment.url == default_url(provider, APIS[provider.kinds[0]])
        assert dict(deployment.headers) == headers_with(provider, provider.kinds[0], "key-of-the-environment")
    values = {variable: f"key-{number}" for number, variable in enumerate(provider.key_names)}
    if values:
        assert dict(only(text, **PLACES, **values).headers) == headers_with(provider, provider.kinds[0], "key-0")


ANOTHER = "  - {model_name: another, litellm_params: {model: canned/echo}}\n"
NEEDING = [
    (name, provider)
    for name, provider in WITH_ADDRESS
    if provider.needs_key and provider.key_names and provider.signs_in_to is None
]


@pytest.mark.parametrize(("name", "provider"), NEEDING)
def test_a_deployment_without_its_key_is_left_out_with_a_warning_that_names_the_variable(
    name: str, provider: Provider
) -> None:
    assert parse(model(f"{{model: {name}/m}}") + ANOTHER, **PLACES).warnings == (
        f"config.yaml:3: model_list[0].litellm_params.api_key: the environment variable {provider.key_names[0]} is not "
        "set, or is empty; 1 deployment is left out: m",
    )


@pytest.mark.parametrize("name", [name for name, provider in WITH_ADDRESS if not provider.needs_key])
def test_a_server_on_this_machine_needs_no_key(name: str) -> None:
    assert only(model(f"{{model: {name}/m}}")).headers == ()


@pytest.mark.parametrize(("name", "provider"), [(n, p) for n, p in PROVIDERS.items() if p.base_names])
def test_an_address_may_come_from_each_of_the_providers_variables(name: str, provider: Provider) -> None:
    for variable in provider.base_names:
        url = only(model(f"{{model: {name}/vendor/gpt-5, api_key: k}}"), **PLACES, **{variable: "http://h:8000"}).url
        assert url.startswith("http://h:8000/")
        assert url.endswith(APIS[provider.kinds[0]].endpoint)


@pytest.mark.parametrize("name", [name for name, provider in PROVIDERS.items() if provider.origin is None])
def test_an_address_that_is_missing_is_told(name: str) -> None:
    text = model(f"{{model: {name}/m, api_key: k}}") + ANOTHER
    place = "config.yaml:3: model_list[0].litellm_params.api_base: "
    if variables := PROVIDERS[name].base_names:
        assert parse(text).warnings == (
            f"{place}the environment variable {variables[0]} is not set, or is empty; 1 deployment is left out: m",
        )
    else:
        (told,) = problems(text)
        assert told.startswith(f"{place}is missing: provider {name} needs a URL such as ")


# --- which API --------------------------------------------------------------------------------------------------------

BASE = "api_base: 'http://h/v1'"
CHOSEN: list[tuple[str, str, str, str]] = [
    ("{model: openai/m}", "{}", "responses", "https://api.openai.com/v1/responses"),
    ("{model: openai/m}", "{mode: chat}", "responses", "https://api.openai.com/v1/responses"),
    ("{model: openai/m, use_chat_completions_api: true}", "{}", "chat", "https://api.openai.com/v1/chat/completions"),
    ("{model: openai/m, use_chat_completions_api: 'true'}", "{mode: responses}", "chat",
     "https://api.openai.com/v1/chat/completions"),
    ("{model: openai/m, use_chat_completions_api: false}", "{}", "responses", "https://api.openai.com/v1/responses"),
    ("{model: openai/chat_completions/m}", "{}", "chat", "https://api.openai.com/v1/chat/completions"),
    ("{model: openai/responses/m}", "{}", "responses", "https://api.openai.com/v1/responses"),
    (f"{{model: openai/m, {BASE}, use_chat_completions_api: true}}", "{}", "chat", "http://h/v1/chat/completions"),
    ("{model: openai/m}", "{supported_endpoints: [/v1/chat/completions]}", "chat",
     "https://api.openai.com/v1/chat/completions"),
    ("{model: openai/m}", "{supported_endpoints: [/v1/chat/completions, /v1/responses]}", "responses",
     "https://api.openai.com/v1/responses"),
    ("{model: openai/m}", "{supported_endpoints: [/v1/embeddings]}", "responses", "https://api.openai.com/v1/responses"),
    (f"{{model: openai/m, {BASE}}}", "{supported_endpoints: [/v1/messages]}", "anthropic", "http://h/v1/messages"),
    (f"{{model: openai/m, {BASE}}}", "{supported_endpoints: [/v1/messages/, /v1/chat/completions]}", "anthropic",
     "http://h/v1/messages"),
    ("{model: openai/m}", "{supported_endpoints: [/v1/messages]}", "responses", "https://api.openai.com/v1/responses"),
    ("{model: anthropic/m}", "{}", "anthropic", "https://api.anthropic.com/v1/messages"),
    ("{model: claude-sonnet-4-5}", "{}", "anthropic", "https://api.anthropic.com/v1/messages"),
    ("{model: anthropic/m, use_chat_completions_api: true}", "{}", "anthropic", "https://api.anthropic.com/v1/messages"),
    ("{model: anthropic/m}", "{supported_endpoints: [/v1/chat/completions]}", "anthropic",
     "https://api.anthropic.com/v1/messages"),
    ("{model: anthropic/m}", "{supported_endpoints: [/v1/chat/completions, /v1/messages]}", "anthropic",
     "https://api.anthropic.com/v1/messages"),
    (f"{{model: anthropic/m, {BASE}}}", "{supported_endpoints: [/v1/chat/completions]}", "chat",
     "http://h/v1/chat/completions"),
    ("{model: deepseek/m}", "{}", "chat", "https://api.deepseek.com/chat/completions"),
    ("{model: deepseek/m}", "{mode: responses}", "responses", "https://api.deepseek.com/responses"),
    ("{model: groq/m}", "{mode: responses}", "chat", "https://api.groq.com/openai/v1/chat/completions"),
    ("{model: openai/gpt-5.3, use_chat_completions_api: true}", "{}", "chat",
     "https://api.openai.com/v1/chat/completions"),
    ("{model: openai/gpt-5.4, use_chat_completions_api: true}", "{}", "responses",
     "https://api.openai.com/v1/responses"),
    ("{model: openai/chat_completions/gpt-6.1-sol}", "{}", "responses", "https://api.openai.com/v1/responses"),
    (f"{{model: openai/chat_completions/gpt-6.1-sol, {BASE}}}", "{}", "chat", "http://h/v1/chat/completions"),
    ("{model: azure/chat_completions/gpt-6-sol, api_base: 'https://n.openai.azure.com'}", "{}", "responses",
     "https://n.openai.azure.com/openai/v1/responses"),
    ("{model: azure/chat_completions/gpt-6-sol, api_base: 'https://n.openai.azure.com', "
     "api_version: '2025-04-01-preview'}", "{}", "responses", "https://n.openai.azure.com/openai/responses?api-version=2025-04-01-preview"),
    ("{model: azure/chat_completions/gpt-6-sol, api_base: 'https://n.openai.azure.com/openai/deployments/mine', "
     "api_version: '2025-04-01-preview'}", "{}", "chat",
     "https://n.openai.azure.com/openai/deployments/mine/chat/completions?api-version=2025-04-01-preview"),
    (f"{{model: deepseek/m, {BASE}}}", "{mode: responses}", "responses", "http://h/v1/responses"),
    (f"{{model: deepseek/m, {BASE}}}", "{supported_endpoints: [/v1/chat/completions, /v1/responses]}", "responses",
     "http://h/v1/responses"),
    ("{model: deepseek/m, api_base: 'https://api.deepseek.com/anthropic'}", "{supported_endpoints: [/v1/messages]}",
     "anthropic", "https://api.deepseek.com/anthropic/v1/messages"),
    ("{model: deepseek/m, api_base: 'https://api.deepseek.com/beta'}", "{}", "chat",
     "https://api.deepseek.com/beta/chat/completions"),
    ("{model: databricks/m-gpt-5, api_base: 'https://h'}", "{}", "responses", "https://h/serving-endpoints/responses"),
    ("{model: databricks/m-claude, api_base: 'https://h'}", "{}", "chat", "https://h/serving-endpoints/chat/completions"),
    ("{model: github_copilot/gpt-5.4}", "{}", "responses", "https://api.githubcopilot.com/responses"),
    ("{model: github_copilot/gpt-4o}", "{}", "chat", "https://api.githubcopilot.com/chat/completions"),
    ("{model: github_copilot/claude-opus-5}", "{supported_endpoints: [/v1/messages]}", "anthropic",
     "https://api.githubcopilot.com/v1/messages"),
    ("{model: perplexity/openai/gpt-5.1}", "{}", "responses", "https://api.perplexity.ai/v1/responses"),
    ("{model: perplexity/sonar-pro}", "{}", "chat", "https://api.perplexity.ai/chat/completions"),
    ("{model: azure_ai/claude-opus-5, api_base: 'https://n.services.ai.azure.com'}", "{}", "anthropic",
     "https://n.services.ai.azure.com/anthropic/v1/messages"),
    ("{model: azure_ai/grok-4, api_base: 'https://n.services.ai.azure.com/models'}", "{}", "chat",
     "https://n.services.ai.azure.com/openai/v1/chat/completions"),
    (f"{{model: bedrock/m, {BASE}}}", "{supported_endpoints: [/v1/messages]}", "anthropic", "http://h/v1/messages"),
    (f"{{model: vertex_ai/m, {BASE}, use_chat_completions_api: true}}", "{}", "chat", "http://h/v1/chat/completions"),
    (f"{{model: m, custom_llm_provider: groq, {BASE}}}", "{}", "chat", "http://h/v1/chat/completions"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "info", "kind", "url"), CHOSEN)
def test_the_api_is_the_one_that_the_entry_asks_for_else_the_providers_usual_one(
    params: str, info: str, kind: str, url: str
) -> None:
    deployment = only(model(f"{params.removesuffix('}')}, api_key: k}}", info))
    assert (deployment.kind, deployment.url) == (kind, url)
    assert not deployment.model.startswith(("chat_completions/", "responses/"))


@pytest.mark.parametrize(
    ("params", "url"),
    [
        ("{model: 'openai/chat_completions/*', api_key: k}", "https://api.openai.com/v1/responses"),
        ("{model: 'openai/gpt-*', use_chat_completions_api: true, api_key: k}", "https://api.openai.com/v1/responses"),
        ("{model: 'azure/chat_completions/*', api_base: 'https://n.openai.azure.com', api_key: k}",
         "https://n.openai.azure.com/openai/v1/responses"),
    ],
)  # fmt: skip
def test_a_wildcard_by_chat_has_both_apis_for_models_whose_tools_are_on_responses(params: str, url: str) -> None:
    deployment = only(model(params, name="gpt-*"))
    twin = deployment.on_responses
    assert deployment.kind == "chat"
    assert twin is not None
    assert (twin.kind, twin.url, twin.id, twin.headers) == ("responses", url, "gpt-*", deployment.headers)
    elsewhere = only(model(f"{{model: 'openai/chat_completions/*', {BASE}, api_key: k}}", name="gpt-*"))
    assert (elsewhere.kind, elsewhere.on_responses) == ("chat", None)


@pytest.mark.parametrize(
    ("params", "info"),
    [
        (f"{{model: openai/gpt-5, {BASE}}}", "{}"),
        (f"{{model: gpt-5, {BASE}}}", "{}"),
        (f"{{model: openai/gpt-5, {BASE}}}", "{mode: chat}"),
        ("{model: openai/gpt-5, api_base: 'http://h/v1/chat/completions'}", "{}"),
        (f"{{model: xai/grok, {BASE}}}", "{}"),
        (f"{{model: hosted_vllm/qwen, {BASE}}}", "{}"),
        ("{model: ollama/qwen, api_base: 'http://localhost:11434'}", "{}"),
        ("{model: lm_studio/qwen}", "{}"),
    ],
)
def test_a_server_that_may_have_no_responses_has_a_form_in_chat(params: str, info: str) -> None:
    deployment = only(model(f"{params.removesuffix('}')}, api_key: k, weight: 3, order: 2}}", info))
    by_chat = deployment.on_chat
    assert deployment.kind == "responses"
    assert by_chat is not None
    assert by_chat.kind == "chat"
    assert by_chat.url == deployment.url.replace("/responses", "/chat/completions")
    for field in ("id", "model", "model_name", "provider", "headers", "weight", "order", "timeouts", "transport"):
        assert getattr(by_chat, field) == getattr(deployment, field)
    assert (by_chat.on_chat, by_chat.id) == (None, "m")


@pytest.mark.parametrize(
    ("params", "info"),
    [
        ("{model: openai/gpt-5}", "{}"),
        ("{model: openai/gpt-5, api_base: 'https://eu.api.openai.com/v1'}", "{}"),
        ("{model: openai/gpt-5, api_base: 'https://n.openai.azure.com/openai/v1'}", "{}"),
        (f"{{model: azure/gpt-5, {BASE}}}", "{}"),
        ("{model: xai/grok}", "{}"),
        ("{model: openrouter/openai/gpt-5, api_base: 'https://openrouter.ai/api/v1'}", "{}"),
        (f"{{model: openai/responses/gpt-5, {BASE}}}", "{}"),
        (f"{{model: openai/gpt-5, {BASE}}}", "{mode: responses}"),
        (f"{{model: openai/gpt-5, {BASE}}}", "{supported_endpoints: [/v1/chat/completions, /v1/responses]}"),
        (f"{{model: openai/gpt-5, {BASE}, use_chat_completions_api: true}}", "{}"),
        (f"{{model: deepseek/deepseek-chat, {BASE}}}", "{}"),
        (f"{{model: anthropic/claude, {BASE}}}", "{}"),
    ],
)
def test_a_server_that_is_known_or_an_entry_that_names_the_api_has_one_form(params: str, info: str) -> None:
    assert only(model(f"{params.removesuffix('}')}, api_key: k}}", info)).on_chat is None


def test_a_name_that_cursor_refuses_itself_is_a_warning_with_an_alias() -> None:
    for name in ("gpt-6-astra", "gpt-5.5"):
        (warning,) = parse(model(f"{{model: openai/{name}, api_key: k}}", name=name)).warnings
        assert warning == (
            "config.yaml:2: model_list[0].model_name: is a name that Cursor refuses itself, without a request: in "
            f"Cursor use an alias, such as custom-{name}"
        )
        assert parse(model(f"{{model: openai/{name}, api_key: k}}", name=f"custom-{name}")).warnings == ()


def test_an_unknown_prefix_is_part_of_the_model_of_a_compatible_server() -> None:
    deployment = only(model("{model: unheard/of, api_base: 'http://h', use_chat_completions_api: true}"))
    assert (deployment.provider, deployment.model) == ("openai_compatible", "unheard/of")
    assert deployment.url == "http://h/v1/chat/completions"
    deployment = only(model("{model: unheard/of, api_base: 'http://h'}", "{mode: responses}"))
    assert (deployment.kind, deployment.provider) == ("responses", "openai_compatible")


def test_a_name_without_a_prefix_goes_to_the_provider_that_litellm_assigns() -> None:
    assert split_model("gpt-5") == ("openai", "gpt-5")
    assert split_model("claude-opus-5") == ("anthropic", "claude-opus-5")
    assert split_model("gemini-2.5-pro") == ("vertex_ai", "gemini-2.5-pro")
    assert split_model("groq/openai/gpt-oss-120b") == ("groq", "openai/gpt-oss-120b")


LEFT_OUT = [
    ("{model: bedrock/anthropic.claude-opus-5}", "{}",
     "signing in to AWS is not supported (a Bedrock API key as AWS_BEARER_TOKEN_BEDROCK or api_key is; requests are "
     "not signed with AWS keys)"),
    ("{model: gemini-2.5-pro}", "{}",
     "provider vertex_ai: a project is needed for its address, and is not known: set vertex_project or "
     "VERTEXAI_PROJECT, or api_base; gemini/gemini-2.5-pro is asked for with a Gemini key"),
    ("{model: vertex_ai/gemini-2.5-pro, vertex_project: 'a/../b'}", "{}",
     "provider vertex_ai: a project is needed for its address, and has none that can stand in an address: set "
     "vertex_project or VERTEXAI_PROJECT, or api_base"),
    ("{model: cloudflare/@cf/m, api_key: k}", "{}",
     "provider cloudflare: an account id is needed for its address, and is not known: set CLOUDFLARE_ACCOUNT_ID, or "
     "api_base"),
    ("{model: voyage/m, api_base: 'http://h'}", "{}", "provider voyage is not supported yet"),
    ("{model: sagemaker/m}", "{}",
     "provider sagemaker is not supported: its requests are signed with AWS keys; use bedrock/, or openai/ and the "
     "address of a server with that API"),
    ("{model: unheard/of}", "{}", "the provider of its model is not known (expected a prefix, as in openai/gpt-5)"),
    ("{model: sagemaker/m}", "{mode: responses}", "an unknown provider needs an api_base"),
    ("{model: unheard/of, use_chat_completions_api: true}", "{}", "an unknown provider needs an api_base"),
    ("{model: openai/m, litellm_credential_name: c}", "{}", "litellm_credential_name is not supported yet"),
    ("{model: github_copilot/gpt-5}", "{}",
     "signing in to GitHub Copilot is not supported (a token as api_key is)"),
    ("{model: 'openai/*-*'}", "{}", "a name with more than one * is not supported yet"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "info", "reason"), LEFT_OUT, ids=[params for params, *_ in LEFT_OUT])
def test_what_cannot_be_reached_is_left_out_with_one_warning(params: str, info: str, reason: str) -> None:
    settings = parse(model(params, info) + ANOTHER)
    assert [deployment.model_name for deployment in settings.deployments] == ["another"]
    assert settings.warnings == (f"config.yaml:2: model_list[0]: {reason}; 1 deployment is left out: m",)


# --- clouds: the address is different for each user -------------------------------------------------------------------

RUNTIME = "https://bedrock-runtime.us-west-2.amazonaws.com"
MANTLE = "https://bedrock-mantle.us-west-2.api.aws"
VERTEX = "aiplatform.googleapis.com/v1/projects/p-1/locations"
PLACED = [
    ("bedrock/us.anthropic.claude-opus-5", "", "us.anthropic.claude-opus-5", f"{RUNTIME}/anthropic/v1/messages"),
    ("bedrock/anthropic.claude-haiku-4-5", "", "anthropic.claude-haiku-4-5", f"{MANTLE}/anthropic/v1/messages"),
    ("bedrock/converse/eu.anthropic.claude-opus-5", "aws_region_name: eu-west-1", "eu.anthropic.claude-opus-5",
     "https://bedrock-runtime.eu-west-1.amazonaws.com/anthropic/v1/messages"),
    ("bedrock_converse/global.openai.gpt-6-sol", "", "global.openai.gpt-6-sol", f"{RUNTIME}/openai/v1/responses"),
    ("bedrock/openai.gpt-6-sol", "", "openai.gpt-6-sol", f"{MANTLE}/openai/v1/responses"),
    ("bedrock/us.xai.grok-4.7", "", "us.xai.grok-4.7", f"{RUNTIME}/openai/v1/chat/completions"),
    ("bedrock/chat_completions/openai.gpt-oss-20b-1:0", "", "openai.gpt-oss-20b-1:0",
     f"{RUNTIME}/openai/v1/chat/completions"),
    ("bedrock/us-gov-west-1/openai.gpt-oss-20b-1:0", "aws_region_name: eu-west-1", "openai.gpt-oss-20b-1:0",
     "https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1/chat/completions"),
    ("bedrock/openai.gpt-oss-120b", "", "openai.gpt-oss-120b", f"{MANTLE}/v1/chat/completions"),
    ("bedrock/google.gemma-4-31b", "", "google.gemma-4-31b", f"{MANTLE}/openai/v1/chat/completions"),
    ("bedrock/mantle/qwen.qwen3-32b", "", "qwen.qwen3-32b", f"{MANTLE}/v1/chat/completions"),
    ("bedrock_mantle/eu-west-2/deepseek.v3.1", "", "deepseek.v3.1",
     "https://bedrock-mantle.eu-west-2.api.aws/v1/chat/completions"),
    ("bedrock_mantle/anthropic.claude-opus-5-5", "", "anthropic.claude-opus-5-5",
     "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages"),
    ("bedrock/anthropic.claude-opus-5", "api_base: 'https://bedrock-mantle.eu-north-1.api.aws'",
     "anthropic.claude-opus-5", "https://bedrock-mantle.eu-north-1.api.aws/anthropic/v1/messages"),
    ("vertex_ai/gemini-3-pro", "vertex_project: p-1, vertex_location: global", "google/gemini-3-pro",
     f"https://{VERTEX}/global/endpoints/openapi/chat/completions"),
    ("gemini-3-pro", "vertex_project: p-1", "google/gemini-3-pro",
     f"https://us-central1-{VERTEX}/us-central1/endpoints/openapi/chat/completions"),
    ("vertex_ai_beta/meta/llama-4-maas", "vertex_ai_project: p-1, vertex_ai_location: eu", "meta/llama-4-maas",
     "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu/endpoints/openapi/chat/completions"),
    ("cloudflare/@cf/openai/gpt-oss-120b", "api_base: 'https://api.cloudflare.com/client/v4/accounts/a/ai/run/'",
     "@cf/openai/gpt-oss-120b", "https://api.cloudflare.com/client/v4/accounts/a/ai/v1/chat/completions"),
    ("cloudflare/@cf/m", "api_base: 'https://gateway.ai.cloudflare.com/v1/a/g/workers-ai'", "@cf/m",
     "https://gateway.ai.cloudflare.com/v1/a/g/workers-ai/v1/chat/completions"),
    ("cohere_chat/command-a-03-2025", "api_base: 'https://api.cohere.ai/v2/chat'", "command-a-03-2025",
     "https://api.cohere.ai/compatibility/v1/chat/completions"),
    ("command-r-plus", "", "command-r-plus", "https://api.cohere.ai/compatibility/v1/chat/completions"),
    ("huggingface/together/deepseek-ai/DeepSeek-R1", "", "deepseek-ai/DeepSeek-R1:together",
     "https://router.huggingface.co/v1/chat/completions"),
    ("clarifai/openai.chat-completion.gpt-oss-20b", "",
     "https://clarifai.com/openai/chat-completion/models/gpt-oss-20b",
     "https://api.clarifai.com/v2/ext/openai/v1/chat/completions"),
    ("snowflake/claude-opus-5", "account_id: acc", "claude-opus-5",
     "https://acc.snowflakecomputing.com/api/v2/cortex/v1/messages"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "named", "url"), PLACED, ids=[name for name, *_ in PLACED])
def test_a_model_of_a_cloud_is_asked_where_that_cloud_has_it(name: str, params: str, named: str, url: str) -> None:
    deployment = only(model(f"{{model: '{name}', api_key: k, {params}}}"))
    assert (deployment.model, deployment.url) == (named, url)
    assert dict(deployment.headers)["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "the Claude models whose name ends in a version"),
        ("bedrock/amazon.nova-pro-v1:0", "names that end in a version"),
        ("bedrock/us.zai.glm-5.3", "only by InvokeModel and Converse"),
        ("bedrock/converse/arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "only by InvokeModel"),
        ("bedrock/*", "the name of a Bedrock model says how it is called"),
        ("vertex_ai/claude-opus-5", "only by rawPredict, which is not supported; use anthropic/ or bedrock/"),
        ("vertex_ai/mistral-medium-3", "only by rawPredict, which is not supported; use its maker's own API"),
        ("vertex_ai/openai/1234567890", "an endpoint of your own on Vertex AI needs its address as api_base"),
    ],
)
def test_a_model_that_a_cloud_has_only_by_its_own_api_is_left_out_with_the_reason(name: str, reason: str) -> None:
    text = model(f"{{model: '{name}', api_key: k}}", name="m*" if "*" in name else "m")
    [warning] = parse(text + ANOTHER, **PLACES).warnings
    assert reason in warning


def test_the_key_of_a_cloud_is_sent_to_its_own_hosts_only() -> None:
    text = "{model: bedrock/us.anthropic.claude-opus-5, api_base: 'https://%s'}"
    own = only(model(text % "bedrock-runtime.eu-west-3.amazonaws.com"), AWS_BEARER_TOKEN_BEDROCK="b-1")
    assert ("authorization", "Bearer b-1") in own.headers
    for stranger in ("x.execute-api.us-west-2.amazonaws.com", "bedrock-runtime.eu.evil.amazonaws.com", "evil.example"):
        headers = only(model(text % stranger), AWS_BEARER_TOKEN_BEDROCK="b-1").headers
        assert not any("b-1" in value for _, value in headers)


@pytest.mark.parametrize(
    ("name", "variable", "own"),
    [
        ("cloudflare/@cf/qwen/qwen3", "CLOUDFLARE_API_KEY", "gateway.ai.cloudflare.com/v1/a/g/workers-ai"),
        ("snowflake/m", "SNOWFLAKE_JWT", "a-1.snowflakecomputing.com/api/v2"),
        ("vertex_ai/gemini-3", "VERTEX_AI_ACCESS_TOKEN", "us-central1-aiplatform.googleapis.com/v1/p/openapi"),
    ],
)
def test_an_address_without_its_account_gets_the_key_on_the_clouds_own_hosts_only(
    name: str, variable: str, own: str
) -> None:
    text = model(f"{{model: '{name}', api_base: 'https://%s'}}")
    assert only(text % own, **{variable: "t-1"}).headers == (("authorization", "Bearer t-1"),)
    assert only(text % "evil.example/v1", **{variable: "t-1"}).headers == ()


def test_what_litellm_writes_before_a_token_of_snowflake_is_not_sent() -> None:
    deployment = only(model("{model: snowflake/m, account_id: a, api_key: pat/t-1}"))
    assert deployment.headers == (("authorization", "Bearer t-1"),)


# --- keys and headers -------------------------------------------------------------------------------------------------


def test_the_key_of_the_environment_is_not_sent_to_a_stranger() -> None:
    stranger = model("{model: openai/m, api_base: 'https://evil.example/v1'}")
    settings = parse(stranger, OPENAI_API_KEY="sk-openai-0123456789")
    assert settings.deployments[0].headers == ()
    assert settings.warnings == (
        "config.yaml:3: model_list[0].litellm_params.api_key: is missing: requests go out without a key, "
        "since OPENAI_API_KEY is not for this api_base; write api_key: os.environ/OPENAI_API_KEY if it is",
    )
    regional = model("{model: openai/m, api_base: 'https://us.api.openai.com/v1'}")
    assert only(regional, OPENAI_API_KEY="sk-1").headers == (("authorization", "Bearer sk-1"),)
    for trick in ("https://api.openai.com.evil.example/v1", "https://evilopenai.com/v1", "http://api.openai.com/v1"):
        assert only(model(f"{{model: openai/m, api_base: '{trick}'}}"), OPENAI_API_KEY="sk-1").headers == ()


def test_on_a_domain_of_many_owners_only_the_very_host_is_the_providers() -> None:
    own = "https://generativelanguage.googleapis.com/v1beta/openai"
    assert only(model(f"{{model: gemini/m, api_base: '{own}'}}"), GEMINI_API_KEY="g-1").headers != ()
    for stranger in ("https://storage.googleapis.com/v1beta/openai", "https://h.example/v1beta"):
        assert only(model(f"{{model: gemini/m, api_base: '{stranger}'}}"), GEMINI_API_KEY="g-1").headers == ()
    server = model("{model: ovhcloud/m, api_base: 'https://vps-1.vps.ovh.net/v1'}")
    assert only(server, OVHCLOUD_API_KEY="o-1").headers == ()
    bucket = model("{model: volcengine/m, api_base: 'https://b.tos-cn-beijing.volces.com/v1'}")
    assert only(bucket, VOLCENGINE_API_KEY="v-1").headers == ()


def test_headers_of_the_user_add_to_those_of_messages_and_replace_them() -> None:
    added = "extra_headers: {anthropic-beta: 'a-1,b-2', Anthropic-Version: '2099-01-01'}"
    assert only(model(f"{{model: anthropic/m, api_key: k, {added}}}")).headers == (
        ("x-api-key", "k"),
        ("Anthropic-Version", "2099-01-01"),
        ("anthropic-beta", "a-1,b-2"),
    )


def test_messages_of_a_server_with_several_apis_bring_the_key_in_both_forms() -> None:
    deployment = only(model(f"{{model: litellm_proxy/m, {BASE}, api_key: k}}", "{supported_endpoints: [/v1/messages]}"))
    assert deployment.headers == (
        ("authorization", "Bearer k"),
        ("x-api-key", "k"),
        ("anthropic-version", "2023-06-01"),
    )


def test_a_custom_server_gets_no_key_of_openai() -> None:
    assert only(model(f"{{model: custom_openai/m, {BASE}}}"), OPENAI_API_KEY="sk-1").headers == ()


# --- the whole way ----------------------------------------------------------------------------------------------------

CHUNKS: tuple[Step, ...] = (
    sse_head(),
    events(
        [
            {"id": "c", "model": "m", "created": 7, "choices": [{"index": 0, "delta": {"content": "hi"}}]},
            {"id": "c", "model": "m", "created": 7, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
    ),
    end(),
)
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "usage": {"input_tokens": 1},
}
MESSAGES: tuple[Step, ...] = (
    sse_head(),
    events(
        [
            {"type": "message_start", "message": MESSAGE},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]
    ),
    end(),
)


@pytest.mark.parametrize(
    ("upstream", "params", "script", "path", "header"),
    [
        ("openai/chat_completions/gpt-5", {}, CHUNKS, "/v1/chat/completions", "authorization"),
        ("openai/gpt-5", {"use_chat_completions_api": True}, CHUNKS, "/v1/chat/completions", "authorization"),
        ("deepseek/gpt-5", {}, CHUNKS, "/chat/completions", "authorization"),
        ("gemini/gpt-5", {}, CHUNKS, "/v1beta/openai/chat/completions", "authorization"),
        ("anthropic/gpt-5", {}, MESSAGES, "/v1/messages", "x-api-key"),
        ("cohere/gpt-5", {}, CHUNKS, "/compatibility/v1/chat/completions", "authorization"),
        ("azure_ai/gpt-5", {}, CHUNKS, "/openai/v1/chat/completions", "api-key"),
    ],
)
async def test_a_configured_upstream_is_asked_at_its_address_with_its_key_and_its_answer_arrives(
    upstream: str, params: dict[str, bool], script: tuple[Step, ...], path: str, header: str
) -> None:
    async with scripted_upstream(*script) as up, serving(entry("up", up.url, upstream=upstream, **params)) as service:
        answer = await service.post({"model": "up", "input": "hello", "stream": True})
        assert fold_stream(answer.content).content == "hi"
    (request,) = up.requests
    assert request.path == path
    assert request.headers[header].removeprefix("Bearer ") == "sk-upstream-secret-0123456789"
    assert request.json()["model"] == "gpt-5"


GPT = "model: openai/gpt-5, api_key: k"


def test_a_deployment_says_which_fields_it_forwards() -> None:
    assert only(model(f"{{{GPT}}}")).forward_fields == frozenset()
    assert only(model(f"{{{GPT}, forward_fields: [provider, models]}}")).forward_fields == {"provider", "models"}


def test_a_field_that_needs_no_permission_is_refused() -> None:
    (problem,) = problems(model(f"{{{GPT}, forward_fields: [model]}}"))
    assert "lists model, which needs no permission" in problem
    assert "did you mean" in problem
    (problem,) = problems(model(f"{{{GPT}, forward_fields: models}}"))
    assert "a list such as [provider, models]" in problem
