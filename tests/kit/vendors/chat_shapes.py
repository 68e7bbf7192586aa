"""The start of all doubles that speak Chat Completions, with the rules that they share.

Source, where a rule names no other: OpenAI's reference, platform.openai.com/docs/api-reference/chat/create (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec
from kit.vendors.double import DONE, Ask, Double, Frame, Json, Made, Part, Refused, Rule, Tool, cut, encoded, event
from kit.vendors.openai_shapes import MAX_CALL_ID, check_name, check_schema

REFERENCE: Final = "platform.openai.com/docs/api-reference/chat/create (2026-11)"

_CONTENT: Final = {
    "text": {"type", "text"},
    "image_url": {"type", "image_url"},
    "file": {"type", "file"},
    "input_audio": {"type", "input_audio"},
}


class ChatDouble(Double):
    """A vendor with Chat Completions.

    Attributes:
        parameters: the fields of a body that it knows.
        roles: the roles that it knows.
        message_fields: the fields of an assistant's message beyond role, content and tool_calls.
        call_fields: the fields of a call beyond id, type and function.
        has_custom: whether it has custom tools.
    """

    parameters: ClassVar[frozenset[str]]
    roles: ClassVar[frozenset[str]] = frozenset({"system", "user", "assistant", "tool"})
    message_fields: ClassVar[frozenset[str]] = frozenset()
    call_fields: ClassVar[frozenset[str]] = frozenset()
    has_custom: ClassVar[bool] = False

    def read(self, body: Json) -> tuple[list[bytes], bytes]:
        return [encoded(message) for message in body["messages"]], encoded(body.get("tools") or [])

    def tools(self, body: Json) -> list[Tool]:
        if body.get("tool_choice") == "none":
            return []
        declared = [(tool["type"], tool[tool["type"]]) for tool in body.get("tools") or ()]
        return [Tool(tool["name"], tool.get("parameters") or {}, kind == "custom") for kind, tool in declared]

    def is_after_outputs(self, body: Json) -> bool:
        return bool(body["messages"][-1]["role"] == "tool")

    def length_refusal(self, tokens: int) -> Refused:
        message = (
            f"This model's maximum context length is {self.limit_tokens} tokens. However, your messages resulted in "
            f"{tokens} tokens. Please reduce the length of the messages."
        )
        return Refused(message, "messages", "context_length_exceeded")

    # The stream.

    def frames(self, made: Made, body: Json) -> Iterator[Frame]:
        head = {"id": self.letters(24), "object": "chat.completion.chunk", "created": 1_790_000_000 + made.turn}
        head["model"] = made.model

        def chunk(delta: Json, finish: str | None = None, token: str | None = None) -> Frame:
            return event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}, token=token)

        yield chunk({"role": "assistant", "content": ""})
        number = 0
        for part in made.parts:
            match part.kind:
                case "thought":
                    deltas = self.thought_deltas(made, part, body)
                case "text":
                    deltas = ((piece, None) for piece in ({"content": piece} for piece in cut(part.text)))
                case _:
                    deltas = self.call_deltas(made, part, number)
                    number += 1
            for delta, token in deltas:
                yield chunk(delta, token=token)
        yield chunk({}, "tool_calls" if number else "stop")
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            yield event(head | {"choices": [], "usage": usage})
        yield DONE

    def thought_deltas(self, made: Made, part: Part, body: Json) -> Iterator[tuple[Json, str | None]]:
        """Yield how thinking is sent, and the token of each delta that completes it. By default it is not shown."""
        yield from ()

    def call_deltas(self, made: Made, part: Part, number: int) -> Iterator[tuple[Json, str | None]]:
        """Yield how a call is sent: here, as OpenAI sends it."""
        own = {
            "index": number,
            "id": part.call_id,
            "type": "function",
            "function": {"name": part.name, "arguments": ""},
        }
        if part.is_custom:
            yield {"tool_calls": [own | {"type": "custom", "custom": {"name": part.name, "input": part.text}}]}, None
            return
        yield {"tool_calls": [own]}, None
        for piece in cut(part.text):
            yield {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}, None


def messages_of(ask: Ask) -> list[tuple[str, Json]]:
    """Return where each message is, and the message."""
    return [(f"messages[{n}]", message) for n, message in enumerate(ask.body["messages"])]


def calls_of(message: Json) -> list[Json]:
    return message.get("tool_calls") or []


def name_of(call: Json) -> Any:
    return (call.get(call.get("type", "function")) or {}).get("name")


def check_parameters(double: ChatDouble, ask: Ask) -> None:
    for name in ask.body:
        if name not in double.parameters:
            raise Refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def check_messages(double: ChatDouble, ask: Ask) -> None:
    if not isinstance(ask.body.get("messages"), list) or not ask.body["messages"]:
        raise Refused("Invalid 'messages': empty array.", "messages")


def check_tools(double: ChatDouble, ask: Ask) -> None:
    for n, tool in enumerate(ask.body.get("tools") or ()):
        kind = tool.get("type")
        if (
            kind not in ("function", "custom")
            or (kind == "custom" and not double.has_custom)
            or set(tool) != {"type", kind}
        ):
            raise Refused(f"Invalid value: 'tools[{n}]'.", f"tools[{n}]")
        known = (
            {"name", "description", "format"} if kind == "custom" else {"name", "description", "parameters", "strict"}
        )
        if unknown := set(tool[kind]) - known:
            raise Refused(f"Unknown parameter: 'tools[{n}].{kind}.{min(unknown)}'.", f"tools[{n}]")
        if kind == "function":
            check_schema(tool["function"].get("parameters"), f"tools[{n}]")
        elif (tool["custom"].get("format") or {}).get("type") == "grammar" and "grammar" not in tool["custom"][
            "format"
        ]:
            raise Refused(f"Missing required parameter: 'tools[{n}].custom.format.grammar'.", f"tools[{n}]")


def check_tool_choice(double: ChatDouble, ask: Ask) -> None:
    if ask.body.get("tool_choice") is not None and not ask.body.get("tools"):
        raise Refused("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")


def check_names(double: ChatDouble, ask: Ask) -> None:
    for n, tool in enumerate(ask.body.get("tools") or ()):
        check_name(name_of(tool), f"tools[{n}].function.name")
    for where, message in messages_of(ask):
        for call in calls_of(message):
            check_name(name_of(call), f"{where}.tool_calls.function.name")


def check_message_fields(double: ChatDouble, ask: Ask) -> None:
    for where, message in messages_of(ask):
        role = message.get("role")
        if role not in double.roles:
            raise Refused(f"Invalid value: '{role}'.", f"{where}.role")
        known = {"role", "content"}
        if role == "assistant":
            known |= {"tool_calls", *double.message_fields}
        elif role == "tool":
            known |= {"tool_call_id"}
        if unknown := set(message) - known:
            raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", f"{where}.{min(unknown)}")
        if "tool_calls" in message and not message["tool_calls"]:
            raise Refused(f"Invalid '{where}.tool_calls': empty array.", f"{where}.tool_calls")
        for call in calls_of(message):
            if unknown := set(call) - {"id", "type", call.get("type"), *double.call_fields}:
                raise Refused(f"Unknown parameter: '{where}.tool_calls.{min(unknown)}'.", f"{where}.tool_calls")


def check_content(double: ChatDouble, ask: Ask) -> None:
    for where, message in messages_of(ask):
        content = message.get("content")
        if content is None and calls_of(message):
            continue
        if isinstance(content, list):
            for part in content:
                _check_part(part, "text" if message["role"] != "user" else None, f"{where}.content")
        elif not isinstance(content, str):
            raise Refused("Invalid value for 'content': expected a string, got null.", f"{where}.content")


def _check_part(part: Json, only: str | None, where: str) -> None:
    kind = part.get("type", "")
    if kind not in _CONTENT or (only is not None and kind != only):
        raise Refused(f"Invalid value: '{kind}'.", where)
    if unknown := set(part) - _CONTENT[kind]:
        raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", where)
    if kind == "image_url":
        image = part["image_url"]
        if not isinstance(image, dict) or not isinstance(image.get("url"), str):
            raise Refused(f"Invalid type for '{where}.image_url'.", where)
        if image.get("detail") not in (None, "auto", "low", "high"):
            raise Refused(f"Invalid value: '{image['detail']}'. Supported values are: 'low', 'high' and 'auto'.", where)


def check_call_ids(double: ChatDouble, ask: Ask) -> None:
    for where, message in messages_of(ask):
        ids = [call.get("id") for call in calls_of(message)]
        if message["role"] == "tool":
            ids = [message.get("tool_call_id")]
        for call_id in ids:
            if not isinstance(call_id, str) or not call_id:
                raise Refused(f"Missing required parameter: '{where}.tool_calls[0].id'.", where)
            if len(call_id) > MAX_CALL_ID:
                raise Refused(f"Invalid '{where}.tool_calls[0].id': string too long.", where, "string_above_max_length")


def check_pairs(double: ChatDouble, ask: Ask) -> None:
    waiting: list[str] = []
    for where, message in messages_of(ask):
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                raise Refused(
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.", where
                )
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            raise Refused(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}",
                where,
            )
        waiting = [call["id"] for call in calls_of(message)]
        if len(set(waiting)) != len(waiting):
            raise Refused("Duplicate tool call id.", where)
    if waiting:
        raise Refused("An assistant message with 'tool_calls' must be followed by tool messages.", "messages")


def check_arguments(double: ChatDouble, ask: Ask) -> None:
    for where, message in messages_of(ask):
        for call in calls_of(message):
            try:
                is_object = isinstance(msgspec.json.decode(call["function"]["arguments"]), dict)
            except msgspec.DecodeError:
                is_object = False
            if not is_object:
                raise Refused("The arguments of a tool call are not a JSON object.", where)


SHAPE: Final = (
    Rule("messages are there", REFERENCE, check_messages),
    Rule("parameters are known", REFERENCE, check_parameters),
    Rule("tools are nested", REFERENCE, check_tools),
    Rule("tool_choice only with tools", REFERENCE, check_tool_choice),
    Rule("message fields are known", REFERENCE, check_message_fields),
    Rule("names have 64 characters", REFERENCE, check_names),
    Rule("parts are known", REFERENCE + "; image detail is auto, low or high", check_content),
    Rule("call ids have 64 characters", "ungate#26: string_above_max_length", check_call_ids),
    Rule("outputs follow their calls", REFERENCE + '; 400 "must be followed by tool messages"', check_pairs),
)
"""The shape of a body: what all of them demand."""
