"""The sans-IO HTTP/1.1 reader: blind to how its bytes are cut, and only declared errors on any input."""

from __future__ import annotations

import itertools

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.upstreams.transport.http1 import MAX_HEAD_BYTES, ResponseReader, request_bytes

RESPONSES = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nl: y\r\n\r\n"
    + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX: y\r\n\r\n5;n=v\r\nhello\r\n0\r\nx-t: y\r\n\r\n",
]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@settings(max_examples=150)
@given(st.sampled_from(RESPONSES), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_response_does_not_depend_on_how_its_bytes_are_cut(data: bytes, places: list[int]) -> None:
    reader = ResponseReader()
    for _ in range(2):  # and neither does the next one on the same connection
        reader.begin("POST")
        body = b""
        for piece in cut(data, places):
            assert not reader.is_done
            reader.feed(piece)
            body += reader.take()
        assert (reader.status, body, reader.is_done, reader.is_reusable) == (200, b"hello", True, True)


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                *RESPONSES,
                b"HTTP/1.1 ",
                b"200 OK\r\n",
                b"content-length: 1\r\n",
                b"\r\n",
                b"5\r\n",
                b"\x00",
                b"\xff",
                b"x" * 99,
            ]
        )
        | st.binary(max_size=30),
        max_size=8,
    ),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_garbage_raises_only_declared_errors(parts: list[bytes], places: list[int]) -> None:
    reader = ResponseReader()
    reader.begin("POST")
    try:
        for piece in cut(b"".join(parts), places):
            reader.feed(piece)
            reader.take()
        reader.feed_eof()
        reader.take()
    except httpx.RemoteProtocolError:
        assert not reader.is_reusable


def test_an_extra_response_makes_the_connection_unusable_but_not_the_first_response() -> None:
    reader = ResponseReader()
    reader.begin("POST")
    reader.feed(RESPONSES[0] + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    assert (reader.take(), reader.is_done, reader.is_reusable) == (b"hello", True, False)


def test_a_trailer_is_not_read_as_a_header() -> None:
    reader = ResponseReader()
    reader.begin("POST")
    reader.feed(RESPONSES[3])
    assert reader.is_done
    assert reader.headers == [(b"transfer-encoding", b"Chunked"), (b"x", b"y")]


def test_a_body_that_ends_with_the_connection_is_complete_at_its_end() -> None:
    reader = ResponseReader()
    reader.begin("POST")
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert not reader.is_done
    reader.feed_eof()
    assert (reader.take(), reader.is_done, reader.is_reusable) == (b"hello", True, False)


def test_heads_up_to_the_limit_are_read() -> None:
    for size, is_read in ((MAX_HEAD_BYTES - 100, True), (MAX_HEAD_BYTES, False)):
        reader = ResponseReader()
        reader.begin("POST")
        data = b"HTTP/1.1 200 OK\r\nx: " + b"y" * size + b"\r\ncontent-length: 0\r\n\r\n"
        if is_read:
            reader.feed(data)
            assert reader.is_done
        else:
            with pytest.raises(httpx.RemoteProtocolError, match="65536"):
                reader.feed(data)


def test_a_closed_reader_accepts_no_more() -> None:
    reader = ResponseReader()
    reader.close()
    with pytest.raises(httpx.RemoteProtocolError, match="closed"):
        reader.feed(b"HTTP/1.1 200 OK\r\n\r\n")


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_header_can_inject_a_line(name: str, value: str) -> None:
    headers = [(name.encode(), value.encode())]
    try:
        data = request_bytes(httpx.Request("POST", "http://x/", headers=headers, content=b""), b"")
    except httpx.LocalProtocolError:
        return
    lines = data.split(b"\r\n")
    assert lines[0] == b"POST / HTTP/1.1"
    assert lines[-2:] == [b"", b""]
    assert b"%b: %b" % headers[0] in lines
    assert b"\n" not in data.replace(b"\r\n", b"")
