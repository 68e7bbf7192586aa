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

from stages.wire.bad_request import BadRequest, wrong_type
from stages.wire.call_ids import short_call_id
from stages.wire.downstream.anthropic_blocks import (
    Blocks,
    reasoning_items,
    take_blocks,
    thought_runs,
    without_shown_reasoning,
)
from stages.wire.downstream.content import (
    TextType,
    arguments_text,
    custom_text,
    flat_content,
    flat_output,
    is_blank,
    listed_content,
    raw_input,
)
from stages.wire.downstream.pairing import UNKNOWN, unnamed_call_id
from stages.wire.downstream.shown_failures import strip_failure_note
from stages.wire.foreign_json import Json, is_list, is_object, text
from stages.wire.tool_names import ToolNames

_ROLES = "system, developer, user, assistant and tool"
_ODD_ROLES: Final = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool", "function")},
    "model": "assistant",
    "ai": "assistant",
    "human": "user",
}
"""Roles in another case, and in the words of Gemini and LangChain."""

_SPEAKERS: Final = ("assistant", "user", "system", "developer")  # not a set: a foreign value may be unhashable

_BARE_PARTS: Final = frozenset({"text", "input_text", "image_url", "input_image", "input_file"})
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

_WITHOUT_ROLE: Final = frozenset(
    {"function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "item_reference"}
)
"""Items that OpenAI refuses with a role ("Unknown parameter"), which would make messages of them besides."""

_NO_BLOCKS: Final = Blocks()


class History:
    """Builds the items of one request; feed it the elements in order.

    What a client sends again in each turn must not end the chat, so damage is mended wherever its meaning is clear.
    Each item depends on those before it only: the beginning of a conversation has the same bytes in every turn.

    Args:
        custom_tools: names of the declared custom tools. A call of one of them is a ``custom_tool_call``: Cursor
            replays its ApplyPatch calls in the function envelope, with the raw patch as arguments (codex-proxy#708).
        field: where the elements come from. Elements of ``messages`` are rebuilt from the fields that we know, and
            blank ones are dropped; elements of ``input`` are changed only where they must be.
        names: of the request's tools; receives those that had to be changed.
        mended: receives the words for what had to be mended.

    Attributes:
        items: those so far.
    """

    def __init__(
        self, custom_tools: frozenset[str], field: Literal["input", "messages"], names: ToolNames, mended: set[str]
    ) -> None:
        self.items: list[dict[str, Json]] = []
        self._custom_tools = custom_tools
        self._names = names
        self.mended = mended
        self._unnamed_calls = 0
        self.field: Literal["input", "messages"] = field
        self._is_native = field == "input"
        self._custom_calls: set[str] = set()
        self._legacy_calls = 0

    def add(self, element: Json, where: str) -> None:
        """Append what ``element`` becomes: nothing, one item or several.

        Raises:
            BadRequest: if it is not an object or its role is unknown.
        """
        if not is_object(element):
            self._add_bare(element, where)
            return
        kind = element.get("type")
        if kind is not None and kind != "message":
            self._add_typed(kind, element, where)
            return
        if kind is None and "type" in element:
            element = {key: value for key, value in element.items() if key != "type"}
        role = element.get("role")
        if role in _SPEAKERS and not isinstance(element.get("content"), str | list | None):
            element = {**element, "content": listed_content(element["content"], self.mended)}
        match role:
            case "assistant":
                self._add_assistant(element)
            case "system" | "developer" | "user":
                rest = self._take_results(element)
                self._add_message(element, rest, "input_text", is_all=rest is element.get("content"))
            case "tool":
                self._add_output(element.get("tool_call_id"), element.get("content"), extras=_kept(element))
            case "function":
                call_id = self._legacy_id() if self._legacy_calls else UNKNOWN
                self._add_output(call_id, element.get("content"), extras=_kept(element))
            case None if self._is_native and kind is None and isinstance(element.get("id"), str):
                self.items.append(element)  # an item_reference, whose type may be omitted
            case None:
                raise BadRequest(f"{where} has no role; known roles are {_ROLES}.", f"{where}.role")
            case str() if (known := _ODD_ROLES.get(role.strip().lower(), role)) != role:
                self.mended.add("odd_value")
                self.add({**element, "role": known}, where)
            case str():
                shown = role if len(role) <= _MAX_SHOWN_CHARS else f"{role[:_MAX_SHOWN_CHARS]}..."
                raise BadRequest(f"{where} has the role {shown!r}; known roles are {_ROLES}.", f"{where}.role")
            case _:
                raise wrong_type(f"{where}.role", "a string", role)

    def _add_bare(self, element: Json, where: str) -> None:
        """Append a bare string as what the user said; null is left out."""
        if element is None or (isinstance(element, str) and not element.strip()):
            self.mended.add("empty_part")
        elif isinstance(element, str):
            self.mended.add("odd_value")
            self._add_message({"role": "user", "content": element}, element, "input_text")
        else:
            raise wrong_type(where, "an object", element)

    # Typed items of the Responses API.

    def _add_typed(self, kind: Json, item: dict[str, Json], where: str) -> None:
        if "role" in item and isinstance(kind, str) and kind in _WITHOUT_ROLE:
            self.mended.add("odd_value")
            item = {key: value for key, value in item.items() if key != "role"}
        match kind:
            case "function_call":
                self._add_call(item.get("name"), item.get("call_id"), item.get("arguments"), item)
            case "custom_tool_call":
                self._add_custom_call(item)
            case "function_call_output" | "custom_tool_call_output":
                self._add_output(item.get("call_id"), item.get("output"), item)
            case str() if kind in _BARE_PARTS:
                self.mended.add("odd_value")
                self.add({"role": "user", "content": [item]}, where)
            case str():
                any_id = item.get("call_id")
                self._append_with(item, "call_id", short_call_id(any_id) if isinstance(any_id, str) else any_id)
            case _:
                raise wrong_type(f"{where}.type", "a string", kind)

    def _append_with(self, item: dict[str, Json], key: str, value: Json) -> None:
        self.items.append(item if item.get(key) == value else {**item, key: value})

    def _add_custom_call(self, item: dict[str, Json]) -> None:
        """Append a call in Responses form; one without a name is left out, as nobody knows what it called."""
        if not (name := text(item.get("name"))):
            self.mended.add("empty_part")
            return
        given, name = item.get("input"), self._names.legal(name)
        self._custom_calls.add(call_id := self._call_id(item.get("call_id")))
        if item.get("call_id") != call_id or item["name"] != name or not isinstance(given, str):
            item = {**item, "call_id": call_id, "name": name, "input": custom_text(given, self.mended)}
        self.items.append(item)

    def _call_id(self, given: Json) -> str:
        """Return the id of a call; one by its position if it has none, because the answer was stopped before it."""
        if isinstance(given, str) and given and not given.isspace():
            return short_call_id(given)
        self.mended.add("missing_call_id")
        self._unnamed_calls += 1
        return unnamed_call_id(self._unnamed_calls)

    def _add_call(self, named: Json, called: Json, given: Json, source: dict[str, Json]) -> None:
        """Append a call of a function, or of a custom tool if one of that name is declared.

        A call without a name is left out: nobody knows what it called.

        Args:
            named: the tool's name, as the client sent it.
            called: the call's id.
            given: its arguments.
            source: its other fields; the whole item if it is in Responses form.
        """
        if not isinstance(named, str) or not named:
            self.mended.add("empty_part")
            return
        name = self._names.legal(named)
        call_id, arguments = self._call_id(called), arguments_text(given, self.mended)
        if "namespace" in source and isinstance(source["namespace"], str):
            namespace = self._names.legal(source["namespace"])
            if namespace != source["namespace"]:
                source = {**source, "namespace": namespace}
        if name in self._custom_tools:
            self._custom_calls.add(call_id)
            rest = {key: value for key, value in source.items() if key not in ("id", "arguments")}
            raw = raw_input(arguments)
            self.items.append({**rest, "type": "custom_tool_call", "call_id": call_id, "name": name, "input": raw})
            return
        item_id = source.get("id")
        # OpenAI refuses an item id of another kind, and gateways send ids of all kinds.
        is_odd = item_id is not None and not (isinstance(item_id, str) and item_id.startswith("fc_"))
        if (
            not is_odd
            and source.get("call_id") == call_id
            and source.get("arguments") == arguments
            and source.get("name") == name
        ):
            self.items.append(source)
            return
        rest = {key: value for key, value in source.items() if key != "id" or not is_odd}
        self.items.append({**rest, "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})

    def _add_output(
        self,
        answered: Json,
        output: Json,
        item: dict[str, Json] | None = None,
        extras: dict[str, Json] | None = None,
    ) -> None:
        """Append an output: ``item`` if it is in Responses form, else a new one with ``extras``.

        One without the id of a call (``answered``) waits for `pair_calls` to find its call.
        """
        call_id = short_call_id(answered) if isinstance(answered, str) and not answered.isspace() else UNKNOWN
        if call_id == UNKNOWN:
            self.mended.add("missing_call_id")
        is_custom = call_id in self._custom_calls
        if item is None:
            kind = "custom_tool_call_output" if is_custom else "function_call_output"
            if is_list(output) and (cache := _last_cache(output)) is not None:
                extras = {"cache_control": cache, **(extras or {})}
            flat = flat_output(output, self.mended)
            self.items.append({**(extras or {}), "type": kind, "call_id": call_id, "output": flat})
            return
        kind = "custom_tool_call_output" if is_custom else item["type"]
        flat = flat_output(output, self.mended, is_native=True)
        if item.get("call_id") == call_id and item["type"] == kind and item.get("output") is flat:
            self.items.append(item)
        else:
            self.items.append({**item, "type": kind, "call_id": call_id, "output": flat})

    # Messages.

    def _add_message(
        self, message: dict[str, Json], content: Json, text_type: TextType, *, is_all: bool = True
    ) -> None:
        """Append a message, unless it is empty; ``is_all``: whether the client's message held nothing else."""
        flat = None if content is None else flat_content(content, text_type, self.mended)
        if flat is not None and text_type == "output_text":
            flat = without_shown_reasoning(flat)
            flat = flat if flat is None else self._without_failure(flat)
        if flat is None or (is_blank(flat) if not self._is_native else flat == []):
            if is_all:
                self.mended.add("empty_part")
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

    def _without_failure(self, content: str | list[Json]) -> str | list[Json] | None:
        """Remove the failure that we showed in an assistant's text; None if there is nothing else."""
        last: Json = content if isinstance(content, str) else content[-1].get("text") if content else None
        is_all = isinstance(content, str) or is_blank(content[:-1])
        if not isinstance(last, str) or (rest := strip_failure_note(last, is_all=is_all)) is last:
            return content
        self.mended.add("own_error_text")
        if isinstance(content, str):
            return rest or None
        return [*content[:-1], {**content[-1], "text": rest}] if rest else content[:-1] or None

    def _take_results(self, message: dict[str, Json]) -> Json:
        """Append Anthropic's tool results and return the rest of the content.

        Results come before the text beside them, because a result must directly follow its call.
        """
        content = message.get("content")
        blocks = take_blocks(content)
        if blocks is None:
            return content
        for block in blocks.results:
            self._add_output(block.get("tool_use_id"), block.get("content"), extras=_kept(block))
        return blocks.rest or None

    def _add_assistant(self, message: dict[str, Json]) -> None:
        content = message.get("content")
        blocks = take_blocks(content)
        if is_list(content) and blocks is not None and len(runs := thought_runs(content)) > 1:
            for run in runs[:-1]:
                self._add_assistant({"role": "assistant", "content": run})
            content = runs[-1]
            message = {**{key: message[key] for key in message if key not in _THOUGHTS}, "content": content}
            blocks = take_blocks(content)
        if blocks is None:
            blocks = _NO_BLOCKS
        else:
            content = blocks.rest or None
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            parts: list[Json] = content if is_list(content) else [content] if content else []
            content = [*parts, {"type": "refusal", "refusal": refusal}]
        calls = message.get("tool_calls")
        if (calls or blocks.calls) and isinstance(content, str) and is_blank(content):
            content = None
        if blocks.thoughts or not _THOUGHTS.isdisjoint(message):
            self.items += reasoning_items(message, blocks.thoughts)
        function_call = message.get("function_call")
        legacy = function_call if is_object(function_call) else None
        is_all = not (calls or blocks.calls or blocks.thoughts or legacy)
        self._add_message(message, content, "output_text", is_all=is_all)
        for block in blocks.calls:
            self._add_call(block.get("name"), block.get("id"), block.get("input"), _kept(block))
        if calls is not None:
            self._add_tool_calls(calls)
        if legacy is not None:
            self._legacy_calls += 1
            self._add_call(legacy.get("name"), self._legacy_id(), legacy.get("arguments"), {})

    def _add_tool_calls(self, calls: Json) -> None:
        for call in calls if is_list(calls) else [calls]:
            function = call.get("function") if is_object(call) else None
            custom = call.get("custom") if is_object(call) else None
            if is_object(custom):
                flat = {"name": custom.get("name"), "input": custom.get("input")}
                self._add_custom_call({"type": "custom_tool_call", "call_id": call.get("id"), **flat})
            elif is_object(function):
                self._add_call(function.get("name"), call.get("id"), function.get("arguments"), {})
            else:
                self.mended.add("empty_part")

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
