"""``headrace situation``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.help_text import Commands, add_command, port_number

if TYPE_CHECKING:
    from pipeline.gateway.situations.table import Situation


def add_situation(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``. Nothing heavy is imported before it runs."""
    situation = add_command(
        commands,
        "situation",
        summary="lose time on purpose, at a known place: to learn from",
        description="""
            Play a situation in which a known amount of time is lost at a known place, record it, and name the commands
            that find it.
        """,
        example="""
            headrace situation --list
            headrace situation slow-head
        """,
    )
    which = situation.add_mutually_exclusive_group(required=True)
    which.add_argument("name", metavar="NAME", nargs="?", help="one of the list")
    which.add_argument("--list", action="store_true", help="list the situations")
    situation.add_argument("--seconds", metavar="N", type=float, default=0, help="repeat it for so long (once)")
    situation.add_argument("--record", metavar="FILE", help="the recording to write (NAME.jsonl)")
    situation.add_argument("--port", type=port_number, default=0, help="port to listen on (a free one)")
    situation.add_argument("--keep-serving", action="store_true", help="repeat it until Ctrl-C, for top and the page")
    situation.set_defaults(run=_situation)


def _situation(options: argparse.Namespace) -> int:
    import trio

    from pipeline.gateway.situations.table import SITUATIONS
    from pipeline.registry import did_you_mean

    if options.list:
        for situation in SITUATIONS.values():
            _say(f"{situation.name:20} {situation.about}")
        return 0
    if options.name not in SITUATIONS:
        raise CommandError(
            f"there is no situation {options.name!r}{did_you_mean(options.name, SITUATIONS)}: "
            f"write one of {', '.join(SITUATIONS)}"
        )
    trio.run(_play_until_signalled, SITUATIONS[options.name], options)
    return 0


async def _play_until_signalled(situation: Situation, options: argparse.Namespace) -> None:
    """Play a situation; a signal ends it with its service, even in the background, where a shell ignores Ctrl-C."""
    from pipeline.gateway.cancelled_by_signals import cancelled_by_signals
    from pipeline.gateway.situations.run import hints, play

    recording = Path(options.record or f"{situation.name}.jsonl")
    run = partial(play, seconds=options.seconds, port=options.port, keep_serving=options.keep_serving)
    await cancelled_by_signals(partial(run, situation, recording, _say), signal.SIGINT, signal.SIGTERM)
    _say(hints(recording))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
