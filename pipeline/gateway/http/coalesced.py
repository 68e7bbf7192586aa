"""An action that is asked for from outside, such as by a signal, and runs one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Coalesced:
    """Runs an action in a task. However often it is asked for while it runs, it then runs once more.

    Args:
        action: what to do; if it raises, so does `run`.
    """

    def __init__(self, action: Callable[[], Awaitable[object]]) -> None:
        self._action = action
        self._asked = trio.Event()

    def ask(self) -> None:
        """Have the action run, after the run that is in progress."""
        self._asked.set()

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self._action()
