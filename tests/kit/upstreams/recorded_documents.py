"""The document that an upstream would have sent without ``stream``, made from the recording of its stream.

Each is folded by the simple rules of the API's own SDK, not by the project's code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def payloads_in(recording: Path) -> list[Json]:
    """Return the JSON of all events of a recorded stream, without ``[DONE]``."""
    lines = recording.read_text("utf-8").split("\n")  # not splitlines: U+2028 and similar characters are text
    return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip().startswith("{")]


def responses_document(recording: Path) -> Json:
    """Return the response of the last event with one: the API's own snapshot."""
    response: Json = [event for event in payloads_in(recording) if "response" in event][-1]["response"]
    return response


def chat_document(recording: Path) -> Json:
    """Fold the deltas of a Chat Completions stream."""
    chunks = payloads_in(recording)
    head = next(chunk for chunk in chunks if chunk["id"])
    message: Json = {"role": "assistant", "content": None}
    made: dict[Any, Json] = {}
    finish, usage = None, None
    for one in chunks:
        usage = one.get("usage") or usage
        for choice in one["choices"]:
            delta = choice["delta"]
            finish = choice.get("finish_reason") or finish
            if isinstance(delta.get("content"), list):
                message["content"] = (message["content"] or []) + delta["content"]
            elif delta.get("content"):
                message["content"] = (message["content"] or "") + delta["content"]
            if delta.get("reasoning_content"):
                message["reasoning_content"] = message.get("reasoning_content", "") + delta["reasoning_content"]
            for entry in delta.get("tool_calls") or ():
                known = made.setdefault(entry.get("index"), {"type": "function", "function": {"arguments": ""}})
                known["id"] = entry.get("id") or known["id"]
                known["function"]["name"] = entry["function"].get("name") or known["function"]["name"]
                known["function"]["arguments"] += entry["function"].get("arguments") or ""
    if made:
        message["tool_calls"] = list(made.values())
    choice = {"index": 0, "message": message, "finish_reason": finish}
    named = {name: head[name] for name in ("id", "created", "model")}
    return {**named, "object": "chat.completion", "choices": [choice], "usage": usage}


def anthropic_document(recording: Path) -> Json:
    """Fold the blocks of an Anthropic Messages stream."""
    message: Json = {}
    inputs: dict[int, str] = {}
    for event in payloads_in(recording):
        delta = event.get("delta", {})
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta" if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            case "content_block_delta":
                field = delta["type"].removesuffix("_delta")
                message["content"][event["index"]][field] += delta[field]
            case "message_delta":
                message |= delta
                message["usage"] |= event["usage"]
    for at, given_input in inputs.items():
        message["content"][at]["input"] = json.loads(given_input or "{}")
    return message
