"""The failures of upstreams: which code each has, and the message that a client is shown.

Codes: ``upstream_unreachable``, ``upstream_timeout``, ``upstream_protocol``, ``upstream_rate_limited``,
``upstream_unauthorized``, ``upstream_not_found``, ``upstream_rejected``, ``context_length_exceeded``,
``upstream_error``, and ``upstream_pool_full`` and ``overloaded`` for shortages of our own.

A failure is an exception to raise as long as the answer has not begun, and an event in its place in the stream
afterwards (`failed_from`, `fault_from`).

A message never quotes a foreign exception, and an exception that may quote a header is not kept as a cause either: h11
and httpx quote the header that they refuse, including the key. What an upstream itself reports is quoted, redacted
(`stages.wire.redaction`).
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Literal

import httpx

from pipeline import Overloaded, PipelineError, UpstreamFault
from stages.events import Failed
from stages.upstreams.error_body import read_error
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED, beginning_with, sentence_on_length
from stages.wire.answers.failures import MAX_CODE_CHARACTERS
from stages.wire.redaction import message_to_show

Phase = Literal["head", "first_event", "idle", "total"]
"""What a call is waiting for after its request has been sent; ``total`` is the end of the answer."""

API_BASE: Final = "api_base"
"""Where the address of an upstream comes from, in a configuration file."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""This process or this machine cannot open another connection, to anyone."""

_QUOTING_ERRORS = (httpx.LocalProtocolError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)


def failed_from(fault: PipelineError) -> Failed:
    """Return a raised fault as the last event of a stream, so that it does not overtake the events before it."""
    return Failed(fault.code, fault.public, fault.upstream_code, fault.retry_after_s)


def fault_from(failed: Failed) -> UpstreamFault:
    """Return a stream's failure as an exception to raise, for a stream that failed before anything was sent."""
    return UpstreamFault(
        failed.message, code=failed.code, retry_after_s=failed.retry_after_s, upstream_code=failed.upstream_code
    )


def fault_of_exception(
    error: Exception,
    upstream_name: str,
    phase: Phase,
    limits_s: Mapping[str, float | None],
    setting: str = API_BASE,
) -> PipelineError:
    """Return the fault that an exception of the transport stands for.

    Args:
        error: one of ``FOREIGN_ERRORS`` (`stages.upstreams.transport.exchange`).
        upstream_name: what the message calls the upstream.
        phase: what the call was waiting for.
        limits_s: the time limits of the call, by phase, and for ``connect`` and ``write``.
        setting: where the upstream's address comes from, to be checked.
    """
    fault = _fault_of_exception(error, upstream_name, phase, limits_s, setting)
    if not isinstance(error, _QUOTING_ERRORS):
        fault.__cause__ = error
    return fault


def _fault_of_exception(
    error: Exception, upstream_name: str, phase: Phase, limits_s: Mapping[str, float | None], setting: str
) -> PipelineError:
    def late(what: str, limit_s: float | None) -> UpstreamFault:
        within = "in time" if limit_s is None else f"within {limit_s:g} s"
        return UpstreamFault(f"{upstream_name} {what} {within}; try again later", code="upstream_timeout")

    match error:
        case httpx.PoolTimeout():
            return Overloaded(
                f"all connections to {upstream_name} are in use; try again in a moment",
                code="upstream_pool_full",
                retry_after_s=1.0,
            )
        case httpx.ConnectTimeout():
            return late("did not accept our connection", limits_s.get("connect"))
        case httpx.WriteTimeout():
            return late("did not accept the whole request", limits_s.get("write"))
        case httpx.ReadTimeout():
            return late(_LATE[phase], limits_s.get(phase))
        case httpx.LocalProtocolError() | UnicodeError() | httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return UpstreamFault(
                f"{upstream_name} cannot be called: its configured address or one of its headers is not valid; "
                f"check {setting}, api_key and extra_headers",
                code="upstream_unreachable",
            )
        case httpx.ConnectError() | httpx.ProxyError():
            if any(isinstance(cause, OSError) and cause.errno in _NO_ROOM for cause in _causes(error)):
                return Overloaded(
                    f"the gateway has no file descriptor or memory left for a connection to {upstream_name}; try again "
                    "in a moment (the operator can raise the limit of open files, or lower max_connections)",
                    retry_after_s=1.0,
                )
            return UpstreamFault(
                f"{upstream_name} cannot be reached: {_why_unreachable(error, setting)}", code="upstream_unreachable"
            )
        case httpx.RemoteProtocolError() if phase == "head":
            return UpstreamFault(
                f"{upstream_name} closed the connection or broke the HTTP protocol before it answered; try again",
                code="upstream_protocol",
            )
        case _ if phase == "head":
            return UpstreamFault(
                f"{upstream_name} broke the connection before it answered; try again", code="upstream_protocol"
            )
        case _:
            return UpstreamFault(
                f"{upstream_name} broke off in the middle of its answer; try again", code="upstream_protocol"
            )


def fault_of_total(upstream_name: str, limit_s: float | None) -> UpstreamFault:
    """Return the fault of a call that has exceeded its total time limit."""
    return UpstreamFault(
        f"{upstream_name} did not finish its answer within {limit_s or 0:g} s; try again later", code="upstream_timeout"
    )


_LATE: Mapping[Phase, str] = {
    "head": "did not begin to answer",
    "first_event": "began to answer but sent nothing",
    "idle": "stopped sending in the middle of its answer: nothing came",
    "total": "did not finish its answer",
}


def _why_unreachable(error: BaseException, setting: str) -> str:
    """Return the reason, found in the causes of ``error``, in our own words."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                authority = "ca_file" if setting == API_BASE else "SSL_CERT_FILE"
                return (
                    f"its TLS certificate is not trusted; check {setting}, or set {authority} to that of its authority"
                )
            case ssl.SSLError():
                return f"the TLS handshake failed; check whether {setting} should start with https://"
            case socket.gaierror():
                return f"its name does not resolve; check {setting}"
            case ConnectionRefusedError():
                return f"it refused the connection; check that it is running, and check {setting}"
            case _:
                pass
    return f"no connection could be established; check that it is running, and check {setting}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what led to it, each once."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def fault_of_status(
    status: int, headers: httpx.Headers, body: bytes, upstream_name: str, secrets: Iterable[str]
) -> UpstreamFault:
    """Return the fault that an answer with an error status stands for.

    Args:
        status: the status, not 2xx.
        headers: the answer's headers.
        body: as much of the body as could be read, perhaps nothing.
        upstream_name: what the message calls the upstream.
        secrets: what must not be shown if the upstream echoes it; `stages.wire.redaction.secrets_in` finds them.
    """
    if 300 <= status < 400:
        return UpstreamFault(
            f"{upstream_name} answered {status}, a redirect, which is not followed; set api_base to the final address",
            code="upstream_protocol",
            status_hint=status,
        )
    said = read_error(body, headers.get("content-encoding", ""))
    shown = message_to_show(said.message, secrets)
    word = said.kind if said.code in ("", str(status)) else said.code
    word = "" if word in _SAYS_NOTHING else word
    upstream_code = message_to_show(word, secrets, max_characters=MAX_CODE_CHARACTERS) or None
    if status >= 400 and (sentence := sentence_on_length(said.message, said.code, said.kind, str(status))) is not None:
        # When to try again does not matter: only a shorter conversation can be answered.
        return UpstreamFault(
            beginning_with(sentence, shown),
            code=CONTEXT_LENGTH_EXCEEDED,
            status_hint=status,
            upstream_code=upstream_code,
        )
    return UpstreamFault(
        f"upstream answered {status}: {shown or _phrase_of(status)}",
        code=_code_of(status),
        param=message_to_show(said.param, secrets) or None,
        retry_after_s=retry_after_s(headers),
        status_hint=status,
        upstream_code=upstream_code,
    )


_SAYS_NOTHING = frozenset({"error", "invalid_request_error"})
"""Types of errors that have no code."""


def _code_of(status: int) -> str:
    match status:
        case 429:
            return "upstream_rate_limited"
        case 401 | 403:
            return "upstream_unauthorized"
        case 404:
            return "upstream_not_found"
        case _ if 400 <= status < 500:
            return "upstream_rejected"
        case _ if 500 <= status < 600:
            return "upstream_error"
        case _:
            return "upstream_protocol"


def _phrase_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Return how many seconds the upstream asks to wait; None if it does not ask, or not in a form that we know.

    The forms are ``retry-after-ms`` (OpenAI, Azure) and both of ``Retry-After`` (RFC 9110 section 10.2.3).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            return float(value) * scale
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    now = _moment(headers.get("date")) or datetime.now(UTC)  # the upstream's clock, if it sends a date
    return max(0.0, (until - now).total_seconds())


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
