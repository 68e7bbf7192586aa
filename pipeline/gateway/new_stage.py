"""``headrace new-stage``: a package with a stage of its own, its test, its benchmark, and how to install it."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.insertions import BUILT_IN
from pipeline.registry import discover
from pipeline.study.files import unwritable

TEMPLATES: Final = Path(__file__).parent / "stage_templates"
"""Shared files, and a folder for each kind. In them ``@NAME@`` and its like are replaced."""

MAX_NAME_CHARACTERS: Final = 32
"""A longer name would not fit on the lines of the templates; it is also a column of the log."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


_USED: Final = frozenset({"check_stage", "codec_stage", "measure", "per_event", "text_of"})
"""Names in the templates that a stage's would hide."""


class Template(Struct, frozen=True):
    """One of the kinds that can be written.

    Attributes:
        about: what it is, for the help and the README.
        suffix: of its class's name.
        entry: what its entry point loads; the stage's own name if it is empty.
        line: its line in the configuration.
    """

    about: str
    suffix: str
    entry: str
    line: str


KINDS: Final[dict[str, Template]] = {
    "event": Template("a stage that is a function of one event", "stage", "", "{use: @NAME@, at: events}"),
    "codec": Template("a stage that remembers something between events", "codec", "", "{use: @NAME@, at: events}"),
    "run": Template(
        "a stage that waits for something", "stage", "plugin", "{use: @NAME@, at: events, options: {pause_s: 0.05}}"
    ),
    "around": Template(
        "something around the upstream's call", "around", "plugin", "{use: @NAME@, options: {pause_s: 0.5}}"
    ),
    "observer": Template("an observer of all requests", "observer", "plugin", "{use: @NAME@}"),
}
"""By the name that the command line has for it."""


def write_new_stage(given: str, kind: str, into: str | None = None) -> str:
    """Write a package, and return what to do next.

    Args:
        given: the name of the stage; hyphens become underscores.
        kind: one of `KINDS`.
        into: the folder, which must not exist; ``headrace-NAME`` by default.

    Raises:
        CommandError: if the name cannot be used, or the folder exists.
    """
    name = _checked_name(given)
    distribution = f"headrace-{name.replace('_', '-')}"
    folder = Path(distribution if into is None else into)
    if folder.exists():
        raise CommandError(f"{folder} already exists: choose another folder with --into, or remove it")
    row = KINDS[kind]
    values = {
        "@LINE@": row.line,  # first: it has a name in it
        "@NAME@": name,
        "@CLASS@": "".join(word.capitalize() for word in (*name.split("_"), row.suffix)),
        "@DISTRIBUTION@": distribution,
        "@OBJECT@": row.entry or name,
        "@WHAT@": row.about,
        "@KIND@": kind if kind in ("around", "observer") else "stage",
    }
    files = {
        "pyproject.toml": TEMPLATES / "pyproject.toml.txt",
        f"{name}.py": TEMPLATES / kind / "stage.py.txt",
        f"test_{name}.py": TEMPLATES / kind / "test.py.txt",
        f"benchmark_{name}.py": TEMPLATES / kind / "benchmark.py.txt",
        "README.md": TEMPLATES / "README.md.txt",
    }
    try:
        folder.mkdir(parents=True)
        for file, template in files.items():
            (folder / file).write_text(_filled(template.read_text("utf-8"), values), "utf-8")
    except OSError as error:
        raise CommandError(unwritable(str(folder), error)) from error
    python = shlex.quote(sys.executable)  # a bare name may be that of another environment
    return f"""\
{folder}: {", ".join(files)}

Install it into headrace's environment, and test it:

  cd {folder}
{_install_lines(python)}
  {python} -m pytest
  {python} benchmark_{name}.py

Then add it to your config.yaml:

  pipeline_settings:
    stages:
      - {_filled(row.line, values)}"""


def _install_lines(python: str) -> str:
    """Return the commands that install the package into an environment, which need not have pip and pytest.

    Args:
        python: its interpreter, quoted. Those that pipx and uv make have neither.
    """
    install = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    lines = [f"  {install} --no-deps --editable ."]
    if importlib.util.find_spec("pytest") is None:
        lines.append(f"  {install} pytest")
    return "\n".join(lines)


def _checked_name(given: str) -> str:
    """Return the name with underscores.

    Raises:
        CommandError: if no stage can have it.
    """
    name = given.replace("-", "_")
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME_CHARACTERS:
        raise CommandError(
            f"{given!r} cannot be the name of a stage: write a verb phrase in snake_case, such as strip_thinking "
            f"(a to z, digits and single underscores, at most {MAX_NAME_CHARACTERS} characters)"
        )
    if keyword.iskeyword(name):
        raise CommandError(f"{name!r} is a keyword of Python, and the stage's module could not be imported")
    if name in _USED:
        raise CommandError(f"{name!r} is used in the code that is written: choose another name")
    if name in BUILT_IN:
        raise CommandError(f"a built-in stage is already named {name!r}: choose another name")
    if name in _installed():
        raise CommandError(f"an installed stage is already named {name!r}: choose another name, or uninstall that one")
    if name.startswith(("test_", "benchmark_")):
        raise CommandError(f"{name!r} is the name of a test or a benchmark for pytest and the package: choose another")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise CommandError(f"there is already a Python module named {name!r}, which the stage's would hide")
    return name


def _installed() -> set[str]:
    """Return the names of the installed stages, also of those that are broken."""
    found = discover()
    return {*found, *found.broken}


def _filled(text: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
