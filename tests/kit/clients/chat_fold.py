"""Fold what a client receives into its final result, strictly: anything that an SDK would stumble over is an error."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Folded:
    """The final result of a response."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str = ""
    tool_calls: list[dict[str, str]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    is_done: bool = False
    id: str | None = None
    model: str | None = None
    created: int | None = None
    service_tier: str | None = None


def data_of(stream: bytes) -> list[str]:
    """Split our own frames, which are only ``data: x`` and comments."""
    assert stream == b"" or stream.endswith(b"\n\n")
    datas: list[str] = []
    for block in stream.decode("utf-8").split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        assert block.startswith("data: "), block
        assert "\n" not in block
        datas.append(block[6:])
    return datas


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    """Return the JSON of all frames except ``[DONE]``."""
    return [json.loads(data) for data in data_of(stream) if data != "[DONE]"]


def fold_stream(stream: bytes) -> Folded:
    """Fold a stream of chunks."""
    result = Folded()
    for data in data_of(stream):
        assert not result.is_done, "data after [DONE]"
        assert result.error is None, "data after an error"
        if data == "[DONE]":
            assert result.finish_reason is not None, "[DONE] without a finish reason"
            result.is_done = True
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            assert set(chunk) == {"error"}
            assert set(chunk["error"]) - {"upstream_code"} == {"message", "type", "code", "param"}
            result.error = chunk["error"]
            continue
        _fold_chunk(result, chunk)
    return result


def _fold_chunk(result: Folded, chunk: dict[str, Any]) -> None:
    assert chunk["object"] == "chat.completion.chunk"
    for name in ("id", "model", "created"):
        assert getattr(result, name) in (None, chunk[name]), f"{name} changed"
        setattr(result, name, chunk[name])
    is_first = result.service_tier is None
    result.service_tier = chunk.get("service_tier", "")
    if not chunk["choices"]:
        assert result.finish_reason is not None, "usage before the finish"
        assert result.usage is None, "usage twice"
        result.usage = chunk["usage"]
        return
    assert chunk.get("usage") is None
    assert result.finish_reason is None, "a choice after the finish"
    [choice] = chunk["choices"]
    assert choice["index"] == 0
    assert "finish_reason" in choice
    delta = choice["delta"]
    assert ("role" in delta) == is_first, "role exactly once, first"
    if is_first:
        assert delta == {"role": "assistant", "content": ""}
    assert set(delta) <= {"role", "content", "refusal", "reasoning_content", "tool_calls", "annotations"}
    if delta.get("content"):
        result.content = (result.content or "") + delta["content"]
    if delta.get("refusal"):
        result.refusal = (result.refusal or "") + delta["refusal"]
    result.reasoning += delta.get("reasoning_content", "")
    for call in delta.get("tool_calls", ()):
        _fold_call(result, call)
    if "annotations" in delta:
        assert not result.annotations, "annotations twice"
        result.annotations = delta["annotations"]
    if choice.get("logprobs"):
        assert choice["logprobs"]["refusal"] is None
        result.logprobs += choice["logprobs"]["content"]
    if choice["finish_reason"] is not None:
        assert delta == {}
        result.finish_reason = choice["finish_reason"]


def _fold_call(result: Folded, call: dict[str, Any]) -> None:
    if call["index"] == len(result.tool_calls):
        assert set(call) == {"index", "id", "type", "function"}
        assert call["type"] == "function"
        assert call["id"]
        assert set(call["function"]) == {"name", "arguments"}
        assert call["function"]["name"]
        assert call["function"]["arguments"] == ""
        result.tool_calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
    else:
        assert 0 <= call["index"] < len(result.tool_calls), "a gap in the indices"
        assert set(call) == {"index", "function"}
        assert set(call["function"]) == {"arguments"}
        assert call["function"]["arguments"]
        result.tool_calls[call["index"]]["arguments"] += call["function"]["arguments"]


def fold_document(document: bytes) -> Folded:
    """Read a whole completion."""
    completion = json.loads(document)
    assert completion["object"] == "chat.completion"
    [choice] = completion["choices"]
    message = choice["message"]
    assert message["role"] == "assistant"
    return Folded(
        content=message["content"] or None,
        refusal=message["refusal"],
        reasoning=message.get("reasoning_content", ""),
        tool_calls=[
            {"id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            for call in message.get("tool_calls", ())
        ],
        annotations=message.get("annotations", []),
        logprobs=(choice["logprobs"] or {}).get("content", []),
        finish_reason=choice["finish_reason"],
        usage=completion.get("usage"),
        is_done=True,
        id=completion["id"],
        model=completion["model"],
        created=completion["created"],
        service_tier=completion.get("service_tier", ""),
    )


def assert_as_expected(folded: Folded, expected: dict[str, Any]) -> None:
    """Compare with the ``expected.json`` of a recording."""
    if expected["error"]:
        assert folded.error is not None
        assert folded.error["message"] == expected["error"]["message"]
        assert folded.finish_reason is None
        assert not folded.is_done
        return
    assert folded.error is None
    assert folded.is_done
    texts = [message["text"] for message in expected["content_by_message"]]
    assert (folded.content or "") in ("".join(texts), "\n\n".join(texts))
    assert folded.refusal == expected["refusal"]
    assert folded.reasoning == expected["reasoning"]
    assert folded.annotations == expected["annotations"]
    assert folded.usage == expected["usage"]
    calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["arguments"]} for call in expected["tool_calls"]
    ]
    native = expected["native_client_calls"]
    assert folded.tool_calls[: len(calls)] == calls
    assert [call["id"] for call in folded.tool_calls[len(calls) :]] == [call["id"] for call in native]
    for call, item in zip(folded.tool_calls[len(calls) :], native, strict=True):
        body = item["item"].get("action") or item["item"].get("operation")
        assert json.loads(call["arguments"]) == body
        assert call["name"] == item["type"].removesuffix("_call")
    assert folded.finish_reason in expected["finish_reason_accept"]
    if native:
        assert folded.finish_reason == "tool_calls"
    assert folded.created == expected["created"]
