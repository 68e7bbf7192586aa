"""The commands that read a running service: record · top."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pipeline.study.commands import COLOUR_ROW, KEY_ROW, AddCommand, add_service, set_run, write_json

if TYPE_CHECKING:
    from pipeline.study.recording import RecordingWriter
    from pipeline.study.top import Top

POLL_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""For how long a service may be away, as while it restarts, before a recording ends."""
_HOME: Final = "\x1b[H"
_TO_END_OF_LINE: Final = "\x1b[K"
_TO_END_OF_SCREEN: Final = "\x1b[J"
_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
_BACK: Final = "\x1b[?25h\x1b[?1049l"


def add_live_commands(add: AddCommand) -> None:
    """Add the commands to the parser of ``headrace``. Nothing heavy is imported before one of them runs."""
    record = add(
        "record",
        summary="write the requests of a running service to a file",
        description="Write the requests of a running service to a new file, which report, why and the others read.",
        example="""
            headrace record --url http://127.0.0.1:4000 --output today.jsonl
            headrace record --url http://127.0.0.1:4000 --output - --seconds 0 | headrace report -
        """,
        environment=[KEY_ROW],
    )
    add_service(record)
    record.add_argument(
        "--output", "-o", metavar="FILE", required=True, help="what to write (.zst: compressed); - is stdout"
    )
    record.add_argument("--seconds", metavar="N", type=_seconds, help="for how long (until Ctrl-C); 0: what is there")
    record.add_argument("--new", action="store_true", help="without the requests that have ended before")
    record.add_argument("--json", action="store_true", help="how much was recorded as one JSON document on stdout")
    set_run(record, _record)

    top = add(
        "top",
        summary="show what a running service does now, and where its time goes",
        description="Show what a running service does now, and where its time goes, until Ctrl-C.",
        example="headrace top --url http://127.0.0.1:4000",
        environment=[KEY_ROW, COLOUR_ROW],
    )
    add_service(top)
    top.add_argument("--interval", metavar="S", type=_interval, default=1.0, help="seconds of each view (%(default)g)")
    top.add_argument("--once", action="store_true", help="one interval only")
    top.add_argument("--json", action="store_true", help="one JSON document a line for each interval")
    set_run(top, _top)


def _seconds(text: str) -> float:
    return _number(text, 0, 1e9, "expected a number of seconds from 0")


def _interval(text: str) -> float:
    return _number(text, 0.1, 3600, "expected a number of seconds from 0.1 to 3600")


def _number(text: str, least: float, most: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(expected) from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(expected)
    return number


def _record(options: argparse.Namespace) -> int:
    from pipeline.study.live import key_from, now, records
    from pipeline.study.recording import StudyError, create_recording, header_now

    if options.json and options.output == "-":
        raise StudyError("--json has nowhere to write to, as the recording goes to stdout: give --output a file")
    key = key_from(options.key)
    figures = now(options.url, key)
    cursor = records(options.url, key, "now").cursor if options.new else ""
    alive = [one for one in figures.get("workers", []) if one.get("alive")]
    header = header_now(options.url, workers=len(alive), headrace=str(figures.get("headrace", "")))
    with create_recording(options.output, header) as writer:
        recording = _Recording(options.url, key, writer)
        status = recording.run(cursor, options.seconds)
    if options.json:
        write_json({"file": options.output, **recording.counts})
    return status


class _Recording:
    """Writes what a service records."""

    def __init__(self, url: str, key: str, writer: RecordingWriter) -> None:
        self._url = url
        self._key = key
        self._writer = writer
        self._lines = self._lost = 0
        self._shows = sys.stderr.isatty()

    @property
    def counts(self) -> dict[str, int]:
        """How many lines were recorded, and how many were lost before they were read."""
        return {"lines": self._lines, "lost": self._lost}

    def run(self, cursor: str, seconds: float | None) -> int:
        """Write until ``seconds`` have passed, or Ctrl-C."""
        from pipeline.study.live import UnreachableError, records

        began_s = answered_s = monotonic()
        status = 0
        try:
            while True:
                is_last = seconds is not None and monotonic() >= began_s + seconds
                has_more = False
                try:
                    found = records(self._url, self._key, cursor)
                    answered_s, cursor, has_more = monotonic(), found.cursor, found.has_more
                    self._writer.write(found.lines)
                    self._lines += len(found.lines)
                    self._lost += found.lost
                except UnreachableError as error:
                    if is_last or monotonic() - answered_s > PATIENCE_S:
                        sys.stderr.write(f"\nheadrace: {error}\n" if self._shows else f"headrace: {error}\n")
                        status = 1
                        break
                self._show()
                if is_last and not has_more:
                    break
                if not has_more:
                    left_s = POLL_S if seconds is None else began_s + seconds - monotonic()
                    Event().wait(max(0.0, min(POLL_S, left_s)))
        except KeyboardInterrupt:
            pass
        self._end()
        return status

    def _show(self) -> None:
        if self._shows:
            sys.stderr.write(f"\r{self._lines} lines recorded (Ctrl-C ends)\x1b[K")
            sys.stderr.flush()

    def _end(self) -> None:
        before = "\r\x1b[K" if self._shows else ""
        sys.stderr.write(f"{before}headrace: {self._lines} lines recorded\n")
        if self._lost:
            sys.stderr.write(
                f"headrace: {self._lost} more are missing: newer ones had taken their place before they were read "
                "(pipeline_settings.recorder_mb)\n"
            )


def _top(options: argparse.Namespace) -> int:
    import msgspec

    from pipeline.study.live import key_from, now, watched
    from pipeline.study.tables import has_colour
    from pipeline.study.top import carried, top_of
    from pipeline.study.top_screen import lines_of

    key = key_from(options.key)
    is_screen = sys.stdout.isatty() and not options.once and not options.json
    colours = has_colour(is_terminal=sys.stdout.isatty())
    before: Mapping[str, Any] = watched(options.url, key)
    top: Top | None = None
    try:
        if is_screen:
            sys.stdout.write(_OTHER_SCREEN)
        while True:
            Event().wait(options.interval)
            after = now(options.url, key)
            top = top_of(before, after, top)
            if options.json:
                text = msgspec.json.encode(top).decode() + "\n"
            else:
                size = shutil.get_terminal_size((120, 40))
                lines = lines_of(top, url=options.url, has_colour=colours, width=size.columns)
                if is_screen:
                    lines = lines[: size.lines - 1]
                    text = _HOME + "".join(f"{line}{_TO_END_OF_LINE}\n" for line in lines) + _TO_END_OF_SCREEN
                else:
                    text = "\n".join(lines) + "\n\n"
            sys.stdout.write(text)
            sys.stdout.flush()
            if options.once:
                return 0
            before = carried(before, after)
    except KeyboardInterrupt:
        return 0
    finally:
        if is_screen:
            sys.stdout.write(_BACK)
            sys.stdout.flush()
