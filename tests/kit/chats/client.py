"""The IDE in a generated chat: what it keeps of a conversation, and the form in which it sends it.

It keeps what Cursor keeps (text and calls, never reasoning) and writes it as Cursor does: in the Responses shape for
gpt names, with Anthropic's blocks for claude names, and as plain chat messages for all others, and in Ask mode for all
(docs/facts/cursor.md, "The Responses body", "The chat body").
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kit.vendors.vendors import Shape

Json = dict[str, Any]
Mode = Literal["agent", "ask"]

IMAGE: Final = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"


def tool(name: str, *required: str, **properties: str) -> Json:
    """Return a tool as a name, a description and a schema."""
    schema = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": schema, "required": [*required]}
    return {"name": name, "description": f"The tool {name}.", "parameters": parameters}


READS: Final = (
    tool("ReadFile", "path", path="string", offset="integer", limit="integer"),
    tool("rg", "pattern", pattern="string", path="string"),
    tool("LS", path="string"),
)
EDITS: Final = (
    tool("Shell", "command", command="string", block_until_ms="number"),
    tool("CallMcpTool", "server", "toolName", server="string", toolName="string", arguments="object"),
    tool("TodoWrite", "text", text="string", merge="boolean"),
)
STR_REPLACE: Final = tool("StrReplace", "path", "old", "new", path="string", old="string", new="string")
LATE: Final = (
    tool("mcp_browser_navigate", "url", url="string"),
    tool("mcp_tickets.search", "query", query="string"),
    tool("mcp_user-design-tools-for-figma_export_selected_frames_as_svg_files_to_disk", "frame", frame="string"),
)
"""MCP tools that come late: with a plain name, with a dot in it, and with more than 64 characters."""
APPLY_PATCH: Final[Json] = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Use this tool to edit files. This is a FREEFORM tool, so do not wrap the patch in JSON.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch hunk end_patch"},
}


@dataclass(eq=False)
class Call:
    """A call as the IDE keeps it; "Stop" may have cut its id, or the rest of its arguments."""

    call_id: str | None
    name: str
    arguments: str


@dataclass(eq=False)
class User:
    text: str
    image: str | None = None


@dataclass(eq=False)
class Said:
    """An answer.

    Attributes:
        turn: its number at the double; None if nothing reached the double, or nothing came back.
        upon: what it was an answer to: see `Client.front`.
    """

    text: str
    calls: list[Call]
    turn: int | None = None
    upon: Front | None = None


@dataclass(eq=False)
class Output:
    call: Call
    text: str


Entry = User | Said | Output


@dataclass(frozen=True)
class Front:
    """What is before the messages of a request.

    Attributes:
        alias: the name of the model.
        system: the system prompt.
        tools: the names of the tools.
        mode: on which their bytes may depend.
    """

    alias: str
    system: str
    tools: tuple[str, ...]
    mode: Mode


@dataclass
class Client:
    """A chat in the IDE."""

    shape: Shape
    alias: str
    conversation: str
    system: str = "You are an AI coding assistant. You operate in Cursor."
    mode: Mode = "agent"
    effort: str = "medium"
    late: list[Json] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    has_temperature: bool = False
    replays_patches_as_functions: bool = False
    requests: int = 0

    @property
    def front(self) -> Front:
        return Front(self.alias, self.system, tuple(tool["name"] for tool in self._tools()), self.mode)

    @property
    def name(self) -> tuple[str, ...]:
        """What tells this chat from others: its id where it is sent, else what the user has said before any answer."""
        if self.shape == "responses" and self.mode == "agent":
            return (self.conversation,)
        first = next((n for n, entry in enumerate(self.entries) if not isinstance(entry, User)), len(self.entries))
        return tuple(entry.text for entry in self.entries[:first] if isinstance(entry, User))

    def _tools(self) -> list[Json]:
        edit = STR_REPLACE if self.shape == "blocks" else APPLY_PATCH
        # In Ask mode, too, the custom tool is there, flat among nested functions (litellm#34029).
        return [*READS, edit] if self.mode == "ask" else [*READS, *EDITS, edit, *self.late]

    def body(self) -> Json:
        """Return the next request."""
        self.requests += 1
        shape = "chat" if self.mode == "ask" else self.shape
        body: Json = {"model": self.alias, "stream": True, "user": "google-oauth2|user_01HASH"}
        match shape:
            case "responses":
                return body | self._responses_body()
            case "blocks":
                return body | self._blocks_body()
            case _:
                return body | self._chat_body()

    def _responses_body(self) -> Json:
        return {
            "input": self._items(),
            "tools": [
                one if "type" in one else {"type": "function"} | one | {"strict": False} for one in self._tools()
            ],
            "tool_choice": "auto",
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": self.effort, "summary": "auto"},
            "text": {"verbosity": "low"},
            "truncation": "disabled",
            "previous_response_id": None,
            "prompt_cache_retention": "24h",
            "stream_options": {"include_usage": True},
            "metadata": {"cursorConversationId": self.conversation, "cursorRequestId": f"r-{self.requests}"},
        }

    def _chat_body(self) -> Json:
        tools = [one if "type" in one else {"type": "function", "function": one} for one in self._tools()]
        body: Json = {"messages": self._messages(), "tools": tools, "tool_choice": "auto"}
        body["reasoning"] = {"effort": self.effort}
        if self.has_temperature:
            body["temperature"] = 0
        return body

    def _blocks_body(self) -> Json:
        tools = [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in self._tools()
        ]
        body: Json = {"messages": self._block_messages(), "tools": tools, "tool_choice": {"type": "auto"}}
        body |= {"reasoning": {"effort": self.effort}, "max_tokens": 8192, "stream_options": {"include_usage": True}}
        if self.has_temperature:
            body["temperature"] = 0
        return body

    def _items(self) -> list[Json]:
        items: list[Json] = [{"role": "system", "content": self.system}]
        for entry in self.entries:
            match entry:
                case User():
                    parts: list[Json] = [{"type": "input_text", "text": entry.text}]
                    if entry.image:
                        parts.append({"type": "input_image", "image_url": entry.image})
                    items.append({"role": "user", "content": parts})
                case Said():
                    if entry.text:
                        items.append({"role": "assistant", "content": [{"type": "output_text", "text": entry.text}]})
                    items += (self._call_item(call) for call in entry.calls)
                case Output():
                    kind = "custom_tool_call_output" if self._is_custom(entry.call) else "function_call_output"
                    items.append({"type": kind} | _id("call_id", entry.call) | {"output": entry.text})
        return items

    def _is_custom(self, call: Call) -> bool:
        return call.name == "ApplyPatch" and not self.replays_patches_as_functions

    def _call_item(self, call: Call) -> Json:
        kind, text = ("custom_tool_call", "input") if self._is_custom(call) else ("function_call", "arguments")
        return {"type": kind} | _id("call_id", call) | {"name": call.name, text: call.arguments}

    def _messages(self) -> list[Json]:
        messages: list[Json] = [{"role": "system", "content": self.system}]
        for entry in self.entries:
            match entry:
                case User():
                    parts: list[Json] = [{"type": "text", "text": entry.text}]
                    if entry.image:
                        parts.append({"type": "image_url", "image_url": {"url": entry.image}})
                    messages.append({"role": "user", "content": parts})
                case Said():
                    calls = [
                        {"type": "function"}
                        | _id("id", call)
                        | {"index": n, "function": {"name": call.name, "arguments": call.arguments}}
                        for n, call in enumerate(entry.calls)
                    ]
                    messages.append({"role": "assistant", "content": entry.text or None, "tool_calls": calls})
                case Output():
                    head = {"role": "tool", "name": entry.call.name}
                    messages.append(head | _id("tool_call_id", entry.call) | {"content": entry.text})
        return messages

    def _block_messages(self) -> list[Json]:
        mark = {"cache_control": {"type": "ephemeral"}}
        messages: list[Json] = [{"role": "system", "content": [{"type": "text", "text": self.system} | mark]}]
        for entry in self.entries:
            match entry:
                case User():
                    parts: list[Json] = [{"type": "text", "text": entry.text}]
                    if entry.image:
                        source = {"type": "base64", "media_type": "image/png", "data": entry.image.partition(",")[2]}
                        parts.append({"type": "image", "source": source})
                    messages.append({"role": "user", "content": parts})
                case Said():
                    blocks: list[Json] = [{"type": "text", "text": entry.text}] if entry.text else []
                    blocks += (
                        {"type": "tool_use"} | _id("id", call) | {"name": call.name, "input": _parsed(call.arguments)}
                        for call in entry.calls
                    )
                    messages.append({"role": "assistant", "content": blocks})
                case Output():
                    content = [{"type": "text", "text": entry.text}]
                    result = {"type": "tool_result"} | _id("tool_use_id", entry.call) | {"content": content}
                    if messages[-1]["role"] == "user" and messages[-1]["content"][0]["type"] == "tool_result":
                        messages[-1]["content"].append(result)
                    else:
                        messages.append({"role": "user", "content": [result]})
        return messages


def _id(field_name: str, call: Call) -> Json:
    return {} if call.call_id is None else {field_name: call.call_id}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}
