"""Gather the events of an answer into one Chat Completions document.

Source: OpenAI's API reference and schemas (openai-openapi 2.3.0).
"""

from __future__ import annotations

from typing import Any, assert_never

from msgspec import Raw

from stages.events import (
    Annotations,
    Citation,
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
from stages.wire.downstream.errors import NO_END
from stages.wire.downstream.profiles import OPENAI, Profile
from stages.wire.downstream.reasoning_display import display_of
from stages.wire.foreign_json import encode, whole


class CompletionCollector:
    """Gather events into one ``chat.completion`` document. Holds the whole answer.

    Args:
        model: the name that the client asked for.
        chunk_id: the id of the completion, ``chatcmpl-...``.
        created: its time, in seconds since the epoch, if the upstream reports none.
        profile: how this kind of client wants to be answered.
        mended: words of `stages.mending.MENDS`, for what is mended here.

    Attributes:
        failed: why there is no document; else None.
    """

    def __init__(
        self,
        *,
        model: str,
        chunk_id: str,
        created: int,
        profile: Profile = OPENAI,
        mended: set[str] | None = None,
    ) -> None:
        self.failed: Failed | None = None
        self._model = model
        self._chunk_id = chunk_id
        self._created = created
        self._profile = profile
        self._empty = EmptyAnswers(set() if mended is None else mended) if profile.explains_empty else None
        self._display = display_of(profile.reasoning_display)
        self._service_tier: str | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[ToolCallStarted, list[str]]] = {}
        self._citations: tuple[Citation, ...] = ()
        self._logprobs: list[Raw] = []
        self._usage: Usage | None = None
        self._is_over = False

    def feed(self, batch: list[StreamEvent], /) -> list[bytes]:
        """Take events and return the document once the answer is complete."""
        if self._empty is not None:
            batch = self._empty.feed(batch)
            if self._empty.is_over:
                self._empty = None
        if self._display is not None:
            batch = self._display.feed(batch)
        for event in batch:
            if self._is_over:
                break
            if isinstance(event, Finished):
                self._is_over = True
                return [encode(self._document(event.reason))]
            self._add(event)
        return []

    def flush(self) -> list[bytes]:
        """Take the end of the events. Without Finished there is no document."""
        if not self._is_over:
            self._add(NO_END)
        return []

    def _add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta():
                self._text.append(event.text)
            case RefusalDelta():
                self._refusal.append(event.text)
                if self._profile.refusal_as_text:
                    self._text.append(event.text)
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case ToolCallStarted():
                self._calls[event.index] = (event, [])
            case ToolCallDelta():
                if event.index in self._calls:
                    self._calls[event.index][1].append(event.arguments)
            case Annotations():
                self._citations = event.citations
            case LogProbs():
                self._logprobs += event.content
            case Usage():
                self._usage = event
            case Started():
                self._created = event.created or self._created
                self._service_tier = event.service_tier
            case Failed():
                self.failed = event
                self._is_over = True
            case Heartbeat() | Finished() | ReasoningItem():
                pass
            case _:  # pragma: no cover - the type checkers prove it
                assert_never(event)

    def _document(self, reason: str) -> dict[str, Any]:  # JSON
        text, refusal, reasoning = "".join(self._text), "".join(self._refusal), "".join(self._reasoning)
        # `content` is null only where a refusal or calls take its place: clients call .strip() on an empty answer.
        message: dict[str, Any] = {
            "role": "assistant",
            "content": whole(text) if text or not (refusal or self._calls) else None,
            "refusal": whole(refusal) if refusal else None,
        }
        if reasoning:
            message["reasoning_content"] = whole(reasoning)
        if self._calls:
            message["tool_calls"] = [
                {
                    "id": whole(call.call_id),
                    "type": "function",
                    "function": {"name": whole(call.name), "arguments": whole("".join(arguments))},
                }
                for call, arguments in self._calls.values()
            ]
        if self._citations:
            message["annotations"] = chat_annotations(self._citations)
        logprobs = {"content": self._logprobs, "refusal": None} if self._logprobs else None
        document: dict[str, Any] = {
            "id": self._chunk_id,
            "object": "chat.completion",
            "created": self._created,
            "model": whole(self._model),
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}],
        }
        if self._usage is not None:
            document["usage"] = chat_usage(self._usage, with_zeros=self._profile.usage_zeros)
        if self._service_tier in SERVICE_TIERS:
            document["service_tier"] = self._service_tier
        return document
