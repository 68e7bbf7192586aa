"""Turn the upstream's bytes into events.

Takes: bytes, however they were cut, and a Failed if they broke off. Gives: StreamEvent, n:m; the last one is Finished
or Failed, whatever the upstream did. That one ends its input: what follows from the upstream is not needed.
Holds: at most one unfinished event (16 MiB), or a whole JSON document (64 MiB) if the upstream does not stream.
Waits: for nothing; if the answer is whole, but its end does not come within `END_GRACE_S`, it ends it.
Raises: nothing: what is wrong with the answer becomes a Failed, after the events that were good.
Fills: USAGE, FAILURE.
"""

from __future__ import annotations

from typing import Any, Final, cast

from msgspec import structs

from pipeline import RequestContext, codec_stage
from stages.events import (
    Failed,
    Finished,
    Heartbeat,
    StreamEvent,
    Usage,
    has_output,
    has_reasoning,
)
from stages.request import ResponsesRequest
from stages.slots import CALL, FAILURE, IS_STREAM, USAGE
from stages.upstreams.apis import ANSWERS
from stages.upstreams.providers import quirks_of
from stages.wire.answers.renamed_tools import RenamingDecoder
from stages.wire.api import AnswerDecoder, Api
from stages.wire.redaction import message_to_show

MAX_DOCUMENT_BYTES = 64 << 20
"""A whole answer with images in it; four times the limit of one event."""

END_GRACE_S: Final = 1.0
"""How long the end of an answer may take after its finish reason. Usage may come between, and most upstreams send all
three at once; some never end their stream."""

_ENDS = (Finished, Failed)  # building the union for each batch would cost more than the check


class _Decode:
    """Decodes a stream of events, or a document, whichever the upstream sends.

    It ticks while only the end of the answer is missing, which is not awaited for long.
    """

    done = False
    ticks = False
    tick_ends = True

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self._decoder: AnswerDecoder | None = None
        self._has_output = False

    def feed(self, batch: list[bytes | Failed], /) -> list[StreamEvent]:
        broken = batch[-1] if isinstance(batch[-1], Failed) else None
        # It is the last item, if any: to look at each would cost more than the rest of this stage.
        chunks = cast("list[bytes]", batch if broken is None else batch[:-1])
        decoder = self._decoder or self._open()
        events = self._noted(decoder.feed(chunks)) if chunks else []
        if not self.done:
            if broken is not None:
                events += self._noted(decoder.break_off(broken))
            elif decoder.is_complete:
                self.ticks = True
                if events and type(events[-1]) is Heartbeat:  # output would put the end off
                    events = [event for event in events if type(event) is not Heartbeat]
        return events

    def flush(self) -> list[StreamEvent]:
        decoder = self._decoder or self._open()
        return [] if self.done else self._noted(decoder.flush())

    def tick(self) -> list[StreamEvent]:
        return self.flush()

    def _open(self) -> AnswerDecoder:
        call = self._ctx[CALL]
        api = ANSWERS[call.deployment.kind]
        quirks = quirks_of(api, call.deployment, call.model)
        decoder: AnswerDecoder
        if self._ctx[IS_STREAM]:
            decoder = api.open_decoder(call.request, quirks)
        else:
            decoder = _Document(api, call.request, quirks)
        if call.request.tool_names:
            decoder = RenamingDecoder(decoder, call.request.tool_names)
        self._decoder = decoder
        return decoder

    def _noted(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Note the first token; fill the slots if ``events`` include the end, which is always the last one."""
        if not self._has_output and events:
            self._note_tokens(events)
        if events and isinstance(end := events[-1], _ENDS):
            self.done = True
            self.ticks = False
            self._ctx.timeline.mark_once("upstream_end")
            if isinstance(end, Failed):
                self._ctx[FAILURE] = events[-1] = self._without_secrets(end)
            for event in events:
                if isinstance(event, Usage):
                    self._ctx[USAGE] = event
        return events

    def _note_tokens(self, events: list[StreamEvent]) -> None:
        timeline = self._ctx.timeline
        timeline.mark_once("first_event")
        self._has_output = has_output(events)
        if self._has_output or has_reasoning(events):
            timeline.see_token(is_output=self._has_output)

    def _without_secrets(self, failed: Failed) -> Failed:
        """Remove what the deployment sends as credentials; decoders do not know it, and remove what looks like some."""
        call = self._ctx[CALL]
        secrets = call.deployment.secrets | call.client_secrets
        message, word = failed.message, failed.upstream_code
        return structs.replace(
            failed,
            message=message_to_show(message, secrets),
            upstream_code=word and message_to_show(word, secrets),
        )


class _Document:
    """An `AnswerDecoder` for an answer that is one JSON document: it is decoded when all of it has arrived."""

    is_complete = False

    # Any: the quirks are those of the API, whichever it is.
    def __init__(self, api: Api[Any], request: ResponsesRequest, quirks: Any) -> None:
        self._api = api
        self._request = request
        self._quirks = quirks
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        self._parts += batch
        self._size += sum(map(len, batch))
        if self._size > MAX_DOCUMENT_BYTES:
            self._parts.clear()
            return [Failed("upstream_protocol", f"the upstream's answer is larger than {MAX_DOCUMENT_BYTES:,} bytes")]
        return []

    def flush(self) -> list[StreamEvent]:
        return self._api.decode_document(b"".join(self._parts), self._request, self._quirks)

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        return [failed]


decode_events = codec_stage("decode_events", _Decode, tick_s=END_GRACE_S)
