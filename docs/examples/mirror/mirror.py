"""Copy every answer's events to a file, one JSON object a line, and write how each request ended.

Takes and gives StreamEvent, 1:1, unchanged. Never waits: if the file falls behind by ``max_waiting`` batches, further
ones are not copied, and ``dropped_lines_total`` counts their lines.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from pipeline import Host, Outcome, Plugin, Stage, codec_stage
from stages.events import StreamEvent


class Options(msgspec.Struct, frozen=True):
    file: str
    max_waiting: int = 5_000


class Mirror:
    """Holds nothing: a batch is encoded at once, because its next owner may change it."""

    def __init__(self, request_id: str, put: Callable[[list[object]], None]) -> None:
        self._request_id, self._put = request_id, put

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        self._put([{"request": self._request_id, "event": event} for event in batch])
        return batch

    def flush(self) -> list[StreamEvent]:
        return []

    def close(self, outcome: Outcome) -> None:
        end = outcome.error.code if outcome.error else "complete" if outcome.is_complete else "cancelled"
        self._put([{"request": self._request_id, "end": end}])


@asynccontextmanager
async def mirror(options: Options, host: Host) -> AsyncIterator[Stage[StreamEvent, StreamEvent]]:
    """Copy every answer's events to a file, and write how each request ended."""
    file = await trio.open_file(options.file, "ab", buffering=0)
    send, receive = trio.open_memory_channel[bytes](options.max_waiting)  # noqa: TID251 - not a link between stages
    dropped = host.counter("dropped_lines_total", "lines that the file was too slow for")
    encoder = msgspec.json.Encoder()

    def put(lines: list[object]) -> None:
        try:
            send.send_nowait(encoder.encode_lines(lines))
        except trio.WouldBlock:
            dropped.inc(len(lines))

    async def write() -> None:
        async for lines in receive:
            more = [receive.receive_nowait() for _ in range(receive.statistics().current_buffer_used)]
            await file.write(b"".join([lines, *more]))  # in a thread

    async with file, host.background(write), send:  # left in reverse: nothing more is sent, all is written
        yield codec_stage("mirror", lambda ctx: Mirror(ctx.request_id, put), codec=Mirror)


plugin = Plugin("mirror", serve=mirror, options=Options, accepts=StreamEvent, emits=StreamEvent)
