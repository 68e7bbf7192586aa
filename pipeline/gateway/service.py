"""A process that serves: a worker of ``headrace serve``, or ``headrace demo``, once it knows its settings."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import trio

from pipeline.gateway.app import Application
from pipeline.gateway.collector import start_collector, watch_streams
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.event_log import EventLog, RecordLog
from pipeline.gateway.failures import END_CODES, refusal
from pipeline.gateway.http.asgi import App
from pipeline.gateway.http.connection import ServerConnection, ServerSettings
from pipeline.gateway.http.lifeline import Lifeline
from pipeline.gateway.http.server import StartupError, hypercorn_config
from pipeline.gateway.http.sockets import bind_socket, prepare_listener
from pipeline.gateway.http.until_signalled import serve_until_signalled
from pipeline.gateway.logs import configure_logging
from pipeline.gateway.memory import return_large_blocks
from pipeline.gateway.open_files import allow_many_files
from pipeline.gateway.process_state import ProcessState
from pipeline.gateway.publishing import Publisher
from pipeline.gateway.recorder import Recorder
from pipeline.gateway.recycling import RequestLimit
from pipeline.gateway.reloading import Reloader, Reread
from pipeline.gateway.supervision import Inherited
from pipeline.loop import LoopClock, watch_loop
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from pipeline.segments import SegmentFile
from stages.admission.counts import Counts, CountsFullError

log = logging.getLogger("headrace")


def serve(
    settings: Settings,
    *,
    plugins: Mapping[str, AnyPlugin],
    inherited: Inherited | None = None,
    on_listening: Callable[[str, int], None] | None = None,
    reread: Reread | None = None,
    records: RecordLog | None = None,
    around: Callable[[App], App] = lambda app: app,
) -> int:
    """Serve in this process until a signal ends it; return the exit status.

    Args:
        settings: the configuration, resolved.
        plugins: the installed stages.
        inherited: what a worker has from its supervisor.
        on_listening: without a supervisor: called with the host and port once the socket is bound.
        records: where finished requests and stalls are written besides the log; None for nowhere.
        around: returns an application around the service's own, which is served instead.
        reread: reads the configuration again, for a reload; None if it comes from nowhere that can change.

    Raises:
        ListenError: if the address cannot be bound.
        PluginError: if a configured stage does not fit.
        ConfigError: if there are more limits or workers than can be counted.
    """
    own = settings.pipeline
    number = inherited.number if inherited is not None and own.workers > 1 else None
    written = configure_logging(own.log_format, own.log_level, worker=number)
    if inherited is None:
        file = SegmentFile.create(ring_bytes=own.recorder_bytes)
    else:
        file = SegmentFile(inherited.measurements)
    segment = file.claim(1 if inherited is None else inherited.number)
    observed, recorder = Observed(segment), Recorder(segment.ring)
    observed.expect_ends(END_CODES)
    events = EventLog(written, observed, recorder, extra=records)
    lifeline: Lifeline | None = None
    counts: Counts | None = None
    on_end = events.note_request
    if inherited is not None:
        lifeline = Lifeline(socket.socket(fileno=inherited.lifeline))
        counts = shared_counts(inherited.counts)
        if own.max_requests is not None:
            on_end = RequestLimit(own.max_requests, lifeline, on_end).note_request
    app = Application(settings, plugins=plugins, on_end=on_end, counts=counts, observed=observed, measurements=file)
    on_hangup = None if reread is None else Reloader(app.generations, reread, written, is_worker=inherited is not None)
    if inherited is None or inherited.number == 1:  # of several workers, one reports them
        for warning in settings.warnings:
            log.warning(warning)
    if inherited is not None:
        listener = socket.socket(fileno=inherited.listener)
        prepare_listener(listener)
    else:
        allow_many_files(own.max_connections)
        listener = bind_socket(own.host, own.port)
    if on_listening is not None:
        on_listening(own.host, listener.getsockname()[1])
    clients: set[ServerConnection] = set()
    state = ProcessState(observed, file, app.generations, clients, written.sink)
    publisher = Publisher(file, segment, app.generations, observed, recorder, events.flush_requests)
    return _run(app, around(app), own, listener, lifeline, events, on_hangup, state, publisher, clients)


def shared_counts(fd: int) -> Counts:
    """Return the counts of all workers, in the file that a worker has from its supervisor.

    Raises:
        ConfigError: if there are too many workers.
    """
    try:
        return Counts(fd)
    except CountsFullError as full:
        raise ConfigError([f"pipeline_settings.workers: {full}"]) from None


def server_settings(own: PipelineSettings) -> ServerSettings:
    """Return the server's part of our settings."""
    return ServerSettings(
        max_connections=own.max_connections,
        keep_alive_timeout_s=own.keep_alive_timeout_s,
        header_timeout_s=own.header_timeout_s,
        write_timeout_s=own.write_timeout_s,
        shutdown_delay_s=own.shutdown_delay_s,
        graceful_timeout_s=own.graceful_timeout_s,
    )


def _run(
    app: Application,
    served: App,
    own: PipelineSettings,
    listener: socket.socket,
    lifeline: Lifeline | None,
    events: EventLog,
    on_hangup: Callable[[], Awaitable[None]] | None,
    state: ProcessState,
    publisher: Publisher,
    clients: set[ServerConnection],
) -> int:
    """Serve in this process: the application, or what is around it."""
    limits = server_settings(own)
    config = hypercorn_config(limits, certfile=own.tls_certfile, keyfile=own.tls_keyfile)

    async def main() -> None:
        refused: StartupError | None = None
        with watch_loop(events.note_stall) as loop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(events.run)
                nursery.start_soon(watch_streams, loop)
                nursery.start_soon(state.run)
                nursery.start_soon(publisher.run)
                try:
                    await serve_until_signalled(
                        served,
                        config,
                        [listener],
                        limits,
                        make_refusal=refusal,
                        answers=app.answers,
                        shed=app.shed,
                        connections=clients,
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
