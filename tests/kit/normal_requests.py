"""What every upstream's request builder relies on in a request in normal form."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.request import ResponsesRequest
from stages.wire.downstream.request import parse_body

CHAT_ONLY = {"messages", "functions", "function_call", "max_tokens", "reasoning_effort", "response_format", "system"}
NAMED_BY_ROLE = {"assistant": {"output_text"}}


def check_normal(request: ResponsesRequest) -> None:
    """Assert what every upstream's request builder relies on."""
    body = request.body
    assert not body.keys() & {"model", "stream", "stream_options", *CHAT_ONLY}
    assert None not in body.values()
    assert body["input"]
    again = parse_body(msgspec.json.encode({"model": request.requested_model, "stream": request.stream, **body}))
    assert msgspec.json.encode(again.body) == msgspec.json.encode(body)  # the normal form of the normal form is itself
    assert again.custom_tools == request.custom_tools
    for tool in body.get("tools", []):
        assert isinstance(tool["type"], str)
        assert tool["type"] not in ("function", "custom") or tool["name"]
        assert tool.get("function") is None or tool["type"] != "function"
    items: list[dict[str, Any]] = [] if isinstance(body["input"], str) else body["input"]
    open_calls: dict[str, str] = {}
    for item in items:
        kind = item.get("type", "message")
        if kind == "message" and "role" in item:
            assert item["role"] in ("system", "developer", "user", "assistant")
            texts = NAMED_BY_ROLE.get(item["role"], {"input_text"})
            parts = [] if isinstance(item["content"], str) else item["content"]
            assert {part["type"] for part in parts if part["type"].endswith("text")} <= texts
            assert not item.keys() & {"tool_calls", "function_call", "reasoning_content", "refusal"}
        elif kind in ("function_call", "custom_tool_call"):
            assert len(item["call_id"]) <= 64
            assert item["call_id"] not in open_calls
            assert isinstance(item["arguments" if kind == "function_call" else "input"], str)
            assert kind == "custom_tool_call" or item["name"] not in request.custom_tools
            open_calls[item["call_id"]] = f"{kind}_output"
        elif kind in ("function_call_output", "custom_tool_call_output") and item["call_id"] in open_calls:
            assert open_calls.pop(item["call_id"]) == kind
            assert isinstance(item["output"], str | list)
    assert not open_calls, "every call has its output"
