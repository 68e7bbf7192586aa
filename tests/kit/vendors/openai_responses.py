"""OpenAI's Responses API: GPT-5, GPT-6 and GPT-6.2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from kit.vendors.double import Ask, Double, Frame, Json, Made, Part, Refused, Rule, Tool, cut, digests, encoded, event
from kit.vendors.openai_shapes import (
    GPT_5_EFFORTS,
    GPT_6_EFFORTS,
    MAX_CALL_ID,
    check_effort,
    check_metadata,
    check_model,
    check_name,
    check_path,
    check_schema,
    refuse,
)
from openai.types.responses.response_create_params import ResponseCreateParamsBase

REFERENCE: Final = "platform.openai.com/docs/api-reference/responses/create (2026-11)"
GUIDE: Final = "platform.openai.com/docs/guides/reasoning (2026-11)"
GPT_6: Final = "OpenAI's guide to GPT-6 (2026-11)"

_PARAMETERS: Final = frozenset(ResponseCreateParamsBase.__annotations__) | {"stream"}
_TOOL_FIELDS: Final = {
    "function": {"type", "name", "description", "parameters", "strict", "defer_loading"},
    "custom": {"type", "name", "description", "format", "defer_loading"},
}
_INPUT: Final = {"input_text", "input_image", "input_file"}
_ROLES: Final = {"user": _INPUT, "system": _INPUT, "developer": _INPUT, "assistant": {"output_text", "refusal"}}
_FIELDS: Final = {
    "message": {"type", "role", "content", "id", "status", "phase"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status", "namespace", "caller"},
    "function_call_output": {"type", "id", "call_id", "output", "status", "caller"},
    "custom_tool_call": {"type", "id", "call_id", "name", "input", "namespace", "caller"},
    "custom_tool_call_output": {"type", "id", "call_id", "output", "caller"},
    "reasoning": {"type", "id", "summary", "content", "encrypted_content", "status"},
    "item_reference": {"type", "id"},
    "additional_tools": {"type", "role", "tools"},
}
_PART_FIELDS: Final = {
    "input_text": {"type", "text", "prompt_cache_breakpoint"},
    "input_image": {"type", "image_url", "file_id", "detail", "prompt_cache_breakpoint"},
    "input_file": {"type", "file_data", "file_id", "file_url", "filename", "detail", "prompt_cache_breakpoint"},
    "output_text": {"type", "text", "annotations", "logprobs"},
    "refusal": {"type", "refusal"},
}
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}
_CALLS: Final = ("function_call", "custom_tool_call")
_INCLUDES: Final = frozenset(
    {"reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"}
)


def _items(ask: Ask) -> list[tuple[str, str, Json]]:
    """Return where each item is, its type, and the item."""
    return [(f"input[{n}]", item.get("type", "message"), item) for n, item in enumerate(ask.body["input"])]


def _parameters(double: Double, ask: Ask) -> None:
    for name in ask.body:
        if name not in _PARAMETERS:
            raise Refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def _stream_options(double: Double, ask: Ask) -> None:
    for name in ask.body.get("stream_options") or {}:
        if name != "include_obfuscation":
            raise Refused(f"Unknown parameter: 'stream_options.{name}'.", f"stream_options.{name}")


def _gpt_5_sampling(double: Double, ask: Ask) -> None:
    if (ask.body.get("reasoning") or {}).get("effort") != "none":
        refuse(ask, "temperature", "top_p")


def _gpt_6_sampling(double: Double, ask: Ask) -> None:
    refuse(ask, "temperature", "top_p", "top_logprobs")
    if "message.output_text.logprobs" in (ask.body.get("include") or ()):
        raise Refused("Unsupported include: 'message.output_text.logprobs'.", "include")


def _gpt_5_effort(double: Double, ask: Ask) -> None:
    check_effort((ask.body.get("reasoning") or {}).get("effort"), GPT_5_EFFORTS, "reasoning.effort")


def _gpt_6_effort(double: Double, ask: Ask) -> None:
    check_effort((ask.body.get("reasoning") or {}).get("effort"), GPT_6_EFFORTS, "reasoning.effort")


def _no_flex(double: Double, ask: Ask) -> None:
    if ask.body.get("service_tier") == "flex":
        raise Refused("Invalid service_tier argument: 'flex' is not available for this model.", "service_tier")


def _limit(double: Double, ask: Ask) -> None:
    if (limit := ask.body.get("max_output_tokens")) is not None and limit < 16:
        raise Refused("Invalid 'max_output_tokens': integer below minimum value.", "max_output_tokens")


def _include(double: Double, ask: Ask) -> None:
    for name in ask.body.get("include") or ():
        if name not in _INCLUDES:
            raise Refused(f"Invalid value: '{name}'.", "include")


def _tool_choice(double: Double, ask: Ask) -> None:
    if ask.body.get("tool_choice") is not None and not ask.body.get("tools"):
        raise Refused("Tool choice is only allowed when tools are specified.", "tool_choice")


def _tool_fields(double: Double, ask: Ask) -> None:
    for n, tool in enumerate(ask.body.get("tools") or ()):
        allowed = _TOOL_FIELDS.get(tool.get("type"))
        if allowed is None:
            raise Refused(f"Invalid value: '{tool.get('type')}'.", f"tools[{n}].type")
        if unknown := set(tool) - allowed:
            raise Refused(f"Unknown parameter: 'tools[{n}].{min(unknown)}'.", f"tools[{n}]")
        if tool["type"] == "function":
            check_schema(tool.get("parameters"), f"tools[{n}].parameters")
        if set(tool.get("format") or ()) - {"type", "syntax", "definition"}:
            raise Refused(f"Unknown parameter: 'tools[{n}].format'.", f"tools[{n}].format")


def _names(double: Double, ask: Ask) -> None:
    for n, tool in enumerate(ask.body.get("tools") or ()):
        check_name(tool.get("name"), f"tools[{n}].name")
    for where, kind, item in _items(ask):
        if kind in _CALLS:
            check_name(item.get("name"), f"{where}.name")


def _input(double: Double, ask: Ask) -> None:
    if not isinstance(ask.body.get("input"), list) or not ask.body["input"]:
        raise Refused("Invalid type for 'input'.", "input")


def _item_fields(double: Double, ask: Ask) -> None:
    for where, kind, item in _items(ask):
        if kind not in _FIELDS:
            raise Refused(f"Invalid value: '{kind}'.", f"{where}.type")
        if unknown := set(item) - _FIELDS[kind]:
            raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", f"{where}.{min(unknown)}")
        text = {"function_call": "arguments", "custom_tool_call": "input"}.get(kind)
        if text is not None and not isinstance(item.get(text), str):
            raise Refused(f"Missing required parameter: '{where}.{text}'.", f"{where}.{text}")


def _item_ids(double: Double, ask: Ask) -> None:
    ids: set[str] = set()
    for where, kind, item in _items(ask):
        if (item_id := item.get("id")) is None:
            continue
        if not item_id.startswith(_PREFIXES.get(kind, "")):
            raise Refused(f"Invalid '{where}.id': '{item_id}'. Expected an ID that begins with '{_PREFIXES[kind]}'.")
        if item_id in ids:
            raise Refused(f"Duplicate item found with id {item_id}.", where)
        ids.add(item_id)


def _content(double: Double, ask: Ask) -> None:
    for where, kind, item in _items(ask):
        if kind == "message":
            allowed = _ROLES.get(item.get("role", ""))
            if allowed is None:
                raise Refused(f"Invalid value: '{item.get('role')}'.", f"{where}.role")
            _check_parts(item.get("content"), allowed, f"{where}.content")
        elif kind.endswith("_output"):
            _check_parts(item.get("output"), _INPUT, f"{where}.output")


def _check_parts(content: Any, allowed: set[str], where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Refused(f"Invalid type for '{where}': expected an array or string.", where)
    for part in content:
        if part.get("type") not in allowed:
            raise Refused(f"Invalid value: '{part.get('type')}'. Supported values are: {sorted(allowed)}.", where)
        if unknown := set(part) - _PART_FIELDS[part["type"]]:
            raise Refused(f"Unknown parameter: '{where}.{min(unknown)}'.", where)
        if part["type"] == "input_image" and not isinstance(part.get("image_url"), str):
            raise Refused(f"Invalid type for '{where}.image_url': expected an image URL.", where)
        if part.get("detail") not in (None, "auto", "low", "high", "original"):
            raise Refused(f"Invalid value: '{part['detail']}'.", f"{where}.detail")


def _call_ids(double: Double, ask: Ask) -> None:
    for where, kind, item in _items(ask):
        if kind in _CALLS or kind.endswith("_output"):
            call_id = item.get("call_id")
            if not isinstance(call_id, str) or not call_id:
                raise Refused(f"Missing required parameter: '{where}.call_id'.", f"{where}.call_id")
            if len(call_id) > MAX_CALL_ID:
                raise Refused(f"Invalid '{where}.call_id': string too long.", where, "string_above_max_length")


def _call_ids_once(double: Double, ask: Ask) -> None:
    calls = [item["call_id"] for _, kind, item in _items(ask) if kind in _CALLS]
    if len(set(calls)) != len(calls):
        raise Refused("Duplicate call_id.", "input")


def _outputs(double: Double, ask: Ask) -> None:
    calls: dict[str, str] = {}
    answered: set[str] = set()
    for _, kind, item in _items(ask):
        if kind in _CALLS:
            calls[item["call_id"]] = kind
        elif kind.endswith("_output"):
            call_id = item["call_id"]
            if calls.get(call_id) != kind.removesuffix("_output"):
                raise Refused(f"No tool call found for {kind} with call_id {call_id}.", "input")
            if call_id in answered:
                raise Refused(f"Duplicate output for call_id {call_id}.", "input")
            answered.add(call_id)


def _no_call_alone(double: Double, ask: Ask) -> None:
    outputs = {item["call_id"] for _, kind, item in _items(ask) if kind.endswith("_output")}
    for _, kind, item in _items(ask):
        if kind in _CALLS and item["call_id"] not in outputs:
            raise Refused(f"No tool output found for function call {item['call_id']}.", "input")


def _stored(double: Double, ask: Ask) -> None:
    # Nothing is stored: the client asks for store:false, and other accounts' objects are not visible.
    for name in ("previous_response_id", "conversation", "prompt"):
        if ask.body.get(name):
            raise Refused(f"'{name}' was not found.", name, f"{name}_not_found", 404)
    for where, kind, item in _items(ask):
        if kind == "item_reference" or (kind == "reasoning" and item.get("encrypted_content") is None):
            raise Refused(f"Item with id '{item.get('id')}' not found. Items are not persisted.", where, status=404)


def _own_reasoning(double: Double, ask: Ask) -> None:
    for where, kind, item in _items(ask):
        if kind == "reasoning":
            if not isinstance(item.get("summary"), list):
                raise Refused(f"Missing required parameter: '{where}.summary'.", f"{where}.summary")
            issued = double.issued.get(item["encrypted_content"])
            if issued is None or issued.account != double.account:
                raise Refused("The encrypted content could not be verified.", where, "invalid_encrypted_content")


def _reasoning_followed(double: Double, ask: Ask) -> None:
    items = ask.body["input"]
    for n, (where, kind, item) in enumerate(_items(ask)):
        if kind == "reasoning" and not (n + 1 < len(items) and _is_models(items[n + 1])):
            raise Refused(
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item.", where
            )


def _is_models(item: Json) -> bool:
    return item.get("role") == "assistant" or item.get("type") in (*_CALLS, "reasoning")


_SHAPE: Final = (
    Rule("path", REFERENCE, check_path),
    Rule("parameters are known", REFERENCE, _parameters),
    Rule("stream_options has no include_usage", "litellm#18200", _stream_options),
    Rule("model exists", REFERENCE, check_model),
    Rule("at least 16 output tokens", "cursor/cursor#1922, 400 integer_below_min_value", _limit),
    Rule("metadata is short", REFERENCE, check_metadata),
    Rule("include is known", REFERENCE, _include),
    Rule("tool_choice only with tools", REFERENCE, _tool_choice),
    Rule("tools are flat", REFERENCE, _tool_fields),
    Rule("input is a list", REFERENCE, _input),
    Rule("names have 64 characters", REFERENCE, _names),
    Rule("items are known", REFERENCE, _item_fields),
    Rule("item ids have their prefix", "cockpit-tools#2090: Expected an ID that begins with 'rs'", _item_ids),
    Rule("parts are known", REFERENCE, _content),
    Rule("call ids have 64 characters", "ungate#26, oh-my-pi#11844: string_above_max_length", _call_ids),
    Rule("a call id occurs once", REFERENCE, _call_ids_once),
    Rule("an output has its call", REFERENCE, _outputs),
    Rule("a call has its output", REFERENCE + '; 400 "No tool output found for function call"', _no_call_alone),
    Rule("nothing is stored", GUIDE + ', "store: false"', _stored),
    Rule("reasoning is this account's", GUIDE + "; 400 invalid_encrypted_content", _own_reasoning),
    Rule("reasoning leads to its item", GUIDE + '; 400 "without its required following item"', _reasoning_followed),
)


class Gpt5Responses(Double):
    """GPT-5 on /responses. Encrypted reasoning is bound to the account only."""

    PATH = "/v1/responses"
    RULES: ClassVar[tuple[Rule, ...]] = (
        *_SHAPE,
        Rule("no sampling", 'OpenAI, "Using GPT-5" (2025-08)', _gpt_5_sampling),
        Rule("efforts of GPT-5", REFERENCE, _gpt_5_effort),
    )
    has_binding = False
    binds_account = True

    def read(self, body: Json) -> tuple[list[bytes], bytes]:
        system = [encoded({"instructions": body["instructions"]})] if body.get("instructions") else []
        return [*system, *map(encoded, body["input"])], encoded(body.get("tools") or [])

    def tools(self, body: Json) -> list[Tool]:
        if body.get("tool_choice") == "none":
            return []
        declared = [*(body.get("tools") or ())]
        for item in body["input"]:
            if item.get("type") == "additional_tools":
                declared += item["tools"]
        return [Tool(tool["name"], tool.get("parameters") or {}, tool["type"] == "custom") for tool in declared]

    def is_after_outputs(self, body: Json) -> bool:
        return str(body["input"][-1].get("type", "")).endswith("_output")

    def _places(self, body: Json) -> list[str]:
        """Return for each item, and for the next answer, the hash of what was before its turn."""
        items = body["input"]
        units, tools = self.read(body)
        before = digests(units, tools)[len(units) - len(items) :]
        for n in range(1, len(items)):
            if _is_models(items[n]) and _is_models(items[n - 1]):
                before[n] = before[n - 1]
        return before

    def note_reasoning(self, ask: Ask) -> None:
        places = self._places(ask.body) if self.has_binding else []
        valid: set[str] = set()
        for n, item in enumerate(ask.body["input"]):
            if item.get("type") == "reasoning":
                token = item["encrypted_content"]
                if self.has_binding and self.issued[token].bound_to != places[n]:
                    self.dropped += 1  # without an error
                else:
                    valid.add(token)
        self.saw(valid)

    def length_refusal(self, tokens: int) -> Refused:
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
        return Refused(message, "input", "context_length_exceeded")

    def frames(self, made: Made, body: Json) -> Iterator[Frame]:
        bound_to = self._places(body)[-1] if self.has_binding else None
        is_encrypted = "reasoning.encrypted_content" in (body.get("include") or ())
        is_shown = (body.get("reasoning") or {}).get("summary") is not None
        head = {"id": f"resp_{self.letters(20)}", "created_at": 1_790_000_000 + made.turn, "model": made.model}
        yield event({"type": "response.created", "response": head | {"status": "in_progress", "output": []}})
        items: list[Json] = []
        for at, part in enumerate(made.parts):
            token = self.issue(made, bound_to) if part.kind == "thought" and is_encrypted else None
            items.append(self._item(part, token, is_shown=is_shown))
            yield from _events_of(at, part, items[-1], token)
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        final = head | {"status": "completed", "output": items, "usage": usage}
        yield event({"type": "response.completed", "response": final})

    def _item(self, part: Part, token: str | None, *, is_shown: bool) -> Json:
        own = self.letters(20)
        if part.kind == "thought":
            summary = [{"type": "summary_text", "text": part.text}] if is_shown else []
            item: Json = {"type": "reasoning", "id": f"rs_{own}", "summary": summary}
            return item if token is None else item | {"encrypted_content": token}
        if part.kind == "text":
            content = [{"type": "output_text", "text": part.text, "annotations": []}]
            return {
                "type": "message",
                "id": f"msg_{own}",
                "role": "assistant",
                "content": content,
                "status": "completed",
            }
        base = {"call_id": part.call_id, "name": part.name, "status": "completed"}
        if part.is_custom:
            return {"type": "custom_tool_call", "id": f"ctc_{own}", "input": part.text} | base
        return {"type": "function_call", "id": f"fc_{own}", "arguments": part.text} | base


class Gpt6Responses(Gpt5Responses):
    """GPT-6, 6.1: neither sampling nor the lowest efforts."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *_SHAPE,
        Rule("no sampling", GPT_6, _gpt_6_sampling),
        Rule("efforts of GPT-6", GPT_6, _gpt_6_effort),
    )


class Gpt62Responses(Gpt6Responses):
    """GPT-6.2: encrypted reasoning is bound to what came before it, and dropped without an error if that changed."""

    RULES: ClassVar[tuple[Rule, ...]] = (*Gpt6Responses.RULES, Rule("no flex tier", GPT_6, _no_flex))
    restores = "unchanged"
    has_binding = True


def _events_of(at: int, part: Part, item: Json, token: str | None) -> Iterator[Frame]:
    place = {"output_index": at, "item_id": item["id"]}
    empty = {name: value for name, value in item.items() if name != "encrypted_content"}
    where: Json = {}
    match item["type"]:
        case "reasoning":
            kind, where, empty["summary"] = "reasoning_summary_text", {"summary_index": 0}, []
        case "message":
            kind, where, empty["content"] = "output_text", {"content_index": 0}, []
        case "custom_tool_call":
            kind, empty["input"] = "custom_tool_call_input", ""
        case _:
            kind, empty["arguments"] = "function_call_arguments", ""
    yield event({"type": "response.output_item.added", "output_index": at, "item": empty})
    if item["type"] != "reasoning" or item["summary"]:
        for piece in cut(part.text):
            yield event({"type": f"response.{kind}.delta", "delta": piece} | place | where)
    yield event({"type": "response.output_item.done", "output_index": at, "item": item}, token=token)
