"""The ``headrace`` command: serve, look at a configuration, write a stage, and study where the time goes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path

from pipeline.gateway.check_command import add_check_config
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.describe import describe_failure
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.demo import add_demo
from pipeline.gateway.doctor.command import add_doctor
from pipeline.gateway.graph_command import add_graph
from pipeline.gateway.help_text import HeadraceParser, add_command, new_parser, program_name
from pipeline.gateway.init_command import add_init
from pipeline.gateway.new_key import add_new_key
from pipeline.gateway.openapi.command import add_openapi
from pipeline.gateway.os_errors import sentence_of
from pipeline.gateway.serve_command import add_serve
from pipeline.gateway.situations.command import add_situation
from pipeline.gateway.stage_commands import add_stage_commands
from pipeline.gateway.study_command import add_study
from pipeline.registry import PluginError, did_you_mean
from pipeline.study.commands import add_commands
from pipeline.study.live_commands import add_live_commands

DISTRIBUTION = "headrace"
INTERRUPTED = 128 + 2
"""What a shell calls the status of a command that Ctrl-C has ended: 128, and the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status.

    It is 0, 1 for a failure, 2 for an invalid configuration or command line, or `INTERRUPTED`. The commands that go on
    until Ctrl-C end with 0 then.
    """
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:  # from a nursery, before it is told of signals
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED
    finally:
        try:  # also after `--help`
            sys.stdout.flush()
        except OSError:
            _drop_output()


def _run(arguments: Sequence[str] | None) -> int:
    known = parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    # As this process was started: in a worker, whatever has replaced a part of it does so too.
    again = sys.orig_argv[1:] if arguments is None else ["-m", "pipeline.gateway", *arguments]
    try:
        options = _parsed(known, words)
        if options.command is None:
            sys.stderr.write(known.format_help())
            return 2
        options.program = [sys.executable, *again]
        check_ownership()
        status: int = options.run(options)
        sys.stdout.flush()
    except ConfigError as error:
        print(describe_failure(error), end="", file=sys.stderr)
        return 2
    except PluginError as error:
        for problem in error.problems or (f"headrace: {error}",):
            print(problem, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_output()
        return 1
    except CommandError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"headrace: {sentence_of(error)}", file=sys.stderr)
        return 2
    return status


def _drop_output() -> None:
    """Write what is left nowhere: else the flush at exit would fail again, with a message of Python's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(asked: HeadraceParser, words: Sequence[str]) -> argparse.Namespace:
    """Return the options.

    Raises:
        CommandError: if there is no such command.
        SystemExit: if argparse has shown what was asked for, or what is wrong.
    """
    known = asked.commands.choices
    named = next((word for word in words if not word.startswith("-")), None)
    if named is not None and named not in known:
        raise CommandError(
            f"there is no command {named!r}{did_you_mean(named, known)} (`{program_name()} --help` lists them)"
        )
    options, unknown = asked.parse_known_args(words)
    if unknown:
        (asked if named is None else known[named]).refuse_unknown(unknown)
    return options


def check_ownership() -> None:
    """Check that no other distribution has overwritten our packages, whose names are generic (ADR 0001).

    Raises:
        PluginError: if one has; the message names it.
    """
    # Not importlib.metadata.packages_distributions: it reads every line of every installed file list, which takes a
    # fifth of our startup time.
    for distribution in distributions():
        files = "\n" + (distribution.read_text("RECORD") or "")
        top_level = (distribution.read_text("top_level.txt") or "").split()
        for package in ("pipeline", "stages"):
            if f"\n{package}/" not in files and package not in top_level:
                continue
            if (other := distribution.metadata["Name"]) != DISTRIBUTION:
                raise PluginError(
                    f"the installed distribution {other!r} also has a package named {package!r}, and one overwrites "
                    "the other: install headrace in a virtual environment of its own"
                )


def parser() -> HeadraceParser:
    """Return the parser of ``headrace``, with all commands."""
    made = new_parser("A gateway between Cursor and any model.", f"headrace {version(DISTRIBUTION)}")
    commands = made.commands
    add_init(commands)
    add_new_key(commands)
    add_serve(commands)
    add_demo(commands)
    add_study(commands)

    add_check_config(commands)
    add_graph(commands)
    add_openapi(commands)
    add_stage_commands(commands)
    add_doctor(commands)
    add_situation(commands)
    add_commands(partial(add_command, commands))
    add_live_commands(partial(add_command, commands))

    docs = add_command(
        commands,
        "docs",
        summary="write the generated pages of the documentation",
        description="Write the generated pages of the documentation: for those who work on headrace itself.",
        example="headrace docs --write docs",
    )
    docs.add_argument("--write", metavar="FOLDER", required=True, help="where to")
    docs.set_defaults(run=_docs)
    return made


def _docs(options: argparse.Namespace) -> int:
    from pipeline.gateway.reference import pages

    for name, text in pages(Path(options.write)).items():
        Path(options.write, name).write_text(text, encoding="utf-8")
    return 0
