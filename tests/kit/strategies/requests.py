"""Hypothesis strategies for what clients post: both shapes, all dialects, valid and invalid."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON, small."""

_words = st.sampled_from(
    ["hi", "", "  ", "<think>\nhm\n</think>\n\nso", "<think>\n", '{"input": "x"}', "*** Begin\n", "é"]
)
_ids = st.sampled_from(["a", "b", "call_0", "functions.Ask:1", "c" * 70, "x\ny"])
_names = st.sampled_from(["Read", "ApplyPatch", "Gone"])
_arguments = st.sampled_from(["{}", '{"a":1}', "{ not json", '{"input":"*** Begin"}', "*** Begin"])
_cache = st.just({"type": "ephemeral"})


def _shaped(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    strategies = {
        key: value if isinstance(value, st.SearchStrategy) else st.just(value) for key, value in required.items()
    }
    return st.fixed_dictionaries(strategies, optional=optional)


_base64 = {"type": "base64", "media_type": "image/png", "data": "AA=="}
_texts = (
    _words
    | _shaped({"type": "text", "text": _words}, cache_control=_cache, citations=st.just([]))
    | _shaped({"type": "input_text", "text": _words}, cache_control=_cache)
    | _shaped({"type": "output_text", "text": _words}, annotations=st.just([]))
    | _shaped({"text": _words})
)
_pictures = (
    _shaped({"type": "image_url", "image_url": st.sampled_from(["u", {"url": "u", "detail": "low"}])})
    | _shaped({"type": "input_image", "image_url": st.sampled_from(["u", {"url": "u"}])}, detail=st.just("auto"))
    | _shaped(
        {"type": "image", "source": st.sampled_from([_base64, {"type": "url", "url": "u"}])}, cache_control=_cache
    )
    | _shaped({"type": "file", "file": st.sampled_from([{"file_id": "f"}, {"filename": "a", "file_data": None}])})
    | _shaped({"type": "input_file", "file_id": "f"})
    | _shaped(
        {
            "type": "document",
            "source": st.sampled_from(
                [
                    _base64,
                    {"type": "text", "data": "x"},
                    {
                        "type": "content",
                        "content": [{"type": "text", "text": "x"}, {"type": "image", "source": _base64}],
                    },
                ]
            ),
        },
        title=st.just("t"),
    )
    | st.sampled_from([{"type": "from_the_future"}, {"type": "refusal", "refusal": "no"}])
)
_content = st.none() | _words | st.lists(_texts | _pictures, max_size=3)
_thoughts = st.sampled_from(
    [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "thinking", "thinking": "hm"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    ]
)
_uses = _shaped(
    {"type": "tool_use", "id": _ids, "name": _names, "input": st.sampled_from([{}, {"input": "x"}, {"a": [1]}])},
    cache_control=_cache,
)
_results = _shaped({"type": "tool_result", "tool_use_id": _ids}, content=_content, is_error=st.booleans())
_tool_calls = st.lists(
    _shaped(
        {"id": _ids, "function": _shaped({"name": _names, "arguments": _arguments | st.none() | st.just({"a": 1})})},
        type=st.just("function"),
        index=st.integers(0, 3),
    )
    | _shaped({"id": _ids, "type": "custom", "custom": _shaped({"name": _names, "input": _words})}),
    max_size=3,
)
_messages = (
    _shaped({"role": st.sampled_from(["system", "developer", "user"]), "content": _content}, cache_control=_cache)
    | _shaped({"role": "user", "content": st.lists(_results | _texts, max_size=3)})
    | _shaped(
        {"role": "assistant"},
        content=_content | st.lists(_thoughts | _uses | _texts, max_size=4),
        tool_calls=_tool_calls,
        refusal=st.none() | st.just("no"),
        reasoning_content=_words,
        phase=st.just("commentary"),
    )
    | _shaped({"role": "tool", "tool_call_id": _ids, "content": _content}, name=_names, cache_control=_cache)
    | _shaped({"role": "assistant", "function_call": _shaped({"name": _names, "arguments": _arguments})})
)
_items = (
    _shaped({"type": "message", "role": "user", "content": _content}, id=st.just("msg_1"), status=st.just("completed"))
    | _shaped({"type": "function_call", "call_id": _ids, "name": _names, "arguments": _arguments}, id=_ids)
    | _shaped({"type": "function_call_output", "call_id": _ids, "output": _content})
    | _shaped({"type": "custom_tool_call", "call_id": _ids, "name": _names, "input": _words}, id=st.just("ctc_1"))
    | _shaped({"type": "custom_tool_call_output", "call_id": _ids, "output": _content})
    | _shaped({"type": "reasoning", "summary": st.just([])}, id=st.just("rs_1"), encrypted_content=st.just("gA"))
    | st.sampled_from(
        [
            {"type": "item_reference", "id": "msg_1"},
            {"id": "msg_1"},
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "shell_call", "call_id": "s" * 70},
        ]
    )
)
_schemas: list[Any] = [{}, {"type": "object"}, {"properties": {"a": {}}}, {"$ref": "#"}, None]
_schema = st.sampled_from(_schemas)
_grammar = {"syntax": "lark", "definition": "start: WORD"}
_tools = (
    _shaped({"type": "function", "name": _names, "parameters": _schema}, strict=st.booleans(), cache_control=_cache)
    | _shaped({"type": "function", "function": _shaped({"name": _names}, parameters=_schema)}, cache_control=_cache)
    | _shaped({"name": _names, "input_schema": _schema}, cache_control=_cache, type=st.just("custom"))
    | _shaped({"type": "custom", "name": st.just("ApplyPatch")}, format=st.just({"type": "grammar", **_grammar}))
    | _shaped({"type": "custom", "custom": st.just({"name": "ApplyPatch", "format": {"grammar": _grammar}})})
    | st.sampled_from([{"type": "web_search"}, {"type": "mcp", "server_label": "x"}, {"type": "local_shell"}])
)
_named = st.sampled_from(
    [
        {"type": "function", "name": "Read"},
        {"type": "function", "function": {"name": "Read"}},
        {"type": "custom", "name": "ApplyPatch"},
        {"type": "tool", "name": "ApplyPatch"},
        {"type": "web_search"},
    ]
)
_choices = (
    st.sampled_from(["auto", "none", "required", "any", {"type": "auto"}, {"type": "any"}, {"type": "none"}])
    | _named
    | _shaped({"type": "allowed_tools", "mode": "auto", "tools": st.lists(_named, max_size=2)})
    | _shaped(
        {"type": "allowed_tools", "allowed_tools": _shaped({"mode": "required", "tools": st.lists(_named, max_size=2)})}
    )
)
_parameters = {
    "stream": st.booleans() | st.none(),
    "stream_options": st.sampled_from([{"include_usage": True}, {"include_obfuscation": False}, {}]),
    "store": st.booleans(),
    "include": st.sampled_from([["reasoning.encrypted_content"], ["x"], []]),
    "reasoning": st.sampled_from([{"effort": "xhigh"}, {"summary": "auto"}, {"effort": None}, {}]),
    "reasoning_effort": st.sampled_from(["minimal", "high", "none"]),
    "text": st.sampled_from([{"verbosity": "low"}, {}]),
    "verbosity": st.just("high"),
    "response_format": st.sampled_from(
        [{"type": "text"}, {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}]
    ),
    "max_tokens": st.integers(1, 99),
    "max_output_tokens": st.integers(1, 99),
    "previous_response_id": st.sampled_from([None, "resp_1"]),
    "metadata": st.just({"cursorConversationId": "c"}),
    "prompt_cache_key": st.just("k"),
    "service_tier": st.just("auto"),
    "stop": st.sampled_from(["a", ["a"], None]),
    "n": st.just(1),
    "logprobs": st.booleans(),
    "system": _words | st.lists(_texts, max_size=2),
    "parallel_tool_calls": st.booleans(),
    "tool_choice": _choices,
    "functions": st.sampled_from([None, [], [{"name": "Read"}]]),
    "unknown": json_values,
}


@st.composite
def _bodies(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m"}
    body["tools"] = draw(st.none() | st.lists(_tools, max_size=4))
    elements = st.lists(_messages | _items, max_size=6).map(lambda rest: [{"role": "user", "content": "hi"}, *rest])
    match draw(st.sampled_from(["input", "messages", "text", "both"])):
        case "text":
            body["input"] = draw(_words)
        case "both":
            body["input"], body["messages"] = draw(elements), draw(elements)
        case field:
            body[field] = draw(elements)
    chosen = draw(st.lists(st.sampled_from(sorted(_parameters)), unique=True, max_size=6))
    return body | {name: draw(_parameters[name]) for name in chosen}


bodies = _bodies()
"""What clients post, in every mix of dialects; most of it is accepted, some is refused for a good reason."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to every value inside ``value``, itself included."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, child in entries for deeper in paths(child, (*path, key)))]


@st.composite
def spoiled(draw: st.DrawFn, good: st.SearchStrategy[dict[str, Any]] = bodies) -> dict[str, Any]:
    """Draw a body in which one value is replaced, removed or inserted."""
    body = copy.deepcopy(draw(good))
    *outer, last = draw(st.sampled_from(paths(body)[1:]))
    target: Any = body
    for key in outer:
        target = target[key]
    if draw(st.booleans()):
        target[last] = draw(json_values)
    elif isinstance(target, dict):
        del target[last]
    else:
        target.insert(last, draw(json_values))
    return body
