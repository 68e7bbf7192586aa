"""What kind of failure it is, in the words of LiteLLM's policies: it decides whether and where to ask again."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from pipeline import PipelineError, UpstreamFault

FaultKind: TypeAlias = Literal[
    "auth",
    "bad_request",
    "content_policy",
    "context_window",
    "internal",
    "not_found",
    "rate_limit",
    "timeout",
    "unavailable",
]

RETRIED: Final = frozenset({"internal", "rate_limit", "timeout", "unavailable"})
"""What may go well the next time, on the same deployment too. A policy can add others."""

MOVED: Final = RETRIED | {"auth", "not_found"}
"""What says something about this deployment and nothing about the others of its group."""

AT_ONCE: Final = frozenset({"auth", "not_found", "rate_limit"})
"""What ejects a deployment the first time, as it does at LiteLLM: it knows best that it will not answer."""

_KINDS: Final[dict[str, FaultKind]] = {
    "context_length_exceeded": "context_window",
    "upstream_timeout": "timeout",
    "upstream_rate_limited": "rate_limit",
    "upstream_unauthorized": "auth",
    "upstream_not_found": "not_found",
    "upstream_rejected": "bad_request",
}
_STATUSES: Final[dict[int, FaultKind]] = {
    408: "timeout",
    409: "internal",
    425: "internal",
    502: "unavailable",
    503: "unavailable",
    504: "timeout",
    529: "unavailable",
}
_CONTENT: Final = frozenset({"content_filter", "content_policy_violation", "moderation_blocked", "safety"})


def kind_of(fault: PipelineError) -> FaultKind:
    """Return the kind of a failure of an upstream."""
    if getattr(fault, "upstream_code", None) in _CONTENT:
        return "content_policy"
    if (kind := _STATUSES.get(fault.status_hint or 0)) is not None:
        return kind
    return _KINDS.get(fault.code, "internal")


def says_route_exists(fault: PipelineError, kind: FaultKind) -> bool:
    """Return whether a failure, which is not about the route, shows that the server knows it.

    A failed connection, a gateway without a server and a missing model do not.
    """
    is_of_server = isinstance(fault, UpstreamFault) and fault.code not in ("upstream_unreachable", "upstream_protocol")
    return is_of_server and kind not in ("timeout", "unavailable", "not_found")
