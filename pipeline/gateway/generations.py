"""The generations of one process: the current one, and those before it that still have requests.

A request belongs to the generation that is current when it comes, to its end. A reload makes the next generation
beside the current one, opens what it needs, and puts it into the place of the current one in one step; if anything of
that fails, the current one goes on as if nothing had happened. The one before ends after its last request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio

from pipeline.errors import places_of
from pipeline.gateway.bridge import OnEnd
from pipeline.gateway.config.describe import counted
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.generation import Generation
from pipeline.loop import current_loop
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from stages.admission.counts import Counts

MAX_OLD: Final = 16
"""So many may have requests beside the current one. A further reload cuts off those of the oldest."""

log = logging.getLogger("headrace")


class ReloadRefusedError(Exception):
    """There is no reload now; the message says why."""


class Generations:
    """Holds the generations.

    Args:
        settings: the configuration of the first one.
        plugins: the stages that are installed, by name.
        on_end: called at the end of each request with what makes a `FinishedRequest` of it.
        counts: where limits are counted together with other processes; None to count here only.
        observed: counts the requests of this process; None if nobody does.

    Attributes:
        current: the one that new requests belong to.
        is_open: whether it is open.
        is_draining: whether the process is about to stop.

    Raises:
        PluginError, OSError: as `Generation` does.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plugins: Mapping[str, AnyPlugin],
        on_end: OnEnd,
        counts: Counts | None = None,
        observed: Observed | None = None,
    ) -> None:
        self._make = partial(Generation, on_end=on_end, observed=observed)
        self.current = self._make(settings, plugins=plugins, counts=counts)
        self.is_open = self.is_draining = False
        self._ending: dict[Generation, trio.Event] = {}
        self._changing = trio.Lock()
        self._reloading = trio.CancelScope()
        self._were_stuck = False

    @property
    def living(self) -> list[Generation]:
        """All of them, the oldest first."""
        return [*self._ending, self.current]

    @property
    def are_stuck(self) -> bool:
        """Whether a plugin of any of them could not be closed, so that the loop cannot end."""
        return self._were_stuck or any(one.plugins.are_stuck for one in self.living)

    async def open(self) -> None:
        """Open the first one.

        Raises:
            PluginError, StoreError: as `Generation.open` does.
        """
        async with self._changing:
            await self.current.open()
            await self.current.begin_checks()
            self.current.bridge.shedding.watch(current_loop())
            self.is_open = True

    async def reload(self, settings: Settings, plugins: Mapping[str, AnyPlugin]) -> None:
        """Put a new generation into the place of the current one.

        Cancelled, or if it fails, nothing has changed, and what was opened for the new one is closed again.

        Raises:
            PluginError, StoreError, OSError: if the new one cannot be made or opened.
            ReloadRefusedError: if the process is about to stop, or begins to meanwhile.
        """
        async with self._changing:
            if not self.is_open or self.is_draining:
                raise ReloadRefusedError("this process is about to stop")
            before = self.current
            new = self._make(settings, plugins=plugins, number=before.number + 1, before=before)
            async with AsyncExitStack() as undoing:
                with trio.CancelScope() as self._reloading:
                    await new.open()
                    undoing.push_async_callback(new.close)
                if self.is_draining:  # it may be open all the same, if nothing has waited since
                    raise ReloadRefusedError("this process is about to stop")
                new.take_over(before)
                new.bridge.shedding.watch(current_loop())
                undoing.pop_all()
            self.current = new
            self._log_switch(new, before)
            self._end_later(before)
            await new.begin_checks()

    def drain(self) -> None:
        """Let no further generation begin: the process is about to stop."""
        self.is_draining = True
        self._reloading.cancel()

    def cut_off(self) -> None:
        """End the requests of all of them: with a 503, or in the stream."""
        self.drain()
        for one in self.living:
            one.bridge.cut_off()

    async def close(self) -> None:
        """Close all of them; by now, none should have requests."""
        self.drain()
        async with self._changing:
            if not self.is_open:
                return
            self.is_open = False
            for old in self._ending:
                old.bridge.cut_off()
            await self.current.close()
            for ended in list(self._ending.values()):
                await ended.wait()

    def _log_switch(self, new: Generation, before: Generation) -> None:
        active = len(before.bridge.active)
        log.info(
            "configuration reloaded: %s, %s (generation %d)%s",
            counted(len(new.deployments.names), "model"),
            counted(len(new.keys), "key"),
            new.number,
            f"; {counted(active, 'request')} still running in generation {before.number}" if active else "",
        )

    def _end_later(self, old: Generation) -> None:
        """End a generation after its last request, in a task of its own."""
        self._ending[old] = trio.Event()
        for older in list(self._ending)[:-MAX_OLD]:
            if older.bridge.active:
                log.warning(
                    "%s of generation %d cut off: the configuration has been reloaded %d times since it began",
                    counted(len(older.bridge.active), "request"),
                    older.number,
                    self.current.number - older.number,
                )
            older.bridge.cut_off()
        trio.lowlevel.spawn_system_task(self._end, old, name=f"the end of generation {old.number}")

    async def _end(self, old: Generation) -> None:
        try:
            await old.end_checks()
            await old.bridge.wait_until_idle()
            await old.close()
            if self.current.clients is old.clients:
                others = [one.settings.deployments for one in self.living if one is not old]
                await old.clients.keep_only(deployment for each in others for deployment in each)
            log.info("generation %d has ended", old.number)
        except Exception as error:
            log.error("generation %d could not be closed: %s", old.number, places_of(error))
        finally:
            self._were_stuck |= old.plugins.are_stuck
            self._ending.pop(old).set()
