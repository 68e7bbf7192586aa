"""The log of ejections: one line when a deployment is left out, and one when it is back."""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import Final

from stages.routing.health import Change

PAUSE_S: Final = 60.0
"""One that fails and answers by turns has a line of each kind in this time. One that does not come back is reported at
its next failed try in any case."""

log = logging.getLogger("headrace")


class HealthLog:
    """Logs changes, for each deployment not more often than is useful."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}
        self._is_out: set[str] = set()
        self._unlogged: dict[str, int] = {}

    def keep_only(self, ids: Set[str]) -> None:
        """Forget the deployments that are configured no more."""
        self._is_out &= ids
        for known in (self._last_s, self._unlogged):
            for id in known.keys() - ids:
                del known[id]

    def note(self, change: Change) -> None:
        """Log a change, unless it is the first ejection after another one that was logged a short while ago."""
        id = change.deployment_id
        if change.code is None:
            if id in self._is_out:
                self._is_out.discard(id)
                log.info("deployment %s answers again", id)
            return
        if change.ejections == 1 and change.at_s < self._last_s.get(id, -PAUSE_S) + PAUSE_S:
            self._unlogged[id] = self._unlogged.get(id, 0) + 1
            return
        self._last_s[id] = change.at_s
        self._is_out.add(id)
        unlogged = self._unlogged.pop(id, 0)
        log.warning(
            "deployment %s is left out for %.0f s after %s (ejection %d in a row%s)",
            id,
            change.cooldown_s,
            change.code,
            change.ejections,
            f"; {unlogged} more were not logged" if unlogged else "",
        )
