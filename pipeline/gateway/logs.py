"""Logs: one structured line per finished request, and the process's own messages in the same form, to stderr.

Standard library `logging`, so that libraries' messages come out in the same form and tests can catch records. Text that
looks like a key is taken out of every line, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import select
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypeGuard, cast

import msgspec

LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

REDACTED = "[redacted]"

_REQUEST_LOGGER = logging.getLogger("headrace.request")
_FIELDS = "headrace_fields"

# httpx prints whole URLs at INFO and httpcore headers, cookies included, at DEBUG (facts/stack.md section 8).
_TALKATIVE = ("httpx", "httpcore", "h2", "hpack", "hypercorn.access")

# Keys by the prefixes their issuers give them, so that request ids, digests and model names are left alone:
# OpenAI, Anthropic, OpenRouter, LiteLLM and headrace sk-; xAI; Groq; GitHub; AWS; Google; Hugging Face; Databricks;
# Perplexity; Fireworks; Slack; GitLab; and JSON Web Tokens.
_KEY = re.compile(
    r"\bsk-[A-Za-z0-9_\-]+|\b(?:pk|rk|sess)-[A-Za-z0-9_\-]{8,}|\b(?:xai|pplx|glpat|xox[abprs])-[A-Za-z0-9\-_]{8,}|\bgsk_\w{8,}|\bgh[opsur]_\w{8,}"
    r"|\bgithub_pat_\w{8,}|\bAKIA[0-9A-Z]{12,}|\bAIza[\w\-]{20,}|\bhf_\w{8,}|\bdapi[0-9a-f]{16,}|\bfw_\w{12,}"
    r"|\beyJ[\w\-]{8,}\.[\w\-]{4,}(?:\.[\w\-]*)?"
)
_CREDENTIALS = re.compile(r"\b(Bearer|Basic)(\s+)[^\s'\",;]{4,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:api[_\-]?key|apikey|token|secret|password|passwd|authorization|cookie)(?:[\"']?\]?\s*[:=]|[\"']\s*,)\s*)"
    r"(?!\s*(?:Bearer|Basic)\b)(?:\"[^\"\n]{4,}\"|'[^'\n]{4,}'|b'[^'\n]{4,}'|[^\s\"',;&){}\]]{4,})",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^\s/@'\"]+@", re.IGNORECASE)
_SECRET_FIELD = re.compile(
    r"(?:^|_|-)(?:authorization|api[_-]?key|secret|password|cookie|credentials?)$", re.IGNORECASE
)
# Every match of a pattern above holds one of these, in some case. Looking for them lets an ordinary id or name go after
# 1 us, where the patterns take 6.
_HINTS = (
    *("sk-", "pk-", "rk-", "sess-", "xai-", "pplx-", "glpat-", "xox", "gsk_", "gh", "github_", "akia", "aiza", "hf_"),
    *("dapi", "fw_", "eyj", "://", "bearer", "basic", "key", "token", "secret", "passw", "authorization", "cookie"),
)
_NUMBERS = (int, float, type(None))
_KINDS_OF_NUMBERS = frozenset({int, float, bool, type(None)})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def redact(text: str) -> str:
    """Return ``text`` with everything that looks like a key replaced by ``[redacted]``."""
    lowered = text.lower()
    for hint in _HINTS:
        if hint in lowered:
            break
    else:
        return text
    text = _CREDENTIALS.sub(rf"\1\2{REDACTED}", text)
    text = _USERINFO.sub(rf"\1{REDACTED}@", text)
    text = _ASSIGNED.sub(rf"\1{REDACTED}", text)
    return _KEY.sub(REDACTED, text)


def logs_requests() -> bool:
    """Return whether `log_request` would write anything; making the fields costs more than asking."""
    return _REQUEST_LOGGER.isEnabledFor(logging.INFO)


def log_request(fields: Mapping[str, object]) -> None:
    """Write the one line of a finished request. Call it once, at the request's end.

    Takes the fields in the order in which they should stand: text, numbers, booleans, None, and mappings or lists of
    those. Text is redacted. Gives nothing and raises nothing: a line that cannot be written is dropped and counted.
    """
    if logs_requests():
        # Not `info`: it would walk the stack for the caller, which is always this line.
        logger = _REQUEST_LOGGER
        record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, "request", (), None, extra={_FIELDS: fields})
        logger.handle(record)


def configure_logging(format: LogFormat = "json", level: LogLevel = "info", *, fd: int = 2) -> LineSink:
    """Send all logging of this process to file descriptor ``fd``, replacing what was configured before.

    ``level`` is for messages; request lines are written unless it is above ``info``. Gives the sink, whose count of
    dropped lines is a metric.
    """
    sink = LineSink(fd)
    handler = _SinkHandler(sink)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    # Each record would ask for them, and no line of ours shows them (logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return sink


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``ts``, ``level``, ``logger`` and ``message``; or ``ts``, ``event`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a newline at its end or inside."""
        fields = _request_fields(record)
        line: dict[str, object] = {"ts": _timestamp(record)}
        if fields is None:
            line |= {"level": record.levelname.lower(), "logger": record.name, "message": redact(_message(record))}
            if problem := self._exception(record):
                line["exception"] = redact(problem)
        else:
            line["event"] = "request"
            line = {**line, **cast("dict[str, object]", _clean(fields)), **line}  # a field does not take their places
        return _encode(line)

    def _exception(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class TextFormatter(JsonFormatter):
    """The same for people: ``2026-01-31T12:00:00.000Z warning headrace: message``, tracebacks indented below."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; only a traceback adds further lines, each indented."""
        fields = _request_fields(record)
        if fields is not None:
            cleaned = cast("dict[str, object]", _clean(fields))
            words = (f"{_one_line(name)}={_word(value)}" for name, value in cleaned.items())
            return " ".join((_timestamp(record), "request", *words))
        text = _one_line(redact(_message(record)))
        line = f"{_timestamp(record)} {record.levelname.lower()} {record.name}: {text}"
        problem = self._exception(record)
        return line + "".join(f"\n    {_one_line(part)}" for part in redact(problem).split("\n") if problem)


class LineSink:
    """Writes lines to a file descriptor without waiting for whoever reads it.

    What we want: a log line costs some microseconds, and never stops the streams. Why it is hard: a write to a pipe
    whose reader (journald, docker, a shell pipeline) has stalled blocks, and with it the trio loop and every stream in
    the process. Making the descriptor non-blocking does not work: the flag belongs to the open file that we share
    with our parent's shell and with the other workers. A thread with a queue works, but costs a thread switch for each
    line and loses the last lines when the process dies. What we do: ask `poll` first. Linux calls a pipe writable
    only while a whole PIPE_BUF (4096 bytes) fits, so a write of up to that many bytes after a yes returns at once, and
    is atomic among processes. Lines for which there is no room are dropped and counted, and the next line that gets
    through tells how many. How it can still fail: another process that shares the pipe fills it between our poll and
    our write (then we wait until the reader reads again), and a file on a hung network disk blocks like any file.
    See pipe(7), poll(2).
    """

    PIPE_BUF_BYTES = 4096
    PATIENCE_MS = 20
    """How long the rest of a line longer than PIPE_BUF may wait for the reader, in all."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._untold = 0
        self._cut = False
        self.dropped_lines = 0
        """Lines dropped or cut short since the start."""

    def write(self, line: str) -> None:
        """Write ``line`` and a newline, or drop it; never raises for a broken or full descriptor."""
        if self._untold:
            notice = f'{{"level":"warning","logger":"headrace.logs","message":"log lines dropped: {self._untold}"}}\n'
            if not self._put(notice.encode(), patience_ms=0):
                self._drop()
                return
            self._untold = 0
        if not self._put(line.encode("utf-8", "backslashreplace") + b"\n", patience_ms=self.PATIENCE_MS):
            self._drop()

    def _put(self, data: bytes, *, patience_ms: int) -> bool:
        if self._cut:
            data = b"\n" + data
        at = 0
        while at < len(data):
            if not self._is_writable(patience_ms if at else 0):
                self._cut = self._cut or at > 0
                return False
            try:
                at += os.write(self._fd, data[at : at + self.PIPE_BUF_BYTES])
            except OSError:
                self._cut = self._cut or at > 0
                return False
        self._cut = False
        return True

    def _is_writable(self, patience_ms: int) -> bool:
        return any(state & select.POLLOUT for _, state in self._poll.poll(patience_ms))

    def _drop(self) -> None:
        self.dropped_lines += 1
        self._untold += 1


class _SinkHandler(logging.Handler):
    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; what cannot be formatted is told in a line of its own, without its arguments."""
        try:
            line = self.format(record)
        except Exception as problem:  # a bad record must not end the request that it is about
            where = f"{record.pathname}:{record.lineno}"
            line = _encode({"level": "error", "logger": record.name, "message": f"unreadable record: {where}",
                            "exception": type(problem).__name__})  # fmt: skip
        with contextlib.suppress(Exception):
            self._sink.write(line)


def _request_fields(record: logging.LogRecord) -> Mapping[str, object] | None:
    return cast("Mapping[str, object] | None", getattr(record, _FIELDS, None))


def _message(record: logging.LogRecord) -> str:
    return record.getMessage()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.removesuffix("+00:00") + "Z"


def _clean(value: object, depth: int = 0) -> object:
    """Return ``value`` made of plain JSON types, with secrets and oddities taken out."""
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
    return f"<{type(value).__name__}>"  # its repr might hold anything


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return type(value) is dict or isinstance(value, Mapping)  # the latter alone takes ten times as long


def _is_plain(value: object) -> bool:
    """Tell whether there is nothing to clean: numbers, and a stage's figures, which are most of a record."""
    kind = value.__class__
    return kind in _KINDS_OF_NUMBERS or (
        kind is dict and _KINDS_OF_NUMBERS.issuperset(map(type, cast("dict[str, object]", value).values()))
    )


def _clean_field(name: str, value: object, depth: int) -> object:
    return REDACTED if _is_secret_name(name) else _clean(value, depth)


@functools.lru_cache(maxsize=1024)  # the same few names in every record
def _is_secret_name(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None


def _encode(line: object) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # a lone surrogate somewhere, e.g. from an undecodable path
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
