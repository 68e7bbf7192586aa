"""What ``--help`` says: the commands in groups, and of each one its sentence, environment variables and an example.

Every command is added by `add_command`, and `GROUPS` says where `headrace --help` lists it. One that is in no group is
for those who work on headrace itself, and is not listed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

MAX_COLUMNS: Final = 100
LAST_PORT: Final = 65535
_NAME_COLUMNS: Final = 14

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "get started": ("init", "serve", "demo", "check-config", "doctor"),
    "operate": ("graph", "new-key", "openapi"),
    "see where the time goes": (
        *("study", "top", "record", "report", "why", "stalls", "compare", "budget", "trace", "situation"),
    ),
    "write stages": ("stages", "new-stage", "run-stage", "dev"),
}
"""The headings of ``headrace --help``, and the commands below each one, in their order."""


class Commands(Protocol):
    """What `argparse.ArgumentParser.add_subparsers` returns, which has no public name."""

    @property
    def choices(self) -> Mapping[str, Any]: ...  # what argparse was told to make: parsers

    # Any: whatever the constructor of a parser takes.
    def add_parser(self, name: str, **arguments: Any) -> Any: ...


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with where to read on."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end with status 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` explains it\n")

    def refuse_unknown(self, words: Sequence[str]) -> NoReturn:
        """End with status 2, because of words that this command does not have; a flag may be a near miss."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        files = [word for word in words if word.endswith((".yaml", ".yml")) and not word.startswith("-")]
        if files and "--config" in flags:
            self.error(f"unknown: {' '.join(words)}; did you mean --config {shlex.quote(files[0])}?")
        near = [close for word in words for close in difflib.get_close_matches(word.partition("=")[0], flags, n=1)]
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unknown: {' '.join(words)}{hint}")


class CommandParser(_Parser):
    """The parser of one command.

    Attributes:
        summary: the line of the command in ``headrace --help``.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: as argparse calls it
        named.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **named)
        self.summary = ""


class HeadraceParser(_Parser):
    """The parser of ``headrace``, whose help lists the commands by `GROUPS`.

    Attributes:
        commands: where commands are added.
    """

    commands: Commands

    def format_help(self) -> str:
        """Return the help: usage, commands, what else there is."""
        lines = [f"usage: {self.prog} COMMAND [options]", "", self.description or ""]
        for heading, names in GROUPS.items():
            listed = [name for name in names if name in self.commands.choices]
            if listed:
                lines += ["", f"{heading}:", *(_row(name, _summary(self.commands.choices[name])) for name in listed)]
        lines += ["", "options:", _row("-h, --help", "show this"), _row("--version", "show the version")]
        lines += ["", f"`{self.prog} COMMAND --help` explains a command, with an example.", ""]
        return "\n".join(lines)


def add_command(
    commands: Commands,
    name: str,
    *,
    summary: str,
    description: str,
    example: str,
    environment: Sequence[tuple[str, str]] = (),
) -> CommandParser:
    """Add a command; return its parser, to which its arguments are to be added.

    Args:
        commands: those of ``headrace``.
        name: of the command.
        summary: its line in ``headrace --help``: a phrase such as "serve a configuration".
        description: one sentence or more, in the command's own help.
        example: a command line that works as it is written, or several lines of them.
        environment: the variables that it reads, each with what it is for.
    """
    parts: list[str] = []
    if environment:
        width = max(len(variable) for variable, _ in environment) + 2
        rows = [_row(variable, words, width=width) for variable, words in environment]
        parts.append("\n".join(["environment:", *rows]))
    examples = textwrap.indent(textwrap.dedent(example).strip("\n"), "  ")
    parts.append(f"example{'s' if chr(10) in examples else ''}:\n{examples}")
    # argparse fills in %(prog)s, and only where it is written.
    parser: CommandParser = commands.add_parser(
        name, help=summary, description=_filled(description), epilog="\n\n".join(parts)
    )
    parser.summary = summary
    return parser


def port_number(text: str) -> int:
    """Return a port from the command line.

    Raises:
        argparse.ArgumentTypeError: if there is no such port: the system would take another one.
    """
    if not (text.isdecimal() and text.isascii() and int(text) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"expected a port number, 1 to {LAST_PORT}, or 0 for any free one")
    return int(text)


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, MAX_COLUMNS) - 2


def _filled(text: str) -> str:
    """Return paragraphs, which blank lines separate, filled to the width of the terminal."""
    paragraphs = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(textwrap.fill(paragraph, _columns()) for paragraph in paragraphs)


def _row(name: str, words: str, *, width: int = _NAME_COLUMNS) -> str:
    return textwrap.fill(
        words, max(_columns(), width + 20), initial_indent=f"  {name:{width}}", subsequent_indent=" " * (width + 2)
    )


def _summary(parser: argparse.ArgumentParser) -> str:
    """Return the line of a command; of one that was not added by `add_command`, its first sentence."""
    if isinstance(parser, CommandParser) and parser.summary:
        return parser.summary
    return (parser.description or "").partition(".")[0]


def new_parser(description: str, version: str) -> HeadraceParser:
    """Return the parser of ``headrace``, without any command yet."""
    parser = HeadraceParser(prog="headrace", description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=version)
    parser.commands = parser.add_subparsers(metavar="COMMAND", dest="command", parser_class=CommandParser)
    return parser


def program_name() -> str:
    """Return how this program was called, for command lines that are printed: they work where they are read."""
    called = Path(sys.argv[0])
    if called.name != "headrace":
        return f"{sys.executable} -m pipeline.gateway"
    found = shutil.which("headrace")
    is_found = found is not None and os.path.exists(called) and os.path.samefile(found, called)
    return "headrace" if is_found else shlex.quote(str(called))
