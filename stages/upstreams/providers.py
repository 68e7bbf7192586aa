"""The providers that we reach: which APIs they have, where they are, how they want the key, what they take differently.

The only table that is keyed by provider. A provider without quirks in an API is served as most servers are
(`Api.usual_quirks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from stages.upstreams import Deployment
from stages.upstreams.provider import Provider
from stages.upstreams.quirks import AZURE_DATED_CHAT, AZURE_DATED_RESPONSES, OPENAI_ELSEWHERE_RESPONSES
from stages.upstreams.rows.bedrock import BEDROCK
from stages.upstreams.rows.clouds import CLOUDS
from stages.upstreams.rows.hosts import HOSTS
from stages.upstreams.rows.local import COMPATIBLE, LOCAL
from stages.upstreams.rows.vendors import VENDORS
from stages.wire.api import Api, QuirksT

UNKNOWN: Final = Provider(kinds=(), needs_key=False)
"""The row of a provider that is not in the table; ``model_info`` must say which API it has."""

PROVIDERS: Final[Mapping[str, Provider]] = {**VENDORS, **CLOUDS, **BEDROCK, **HOSTS, **LOCAL}

_QUIRKS_OF: Final = {"moonshotai": "moonshot"}
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
        row = PROVIDERS.get(_QUIRKS_OF.get(provider, provider), UNKNOWN)
        route = row.route_of(model)
        known = row.quirks if route is None or route.quirks is None else route.quirks
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
