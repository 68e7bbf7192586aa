"""A process that serves until it is told to stop, by signals and by the end of its supervisor."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio
from hypercorn.config import Config

from pipeline.gateway.http.asgi import App
from pipeline.gateway.http.coalesced import Coalesced
from pipeline.gateway.http.connection import ServerConnection, ServerSettings, describe_failure
from pipeline.gateway.http.door import NO_ANSWERS, Answers, Shed, shed_none
from pipeline.gateway.http.lifeline import READY, Lifeline
from pipeline.gateway.http.refusals import MakeRefusal
from pipeline.gateway.http.server import StartupError, serve
from pipeline.gateway.http.worker_process import RETIRE, STOP_NOW

log = logging.getLogger("headrace.server")

_ALONE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SUPERVISED: Final = (*_ALONE, RETIRE, STOP_NOW)


async def serve_until_signalled(
    app: App,
    config: Config,
    sockets: Sequence[socket.socket],
    settings: ServerSettings,
    *,
    make_refusal: MakeRefusal,
    answers: Answers = NO_ANSWERS,
    shed: Shed = shed_none,
    connections: set[ServerConnection] | None = None,
    lifeline: Lifeline | None = None,
    on_hangup: Callable[[], Awaitable[None]] | None = None,
    on_shutdown: Callable[[], None] | None = None,
    on_drain_deadline: Callable[[], None] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """`serve`, where SIGTERM or SIGINT begins the drain, and a second signal is the hard stop.

    A worker of a supervisor obeys its signals, and is stopped at once only by `STOP_NOW`
    (`pipeline.gateway.http.worker_process`).

    Args:
        lifeline: in a worker process, its end of the supervisor's socket, which is closed on return: over it the
            worker reports that it is alive; when it ends, the supervisor is dead, and the worker drains.
        on_hangup: called in a task on SIGHUP, once the application is up; of several signals while it runs, once more
            after it. If it raises an `Exception`, that is logged. Without it SIGHUP is ignored.

    Raises:
        StartupError: as `serve`.
    """
    process = _Process(lifeline, on_hangup, task_status)
    refusal: StartupError | None = None
    try:
        with trio.open_signal_receiver(*(_ALONE if lifeline is None else _SUPERVISED)) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.obey, signals)
                nursery.start_soon(process.reload_when_asked)
                if lifeline is not None:
                    nursery.start_soon(lifeline.keep_reporting)
                    nursery.start_soon(process.watch, lifeline)
                try:
                    await serve(
                        app,
                        config,
                        sockets,
                        settings,
                        make_refusal=make_refusal,
                        answers=answers,
                        shed=shed,
                        connections=connections,
                        shutdown=process.shutdown,
                        hard_stop=process.hard_stop,
                        retire=process.retire,
                        on_stopping=process.log_stopping,
                        on_shutdown=on_shutdown,
                        on_drain_deadline=on_drain_deadline,
                        task_status=process,
                    )
                except StartupError as error:
                    refusal = error
                nursery.cancel_scope.cancel()
    finally:
        if lifeline is not None:
            lifeline.close()
    if refusal is not None:
        raise refusal


class _Process(trio.TaskStatus[list[str]]):
    """What the signals have said so far."""

    def __init__(
        self,
        lifeline: Lifeline | None,
        on_hangup: Callable[[], Awaitable[None]] | None,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        self._lifeline = lifeline
        self._on_hangup = on_hangup
        self._reload = Coalesced(self._run_on_hangup)
        self._task_status = task_status
        self._is_up = trio.Event()
        self._why = ""
        self.shutdown, self.hard_stop, self.retire = trio.Event(), trio.Event(), trio.Event()

    @property
    def is_stopping(self) -> bool:
        return self.shutdown.is_set() or self.retire.is_set() or self.hard_stop.is_set()

    def started(self, value: list[str] | None = None) -> None:
        """Note that the application is up, and report it."""
        self._is_up.set()
        self._task_status.started(value or [])
        if self._lifeline is not None:
            self._lifeline.report(READY)

    async def obey(self, signals: AsyncIterator[int]) -> None:
        async for code in signals:
            number = signal.Signals(code)
            if number == signal.SIGHUP:
                self._hang_up()
            elif number == STOP_NOW or (self.is_stopping and self._lifeline is None):
                log.warning("%s: stopping at once", number.name)
                self.hard_stop.set()
            elif self.retire.is_set() and not self.shutdown.is_set() and number != RETIRE:
                self._stop(number.name)
                log.info("%s: the requests that are open have graceful_timeout_s from now on", number.name)
            elif self.is_stopping:
                log.info("%s: ignored, since this worker is draining; %s stops it now", number.name, STOP_NOW.name)
            elif number == RETIRE:
                self._why = "replaced"
                self.retire.set()
            else:
                self._stop(number.name)

    def _stop(self, why: str) -> None:
        self._why = why
        if not self._is_up.is_set():
            log.info("%s: the start is given up", why)
        self.shutdown.set()

    def log_stopping(self, requests: int) -> None:
        """Log that the drain begins."""
        if self.hard_stop.is_set():
            return
        open_now = "1 request" if requests == 1 else f"{requests} requests"
        hint = "" if self._lifeline is not None else "; again to stop now"
        log.info("%s: draining, %s open%s", self._why, open_now, hint)

    def _hang_up(self) -> None:
        if self._on_hangup is None:
            log.info("SIGHUP: ignored, since this process cannot reload its configuration: restart it")
        elif self.is_stopping:
            log.info("SIGHUP: ignored, since this process is draining")
        else:
            self._reload.ask()

    async def reload_when_asked(self) -> None:
        await self._is_up.wait()
        await self._reload.run()

    async def _run_on_hangup(self) -> None:
        assert self._on_hangup is not None
        try:
            await self._on_hangup()
        except* Exception as failure:  # what is served now goes on
            log.error("the reload failed, so nothing changes\n%s", describe_failure(failure))

    async def watch(self, lifeline: Lifeline) -> None:
        await lifeline.has_ended()
        if not self.is_stopping:
            self._stop("the supervisor has died")
