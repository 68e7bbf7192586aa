"""The conversation of the normal form, as messages of Anthropic Messages.

There the roles alternate, each call of an assistant's message has its result in the next message, and the results come
first in it. So consecutive items of one side are gathered into one message, and a result goes into the message after
its call, wherever it was.

Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (2026-11);
docs/facts/translation.md, "Conversation items".
"""

from __future__ import annotations

from typing import Final

import msgspec

from stages.wire.anthropic.content import content_blocks, marked, text_blocks
from stages.wire.anthropic.tools import AnthropicTools
from stages.wire.call_ids import legal_call_id
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import (
    CALLS,
    OUTPUTS,
    kind_of,
    leave_out,
    native_task,
    output_of,
    output_places,
    own_call_ids,
)
from stages.wire.slices import paced
from stages.wire.unwrap import FIELD

_MAX_DEPTH_LEVELS: Final = 100
"""Our limit: the encoder of the body recurses, and arguments arrive as text that nothing has checked before."""

_ARGUMENTS: Final = msgspec.json.Decoder(dict[str, Json])


class AnthropicHistory:
    """Builds the messages of one request.

    Args:
        tools: of the request.
        mended: receives the words for what had to be mended.
        has_thinking: whether the model accepts thinking blocks.

    Attributes:
        system: blocks of the instructions before the first message.
        messages: those that are complete.
        called: names of the tools that were called.
    """

    def __init__(self, tools: AnthropicTools, mended: set[str], *, has_thinking: bool) -> None:
        self.system: list[dict[str, Json]] = []
        self.messages: list[dict[str, Json]] = []
        self.called: dict[str, None] = {}
        self._tools = tools
        self._mended = mended
        self._has_thinking = has_thinking
        self._thoughts: list[dict[str, Json]] = []
        self._assistant: list[dict[str, Json]] | None = None  # blocks of the message that is being gathered
        self._results: list[dict[str, Json]] = []
        self._awaited: set[int] = set()  # positions of the results that have not been reached yet
        self._has_result = False

    def add_system(self, content: Json) -> None:
        """Add text to the system prompt."""
        self.system += text_blocks(content)

    def add_user(self, blocks: list[dict[str, Json]]) -> None:
        """Add a user's blocks; they end the assistant's message, and follow the results of its calls."""
        if not blocks:
            return
        self.close()
        self._thoughts = []
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": "user", "content": blocks})

    def add_all(self, items: list[dict[str, Json]]) -> None:
        """Add a conversation.

        Raises:
            BadRequest: if it refers to something that only another upstream has.
        """
        call_ids, outputs = own_call_ids(items, legal_call_id), output_places(items)
        for position, item in enumerate(paced(items)):
            kind = kind_of(item)
            where = f"input[{position}]"
            if kind in CALLS:
                place = outputs.get(position)
                self._add_call(kind, item, call_ids[position], place, items)
                if place is not None and place > position:
                    self._awaited.add(place)
            elif kind in OUTPUTS:
                if position in self._awaited:
                    self._awaited.remove(position)
                    self._has_result = True
            elif kind == "message":
                self._add_message(item, where)
            elif kind == "reasoning":
                if self._has_thinking:
                    self._thoughts += _signed(item.get("anthropic_blocks"))
            else:
                leave_out(kind, item, where, self._mended)
        self.close()

    def close(self) -> None:
        """End the assistant's message that is being gathered, and start the user's with the results of its calls."""
        blocks, results = self._assistant, self._results
        if blocks is not None:
            self.messages.append({"role": "assistant", "content": blocks})
        if results:
            self.messages.append({"role": "user", "content": results})
        self._assistant, self._results, self._awaited, self._has_result = None, [], set(), False

    def _open(self) -> list[dict[str, Json]]:
        """Return the blocks of the assistant's message that is being gathered, with any pending thoughts added."""
        blocks = self._assistant = self._assistant or []
        blocks += self._thoughts
        self._thoughts = []
        return blocks

    def _add_message(self, item: dict[str, Json], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "assistant":
            self._add_assistant(_with_last_mark(item, text_blocks(content)))
        elif role == "user":
            self.add_user(_with_last_mark(item, content_blocks(content, f"{where}.content")))
        elif not self.messages and self._assistant is None:
            self.system += _with_last_mark(item, text_blocks(content))
        else:
            for block in _with_last_mark(item, text_blocks(content)):
                self.add_user([{**block, "text": f"<system>\n{block['text']}\n</system>"}])

    def _add_assistant(self, blocks: list[dict[str, Json]]) -> None:
        if not blocks:
            return
        if self._results and not self._awaited:
            self.close()
        is_thought_first = bool(self._thoughts)
        message = self._open()
        place = next((place for place, block in enumerate(message) if block["type"] == "tool_use"), len(message))
        if is_thought_first or not self._results:
            place = len(message)
        message[place:place] = blocks  # nothing may be between a call and its result: they go before the calls

    def _add_call(
        self, kind: str, item: dict[str, Json], call_id: str, place: int | None, items: list[dict[str, Json]]
    ) -> None:
        if self._has_result:
            self.close()
        name, arguments = self._body_of(kind, item)
        self.called[name] = None
        block: dict[str, Json] = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        self._open().append(marked(item, block))
        result: dict[str, Json] = {"type": "tool_result", "tool_use_id": call_id}
        if place is not None:
            _fill(result, items[place], f"input[{place}].output")
        self._results.append(result)

    def _body_of(self, kind: str, item: dict[str, Json]) -> tuple[str, dict[str, Json]]:
        if (native := native_task(kind, item)) is not None:
            name, task = native
            return name, task if is_object(task) else {} if task is None else {FIELD: task}
        name = self._tools.name_of(item)
        return name, self._arguments(item["arguments"]) if kind == "function_call" else {FIELD: item["input"]}

    def _arguments(self, arguments: str) -> dict[str, Json]:
        """Return the arguments of a call; what is not an object, because it was cut off, becomes one."""
        if not arguments.strip():
            return {}
        try:
            fields = _ARGUMENTS.decode(arguments)
            if not _is_deep(fields):
                return fields
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            pass
        self._mended.add("truncated_arguments")
        return {FIELD: arguments}


def _fill(result: dict[str, Json], item: dict[str, Json], where: str) -> None:
    """Put a tool's output into its result: one string if it is text only."""
    blocks = content_blocks(output_of(item), where)
    marks = [block.pop("cache_control") for block in blocks if "cache_control" in block]
    if blocks:
        is_text = all(block["type"] == "text" for block in blocks)
        result["content"] = "\n".join(block["text"] for block in blocks) if is_text else blocks
        if item.get("is_error") is True:  # "content cannot be empty if `is_error` is true"
            result["is_error"] = True
    marked({"cache_control": marks[-1]} if marks else item, result)


def _signed(blocks: Json) -> list[dict[str, Json]]:
    """Return the blocks of reasoning that Anthropic can verify: it refuses thinking without a signature."""
    return [
        {key: value for key, value in block.items() if key != "cache_control"}  # not allowed on thinking
        for block in (blocks if is_list(blocks) else [])
        if is_object(block)
        and (
            (block.get("type") == "thinking" and bool(block.get("signature")))
            or (block.get("type") == "redacted_thinking" and bool(block.get("data")))
        )
    ]


def _with_last_mark(item: dict[str, Json], blocks: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Put the breakpoint of a message on its last block, and return the blocks."""
    if blocks:
        marked(item, blocks[-1])
    return blocks


def _is_deep(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(_MAX_DEPTH_LEVELS):
        level = [
            child
            for container in level
            for child in (container.values() if is_object(container) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
