"""Reads the body of an error answer, whatever it is: JSON, an event, plain text, HTML, any of them compressed.

We ask for no compression, but some gateways compress their errors all the same, with or without a header that says so.
"""

from __future__ import annotations

import html
import re
import zlib
from typing import Final

from stages.wire.answers.reported_errors import Reported, reported_in_text
from stages.wire.redaction import MAX_MESSAGE_CHARACTERS
from stages.wire.sse import Parser

ERROR_BODY_BYTES: Final = 64 * 1024
"""How much of an error answer is read for the message in it, compressed and not; OpenAI's are under 1 KiB."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_COMPRESSED: Final = {"gzip": _GZIP_OR_ZLIB, "x-gzip": _GZIP_OR_ZLIB, "deflate": _GZIP_OR_ZLIB}
GZIP_MAGIC: Final = b"\x1f\x8b"
"""RFC 1952, section 2.3.1."""

_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<]{1,500})", re.IGNORECASE)
_FIELD: Final = re.compile(rb"(?:event|data|id|retry|):")


def read_error(body: bytes, encoding: str = "") -> Reported:
    """Return what the body says; nothing if no person could read it.

    Args:
        body: as much of it as has arrived; at most `ERROR_BODY_BYTES` of it count.
        encoding: the answer's ``content-encoding``.
    """
    body = body[:ERROR_BODY_BYTES]
    wbits = _GZIP_OR_ZLIB if body.startswith(GZIP_MAGIC) else _COMPRESSED.get(encoding.strip().lower())
    if wbits is not None:
        body = _inflated(body, wbits)
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if _FIELD.match(body):
        body = (Parser().feed([body.partition(b"\n\n")[0] + b"\n\n"]) or [b""])[0]
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Reported()
    if text.startswith("<"):
        found = _TITLE.search(text)
        return Reported(html.unescape(found[1]).strip() if found else "")
    said = reported_in_text(text)
    if said.message == text and not _is_readable(text):
        return Reported()
    return said


def _inflated(body: bytes, wbits: int) -> bytes:
    """Return the first `ERROR_BODY_BYTES` of what was compressed, which may be a bomb; nothing if it is broken."""
    try:
        return zlib.decompressobj(wbits).decompress(body, ERROR_BODY_BYTES)
    except zlib.error:
        return b""


def _is_readable(text: str) -> bool:
    """Return whether a text is short and printable: a sentence, not a dump."""
    return len(text) <= MAX_MESSAGE_CHARACTERS and all(c.isprintable() or c in "\t\r\n" for c in text)
