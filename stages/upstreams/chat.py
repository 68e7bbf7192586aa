"""Upstreams that speak Chat Completions: the request is translated, with the deployment's model.

Source: https://platform.openai.com/docs/api-reference/chat (2025-11); ``stages/wire/chat/request.py`` says how.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.wire.chat.request import chat_request

COMPATIBLE = "openai_compatible"
"""The dialect of a server of which nothing is known but that it speaks Chat Completions."""


class ChatUpstream(HttpUpstream):
    """Upstreams of the kind ``chat``."""

    def body(self, call: UpstreamCall) -> dict[str, Any]:
        """Give the body in the form of Chat Completions."""
        return chat_request(call.request, model=call.model, provider=provider_of(call.deployment))


def provider_of(deployment: Deployment) -> str:
    """Say whose server a deployment is, as far as requests differ.

    ``openai/...`` with an ``api_base`` of one's own is how any compatible server is configured, and those know neither
    the ``developer`` role nor custom tools.
    """
    host = urlsplit(deployment.url).hostname or ""
    if deployment.provider == "openai" and host != "openai.com" and not host.endswith(".openai.com"):
        return "azure" if host.endswith((".azure.com", ".microsoft.com")) else COMPATIBLE
    return deployment.provider
