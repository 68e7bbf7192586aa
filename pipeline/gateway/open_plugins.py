"""The plugins of one generation: opened before it serves, and closed after its last request."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

import trio

from pipeline.errors import places_of
from pipeline.gateway.insertions import Installed, Planned
from pipeline.host import Host, Shared
from pipeline.registry import PluginError, opened
from pipeline.series import SeriesWriter
from stages.upstreams import Deployment

OPEN_LIMIT_S: Final = 30.0
"""How long one plugin may take to open; meanwhile clients that connect wait for their answers."""
CLOSE_LIMIT_S: Final = 10.0
"""How long one plugin may take to close; its background tasks have half of it to end by themselves."""
STUCK_MARGIN_S: Final = 1.0
"""How much longer one is waited for that does not end when it is cancelled."""

log = logging.getLogger("headrace")


class OpenPlugins:
    """Opens plugins in their order, and closes them in reverse.

    They live in a task of their own: a plugin may hold a nursery open, which only the task that opened it may close.

    Args:
        planned: what the user has added.
        deployments: what plugins see of the configuration, by id.
        shared: the stores of the process, by name; None for new ones.
        series: where their figures are counted for all to read; None to count them here only.

    Attributes:
        shared: as above.
        hosts: of the plugins that are open, by name; their figures are there, and are logged when they are closed.
        are_stuck: whether one of them could not be given up: it waits for a thread, or shields its waits. Then the loop
            cannot end either, and the process has to end without it.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        *,
        deployments: Mapping[str, Deployment],
        shared: Shared | None = None,
        series: SeriesWriter | None = None,
    ) -> None:
        self._planned = planned
        self.shared = Shared() if shared is None else shared
        self.hosts = {
            one.plugin.name: Host(one.plugin.name, shared=self.shared, deployments=deployments, series=series)
            for one in planned
        }
        self.are_stuck = False
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._living = trio.CancelScope()

    @property
    def have_lifetimes(self) -> bool:
        """Whether any of them has to be opened."""
        return any(one.plugin.serve is not None for one in self._planned)

    def made(self) -> list[Installed]:
        """Return all of them, if none has to be opened."""
        return [Installed.of(one, one.plugin.make(one.options)) for one in self._planned if one.plugin.make is not None]

    async def __aenter__(self) -> list[Installed]:
        """Open all.

        Raises:
            PluginError: if one cannot be opened, or not within `OPEN_LIMIT_S`; those before it have been closed again.
        """
        self._closing, self._closed = trio.Event(), trio.Event()
        self._living = trio.CancelScope()
        has_opened = trio.Event()
        installed: list[Installed] = []
        failures: list[PluginError] = []

        async def live() -> None:
            lives: list[_Life] = []
            try:
                with self._living:
                    await open_all(lives)
            finally:
                has_opened.set()
                self._closed.set()

        async def open_all(lives: list[_Life]) -> None:
            async with trio.open_nursery() as nursery:
                for one in self._planned:
                    life = _Life(one, self.hosts[one.plugin.name])
                    made = await nursery.start(life.run)
                    if life.failure is not None:
                        failures.append(life.failure)
                        break
                    lives.append(life)
                    installed.append(made)
                else:
                    has_opened.set()
                    await self._closing.wait()
                for life in reversed(lives):
                    if not await life.close():
                        self.are_stuck = True
                has_opened.set()
                self._closed.set()  # here: one that is stuck keeps the nursery open

        trio.lowlevel.spawn_system_task(live, name="plugins")
        try:
            await has_opened.wait()
        except BaseException:  # the process is to end before it has begun
            self._living.cancel()
            with trio.move_on_after(CLOSE_LIMIT_S, shield=True):
                await self._closed.wait()
            raise
        if failures:
            raise failures[0]
        return installed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all; each within `CLOSE_LIMIT_S`, or `STUCK_MARGIN_S` more if it cannot be cancelled."""
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self._closed.wait()


class _Life:
    """The life of one plugin, in a task of its own: so it can be given up if it does not end."""

    def __init__(self, planned: Planned, host: Host) -> None:
        self._planned = planned
        self._host = host
        self.failure: PluginError | None = None
        self.closing = trio.Event()
        self.closed = trio.Event()

    async def close(self) -> bool:
        """Close it; return whether it has ended, with or without what it still had to do."""
        name = self._planned.plugin.name
        self.closing.set()
        with trio.move_on_after(CLOSE_LIMIT_S + STUCK_MARGIN_S) as scope:
            await self.closed.wait()
        if scope.cancelled_caught:
            log.error(
                "stage %s waits for a thread, or shields a wait, and cannot be closed: the rest ends without it", name
            )
        if figures := self._host.figures_text():
            log.info("figures of stage %s: %s", name, figures)
        return not scope.cancelled_caught

    async def run(self, task_status: trio.TaskStatus[Installed | None]) -> None:
        """Open it, and report it or its `failure`; keep it open until `closing`."""
        one, name, is_open = self._planned, self._planned.plugin.name, False
        with trio.move_on_after(OPEN_LIMIT_S) as scope:
            try:
                async with opened(one.plugin, one.options, self._host) as made:
                    installed = Installed.of(one, made)
                    is_open = True
                    scope.deadline = math.inf
                    task_status.started(installed)
                    await self.closing.wait()
                    scope.deadline = trio.current_time() + CLOSE_LIMIT_S
                if not self.closing.is_set():
                    log.error("stage %s has closed by itself: reload (SIGHUP) or restart to open it again", name)
            except Exception as error:
                if is_open and not self.closing.is_set():
                    log.error(
                        "stage %s has failed and is closed: reload (SIGHUP) or restart to open it again: %s",
                        name,
                        places_of(error),
                    )
                elif is_open:
                    log.error("stage %s could not be closed: %s", name, places_of(error))
                else:
                    self.failure = (
                        error if isinstance(error, PluginError) else PluginError(f"{one.plugin.kind} {name!r}: {error}")
                    )
                    task_status.started(None)
        if scope.cancelled_caught and not is_open:
            self.failure = PluginError(
                f"the {one.plugin.kind} {name!r} was not open within {OPEN_LIMIT_S:g} s: its `serve` must yield soon, "
                "and do what takes long in a background task"
            )
            task_status.started(None)
        elif scope.cancelled_caught:
            log.error("stage %s was not closed within %g s: what it still had to do is lost", name, CLOSE_LIMIT_S)
        self.closed.set()
