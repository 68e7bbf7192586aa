"""Logs: one structured line per finished request, and the process's own messages in the same form, to stderr.

Messages go through the standard library's `logging`, so that those of libraries have the same form. What looks like a
credential is removed from every line, whichever library wrote it (`stages.wire.redaction`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct

from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.request_record import RequestRecord
from pipeline.study.records import ON_SOCKETS
from pipeline.study.tables import coloured, has_colour, ms_text
from stages.wire.redaction import redact

LineFormat = Literal["json", "text"]
LogFormat = Literal["auto", "json", "text"]
"""What can be configured; ``auto`` is text on a terminal, and JSON elsewhere."""
LogLevel = Literal["debug", "info", "warning", "error"]

_HEAD_CHARACTERS = len("2026-01-31T12:00:00.000Z request ")
TEXT_LINE_CHARACTERS = 160
"""The length of a request's line in text format, without a worker's number; what does not fit is cut from the names."""

# httpx logs whole URLs at INFO, httpcore headers with cookies at DEBUG (docs/facts/http-stack.md, "Logging").
_TALKATIVE = ("httpx", "httpcore", "h2", "hpack", "hypercorn.access", "watchfiles")

_ENCODER = msgspec.json.Encoder()
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class TextStyle(NamedTuple):
    """How lines for people look.

    Attributes:
        has_colour: whether the level, how a request ended and whose time it was have colours.
        is_local: whether a line begins with the local time of day, not with the date and the time of day in UTC.
    """

    has_colour: bool = False
    is_local: bool = False

    def moment(self, at_s: float) -> str:
        """Return what a line begins with."""
        return datetime.fromtimestamp(at_s).strftime("%H:%M:%S") if self.is_local else timestamp(at_s)

    def paint(self, text: str, colour: str) -> str:
        """Return a text that needs no escaping, in a colour of `pipeline.study.tables`."""
        return coloured(text, colour) if self.has_colour and text and colour else text


PLAIN = TextStyle()
_BY_CLIENT = ("DC", "DS")
"""Ends that are the client's doing."""
_LEVEL_COLOURS = {"debug": "dim", "warning": "ours", "error": "bad", "critical": "bad"}


class StallRecord(Struct, frozen=True):
    """What the log says of a stall.

    Attributes:
        stage, request_id: whose turn it was; None if no single stage held the loop.
        ms: for how long.
        streams: the requests in flight, which all waited.
        unlogged: how many shorter stalls there were since the last line.
    """

    stage: str | None
    request_id: str | None
    ms: float
    streams: int
    unlogged: int


RecordT = TypeVar("RecordT", RequestRecord, StallRecord)


class Log:
    """Where this process logs.

    Attributes:
        sink: takes its lines; it counts those that it had to drop.
        is_json: whether they are JSON.
        style: how they look otherwise.
        writes_requests: whether `request` writes anything.
    """

    def __init__(
        self,
        sink: LineSink,
        format: LineFormat,
        level: LogLevel,
        worker: int | None = None,
        style: TextStyle = PLAIN,
    ) -> None:
        self.sink = sink
        self.style = style
        self.is_json = format == "json"
        self._json_mark = f'"worker":{worker},' if worker else ""
        self._text_mark = _mark(worker)
        self.level = level

    @property
    def level(self) -> LogLevel:
        """From which level on it writes; see `set_level`."""
        return self._level

    @level.setter
    def level(self, level: LogLevel) -> None:
        self._level: LogLevel = level
        self.writes_requests = level in ("debug", "info")
        self._writes_stalls = level != "error"
        self._is_detailed = level == "debug"

    def requests(
        self, records: Sequence[RequestRecord], ended_s: Sequence[float], lines: Sequence[bytes] | None = None
    ) -> None:
        """Write the lines of finished requests, each with its time; ``lines`` are those of `json_lines`, if known."""
        if self.writes_requests:
            self._write("request", records, ended_s, lines, _words if self._is_detailed else _summary)

    def stall(self, record: StallRecord, noted_s: float) -> None:
        """Write that the loop was held."""
        if self._writes_stalls:
            self._write("stall", [record], [noted_s], None, _words)

    def json_lines(
        self, event: Literal["request", "stall"], records: Sequence[RecordT], at_s: Sequence[float]
    ) -> list[bytes]:
        """Return the lines of records in the JSON format, whatever the format of this log is."""
        heads = [f'{{"ts":"{timestamp(moment_s)}",{self._json_mark}"event":"{event}",'.encode() for moment_s in at_s]
        return [head + line[1:] for head, line in zip(heads, _encode_lines(records), strict=True)]

    def _write(
        self,
        event: Literal["request", "stall"],
        records: Sequence[RecordT],
        at_s: Sequence[float],
        lines: Sequence[bytes] | None,
        as_text: Callable[[RecordT, TextStyle], str],
    ) -> None:
        """Write records, whose texts are redacted already. `logging` would take longer than everything else."""
        if self.is_json:
            lines = lines or self.json_lines(event, records, at_s)
        else:
            lines = [
                f"{self.style.moment(moment_s)} {self._text_mark}{event} {as_text(record, self.style)}".encode()
                for moment_s, record in zip(at_s, records, strict=True)
            ]
        self.sink.write(lines)


def configure_logging(format: LogFormat, level: LogLevel, *, worker: int | None = None, fd: int = 2) -> Log:
    """Send all logging of this process to file descriptor ``fd``, replacing what was configured before.

    Args:
        format: of the lines; ``auto`` goes by whether ``fd`` is a terminal.
        level: applies to messages, and to what the returned log writes of requests (``info``) and stalls (``warning``).
        worker: the number of this process among others that write to the same place, which each line then has.
        fd: the descriptor.
    """
    sink = LineSink(fd)
    is_terminal = os.isatty(fd)
    if format == "auto":
        format = "text" if is_terminal else "json"
    style = TextStyle(has_colour=has_colour(is_terminal=is_terminal), is_local=is_terminal)
    handler = _SinkHandler(sink)
    handler.setFormatter(JsonFormatter(worker) if format == "json" else TextFormatter(worker, style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    # Otherwise each record collects them, and none of our lines shows them (logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log = Log(sink, format, level, worker, style)
    set_level(log, level)
    return log


def set_level(log: Log, level: LogLevel) -> None:
    """Write messages, and what ``log`` writes, from this level on."""
    log.level = level
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class JsonFormatter(logging.Formatter):
    """One JSON object for each message: ``ts``, ``level``, ``logger`` and ``message``; ``worker`` if there are several.

    Args:
        worker: the number of this process; None if it is not one of several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without any newline."""
        line: dict[str, object] = {
            "ts": timestamp(record.created),
            **({"worker": self._worker} if self._worker else {}),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if problem := self._exception(record):
            line["exception"] = redact(problem)
        return _encode(line).decode()

    def _exception(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class TextFormatter(JsonFormatter):
    """The same for people: ``2026-01-31T12:00:00.000Z [2] warning headrace: message``, with indented tracebacks."""

    def __init__(self, worker: int | None = None, style: TextStyle = PLAIN) -> None:
        super().__init__(worker)
        self._look = style  # `logging.Formatter` has a `_style` of its own

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; only a traceback adds further lines, each indented."""
        text = _one_line(redact(record.getMessage()))
        level = record.levelname.lower()
        shown = self._look.paint(level, _LEVEL_COLOURS.get(level, ""))
        line = f"{self._look.moment(record.created)} {_mark(self._worker)}{shown} {record.name}: {text}"
        problem = self._exception(record)
        return line + "".join(f"\n    {_one_line(part)}" for part in redact(problem).split("\n") if problem)


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
            fields = {"level": "error", "logger": record.name, "message": f"unreadable record: {where}"}
            line = _encode({**fields, "exception": type(problem).__name__}).decode()
        with contextlib.suppress(Exception):
            self._sink.write([line.encode("utf-8", "backslashreplace")])


def _words(record: Struct, style: TextStyle) -> str:
    """Return all that is known, in words: ``name=value``."""
    fields = ((name, getattr(record, name)) for name in record.__struct_fields__)
    return " ".join(f"{name}={_word(value)}" for name, value in fields if value is not UNSET)


def _summary(record: RequestRecord, style: TextStyle) -> str:
    """Return the most important of a request: how it ended and how long it took, why it failed, or the stage
    that worked and waited longest for us, and the time of the largest party.

    Such as ``OK 200 key=me model=gpt-5 5122 ms, first token 413 ms; upstream 5109 ms, decode_events 5.0 ms``; what is
    not known is left out.
    """
    names = [f"{name}={_word(value)}" for name, value in (("key", record.key), ("model", record.model)) if value]
    times = f" {ms_text(record.total_ms)}"
    if record.first_token_ms is not None:
        times += f", first token {ms_text(record.first_token_ms)}"
    busy = {
        name: stage.busy_ms + stage.flush_ms + (0 if name in ON_SOCKETS else stage.outside_ms)
        for name, stage in record.stages.items()
    }
    known = f"{record.end} {'-' if record.status is None else record.status}"
    party, stage = _largest(record.party_ms), _largest(busy)
    if record.error is not UNSET:
        known += f" {record.error}"
        stage = ""  # in its place, there is room for why
    most = ", ".join(filter(None, (party, stage)))
    room = TEXT_LINE_CHARACTERS - _HEAD_CHARACTERS - len(known) - len(times) - len("; ") - len(most)
    named = ""
    for remaining, name in zip(range(len(names), 0, -1), names, strict=True):
        word = f" {_cut(name, room // remaining - 1)}"
        named += word
        room -= len(word)
    painted = ", ".join(filter(None, (style.paint(party, party.partition(" ")[0]), stage)))
    return f"{style.paint(known, _colour_of(record))}{named}{times}{painted and '; '}{painted}"


def _colour_of(record: RequestRecord) -> str:
    """Return the colour of how a request ended: well, by the client's doing, or badly."""
    if record.end == "OK":
        return "good"
    return "ours" if record.end in _BY_CLIENT or 400 <= (record.status or 0) < 500 else "bad"


def _largest(figures: Mapping[str, float]) -> str:
    if not figures:
        return ""
    name = max(figures, key=lambda name: figures[name])
    return f"{_cut(_one_line(name), 24)} {ms_text(figures[name])}"


def _cut(word: str, characters: int) -> str:
    return word if len(word) <= characters else f"{word[: characters - 3]}..."


def _mark(worker: int | None) -> str:
    """Return what is before the text of a line that a worker has written."""
    return f"[{worker}] " if worker else ""


def timestamp(at_s: float) -> str:
    """Return a moment, in seconds since the epoch, as lines have it: in UTC, with milliseconds."""
    second, fraction = divmod(at_s, 1)
    return f"{_second(int(second))}.{int(fraction * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().removesuffix("+00:00")


def _encode(line: object) -> bytes:
    try:
        return msgspec.json.encode(line)
    except UnicodeEncodeError:  # a lone surrogate, for example from an undecodable path
        return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(line)))


def _encode_lines(records: Sequence[RecordT]) -> list[bytes]:
    try:
        return _ENCODER.encode_lines(records).splitlines()
    except UnicodeEncodeError:
        return [_encode(record) for record in records]


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
        return value if value.isprintable() else _encode(value).decode()
    return _encode(value).decode()
