"""Write the document to the client.

Takes: bytes, one JSON document. Gives: nothing.
Holds: the document. Waits: for the client to read it (declared). Raises: nothing of its own.
"""

from __future__ import annotations

from typing import Never

from pipeline import Meter, RequestContext, async_codec_stage
from stages.slots import RESPONSE


class _WriteJson:
    __slots__ = ("_meter", "_parts", "_response")

    def __init__(self, ctx: RequestContext, meter: Meter) -> None:
        self._response = ctx[RESPONSE]
        self._meter = meter
        self._parts: list[bytes] = []

    async def feed(self, batch: list[bytes], /) -> list[Never]:
        """Hold the document until it is complete."""
        self._parts += batch
        return []

    async def flush(self) -> list[Never]:
        """Write the whole document as one response."""
        body = b"".join(self._parts)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self._response.start(200, headers)
        if not self._response.write_nowait(body, last=True):
            with self._meter.outside():
                await self._response.drain()
        return []


write_json = async_codec_stage("write_json", _WriteJson, accepts=bytes)
