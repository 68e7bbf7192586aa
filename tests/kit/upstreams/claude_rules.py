"""Everything that Anthropic's API checks in a request, according to its reference and its error messages."""

from __future__ import annotations

import json
import re
from typing import Any

from stages.wire.anthropic.models import ClaudeModel, claude_model
from stages.wire.anthropic.request import MIN_BUDGET

BINDING = {"block_binding": {"prefix_mismatch_behavior": "drop_block"}}
BODY_KEYS = {
    *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "temperature"),
    *("top_p", "top_k", "stop_sequences", "metadata", "service_tier", "speed", "context_management", "inference_geo"),
    "container",
}
BLOCK_KEYS = {
    "text": {"text"},
    "image": {"source"},
    "document": {"source", "title"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}
USER_BLOCKS = {"text", "image", "document", "tool_result"}
ASSISTANT_BLOCKS = {"text", "tool_use", "thinking", "redacted_thinking"}
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def check(body: dict[str, Any]) -> dict[str, Any]:
    """Assert everything that Anthropic's API checks, according to its reference and its error messages."""
    claude = claude_model(body["model"])
    assert body.keys() <= BODY_KEYS
    json.dumps(body, allow_nan=False)
    marks: list[dict[str, Any]] = []
    check_tools(body, marks)
    for block in body.get("system", []):
        assert block["type"] == "text"
        check_block(block, marks)
    check_messages(body, marks, claude)
    assert len(marks) <= 4, "a maximum of 4 blocks with cache_control may be provided"
    lasts = [mark.get("ttl", "5m") for mark in marks]
    assert lasts == sorted(lasts), "a ttl='1h' block must not come after a ttl='5m' block"  # "1h" < "5m"
    check_thinking(body, claude)
    assert all(0 <= body[name] <= 1 for name in ("temperature", "top_p") if name in body)
    assert not {"temperature", "top_p"} <= body.keys(), "temperature and top_p cannot both be specified"
    assert all(text.strip() for text in body.get("stop_sequences", [])), "must contain non-whitespace"
    assert body.get("service_tier", "auto") in ("auto", "standard_only")
    assert "service_tier" not in body or claude.has_tiers
    assert body.get("speed") != "fast" or claude.has_fast
    if "metadata" in body:
        assert body["metadata"].keys() == {"user_id"}
        assert len(body["metadata"]["user_id"]) <= 256
    return body


def check_block(block: dict[str, Any], marks: list[dict[str, Any]]) -> None:
    kind = block["type"]
    assert block.keys() - {"type", "cache_control"} <= BLOCK_KEYS[kind]
    if "cache_control" in block:
        assert "thinking" not in kind
        assert block["cache_control"]["type"] == "ephemeral"
        assert block["cache_control"].keys() <= {"type", "ttl"}
        marks.append(block["cache_control"])
    if kind == "text":
        assert block["text"].strip(), "text content blocks must contain non-whitespace text"
    if kind in ("image", "document"):
        check_source(kind, block["source"])
    if kind == "thinking":
        assert block["signature"]


def check_source(kind: str, source: dict[str, Any]) -> None:
    match source["type"]:
        case "url":
            assert source["url"].startswith(("https://", "http://"))
        case "base64":
            allowed = ["image/png", "image/jpeg", "image/gif", "image/webp"] if kind == "image" else ["application/pdf"]
            assert source["media_type"] in allowed
            assert source["data"]
        case _:
            assert kind == "document"
            assert source["type"] == "text"
            assert source["media_type"] == "text/plain"
            assert source["data"].strip()


def check_tools(body: dict[str, Any], marks: list[dict[str, Any]]) -> None:
    names = [tool["name"] for tool in body.get("tools", [])]
    assert len(names) == len(set(names)), "tool names must be unique"
    for tool in body.get("tools", []):
        fields = {"name", "description", "input_schema", "cache_control", "eager_input_streaming", "defer_loading"}
        assert tool.keys() <= fields
        assert TOOL_NAME.fullmatch(tool["name"])
        assert tool["input_schema"]["type"] == "object"
        assert not {"anyOf", "oneOf", "allOf"} & tool["input_schema"].keys()
        if "cache_control" in tool:
            marks.append(tool["cache_control"])
    choice = body.get("tool_choice")
    if choice is not None:
        assert names, "tool_choice may only be specified while providing tools"
        assert choice["type"] in ("none", "auto", "any", "tool")
        assert choice["type"] != "tool" or choice["name"] in names
        assert choice["type"] != "none" or choice.keys() == {"type"}
        if choice["type"] in ("any", "tool"):
            assert claude_model(body["model"]).takes_forced_tools
            assert "thinking" not in body or body["thinking"]["type"] == "disabled"


def check_messages(body: dict[str, Any], marks: list[dict[str, Any]], claude: ClaudeModel) -> None:
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2), "roles must alternate"
    assert messages
    if roles[-1] == "assistant":
        assert claude.has_prefill, "this model does not support assistant message prefill"
        assert "format" not in body.get("output_config", {})
        assert body.get("thinking", {"type": "disabled"})["type"] == "disabled"
        text = messages[-1]["content"][-1]["text"]
        assert text == text.rstrip(), "final assistant content cannot end with trailing whitespace"
    seen: set[str] = set()
    waiting: list[str] = []
    for message in messages:
        content = message["content"]
        assert isinstance(content, list)
        assert content, "all messages must have non-empty content"
        kinds = [block["type"] for block in content]
        assert set(kinds) <= (USER_BLOCKS if message["role"] == "user" else ASSISTANT_BLOCKS)
        for block in content:
            check_block(block, marks)
        results = [block for block in content if block["type"] == "tool_result"]
        assert kinds[: len(results)] == ["tool_result"] * len(results), "tool_results must come first"
        assert [block["tool_use_id"] for block in results] == waiting, "tool_use without tool_result, or the other way"
        for block in results:
            inner = block.get("content", "")
            assert not block.get("is_error") or inner, "content cannot be empty if is_error is true"
            for part in inner if isinstance(inner, list) else []:
                assert part["type"] in ("text", "image", "document")
                check_block(part, marks)
        waiting = [block["id"] for block in content if block["type"] == "tool_use"]
        assert all(TOOL_ID.fullmatch(call_id) for call_id in waiting)
        assert seen.isdisjoint(waiting), "tool_use ids must be unique"
        assert len(waiting) == len(set(waiting))
        seen.update(waiting)
        assert all(isinstance(block["input"], dict) for block in content if block["type"] == "tool_use")
    assert not waiting
    assert not seen or body.get("tools"), "requests which include tool_use blocks must define tools"


def check_thinking(body: dict[str, Any], claude: ClaudeModel) -> None:
    thinking = body.get("thinking")
    assert isinstance(body["max_tokens"], int)
    assert 1 <= body["max_tokens"] <= (claude.max_output or 10**9)
    config = body.get("output_config", {})
    assert config.keys() <= {"effort", "format"}
    assert "format" not in config or claude.has_formats
    if "effort" in config:
        assert claude.thinking == "adaptive"
        assert config["effort"] in claude.efforts.values()
    if not claude.has_sampling or (thinking and thinking["type"] != "disabled"):
        assert not {"temperature", "top_p", "top_k"} & body.keys()
    if thinking is None:
        return
    match thinking["type"]:
        case "adaptive":
            assert claude.thinking == "adaptive"
            assert thinking["display"] in ("summarized", "omitted", "updates")
            assert {key: thinking[key] for key in thinking if key not in ("type", "display")} == (
                BINDING if claude.binds_prefix else {}
            )
        case "enabled":
            assert claude.thinking == "budget"
            assert MIN_BUDGET <= thinking["budget_tokens"] < body["max_tokens"]
            answers = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
            if answers and any(block["type"] == "tool_use" for block in answers[-1]):
                assert answers[-1][0]["type"] in ("thinking", "redacted_thinking")
        case off:
            assert claude.no_thinking == {"type": off}
            assert config.get("effort") not in ("xhigh", "max")
