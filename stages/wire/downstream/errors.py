"""OpenAI's error document, and `error.type` for each of our error codes: the only place that defines them.

Source: OpenAI's API reference, "Error codes" (2026-08), and the error types that its HTTP API sends.
"""

from __future__ import annotations

from typing import Final

from stages.events import Failed
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED
from stages.wire.foreign_json import encode, whole

INVALID_REQUEST: Final = "invalid_request_error"
SERVER_ERROR: Final = "server_error"

_TYPES: Final = {
    "unauthorized": "authentication_error",
    "model_forbidden": "permission_error",
    "master_key_required": "permission_error",
    "metrics_forbidden": "permission_error",
    "upstream_rate_limited": "rate_limit_error",
    "rate_limited": "rate_limit_error",
    **dict.fromkeys(
        (
            "invalid_request",
            "unsupported_encoding",
            "body_too_large",
            "body_timeout",
            "model_not_found",
            "route_not_found",
            "method_not_allowed",
            "record_not_found",
            "not_installed",
            "upstream_rejected",
            CONTEXT_LENGTH_EXCEEDED,
            "malformed_request",
            "request_timeout",
            "uri_too_long",
            "headers_too_large",
        ),
        INVALID_REQUEST,
    ),
}

_PARAMS: Final = {CONTEXT_LENGTH_EXCEEDED: "messages"}
"""The field to blame whatever the upstream blames: its own field may not be one that the client has sent."""

NO_END: Final = Failed(code="upstream_protocol", message="The answer ended before it was complete; try again.")
"""The failure of a stream of events without Finished or Failed."""


def error_type(code: str) -> str:
    """Return ``error.type`` for one of our error codes."""
    return _TYPES.get(code, SERVER_ERROR)


def error_document(
    message: str, code: str, *, type: str | None = None, param: str | None = None, upstream_code: str | None = None
) -> bytes:
    """Return the error document.

    Args:
        message: safe to show to the client.
        code: one of our error codes.
        type: ``error.type`` if it is not the code's own.
        param: the field to blame, as ``input[3].role``.
        upstream_code: the upstream's own code, if it has one.
    """
    param = _PARAMS.get(code, param)
    error = {"message": whole(message), "type": type or error_type(code), "param": param, "code": code}
    if (shown := _shown(upstream_code, code)) is not None:
        error["upstream_code"] = whole(shown)
    return encode({"error": error})


def error_frame(failed: Failed) -> bytes:
    """Return the event that reports a failure to an SDK in mid-stream: an ``error`` and no other field.

    Some SDKs take a chunk that has ``choices`` beside ``error``, or an ``error`` that is a string, for success.
    Nothing may follow the event, not even ``[DONE]``.
    """
    return b"data: " + error_document(failed.message, failed.code, upstream_code=failed.upstream_code) + b"\n\n"


def shown_code(failed: Failed) -> str:
    """Return the word for a failure in a text: the upstream's own, if a client may see it."""
    return _shown(failed.upstream_code, failed.code) or failed.code


def _shown(upstream_code: str | None, code: str) -> str | None:
    """Return the upstream's own code if a client may see it.

    Cursor takes a text with ``overloaded_error: Overloaded`` for a rate limit of the user's key
    (docs/facts/cursor.md, "Errors that Cursor shows"). A conversation that is too long has exactly OpenAI's form.
    """
    hidden = not upstream_code or upstream_code == "overloaded_error" or code == CONTEXT_LENGTH_EXCEEDED
    return None if hidden else upstream_code
