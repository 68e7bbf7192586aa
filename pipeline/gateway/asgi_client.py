"""The client of one request: what the bridge needs of it, over any ASGI server.

Our own server offers the same interface with less work (`http.request_cycle.RequestCycle`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any, Protocol

import trio

from pipeline.gateway.http.asgi import Message, Receive, Send


class Client(Protocol):
    """The client of one request: `http.request_cycle.RequestCycle` on our own server, or `AsgiClient`."""

    def receive_nowait(self) -> Message | None:
        """Return the next part of the body if it has arrived, as ASGI's ``http.request``, else None."""
        ...

    async def receive(self) -> Message:
        """Wait for the next part of the body, or for ASGI's ``http.disconnect``, and return it."""
        ...

    async def watch_during(self, work: Coroutine[Any, Any, None], on_disconnect: Callable[[str], None]) -> None:
        """Do ``work``, which raises nothing, and call ``on_disconnect`` with the reason if the client disconnects."""
        ...

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin the response."""
        ...

    async def write(self, body: bytes, *, last: bool) -> None:
        """Send a part of the response as a whole: a cancellation does not cut it in half."""
        ...


class AsgiClient:
    """A client of any ASGI server.

    A task watches for its disconnect. Each send is shielded, because a server's protocol state advances before its
    bytes leave (docs/facts/http-stack.md, "Sends and cancellation").
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    def receive_nowait(self) -> None:
        """Return None: ASGI does not say whether a message is available."""

    async def receive(self) -> Message:
        """Wait for the server's next message."""
        return await self._receive()

    async def watch_during(self, work: Coroutine[Any, Any, None], on_disconnect: Callable[[str], None]) -> None:
        """Do ``work`` beside a task that waits for ``http.disconnect``."""

        async def watch() -> None:
            while (message := await self.receive())["type"] != "http.disconnect":
                pass
            on_disconnect(message.get("reason", "left"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await work
            nursery.cancel_scope.cancel()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head."""
        with trio.CancelScope(shield=True):
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool) -> None:
        """Send a part of the body."""
        with trio.CancelScope(shield=True):
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})


class AsgiResponse:
    """The response to a `Client`, with what the request's record says of it; see `stages.slots.ClientResponse`.

    Args:
        client: where it is sent.
        headers: sent with every response, after those of `start`.
        born_ns: when the request began.
    """

    __slots__ = ("_client", "_headers", "born_ns", "ended", "first_byte_ns", "size_bytes", "status")

    def __init__(self, client: Client, headers: list[tuple[bytes, bytes]], born_ns: int) -> None:
        self._client = client
        self._headers = headers
        self.born_ns = born_ns
        self.status: int | None = None
        self.first_byte_ns: int | None = None
        self.size_bytes = 0
        self.ended = False

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Commit to a status and headers; they leave with the first bytes of the body."""
        self.status = status
        await self._client.start(status, headers + self._headers)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a part of the body; ``last`` ends the response."""
        self.ended = last
        await self._client.write(data, last=last)
        self.size_bytes += len(data)
        if self.first_byte_ns is None:
            self.first_byte_ns = perf_counter_ns() - self.born_ns
