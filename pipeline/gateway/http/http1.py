"""HTTP/1.1 as a server reads and writes it (RFC 9110, RFC 9112): bytes in, requests out; no sockets, no clock.

llhttp splits the request head, but only after one regular expression has admitted nothing but the strict grammar, so no
leniency of a parser (bare LF, obs-fold, space before a colon) can let two hops disagree about where a request ends.
Bodies are framed here, so pipelined bytes simply wait in one bounded buffer.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import httptools

from pipeline.gateway.http.refusals import RefusalResponse, RefusedRequest

KIB: Final = 1024
MAX_REQUEST_LINE_BYTES: Final = 16 * KIB
"""RFC 9112 section 3 recommends at least 8000; our longest path holds one deployment name."""
MAX_CHUNK_LINE_BYTES: Final = 256
"""A chunk size with its extensions; extensions are read and ignored (RFC 9112 section 7.1.1)."""
MAX_TRAILER_BYTES: Final = 8 * KIB

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"++) ([!-~]++) HTTP/([0-9])\.([0-9])")
_HEADER_LINE: Final = re.compile(_TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n")
_HEADER_LINES: Final = re.compile(rb"(?:" + _HEADER_LINE.pattern + rb")*+\r\n")
_TOKEN_BYTE: Final = re.compile(_TOKEN)
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_HOST: Final = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?#]+)(/[^?#]*)?(\?[^#]*)?")
_STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

Headers = list[tuple[bytes, bytes]]


class RequestHead:
    """A request line and its headers, checked.

    Attributes:
        version: ``1.0`` or ``1.1``.
        path: percent-decoded; ``raw_path`` is as sent. Both without the query.
        headers: names in lower case, values stripped, order kept.
        body_bytes: the declared length, 0 without a body, None when the body is chunked.
        keep_alive: whether the client allows the connection to persist after the response.
        expects_continue: whether the client waits for ``100 Continue`` before it sends the body.
    """

    __slots__ = (
        "_target",
        "body_bytes",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "raw_path",
        "version",
    )

    def __init__(self, block: bytes) -> None:
        """Parse a head.

        Args:
            block: all bytes from the request line to the empty line, both included.

        Raises:
            RefusedRequest: if the head breaks RFC 9112 or asks for what we do not serve.
        """
        line_end = block.index(b"\r\n")
        line = _REQUEST_LINE.fullmatch(block, 0, line_end)
        if line is None:
            raise _malformed("the request line must be a method, a target and HTTP/1.1, with one space between")
        method, _, major, minor = line.groups()
        if major != b"1" or minor not in b"01":
            raise RefusedRequest("http_version_not_supported", "this server speaks HTTP/1.1 and HTTP/1.0 only")
        if _HEADER_LINES.fullmatch(block, line_end + 2) is None:
            raise _malformed(
                f"header line {_first_bad_line(block, line_end + 2)} must be a name, a colon directly after it, "
                "a value without control characters, and CRLF; folded lines are not allowed"
            )
        if method == b"CONNECT":
            raise RefusedRequest("method_not_supported", "this server is not a tunnel: CONNECT is not supported")
        self._target = b""
        self.headers: Headers = []
        self.method = method.decode("ascii")
        self.version = "1.1" if minor == b"1" else "1.0"
        try:
            httptools.HttpRequestParser(self).feed_data(block)
        except httptools.HttpParserUpgrade:
            pass  # RFC 9110 section 7.8: a server may ignore Upgrade; the request is served without it
        except httptools.HttpParserInvalidMethodError:
            raise RefusedRequest("method_not_supported", "this server does not know the request method") from None
        except httptools.HttpParserError as error:
            raise _malformed("the head is not valid HTTP/1.1") from error
        self._read_headers()
        self._read_target()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def _read_headers(self) -> None:
        lengths: list[bytes] = []
        codings: list[bytes] = []
        hosts: list[bytes] = []
        options: set[bytes] = set()
        self.expects_continue = False
        for name, value in self.headers:
            match name:
                case b"content-length":
                    lengths.append(value)
                case b"transfer-encoding":
                    codings.append(value)
                case b"host":
                    hosts.append(value)
                case b"connection":
                    options.update(option.strip().lower() for option in value.split(b","))
                case b"expect":
                    self.expects_continue = value.lower() == b"100-continue"
                case _:
                    pass
        old = self.version == "1.0"
        if len(hosts) > 1 or (not hosts and not old) or (hosts and _HOST.fullmatch(hosts[0]) is None):
            raise _malformed("an HTTP/1.1 request needs exactly one valid Host header")
        self.body_bytes: int | None = 0
        if codings:
            self.body_bytes = None
            if lengths or old:  # RFC 9112 section 6.1: request smuggling
                raise _malformed("Transfer-Encoding is not allowed with Content-Length or in HTTP/1.0")
            if len(codings) > 1 or codings[0].lower() != b"chunked":
                raise RefusedRequest("transfer_coding_not_supported", "the only supported transfer coding is chunked")
        elif lengths:
            if len(lengths) > 1 or _CONTENT_LENGTH.fullmatch(lengths[0]) is None:
                raise _malformed("Content-Length must occur once, as decimal digits")
            self.body_bytes = int(lengths[0])
        self.keep_alive = (b"keep-alive" in options) if old else (b"close" not in options)
        if old or self.body_bytes == 0:
            self.expects_continue = False

    def _read_target(self) -> None:
        target = self._target
        if target.startswith(b"/"):
            self.raw_path, _, self.query = target.partition(b"?")
        elif (absolute := _ABSOLUTE_FORM.fullmatch(target)) is not None:
            self.raw_path = absolute[2] or b"/"
            self.query = (absolute[3] or b"")[1:]
            # RFC 9112 section 3.2.2: the target names the host, not the Host header
            self.headers = [(name, absolute[1] if name == b"host" else value) for name, value in self.headers]
        elif target == b"*" and self.method == "OPTIONS":
            self.raw_path, self.query = target, b""
        else:
            raise _malformed("the request target must be a path that begins with /, or an absolute http URL")
        if b"#" in target:
            raise _malformed("the request target must not contain a fragment (#)")
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path


class RequestBuffer:
    """The bytes that a client has sent and that are not consumed yet, as heads and bodies, one request at a time.

    Holds whatever `feed` receives: the caller stops feeding when `len` exceeds its bound.

    Args:
        max_header_bytes: limit of one request head, including the request line.
    """

    __slots__ = ("_body_left", "_buffer", "_chunk_phase", "_chunked", "_max_header_bytes", "_scanned", "body_complete")

    def __init__(self, max_header_bytes: int) -> None:
        self._max_header_bytes = max_header_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._body_left = 0
        self._chunked = False
        self._chunk_phase = _IN_SIZE
        self.body_complete = True
        """Whether the body of the current request has been taken to its end."""

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, chunk: bytes) -> None:
        self._buffer += chunk

    def maybe_head(self) -> RequestHead | None:
        """Take the next request head, or return None if it has not arrived completely.

        Raises:
            RefusedRequest: if the head is malformed, as soon as the bytes show it, or exceeds a limit.
        """
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112 section 2.2: some clients send an extra CRLF after a body
            del buffer[:2]
        if len(buffer) == 0 or (len(buffer) == 1 and buffer.startswith(b"\r")):
            return None
        if _TOKEN_BYTE.match(buffer) is None:  # a TLS handshake or noise: no line end may ever come
            raise _malformed("this is not an HTTP request")
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        scan_end = end if end >= 0 else len(buffer)
        # Counting is faster: a regular expression for this would take as long as the rest of this method. The last
        # byte that was scanned before may be the CR of the first new LF.
        if buffer.count(b"\n", self._scanned, scan_end) != buffer.count(b"\r\n", max(0, self._scanned - 1), scan_end):
            raise _malformed("lines must end in CRLF, not in a bare LF")
        self._scanned = len(buffer)
        if buffer.find(b"\r\n", 0, MAX_REQUEST_LINE_BYTES) < 0 and len(buffer) >= MAX_REQUEST_LINE_BYTES:
            raise RefusedRequest("uri_too_long", f"the request line is longer than {MAX_REQUEST_LINE_BYTES} bytes")
        if scan_end + 4 > self._max_header_bytes:
            raise RefusedRequest("headers_too_large", f"the request head is larger than {self._max_header_bytes} bytes")
        if end < 0:
            return None
        head = RequestHead(bytes(buffer[: end + 4]))
        del buffer[: end + 4]
        self._scanned = 0
        self._chunked = head.body_bytes is None
        self._chunk_phase = _IN_SIZE
        self._body_left = head.body_bytes or 0
        self.body_complete = head.body_bytes == 0
        return head

    @property
    def body_has_arrived(self) -> bool:
        """Whether the rest of the body has arrived (for a chunked body: has been taken)."""
        return self.body_complete or (not self._chunked and len(self._buffer) >= self._body_left)

    def take_body(self) -> bytes:
        """Take what has arrived of the current body; b"" if that is nothing, or if the body is complete.

        Raises:
            RefusedRequest: if the chunks are malformed.
        """
        if self.body_complete:
            return b""
        if self._chunked:
            return self._take_chunks()
        body = self._take(min(self._body_left, len(self._buffer)))
        self._body_left -= len(body)
        self.body_complete = self._body_left == 0
        return body

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count]) if count < len(self._buffer) else bytes(self._buffer)
        del self._buffer[:count]
        return taken

    def _take_chunks(self) -> bytes:
        pieces: list[bytes] = []
        buffer = self._buffer
        at = 0
        while not self.body_complete:
            if self._chunk_phase == _IN_DATA:
                piece = bytes(buffer[at : at + self._body_left])
                at += len(piece)
                self._body_left -= len(piece)
                if piece:
                    pieces.append(piece)
                if self._body_left:
                    break
                self._chunk_phase = _AFTER_DATA
            elif self._chunk_phase == _AFTER_DATA:
                end = bytes(buffer[at : at + 2])
                if not b"\r\n".startswith(end):
                    raise _malformed("chunk data must have the length that the chunk declares, and end in CRLF")
                if len(end) < 2:
                    break
                at += 2
                self._chunk_phase = _IN_SIZE
            else:
                in_size = self._chunk_phase == _IN_SIZE
                end_at = buffer.find(b"\r\n", at)
                limit = MAX_CHUNK_LINE_BYTES if in_size else self._body_left
                if (end_at if end_at >= 0 else len(buffer)) - at > limit:
                    raise _malformed("a chunk line or the trailer section is too long")
                if buffer.find(b"\n", at, end_at if end_at >= 0 else len(buffer)) >= 0:
                    raise _malformed("chunk lines must end in CRLF, not in a bare LF")
                if end_at < 0:
                    break
                if in_size:
                    self._read_chunk_line(bytes(buffer[at:end_at]))
                else:
                    self._read_trailer_line(bytes(buffer[at : end_at + 2]))
                at = end_at + 2
        del buffer[:at]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_chunk_line(self, line: bytes) -> None:
        chunk = _CHUNK_LINE.fullmatch(line)
        if chunk is None:
            raise _malformed("a chunk must begin with its size in hexadecimal digits")
        self._body_left = int(chunk[1], 16)
        self._chunk_phase = _IN_DATA
        if self._body_left == 0:
            self._chunk_phase = _IN_TRAILERS
            self._body_left = MAX_TRAILER_BYTES

    def _read_trailer_line(self, line: bytes) -> None:
        if line == b"\r\n":
            self.body_complete = True
            self._body_left = 0
        elif _HEADER_LINE.fullmatch(line) is None:
            raise _malformed("a trailer line is malformed")
        self._body_left = max(0, self._body_left - len(line))  # trailers are read and dropped


_IN_SIZE: Final = 0
_IN_DATA: Final = 1
_AFTER_DATA: Final = 2
_IN_TRAILERS: Final = 3


def response_head(status: int, headers: Headers) -> bytes:
    """Return the bytes of a response head.

    Raises:
        ValueError: if a header would break out of its line (response splitting) or its name is not valid.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if _HEADER_LINES.fullmatch(lines + b"\r\n") is None or lines.count(b"\r\n") != len(headers):
        # Names only: the values may quote a request.
        raise ValueError(f"one of the response headers {[name for name, _ in headers]} has a forbidden character")
    return b"%b%b\r\n" % (_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status, lines)


def refusal_bytes(refusal: RefusalResponse, date: bytes) -> bytes:
    """Return a complete response that ends its connection."""
    headers: Headers = [
        (b"content-type", refusal.content_type),
        (b"content-length", b"%d" % len(refusal.body)),
        (b"connection", b"close"),
        (b"date", date),
        (b"server", b"headrace"),
    ]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
    return response_head(refusal.status, headers) + refusal.body


def _malformed(message: str) -> RefusedRequest:
    return RefusedRequest("malformed_request", message)


def _first_bad_line(block: bytes, at: int) -> int:
    number = 1
    while (line := _HEADER_LINE.match(block, at)) is not None:
        at = line.end()
        number += 1
    return number
