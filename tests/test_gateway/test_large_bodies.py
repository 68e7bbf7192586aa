"""A large body through the whole service: what arrives at the upstream is what a small one would become."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from kit.service.running import model, serving
from kit.upstreams.kinds import ANSWERS, TEXT
from kit.upstreams.scripted import scripted_upstream

from stages.request import ResponsesRequest
from stages.upstreams.apis import APIS
from stages.wire.downstream.request import parse_body
from stages.wire.slices import LARGE_BYTES


def conversation(kib: int) -> dict[str, Any]:
    """Return a body with a large image, a long text, calls, and small messages of the same size all together."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,iVBORw{'A' * (kib * 256)}"}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": 'look "here"\n' * kib * 20}, image]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "é" * kib},
            *[{"role": ("assistant", "user")[n % 2], "content": f"word {n}"} for n in range(kib * 5)],
            {"role": "user", "content": "go on"},
        ],
    }


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_row_66_a_large_body_is_served_as_a_small_one_is(kind: str, transport: str) -> None:
    """A large body is read and translated in slices, and the upstream gets the same request."""
    answer = ANSWERS[kind]
    data = msgspec.json.encode(conversation(1000))
    assert len(data) > 2 * LARGE_BYTES
    async with scripted_upstream(answer.whole()) as up:
        async with serving(model("m", up.url, upstream=answer.upstream), f"  transport: {transport}") as service:
            response = await service.post(data)
            record = await service.record()
    assert (response.status_code, record["end"]) == (200, "OK")
    assert TEXT in response.text
    sent = up.requests[0].json()
    request: ResponsesRequest = parse_body(data)
    api = APIS[kind]
    built = api.build_request(request, sent["model"], api.usual_quirks(sent["model"]))
    field = "input" if kind == "responses" else "messages"
    assert len(sent[field]) == len(built[field])
    assert msgspec.json.encode(sent).count(b"A" * 256_000) == 1
    assert [one["role"] for one in sent[field] if "role" in one] == [
        one["role"] for one in built[field] if "role" in one
    ]
