"""A deployment's address: how an ``api_base`` becomes a complete address, and what is wrong with one.

All forms that are in use are accepted: a host alone, a base with or without ``/v1``, the complete address, a slash at
the end. The query is kept, the fragment dropped.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from stages.upstreams.apis import APIS
from stages.upstreams.provider import Provider
from stages.wire.api import Api
from stages.wire.chat.api import CHAT
from stages.wire.responses.api import RESPONSES

_ENDINGS: Final = (*(api.endpoint for api in APIS.values()), "/api/chat", "/api/generate")
"""What a complete address ends with; the last two are Ollama's own API."""

_VERSIONED: Final = re.compile(r"/v\d\w*\Z")
_VERSION: Final = re.compile(r"/v\d\w*")
_AZURE_DEPLOYMENT: Final = re.compile(r"/deployments/([^/]+)")
_URL_TEXT: Final = re.compile(r"[!-~]+\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9._\-]+\Z|[0-9A-Fa-f:.]+\Z")

_SHARED_DOMAINS: Final = (".amazonaws.com", ".api.aws", ".azure.com", ".googleapis.com")
"""Domains in which anyone can have a host: only the very same host is the provider's."""


def url_problem(url: str) -> str | None:
    """Return what is wrong with an address of an upstream or proxy, without showing it; None if nothing is."""
    if not _URL_TEXT.match(url):
        return "the URL contains a space, a control character or a character that is not ASCII: expected one such as https://api.example.com/v1"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL's host or port cannot be read: expected one such as https://api.example.com:8443/v1"
    if parts.scheme not in ("http", "https"):
        return "the URL does not start with http:// or https://: expected one such as https://api.example.com/v1"
    if not parts.hostname or port == 0 or not _HOST.match(parts.hostname):
        return "the URL has no valid host: expected one such as https://api.example.com/v1"
    return None


def base_problem(url: str) -> str | None:
    """Return what is wrong with an ``api_base``, without showing it; None if nothing is."""
    if problem := url_problem(url):
        return problem
    if "@" in url:  # anywhere: a password with / ? or # in it ends the host, and what comes before would be shown
        return "the URL contains a user name or password: remove it, and set the key as api_key"
    return None


def default_url(provider: Provider, api: Api[Any]) -> str | None:
    """Return the provider's own address for an API; None if it has none."""
    if provider.origin is None or api.name not in provider.kinds:
        return None
    return endpoint_url(provider.origin, provider, api)


def endpoint_url(base: str, provider: Provider, api: Api[Any]) -> str:
    """Return where to post, for any form of ``api_base``.

    One without a path gets the provider's path, one with a path only the endpoint, as in LiteLLM; where the provider
    ``is_rooted``, and for an API with a version of its own, also a missing ``/v1``. A complete address stays; one of
    another API is changed.
    """
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    for foreign, own in provider.foreign_paths:
        path = foreign.sub(own, path, count=1)
    ending = api.endpoint
    if not path.endswith(ending):
        other = next((other for other in _ENDINGS if path.endswith(other)), "")
        path = path.removesuffix(other)
        path = _with_root(path, provider.root_of(api), provider.is_rooted or api.version is not None) + ending
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _with_root(path: str, root: str, is_rooted: bool) -> str:
    if not path:
        return root
    if not is_rooted or path.endswith(root[root.rfind("/") :]):
        return path
    version = _VERSION.search(root)
    start, end = version.span() if version is not None else (0, 0)
    return path + root[end if _VERSIONED.search(path) else start :]


def azure_url(base: str, version: str | None, api: Api[Any] = RESPONSES, model: str = "") -> str:
    """Return where to post on Azure: the v1 API, or for a dated ``api_version`` the one before it.

    The dated Chat Completions have the deployment's name in the path: that of ``base`` if it has one, else ``model``.

    Source: learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle; LiteLLM's azure/responses and azure/chat.
    """
    parts = urlsplit(base)
    path, query = parts.path.rstrip("/"), parts.query
    ending = api.endpoint
    if path.endswith("/openai/v1"):
        path += ending
    elif not path.endswith(ending):
        # `https://name.openai.azure.com`, also followed by /openai or by /openai/deployments/<name>
        root, _, rest = path.partition("/openai")
        is_dated = version not in (None, "v1", "preview", "latest") or "api-version=" in query
        if rest.startswith("/v1/") or not is_dated:
            path = f"{root}/openai/v1{ending}"
        elif api is CHAT:
            named = _AZURE_DEPLOYMENT.match(rest)
            path = f"{root}/openai/deployments/{named[1] if named else quote(model, safe='*')}{ending}"
        else:
            path = f"{root}/openai{ending}"
    if version not in (None, "v1") and "api-version=" not in query:
        value = "preview" if version == "latest" else version
        query = f"{query}&api-version={value}" if query else f"api-version={value}"
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def is_azure_deployment_of(model: str, url: str) -> bool:
    """Return whether a Chat Completions address names no deployment of Azure, or one of the same name as the model."""
    named = _AZURE_DEPLOYMENT.search(urlsplit(url).path)
    return named is None or named[1] == quote(model, safe="*")


def is_same_owner(url: str, default: str) -> bool:
    """Return whether ``url`` is on the same host as ``default``, or on another of the same domain, over TLS.

    The domain is what the host is in: of ``ark.cn-beijing.volces.com``, where anyone can have a host below
    ``volces.com``, it is ``cn-beijing.volces.com``.
    """
    here, there = urlsplit(url), urlsplit(default)
    host, own = here.hostname or "", there.hostname or ""
    domain = own.partition(".")[2] if own.count(".") > 1 else own
    is_sibling = not own.endswith(_SHARED_DOMAINS) and host.endswith("." + domain)
    return here.scheme == there.scheme and (host == own or is_sibling)
