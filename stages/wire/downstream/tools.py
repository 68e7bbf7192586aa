"""Tool declarations and tool choices of three dialects, brought one by one into the form of the Responses API.

Cursor mixes dialects within one array (litellm#34029: nested functions beside one flat custom tool), so each tool is
read by itself. A tool that is already flat passes as it is, unknown fields and unknown tool types included.

Anthropic's own fields, such as ``cache_control``, stay on a tool for an Anthropic upstream; ``responses/request.py``
removes those that OpenAI does not know.

Source: OpenAI's Responses and Chat Completions references, Anthropic's Messages reference; docs/facts/translation.md,
"Tools".
"""

from __future__ import annotations

from msgspec import Struct

from stages.wire.bad_request import BadRequest, json_kind, need_object, need_text, wrong_type
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.function_tools import CLIENT_RUN
from stages.wire.normal_form import flat_tools
from stages.wire.tool_names import ToolNames

_RUN_BY_CLIENT = frozenset(
    {"function", "custom", "namespace", *CLIENT_RUN, "computer", "computer_use_preview", "tool_search"}
)
"""Types of tools that the client executes; any other type runs at the upstream."""

_NAMED = frozenset({"function", "custom", "namespace"})
_NAMED_TYPES = ("function", "custom")  # not a set: a foreign value may be unhashable
_ANTHROPIC_ONLY = frozenset({"type", "input_schema"})
_BESIDE = ("cache_control", "eager_input_streaming", "defer_loading")
"""Anthropic's fields of a tool, which clients put beside a nested ``function``."""
_NOT_OBJECTS = frozenset({"$ref", "anyOf", "oneOf", "allOf", "enum", "const", "not"})
"""Keywords of schemas that describe a value in another way than by ``properties``."""

_MODES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
"""Modes of a tool choice; ``any`` is the word of Anthropic and Mistral for ``required``."""


class Toolbox(Struct, frozen=True):
    """The tools of one request, and what the translation of its other fields must know about them."""

    tools: list[Json] = []
    custom: frozenset[str] = frozenset()
    """Names of the tools that take raw text instead of JSON; those in namespaces as `flat_tools` names them."""
    has_hosted: bool = False
    """Whether there are tools that the upstream runs itself."""


def open_toolbox(tools: Json, param: str = "tools", names: ToolNames | None = None) -> Toolbox:
    """Bring declared tools into Responses form, with names that every upstream accepts.

    None and an empty array declare none.

    Args:
        tools: what the client sent.
        param: the name of the field in errors.
        names: receives the names that had to be changed.

    Raises:
        BadRequest: if ``tools`` is not an array of objects, or a function or custom tool has no name.
    """
    if not tools and (tools is None or is_list(tools)):
        return Toolbox()
    if not is_list(tools):
        raise wrong_type(param, "an array", tools)
    names = ToolNames() if names is None else names
    flat = [_with_legal_name(_flat_tool(tool, f"{param}[{index}]"), names) for index, tool in enumerate(tools)]
    return Toolbox(
        tools=flat,
        custom=frozenset(name for tool, _, name in flat_tools(flat, names) if tool["type"] == "custom"),
        has_hosted=any(tool["type"] not in _RUN_BY_CLIENT for tool in flat),
    )


def open_functions(functions: Json, names: ToolNames) -> Toolbox:
    """Bring the legacy ``functions`` of Chat Completions into Responses form, as `open_toolbox` does.

    Raises:
        BadRequest: if it is not an array of objects with names.
    """
    if not is_list(functions):
        raise wrong_type("functions", "an array", functions)
    return Toolbox(
        tools=[
            _with_legal_name(_function(need_object(function, f"functions[{index}]"), f"functions[{index}]"), names)
            for index, function in enumerate(functions)
        ]
    )


def _with_legal_name(tool: dict[str, Json], names: ToolNames) -> dict[str, Json]:
    """Return a tool in Responses form, or a namespace and its tools, with names that every upstream accepts."""
    kind = tool["type"]
    if kind not in _NAMED:
        return tool
    if kind == "namespace" and is_list(inner := tool.get("tools")):
        renamed = [_with_legal_name(one, names) if _is_named(one) else one for one in inner]
        if any(new is not old for new, old in zip(renamed, inner, strict=True)):
            tool = {**tool, "tools": renamed}
    name = tool.get("name")
    if not isinstance(name, str) or (legal := names.legal(name)) == name:
        return tool
    return {**tool, "name": legal}


def _is_named(tool: Json) -> bool:
    return is_object(tool) and tool.get("type") in _NAMED_TYPES


def _flat_tool(tool: Json, where: str) -> dict[str, Json]:
    if not is_object(tool):
        raise wrong_type(where, "an object", tool)
    kind = tool.get("type")
    if "input_schema" in tool and kind in (None, "custom"):
        return _from_anthropic(tool, where)
    if kind == "function" or (kind is None and "function" in tool):
        nested = tool.get("function")
        if nested is not None:
            flat = _function(need_object(nested, f"{where}.function"), f"{where}.function")
            beside = {key: tool[key] for key in _BESIDE if tool.get(key) is not None}
            return {**flat, **beside} if beside else flat
        need_text(tool, "name", where)
        parameters = _object_schema(tool.get("parameters"))
        return tool if parameters is tool.get("parameters") else {**tool, "parameters": parameters}
    if kind == "custom":
        nested = tool.get("custom")
        inner = tool if nested is None else need_object(nested, f"{where}.custom")
        return _custom(inner, where if nested is None else f"{where}.custom")
    if kind is None:
        return _function(tool, where)
    if not isinstance(kind, str):
        raise wrong_type(f"{where}.type", "a string", kind)
    return tool


def _function(function: dict[str, Json], where: str) -> dict[str, Json]:
    """Flatten a Chat Completions function. ``strict`` is off by default there, and on in the Responses API."""
    need_text(function, "name", where)
    flat: dict[str, Json] = {"type": "function", **{key: value for key, value in function.items() if value is not None}}
    flat["type"] = "function"
    flat["parameters"] = _object_schema(flat.get("parameters", {}))
    flat.setdefault("strict", False)
    return flat


def _object_schema(schema: Json) -> Json:
    """Complete a schema of arguments that does not declare itself to be that of an object with properties.

    OpenAI refuses a schema without ``type`` ("schema must be a JSON Schema of 'type: \"object\"'"), and OpenAI ("object
    schema missing properties") and LM Studio (lmstudio-bug-tracker#2254) refuse one without ``properties``.
    """
    if not is_object(schema) or not _NOT_OBJECTS.isdisjoint(schema):
        return schema
    kind = schema.get("type")
    if kind is None and "properties" in schema:
        return {**schema, "type": "object"}
    if kind in (None, "object") and schema.get("properties") is None:
        return {**schema, "type": "object", "properties": {}}
    return schema


def _custom(custom: dict[str, Json], where: str) -> dict[str, Json]:
    """Flatten a custom tool; its grammar is nested in Chat Completions only."""
    need_text(custom, "name", where)
    layout = custom.get("format")
    if is_object(layout) and is_object(layout.get("grammar")):
        return {**custom, "type": "custom", "format": {"type": "grammar", **layout["grammar"]}}
    return custom if custom.get("type") == "custom" else {**custom, "type": "custom"}


def _from_anthropic(tool: dict[str, Json], where: str) -> dict[str, Json]:
    need_text(tool, "name", where)
    flat = {key: value for key, value in tool.items() if key not in _ANTHROPIC_ONLY}
    return {"type": "function", **flat, "parameters": _object_schema(tool["input_schema"] or {})}


def flat_tool_choice(
    choice: Json, custom: frozenset[str], param: str = "tool_choice", names: ToolNames | None = None
) -> Json:
    """Bring a tool choice into Responses form; choices of hosted tools pass as they are.

    Args:
        choice: what the client sent; not None.
        custom: names of the declared custom tools: a choice that forces one of them has another type.
        param: the name of the field in errors.
        names: receives the names that had to be changed.

    Raises:
        BadRequest: if it is not a string or an object with a type, or names no tool.
    """
    names = ToolNames() if names is None else names
    if isinstance(choice, str):
        return _MODES.get(choice, choice)
    if not is_object(choice):
        raise wrong_type(param, 'a string such as "auto" or an object', choice)
    kind = choice.get("type")
    if not isinstance(kind, str):
        if kind is None and ("function" in choice or "name" in choice):
            kind = "function"  # the legacy `function_call: {"name": ...}`
        else:
            raise BadRequest(f"{param}.type must be a string, not {json_kind(kind)}.", f"{param}.type")
    if kind in _MODES:
        return _MODES[kind]
    if kind in ("function", "custom", "tool"):
        nested = choice.get(kind)
        name = need_text(nested, "name", f"{param}.{kind}") if is_object(nested) else need_text(choice, "name", param)
        name = names.legal(name)
        return {"type": "custom" if kind == "custom" or name in custom else "function", "name": name}
    if kind == "allowed_tools":
        return _allowed_tools(choice, custom, param, names)
    return choice


def _allowed_tools(choice: dict[str, Json], custom: frozenset[str], param: str, names: ToolNames) -> dict[str, Json]:
    """Flatten a choice among some of the tools; the tools in it may be of another dialect than the choice."""
    nested = choice.get("allowed_tools")
    inner, where = (nested, f"{param}.allowed_tools") if is_object(nested) else (choice, param)
    tools = inner.get("tools")
    if not is_list(tools):
        raise wrong_type(f"{where}.tools", "an array", tools)
    flat = [flat_tool_choice(tool, custom, f"{where}.tools[{index}]", names) for index, tool in enumerate(tools)]
    mode = inner.get("mode")
    return {"type": "allowed_tools", "mode": _MODES.get(mode, mode) if isinstance(mode, str) else "auto", "tools": flat}


def forbids_parallel(choice: Json) -> bool:
    """Return whether Anthropic's tool choice forbids parallel calls, which is a parameter of its own elsewhere."""
    return is_object(choice) and choice.get("disable_parallel_tool_use") is True
