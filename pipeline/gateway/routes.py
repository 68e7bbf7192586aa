"""What a path means. The application, its pages and the door of our server all ask here.

Cursor and the SDKs append ``/chat/completions`` or ``/models`` to whatever was entered as the base URL: with
``/cursor``, ``/v1`` or Azure's ``/openai``, with several of them, with a slash at the end. All of these are aliases.
So are the paths that name the model: Azure OpenAI's, which Cursor's Azure settings use, and those of OpenAI's old
engines, which LiteLLM has.

A path is split before it is decoded, and only the model's name is decoded at all. So ``%2F`` never separates two
segments, and no path is an alias only because of how it is encoded. ``/latency``, ``/metrics``, ``/openapi.json`` and
the health checks have no aliases at all: a proxy in front that denies ``/metrics`` has denied all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, unquote

Kind = Literal["chat", "models", "model", "base", "admin", "health", "live", "doctor", "openapi"]

PAGE_PATH: Final = "/latency"
METRICS_PATH: Final = "/metrics"
HEALTH_PATH: Final = "/health"
OPENAPI_PATH: Final = "/openapi.json"
ALIVE_PATHS: Final = ("/health/liveliness", "/health/liveness", "/livez")
READY_PATHS: Final = ("/health/readiness", "/readyz")

BASES: Final = tuple(map("".join, product(("", "/cursor"), ("", "/openai"), ("", "/v1"))))
"""What may come before ``/chat/completions`` and ``/models``: the base URLs, without scheme and host."""
BASES_OF_NAMED: Final = tuple(base for base in BASES if "/openai" not in base)
"""What may come before the paths of a chat that name the model."""
NO_BASE: Final = ("",)

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
    "openapi": _GET,
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


class PathTemplate(NamedTuple):
    """A path that is served, with the names of its parameters in braces.

    Attributes:
        path: without its base.
        kind: what it is.
        bases: what may come before it. One that has `NO_BASE` must be sent exactly as it is written.
    """

    path: str
    kind: Kind
    bases: tuple[str, ...] = NO_BASE


TEMPLATES: Final = (
    PathTemplate("/chat/completions", "chat", BASES),
    PathTemplate("/openai/deployments/{model}/chat/completions", "chat", BASES_OF_NAMED),
    PathTemplate("/engines/{model}/chat/completions", "chat", BASES_OF_NAMED),
    PathTemplate("/models", "models", BASES),
    PathTemplate("/models/{model}", "model", BASES),
    PathTemplate("/doctor", "doctor", BASES),
    PathTemplate("/", "base", BASES),
    PathTemplate(HEALTH_PATH, "health"),
    *(PathTemplate(path, "live") for path in (*ALIVE_PATHS, *READY_PATHS)),
    PathTemplate(OPENAPI_PATH, "openapi"),
    PathTemplate(METRICS_PATH, "admin"),
    PathTemplate(PAGE_PATH, "admin"),
    *(
        PathTemplate(f"{PAGE_PATH}/{rest}", "admin")
        for rest in (
            *("static/{file}", "now", "running", "records", "requests"),
            *("requests/{request_id}", "requests/{request_id}/trace"),
        )
    ),
)
"""All paths. Those with ``{model}`` are tried in this order; `pipeline.gateway.admin.dispatch` reads the others."""


def _meanings(*, with_bases: bool) -> dict[bytes, ServedPath]:
    return {
        (f"{base}{path}".rstrip("/") or "/").encode(): ServedPath(kind)
        for path, kind, bases in TEMPLATES
        for base in bases
        if "{" not in path and (bases is not NO_BASE) == with_bases
    }


def _pattern(template: PathTemplate) -> re.Pattern[bytes]:
    before, after = map(re.escape, template.path.split("{model}"))
    return re.compile(f"(?:{'|'.join(map(re.escape, template.bases))}){before}(?P<name>.+){after}".encode())


_BY_BASE: Final = _meanings(with_bases=True)
_AS_SENT: Final = {**_BY_BASE, **_meanings(with_bases=False)}
_NAMED: Final[list[tuple[re.Pattern[bytes], Kind]]] = [
    (_pattern(template), template.kind) for template in TEMPLATES if "{model}" in template.path
]
_ADMIN: Final = ServedPath("admin")
_BELOW_PAGE: Final = f"{PAGE_PATH}/".encode()
_SLASHES: Final = re.compile(rb"/{2,}")
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
    for pattern, kind in _NAMED:
        if (named := pattern.fullmatch(path)) is not None:
            return ServedPath(kind, _decoded(named["name"]))
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
