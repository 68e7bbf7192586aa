"""Cancels a task at a chosen step, to find what a cancellation there leaves behind."""

from __future__ import annotations

import trio


class CancelAt(trio.abc.Instrument):
    """Cancels a task at its ``step``-th scheduler step, before or after it."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int, *, after: bool) -> None:
        self.task, self.scope, self.step, self.after = task, scope, step, after
        self.steps = 0
        self.has_hit = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            self._maybe_cancel(after=False)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self._maybe_cancel(after=True)

    def _maybe_cancel(self, *, after: bool) -> None:
        if self.after is after and self.steps == self.step and not self.has_hit:
            self.has_hit = True
            self.scope.cancel()
