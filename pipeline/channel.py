"""Links between stages: bounded channels that carry batches and tell the meters what they waited for.

A batch is a list of events. One read of the upstream's socket becomes one batch and stays one all the way down, so
the cost of a hop is shared by all events that arrived together, and nobody ever waits to fill a batch.

The channels are our own, for one giver and one taker (ADR 0008): a hop is half as dear as over trio's, which serve any
number of both, and making one costs a sixth.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

import outcome
import trio

from pipeline.errors import blame
from pipeline.meter import Clock, Doing, Meter

T = TypeVar("T")

# An attribute of an enum class is a slow look-up on Python 3.11, and a member a slow index; these stand in every hop.
_STARVED: Final = int(Doing.STARVED)
_BLOCKED: Final = int(Doing.BLOCKED)
_CLOSING: Final = int(Doing.CLOSING)


class DownstreamGone(Exception):
    """The consumer has all it wants and has returned; there is nobody left to send to.

    A stage need not catch it: the pipeline takes it for a normal, early end of the stage.
    """


class EndOfInput(Exception):
    """The stage before has returned: its output is complete. Stages never see it."""


class Woken(Exception):
    """Whoever waited for a batch was woken before one came. Stages never see it."""


class Link(Generic[T]):
    """A bounded queue between two tasks. Each entry is a batch and the time at which it was offered, in ns.

    Giving and taking are atomic with respect to cancellation. Taking an entry that is already there is a checkpoint
    for cancellation but lets nobody else run: after at most ``capacity`` of them the taker has to wait for its giver.
    """

    __slots__ = ("_capacity", "_entries", "_giver", "_is_abandoned", "_is_complete", "_pending", "_taker")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: list[tuple[int, list[T]]] = []  # a deque takes 700 bytes while it is empty
        self._taker: trio.lowlevel.Task | None = None
        self._giver: trio.lowlevel.Task | None = None
        self._pending: tuple[int, list[T]] | None = None  # what the waiting giver wants to give
        self._is_complete = False
        self._is_abandoned = False

    def give_nowait(self, offered_ns: int, batch: list[T]) -> bool:
        """Give a batch if there is room for it; say whether it was taken.

        Raises:
            DownstreamGone: if nobody will take it.
        """
        if self._is_abandoned:
            raise DownstreamGone
        if (taker := self._taker) is not None:
            self._taker = None
            trio.lowlevel.reschedule(taker, outcome.Value((offered_ns, batch)))
            return True
        if len(self._entries) >= self._capacity or self._pending is not None:
            return False
        self._entries.append((offered_ns, batch))
        return True

    async def give(self, offered_ns: int, batch: list[T]) -> None:
        """Give a batch for which `give_nowait` has just found no room.

        Raises:
            DownstreamGone: if nobody will take it.
            trio.BusyResourceError: if another task is waiting to give; a stage has one writer.
        """
        if self._giver is not None:
            raise trio.BusyResourceError("two tasks send to one outlet at once: a stage has one writer")
        self._giver = trio.lowlevel.current_task()
        self._pending = (offered_ns, batch)
        await trio.lowlevel.wait_task_rescheduled(self._abort_give)

    def _abort_give(self, _: object) -> trio.lowlevel.Abort:
        self._giver = self._pending = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def take(self) -> tuple[int, list[T]]:
        """Take the next batch, waiting for one.

        Raises:
            EndOfInput: if there will be none.
            Woken: if `wake` was called while it waited.
            trio.BusyResourceError: if another task is waiting to take; a stage has one reader.
        """
        if self._entries:
            await trio.lowlevel.checkpoint_if_cancelled()
            entry = self._entries.pop(0)
            self._admit_giver(self._entries.append)
            return entry
        if self._pending is not None:  # a link without room: straight from hand to hand
            await trio.lowlevel.checkpoint_if_cancelled()
            taken: list[tuple[int, list[T]]] = []
            self._admit_giver(taken.append)
            return taken[0]
        if self._is_complete:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise EndOfInput
        if self._taker is not None:
            raise trio.BusyResourceError("two tasks read from one inlet at once: a stage has one reader")
        self._taker = trio.lowlevel.current_task()
        given: tuple[int, list[T]] | type[Exception] = await trio.lowlevel.wait_task_rescheduled(self._abort_take)
        if isinstance(given, tuple):
            return given
        raise given  # here, as an `outcome.Error` is dear

    def _abort_take(self, _: object) -> trio.lowlevel.Abort:
        self._taker = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Have the task that waits to take, if there is one, wait no longer; no batch is lost."""
        self._disappoint_taker(Woken)

    def complete(self) -> None:
        """Say that no more batches come."""
        self._is_complete = True
        self._disappoint_taker(EndOfInput)

    def _disappoint_taker(self, why: type[Exception]) -> None:
        if (taker := self._taker) is not None:
            self._taker = None
            trio.lowlevel.reschedule(taker, outcome.Value(why))

    def abandon(self) -> None:
        """Say that no more batches are wanted; what is queued is dropped."""
        self._is_abandoned = True
        self._entries.clear()
        if (giver := self._giver) is not None:
            self._giver = self._pending = None
            trio.lowlevel.reschedule(giver, outcome.Error(DownstreamGone()))

    def _admit_giver(self, put: Any) -> None:
        """Let the waiting giver, if there is one, have the place that became free."""
        if (giver := self._giver) is not None:
            put(self._pending)
            self._giver = self._pending = None
            trio.lowlevel.reschedule(giver)


class Source(Link[T]):
    """The far end of the first inlet: takes straight from an iterator, so that no task and no queue stand between.

    Nobody can wake who waits here.
    """

    __slots__ = ("_async_batches", "_batches", "_clock", "_is_begun")

    def __init__(self, batches: Iterable[list[T]] | AsyncIterable[list[T]], clock: Clock) -> None:
        super().__init__(0)
        self._async_batches: AsyncIterator[list[T]] | None = None
        self._batches: Iterator[list[T]] = iter(())
        if isinstance(batches, AsyncIterable):
            self._async_batches = aiter(batches)
        else:
            self._batches = iter(batches)
        self._clock = clock
        self._is_begun = False

    async def take(self) -> tuple[int, list[T]]:
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
                    if not self._entries:
                        self._entries.append((0, next(self._batches)))
                    if self._is_begun:
                        await trio.lowlevel.checkpoint()
                    else:  # a request has one batch as a rule: what its stage waits for comes soon enough
                        await trio.lowlevel.checkpoint_if_cancelled()
                        self._is_begun = True
                    batch = self._entries.pop(0)[1]
            except (StopIteration, StopAsyncIteration):
                raise EndOfInput from None
            except Exception as error:
                fault = blame(error, "source")
                raise fault from fault.__cause__
            if batch:
                return self._clock(), batch


class Sink(Link[T]):
    """The far end of the last outlet: a list that takes everything."""

    __slots__ = ("_results",)

    def __init__(self, results: list[T]) -> None:
        super().__init__(0)
        self._results = results

    def give_nowait(self, offered_ns: int, batch: list[T]) -> bool:
        """Append the batch's events to the results."""
        self._results += batch
        return True


class Inlet(Generic[T]):
    """Where a stage's batches come from: ``async for batch in inlet``.

    A batch is never empty, and it is yours to keep or to change. Iteration ends when the stage before has returned
    normally: a closed channel means success. Receiving is a checkpoint, and is atomic with respect to cancellation:
    a batch is either yours or still in the channel. One task reads.
    """

    __slots__ = ("link", "meter")

    def __init__(self, link: Link[T], meter: Meter) -> None:
        self.link = link
        self.meter = meter

    def __aiter__(self) -> Inlet[T]:
        return self

    async def __anext__(self) -> list[T]:
        meter = self.meter
        meter.enter(_STARVED)
        try:
            offered_ns, batch = await self.link.take()
        except EndOfInput:
            meter.begin_closing()
            raise StopAsyncIteration from None
        except BaseException:
            meter.enter(_CLOSING)
            raise
        taken_ns = meter.enter(meter.home)
        meter.queued_ns += taken_ns - offered_ns
        meter.batches_in += 1
        meter.events_in += len(batch)
        return batch

    def close(self) -> None:
        """Tell the stage before that nobody will take its batches any more."""
        self.link.abandon()


class Outlet(Generic[T]):
    """Where a stage's batches go. Empty batches are never sent. One task writes."""

    __slots__ = ("link", "meter")

    def __init__(self, link: Link[T], meter: Meter) -> None:
        self.link = link
        self.meter = meter

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
        meter = self.meter
        size = len(batch)  # the consumer may change the batch as soon as it has it
        if self.link.give_nowait(meter.enter(meter.home), batch):
            meter.batches_out += 1
            meter.events_out += size
        else:
            await self.wait_and_send(batch)

    async def wait_and_send(self, batch: list[T]) -> None:
        """Hand over a batch for which the link has just had no room.

        Raises:
            DownstreamGone: if the consumer has closed its inlet.
        """
        meter = self.meter
        size = len(batch)
        offered_ns = meter.enter(_BLOCKED)
        try:
            await self.link.give(offered_ns, batch)
        except DownstreamGone:
            meter.resume()
            raise
        except BaseException:
            meter.enter(_CLOSING)
            raise
        meter.resume()
        meter.batches_out += 1
        meter.events_out += size

    def close(self) -> None:
        """Tell the stage after that the stream is complete."""
        self.link.complete()


def open_link(capacity: int, upstream: Meter, downstream: Meter) -> tuple[Outlet[Any], Inlet[Any]]:
    """Join two stages by a channel that holds at most ``capacity`` batches."""
    link: Link[Any] = Link(capacity)  # not Link[Any](...): a call through a generic alias is five times as slow
    return Outlet(link, upstream), Inlet(link, downstream)
