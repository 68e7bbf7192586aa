"""Calls and their outputs, paired as every upstream requires: one output for each call, one call for each output.

Histories break: an answer is stopped before its calls are run, a result is sent twice after a lost connection, or a
chat started on an upstream that counts its calls from zero in each answer. OpenAI answers 400 ("No tool output found
for function call"), Anthropic too, and since a client sends its whole history each time, the chat could not continue.

Only functions and custom tools are repaired; other kinds of calls (shell, computer ...) pass as they are.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from stages.wire.call_ids import numbered_call_id
from stages.wire.foreign_json import Json
from stages.wire.slices import paced

_OUTPUT_OF: Final[dict[Json, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}
_OUTPUTS: Final = frozenset(_OUTPUT_OF.values())

UNKNOWN: Final = ""
"""The ``call_id`` of an output that came without one; no call has it."""

_EMPTY: Final[dict[str, Json]] = {"output": ""}
_UNNAMED: Final = "call_without_id_"


def unnamed_call_id(number: int) -> str:
    """Return the id of the ``number``-th call that came without one."""
    return f"{_UNNAMED}{number}"


class _CallInHistory:
    """One call on its way through the history."""

    __slots__ = ("call_id", "early", "output_at", "output_kind", "output_turn", "run")

    def __init__(self, call_id: str, output_kind: str, run: int, early: dict[str, Json]) -> None:
        self.call_id = call_id
        self.output_kind = output_kind
        self.run = run
        self.early = early
        self.output_at: int | None = None
        self.output_turn = 0


class _CallsOfId:
    """The calls that have one id; outputs go to those of the latest run, in order."""

    __slots__ = ("_next", "calls")

    def __init__(self) -> None:
        self.calls: list[_CallInHistory] = []
        self._next = 0

    def add(self, call: _CallInHistory) -> None:
        """Add a call; in a new run it is the first to be answered."""
        if self.calls and self.calls[-1].run != call.run:
            self._next = len(self.calls)
        self.calls.append(call)

    def of_output(self, turn: int) -> _CallInHistory | None:
        """Return the call of an output in a turn: of the latest run's the first without one, else the last.

        None if that was answered in an earlier turn.
        """
        if self._next < len(self.calls):
            self._next += 1
            return self.calls[self._next - 1]
        last = self.calls[-1]
        return last if last.output_turn == turn else None


class _WaitingCalls:
    """Calls of one run without an output, for outputs that do not name their call; each is taken once."""

    __slots__ = ("_all", "_taken", "_unnamed")

    def __init__(self) -> None:
        self._all: deque[tuple[int, str]] = deque()
        self._unnamed: deque[tuple[int, str]] = deque()
        self._taken: set[int] = set()

    def add(self, position: int, call_id: str) -> None:
        """Add the call at a position in the history."""
        self._all.append((position, call_id))
        if call_id.startswith(_UNNAMED):
            self._unnamed.append((position, call_id))

    def clear(self) -> None:
        """Forget all calls."""
        self._all.clear()
        self._unnamed.clear()
        self._taken.clear()

    def take(self, answered: str) -> str | None:
        """Return the id of the first call that an output may belong to, if there is one."""
        calls = self._all if answered == UNKNOWN else self._unnamed
        while calls:
            position, call_id = calls.popleft()
            if position not in self._taken:
                self._taken.add(position)
                return call_id
        return None


def pair_calls(items: list[dict[str, Json]], *, is_whole: bool = True) -> list[dict[str, Json]]:
    """Repair the pairs of a conversation in normal form; a history without defects is returned itself.

    - A call without an output gets an empty one, after the calls that were made together with it.
    - An output before its call, in the same turn, is moved to the end of the calls that were made together with it; one
      without a call is dropped.
    - An output without an id belongs to the first call without an output of those just before it, and one with an
      unknown id to the first that came without an id: "Stop" in mid-stream can cut the id off. A user's message ends
      this: what comes after it belongs to no call of an earlier turn.
    - Of several outputs of one call the last one counts, at the place of the first (CLIProxyAPI#4998): the beginning
      of the conversation, which the upstream may have cached, stays the same. For the same reason an output counts
      only until the user's next message: after it the id is that of another call, which may have been left out.
    - An id that an earlier call already has is numbered, in the call and in its output.
    - An output gets the type that belongs to its call.

    Args:
        items: the conversation.
        is_whole: whether ``items`` is all of it. If a part is stored at the upstream (``previous_response_id``), an
            output may belong to a call that we cannot see, and is kept.
    """
    return items if _is_paired(items, is_whole=is_whole) else _repaired(items, is_whole=is_whole)


def _is_paired(items: list[dict[str, Json]], *, is_whole: bool) -> bool:
    """Return whether there is nothing to repair, as in nearly all requests."""
    waiting: dict[str, str] = {}
    seen: set[str] = set()
    for item in paced(items):
        kind = item.get("type")
        if kind in _OUTPUT_OF:
            call_id = item["call_id"]
            if call_id in seen:
                return False
            seen.add(call_id)
            waiting[call_id] = _OUTPUT_OF[kind]
        elif kind in _OUTPUTS:
            call_id = item["call_id"]
            if waiting.pop(call_id, None) != kind and (is_whole or call_id in seen or call_id == UNKNOWN):
                return False
    return not waiting


def _adopted(items: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return the items with an id for each output whose call is known by its place only."""
    outputs = {item["call_id"] for item in items if item.get("type") in _OUTPUTS}
    calls = {item["call_id"] for item in items if item.get("type") in _OUTPUT_OF}
    if outputs <= calls:
        return items
    adopted: list[dict[str, Json]] = []
    waiting = _WaitingCalls()
    is_in_run = False
    for position, item in enumerate(paced(items)):
        kind = item.get("type")
        if kind in _OUTPUT_OF:
            if not is_in_run:
                waiting.clear()
            if item["call_id"] not in outputs:
                waiting.add(position, item["call_id"])
        elif kind in _OUTPUTS:
            if item["call_id"] not in calls and (call_id := waiting.take(item["call_id"])) is not None:
                item = {**item, "call_id": call_id}
        elif item.get("role") == "user":
            waiting.clear()
        is_in_run = kind in _OUTPUT_OF or (is_in_run and kind == "reasoning")
        adopted.append(item)
    return adopted


def _repaired(items: list[dict[str, Json]], *, is_whole: bool) -> list[dict[str, Json]]:
    items = _adopted(items)
    to_come = Counter(item["call_id"] for item in items if item.get("type") in _OUTPUT_OF)
    early: dict[str, dict[str, Json]] = {}
    paired: list[dict[str, Json] | None] = []
    calls: dict[str, _CallsOfId] = {}
    ends_of_runs: dict[int, int] = {}
    run = turn = 0
    is_in_run = False
    for item in paced(items):
        kind = item.get("type")
        if kind in _OUTPUT_OF:
            if not is_in_run:
                run, is_in_run = run + 1, True
            known = calls.setdefault(item["call_id"], _CallsOfId())
            to_come[item["call_id"]] -= 1
            numbered = numbered_call_id(item["call_id"], len(known.calls) + 1)
            call = _CallInHistory(numbered, _OUTPUT_OF[kind], run, early.pop(item["call_id"], _EMPTY))
            known.add(call)
            paired.append(_with(item, call_id=call.call_id))
            ends_of_runs[run] = len(paired)
            continue
        is_in_run = is_in_run and kind == "reasoning"
        if kind not in _OUTPUTS:
            paired.append(item)
            if item.get("role") == "user":
                turn += 1
                early.clear()
            continue
        answered = calls[item["call_id"]].of_output(turn) if item["call_id"] in calls else None
        if answered is not None:
            output = _with(item, call_id=answered.call_id, type=answered.output_kind)
            if answered.output_at is None:
                answered.output_at, answered.output_turn = len(paired), turn
                paired.append(output)
            else:
                paired[answered.output_at] = output
                paired.append(None)
        elif to_come[item["call_id"]]:
            early[item["call_id"]] = item
        elif not is_whole and item["call_id"] != UNKNOWN and item["call_id"] not in calls:
            paired.append(item)
    missing: dict[int, list[dict[str, Json]]] = {}
    for known in calls.values():
        for call in known.calls:
            if call.output_at is None:
                output = {**call.early, "type": call.output_kind, "call_id": call.call_id}
                missing.setdefault(ends_of_runs[call.run], []).append(output)
    joined: list[dict[str, Json]] = []
    for position, kept in enumerate(paired, 1):
        if kept is not None:
            joined.append(kept)
        joined += missing.get(position, ())
    return joined


def _with(item: dict[str, Json], **fields: str) -> dict[str, Json]:
    return item if all(item.get(key) == value for key, value in fields.items()) else {**item, **fields}
