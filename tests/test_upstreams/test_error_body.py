"""What is read from the body of an error answer, whatever form it has."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from stages.upstreams.error_body import ERROR_BODY_BYTES, read_error

DOCUMENT = b'{"error": {"message": "No.", "code": "c"}}'


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (DOCUMENT, ""),
        (b"\xef\xbb\xbf \n" + DOCUMENT, "identity"),
        (b"data: " + DOCUMENT, ""),
        (b"event: error\r\ndata: " + DOCUMENT + b"\r\n\r\ndata: more\r\n\r\n", ""),
        (gzip.compress(DOCUMENT, mtime=0), "gzip"),
        (gzip.compress(DOCUMENT, mtime=0), ""),
        (gzip.compress(DOCUMENT, mtime=0), "X-Gzip "),
        (zlib.compress(DOCUMENT), "deflate"),
    ],
)
def test_a_document_is_found_in_every_wrapping(body: bytes, encoding: str) -> None:
    said = read_error(body, encoding)
    assert (said.message, said.code) == ("No.", "c")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream connect error\r\n", "upstream connect error"),
        ("模型不存在".encode(), "模型不存在"),
        (b"<!DOCTYPE html><TITLE lang='en'> 502 Bad&nbsp;Gateway\n</TITLE>", "502 Bad\N{NO-BREAK SPACE}Gateway"),
    ],
)
def test_a_text_for_people_is_the_message(body: bytes, message: str) -> None:
    assert read_error(body).message == message


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"", ""),
        (b"x" * 3000, ""),
        (b"a\x00b", ""),
        (b"\xff\xfe", ""),
        (b"<html><h1>nginx</h1>", ""),
        (b'<?xml version="1.0"?><Error/>', ""),
        (DOCUMENT[:-2], ""),
        (b": no data\n\n", ""),
        (b"event: error\n\n", ""),
        (b"\x1b\x2d\x00", "br"),
        (b"not compressed", "gzip"),
        (gzip.compress(DOCUMENT, mtime=0)[:15], "gzip"),
    ],
)
def test_what_nobody_can_read_says_nothing(body: bytes, encoding: str) -> None:
    assert read_error(body, encoding).message == ""


def test_row_29_no_more_than_the_limit_is_read_of_an_error_compressed_or_not() -> None:
    """An error's body is large, or decompresses to much: no more than the limit is read."""
    long = json.dumps({"error": {"message": "x" * ERROR_BODY_BYTES}}).encode()
    for body in (long, gzip.compress(long, mtime=0)):
        assert read_error(body).message == ""
    short = json.dumps({"error": {"message": "x" * (ERROR_BODY_BYTES - 100)}}).encode()
    for body in (short, gzip.compress(short, mtime=0)):
        assert len(read_error(body).message) == ERROR_BODY_BYTES - 100
