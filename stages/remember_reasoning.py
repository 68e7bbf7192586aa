"""Remember what the model has reasoned, for the next turn of the conversation.

A turn with calls is stored when its first call begins, as a client that stops the answer may still send that call
back, and again when it is complete. A turn without is known by its text, so it is stored at its end.

Takes: StreamEvent. Gives: the same events, 1:1, at once.
Holds: the answer's reasoning items. Waits: for nothing; the store writes later.
Raises: nothing.
"""

from __future__ import annotations

from pipeline import CodecStage, RequestContext, codec_stage
from stages.events import Finished, ReasoningItem, RefusalDelta, StreamEvent, TextDelta, ToolCallStarted
from stages.reasoning.keys import Scope, TextDigest, conversation_of
from stages.reasoning.store import ReasoningStore
from stages.reasoning.turns import TurnRecorder
from stages.slots import CALL, HEAD, PRINCIPAL

# What must be looked at while nothing has been reasoned: nearly every batch of most answers has none of it.
_AT_FIRST: frozenset[type] = frozenset({ReasoningItem, ToolCallStarted, TextDelta, RefusalDelta})
_AFTER_TEXT: frozenset[type] = frozenset({ReasoningItem, ToolCallStarted})
_ALWAYS: frozenset[type] = _AT_FIRST | {Finished}
_NOT_TEXT = _ALWAYS - {TextDelta}


class _Remember:
    def __init__(self, store: ReasoningStore, ctx: RequestContext) -> None:
        self._store = store
        self._ctx = ctx
        self._notable = _AT_FIRST
        self._before: list[str | None] = []
        """What came before any reasoning: the ids of calls, and None for text."""
        self._recorder: TurnRecorder | None = None
        self._digest: TextDigest | None = TextDigest()
        """Of the whole text; None once the text is of no use as a key."""
        self._stored = 0

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        notable = self._notable
        if notable.isdisjoint(map(type, batch)):
            return batch
        if self._recorder is not None and _NOT_TEXT.isdisjoint(map(type, batch)):
            self._text("".join([event.text for event in batch if type(event) is TextDelta]), self._recorder)
        else:
            for event in batch:
                if type(event) in notable:
                    if self._recorder is not None:
                        self._record(event, self._recorder)
                    else:
                        self._note(event)
                    notable = self._notable
        return batch

    def flush(self) -> list[StreamEvent]:
        return []

    def _note(self, event: StreamEvent) -> None:
        """Take an event while there is no reasoning to remember: this is all that most answers cost."""
        if isinstance(event, ReasoningItem):
            call = self._ctx[CALL]
            # Between hosted tools' calls, which the client never sees, reasoning has no place that could be restored.
            if event.form == call.deployment.kind and not call.request.has_hosted_tools:
                self._notable = _ALWAYS
                self._recorder = self._open()
                self._recorder.reasoning(event)
            return
        self._digest = None  # a text that began without reasoning is not hashed, for a case that hardly exists
        if isinstance(event, ToolCallStarted):
            self._before.append(event.call_id)
        else:
            self._before.append(None)
            self._notable = _AFTER_TEXT

    def _record(self, event: StreamEvent, recorder: TurnRecorder) -> None:
        match event:
            case TextDelta():
                self._text(event.text, recorder)
            case ReasoningItem():
                recorder.reasoning(event)
            case ToolCallStarted():
                self._digest = None
                recorder.call(event.call_id)
                self._keep(recorder)
            case RefusalDelta():
                self._digest = None
            case Finished():
                self._keep(recorder)
            case _:  # pragma: no cover - `_ALWAYS` has no other
                pass

    def _text(self, text: str, recorder: TurnRecorder) -> None:
        recorder.text()
        if self._digest is not None:
            self._digest.update(text)

    def _keep(self, recorder: TurnRecorder) -> None:
        """Store the turn if more of it has found its place."""
        key = recorder.key(self._digest)
        if key is not None and recorder.size > self._stored:
            self._stored = recorder.size
            self._store.put(key, recorder.value())

    def _open(self) -> TurnRecorder:
        ctx, call = self._ctx, self._ctx[CALL]
        conversation = conversation_of(call.request, ctx[HEAD].headers)
        recorder = TurnRecorder(Scope(ctx[PRINCIPAL], call, conversation), call.request.body.get("input"))
        for call_id in self._before:
            if call_id is None:
                recorder.text()
            else:
                recorder.call(call_id)
        return recorder


def remember_reasoning(store: ReasoningStore) -> CodecStage[StreamEvent, StreamEvent]:
    """Make the stage."""
    return codec_stage("remember_reasoning", lambda ctx: _Remember(store, ctx), accepts=StreamEvent, emits=StreamEvent)
