"""Splits a stream of events into runs of text, and makes events of what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

from stages.events import (
    Annotations,
    Failed,
    Finished,
    LogProbs,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from stages.text_runs.text_positions import TextPositions
from stages.text_runs.transformer import RunKind, Transformer


class TextRuns:
    """The codec, one per request.

    Holds: what its transformers hold; of the answer's text at most one delta more, if it has log probabilities; a few
    numbers for each change of the answer's text.

    Args:
        open: makes the transformer of a run; None passes the run unchanged.
    """

    def __init__(self, open: Callable[[RunKind], Transformer | None]) -> None:
        self._open = open
        self._kind: RunKind | None = None  # of the run in `_run`
        self._run: Transformer | None = None
        self._calls: dict[int, Transformer | None] = {}
        self._custom: set[int] = set()
        self._text = TextPositions()
        self._logprobs: list[LogProbs] = []  # they belong to the text that comes next

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the events with what their text has become."""
        out: list[StreamEvent] = []
        for event in batch:
            match event:
                case TextDelta():
                    self._begin("text", out)
                    self._text.take(event.text, self._logprobs)
                    self._logprobs = []
                    self._text.give(self._changed(event.text), self._run, out)
                case ReasoningDelta():
                    self._begin("reasoning", out)
                    if text := self._changed(event.text):
                        out.append(ReasoningDelta(text))
                case RefusalDelta():
                    self._begin("refusal", out)
                    if text := self._changed(event.text):
                        out.append(RefusalDelta(text))
                case ToolCallStarted():
                    self._end(out)
                    if event.is_custom:
                        self._custom.add(event.index)
                    out.append(event)
                case ToolCallDelta(index, arguments):
                    self._end(out)
                    if index not in self._calls:
                        self._calls[index] = self._open("input" if index in self._custom else "arguments")
                    call = self._calls[index]
                    if text := arguments if call is None else call.feed(arguments):
                        out.append(ToolCallDelta(index, text))
                case LogProbs():
                    self._logprobs.append(event)
                case Annotations():
                    self._end(out)
                    if citations := self._text.moved(event.citations):
                        out.append(Annotations(citations))
                case Finished() | Failed():
                    out += self.flush()
                    out.append(event)
                case _:
                    out.append(event)
        return out

    def flush(self) -> list[StreamEvent]:
        """Return what the transformers hold."""
        out: list[StreamEvent] = []
        self._end(out)
        for index, call in sorted(self._calls.items()):
            if call is not None and (text := call.flush()):
                out.append(ToolCallDelta(index, text))
        self._calls.clear()
        return out

    def _changed(self, text: str) -> str:
        return text if self._run is None else self._run.feed(text)

    def _begin(self, kind: RunKind, out: list[StreamEvent]) -> None:
        """Go on with a run of this kind, or begin one."""
        if kind == "text":
            logprobs, self._logprobs = self._logprobs, []
            if self._kind != "text":
                self._end(out)
            self._logprobs = logprobs
        elif kind != self._kind or self._logprobs:
            self._end(out)
        if kind != self._kind:
            self._kind, self._run = kind, self._open(kind)

    def _end(self, out: list[StreamEvent]) -> None:
        """End the run, if there is one; log probabilities that no text has followed belong to what came before."""
        kind, run = self._kind, self._run
        self._kind = self._run = None
        rest = "" if run is None else run.flush()
        if kind == "text":
            self._text.give(rest, run, out, is_end=True)
        elif rest:
            out.append(ReasoningDelta(rest) if kind == "reasoning" else RefusalDelta(rest))
        logprobs, self._logprobs = self._logprobs, []
        if not self._text.is_changed:
            out += logprobs
