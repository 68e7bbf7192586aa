"""Calls and their outputs, paired as every upstream requires: one output for each call, one call for each output.

Histories break: an answer is stopped before its calls are run, a result is sent twice after a lost connection, or a
chat started on an upstream that counts its calls from zero in each answer. OpenAI answers 400 ("No tool output found
for function call"), Anthropic too, and since a client sends its whole history each time, the chat could not continue.

Only functions and custom tools are repaired; other kinds of calls (shell, computer ...) pass as they are.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from stages.wire.call_ids import numbered_call_id
from stages.wire.foreign_json import Json

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
    for item in items:
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
    waiting: list[str] = []
    is_in_run = False
    for item in items:
        kind = item.get("type")
        if kind in _OUTPUT_OF:
            waiting = waiting if is_in_run else []
            if item["call_id"] not in outputs:
                waiting.append(item["call_id"])
        elif kind in _OUTPUTS and (call_id := item["call_id"]) not in calls:
            fitting = [one for one in waiting if call_id == UNKNOWN or one.startswith(_UNNAMED)]
            if fitting:
                waiting.remove(fitting[0])
                item = {**item, "call_id": fitting[0]}
        elif item.get("role") == "user":
            waiting = []
        is_in_run = kind in _OUTPUT_OF or (is_in_run and kind == "reasoning")
        adopted.append(item)
    return adopted


def _repaired(items: list[dict[str, Json]], *, is_whole: bool) -> list[dict[str, Json]]:
    items = _adopted(items)
    to_come = Counter(item["call_id"] for item in items if item.get("type") in _OUTPUT_OF)
    early: dict[str, dict[str, Json]] = {}
    paired: list[dict[str, Json] | None] = []
    calls: dict[str, list[_CallInHistory]] = {}
    ends_of_runs: dict[int, int] = {}
    run = turn = 0
    is_in_run = False
    for item in items:
        kind = item.get("type")
        if kind in _OUTPUT_OF:
            if not is_in_run:
                run, is_in_run = run + 1, True
            known = calls.setdefault(item["call_id"], [])
            to_come[item["call_id"]] -= 1
            numbered = numbered_call_id(item["call_id"], len(known) + 1)
            call = _CallInHistory(numbered, _OUTPUT_OF[kind], run, early.pop(item["call_id"], _EMPTY))
            known.append(call)
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
        call = _call_of_output(calls[item["call_id"]], turn) if item["call_id"] in calls else None
        if call is not None:
            output = _with(item, call_id=call.call_id, type=call.output_kind)
            if call.output_at is None:
                call.output_at, call.output_turn = len(paired), turn
                paired.append(output)
            else:
                paired[call.output_at] = output
                paired.append(None)
        elif to_come[item["call_id"]]:
            early[item["call_id"]] = item
        elif not is_whole and item["call_id"] != UNKNOWN and item["call_id"] not in calls:
            paired.append(item)
    missing: dict[int, list[dict[str, Json]]] = {}
    for known in calls.values():
        for call in known:
            if call.output_at is None:
                output = {**call.early, "type": call.output_kind, "call_id": call.call_id}
                missing.setdefault(ends_of_runs[call.run], []).append(output)
    joined: list[dict[str, Json]] = []
    for position, kept in enumerate(paired, 1):
        if kept is not None:
            joined.append(kept)
        joined += missing.get(position, ())
    return joined


def _call_of_output(calls: list[_CallInHistory], turn: int) -> _CallInHistory | None:
    """Return the call of an output in a turn: of the latest calls with its id the first without one, else the last.

    None if that was answered in an earlier turn.
    """
    latest = calls[-1].run
    call = next((call for call in calls if call.run == latest and call.output_at is None), calls[-1])
    return call if call.output_at is None or call.output_turn == turn else None


def _with(item: dict[str, Json], **fields: str) -> dict[str, Json]:
    return item if all(item.get(key) == value for key, value in fields.items()) else {**item, **fields}
