"""The problems of a configuration, reported together, each with file, line, field, finding and remedy.

No message may show a secret. The value of a field that may hold one is never part of a message; of other text, only
short plain words are, and nothing that comes from the environment.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from stages.wire.redaction import redact

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.,:/+*\- ]{0,24}\Z")
_SPOT = re.compile(r"(.+?):([0-9]+)(?=[: ])")
_NAME = re.compile(r"[A-Za-z0-9_.*/@:+\- ]{1,64}\Z")


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` has one sentence for each thing to repair."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class LimitPlace(NamedTuple):
    """Where the configuration has a limit that is not enforced."""

    path: str
    source: str
    line: int

    @property
    def where(self) -> str:
        """The position and the path: ``config.yaml:12: litellm_settings.max_budget``."""
        return f"{self.source}:{self.line}: {self.path}"


class Problems:
    """Collects errors and warnings while a configuration is read, so that one run reports all of them.

    Attributes:
        limits: limits that are not enforced; they are reported together.
    """

    def __init__(self) -> None:
        self.limits: list[LimitPlace] = []
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._repeated: dict[str, tuple[int, list[int]]] = {}

    def error(self, where: str, message: str) -> None:
        """Record an error; ``where`` is a node's ``where``, or any other name of the place."""
        self._errors.append(f"{where}: {message}")

    def warn(self, where: str, message: str) -> None:
        """Record a warning; ``message`` continues the sentence of ``where``: "is not supported yet and is ignored"."""
        self._warnings.append(f"{where} {message}")

    def warn_once(self, topic: str, where: str, message: str, line: int) -> None:
        """Record a warning that several places may cause: the first is reported, with the lines of the others."""
        if topic in self._repeated:
            lines = self._repeated[topic][1]
            if lines[-1] != line:  # an alias may repeat it on one line
                lines.append(line)
            return
        self._repeated[topic] = (len(self._warnings), [line])
        self.warn(where, message)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in the order of the file."""
        warnings = list(self._warnings)
        for at, lines in self._repeated.values():
            if others := lines[1:]:
                places = ", ".join(str(line) for line in others[:5]) + (" ..." if len(others) > 5 else "")
                warnings[at] += f" (also on line{'s' if len(others) > 1 else ''} {places})"
        return tuple(sorted(warnings, key=_place))

    def raise_errors(self) -> None:
        """Raise the recorded errors.

        Raises:
            ConfigError: if there is at least one error.
        """
        if self._errors:
            raise ConfigError(sorted(self._errors, key=_place))


def _place(problem: str) -> tuple[str, float]:
    """Return a sort key: by file and line; a problem without a line comes last."""
    found = _SPOT.match(problem)
    return (found[1], float(found[2])) if found else ("\U0010ffff", math.inf)


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """Return ``; did you mean x?`` for a near miss, else empty text."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def safe_name(name: str) -> str:
    """Return a field's name as a message may show it: names are harmless, unless a key was written in their place."""
    return name if _NAME.match(name) and redact(name) == name else "<unreadable name>"


def safe_word(text: str) -> str | None:
    """Return ``text`` if a message may show it: a short plain word that does not look like a key; else None."""
    return text if _PLAIN_WORD.match(text) and redact(text) == text else None
