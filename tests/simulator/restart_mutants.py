"""Defects of how a server ends while another one goes on serving; see `simulator.mutants`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
import trio

from pipeline.gateway.http.connection import ServerConnection
from pipeline.gateway.http.server import _Worker

# Any: what is replaced has all kinds of signatures, and some of it is private.
_Any = Any


def replaced_server_cuts_what_runs(patch: pytest.MonkeyPatch) -> None:
    """A server that is replaced resets its connections."""
    patch.setattr(ServerConnection, "drain", lambda self, *, idle_s: self._peer.abort())


def replaced_server_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """A server that is replaced cuts off at once what runs."""

    async def closed_or(self: _Any, *events: trio.Event) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(_Worker, "_closed_or", closed_or)


def request_on_its_way_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """A server that is replaced serves no request any more that comes over an open connection."""
    next_head = ServerConnection._next_head

    async def next_or_none(self: _Any, *, first: bool) -> _Any:
        head = await next_head(self, first=first)
        return None if self._peer.closing else head

    patch.setattr(ServerConnection, "_next_head", next_or_none)


def connection_ends_without_notice(patch: pytest.MonkeyPatch) -> None:
    """A server that is replaced closes each connection after its response, and no response says so."""

    def drain(self: _Any, *, idle_s: float) -> None:
        self._is_closing_soon = True
        if self._idle:
            self._peer.wake()

    async def next_or_none(self: _Any, *, first: bool) -> _Any:
        if not first and getattr(self, "_is_closing_soon", False):
            return None
        return await next_head(self, first=first)

    next_head = ServerConnection._next_head
    patch.setattr(ServerConnection, "drain", drain)
    patch.setattr(ServerConnection, "_next_head", next_or_none)


def replaced_server_keeps_idle_connections(patch: pytest.MonkeyPatch) -> None:
    """A server that is replaced goes on for as long as its clients keep their connections open."""
    patch.setattr(ServerConnection, "drain", lambda self, *, idle_s: None)


RESTART_MUTANTS: Final[tuple[Callable[[pytest.MonkeyPatch], None], ...]] = (
    replaced_server_cuts_what_runs,
    replaced_server_does_not_wait,
    request_on_its_way_is_dropped,
    connection_ends_without_notice,
    replaced_server_keeps_idle_connections,
)
