"""Blocks inside a message that are not content: Anthropic's tool calls, tool results and thinking; shown reasoning.

Source: Anthropic's Messages reference (content blocks); docs/facts/cursor.md, "Which body for which model" and
"Reasoning on display".
"""

from __future__ import annotations

from msgspec import Struct

from stages.wire.downstream.shown_reasoning import strip_shown_reasoning
from stages.wire.foreign_json import Json, is_list, is_object

_THOUGHTS = ("thinking", "redacted_thinking")
_HOSTED = ("server_tool_use", "mcp_tool_use")
_HOSTED_RESULT = "_tool_result"  # web_search_tool_result, mcp_tool_result ...
_BLOCKS = frozenset({"tool_use", "tool_result", *_THOUGHTS, *_HOSTED})


class Blocks(Struct):
    """The blocks of one message."""

    calls: list[dict[str, Json]] = []
    results: list[dict[str, Json]] = []
    thoughts: list[dict[str, Json]] = []
    rest: list[Json] = []
    """The parts that are content."""


def take_blocks(content: Json) -> Blocks | None:
    """Sort the parts of a message; None if all of them are content, as in most messages.

    Calls of tools that Anthropic ran itself are left out, and so are their results: no other upstream accepts them.
    """
    if not is_list(content) or not any(_is_block(part) for part in content):
        return None
    blocks = Blocks()
    for part in content:
        kind = part.get("type") if is_object(part) else None
        if not isinstance(kind, str):
            blocks.rest.append(part)
        elif kind == "tool_use":
            blocks.calls.append(part)
        elif kind == "tool_result":
            blocks.results.append(part)
        elif kind in _THOUGHTS:
            blocks.thoughts.append(part)
        elif kind not in _HOSTED and not kind.endswith(_HOSTED_RESULT):
            blocks.rest.append(part)
    return blocks


def thought_runs(content: list[Json]) -> list[list[Json]]:
    """Divide the parts of a message before each thinking that follows something else.

    A turn of Claude may be thinking, text, thinking, text, call, and the order counts when it comes back.
    """
    runs: list[list[Json]] = [[]]
    was_thought = True
    for part in content:
        is_thought = is_object(part) and part.get("type") in _THOUGHTS
        if is_thought and not was_thought:
            runs.append([])
        runs[-1].append(part)
        was_thought = is_thought
    return runs


def _is_block(part: Json) -> bool:
    kind = part.get("type") if is_object(part) else None
    return isinstance(kind, str) and (kind in _BLOCKS or kind.endswith(_HOSTED_RESULT))


def without_shown_reasoning(content: str | list[Json]) -> str | list[Json] | None:
    """Remove the reasoning that we showed at the start of an assistant's content, which is in normal form.

    Returns ``content`` itself if there is none, and None if there is nothing else.
    """
    if isinstance(content, str):
        rest = strip_shown_reasoning(content)
        return content if rest == content else rest if rest.strip() else None
    for index, part in enumerate(content):
        text: Json = part["text"] if part["type"] == "output_text" else ""
        rest = strip_shown_reasoning(text)
        if rest == text:
            return content[index:] if index else content
        if rest.strip():
            return [{**part, "text": rest}, *content[index + 1 :]]
    return None if content else content  # an empty list stays empty


def reasoning_items(message: dict[str, Json], thoughts: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return the reasoning that a client sent back with an assistant message, in normal form.

    Cursor sends none back. A client that does wants it to reach the model: Anthropic refuses a tool turn whose signed
    thinking is missing, DeepSeek and Kimi one without its ``reasoning_content``. Signed blocks are kept whole in
    ``anthropic_blocks``, OpenRouter's and MiniMax's ``reasoning_details`` too; other reasoning becomes text.
    """
    signed = [block for block in thoughts if _is_signed(block)]
    if signed:
        return [{"type": "reasoning", "summary": [], "anthropic_blocks": signed}]
    item: dict[str, Json] = {"type": "reasoning", "summary": []}
    texts = [message.get("reasoning_content"), message.get("reasoning"), _unsigned(thoughts)]
    for text in [text for text in texts if isinstance(text, str) and text][:1]:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    details = message.get("reasoning_details")
    if is_list(details) and details:
        item["reasoning_details"] = details
    return [item] if len(item) > 2 else []


def _is_signed(block: dict[str, Json]) -> bool:
    proof = block.get("signature" if block["type"] == "thinking" else "data")
    return isinstance(proof, str) and bool(proof)


def _unsigned(thoughts: list[dict[str, Json]]) -> str:
    texts = [block.get("thinking") for block in thoughts]
    return "\n\n".join(text for text in texts if isinstance(text, str) and text)
