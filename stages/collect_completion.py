"""Collect all events of an answer into one Chat Completions document, for a client that does not stream.

Takes: StreamEvent. Gives: bytes, one JSON document, when the answer is complete.
Holds: the whole answer. Waits: for nothing. Raises: UpstreamFault if the answer broke off.
"""

from __future__ import annotations

from pipeline import RequestContext, codec_stage
from stages.events import StreamEvent
from stages.slots import CALL, HEAD, PROFILE
from stages.upstreams.faults import fault_from
from stages.wire.downstream.chat_document import CompletionCollector


class _Collect:
    __slots__ = ("_collector",)

    def __init__(self, ctx: RequestContext) -> None:
        request = ctx[CALL].request
        self._collector = CompletionCollector(
            model=request.requested_model,
            chunk_id=f"chatcmpl-{ctx.request_id}",
            created=ctx[HEAD].received_s,
            profile=ctx[PROFILE],
            mended=request.mended,
        )

    def feed(self, batch: list[StreamEvent], /) -> list[bytes]:
        return self._checked(self._collector.feed(batch))

    def flush(self) -> list[bytes]:
        return self._checked(self._collector.flush())

    def _checked(self, documents: list[bytes]) -> list[bytes]:
        if (failed := self._collector.failed) is not None:
            raise fault_from(failed)
        return documents


collect_completion = codec_stage("collect_completion", _Collect)
