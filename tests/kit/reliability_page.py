"""docs/reliability.md: each row of the list of faults, what happens, and the tests that show it.

A test that shows a row is called ``test_row_12_...``, or ``test_rows_15_16_...`` if it shows several; the first line of
its docstring says what happens and what the outcome is. The page is made of those names and lines alone, so a row
cannot be on it without a test. ``make docs`` runs this file.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGE = ROOT / "docs" / "reliability.md"

ROWS = range(1, 89)
"""The numbers of the list. A number keeps its meaning for good."""

_NAME = re.compile(r"test_row_(\d+)_|test_rows_((?:\d+_){2,})")


class RowTest(NamedTuple):
    """A test that shows one or more rows."""

    file: str
    """Its path from the top level of the repository."""
    name: str
    rows: tuple[int, ...]
    outcome: str
    """The first line of its docstring."""


def rows_of(name: str) -> tuple[int, ...]:
    """Return the rows that a test with this name shows."""
    match = _NAME.match(name)
    return () if match is None else tuple(int(number) for number in re.findall(r"\d+", match[1] or match[2]))


def row_tests() -> Iterator[RowTest]:
    """Yield the tests that show rows, by file and place."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (rows := rows_of(node.name)):
                first_line = (ast.get_docstring(node) or "").partition("\n")[0]
                yield RowTest(path.relative_to(ROOT).as_posix(), node.name, rows, first_line)


def page() -> str:
    """Return the page."""
    shown: dict[int, list[RowTest]] = defaultdict(list)
    for test in row_tests():
        for row in test.rows:
            shown[row].append(test)
    lines = [
        "# What happens when something breaks\n",
        "Generated from the names and docstrings of the tests by `make docs`. Row 12 is shown by the tests whose names",
        "begin with `test_row_12_`, or `test_rows_` and several numbers with 12 among them, in the files that its line",
        "links to.\n",
        "A failure before the first byte of a response is an HTTP status. Afterwards it is *told in the stream*, and",
        "the HTTP response ends properly: an error object and no `[DONE]`; for Cursor a line of text, `stop` and",
        "`[DONE]`. *Cut* means that the response ends without its last chunk, so that no client takes it for a whole",
        "one. The codes are those of [errors.md](errors.md). In every row the upstream's connection is closed or idle",
        "again, and no task of the request is left.\n",
        "| row | what happens, and the outcome | shown in |",
        "|---|---|---|",
    ]
    for row in ROWS:
        outcomes = dict.fromkeys(test.outcome.replace("|", "\\|") for test in shown[row])
        files = dict.fromkeys(test.file for test in shown[row])
        links = (f"[{Path(file).stem}](../{file})" for file in files)
        lines.append(f"| {row} | {'<br>'.join(outcomes) or 'Not yet.'} | {', '.join(links)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
