"""Decode the output of an Anthropic Messages upstream into `stages.events`: a stream of events, or one document.

Source: Anthropic's Messages and streaming references (2026-08), nine recorded streams, and the mapping facts, section
1.6. Unknown events, blocks and fields are ignored; what the upstream ran itself (``server_tool_use``, ``mcp_tool_use``,
their results) is nothing that a client could carry out.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from stages.events import (
    Annotations,
    Failed,
    Finished,
    Heartbeat,
    Started,
    StreamEvent,
)
from stages.wire.answers.failures import broken_protocol
from stages.wire.answers.finish import finish_of
from stages.wire.answers.stream_decoder import EARLY_END, StreamDecoder
from stages.wire.answers.tool_calls import ToolCalls
from stages.wire.anthropic.blocks import AnswerBlocks
from stages.wire.anthropic.ends import Spent, failure_in
from stages.wire.anthropic.records import (
    BLOCK,
    DELTA,
    EVENT,
    HOT_DELTA,
    MESSAGE,
    BlockDelta,
    HotText,
    HotThinking,
    Message,
)
from stages.wire.foreign_json import Malformed, index, read, text

_NOT_A_MESSAGE = "The upstream's answer is not an Anthropic Messages document."

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class AnthropicDecoder(StreamDecoder["_AnthropicAnswer"]):
    """Decode a stream of events.

    Finished comes with ``message_stop`` or at the end of the input, if there was a stop reason.

    Args:
        custom_tools: names of the custom tools that the client declared. They were sent as functions of one string.
        used_call_ids: the ids of the calls in the conversation so far; none is given again.
        tool_names: the client's name of each tool that was sent under another (`anthropic_request.tool_names`).
    """

    def __init__(
        self,
        *,
        custom_tools: AbstractSet[str] = frozenset(),
        used_call_ids: AbstractSet[str] = frozenset(),
        tool_names: Mapping[str, str] = _NO_NAMES,
    ) -> None:
        super().__init__(
            _AnthropicAnswer(
                custom_tools=custom_tools,
                used_call_ids=used_call_ids,
                tool_names=tool_names,
            )
        )

    def decode_all(self, datas: list[bytes], out: list[StreamEvent], /) -> None:
        """Decode events: the deltas of text, thinking and arguments in a hurry."""
        answer = self._answer
        blocks = answer.blocks
        decode = HOT_DELTA.decode
        for data in datas:
            try:
                event = decode(data)
            except (ValueError, RecursionError):  # another kind of event, or a surprise in this one
                answer.decode(data, out)
                if answer.is_over:
                    break
                continue
            if not answer.has_started:
                answer.announce(Message(), out)
            delta = event.delta
            if isinstance(delta, HotText):
                blocks.say(event.index, delta.text, out)
            elif isinstance(delta, HotThinking):
                blocks.think(event.index, delta.thinking, out)
            else:
                blocks.argue(event.index, delta.partial_json, out)


def decode_anthropic_document(
    body: bytes,
    *,
    custom_tools: AbstractSet[str] = frozenset(),
    used_call_ids: AbstractSet[str] = frozenset(),
    tool_names: Mapping[str, str] = _NO_NAMES,
) -> list[StreamEvent]:
    """Decode a whole message, or an error, into the events that its stream would have given.

    The arguments are those of `AnthropicDecoder`. The last event is Finished or Failed. A document is complete by
    being one, so it may lack its stop reason.
    """
    answer = _AnthropicAnswer(
        custom_tools=custom_tools,
        used_call_ids=used_call_ids,
        tool_names=tool_names,
    )
    out: list[StreamEvent] = []
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        event, message = read(EVENT, body), read(MESSAGE, body)
        if event is not None and (failed := failure_in(event)) is not None:
            answer.fail(failed, out)
        elif message is not None and (message.type == "message" or len(message.content)):
            answer.start(message, out)
            answer.stop_word = answer.stop_word or ""
            answer.end(out)
        else:
            answer.fail(broken_protocol(_NOT_A_MESSAGE), out)
    except Malformed:
        answer.fail(broken_protocol(_NOT_A_MESSAGE), out)
    return out


class _AnthropicAnswer:
    """What the upstream has said so far.

    Attributes:
        blocks: what it consists of. Nothing may be put there before Started was given.
        has_started: whether Started was given.
        is_over: whether Finished or Failed was given; nothing may be decoded after it.
        stop_word: the upstream's stop reason, in its own words; None until it gives one.
    """

    def __init__(
        self,
        *,
        custom_tools: AbstractSet[str],
        used_call_ids: AbstractSet[str],
        tool_names: Mapping[str, str],
    ) -> None:
        # What the upstream runs itself is no `tool_use` here, so nothing needs to be told from the client's calls.
        self._calls = ToolCalls(custom_tools=custom_tools, has_hosted_tools=False, used_call_ids=used_call_ids)
        self.blocks = AnswerBlocks(self._calls, tool_names)
        self._spent = Spent()
        self._has_head = False
        self.has_started = False
        self.is_over = False
        self.stop_word: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has said why it stopped."""
        return self.stop_word is not None

    def decode(self, data: bytes, out: list[StreamEvent]) -> None:
        """Decode any event, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        if data.strip() == b"[DONE]":  # not Anthropic's, but some gateways end all their streams so
            self.end(out)
            return
        event = read(EVENT, data)
        if event is None:
            return
        match event.type:
            case "content_block_start":
                if (block := read(BLOCK, event.content_block)) is not None:
                    self.announce(Message(), out)
                    self.blocks.begin(index(event.index), block, out)
            case "content_block_delta":
                if (delta := read(DELTA, event.delta)) is not None:
                    self.announce(Message(), out)
                    self.blocks.proceed(index(event.index), delta, out)
            case "content_block_stop":
                self.blocks.stop(index(event.index), out)
            case "message_start":
                self.start(read(MESSAGE, event.message) or Message(), out)
            case "message_delta":
                self._spent.add(event.usage)
                delta = read(DELTA, event.delta) or BlockDelta()
                self.stop_word = text(delta.stop_reason) or self.stop_word
            case "message_stop":
                self.end(out)
            case "ping":
                out.append(Heartbeat())
            case _:
                if (failed := failure_in(event)) is not None:
                    self.fail(failed, out)

    def start(self, message: Message, out: list[StreamEvent]) -> None:
        """Take a whole message or the head of one: the first; some gateways repeat it."""
        if self._has_head:
            return
        self._has_head = True
        self._spent.add(message.usage)
        self.stop_word = text(message.stop_reason) or self.stop_word
        if not self.has_started:
            # In a stream there is content here only when code that the upstream runs calls a tool of the client's.
            self.blocks.expect(message.content)
            self.announce(message, out)

    def announce(self, message: Message, out: list[StreamEvent]) -> None:
        """Give Started, if it has not been given."""
        if not self.has_started:
            self.has_started = True
            self._calls.answer_id = text(message.id)
            out.append(Started(text(message.id), text(message.model), 0, self._spent.service_tier))

    def end(self, out: list[StreamEvent]) -> None:
        """Take the end of the stream: good if there was a stop reason."""
        if self.stop_word is None:
            self.fail(broken_protocol(EARLY_END), out)
            return
        self.blocks.stop_all(out)
        finish = finish_of(self.stop_word, has_calls=self._calls.started > 0)
        if isinstance(finish, Failed):
            self.fail(finish, out)
            return
        self._calls.close_all(out, is_complete=finish in ("stop", "tool_calls"))
        if self.blocks.citations:
            out.append(Annotations(tuple(self.blocks.citations)))
        if (usage := self._spent.usage()) is not None:
            out.append(usage)
        out.append(Finished(finish))
        self.is_over = True

    def fail(self, failed: Failed, out: list[StreamEvent]) -> None:
        if (usage := self._spent.usage()) is not None:
            out.append(usage)
        out.append(failed)
        self.is_over = True
