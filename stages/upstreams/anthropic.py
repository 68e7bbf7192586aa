"""Upstreams that speak Anthropic's Messages API: the request is translated, with the deployment's model.

Source: Anthropic's Messages reference (2026-08); ``stages/wire/anthropic/request.py`` says how. The key
(``x-api-key``) and ``anthropic-version`` are headers of the deployment, from the configuration.
"""

from __future__ import annotations

from typing import Any

from stages.upstreams import UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.wire.anthropic.request import anthropic_request


class AnthropicUpstream(HttpUpstream):
    """Upstreams of the kind ``anthropic``."""

    def body(self, call: UpstreamCall) -> dict[str, Any]:
        """Give the body in the form of the Messages API."""
        return {**anthropic_request(call.request, model=call.model), "stream": call.request.stream}
