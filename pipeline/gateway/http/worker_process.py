"""One worker process, as its supervisor sees it.

A worker is a new program (``exec``), not a fork: it inherits no interpreter state, and one that is started after an
upgrade runs the new code. It is in a process group of its own, so that Ctrl-C in a terminal reaches only the
supervisor, which passes it on once. What it reports comes over its lifeline (`pipeline.gateway.http.lifeline`).

A worker takes SIGTERM or SIGINT to drain, `RETIRE` to drain without haste because another one has taken its place,
`STOP_NOW` to stop at once, and SIGHUP to reload. A second SIGTERM changes nothing: service managers may send one to all
processes of a service, beside ours (systemd does, with its default ``KillMode``).
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

import trio

from pipeline.gateway.http.lifeline import READY, REPLACE_ME

RETIRE: Final = signal.SIGUSR1
STOP_NOW: Final = signal.SIGQUIT
RETIRED_LIMIT_S: Final = 3600.0
"""How long the requests of a worker that is replaced may go on before their `graceful_timeout_s` begins."""

WorkerCommand = Callable[[Sequence[int], int, int], Sequence[str]]
"""Takes the file descriptors of the listening sockets and of the lifeline, which are valid in the worker, and the
worker's number, from 1; returns the program of a worker and its arguments."""


class WorkerProcess:
    """A running worker.

    Attributes:
        number: its place among the workers, from 1; its successors have the same.
        started_at: when it was started.
        heard_at: when it last reported something.
        is_ready: whether it serves, or has served.
        is_draining: whether it has been told to; ``told_at`` is when.
        was_killed: whether the supervisor has killed it.
        is_killed_as_lost: whether it has done so because nothing more is expected of it.
        has_closed: whether it has closed its lifeline.
        wants_successor: whether it has asked to be replaced.
        has_settled: set when it is ready, or has ended.
        has_ended: set at its end.
        status: how it has ended, as `subprocess` has it.
        on_news: called when it is ready, wants a successor, or has ended.
    """

    def __init__(self, number: int, process: trio.Process, lifeline: socket.socket) -> None:
        self.number = number
        self.process = process
        self.started_at = self.heard_at = trio.current_time()
        self.is_ready = False
        self.is_draining = False
        self.told_at = 0.0
        self.was_killed = False
        self.is_killed_as_lost = False
        self.has_closed = False
        self.wants_successor = False
        self.has_settled = trio.Event()
        self.has_ended = trio.Event()
        self.status = 0
        self.on_news: Callable[[], object] = lambda: None
        self._lifeline = trio.socket.from_stdlib_socket(lifeline)
        self._must_reload = False

    def __str__(self) -> str:
        """Return its name in the log."""
        return f"worker {self.number} (process {self.pid})"

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def is_lost(self) -> bool:
        """Whether it serves no more: it has ended, or was killed, which may take long to have an effect."""
        return self.is_killed_as_lost or self.has_ended.is_set()

    @property
    def is_judged(self) -> bool:
        """Whether it must send heartbeats."""
        return self.is_ready and not self.is_lost and not (self.is_draining and self.has_closed)

    @property
    def ending(self) -> str:
        """How it has ended, in words."""
        return f"killed by {signal.Signals(-self.status).name}" if self.status < 0 else f"exit status {self.status}"

    async def attend(self) -> None:
        """Read what it reports until it ends; if cancelled, kill it."""
        with self._lifeline:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                try:
                    self.status = await self.process.wait()
                finally:
                    if self.process.returncode is None:  # cancelled from outside: do not leave an orphan
                        self.process.kill()
                nursery.cancel_scope.cancel()
        self.has_ended.set()
        self.has_settled.set()
        self.on_news()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it."""
        self.was_killed = True
        self.process.kill()

    def drain(self, number: signal.Signals) -> None:
        """Tell it to finish what it has begun and to end."""
        self.is_draining = True
        self.told_at = trio.current_time()
        self.send(number)

    def reload(self) -> None:
        """Have it read the configuration again, as soon as it listens for that."""
        if self.is_ready:
            self.send(signal.SIGHUP)
        else:
            self._must_reload = True

    def kill_as_lost(self) -> None:
        """Kill it, and do not count on it anymore, even if its end takes long."""
        self.is_killed_as_lost = True
        self.kill()
        self.on_news()

    async def _listen(self) -> None:
        while words := await self._heard():
            self.heard_at = trio.current_time()
            if READY in words:
                self.is_ready = True
                self.has_settled.set()
                if self._must_reload:
                    self.reload()
            if REPLACE_ME in words:
                self.wants_successor = True
            if READY in words or REPLACE_ME in words:
                self.on_news()
        self.has_closed = True

    async def _heard(self) -> bytes:
        try:
            return await self._lifeline.recv(1024)
        except OSError:
            return b""


async def start_worker(
    listeners: Sequence[socket.socket], command_of: WorkerCommand, more_fds: Sequence[int], number: int
) -> WorkerProcess:
    """Start a worker that inherits the listening sockets, and ``more_fds``.

    Raises:
        OSError: if its program cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        fds = [listener.fileno() for listener in listeners]
        try:
            process = await trio.lowlevel.open_process(
                list(command_of(fds, theirs.fileno(), number)),
                stdin=subprocess.DEVNULL,
                pass_fds=(*fds, theirs.fileno(), *more_fds),
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    return WorkerProcess(number, process, ours)
