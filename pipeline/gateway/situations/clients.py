"""The clients of a situation: what each has seen of its response, on its own clock.

Sockets rather than an HTTP client: one of them has to leave its bytes in the kernel, and the moment of a byte is the
moment at which it is read.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import Final, cast

import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.situations.table import Load

READ_BYTES: Final = 64 * 1024
SMALL_BUFFER_BYTES: Final = 16 * 1024
"""The receive buffer of a client that pauses: what the kernel takes for it, nobody waits for."""
LARGE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Its buffer afterwards: the rest of the answer is not to wait for it."""
LIMIT_S: Final = 60

_TOKEN = re.compile(rb'"content":"[^"]')
_TAIL_BYTES = 64  # longer than a token mark, and than the last chunks of a response


class Seen(Struct, kw_only=True):
    """What a client has seen, in ms from the moment before it connected.

    Attributes:
        request_id, deployment: as the response's headers say.
        first_token_ms: when it had the first text.
        total_ms: when the response had ended.
        silence_ms: the longest time between two reads, its own pause excluded.
        paused_ms: how long it did not read.
    """

    request_id: str
    deployment: str
    first_token_ms: float
    total_ms: float
    silence_ms: float
    paused_ms: float


async def ask_all(port: int, key: str, loads: Sequence[Load]) -> list[Seen]:
    """Send all requests of a situation at once; return what the clients have seen, in no special order.

    Raises:
        CommandError: if a response is not complete, or not a good one.
    """
    seen: list[Seen] = []

    async def one(load: Load, number: int) -> None:
        # Each is another conversation: those that begin alike go to one deployment.
        seen.append(await _ask(port, key, load, f"Where does the time go? ({number})"))

    with trio.move_on_after(LIMIT_S) as scope:
        try:
            async with trio.open_nursery() as nursery:
                for load in loads:
                    for number in range(load.clients):
                        nursery.start_soon(one, load, number)
        except* (CommandError, OSError) as failed:
            raise CommandError(f"a request of the situation failed: {_first_of(failed)}") from failed
    if scope.cancelled_caught:
        raise CommandError(f"the situation has not ended after {LIMIT_S} s: is this machine very busy?")
    return seen


async def _ask(port: int, key: str, load: Load, question: str) -> Seen:
    body = msgspec.json.encode({"model": load.model, "input": question, "stream": True})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with trio.socket.socket() as sock:
        if load.pause_ms:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        sent_s = trio.current_time()
        await sock.connect(("127.0.0.1", port))
        await trio.SocketStream(sock).send_all(head.encode() + body)
        reader = _ResponseReader(sock, sent_s)
        await reader.read_head()
        paused_s = 0.0
        if load.pause_ms:
            began_s = trio.current_time()
            await trio.sleep(load.pause_ms / 1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGE_BUFFER_BYTES)
            paused_s = trio.current_time() - began_s
        return await reader.read_body(paused_s)


class _ResponseReader:
    """Reads one response to the end of its connection."""

    def __init__(self, sock: trio.socket.SocketType, sent_s: float) -> None:
        self._sock = sock
        self._sent_s = sent_s
        self._headers: dict[str, str] = {}
        self._bytes = b""

    async def read_head(self) -> None:
        while b"\r\n\r\n" not in self._bytes:
            if not (chunk := await self._sock.recv(READ_BYTES)):
                raise CommandError("the service closed the connection before its response")
            self._bytes += chunk
        head, _, self._bytes = self._bytes.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self._headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if " 200 " not in status:
            raise CommandError(f"the service answered {status}")

    async def read_body(self, paused_s: float) -> Seen:
        """Read it, keeping only its end; a token may be cut in two."""
        end, first_token_s, silence_s = self._bytes, 0.0, 0.0
        read_s = trio.current_time()
        while True:
            if not first_token_s and _TOKEN.search(end):
                first_token_s = read_s
            chunk = await self._sock.recv(READ_BYTES)
            now_s = trio.current_time()
            silence_s = max(silence_s, now_s - read_s)
            read_s = now_s
            if not chunk:
                break
            end = end[-_TAIL_BYTES:] + chunk
        if not first_token_s or b"[DONE]" not in end:
            raise CommandError("an answer was not complete")
        return Seen(
            request_id=self._headers.get("x-request-id", ""),
            deployment=self._headers.get("x-headrace-deployment", ""),
            first_token_ms=(first_token_s - self._sent_s) * 1000,
            total_ms=(read_s - self._sent_s) * 1000,
            silence_ms=silence_s * 1000,
            paused_ms=paused_s * 1000,
        )


def _first_of(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        # What a nested group holds is not in its type.
        failed = cast("BaseExceptionGroup[BaseException]", failed).exceptions[0]
    return failed
