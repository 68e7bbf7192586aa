"""What a path means. The application, its pages and the door of our server all ask here.

Cursor and the SDKs append ``/chat/completions`` or ``/models`` to whatever was entered as the base URL: with
``/cursor``, ``/v1`` or Azure's ``/openai``, with several of them, with a slash at the end. All of these are aliases.
So are the paths that name the model: Azure OpenAI's, which Cursor's Azure settings use, and those of OpenAI's old
engines, which LiteLLM has.

A path is split before it is decoded, and only the model's name is decoded at all. So ``%2F`` never separates two
segments, and no path is an alias only because of how it is encoded. ``/latency``, ``/metrics`` and the health checks
have no aliases at all: a proxy in front that denies ``/metrics`` has denied all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, unquote

Kind = Literal["chat", "models", "model", "base", "admin", "health", "live", "doctor"]

PAGE_PATH: Final = "/latency"
METRICS_PATH: Final = "/metrics"
HEALTH_PATH: Final = "/health"
ALIVE_PATHS: Final = ("/health/liveliness", "/health/liveness", "/livez")
READY_PATHS: Final = ("/health/readiness", "/readyz")

BASES: Final = tuple(map("".join, product(("", "/cursor"), ("", "/openai"), ("", "/v1"))))
"""What may come before ``/chat/completions`` and ``/models``: the base URLs, without scheme and host."""

_GET: Final = ("GET", "HEAD")
METHODS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "chat": ("POST",),
    "models": _GET,
    "model": _GET,
    "base": _GET,
    "admin": _GET,
    "health": _GET,
    "live": _GET,
    "doctor": _GET,
}
"""The methods of each kind of path, besides OPTIONS."""


class ServedPath(NamedTuple):
    """What a path means.

    Attributes:
        kind: what it is.
        model: the model that it names, decoded, if it does.
    """

    kind: Kind
    model: str | None = None


_CHAT: Final = ServedPath("chat")
_MODELS: Final = ServedPath("models")
_BASE: Final = ServedPath("base")
_ADMIN: Final = ServedPath("admin")
_DOCTOR: Final = ServedPath("doctor")

_BY_BASE: Final[dict[bytes, ServedPath]] = {
    **{f"{base}/chat/completions".encode(): _CHAT for base in BASES},
    **{f"{base}/models".encode(): _MODELS for base in BASES},
    **{f"{base}/doctor".encode(): _DOCTOR for base in BASES},
    **{(base or "/").encode(): _BASE for base in BASES},
}
_AS_SENT: Final[dict[bytes, ServedPath]] = {
    **_BY_BASE,
    PAGE_PATH.encode(): _ADMIN,
    METRICS_PATH.encode(): _ADMIN,
    HEALTH_PATH.encode(): ServedPath("health"),
    **{path.encode(): ServedPath("live") for path in (*ALIVE_PATHS, *READY_PATHS)},
}
_BELOW_PAGE: Final = f"{PAGE_PATH}/".encode()
_SLASHES: Final = re.compile(rb"/{2,}")
_CHAT_OF_MODEL: Final = re.compile(
    rb"(?:/cursor)?(?:/v1)?/(?:openai/deployments|engines)/(?P<name>.+)/chat/completions"
)
_MODEL: Final = re.compile(rb"(?:/cursor)?(?:/openai)?(?:/v1)?/models/(?P<name>.+)")
_BASE_OF_ANY: Final = re.compile(r"(?:/+(?:cursor|openai|v1|(?:deployments|engines)/+[^/]+)(?=/))*/+")


def served_path_of(raw_path: bytes) -> ServedPath | None:
    """Return what a path means; None if it means nothing here.

    Args:
        raw_path: the path as it was sent, without the query.
    """
    if (found := _AS_SENT.get(raw_path)) is not None:
        return found
    if raw_path.startswith(_BELOW_PAGE):
        return _ADMIN
    path = _SLASHES.sub(b"/", raw_path)
    if len(path) > 1 and path.endswith(b"/"):
        path = path[:-1]
    if (found := _BY_BASE.get(path)) is not None:
        return found
    if (named := _CHAT_OF_MODEL.fullmatch(path)) is not None:
        return ServedPath("chat", _decoded(named["name"]))
    if (named := _MODEL.fullmatch(path)) is not None:
        return ServedPath("model", _decoded(named["name"]))
    return None


def without_base(path: str) -> str:
    """Return what follows the base URL in a path that need not exist: ``responses`` of ``/cursor/v1/responses``."""
    base = _BASE_OF_ANY.match(path)
    return path if base is None else path[base.end() :]


def raw_path_of(scope: Mapping[str, Any]) -> bytes:
    """Return the path of an ASGI scope as it was sent; a server may leave that out, and then it is encoded again."""
    raw_path: bytes | None = scope.get("raw_path")
    return quote(scope["path"]).encode("ascii") if raw_path is None else raw_path


def _decoded(name: bytes) -> str:
    return unquote(name.decode("ascii", "replace"))
