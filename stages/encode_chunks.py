"""Encode events as server-sent Chat Completions chunks.

Takes: StreamEvent. Gives: bytes, at most one item per batch with all its frames; ``data: [DONE]`` ends a good stream.
Holds: a few names. Waits: for nothing. Fills: ENCODER, and FAILURE with what the client was told.
Raises: UpstreamFault if the stream failed before it produced anything, so that it can still become a status.
A later failure is reported in the stream, in the form that the client profile needs.
Source: OpenAI API reference, Chat Completions streaming (2026-08); docs/facts/translation.md.
"""

from __future__ import annotations

from pipeline import RequestContext, codec_stage
from stages.events import StreamEvent
from stages.slots import CALL, ENCODER, FAILURE, HEAD, PROFILE
from stages.upstreams.faults import fault_from
from stages.wire.downstream.chat_stream import ChunkEncoder


class _Encode:
    __slots__ = ("_ctx", "_encoder")

    def __init__(self, ctx: RequestContext) -> None:
        request = ctx[CALL].request
        self._encoder = ChunkEncoder(
            model=request.requested_model,
            chunk_id=f"chatcmpl-{ctx.request_id}",
            created=ctx[HEAD].received_s,
            include_usage=request.include_usage,
            profile=ctx[PROFILE],
            mended=request.mended,
        )
        self._ctx = ctx
        ctx[ENCODER] = self._encoder

    def feed(self, batch: list[StreamEvent], /) -> list[bytes]:
        return self._checked(self._encoder.feed(batch))

    def flush(self) -> list[bytes]:
        frames = self._checked(self._encoder.flush())
        if (reported := self._encoder.reported) is not None:
            # Of the upstream's failures the decoder knows. But an added stage may break an answer off, too.
            self._ctx[FAILURE] = reported
        return frames

    def _checked(self, frames: list[bytes]) -> list[bytes]:
        if (failed := self._encoder.failed) is not None:
            raise fault_from(failed)
        return frames


encode_chunks = codec_stage("encode_chunks", _Encode)
