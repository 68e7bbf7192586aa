"""Defects of what happens when the configuration changes while clients are served; see `simulator.mutants`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import trio

from pipeline.gateway.app import Application
from pipeline.gateway.generation import Generation
from pipeline.gateway.generations import Generations
from pipeline.gateway.lasting import Lasting
from pipeline.registry import PluginError

# Any: what is replaced has all kinds of signatures, and some of it is private.
_Any = Any


def old_generation_closed_at_once(patch: pytest.MonkeyPatch) -> None:
    """A generation ends when the next one begins, whatever runs in it."""

    async def end(self: _Any, old: Generation) -> None:
        await old.close()
        self._ending.pop(old).set()

    patch.setattr(Generations, "_end", end)


def old_generation_never_ends(patch: pytest.MonkeyPatch) -> None:
    """A generation is kept although no request is left in it."""

    async def end(self: _Any, old: Generation) -> None:
        self._ending[old].set()

    patch.setattr(Generations, "_end", end)


def new_requests_join_the_old_generation(patch: pytest.MonkeyPatch) -> None:
    """As long as the generation before has requests, new ones belong to it."""

    async def serve(self: Application, scope: _Any, receive: _Any, send: _Any) -> None:
        if scope["type"] == "http":
            return await self.generations.living[0].bridge(scope, receive, send)
        return await call(self, scope, receive, send)

    call = Application.__call__
    patch.setattr(Application, "__call__", serve)


def requests_move_to_the_new_generation(patch: pytest.MonkeyPatch) -> None:
    """A request that is being read when the configuration changes is answered by the next generation."""
    take_over = Generation.take_over

    def take(self: Generation, before: Generation) -> None:
        take_over(self, before)
        vars(before.bridge.assembly).update(vars(self.bridge.assembly))

    patch.setattr(Generation, "take_over", take)


def generation_serves_before_it_is_open(patch: pytest.MonkeyPatch) -> None:
    """A generation becomes the current one while it is still being opened."""
    open_it = Generation.open

    async def begin(self: Generation) -> None:
        if self.number == 1:
            await open_it(self)
        else:
            trio.lowlevel.spawn_system_task(open_it, self)

    patch.setattr(Generation, "open", begin)


def generation_serves_although_it_is_not_open(patch: pytest.MonkeyPatch) -> None:
    """A generation that cannot be opened takes the place of one that works."""
    open_it = Generation.open

    async def begin(self: Generation) -> None:
        with suppress(PluginError):
            await open_it(self)

    patch.setattr(Generation, "open", begin)


def connections_closed_with_the_old_generation(patch: pytest.MonkeyPatch) -> None:
    """The end of a generation closes what the next one uses too."""

    async def leave(self: _Any) -> None:
        self._users = 0
        self._closing.set()
        await self._closed.wait()

    patch.setattr(Lasting, "_leave", leave)


def reload_cuts_what_runs(patch: pytest.MonkeyPatch) -> None:
    """A reload ends the requests of the generation before."""
    end_later = Generations._end_later

    def end(self: _Any, old: Generation) -> None:
        old.bridge.cut_off()
        end_later(self, old)

    patch.setattr(Generations, "_end_later", end)


def old_generations_forgotten_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """At the drain deadline, only the requests of the current generation are told."""
    patch.setattr(Generations, "cut_off", lambda self: self.current.bridge.cut_off())


CHANGE_MUTANTS: Final[tuple[Callable[[pytest.MonkeyPatch], None], ...]] = (
    old_generation_closed_at_once,
    old_generation_never_ends,
    new_requests_join_the_old_generation,
    requests_move_to_the_new_generation,
    generation_serves_before_it_is_open,
    generation_serves_although_it_is_not_open,
    connections_closed_with_the_old_generation,
    reload_cuts_what_runs,
    old_generations_forgotten_at_the_end,
)
