"""Tools and tool choices of every dialect, in Responses form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.wire.bad_request import BadRequest
from stages.wire.downstream.tools import Toolbox, flat_tool_choice, open_functions, open_toolbox
from stages.wire.normal_form import flat_tools
from stages.wire.tool_names import ToolNames

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
GRAMMAR = {"syntax": "lark", "definition": "start: WORD"}


def one(tool: dict[str, Any]) -> dict[str, Any]:
    (flat,) = open_toolbox([tool]).tools
    assert isinstance(flat, dict)
    return flat


@pytest.mark.parametrize("nothing", [None, []])
def test_no_tools_make_an_empty_toolbox(nothing: Any) -> None:
    assert open_toolbox(nothing) == Toolbox()


def test_a_nested_function_is_flattened_and_stays_non_strict_as_in_chat() -> None:
    nested = {"type": "function", "function": {"name": "Read", "description": "d", "parameters": SCHEMA, "extra": 1}}
    assert one(nested) == {
        "type": "function",
        "name": "Read",
        "description": "d",
        "parameters": SCHEMA,
        "extra": 1,
        "strict": False,
    }


def test_a_nested_function_may_be_strict_and_may_have_no_parameters() -> None:
    assert one({"function": {"name": "Ping", "strict": True, "description": None, "parameters": None}}) == {
        "type": "function",
        "name": "Ping",
        "strict": True,
        "parameters": {"type": "object", "properties": {}},
    }


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "Read", "parameters": SCHEMA, "unknown": {"kept": True}},
        {"type": "function", "name": "Read", "function": None},
        {"type": "custom", "name": "ApplyPatch", "format": {"type": "grammar", **GRAMMAR}},
        {"type": "custom", "name": "Free", "format": {"type": "text"}},
        {"type": "web_search", "user_location": {"type": "approximate"}},
        {"type": "some_future_tool"},
    ],
)
def test_a_tool_in_responses_form_is_kept_as_the_same_object(tool: dict[str, Any]) -> None:
    assert one(tool) is tool


def test_a_function_without_a_type_is_a_function() -> None:
    assert one({"name": "Read", "parameters": SCHEMA}) == {
        "type": "function",
        "name": "Read",
        "parameters": SCHEMA,
        "strict": False,
    }


@pytest.mark.parametrize("kind", [{}, {"type": "custom"}])
def test_an_anthropic_tool_becomes_a_function(kind: dict[str, str]) -> None:
    tool = {"name": "LS", "description": "d", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}, **kind}
    assert one(tool) == {
        "type": "function",
        "name": "LS",
        "description": "d",
        "cache_control": {"type": "ephemeral"},
        "parameters": SCHEMA,
    }
    assert open_toolbox([tool]).custom == frozenset()


@pytest.mark.parametrize(
    ("schema", "complete"),
    [
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": None}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (SCHEMA, SCHEMA),
        ({"$ref": "#/x"}, {"$ref": "#/x"}),
        ({"anyOf": []}, {"anyOf": []}),
        ({"type": "string"}, {"type": "string"}),
    ],
)
def test_a_schema_that_upstreams_refuse_is_completed_in_every_dialect(schema: Any, complete: Any) -> None:
    assert one({"type": "function", "name": "f", "parameters": schema})["parameters"] == complete
    assert one({"type": "function", "function": {"name": "f", "parameters": schema}})["parameters"] == complete
    assert one({"name": "f", "input_schema": schema})["parameters"] == complete
    assert one({"name": "f", "input_schema": None})["parameters"] == {"type": "object", "properties": {}}


def test_a_cache_breakpoint_beside_a_nested_function_is_kept() -> None:
    cache = {"type": "ephemeral"}
    assert one({"type": "function", "function": {"name": "f"}, "cache_control": cache})["cache_control"] == cache


def test_a_nested_custom_tool_is_flattened_with_its_grammar() -> None:
    layout = {"type": "grammar", "grammar": GRAMMAR}
    flat = {"type": "custom", "name": "ApplyPatch", "description": "d", "format": {"type": "grammar", **GRAMMAR}}
    inner = {"name": "ApplyPatch", "description": "d", "format": layout}
    assert one({"type": "custom", "custom": inner}) == flat
    assert one({"type": "custom", **inner}) == flat  # flat, with the grammar of chat
    assert one({"type": "custom", "custom": {"name": "Free"}}) == {"type": "custom", "name": "Free"}


def test_custom_tools_of_a_namespace_are_known_by_their_flattened_names() -> None:
    custom = {"type": "custom", "name": "Patch"}
    toolbox = open_toolbox(
        [
            {"type": "namespace", "name": "a", "tools": [custom, {"type": "function", "name": "Read"}]},
            {
                "type": "namespace",
                "name": "b",
                "tools": [custom, {"type": "custom", "name": "Read"}, {"type": "custom"}],
            },
            {"type": "function", "name": "Read"},
            {"type": "namespace", "name": "c", "tools": "odd"},
        ]
    )
    assert toolbox.custom == {"Patch", "b__Patch", "b__Read"}
    assert [name for _, _, name in flat_tools(toolbox.tools)] == ["Patch", "a__Read", "b__Patch", "b__Read", "Read"]


@pytest.mark.parametrize("extra", [{}, {"type": "function"}])
def test_a_nested_function_becomes_the_same_bytes_as_a_flat_one(extra: dict[str, Any]) -> None:
    function = {"name": "Read", "description": "d", "parameters": SCHEMA}
    flat = one({"type": "function", **function, "strict": False})
    assert json.dumps(one({"type": "function", "function": {**extra, **function}})) == json.dumps(flat)


def test_one_array_may_mix_dialects() -> None:
    toolbox = open_toolbox(
        [
            {"type": "function", "function": {"name": "Read"}},
            {"type": "custom", "name": "ApplyPatch"},
            {"name": "LS", "input_schema": SCHEMA},
        ]
    )
    assert [tool["name"] for tool in toolbox.tools] == ["Read", "ApplyPatch", "LS"]
    assert toolbox.custom == {"ApplyPatch"}
    assert not toolbox.has_hosted


@pytest.mark.parametrize(
    ("kind", "is_hosted"),
    [("web_search", True), ("mcp", True), ("from_the_future", True), ("local_shell", False), ("namespace", False)],
)
def test_hosted_tools_are_detected(kind: str, is_hosted: bool) -> None:
    assert open_toolbox([{"type": kind}]).has_hosted is is_hosted


def test_legacy_functions_become_tools() -> None:
    assert open_functions([{"name": "f", "parameters": SCHEMA}], ToolNames()).tools == [
        {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
    ]
    with pytest.raises(BadRequest) as caught:
        open_functions([{"name": "f"}, 5], ToolNames())
    assert caught.value.param == "functions[1]"


@pytest.mark.parametrize(
    ("choice", "flat"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "function", "name": "f"}, {"type": "function", "name": "f"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        ({"type": "custom", "custom": {"name": "P"}}, {"type": "custom", "name": "P"}),
        ({"type": "function", "function": {"name": "P"}}, {"type": "custom", "name": "P"}),
        ({"type": "tool", "name": "P"}, {"type": "custom", "name": "P"}),
        ({"type": "tool", "name": "f"}, {"type": "function", "name": "f"}),
        ({"name": "f"}, {"type": "function", "name": "f"}),
        ({"type": "web_search"}, {"type": "web_search"}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
        ),
        (
            {"type": "allowed_tools", "mode": "any", "tools": [{"type": "function", "function": {"name": "P"}}]},
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "P"}]},
        ),
        (
            {"type": "allowed_tools", "mode": [], "tools": [{"type": "mcp", "server_label": "x"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
        ),
    ],
)
def test_a_tool_choice_of_any_dialect_becomes_one_of_the_responses_api(choice: Any, flat: Any) -> None:
    assert flat_tool_choice(choice, frozenset({"P"})) == flat


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (5, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": []}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": 5}}, "tool_choice.allowed_tools.tools"),
        ({"type": "allowed_tools"}, "tool_choice.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [5]}}, "tool_choice.allowed_tools.tools[0]"),
    ],
)
def test_a_tool_choice_without_a_tool_is_refused(choice: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        flat_tool_choice(choice, frozenset())
    assert caught.value.param == param
