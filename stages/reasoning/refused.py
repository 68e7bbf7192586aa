"""Reasoning that an upstream refuses: the request without it, and the reasoning left out of the next turns too.

Anthropic binds thinking to what came before it, to the model and to the account. If a history was edited, summarised or
made by another account, it answers 400, and to remove only the block that it names does not help: every later one that
was made before the change is refused too. Those that are made after the repaired request are good, so what is forgotten
is what the refused request held, and no more.

Source: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/fix-bound-to-a-different-conversation
(2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from pipeline import UpstreamFault
from stages.reasoning.store import ReasoningStore
from stages.reasoning.turns import FORGOTTEN, write_turn
from stages.request import ResponsesRequest
from stages.wire.foreign_json import is_list

_REFUSED: Final = re.compile(
    # Anthropic's; of the third CLIProxyAPI#3624 has one, of the fourth 9router#859.
    r"bound to a different conversation"
    r"|Invalid .?signature.? in .?thinking.? block"
    r"|thinking.{0,80} blocks? in the latest assistant message cannot be modified"
    r"|each .?thinking.? block must contain",
    re.IGNORECASE,
)


class ReasoningInRequest:
    """The reasoning of earlier turns that a request sends back.

    Args:
        store: where reasoning is kept.
        keys: of all reasoning in the request.
        items: the ``input`` as the client sent it.
        restored: the same with the reasoning of earlier turns.
    """

    __slots__ = ("_items", "_keys", "_restored", "_store")

    def __init__(
        self, store: ReasoningStore, keys: Sequence[bytes], items: list[dict[str, Any]], restored: list[dict[str, Any]]
    ) -> None:
        self._store = store
        self._keys = keys
        self._items = items
        self._restored = restored

    def plain_input(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return an ``input`` as it was before reasoning was restored, its texts in one piece, if it is that input."""
        return self._items if items is self._restored else items

    def forget(self) -> None:
        """Leave this reasoning out of all later turns. Never waits."""
        value = write_turn(FORGOTTEN)
        for key in self._keys:
            self._store.put(key, value)


def refuses_reasoning(fault: UpstreamFault) -> bool:
    """Return whether an upstream refused a request because of the reasoning in its history."""
    status = fault.status_hint
    return status is not None and 400 <= status < 500 and _REFUSED.search(fault.public) is not None


def without_reasoning(
    request: ResponsesRequest, plain_input: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
) -> ResponsesRequest | None:
    """Return the request without the reasoning of earlier turns; None if it has none.

    It is the same that a later turn becomes when that reasoning is forgotten, so that what is made now fits then.

    Args:
        request: what was refused.
        plain_input: returns an ``input`` as it was before reasoning was restored, if any was.
    """
    items = request.body.get("input")
    if not is_list(items) or not any(map(_is_reasoning, items)):
        return None
    plain = items if plain_input is None else plain_input(items)
    rest = [item for item in plain if not _is_reasoning(item)]
    return replace(request, body={**request.body, "input": rest})


def _is_reasoning(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "reasoning"
