"""Write the stream to the client, committing to status 200 with the first bytes.

Takes: bytes, the frames of a batch. Gives: nothing. The end of the stream ends its input.
Holds: nothing. Waits: for the client to read the bytes (declared).
Raises: nothing of its own. Until its first write, a failure of any stage becomes an HTTP status.
"""

from __future__ import annotations

from typing import Never

from pipeline import Lane, Party, RequestContext, codec_stage
from stages.slots import RESPONSE
from stages.wire.downstream.chat_stream import DONE

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # tells nginx, and proxies that do the same, not to buffer the stream
]


class _WriteSse:
    __slots__ = ("_is_started", "_response", "done")
    may_be_pushed = True

    def __init__(self, ctx: RequestContext) -> None:
        self._response = ctx[RESPONSE]
        self._is_started = False
        self.done = False

    async def feed(self, batch: list[bytes], lane: Lane, /) -> list[Never]:
        """Write the batch at once, after the head if it is the first.

        Nothing may follow ``[DONE]``, so the response ends with it: one write fewer, and no waiting for the upstream.
        """
        response, timeline = self._response, lane.timeline
        if not self._is_started:
            self._is_started = True
            response.start(200, HEADERS)
        self.done = batch[-1].endswith(DONE)
        frames = batch[0] if len(batch) == 1 else b"".join(batch)
        # A comment, which keep_alive may send before anything else, delivers nothing.
        is_content = timeline.has_delivered or not frames.startswith(b":")
        if not response.write_nowait(frames, last=self.done):
            if response.took_some and is_content:
                timeline.begin_delivery(lane.origin_ns)
            await lane.own_task()
            with lane.outside(Party.CLIENT):
                await response.drain()
        if is_content:
            timeline.deliver(lane.origin_ns)
        return []

    async def flush(self, lane: Lane, /) -> list[Never]:
        """End the response if it has not ended: the stream is complete."""
        if self.done:
            return []
        if not self._is_started:
            self._response.start(200, HEADERS)
        if not self._response.write_nowait(b"", last=True):
            await lane.own_task()  # the end may be pushed as well, if a stage before this one is done
            with lane.outside(Party.CLIENT):
                await self._response.drain()
        return []


write_sse = codec_stage("write_sse", _WriteSse)
