"""What an upstream's error document says, in whichever shape: the message, the code, the field it blames.

The shapes are those of OpenAI and most (``{"error": {...}}``), Ollama and xAI (``{"error": "..."}``), vLLM and Mistral
(``{"object": "error", "message": ...}``), FastAPI (``{"detail": ...}``) and Google (a list of one). OpenRouter keeps
the vendor's own document, or its text, in ``error.metadata.raw`` beside a message that says nothing ("Provider
returned error"; openrouter.ai/docs, "Errors", 2026-11).
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from stages.wire.foreign_json import Json, is_list, is_object, text

_MAX_DEPTH: Final = 3
"""How many documents may be within one another: a gateway's, OpenRouter's, the vendor's."""


class Reported(Struct, frozen=True):
    """An error as an upstream words it; what it does not say is empty.

    Attributes:
        message: its own text, and the text of the document in ``metadata.raw``.
        code: ``code``, or Google's ``status`` (``INVALID_ARGUMENT``).
        kind: ``type``.
        param: the field to blame.
    """

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str = ""


def reported_in(document: Json, depth: int = 0) -> Reported:
    """Return what a decoded error document says; nothing if it has none of the known shapes."""
    if is_list(document):
        document = document[0] if document else None
    if not is_object(document):
        return Reported()
    error = document.get("error")
    if is_object(error) and is_object(error.get("error")):
        error = error["error"]
    if not is_object(error):
        error = document
    detail = error.get("detail")
    if is_list(detail):
        detail = detail[0] if detail else None
    if is_object(detail):
        error = detail
    reason = reason_in(error.get("metadata"), depth)
    message = text(error.get("message")) or text(error.get("msg")) or text(error.get("error")) or text(detail)
    status = text(error.get("status"))
    return Reported(
        joined(message, reason.message),
        reason.code or code_of(error.get("code")) or (status if status.isupper() else ""),
        reason.kind or text(error.get("type")),
        text(error.get("param")) or reason.param,
    )


def reason_in(metadata: Json, depth: int = 0) -> Reported:
    """Return what ``error.metadata.raw`` says: a JSON document, the same as a string, or a plain text."""
    raw = metadata.get("raw") if is_object(metadata) else None
    if depth >= _MAX_DEPTH:
        return Reported()
    if isinstance(raw, str):
        return reported_in_text(raw, depth + 1)
    return reported_in(raw, depth + 1)


def reported_in_text(raw: str, depth: int = 0) -> Reported:
    """Return what a JSON document in a string says; any other string is the message itself."""
    try:
        document: Json = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Reported("" if raw.lstrip()[:1] in ("{", "[", "<") else raw.strip())  # a document that is cut, or HTML
    return Reported(document) if isinstance(document, str) else reported_in(document, depth)


def joined(message: str, reason: str) -> str:
    """Return the message with the reason after it, unless it says the same."""
    if not message or not reason or reason in message:
        return message or reason
    return f"{message.rstrip('.:')}: {reason}"


def code_of(value: object) -> str:
    """Return a ``code`` field as a word: some vendors have numbers there."""
    return str(value) if type(value) is int else text(value)
