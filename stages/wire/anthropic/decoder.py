"""Decode the answer of an Anthropic Messages upstream into `stages.events`: a stream of events, or one document.

Source: Anthropic's Messages and streaming references (2026-08), nine recorded streams (docs/facts/recordings.md), and
docs/facts/translation.md, "Anthropic streams". Unknown events, blocks and fields are ignored, and so are tools that the
upstream ran itself (``server_tool_use``, ``mcp_tool_use`` and their results), which a client cannot carry out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from msgspec import Raw

from stages.events import Annotations, Failed, Finished, Heartbeat, Started, StreamEvent
from stages.wire.answers.failures import broken_protocol
from stages.wire.answers.finish import finish_of
from stages.wire.answers.notes import COMPACTED, refusal_note
from stages.wire.answers.request_traits import NO_TRAITS, RequestTraits
from stages.wire.answers.stream_decoder import EARLY_END, StreamDecoder
from stages.wire.answers.tool_calls import ToolCalls
from stages.wire.anthropic.blocks import AnswerBlocks
from stages.wire.anthropic.ends import UsageSoFar, failure_in
from stages.wire.anthropic.records import (
    BLOCK,
    DELTA,
    EVENT,
    HOT_DELTA,
    MESSAGE,
    STOP_DETAILS,
    BlockDelta,
    HotText,
    HotThinking,
    Message,
    StopDetails,
)
from stages.wire.foreign_json import Malformed, index, is_index, read, text

_NOT_A_MESSAGE = "The upstream's answer is not an Anthropic Messages document."
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class AnthropicDecoder(StreamDecoder["_AnthropicAnswer"]):
    """Decode a stream of events.

    Finished is emitted at ``message_stop`` or at the end of the input, if there was a stop reason.

    Args:
        traits: of the request that is answered. Anthropic has no log probabilities.
        tool_names: the client's name of each tool that was sent under another name (``request.py``, ``tool_names``).
    """

    has_types = True

    def __init__(self, traits: RequestTraits = NO_TRAITS, tool_names: Mapping[str, str] = _NO_NAMES) -> None:
        super().__init__(_AnthropicAnswer(traits, tool_names), traits.mended)

    def decode_all(self, datas: Iterator[bytes], out: list[StreamEvent], /) -> None:
        """Decode events: the deltas of text, thinking and arguments on a fast path."""
        answer = self._answer
        blocks = answer.blocks
        decode = HOT_DELTA.decode
        for data in datas:
            try:
                event = decode(data)
            except (ValueError, RecursionError):  # another kind of event, or one of an unexpected shape
                self.decode_cold(data, datas, out)
                if answer.is_over:
                    break
                continue
            if not answer.has_started:
                answer.ensure_started(Message(), out)
            delta = event.delta
            if isinstance(delta, HotText):
                blocks.add_text(event.index, delta.text, out)
            elif isinstance(delta, HotThinking):
                blocks.add_thinking(event.index, delta.thinking, out)
            else:
                blocks.add_arguments(event.index, delta.partial_json, out)


def decode_anthropic_document(
    body: bytes, traits: RequestTraits = NO_TRAITS, tool_names: Mapping[str, str] = _NO_NAMES
) -> list[StreamEvent]:
    """Decode a whole message, or an error, into the events of an equivalent stream.

    The last event is Finished or Failed. A document is complete by itself, so its stop reason may be missing.
    """
    answer = _AnthropicAnswer(traits, tool_names)
    out: list[StreamEvent] = []
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        event, message = read(EVENT, body), read(MESSAGE, body)
        if event is not None and (failed := failure_in(event)) is not None:
            answer.fail(failed, out)
        elif message is not None and (message.type == "message" or len(message.content)):
            answer.take_head(message, out)
            answer.stop_word = answer.stop_word or ""
            answer.end(out)
        else:
            answer.fail(broken_protocol(_NOT_A_MESSAGE), out)
    except Malformed:
        answer.fail(broken_protocol(_NOT_A_MESSAGE), out)
    return out


class _AnthropicAnswer:
    """What the upstream has sent so far of one answer.

    Attributes:
        blocks: its content. Nothing may be added to it before Started was emitted.
        has_started: whether Started was emitted.
        is_over: whether Finished or Failed was emitted; nothing may be decoded after it.
        stop_word: the upstream's stop reason, in its own words; None until it sends one.
    """

    def __init__(self, traits: RequestTraits, tool_names: Mapping[str, str]) -> None:
        # Custom tools were sent as functions, and what the upstream runs itself is not a `tool_use`: every call is one
        # of the client's.
        self._mended = traits.mended
        self._calls = ToolCalls(traits)
        self.blocks = AnswerBlocks(self._calls, tool_names, traits.mended)
        self._stop_details = StopDetails()
        self._usage = UsageSoFar()
        self._has_head = False
        self.has_started = False
        self.is_over = False
        self.stop_word: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has sent a stop reason."""
        return self.stop_word is not None

    def decode(self, data: bytes, out: list[StreamEvent]) -> None:
        """Decode any event, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        if data.strip() == b"[DONE]":  # not Anthropic's, but some gateways end all their streams with it
            self.end(out)
            return
        event = read(EVENT, data)
        if event is None:
            return
        match event.type:
            case "content_block_start":
                if (block := read(BLOCK, event.content_block)) is not None:
                    self.ensure_started(Message(), out)
                    self.blocks.start(self._index_of(event.index), block, out)
            case "content_block_delta":
                if (delta := read(DELTA, event.delta)) is not None:
                    self.ensure_started(Message(), out)
                    self.blocks.add_delta(index(event.index), delta, out)
            case "content_block_stop":
                self.blocks.stop(index(event.index), out)
            case "message_start":
                self.take_head(read(MESSAGE, event.message) or Message(), out)
            case "message_delta":
                self._usage.add(event.usage)
                delta = read(DELTA, event.delta) or BlockDelta()
                self._take_stop(delta.stop_reason, delta.stop_details)
            case "message_stop":
                self.end(out)
            case "ping":
                out.append(Heartbeat())
            case _:
                if (failed := failure_in(event)) is not None:
                    self.fail(failed, out)

    def take_head(self, message: Message, out: list[StreamEvent]) -> None:
        """Take a whole message or the head of one: only the first, because some gateways repeat it."""
        if self._has_head:
            return
        self._has_head = True
        self._usage.add(message.usage)
        self._take_stop(message.stop_reason, message.stop_details)
        if not self.has_started:
            # A stream has content here only when code that the upstream runs calls one of the client's tools.
            self.blocks.expect(message.content)
            self.ensure_started(message, out)

    def _index_of(self, number: object) -> int:
        if number is not None and not is_index(number):
            self._mended.add("item_index")
        return index(number)

    def _take_stop(self, word: object, details: Raw) -> None:
        if word == "null":
            self._mended.add("finish")
            word = None
        self.stop_word = text(word) or self.stop_word
        self._stop_details = read(STOP_DETAILS, details) or self._stop_details

    def ensure_started(self, message: Message, out: list[StreamEvent]) -> None:
        """Emit Started, unless it was emitted before."""
        if not self.has_started:
            self.has_started = True
            self._calls.answer_id = text(message.id)
            out.append(Started(text(message.id), text(message.model), 0, self._usage.service_tier))

    def end(self, out: list[StreamEvent]) -> None:
        """Take the end of the stream: Finished if there was a stop reason, Failed if not."""
        if self.stop_word is None:
            self.fail(broken_protocol(EARLY_END), out)
            return
        self.blocks.stop_all(out)
        finish = finish_of(self.stop_word, has_calls=self._calls.started > 0, has_text=self.blocks.has_text)
        if isinstance(finish, Failed):
            self.fail(finish, out)
            return
        self._calls.close_all(out, is_complete=finish in ("stop", "tool_calls"))
        if self.blocks.citations:
            out.append(Annotations(tuple(self.blocks.citations)))
        if (usage := self._usage.total()) is not None:
            out.append(usage)
        out.append(Finished(finish, self._note()))
        self.is_over = True

    def _note(self) -> str | None:
        if self.stop_word == "refusal":
            return refusal_note(text(self._stop_details.explanation), text(self._stop_details.category))
        return COMPACTED if self.stop_word == "compaction" or self.blocks.has_compaction else None

    def fail(self, failed: Failed, out: list[StreamEvent]) -> None:
        """End the answer with a failure."""
        if (usage := self._usage.total()) is not None:
            out.append(usage)
        out.append(failed)
        self.is_over = True
