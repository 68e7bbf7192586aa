"""The reasoning of one turn, and its place among the calls and the text of the turn.

A turn is one answer of a model: ``reasoning, call, call`` or ``reasoning, text`` or ``reasoning, call, reasoning,
call``. Clients send the calls and the text back, the text in one piece and always before the calls. So reasoning that
came first is placed before all of them, and other reasoning before the call that it led to.

Claude's turns are also ``reasoning, text, reasoning, text, call``, and that order is a part of what it checks (`models`
in ``stages/wire/anthropic``): there the text is divided where the reasoning was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from stages.events import ReasoningItem
from stages.reasoning.keys import PromptDigest, Scope, TextDigest, digest_of, is_user, text_of
from stages.wire.slices import paced

LEADING = -1
"""The place of reasoning that came before everything else of the turn."""
BEFORE_TEXT = -2
"""The place of reasoning between a call and the text that came after it."""


class Piece(Struct, frozen=True, array_like=True):
    """One item of reasoning in the normal form, and its place: `LEADING`, `BEFORE_TEXT` or the index of a call."""

    place: int
    item: dict[str, Any]  # JSON from the upstream
    text_offset: int = 0
    """Of Anthropic's blocks at `BEFORE_TEXT`: how many characters of the text come before it."""


class Turn(Struct, frozen=True, array_like=True):
    """The reasoning of one turn.

    Attributes:
        calls: the keys of its calls, in order; the first one is the key of the turn. Empty if the turn has only text.
        pieces: its reasoning, in order.
        phase: what the model called its text: ``commentary`` or ``final_answer``; the last one if it used both.
        namespaces: the namespaces of calls, each with the index of its call.
    """

    calls: tuple[bytes, ...]
    pieces: tuple[Piece, ...]
    phase: str | None = None
    namespaces: tuple[tuple[int, str], ...] = ()


FORGOTTEN = Turn((), ())
"""What replaces the reasoning of a turn that its upstream no longer accepts."""

_TURN = msgspec.json.Decoder(Turn)
_OBJECT = msgspec.json.Decoder(dict[str, Any])

_INPUT_ROLES = ("user", "system", "developer")  # not a set: a client's role may be unhashable

# Fields that an item of the Responses API has in an output, and must not have in an input.
_OUTPUT_ONLY = frozenset({"status"})


def write_turn(turn: Turn) -> bytes:
    """Return a turn in its stored form."""
    return msgspec.json.encode(turn)


def read_turn(value: bytes) -> Turn | None:
    """Read what `write_turn` returned; None if another version of headrace wrote it."""
    try:
        return _TURN.decode(value)
    except ValueError:
        return None


def normal_item(event: ReasoningItem) -> dict[str, Any] | None:
    """Return reasoning as an item of the normal form; None if it cannot be sent back."""
    try:
        payload = _OBJECT.decode(event.payload)
    except (ValueError, RecursionError):
        return None
    match event.form:
        case "anthropic":
            return {"type": "reasoning", "summary": [], "anthropic_blocks": [payload]}
        case "chat":
            return _normal_chat_item(payload)
        case "responses":
            # OpenAI refuses null where it expects a value, and items that it did not produce.
            item = {key: value for key, value in payload.items() if value is not None and key not in _OUTPUT_ONLY}
            if not item.get("content"):
                item.pop("content", None)
            return {"type": "reasoning", "summary": [], **item}
        case _:
            assert_never(event.form)


def _normal_chat_item(payload: dict[str, Any]) -> dict[str, Any] | None:
    text, extra = payload.get("reasoning_content"), payload.get("extra_content")
    details = payload.get("reasoning_details")
    item: dict[str, Any] = {"type": "reasoning", "summary": []}
    if isinstance(text, str) and text:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    if extra:  # Gemini's signature
        item["extra_content"] = extra
    if details:  # OpenRouter's and MiniMax's
        item["reasoning_details"] = details
    return item if len(item) > 2 else None


def joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join neighbouring blocks from Anthropic in the same place into one item."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        is_same = last is not None and (last.place, last.text_offset) == (piece.place, piece.text_offset)
        if last and is_same and "anthropic_blocks" in last.item and "anthropic_blocks" in piece.item:
            blocks = [*last.item["anthropic_blocks"], *piece.item["anthropic_blocks"]]
            out[-1] = Piece(last.place, {**last.item, "anthropic_blocks": blocks}, last.text_offset)
        else:
            out.append(piece)
    return tuple(out)


def has_turns(items: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an ``input`` holds output of a model; the input of a new chat holds none."""
    return any(item.get("role") not in _INPUT_ROLES for item in items)


class TurnPlaces:
    """The places of a conversation's turns in the ``input`` that the client sent back.

    Attributes:
        keys: the keys of all calls, then of all texts that may be a whole turn, then of the signed reasoning that the
            client sent itself, each in order.
    """

    def __init__(self, items: Sequence[dict[str, Any]], scope: Scope) -> None:
        self._items = items
        self._calls: dict[bytes, int] = {}
        self._texts: dict[bytes, int] = {}
        self._thoughts: dict[bytes, int] = {}
        prompts = PromptDigest()
        for index, item in enumerate(paced(items)):
            if is_user(item):
                prompts.update(text_of(item))
            elif _is_assistant(item):
                if not _is_call(items, index + 1) and (digest := digest_of(text_of(item))) is not None:
                    self._texts.setdefault(scope.of_text(digest, prompts.digest()), index)
            elif _is_call(items, index):
                # If a server uses an id twice, the stored turn is that of the last call.
                self._calls[scope.of_call(item["call_id"])] = index
            elif "anthropic_blocks" in item:
                self._thoughts[scope.of_thought(item["anthropic_blocks"])] = index
        self.keys = [*self._calls, *self._texts, *self._thoughts]

    def restored(self, turns: Mapping[bytes, Turn]) -> list[dict[str, Any]] | None:
        """Return the items with the reasoning of ``turns`` inserted and the fields that clients drop, less what is
        `FORGOTTEN`; None if nothing changes.

        The reasoning of a turn is restored completely or not at all, and only if the turn has none: OpenAI refuses a
        ``reasoning`` item that is not followed by what it led to.
        """
        insertions: dict[int, list[Piece]] = {}
        for key in self.keys:
            turn = turns.get(key)
            if turn is not None:
                for index, piece in self._placed(key, turn):
                    insertions.setdefault(index, []).append(piece)
        fields = self._dropped_fields(turns)
        forgotten = {index for key, index in self._thoughts.items() if key in turns}
        if not insertions and not fields and not forgotten:
            return None
        out: list[dict[str, Any]] = []
        for index, item in enumerate(paced(self._items)):
            if index in forgotten:
                continue
            pieces = insertions.get(index, ())
            out += (piece.item for piece in pieces if not piece.text_offset)
            whole = {**item, **fields[index]} if index in fields else item
            out += _divided(whole, [piece for piece in pieces if piece.text_offset])
        return out

    def in_request(self, turns: Mapping[bytes, Turn]) -> list[bytes]:
        """Return the keys of all reasoning that the conversation has: the restored, and what the client sent itself."""
        return [*turns, *self._thoughts]

    def _dropped_fields(self, turns: Mapping[bytes, Turn]) -> dict[int, dict[str, str]]:
        """Return the phases and namespaces to add, by the positions of the items that have none."""
        fields: dict[int, dict[str, str]] = {}
        for key, turn in turns.items():
            if turn.phase is not None:
                for index in self._messages_of(key):
                    if self._items[index].get("phase") is None:
                        fields[index] = {"phase": turn.phase}
            for number, namespace in turn.namespaces:
                place = self._calls.get(turn.calls[number]) if number < len(turn.calls) else None
                if place is not None and self._items[place].get("namespace") is None:
                    fields[place] = {"namespace": namespace}
        return fields

    def _messages_of(self, key: bytes) -> range:
        """Return the positions of the assistant's messages of a turn: all those that directly precede its first call,
        or the text that it consists of."""
        if (text := self._texts.get(key)) is not None:
            return range(text, text + 1)
        start = end = self._calls.get(key, 0)
        while start > 0 and _is_assistant(self._items[start - 1]):
            start -= 1
        return range(start, end)

    def _placed(self, key: bytes, turn: Turn) -> list[tuple[int, Piece]]:
        if not turn.calls:
            start = self._texts.get(key, -1)
            if start < 0 or self._has_reasoning(start, start):
                return []
            return [self._in_text(start, start + 1, piece) for piece in turn.pieces]
        first = self._calls.get(key)
        if first is None or turn.calls[0] != key:
            return []
        start = first
        while start > 0 and _is_assistant(self._items[start - 1]):
            start -= 1
        placed: list[tuple[int, Piece]] = []
        end = first
        for piece in turn.pieces:
            if piece.place < 0:
                placed.append(self._in_text(start, first, piece))
                continue
            call = self._calls.get(turn.calls[piece.place]) if piece.place < len(turn.calls) else None
            if call is None or call < end:
                return []  # a call is missing, or the order differs: this is not the stored turn
            end = call
            placed.append((call, piece))
        return [] if self._has_reasoning(start, end) else placed

    def _in_text(self, start: int, end: int, piece: Piece) -> tuple[int, Piece]:
        """Return the message of those from ``start`` to ``end`` that a piece belongs into, and its offset there."""
        offset = piece.text_offset
        if not offset:
            return start, piece
        for index in range(start, end):
            text = text_of(self._items[index])
            if index == start:
                offset += len(text) - len(text.lstrip())
            if offset < len(text.rstrip()):
                return index, Piece(piece.place, piece.item, offset)
            offset -= len(text)
            if offset <= 0:
                return index + 1, Piece(piece.place, piece.item)
        return end, Piece(piece.place, piece.item)

    def _has_reasoning(self, start: int, end: int) -> bool:
        return any(item.get("type") == "reasoning" for item in self._items[max(start - 1, 0) : end + 1])


class TurnRecorder:
    """Collects the reasoning of one answer; the caller stores `value` under `key` when it may have changed.

    Args:
        scope: the conversation that the answer belongs to.
        prompts: the hash of the user's messages that it answers.
    """

    def __init__(self, scope: Scope, prompts: bytes) -> None:
        self._scope = scope
        self._prompts = prompts
        self._calls: list[bytes] = []
        self._pieces: list[Piece] = []
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._has_started = False
        self._phase: str | None = None
        self._namespace: str | None = None
        self._namespaces: list[tuple[int, str]] = []

    def reasoning(self, event: ReasoningItem) -> None:
        """Add reasoning, which gets its place when a call or text follows, or a field that clients drop."""
        item = normal_item(event)
        if item is None:
            return
        match item["type"]:
            case "message":
                self._phase = item["phase"]
            case "function_call":
                self._namespace = item["namespace"]
            case _:
                self._waiting.append((item, event.text_offset))

    def call(self, call_id: str) -> None:
        """Note that a call has started."""
        self._calls.append(self._scope.of_call(call_id))
        if self._namespace is not None:
            self._namespaces.append((len(self._calls) - 1, self._namespace))
            self._namespace = None
        self._settle(len(self._calls) - 1)

    def text(self) -> None:
        """Note that text has arrived."""
        self._settle(BEFORE_TEXT)

    def _settle(self, place: int) -> None:
        if not self._has_started:
            place = LEADING
            self._has_started = True
        offsets = place == BEFORE_TEXT
        self._pieces += (Piece(place, item, offset if offsets else 0) for item, offset in self._waiting)
        self._waiting.clear()

    def end(self) -> None:
        """Take the end of the answer: details of reasoning may come last, and belong to what came before them."""
        self._waiting = [(item, offset) for item, offset in self._waiting if "reasoning_details" in item]
        if self._waiting:
            self._settle(len(self._calls) - 1 if self._calls else BEFORE_TEXT)

    @property
    def size(self) -> int:
        """How much there is to remember: it grows with every piece that gets a place, and with every field."""
        return len(self._pieces) + len(self._namespaces) + (self._phase is not None)

    def key(self, text: TextDigest | None) -> bytes | None:
        """Return the key of the turn, of its first call or its whole text; None if it cannot be identified."""
        if self._calls:
            return self._calls[0]
        return None if text is None or text.is_empty else self._scope.of_text(text.digest(), self._prompts)

    def value(self) -> bytes:
        """Return the turn so far, in its stored form."""
        return write_turn(Turn(tuple(self._calls), joined(self._pieces), self._phase, tuple(self._namespaces)))


def _divided(item: dict[str, Any], pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Return a message, divided where ``pieces`` belong into its text, and those between its parts."""
    out: list[dict[str, Any]] = []
    start = 0
    for piece in pieces:
        if piece.text_offset > start:
            out.append(_cut(item, start, piece.text_offset))
            start = piece.text_offset
        out.append(piece.item)
    return [*out, _cut(item, start, None) if start else item]


def _cut(message: dict[str, Any], start: int, end: int | None) -> dict[str, Any]:
    """Return the message with a part of its text only; what belongs to the whole message goes with the last part."""
    content = message["content"]
    if isinstance(content, str):
        cut: Any = content[start:end]
    else:
        cut, at = [], 0
        for part in content:
            text = part.get("text")
            size = len(text) if isinstance(text, str) else 0
            first, last = max(start - at, 0), size if end is None else min(end - at, size)
            if first < last:
                cut.append({**part, "text": text[first:last]} if last - first < size else part)
            elif not size and at >= start and (end is None or at < end):
                cut.append(part)
            at += size
    kept = message if end is None else {key: message[key] for key in message if key != "cache_control"}
    return {**{key: kept[key] for key in kept if key != "id"}, "content": cut}


def _is_assistant(item: Mapping[str, Any]) -> bool:
    return item.get("role") == "assistant"


def _is_call(items: Sequence[Mapping[str, Any]], index: int) -> bool:
    if index >= len(items):
        return False
    kind = items[index].get("type")
    return isinstance(kind, str) and kind.endswith("_call") and isinstance(items[index].get("call_id"), str)
