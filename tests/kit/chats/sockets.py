"""The same over real sockets: a double as a scripted upstream, and a client that can be stopped in mid-stream."""

from __future__ import annotations

import json
from typing import Final

import httpx
import trio
from kit.clients.chat_posts import CURSOR
from kit.service.running import KEY, PLAIN, Service
from kit.upstreams.scripted import Exchange, end, error, sse_head
from kit.vendors.accounts import STATUSES, Accounts, Kind
from kit.vendors.double import Double

TROUBLES: Final[tuple[Kind, ...]] = ("resetting", "failing", "overloaded", "limited")
"""Those that take no time."""


class Line:
    """A double behind a socket, and the client of the service in front of it.

    Args:
        double: answers.
        accounts: whose request it is, and in what trouble they are; None if there is one account, always in order.
    """

    def __init__(self, double: Double, accounts: Accounts | None = None) -> None:
        self._double = double
        self._accounts = accounts
        self._stops_after: int | None = None
        self._stopped = trio.Event()
        self.service: Service | None = None

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request: the script of the upstream."""
        request = exchange.request
        if self._accounts is not None and (trouble := self._accounts.enter(request.headers)) is not None:
            if trouble.kind == "resetting":
                exchange.reset()
            await exchange.send(error(STATUSES[trouble.kind]))
            return
        answer = self._double(request.method, request.path, request.headers, request.body)
        if answer.status != 200:
            await exchange.send(error(answer.status, answer.body, content_type=answer.content_type))
            return
        await exchange.send(sse_head())
        for number, frame in enumerate(answer.frames):
            if number == self._stops_after:
                self._stopped.set()
                await trio.sleep_forever()
            await exchange.send_chunk(frame.data)
            self._double.sent(frame)
        await exchange.send(end())

    async def ask(self, body: object, *, stops_after: int | None = None) -> tuple[int, bytes]:
        """Post a body; return the status and what came back. After ``stops_after`` frames the client disconnects."""
        assert self.service is not None
        self._stops_after, self._stopped = stops_after, trio.Event()
        status, received = 200, bytearray()

        async def read(scope: trio.CancelScope) -> None:
            nonlocal status
            headers = {"authorization": f"Bearer {KEY}", "user-agent": CURSOR}
            assert self.service is not None
            async with (
                httpx.AsyncClient(base_url=self.service.url, timeout=30, trust_env=False, verify=PLAIN) as client,
                client.stream(
                    "POST", "/cursor/chat/completions", content=json.dumps(body), headers=headers
                ) as response,
            ):
                status = response.status_code
                async for chunk in response.aiter_raw():
                    received.extend(chunk)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, nursery.cancel_scope)
            await self._stopped.wait()  # cancelled if the whole answer came
            nursery.cancel_scope.cancel()
        whole = received if status != 200 else received[: received.rfind(b"\n\n") + 2 if b"\n\n" in received else 0]
        return status, bytes(whole)
