"""Clients that stall, contradict themselves, announce too much, or try keys: through the whole service, on sockets."""

from __future__ import annotations

import json

import pytest
from kit.clients.chat_posts import ask, delta, post_bytes
from kit.clients.raw import RawClient
from kit.service.running import KEY, model, serving
from kit.time.patience import patiently
from kit.upstreams.scripted import events, scripted_upstream, sse_head, stall

SMALL_BUFFER = 4096
"""SO_RCVBUF of a client that reads nothing: the kernel between us holds little."""


@pytest.mark.parametrize(
    "sizes",
    [[1 << 20] * 8, [12_000]],
    ids=["a send waits", "only the kernel waits"],  # in the second case all fits into our socket's buffer
)
async def test_row_81_a_client_that_stops_reading_is_reset_after_write_timeout_s(sizes: list[int]) -> None:
    """A client that stops reading is reset after `write_timeout_s`, and its end code is DS."""
    script = (sse_head(), events([delta("x" * size) for size in sizes]), stall())
    async with scripted_upstream(*script) as up, serving(model("up", up.url), "  write_timeout_s: 1") as service:
        address = ("127.0.0.1", service.port)
        async with await RawClient.open(address, receive_buffer_bytes=SMALL_BUFFER) as client:
            await client.send(post_bytes(ask()))
            with patiently():
                record = await service.record()
    assert record["end"] == "DS"
    assert 1000 <= record["total_ms"] <= 15_000


@pytest.mark.parametrize("expects", [True, False])
@pytest.mark.parametrize(("key", "status", "code"), [(KEY, 413, "body_too_large"), ("sk-none", 401, "unauthorized")])
async def test_row_80_a_body_that_is_announced_too_large_is_refused_at_once(
    expects: bool, key: str, status: int, code: str
) -> None:
    """A body whose Content-Length is over the limit gets its 413 before a byte of it, and without 100 Continue."""
    async with serving(pipeline="  max_body_mb: 1") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            expect = "Expect: 100-continue\r\n" if expects else ""
            await client.send(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Length: 1048577\r\n{expect}\r\n".encode()
            )
            answer = await client.read_answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
            assert answer.headers["connection"] == "close"
            assert await client.read_to_end() == (b"", "fin")


async def test_row_80_the_413_reaches_a_client_that_sends_its_body_all_the_same() -> None:
    """A client that sends the whole of its too large body can read the 413: the connection is closed in order."""
    async with serving(pipeline="  max_body_mb: 1") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(post_bytes({"model": "echo", "input": "x" * 8_000_000}))
            assert (await client.read_answer()).status == 413
            assert await client.read_to_end() == (b"", "fin")
