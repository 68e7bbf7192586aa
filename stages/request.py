"""The client's request in one normal form, in whatever dialect it was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """A request in the shape of the Responses API, cleaned of what an upstream would reject.

    Attributes:
        requested_model: the name that the client asked for. It is shown in the response, and is what the scope of a key
            is about.
        target_model: the name that is looked up instead, if a stage has chosen one. It may lie outside of the key's
            scope: the operator has installed the stage.
        stream: whether the client wants server-sent events.
        include_usage: whether the client asked for the usage chunk (``stream_options.include_usage``).
        body: the Responses body without ``model``, ``stream`` and ``stream_options``; unknown fields pass through. It
            must not be changed.
        shape: the shape of the client's body.
        custom_tools: names of the tools that take raw text instead of JSON.
        has_hosted_tools: whether the request declares tools that the upstream runs itself (web search, MCP ...).
        wants_logprobs: whether the client asked for token log probabilities.
        tool_names: the client's name for each tool that has another name in the body; the names of the custom tools are
            those in the body.
        size_bytes: the size of the client's body.
        sent: the client's body as it came, if it is to be sent on unchanged to an upstream of its own API. It must not
            be changed.
        mended: words of `stages.mending.MENDS`. One set for the whole request, its copies and its answers: whoever
            mends something adds to it.
    """

    requested_model: str
    stream: bool
    include_usage: bool
    body: dict[str, Any]  # JSON of a foreign shape
    shape: Literal["responses", "messages"] = "responses"
    custom_tools: frozenset[str] = frozenset()
    has_hosted_tools: bool = False
    wants_logprobs: bool = False
    tool_names: Mapping[str, str] = field(default_factory=dict[str, str])
    target_model: str | None = None
    size_bytes: int = 0
    sent: dict[str, Any] | None = None  # as above
    mended: set[str] = field(default_factory=set[str])
