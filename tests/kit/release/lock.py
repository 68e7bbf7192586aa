"""The locked requirements: what is installed, for which environments, with which hashes, and on whose account."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\")
_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?")
_ROOT = re.compile(r"headrace \(pyproject\.toml\)")
BUILD = "-r requirements/build.in"


@dataclass(frozen=True)
class Locked:
    """A package of a lock.

    Attributes:
        marker: the environments that it is for (PEP 508); empty if for all.
        hashes: SHA-256, in hexadecimal, of each of its files.
        via: the names of what needs it; `BUILD` if that is the build of headrace, ``headrace`` if it is headrace.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    via: frozenset[str]

    @property
    def reference(self) -> str:
        """Its package URL, which is unique in a lock."""
        return f"pkg:pypi/{self.name}@{self.version}"

    def needs(self, other: Locked) -> bool:
        """Return whether ``other`` is installed on account of this one, in some environment."""
        return self.name in other.via and not _exclude_each_other(self.marker, other.marker)


def _exclude_each_other(one: str, other: str) -> bool:
    """Return whether one marker is for the Pythons below a version, and the other for the rest."""
    return one != other and one.replace(" < ", " >= ") == other.replace(" < ", " >= ")


def read_lock(text: str) -> list[Locked]:
    """Return the packages of a file of locked requirements, as uv writes it.

    Raises:
        ValueError: if a line is of another form.
    """
    found: list[tuple[re.Match[str], list[str], set[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if pin := _PIN.fullmatch(line):
            found.append((pin, [], set()))
        elif (digest := _HASH.fullmatch(line)) and found:
            found[-1][1].append(digest[1])
        elif line.startswith("    #") and found:
            reason = line.removeprefix("    #").strip().removeprefix("via").strip()
            found[-1][2].add("headrace" if _ROOT.fullmatch(reason) else reason)
        else:
            raise ValueError(f"line {number} is not of a lock that uv has written: {line!r}")
    return [
        Locked(pin["name"], pin["version"], pin["marker"] or "", tuple(sorted(hashes)), frozenset(via - {""}))
        for pin, hashes, via in found
    ]


def closure(names: Iterable[str], lock: Iterable[Locked]) -> list[Locked]:
    """Return the packages with these names, and all that they need, in the lock's order."""
    packages = list(lock)
    reached = {package for package in packages if package.name in set(names)}
    waiting = list(reached)
    while waiting:
        package = waiting.pop()
        new = {other for other in packages if other not in reached and package.needs(other)}
        reached |= new
        waiting += new
    return [package for package in packages if package in reached]


@dataclass(frozen=True)
class Contents:
    """What is locked for a release.

    Attributes:
        needed: what headrace needs.
        optional: what only its extras need.
        build: what only its build needs.
        direct: the names of the packages that headrace itself asks for, with its extras.
    """

    needed: list[Locked]
    optional: list[Locked]
    build: list[Locked]
    direct: frozenset[str]


def contents(root: Path, project: Mapping[str, Any]) -> Contents:
    """Return what is locked in ``requirements/`` for the release of a checkout."""
    run = read_lock((root / "requirements/run.txt").read_text(encoding="utf-8"))
    dev = read_lock((root / "requirements/dev.txt").read_text(encoding="utf-8"))
    direct = {package.name for package in run if "headrace" in package.via}
    extras = {
        canonicalize_name(Requirement(requirement).name)
        for requirements in project["optional-dependencies"].values()
        for requirement in requirements
    }
    needed = closure(direct, run)
    names = {package.name for package in run}
    return Contents(
        needed=needed,
        optional=[package for package in closure(extras, dev) if package.name not in names],
        build=[package for package in run if package not in needed],
        direct=frozenset(direct | extras),
    )
