"""Cursor on one side, a strict Responses API on the other, for a whole conversation of an agent.

`Cursor` keeps the history as the IDE does and sends it in the shape of its mode; `StrictResponses` refuses with 400
what OpenAI's API refuses, and answers each turn with the next `Reply`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from kit.clients.chat_fold import Folded
from kit.upstreams.scripted import Exchange, error, json_answer, sse_head
from openai.types.responses.response_create_params import ResponseCreateParamsBase

Json = dict[str, Any]

SHELL: Json = {
    "name": "Shell",
    "description": "Executes a shell command.",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
READ_FILE: Json = {
    "name": "ReadFile",
    "description": "Reads a file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
APPLY_PATCH: Json = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch hunk end_patch"},
}


# --- the client ------------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """The assistant's part of one turn."""

    text: str
    calls: list[tuple[str, str, str]]
    """Id, name and arguments: all that Cursor keeps. It drops reasoning."""


@dataclass
class Output:
    call_id: str
    name: str
    text: str


@dataclass
class User:
    text: str
    image: str | None = None


@dataclass
class Cursor:
    """The IDE: its history, and the form in which it sends it."""

    model: str
    conversation: str = "3f0b6f7e-6d0e-4a83-9a51-1e2f7c2a9b10"
    history: list[User | Said | Output] = field(default_factory=list)
    replays_patches_as_functions: bool = False
    """Whether ApplyPatch calls come back as function calls; not known for certain (docs/facts/cursor.md, "The Responses
    body")."""
    sends_temperature: bool = False
    """Whether chat-shaped bodies have ``temperature: 0``, as recorded ones do (docs/facts/cursor.md, "The chat
    body")."""

    def take(self, answer: Folded) -> Said:
        """Add the answer to the history, with the calls as a client that reads ``function.name`` and ``arguments``."""
        assert answer.error is None, answer.error
        said = Said(answer.content or "", [(it["id"], it["name"], it["arguments"]) for it in answer.tool_calls])
        self.history.append(said)
        return said

    def body(self, mode: Literal["agent", "ask"]) -> Json:
        """Return the request of the next turn."""
        common: Json = {"model": self.model, "stream": True, "tool_choice": "auto", "user": "google-oauth2|user_01HASH"}
        if mode == "ask":
            common["reasoning"] = {"effort": "medium"}
            if self.sends_temperature:
                common["temperature"] = 0
            flat_and_nested = [APPLY_PATCH, *({"type": "function", "function": tool} for tool in (SHELL, READ_FILE))]
            return common | {"messages": self._messages(), "tools": flat_and_nested}
        return common | {
            "input": self._items(),
            "tools": [*({"type": "function"} | tool | {"strict": False} for tool in (SHELL, READ_FILE)), APPLY_PATCH],
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": "medium", "summary": "auto"},
            "text": {"verbosity": "low"},
            "truncation": "disabled",
            "previous_response_id": None,
            "prompt_cache_retention": "24h",
            "stream_options": {"include_usage": True},
            "metadata": {"cursorConversationId": self.conversation, "cursorRequestId": f"r-{len(self.history)}"},
        }

    def _items(self) -> list[Json]:
        items: list[Json] = [{"role": "system", "content": "You are an AI coding assistant. You operate in Cursor."}]
        custom = set[str]()
        for entry in self.history:
            match entry:
                case User():
                    parts: list[Json] = [{"type": "input_text", "text": entry.text}]
                    if entry.image:
                        parts.append({"type": "input_image", "image_url": entry.image})
                    items.append({"role": "user", "content": parts})
                case Said():
                    if entry.text:
                        items.append({"role": "assistant", "content": [{"type": "output_text", "text": entry.text}]})
                    for call_id, name, arguments in entry.calls:
                        if name == "ApplyPatch" and not self.replays_patches_as_functions:
                            custom.add(call_id)
                            items.append(
                                {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": arguments}
                            )
                        else:
                            items.append(
                                {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
                            )
                case Output():
                    kind = "custom_tool_call_output" if entry.call_id in custom else "function_call_output"
                    items.append({"type": kind, "call_id": entry.call_id, "output": entry.text})
        return items

    def _messages(self) -> list[Json]:
        messages: list[Json] = [{"role": "system", "content": "You are an AI coding assistant. You operate in Cursor."}]
        for entry in self.history:
            match entry:
                case User():
                    parts: list[Json] = [{"type": "text", "text": entry.text}]
                    if entry.image:
                        parts.append({"type": "image_url", "image_url": {"url": entry.image}})
                    messages.append({"role": "user", "content": parts})
                case Said():
                    calls = [
                        {"type": "function", "id": call_id, "index": n, "function": {"name": name, "arguments": given}}
                        for n, (call_id, name, given) in enumerate(entry.calls)
                    ]
                    messages.append({"role": "assistant", "content": entry.text or None, "tool_calls": calls})
                case Output():
                    messages.append(
                        {"role": "tool", "name": entry.name, "tool_call_id": entry.call_id, "content": entry.text}
                    )
        return messages


# --- the upstream ----------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What the model answers in one turn; reasoning comes before it."""

    text: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Call id, name, arguments; ApplyPatch is a custom call."""


class Refused(Exception):
    """A request that the API answers with 400."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.code = param, code


_PARAMETERS = frozenset(ResponseCreateParamsBase.__annotations__) | {"stream"}
_ROLES = {
    "user": {"input_text", "input_image", "input_file"},
    "system": {"input_text", "input_image", "input_file"},
    "developer": {"input_text", "input_image", "input_file"},
    "assistant": {"output_text", "refusal"},
}
_FIELDS = {
    "message": {"type", "role", "content", "id", "status", "phase"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status", "namespace", "caller"},
    "function_call_output": {"type", "id", "call_id", "output", "status", "caller"},
    "custom_tool_call": {"type", "id", "call_id", "name", "input", "namespace", "caller"},
    "custom_tool_call_output": {"type", "id", "call_id", "output", "caller"},
    "reasoning": {"type", "id", "summary", "content", "encrypted_content", "status"},
}
_PART_FIELDS = {
    "input_text": {"type", "text", "prompt_cache_breakpoint"},
    "input_image": {"type", "image_url", "file_id", "detail", "prompt_cache_breakpoint"},
    "input_file": {"type", "file_data", "file_id", "file_url", "filename", "detail", "prompt_cache_breakpoint"},
    "output_text": {"type", "text", "annotations", "logprobs"},
    "refusal": {"type", "refusal"},
}
_PREFIXES = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class StrictResponses:
    """A double of OpenAI's Responses API; use it as the step of a scripted upstream.

    Attributes:
        inputs: the ``input`` of each request that it accepted.
        bodies: the complete body of each.
        refusals: the reasons why it refused requests.
    """

    def __init__(self, model: str, replies: list[Reply]) -> None:
        self._model = model
        self._replies = replies
        self._followed_by: dict[str, str] = {}
        """The item that followed each reasoning item, by its encrypted content, or by its id if it is stored."""
        self.inputs: list[list[Json]] = []
        self.bodies: list[Json] = []
        self.refusals: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        body = exchange.request.json()
        try:
            self.check(body)
        except Refused as refused:
            self.refusals.append(str(refused))
            details = {"message": str(refused), "type": "invalid_request_error"}
            answer = error(
                400, json.dumps({"error": details | {"param": refused.param, "code": refused.code}}).encode()
            )
            await exchange.send(answer)
            return
        reply = self._replies[len(self.inputs)]
        self.inputs.append(body["input"])
        self.bodies.append(body)
        events = self._events(len(self.inputs), reply, body)
        if not body.get("stream"):
            await exchange.send(json_answer(events[-1]["response"]))
            return
        await exchange.send(sse_head())
        for event in events:
            await exchange.send_chunk(b"data: %b\n\n" % json.dumps(event).encode())
        await exchange.send(b"0\r\n\r\n")

    # What the real API refuses.

    def check(self, body: Json) -> None:
        """Check a request.

        Raises:
            Refused: if OpenAI's API would refuse it.
        """
        for name in body:
            if name not in _PARAMETERS:
                raise Refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        for name in body.get("stream_options") or {}:
            if name != "include_obfuscation":
                raise Refused(f"Unknown parameter: 'stream_options.{name}'.", f"stream_options.{name}")
        if body.get("model") != self._model:
            raise Refused(f"The requested model '{body.get('model')}' does not exist.", "model", "model_not_found")
        for name in ("temperature", "top_p"):
            if body.get(name) is not None:
                raise Refused(f"Unsupported parameter: '{name}' is not supported with this model.", name)
        if (limit := body.get("max_output_tokens")) is not None and limit < 16:
            raise Refused("Invalid 'max_output_tokens': integer below minimum value.", "max_output_tokens")
        metadata = body.get("metadata") or {}
        if len(metadata) > 16 or any(not isinstance(value, str) or len(value) > 512 for value in metadata.values()):
            raise Refused("Invalid 'metadata'.", "metadata")
        self._check_tools(body)
        self._check_input(body)

    def _check_tools(self, body: Json) -> None:
        tools = body.get("tools") or []
        if body.get("tool_choice") is not None and not tools:
            raise Refused("Tool choice is only allowed when tools are specified.", "tool_choice")
        for n, tool in enumerate(tools):
            allowed = {
                "function": {"type", "name", "description", "parameters", "strict", "defer_loading"},
                "custom": {"type", "name", "description", "format", "defer_loading"},
            }.get(tool.get("type"))
            if allowed is None:
                raise Refused(f"Invalid value: '{tool.get('type')}'.", f"tools[{n}].type")
            if unknown := set(tool) - allowed:
                raise Refused(f"Unknown parameter: 'tools[{n}].{min(unknown)}'.", f"tools[{n}]")
            if not _NAME.fullmatch(tool.get("name") or ""):
                raise Refused(f"Missing required parameter: 'tools[{n}].name'.", f"tools[{n}].name")
            if tool["type"] == "function" and tool.get("parameters", {}).get("type") != "object":
                raise Refused("Invalid schema for function: schema must be a JSON Schema of 'type: \"object\"'.")
            if set(tool.get("format", {})) - {"type", "syntax", "definition"}:
                raise Refused(f"Unknown parameter: 'tools[{n}].format'.", f"tools[{n}].format")

    def _check_input(self, body: Json) -> None:
        items = body.get("input")
        if not isinstance(items, list) or not items:
            raise Refused("Invalid type for 'input'.", "input")
        calls: dict[str, str] = {}
        answered: set[str] = set()
        ids: set[str] = set()
        for n, item in enumerate(items):
            where = f"input[{n}]"
            kind = item.get("type", "message")
            if kind not in _FIELDS:
                raise Refused(f"Invalid value: '{kind}'.", f"{where}.type")
            if unknown := set(item) - _FIELDS[kind]:
                raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", f"{where}.{min(unknown)}")
            if (item_id := item.get("id")) is not None:
                if kind in _PREFIXES and not item_id.startswith(_PREFIXES[kind]):
                    raise Refused(f"Invalid '{where}.id': '{item_id}'.", f"{where}.id")
                if item_id in ids:
                    raise Refused(f"Duplicate item found with id {item_id}.", where)
                ids.add(item_id)
            if kind == "message":
                self._check_message(item, where)
            elif kind == "reasoning":
                self._check_reasoning(item, items[n + 1 : n + 2], where)
            else:
                call_id = item.get("call_id")
                if not isinstance(call_id, str) or not call_id:
                    raise Refused(f"Missing required parameter: '{where}.call_id'.", f"{where}.call_id")
                if len(call_id) > 64:
                    raise Refused(f"Invalid '{where}.call_id': string too long.", where, "string_above_max_length")
                self._check_call(kind, item, call_id, calls, answered, where)
        if unanswered := calls.keys() - answered:
            raise Refused(f"No tool output found for function call {min(unanswered)}.", "input")

    def _check_call(
        self, kind: str, item: Json, call_id: str, calls: dict[str, str], answered: set[str], where: str
    ) -> None:
        if kind.endswith("_output"):
            if calls.get(call_id) != kind.removesuffix("_output"):
                raise Refused(f"No tool call found for {kind} with call_id {call_id}.", "input")
            if call_id in answered:
                raise Refused(f"Duplicate output for call_id {call_id}.", "input")
            answered.add(call_id)
            output = item.get("output")
            if isinstance(output, list):
                for part in output:
                    self._check_part(part, _ROLES["user"], f"{where}.output")
            elif not isinstance(output, str):
                raise Refused(f"Invalid type for '{where}.output'.", f"{where}.output")
            return
        if call_id in calls:
            raise Refused(f"Duplicate call_id {call_id}.", "input")
        calls[call_id] = kind
        if not _NAME.fullmatch(item.get("name") or ""):
            raise Refused(f"Invalid '{where}.name'.", f"{where}.name")
        text = "input" if kind == "custom_tool_call" else "arguments"
        if not isinstance(item.get(text), str):
            raise Refused(f"Missing required parameter: '{where}.{text}'.", f"{where}.{text}")

    def _check_message(self, item: Json, where: str) -> None:
        allowed = _ROLES.get(item.get("role", ""))
        if allowed is None:
            raise Refused(f"Invalid value: '{item.get('role')}'.", f"{where}.role")
        content = item.get("content")
        if isinstance(content, str):
            return
        if not isinstance(content, list):
            raise Refused(f"Invalid type for '{where}.content': expected an array or string.", f"{where}.content")
        for part in content:
            self._check_part(part, allowed, f"{where}.content")

    def _check_part(self, part: Json, allowed: set[str], where: str) -> None:
        if part.get("type") not in allowed:
            raise Refused(f"Invalid value: '{part.get('type')}'. Supported values are: {sorted(allowed)}.", where)
        if unknown := set(part) - _PART_FIELDS[part["type"]]:
            raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", where)
        if part["type"] == "input_image" and not isinstance(part.get("image_url"), str):
            raise Refused(f"Invalid type for '{where}.image_url': expected an image URL.", where)

    def _check_reasoning(self, item: Json, following: list[Json], where: str) -> None:
        if not isinstance(item.get("summary"), list):
            raise Refused(f"Missing required parameter: '{where}.summary'.", f"{where}.summary")
        encrypted = item.get("encrypted_content")
        expected = self._followed_by.get(item.get("id", "") if encrypted is None else encrypted)
        if expected is None and encrypted is None:
            raise Refused(f"Item with id '{item.get('id')}' not found.", where)
        if expected is None:
            raise Refused("The encrypted content could not be verified.", where, "invalid_encrypted_content")
        if not following or _mark_of(following[0]) != expected:
            raise Refused(
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item.", where
            )

    # The answers.

    def _events(self, turn: int, reply: Reply, body: Json) -> list[Json]:
        head = {"id": f"resp_{turn}", "created_at": 1_790_000_000 + turn, "model": self._model}
        thought: Json = {
            "type": "reasoning",
            "id": f"rs_{turn}",
            "summary": [{"type": "summary_text", "text": f"**Turn {turn}**"}],
        }
        if "reasoning.encrypted_content" in body.get("include", ()):
            thought["encrypted_content"] = f"gAAAAA-turn-{turn}-" + "x" * 40
        items: list[Json] = [thought]
        if reply.text:
            part = {"type": "output_text", "text": reply.text, "annotations": []}
            items.append({"type": "message", "id": f"msg_{turn}", "role": "assistant", "content": [part]})
        for n, (call_id, name, given) in enumerate(reply.calls):
            base = {"call_id": call_id, "name": name, "status": "completed"}
            if name == "ApplyPatch":
                items.append({"type": "custom_tool_call", "id": f"ctc_{turn}_{n}", "input": given} | base)
            else:
                items.append({"type": "function_call", "id": f"fc_{turn}_{n}", "arguments": given} | base)
        if "encrypted_content" in thought:
            self._followed_by[thought["encrypted_content"]] = _mark_of(items[1])
        if body.get("store") is not False:
            self._followed_by[thought["id"]] = _mark_of(items[1])
        events: list[Json] = [{"type": "response.created", "response": head | {"status": "in_progress", "output": []}}]
        for at, item in enumerate(items):
            events += _events_of(at, item)
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        final = head | {"status": "completed", "output": items, "usage": usage}
        return [*events, {"type": "response.completed", "response": final}]


def _events_of(at: int, item: Json) -> list[Json]:
    place = {"output_index": at, "item_id": item["id"]}
    empty = {name: value for name, value in item.items() if name != "encrypted_content"}
    match item["type"]:
        case "reasoning":
            text, kind, where = item["summary"][0]["text"], "response.reasoning_summary_text", {"summary_index": 0}
            empty["summary"] = []
        case "message":
            text, kind, where = item["content"][0]["text"], "response.output_text", {"content_index": 0}
            empty["content"] = []
        case "custom_tool_call":
            text, kind, where = item["input"], "response.custom_tool_call_input", {}
            empty["input"] = ""
        case _:
            text, kind, where = item["arguments"], "response.function_call_arguments", {}
            empty["arguments"] = ""
    middle = len(text) // 2
    return [
        {"type": "response.output_item.added", "output_index": at, "item": empty},
        *({"type": f"{kind}.delta", "delta": piece} | place | where for piece in (text[:middle], text[middle:])),
        {"type": "response.output_item.done", "output_index": at, "item": item},
    ]


def _mark_of(item: Json) -> str:
    """Return what identifies an item and survives the way through a client."""
    if (call_id := item.get("call_id")) is not None:
        return f"{item['type']} {call_id}"
    content = item.get("content") or ""
    return "message " + (content if isinstance(content, str) else "".join(part.get("text", "") for part in content))
