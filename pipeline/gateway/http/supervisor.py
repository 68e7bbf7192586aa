"""Worker processes on one inherited listening socket, under a supervisor that serves nothing itself.

The death of one worker must cut only its own streams, and a drain must let every stream of every worker finish.
Hypercorn's own workers do neither: the first to finish ends the others, and a killed one ends the service
(docs/facts/http-stack.md, "Several workers"). The workers share one socket instead of using SO_REUSEPORT, so that no
queued connection is lost with a worker.

A worker is replaced without the loss of a request: its successor serves before it is told to drain. This happens to
all of them in turn on SIGUSR1, and to one that asks for it or is old. One whose loop does not turn is killed first.

The first worker is started alone, so that what is wrong with the configuration or the machine is reported once, and
ends the service before there is one. Later, a worker that does not start leaves those alone that serve.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from pipeline.gateway.http.coalesced import Coalesced
from pipeline.gateway.http.crew import Crew
from pipeline.gateway.http.orphans import reap_orphans
from pipeline.gateway.http.worker_process import WorkerCommand, WorkerProcess, start_worker

EARLY_DEATH_S: Final = 5.0
"""A worker that dies sooner has not served: its restart is delayed, each time for longer."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
GIVE_UP_AFTER: Final = 5
"""Early deaths in a row, over all workers, while none is up: the cause must be in how they are started."""
RETRY_S: Final = 60.0
"""The pause after a worker could not be replaced that is old, or has asked for it."""
JITTER: Final = 0.1
"""How much sooner or later than configured a worker is replaced, so that they do not all have their turn at once."""

RESTART: Final = "SIGUSR1"
MAX_REQUESTS: Final = "max_requests"
MAX_AGE: Final = "max_age_s"

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong with the configuration as it is now, or None."""

log = logging.getLogger("headrace.supervisor")


async def run_workers(
    count: int,
    listeners: Sequence[socket.socket],
    command_of: WorkerCommand,
    *,
    stop_timeout_s: float,
    max_age_s: float | None = None,
    check: Check | None = None,
    more_fds: Sequence[int] = (),
    beside: Callable[[], Awaitable[None]] = trio.sleep_forever,
    on_ready: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
) -> int:
    """Keep ``count`` workers running until SIGTERM or SIGINT, then let them drain; a second signal ends them at once.

    SIGUSR1 replaces all of them, one after the other. SIGHUP has all of them read the configuration again.

    Args:
        count: the number of processes.
        listeners: the sockets that they inherit; closed here when the drain begins, so that listening ends.
        command_of: returns the command of one worker.
        stop_timeout_s: workers that still run this long after they were told to drain are killed; longer than a drain.
        max_age_s: a worker that is older is replaced.
        check: checks the configuration before the workers are told of a new one.
        more_fds: further file descriptors that they inherit.
        beside: what else to do, in a task, until the end.
        on_ready: called once, when every place has had a worker that serves.
        on_stop: called once, when the drain begins.

    Returns:
        The exit status of the process: 0 after a drain, 1 if the workers cannot be kept running or one did not drain;
        if the first one ends before it is ready, its exit status.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as workers:
                crew = Crew(
                    partial(start_worker, listeners, command_of, more_fds), listeners, workers, nursery, stop_timeout_s
                )
                supervisor = _Supervisor(count, crew, max_age_s, check, on_ready, on_stop)
                nursery.start_soon(supervisor.obey, signals)
                nursery.start_soon(crew.check_heartbeats)
                nursery.start_soon(beside)
                if os.getpid() == 1:  # the orphans of the container are ours
                    nursery.start_soon(reap_orphans)
                await supervisor.run(workers)
            nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.close()
    return supervisor.status or int(crew.has_failed)


class _WorkerPlace:
    """A worker's place: whether whoever has it is to be replaced.

    Attributes:
        number: from 1.
        news: set when there is something to do.
        due_to: why the worker is to be replaced; empty if it is not.
        due_at: when it is to be replaced anyway, because of ``due_at_to``.
        decided: set when it has been replaced, or could not be; ``succeeded`` says which.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.news = trio.Event()
        self.due_to = ""
        self.due_at, self.due_at_to = math.inf, ""
        self.decided = trio.Event()
        self.succeeded = False

    def note_news(self) -> None:
        """Wake its keeper."""
        self.news.set()

    def ask(self, why: str) -> None:
        """Have its worker replaced."""
        if not self.due_to:
            self.decided = trio.Event()
        self.due_to = why
        self.news.set()

    def decide(self, succeeded: bool) -> None:
        """Note what has become of that."""
        self.due_to = ""
        self.succeeded = succeeded
        self.decided.set()


class _Supervisor:
    def __init__(
        self,
        count: int,
        crew: Crew,
        max_age_s: float | None,
        check: Check | None,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._places = [_WorkerPlace(number) for number in range(1, count + 1)]
        self._crew = crew
        self._max_age_s = max_age_s
        self._check = check
        self._on_ready, self._on_stop = on_ready, on_stop
        self._not_yet_up = set(range(1, count + 1))
        self._first_is_decided = trio.Event()
        self._replacing = trio.Lock()
        self._early_deaths = 0
        self.status = 0

    async def run(self, nursery: trio.Nursery) -> None:
        """Keep a worker in each place, in the nursery, until the drain begins."""
        first, *others = self._places
        nursery.start_soon(self._keep, first)
        await self._first_is_decided.wait()
        for place in others:
            nursery.start_soon(self._keep, place)

    # Signals.

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """Do what the signals say, until cancelled."""
        restarts, reloads = Coalesced(self._replace_all), Coalesced(self._reload_all)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restarts.run)
            nursery.start_soon(reloads.run)
            async for code in signals:
                number = signal.Signals(code)
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop(number)
                elif self._crew.stopping.is_set():
                    log.info("%s: ignored, since all workers are draining", number.name)
                elif number == signal.SIGUSR1:
                    log.info("SIGUSR1: replacing %s, one at a time", _workers(len(self._places)))
                    restarts.ask()
                else:
                    reloads.ask()

    def _stop(self, number: signal.Signals) -> None:
        if self._crew.stopping.is_set():
            log.warning("%s again: stopping at once", number.name)
            self._crew.stop_at_once()
        else:
            log.info("%s: draining %s; again to stop now", number.name, _workers(len(self._crew)))
            self._drain(number)

    async def _replace_all(self) -> None:
        for place in self._places:
            place.ask(RESTART)
            await place.decided.wait()
            if not place.succeeded:
                log.error("the restart has ended at worker %d; what serves goes on as it is", place.number)
                return
        log.info("restarted: %s replaced", _workers(len(self._places)))

    async def _reload_all(self) -> None:
        log.info("SIGHUP: checking the configuration")
        problem = None if self._check is None else await self._check()
        if self._crew.stopping.is_set():
            return
        if problem is not None:
            log.error("SIGHUP: the configuration is invalid, so nothing changes: %s", problem)
            return
        told = [worker for worker in self._crew if not worker.is_draining]
        log.info("SIGHUP: the configuration is valid; %s to reload it", _workers(len(told)))
        for worker in told:
            worker.reload()

    # Workers.

    async def _keep(self, place: _WorkerPlace) -> None:
        """Have a worker in a place, and another one whenever it dies, until the drain begins."""
        stopping = self._crew.stopping
        pause_s = FIRST_PAUSE_S
        while not stopping.is_set():
            worker = await self._start(place)
            is_first = not self._first_is_decided.is_set()
            self._first_is_decided.set()
            if stopping.is_set():
                return
            if worker is None and is_first:
                self._end(self._crew.last_status)
                return
            place.decide(worker is not None)
            if worker is not None:
                worker = await self._keep_up(place, worker)
            if stopping.is_set():
                return
            died_early = worker is None or trio.current_time() - worker.started_at < EARLY_DEATH_S
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if died_early else FIRST_PAUSE_S
            self._early_deaths = self._early_deaths + 1 if died_early and not self._anyone_is_up() else 0
            if self._early_deaths >= GIVE_UP_AFTER:
                log.error(
                    "giving up: workers died %d times within %g s of their start, and none is running; "
                    "see their own messages above",
                    self._early_deaths,
                    EARLY_DEATH_S,
                )
                self._end(1)
                return
            with trio.move_on_after(pause_s):
                await stopping.wait()

    async def _keep_up(self, place: _WorkerPlace, worker: WorkerProcess) -> WorkerProcess:
        """Replace the worker of a place whenever it is due; return the last one when it is lost, or is to drain."""
        while not (worker.is_lost or self._crew.stopping.is_set()):
            place.news = trio.Event()
            if worker.wants_successor:
                worker.wants_successor = False
                place.ask(MAX_REQUESTS)
            elif trio.current_time() >= place.due_at:
                place.ask(place.due_at_to)
            if place.due_to:
                worker = await self._replace(place, worker)
            else:
                with trio.move_on_at(place.due_at):
                    await place.news.wait()
        return worker

    async def _replace(self, place: _WorkerPlace, old: WorkerProcess) -> WorkerProcess:
        """Start a successor, and have the old worker drain when it is up; return which of them serves.

        A worker that is lost while it waits for its turn is returned at once: it is to be started again.
        """
        has_turn = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_lost, old, place, nursery.cancel_scope)
                await self._replacing.acquire()  # one at a time: starting takes time and memory
                has_turn = True
                await self._crew.wait_for_room(len(self._places))
                nursery.cancel_scope.cancel()
            if not has_turn or old.is_lost or self._crew.stopping.is_set():
                return old
            why = place.due_to
            new = await self._start(place, for_process=old.pid)
        finally:
            if has_turn:
                self._replacing.release()
        if self._crew.stopping.is_set():
            return old
        if new is not None:
            log.info("%s replaces process %d: %s", new, old.pid, why)
            self._crew.retire(old)
        else:
            log.error("%s goes on: what was to replace it (%s) does not serve", old, why)
            if why != RESTART:
                place.due_at, place.due_at_to = trio.current_time() + RETRY_S, why
        place.decide(new is not None)
        return new or old

    async def _start(self, place: _WorkerPlace, *, for_process: int | None = None) -> WorkerProcess | None:
        worker = await self._crew.start(place.number, for_process=for_process)
        if worker is not None:
            worker.on_news = place.note_news
            self._note_up(place.number)
            place.due_at, place.due_at_to = math.inf, MAX_AGE
            if self._max_age_s is not None:
                place.due_at = trio.current_time() + jittered(self._max_age_s)
        return worker

    def _note_up(self, number: int) -> None:
        if number in self._not_yet_up:
            self._not_yet_up.discard(number)
            if not self._not_yet_up and not self._crew.stopping.is_set():
                self._on_ready()

    def _anyone_is_up(self) -> bool:
        up_since = trio.current_time() - EARLY_DEATH_S
        return any(one.is_ready and not one.is_lost and one.started_at <= up_since for one in self._crew)

    def _end(self, status: int) -> None:
        self.status = status if status > 0 else 1
        self._drain(signal.SIGTERM)

    def _drain(self, number: signal.Signals) -> None:
        if not self._crew.stopping.is_set():
            self._on_stop()
        self._crew.stop(number)


async def _cancel_when_lost(worker: WorkerProcess, place: _WorkerPlace, scope: trio.CancelScope) -> None:
    while not worker.is_lost:
        place.news = trio.Event()
        await place.news.wait()
    scope.cancel()


def jittered(amount: float) -> float:
    """Return an amount that differs by up to `JITTER`."""
    return amount * random.uniform(1 - JITTER, 1 + JITTER)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
