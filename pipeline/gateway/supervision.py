"""``headrace serve``: the process that checks the configuration, listens, and keeps workers running.

It serves nothing itself and stays small: what it needs to know of a configuration is read here, and whether the
configured stages fit together is found out by the first worker, or on a reload by a process of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from pipeline.gateway.banner import banner_of, write_banner
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.http.supervisor import run_workers
from pipeline.gateway.logs import configure_logging
from pipeline.gateway.notify_socket import NotifySocket
from pipeline.gateway.open_files import allow_many_files
from pipeline.gateway.restarts import OF_THE_SERVICE, needed_restart
from pipeline.gateway.watching import watch_code, watch_files
from pipeline.segments import SegmentFile
from stages.admission.counts import shared_file

if TYPE_CHECKING:
    from pipeline.gateway.metrics.address import AddressApp

KILL_MARGIN_S: Final = 20.0
"""What the supervisor adds to the longest drain, before it kills a worker: its final messages, and its plugins' end."""
CHECK_LIMIT_S: Final = 60.0
SHOWN_CHARACTERS: Final = 2000
"""Of what is wrong with a configuration."""

log = logging.getLogger("headrace")


class Inherited(NamedTuple):
    """What a worker has from its supervisor.

    Attributes:
        listener, lifeline: descriptors of sockets.
        number: its place among the workers, from 1.
        counts: the descriptor of the file in which all workers count what is limited.
        measurements: the descriptor of the file in which all workers keep their measurements.
    """

    listener: int
    lifeline: int
    number: int
    counts: int
    measurements: int

    @classmethod
    def parse(cls, argument: str) -> Inherited:
        """Return what `__str__` has written."""
        return cls(*map(int, argument.split(",")))

    def __str__(self) -> str:
        """Return it as the argument of a worker."""
        return ",".join(map(str, self))


def supervise(
    settings: Settings,
    program: Sequence[str],
    *,
    reread: Callable[[], Settings],
    files: Callable[[], Iterable[str]] = tuple,
    code: Collection[Path] = (),
) -> int:
    """Serve with worker processes until a signal ends it; return the exit status. Says so once all of them serve.

    Args:
        settings: the configuration, resolved.
        reread: reads the configuration again, for a reload.
        files: returns the names of the configuration's files, which are watched if that is configured.
        code: folders of Python code: if any of it changes, all workers are replaced.
        program: the command that runs this process; a worker's has ``--inherited`` and an `Inherited` added, and one
            that checks the configuration ``--check``.

    Raises:
        ListenError: if the address cannot be bound.
        CommandError: if ``metrics_address`` cannot be.
    """
    own = settings.pipeline
    notify = NotifySocket.take(os.environ)
    written = configure_logging(own.log_format, own.log_level)
    allow_many_files(own.max_connections)
    listener = bind_socket(own.host, own.port)

    measurements = SegmentFile.create(ring_bytes=own.recorder_bytes)
    beside: list[Callable[[], Awaitable[None]]] = []
    address: AddressApp | None = None
    if own.metrics_address is not None:  # only what is configured is imported
        from pipeline.gateway.metrics.address import AddressApp, open_address, serve_address

        address = AddressApp(measurements, settings)
        beside.append(partial(serve_address, open_address(own.metrics_address), address))
    if own.otlp_endpoint is not None:
        from pipeline.gateway.metrics.otlp import Exporter

        exporter = Exporter(
            measurements, settings.deployments, endpoint=own.otlp_endpoint, interval_s=own.otlp_interval_s
        )
        beside.append(exporter.run)

    async def watch() -> None:
        async with trio.open_nursery() as nursery:
            if own.watch_config:
                reload = partial(_note_change, "the configuration", signal.SIGHUP)
                nursery.start_soon(watch_files, lambda: map(Path, files()), reload)
            if code:
                nursery.start_soon(watch_code, code, partial(_note_change, "the code of stages", signal.SIGUSR1))
            for run in beside:
                nursery.start_soon(run)

    counts = shared_file()  # even without limits: a reload may bring some

    def command_of(listeners: Sequence[int], lifeline: int, number: int) -> list[str]:
        inherited = Inherited(listeners[0], lifeline, number, counts, measurements.fd)
        return [*program, "--inherited", str(inherited)]

    workers = "1 worker" if own.workers == 1 else f"{own.workers} workers"
    status = f"{_models(settings)}, {workers}"

    async def check() -> str | None:
        nonlocal status
        notify.reloading()
        found = await problem_of([*program, "--check"]) or await _reload(own, reread, address)
        if isinstance(found, str):
            notify.reloaded(f"{status}; the last reload was refused, and the log says why")
            return found
        status = f"{_models(found)}, {workers}"
        notify.reloaded(status)
        return None

    def note_ready() -> None:
        write_banner(banner_of(settings, listener.getsockname()[1]), written)
        notify.ready(status)

    stop_timeout_s = own.shutdown_delay_s + own.graceful_timeout_s + KILL_MARGIN_S
    log.info("%s on %s port %d", workers, own.host, listener.getsockname()[1])
    serve = partial(
        run_workers,
        stop_timeout_s=stop_timeout_s,
        max_age_s=own.max_age_s,
        check=check,
        more_fds=[counts, measurements.fd],
        beside=watch,
        on_ready=note_ready,
        on_stop=partial(notify.stopping, stop_timeout_s),
    )
    return trio.run(serve, own.workers, [listener], command_of)


async def _reload(own: PipelineSettings, reread: Callable[[], Settings], address: AddressApp | None) -> Settings | str:
    """Have ``metrics_address`` know the keys of the configuration as it is now; return it, or what is wrong with it.

    What has changed in it and needs a restart of the service is logged here: workers may have started later.
    """
    try:
        settings = await trio.to_thread.run_sync(reread)
        if address is not None:
            address.reload(settings)
    except ConfigError as error:  # it has changed once more since it was checked
        return "; ".join(error.problems)
    except OSError as error:
        return str(error)
    if remark := needed_restart(OF_THE_SERVICE, own, settings.pipeline):
        log.warning(remark)
    return settings


def _models(settings: Settings) -> str:
    count = len({deployment.model_name for deployment in settings.deployments})
    return "1 model" if count == 1 else f"{count} models"


def _note_change(what: str, number: signal.Signals) -> None:
    log.info("%s has changed", what)
    signal.raise_signal(number)


async def problem_of(command: Sequence[str]) -> str | None:
    """Run a command that checks the configuration; return what it says is wrong, or None."""
    with trio.move_on_after(CHECK_LIMIT_S):
        try:
            ran = await trio.run_process(command, stdin=subprocess.DEVNULL, capture_stderr=True, check=False)
        except OSError as error:
            return f"its check cannot be started: {error.strerror}"
        if ran.returncode == 0:
            return None
        said = "; ".join(line for line in ran.stderr.decode(errors="replace").splitlines() if line.strip())
        return said[-SHOWN_CHARACTERS:] or f"its check ended with status {ran.returncode}"
    return f"its check took longer than {CHECK_LIMIT_S:g} s"
