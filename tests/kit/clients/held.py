"""A server whose loop is held, and clients in threads of their own, which are not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import trio
import trio.testing
from kit.clients.raw import RawClient, Served
from kit.time.patience import PATIENCE_S, patiently

from pipeline.gateway.http.asgi import REQUEST_CYCLE
from pipeline.gateway.http.request_cycle import RequestCycle

STEP_S = 0.01
"""How long the application works between two writes. Its client does not read meanwhile: with a write each 2 ms the
socket was full after some hundred, nothing was written any more, and nobody looked at the door."""


class Reply(NamedTuple):
    """What a client in a thread got."""

    data: bytes
    """All that it received, until the server closed the connection or was not heard of any more."""
    took_s: float
    """From its connect to the last byte."""
    is_within: bool
    """Whether that came while the loop was held."""

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])


class Holding:
    """An application whose stream holds the loop, in one turn, until it has been told to `end`, or for too long.

    It writes all the time, as many streams do together. Any other path is answered with what was posted to it.
    """

    def __init__(self) -> None:
        self.go = trio.Event()
        self.is_held = threading.Event()
        self.ended_at = 0.0
        self._end = threading.Event()

    def end(self) -> None:
        """Let the loop go; called by another thread."""
        self._end.set()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/stream":
            await self._hold(scope["extensions"][REQUEST_CYCLE])
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served " + body, "more_body": False})

    async def _hold(self, cycle: RequestCycle) -> None:
        cycle.start(200, [])
        cycle.write_nowait(b"begun")
        await self.go.wait()
        await trio.sleep(0)
        self.is_held.set()
        too_long = time.monotonic() + PATIENCE_S
        while not self._end.is_set() and time.monotonic() < too_long:
            until = time.monotonic() + STEP_S
            while time.monotonic() < until:
                ...
            cycle.write_nowait(b"x")
        self.ended_at = time.monotonic()
        cycle.write_nowait(b"", last=True)
        await cycle.drain()


async def ask_while_held(app: Holding, served: Served, *requests: Sequence[bytes]) -> list[Reply]:
    """Hold the loop, have a client send each of these, all at once, and let the loop go when all have been answered.

    A client sends the parts of its request one after the other, with a pause before each but the first. After a second
    without an answer it has the loop go, and waits on.
    """
    found: list[tuple[bytes, float, float]] = [(b"", 0.0, 0.0)] * len(requests)
    left = threading.Semaphore(0)

    def ask(number: int) -> None:
        app.is_held.wait(PATIENCE_S)
        began = last = time.monotonic()
        data = b""
        with socket.create_connection(served.address, timeout=PATIENCE_S) as client:
            for at, part in enumerate(requests[number]):
                if at:
                    time.sleep(0.05)
                client.sendall(part)
            client.settimeout(1)
            try:
                while chunk := client.recv(65536):
                    data += chunk
                    last = time.monotonic()
            except TimeoutError:
                pass
            left.release()
            client.settimeout(PATIENCE_S)
            if not data:
                data, last = client.recv(65536), time.monotonic()
        found[number] = data, last - began, last

    def end_when_answered() -> None:
        for _ in requests:
            left.acquire(timeout=PATIENCE_S)
        app.end()

    with patiently():
        async with await RawClient.open(served.address) as stream:
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n")
            await stream.read_until(b"begun")
            in_threads = partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(len(requests) + 1))
            async with trio.open_nursery() as nursery:
                for number in range(len(requests)):
                    nursery.start_soon(in_threads, ask, number)
                nursery.start_soon(in_threads, end_when_answered)
                await trio.testing.wait_all_tasks_blocked()  # the threads have started
                app.go.set()
    return [Reply(data, took_s, last < app.ended_at) for data, took_s, last in found]
