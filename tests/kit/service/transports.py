"""A transport without a socket: what it sends and when it has bytes is up to the test."""

from __future__ import annotations

import trio


class FakeTransport:
    """A `ByteTransport` with room for ``room_bytes``; when it is full, a send waits for `make_room`.

    Its reads return ``incoming`` in turn, where None means that it was readable for nothing; then they wait.
    """

    has_stalled = False

    def __init__(self, *incoming: bytes | None, room_bytes: int = 1_000_000) -> None:
        self.room_bytes = room_bytes
        self.sent: list[bytes] = []
        self._incoming = list(incoming)
        self._has_room = trio.Event()

    def make_room(self) -> None:
        self._has_room.set()

    async def start(self) -> None:
        await trio.lowlevel.checkpoint()

    def send_nowait(self, chunk: bytes, /) -> int:
        accepted = chunk[: self.room_bytes]
        self.room_bytes -= len(accepted)
        if accepted:
            self.sent.append(accepted)
        return len(accepted)

    async def send_all(self, chunk: bytes | memoryview, /) -> None:
        await self._has_room.wait()
        self.sent.append(bytes(chunk))

    async def wait_readable(self) -> None:
        if not self._incoming:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    def receive_nowait(self) -> bytes | None:
        return self._incoming.pop(0)

    def receive_stamped(self) -> tuple[bytes | None, int]:
        return self.receive_nowait(), 0

    def stop_sending(self) -> None:
        self.make_room()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def discard_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    def abort(self) -> None:
        self.make_room()

    def close(self) -> None:
        self.make_room()
