"""Logs: one structured line per finished request, and the process's own messages in the same form, to stderr.

They go through the standard library's `logging`, so that messages of libraries have the same form and tests can catch
records. What looks like a credential is removed from every line, whichever library wrote it (`stages.wire.redaction`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeGuard, cast

import msgspec
from msgspec import Struct

from stages.wire.redaction import REDACTED, is_secret_name, redact

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

_REQUEST_LOGGER = logging.getLogger("headrace.request")
_STALL_LOGGER = logging.getLogger("headrace.stall")
_FIELDS = "headrace_fields"

_TIMESTAMP_CHARACTERS = len("2026-01-31T12:00:00.000Z ")
TEXT_LINE_CHARACTERS = 160
"""The length of a request's line in text format; what does not fit is cut from the names."""

# httpx logs whole URLs at INFO, httpcore headers with cookies at DEBUG (docs/facts/http-stack.md, "Logging").
_TALKATIVE = ("httpx", "httpcore", "h2", "hpack", "hypercorn.access")

_NUMBERS = (int, float, type(None))
_KINDS_OF_NUMBERS = frozenset({int, float, bool, type(None)})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def logs_requests() -> bool:
    """Return whether `log_request` would write anything; building the fields costs more than this check."""
    return _REQUEST_LOGGER.isEnabledFor(logging.INFO)


def log_request(fields: Mapping[str, object]) -> None:
    """Write the one line of a finished request. Call it once, at the request's end.

    The line has the ``fields`` in their order; a value is text, a number, a boolean, None, or a mapping or list of
    those. Text is redacted. A mapping may also have Structs of figures, which are written as they are. Never raises: a
    line that cannot be written is dropped and counted.
    """
    if logs_requests():
        _handle(_REQUEST_LOGGER, logging.INFO, "request", fields)


def log_stall(fields: Mapping[str, object]) -> None:
    """Write a warning that the loop was held; the fields are as in `log_request`."""
    if _STALL_LOGGER.isEnabledFor(logging.WARNING):
        _handle(_STALL_LOGGER, logging.WARNING, "stall", fields)


def _handle(logger: logging.Logger, level: int, event: str, fields: Mapping[str, object]) -> None:
    # Not `info`, which would walk the stack to find the caller; the caller is always this line.
    logger.handle(logger.makeRecord(logger.name, level, __file__, 0, event, (), None, extra={_FIELDS: fields}))


def configure_logging(format: LogFormat, level: LogLevel, *, fd: int = 2) -> LineSink:
    """Send all logging of this process to file descriptor ``fd``, replacing what was configured before.

    ``level`` applies to messages; request lines are written unless it is above ``info``. Returns the sink, whose count
    of dropped lines is a metric.
    """
    sink = LineSink(fd)
    handler = _SinkHandler(sink)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(is_detailed=level == "debug"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    # Otherwise each record collects them, and none of our lines shows them (logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return sink


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``ts``, ``level``, ``logger`` and ``message``; or ``ts``, ``event`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without any newline."""
        fields = _request_fields(record)
        line: dict[str, object] = {"ts": _timestamp(record)}
        if fields is None:
            line |= {"level": record.levelname.lower(), "logger": record.name, "message": redact(_message(record))}
            if problem := self._exception(record):
                line["exception"] = redact(problem)
        else:
            line["event"] = record.getMessage()
            line = {**line, **_cleaned(fields), **line}  # a field cannot replace these
        return _encode(line)

    def _exception(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class TextFormatter(JsonFormatter):
    """The same for people: ``2026-01-31T12:00:00.000Z warning headrace: message``, with indented tracebacks.

    A request has a line of at most `TEXT_LINE_CHARACTERS`, with the time of the largest party and of the busiest stage:
    ``... request OK 200 key=me model=gpt-5 first=412.7 total=5121.9 ms upstream=5109.2 decode_events=5.0``.

    Args:
        is_detailed: whether the line has all fields instead, as in JSON.
    """

    def __init__(self, *, is_detailed: bool) -> None:
        super().__init__()
        self._is_detailed = is_detailed

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; only a traceback adds further lines, each indented."""
        fields = _request_fields(record)
        if fields is not None:
            cleaned = _cleaned(fields)
            event = record.getMessage()
            if event == "request" and not self._is_detailed:
                return f"{_timestamp(record)} {_summary(cleaned)}"
            words = (f"{_one_line(name)}={_word(value)}" for name, value in cleaned.items())
            return " ".join((_timestamp(record), event, *words))
        text = _one_line(redact(_message(record)))
        line = f"{_timestamp(record)} {record.levelname.lower()} {record.name}: {text}"
        problem = self._exception(record)
        return line + "".join(f"\n    {_one_line(part)}" for part in redact(problem).split("\n") if problem)


class LineSink:
    """Writes lines to a file descriptor without waiting for its reader.

    What we want: a log line costs a few microseconds, and never stops the streams. Why it is hard: a write to a pipe
    whose reader (journald, docker, a shell pipeline) has stalled blocks, and with it the trio loop and every stream in
    the process. Making the descriptor non-blocking does not work: the flag belongs to the open file, which we share
    with our parent's shell and with the other workers. A thread with a queue works, but costs a thread switch for each
    line and loses the last lines when the process dies. What we do: call `poll` first. Linux reports a pipe as writable
    only while a whole PIPE_BUF (4096 bytes) fits, so that a write of at most that many bytes then returns at once, and
    is atomic among processes. Lines for which there is no room are dropped and counted, and the next line that gets
    through is preceded by the count. How it can still fail: another process that shares the pipe fills it between our
    poll and our write (then we wait until the reader reads again), and a file on a hung network disk blocks like any
    file. See pipe(7), poll(2).
    """

    PIPE_BUF_BYTES = 4096
    MAX_WAIT_MS = 20
    """How long each further part of a line longer than PIPE_BUF may wait for the reader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._unreported = 0
        self._cut = False
        self.dropped_lines = 0
        """Lines dropped or cut short since the start."""

    def write(self, line: str) -> None:
        """Write ``line`` and a newline, or drop it; never raises for a broken or full descriptor."""
        if self._unreported:
            notice = (
                f'{{"level":"warning","logger":"headrace.logs","message":"log lines dropped: {self._unreported}"}}\n'
            )
            if not self._put(notice.encode(), max_wait_ms=0):
                self._drop()
                return
            self._unreported = 0
        if not self._put(line.encode("utf-8", "backslashreplace") + b"\n", max_wait_ms=self.MAX_WAIT_MS):
            self._drop()

    def _put(self, data: bytes, *, max_wait_ms: int) -> bool:
        if self._cut:
            data = b"\n" + data
        at = 0
        while at < len(data):
            if not self._is_writable(max_wait_ms if at else 0):
                self._cut = self._cut or at > 0
                return False
            try:
                at += os.write(self._fd, data[at : at + self.PIPE_BUF_BYTES])
            except OSError:
                self._cut = self._cut or at > 0
                return False
        self._cut = False
        return True

    def _is_writable(self, max_wait_ms: int) -> bool:
        return any(state & select.POLLOUT for _, state in self._poll.poll(max_wait_ms))

    def _drop(self) -> None:
        self.dropped_lines += 1
        self._unreported += 1


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or if it cannot be formatted, a line that says so, without its arguments."""
        try:
            line = self.format(record)
        except Exception as problem:  # a bad record must not fail its request
            where = f"{record.pathname}:{record.lineno}"
            line = _encode({"level": "error", "logger": record.name, "message": f"unreadable record: {where}",
                            "exception": type(problem).__name__})  # fmt: skip
        with contextlib.suppress(Exception):
            self._sink.write(line)


def _summary(fields: Mapping[str, Any]) -> str:
    """Return a request's fields in one line, as far as they are known."""
    names = [f"{name}={_word(fields[name])}" for name in ("key", "model") if fields.get(name)]
    first, total = fields.get("first_token_ms"), fields.get("total_ms")
    times = "".join(f" {name}={ms:.1f}" for name, ms in (("first", first), ("total", total)) if ms is not None)
    parties: Mapping[str, float] = fields.get("party_ms") or {}
    stages: Mapping[str, Any] = fields.get("stages") or {}
    busy: Mapping[str, float] = {name: stage.busy_ms + stage.flush_ms for name, stage in stages.items()}
    most = "".join(f" {_largest(figures)}" for figures in (parties, busy) if figures)
    known = f"request {fields.get('end')} {fields.get('status')}"
    room = TEXT_LINE_CHARACTERS - _TIMESTAMP_CHARACTERS - len(known) - len(times) - len(" ms") - len(most)
    named = ""
    for remaining, name in zip(range(len(names), 0, -1), names, strict=True):
        word = f" {_cut(name, room // remaining - 1)}"
        named += word
        room -= len(word)
    return f"{known}{named}{times} ms{most}"


def _largest(figures: Mapping[str, float]) -> str:
    name = max(figures, key=lambda name: figures[name])
    return f"{_cut(name, 24)}={figures[name]:.1f}"


def _cut(word: str, characters: int) -> str:
    return word if len(word) <= characters else f"{word[: characters - 3]}..."


def _request_fields(record: logging.LogRecord) -> Mapping[str, object] | None:
    return cast("Mapping[str, object] | None", getattr(record, _FIELDS, None))


def _message(record: logging.LogRecord) -> str:
    return record.getMessage()


def _timestamp(record: logging.LogRecord) -> str:
    second, fraction = divmod(record.created, 1)
    return f"{_second(int(second))}.{int(fraction * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().removesuffix("+00:00")


def _cleaned(fields: Mapping[str, object]) -> dict[str, object]:
    return cast("dict[str, object]", _clean(fields))


def _clean(value: object, depth: int = 0) -> object:
    """Return ``value`` in plain JSON types, without credentials; of any other type, only its name."""
    if isinstance(value, _NUMBERS):
        return value
    if isinstance(value, str):
        return redact(value)
    if depth < 4 and _is_mapping(value):
        return {
            str(name): item if _is_plain(item) else _clean_field(str(name), item, depth + 1)
            for name, item in value.items()
        }
    if depth < 4 and isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in cast("list[object]", value)]
    return f"<{type(value).__name__}>"  # its repr may contain anything


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return type(value) is dict or isinstance(value, Mapping)  # isinstance alone takes ten times as long


def _is_plain(value: object) -> bool:
    """Return whether there is nothing to clean: numbers, and the figures that are most of a record."""
    kind = value.__class__
    if kind is not dict:
        return kind in _KINDS_OF_NUMBERS
    kinds = set(map(type, cast("dict[str, object]", value).values()))
    return _KINDS_OF_NUMBERS.issuperset(kinds) or all(issubclass(kind, Struct) for kind in kinds)


def _clean_field(name: str, value: object, depth: int) -> object:
    return REDACTED if is_secret_name(name) else _clean(value, depth)


def _encode(line: object) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # a lone surrogate, for example from an undecodable path
        return msgspec.json.encode(_without_surrogates(line)).decode()


def _without_surrogates(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            items = cast("dict[str, object]", value).items()
            return {cast("str", _without_surrogates(name)): _without_surrogates(item) for name, item in items}
        case list():
            return [_without_surrogates(item) for item in cast("list[object]", value)]
        case _:
            return value


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] != "\n" else "\\n", text)


def _word(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r"[\s\"=\\]", _one_line(value)):
        return value if value.isprintable() else _encode(value)
    return _encode(value)
