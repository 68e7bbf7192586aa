"""Custom tools for upstreams without them: functions with one string, and calls of those functions.

The way back is `unwrap`: the text is taken out of the string while it streams, so that the client gets its raw patch.
"""

from __future__ import annotations

import msgspec

from stages.wire.foreign_json import Json, encode, is_list, is_object
from stages.wire.unwrap import FIELD


def as_function(tool: dict[str, Json]) -> dict[str, Json]:
    """Return a custom tool as a function; its grammar, which is no longer enforced, goes into the description."""
    words = [tool["description"]] if isinstance(tool.get("description"), str) else []
    layout = tool.get("format")
    if is_object(layout) and isinstance(layout.get("definition"), str):
        words.append(f"The {FIELD} must follow this {layout.get('syntax', 'lark')} grammar:\n{layout['definition']}")
    return {
        "type": "function",
        "name": tool["name"],
        "description": "\n\n".join(words),
        "parameters": {
            "type": "object",
            "properties": {FIELD: {"type": "string", "description": f"The whole {FIELD} of the tool, as raw text."}},
            "required": [FIELD],
            "additionalProperties": False,
        },
        "strict": False,
    }


def as_function_item(item: dict[str, Json]) -> dict[str, Json]:
    """Return a custom call, or the output of one, as that of a function."""
    if item["type"] == "custom_tool_call_output":
        return {**item, "type": "function_call_output"}
    rest = {key: value for key, value in item.items() if key not in ("id", "input")}  # the id is of another kind
    return {**rest, "type": "function_call", "arguments": encode({FIELD: item["input"]}).decode()}


def object_arguments(arguments: str, mended: set[str]) -> str:
    """Return arguments of a function that are a JSON object: others (truncated, raw) become its ``input``."""
    if not arguments.strip():
        return "{}"
    try:
        is_valid = is_object(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        is_valid = False
    if is_valid:
        return arguments
    mended.add("truncated_arguments")
    return encode({FIELD: arguments}).decode()


def usable_choice(choice: Json, tools: list[dict[str, Json]], *, is_wrapped: bool) -> Json:
    """Return a tool choice that names only ``tools``; None if nothing is left of it.

    Args:
        choice: a choice in Responses form.
        tools: the tools that are sent.
        is_wrapped: whether custom tools are sent as functions.
    """
    if not is_object(choice):
        return choice
    kind = choice.get("type")
    if kind == "allowed_tools" and is_list(choice.get("tools")):
        allowed = [usable_choice(one, tools, is_wrapped=is_wrapped) for one in choice["tools"]]
        left = [one for one in allowed if one is not None]
        return {**choice, "tools": left} if left else None
    if kind == "custom" and is_wrapped:
        choice = {**choice, "type": "function"}
    if kind in ("function", "custom"):
        return choice  # the upstream refuses a choice of an unknown tool
    return choice if any(tool["type"] == kind for tool in tools) else None
