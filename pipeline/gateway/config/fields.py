"""Reads a section into a Struct: a mistake is recorded with its place, and reading continues.

``os.environ/NAME`` is filled in here, wherever text is read, and only for fields that are read: a setting that we
ignore may name a variable that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from pipeline.gateway.config.kinds import FieldKind, kind_of, kinds_of
from pipeline.gateway.config.problems import FieldPlace, Problems, did_you_mean
from pipeline.gateway.config.yaml_tree import Node

ENVIRON: Final = "os.environ/"
_MAPPING: Final = "a mapping (name: value lines, indented)"

_LIKE_A_VARIABLE: Final = re.compile(
    r"\A\$\{?[A-Z][A-Z0-9_]+\}?\Z|\A(?:os\.)?environ[./][A-Z][A-Z0-9_]+\Z|.os\.environ/"
)
_USED_AS_IT_STANDS: Final = (
    "looks like the name of a variable, but is used as it stands: os.environ/NAME, as the whole value, is a variable"
)

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
            if _LIKE_A_VARIABLE.search(text):
                self.problems.warn(node.place, _USED_AS_IT_STANDS)
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


StructT = TypeVar("StructT", bound=Struct)


class Section:
    """The fields of one mapping, to be read into a Struct whose annotations say what they may be (see `kinds`)."""

    def __init__(self, node: Node | None, environment: Environment, *, expected: str = _MAPPING) -> None:
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
            self.problems.error(node.place, f"{node.found(secret=True)}, expected {expected}")

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        return iter(self._fields.items())

    def get(self, name: str) -> Node | None:
        """Return the field if it is present, and neither null nor empty text, which to LiteLLM is the same."""
        found = self._fields.get(name)
        return None if found is None or _is_blank(found) else found

    def place(self, name: str) -> FieldPlace:
        """Return where a field stands, or would stand."""
        if (node := self.get(name)) is not None:
            return node.place
        return FieldPlace("", None, name) if self.node is None else self.node.place.of_field(name)

    def read(self, struct: type[StructT]) -> StructT | None:
        """Return the section; a field that is absent or wrong has its default. None if a required one is.

        A Struct that forbids unknown fields makes errors of them. A field ``where`` gets the section's place as text.
        """
        values = self.values(struct)
        if self.node is not None and isinstance(self.node.value, dict):
            if struct.__struct_config__.forbid_unknown_fields:
                self.refuse_unknown(kinds_of(struct))
            if "where" in struct.__struct_fields__:
                values["where"] = str(self.node.place)
            for name, kind in kinds_of(struct).items():
                if kind.is_required and ((field := self._fields.get(name)) is None or field.value is None):
                    self.problems.error(self.node.place, f"has no {name}: expected {kind.expected()}")
        is_complete = all(name in values for name, kind in kinds_of(struct).items() if kind.is_required)
        return struct(**values) if is_complete else None

    def values(self, struct: type[Struct]) -> dict[str, Any]:
        """Return the fields of a Struct that are present and right."""
        kinds = kinds_of(struct)
        found = {
            name: self._value(node, kinds[name])
            for name, node in self
            if name in kinds and node.value is not None and not (kinds[name].is_optional_text and _is_blank(node))
        }
        return {name: value for name, value in found.items() if value is not None}

    def value(self, name: str, annotation: Any) -> Any:
        """Return one field, as its annotation has it; None if it is absent or wrong."""
        node = self.get(name)
        return None if node is None else self._value(node, kind_of(annotation))

    def items(self, name: str, expected: str) -> list[Node]:
        """Return the items of a list; none, and that is recorded, if the field is something else."""
        node = self._fields.get(name)
        if node is None or node.value is None:
            return []
        if isinstance(node.value, list):
            return node.value
        self.problems.error(node.place, f"{node.found()}, expected {expected}")
        return []

    def refuse_unknown(self, known: Collection[str], accepted: Collection[str] = ()) -> None:
        """Record an error for each field that is neither ``known`` nor ``accepted``."""
        for name, node in self:
            if name not in known and name not in accepted:
                hint = did_you_mean(name, known, cutoff=0.5) or f": expected {', '.join(known)}"
                self.problems.error(node.place, f"is not a setting{hint}")

    def _value(self, node: Node, kind: FieldKind) -> Any:
        """Return a value that is not null in its type; None, and that is recorded, if it does not fit."""
        if kind.bare is Node:
            return node
        inner = kind.inner
        if kind.struct is not None:
            expected = _MAPPING if kind.meta is None else kind.expected()
            return Section(node, self.environment, expected=expected).read(kind.struct)
        if inner is not None and kind.is_mapping:
            if not isinstance(node.value, dict):
                return self._refuse(node, kind)
            if inner.bare is Any:
                return plain(node, self.environment)
            items = [(name, self._value(item, inner)) for name, item in node.value.items() if item.value is not None]
            return {name: item for name, item in items if item is not None}
        if inner is not None and inner.struct is not None:
            if not isinstance(node.value, list):
                return self._refuse(node, kind)
            found = [self._value(item, inner) for item in node.value]
            return tuple(item for item in found if item is not None)
        value = plain(node, self.environment)
        if value is None:  # a variable is not set
            return None
        try:
            converted = kind.convert(value)
        except ValueError:
            return self._refuse(node, kind, value)
        if kind.is_key and (problem := secret_problem(converted)):
            self.problems.error(node.place, problem)
            return None
        return converted

    def _refuse(self, node: Node, kind: FieldKind, value: object = None) -> Any:  # Any: always None
        """Record that a node is not what its field may be; of a list of texts, the first item that does not fit."""
        if isinstance(node.value, list) and kind.inner is not None and kind.inner.bare is str:
            for item in node.value:
                if not isinstance(item.value, str) or not item.value.strip():
                    return self._refuse(item, kind.inner, item.value)
        is_hidden = kind.is_hidden or is_filled_in(node)
        found = "found empty text" if isinstance(value, str) and not value.strip() else node.found(secret=is_hidden)
        hint = ""
        if kind.is_key and not isinstance(node.value, list | dict | str):
            hint = "; put quotes around it"
        elif isinstance(node.value, str):
            hint = did_you_mean(node.value, kind.choices, cutoff=0.5)
        self.problems.error(node.place, f"{found}, expected {kind.expected(value)}{hint}")
        return None


def _is_blank(node: Node) -> bool:
    return node.value is None or (isinstance(node.value, str) and not node.value.strip())


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
