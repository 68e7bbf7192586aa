"""Tools and tool choices of the normal form, as Chat Completions has them.

Custom tools, which take raw text, exist on OpenAI's own API only; elsewhere they are functions (`function_tools`).
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.bad_request import BadRequest
from stages.wire.chat.quirks import ChatQuirks
from stages.wire.foreign_json import Json
from stages.wire.function_tools import CLIENT_RUN, FlatTools, allowed_names, nothing_allowed, plain_function
from stages.wire.normal_form import group

_WITHOUT_CUSTOM: Final = re.compile(r"(?:^|/)(?:gpt-[34]|chatgpt-4|o[134])")
"""OpenAI's models from before GPT-5 know functions only."""

_SEARCHES: Final = re.compile("search")
"""OpenAI's models for which ``web_search_options`` exists: ``gpt-5-search-api``, ``gpt-4o-search-preview``."""


class ChatTools:
    """The tools of one request.

    Args:
        tools: those of the normal form.
        quirks: of the upstream.
        model: the upstream's name for it.

    Attributes:
        tools: in Chat Completions form.
        dropped: types of the tools that have no such form.
        searches: whether the upstream's web search is declared, which is a parameter there.
        has_native_custom: whether custom tools stay custom tools.
    """

    def __init__(self, tools: list[Json], quirks: ChatQuirks, model: str) -> None:
        self.tools: list[dict[str, Json]] = []
        self.dropped: list[str] = []
        self.searches = False
        self.has_native_custom = quirks.is_openai and _WITHOUT_CUSTOM.search(model) is None
        self._quirks = quirks
        self._has_search = quirks.is_openai and _SEARCHES.search(model) is not None
        self._customs: set[str] = set()
        self._flat = FlatTools(tools)
        for tool, name in self._flat.tools:
            self._add(tool, name)

    def flat_name(self, namespace: Json, name: str) -> str:
        """Return the name under which a tool, perhaps of a namespace, is declared."""
        return self._flat.flat_name(namespace, name)

    def choice(self, choice: Json) -> Json:
        """Return a tool choice in Chat Completions form, and keep only the tools that it allows.

        Raises:
            BadRequest: if it forces a tool that this upstream cannot have.
        """
        if isinstance(choice, str):
            return self._quirks.required if choice == "required" else choice
        kind = choice.get("type")
        if kind == "allowed_tools":
            return self._allowed(choice)
        name = choice.get("name") if kind in ("function", "custom") else kind
        if kind in ("function", "custom") or name in CLIENT_RUN:
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
        names = allowed_names(choice)
        allowed = [tool for tool in self.tools if tool[tool["type"]]["name"] in names]
        if not allowed:
            raise nothing_allowed()
        mode = "required" if choice.get("mode") == "required" else "auto"
        if self._quirks.is_openai:
            listed = [self._named(tool[tool["type"]]["name"]) for tool in allowed]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}
        self.tools = allowed
        return self.choice(mode)

    def _add(self, tool: dict[str, Json], name: str) -> None:
        kind = tool["type"]
        if kind == "custom" and self.has_native_custom:
            self._customs.add(name)
            self.tools.append({"type": "custom", "custom": _native_custom(tool, name)})
        elif (function := plain_function(tool, name)) is not None:
            self.tools.append({"type": "function", "function": function})
        elif self._has_search and kind.startswith("web_search"):
            self.searches = True
        else:
            self.dropped.append(kind)


def _native_custom(tool: dict[str, Json], name: str) -> dict[str, Json]:
    custom: dict[str, Json] = {"name": name}
    if tool.get("description"):
        custom["description"] = tool["description"]
    layout = group(tool, "format")
    if layout.get("type") == "grammar":
        grammar = {key: layout[key] for key in ("syntax", "definition") if key in layout}
        custom["format"] = {"type": "grammar", "grammar": grammar}
    elif layout:
        custom["format"] = layout
    return custom
