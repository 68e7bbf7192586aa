"""Write the stream to the client, committing to status 200 with the first bytes.

Takes: bytes, the frames of a batch. Gives: nothing.
Holds: nothing. Waits: for the client to read the bytes (declared).
Raises: nothing of its own. Until its first write, a failure of any stage becomes an HTTP status.
"""

from __future__ import annotations

from typing import Never

from pipeline import Meter, RequestContext, async_codec_stage
from stages.slots import RESPONSE
from stages.wire.downstream.chat_stream import DONE

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # tells nginx, and proxies that do the same, not to buffer the stream
]


class _WriteSse:
    __slots__ = ("_has_ended", "_is_started", "_meter", "_response")

    def __init__(self, ctx: RequestContext, meter: Meter) -> None:
        self._response = ctx[RESPONSE]
        self._meter = meter
        self._is_started = False
        self._has_ended = False

    async def feed(self, batch: list[bytes], /) -> list[Never]:
        """Write the batch at once, after the head if it is the first.

        Nothing may follow ``[DONE]``, so the response ends with it: one write fewer, and no waiting for the upstream.
        """
        if self._has_ended:
            return []
        if not self._is_started:
            self._is_started = True
            self._response.start(200, HEADERS)
        self._has_ended = batch[-1].endswith(DONE)
        frames = batch[0] if len(batch) == 1 else b"".join(batch)
        if not self._response.write_nowait(frames, last=self._has_ended):
            with self._meter.outside():
                await self._response.drain()
        return []

    async def flush(self) -> list[Never]:
        """End the response if it has not ended: the stream is complete."""
        if self._has_ended:
            return []
        if not self._is_started:
            self._response.start(200, HEADERS)
        if not self._response.write_nowait(b"", last=True):
            with self._meter.outside():
                await self._response.drain()
        return []


write_sse = async_codec_stage("write_sse", _WriteSse, accepts=bytes)
