"""CHANGELOG.md: whether it has the form of Keep a Changelog, and the text of one version for the release.

Source: https://keepachangelog.com/en/1.1.0/. There are no brackets around our versions, which would be links: one to a
tag that does not exist yet leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise

HEADINGS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "Unreleased"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_TITLE = re.compile(r"## (?P<version>[^\[\s]+)(?: - (?P<date>\S+))?(?: \[YANKED\])?")


@dataclass
class Version:
    """A section of the changelog.

    Attributes:
        name: the version, or `UNRELEASED`.
        dated: what is written as its date; empty without one.
        line: where it begins.
        lines: what is below its title.
    """

    name: str
    dated: str
    line: int
    lines: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """The section without its title, as the text of a release."""
        return "\n".join(self.lines).strip()

    @property
    def number(self) -> tuple[int, ...]:
        """What versions are ordered by; empty if the name is not a version."""
        match = _VERSION.fullmatch(self.name)
        return tuple(int(part) for part in match.groups()) if match else ()


def versions_of(text: str) -> tuple[list[Version], list[str]]:
    """Return the sections in their order, and what is wrong with their titles."""
    found: list[Version] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            match = _TITLE.fullmatch(line)
            if match is None:
                problems.append(f"line {number}: {line!r} is not of the form '## 1.2.3 - 2026-12-31'")
                found.append(Version("", "", number))
            else:
                found.append(Version(match["version"], match["date"] or "", number))
        elif found:
            found[-1].lines.append(line)
    return found, problems


def problems_of(text: str) -> list[str]:
    """Return what is wrong with the form of a changelog, each with its line; nothing if it is right."""
    versions, problems = versions_of(text)
    if not text.startswith("# Changelog\n"):
        problems.append("line 1: the title '# Changelog' is missing")
    if not versions or versions[0].name != UNRELEASED:
        problems.append(f"the first section is not '## {UNRELEASED}'")
    for version in versions:
        problems += _problems_of_title(version)
        problems += _problems_of_content(version)
    problems += _problems_of_order([version for version in versions if version.number])
    return problems


def _problems_of_title(version: Version) -> Iterator[str]:
    where = f"line {version.line}: {version.name}"
    if version.name == UNRELEASED:
        if version.dated:
            yield f"{where} has a date"
    elif version.name:  # else its title was reported
        if not version.number:
            yield f"{where} is not a version such as 1.2.3"
        if _date_of(version) is None:
            yield f"{where} has no date such as 2026-12-31: {version.dated or 'none'}"


def _date_of(version: Version) -> date | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", version.dated):
        return None
    try:
        return date.fromisoformat(version.dated)
    except ValueError:
        return None


def _problems_of_content(version: Version) -> Iterator[str]:
    entries: dict[str, int] = {}
    heading = ""
    for number, line in enumerate(version.lines, version.line + 1):
        if line.startswith("#"):
            heading = line.removeprefix("### ")
            if heading not in HEADINGS:
                yield f"line {number}: {line!r} is not one of '### {', '.join(HEADINGS)}'"
            elif heading in entries:
                yield f"line {number}: {heading} occurs twice in {version.name}"
            entries.setdefault(heading, 0)
        elif line.startswith("- ") and heading:
            entries[heading] += 1
    for heading, count in entries.items():
        if not count:
            yield f"{heading} of {version.name} is empty"
    if not entries and version.name != UNRELEASED:
        yield f"{version.name} is empty"


def _problems_of_order(versions: list[Version]) -> Iterator[str]:
    for newer, older in pairwise(versions):
        where = f"line {older.line}: {older.name}"
        if newer.number <= older.number:
            yield f"{where} is not older than {newer.name} above it: the newest comes first, and each once"
        if newer.dated < older.dated:
            yield f"{where} has a later date than {newer.name} above it"


def release_text(text: str, name: str) -> str:
    """Return the section of a version.

    Raises:
        LookupError: if it has none; the message says what to do.
    """
    for version in versions_of(text)[0]:
        if version.name == name:
            return version.text
    raise LookupError(f"CHANGELOG.md has no section '## {name} - DATE': rename '## {UNRELEASED}', and begin a new one")
