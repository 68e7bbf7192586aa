"""Decode the answer of a Responses upstream into `stages.events`: a stream of events, or one document.

Source: OpenAI's Responses API (openai-python 3.54, openai-openapi 2.3.0) and 33 recorded streams of eight vendors
(docs/facts/recordings.md); the rules are in docs/facts/translation.md, "Answers". Unknown events, items and fields are
ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

from stages.events import StreamEvent, TextDelta
from stages.wire.answers.failures import broken_protocol, error_of
from stages.wire.answers.request_traits import NO_TRAITS, RequestTraits
from stages.wire.answers.sent import Sent
from stages.wire.answers.stream_decoder import TYPE_FIRST, StreamDecoder
from stages.wire.foreign_json import Malformed, read
from stages.wire.responses.events import EventDecoder
from stages.wire.responses.records import (
    HOT,
    HOT_WITHOUT_TEXT,
    RESPONSE,
    ArgumentsDelta,
    InputDelta,
    OutputTextDelta,
    Response,
    SummaryDelta,
)

_NOT_A_RESPONSE = "The upstream's answer is not a Responses API document."
_NOT_COMPLETE = "The upstream answered with a response that is still in progress."


class ResponsesDecoder(StreamDecoder[EventDecoder]):
    """Decode a stream of the Responses API's events.

    Args:
        traits: of the request that is answered.
        keeps_plain: whether the upstream reads reasoning as text in the next turn.
    """

    has_types = True

    def __init__(self, traits: RequestTraits = NO_TRAITS, *, keeps_plain: bool = False) -> None:
        super().__init__(EventDecoder(traits, keeps_plain=keeps_plain), traits.mended)
        self._decode_hot = (HOT_WITHOUT_TEXT if traits.wants_logprobs else HOT).decode
        # The text part of the last hot delta, which nearly every delta continues.
        self._output_index: int | None = None
        self._content_index: int | None = None
        self._sent = Sent()

    def decode_all(self, datas: Iterator[bytes], out: list[StreamEvent], /) -> None:
        """Decode events. The loop is unrolled for text: every call in it costs 5-10 % (benchmarks/bench_codec.py)."""
        answer = self._answer
        append = out.append
        decode = self._decode_hot
        tail = self._sent.tail
        for data in datas:
            try:
                event = decode(data)
            except (ValueError, RecursionError):  # another kind of event, or one of an unexpected shape
                if b"\\" not in data and data.startswith(TYPE_FIRST):  # nothing that `decode_cold` would mend
                    answer.decode(data, out)
                else:
                    self.decode_cold(data, datas, out)
                if answer.is_over:
                    break
                continue
            delta = event.delta
            if not delta:
                continue
            if type(event) is OutputTextDelta:
                if event.content_index != self._content_index or event.output_index != self._output_index:
                    delta = self._switch_to(event, out) + delta
                    tail = self._sent.tail
                tail.append(event.delta)
                append(TextDelta(delta))
            else:
                if not answer.has_started:
                    answer.start(Response(), out)
                if type(event) is ArgumentsDelta:
                    answer.calls.delta(event.output_index, delta, out)
                elif type(event) is InputDelta:
                    answer.calls.delta(event.output_index, delta, out, is_custom=True)
                elif type(event) is SummaryDelta:
                    answer.reasoning.delta("summary", event.output_index, event.summary_index, delta, out)
                else:
                    answer.reasoning.delta("raw", event.output_index, event.content_index, delta, out)
        self._sent.compact()

    def _switch_to(self, event: OutputTextDelta, out: list[StreamEvent]) -> str:
        """Make the part of a delta the current one, and return the separator that belongs before the delta."""
        if not self._answer.has_started:
            self._answer.start(Response(), out)
        self._output_index, self._content_index = event.output_index, event.content_index
        sent = self._answer.messages.part(event.output_index, event.content_index)
        separator = ""
        if sent is None:
            sent, separator = self._answer.messages.open(event.output_index, event.content_index)
        self._sent.compact()
        self._sent = sent
        return separator


def decode_document(body: bytes, traits: RequestTraits = NO_TRAITS, *, keeps_plain: bool = False) -> list[StreamEvent]:
    """Decode a whole Response, or an ``{"error": ...}``, into the events of an equivalent stream.

    The last event is Finished or Failed.
    """
    events = EventDecoder(traits, keeps_plain=keeps_plain)
    out: list[StreamEvent] = []
    try:
        response = read(RESPONSE, body.removeprefix(b"\xef\xbb\xbf"))
        if response is None:
            events.fail(broken_protocol(_NOT_A_RESPONSE), out)
            return out
        error = error_of(response.error)
        if response.id is not None:
            events.start(response, out)
        if response.status in ("queued", "in_progress") and error is None:
            events.fail(broken_protocol(_NOT_COMPLETE), out)
        elif response.status is None and error is None and not len(response.output):
            events.fail(broken_protocol(_NOT_A_RESPONSE), out)
        else:
            events.conclude("failed" if error is not None else "completed", response, out)
    except Malformed:
        events.fail(broken_protocol(_NOT_A_RESPONSE), out)
    return out
