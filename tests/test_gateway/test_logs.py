"""Logs: one line each, valid JSON, no keys, and never a wait for their reader."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.time.patience import AT_ONCE_S

from pipeline.gateway.logs import JsonFormatter, LineSink, TextFormatter, configure_logging, log_request

KEY = "sk-proj-abcdefghijklmnop0123456789"


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
        configure_logging("json", "info", fd=file.fileno())
        log_request({"request_id": "r1", "key": "anna", "status": 200, "ttfb_ms": 1.5, "stages": {"a": {"busy_us": 3}}})
    (line,) = lines(log_file)
    assert list(line) == ["ts", "event", "request_id", "key", "status", "ttfb_ms", "stages"]
    assert line["event"] == "request"
    assert line["stages"] == {"a": {"busy_us": 3}}


def test_a_message_is_a_json_line_with_level_and_logger(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        logging.getLogger("headrace.test").warning("port %d is\ntaken", 4000)
        logging.getLogger("headrace.test").debug("not written")
    (line,) = lines(log_file)
    assert line["level"] == "warning"
    assert line["logger"] == "headrace.test"
    assert line["message"] == "port 4000 is\ntaken"


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


def test_text_for_people_quotes_only_where_needed(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("text", "info", fd=file.fileno())
        log_request({"request_id": "r1", "model": "gpt 5", "path": 'a"b', "status": 200, "key": None})
    assert log_file.read_text().split(" ", 1)[1] == (
        'request request_id=r1 model="gpt 5" path="a\\"b" status=200 key=null\n'
    )


def test_requests_are_silent_above_info(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "warning", fd=file.fileno())
        log_request({"request_id": "r1"})
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


def test_a_key_is_redacted_in_every_text_of_a_line() -> None:
    made = record("request")
    made.headrace_fields = {"model": KEY, "list": [KEY, {"deep": f"key {KEY}, again {KEY}"}], "status": 401}
    line = json.loads(JsonFormatter().format(made))
    assert (line["model"], line["list"]) == (
        "[redacted]",
        ["[redacted]", {"deep": "key [redacted], again [redacted]"}],
    )
    for formatter in (JsonFormatter(), TextFormatter()):
        assert KEY not in formatter.format(made)
        assert KEY not in formatter.format(record("key %s", KEY))


def test_a_field_with_a_secret_name_is_redacted_whatever_its_value(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        log_request(
            {"headers": {"Authorization": "hunter2", "x-api-key": "hunter2"}, "password": "hunter2", "key": "anna"}
        )
    (line,) = lines(log_file)
    assert line["headers"] == {"Authorization": "[redacted]", "x-api-key": "[redacted]"}
    assert line["password"] == "[redacted]"
    assert line["key"] == "anna"


class Opaque:
    def __repr__(self) -> str:
        return KEY


def test_of_values_that_json_does_not_have_only_the_type_is_shown(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        log_request(
            {"odd": Opaque(), "bytes": b"hunter2", "nan": float("nan"), "surrogate": "\ud800", "\ud800": [1, (2,)]}
        )
    (line,) = lines(log_file)
    assert line["odd"] == "<Opaque>"
    assert line["bytes"] == "<bytes>"
    assert line["nan"] is None
    assert line["surrogate"] == "\\ud800"
    assert line["\\ud800"] == [1, [2]]


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=4),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
@example({"ts": None, "event": 1})
def test_any_fields_make_one_line_of_json_and_one_of_text(fields: dict[str, object]) -> None:
    made = record("request")
    made.headrace_fields = fields
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert json.loads(line)["ts"] == "2026-01-31T12:00:00.250Z"
    assert "\n" not in TextFormatter().format(made)


def test_a_reader_that_stalls_costs_lines_but_no_time() -> None:
    reading, writing = os.pipe()
    try:
        sink = LineSink(writing)
        start = time.perf_counter()
        for number in range(400):
            sink.write(f"{number:04d}" + "x" * 1000)
        took_s = time.perf_counter() - start
        assert took_s < AT_ONCE_S  # a wait of 20 ms for each of them would take longer
        assert sink.dropped_lines > 300
        got = os.read(reading, 1 << 20).decode().splitlines()
        assert got[0].startswith("0000x")
        assert all(len(line) == 1004 for line in got)
        sink.write("after")
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
        sink.write("y" * 1_000_000)
        assert sink.dropped_lines == 1
        cut = os.read(reading, 1 << 20)
        assert set(cut) == {ord("y")}
        sink.write("after")
        assert os.read(reading, 1 << 20).decode().split("\n")[0] == ""
    finally:
        os.close(reading)
        os.close(writing)


def test_a_long_line_arrives_whole_in_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        LineSink(file.fileno()).write("z" * 50_000)
    assert (tmp_path / "log").read_text() == "z" * 50_000 + "\n"


def test_a_reader_that_has_gone_costs_only_lines() -> None:
    reading, writing = os.pipe()
    sink = LineSink(writing)
    os.close(reading)
    try:
        sink.write("unread")
        assert sink.dropped_lines == 1
    finally:
        os.close(writing)


def test_logging_again_replaces_the_handler_instead_of_doubling_lines(log_file: Path) -> None:
    with log_file.open("ab") as file:
        configure_logging("json", "info", fd=file.fileno())
        configure_logging("json", "info", fd=file.fileno())
        logging.getLogger("headrace.test").info("once")
    assert len(lines(log_file)) == 1
