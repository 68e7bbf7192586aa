"""Copy every answer's events to a file, one JSON object a line, and write how each request ended.

Takes and gives StreamEvent, 1:1, unchanged. Never waits: if the file falls behind by ``max_waiting`` batches, further
ones are not copied. ``missing_lines`` is how many lines are not in the file, or not yet.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from pipeline import Host, Outcome, Plugin, Stage, codec_stage
from stages.events import Failed, StreamEvent


class Options(msgspec.Struct, frozen=True):
    file: str
    max_waiting: int = 5_000


class Mirror:
    """Holds how the answer broke off. A batch is encoded at once, because its next owner may change it."""

    def __init__(self, request_id: str, put: Callable[[list[object]], None]) -> None:
        self._request_id, self._put, self._end = request_id, put, "complete"

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        self._put([{"request": self._request_id, "event": event} for event in batch])
        self._end = next((event.code for event in batch if isinstance(event, Failed)), self._end)
        return batch

    def flush(self) -> list[StreamEvent]:
        return []

    def close(self, outcome: Outcome) -> None:
        end = outcome.error.code if outcome.error else self._end if outcome.is_complete else "cancelled"
        self._put([{"request": self._request_id, "end": end}])


@asynccontextmanager
async def mirror(options: Options, host: Host) -> AsyncIterator[Stage[StreamEvent, StreamEvent]]:
    """Copy every answer's events to a file, and write how each request ended."""
    file = await trio.open_file(options.file, "ab", buffering=0)
    send, receive = trio.open_memory_channel[bytes](options.max_waiting)  # noqa: TID251 - not a link between stages
    missing = host.gauge("missing_lines", "lines that are not in the file, or not yet")

    def put(lines: list[object]) -> None:
        missing.inc(len(lines))
        with suppress(trio.WouldBlock):  # then they stay missing
            send.send_nowait(msgspec.json.Encoder().encode_lines(lines))

    async def write() -> None:
        async for lines in receive:
            text = lines + b"".join(receive.receive_nowait() for _ in range(receive.statistics().current_buffer_used))
            await file.write(text)  # in a thread
            missing.inc(-text.count(b"\n"))

    async with file, host.background(write), send:  # left in reverse: nothing more is sent, all is written
        yield codec_stage("mirror", lambda ctx: Mirror(ctx.request_id, put), codec=Mirror)


plugin = Plugin("mirror", serve=mirror, options=Options, accepts=StreamEvent, emits=StreamEvent)
