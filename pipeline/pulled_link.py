"""A link between two stages of one task: who takes runs who gives, as far as its next batch.

Each stage is a coroutine. What it waits for passes through to trio, as with ``await``; at a batch it stands still until
the next one is wanted. So a chain needs neither tasks nor switches of tasks, and works only while it is asked.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

import trio

from pipeline.channel import EndOfInput
from pipeline.lane import BLOCKED, BUSY, CLOSING, Lane

T = TypeVar("T")

_GIVEN: Final = object()
"""What a stage yields, instead of something for trio, when it has given a batch."""


class Unwound(BaseException):
    """Ends a stage that is not to go on, as `trio.Cancelled` ends a task: no failure of its own, and no good end."""


class Stop(enum.Enum):
    """Why a coroutine runs no further: it has given a batch, has ended well, or has failed."""

    GIVEN = enum.auto()
    ENDED = enum.auto()
    BROKEN = enum.auto()


class PulledLink(Generic[T]):
    """Where one stage's batches come from and the other's go; both are in one task.

    Attributes:
        is_watched: whether who takes may be woken, by `wake`.
    """

    __slots__ = ("_batch", "_giving", "_is_begun", "_is_done", "_origin_ns", "_scope", "is_watched")

    def __init__(self) -> None:
        self._giving: Coroutine[Any, Any, bool] | None = None  # while it stands still, or has not begun
        self._is_begun = False
        self._is_done = False  # whether who takes has all it wants
        self._batch: list[T] = []
        self._origin_ns = 0
        self._scope: trio.CancelScope | None = None  # of who gives, while it runs and may be woken
        self.is_watched = False

    def lead_from(self, giving: Coroutine[Any, Any, bool]) -> None:
        """Set who gives. It begins with the first `take`, and returns whether it has ended well."""
        self._giving = giving

    # For the stage that gives.

    @property
    def is_abandoned(self) -> bool:
        """As in `pipeline.channel.Giver`."""
        return self._is_done or (self._scope is not None and self._scope.cancel_called)

    def give_nowait(self, batch: list[T], lane: Lane, now_ns: int) -> bool:
        """As in `pipeline.channel.Giver`: it always stands still until the next batch is wanted."""
        return False

    async def give(self, batch: list[T], lane: Lane, now_ns: int) -> None:
        """As in `pipeline.channel.Giver`."""
        self._batch, self._origin_ns = batch, lane.origin_ns
        after = lane.state
        lane.switch(BLOCKED, now_ns)
        try:
            await _given()
        finally:
            lane.switch(after, lane.clock())

    def complete(self) -> None:
        """Do nothing: who gives ends, which says the same."""

    # For the stage that takes.

    async def take(self, lane: Lane) -> list[T] | None:
        """As in `pipeline.channel.Taker`. What woke it ends its input: the next `take` raises.

        Raises:
            Unwound: if who gives has failed.
        """
        giving, self._giving = self._giving, None
        if giving is None:
            raise EndOfInput
        self._is_begun = True
        stop: Stop | None = None
        try:
            if self.is_watched:
                with trio.CancelScope() as self._scope:
                    stop = await _until_stop(giving)
            else:
                stop = await _until_stop(giving)
        except BaseException:
            lane.switch(CLOSING, lane.clock())
            raise
        finally:
            self._scope = None
        if stop is not Stop.GIVEN:
            if stop is Stop.BROKEN:
                raise Unwound  # the failure was noted where it happened; those behind it must not flush
            if stop is Stop.ENDED:
                raise EndOfInput
            lane.switch(BUSY, lane.clock())  # woken
            return None
        self._giving = giving
        batch, self._batch = self._batch, []
        lane.switch(BUSY, lane.clock())
        lane.origin_ns = self._origin_ns
        first = lane.stages[0]
        first.batches_taken += 1
        first.events_taken += len(batch)
        return batch

    def abandon(self) -> None:
        """As in `pipeline.channel.Taker`; `aclose` ends who gives."""
        self._is_done = True

    def wake(self) -> bool:
        """Have who takes wait no longer, and return whether it waits. It ends who gives: for a tick that is the end."""
        if self._scope is None:
            return False
        self._scope.cancel()
        return True

    async def aclose(self, *, is_answered: bool = False) -> None:
        """End who gives, where it stands.

        Args:
            is_answered: whether it may first go on once more, because its end is due.
        """
        giving, self._giving = self._giving, None
        if giving is None:
            return
        if not self._is_begun:
            giving.close()
        elif not is_answered or await _until_stop(giving) is Stop.GIVEN:
            try:
                await _until_stop(giving, Unwound())
            except Unwound:
                return


@types.coroutine
def _given() -> Generator[Any, Any, None]:
    yield _GIVEN


@types.coroutine
def _until_stop(giving: Coroutine[Any, Any, bool], error: BaseException | None = None) -> Generator[Any, Any, Stop]:
    """Run a coroutine, after raising ``error`` in it, until it gives or ends."""
    try:
        trap = giving.send(None) if error is None else giving.throw(error)
        while trap is not _GIVEN:
            trap = giving.send((yield trap))  # trio sends what has gone wrong, too, and the wait raises it
    except StopIteration as end:
        return Stop.ENDED if end.value else Stop.BROKEN
    finally:
        del error  # its traceback holds this frame, which held it: garbage that only the collector frees
    return Stop.GIVEN
