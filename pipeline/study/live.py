"""What a running service says of itself, read over HTTP with its master key: `pipeline.gateway.admin`."""

from __future__ import annotations

import http.client
import os
import ssl
from threading import Event
from time import monotonic
from typing import IO, Any, Final, NamedTuple, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec

KEY_VARIABLE: Final = "HEADRACE_MASTER_KEY"
TIMEOUT_S: Final = 10.0
"""Longer than the answer to a wrong key is delayed."""
LINES_AT_A_TIME: Final = 500
NOTICED_WITHIN_S: Final = 2.0
_SHOWN_CHARACTERS: Final = 300
"""Of an error message of the server."""


class LiveError(Exception):
    """The service cannot be read; the message says why, and what to do."""


class UnreachableError(LiveError):
    """The service has not answered; a later attempt may succeed."""


class FetchedLines(NamedTuple):
    """Lines of a recording.

    Attributes:
        lines: without newlines, in the order of time.
        cursor: what to go on from.
        lost: how many lines others had taken the place of before they were read.
        has_more: whether there are more already.
    """

    lines: list[bytes]
    cursor: str
    lost: int
    has_more: bool


def records(url: str, key: str, after: str = "", *, limit: int = LINES_AT_A_TIME) -> FetchedLines:
    """Return up to ``limit`` lines: the oldest ones after a cursor.

    Args:
        url: where the service is, such as http://127.0.0.1:4000.
        key: its master key.
        after: the cursor of the last call; an empty one for all that is there, ``now`` for a cursor without any line.

    Raises:
        LiveError: if that fails.
    """
    body, headers = fetch(url, key, f"/latency/records?{urlencode({'after': after, 'limit': limit})}")
    cursor = headers.get("x-headrace-cursor")
    if cursor is None:
        raise _not_headrace(url)
    return FetchedLines(
        body.splitlines(), cursor, int(headers.get("x-headrace-lost") or 0), "x-headrace-more" in headers
    )


def running(url: str, key: str) -> list[dict[str, Any]]:
    """Return the requests that run now, the longest idle first. The first call may find none, for nobody has watched.

    Raises:
        LiveError: if that fails.
    """
    found: list[dict[str, Any]] = decoded(url, fetch(url, key, "/latency/running")[0], list[dict[str, Any]])
    return found


def now(url: str, key: str) -> dict[str, Any]:
    """Return what the service has counted since its start, and what it does now: docs/operations.md.

    Raises:
        LiveError: if that fails.
    """
    found: dict[str, Any] = decoded(url, fetch(url, key, "/latency/now")[0], dict[str, Any])
    return found


def watched(url: str, key: str) -> dict[str, Any]:
    """Return the same once all workers have noticed that somebody watches: then it has what runs in them.

    A worker that has not by `NOTICED_WITHIN_S` is one of ``workers`` with ``is_silent``.

    Raises:
        LiveError: if that fails.
    """
    began_s = monotonic()
    while not (figures := now(url, key)).get("is_watched", True) and monotonic() < began_s + NOTICED_WITHIN_S:
        Event().wait(NOTICED_WITHIN_S / 10)
    return figures


def request(url: str, key: str, request_id: str) -> bytes:
    """Return the line of one finished request.

    Raises:
        LiveError: if that fails, or the flight recorder does not have it (any more).
    """
    return fetch(url, key, f"/latency/requests/{quote(request_id, safe='')}")[0]


def key_from(option: str | None) -> str:
    """Return the master key from a command's option, or from the environment.

    Raises:
        LiveError: if it is in neither.
    """
    key = (option or os.environ.get(KEY_VARIABLE, "")).strip()
    if not key:
        raise LiveError(
            f"a running service is read with its master key: set the environment variable {KEY_VARIABLE}, or write it "
            "after --key, where others on this machine can see it"
        )
    return key


class _NoRedirects(HTTPRedirectHandler):
    """Follows none, since the key would be sent along, to whatever address."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def fetch(url: str, key: str, path: str) -> tuple[bytes, http.client.HTTPMessage]:
    """Return what the service answers for a path, and its headers.

    Raises:
        LiveError: if it cannot be reached, or refuses.
    """
    address = _checked(url)
    try:
        asked = Request(address + path, headers={"Authorization": f"Bearer {key}", "Accept": "*/*"})
        # Not through a proxy of the environment: it would see the key.
        with build_opener(ProxyHandler({}), _NoRedirects).open(asked, timeout=TIMEOUT_S) as response:
            return response.read(), response.headers
    except HTTPError as error:
        with error:
            raise _refused(address, error) from None
    except TimeoutError:
        raise UnreachableError(f"{address} has not answered within {TIMEOUT_S:g} s") from None
    except URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLError):
            raise LiveError(
                f"{address} has a certificate that is not accepted, or does not speak TLS ({_why(reason)}): for one "
                "of your own, set SSL_CERT_FILE"
            ) from None
        if isinstance(reason, TimeoutError):
            raise UnreachableError(f"{address} has not answered within {TIMEOUT_S:g} s") from None
        raise UnreachableError(f"{address} cannot be reached ({_why(reason)}): is the service running there?") from None
    except ConnectionError as error:
        raise UnreachableError(f"{address} has closed the connection ({_why(error)})") from None
    except (http.client.HTTPException, OSError, UnicodeError):
        raise _not_headrace(address) from None


def _checked(url: str) -> str:
    """Return a URL without a slash at its end."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
        is_valid = is_valid and parts.username is None and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        is_valid = False
    if not is_valid:
        raise LiveError("--url is not a URL such as http://127.0.0.1:4000")
    return url.rstrip("/")


def _refused(address: str, error: HTTPError) -> LiveError:
    said = _message(error)
    if error.code in (401, 403):
        return LiveError(
            f"{address} refuses the key (status {error.code}): it needs the master key of the service, from --key or "
            f"the environment variable {KEY_VARIABLE}"
        )
    if said is None:
        return _not_headrace(address)
    if error.code >= 500:
        return UnreachableError(f"{address} answers with status {error.code}: {said}")
    return LiveError(f"{address}: {said}")


def _message(error: HTTPError) -> str | None:
    """Return the message of one of our error documents; None if it is not one."""
    try:
        document = msgspec.json.decode(error.read(65536), type=dict[str, dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError, http.client.HTTPException):
        return None
    message = document.get("error", {}).get("message")
    return "".join(filter(str.isprintable, message))[:_SHOWN_CHARACTERS] if isinstance(message, str) else None


DocumentT = TypeVar("DocumentT")


def decoded(url: str, body: bytes, wanted: type[DocumentT]) -> DocumentT:
    """Return a document of the service.

    Raises:
        LiveError: if it is not what is wanted.
    """
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _not_headrace(url) from None


def _not_headrace(address: str) -> LiveError:
    return LiveError(f"{address} does not answer as headrace does: is that its address, and its version this one?")


def _why(reason: object) -> str:
    return (reason.strerror if isinstance(reason, OSError) else None) or type(reason).__name__
