"""The headers of responses, and those in which a request may have its key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.gateway.cors import EXPOSED
from pipeline.gateway.openapi.schemas import Schema
from stages.authenticate import AUTHORIZATION, GATEWAY_KEY, KEY_HEADERS

_WHAT: Final = {
    "x-request-id": "The request's own id, if it sent one that is valid; else one that was made for it.",
    "x-headrace-deployment": "The deployment that answers.",
    "x-headrace-attempts": "How many deployments were asked, if it was not one.",
    "retry-after": "In how many seconds to try again.",
    "server-timing": "Where the time went (W3C Server Timing), if `server_timing` is set and the answer is whole.",
    "x-ratelimit-limit-requests": "How many requests a minute may have, if the key or the deployment has a limit.",
    "x-ratelimit-remaining-requests": "How many of them are left.",
    "x-ratelimit-reset-requests": "In how many seconds all of them are, as `12s`.",
    "x-ratelimit-limit-tokens": "How many tokens a minute may have, if there is a limit.",
    "x-ratelimit-remaining-tokens": "How many of them are left.",
    "x-ratelimit-reset-tokens": "In how many seconds all of them are, as `12s`.",
    "www-authenticate": "`Bearer`.",
    "etag": "The tag of this version, for `If-None-Match`.",
    "x-headrace-cursor": "What to send as `after` next.",
    "x-headrace-lost": "How many lines were overwritten before they could be read.",
    "x-headrace-more": "`1` if there are more lines than one response may have.",
}
_NUMBERS: Final = (
    *("x-headrace-attempts", "retry-after", "x-headrace-lost"),
    *(name for name in EXPOSED if name.startswith(("x-ratelimit-limit-", "x-ratelimit-remaining-"))),
)
ALWAYS: Final = ("x-request-id",)
OF_CHATS: Final = tuple(name for name in EXPOSED if name != "retry-after")
OF_STATUS: Final[dict[int | None, tuple[str, ...]]] = {
    401: ("www-authenticate",),
    429: ("retry-after", *(name for name in EXPOSED if name.startswith("x-ratelimit-"))),
    503: ("retry-after",),
}
"""Those of errors, besides the headers that all responses of the path have."""


def header_components() -> dict[str, Schema]:
    """Return all of them, by name."""
    return {
        name: {
            "description": what,
            "schema": {"type": "integer" if name in _NUMBERS else "string"},
        }
        for name, what in _WHAT.items()
    }


def headers_of(names: Iterable[str]) -> Schema:
    """Return what refers to some of them; no field if there are none."""
    refs = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"headers": refs} if refs else {}


def security_schemes() -> dict[str, Schema]:
    """Return the ways to send a key, by name. Each of them alone is enough."""
    headers = [name.decode() for name in (*KEY_HEADERS, GATEWAY_KEY) if name != AUTHORIZATION]
    bearer = {"type": "http", "scheme": "bearer", "description": "A key of this gateway; what clients usually send."}
    return {
        "bearer": bearer,
        **{name: {"type": "apiKey", "in": "header", "name": name, "description": _SAME} for name in headers},
    }


_SAME: Final = (
    "The same key in another header. If `pipeline_settings.key_header` names a header, only that one is looked at."
)
