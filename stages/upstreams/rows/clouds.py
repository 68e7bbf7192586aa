"""Clouds whose addresses are different for each user, and Microsoft's.

The names are LiteLLM's prefixes; addresses and variables are LiteLLM 1.110.2's unless a row says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stages.upstreams.provider import (
    ALL,
    BOTH,
    CHAT_FIRST,
    CHAT_OF_ALL,
    CHAT_ONLY,
    MESSAGES,
    AddressPart,
    ModelRoute,
    Provider,
    compatible,
)
from stages.upstreams.quirks import AZURE_RESPONSES, GEMINI_CHAT, OPENAI_CHAT


def _vertex_host(location: str) -> str:
    """Return the host of a location: ``global``, a region, or a multi-region such as ``eu``.

    Source: cloud.google.com/vertex-ai/generative-ai/docs/learn/locations (2026-11).
    """
    if location == "global":
        return "aiplatform.googleapis.com"
    return f"{location}-aiplatform.googleapis.com" if "-" in location else f"aiplatform.{location}.rep.googleapis.com"


# cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview (2026-11): Chat Completions for Gemini, and for
# the open models that Google serves (...-maas), which keep their publisher in the name.
_VERTEX_AI: Final = Provider(
    kinds=CHAT_ONLY,
    routes=(
        ModelRoute(
            models=re.compile("claude"),
            reason="Vertex AI has Claude only by rawPredict, which is not supported; use anthropic/ or bedrock/",
        ),
        ModelRoute(
            models=re.compile(r"\A(?:mistralai/|ai21/)?(?:mistral|codestral|jamba)"),
            reason="Vertex AI has this model only by rawPredict, which is not supported; use its maker's own API",
        ),
        ModelRoute(
            models=re.compile(r"\A(?:openai/|gemini/)?\d+\Z"),
            reason="an endpoint of your own on Vertex AI needs its address as api_base, and openai/ as the prefix",
        ),
        ModelRoute(models=re.compile(r"\Agoogle/gemini|\Agoogle/\*"), kinds=CHAT_ONLY, quirks=(GEMINI_CHAT,)),
    ),
    origin="https://{host}",
    root="/v1/projects/{project}/locations/{location}/endpoints/openapi",
    parts=(
        AddressPart(
            name="project",
            what="a project",
            params=("vertex_project", "vertex_ai_project"),
            variables=("VERTEXAI_PROJECT", "VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT"),
        ),
        AddressPart(
            name="location",
            what="a location",
            params=("vertex_location", "vertex_ai_location"),
            variables=("VERTEXAI_LOCATION", "VERTEX_LOCATION", "GOOGLE_CLOUD_LOCATION"),
            default="us-central1",
            host_of=_vertex_host,
        ),
    ),
    names=((re.compile(r"\A(?:gemini/)?(?=gemini-|\*)"), "google/"),),
    key_names=("VERTEX_AI_ACCESS_TOKEN",),  # ours: LiteLLM only signs in
    signs_in_to="Google Cloud",
    token_from="token_command: gcloud auth print-access-token is, and for the file of a service account "
    "token_command: env GOOGLE_APPLICATION_CREDENTIALS=FILE gcloud auth application-default print-access-token",
)

CLOUDS: Final[Mapping[str, Provider]] = {
    "azure": Provider(
        key_names=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        base_names=("AZURE_API_BASE",),
        key_header="api-key",
        dated_kinds=BOTH,
        quirks=(AZURE_RESPONSES, OPENAI_CHAT),
    ),
    # Microsoft Foundry's v1 API, which has the models of all makers; Claude at /anthropic/v1. LiteLLM calls the older
    # /models. learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (2026-11).
    "azure_ai": Provider(
        kinds=CHAT_FIRST,
        routes=(ModelRoute(models=re.compile("claude"), kinds=MESSAGES, root="/anthropic/v1"),),
        root="/openai/v1",
        foreign_paths=((re.compile(r"\A/models(?:/chat/completions)?\Z"), "/openai/v1"),),
        key_names=("AZURE_AI_API_KEY",),
        base_names=("AZURE_AI_API_BASE",),
        key_header="api-key",
    ),
    "vertex_ai": _VERTEX_AI,
    "vertex_ai_beta": _VERTEX_AI,
    # developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility (2026-11)
    "cloudflare": Provider(
        kinds=CHAT_ONLY,
        routes=(ModelRoute(models=re.compile("gpt-oss"), kinds=CHAT_FIRST),),
        origin="https://api.cloudflare.com",
        root="/client/v4/accounts/{account}/ai/v1",
        parts=(AddressPart(name="account", what="an account id", variables=("CLOUDFLARE_ACCOUNT_ID",)),),
        foreign_paths=((re.compile(r"(?<=/ai)(?:/run)?\Z|(?<=/workers-ai)\Z"), "/v1"),),
        key_names=("CLOUDFLARE_API_KEY", "CLOUDFLARE_API_TOKEN"),
    ),
    # docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api (2026-11). It finds out the kind of a token.
    "snowflake": Provider(
        kinds=CHAT_ONLY,
        routes=(ModelRoute(models=re.compile(r"\Aclaude"), kinds=MESSAGES),),
        origin="https://{account}.snowflakecomputing.com",
        root="/api/v2/cortex/v1",
        parts=(
            AddressPart(
                name="account", what="an account id", params=("account_id",), variables=("SNOWFLAKE_ACCOUNT_ID",)
            ),
        ),
        foreign_paths=((re.compile(r"/api/v2\Z"), "/api/v2/cortex/v1"),),
        key_names=("SNOWFLAKE_JWT",),
        key_prefix="pat/",
    ),
    "databricks": Provider(  # LiteLLM: "Responses API is only compatible with OpenAI GPT models"
        routes=(ModelRoute(models=re.compile(r"\A(?!.*gpt)"), kinds=CHAT_FIRST),),
        root="/serving-endpoints",
        key_names=("DATABRICKS_API_KEY", "DATABRICKS_TOKEN"),
        base_names=("DATABRICKS_API_BASE",),
    ),
    # LiteLLM signs in by OAuth device flow. The models are those that LiteLLM's price map has with /v1/responses.
    "github_copilot": Provider(
        kinds=ALL,
        routes=(ModelRoute(models=re.compile(r"\A(?!.*(?:gpt-(?![34])|codex|mai-code))"), kinds=CHAT_OF_ALL),),
        origin="https://api.githubcopilot.com",
        root="",
        signs_in_to="GitHub Copilot",
    ),
    "github": compatible("https://models.inference.ai.azure.com", "GITHUB_API_KEY", root="", base="GITHUB_API_BASE"),
}
