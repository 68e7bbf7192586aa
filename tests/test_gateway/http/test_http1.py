"""Request heads and bodies, without sockets: whole, byte by byte, and from garbage."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.gateway.http.http1 import RequestBuffer, RequestHead, refusal_bytes, response_head
from pipeline.gateway.http.refusals import RefusalCode, RefusalResponse, RefusedRequest

Read = list[tuple[str, str, int | None, list[tuple[bytes, bytes]], bytes]]

TWO_REQUESTS = (
    b"POST /a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-Empty:\r\nX-Trail: v \t\r\n\r\nhello"
    b"\r\nPOST /b%20c HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    b"GET /c HTTP/1.0\r\n\r\n"
)


def read_all(chunks: list[bytes]) -> Read:
    """Read requests as a server does, without an incomplete one at the end."""
    buffer = RequestBuffer(65536)
    found: Read = []
    head: RequestHead | None = None
    body = b""
    for chunk in chunks:
        buffer.feed(chunk)
        while True:
            if head is None:
                head = buffer.maybe_head()
                if head is None:
                    break
            body += buffer.take_body()
            if not buffer.body_complete:
                break
            found.append((head.method, head.path, head.body_bytes, head.headers, body))
            head, body = None, b""
    return found


def test_requests_are_read_with_their_bodies() -> None:
    assert read_all([TWO_REQUESTS]) == [
        (
            "POST",
            "/a",
            5,
            [(b"host", b"h"), (b"content-length", b"5"), (b"x-empty", b""), (b"x-trail", b"v")],
            b"hello",
        ),
        ("POST", "/b c", None, [(b"host", b"h"), (b"transfer-encoding", b"Chunked")], b"abc0123456789"),
        ("GET", "/c", 0, [], b""),
    ]


def test_reading_byte_by_byte_returns_the_same() -> None:
    assert read_all([bytes([byte]) for byte in TWO_REQUESTS]) == read_all([TWO_REQUESTS])


@given(cuts=st.lists(st.integers(0, len(TWO_REQUESTS)), max_size=12))
@settings(max_examples=60)
def test_reading_is_blind_to_how_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO_REQUESTS)]
    chunks = [TWO_REQUESTS[a:b] for a, b in pairwise(edges)]
    assert read_all(chunks) == read_all([TWO_REQUESTS])


@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"Host: h\r\n",
                    b"\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Content-Length: 3\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"Upgrade: h2c\r\nConnection: upgrade\r\n",
                ]
            ),
        ),
        max_size=12,
    )
)
@example(chunks=[b"\r"])
@settings(max_examples=200)
def test_garbage_is_refused_or_read_and_nothing_else(chunks: list[bytes]) -> None:
    code = None
    try:
        read_all(chunks)
    except RefusedRequest as refused:
        code = refused.code
    assert code is None or code in set(get_args(RefusalCode)) - {"internal_error", "too_many_connections"}


def test_an_absolute_target_names_the_host() -> None:
    head = RequestHead(b"GET http://real.example:81?q=1 HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (head.path, head.query, head.headers) == ("/", b"q=1", [(b"host", b"real.example:81")])


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, CLOSE\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_the_client_decides_whether_the_connection_persists(lines: bytes, keeps: bool) -> None:
    assert RequestHead(lines + b"\r\n").keep_alive is keeps


def test_an_upgrade_is_read_as_an_ordinary_request() -> None:
    head = RequestHead(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (head.method, head.path) == ("GET", "/ws")


def test_the_message_of_a_refusal_names_the_line_and_quotes_nothing() -> None:
    with pytest.raises(RefusedRequest) as caught:
        RequestHead(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: sk-secret\x01\r\n\r\n")
    assert caught.value.message.startswith("header line 2 must be a name, a colon directly after it")


def test_a_head_that_never_ends_is_refused_at_the_limit() -> None:
    buffer = RequestBuffer(2000)
    buffer.feed(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 320)
    assert buffer.maybe_head() is None
    buffer.feed(b"a: b\r\n" * 20)
    with pytest.raises(RefusedRequest) as caught:
        buffer.maybe_head()
    assert caught.value.code == "headers_too_large"


def test_a_header_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="forbidden character"):
        response_head(200, [(b"x", b"a\r\nset-cookie: y")])
    with pytest.raises(ValueError, match="forbidden character"):
        response_head(200, [(b"x y", b"a")])


def test_a_refusal_ends_the_connection() -> None:
    assert refusal_bytes(RefusalResponse(503, b"text/plain", b"no", retry_after_s=2), b"D") == (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: close\r\n"
        b"date: D\r\nserver: headrace\r\nretry-after: 2\r\n\r\nno"
    )
    assert b"retry-after" not in refusal_bytes(RefusalResponse(400, b"text/plain", b"no"), b"D")
