"""The files of the page at ``/latency``, which are a part of the package."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from typing import Final

from pipeline.gateway.admin.answers import SAFE
from pipeline.gateway.http.door import OwnAnswer

INDEX: Final = "index.html"
TYPES: Final = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "svg": b"image/svg+xml",
    "png": b"image/png",
    "ico": b"image/vnd.microsoft.icon",
    "txt": b"text/plain; charset=utf-8",
}
"""What is served, by the last part of its name."""

CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline and nothing from elsewhere: the page shows names that clients have chosen (W3C, CSP level 3)."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\.([a-z]+)")

_COMMENTS: Final = re.compile(rb"^\t*(?:/\*\*(?s:.*?)\*/|//[^\n]*)\n", re.MULTILINE)
"""What has lines of its own in a script: browsers need not load it."""


def page_answer(name: str, if_none_match: bytes | None) -> OwnAnswer | None:
    """Return the response with a file; None if it does not exist.

    Args:
        name: of the file.
        if_none_match: the tag of what the browser has already, if it has it.
    """
    try:
        content_type, tag, body = _file(name)
    except OSError:
        return None
    # Asked for again each time: a new version of headrace has the same names.
    headers = [(b"etag", tag), (b"cache-control", b"no-cache"), *SAFE]
    headers.append((b"content-security-policy", CONTENT_SECURITY_POLICY))
    if if_none_match is not None and tag in if_none_match:
        return OwnAnswer(304, headers, b"")
    return OwnAnswer(200, [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers], body)


@cache  # only of files that exist: what is raised is not kept, however many names are asked for
def _file(name: str) -> tuple[bytes, bytes, bytes]:
    match = _NAME.fullmatch(name)
    if match is None or (content_type := TYPES.get(match[1])) is None:
        raise FileNotFoundError(name)
    body = _read(name)
    if name.endswith(".js"):
        body = _COMMENTS.sub(b"", body)
    return content_type, b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode(), body


def _read(name: str) -> bytes:
    return resources.files("pipeline.gateway.admin").joinpath("page", name).read_bytes()
