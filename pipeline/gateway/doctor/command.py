"""``headrace doctor``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pipeline.gateway.help_text import Commands, add_command
from pipeline.gateway.serve_command import CONFIG_ROW
from pipeline.study.commands import COLOUR_ROW

if TYPE_CHECKING:
    from pipeline.gateway.config.settings import Settings
    from pipeline.gateway.doctor.findings import Finding
    from pipeline.gateway.doctor.target import Plan

DEFAULT_IDLE_S: Final = 75.0
"""Longer than the 60 s after which nginx, and many a balancer, end a connection that is silent."""


def add_doctor(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``. Nothing heavy is imported before it runs."""
    doctor = add_command(
        commands,
        "doctor",
        summary="find what is wrong between Cursor and the models",
        description="""
            Check the configuration, this machine and each upstream and, with a URL, the whole way that Cursor's
            requests take: https, the key, and whether a proxy buffers or cuts streams. Each finding says what to do.
            With a key other than headrace's master key, or with another server, doctor says what it cannot tell. The
            exit status is 1 if there is a problem.
        """,
        example="""
            headrace doctor
            headrace doctor https://gateway.example.com/cursor
        """,
        environment=[
            CONFIG_ROW,
            ("HEADRACE_MASTER_KEY", "the key of the server, if there is no --key"),
            COLOUR_ROW,
        ],
    )
    doctor.add_argument("url", metavar="URL", nargs="?", help="what is typed into Cursor's Override OpenAI Base URL")
    doctor.add_argument("--config", "-c", metavar="FILE", help="the configuration ($HEADRACE_CONFIG, ./config.yaml)")
    doctor.add_argument("--key", help="a key of the server ($HEADRACE_MASTER_KEY, or that of the configuration)")
    doctor.add_argument("--model", metavar="NAME", help="the model that is asked through the URL (the first one)")
    doctor.add_argument("--offline", action="store_true", help="ask no upstream and no model")
    doctor.add_argument(
        "--idle",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_IDLE_S,
        help="for how long a stream is silent (%(default)g), or 0 to leave that out",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 590:
        raise argparse.ArgumentTypeError("expected seconds from 0 to 590")
    return seconds


def _doctor(options: argparse.Namespace) -> int:
    import trio

    from pipeline.gateway.doctor.findings import exit_status
    from pipeline.gateway.doctor.report import as_json, in_short, last_line, line_of
    from pipeline.gateway.doctor.target import Plan
    from pipeline.study.tables import has_colour

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    findings: list[Finding] = []
    held: list[Finding] = []  # those that were not tested for one reason: they are one line
    colours = has_colour(is_terminal=sys.stdout.isatty())

    def tell_held() -> None:
        for one in () if options.json else in_short(held):
            say(line_of(one, has_colour=colours))
        held.clear()

    def report(finding: Finding) -> None:
        findings.append(finding)
        if finding.status == "not tested" and (not held or held[-1].measured == finding.measured):
            held.append(finding)
            return
        tell_held()
        if finding.status == "not tested":
            held.append(finding)
        elif not options.json:
            say(line_of(finding, has_colour=colours))

    plan = Plan(idle_s=options.idle, model=options.model, asks_models=not options.offline)
    try:
        trio.run(_examine_until_interrupted, options, plan, report)
    except BaseExceptionGroup as group:  # from a nursery
        if group.split(BrokenPipeError)[1] is not None:
            raise
        raise BrokenPipeError from None  # the reader, such as `head`, has seen enough
    tell_held()
    say(as_json(findings) if options.json else f"\n{last_line(findings)}")
    return exit_status(findings)


async def _examine_until_interrupted(
    options: argparse.Namespace, plan: Plan, report: Callable[[Finding], object]
) -> None:
    """Make the checks; Ctrl-C cancels them.

    Raises:
        KeyboardInterrupt: when they are cancelled.
    """
    from pipeline.gateway.cancelled_by_signals import cancelled_by_signals

    if await cancelled_by_signals(partial(examine, options, plan, report), signal.SIGINT):
        raise KeyboardInterrupt


async def examine(options: argparse.Namespace, plan: Plan, report: Callable[[Finding], object]) -> None:
    """Make all checks that the arguments ask for.

    Raises:
        CommandError: if there is neither a configuration nor a URL.
    """
    from datetime import UTC, datetime

    from pipeline.gateway.doctor.configuration import examine_configuration
    from pipeline.gateway.doctor.target import read_target
    from pipeline.gateway.doctor.visit import visit
    from stages.upstreams.transport.tls import client_context

    url: str | None = options.url
    if url is not None:
        read_target(url, "", client_context())  # before anything is asked
    settings = await examine_configuration(options.config, report, offline=options.offline, is_asked=url is None)
    if url is not None:
        target = read_target(url, key_for(options.key, settings), client_context())
        await visit(target, plan, datetime.now(UTC), report)


def key_for(given: str | None, settings: Settings | None) -> str:
    """Return the key to send: it need not be among the arguments, which others can read. Empty if there is none."""
    from pipeline.gateway.config.keys import HASH_PREFIX
    from pipeline.gateway.config.load import MASTER_KEY_NAMES

    named = [os.environ.get(name, "").strip() for name in MASTER_KEY_NAMES]
    configured = "" if settings is None else settings.master_key or ""
    return next((key for key in (given or "", *named, configured) if key and not key.startswith(HASH_PREFIX)), "")
