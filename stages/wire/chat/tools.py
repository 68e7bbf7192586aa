"""Tools and tool choices of the normal form, as Chat Completions has them.

Custom tools, which take raw text, exist on OpenAI's own API only; others get functions (`native_tools`). Tools that the
client carries out although they are not functions (shell ...) become functions of that name; tools that the upstream
would run itself do not exist here.
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.bad_request import BadRequest
from stages.wire.chat.dialects import Dialect
from stages.wire.custom_tools import as_function
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import flat_tools, group

_NO_PARAMETERS: Final[dict[str, Json]] = {"type": "object", "properties": {}}

_WITHOUT_CUSTOM: Final = re.compile(r"(?:^|/)(?:gpt-[34]|chatgpt-4|o[134])")
"""OpenAI's models from before GPT-5 know functions only."""

_SEARCHES: Final = re.compile("search")
"""OpenAI's models for which ``web_search_options`` exists: ``gpt-5-search-api``, ``gpt-4o-search-preview``."""

_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_NATIVE: Final[dict[str, tuple[str, dict[str, Json]]]] = {
    "local_shell": (
        "Run a command on the user's machine.",
        {"command": _TEXTS, "working_directory": {"type": "string"}, "timeout_ms": {"type": "integer"}},
    ),
    "shell": (
        "Run shell commands on the user's machine.",
        {"commands": _TEXTS, "timeout_ms": {"type": "integer"}, "max_output_length": {"type": "integer"}},
    ),
    "apply_patch": (
        "Create, change or delete a file on the user's machine.",
        {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": {"type": "string"},
            "diff": {"type": "string", "description": "The change in V4A diff format; not for delete_file."},
        },
    ),
}
_NATIVE_REQUIRED: Final = {"local_shell": ["command"], "shell": ["commands"], "apply_patch": ["type", "path"]}


class ChatTools:
    """The tools of one request.

    Args:
        tools: those of the normal form.
        dialect: of the upstream.
        model: the upstream's name for it.

    Attributes:
        tools: in Chat Completions form.
        dropped: types of the tools that have no such form.
        has_native_custom: whether custom tools stay custom tools.
    """

    def __init__(self, tools: list[Json], dialect: Dialect, model: str) -> None:
        self.tools: list[dict[str, Json]] = []
        self.dropped: list[str] = []
        self.searches = False
        self.has_native_custom = dialect.is_openai and _WITHOUT_CUSTOM.search(model) is None
        self._dialect = dialect
        self._has_search = dialect.is_openai and _SEARCHES.search(model) is not None
        self._customs: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}
        for tool, namespace, name in flat_tools(tools):
            if namespace is not None:
                self._names[namespace, tool["name"]] = name
            self._add(tool, name)

    def flat_name(self, namespace: Json, name: str) -> str:
        """Give the name under which a tool, of a namespace perhaps, is declared."""
        return self._names.get((namespace, name), name) if isinstance(namespace, str) else name

    def choice(self, choice: Json) -> Json:
        """Give a tool choice in Chat Completions form, and leave only the tools that it allows.

        Raises:
            BadRequest: if it forces a tool that this upstream cannot have.
        """
        if isinstance(choice, str):
            return self._dialect.required if choice == "required" else choice
        kind = choice.get("type")
        if kind == "allowed_tools":
            return self._allowed(choice)
        name = choice.get("name") if kind in ("function", "custom") else kind
        if kind in ("function", "custom") or name in _NATIVE:
            return self._named(name)
        raise BadRequest(
            f"tool_choice forces a tool of the type {str(kind)[:40]!r}, which the upstream of this model does not "
            "have; leave tool_choice out, or use another model.",
            "tool_choice",
        )

    def _named(self, name: Json) -> dict[str, Json]:
        kind = "custom" if name in self._customs else "function"
        return {"type": kind, kind: {"name": name}}

    def _allowed(self, choice: dict[str, Json]) -> Json:
        tools = choice.get("tools")
        names = [tool.get("name", tool.get("type")) for tool in (tools if is_list(tools) else []) if is_object(tool)]
        allowed = [tool for tool in self.tools if tool[tool["type"]]["name"] in names]
        if not allowed:
            raise BadRequest(
                "tool_choice allows none of the tools that the upstream of this model can have.", "tool_choice.tools"
            )
        mode = "required" if choice.get("mode") == "required" else "auto"
        if self._dialect.is_openai:
            listed = [self._named(tool[tool["type"]]["name"]) for tool in allowed]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}
        self.tools = allowed
        return self.choice(mode)

    def _add(self, tool: dict[str, Json], name: str) -> None:
        kind = tool["type"]
        if kind == "function":
            self._add_function(tool, name)
        elif kind == "custom":
            self._add_custom(tool, name)
        elif kind in _NATIVE and not _runs_at_upstream(tool):
            description, properties = _NATIVE[kind]
            schema = {"type": "object", "properties": properties, "required": _NATIVE_REQUIRED[kind]}
            self._add_function({"description": description, "parameters": schema}, kind)
        elif self._has_search and kind.startswith("web_search"):
            self.searches = True
        else:
            self.dropped.append(kind)

    def _add_function(self, tool: dict[str, Json], name: str) -> None:
        function: dict[str, Json] = {"name": name}
        if tool.get("description"):
            function["description"] = tool["description"]
        parameters = tool.get("parameters")
        function["parameters"] = parameters if is_object(parameters) and parameters else _NO_PARAMETERS
        if tool.get("strict") is True:  # false is what one gets anyway, and not all servers know the field
            function["strict"] = True
        self.tools.append({"type": "function", "function": function})

    def _add_custom(self, tool: dict[str, Json], name: str) -> None:
        if not self.has_native_custom:
            self._add_function(as_function(tool), name)
            return
        self._customs.add(name)
        custom: dict[str, Json] = {"name": name}
        if tool.get("description"):
            custom["description"] = tool["description"]
        layout = group(tool, "format")
        if layout.get("type") == "grammar":
            grammar = {key: layout[key] for key in ("syntax", "definition") if key in layout}
            custom["format"] = {"type": "grammar", "grammar": grammar}
        elif layout:
            custom["format"] = layout
        self.tools.append({"type": "custom", "custom": custom})


def _runs_at_upstream(tool: dict[str, Json]) -> bool:
    environment = tool.get("environment")
    return is_object(environment) and environment.get("type") not in (None, "local")
