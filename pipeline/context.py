"""What the stages of one request share: its identity, its time budget, its figures, and typed notes."""

from __future__ import annotations

import math
from time import perf_counter_ns
from typing import Any, Generic, TypeVar

from pipeline.channel import Link
from pipeline.kernel_time import Clock
from pipeline.lane import Lane
from pipeline.timeline import BatchTimes, Timeline

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
        deadline: on trio's clock, in seconds; the pipeline ends with `DeadlineExceeded` when it passes.
        timeline: the time of the request as a whole.
        lanes: one per task of its pipelines that has started, in the order of the stages.
        links: one per channel between two tasks.
        open_codecs: those of the running pipeline that are told its end, each with the name of its stage.
        skipped: the names of the stages without which the request has gone on, also in its parts.
    """

    __slots__ = ("_notes", "deadline", "lanes", "links", "open_codecs", "request_id", "skipped", "timeline")

    def __init__(
        self,
        request_id: str,
        *,
        deadline: float = math.inf,
        clock: Clock = perf_counter_ns,
        batch_times: BatchTimes | None = None,
    ) -> None:
        self.request_id = request_id
        self.deadline = deadline
        self.timeline = Timeline(clock, batch_times)
        self.lanes: list[Lane] = []
        self.links: list[Link[Any]] = []
        self.open_codecs: list[tuple[str, Any]] = []
        self.skipped: list[str] = []
        self._notes: dict[Slot[Any], Any] = {}

    def __setitem__(self, slot: Slot[T], value: T) -> None:
        self._notes[slot] = value

    def __getitem__(self, slot: Slot[T]) -> T:
        """Return what an earlier stage left in ``slot``.

        Raises:
            LookupError: if nobody has; the message names the slot.
        """
        try:
            return self._notes[slot]  # type: ignore[no-any-return]  # `cast` is a call, ten times a request
        except KeyError:
            raise LookupError(f"no stage has filled the slot {slot.name!r} of this request yet") from None

    def get(self, slot: Slot[T]) -> T | None:
        """Return what an earlier stage left in ``slot``, or None."""
        return self._notes.get(slot)

    def forget(self, slot: Slot[T]) -> None:
        """Empty ``slot``, if anything is in it."""
        self._notes.pop(slot, None)

    def nested(self) -> RequestContext:
        """Return a context for a part of this request that is run on its own, such as one attempt at an answer.

        It has the same identity, deadline and timeline, and begins with the same notes. What it notes stays there, and
        so do its lanes and links.
        """
        part = RequestContext(self.request_id, deadline=self.deadline)
        part.timeline = self.timeline
        part.skipped = self.skipped
        part._notes = dict(self._notes)
        return part
