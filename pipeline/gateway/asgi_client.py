"""The client of one request: what the bridge needs of it, over any ASGI server.

Our own server offers the same interface with less work (`http.request_cycle.RequestCycle`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar

import trio

from pipeline.gateway.http.asgi import Message, Receive, Send
from pipeline.timeline import Timeline

DEPLOYMENT: Final = b"x-headrace-deployment"
ATTEMPTS: Final = b"x-headrace-attempts"
SERVER_TIMING: Final = b"server-timing"

T = TypeVar("T")
OnDisconnect = Callable[[str], None]
"""Is told the reason."""


class Client(Protocol):
    """The client of one request: `http.request_cycle.RequestCycle` on our own server, or `AsgiClient`."""

    arrived_ns: int
    """When the request reached the kernel, in ns on the clock of the figures; 0 if that is unknown."""
    first_read_ns: int
    """When its first bytes were read; 0 if that is unknown."""
    last_read_ns: int
    """When the last bytes of its head were read; 0 if that is unknown."""
    is_let_in: bool
    """Whether it is already decided that it need not be refused for the lag of the loop."""

    @property
    def finished(self) -> bool:
        """Whether all of the response has been sent, as far as that is known once its last part was written."""
        ...

    def receive_nowait(self) -> Message | None:
        """Return the next part of the body if it has arrived, as ASGI's ``http.request``, else None."""
        ...

    async def receive(self) -> Message:
        """Wait for the next part of the body, or for ASGI's ``http.disconnect``, and return it."""
        ...

    def watch_upload(self, work: Coroutine[Any, Any, T], on_disconnect: OnDisconnect) -> Coroutine[Any, Any, T]:
        """As `watch_during`, for work that receives the body: `receive` may have to say it."""
        ...

    def watch_during(self, work: Coroutine[Any, Any, T], on_disconnect: OnDisconnect) -> Coroutine[Any, Any, T]:
        """Do ``work``, which raises nothing, and call ``on_disconnect`` with the reason if the client disconnects."""
        ...

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin the response: the head is sent with the first part of the body."""
        ...

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """Hand over a part of the body; return whether all of it has been sent, or the client is gone."""
        ...

    @property
    def took_some(self) -> bool:
        """After a `write_nowait` that returned False: whether the socket accepted a part of it at once."""
        ...

    async def drain(self) -> None:
        """Send what is left of the writes, as a whole: a cancellation does not cut it in half."""
        ...


class AsgiClient:
    """A client of any ASGI server.

    A task watches for its disconnect. Writes are messages that leave in `drain`. Its sends are shielded, because a
    server's protocol state advances before its bytes leave (docs/facts/http-stack.md, "Sends and cancellation").
    """

    took_some = False  # ASGI does not say
    finished = True  # nor this
    is_let_in = False

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._unsent: list[Message] = []
        self.arrived_ns = self.first_read_ns = self.last_read_ns = 0  # ASGI does not say it

    def receive_nowait(self) -> None:
        """Return None: ASGI does not say whether a message is available."""

    async def receive(self) -> Message:
        """Wait for the server's next message."""
        return await self._receive()

    def watch_upload(self, work: Coroutine[Any, Any, T], on_disconnect: OnDisconnect) -> Coroutine[Any, Any, T]:
        """Return ``work``: only one task may receive, so a disconnect is known when it does."""
        return work

    async def watch_during(self, work: Coroutine[Any, Any, T], on_disconnect: OnDisconnect) -> T:
        """Do ``work`` beside a task that waits for ``http.disconnect``."""

        async def watch() -> None:
            while (message := await self.receive())["type"] != "http.disconnect":
                pass
            on_disconnect(message.get("reason", "left"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            result = await work
            nursery.cancel_scope.cancel()
        return result

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Keep the head for the first `drain`."""
        self._unsent.append({"type": "http.response.start", "status": status, "headers": headers})

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """Keep a part of the body for `drain`, and return False: ASGI has no send that does not wait."""
        self._unsent.append({"type": "http.response.body", "body": data, "more_body": not last})
        return False

    async def drain(self) -> None:
        """Send all messages that were kept."""
        unsent, self._unsent = self._unsent, []
        with trio.CancelScope(shield=True):
            for message in unsent:
                await self._send(message)


class AsgiResponse:
    """The response to a `Client`, with what the request's record says of it; see `stages.slots.ClientResponse`.

    Args:
        client: where it is sent.
        headers: sent with every response, after those of `start`.
        timeline: of the request.
        timing: returns the ``server-timing`` of a document; None if it has none.

    Attributes:
        headers: as above, without those of `answered_by`.
        status: None until `start`.
        size_bytes: of the body, as far as it was written.
        ended: whether the last part of it was written.
        timing: as above.
    """

    __slots__ = ("_answered_by", "_client", "_timeline", "ended", "headers", "size_bytes", "status", "timing")

    def __init__(
        self,
        client: Client,
        headers: list[tuple[bytes, bytes]],
        timeline: Timeline,
        *,
        timing: Callable[[Timeline], bytes] | None = None,
    ) -> None:
        self._client = client
        self._timeline = timeline
        self.timing = timing
        self._answered_by: list[tuple[bytes, bytes]] = []
        self.headers = headers
        self.status: int | None = None
        self.size_bytes = 0
        self.ended = False

    def answered_by(self, deployment: str, attempts: int) -> None:
        """Note which deployment answers, after how many attempts, for the headers, if they are not sent yet."""
        self._answered_by = _answered_by(deployment, attempts)

    def start(self, status: int, headers: list[tuple[bytes, bytes]], *, is_whole: bool = False) -> None:
        """Commit to a status and headers; they leave with the first bytes of the body.

        A later attempt begins with the head that an earlier one has sent with its comments.
        """
        if self.status is not None:
            return
        self.status = status
        headers = headers + self.headers + self._answered_by
        if is_whole and self.timing is not None:
            headers.append((SERVER_TIMING, self.timing(self._timeline)))
        self._client.start(status, headers)

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """Hand over a part of the body; ``last`` ends the response; if this returns False, `drain` must follow."""
        self.ended = last
        self.size_bytes += len(data)
        is_sent = self._client.write_nowait(data, last=last)
        if last and is_sent:
            self._mark_last()
        return is_sent

    @property
    def took_some(self) -> bool:
        """After a `write_nowait` that returned False: whether the socket accepted a part of it at once."""
        return self._client.took_some

    async def drain(self) -> None:
        """Send what is left of the writes; a cancellation does not cut it in half."""
        await self._client.drain()
        if self.ended and "last_byte_out" not in self._timeline.points:
            self._mark_last()

    def _mark_last(self) -> None:
        self._timeline.mark_once("first_byte_out")  # it may be the same write
        self._timeline.mark("last_byte_out")


@lru_cache(1024)
def _answered_by(deployment: str, attempts: int) -> list[tuple[bytes, bytes]]:
    return [(DEPLOYMENT, ascii(deployment)[1:-1].encode()), (ATTEMPTS, b"%d" % attempts)]
