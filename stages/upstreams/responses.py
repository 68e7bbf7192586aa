"""Upstreams that speak the Responses API: the request is passed on, less what the deployment's provider cannot take.

Source: https://platform.openai.com/docs/api-reference/responses (2025-11).
"""

from __future__ import annotations

from typing import Any

from stages.upstreams import UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.wire.responses.request import native_request


class ResponsesUpstream(HttpUpstream):
    """Upstreams of the kind ``responses``."""

    def body(self, call: UpstreamCall) -> dict[str, Any]:
        """Give the fields of the request's body that the provider can take, ``model`` and ``stream``."""
        request = call.request
        return native_request(request.body, provider=call.deployment.provider, model=call.model, stream=request.stream)
