"""The client side of HTTP/1.1 without a socket: write requests, and read responses as their bytes arrive.

The parser is llhttp (through httptools). It is strict: bare LF, folded headers, Content-Length together with chunks,
and bad chunk sizes are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httptools
import httpx

MAX_HEAD_BYTES = 64 * 1024
"""The limit for the head of a response, for the 1xx responses before it, and for the framing between two pieces of its
body. nginx allows 32 KiB, Node.js 16 KiB, hyper 400 KiB in all; OpenAI sends 2-3 KiB."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_BAD_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5: all controls but HTAB
_BAD_IN_TARGET = re.compile(rb"[^\x21-\x7e]")


def request_head(method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request line and the headers in wire format; a blank line and the body must follow.

    Raises:
        httpx.LocalProtocolError: if a part contains a character that would change the syntax (a line break, a space, a
            NUL). The message names the header but never contains its value, which may be a key.
    """
    verb = method.encode("ascii", "replace")
    if not _TOKEN.fullmatch(verb) or verb == b"CONNECT":
        raise httpx.LocalProtocolError("the request's method is not valid")
    if _BAD_IN_TARGET.search(target):
        raise httpx.LocalProtocolError("the request's path contains characters that cannot be sent")
    lines = [b"%b %b HTTP/1.1\r\n" % (verb, target)]
    for name, value in headers:
        _check_header(name, value)
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def request_bytes(request: httpx.Request, body: bytes) -> bytes:
    """Return ``request`` in wire format, head and body together.

    Raises:
        httpx.LocalProtocolError: as `request_head` does.
    """
    head = request_head(request.method, request.url.raw_path, request.headers.raw)
    if "transfer-encoding" not in request.headers:
        return b"%b\r\n%b" % (head, body)
    if body:
        return b"%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)
    return b"%b\r\n0\r\n\r\n" % head


def _check_header(name: bytes, value: bytes) -> None:
    if not _TOKEN.fullmatch(name):
        raise httpx.LocalProtocolError("the name of a request header contains characters that cannot be sent")
    if _BAD_IN_VALUE.search(value):
        raise httpx.LocalProtocolError(
            f"the value of the request header {name.decode('ascii')} contains characters that cannot be sent"
        )


class ResponseReader:
    """Reads the responses of one connection, one after the other.

    Attributes:
        status: the status of the response; 0 until its head is complete.
        headers: the headers of the response in their order, with names in lower case.
        has_head: whether the head is complete; 1xx responses are skipped.
        is_done: whether the response is complete.
        is_reusable: whether the connection may carry another request when the response is complete. False until the
            head is, if the response ends with the connection, and after a fault.
    """

    __slots__ = (
        "_bodyless_bytes",
        "_fault",
        "_is_close_delimited",
        "_is_to_head",
        "_parser",
        "_parts",
        "has_head",
        "headers",
        "is_done",
        "is_reusable",
        "on_body",
        "status",
    )

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        # llhttp calls this for each piece of the body. Nothing is faster than the list's own method, and a stream with
        # one chunk per event makes up to 300 000 such calls a second.
        self.on_body = self._parts.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # Not the exception: its traceback would hold frames that hold this reader, until the collector finds them.
        self._fault = ""
        self.begin("GET")
        self.is_done = True
        self.is_reusable = True

    def begin(self, method: str) -> None:
        """Prepare for the response to a request with ``method``, which is about to be written."""
        self._parts.clear()
        self._is_to_head = method == "HEAD"
        self._is_close_delimited = False
        self._bodyless_bytes = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.has_head = self.is_done = self.is_reusable = False

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the response has arrived, be it of a 1xx response or not valid."""
        return self.has_head or self._bodyless_bytes > 0

    def feed(self, data: bytes) -> None:
        """Parse received bytes. `take` still returns the body before a fault.

        Raises:
            httpx.RemoteProtocolError: if they are not HTTP/1.1, are an upgrade, or exceed `MAX_HEAD_BYTES`.
        """
        if self._parser is None:
            raise httpx.RemoteProtocolError("the connection is closed")
        pieces = len(self._parts)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.is_done:  # bytes that belong to no response: the response is valid, the connection is not
                self.is_reusable = False
            elif not self._fault:
                self._fault = f"the response is not HTTP/1.1: {error}"
        # Trailers, chunk extensions and heads contain no body, and none of them may be endless.
        if len(self._parts) > pieces:
            self._bodyless_bytes = 0
        else:
            self._bodyless_bytes += len(data)
            if self._bodyless_bytes > MAX_HEAD_BYTES and not self.is_done:
                self._fault = f"more than {MAX_HEAD_BYTES} bytes of the response without a body"
        if self._fault:
            self.is_reusable = False
            if not (self._parts and self.has_head):
                raise httpx.RemoteProtocolError(self._fault)

    def feed_eof(self) -> None:
        """Note that the peer has closed the connection. `take` still returns what it sent before.

        Raises:
            httpx.RemoteProtocolError: if the response is not complete.
        """
        self.is_reusable = False
        if self.is_done:
            return
        if self.has_head and self._is_close_delimited and not self._fault:
            self.is_done = True
            return
        if not self._fault:
            part = "body" if self.has_head else "head"
            self._fault = f"the connection was closed before the response's {part} was complete"
        if not (self._parts and self.has_head):
            raise httpx.RemoteProtocolError(self._fault)

    def take(self) -> bytes:
        """Return the body that has been read since the last call, joined; empty if there is none.

        Raises:
            httpx.RemoteProtocolError: if nothing is left and the data after it was not valid.
        """
        parts = self._parts
        if not parts:
            if self._fault:
                raise httpx.RemoteProtocolError(self._fault)
            return b""
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return taken

    def drop_body(self) -> None:
        """Drop the body that has been read since the last call of `take`."""
        self._parts.clear()

    def close(self) -> None:
        """Drop the parser, which refers back to this reader."""
        self._parser = None

    # The methods below are called by llhttp.

    def on_message_begin(self) -> None:
        if self.is_done:
            # A response without a request. Without this check its body would be added to that of the previous response.
            raise httpx.RemoteProtocolError("the upstream sent more than one response")
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it is a trailer, which must not be read as a header (RFC 9110 section 6.5.1)
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # the parser is the caller
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            return
        close_delimited, fault, size = True, None, 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"content-length":
                close_delimited = False
            elif name == b"transfer-encoding":
                close_delimited = False
                if value.strip().lower() != b"chunked":
                    fault = "the response has an unknown transfer-encoding"
        if status == 101:
            fault = "the response switches to another protocol"
        elif size > MAX_HEAD_BYTES:
            fault = f"the response's head is larger than {MAX_HEAD_BYTES} bytes"
        if fault is not None:
            self._fault = fault
            return
        self._is_close_delimited = close_delimited
        self.status = status
        self.has_head = True
        if self._is_to_head:
            self.is_done = True  # llhttp does not know this and waits for a body: not reusable
        else:
            self.is_reusable = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        if self.has_head and not self.is_done:
            assert self._parser is not None  # the parser is the caller
            self.is_done = True
            self.is_reusable = not self._fault and self._parser.should_keep_alive()
