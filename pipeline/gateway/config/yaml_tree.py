"""YAML with positions: every value knows the file, line and path that it came from.

PyYAML's `compose` returns nodes with marks, which we convert into our own small tree. Nothing is constructed from tags,
so a file cannot contain code. Aliases and merge keys (``<<``) work, as in LiteLLM's files, up to a limit on what they
expand to. Of two fields of the same name in one mapping the last counts, as in PyYAML, but with a warning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import yaml

from pipeline.gateway.config.problems import ConfigError, FieldPlace, Problems, safe_name, safe_word

MAX_FILE_BYTES = 4 * 1024 * 1024
"""PyYAML reads about 0.3 MB/s, so a restart with a larger file would take longer than ten seconds."""
MAX_NODES = 100_000
"""Values after aliases are expanded: stops a "billion laughs" file, at 40 times the largest real file that we know."""
MAX_DEPTH = 50

_SAFE_QUOTE = re.compile(r".?\Z|\\.\Z|<[a-z ]+>\Z")
_STANDARD = "tag:yaml.org,2002:"
Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file.

    Attributes:
        value: a scalar, a list of nodes, or a dict of nodes by name.
        source: the file's name.
        line: its line, counted from 1; for the value of a field, the line of the field's name.
        path: its place in the document: ``model_list[0].litellm_params.model``. Empty for the document.
        raw: a scalar as it was written (``2024-05-01`` is a date to YAML and a version to everybody else).
    """

    value: Scalar | list[Node] | dict[str, Node]
    source: str
    line: int
    path: str
    raw: str = ""

    @property
    def place(self) -> FieldPlace:
        """Where it stands: ``config.yaml:12: model_list[0].model_name``."""
        return FieldPlace(self.source, self.line, self.path)

    def child(self, name: str) -> Node | None:
        """Return the field ``name`` of a mapping, or None if it is absent or null, or this is not a mapping."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        return found if found is not None and found.value is not None else None

    def found(self, *, secret: bool = False) -> str:
        """Return a description for an error message; of a ``secret`` and of longer text, only the kind of value."""
        match self.value:
            case None:
                return "found nothing"
            case dict():
                return "found a mapping"
            case list():
                return "found a list"
            case bool():
                kind = "a yes/no value"
            case int() | float():
                kind = "a number"
            case str():
                kind = "text"
        word = None if secret else safe_word(self.raw)
        if word is None:
            return f"found {kind}"
        return f'found "{word}" (text)' if kind == "text" else f"found {word} ({kind})"


def read_yaml(text: str, source: str, problems: Problems) -> Node:
    """Read one YAML document whose top is a mapping.

    Duplicate fields and values that YAML cannot read are recorded in ``problems``.

    Raises:
        ConfigError: if it is not YAML, not one document, not a mapping, or too large.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError.at(
            FieldPlace(source), f"the file is larger than {MAX_FILE_BYTES // 1024 // 1024} MiB: is it the right one?"
        )
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Node({}, source, 1, "")
        tree = _Reader(source, problems).read(root, root.start_mark.line + 1, "", 0)
    except yaml.YAMLError as error:
        raise ConfigError.at(*_syntax_error(error, text, source)) from None
    except RecursionError:
        raise ConfigError.at(
            FieldPlace(source), f"lists and mappings are nested too deeply: at most {MAX_DEPTH} levels"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    if tree.value is None:
        return Node({}, source, 1, "")
    if not isinstance(tree.value, dict):
        raise ConfigError.at(tree.place, f"{tree.found()}, expected a mapping with fields such as model_list")
    return tree


class _Reader:
    def __init__(self, source: str, problems: Problems) -> None:
        self._source = source
        self._problems = problems
        self._scalars: Any = yaml.constructor.SafeConstructor()  # Any: the stubs leave its methods half untyped
        self._nodes = 0

    def read(self, node: yaml.Node, line: int, path: str, depth: int) -> Node:
        self._count(line, depth)
        if isinstance(node, yaml.MappingNode):
            return Node(self._fields(node, path, depth), self._source, line, path)
        if isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            return Node(
                [
                    self.read(item, item.start_mark.line + 1, f"{path}[{at}]", depth + 1)
                    for at, item in enumerate(items)
                ],
                self._source,
                line,
                path,
            )
        raw = cast("str", node.value)
        return Node(self._scalar(node, raw, FieldPlace(self._source, line, path)), self._source, line, path, raw)

    def _fields(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problems.error(
                    FieldPlace(self._source, line), "the name of a field is a list or mapping: expected a word"
                )
                continue
            if key.tag == _STANDARD + "merge":
                for name, inherited in self._inherited(value, path, depth).items():
                    merged.setdefault(name, inherited)
                continue
            name = cast("str", key.value)
            shown = f"{path}.{safe_name(name)}" if path else safe_name(name)
            if name in fields:
                for at in (fields[name].line, line):
                    self._problems.warn(
                        FieldPlace(self._source, at, shown), "is given more than once, and the last one counts"
                    )
            fields[name] = self.read(value, line, shown, depth + 1)
        return merged | fields

    def _inherited(self, value: yaml.Node, path: str, depth: int) -> dict[str, Node]:
        """Return the fields that a merge key adds; of several mappings, the first that has a field wins."""
        self._count(value.start_mark.line + 1, depth)
        sources = cast("list[yaml.Node]", value.value) if isinstance(value, yaml.SequenceNode) else [value]
        fields: dict[str, Node] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._problems.error(
                    FieldPlace(self._source, value.start_mark.line + 1),
                    "<< merges something that is not a mapping: expected an alias such as *defaults",
                )
                continue
            fields = self._fields(source, path, depth + 1) | fields
        return fields

    def _scalar(self, node: yaml.Node, raw: str, place: FieldPlace) -> Scalar:
        kind = node.tag.removeprefix(_STANDARD)
        if kind in ("str", "timestamp", "value"):
            return raw
        if kind not in ("null", "bool", "int", "float"):
            self._problems.error(place, "has a YAML tag (a word that begins with !), which is not supported: remove it")
            return raw
        try:
            return cast("Scalar", self._scalars.construct_object(node))
        except (ValueError, KeyError, OverflowError, IndexError):  # `!!int foo`, or 5000 digits
            self._problems.error(place, f"cannot be read as {kind}: write another value, or put quotes around it")
            return raw

    def _count(self, line: int, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise ConfigError.at(
                FieldPlace(self._source, line), f"lists and mappings are nested more than {MAX_DEPTH} levels deep"
            )
        if self._nodes > MAX_NODES:
            raise ConfigError.at(
                FieldPlace(self._source, line),
                f"with its aliases expanded, the file contains more than {MAX_NODES} values",
            )


def _syntax_error(error: yaml.YAMLError, text: str, source: str) -> tuple[FieldPlace, str]:
    """Return where YAML stopped and the most likely reason, without quoting the file."""
    if isinstance(error, yaml.reader.ReaderError):
        position = cast("Any", error).position  # the stubs leave it out
        line = text.count("\n", 0, position if isinstance(position, int) else 0) + 1
        return FieldPlace(source, line), "a character that YAML does not allow: save the file as plain UTF-8 text"
    if not isinstance(error, yaml.MarkedYAMLError):
        return FieldPlace(source), "this is not YAML"
    mark = error.problem_mark or error.context_mark
    place = FieldPlace(source, mark.line + 1 if mark else None)
    # PyYAML quotes what it cannot read ("found undefined alias 'my-secret'"): we repeat only single characters and its
    # own names of tokens ('<block end>').
    what = (error.problem or error.context or "it cannot be read").split("\n")[0]
    what = re.sub(r"'([^']*)'", lambda quoted: quoted[0] if _SAFE_QUOTE.match(quoted[1]) else "...", what)
    opened = ""
    if error.context_mark is not None and mark is not None and error.context_mark.line != mark.line:
        opened = f", in what began on line {error.context_mark.line + 1}"
    return place, f"this is not YAML: {what}{opened}; {_remedy(what)}"


def _remedy(what: str) -> str:
    if "alias" in what or "anchor" in what:
        return "put quotes around values that begin with * or &"
    if "\\t" in what:
        return "indent with spaces, not tabs"
    if "single document" in what or "another document" in what:
        return "keep one document in the file, without a second ---"
    return "check the indentation and the colons around this line, and put quotes around values with : # { [ or %"
