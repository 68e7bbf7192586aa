"""Names of tools that every upstream accepts.

Chat Completions and Responses allow 64 letters, digits, ``_`` and ``-``, as most other servers do; Anthropic allows 128
of them. MCP servers name their tools with dots, slashes and longer prefixes. The mapping depends on the name alone, so
that declarations, earlier calls and tool choices are mapped alike in every turn; answers are mapped back.

Source: OpenAI's references (2026-11), "function.name"; docs/facts/translation.md, "Tools".
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.call_ids import legal_call_id

_LEGAL: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def legal_tool_name(name: str) -> str:
    """Return ``name`` itself if every upstream accepts it, else a form of it that ends with a hash of all of it."""
    return name if _LEGAL.fullmatch(name) else legal_call_id(name)


class ToolNames:
    """The names of one request.

    Attributes:
        clients: the client's name for each tool that has another name at the upstream.
    """

    __slots__ = ("_legal", "clients")

    def __init__(self) -> None:
        self.clients: dict[str, str] = {}
        self._legal: dict[str, str] = {}  # a history calls the same few tools again and again

    def legal(self, name: str) -> str:
        """Return the name for the upstream, as `legal_tool_name` does, and note the client's if it differs."""
        legal = self._legal.get(name)
        if legal is None:
            legal = self._legal[name] = legal_tool_name(name)
            if legal != name:
                self.clients[legal] = name
        return legal
