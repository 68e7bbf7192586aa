"""Recordings: JSON Lines with a header, or any JSON log of headrace, read and written line by line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pipeline.study.files import unreadable, unwritable
from pipeline.study.progress import Progress
from pipeline.study.records import Recorded, RecordedRequest, RecordedStall

FORMAT: Final = 1
"""The number of this format; a reader refuses a higher one."""
_EXTRA: Final = "pip install 'headrace[zstd]'"


class StudyError(Exception):
    """A command cannot do what it was asked to; the message says why, and what to change."""


class RecordingHeader(Struct, kw_only=True):
    """The first line of a recording; ``format`` is the only field that a reader needs. What is UNSET is left out."""

    event: str = "recording"
    format: int = FORMAT
    headrace: str | UnsetType = UNSET
    began: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    workers: int | UnsetType = UNSET


def header_now(source: str, *, workers: int = 1, headrace: str) -> RecordingHeader:
    """Return the header of a recording that begins now.

    Args:
        source: what is recorded: a URL, or what people know it by.
        workers: how many processes of it.
        headrace: its version.
    """
    began = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return RecordingHeader(headrace=headrace, began=began, source=source, workers=workers)


class _Line(Struct):
    event: str | None = None


_LINE = msgspec.json.Decoder(_Line)
_HEADER = msgspec.json.Decoder(RecordingHeader)
_REQUEST = msgspec.json.Decoder(RecordedRequest)
_STALL = msgspec.json.Decoder(RecordedStall)


class Recording:
    """The requests and stalls of a recording, in the order of their lines; to be iterated over once.

    Attributes:
        name: that of the file, for messages.
        header: the first line, if it was one.
        requests, stalls: how many were read so far.
        unreadable: how many lines could not be read so far: text of other programs, or damaged lines.
        is_cut: whether the last line was not complete.
    """

    def __init__(self, lines: Iterable[bytes], name: str = "the recording") -> None:
        self.name = name
        self.header: RecordingHeader | None = None
        self.requests = self.stalls = self.unreadable = 0
        self.is_cut = False
        self._lines = lines

    def __iter__(self) -> Iterator[Recorded]:
        """Yield what the lines say.

        Raises:
            StudyError: if its format is newer than this version, or it has no request and no stall.
        """
        for line in self._lines:
            try:
                event = _LINE.decode(line).event
                if event == "request":
                    request = _REQUEST.decode(line)
                    self.requests += 1
                    yield request
                elif event == "stall":
                    stall = _STALL.decode(line)
                    self.stalls += 1
                    yield stall
                elif event == "recording":
                    self._read_header(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                if line.endswith(b"\n"):
                    self.unreadable += bool(line.strip())
                else:
                    self.is_cut = True
        if not self.requests and not self.stalls:
            raise StudyError(
                f"{self.name} has no record of a request: it must be a recording of headrace, or its log with "
                "`log_format: json` and `log_level: info`"
            )

    def _read_header(self, line: bytes) -> None:
        self.header = _HEADER.decode(line)
        if self.header.format > FORMAT:
            raise StudyError(
                f"{self.name} has format {self.header.format}, and this version of headrace reads formats up to "
                f"{FORMAT}: use the version that has written it"
            )

    @property
    def notes(self) -> list[str]:
        """What a reader should know of its lines."""
        notes: list[str] = []
        if self.unreadable:
            notes.append(f"{self.name}: {self.unreadable} lines are not JSON objects of headrace, and were ignored")
        if self.is_cut:
            notes.append(f"{self.name}: the last line is incomplete, and was ignored")
        return notes


@contextmanager
def open_recording(name: str) -> Generator[Recording]:
    """Open a recording: a file, compressed if its name ends in ``.zst``, or ``-`` for standard input.

    On a terminal its progress is shown; what is to be said of its lines goes to stderr at the end.

    Raises:
        StudyError: if it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        if name == "-":
            lines: Iterable[bytes] = sys.stdin.buffer
            shown = "standard input"
        else:
            shown = name
            try:
                file = stack.enter_context(open(name, "rb"))
            except OSError as error:
                raise StudyError(unreadable(name, error)) from None
            progress = stack.enter_context(
                Progress(f"reading {os.path.basename(name)}", os.fstat(file.fileno()).st_size)
            )
            lines = _lines(file, name, progress)
        recording = Recording(lines, shown)
        yield recording
    for note in recording.notes:
        sys.stderr.write(f"headrace: {note}\n")


def _lines(file: IO[bytes], name: str, progress: Progress) -> Iterator[bytes]:
    source: Iterable[bytes] = file
    if name.endswith(".zst"):
        source = io.BufferedReader(_zstandard().ZstdDecompressor().stream_reader(file, read_across_frames=True))
    try:
        for number, line in enumerate(source):
            if number % 256 == 0:
                progress.show(file.tell())
            yield line
    except _damaged(name) as error:
        raise StudyError(f"{name} is damaged: {error}") from None


def _damaged(name: str) -> tuple[type[Exception], ...]:
    return (OSError, _zstandard().ZstdError) if name.endswith(".zst") else (OSError,)


class RecordingWriter:
    """Writes a recording: the header, then one line for each event.

    Args:
        file: is written to; its owner closes it.
        header: the first line.
    """

    def __init__(self, file: IO[bytes], header: RecordingHeader) -> None:
        self._file = file
        file.write(msgspec.json.encode(header) + b"\n")

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines, each one JSON object with or without its newline, so that others can read them now."""
        for line in lines:
            self._file.write(line if line.endswith(b"\n") else line + b"\n")
        self._file.flush()


def new_file(name: str) -> int:
    """Open a new file to write to, which only its owner can read: a recording has addresses and names of keys.

    Raises:
        StudyError: if it exists, as a recording is not to be lost, or cannot be written.
    """
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StudyError(unwritable(name, error)) from None


@contextmanager
def create_recording(name: str, header: RecordingHeader) -> Generator[RecordingWriter]:
    """Write a recording to a new file, compressed if its name ends in ``.zst``, or to ``-``, standard output.

    Raises:
        StudyError: if the file exists or cannot be written.
    """
    if name == "-":
        yield RecordingWriter(sys.stdout.buffer, header)
        sys.stdout.buffer.flush()
        return
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open(new_file(name), "wb"))
        if name.endswith(".zst"):
            file = stack.enter_context(_zstandard().ZstdCompressor().stream_writer(file, closefd=False))
        yield RecordingWriter(file, header)


# Any: the package is an extra, and may be missing.
def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise StudyError(f"compressed recordings need the package zstandard: {_EXTRA}") from None
    return zstandard
