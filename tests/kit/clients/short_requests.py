"""Clients that send short requests all the time, and count those that are not answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from select import select

import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.raw import RawClient

PAUSE_S = 0.05
SHORT = post_bytes(ask("echo", stream=False), host="127.0.0.1")


class ShortRequests:
    """Clients of a service that has the model ``echo``. None of them ever sends a request twice.

    Args:
        connect: opens a connection.
        pause_s: between two requests of a client.

    Attributes:
        answered: how many requests were answered with 200.
        lost: what became of each of the others.
        slowest_s: the longest time to an answer.
        is_over: whether they should end.
    """

    def __init__(self, connect: Callable[[], Awaitable[RawClient]], *, pause_s: float = PAUSE_S) -> None:
        self._connect = connect
        self._pause_s = pause_s
        self.answered = 0
        self.lost: list[str] = []
        self.slowest_s = 0.0
        self.is_over = False

    async def send_on(self) -> None:
        """Use a connection for as long as the server neither says that it ends nor closes it."""
        while not self.is_over:
            async with await self._connect() as client:
                while not self.is_over and await self._ask(client) and not await self._closes(client):
                    pass

    async def send_anew(self) -> None:
        """Use a connection for each."""
        while not self.is_over:
            async with await self._connect() as client:
                await self._ask(client)
            await trio.sleep(self._pause_s)

    async def _closes(self, client: RawClient) -> bool:
        """Pause; return whether the server has closed the connection, as every client sees before it sends."""
        await trio.sleep(self._pause_s)
        return bool(select([client.sock], [], [], 0)[0])

    async def _ask(self, client: RawClient) -> bool:
        """Return whether the connection can be used again."""
        began = trio.current_time()
        try:
            await client.send(SHORT)
            answer = await client.read_answer()
        except (AssertionError, trio.BrokenResourceError) as error:
            self.lost.append(f"no answer: {type(error).__name__}")
            return False
        self.slowest_s = max(self.slowest_s, trio.current_time() - began)
        if answer.status == 200:
            self.answered += 1
        else:
            self.lost.append(f"status {answer.status}")
        return answer.headers.get("connection") != "close"
