"""The running service: what ``headrace serve`` does once it knows its settings."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from pipeline.gateway.app import Application
from pipeline.gateway.collector import start_collector, watch_streams
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.event_log import EventLog
from pipeline.gateway.failures import refusal
from pipeline.gateway.http.connection import ServerSettings
from pipeline.gateway.http.server import StartupError, hypercorn_config, serve_until_signalled
from pipeline.gateway.http.sockets import bind_socket, prepare_listener
from pipeline.gateway.http.supervisor import run_workers
from pipeline.gateway.logs import configure_logging
from pipeline.gateway.memory import return_large_blocks
from pipeline.gateway.reloading import Reloader, Reread
from pipeline.loop import LoopClock, watch_loop
from pipeline.registry import AnyPlugin
from stages.admission.counts import Counts, shared_file

KILL_MARGIN_S = 10.0
"""What the supervisor adds to the longest drain before it kills a worker."""

SPARE_FILES = 64
"""Descriptors besides those of streams, which need one to the client and one to the upstream."""

log = logging.getLogger("headrace")


def serve(
    settings: Settings,
    *,
    plugins: Mapping[str, AnyPlugin],
    worker_arguments: Sequence[str] = (),
    inherited: tuple[int, ...] | None = None,
    on_listening: Callable[[str, int], None] | None = None,
    reread: Reread | None = None,
) -> int:
    """Serve until a signal ends it, in this process or under a supervisor; return the exit status.

    Args:
        settings: the configuration, resolved.
        plugins: the installed stages.
        worker_arguments: the arguments of a worker process, if there are several.
        inherited: in a worker, the descriptors of the listening socket, of its lifeline and of the file in which all
            workers count what is limited.
        on_listening: called with the host and port once the socket is bound.
        reread: reads the configuration again, for a reload; None if it comes from nowhere that can change.

    Raises:
        OSError: if the address cannot be bound; the message names it.
    """
    own = settings.pipeline
    written = configure_logging(own.log_format, own.log_level)
    events = EventLog(written)
    files = _allow_many_files()
    # A misconfigured stage fails here, not in each worker.
    counts = None if inherited is None else Counts(inherited[2])
    app = Application(settings, plugins=plugins, on_end=events.note_request, counts=counts)
    on_hangup = None if reread is None else Reloader(app.generations, reread, written)
    if inherited is not None:
        listener, lifeline = (socket.socket(fileno=fd) for fd in inherited[:2])
        prepare_listener(listener)
        return _run(app, own, listener, lifeline, events, on_hangup)
    for warning in settings.warnings:
        log.warning(warning)
    if 0 < files < 2 * own.max_connections + SPARE_FILES:
        log.warning(
            "at most %d files may be open, but max_connections: %d can need %d: raise the limit (ulimit -n, systemd's "
            "LimitNOFILE, docker's --ulimit nofile), or set max_connections to at most %d",
            files,
            own.max_connections,
            2 * own.max_connections + SPARE_FILES,
            max(1, (files - SPARE_FILES) // 2),
        )
    listener = bind_socket(own.host, own.port)
    port = listener.getsockname()[1]
    if on_listening is not None:
        on_listening(own.host, port)
    if own.workers == 1:
        return _run(app, own, listener, None, events, on_hangup)

    counts_file = shared_file()  # even without limits: a reload may bring some

    def worker_command(listeners: Sequence[int], lifeline: int) -> list[str]:
        program = [sys.executable, "-m", "pipeline.gateway", *worker_arguments]
        return [*program, "--inherited", f"{listeners[0]},{lifeline},{counts_file}"]

    log.info("%d workers on %s port %d", own.workers, own.host, port)
    limits = server_settings(own)
    longest_drain_s = limits.graceful_timeout_s + limits.final_message_timeout_s + KILL_MARGIN_S
    return run_workers(own.workers, [listener], worker_command, stop_timeout_s=longest_drain_s, more_fds=[counts_file])


def _allow_many_files() -> int:
    """Raise the limit of open files to what the system allows, and return it (-1: unlimited).

    Each stream needs two, and a common default is 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        log.info("the limit of open files was %d and is now %d", soft, hard)
    return hard


def server_settings(own: PipelineSettings) -> ServerSettings:
    """Return the server's part of our settings."""
    return ServerSettings(
        max_connections=own.max_connections,
        keep_alive_timeout_s=own.keep_alive_timeout_s,
        header_timeout_s=own.header_timeout_s,
        write_timeout_s=own.write_timeout_s,
        graceful_timeout_s=own.graceful_timeout_s,
    )


def _run(
    app: Application,
    own: PipelineSettings,
    listener: socket.socket,
    lifeline: socket.socket | None,
    events: EventLog,
    on_hangup: Callable[[], Awaitable[None]] | None,
) -> int:
    """Serve in this process."""
    limits = server_settings(own)
    config = hypercorn_config(limits, certfile=own.tls_certfile, keyfile=own.tls_keyfile)

    async def main() -> None:
        refused: StartupError | None = None
        with watch_loop(events.note_stall) as loop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(events.run)
                nursery.start_soon(watch_streams, loop)
                try:
                    await serve_until_signalled(
                        app,
                        config,
                        [listener],
                        limits,
                        make_refusal=refusal,
                        answers=app.answers,
                        shed=app.shed,
                        lifeline=lifeline,
                        on_shutdown=app.generations.drain,
                        on_drain_deadline=app.generations.cut_off,
                        on_hangup=on_hangup,
                        task_status=_Announcement(),
                    )
                except StartupError as error:
                    refused = error  # raised here, it would come in a group
                nursery.cancel_scope.cancel()
        if app.generations.are_stuck:
            if refused is not None:
                log.error("%s", refused)
            events.flush_requests()
            events.flush_stalls()
            os._exit(1)  # the loop would wait for the plugin's thread
        if refused is not None:
            raise refused

    return_large_blocks()
    start_collector()
    try:
        trio.run(main, clock=LoopClock())
    except StartupError as error:
        log.error("%s", error)
        return 1
    finally:
        events.flush_requests()
        events.flush_stalls()
    return 0


class _Announcement(trio.TaskStatus[list[str]]):
    """Logs the URLs once the application is up."""

    def started(self, value: list[str] | None = None) -> None:
        log.info("serving %s", ", ".join(value or ()))
