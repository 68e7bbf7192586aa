"""The providers that we reach: which APIs they have, where they are, how they want the key, what they take differently.

The only table that is keyed by provider. The names are LiteLLM's prefixes (``openai/gpt-5``), the addresses and
variables those of LiteLLM 1.106.2 (``get_llm_provider_logic.py``, ``openai_like/providers.json``) unless a row says
otherwise. A provider without quirks in an API is served as most servers are (`Api.usual_quirks`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from stages.upstreams import Deployment, UpstreamKind
from stages.upstreams.quirks import (
    AZURE_DATED_CHAT,
    AZURE_DATED_RESPONSES,
    AZURE_RESPONSES,
    CODESTRAL_CHAT,
    DASHSCOPE_CHAT,
    DEEPSEEK_CHAT,
    DEEPSEEK_RESPONSES,
    FIREWORKS_RESPONSES,
    GEMINI_CHAT,
    GROQ_CHAT,
    LM_STUDIO_RESPONSES,
    MINIMAX_CHAT,
    MISTRAL_CHAT,
    MOONSHOT_CHAT,
    OLLAMA_CHAT,
    OLLAMA_RESPONSES,
    OPENAI_CHAT,
    OPENAI_ELSEWHERE_RESPONSES,
    OPENAI_RESPONSES,
    OPENROUTER_CHAT,
    PERPLEXITY_RESPONSES,
    VLLM_RESPONSES,
    XAI_CHAT,
    XAI_RESPONSES,
    ZAI_CHAT,
)
from stages.wire.api import Api, QuirksT

COMPATIBLE: Final = "openai_compatible"
"""A server of which nothing is known but the API."""

_BOTH: Final[tuple[UpstreamKind, ...]] = ("responses", "chat")
_ALL: Final[tuple[UpstreamKind, ...]] = ("responses", "chat", "anthropic")
_CHAT: Final[tuple[UpstreamKind, ...]] = ("chat",)


class Provider(Struct, frozen=True, kw_only=True):
    """One row of the table.

    Attributes:
        kinds: the APIs that it is known to have; the first is used if the configuration does not say.
        responses_for: the models that it has in the Responses API, where those are not all; others take ``chat``.
        origin: scheme and host if ``api_base`` does not say; None: ``api_base`` is needed.
        root: the path between an ``api_base`` without a path and the endpoint.
        chat_root: the same for Chat Completions, where it differs.
        is_rooted: whether an ``api_base`` with a path, too, gets the root's version if it has none.
        key_names: environment variables that may hold the key.
        base_names: environment variables that may hold ``api_base``.
        key_header: how the key is sent: ``authorization`` (Bearer) or a header of its own.
        needs_key: whether it refuses requests without a key, when ``api_base`` is not given.
        signs_in_to: the service that LiteLLM signs in to, where we only take a token, as ``api_key``.
        dated_kinds: the APIs whose addresses depend on ``api_version`` (see `config.urls.azure_url`).
        quirks: what it takes differently, one value for each API in which it does.
    """

    kinds: tuple[UpstreamKind, ...] = _BOTH
    responses_for: re.Pattern[str] | None = None
    origin: str | None = None
    root: str = "/v1"
    chat_root: str | None = None
    is_rooted: bool = False
    key_names: tuple[str, ...] = ()
    base_names: tuple[str, ...] = ()
    key_header: str = "authorization"
    needs_key: bool = True
    signs_in_to: str | None = None
    dated_kinds: tuple[UpstreamKind, ...] = ()
    quirks: tuple[object, ...] = ()

    def root_of(self, api: Api[Any]) -> str:
        """Return what comes before the endpoint of an API on the provider's host."""
        if api.name == "chat" and self.chat_root is not None:
            return self.chat_root
        if api.version is not None and not self.root.endswith(api.version):
            return api.version
        return self.root


UNKNOWN: Final = Provider(kinds=(), needs_key=False)
"""The row of a provider that is not in the table; ``model_info`` must say which API it has."""


def _chat(
    origin: str | None,
    *key_names: str,
    root: str = "/v1",
    base: str | tuple[str, ...] = (),
    is_rooted: bool = False,
    needs_key: bool = True,
    quirks: tuple[object, ...] = (),
) -> Provider:
    return Provider(
        kinds=_CHAT,
        origin=origin,
        root=root,
        is_rooted=is_rooted,
        key_names=key_names,
        base_names=(base,) if isinstance(base, str) else base,
        needs_key=needs_key,
        quirks=quirks,
    )


_OLLAMA: Final = Provider(
    kinds=_ALL,
    origin="http://localhost:11434",
    key_names=("OLLAMA_API_KEY",),
    base_names=("OLLAMA_API_BASE",),
    needs_key=False,
    quirks=(OLLAMA_RESPONSES, OLLAMA_CHAT),
)

PROVIDERS: Final[Mapping[str, Provider]] = {
    # The Responses API.
    "openai": Provider(
        origin="https://api.openai.com",
        key_names=("OPENAI_API_KEY",),
        base_names=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        quirks=(OPENAI_RESPONSES, OPENAI_CHAT),
    ),
    "azure": Provider(
        key_names=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        base_names=("AZURE_API_BASE",),
        key_header="api-key",
        dated_kinds=_BOTH,
        quirks=(AZURE_RESPONSES, OPENAI_CHAT),
    ),
    "xai": Provider(
        origin="https://api.x.ai",
        key_names=("XAI_API_KEY",),
        base_names=("XAI_API_BASE",),
        quirks=(XAI_RESPONSES, XAI_CHAT),
    ),
    "openrouter": Provider(
        kinds=_ALL,
        origin="https://openrouter.ai",
        root="/api/v1",
        key_names=("OPENROUTER_API_KEY", "OR_API_KEY"),
        base_names=("OPENROUTER_API_BASE",),
        quirks=(OPENROUTER_CHAT,),
    ),
    "fireworks_ai": Provider(
        origin="https://api.fireworks.ai",
        root="/inference/v1",
        key_names=("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        base_names=("FIREWORKS_API_BASE",),
        quirks=(FIREWORKS_RESPONSES,),
    ),
    "perplexity": Provider(  # its Responses API names models with their maker; plain `sonar` has Chat Completions
        responses_for=re.compile("/"),
        origin="https://api.perplexity.ai",
        chat_root="",
        key_names=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        base_names=("PERPLEXITY_API_BASE",),
        quirks=(PERPLEXITY_RESPONSES,),
    ),
    # LiteLLM signs in by OAuth device flow. The models are those that LiteLLM's price map has with /v1/responses.
    "github_copilot": Provider(
        kinds=_ALL,
        responses_for=re.compile(r"gpt-(?![34])|codex|mai-code"),
        origin="https://api.githubcopilot.com",
        root="",
        signs_in_to="GitHub Copilot",
    ),
    "databricks": Provider(  # LiteLLM: "Responses API is only compatible with OpenAI GPT models"
        responses_for=re.compile("gpt"),
        root="/serving-endpoints",
        key_names=("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        base_names=("DATABRICKS_API_BASE",),
    ),
    "litellm_proxy": Provider(kinds=_ALL, key_names=("LITELLM_PROXY_API_KEY",), base_names=("LITELLM_PROXY_API_BASE",)),
    "hosted_vllm": Provider(
        kinds=_ALL,
        is_rooted=True,
        key_names=("HOSTED_VLLM_API_KEY",),
        base_names=("HOSTED_VLLM_API_BASE",),
        needs_key=False,
        quirks=(VLLM_RESPONSES,),
    ),
    "lm_studio": Provider(
        kinds=_ALL,
        origin="http://localhost:1234",
        key_names=("LM_STUDIO_API_KEY",),
        base_names=("LM_STUDIO_API_BASE",),
        needs_key=False,
        quirks=(LM_STUDIO_RESPONSES,),
    ),
    "ollama": _OLLAMA,
    # Messages.
    "anthropic": Provider(
        kinds=("anthropic",),
        origin="https://api.anthropic.com",
        key_names=("ANTHROPIC_API_KEY",),
        base_names=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        key_header="x-api-key",
    ),
    # Chat Completions. Gemini through its OpenAI-compatible endpoint: ai.google.dev/gemini-api/docs/openai.
    "gemini": _chat(
        "https://generativelanguage.googleapis.com",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        root="/v1beta/openai",
        base="GEMINI_API_BASE",
        is_rooted=True,
        quirks=(GEMINI_CHAT,),
    ),
    # LiteLLM goes to /beta, which validates strict tools' schemas and refuses what it does not know; the documented
    # address is the host itself (api-docs.deepseek.com, 2026).
    "deepseek": Provider(
        kinds=("chat", "responses"),
        origin="https://api.deepseek.com",
        root="",
        key_names=("DEEPSEEK_API_KEY",),
        base_names=("DEEPSEEK_API_BASE",),
        quirks=(DEEPSEEK_CHAT, DEEPSEEK_RESPONSES),
    ),
    "mistral": _chat(
        "https://api.mistral.ai",
        "MISTRAL_API_KEY",
        base="MISTRAL_API_BASE",
        is_rooted=True,
        quirks=(MISTRAL_CHAT,),
    ),
    "codestral": _chat(
        "https://codestral.mistral.ai",
        "CODESTRAL_API_KEY",
        base="CODESTRAL_API_BASE",
        quirks=(CODESTRAL_CHAT,),
    ),
    "groq": _chat(
        "https://api.groq.com",
        "GROQ_API_KEY",
        root="/openai/v1",
        base="GROQ_API_BASE",
        quirks=(GROQ_CHAT,),
    ),
    "moonshot": _chat(
        "https://api.moonshot.ai",
        "MOONSHOT_API_KEY",
        base="MOONSHOT_API_BASE",
        quirks=(MOONSHOT_CHAT,),
    ),
    "together_ai": _chat(
        "https://api.together.ai",
        "TOGETHER_API_KEY",
        "TOGETHER_AI_API_KEY",
        "TOGETHERAI_API_KEY",
        "TOGETHER_AI_TOKEN",
        base="TOGETHER_AI_API_BASE",
    ),
    "cerebras": _chat("https://api.cerebras.ai", "CEREBRAS_API_KEY", base="CEREBRAS_API_BASE"),
    "deepinfra": _chat("https://api.deepinfra.com", "DEEPINFRA_API_KEY", root="/v1/openai", base="DEEPINFRA_API_BASE"),
    "dashscope": _chat(
        "https://dashscope.aliyuncs.com",
        "DASHSCOPE_API_KEY",
        root="/compatible-mode/v1",
        base="DASHSCOPE_API_BASE",
        quirks=(DASHSCOPE_CHAT,),
    ),
    "zai": _chat("https://api.z.ai", "ZAI_API_KEY", root="/api/paas/v4", base="ZAI_API_BASE", quirks=(ZAI_CHAT,)),
    "minimax": _chat(
        "https://api.minimax.io",
        "MINIMAX_API_KEY",
        base="MINIMAX_API_BASE",
        is_rooted=True,
        quirks=(MINIMAX_CHAT,),
    ),
    "nvidia_nim": _chat("https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY", base="NVIDIA_NIM_API_BASE"),
    "sambanova": _chat("https://api.sambanova.ai", "SAMBANOVA_API_KEY", base="SAMBANOVA_API_BASE"),
    "nebius": _chat("https://api.studio.nebius.ai", "NEBIUS_API_KEY", base="NEBIUS_API_BASE"),
    "novita": _chat("https://api.novita.ai", "NOVITA_API_KEY", root="/v3/openai", base="NOVITA_API_BASE"),
    "volcengine": _chat(
        "https://ark.cn-beijing.volces.com", "VOLCENGINE_API_KEY", root="/api/v3", base="VOLCENGINE_API_BASE"
    ),
    "hyperbolic": _chat("https://api.hyperbolic.xyz", "HYPERBOLIC_API_KEY", base="HYPERBOLIC_API_BASE"),
    "lambda_ai": _chat("https://api.lambda.ai", "LAMBDA_API_KEY", base="LAMBDA_API_BASE"),
    "featherless_ai": _chat(
        "https://api.featherless.ai",
        "FEATHERLESS_AI_API_KEY",
        "FEATHERLESS_API_KEY",
        base=("FEATHERLESS_AI_API_BASE", "FEATHERLESS_API_BASE"),
    ),
    "nscale": _chat("https://inference.api.nscale.com", "NSCALE_API_KEY", base="NSCALE_API_BASE"),
    "friendliai": _chat(
        "https://api.friendli.ai",
        "FRIENDLIAI_API_KEY",
        "FRIENDLI_TOKEN",
        root="/serverless/v1",
        base="FRIENDLI_API_BASE",
    ),
    "meta_llama": _chat("https://api.llama.com", "LLAMA_API_KEY", root="/compat/v1", base="LLAMA_API_BASE"),
    "wandb": _chat("https://api.inference.wandb.ai", "WANDB_API_KEY", base="WANDB_API_BASE"),
    "vercel_ai_gateway": _chat(
        "https://ai-gateway.vercel.sh", "VERCEL_AI_GATEWAY_API_KEY", base="VERCEL_AI_GATEWAY_API_BASE"
    ),
    "github": _chat("https://models.inference.ai.azure.com", "GITHUB_API_KEY", root="", base="GITHUB_API_BASE"),
    "v0": _chat("https://api.v0.dev", "V0_API_KEY", base="V0_API_BASE"),
    "morph": _chat("https://api.morphllm.com", "MORPH_API_KEY", base="MORPH_API_BASE"),
    "inception": _chat("https://api.inceptionlabs.ai", "INCEPTION_API_KEY", base="INCEPTION_API_BASE"),
    "aiml": _chat("https://api.aimlapi.com", "AIML_API_KEY", base="AIML_API_BASE"),
    "xiaomi_mimo": _chat("https://api.xiaomimimo.com", "XIAOMI_MIMO_API_KEY"),
    "synthetic": _chat("https://api.synthetic.new", "SYNTHETIC_API_KEY", root="/openai/v1"),
    "poe": _chat("https://api.poe.com", "POE_API_KEY"),
    "nano-gpt": _chat("https://nano-gpt.com", "NANOGPT_API_KEY", root="/api/v1"),
    "chutes": _chat("https://llm.chutes.ai", "CHUTES_API_KEY"),
    "ollama_chat": Provider(
        kinds=("chat", "responses", "anthropic"),
        origin=_OLLAMA.origin,
        key_names=_OLLAMA.key_names,
        base_names=_OLLAMA.base_names,
        needs_key=False,
        quirks=_OLLAMA.quirks,
    ),
    "llamafile": _chat("http://127.0.0.1:8080", "LLAMAFILE_API_KEY", base="LLAMAFILE_API_BASE", needs_key=False),
    "lemonade": _chat(
        "http://localhost:8000", "LEMONADE_API_KEY", root="/api/v1", base="LEMONADE_API_BASE", needs_key=False
    ),
    "docker_model_runner": _chat(
        "http://localhost:22088",
        "DOCKER_MODEL_RUNNER_API_KEY",
        root="/engines/llama.cpp/v1",
        base="DOCKER_MODEL_RUNNER_API_BASE",
        is_rooted=True,
        needs_key=False,
    ),
    "vllm": _chat(
        None,
        "HOSTED_VLLM_API_KEY",
        base="HOSTED_VLLM_API_BASE",
        is_rooted=True,
        needs_key=False,
        quirks=(VLLM_RESPONSES,),
    ),
    "openai_like": _chat(None, "OPENAI_LIKE_API_KEY", base="OPENAI_LIKE_API_BASE", needs_key=False),
    # LiteLLM sends OPENAI_API_KEY to any custom_openai address; we send only what the file says.
    "custom_openai": _chat(None, needs_key=False),
    COMPATIBLE: _chat(None, needs_key=False),
}

_QUIRKS_OF: Final = {"moonshotai": "moonshot", "vertex_ai": "gemini"}
"""Names that other programs, or ``custom_llm_provider``, bring: they have no row, but the quirks of another's."""

_ELSEWHERE: Final = "openai elsewhere"
_DATED: Final = "azure dated"
_QUIRKS_AT: Final[Mapping[str, tuple[object, ...]]] = {
    _ELSEWHERE: (OPENAI_ELSEWHERE_RESPONSES,),
    _DATED: (AZURE_DATED_RESPONSES, AZURE_DATED_CHAT),
}
"""The quirks of addresses that differ from what their provider has elsewhere."""


def quirks_of(api: Api[QuirksT], deployment: Deployment, model: str) -> QuirksT:
    """Return how requests to a deployment differ in an API.

    Args:
        api: the API that is spoken.
        deployment: whom the request goes to.
        model: the upstream's name of the model.
    """
    return quirks_in(api, _provider_behind(deployment.provider, deployment.url, api), model)


def quirks_in(api: Api[QuirksT], provider: str, model: str) -> QuirksT:
    """Return how requests to a provider differ in an API; without a row, only the model's name can tell."""
    known = _QUIRKS_AT.get(provider)
    if known is None:
        known = PROVIDERS.get(_QUIRKS_OF.get(provider, provider), UNKNOWN).quirks
    for quirks in known:
        if isinstance(quirks, api.quirks):
            return quirks
    return api.usual_quirks(model)


def is_openai_itself(provider: str, url: str) -> bool:
    """Return whether an address is OpenAI's own or Azure's, where all of OpenAI's APIs are."""
    return provider == "azure" or (provider == "openai" and _openai_host(url) is not None)


def _provider_behind(provider: str, url: str, api: Api[Any]) -> str:
    """Return whose server an address is, as far as requests differ: `Api.trusts_openai_prefix` says why it may not be
    the provider that is configured."""
    if provider == "openai":
        provider = _openai_host(url) or (_ELSEWHERE if api.trusts_openai_prefix else COMPATIBLE)
    return _DATED if provider == "azure" and "api-version=2" in url else provider


@lru_cache(1024)
def _openai_host(url: str) -> str | None:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # not an address at all, which is reported when it is called
        return None
    if host == "openai.com" or host.endswith(".openai.com"):
        return "openai"
    return "azure" if host.endswith((".azure.com", ".microsoft.com")) else None
