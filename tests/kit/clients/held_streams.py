"""Streams that stand still until a test lets them end."""

from __future__ import annotations

import trio
from kit.clients.chat_posts import CREATED, OPENAI_LIKE, ask, completed, delta, post_bytes
from kit.clients.raw import RawClient
from kit.service.running import KEY
from kit.upstreams.scripted import Exchange, events, sse_head


class Held:
    """An upstream's script that sends "Hello, " and, once ``go`` is set, the rest."""

    def __init__(self) -> None:
        self.go = trio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await events([CREATED, delta("Hello, ")])(exchange)
        await self.go.wait()
        await events([delta("you"), completed("Hello, you")])(exchange)
        await exchange.send(b"0\r\n\r\n")


async def open_stream(port: int, *, agent: str = OPENAI_LIKE, key: str = KEY) -> RawClient:
    """Return a client that has read the start of its response."""
    client = await RawClient.open(("127.0.0.1", port))
    await client.send(post_bytes(ask(), agent=agent, key=key))
    assert (await client.read_head()).status == 200
    return client


async def read_body(client: RawClient) -> bytes:
    """Read a chunked body up to its last chunk."""
    body = b""
    while size := int((await client.read_until(b"\r\n"))[:-2], 16):
        body += (await client.read_exactly(size + 2))[:-2]
    assert await client.read_exactly(2) == b"\r\n"
    return body
