"""LiteLLM's settings by name and section: those that we honour, limits, and those that we ignore, one way or another.

A name in no list is reported as unknown: a typing error, perhaps. Source: docs.litellm.ai/docs/proxy/config_settings
(October 2026), and LiteLLM 1.110.2 itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from pipeline.gateway.config import litellm_ignored as ignored
from pipeline.gateway.config import litellm_ignored_params as ignored_params
from pipeline.gateway.config.kinds import names_of
from pipeline.gateway.config.litellm_ignored import Ignored
from pipeline.gateway.config.litellm_sections import (
    GeneralSettings,
    LitellmParams,
    LitellmSettings,
    ModelEntry,
    ModelInfo,
    RouterSettings,
    TopLevel,
)
from pipeline.gateway.config.request_parameters import DEFAULTS
from stages.upstreams.providers import PROVIDERS


class Names(Struct, frozen=True):
    """The names of one section."""

    honoured: frozenset[str]
    """Read by us: the fields of a Struct in `litellm_sections`."""
    ignored: Ignored
    """Not read: without effect, or with a warning."""
    usual: Mapping[str, object] = {}
    """Settings that are ignored, and the value with which each asks for nothing. Others ask for nothing when empty."""
    limits: frozenset[str] = frozenset()
    """Limits that nobody enforces: the gateway does not start with them. Those of the other sets are not among them."""
    unset_by_zero: frozenset[str] = frozenset()
    """Limits for which LiteLLM takes zero as none."""

    @property
    def known(self) -> frozenset[str]:
        """All of them."""
        ignored = self.ignored
        return self.honoured | self.limits | {*ignored.harmless, *ignored.unsupported, *ignored.protections}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LIMITS = _set(
    "rpm tpm itpm otpm rpd tpd rpm_limit tpm_limit max_parallel_requests default_max_parallel_requests "
    "global_max_parallel_requests max_in_flight_requests_per_worker model_rpm_limit model_tpm_limit "
    "model_max_parallel_requests "
    "default_api_key_rpm_limit default_api_key_tpm_limit team_member_rpm_limit team_member_tpm_limit "
    "token_rate_limit_type priority_reservation fairness_settings "
    "max_budget soft_budget default_soft_budget budget_limits budget_id model_max_budget temp_budget_increase "
    "max_end_user_budget max_end_user_budget_id max_internal_user_budget default_max_internal_user_budget "
    "max_user_budget team_member_budget max_budget_in_team provider_budget_config tag_budget_config"
)
"""LiteLLM's words for limits. In a section where we do not honour one, it is a limit that nobody enforces."""

LIMITS_WITHIN = _set(
    "default_internal_user_params default_team_params default_team_settings default_key_generate_params "
    "upperbound_key_generate_params default_litellm_params"
)
"""Settings that are mappings, or lists of mappings, in which the same words are limits."""

KEY_BUDGETS = _set("max_budget soft_budget budget_limits budget_id model_max_budget temp_budget_increase")
"""Limits of a key in LiteLLM that nobody enforces here."""
KEY_HARMLESS = _set("budget_duration temp_budget_expiry rpm_limit_type tpm_limit_type")
"""What LiteLLM says of a key's limits: without a budget it means nothing, and the other limits always hold."""

TOP_LEVEL = Names(
    honoured=names_of(TopLevel),
    ignored=ignored.TOP_LEVEL,
    limits=LIMITS,
)

GENERAL_SETTINGS = Names(
    honoured=names_of(GeneralSettings),
    ignored=ignored.GENERAL_SETTINGS,
    usual={"health_check_details": True},
    limits=LIMITS,
)

LITELLM_SETTINGS = Names(
    honoured=names_of(LitellmSettings),
    ignored=ignored.LITELLM_SETTINGS,
    usual={"ssl_verify": True},
    limits=LIMITS,
    unset_by_zero=_set("max_budget"),  # LiteLLM's default is 0
)

ROUTER_SETTINGS = Names(
    honoured=names_of(RouterSettings),
    ignored=ignored.ROUTER_SETTINGS,
    limits=LIMITS,
)

LITELLM_PARAMS = Names(
    honoured=names_of(LitellmParams) | DEFAULTS,
    ignored=ignored_params.LITELLM_PARAMS,
    usual={"ssl_verify": True, "supports_system_message": True, "keepalive_seconds": None, "stream": None},
    limits=LIMITS,
)

MODEL_LIST_ENTRY = Names(
    honoured=names_of(ModelEntry),
    ignored=ignored_params.MODEL_LIST_ENTRY,
    limits=LIMITS,
)

MODEL_INFO = Names(  # LiteLLM lets users keep their own notes here: only a near miss of these is reported
    honoured=names_of(ModelInfo),
    ignored=ignored_params.MODEL_INFO,
    limits=_set("itpm otpm"),  # the others are not LiteLLM's there
)

UNREACHED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("sagemaker", "sagemaker_chat"),
        ": its requests are signed with AWS keys; use bedrock/, or openai/ and the address of a server with that API",
    ),
    **dict.fromkeys(
        ("watsonx", "watsonx_text"),
        ": its API is IBM's own; its model gateway can be called by openai/, an api_base and a token_command",
    ),
    "oci": ": its requests are signed; its endpoint for API keys can be called by openai/ and an api_base",
    "replicate": ": it has no API of OpenAI's or Anthropic's",
    "chatgpt": ": signing in to ChatGPT is not; use openai/ with an API key",
    **dict.fromkeys(
        ("gigachat", "sap"), ": it only takes tokens; call it by openai/, its address as api_base and a token_command"
    ),
    **dict.fromkeys(
        (
            "azure_text", "text-completion-openai", "text-completion-codestral", "text-completion-inception",
            "anthropic_text",
        ),
        ": text completions are not chats",
    ),
    "auto_router": ": a model is chosen by its name",
    "palm": ": Google has ended it; use gemini/",
    "anyscale": ": its endpoints have ended",
    **dict.fromkeys(
        _set(
            "nlp_cloud aleph_alpha voyage jina_ai azure_anthropic custom petals triton predibase aiohttp_openai "
            "infinity topaz langgraph a2a ragflow deepgram elevenlabs recraft manus fal_ai nvidia_riva soniox"
        ),
        " yet",
    ),
}  # fmt: skip
"""Prefixes that LiteLLM knows and we do not reach, and how the sentence that they are not supported goes on. It is how
they differ from a ``/`` within a model's name."""

_BARE_NAMES = (
    ("claude", "anthropic"),
    ("gemini", "vertex_ai"),
    ("deepseek-", "deepseek"),
    ("command-", "cohere"),
)
"""The provider that LiteLLM takes for a name without a prefix; ``gemini-...`` alone is Vertex AI."""


def split_model(model: str) -> tuple[str | None, str]:
    """Split ``provider/model``; a name without a prefix gets the provider that LiteLLM takes. None: unknown prefix."""
    prefix, slash, rest = model.partition("/")
    if slash and (prefix in PROVIDERS or prefix in UNREACHED or prefix == "canned"):
        return prefix, rest
    if slash:
        return None, model
    return next((provider for start, provider in _BARE_NAMES if model.startswith(start)), "openai"), model
