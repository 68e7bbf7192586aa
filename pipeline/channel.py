"""Links between tasks: bounded queues, which carry batches and tell the lanes what they waited for.

A batch is a list of events. One read of the upstream's socket becomes one batch and stays one all the way down, so the
cost of a hop is shared by all events that arrived together, and nobody ever waits to fill a batch.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import outcome
import trio

from pipeline.errors import blame
from pipeline.histogram import slot_of
from pipeline.lane import BLOCKED, BUSY, CLOSING, READY, STARVED, Lane, Outside
from pipeline.timeline import Party

T = TypeVar("T")


class DownstreamGone(Exception):
    """The consumer has all it wants and has returned; there is nobody left to send to.

    A stage need not catch it: the pipeline takes it for a normal, early end of the stage.
    """


class EndOfInput(Exception):
    """The stage before has returned: its output is complete. Stages never see it."""


class Taker(Protocol[T]):
    """Where a task's batches come from."""

    async def take(self, lane: Lane) -> list[T] | None:
        """Take the next batch for ``lane``, which is starved; None if the task was woken before one came.

        Raises:
            EndOfInput: if there will be none.
        """
        ...

    def abandon(self) -> None:
        """Say that no more batches are wanted; what is queued is dropped."""
        ...


class Giver(Protocol[T]):
    """Where a task's batches go."""

    def give_nowait(self, batch: list[T], lane: Lane, now_ns: int) -> bool:
        """Hand over a batch if there is room for it; return whether there was.

        Raises:
            DownstreamGone: if nobody will take it.
        """
        ...

    async def give(self, batch: list[T], lane: Lane, now_ns: int) -> None:
        """Hand over a batch for which `give_nowait` has just found no room.

        Raises:
            DownstreamGone: if nobody will take it.
        """
        ...

    def complete(self) -> None:
        """Say that no more batches come."""
        ...

    @property
    def is_abandoned(self) -> bool:
        """Whether no more batches are wanted."""
        ...


class Link(Generic[T]):
    """A queue between two tasks. Each entry is a batch, when it was offered, and when what it came of arrived, in ns.

    Giving and taking are atomic with respect to cancellation. Taking a batch that is already there is a checkpoint for
    cancellation but lets nobody else run: after at most ``capacity`` and one of them the taker has to wait.

    It is not trio's memory channel, because that does not tell when a receive is cancelled: until the receiver's task
    runs, a giver would take it for one that still waits.

    Attributes:
        name: ``giver>taker``.
        ready_ns: how long the loop took to come to a taker that had waited for the batch, summed.
        queued_ns: how long batches waited for a taker that was not waiting for them, summed.
        ready_waits, queued_waits: how many waits of both kinds there were, by their slot (`pipeline.histogram`).
        full_ns: how long the giver waited for room.
        batches: how many were taken.
        most_waiting: the most batches that have waited at once.
        push: what does the taker's work at once, in the giver's task, while the taker waits; None if only its own task
            can. It gets the batch, the giver's lane, and the time.
    """

    __slots__ = (
        "_capacity",
        "_entries",
        "_givers",
        "_is_complete",
        "_taker",
        "_task",
        "batches",
        "full_ns",
        "is_abandoned",
        "most_waiting",
        "name",
        "push",
        "queued_ns",
        "queued_waits",
        "ready_ns",
        "ready_waits",
    )

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self._capacity = capacity
        self._entries: list[tuple[int, int, list[T]]] = []  # a deque takes 700 bytes while it is empty
        self._givers: list[tuple[trio.lowlevel.Task, tuple[int, int, list[T]]]] = []  # only while there is no room
        self._taker: Lane | None = None  # while it waits, and then there are no entries
        self._task: trio.lowlevel.Task | None = None  # the taker's
        self._is_complete = False
        self.is_abandoned = False
        self.push: Callable[[list[T], Lane, int], None] | None = None
        self.ready_ns = self.queued_ns = self.full_ns = self.batches = self.most_waiting = 0
        self.ready_waits: dict[int, int] = {}
        self.queued_waits: dict[int, int] = {}

    def give_nowait(self, batch: list[T], lane: Lane, now_ns: int) -> bool:
        """As in `Giver`."""
        if self.is_abandoned:
            raise DownstreamGone
        if (taker := self._taker) is not None:
            if self.push is not None:
                self.batches += 1
                self.push(batch, lane, now_ns)
            else:
                self._rouse(taker, now_ns, (now_ns, lane.origin_ns, batch))
            return True
        if len(self._entries) >= self._capacity:
            return False
        self._entries.append((now_ns, lane.origin_ns, batch))
        if len(self._entries) > self.most_waiting:
            self.most_waiting = len(self._entries)
        return True

    async def give(self, batch: list[T], lane: Lane, now_ns: int) -> None:
        """As in `Giver`."""
        giver = (trio.lowlevel.current_task(), (now_ns, lane.origin_ns, batch))
        self._givers.append(giver)
        self.most_waiting = max(self.most_waiting, len(self._entries) + len(self._givers))
        after = lane.state
        lane.switch(BLOCKED, now_ns)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._givers.remove(giver)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            is_admitted = await trio.lowlevel.wait_task_rescheduled(abort)
        except BaseException:
            after = CLOSING
            raise
        finally:
            lane.switch(after, lane.clock())
            self.full_ns += lane.since_ns - now_ns
        if not is_admitted:
            raise DownstreamGone

    async def take(self, lane: Lane) -> list[T] | None:
        """As in `Taker`.

        Raises:
            trio.BusyResourceError: if another task is waiting to take; a stage has one reader.
        """
        if self._entries or self._givers or self._is_complete:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
            except BaseException:
                lane.switch(CLOSING, lane.clock())
                raise
            if not self._entries and not self._givers:
                raise EndOfInput
            offered_ns, origin_ns, batch = self._next()
            now_ns = lane.clock()
            self.queued_ns += now_ns - offered_ns
            slot = slot_of(now_ns - offered_ns)
            self.queued_waits[slot] = self.queued_waits.get(slot, 0) + 1
        else:
            if self._taker is not None:
                raise trio.BusyResourceError("two tasks read from one inlet at once: a stage has one reader")
            self._taker = lane
            self._task = trio.lowlevel.current_task()
            lane.timeline.leave(lane.since_ns)
            entry: tuple[int, int, list[T]] | None = await trio.lowlevel.wait_task_rescheduled(self._abort_take)
            now_ns = lane.clock()
            if entry is None:
                if self._is_complete and not self._entries:
                    raise EndOfInput
                lane.switch(BUSY, now_ns)
                return None
            offered_ns, origin_ns, batch = entry
            self.ready_ns += now_ns - offered_ns
            slot = slot_of(now_ns - offered_ns)
            self.ready_waits[slot] = self.ready_waits.get(slot, 0) + 1
        lane.switch(BUSY, now_ns)
        self.batches += 1
        lane.origin_ns = origin_ns
        first = lane.stages[0]
        first.batches_taken += 1
        first.events_taken += len(batch)
        return batch

    @property
    def waiting(self) -> int:
        """How many batches wait now."""
        return len(self._entries) + len(self._givers)

    def wake(self) -> bool:
        """Have the task that waits to take wait no longer; no batch is lost. Return whether there was one."""
        if (taker := self._taker) is None:
            return False
        self._rouse(taker, taker.clock(), None)
        return True

    def complete(self) -> None:
        """As in `Giver`."""
        self._is_complete = True
        self.wake()

    def abandon(self) -> None:
        """As in `Taker`."""
        self.is_abandoned = True
        self._entries.clear()
        for giver, _ in self._givers:
            trio.lowlevel.reschedule(giver, outcome.Value(False))
        self._givers.clear()

    def _next(self) -> tuple[int, int, list[T]]:
        """Remove the next entry; the first of the givers that wait has the place that becomes free."""
        if not self._givers:
            return self._entries.pop(0)
        giver, entry = self._givers.pop(0)
        trio.lowlevel.reschedule(giver, outcome.Value(True))
        self._entries.append(entry)
        return self._entries.pop(0)

    def _rouse(self, taker: Lane, now_ns: int, entry: tuple[int, int, list[T]] | None) -> None:
        """End the taker's wait, although the loop has not come to its task yet."""
        self._taker = None
        taker.switch(READY, now_ns)
        taker.timeline.enter(now_ns)
        assert self._task is not None  # it waits
        trio.lowlevel.reschedule(self._task, outcome.Value(entry))

    def _abort_take(self, _: object) -> trio.lowlevel.Abort:
        taker, self._taker = self._taker, None
        assert taker is not None  # it waits
        now_ns = taker.clock()
        taker.switch(CLOSING, now_ns)
        taker.timeline.enter(now_ns)
        return trio.lowlevel.Abort.SUCCEEDED


class Source(Generic[T]):
    """Takes straight from an iterator, so that no task and no queue stand before the first stage.

    Nobody can wake who waits here. The wait is nobody's but ours, unless the iterator says otherwise.
    """

    __slots__ = ("_async_batches", "_batches", "_is_begun", "_next")

    def __init__(self, batches: Iterable[list[T]] | AsyncIterable[list[T]]) -> None:
        self._async_batches: AsyncIterator[list[T]] | None = None
        self._batches: Iterator[list[T]] = iter(())
        if isinstance(batches, AsyncIterable):
            self._async_batches = aiter(batches)
        else:
            self._batches = iter(batches)
        self._is_begun = False
        self._next: list[T] | None = None  # what a cancelled `take` has left

    async def take(self, lane: Lane) -> list[T]:
        """Take the next batch of the iterator. One that need not be awaited is a checkpoint from its second batch on.

        Raises:
            EndOfInput: if there are no more.
            PipelineError: what the iterator raised, blamed on the source.
        """
        while True:
            try:
                if self._async_batches is not None:
                    batch = await anext(self._async_batches)
                else:
                    if self._next is None:
                        self._next = next(self._batches)
                    if self._is_begun:
                        await trio.lowlevel.checkpoint()
                    else:  # a request has one batch as a rule: what its stage waits for comes soon enough
                        await trio.lowlevel.checkpoint_if_cancelled()
                        self._is_begun = True
                    batch, self._next = self._next, None
            except (StopIteration, StopAsyncIteration):
                raise EndOfInput from None
            except Exception as error:
                fault = blame(error, "source")
                try:
                    raise fault from fault.__cause__
                finally:
                    del fault  # else its traceback holds this frame, which holds it, and the source
            except BaseException:
                lane.switch(CLOSING, lane.clock())
                raise
            if batch:
                lane.origin_ns = lane.clock()
                lane.switch(BUSY, lane.origin_ns)
                first = lane.stages[0]
                first.batches_taken += 1
                first.events_taken += len(batch)
                return batch

    def abandon(self) -> None:
        """Do nothing: the iterator is its owner's."""


class Sink(Generic[T]):
    """A list that takes everything, behind the last stage."""

    __slots__ = ("_results",)
    is_abandoned = False

    def __init__(self, results: list[T]) -> None:
        self._results = results

    def give_nowait(self, batch: list[T], lane: Lane, now_ns: int) -> bool:
        """Append the batch's events to the results."""
        self._results += batch
        return True

    async def give(self, batch: list[T], lane: Lane, now_ns: int) -> None:
        """Append the batch's events to the results; never called, as there is always room."""
        self._results += batch

    def complete(self) -> None:
        """Do nothing: the results are complete."""


class Inlet(Generic[T]):
    """Where a stage's batches come from: ``async for batch in inlet``.

    A batch is never empty, and it is yours to keep or to change. Iteration ends when the stage before has returned
    normally: a closed channel means success. Receiving is a checkpoint, and is atomic with respect to cancellation:
    a batch is either yours or still in the channel. One task reads.
    """

    __slots__ = ("lane", "taker")

    def __init__(self, taker: Taker[T], lane: Lane) -> None:
        self.taker = taker
        self.lane = lane

    def __aiter__(self) -> Inlet[T]:
        return self

    async def __anext__(self) -> list[T]:
        lane = self.lane
        while True:
            lane.switch(STARVED, lane.clock())
            try:
                batch = await self.taker.take(lane)
            except EndOfInput:
                lane.begin_closing()
                raise StopAsyncIteration from None
            if batch is not None:
                return batch


class Outlet(Generic[T]):
    """Where a stage's batches go. Empty batches are never sent."""

    __slots__ = ("_lane", "giver")

    def __init__(self, giver: Giver[T], lane: Lane) -> None:
        self.giver = giver
        self._lane = lane

    async def send(self, batch: list[T]) -> None:
        """Hand over a batch, waiting while the consumer is behind.

        Atomic with respect to cancellation: if it raises, the batch was not sent. A checkpoint only when it has to
        wait; the consumer's receive is one per batch anyway (ADR 0004). The batch belongs to the consumer from here
        on.

        Raises:
            DownstreamGone: if the consumer has closed its inlet.
        """
        if not batch:
            return
        lane = self._lane
        size = len(batch)  # the consumer may change the batch as soon as it has it
        now_ns = lane.clock()
        if not self.giver.give_nowait(batch, lane, now_ns):
            await self.giver.give(batch, lane, now_ns)
        last = lane.stages[-1]
        last.batches_out += 1
        last.events_out += size

    def outside(self, party: Party = Party.OURS) -> Outside:
        """Return a context manager for waits for the world, to be used as often as needed.

        Args:
            party: whose time it is: ``Party.UPSTREAM`` or ``Party.CLIENT`` if the stage waits for their socket.
        """
        return self._lane.outside(party)

    @contextmanager
    def lane(self, task: str) -> Generator[Outlet[T]]:
        """Return an outlet for another task of this stage, named ``task``, for the duration of a block.

        What the two tasks do at the same time would otherwise be charged to one clock, and be wrong in both.
        """
        further = self._lane.further(task)
        try:
            yield _FurtherOutlet(self.giver, further, self._lane)
        finally:
            further.begin_closing()
            further.timeline.leave(further.since_ns)

    @property
    def is_abandoned(self) -> bool:
        """Whether the consumer has all it wants, so that what is left may be dropped."""
        return self.giver.is_abandoned


class _FurtherOutlet(Outlet[T]):
    """The outlet of a further task: what it sends came of the batch that the stage took last."""

    __slots__ = ("_main",)

    def __init__(self, giver: Giver[T], lane: Lane, main: Lane) -> None:
        super().__init__(giver, lane)
        self._main = main

    async def send(self, batch: list[T]) -> None:
        self._lane.origin_ns = self._main.origin_ns or self._lane.origin_ns
        await super().send(batch)
