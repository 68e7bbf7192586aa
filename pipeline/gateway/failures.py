"""How a failure is shown to the client and in the log: one table.

A code says what happened; the client profile says how to report it. HTTP statuses are decided only here, ``error.type``
and the error document only in `stages.wire.downstream.errors`. `docs/errors.md` is generated from both.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from pipeline import PipelineError, UpstreamFault
from pipeline.gateway.http.refusals import RefusalCode, RefusalResponse
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED
from stages.wire.downstream.errors import INVALID_REQUEST, SERVER_ERROR, error_document

EndCode = Literal["OK", "DC", "DS", "UT", "UC", "UE", "UP", "RL", "AU", "OV", "ST", "DR", "BR"]

END_CODES: dict[EndCode, str] = {
    "OK": "the answer is complete",
    "DC": "the client disconnected",
    "DS": "the client stopped reading",
    "UT": "the upstream did not answer in time",
    "UC": "the upstream could not be reached",
    "UE": "the upstream answered with an error",
    "UP": "the upstream broke its protocol",
    "RL": "a limit of the rate was reached: the upstream's, or one of the configuration",
    "AU": "the key is missing, unknown, or not allowed to do this",
    "BR": "the request is not valid",
    "OV": "the gateway or the upstream's connections are overloaded",
    "ST": "a stage failed: a bug of ours or of a plugin's",
    "DR": "ended by a restart",
}


class Row(Struct, frozen=True):
    """One kind of failure."""

    status: int
    end: EndCode
    meaning: str
    """For the documentation: what happened, and what to do."""
    retry_after_s: int | None = None
    """When to try again if the failure itself does not say."""


TABLE: dict[str, Row] = {
    "invalid_request": Row(400, "BR", "The body is not valid; `param` names the field. Correct it."),
    "unsupported_encoding": Row(415, "BR", "The body is compressed. Send it uncompressed."),
    "body_too_large": Row(413, "BR", "The body is larger than `pipeline_settings.max_body_mb`. Shorten the chat."),
    "body_timeout": Row(408, "BR", "The body did not arrive within `pipeline_settings.body_timeout_s`."),
    "unauthorized": Row(401, "AU", "The API key is missing or unknown. Check the key."),
    "model_forbidden": Row(403, "AU", "The key's `models` do not allow this model; the message names others."),
    "master_key_required": Row(403, "AU", "Only the master key may use this path."),
    "metrics_forbidden": Row(403, "AU", "The key may not read the metrics. Use one that has `metrics: true`."),
    "model_not_found": Row(
        404,
        "BR",
        "No entry of `model_list` has this name; the message names those that the key may use, as `GET /cursor/models` "
        "does. With Azure's paths it is the name in the path that counts.",
    ),
    "route_not_found": Row(
        404, "BR", "The path does not exist. The message names the nearest one; the README lists all of them."
    ),
    "record_not_found": Row(
        404, "BR", "The flight recorder does not have this request, or not any more (`recorder_mb`)."
    ),
    "not_installed": Row(409, "BR", "The server lacks an optional package; the message names it."),
    "method_not_allowed": Row(
        405, "BR", "The path does not have this method; `Allow` and the message name those that it has."
    ),
    "upstream_unreachable": Row(
        502, "UC", "The connection was refused, the name has no address, or the TLS handshake failed."
    ),
    "upstream_timeout": Row(504, "UT", "No connection, head or event came in time; the message names the limit."),
    "upstream_protocol": Row(
        502, "UP", "The upstream sent invalid HTTP or an invalid event, or its stream ended early."
    ),
    "upstream_error": Row(502, "UE", "The upstream failed (5xx, or a failed response). Try again."),
    "upstream_rejected": Row(400, "UE", "The upstream does not accept the request."),
    CONTEXT_LENGTH_EXCEEDED: Row(
        400, "UE", "The conversation is too long for the model. Shorten it; Cursor does so by itself, with a summary."
    ),
    "upstream_unauthorized": Row(
        502, "UE", "The upstream does not accept the deployment's key. The operator must replace it."
    ),
    "upstream_not_found": Row(
        502, "UE", "The upstream has no such model or path. Check `model`, `api_base` and `use_chat_completions_api`."
    ),
    "upstream_rate_limited": Row(429, "RL", "The upstream limits the rate. Wait for `Retry-After`."),
    "rate_limited": Row(
        429,
        "RL",
        "The key, or each deployment of the model, has reached one of its limits; the message names it. Wait for "
        "`Retry-After`.",
    ),
    "upstream_pool_full": Row(503, "OV", "All connections to the upstream are in use. Try again.", 1),
    "overloaded": Row(
        503,
        "OV",
        "The gateway is overloaded: `pipeline_settings.max_requests_in_flight` run and no turn came in time, the "
        "loop is held for too long at a time (`max_lag_ms`), or large requests take all of `max_upload_mb_total`. "
        "Try again.",
        1,
    ),
    "draining": Row(503, "DR", "This worker is about to stop. Try again at once.", 1),
    "deadline_exceeded": Row(504, "UT", "The request took longer than `request_timeout_s`."),
    # The HTTP server's own, for what never reaches the application: not in the request log.
    "malformed_request": Row(400, "BR", "The request violates RFC 9112 (HTTP/1.1); the connection is closed."),
    "request_timeout": Row(408, "BR", "The headers did not arrive within `header_timeout_s`."),
    "uri_too_long": Row(414, "BR", "The request line is too long; the connection is closed."),
    "headers_too_large": Row(431, "BR", "The headers are larger than 64 KiB; the connection is closed."),
    "method_not_supported": Row(501, "BR", "The method is unknown to HTTP, or CONNECT."),
    "transfer_coding_not_supported": Row(501, "BR", "The transfer coding is not `chunked`."),
    "http_version_not_supported": Row(505, "BR", "The version is neither HTTP/1.1 nor HTTP/1.0."),
    "too_many_connections": Row(
        503, "OV", "There are more than `pipeline_settings.max_connections` connections. Try again.", 2
    ),
    "internal_error": Row(500, "ST", "A bug in headrace or a plugin; the log has the details."),
}


_JSON: Final = b"application/json"


class Rendered(Struct, frozen=True):
    """A failure as an HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def row_of(code: str) -> Row:
    """Return the row of a code; an unknown code is a bug of ours."""
    return TABLE.get(code) or TABLE["internal_error"]


def render(error: PipelineError, *, as_400: bool = False, as_upstream: bool = False) -> Rendered:
    """Return a failure as a status, headers and a body in OpenAI's error shape.

    Args:
        error: what happened.
        as_400: whether the client hides the text of 429 and 5xx responses, so that every failure that is not about
            its key or model becomes a 400 (Cursor; docs/facts/cursor.md, "Errors that Cursor shows").
        as_upstream: whether a failure of the upstream has the upstream's own status and code: it is the client's own
            upstream, and its key the client's.
    """
    code = error.code if error.code in TABLE else "internal_error"
    row = TABLE[code]
    status, type = row.status, None
    if code == "upstream_rejected" and error.status_hint is not None:
        status = error.status_hint
    shown_code = code
    if as_upstream and isinstance(error, UpstreamFault) and error.status_hint is not None and error.status_hint >= 400:
        status, type = error.status_hint, INVALID_REQUEST if error.status_hint < 500 else SERVER_ERROR
        shown_code = error.upstream_code or code
    if as_400 and status not in (401, 403, 404):
        status, type = 400, INVALID_REQUEST
    body = error_document(error.public, shown_code, type=type, param=error.param, upstream_code=error.upstream_code)
    headers = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body))]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    elif row.retry_after_s is not None and status == row.status:
        headers.append((b"retry-after", b"%d" % row.retry_after_s))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Rendered(status, headers, body)


def refusal(code: RefusalCode, message: str) -> RefusalResponse:
    """Return what the HTTP server answers to a request that never reaches the application."""
    row = TABLE[code]
    return RefusalResponse(row.status, _JSON, error_document(message, code), row.retry_after_s)
