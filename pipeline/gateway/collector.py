"""When the garbage collector works: not while many streams run.

Requests and their connections leave nothing in cycles, however they end (``tests/test_gateway/test_garbage.py``): the
collector finds garbage of plugins only, and a little of Quart's pages. With many streams it holds all of them for long,
and its thresholds do not limit for how long: they count objects that were made against objects that were freed, so with
as many streams ending as beginning the youngest generation is collected about once a minute, and by then it holds
nearly all objects that live. With 5 000 streams in two workers it took 0.2 to 0.5 s of CPU each time (``benchmarks.soak
--paced --workers 2``): the p99 of the added latency was 532 ms.

So it rests while there are at least `MANY_STREAMS`, unless so many more objects have been made than freed that they
cannot all be the streams': then a plugin makes garbage, which has to go. When there are fewer streams again it goes on
as before.
"""

from __future__ import annotations

import gc
from typing import Final

import trio

from pipeline.loop import Loop

THRESHOLDS: Final = (20_000, 2, 500)
"""Objects between two collections of the youngest generation, and collections between two of the older ones. With
CPython's default of 700 the collector runs often and finds nothing.

The CPU time of the collector, by ``benchmarks.bench_memory collector`` (2026-11-29, CPython 3.11, in us; the memory is
that with 2 000 streams; the collector did not rest in these):

    thresholds     of a request   of an event, 100 streams   while 2 000 streams open, per event   longest   memory
    700, 10, 10            25.2                       0.80                                   45.6     67 ms   79 MiB
    5 000, 20, 50           0.0                       0.32                                   18.5     39 ms   83 MiB
    20 000, 20, 50          0.0                       0.26                                   12.9     63 ms   86 MiB
    50 000, 20, 50          0.0                       0.00                                    9.8     64 ms   84 MiB

Beyond 20 000 nothing is gained that could be told from noise, and a cycle of a plugin's would live longer.

A collection holds the loop for 0.1 to 0.25 us for each object, and for 1 us if it is in no cache: the middle one walks
at most 60 000 new ones. With (20 000, 20, 50) it walked 420 000 of a body of 150 000 messages, for 85 ms. The oldest
one comes as often as there."""

MANY_STREAMS: Final = 200
"""With fewer, all that lives is walked in less than 50 ms."""
OBJECTS_OF_A_STREAM: Final = 1_000
"""That the collector knows, at most: about 300 with the built-in stages."""
SPARE_OBJECTS: Final = 200_000
"""So many objects of a plugin's may live besides."""
LOOK_EVERY_S: Final = 1.0


def start_collector() -> None:
    """Have the collector work from now on, on what is made from now on.

    What exists already stays: unless it is frozen, each full collection walks all modules, which shows in the p99 of
    added latency (docs/facts/http-stack.md, "Garbage collection").
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def let_it_rest(streams: int) -> None:
    """Have the collector rest if so many streams run, and else work."""
    made = gc.get_count()[0]  # more than freed, since the last collection
    if streams >= MANY_STREAMS and made <= streams * OBJECTS_OF_A_STREAM + SPARE_OBJECTS:
        gc.disable()
    else:
        gc.enable()  # it begins with the next object, if its threshold is reached


async def watch_streams(loop: Loop) -> None:
    """Call `let_it_rest` each second until cancelled; then the collector works again."""
    try:
        while True:
            let_it_rest(loop.streams)
            await trio.sleep(LOOK_EVERY_S)
    finally:
        gc.enable()
