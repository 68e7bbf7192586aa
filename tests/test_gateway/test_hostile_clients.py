"""Clients that stall, contradict themselves, announce too much, or try keys: through the whole service, on sockets."""

from __future__ import annotations

import pytest
from kit.clients.chat_posts import ask, delta, post_bytes
from kit.clients.raw import RawClient
from kit.service.running import model, serving
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
