"""How this process is, noted each second: its loop, its memory, its sockets, and what its garbage collector takes."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import trio

from pipeline.gateway.board import links_of
from pipeline.gateway.generations import Generations
from pipeline.gateway.line_sink import LineSink
from pipeline.loop import current_loop
from pipeline.observe import Observed
from pipeline.segments import SegmentFile

NOTE_EVERY_S: Final = 1.0
_STATM: Final = Path("/proc/self/statm")


class ProcessState:
    """What is known of this process beside its requests.

    Args:
        observed: where it is noted.
        file: the measurements of all processes.
        generations: their requests, and their connections to upstreams.
        clients: the open connections of clients.
        sink: the lines of the log.
    """

    def __init__(
        self,
        observed: Observed,
        file: SegmentFile,
        generations: Generations,
        clients: Collection[Any],
        sink: LineSink,
    ) -> None:
        self._observed = observed
        self._file = file
        self._generations = generations
        self._clients = clients
        self._sink = sink
        self._dropped_lines = 0
        self._shows_depths = False

    async def run(self) -> None:
        """Note it each second until cancelled."""
        with timed_collections(self._observed):
            while True:
                self.note()
                await trio.sleep(NOTE_EVERY_S)

    def note(self) -> None:
        """Note it now."""
        upstreams = {id(one.clients): one.clients for one in self._generations.living}.values()
        self._observed.note_process(
            lag_s=current_loop().lag_ns / 1e9,
            resident_bytes=resident_bytes(),
            sockets={
                "client": len(self._clients),
                "upstream": sum(one.active_connections + one.idle_connections for one in upstreams),
            },
        )
        self._observed.note_dropped_lines(self._sink.dropped_lines - self._dropped_lines)
        self._dropped_lines = self._sink.dropped_lines
        if self._file.is_watched:
            self._observed.note_depths(self._depths())
            self._shows_depths = True
        elif self._shows_depths:
            self._observed.note_depths({})
            self._shows_depths = False

    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for generation in self._generations.living:
            for request in generation.bridge.active:
                for link in links_of(request.ctx):
                    depths[link.name] = depths.get(link.name, 0) + link.waiting
        return depths


def resident_bytes() -> int:
    """Return the memory of this process that is in use; 0 where that is not known."""
    try:
        return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@contextmanager
def timed_collections(observed: Observed) -> Generator[None]:
    """Have the collections of garbage counted for the duration of a block."""
    since_ns = 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal since_ns
        if phase == "start":
            since_ns = perf_counter_ns()
        elif since_ns:
            observed.note_collection(perf_counter_ns() - since_ns)
            since_ns = 0

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)
