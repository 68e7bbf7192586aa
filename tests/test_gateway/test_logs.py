"""Logs: one line each, valid JSON, no keys, and never a wait for their reader."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.time.patience import AT_ONCE_S
from msgspec import UNSET, structs

from pipeline.gateway.failures import EndCode
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.logs import (
    TEXT_LINE_CHARACTERS,
    JsonFormatter,
    LineFormat,
    Log,
    LogFormat,
    LogLevel,
    StallRecord,
    TextFormatter,
    configure_logging,
)
from pipeline.gateway.request_record import LaneFigures, RequestRecord, StageFigures

KEY = "sk-proj-abcdefghijklmnop0123456789"

WAITS = LaneFigures(["call_upstream"], 5111.6, 0.1, 0.8, 2.2, 5108.0, 0.4, 0.1)
STAGES = {
    "call_upstream": StageFigures(2.2, 5108.0, 0.0, 1, 1, 203, 203),
    "decode_events": StageFigures(2.1, 0.0, 2.9, 203, 203, 203, 205),
}
REQUEST = RequestRecord(
    client="192.0.2.7",
    request_id="r1",
    key="anna",
    model="gpt-5",
    deployment="gpt-5-1",
    stream=True,
    end="OK",
    status=200,
    bytes=1700,
    events=205,
    generation=2,
    total_ms=5121.9,
    before_ms=None,
    first_byte_ms=412.1,
    first_token_ms=412.7,
    party_ms={"client": 3.1, "ours": 9.6, "upstream": 5109.2},
    points_ms={"head_read": 0.0, "ended": 5121.9},
    lanes={"call_upstream": WAITS},
    stages=STAGES,
    links={},
)
STALL = StallRecord("shout", "r1", 101.3, 40, 2)
MOMENT_S = 1769860800.25


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """A file to log to; logging is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "log"
    path.touch()
    yield path
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("headrace.test", level, __file__, 1, message, args, None)
    made.created = 1769860800.25
    return made


def test_a_request_is_one_json_line_with_the_fields_in_their_order(log_file: Path) -> None:
    with log_file.open("ab") as file:
        log = configure_logging("json", "info", fd=file.fileno())
        log.requests([REQUEST, structs.replace(REQUEST, request_id="r2", error="timeout")], [MOMENT_S, MOMENT_S + 1])
    one, other = lines(log_file)
    assert one == {
        "ts": "2026-01-31T12:00:00.250Z",
        "event": "request",
        **msgspec.to_builtins(REQUEST),
        "lanes": {"call_upstream": msgspec.to_builtins(WAITS)},
        "stages": {name: msgspec.to_builtins(figures) for name, figures in STAGES.items()},
    }
    fields = [name for name in REQUEST.__struct_fields__ if getattr(REQUEST, name) is not UNSET]
    assert list(one) == ["ts", "event", *fields]
    assert "error" not in one
    assert (other["ts"], other["request_id"], other["error"]) == ("2026-01-31T12:00:01.250Z", "r2", "timeout")


def test_a_message_is_a_json_line_with_level_and_logger(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        logging.getLogger("headrace.test").warning("port %d is\ntaken", 4000)
        logging.getLogger("headrace.test").debug("not written")
    (line,) = lines(log_file)
    assert line["level"] == "warning"
    assert line["logger"] == "headrace.test"
    assert line["message"] == "port 4000 is\ntaken"


@pytest.mark.parametrize("format", ["json", "text"])
def test_each_line_of_one_of_several_workers_has_its_number(log_file: Path, format: LogFormat) -> None:
    with log_file.open("ab") as file:
        log = configure_logging(format, "info", worker=2, fd=file.fileno())
        log.requests([REQUEST], [MOMENT_S])
        log.stall(STALL, MOMENT_S)
        logging.getLogger("headrace.test").warning("busy")
    written = log_file.read_text().splitlines()
    if format == "json":
        assert [json.loads(line)["worker"] for line in written] == [2, 2, 2]
    else:
        assert [line.split(" ")[1:3] for line in written] == [["[2]", "request"], ["[2]", "stall"], ["[2]", "warning"]]


def test_a_traceback_is_part_of_its_line_and_redacted() -> None:
    made = record("it failed")
    try:
        raise RuntimeError(f"no such key {KEY}")
    except RuntimeError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    line = json.loads(JsonFormatter().format(made))
    assert "RuntimeError: no such key [redacted]" in line["exception"]
    text = TextFormatter().format(made)
    assert KEY not in text
    assert text.split("\n")[0] == "2026-01-31T12:00:00.250Z info headrace.test: it failed"
    assert all(part.startswith("    ") for part in text.split("\n")[1:])


def test_text_for_people_keeps_a_message_on_one_line() -> None:
    line = TextFormatter().format(record("a\nb\x1b[31m\u2028c"))
    assert line == "2026-01-31T12:00:00.250Z info headrace.test: a\\nb\\x1b[31m\\x2028c"


def text_lines(log_file: Path, record: RequestRecord, *, level: LogLevel = "info") -> list[str]:
    """Return what is written of a request in text format, without its time."""
    with log_file.open("ab") as file:
        configure_logging("text", level, fd=file.fileno()).requests([record], [MOMENT_S])
    written = log_file.read_text().splitlines()
    assert all(len(line) <= TEXT_LINE_CHARACTERS for line in written) or level == "debug"
    return [line.split(" ", 1)[1] for line in written]


@pytest.fixture(autouse=True)
def _no_wishes_for_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def on_a_terminal(record: RequestRecord) -> str:
    """Return what a terminal shows of a request, and of a warning after it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    ours, theirs = pty.openpty()
    try:
        configure_logging("auto", "info", fd=theirs).requests([record], [MOMENT_S])
        logging.getLogger("headrace.test").warning("busy")
        said = b""
        while not said.endswith(b"busy\r\n"):
            said += os.read(ours, 4096)
        return said.decode()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(False)
        os.close(ours)
        os.close(theirs)


def test_text_for_people_quotes_only_where_needed(log_file: Path) -> None:
    record = structs.replace(REQUEST, model="gpt 5", deployment='a"b', key=None)
    (line,) = text_lines(log_file, record, level="debug")
    assert line.startswith(
        'request request_id=r1 client=192.0.2.7 key=null model="gpt 5" deployment="a\\"b" stream=true end=OK status=200'
    )


def test_a_request_for_people_has_its_times_its_largest_party_and_its_busiest_stage(log_file: Path) -> None:
    assert text_lines(log_file, REQUEST) == [
        "request OK 200 key=anna model=gpt-5 5122 ms, first token 413 ms; upstream 5109 ms, decode_events 5.0 ms"
    ]


def test_at_debug_a_request_for_people_has_all_fields(log_file: Path) -> None:
    (line,) = text_lines(log_file, REQUEST, level="debug")
    event, *words = line.split(" ")
    assert event == "request"
    assert [word.split("=")[0] for word in words] == list(msgspec.to_builtins(REQUEST))
    assert 'party_ms={"client":3.1,"ours":9.6,"upstream":5109.2}' in words
    assert json.loads(words[-2].removeprefix("stages="))["decode_events"]["flush_ms"] == 2.9


def test_what_is_not_known_of_a_request_is_left_out(log_file: Path) -> None:
    refused = structs.replace(
        REQUEST,
        key=None,
        model=None,
        end="BR",
        status=401,
        total_ms=0.4,
        first_token_ms=None,
        error="unauthorized",
        party_ms={"client": 0.1, "ours": 0.3, "upstream": 0.0},
        stages={"authenticate": StageFigures(0.12, 0.0, 0.0, 0, 0, 0, 0)},
    )
    assert text_lines(log_file, refused) == ["request BR 401 unauthorized 0.40 ms; ours 0.30 ms"]


def test_a_stage_that_waits_for_something_of_its_own_is_named_before_those_that_wait_for_sockets(
    log_file: Path,
) -> None:
    waits = structs.replace(
        REQUEST,
        party_ms={"client": 0.1, "ours": 970.3, "upstream": 0.0},
        stages={
            "slow_down": StageFigures(0.1, 968.0, 0.0, 1, 1, 1, 1),
            "write_sse": StageFigures(1.8, 5000.0, 0.0, 1, 1, 1, 1),
        },
    )
    [line] = text_lines(log_file, waits)
    assert line.endswith("; ours 970 ms, slow_down 968 ms")


def test_a_request_that_no_stage_has_seen_has_a_line_too(log_file: Path) -> None:
    unseen = structs.replace(
        REQUEST, end="DR", status=503, key=None, model=None, total_ms=0.4, first_token_ms=None, stages={}
    )
    assert text_lines(log_file, unseen) == ["request DR 503 0.40 ms; upstream 5109 ms"]


@pytest.mark.parametrize("length", [*range(1, 60), 500])
def test_a_request_for_people_fits_into_its_line_whatever_its_names_are(log_file: Path, length: int) -> None:
    named = structs.replace(
        REQUEST,
        key="k" * length,
        model="m" * (length + 1),
        end="DC",
        status=None,
        total_ms=599_999.94,
        first_token_ms=599_999.94,
        error="upstream_context_length_exceeded",
        party_ms={"client": 0.0, "ours": 0.0, "upstream": 599_999.94},
        stages={"s" * length: StageFigures(599_999.94, 0.0, 0.0, 1, 1, 1, 1)},
    )
    (line,) = text_lines(log_file, named)
    assert line.startswith("request DC - upstream_context_length_exceeded key=k")
    assert line.endswith(" 600.0 s, first token 600.0 s; upstream 600.0 s")


@pytest.mark.parametrize(
    ("names", "cut"),
    [({"key": "k" * 500, "model": "m" * 500}, 2), ({"model": "m" * 500}, 1), ({"key": None, "model": "m" * 500}, 1)],
)
def test_a_long_name_has_all_the_room_that_is_left(log_file: Path, names: dict[str, Any], cut: int) -> None:
    (line,) = text_lines(log_file, structs.replace(REQUEST, **names))
    assert len(log_file.read_text().rstrip("\n")) == TEXT_LINE_CHARACTERS
    assert line.count("...") == cut


@pytest.mark.parametrize(
    ("end", "status", "colour"),
    [("OK", 200, 32), ("BR", 401, 33), ("RL", 429, 33), ("DC", None, 33), ("UE", 502, 31), ("UT", 200, 31)],
)
def test_on_a_terminal_the_end_and_the_largest_party_have_colours(end: EndCode, status: int, colour: int) -> None:
    said = on_a_terminal(structs.replace(REQUEST, end=end, status=status))
    shown = "-" if status is None else status
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d request \x1b\[{colour}m{end} {shown}\x1b\[0m key=anna model=gpt-5 "
        r"5122 ms, first token 413 ms; "
        r"\x1b\[35mupstream 5109 ms\x1b\[0m, decode_events 5\.0 ms\r\n"
        r"\d\d:\d\d:\d\d \x1b\[33mwarning\x1b\[0m headrace\.test: busy\r\n",
        said,
    ), said


@pytest.mark.parametrize(
    ("environ", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"TERM": "dumb", "FORCE_COLOR": "1"}, True)],
)
def test_a_terminal_may_be_asked_for_no_colour(
    environ: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    said = on_a_terminal(REQUEST)
    assert ("\x1b" in said) is is_coloured
    assert said[:8].count(":") == 2


def test_in_a_file_auto_is_json_and_text_has_no_colour_unless_it_is_forced(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_file.open("ab") as file:
        assert configure_logging("auto", "info", fd=file.fileno()).is_json
        configure_logging("text", "info", fd=file.fileno()).requests([REQUEST], [MOMENT_S])
        monkeypatch.setenv("FORCE_COLOR", "1")
        configure_logging("text", "info", fd=file.fileno()).requests([REQUEST], [MOMENT_S])
    plain, coloured = log_file.read_text().splitlines()
    assert plain.startswith("2026-01-31T12:00:00.250Z request OK 200 key=anna ")
    assert coloured.startswith("2026-01-31T12:00:00.250Z request \x1b[32mOK 200\x1b[0m key=anna ")


def test_a_name_from_a_client_stays_on_the_line(log_file: Path) -> None:
    (line,) = text_lines(log_file, structs.replace(REQUEST, model="gpt 5\n2026 request"))
    assert line.startswith('request OK 200 key=anna model="gpt 5\\n2026 request" 5122 ms, first token ')


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("json", '"event":"stall","stage":"shout","request_id":"r1","ms":101.3,"streams":40,"unlogged":2}'),
        ("text", "stall stage=shout request_id=r1 ms=101.3 streams=40 unlogged=2"),
    ],
)
def test_a_stall_is_a_line_of_its_own(log_file: Path, format: LogFormat, line: str) -> None:
    with log_file.open("ab") as file:
        configure_logging(format, "warning", fd=file.fileno()).stall(STALL, MOMENT_S)
        configure_logging(format, "error", fd=file.fileno()).stall(STALL, MOMENT_S)  # not at this level
    (written,) = log_file.read_text().splitlines()
    assert written.endswith(line)


def test_requests_are_silent_above_info(log_file: Path) -> None:
    with log_file.open("ab") as file:
        log = configure_logging("json", "warning", fd=file.fileno())
        assert not log.writes_requests
        log.requests([REQUEST], [MOMENT_S])
    assert log_file.read_text() == ""


def test_libraries_that_log_urls_and_headers_are_kept_at_warning(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "debug", fd=file.fileno())
        logging.getLogger("httpx").info("HTTP Request: GET https://u:p@example.com")
        logging.getLogger("httpcore.http11").debug("send_request_headers")
        logging.getLogger("headrace.test").debug("ours")
    assert [line["message"] for line in lines(log_file)] == ["ours"]


def test_warnings_of_python_become_messages(log_file: Path) -> None:
    with log_file.open("ab") as file, warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("json", "info", fd=file.fileno())
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    (line,) = lines(log_file)
    assert line["logger"] == "py.warnings"


def test_a_record_that_cannot_be_formatted_is_reported_without_its_arguments(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        logging.getLogger("headrace.test").info("%d", KEY)
    (line,) = lines(log_file)
    assert line["level"] == "error"
    assert str(line["message"]).startswith("unreadable record: ")
    assert line["exception"] == "TypeError"


def test_a_key_is_redacted_in_every_message() -> None:
    for formatter in (JsonFormatter(), TextFormatter()):
        assert "key [redacted]" in formatter.format(record("key %s", KEY))


@given(st.text(), st.text(), st.text(), st.sampled_from(["json", "text"]), st.booleans())
@example("\ud800", "\ud800", "\ud800", "json", False)
@example("\ud800", "\ud800", "\ud800", "text", True)
def test_any_names_make_one_line_for_each_request(
    key: str, model: str, stage: str, format: LineFormat, is_detailed: bool
) -> None:
    named = structs.replace(REQUEST, key=key, model=model, stage=stage, stages={stage: STAGES["decode_events"]})
    reading, writing = os.pipe()
    try:
        log = Log(LineSink(writing), format, "debug" if is_detailed else "info")
        log.requests([named, REQUEST], [MOMENT_S, MOMENT_S])
        written = os.read(reading, 1 << 20).decode()
    finally:
        os.close(reading)
        os.close(writing)
    one, other, rest = written.split("\n")
    assert (one[:31], other[:31], rest) == (written[:31], written[:31], "")
    if format == "json":
        assert all(json.loads(line)["ts"] == "2026-01-31T12:00:00.250Z" for line in (one, other))


def test_a_reader_that_stalls_costs_lines_but_no_time() -> None:
    reading, writing = os.pipe()
    try:
        sink = LineSink(writing)
        start = time.perf_counter()
        for number in range(400):
            sink.write([f"{number:04d}".encode() + b"x" * 1000])
        took_s = time.perf_counter() - start
        assert took_s < AT_ONCE_S  # a wait of 20 ms for each of them would take longer
        assert sink.dropped_lines > 300
        got = os.read(reading, 1 << 20).decode().splitlines()
        assert got[0].startswith("0000x")
        assert all(len(line) == 1004 for line in got)
        sink.write([b"after"])
        assert os.read(reading, 1 << 20).decode().splitlines() == [
            f'{{"level":"warning","logger":"headrace.logs","message":"log lines dropped: {sink.dropped_lines}"}}',
            "after",
        ]
    finally:
        os.close(reading)
        os.close(writing)


def test_a_long_line_that_is_cut_short_does_not_spoil_the_next() -> None:
    reading, writing = os.pipe()
    try:
        sink = LineSink(writing)
        sink.write([b"y" * 1_000_000])
        assert sink.dropped_lines == 1
        cut = os.read(reading, 1 << 20)
        assert set(cut) == {ord("y")}
        sink.write([b"after"])
        assert os.read(reading, 1 << 20).decode().split("\n")[0] == ""
    finally:
        os.close(reading)
        os.close(writing)


def test_a_long_line_arrives_whole_in_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        LineSink(file.fileno()).write([b"z" * 50_000, b"end"])
    assert (tmp_path / "log").read_text() == "z" * 50_000 + "\nend\n"


def test_a_reader_that_has_gone_costs_only_lines() -> None:
    reading, writing = os.pipe()
    sink = LineSink(writing)
    os.close(reading)
    try:
        sink.write([b"unread", b"unread"])
        assert sink.dropped_lines == 2
    finally:
        os.close(writing)


def test_logging_again_replaces_the_handler_instead_of_doubling_lines(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        configure_logging("json", "info", fd=file.fileno())
        logging.getLogger("headrace.test").info("once")
    assert len(lines(log_file)) == 1
