"""Tools and tool choices of the normal form, as Anthropic Messages has them.

All of them are plain functions there (`function_tools`); tools that the upstream would run itself are left out.
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.anthropic.content import marked
from stages.wire.call_ids import legal_call_id
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.function_tools import FlatTools, allowed_names, nothing_allowed, plain_function

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
"""What a tool may be called (``tools.0.custom.name: String should match pattern``)."""

_OWN_FIELDS: Final = ("eager_input_streaming", "defer_loading")
"""Anthropic's own fields of a tool, true or false."""

_BRANCHES: Final = ("anyOf", "oneOf", "allOf")
"""Refused at the top: "input_schema does not support oneOf, allOf, or anyOf at the top level"."""


class AnthropicTools:
    """The tools of one request.

    Args:
        tools: those of the normal form.

    Attributes:
        tools: in Anthropic's form; a name is declared once.
        names: the client's name for each tool that must have another name here.
    """

    def __init__(self, tools: list[Json]) -> None:
        self.names: dict[str, str] = {}
        self._flat = FlatTools(tools)
        marks = {name: tool for tool in tools if isinstance(name := tool.get("name"), str)}
        declared: dict[str, dict[str, Json]] = {}
        for flat, flat_name in self._flat.tools:
            function = plain_function(flat, flat_name)
            if function is None:
                continue
            name = self.legal_name(function["name"])
            tool: dict[str, Json] = {"name": name}
            if isinstance(function.get("description"), str):
                tool["description"] = function["description"]
            tool["input_schema"] = object_schema(function["parameters"])
            tool.update({field: flat[field] for field in _OWN_FIELDS if isinstance(flat.get(field), bool)})
            declared.setdefault(name, marked(marks.get(function["name"], {}), tool))
        self.tools = list(declared.values())

    def name_of(self, item: dict[str, Json]) -> str:
        """Return the name under which the tool of a call is declared, or would be."""
        return self.legal_name(self._flat.flat_name(item.get("namespace"), item["name"]))

    def legal_name(self, name: str) -> str:
        """Return a name that Anthropic accepts: always the same for one tool, and different for another."""
        if _NAME.fullmatch(name):
            return name
        legal = legal_call_id(name)
        self.names[legal] = name
        return legal

    def choose(self, choice: Json, *, may_force: bool, is_parallel: bool) -> dict[str, Json] | None:
        """Return a tool choice in Anthropic's form, and keep only the tools that it allows.

        Args:
            choice: in the normal form; None for the default.
            may_force: whether a tool can be forced; if not, the model chooses.
            is_parallel: whether several calls at once are wanted.

        Raises:
            BadRequest: if it allows none of the tools.
        """
        if choice == "none":
            return {"type": "none"}
        if is_object(choice) and choice.get("type") == "allowed_tools":
            names = [self.legal_name(str(name)) for name in allowed_names(choice)]
            self.tools = [tool for tool in self.tools if tool["name"] in names]
            if not self.tools:
                raise nothing_allowed()
            choice = choice.get("mode")
        chosen: dict[str, Json] | None = None
        if choice == "auto" or (choice is not None and not may_force):
            chosen = {"type": "auto"}
        elif choice == "required":
            chosen = {"type": "any"}
        elif is_object(choice):
            name = self.legal_name(str(choice.get("name", choice.get("type"))))
            is_there = any(tool["name"] == name for tool in self.tools)
            chosen = {"type": "tool", "name": name} if is_there else {"type": "auto"}
        if not is_parallel:
            chosen = {**(chosen or {"type": "auto"}), "disable_parallel_tool_use": True}
        return chosen


def forces(choice: Json) -> bool:
    """Return whether a tool choice of the normal form forces the model to call a tool."""
    if is_object(choice) and choice.get("type") == "allowed_tools":
        choice = choice.get("mode")
    return choice == "required" or is_object(choice)


def object_schema(schema: dict[str, Json]) -> dict[str, Json]:
    """Return a schema of arguments that Anthropic accepts: that of an object, without alternatives at the top level.

    The properties of the alternatives are merged; required is what all of them require, or with ``allOf`` any of them.
    """
    joined: dict[str, Json] = {key: value for key, value in schema.items() if key not in _BRANCHES}
    joined["type"] = "object"
    properties: dict[str, Json] = dict(joined["properties"]) if is_object(joined.get("properties")) else {}
    required: list[Json] = joined["required"] if is_list(joined.get("required")) else []
    for key in _BRANCHES:
        listed = schema.get(key)
        branches = [branch for branch in (listed if is_list(listed) else []) if is_object(branch)]
        needs: list[list[Json]] = []
        for branch in branches:
            more, need = branch.get("properties"), branch.get("required")
            if is_object(more):
                properties = {**more, **properties}
            needs.append(need if is_list(need) else [])
        for name in [name for need in needs for name in need]:
            if name not in required and (key == "allOf" or all(name in need for need in needs)):
                required = [*required, name]
    joined["properties"] = properties
    if required:
        joined["required"] = required
    else:
        joined.pop("required", None)
    return joined
