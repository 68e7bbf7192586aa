"""HTTP/1.1 as it arrives: requests at our server's parser, and responses at the reader of upstreams.

Bytes become the same requests, or the same response, however they are cut, or a refusal; and where another parser, h11,
reads a request as well, both see it end at the same byte.
"""

from __future__ import annotations

import re
from random import Random
from typing import Any, Final, get_args

import h11
import httpx
from fuzz.cutting import reads, seeded, spoiled
from fuzz.target import Target

from pipeline.gateway.http.http1 import RequestBuffer, RequestHead
from pipeline.gateway.http.refusals import RefusalCode, RefusedRequest
from stages.upstreams.transport.http1 import ResponseReader

MAX_HEADER_BYTES: Final = 65536
MOST_BYTES: Final = 200_000

_WORDS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\xff", b"\r\n\r\n", b"\r\n ", b"\x0b", b"\x85"),
    *(
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"5;a=b\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"+5\r\n",
        b"5 \r\n",
        b"00\r\n",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n"),
    *(
        b"content-length:5\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 0x5\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ),
    *(b"Transfer_Encoding: chunked\r\n", b" Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: transfer-encoding\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Host: a\r\n", b"Host: b\r\n", b"Host:\r\n", b"x: y\r\n z\r\n"),
    *(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /x HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 No\r\n\r\n"),
    *(
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"x" * 300,
    ),
)
_LINES: Final = re.compile(rb"[^\n]*\n|[^\n]+")


class HttpBytes(Target):
    """What both sides share: a mutator of lines."""

    def mutated(self, data: bytes, rng: Random) -> bytes:
        for _ in range(rng.choice((1, 1, 2, 3, 4))):
            data = self._changed(data, rng)[:MOST_BYTES]
        return data

    def _changed(self, data: bytes, rng: Random) -> bytes:
        lines: list[bytes] = _LINES.findall(data)
        if not lines or rng.random() < 0.3:
            return spoiled(data, _WORDS, rng)
        at = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                other_lines: list[bytes] = _LINES.findall(rng.choice(self.seeds)) or [b""]
                lines[at:at] = other_lines if rng.random() < 0.3 else rng.choices(other_lines, k=2)
            case 4:
                lines[at] = lines[at].swapcase()
            case 5:
                lines[at] *= min(rng.choice((2, 1000, 5000)), MOST_BYTES // len(lines[at]))
            case _:
                lines.insert(at, rng.choice(_WORDS))
        return b"".join(lines)


class Requests(HttpBytes):
    """The requests on one connection of a client."""

    name = "requests"

    async def outcome(self, data: bytes) -> str:
        whole, end = _read_requests([data])
        cut, cut_end = _read_requests(reads(data, seeded(data)))
        if not {end, cut_end} & _LIMITS:  # a limit may be exceeded before the fault arrives
            assert (cut, cut_end) == (whole, end), "it depends on how the bytes were cut"
        assert cut == whole
        assert isinstance(cut_end, str) is isinstance(end, str)
        _check_framing(data, whole, end)
        return f"refused as {end}" if isinstance(end, str) else f"{min(len(whole), 3)} requests"


_LIMITS: Final = frozenset({"headers_too_large", "uri_too_long"})
Request = tuple[str, bytes, str, tuple[tuple[bytes, bytes], ...], bool, bytes]


def _read_requests(chunks: list[bytes]) -> tuple[list[Request], str | tuple[bool, bytes]]:
    """Return the complete requests, and the code of the refusal, or whether a body is awaited and what of it came."""
    buffer = RequestBuffer(MAX_HEADER_BYTES)
    found: list[Request] = []
    head: RequestHead | None = None
    body = b""
    try:
        for chunk in chunks:
            buffer.feed(chunk)
            while True:
                if head is None and (head := buffer.maybe_head()) is None:
                    break
                body += buffer.take_body()
                if not buffer.body_complete:
                    break
                found.append((head.method, head.raw_path, head.version, tuple(head.headers), head.keep_alive, body))
                head, body = None, b""
    except RefusedRequest as refused:
        return found, _refusal(refused)
    return found, (head is not None, body)


def _refusal(refused: RefusedRequest) -> str:
    assert refused.code in set(get_args(RefusalCode)) - {"internal_error", "too_many_connections"}
    assert len(refused.message) < 300
    return refused.code


def _check_framing(data: bytes, ours: list[Request], end: str | tuple[bool, bytes]) -> None:
    """Check that no request could be read in two ways, and that h11 reads the same ones."""
    for _, _, version, headers, _, _ in ours:
        names = [name for name, _ in headers]
        lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
        assert lengths + codings <= 1, "two statements about one body"
        assert not codings or (version == "1.1" and dict(headers)[b"transfer-encoding"].lower() == b"chunked")
        assert all(b"\r" not in value and b"\n" not in value and b"\0" not in value for _, value in headers)
    for mine, theirs in zip(ours, _read_with_h11(data), strict=False):
        assert (mine[0].encode(), mine[5]) == theirs, f"h11 reads {theirs}, we read {mine}"


def _read_with_h11(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the method and the body of each request, as far as h11 accepts them."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
    found: list[tuple[bytes, bytes]] = []
    method, body = b"", b""
    try:
        connection.receive_data(data)
        while True:
            event: Any = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found  # it would close the connection now
                connection.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


class Replies(HttpBytes):
    """The response to one request on a connection to an upstream, and the end of the connection after it."""

    name = "replies"

    async def outcome(self, data: bytes) -> str:
        rng = seeded(data)
        method = rng.choice(("POST", "POST", "POST", "HEAD"))
        whole = _read_reply([data], method)
        cut = _read_reply(reads(data, rng), method)
        assert cut == whole, f"it depends on how the bytes were cut: {cut} and {whole}"
        status, headers, body, is_whole, is_reusable = whole
        if is_whole:
            assert 200 <= status <= 999
            names = [name for name, _ in headers]
            assert not ({b"content-length", b"transfer-encoding"} <= set(names)), "two statements about one body"
            assert names.count(b"content-length") <= 1
            if is_reusable and method != "HEAD" and status not in (204, 304):
                assert b"content-length" in names or b"transfer-encoding" in names, "it ends with the connection"
            if b"content-length" in names and method != "HEAD" and status not in (204, 304):
                assert len(body) == int(dict(headers)[b"content-length"])
        return ("reusable" if is_reusable else "complete") if is_whole else "refused" if not status else "broken off"


Reply = tuple[int, tuple[tuple[bytes, bytes], ...], bytes, bool, bool]


def _read_reply(chunks: list[bytes], method: str) -> Reply:
    """Return the status, the headers, the body, whether it was complete, and whether the connection may go on."""
    reader = ResponseReader()
    reader.begin(method)
    body = b""
    is_reusable = is_broken = False
    try:
        for chunk in chunks:
            reader.feed(chunk)
            body += reader.take()
        is_reusable = reader.is_reusable and reader.is_done
        reader.feed_eof()
        body += reader.take()
    except httpx.RemoteProtocolError:
        while reader.has_head:  # what came before the fault is good
            try:
                body += reader.take()
            except httpx.RemoteProtocolError:
                break
        is_broken = True
    assert not reader.is_reusable
    assert not (is_broken and is_reusable), "a broken response on a connection that goes on"
    headers = tuple(reader.headers) if reader.has_head else ()
    return reader.status, headers, body, reader.is_done, is_reusable
