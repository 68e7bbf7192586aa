"""Turn the upstream's bytes into events.

Takes: bytes however they were cut, and a Failed if they broke off. Gives: StreamEvent, n:m; the last one is Finished
or Failed, whatever the upstream did.
Holds: at most one unfinished event (16 MiB), or a whole JSON document (64 MiB) if the upstream does not stream.
Raises: nothing: what is wrong with the answer becomes a Failed, behind the events that were good.
Fills: USAGE, FAILURE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypedDict

from msgspec import structs

from pipeline import RequestContext, codec_stage
from stages.events import Failed, Finished, StreamEvent, Usage
from stages.slots import ANSWER, CALL, FAILURE, USAGE
from stages.upstreams import UpstreamKind
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document
from stages.wire.anthropic.request import tool_names
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.normal_form import call_ids_of
from stages.wire.redaction import message_to_show, secrets_in
from stages.wire.responses.decoder import ResponsesDecoder, decode_document
from stages.wire.responses.request import wrapped_tools
from stages.wire.responses.wrapped_calls import WrappedCalls

MAX_DOCUMENT_BYTES = 64 << 20
"""A whole answer with images in it; four times the limit of one event."""


_ENDS = (Finished, Failed)  # a union made anew for each look at a batch costs more than the look


class Wanted(TypedDict, total=False):
    """What a decoder needs to know of the request."""

    custom_tools: frozenset[str]
    used_call_ids: frozenset[str]
    # Anthropic's: it has no log probabilities, and what it runs itself does not look like a call of the client's.
    tool_names: Mapping[str, str]
    # All others'.
    has_hosted_tools: bool
    wants_logprobs: bool


class Decoder(Protocol):
    """What the decoders of all formats offer."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although its end has not been given: only what may be missing is lost."""
        ...

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]: ...

    def flush(self) -> list[StreamEvent]: ...


FORMATS: dict[UpstreamKind, tuple[Callable[..., Decoder], Callable[..., list[StreamEvent]]]] = {
    "responses": (ResponsesDecoder, decode_document),
    "canned": (ResponsesDecoder, decode_document),
    "chat": (ChatDecoder, decode_chat_document),
    "anthropic": (AnthropicDecoder, decode_anthropic_document),
}
"""How each kind of upstream answers: in a stream, and in one document. Both take the same keywords."""


class _Decode:
    """Decodes a stream of events, or a document, whichever the upstream sends."""

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self._decoder: Decoder | _Document | None = None
        self._wrapped: WrappedCalls | None = None
        self._ended = False

    def feed(self, batch: list[bytes | Failed], /) -> list[StreamEvent]:
        chunks = [item for item in batch if isinstance(item, bytes)]
        decoder = self._decoder or self._open()
        events = self._noted(decoder.feed(chunks)) if chunks else []
        if not self._ended and isinstance(broken := batch[-1], Failed):
            events += self._noted(decoder.flush() if decoder.is_complete else [broken])
        return events

    def flush(self) -> list[StreamEvent]:
        decoder = self._decoder or self._open()
        return [] if self._ended else self._noted(decoder.flush())

    def _open(self) -> Decoder | _Document:
        call = self._ctx[CALL]
        answer = self._ctx.get(ANSWER)
        make_decoder, decode = FORMATS[call.deployment.kind]
        if call.deployment.kind == "responses" and call.request.custom_tools:
            names = wrapped_tools(call.request.custom_tools, call.deployment.provider)
            self._wrapped = WrappedCalls(names) if names else None
        wanted: Wanted = {
            "custom_tools": call.request.custom_tools,
            "used_call_ids": call_ids_of(call.request.body),
        }
        if call.deployment.kind == "anthropic":
            wanted["tool_names"] = tool_names(call.request)
        else:
            wanted["has_hosted_tools"] = call.request.has_hosted_tools
            wanted["wants_logprobs"] = call.request.wants_logprobs
        if answer is None or answer.is_stream:
            self._decoder = make_decoder(**wanted)
        else:
            self._decoder = _Document(partial(decode, **wanted))
        return self._decoder

    def _noted(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Leave notes when the end is among ``events``: it is always the last one."""
        if self._wrapped is not None:
            events = self._wrapped.feed(events)
        if events and isinstance(end := events[-1], _ENDS):
            self._ended = True
            if (answer := self._ctx.get(ANSWER)) is not None:
                answer.expect_end()
            if isinstance(end, Failed):
                self._ctx[FAILURE] = events[-1] = self._without_secrets(end)
            for event in events:
                if isinstance(event, Usage):
                    self._ctx[USAGE] = event
        return events

    def _without_secrets(self, failed: Failed) -> Failed:
        """Remove what the deployment sends as credentials; decoders do not know it, and remove what looks like some."""
        secrets = secrets_in(self._ctx[CALL].deployment.headers)
        message, word = failed.message, failed.upstream_code
        return structs.replace(
            failed,
            message=message_to_show(message, secrets),
            upstream_code=word and message_to_show(word, secrets),
        )


class _Document:
    """Decodes an answer that is one JSON document, when all of it is here."""

    is_complete = False

    def __init__(self, decode: Callable[[bytes], list[StreamEvent]]) -> None:
        self._decode = decode
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
        return self._decode(b"".join(self._parts))


decode_events = codec_stage("decode_events", _Decode, accepts=bytes | Failed, emits=StreamEvent)
