"""The event parser: every line ending, every cut, and a limit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.strategies.streams import cuts

from stages.wire.sse import EventTooLarge, Parser, frame


def parse(reads: list[list[bytes]], *, max_event_bytes: int = 1 << 20) -> list[bytes]:
    parser = Parser(max_event_bytes=max_event_bytes)
    return [data for read in reads for data in parser.feed(read)] + parser.flush()


CASES = [
    ("one event", b"data: a\n\n", [b"a"]),
    ("a named event", b"event: x\ndata: a\n\n", [b"a"]),
    ("two named events", b"event: x\ndata: a\n\nevent: y\ndata: b\n\n", [b"a", b"b"]),
    ("two events", b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    ("the name after the data", b"data: a\nevent: x\n\n", [b"a"]),
    ("data without a space", b"data:a\n\nevent:x\ndata:b\n\n", [b"a", b"b"]),
    ("only the first space is taken away", b"data:  a\n\n", [b" a"]),
    ("several data lines", b"data: a\ndata: b\ndata:\n\n", [b"a\nb\n"]),
    ("a data line without a colon", b"data\ndata: a\n\n", [b"\na"]),
    ("CRLF", b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    ("CR", b"event: x\rdata: a\r\rdata: b\r\r", [b"a", b"b"]),
    ("all line ends mixed", b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [b"a", b"b", b"c"]),
    ("comments", b": hello\n\n:\n\ndata: a\n: in between\ndata: b\n\n", [b"a\nb"]),
    ("a comment before a name", b": c\nevent: x\ndata: a\n\n", [b"a"]),
    ("id and retry", b"id: 1\nretry: 5\ndata: a\n\n", [b"a"]),
    ("fields that only begin like data", b"database: x\ndata: a\n\n data: b\n\n", [b"a"]),
    ("an event without data", b"event: x\n\ndata: a\n\n", [b"a"]),
    ("empty data", b"data: \n\ndata:\n\ndata\n\ndata: a\n\nevent: x\ndata: \n\n", [b"a"]),
    ("empty lines in a row", b"\n\n\ndata: a\n\n\n\n\nevent: x\ndata: b\n\n\n", [b"a", b"b"]),
    ("a byte order mark", b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", [b"a", b"\xef\xbb\xbfb"]),
    ("other line separators", "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce".encode()]),
    ("a field with colons", b"data: a: b:c\n\n", [b"a: b:c"]),
    ("no empty line at the end", b"data: a\n\ndata: b", [b"a", b"b"]),
    ("half an empty line at the end", b"data: a\n\nevent: x\r\ndata: b\r\n", [b"a", b"b"]),
    ("nothing", b"", []),
]


@pytest.mark.parametrize(("stream", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_stream_yields_the_same_data_whole_and_byte_by_byte(stream: bytes, expected: list[bytes]) -> None:
    assert parse([[stream]]) == expected
    assert parse([[stream[i : i + 1]] for i in range(len(stream))]) == expected
    assert parse([[stream[i : i + 1] for i in range(len(stream))]]) == expected
    assert parse([[b"", stream[:4], b""], [b""], [stream[4:]]]) == expected


def test_a_crlf_that_is_cut_in_two_is_one_line_ending() -> None:
    parser = Parser()
    assert parser.feed([b"data: a\r"]) == []
    assert parser.feed([b"\ndata: b\r"]) == []
    assert parser.feed([b""]) == []
    assert parser.feed([b"\n\r"]) == [b"a\nb"]
    assert parser.feed([b"\ndata: c\n\n"]) == [b"c"]


def test_events_are_emitted_as_soon_as_they_are_complete() -> None:
    parser = Parser()
    assert parser.feed([b"data: a\n\ndata: b"]) == [b"a"]
    assert parser.feed([b"c\n"]) == []
    assert parser.feed([b"\n"]) == [b"bc"]
    assert parser.flush() == []


lines = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data: ", b"event: x", b": c", b"id: 1", b"", b"", b"", b"x", b"data: \xc3\xa9"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
streams = st.lists(st.tuples(lines, ends), max_size=20).map(lambda parts: b"".join(line + end for line, end in parts))


def by_the_standard(stream: bytes) -> list[bytes]:
    """Parse by the algorithm of the standard, line by line, without regard to speed."""
    events: list[bytes] = []
    values: list[bytes] = []
    for line in [*re.split(rb"\r\n|\r|\n", stream), b""]:
        if not line:
            data = b"\n".join(values)
            values = []
            if data:
                events.append(data)
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            if name == b"data":
                values.append(value.removeprefix(b" "))
    return events


@given(st.data(), streams)
def test_the_parser_does_not_depend_on_cuts_and_agrees_with_the_standard(data: st.DataObject, stream: bytes) -> None:
    expected = by_the_standard(stream)
    assert parse([[stream]]) == expected
    assert parse(data.draw(cuts(stream))) == expected


@given(st.data(), st.binary(max_size=60))
def test_any_bytes_are_parsed_the_same_however_they_are_cut(data: st.DataObject, stream: bytes) -> None:
    assert parse(data.draw(cuts(stream))) == parse([[stream]])


def outcome(reads: list[list[bytes]], max_event_bytes: int) -> tuple[list[bytes], bool]:
    parser = Parser(max_event_bytes=max_event_bytes)
    events: list[bytes] = []
    try:
        for read in reads:
            events += parser.feed(read)
    except EventTooLarge as error:
        return events + error.before, True
    return events + parser.flush(), False


@given(st.data(), streams)
def test_the_limit_does_not_depend_on_cuts(data: st.DataObject, stream: bytes) -> None:
    for limit in (1, 7, 8, 9, 15, 16):
        assert outcome(data.draw(cuts(stream)), limit) == outcome([[stream]], limit)


def test_an_event_of_exactly_the_limit_is_accepted() -> None:
    stream = b"data: 1234\n\n"
    for reads in ([[stream]], [[stream[i : i + 1]] for i in range(len(stream))]):
        assert outcome(reads, 10) == ([b"1234"], False)
        assert outcome(reads, 9) == ([], True)


def test_an_event_over_the_limit_is_an_error_with_the_good_events_before_it() -> None:
    parser = Parser(max_event_bytes=10)
    with pytest.raises(EventTooLarge, match="larger than 10 bytes") as caught:
        parser.feed([b"data: a\n\ndata: 123456789\n\ndata: b\n\n"])
    assert caught.value.before == [b"a"]
    parser = Parser(max_event_bytes=10)
    with pytest.raises(EventTooLarge) as caught:
        parser.feed([b"data: a\n\ndata: 123456789"])
    assert caught.value.before == [b"a"]


def test_an_endless_line_is_refused_while_it_arrives() -> None:
    parser = Parser(max_event_bytes=1000)
    for _ in range(10):
        assert parser.feed([b"x" * 100]) == []
    with pytest.raises(EventTooLarge):
        parser.feed([b"x"])


def test_a_frame_is_one_event() -> None:
    assert frame(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert Parser().feed([frame(b"x")]) == [b"x"]
