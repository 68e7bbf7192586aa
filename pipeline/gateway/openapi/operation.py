"""What can be said of a path, in the words of the document's modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from msgspec import Struct

from pipeline.gateway.http.refusals import RefusalCode
from pipeline.gateway.openapi.schemas import Schema

Tag = Literal["chat", "models", "health", "latency", "about"]
TAGS: Final[Mapping[Tag, str]] = {
    "chat": "For clients: ask a model.",
    "models": "For clients: which models there are.",
    "health": "For balancers, and for whoever operates the gateway.",
    "latency": "For whoever asks where the time goes.",
    "about": "What this is.",
}
JSON: Final = "application/json"
TEXT: Final[Schema] = {"type": "string"}
UNCHANGED: Final[Schema] = {"304": {"description": "`If-None-Match` has the tag of this version."}}
KEY_CODES: Final = ("invalid_request", "unauthorized")
"""The codes of errors of a path that needs a key."""
MASTER_CODES: Final = (*KEY_CODES, "master_key_required")
EVERYWHERE: Final[tuple[str, ...]] = (*get_args(RefusalCode), "method_not_allowed")
"""What any path may answer: the default response has these."""


class Query(Struct, frozen=True):
    """A parameter of a query."""

    name: str
    what: str
    schema: Schema


class Operation(Struct, frozen=True, kw_only=True):
    """What a path does.

    Attributes:
        id: a name for code that is generated.
        needs_key: whether a key is needed; which one, the description says.
        content: what is answered with 200: schemas, by media type.
        codes: of the errors that it may answer, besides `EVERYWHERE`.
        also: other responses.
        headers: those of the answer.
    """

    id: str
    tag: Tag
    summary: str
    description: str = ""
    needs_key: bool = True
    content: Mapping[str, Schema]
    codes: tuple[str, ...] = ()
    also: Mapping[str, Schema] = {}
    headers: tuple[str, ...] = ()
    query: tuple[Query, ...] = ()
