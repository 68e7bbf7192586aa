"""Where Anthropic caches a prompt: only on request, up to each block that carries a breakpoint.

Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching (2026-11).
"""

from __future__ import annotations

from typing import Final

from stages.wire.foreign_json import Json

MAX_BREAKPOINTS: Final = 4
"""More are refused: 400 "A maximum of 4 blocks with cache_control may be provided"."""

_MARKED_TURNS: Final = 2
"""The last turn is written for the next request; the one before it is what the previous request wrote. Breakpoints look
back over 20 blocks only, and a turn with many parallel calls has more."""


def put_breakpoints(body: dict[str, Json]) -> None:
    """Mark the part that the next request will have in common with this one, unless the client does so itself.

    The client's own breakpoints stay, as far as Anthropic accepts them: the last four, and none for an hour after one
    for five minutes. If none of them is in the last turns (for example, only the system prompt is marked, or a question
    many calls ago), ours are added there, up to the maximum: otherwise everything that the conversation grew by would
    be paid for again in every turn. Nothing but breakpoints ever changes, so the cached part is found again.
    """
    system, tools, messages = body.get("system", []), body.get("tools", []), body["messages"]
    blocks = [*tools, *system, *(block for message in messages for block in message["content"])]
    turns = [place for place, message in enumerate(messages) if message["role"] == "user"][-_MARKED_TURNS:]
    ends: list[list[dict[str, Json]]] = [messages[place]["content"] for place in turns]
    if marked := [block for block in blocks if "cache_control" in block]:
        _sanitise(marked)
        last_turns = [block for message in messages[turns[0] :] for block in message["content"]]
        is_kept_up = any("cache_control" in block for block in last_turns)
        free = 0 if is_kept_up else max(0, MAX_BREAKPOINTS - len(marked))
        groups = ends[max(0, len(ends) - free) :]
    else:
        groups = [tools, system, *ends]
    for group in groups:
        if group:
            group[-1]["cache_control"] = {"type": "ephemeral"}


def _sanitise(marked: list[dict[str, Json]]) -> None:
    may_be_long = True
    for block in marked[:-MAX_BREAKPOINTS]:
        del block["cache_control"]
    for block in marked[-MAX_BREAKPOINTS:]:
        is_long = may_be_long and block["cache_control"].get("ttl") == "1h"
        block["cache_control"] = {"type": "ephemeral", "ttl": "1h"} if is_long else {"type": "ephemeral"}
        may_be_long = is_long
