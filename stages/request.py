"""What a client asks for, in one normal form whatever dialect it was written in."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """A request in the shape of the Responses API, cleaned of what an upstream would reject.

    Attributes:
        model: the name that the client asked for.
        stream: whether the client wants server-sent events.
        include_usage: whether the client asked for the usage chunk (``stream_options.include_usage``).
        body: the Responses body without ``model``, ``stream`` and ``stream_options``; fields that we do not know pass
            through. Yours to read, not to change.
        shape: what the client's body looked like.
        custom_tools: names of the tools that take raw text instead of JSON.
        has_hosted_tools: whether tools are declared that the upstream runs itself (web search, MCP ...).
        wants_logprobs: whether the client asked for token log probabilities.
    """

    model: str
    stream: bool
    include_usage: bool
    body: dict[str, Any]  # JSON of a foreign shape
    shape: Literal["responses", "messages"] = "responses"
    custom_tools: frozenset[str] = frozenset()
    has_hosted_tools: bool = False
    wants_logprobs: bool = False
