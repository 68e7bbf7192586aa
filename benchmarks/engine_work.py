"""The work that `bench_engine` and `bench_meters` order of an engine, in a process of its own; the reply is CPU time.

Run: ``python -m benchmarks.engine_work``, with orders such as ``{"work": "answer", "amount": 20}`` on
stdin. It works with the engine of any tree that comes first on the path (`benchmarks.turns.engine_command`).
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, NamedTuple

import trio
import trio.lowlevel

import pipeline
from benchmarks.children import serve_orders
from pipeline import Inlet, Outlet, Pipeline, RequestContext, Stage, codec_stage

LENGTH = 32
"""Of the chains: so long that their ends, which every chain has, are a small part of the cost of a stage."""
KEEP_ALIVE_S = 15.0


class Forward:
    """A stage in its own task that passes its input on: the minimal cost of a hop."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)


class Same:
    """A codec that changes nothing."""

    def __init__(self, ctx: object) -> None:
        """Take what every codec is opened with."""

    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []


class Tick(Same):
    """A codec that ticks after a silence, as `keep_alive` does."""

    def tick(self) -> list[int]:
        return [0]


class Write:
    """A codec that may wait but need not, as the writer whose client's socket accepts everything at once."""

    def __init__(self, ctx: object) -> None:
        self.done = False

    async def feed(self, batch: list[int], lane: Any, /) -> list[int]:
        lane.timeline.deliver(lane.origin_ns)
        return []

    async def flush(self, lane: Any, /) -> list[int]:
        return []


class Drop:
    """The last stage of a chain: it discards everything, and has `one_at_a_time` go on."""

    name = "drop"

    def __init__(self) -> None:
        self.lot = trio.lowlevel.ParkingLot()

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for _ in inlet:
            self.lot.unpark()


class Ask:
    """A stage in its own task that waits for the upstream before each of its batches, as `call_upstream` does."""

    name = "ask"

    def __init__(self, batches: int) -> None:
        self._batches = batches

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        waiting = wait_for_upstream(outlet)
        async for _ in inlet:
            for _ in range(self._batches):
                with waiting:
                    await trio.lowlevel.checkpoint()
                await outlet.send([0])


# --- The engine of commit 4cb7353 has other names for these. When nobody compares with it any more, delete the lines
# with OLD and `OldWrite`.
OLD: Any = pipeline if hasattr(pipeline, "async_codec_stage") else None


class OldWrite:
    """`Write` for that engine, whose writer declares a wait for each batch."""

    def __init__(self, ctx: object, meter: Any) -> None:
        self._meter = meter

    async def feed(self, batch: list[int], /) -> list[int]:
        with self._meter.outside():
            return []

    async def flush(self) -> list[int]:
        return []


def wait_for_upstream(outlet: Any) -> AbstractContextManager[object]:
    """Return the declared wait."""
    if OLD:
        return outlet.meter.outside()  # type: ignore[no-any-return]
    return outlet.outside(pipeline.Party.UPSTREAM)  # type: ignore[no-any-return]


def keep_alive() -> Stage[int, int]:
    """Return a stage that runs `Tick`."""
    if OLD:
        return OLD.ticking_stage("keep_alive", Tick, KEEP_ALIVE_S)  # type: ignore[no-any-return]
    return codec_stage("keep_alive", Tick, tick_s=KEEP_ALIVE_S)


def write() -> Stage[int, int]:
    """Return a stage that runs `Write`."""
    if OLD:
        return OLD.async_codec_stage("write", OldWrite)  # type: ignore[no-any-return]
    return codec_stage("write", Write)


# --- End of that part.


def same(name: str) -> Stage[int, int]:
    """Return a stage that runs `Same`."""
    return codec_stage(name, Same)


def chain(make: Callable[[str], Stage[int, int]], drop: Drop) -> Pipeline[int, int]:
    """Return a chain of `LENGTH` equal stages and ``drop``."""
    made: Pipeline[int, int] = Pipeline(make("stage-0"))
    for i in range(1, LENGTH):
        made = made.then(make(f"stage-{i}"))
    return made.then(drop)


def accept() -> Pipeline[int, int]:
    """Return a line like that which accepts a request."""
    made = Pipeline(same("authenticate")).then(same("parse")).then(same("restore"))
    return made.then(same("choose")).fused()


def answer(batches: int) -> Pipeline[int, int]:
    """Return a chain like that of a streaming answer."""
    made = Pipeline(Ask(batches)).then(same("decode")).then(same("remember")).then(same("encode"))
    return made.then(keep_alive()).then(write()).fused()


def ready(batches: int, events: int) -> Iterator[list[int]]:
    """Yield batches that are always ready, as those of a burst are."""
    return ([0] * events for _ in range(batches))


async def one_at_a_time(batches: int, lot: trio.lowlevel.ParkingLot) -> AsyncIterator[list[int]]:
    """Yield each batch when `Drop` has taken the last one, so that all tasks sleep, as between a model's tokens."""
    yield [0]
    for _ in range(batches - 1):
        await lot.park()
        yield [0]


Job = Callable[[], Awaitable[object]]
"""Does an amount of work."""


def burst_through(
    make: Callable[[str], Stage[int, int]], *, events: int = 1, fused: bool = False
) -> Callable[[int], Job]:
    """Return what makes the job to push batches through a chain, as fast as it takes them."""
    made = chain(make, Drop())
    made = made.fused() if fused else made
    return lambda batches: lambda: made.run(ready(batches, events), RequestContext("bench"))


def drip_through(make: Callable[[str], Stage[int, int]]) -> Callable[[int], Job]:
    """Return what makes the job to push batches through a chain whose tasks sleep meanwhile."""
    drop = Drop()
    made = chain(make, drop)
    return lambda batches: lambda: made.run(one_at_a_time(batches, drop.lot), RequestContext("bench"))


def requests_to(made: Pipeline[int, int]) -> Callable[[int], Job]:
    """Return what makes the job to set up, run and end a pipeline for one batch, a number of times."""

    async def run(requests: int) -> None:
        for _ in range(requests):
            await made.run([[0]], RequestContext("bench"))

    return lambda requests: partial(run, requests)


def events_of_an_answer(events: int) -> Job:
    """Return the job of one long answer."""
    made = answer(events)
    return lambda: made.run([[0]], RequestContext("bench"))


class Work(NamedTuple):
    """One kind of work.

    Attributes:
        title: what its cost is the cost of.
        prepare: returns what can make the jobs; not a part of the work.
        amount: of one slice of a turn, some 8 ms.
        parts: in how many equal parts the cost of one is divided.
    """

    title: str
    prepare: Callable[[], Callable[[int], Job]]
    amount: int
    parts: int = 1


WORKS: Final = {
    "hop-burst": Work("a hop, in a burst", lambda: burst_through(Forward), 15, LENGTH),
    "hop-asleep": Work("a hop to a task that sleeps", lambda: drip_through(Forward), 10, LENGTH),
    "codec-1": Work("a codec stage, batch of 1", lambda: burst_through(same), 20, LENGTH),
    "codec-64": Work("a codec stage, batch of 64", lambda: burst_through(same, events=64), 20, LENGTH),
    "fused-1": Work("a fused codec stage, batch of 1", lambda: burst_through(same, fused=True), 160, LENGTH),
    "fused-64": Work(
        "a fused codec stage, batch of 64", lambda: burst_through(same, events=64, fused=True), 160, LENGTH
    ),
    "accept": Work("accepting a request, 4 codecs", lambda: requests_to(accept()), 130),
    "answer": Work("an answer of one event", lambda: requests_to(answer(1)), 30),
    "event": Work("each further event of an answer", lambda: events_of_an_answer, 180),
}


def amounts_of(length: float) -> dict[str, int]:
    """Return the amount of each work in a slice of this length; 1 is some 8 ms."""
    return {name: max(1, round(work.amount * length)) for name, work in WORKS.items()}


async def cpu_ns(job: Job) -> int:
    """Do a job, and return the CPU time that this process has used for it."""
    gc.collect()  # each turn begins with the same heap; what is collected within the turn is part of its cost
    before_ns = time.process_time_ns()
    await job()
    return time.process_time_ns() - before_ns


def main() -> None:
    """Work as ordered, until stdin ends."""
    parser = argparse.ArgumentParser(description="Do the work that is ordered on stdin.")
    parser.add_argument("--without-figures", action="store_true", help="the engine without its figures")
    if parser.parse_args().without_figures:
        from benchmarks.unmetered import leave_out_figures

        leave_out_figures()

    prepared = {name: work.prepare() for name, work in WORKS.items()}
    gc.collect()
    gc.freeze()  # a collection before each job need not look at all modules

    def reply(order: dict[str, Any]) -> dict[str, Any]:
        name, amount = order["work"], order["amount"]
        used_ns = trio.run(cpu_ns, prepared[name](amount))
        return {"cpu_us": used_ns / amount / WORKS[name].parts / 1000}

    serve_orders(reply)


if __name__ == "__main__":
    main()
