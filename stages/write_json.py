"""Write the document to the client.

Takes: bytes, one JSON document. Gives: nothing.
Holds: the document. Waits: for the client to read it (declared). Raises: nothing of its own.
"""

from __future__ import annotations

from typing import Never

from pipeline import Lane, Party, RequestContext, codec_stage
from stages.slots import RESPONSE


class _WriteJson:
    __slots__ = ("_parts", "_response")

    def __init__(self, ctx: RequestContext) -> None:
        self._response = ctx[RESPONSE]
        self._parts: list[bytes] = []

    async def feed(self, batch: list[bytes], lane: Lane, /) -> list[Never]:
        """Hold the document until it is complete."""
        self._parts += batch
        return []

    async def flush(self, lane: Lane, /) -> list[Never]:
        """Write the whole document as one response."""
        response = self._response
        body = b"".join(self._parts)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        response.start(200, headers, is_whole=True)
        if not response.write_nowait(body, last=True):
            if response.took_some:
                lane.timeline.begin_delivery(lane.origin_ns)
            with lane.outside(Party.CLIENT):
                await response.drain()
        lane.timeline.deliver(lane.origin_ns)
        return []


write_json = codec_stage("write_json", _WriteJson)
