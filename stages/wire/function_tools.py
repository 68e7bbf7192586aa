"""Any tool that the client runs, as a plain function: for upstream APIs that have functions only.

Custom tools, which take raw text, become functions with one string (`custom_tools`). Tools that the client runs
although they are not functions (shell ...) become functions of that name. Tools that the upstream would run itself
have no such form.
"""

from __future__ import annotations

from typing import Final

from stages.wire.bad_request import BadRequest
from stages.wire.custom_tools import as_function
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import flat_tools

_NO_PARAMETERS: Final[dict[str, Json]] = {"type": "object", "properties": {}}

_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
# Source: OpenAI's Responses reference (2026-08), the calls that each tool makes.
_CLIENT_RUN: Final[dict[str, tuple[str, dict[str, Json], list[str]]]] = {
    "local_shell": (
        "Run a command on the user's machine.",
        {"command": _TEXTS, "working_directory": {"type": "string"}, "timeout_ms": {"type": "integer"}},
        ["command"],
    ),
    "shell": (
        "Run shell commands on the user's machine.",
        {"commands": _TEXTS, "timeout_ms": {"type": "integer"}, "max_output_length": {"type": "integer"}},
        ["commands"],
    ),
    "apply_patch": (
        "Create, change or delete a file on the user's machine.",
        {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": {"type": "string"},
            "diff": {"type": "string", "description": "The change in V4A diff format; not for delete_file."},
        },
        ["type", "path"],
    ),
}
CLIENT_RUN: Final = frozenset(_CLIENT_RUN)
"""Types of tools that the client runs although they are neither functions nor custom tools."""


class FlatTools:
    """The tools of one request without namespaces.

    Args:
        tools: those of the normal form.

    Attributes:
        tools: each tool with the name under which it is declared.
    """

    def __init__(self, tools: list[Json]) -> None:
        self.tools: list[tuple[dict[str, Json], str]] = []
        self._names: dict[tuple[str, str], str] = {}
        for tool, namespace, name in flat_tools(tools):
            if namespace is not None:
                self._names[namespace, tool["name"]] = name
            self.tools.append((tool, name))

    def flat_name(self, namespace: Json, name: str) -> str:
        """Return the name under which a tool, perhaps of a namespace, is declared."""
        return self._names.get((namespace, name), name) if isinstance(namespace, str) else name


def plain_function(tool: dict[str, Json], name: str) -> dict[str, Json] | None:
    """Return a tool as a function of ``name``; None if the upstream would have to run it.

    The function has ``name``, ``description`` if there is one, ``parameters`` (never empty), and ``strict`` if it is
    true: false is the default, and some servers do not know the field.
    """
    kind = tool["type"]
    if kind == "custom":
        tool = as_function(tool)
    elif kind in _CLIENT_RUN and not _runs_at_upstream(tool):
        description, properties, required = _CLIENT_RUN[kind]
        name = kind
        schema = {"type": "object", "properties": properties, "required": required}
        tool = {"description": description, "parameters": schema}
    elif kind != "function":
        return None
    function: dict[str, Json] = {"name": name}
    if tool.get("description"):
        function["description"] = tool["description"]
    parameters = tool.get("parameters")
    function["parameters"] = parameters if is_object(parameters) and parameters else _NO_PARAMETERS
    if tool.get("strict") is True:
        function["strict"] = True
    return function


def allowed_names(choice: dict[str, Json]) -> list[Json]:
    """Return the names that a tool choice of the type ``allowed_tools`` lists."""
    listed = choice.get("tools")
    return [tool.get("name", tool.get("type")) for tool in (listed if is_list(listed) else []) if is_object(tool)]


def nothing_allowed() -> BadRequest:
    """Return the error for a tool choice that allows none of the tools that are sent."""
    return BadRequest(
        "tool_choice allows none of the tools that the upstream of this model can have.", "tool_choice.tools"
    )


def _runs_at_upstream(tool: dict[str, Json]) -> bool:
    environment = tool.get("environment")
    return is_object(environment) and environment.get("type") not in (None, "local")
