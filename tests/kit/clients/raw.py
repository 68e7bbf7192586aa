"""A client made of one socket, and a server around any ASGI application: for tests of exact bytes and times."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from kit.time.patience import patiently

from pipeline.gateway.failures import refusal
from pipeline.gateway.http.asgi import App
from pipeline.gateway.http.connection import ServerSettings
from pipeline.gateway.http.door import Answers, Shed
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.http.sockets import bind_socket

RESET = "reset"


@dataclass
class Answer:
    """A response: head parsed, body unframed."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw_head: bytes = b""


@dataclass
class Served:
    """A running server."""

    address: tuple[str, int]
    shutdown: trio.Event
    hard_stop: trio.Event
    ended: trio.Event = field(default_factory=trio.Event)
    ended_at: float = 0.0


def limits(**changed: Any) -> ServerSettings:
    """Return settings whose time limits are a minute, so that none passes by chance on a slow machine.

    A test about one of them sets it.
    """
    minute = {
        "keep_alive_timeout_s": 60,
        "header_timeout_s": 60,
        "write_timeout_s": 60,
        "linger_timeout_s": 60,
        "graceful_timeout_s": 60,
        "final_message_timeout_s": 60,
    }
    return ServerSettings(**{"max_connections": 1000, **minute, **changed})


@asynccontextmanager
async def serving(
    app: App,
    *,
    listener: socket.socket | None = None,
    send_buffer_bytes: int | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    answers: Answers | None = None,
    shed: Shed = lambda _: None,
    retire: trio.Event | None = None,
    on_stopping: Callable[[int], object] | None = None,
    on_shutdown: Callable[[], None] | None = None,
    on_drain_deadline: Callable[[], None] | None = None,
    **changed: Any,
) -> AsyncIterator[Served]:
    """Serve ``app`` on ``listener``, or on a free port; at the end stop it hard, and check that no file is left open.

    The server's settings are those of `limits`, with ``changed``.
    """
    fds = len(os.listdir("/proc/self/fd"))
    settings = limits(**changed)
    listener = listener or bind_socket("127.0.0.1", 0)
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    served = Served(listener.getsockname(), trio.Event(), trio.Event())

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            app,
            hypercorn_config(settings, certfile=certfile, keyfile=keyfile),
            [listener],
            settings,
            make_refusal=refusal,
            answers=answers or {},
            shed=shed,
            shutdown=served.shutdown,
            hard_stop=served.hard_stop,
            retire=retire,
            on_stopping=on_stopping,
            on_shutdown=on_shutdown,
            on_drain_deadline=on_drain_deadline,
            task_status=task_status,
        )
        served.ended_at = trio.current_time()
        served.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield served
        served.hard_stop.set()
        with patiently():
            await served.ended.wait()
    assert len(os.listdir("/proc/self/fd")) <= fds + 1  # the test's own client may not have been closed yet


class RawClient:
    """One TCP connection, with a buffer of what has been read and not used yet.

    Attributes:
        is_through_proxy: whether a header may come twice, as Caddy's ``Server`` beside ours.
    """

    is_through_proxy = False

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType) -> None:
        self.stream = stream
        self.sock = sock
        self.buffer = b""

    @classmethod
    async def open(
        cls, address: tuple[str, int], *, receive_buffer_bytes: int | None = None, tls: ssl.SSLContext | None = None
    ) -> RawClient:
        sock = trio.socket.socket()
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            await sock.connect(address)
        except BaseException:
            sock.close()
            raise
        stream: trio.abc.Stream = trio.SocketStream(sock)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="127.0.0.1", https_compatible=True)
        return cls(stream, sock)

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_some(self) -> bytes:
        with patiently():
            return bytes(await self.stream.receive_some(65536))

    async def read_until(self, mark: bytes) -> bytes:
        """Take everything up to and including ``mark``."""
        while mark not in self.buffer:
            chunk = await self.read_some()
            assert chunk, f"the server closed before {mark!r}; it sent {self.buffer!r}"
            self.buffer += chunk
        taken, _, self.buffer = self.buffer.partition(mark)
        return taken + mark

    async def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            chunk = await self.read_some()
            assert chunk, f"the server closed {count - len(self.buffer)} bytes too early"
            self.buffer += chunk
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    async def read_to_end(self) -> tuple[bytes, str]:
        """Return the rest, and how the connection ended: "fin" or "reset"."""
        rest, self.buffer = self.buffer, b""
        try:
            while chunk := await self.read_some():
                rest += chunk
        except trio.BrokenResourceError:
            return rest, RESET
        return rest, "fin"

    async def read_head(self) -> Answer:
        raw = await self.read_until(b"\r\n\r\n")
        status_line, *lines = raw[:-4].decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines) or self.is_through_proxy, f"a header came twice: {lines}"
        return Answer(int(status_line.split(" ")[1]), headers, b"", raw)

    async def read_chunks(self) -> bytes:
        """Read a chunked body up to its last chunk."""
        body = b""
        while size := int((await self.read_until(b"\r\n"))[:-2], 16):
            body += (await self.read_exactly(size + 2))[:-2]
        assert await self.read_exactly(2) == b"\r\n"
        return body

    async def read_answer(self, *, method: str = "GET") -> Answer:
        """Read one response by its framing."""
        answer = await self.read_head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            answer.body = await self.read_chunks()
        elif "content-length" in answer.headers:
            answer.body = await self.read_exactly(int(answer.headers["content-length"]))
        else:
            answer.body, _ = await self.read_to_end()
        return answer

    async def ask(self, method: str = "GET", path: str = "/", body: bytes = b"", headers: str = "") -> Answer:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}{length}\r\n".encode() + body)
        return await self.read_answer(method=method)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


async def get(address: tuple[str, int], path: str = "/") -> Answer:
    """Send one request on a connection of its own."""
    async with await RawClient.open(address) as client:
        return await client.ask(path=path)
