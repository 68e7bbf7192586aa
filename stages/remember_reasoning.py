"""Remember the model's reasoning for the next turn of the conversation.

A turn with calls is stored when its first call starts, as a client that stops the answer may still send that call
back, and again when it is complete. A turn without calls is identified by its text, so it is stored at its end.

Takes: StreamEvent. Gives: the same events, 1:1, at once.
Holds: the reasoning items of the answer. Waits: for nothing; the store writes later.
Raises: nothing.
"""

from __future__ import annotations

from pipeline import RequestContext, Stage, codec_stage
from stages.events import Finished, ReasoningItem, RefusalDelta, StreamEvent, TextDelta, ToolCallStarted
from stages.reasoning.keys import Scope, TextDigest, conversation_of, prompts_of
from stages.reasoning.store import ReasoningStore
from stages.reasoning.turns import TurnRecorder
from stages.slots import CALL, HEAD, PRINCIPAL, PROMPTS

# The events that matter before any reasoning has arrived: nearly all batches of most answers contain none of them.
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
        """Of the whole text; None once the text cannot serve as a key."""
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
        """Process an event while there is no reasoning to remember; most answers cost no more than this."""
        if isinstance(event, ReasoningItem):
            call = self._ctx[CALL]
            # The client never sees calls of hosted tools, so reasoning between them has no place to be restored to.
            if event.form == call.deployment.kind and not call.request.has_hosted_tools:
                self._notable = _ALWAYS
                self._recorder = self._open()
                self._recorder.reasoning(event)
            return
        self._digest = None  # hashing all texts is not worth the rare case of reasoning after text
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
                recorder.end()
                self._keep(recorder)
            case _:  # pragma: no cover - `_ALWAYS` contains no other type
                pass

    def _text(self, text: str, recorder: TurnRecorder) -> None:
        recorder.text()
        if self._digest is not None:
            self._digest.update(text)

    def _keep(self, recorder: TurnRecorder) -> None:
        """Store the turn if more of its reasoning has a place."""
        key = recorder.key(self._digest)
        if key is not None and recorder.size > self._stored:
            self._stored = recorder.size
            self._store.put(key, recorder.value())

    def _open(self) -> TurnRecorder:
        ctx, call = self._ctx, self._ctx[CALL]
        conversation = conversation_of(call.request, ctx[HEAD].headers)
        prompts = ctx.get(PROMPTS) or prompts_of(call.request.body.get("input"))
        recorder = TurnRecorder(Scope(ctx[PRINCIPAL], call, conversation), prompts)
        for call_id in self._before:
            if call_id is None:
                recorder.text()
            else:
                recorder.call(call_id)
        return recorder


def remember_reasoning(store: ReasoningStore) -> Stage[StreamEvent, StreamEvent]:
    """Return the stage."""
    return codec_stage("remember_reasoning", lambda ctx: _Remember(store, ctx), codec=_Remember)
