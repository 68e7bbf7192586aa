"""What an upstream's failure is called, and what may be said about it.

Codes: ``upstream_unreachable``, ``upstream_timeout``, ``upstream_protocol``, ``upstream_rate_limited``,
``upstream_unauthorized``, ``upstream_not_found``, ``upstream_rejected``, ``upstream_error``, and
``upstream_pool_full`` for a shortage of our own.

No text of a foreign exception gets into a message, and none that may quote a header is kept as a cause: h11 and
httpx quote the header that they refuse, key and all.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal

import httpx
import msgspec

from pipeline import Overloaded, PipelineError, UpstreamFault

MESSAGE_CHARS = 2000
"""How much of an upstream's own message is passed on."""

Phase = Literal["head", "first_event", "idle", "total"]
"""What a call is waiting for once its request is sent, or that its whole time is over."""


_QUOTING_ERRORS = (httpx.LocalProtocolError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)

_KEY_LIKE = re.compile(
    r"""
    \b(?:bearer|basic)\s+[^\s"',;]+                              # a whole Authorization value
    | \b(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|pplx|fw|ghp|glpat)[-_](?:[\w*…•-]|\.(?=[\w*.…•]))+   # keys, whole or masked
    | \bAIza[\w-]{8,} | \bAKIA[A-Z0-9]{8,} | \beyJ[\w-]{8,}\.[\w.-]+  # Google, AWS, JSON web tokens
    | [\w-]{0,20}\*{3,}[\w-]*                                     # anything masked with asterisks
    """,
    re.VERBOSE | re.IGNORECASE,
)
_REDACTED = "[redacted]"


def fault_of_exception(error: Exception, who: str, phase: Phase, limits_s: Mapping[str, float | None]) -> PipelineError:
    """Say what one of `FOREIGN_ERRORS` means; ``who`` names the upstream, ``limits_s`` the time it had for what."""
    fault = _fault_of_exception(error, who, phase, limits_s)
    if not isinstance(error, _QUOTING_ERRORS):
        fault.__cause__ = error
    return fault


def _fault_of_exception(
    error: Exception, who: str, phase: Phase, limits_s: Mapping[str, float | None]
) -> PipelineError:
    def late(what: str, limit_s: float | None) -> UpstreamFault:
        within = "in time" if limit_s is None else f"within {limit_s:g} s"
        return UpstreamFault(f"{who} {what} {within}; try again later", code="upstream_timeout")

    match error:
        case httpx.PoolTimeout():
            return Overloaded(
                f"all connections to {who} are in use; try again in a moment",
                code="upstream_pool_full",
                retry_after_s=1.0,
            )
        case httpx.ConnectTimeout():
            return late("did not take our connection", limits_s.get("connect"))
        case httpx.WriteTimeout():
            return late("did not take the whole request", limits_s.get("write"))
        case httpx.ReadTimeout():
            return late(_LATE[phase], limits_s.get(phase))
        case httpx.LocalProtocolError() | UnicodeError() | httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return UpstreamFault(
                f"{who} cannot be called: its configured address or one of its headers is not valid; "
                "check api_base, api_key and extra_headers",
                code="upstream_unreachable",
            )
        case httpx.ConnectError() | httpx.ProxyError():
            return UpstreamFault(f"{who} cannot be reached: {_why_unreachable(error)}", code="upstream_unreachable")
        case httpx.RemoteProtocolError() if phase == "head":
            return UpstreamFault(
                f"{who} closed the connection or broke the HTTP protocol before it answered; try again",
                code="upstream_protocol",
            )
        case _ if phase == "head":
            return UpstreamFault(f"{who} broke the connection before it answered; try again", code="upstream_protocol")
        case _:
            return UpstreamFault(f"{who} broke off in the middle of its answer; try again", code="upstream_protocol")


def fault_of_total(who: str, limit_s: float | None) -> UpstreamFault:
    """Say that a call has lasted too long as a whole."""
    return UpstreamFault(
        f"{who} did not finish its answer within {limit_s or 0:g} s; try again later", code="upstream_timeout"
    )


_LATE: Mapping[Phase, str] = {
    "head": "did not begin to answer",
    "first_event": "began to answer but sent nothing",
    "idle": "stopped sending in the middle of its answer: nothing came",
    "total": "did not finish its answer",
}


def _why_unreachable(error: BaseException) -> str:
    """Find the reason in what led to ``error``, and say it in words of ours."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        match cause:
            case ssl.SSLCertVerificationError():
                return "its TLS certificate is not trusted; check api_base, or set the file of its authority"
            case ssl.SSLError():
                return "no TLS session could be agreed on; check that api_base should start with https://"
            case socket.gaierror():
                return "its name does not resolve; check api_base"
            case ConnectionRefusedError():
                return "it refused the connection; check that it runs, and api_base"
            case ExceptionGroup(exceptions=(first, *_)):  # trio's, of the attempts for each address
                cause = first
            case _:
                cause = cause.__cause__ or cause.__context__
    return "no connection could be made; check that it runs, and api_base"


def fault_of_status(
    status: int, headers: httpx.Headers, body: bytes, who: str, secrets: Iterable[str]
) -> UpstreamFault:
    """Say what an answer with an error status means.

    Args:
        status: the status, not of 2xx.
        headers: of the answer.
        body: what could be read of it, perhaps nothing.
        who: names the upstream.
        secrets: what must not be passed on if the upstream echoes it.
    """
    if 300 <= status < 400:
        return UpstreamFault(
            f"{who} answered {status}, a redirect, which is not followed; set api_base to the final address",
            code="upstream_protocol",
            status_hint=status,
        )
    said = _message_in(body)
    if said is None or not said[0]:
        told, param = _phrase_of(status), None
    else:
        told, param = redact(said[0], secrets), said[1] and redact(said[1], secrets)
    return UpstreamFault(
        f"upstream answered {status}: {told}",
        code=_code_of(status),
        param=param,
        retry_after_s=retry_after_s(headers),
        status_hint=status,
    )


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


def _message_in(body: bytes) -> tuple[str, str | None] | None:
    """Find the message, and the field it blames, in the error shapes of OpenAI, Ollama, FastAPI and Google."""
    try:
        found: Any = msgspec.json.decode(body)  # JSON of a foreign shape
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match found:
        case [first, *_]:
            found = first
        case _:
            pass
    match found:
        case {"error": {"message": str(text), "param": str(param)}}:
            return text, param
        case (
            {"error": {"message": str(text)}}
            | {"error": str(text)}
            | {"message": str(text)}
            | {"detail": str(text)}
            | {"detail": [{"msg": str(text)}, *_]}
            | {"detail": {"message": str(text)}}
        ):
            return text, None
        case _:
            return None


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` on one line, clipped to `MESSAGE_CHARS`, without ``secrets`` or what looks like a key."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    # Clip at the end: a key that straddles the clip would not be recognised. A first, wide cut spares the regex.
    text = _KEY_LIKE.sub(_REDACTED, " ".join(text[: 2 * MESSAGE_CHARS].split()))
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"


def secrets_in(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return what in ``headers`` must not be shown: their values, and those without their scheme (``Bearer``)."""
    found: set[str] = set()
    for _, value in headers:
        found.update((value.strip(), value.strip().rpartition(" ")[2]))
    return frozenset(secret for secret in found if len(secret) >= 8)  # "true" or "v1" is no secret


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Return how long the upstream asks to wait, in seconds, or None if it does not or cannot be understood.

    Understands ``retry-after-ms`` (OpenAI, Azure) and both forms of ``Retry-After`` (RFC 9110 section 10.2.3).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            return float(value) * scale
    until = _moment(headers.get("retry-after"))
    if until is None:
        return None
    now = _moment(headers.get("date")) or datetime.now(UTC)  # by the upstream's own clock, if it tells
    return max(0.0, (until - now).total_seconds())


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
