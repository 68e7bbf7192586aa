"""Encode `stages.events` as a Chat Completions stream.

Source: OpenAI's API reference and schemas (openai-openapi 2.3.0), and how its SDKs, the AI SDK and Cursor react
(docs/facts/translation.md, "How clients react"). Each event becomes one chunk at once, so that a client never waits for
something that has already arrived.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Raw

from stages.events import (
    Annotations,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.wire.downstream.chat_parts import SERVICE_TIERS, chat_annotations, chat_usage
from stages.wire.downstream.empty_answers import EmptyAnswers
from stages.wire.downstream.errors import NO_END, error_frame, shown_code
from stages.wire.downstream.profiles import OPENAI, Profile
from stages.wire.downstream.reasoning_display import display_of
from stages.wire.downstream.shown_failures import failure_note
from stages.wire.foreign_json import encode, json_text

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"

# Kinds of runs of deltas; for arguments the kind is the index of their call.
_TEXT, _REASONING, _OTHER = "text", "reasoning", "other"


class ChunkEncoder:
    """Encode events as server-sent chunks, each batch as one bytes object.

    The first chunk is held back until there is some content, so that an upstream failure before it can still become an
    HTTP status. Upstream heartbeats become comments, but not before the first chunk, for the same reason: the
    ``keep_alive`` stage decides when a client has waited too long.

    Args:
        model: the name that the client asked for.
        chunk_id: the id of every chunk, ``chatcmpl-...``.
        created: the time of every chunk, in seconds since the epoch, if the upstream reports none.
        include_usage: whether the client asked for usage.
        profile: how this kind of client wants to be answered.
        mended: words of `stages.mending.MENDS`, for what is mended here.

    Attributes:
        failed: a failure that was *not* written to the stream, because nothing had been written before it; else None.
        reported: a failure that was written to the stream; else None.
        has_written: whether the client has been sent anything of an answer.
    """

    def __init__(
        self,
        *,
        model: str,
        chunk_id: str,
        created: int,
        include_usage: bool,
        profile: Profile = OPENAI,
        mended: set[str] | None = None,
    ) -> None:
        self.failed: Failed | None = None
        self.reported: Failed | None = None
        self._model = model
        self._chunk_id = chunk_id
        self._profile = profile
        self._empty = EmptyAnswers(set() if mended is None else mended) if profile.explains_empty else None
        self._display = display_of(profile.reasoning_display)
        self._sends_usage = include_usage or profile.usage_always
        # ``usage`` is null on all chunks but the last: only if the client asked for it.
        self._usage_field = b',"usage":null' if include_usage else b""
        self._usage: Usage | None = None
        self._logprobs: list[Raw] = []
        self.has_written = False
        self._is_over = False
        self._set_head(created, None)

    def feed(self, batch: list[StreamEvent], /) -> list[bytes]:
        """Encode events and return their frames as one bytes object, or nothing."""
        if self._empty is not None:
            batch = self._empty.feed(batch)
            if self._empty.is_over:
                self._empty = None
        if self._display is not None:
            batch = self._display.feed(batch)
        is_plain = self._is_plain()
        if is_plain and len(batch) == 1 and type(event := batch[0]) is TextDelta:  # most batches are like this
            return [b"".join((self._before_text, json_text(event.text), self._after_delta))]
        frames: list[bytes] = []
        # The chunks of a run of deltas of one kind differ only in a JSON string: one join makes their frames.
        run: list[bytes] = []
        kind: str | int = _OTHER
        delta = ""
        for event in batch:
            now: str | int = _OTHER
            if is_plain:
                if type(event) is TextDelta:
                    now, delta = _TEXT, event.text
                elif type(event) is ToolCallDelta:
                    now, delta = event.index, event.arguments
                elif type(event) is ReasoningDelta:
                    now, delta = _REASONING, event.text
            if run and now != kind:
                frames.append(self._frames_of(kind, run))
                run = []
            kind = now
            if now != _OTHER:
                try:
                    run.append(encode(delta))
                except UnicodeEncodeError:
                    run.append(json_text(delta))
            elif not self._is_over:
                self._add(event, frames)
                is_plain = self._is_plain()
        if run:
            frames.append(self._frames_of(kind, run))
        return [frames[0] if len(frames) == 1 else b"".join(frames)] if frames else []

    def flush(self) -> list[bytes]:
        """Take the end of the events. Without Finished the answer is incomplete, which is reported as a failure."""
        return [] if self._is_over else self.feed([NO_END])

    def in_band(self, failed: Failed) -> bytes:
        """Return the frames that report a failure within the stream and end it, whatever was written before.

        For a failure that `failed` holds although the response has started, for example with comments.
        """
        frames: list[bytes] = []
        if self._display is not None:
            for event in self._display.close():
                self._add(event, frames)
        self._report(failed, frames)
        return b"".join(frames)

    def _is_plain(self) -> bool:
        """Return whether a text delta needs nothing but its own chunk."""
        return self.has_written and not self._logprobs and not self._is_over

    def _frames_of(self, kind: str | int, run: list[bytes]) -> bytes:
        before, after = self._before_text, self._after_delta
        if kind == _REASONING:
            before = self._before_delta + b'"reasoning_content":'
        elif kind != _TEXT:
            before = self._before_delta + b'"tool_calls":[{"index":%d,"function":{"arguments":' % int(kind)
            after = b"}}]" + after
        return before + (after + before).join(run) + after

    def _add(self, event: StreamEvent, frames: list[bytes]) -> None:
        match event:
            case TextDelta():
                self._chunk(b'"content":' + json_text(event.text), frames)
            case ReasoningDelta():
                self._chunk(b'"reasoning_content":' + json_text(event.text), frames)
            case ToolCallDelta():
                arguments = json_text(event.arguments)
                delta = b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (event.index, arguments)
                self._chunk(delta, frames)
            case ToolCallStarted():
                # The name and id once, and always as a function: docs/facts/translation.md, "Tool calls" and "Custom
                # tools".
                self._chunk(
                    b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]'
                    % (event.index, json_text(event.call_id), json_text(event.name)),
                    frames,
                )
            case RefusalDelta():
                refusal = json_text(event.text)
                content = b'"content":%b,' % refusal if self._profile.refusal_as_text else b""
                self._chunk(b'%b"refusal":%b' % (content, refusal), frames)
            case Annotations():
                if event.citations:
                    self._chunk(b'"annotations":' + encode(chat_annotations(event.citations)), frames)
            case LogProbs():
                self._logprobs += event.content  # they are sent with the text that they belong to
            case Started():
                self._set_head(event.created, event.service_tier)
            case Usage():
                self._usage = event
            case Heartbeat():
                if self.has_written:
                    frames.append(KEEPALIVE)
            case ReasoningItem():
                pass  # for the next turn's upstream, never for the client
            case Finished():
                self._finish(event.reason, frames)
            case Failed():
                if self.has_written:
                    self._report(event, frames)
                else:
                    self._is_over = True
                    self.failed = event
            case _:  # pragma: no cover - the type checkers prove it
                assert_never(event)

    def _set_head(self, created: int, service_tier: str | None) -> None:
        """Prepare the parts that all chunks have in common."""
        if created:
            self._created = created
        tier = b'"service_tier":%b,' % json_text(service_tier) if service_tier in SERVICE_TIERS else b""
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,%b"choices":[' % (
            json_text(self._chunk_id),
            self._created,
            json_text(self._model),
            tier,
        )
        self._before_delta = self._head + b'{"index":0,"delta":{'
        self._before_text = self._before_delta + b'"content":'
        self._after_delta = b'},"finish_reason":null}]' + self._usage_field + b"}\n\n"

    def _chunk(self, delta: bytes, frames: list[bytes]) -> None:
        if not self.has_written:
            self.has_written = True
            frames += (self._before_delta, b'"role":"assistant","content":""', self._after_delta)
        if self._logprobs:
            logprobs = encode({"content": self._logprobs, "refusal": None})
            self._logprobs = []
            frames += (self._before_delta, delta, b'},"logprobs":', logprobs, self._after_delta[1:])
        elif delta:
            frames += (self._before_delta, delta, self._after_delta)

    def _finish(self, reason: str, frames: list[bytes]) -> None:
        self._chunk(b"", frames)  # the role, if the answer is empty, and log probabilities without a text
        frames += (self._before_delta, b'},"finish_reason":"%b"}]' % reason.encode(), self._usage_field, b"}\n\n")
        if self._sends_usage and self._usage is not None:
            usage = encode(chat_usage(self._usage, with_zeros=self._profile.usage_zeros))
            frames += (self._head, b'],"usage":', usage, b"}\n\n")
        frames.append(DONE)
        self._is_over = True

    def _report(self, failed: Failed, frames: list[bytes]) -> None:
        """Report a failure in the stream, without declaring the calls that are still open complete."""
        self._is_over = True
        self.reported = failed
        if self._profile.failure_as_text:
            note = failure_note(shown_code(failed), failed.message, is_first=not self.has_written)
            self._chunk(b'"content":' + json_text(note), frames)
            frames += (self._before_delta, b'},"finish_reason":"stop"}]', self._usage_field, b"}\n\n", DONE)
        else:
            frames.append(error_frame(failed))
