"""What the stages of one request share: its identity, its time budget, and typed notes."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar, cast

from pipeline.meter import Meter

T = TypeVar("T")


class Slot(Generic[T]):
    """A typed key into a `RequestContext`: the engine carries the value without knowing what it is.

    Slots are compared by identity, so two modules that pick the same name do not collide.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Slot {self.name}>"


class RequestContext:
    """One request as all of its stages see it.

    Attributes:
        request_id: what the client and the log call this request.
        meters: one per stage that has started, in the order of the stages.
        deadline: on trio's clock, in seconds; the pipeline ends with `DeadlineExceeded` when it passes.
    """

    __slots__ = ("_notes", "deadline", "meters", "request_id")

    def __init__(self, request_id: str, *, deadline: float = math.inf) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.meters: list[Meter] = []
        self._notes: dict[Slot[Any], object] = {}

    def __setitem__(self, slot: Slot[T], value: T) -> None:
        self._notes[slot] = value

    def __getitem__(self, slot: Slot[T]) -> T:
        """Return what an earlier stage left in ``slot``.

        Raises:
            LookupError: if nobody has; the message names the slot.
        """
        try:
            return cast("T", self._notes[slot])
        except KeyError:
            raise LookupError(f"no stage has filled the slot {slot.name!r} of this request yet") from None

    def get(self, slot: Slot[T]) -> T | None:
        """Return what an earlier stage left in ``slot``, or None."""
        return cast("T | None", self._notes.get(slot))
