"""The problems of a configuration, reported together, each with file, line, field, finding and remedy.

No message may show a secret. The value of a field that may hold one is never part of a message; of other text, only
short plain words are, and nothing that comes from the environment.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import Struct

from stages.wire.redaction import redact

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.,:/+*\- ]{0,24}\Z")
_INDEX = re.compile(r"\[\d+\]")
_NAME = re.compile(r"[A-Za-z0-9_.*/@:+\- ]{1,64}\Z")
_SHOWN: Final = 5
"""How many lines, and how many names, a message lists."""


class FieldPlace(NamedTuple):
    """Where something stands.

    Attributes:
        file: the file's name; empty for what is in no file, such as a variable of the environment.
        line: the line, counted from 1; None if it is about the whole file.
        path: the field, as ``model_list[0].model_name``; empty if it is about the whole line or file.
    """

    file: str
    line: int | None = None
    path: str = ""

    def of_field(self, name: str) -> FieldPlace:
        """Return the place of a field that is missing here."""
        return self._replace(path=f"{self.path}.{name}" if self.path else name)

    def __str__(self) -> str:
        """Return the position and the path: ``config.yaml:12: model_list[0].model_name``."""
        spot = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (spot, self.path) if part)


class Problem(Struct, frozen=True):
    """One thing to repair, or to know.

    Attributes:
        file, line, path: where it is first, as in `FieldPlace`.
        message: what was found and what to do, without a secret.
        others: the other lines of the file with the same problem.
    """

    file: str
    line: int | None
    path: str
    message: str
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return it as a sentence: ``config.yaml:12: litellm_settings.cache: is not ... (lines 12, 40)``."""
        place = str(FieldPlace(self.file, self.line, self.path))
        text = f"{place}: {self.message}" if place else self.message
        if not self.others or self.line is None:
            return text
        lines = sorted({self.line, *self.others})
        count = f"{len(lines)} lines:" if len(lines) > _SHOWN else "lines"
        return f"{text} ({count} {listed(map(str, lines))})"


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        errors: what to repair; ``problems`` has the same as sentences.
        found_warnings: what else was found; ``warnings`` has the same as sentences.
    """

    def __init__(self, errors: Sequence[Problem | str], warnings: Iterable[Problem] = ()) -> None:
        self.errors = tuple(Problem("", None, "", one) if isinstance(one, str) else one for one in errors)
        self.found_warnings = tuple(warnings)
        super().__init__("\n".join(self.problems))

    @classmethod
    def at(cls, place: FieldPlace, message: str) -> ConfigError:
        """Return an error about one place."""
        return cls([Problem(*place, message)])

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each thing to repair."""
        return tuple(map(str, self.errors))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each thing that is ignored, left out, or otherwise not as one might expect."""
        return tuple(map(str, self.found_warnings))


@dataclass(slots=True)
class _Group:
    place: FieldPlace
    message: str
    is_unprotected: bool = False
    lines: dict[int, None] = field(default_factory=dict[int, None])
    left_out: list[str] = field(default_factory=list[str])

    def problem(self) -> Problem:
        message = self.message
        if count := len(self.left_out):
            deployments = "deployment is" if count == 1 else "deployments are"
            message += f"; {count} {deployments} left out: {listed(self.left_out)}"
        return Problem(*self.place, message, tuple(line for line in self.lines if line != self.place.line))


class Problems:
    """Collects errors and warnings while a configuration is read, so that one run reports all of them.

    Attributes:
        limits: limits that are not enforced; they are reported together.
        left_out: the names, as clients write them, of chat models that are left out.
    """

    def __init__(self) -> None:
        self.limits: list[FieldPlace] = []
        self.left_out: set[str] = set()
        self._errors: list[Problem] = []
        self._warnings: dict[tuple[str, str], _Group] = {}

    def error(self, place: FieldPlace, message: str) -> None:
        """Record an error."""
        self._errors.append(Problem(*place, message))

    def warn(self, place: FieldPlace, message: str, *, topic: str = "", is_unprotected: bool = False) -> None:
        """Record a warning.

        What several places of a file cause is one warning, with all their lines: the same message about the same field,
        of whichever item of a list, or the same ``topic``, of which the first message is reported. What
        ``is_unprotected`` leaves something open, and is reported first.
        """
        group = self._group(place, message, topic or f"{_INDEX.sub('[]', place.path)} {message}")
        group.is_unprotected = is_unprotected

    def leave_out(self, place: FieldPlace, reason: str, name: str) -> None:
        """Record that the deployment ``name`` is left out; those with the same reason are one warning."""
        self._group(place, reason, f"left out: {reason}").left_out.append(name)

    def _group(self, place: FieldPlace, message: str, topic: str) -> _Group:
        group = self._warnings.setdefault((place.file, topic), _Group(place, message))
        if place.line is not None:
            group.lines[place.line] = None  # once, though an alias may repeat it on one line
            if group.place.line is None or place.line < group.place.line:
                group.place = place  # sections are not read in the order of the file
        return group

    @property
    def count(self) -> int:
        """How many errors there are."""
        return len(self._errors)

    def forget_errors(self, count: int) -> None:
        """Forget all errors but the first ``count``."""
        del self._errors[count:]

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings: what is not protected, then what is left out, then the rest; each in the order of the file."""
        ranked = [((not one.is_unprotected, not one.left_out), one.problem()) for one in self._warnings.values()]
        return tuple(found for _, found in sorted(ranked, key=lambda pair: (pair[0], _order(pair[1]))))

    def raise_errors(self) -> None:
        """Raise the recorded errors, and with them the warnings.

        Raises:
            ConfigError: if there is at least one error.
        """
        if self._errors:
            errors: list[Problem] = sorted(self._errors, key=_order)
            raise ConfigError(errors, self.warnings)


def _order(problem: Problem) -> tuple[bool, str, float]:
    """Return a sort key: by file and line; a problem without a line comes last."""
    line = problem.line
    return (line is None, problem.file, math.inf if line is None else line)


def listed(names: Iterable[str]) -> str:
    """Return names, or other short texts, with commas; only the first five."""
    names = list(names)
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """Return ``; did you mean x?`` for a near miss, else empty text. Case, ``_`` and ``-`` do not matter."""
    by_letters = {_letters(one): one for one in sorted(known)}
    near = difflib.get_close_matches(_letters(name), list(by_letters), n=1, cutoff=cutoff)
    return f"; did you mean {by_letters[near[0]]}?" if near else ""


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def safe_name(name: str) -> str:
    """Return a field's name as a message may show it: names are harmless, unless a key was written in their place."""
    return name if _NAME.match(name) and redact(name) == name else "<unreadable name>"


def safe_word(text: str) -> str | None:
    """Return ``text`` if a message may show it: a short plain word that does not look like a key; else None."""
    return text if _PLAIN_WORD.match(text) and redact(text) == text else None
