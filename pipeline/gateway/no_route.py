"""What is said of a path that does not exist here, or not for a method: what there is instead."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final
from urllib.parse import unquote

from pipeline import ClientFault
from pipeline.gateway.routes import (
    ALIVE_PATHS,
    BASES,
    HEALTH_PATH,
    METHODS,
    METRICS_PATH,
    OPENAPI_PATH,
    PAGE_PATH,
    READY_PATHS,
    ServedPath,
    without_base,
)

MAX_SHOWN_CHARS: Final = 200
"""So much of a path is repeated in a message."""
MAX_COMPARED_CHARS: Final = 64
"""Longer paths are compared with none of ours: that takes quadratic time, and anybody may ask."""
_LIKENESS: Final = 0.8

_BASE_URLS: Final = "Cursor's base URL must end in /cursor, an SDK's in /v1"
_NOT_CHATS: Final = (
    *("embeddings", "images", "audio", "videos", "moderations", "rerank", "batches", "files", "fine_tuning"),
    *("assistants", "threads", "vector_stores", "realtime"),
)
_MANAGEMENT: Final = ("key", "user", "team", "organization", "customer", "budget", "spend", "global", "ui")
_NOT_SERVED: Final[Mapping[str, str]] = {
    "responses": "the Responses API has no path of its own here: {chat} reads its bodies too, and answers in the form "
    "of Chat Completions",
    "messages": "Anthropic's Messages API is not served: {chat} reads messages and tools in Anthropic's form too, and "
    "answers in the form of Chat Completions",
    "completions": "text completions are not served, only chat completions: {chat}",
    **dict.fromkeys(_NOT_CHATS, "this gateway serves chat models only, at {chat}"),
    **dict.fromkeys(
        (*_MANAGEMENT, "model/info", "model/new"),
        "this gateway has no management API: its keys and models are in its configuration file",
    ),
}
"""APIs that clients of OpenAI, Anthropic or LiteLLM look for, by the first part of their paths."""
_METHOD_OF: Final[Mapping[str, str]] = {
    **{f"{base}/chat/completions": "POST" for base in BASES},
    **dict.fromkeys((f"{base}/models" for base in BASES), "GET"),
    **dict.fromkeys((PAGE_PATH, METRICS_PATH, HEALTH_PATH, OPENAPI_PATH, *ALIVE_PATHS, *READY_PATHS), "GET"),
}


def no_route(path: str) -> ClientFault:
    """Return the failure of a request for a path that does not exist.

    Args:
        path: as the client sent it, without the query; decoded, it might look like one that exists.
    """
    return ClientFault(f"there is no path {_shown(path)}: {_instead(unquote(path))}", code="route_not_found")


def not_allowed(path: str, method: str, served: ServedPath) -> ClientFault:
    """Return the failure of a request with a method that its path does not have."""
    message = f"{_shown(path)} does not accept {method}: use {METHODS[served.kind][0]}"
    if served.kind == "base":
        message += f". It is a base URL, to which clients add a path: {_chat_below(path)}"
    return ClientFault(message, code="method_not_allowed")


def _instead(path: str) -> str:
    chat = _chat_below(path)
    rest = without_base(path)
    if (why := _NOT_SERVED.get(rest) or _NOT_SERVED.get(rest.partition("/")[0])) is not None:
        return why.format(chat=chat)
    for end in ("/chat/completions", "/models"):
        if path.rstrip("/").endswith(end):
            ours = chat if end == "/chat/completions" else f"GET {_base_of(path)}{end}"
            return f"it is {ours}. {_BASE_URLS}"
    near = get_close_matches(path, _METHOD_OF, n=1, cutoff=_LIKENESS) if len(path) <= MAX_COMPARED_CHARS else []
    if near:
        return f"did you mean {_METHOD_OF[near[0]]} {near[0]}?"
    return f"there are {chat} and GET {_base_of(path)}/models. {_BASE_URLS}"


def _chat_below(path: str) -> str:
    return f"POST {_base_of(path)}/chat/completions"


def _base_of(path: str) -> str:
    return "/cursor" if path.startswith("/cursor") else "/v1"


def _shown(path: str) -> str:
    return path if len(path) <= MAX_SHOWN_CHARS else f"{path[:MAX_SHOWN_CHARS]}..."
