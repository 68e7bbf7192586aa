"""Measure the engine alone: a hop, a codec stage, setting up a request, a streaming answer, the cost of the meters.

Run: ``python -m benchmarks.bench_engine``. Times are per batch or per run; A and B take turns in each round.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import trio
import trio.lowlevel

from benchmarks.recording import Recording, Stopwatch, begin, number, table
from benchmarks.unmetered import unmetered
from pipeline import (
    Inlet,
    Meter,
    Outlet,
    Pipeline,
    RequestContext,
    Stage,
    async_codec_stage,
    codec_stage,
    ticking_stage,
)

STAGES = 6
"""The number of stages in our longest route."""


class Forward:
    """A stage in its own task that passes its input on: the minimal cost of a hop."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)


class Same:
    """A codec that changes nothing."""

    def feed(self, batch: list[int], /) -> list[int]:
        return batch

    def flush(self) -> list[int]:
        return []


class Drop:
    """The last stage: it discards everything, so that results do not accumulate."""

    name = "drop"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for _ in inlet:
            pass


def chain(stages: int, make: Callable[[str], Stage[Any, Any]]) -> Pipeline[int, int]:
    """Return a chain of ``stages`` equal stages and `Drop`."""
    made = Pipeline(make("stage-0"))
    for i in range(1, stages):
        made = made.then(make(f"stage-{i}"))
    return made.then(Drop())


def codec(name: str) -> Stage[int, int]:
    """Return a stage that runs `Same`."""
    return codec_stage(name, lambda ctx: Same())


class Tick(Same):
    """A codec that ticks after a silence, as `keep_alive` does."""

    def tick(self) -> list[int]:
        return [0]


class Write:
    """An asynchronous codec whose waits end immediately."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    async def feed(self, batch: list[int], /) -> list[int]:
        with self._meter.outside():
            return []

    async def flush(self) -> list[int]:
        with self._meter.outside():
            return []


class Ask:
    """A stage in its own task that sends a number of batches, one at a time, as `call_upstream` does."""

    name = "ask"

    def __init__(self, batches: int) -> None:
        self._batches = batches

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        async for _ in inlet:
            for _ in range(self._batches):
                with outlet.meter.outside():
                    await trio.lowlevel.checkpoint()
                await outlet.send([0])


def answer(batches: int) -> Pipeline[int, int]:
    """Return a fused chain like that of a streaming answer."""
    made = Pipeline(Ask(batches)).then(codec("decode")).then(codec("remember")).then(codec("encode"))
    ticking = made.then(ticking_stage("keep_alive", lambda ctx: Tick(), 15))
    return ticking.then(async_codec_stage("write", lambda ctx, meter: Write(meter))).fused()


def ready(batches: int, events: int) -> Iterator[list[int]]:
    """Yield batches that are always ready."""
    return ([0] * events for _ in range(batches))


async def trickle(batches: int, events: int) -> AsyncIterator[list[int]]:
    """Yield each batch when all consumers are asleep, as a streaming model does."""
    for _ in range(batches):
        await trio.lowlevel.checkpoint()
        for _ in range(STAGES):  # one step for each stage
            await trio.lowlevel.checkpoint()
        yield [0] * events


async def per_batch_ns(
    made: Pipeline[int, int], batches: int, events: int, *, is_slow: bool = False, **clock: Any
) -> float:
    """Run once, and return the time per batch."""
    source: Any = trickle(batches, events) if is_slow else ready(batches, events)
    with Stopwatch() as watch:
        await made.run(source, RequestContext("bench"), **clock)
    return watch.ns / batches


async def one_round(recording: Recording, batches: int) -> None:
    """Measure everything once."""
    record = recording.add
    for is_slow, kind in ((False, "ready"), (True, "trickling")):
        short = await per_batch_ns(chain(1, Forward), batches, 1, is_slow=is_slow)
        long = await per_batch_ns(chain(STAGES, Forward), batches, 1, is_slow=is_slow)
        record(f"hop, {kind} source", "engine", {"ns": (long - short) / (STAGES - 1)})
    for events in (1, 64):
        short = await per_batch_ns(chain(1, codec), batches, events)
        long = await per_batch_ns(chain(STAGES, codec), batches, events)
        record(f"codec stage, tasks, batch of {events}", "engine", {"ns": (long - short) / (STAGES - 1)})
        short = await per_batch_ns(chain(1, codec).fused(), batches, events)
        long = await per_batch_ns(chain(STAGES, codec).fused(), batches, events)
        record(f"codec stage, fused, batch of {events}", "engine", {"ns": (long - short) / (STAGES - 1)})
    runs = max(1, batches // 50)
    for is_fused in (False, True):
        made = chain(STAGES, codec).fused() if is_fused else chain(STAGES, codec)
        with Stopwatch() as watch:
            for _ in range(runs):
                await made.run(ready(1, 1), RequestContext("bench"))
        record(f"set-up of {STAGES + 1} stages, {'fused' if is_fused else 'tasks'}", "engine", {"ns": watch.ns / runs})
    one_event, all_events = answer(1), answer(batches)
    with Stopwatch() as watch:
        for _ in range(runs):
            await one_event.run([[0]], RequestContext("bench"))
    record("answer of one event", "engine", {"ns": watch.ns / runs})
    with Stopwatch() as watch:
        await all_events.run([[0]], RequestContext("bench"))
    record("answer, each event", "engine", {"ns": watch.ns / batches})
    for name, made in (("tasks", chain(STAGES, codec)), ("fused", chain(STAGES, codec).fused())):
        for is_slow in (False, True):
            await _meters(
                recording, made, f"{STAGES + 1} stages, {name}, {'trickling' if is_slow else 'ready'}", batches, is_slow
            )


async def _meters(recording: Recording, made: Pipeline[int, int], what: str, batches: int, is_slow: bool) -> None:
    """Measure a chain with its meters, with a clock that costs nothing, and with meters that do nothing."""
    metered = await per_batch_ns(made, batches, 1, is_slow=is_slow)
    clockless = await per_batch_ns(made, batches, 1, is_slow=is_slow, clock=itertools.repeat(0).__next__)
    with unmetered():
        bare = await per_batch_ns(made, batches, 1, is_slow=is_slow)
    figures = {
        "ns": metered,
        "clockless_ns": clockless,
        "bare_ns": bare,
        "meters_ns": metered - bare,
        "share": (metered - bare) / metered,
    }
    recording.add(what, "meters", figures)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format the medians as a table."""
    rows = [["engine", "ns", "least", "most"]]
    for row in recording.rows:
        if row.measure == "engine":
            values = [figures["ns"] for figures in row.rounds]
            rows.append([row.subject, *(number(value, 0) for value in (row.median("ns"), min(values), max(values)))])
    meters = [["meters: ns per batch through", "metered", "without clock", "without meters", "cost of meters", "share"]]
    for row in recording.rows:
        if row.measure == "meters":
            cells = [number(row.median(figure), 0) for figure in ("ns", "clockless_ns", "bare_ns", "meters_ns")]
            meters.append([row.subject, *cells, f"{row.median('share') or 0:.1%}"])
    return table(rows, markdown=markdown) + "\n\n" + table(meters, markdown=markdown)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure what the engine costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--batches", type=int, default=5000, help="batches per run (%(default)s)")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-engine.json)")
    options = parser.parse_args(arguments)
    recording = begin("engine", is_quick=options.quick)
    for _ in range(options.rounds or (3 if options.quick else 9)):
        trio.run(one_round, recording, options.batches)
    recording.notes = [
        "Stages do nothing here, so the share of the meters is the largest it can be; what it is of a whole service's "
        "CPU is measured by bench_gateway (headrace against 'headrace without meters')."
    ]
    print(summary(recording))
    recording.save(options.output)


if __name__ == "__main__":
    main()
