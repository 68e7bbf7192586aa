"""The commands that study a recording: report · why · stalls · compare · trace · budget.

The first three and trace also read the flight recorder of a running service.

Exit status: 0, 1 if a comparison or a budget has found something, 2 for a command line or a file that cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from pipeline.study.selection import Selection

_CHECK: Final = "check --model, --deployment, --end, --since, --until"
FILE_HELP: Final = "a recording (.zst needs the extra zstd) or a JSON log of headrace; - is standard input"


class AddCommand(Protocol):
    """Adds a command to the parser of ``headrace``: `pipeline.gateway.help_text.add_command`."""

    def __call__(
        self,
        name: str,
        *,
        summary: str,
        description: str,
        example: str,
        environment: Sequence[tuple[str, str]] = (),
    ) -> argparse.ArgumentParser: ...


KEY_ROW: Final = ("HEADRACE_MASTER_KEY", "the master key of the service, for --url")
COLOUR_ROW: Final = ("NO_COLOR", "no colour on a terminal; FORCE_COLOR: colour everywhere")


def add_commands(add: AddCommand) -> None:
    """Add the commands to the parser of ``headrace``. Nothing heavy is imported before one of them runs."""
    report = add(
        "report",
        summary="show where the time of all requests of a recording went",
        description="Show where the time of all requests of a recording went: by party, by stage, by moment.",
        example="""
            headrace report today.jsonl
            headrace report --url http://127.0.0.1:4000 --model my-gpt
        """,
        environment=[KEY_ROW, COLOUR_ROW],
    )
    report.add_argument("file", metavar="FILE", nargs="?", help=FILE_HELP)
    add_service(report, instead_of="FILE")
    _add_selection(report)
    set_run(report, _report)

    why = add(
        "why",
        summary="say why a request took long, or what requests wait for",
        description="""
            Say why one request took long: whose time it was, what cost most, and what it waited for. With --now: what
            each running request waits for at this moment.
        """,
        example="""
            headrace why --slowest today.jsonl
            headrace why --now --url http://127.0.0.1:4000
        """,
        environment=[KEY_ROW, COLOUR_ROW],
    )
    _add_request(why, "explain")
    why.add_argument("--now", action="store_true", help="say what each running request waits for; needs --url")
    _add_selection(why)
    set_run(why, _why)

    stalls = add(
        "stalls",
        summary="show which stages held the loop, and who waited for them",
        description="""
            Show which stages held the event loop of their process, so that every stream of it waited, and which
            requests these were.
        """,
        example="headrace stalls today.jsonl",
        environment=[KEY_ROW, COLOUR_ROW],
    )
    stalls.add_argument("file", metavar="FILE", nargs="?", help=FILE_HELP)
    add_service(stalls, instead_of="FILE")
    _add_selection(stalls)
    set_run(stalls, _stalls)

    compare = add(
        "compare",
        summary="show what is slower or faster in a second recording",
        description="""
            Show which figures differ between two recordings by more than chance and a margin. The status is 1 if there
            is one.
        """,
        example="headrace compare before.jsonl after.jsonl --margin 10",
        environment=[COLOUR_ROW],
    )
    compare.add_argument("before", metavar="A", help=FILE_HELP)
    compare.add_argument("after", metavar="B", help="another one")
    compare.add_argument(
        "--margin", metavar="PERCENT", type=float, default=5.0, help="ignore smaller differences (%(default)s)"
    )
    compare.add_argument("--all", action="store_true", help="show the figures that do not differ as well")
    _add_selection(compare)
    set_run(compare, _compare)

    trace = add(
        "trace",
        summary="write a request as a Perfetto trace, for ui.perfetto.dev",
        description="""
            Write requests as a trace that https://ui.perfetto.dev shows, batch by batch if they were traced. Needs the
            extra: pip install 'headrace[trace]'.
        """,
        example="headrace trace --slowest today.jsonl --output slow.pftrace",
        environment=[KEY_ROW],
    )
    _add_request(trace, "write")
    trace.add_argument("--output", "-o", metavar="FILE.pftrace", required=True, help="what to write")
    _add_selection(trace)
    set_run(trace, _trace)

    budget = add(
        "budget",
        summary="check limits for CI: status 1 if one is exceeded",
        description="Check the figures of recordings against limits, for CI: status 1 if one is exceeded.",
        example="headrace budget budgets.toml today.jsonl --strict",
        environment=[COLOUR_ROW],
    )
    budget.add_argument("budgets", metavar="BUDGETS.toml", help="the limits; docs/recordings.md has the format")
    budget.add_argument("files", metavar="FILE", nargs="+", help=f"{FILE_HELP}; several count as one")
    budget.add_argument("--strict", action="store_true", help="a limit that cannot be judged counts as exceeded")
    _add_selection(budget)
    set_run(budget, _budget)


def _add_request(command: argparse.ArgumentParser, verb: str) -> None:
    command.add_argument("words", metavar="ID FILE", nargs="*", help="its id and a recording; with --slowest no id")
    add_service(command, instead_of="FILE")
    command.add_argument("--slowest", action="store_true", help=f"{verb} the slowest requests of the recording")
    command.add_argument("-n", dest="count", metavar="N", type=int, default=1, help="how many of them (%(default)s)")


def add_service(command: argparse.ArgumentParser, *, instead_of: str | None = None) -> None:
    """Add the arguments that name a running service, which is the only source, or may be named instead of another."""
    help = "a running service, such as http://127.0.0.1:4000"
    if instead_of is not None:
        help = f"instead of {instead_of}: {help}"
    command.add_argument("--url", required=instead_of is None, help=help)
    command.add_argument("--key", help="its master key (the environment variable HEADRACE_MASTER_KEY)")


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.add_argument("--model", metavar="NAME", help="only requests for this model")
    command.add_argument("--deployment", metavar="ID", help="only requests that this deployment answered")
    command.add_argument("--end", metavar="CODE", help="only requests with this end, such as OK or UT")
    command.add_argument("--since", metavar="TIME", help="only what ended then or later, 2026-11-30T12:00:00Z")
    command.add_argument("--until", metavar="TIME", help="only what ended before")


def set_run(command: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Have a command run this; what it cannot do is a sentence on stderr, and status 2."""

    def guarded(options: argparse.Namespace) -> int:
        from pipeline.study.live import LiveError
        from pipeline.study.recording import StudyError
        from pipeline.study.tables import printable

        try:
            return run(options)
        except (LiveError, StudyError) as error:
            sys.stderr.write(f"headrace: {printable(str(error))}\n")
            return 2

    command.set_defaults(run=guarded)


def _selection(options: argparse.Namespace) -> Selection:
    from pipeline.study.selection import Selection, parsed_time

    return Selection(
        model=options.model,
        deployment=options.deployment,
        end=options.end,
        since_s=parsed_time(options.since),
        until_s=parsed_time(options.until),
    )


def _write(lines: Iterable[str]) -> None:
    from pipeline.study.tables import painted

    sys.stdout.write("".join(f"{painted(line)}\n" for line in lines))


# Any: whatever msgspec can encode.
def write_json(document: Any) -> None:
    """Write a document to stdout, as JSON that people can read."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def _report(options: argparse.Namespace) -> int:
    from pipeline.study.recording import StudyError
    from pipeline.study.report import Reporter
    from pipeline.study.report_page import report_page
    from pipeline.study.source import open_source
    from pipeline.study.tables import Paint

    reporter = Reporter()
    with open_source(options.file, options.url, options.key) as recording:
        for event in _selection(options).of(recording):
            reporter.add(event)
    report = reporter.report()
    if not report.requests:
        raise StudyError(f"{recording.name} has no request that was asked for: {_CHECK}")
    if options.json:
        write_json(report)
    else:
        _write(report_page(report, Paint()))
    return 0


def _id_and_file(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the request's id, None for the slowest, and the name of the recording, None with ``--url``."""
    from pipeline.study.recording import StudyError

    if options.count < 1:
        raise StudyError(f"-n {options.count}: it must be at least 1")
    words = list(options.words)
    request_id = None if options.slowest or not words else words.pop(0)
    name = words.pop(0) if words and options.url is None else None
    if words or (request_id is None and not options.slowest) or (name is None and options.url is None):
        raise StudyError("name a request's id and a recording, or --slowest and a recording; or --url in its place")
    return request_id, name


def _where(options: argparse.Namespace) -> str:
    return "in the recording" if options.url is None else f"at {options.url}"


def _why(options: argparse.Namespace) -> int:
    from pipeline.study.source import open_source
    from pipeline.study.tables import Paint
    from pipeline.study.why_page import explanations, why_page

    if options.now:
        return _why_now(options)
    request_id, name = _id_and_file(options)
    with open_source(name, options.url, options.key) as recording:
        events = _selection(options).of(recording)
        found = explanations(events, request_id=request_id, slowest=options.count, where=_where(options))
    if options.json:
        write_json(found)
        return 0
    for number, one in enumerate(found):
        _write([*([""] if number else []), *why_page(one, Paint())])
    return 0


def _why_now(options: argparse.Namespace) -> int:
    from pipeline.study.live import key_from, running, watched
    from pipeline.study.recording import StudyError
    from pipeline.study.running import running_page, running_sentence, silent_sentences
    from pipeline.study.tables import Paint

    if options.url is None or options.words:
        raise StudyError("--now is about a running service: name it with --url, and no request and no recording")
    key = key_from(options.key)
    silent = silent_sentences(watched(options.url, key))
    rows = running(options.url, key)
    for sentence in silent:
        sys.stderr.write(f"headrace: {sentence}\n")
    if options.json:
        write_json([{**row, "sentence": running_sentence(row)} for row in rows])
    elif rows or not silent:
        _write(running_page(rows, Paint()))
    return 0


def _stalls(options: argparse.Namespace) -> int:
    from pipeline.study.source import open_source
    from pipeline.study.stalls import stalled_stages, stalls_page
    from pipeline.study.tables import Paint

    with open_source(options.file, options.url, options.key) as recording:
        found = stalled_stages(_selection(options).of(recording))
    if options.json:
        write_json(found)
    else:
        _write(stalls_page(found, Paint()))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from pipeline.study.compare import compared
    from pipeline.study.compare_page import compare_page
    from pipeline.study.figures import samples_of
    from pipeline.study.recording import open_recording
    from pipeline.study.tables import Paint

    selection = _selection(options)
    with open_recording(options.before) as before:
        a = samples_of(selection.of(before))
    with open_recording(options.after) as after:
        b = samples_of(selection.of(after))
    comparison = compared(a, b, margin=options.margin / 100)
    if options.json:
        write_json(comparison)
    else:
        _write(compare_page(comparison, Paint(), shows_all=options.all))
    return int(any(one.differs for one in comparison.figures))


def _trace(options: argparse.Namespace) -> int:
    from pipeline.study.files import unwritable
    from pipeline.study.perfetto import perfetto_trace
    from pipeline.study.recording import StudyError
    from pipeline.study.source import open_source
    from pipeline.study.why_page import chosen

    request_id, name = _id_and_file(options)
    with open_source(name, options.url, options.key) as recording:
        events = _selection(options).of(recording)
        requests, stalls, _ = chosen(events, request_id=request_id, slowest=options.count, where=_where(options))
    trace = perfetto_trace(requests, stalls)
    try:
        with open(options.output, "wb") as file:
            file.write(trace)
    except OSError as error:
        raise StudyError(unwritable(options.output, error)) from None
    traced = sum(request.trace is not None for request in requests)
    if options.json:
        write_json({"file": options.output, "bytes": len(trace), "requests": len(requests), "traced": traced})
    else:
        coarse = (
            "" if traced == len(requests) else f" ({len(requests) - traced} not traced per batch: only their points)"
        )
        plural = "request" if len(requests) == 1 else "requests"
        _write(
            [
                f"{options.output}: {len(requests)} {plural}{coarse}, {len(trace)} bytes; open it at https://ui.perfetto.dev"
            ]
        )
    return 0


def _budget(options: argparse.Namespace) -> int:
    from pipeline.study.budget import judged, read_budget
    from pipeline.study.budget_page import budget_page
    from pipeline.study.figures import samples_of
    from pipeline.study.recording import StudyError, open_recording
    from pipeline.study.tables import Paint

    budget = read_budget(options.budgets)
    selection = _selection(options)
    samples = samples_of([])
    for name in options.files:
        with open_recording(name) as recording:
            samples_of(selection.of(recording), samples)
    if not samples:
        raise StudyError(f"{', '.join(options.files)}: no request that was asked for is there; {_CHECK}")
    baseline = None
    if budget.baseline is not None:
        with open_recording(budget.baseline) as recording:
            baseline = samples_of(selection.of(recording))
    verdicts = judged(budget, samples, baseline)
    if options.json:
        write_json(verdicts)
    else:
        _write(budget_page(verdicts, Paint()))
    failing = ("exceeded", "cannot tell") if options.strict else ("exceeded",)
    return int(any(verdict.verdict in failing for verdict in verdicts))
