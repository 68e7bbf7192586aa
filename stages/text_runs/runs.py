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
        self._text = TextPositions()
        self._logprobs: list[LogProbs] = []  # they belong to the text that comes next
        # Of the visible output that came last: whether it is text, and has had no log probabilities; whether a
        # transformer has it (None before the first).
        self._is_text = self._is_bare_text = False
        self._is_transformed: bool | None = None

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        """Return the events with what their text has become."""
        out: list[StreamEvent] = []
        for event in batch:
            match event:
                case TextDelta():
                    self._begin("text", out)
                    self._text.take(event.text, self._logprobs)
                    self._is_bare_text = not self._logprobs and (self._is_bare_text or not self._is_text)
                    self._is_text, self._is_transformed = True, self._run is not None
                    self._logprobs = []
                    self._text.give(self._changed(event.text), self._run, out)
                case ReasoningDelta():
                    self._begin("reasoning", out)
                    self._settle(self._run, out)
                    if text := self._changed(event.text):
                        out.append(ReasoningDelta(text))
                case RefusalDelta():
                    self._begin("refusal", out)
                    self._settle(self._run, out)
                    if text := self._changed(event.text):
                        out.append(RefusalDelta(text))
                case ToolCallStarted():
                    self._end(out)
                    self._settle(self._call(event.index, is_custom=event.is_custom), out)
                    out.append(event)
                case ToolCallDelta(index, arguments):
                    self._end(out)
                    call = self._call(index)
                    self._settle(call, out)
                    if text := arguments if call is None else call.feed(arguments):
                        out.append(ToolCallDelta(index, text))
                case LogProbs():
                    self._logprobs.append(event)
                case Annotations():
                    self._end(out)
                    self._settle_after(out)
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
        self._settle_after(out)
        for index, call in sorted(self._calls.items()):
            if call is not None and (text := call.flush()):
                out.append(ToolCallDelta(index, text))
        self._calls.clear()
        return out

    def _changed(self, text: str) -> str:
        return text if self._run is None else self._run.feed(text)

    def _begin(self, kind: RunKind, out: list[StreamEvent]) -> None:
        """Go on with a run of this kind, or begin one."""
        if kind != self._kind:
            self._end(out)
            self._kind, self._run = kind, self._open(kind)

    def _call(self, index: int, *, is_custom: bool = False) -> Transformer | None:
        if index not in self._calls:
            self._calls[index] = self._open("input" if is_custom else "arguments")
        return self._calls[index]

    def _end(self, out: list[StreamEvent]) -> None:
        """End the run, if there is one."""
        kind, run = self._kind, self._run
        self._kind = self._run = None
        rest = "" if run is None else run.flush()
        if kind == "text":
            self._text.give(rest, run, out, is_end=True)
        elif rest:
            out.append(ReasoningDelta(rest) if kind == "reasoning" else RefusalDelta(rest))

    def _settle(self, run: Transformer | None, out: list[StreamEvent]) -> None:
        """Decide on log probabilities that output other than text follows.

        Upstreams also send those of reasoning and arguments, always before these (vLLM does). So they are of the text
        before only if it had none of its own. What a transformer has may come out changed, and they would quote it.
        """
        if self._is_bare_text:
            self._settle_after(out)
        if run is None and not self._is_transformed:
            out += self._logprobs
        self._logprobs = []
        self._is_text = self._is_bare_text = False
        self._is_transformed = run is not None

    def _settle_after(self, out: list[StreamEvent]) -> None:
        """Decide on log probabilities that nothing follows: they belong to what came before."""
        if not self._text.is_changed if self._is_text else self._is_transformed is False:
            out += self._logprobs
        self._logprobs = []
