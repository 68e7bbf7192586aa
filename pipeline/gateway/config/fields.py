"""Typed reading of a section's fields: a mistake is recorded with its place, and reading continues.

``os.environ/NAME`` is filled in here, wherever text is read, and only for fields that are read: a setting that we
ignore may name a variable that does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any, TypeAlias

from pipeline.gateway.config.problems import FieldPlace, Problems
from pipeline.gateway.config.yaml_tree import Node

ENVIRON = "os.environ/"

MAX_WHOLE = 1_000_000_000_000
"""The largest whole number that is accepted."""

OnUnset: TypeAlias = Callable[[FieldPlace, str], None]
"""Is told where a variable is named that is not set, and its name as a message may show it."""


class Environment:
    """The variables that ``os.environ/NAME`` can name: the process's own, then the file's ``environment_variables``."""

    def __init__(self, process: Mapping[str, str], problems: Problems) -> None:
        self._process = process
        self._of_file: dict[str, str] = {}
        self._on_unset: OnUnset = self._refuse
        self.problems = problems
        self.named: set[str] = set()
        """Every variable that the configuration has named."""
        self.unset = 0
        """How often one was named that is not set."""

    def telling(self, on_unset: OnUnset) -> Environment:
        """Return the same variables for fields that may name one that is not set: ``on_unset`` is told of it."""
        other = copy(self)
        other._on_unset = on_unset
        return other

    def add_default(self, name: str, value: str) -> None:
        """Set a variable that is used if the process does not have it (LiteLLM's order)."""
        self._of_file[name] = value

    def get(self, name: str) -> str | None:
        """Return the variable without surrounding white space, or None if it is absent or empty."""
        value = self._process.get(name, "").strip() or self._of_file.get(name, "").strip()
        return value or None

    def first_of(self, names: tuple[str, ...]) -> str | None:
        """Return the first of the variables that is set."""
        return next((value for name in names if (value := self.get(name))), None)

    def text_of(self, node: Node) -> str | None:
        """Return a node's text, its variable filled in, or None if there is none; nothing is recorded."""
        text = str(node.value)
        return self.get(text.removeprefix(ENVIRON).strip()) if text.startswith(ENVIRON) else text

    def fill_in(self, node: Node) -> str | None:
        """Return a node's text, its variable filled in; None, and that is noted, if the variable is not set."""
        text = str(node.value)
        if not text.startswith(ENVIRON):
            return text
        name = text.removeprefix(ENVIRON).strip()
        self.named.add(name)
        value = self.get(name)
        if value is None:
            self.note_unset(node.place, _shown(name))
        return value

    def note_unset(self, place: FieldPlace, name: str) -> None:
        """Note that a variable is not set, which is needed at a place."""
        self.unset += 1
        self._on_unset(place, name)

    def _refuse(self, place: FieldPlace, name: str) -> None:
        self.problems.error(place, f"{is_not_set(name)}: set it, or write the value here")


def is_not_set(name: str) -> str:
    """Return what is wrong with a variable that is not set."""
    return f"the environment variable {name} is not set, or is empty"


class Section:
    """The fields of one mapping. A getter returns None for a field that is absent or wrong, and records the latter."""

    def __init__(self, node: Node | None, environment: Environment) -> None:
        """Read a mapping, or None for an empty one; anything else is recorded as an error and read as empty."""
        self.environment = environment
        self.problems = environment.problems
        self.node = node
        self._fields: dict[str, Node] = {}
        if node is None or node.value is None:
            return
        if isinstance(node.value, dict):
            self._fields = node.value
        else:
            self.problems.error(
                node.place, f"{node.found(secret=True)}, expected a mapping (name: value lines, indented)"
            )

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        return iter(self._fields.items())

    def get(self, name: str) -> Node | None:
        """Return the field if it is present and not null."""
        found = self._fields.get(name)
        return found if found is not None and found.value is not None else None

    def text(self, name: str, expected: str, *, secret: bool = False) -> str | None:
        """Return the text of a field, without surrounding white space. ``expected`` ends the error message."""
        node = self.get(name)
        if node is None:
            return None
        if not isinstance(node.value, str):
            # A date is text to us. A number is not, because YAML has already dropped its zeros and underscores.
            hint = "; put quotes around it" if secret and not isinstance(node.value, dict | list) else ""
            self.problems.error(node.place, f"{node.found(secret=secret)}, expected {expected}{hint}")
            return None
        text = self.environment.fill_in(node)
        if text is not None and not text.strip():
            self.problems.error(node.place, f"found empty text, expected {expected}")
            return None
        return text.strip() if text is not None else None

    def secret(self, name: str, expected: str) -> str | None:
        """Return a key: visible ASCII characters, without surrounding white space. No message shows it."""
        text = self.text(name, expected, secret=True)
        node = self.get(name)
        if text is None or node is None:
            return None
        if problem := secret_problem(text):
            self.problems.error(node.place, problem)
            return None
        return text

    def seconds(self, name: str) -> float | None:
        """Return a positive number of seconds; text that reads as a number is accepted, as LiteLLM does."""
        node = self.get(name)
        if node is None:
            return None
        value = self.environment.fill_in(node) if isinstance(node.value, str) else node.value
        if value is None:
            return None
        number = _number(value)
        if not 0 < number < math.inf:
            self.problems.error(
                node.place, f"{node.found(secret=is_filled_in(node))}, expected seconds, more than 0, such as 60"
            )
            return None
        return number

    def number(self, name: str, expected: str, *, most: float) -> float | None:
        """Return a number from 0 to ``most``; text that reads as a number is accepted, as LiteLLM does."""
        node = self.get(name)
        return None if node is None else self.number_in(node, expected, most=most)

    def number_in(self, node: Node, expected: str, *, most: float) -> float | None:
        """Return the same of a node that may lie deeper in the section."""
        value = self.environment.fill_in(node) if isinstance(node.value, str) else node.value
        number = _number(value)
        if 0 <= number <= most:
            return number
        if value is not None or not isinstance(node.value, str):  # else it has been recorded
            self.problems.error(node.place, f"{node.found(secret=is_filled_in(node))}, expected {expected}")
        return None

    def whole(self, name: str, *, least: int = 0, most: int = MAX_WHOLE) -> int | None:
        """Return a whole number; 100.0 is one, and text that reads as one is accepted."""
        node = self.get(name)
        return None if node is None else self.whole_in(node, least=least, most=most)

    def whole_in(self, node: Node, *, least: int = 0, most: int = MAX_WHOLE) -> int | None:
        """Return the same of a node that may lie deeper in the section."""
        expected = f"a whole number from {least}, such as 100"
        number = self.number_in(node, expected, most=most)
        if number is None:
            return None
        if number < least or not number.is_integer():
            self.problems.error(node.place, f"{node.found(secret=is_filled_in(node))}, expected {expected}")
            return None
        return int(number)

    def flag(self, name: str) -> bool | None:
        """Return a yes/no value; the words true and false are accepted too."""
        node = self.get(name)
        if node is None:
            return None
        value = self.environment.fill_in(node) if isinstance(node.value, str) else node.value
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is not None:
            self.problems.error(node.place, f"{node.found(secret=is_filled_in(node))}, expected true or false")
        return None

    def texts(self, name: str, expected: str) -> tuple[str, ...] | None:
        """Return a list of texts."""
        node = self.get(name)
        if node is None:
            return None
        if not isinstance(node.value, list):
            self.problems.error(node.place, f"{node.found()}, expected {expected}")
            return None
        found: list[str] = []
        for item in node.value:
            if isinstance(item.value, str) and item.value.strip():
                text = self.environment.fill_in(item)
                if text is not None:
                    found.append(text.strip())
            else:
                self.problems.error(item.place, f"{item.found()}, expected text")
        return tuple(found)


def _number(value: object) -> float:
    """Return a value as a number; NaN if it does not read as one."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return math.nan


def is_filled_in(node: Node) -> bool:
    """Return whether the node's text names an environment variable."""
    return isinstance(node.value, str) and node.value.startswith(ENVIRON)


def secret_problem(text: str) -> str | None:
    """Return what is wrong with a key, without showing it; None if it is valid."""
    if not text.isascii():
        return "the key contains a character that is not ASCII, which an HTTP header cannot carry: copy the key again"
    if not text.isprintable() or " " in text:
        return "the key contains a space, line break or control character: copy the key again, on one line"
    return None


def plain(node: Node, environment: Environment) -> Any:  # Any: whatever the user wrote as options of a stage
    """Return the node as plain Python values, with variables filled in; None if one of them is not set."""
    unset = environment.unset
    match node.value:
        case dict():
            value: Any = {name: plain(item, environment) for name, item in node.value.items()}
        case list():
            value = [plain(item, environment) for item in node.value]
        case str():
            value = environment.fill_in(node)
        case _:
            value = node.value
    return value if environment.unset == unset else None


def _shown(name: str) -> str:
    return name if name.isidentifier() and name.isascii() and len(name) <= 80 else "named here"
