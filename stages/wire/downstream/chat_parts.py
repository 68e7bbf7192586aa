"""What the chunks and the documents of Chat Completions share: annotations, usage and service tiers."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

from stages.events import Citation, Usage
from stages.wire.foreign_json import whole

ServiceTier: TypeAlias = Literal["auto", "default", "flex", "scale", "priority", "fast"]
"""The tiers of Chat Completions; Responses has more (openai-openapi 2.3.0, ServiceTier)."""
SERVICE_TIERS: Final[frozenset[str]] = frozenset(get_args(ServiceTier))


def chat_annotations(citations: tuple[Citation, ...]) -> list[dict[str, Any]]:
    """Return citations in the nested form of Chat Completions."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": whole(citation.url),
                "title": whole(citation.title),
                "start_index": citation.start_index,
                "end_index": citation.end_index,
            },
        }
        for citation in citations
    ]


def chat_usage(usage: Usage, *, with_zeros: bool = False) -> dict[str, Any]:
    """Return usage in the form of Chat Completions.

    Unknown details are left out, because the schema forbids null; with ``with_zeros`` those that clients add up are 0.
    """
    unknown = 0 if with_zeros else None
    details = {
        "prompt_tokens_details": {
            "cached_tokens": unknown if usage.cached_tokens is None else usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": unknown if usage.reasoning_tokens is None else usage.reasoning_tokens
        },
    }
    result: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    for name, values in details.items():
        if known := {key: value for key, value in values.items() if value is not None}:
            result[name] = known
    return result
