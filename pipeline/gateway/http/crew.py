"""The processes of all workers, whichever place they have: how they start, hang, drain and end."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import trio

from pipeline.gateway.http.heartbeats import CHECK_PAUSE_S, HUNG_AFTER_S, HeartbeatCheck
from pipeline.gateway.http.worker_process import RETIRE, RETIRED_LIMIT_S, STOP_NOW, WorkerProcess

READY_LIMIT_S: Final = 660.0
"""How long a worker may take until it serves; more than its application may (`server.STARTUP_TIMEOUT_S`)."""
KILL_AFTER_S: Final = 5.0
"""From the order to stop at once to SIGKILL, for a worker that ignores it."""

log = logging.getLogger("headrace.supervisor")


class Crew:
    """Starts processes and follows each of them to its end.

    Args:
        start: starts the worker of a number.
        listeners: the sockets that they inherit; closed here when all of them are to drain, so that listening ends.
        nursery: where they are followed; it ends after the last of them.
        timers: a nursery for what is cancelled after that.
        stop_timeout_s: one that still runs this long after it was told to drain is killed.

    Attributes:
        stopping: set when all are to end, and no other is to be started.
        last_status: how the last one ended, as `subprocess` has it.
        has_failed: whether one did not drain after that, through its own fault.
    """

    def __init__(
        self,
        start: Callable[[int], Awaitable[WorkerProcess]],
        listeners: Sequence[socket.socket],
        nursery: trio.Nursery,
        timers: trio.Nursery,
        stop_timeout_s: float,
    ) -> None:
        self._listeners = listeners
        self._start = start
        self._nursery = nursery
        self._timers = timers
        self._stop_timeout_s = stop_timeout_s
        self._running: dict[int, WorkerProcess] = {}
        self._someone_ended = trio.Event()
        self.stopping = trio.Event()
        self.last_status = 0
        self.has_failed = False

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._running.values())

    async def start(self, number: int, *, for_process: int | None = None) -> WorkerProcess | None:
        """Start a worker and wait until it serves; return None if it does not come to that.

        Args:
            number: its place.
            for_process: the process that it is to replace.
        """
        try:
            worker = await self._start(number)
        except OSError as error:
            if not self.stopping.is_set():
                log.error("worker %d cannot be started: %s", number, error.strerror)
            self.last_status = 1
            return None
        self._running[worker.pid] = worker
        self._nursery.start_soon(self._attend, worker)
        if self.stopping.is_set():  # the signal came while the process was being started
            worker.drain(signal.SIGTERM)
        aim = "" if for_process is None else f", to replace process {for_process}"
        log.info("worker %d is process %d%s", number, worker.pid, aim)
        with trio.move_on_after(READY_LIMIT_S):
            await worker.has_settled.wait()
        if worker.is_ready and not worker.is_lost:
            log.info("%s is up after %.1f s", worker, trio.current_time() - worker.started_at)
            return worker
        if not worker.has_ended.is_set():
            log.error("%s does not serve %g s after its start: killed", worker, READY_LIMIT_S)
            worker.kill_as_lost()
        return None

    def retire(self, worker: WorkerProcess) -> None:
        """Have a worker drain because another one has taken its place."""
        if not worker.is_lost:
            worker.drain(RETIRE)
            self._timers.start_soon(self._end_in_time, worker)

    async def wait_for_room(self, most: int) -> None:
        """Wait until fewer than ``most`` processes drain, or all of them do; the oldest is told to come to its end."""
        while not self.stopping.is_set():
            draining = [one for one in self if one.is_draining]
            if len(draining) < most:
                return
            oldest = min(draining, key=lambda one: one.told_at)
            log.info(
                "%s has drained for %.0f s, and another one is to drain", oldest, trio.current_time() - oldest.told_at
            )
            oldest.send(signal.SIGTERM)
            await self._someone_ended.wait()

    def stop(self, number: signal.Signals) -> None:
        """Have all drain; those that are replaced come to their end."""
        self.stopping.set()
        for listener in self._listeners:
            listener.close()
        for worker in self:
            worker.drain(number)
            worker.on_news()
        self._timers.start_soon(self._kill_all_after, self._stop_timeout_s)

    def stop_at_once(self) -> None:
        """Have all end now."""
        for worker in self:
            if worker.is_ready:
                worker.send(STOP_NOW)
            else:
                worker.kill()
        self._timers.start_soon(self._kill_all_after, KILL_AFTER_S)

    async def check_heartbeats(self) -> None:
        """Kill those that are silent, until cancelled."""
        check = HeartbeatCheck(trio.current_time())
        while True:
            await trio.sleep(CHECK_PAUSE_S)
            judged = [worker for worker in self if worker.is_judged]
            for worker in check.silent(judged, trio.current_time()):
                what = "ended" if worker.is_draining else "replaced"
                log.error("%s has not answered for %g s: it is %s", worker, HUNG_AFTER_S, what)
                worker.kill_as_lost()

    async def _attend(self, worker: WorkerProcess) -> None:
        try:
            await worker.attend()
        finally:
            del self._running[worker.pid]
        self.last_status = worker.status
        self._log_end(worker)
        if self.stopping.is_set() and worker.is_draining and worker.is_ready:
            self.has_failed |= worker.status > 0 or worker.was_killed
        self._someone_ended.set()
        self._someone_ended = trio.Event()

    def _log_end(self, worker: WorkerProcess) -> None:
        if worker.is_killed_as_lost:
            pass  # it was said when it was killed
        elif not worker.is_draining:
            when = "by itself" if worker.is_ready else "before it was ready"
            log.error("%s ended %s: %s", worker, when, worker.ending)
        elif worker.status == 0:
            log.info("%s drained in %.1f s", worker, trio.current_time() - worker.told_at)
        elif worker.is_ready:
            log.warning("%s did not drain: %s", worker, worker.ending)

    async def _end_in_time(self, worker: WorkerProcess) -> None:
        with trio.move_on_after(RETIRED_LIMIT_S + self._stop_timeout_s):
            await worker.has_ended.wait()
            return
        log.warning("%s did not stop in time: killed", worker)
        worker.kill()

    async def _kill_all_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        for worker in self:
            log.warning("%s did not stop in time: killed", worker)
            worker.kill()
