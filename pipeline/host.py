"""What a plugin gets for its lifetime, and the figures that it keeps there.

A plugin with a lifetime is opened once in each serving process, before that is ready, and closed after its last
request; a reload of the configuration opens it anew, before it closes the one before. While it is open it may run
background tasks, keep figures, and keep values over requests.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import trio

from pipeline.context import RequestContext
from pipeline.errors import places_of
from pipeline.series import Cell, Kind, SeriesWriter

MAX_SERIES: Final = 1000
"""Of one figure: a label whose values a client chooses must not fill the memory."""
DRAIN_S: Final = 5.0
"""How long a background task may take to end by itself when its plugin is closed."""
FIRST_RESTART_S: Final = 1.0
LAST_RESTART_S: Final = 30.0
"""A background task that fails is started again after a second, then after two, and so on up to this."""
MAX_SHARED: Final = 10_000
"""The values that a store keeps unless the plugin says how many; the ones used longest ago go first."""

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The default limits of a histogram's buckets, for seconds."""

METRIC_PREFIX: Final = "headrace_plugin"
"""The names of all figures begin with it in the metrics of the service: ``headrace_plugin_<stage>_<name>``."""

Labels = tuple[tuple[str, str], ...]
CellOf = Callable[[Labels], Cell]
"""Returns where a series is counted for all to read, beside the figure's own value."""


class Observer(Protocol):
    """Is told of each request's start and end, and touches no events. It must neither wait nor raise."""

    def on_start(self, ctx: RequestContext) -> None:
        """Note a request that has just arrived; nothing is known yet but its headers."""
        ...

    # Any: the record is the gateway's (`pipeline.gateway.request_record.RequestRecord`), which the engine does not know
    def on_end(self, record: Any) -> None:
        """Take note of a request that has ended; ``record`` is the one that the log gets."""
        ...


class _Figure:
    """A figure with labels: one value for each combination that has occurred.

    It counts since its plugin was opened. With ``cell_of`` the same is counted in shared memory at once, so that it is
    not lost with the process, and goes on after a reload.
    """

    def __init__(self, name: str, about: str, cell_of: CellOf | None = None) -> None:
        self.name = name
        self.about = about
        self.series: dict[Labels, Any] = {}
        self._cell_of = cell_of
        self._cells: dict[Labels, Cell] = {}

    def _cell(self, key: Labels) -> Cell | None:
        """Return where a series is counted in shared memory, if it is."""
        if (cell := self._cells.get(key)) is None and self._cell_of is not None:
            cell = self._cells[key] = self._cell_of(key)
        return cell

    def _labels(self, labels: Mapping[str, str]) -> Labels:
        """Return the key of a series; with too many of them, that of the rest."""
        key = tuple(sorted((name, str(value)) for name, value in labels.items()))
        if key in self.series or len(self.series) < MAX_SERIES:
            return key
        return tuple((name, "other") for name, _ in key)


class Counter(_Figure):
    """Only grows."""

    def inc(self, amount: float = 1, /, **labels: str) -> None:
        """Add ``amount``, which is 0 or more."""
        if amount < 0:
            raise ValueError(f"the counter {self.name!r} cannot fall: use a gauge")
        key = self._labels(labels)
        self.series[key] = self.series.get(key, 0) + amount
        if (cell := self._cell(key)) is not None:
            cell[0] += amount

    def value(self, **labels: str) -> float:
        """Return what has been counted."""
        return float(self.series.get(self._labels(labels), 0))


class Gauge(_Figure):
    """Rises and falls."""

    def set(self, value: float, /, **labels: str) -> None:
        """Set it."""
        key = self._labels(labels)
        self.series[key] = value
        if (cell := self._cell(key)) is not None:
            cell[0] = value

    def inc(self, amount: float = 1, /, **labels: str) -> None:
        """Change it by ``amount``."""
        self.set(self.value(**labels) + amount, **labels)

    def value(self, **labels: str) -> float:
        """Return it; 0 if it was never set."""
        return float(self.series.get(self._labels(labels), 0))


class Histogram(_Figure):
    """Counts how many values were at most as large as each limit.

    Args:
        name, about: of the figure.
        buckets: the limits, in ascending order; one without limit is added.
    """

    def __init__(self, name: str, about: str, buckets: Sequence[float], cell_of: CellOf | None = None) -> None:
        super().__init__(name, about, cell_of)
        self.buckets = (*buckets, math.inf)

    def observe(self, value: float, /, **labels: str) -> None:
        """Count a value."""
        key = self._labels(labels)
        if (counts := self.series.get(key)) is None:
            counts = self.series[key] = [0] * len(self.buckets) + [0.0]
        at = bisect_left(self.buckets, value)
        counts[at] += 1
        counts[-1] += value
        if (cell := self._cell(key)) is not None:
            cell[at] += 1
            cell[-1] += value

    def count(self, **labels: str) -> int:
        """Return how many values were observed."""
        return sum(self.series.get(self._labels(labels), [0])[:-1])

    def sum(self, **labels: str) -> float:
        """Return what they sum to."""
        return float(self.series.get(self._labels(labels), [0.0])[-1])


FigureT = TypeVar("FigureT", Counter, Gauge, Histogram)


class Store(Protocol):
    """Values that outlive a request. Asynchronous, because they may be kept elsewhere: await it in ``outside()``."""

    async def get(self, key: str) -> bytes | None:
        """Return the value of ``key``; None if there is none, or no more."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value, for ``ttl_s`` seconds at most."""
        ...

    async def delete(self, key: str) -> None:
        """Forget a value, if there is one."""
        ...


class LocalStore:
    """A `Store` in this process; the values that were used longest ago are dropped first.

    Args:
        max_entries: how many values it keeps.
        clock: returns the time in seconds.
    """

    def __init__(self, max_entries: int = MAX_SHARED, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        """As in `Store`."""
        if (entry := self._entries.get(key)) is None:
            return None
        expires_s, value = entry
        if self._clock() >= expires_s:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """As in `Store`."""
        self._entries[key] = (math.inf if ttl_s is None else self._clock() + ttl_s, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def delete(self, key: str) -> None:
        """As in `Store`."""
        self._entries.pop(key, None)


class Shared:
    """The stores of one process, by name: two plugins that use one name share a store."""

    def __init__(self) -> None:
        self._stores: dict[str, LocalStore] = {}

    def store(self, name: str, max_entries: int) -> Store:
        """Return the store of this name; the first to ask says how many values it keeps."""
        if (found := self._stores.get(name)) is None:
            found = self._stores[name] = LocalStore(max_entries)
        return found


class Host:
    """What a plugin gets for its lifetime.

    Args:
        stage: the plugin's name.
        shared: the stores of the process.
        deployments: the configured deployments, by id; their type is the gateway's (`stages.upstreams.Deployment`).
        series: where the figures are counted for all to read; None to count them here only.

    Attributes:
        logger: named after the plugin. Prompts and answers do not belong into it.
        deployments: as above.
        figures: the counters, gauges and histograms of the plugin, by name.
    """

    # Any: the engine does not know deployments.
    def __init__(
        self,
        stage: str,
        *,
        shared: Shared | None = None,
        deployments: Mapping[str, Any] | None = None,
        series: SeriesWriter | None = None,
    ) -> None:
        self.stage = stage
        self.logger = logging.getLogger(f"headrace.plugin.{stage}")
        self.deployments: Mapping[str, Any] = deployments or {}
        self.figures: dict[str, Counter | Gauge | Histogram] = {}
        self._shared = shared or Shared()
        self._series = series

    def counter(self, name: str, about: str = "") -> Counter:
        """Return a counter; its name ends in ``_total``. The same name is the same counter."""
        return self._figure(name, Counter, lambda: Counter(name, about, self._cells(Kind.AMOUNT, name, about)))

    def gauge(self, name: str, about: str = "") -> Gauge:
        """Return a gauge."""
        return self._figure(name, Gauge, lambda: Gauge(name, about, self._cells(Kind.GAUGE, name, about)))

    def histogram(self, name: str, about: str = "", buckets: Sequence[float] = BUCKETS_S) -> Histogram:
        """Return a histogram; ``buckets`` are its limits, in ascending order."""
        cell_of = self._cells(Kind.BUCKETS, name, about, (*buckets, math.inf))
        return self._figure(name, Histogram, lambda: Histogram(name, about, buckets, cell_of))

    def _cells(self, kind: Kind, name: str, about: str, limits: Sequence[float] = ()) -> CellOf | None:
        if self._series is None:
            return None
        return partial(self._series.cell, kind, f"{METRIC_PREFIX}_{self.stage}_{name}", about=about, limits=limits)

    def _figure(self, name: str, kind: type[FigureT], make: Callable[[], FigureT]) -> FigureT:
        found = self.figures.setdefault(name, make())
        if not isinstance(found, kind):
            raise ValueError(f"{self.stage} already has a {type(found).__name__.lower()} named {name!r}")
        return found

    def figures_text(self) -> str:
        """Return the figures that are not zero: ``name{label=value}=1``; a histogram has sum and count, ``=2.5/3``."""
        found: list[str] = []
        for name, figure in self.figures.items():
            for labels in figure.series:
                shown = "".join(["{", ",".join(f"{label}={value}" for label, value in labels), "}"]) if labels else ""
                if isinstance(figure, Histogram):
                    found.append(f"{name}{shown}={figure.sum(**dict(labels)):g}/{figure.count(**dict(labels))}")
                elif (value := figure.value(**dict(labels))) != 0:
                    found.append(f"{name}{shown}={value:g}")
        return " ".join(found)

    def shared(self, name: str, *, max_entries: int = MAX_SHARED) -> Store:
        """Return a store that all requests of this process share, and all plugins that use its name."""
        return self._shared.store(name, max_entries)

    @asynccontextmanager
    async def background(
        self, run: Callable[..., Awaitable[object]], *args: object, drain_s: float = DRAIN_S
    ) -> AsyncGenerator[None]:
        """Run ``run(*args)`` in a task of its own for the duration of a block.

        If it fails, that is logged and counted (``background_failures_total``), and it is started again after a while,
        or, if the block ends meanwhile, at once and for the last time. At the end of the block it may end by itself
        within ``drain_s`` seconds, as a writer does that finds its channel closed: so open the sending end after this,
        and it is closed before this ends. With 0 it is cancelled at once.
        """
        failures = self.counter("background_failures_total", "how often a background task has failed")

        async def supervise() -> None:
            pause_s = FIRST_RESTART_S
            with task:
                while True:
                    try:
                        await run(*args)
                        return
                    except Exception as error:
                        failures.inc()
                        if ending.is_set():
                            self.logger.error("a background task failed as its plugin was closed: %s", places_of(error))
                            return
                        self.logger.error(
                            "a background task failed, and starts again in %g s: %s", pause_s, places_of(error)
                        )
                    with trio.move_on_after(pause_s):
                        await ending.wait()
                    pause_s = min(2 * pause_s, LAST_RESTART_S)

        ending = trio.Event()
        task = trio.CancelScope(shield=True)  # it may end by itself even while the process is being cancelled
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, name=f"{self.stage} in the background")
            try:
                yield
            finally:
                task.deadline = trio.current_time() + drain_s
                if drain_s > 0:
                    ending.set()
