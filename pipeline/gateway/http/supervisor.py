"""Several worker processes on one inherited listening socket, under a supervisor that serves nothing itself.

The death of one worker must cut only its own streams, and a drain must let every stream of every worker finish.
Hypercorn's own workers do neither: the first to finish ends the others, and a killed one ends the service
(docs/facts/http-stack.md, "Several workers"). The workers share one socket instead of using SO_REUSEPORT, so that no
queued connection is lost with a worker.

Workers are new programs (``exec``), not forks: they inherit no interpreter state, and a restart after an upgrade runs
the new code. Each is in a process group of its own, so that Ctrl-C in a terminal reaches only the supervisor, which
passes it on once. Each holds one end of a socket pair, its lifeline: when the supervisor dies, for whatever reason, the
lifeline ends and the worker drains (`pipeline.gateway.http.server.serve_until_signalled`).
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

import trio

EARLY_DEATH_S: Final = 5.0
"""A worker that dies sooner has not served: its restart is delayed, each time for longer."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
GIVE_UP_AFTER: Final = 5
"""Early deaths in a row, over all workers, while none is up: the cause must be in how they are started."""
KILL_AFTER_S: Final = 5.0
"""From the second signal to SIGKILL, for a worker that ignores the signal."""

log = logging.getLogger("headrace.supervisor")


WorkerCommand = Callable[[Sequence[int], int], Sequence[str]]
"""Takes the file descriptors of the listening sockets and of the lifeline, which are valid in the worker; returns the
program of a worker and its arguments."""


def run_workers(
    count: int,
    listeners: Sequence[socket.socket],
    command_of: WorkerCommand,
    *,
    stop_timeout_s: float,
    more_fds: Sequence[int] = (),
) -> int:
    """Keep ``count`` workers running until SIGTERM or SIGINT, then let them drain; a second signal ends them at once.

    Args:
        count: the number of processes.
        listeners: the sockets that they inherit; closed here when the drain begins, so that listening ends.
        command_of: returns the command of one worker.
        stop_timeout_s: workers that still run this long after the first signal are killed; longer than a drain.
        more_fds: further file descriptors that they inherit.

    Returns:
        The exit status of the process: 0 after a drain, 1 if the workers cannot be kept running.
    """
    running = partial(supervise, count, listeners, command_of, stop_timeout_s=stop_timeout_s, more_fds=more_fds)
    return trio.run(running)


async def supervise(
    count: int,
    listeners: Sequence[socket.socket],
    command_of: WorkerCommand,
    *,
    stop_timeout_s: float,
    more_fds: Sequence[int] = (),
) -> int:
    """`run_workers` for a caller with a trio loop of its own."""
    supervisor = _Supervisor(listeners, command_of, stop_timeout_s, more_fds)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.handle_signals, signals)
            async with trio.open_nursery() as workers:
                for index in range(count):
                    workers.start_soon(supervisor.keep_running, index)
            nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.close()
    return supervisor.status


class _Supervisor:
    def __init__(
        self,
        listeners: Sequence[socket.socket],
        command_of: WorkerCommand,
        stop_timeout_s: float,
        more_fds: Sequence[int] = (),
    ) -> None:
        self._listeners = listeners
        self._more_fds = more_fds
        self._command_of = command_of
        self._stop_timeout_s = stop_timeout_s
        self._running: dict[trio.Process, float] = {}
        self._stopping = trio.Event()
        self._early_deaths = 0
        self.status = 0

    async def handle_signals(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            async for number in signals:
                name = signal.Signals(number).name
                if not self._stopping.is_set():
                    log.info("%s: %d workers are draining", name, len(self._running))
                    self._stop()
                    nursery.start_soon(self._kill_after, self._stop_timeout_s)
                else:
                    log.warning("%s again: stopping at once", name)
                    self._signal_all(signal.SIGTERM)
                    nursery.start_soon(self._kill_after, KILL_AFTER_S)

    async def keep_running(self, index: int) -> None:
        """Run worker ``index``, and start it again whenever it dies, until the drain begins."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            died_early = await self._run_worker(index)
            if self._stopping.is_set():
                return
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if died_early else FIRST_PAUSE_S
            self._early_deaths = self._early_deaths + 1 if died_early and not self._anyone_is_up() else 0
            if self._early_deaths >= GIVE_UP_AFTER:
                log.error(
                    "giving up: workers died %d times within %g s of their start, and none is running; "
                    "see their own messages above",
                    self._early_deaths,
                    EARLY_DEATH_S,
                )
                self.status = 1
                self._stop()
                return
            with trio.move_on_after(pause_s):
                await self._stopping.wait()

    async def _run_worker(self, index: int) -> bool:
        """Run one process to its end; return whether that came early."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fds = [listener.fileno() for listener in self._listeners]
            command = self._command_of(fds, theirs.fileno())
            try:
                process = await trio.lowlevel.open_process(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*fds, theirs.fileno(), *self._more_fds),
                    process_group=0,
                )
            except OSError as error:
                log.error("worker %d cannot be started: %s", index, error.strerror)
                return True
            theirs.close()
            started_at = trio.current_time()
            self._running[process] = started_at
            if self._stopping.is_set():  # the signal came while the process was being started
                process.send_signal(signal.SIGTERM)
            log.info("worker %d is process %d", index, process.pid)
            try:
                status = await process.wait()
            finally:
                del self._running[process]
                if process.returncode is None:  # cancelled from outside: do not leave an orphan
                    process.kill()
        if not self._stopping.is_set():
            log.error("worker %d (process %d) ended by itself: %s", index, process.pid, _ending(status))
        elif status != 0:
            log.warning("worker %d (process %d) did not drain: %s", index, process.pid, _ending(status))
        return trio.current_time() - started_at < EARLY_DEATH_S

    def _anyone_is_up(self) -> bool:
        up_since = trio.current_time() - EARLY_DEATH_S
        return any(started_at <= up_since for started_at in self._running.values())

    def _stop(self) -> None:
        self._stopping.set()
        for listener in self._listeners:
            listener.close()
        self._signal_all(signal.SIGTERM)

    async def _kill_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        log.warning("%d workers did not stop in time: killed", len(self._running))
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._running:
            process.send_signal(number)


def _ending(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
