"""Mutate JSON as a tree, so that most of what comes out still reads as a request or as an event."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any, Final

DEEP: Final = (50, 199, 201, 1100)
"""Around our own limit of 200 levels, and past Python's of 1 000 frames."""
MANY: Final = 300
"""So often an element of an array is repeated at most."""
LONG: Final = (64, 65, 256, 513, 70_000)
"""Lengths of texts, around limits of ids, names and reads."""
_PAIR: Final = re.compile(
    rb'"(?:[^"\\]|\\.){0,40}":\s*(?:"(?:[^"\\]|\\.){0,40}"|[0-9.]{1,9}|true|false|null|\{\}|\[\])'
)
_NUMBER: Final = re.compile(rb"(?<=[:\[,])\s*-?[0-9.]{1,9}(?=[,\]}])")
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.){1,40}"')

ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**40, 0.5, -0.0, 1e308),
    *(
        "",
        " ",
        "\n",
        "\0",
        "\ud83d",
        "\ude00",
        "a\ud83d\ude00",
        "\u2028",
        "\ufeff",
        "é",
        "{}",
        "[",
        '{"a":1}',
        "data: x\n\n",
    ),
    *("<think>", "</think>", "__proto__", "data:image/png;base64,AA==", "https://u", "../x", "%00", "*", "[DONE]"),
    *([], {}, [None], [[]], [{}], {"": None}, {"type": None}, {"type": "text", "text": ""}, [""], ["a", 1]),
)
"""Values that stand where another one should."""

WORDS: Final = (
    *("system", "developer", "user", "assistant", "tool", "function"),
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"),
    *("item_reference", "input_text", "output_text", "text", "refusal", "image_url", "input_image", "image", "file"),
    *("input_file", "document", "thinking", "redacted_thinking", "tool_use", "tool_result", "server_tool_use"),
    *("url", "base64", "auto", "none", "required", "any", "allowed_tools", "custom", "web_search", "local_shell"),
    *("shell_call", "tool_search_call", "apply_patch_call", "additional_tools", "compaction", "json_schema", "grammar"),
    *("stop", "length", "tool_calls", "content_filter", "end_turn", "max_tokens", "pause_turn", "completed", "failed"),
    *("incomplete", "in_progress", "text_delta", "input_json_delta", "thinking_delta", "signature_delta", "error"),
)
"""Words that select how something is read: in the place of another word they are worth more than noise."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside ``value`` but itself."""
    found: list[tuple[Any, ...]] = []
    waiting = [(value, path)]
    while waiting:
        holder, at = waiting.pop()
        entries = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in entries:
            found.append((*at, key))
            waiting.append((inner, (*at, key)))
    return found


def mutated(tree: Any, others: list[Any], rng: Random) -> Any:
    """Return a copy of a tree with one to four changes.

    Args:
        tree: what is changed.
        others: trees of the same kind, parts of which may be put in.
        rng: decides.
    """
    try:
        tree = copy.deepcopy(tree)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            tree = _changed(tree, others, rng)
    except RecursionError:
        pass  # it is as deep as it can be
    return tree


def _changed(tree: Any, others: list[Any], rng: Random) -> Any:
    found = places(tree)
    if not found:
        return copy.deepcopy(rng.choice(others)) if others else {}
    path = rng.choice(found)
    holder = _at(tree, path[:-1])
    last = path[-1]
    match rng.randrange(13):
        case 0 | 1:
            holder[last] = copy.deepcopy(rng.choice(ODD))
        case 2 | 3:
            del holder[last]
        case 4:  # the same kind of thing, from elsewhere
            other = rng.choice(others) if others and rng.random() < 0.7 else tree
            alike = [
                it for it in places(other) if it[-1] == last or (isinstance(last, int) and isinstance(it[-1], int))
            ]
            if alike:
                holder[last] = copy.deepcopy(_at(other, rng.choice(alike)))
        case 5:
            holder[last] = copy.deepcopy(_at(tree, rng.choice(found)))
        case 6 | 7:
            words = [it for it in found if isinstance(_at(tree, it), str) and it[-1] in ("type", "role", "status")]
            if words:
                path = rng.choice(words)
                _at(tree, path[:-1])[path[-1]] = rng.choice(WORDS)
            else:
                holder[last] = rng.choice(WORDS)
        case 8:
            if isinstance(holder, list):
                holder[last:last] = [copy.deepcopy(holder[last])] * rng.choice((1, 1, 1, 2, 30, MANY))
            else:
                holder[rng.choice((*WORDS, "id", "call_id", "index", "x"))] = copy.deepcopy(holder[last])
        case 9:
            if isinstance(holder, list):
                other = rng.randrange(len(holder))
                holder[last], holder[other] = holder[other], holder[last]
            else:
                key = rng.choice(list(holder))
                holder[key] = holder.pop(last)
        case 10:
            if isinstance(text := holder[last], str):
                at = rng.randrange(len(text) + 1)
                inner = rng.choice([odd for odd in ODD if isinstance(odd, str)])
                holder[last] = (
                    text[:at] + (rng.choice("ab<\n{") * rng.choice(LONG) if rng.random() < 0.1 else inner) + text[at:]
                )
            else:
                holder[last] = (
                    [holder[last]] if rng.random() < 0.5 else {last if isinstance(last, str) else "a": holder[last]}
                )
        case 11:
            if rng.random() < 0.2:
                for _ in range(rng.choice(DEEP)):
                    holder[last] = [holder[last]] if rng.random() < 0.5 else {"a": holder[last]}
            else:
                holder[last] = rng.choice((-1, 0, 1, 2, 99, 2**53, 10**25, 1.5))
        case _:
            if isinstance(holder, list):
                rng.shuffle(holder)
            else:
                holder[rng.choice(list(holder))] = copy.deepcopy(rng.choice(ODD))
    return tree


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def encoded(tree: Any, rng: Random) -> bytes:
    """Write a tree as JSON, in one of the ways of writing it, or with a fault that no tree can express."""
    try:
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.7, separators=rng.choice(((",", ":"), (", ", ": "))))
    except RecursionError:
        text = "[" * 100_000
    data = text.encode("utf-8", "surrogatepass")
    match rng.randrange(30):
        case 0:  # a duplicate key
            if pairs := _PAIR.findall(data):
                at = [i for i, byte in enumerate(data[:5000]) if byte == ord("{")]
                place = rng.choice(at or [0]) + 1
                data = (
                    data[:place] + rng.choice(pairs) + (b"" if data[place : place + 1] == b"}" else b",") + data[place:]
                )
        case 1:
            data = _replaced(
                data,
                _NUMBER,
                rng.choice((b"1e999", b"-1e999", b"9" * 400, b"NaN", b"01", b"1.", b"-0", b"1e-999")),
                rng,
            )
        case 2:
            data = _replaced(
                data,
                _TEXT,
                rng.choice(
                    (rb'"\ud83d"', rb'"\ude00\ud83d"', rb'"\u0000"', b'"\xff"', b'"\xed\xa0\xbd"', rb'"\x"', b'"\n"')
                ),
                rng,
            )
        case 3:
            data = rng.choice(
                (
                    b"\xef\xbb\xbf" + data,
                    text.encode("utf-16", "surrogatepass"),
                    data + data,
                    data + b"\n",
                    b" " * 2000 + data,
                )
            )
    return data


def _replaced(data: bytes, pattern: re.Pattern[bytes], new: bytes, rng: Random) -> bytes:
    found = list(pattern.finditer(data[:50_000]))
    if not found:
        return data
    chosen = rng.choice(found)
    return data[: chosen.start()] + new + data[chosen.end() :]
