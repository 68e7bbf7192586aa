"""A conversation, item by item, brought into the form of the Responses API.

One set of rules serves both shapes, because Cursor mixes dialects: an element of ``messages`` may hold Anthropic's
blocks, and an element of ``input`` may be a chat message. Items that already have the right form pass as they are,
unknown types and unknown fields included.

The normal form keeps three things that no Responses upstream accepts, for the adapters of other APIs: ``cache_control``
and ``is_error`` as Anthropic has them, and the reasoning that a client sent back (``reasoning`` items without
``encrypted_content``, see `reasoning_items`). ``responses/request.py`` removes them.

Source: docs/facts/translation.md, "Conversation items"; what upstreams refuse: docs/facts/cursor.md, "The chat body"
and "Call ids".
"""

from __future__ import annotations

from typing import Final, Literal

from stages.wire.bad_request import BadRequest, json_kind, need_object, need_text, wrong_type
from stages.wire.call_ids import short_call_id
from stages.wire.downstream.anthropic_blocks import Blocks, reasoning_items, take_blocks, without_shown_reasoning
from stages.wire.downstream.content import TextType, arguments_text, flat_content, flat_output, is_blank, raw_input
from stages.wire.foreign_json import Json, is_list, is_object

_ROLES = "system, developer, user, assistant and tool"
_MAX_SHOWN_CHARS = 40

_CHAT_ONLY: Final = frozenset(
    {
        "tool_calls",
        "function_call",
        "refusal",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "audio",
        "annotations",
        "name",
    }
)
"""Fields of a chat message that have no place in a Responses item."""

_THOUGHTS: Final = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
"""Fields in which a client may send reasoning back."""

_NO_BLOCKS: Final = Blocks()


class History:
    """Builds the items of one request; feed it the elements in order.

    Args:
        custom_tools: names of the declared custom tools. A call of one of them is a ``custom_tool_call``: Cursor
            replays its ApplyPatch calls in the function envelope, with the raw patch as arguments (codex-proxy#708).
        field: where the elements come from. Elements of ``messages`` are rebuilt from the fields that we know, and
            blank ones are dropped; elements of ``input`` are changed only where they must be.
    """

    def __init__(self, custom_tools: frozenset[str], field: Literal["input", "messages"]) -> None:
        self.items: list[dict[str, Json]] = []
        self._custom_tools = custom_tools
        self._is_native = field == "input"
        self._custom_calls: set[str] = set()
        self._legacy_calls = 0

    def add(self, element: Json, where: str) -> None:
        """Append what ``element`` becomes: nothing, one item or several.

        Raises:
            BadRequest: if it is not an object, its role is unknown, or a field that we need is missing.
        """
        if not is_object(element):
            raise wrong_type(where, "an object", element)
        kind = element.get("type")
        if kind is not None and kind != "message":
            self._add_typed(kind, element, where)
            return
        role = element.get("role")
        match role:
            case "assistant":
                self._add_assistant(element, where)
            case "system" | "developer" | "user":
                self._add_message(element, self._take_results(element, where), "input_text", where)
            case "tool":
                call_id = need_text(element, "tool_call_id", where)
                self._add_output(call_id, element.get("content"), f"{where}.content", extras=_kept(element))
            case "function":
                if not self._legacy_calls:
                    raise BadRequest(
                        f"{where} is the result of a function call, but there is no call before it.", where
                    )
                self._add_output(self._legacy_id(), element.get("content"), f"{where}.content", extras=_kept(element))
            case None if self._is_native and kind is None and isinstance(element.get("id"), str):
                self.items.append(element)  # an item_reference, whose type may be omitted
            case None:
                raise BadRequest(f"{where} has no role; known roles are {_ROLES}.", f"{where}.role")
            case str():
                shown = role if len(role) <= _MAX_SHOWN_CHARS else f"{role[:_MAX_SHOWN_CHARS]}..."
                raise BadRequest(f"{where} has the role {shown!r}; known roles are {_ROLES}.", f"{where}.role")
            case _:
                raise wrong_type(f"{where}.role", "a string", role)

    # Typed items of the Responses API.

    def _add_typed(self, kind: Json, item: dict[str, Json], where: str) -> None:
        match kind:
            case "function_call":
                name, call_id = need_text(item, "name", where), need_text(item, "call_id", where)
                self._add_call(name, call_id, arguments_text(item.get("arguments"), f"{where}.arguments"), item)
            case "custom_tool_call":
                need_text(item, "name", where)
                if not isinstance(item.get("input"), str):
                    raise wrong_type(f"{where}.input", "a string", item.get("input"))
                self._custom_calls.add(call_id := short_call_id(need_text(item, "call_id", where)))
                self._append_with(item, "call_id", call_id)
            case "function_call_output" | "custom_tool_call_output":
                call_id = need_text(item, "call_id", where)
                self._add_output(call_id, item.get("output"), f"{where}.output", item)
            case str():
                any_id = item.get("call_id")
                self._append_with(item, "call_id", short_call_id(any_id) if isinstance(any_id, str) else any_id)
            case _:
                raise wrong_type(f"{where}.type", "a string", kind)

    def _append_with(self, item: dict[str, Json], key: str, value: Json) -> None:
        self.items.append(item if item.get(key) == value else {**item, key: value})

    def _add_call(self, name: str, call_id: str, arguments: str, source: dict[str, Json]) -> None:
        """Append a call of a function, or of a custom tool if one of that name is declared."""
        call_id = short_call_id(call_id)
        if name in self._custom_tools:
            self._custom_calls.add(call_id)
            rest = {key: value for key, value in source.items() if key not in ("id", "arguments")}
            raw = raw_input(arguments)
            self.items.append({**rest, "type": "custom_tool_call", "call_id": call_id, "name": name, "input": raw})
            return
        item_id = source.get("id")
        # OpenAI refuses an item id of another kind, and gateways send ids of all kinds.
        is_odd = item_id is not None and not (isinstance(item_id, str) and item_id.startswith("fc_"))
        if not is_odd and source.get("call_id") == call_id and source.get("arguments") == arguments:
            self.items.append(source)
            return
        rest = {key: value for key, value in source.items() if key != "id" or not is_odd}
        self.items.append({**rest, "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})

    def _add_output(
        self,
        call_id: str,
        output: Json,
        where: str,
        item: dict[str, Json] | None = None,
        extras: dict[str, Json] | None = None,
    ) -> None:
        """Append an output: ``item`` if it is in Responses form, else a new one with ``extras``."""
        call_id = short_call_id(call_id)
        is_custom = call_id in self._custom_calls
        if item is None:
            kind = "custom_tool_call_output" if is_custom else "function_call_output"
            if is_list(output) and (cache := _last_cache(output)) is not None:
                extras = {"cache_control": cache, **(extras or {})}
            flat = flat_output(output, where)
            self.items.append({**(extras or {}), "type": kind, "call_id": call_id, "output": flat})
            return
        kind = "custom_tool_call_output" if is_custom else item["type"]
        # A native list of parts stays a list: only other dialects are flattened to text.
        flat = flat_content(output, "input_text", where) if is_list(output) else flat_output(output, where)
        if item["call_id"] == call_id and item["type"] == kind and item.get("output") is flat:
            self.items.append(item)
        else:
            self.items.append({**item, "type": kind, "call_id": call_id, "output": flat})

    # Messages.

    def _add_message(self, message: dict[str, Json], content: Json, text_type: TextType, where: str) -> None:
        flat = None if content is None else flat_content(content, text_type, f"{where}.content")
        if flat is not None and text_type == "output_text":
            flat = without_shown_reasoning(flat)
        if flat is None or (is_blank(flat) if not self._is_native else flat == []):
            return
        if not self._is_native:
            item: dict[str, Json] = {"role": message["role"], "content": flat}
            if isinstance(message.get("phase"), str):
                item["phase"] = message["phase"]
            self.items.append({**item, **_kept(message)})
        elif flat is message.get("content") and _CHAT_ONLY.isdisjoint(message):
            self.items.append(message)
        else:
            rest = {key: value for key, value in message.items() if key not in _CHAT_ONLY}
            self.items.append({**rest, "content": flat})

    def _take_results(self, message: dict[str, Json], where: str) -> Json:
        """Append Anthropic's tool results and return the rest of the content.

        Results come before the text beside them, because a result must directly follow its call.
        """
        content = message.get("content")
        blocks = take_blocks(content)
        if blocks is None:
            return content
        for index, block in blocks.results:
            path = f"{where}.content[{index}]"
            call_id = need_text(block, "tool_use_id", path)
            self._add_output(call_id, block.get("content"), f"{path}.content", extras=_kept(block))
        return blocks.rest or None

    def _add_assistant(self, message: dict[str, Json], where: str) -> None:
        content = message.get("content")
        blocks = take_blocks(content)
        if blocks is None:
            blocks = _NO_BLOCKS
        else:
            content = blocks.rest or None
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal and (not content or isinstance(content, str | list)):
            parts: list[Json] = content if is_list(content) else [content] if content else []
            content = [*parts, {"type": "refusal", "refusal": refusal}]
        calls = message.get("tool_calls")
        if (calls or blocks.calls) and isinstance(content, str) and is_blank(content):
            content = None
        if blocks.thoughts or not _THOUGHTS.isdisjoint(message):
            self.items += reasoning_items(message, blocks.thoughts)
        self._add_message(message, content, "output_text", where)
        for index, block in blocks.calls:
            path = f"{where}.content[{index}]"
            name, call_id = need_text(block, "name", path), need_text(block, "id", path)
            self._add_call(name, call_id, arguments_text(block.get("input"), f"{path}.input"), _kept(block))
        if calls is not None:
            self._add_tool_calls(calls, f"{where}.tool_calls")
        legacy = message.get("function_call")
        if legacy is not None:
            path = f"{where}.function_call"
            name = need_text(need_object(legacy, path), "name", path)
            self._legacy_calls += 1
            self._add_call(name, self._legacy_id(), arguments_text(legacy.get("arguments"), f"{path}.arguments"), {})

    def _add_tool_calls(self, calls: Json, where: str) -> None:
        if not is_list(calls):
            raise wrong_type(where, "an array", calls)
        for index, call in enumerate(calls):
            path = f"{where}[{index}]"
            call_id = need_text(need_object(call, path), "id", path)
            custom = call.get("custom")
            if is_object(custom):
                raw = custom.get("input")
                if not isinstance(raw, str):
                    raise BadRequest(
                        f"{path}.custom.input must be a string, not {json_kind(raw)}.", f"{path}.custom.input"
                    )
                name = need_text(custom, "name", f"{path}.custom")
                self._add_typed(
                    "custom_tool_call",
                    {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": raw},
                    path,
                )
                continue
            path = f"{path}.function"
            function = need_object(call.get("function"), path)
            name = need_text(function, "name", path)
            self._add_call(name, call_id, arguments_text(function.get("arguments"), f"{path}.arguments"), {})

    def _legacy_id(self) -> str:
        """Return an id for the latest legacy call, which had none: its result is the next ``function`` message."""
        return f"call_legacy_{self._legacy_calls}"


def _kept(block: dict[str, Json]) -> dict[str, Json]:
    """Return the fields of a message or block that only the Anthropic adapter uses."""
    kept: dict[str, Json] = {}
    if is_object(block.get("cache_control")):
        kept["cache_control"] = block["cache_control"]
    if block.get("is_error") is True:
        kept["is_error"] = True
    return kept


def _last_cache(parts: list[Json]) -> Json:
    """Return the cache breakpoint of parts that may be joined into one text: the last one covers the others."""
    marks = [part["cache_control"] for part in parts if is_object(part) and is_object(part.get("cache_control"))]
    return marks[-1] if marks else None
