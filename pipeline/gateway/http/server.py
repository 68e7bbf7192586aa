"""The life of one server process: start the application, accept, drain, stop.

It is hypercorn's trio worker life cycle (its `Config`, its `Lifespan`, its TLS settings) around our own accept loop
and `ServerConnection`. Hypercorn's own connections are not used: one malformed upgrade request ends its process, and a
stalled reader outlives every timeout (docs/facts/http-stack.md, "hypercorn as a server").

A process ends in this order: ``shutdown`` is set; ``on_shutdown`` is called (the readiness check fails from then on)
and ``shutdown_delay_s`` passes, in which everything is served; listening stops; running requests have
``graceful_timeout_s``; ``on_drain_deadline`` is called or, without one, the applications are cancelled: either way they
have ``final_message_timeout_s`` to end their streams properly; the remaining sockets are reset. ``hard_stop`` skips to
that last step. ``retire`` begins with the end of listening: another process serves on the same socket.

While requests may still run, one that comes on an open connection is served, and the connection is closed after it. A
connection that is idle is closed after ``drain_idle_s``: closing it at once could cross a request on its way.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from hypercorn.typing import Scope as HypercornScope
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from pipeline.gateway.http.asgi import App, Scope
from pipeline.gateway.http.connection import ServerConnection, ServerSettings, describe_failure
from pipeline.gateway.http.door import NO_ANSWERS, Answers, Door, Shed, shed_none
from pipeline.gateway.http.refusals import MakeRefusal
from pipeline.gateway.http.request_cycle import DateHeader
from pipeline.gateway.http.sockets import BACKLOG, TcpTransport, TlsTransport, limit_writes
from pipeline.gateway.http.worker_process import RETIRED_LIMIT_S
from pipeline.kernel_time import StampedReader
from pipeline.loop import current_loop

STARTUP_TIMEOUT_S: Final = 600.0
"""What the application opens has limits of its own, each with a name; this one only says that something took long."""
MAX_REFUSALS: Final = 64
"""Refusals in progress at once; further connections are closed without a response."""

log = logging.getLogger("headrace.server")


class StartupError(Exception):
    """The application did not start; the message says why."""


def hypercorn_config(settings: ServerSettings, *, certfile: str | None = None, keyfile: str | None = None) -> Config:
    """Return hypercorn's configuration in agreement with ours, so that none of its defaults ends anything earlier."""
    config = Config()
    config.certfile = certfile
    config.keyfile = keyfile
    config.alpn_protocols = ["http/1.1"]
    config.graceful_timeout = settings.graceful_timeout_s
    config.keep_alive_timeout = settings.keep_alive_timeout_s
    config.startup_timeout = STARTUP_TIMEOUT_S
    return config


async def serve(
    app: App,
    config: Config,
    sockets: Sequence[socket.socket],
    settings: ServerSettings,
    *,
    make_refusal: MakeRefusal,
    answers: Answers = NO_ANSWERS,
    shed: Shed = shed_none,
    connections: set[ServerConnection] | None = None,
    shutdown: trio.Event,
    hard_stop: trio.Event | None = None,
    retire: trio.Event | None = None,
    on_stopping: Callable[[int], object] | None = None,
    on_shutdown: Callable[[], None] | None = None,
    on_drain_deadline: Callable[[], None] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until ``shutdown``, then drain as described above.

    Neither what a client sends nor a failure of the application ends it. Cancelling it resets all connections.

    Args:
        app: the ASGI application; its lifespan is run.
        config: TLS files, and time limits of start-up and shutdown of the lifespan.
        sockets: listening sockets (`bind_socket`, or `prepare_listener` on an inherited one); closed on return.
        settings: the limits of connections and of the drain.
        make_refusal: makes the responses to requests that never reach the application.
        answers: what is answered to GET and HEAD without the application, by path, however busy the process is.
        shed: how new clients' requests are refused without the application while the loop is overloaded.
        connections: where the open ones are kept, for a caller that counts them; it is empty.
        shutdown: set it to begin the drain; before the application is up, its start is cancelled.
        hard_stop: set it to end at once, before or during the drain.
        retire: set it to begin the drain without a delay and without ``on_shutdown``: the service goes on elsewhere.
        on_stopping: called when either begins, with the number of requests that run.
        on_shutdown: called when the shutdown begins, while new connections are still accepted.
        on_drain_deadline: called when the graceful time is over; the application should then end its requests itself,
            in-band. Without it the applications are cancelled, and may send a final message in a shielded scope.
        task_status: receives the URLs that are served, once the application is up.

    Raises:
        StartupError: if the application refuses to start or takes too long.
    """
    state: dict[str, Any] = {}

    async def lifespan_app(
        scope: HypercornScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        await app(scope, receive, send)

    lifespan = Lifespan(lifespan_app, config, state)
    refusal: StartupError | None = None
    try:
        async with trio.open_nursery() as life:
            ended = trio.Event()

            async def run_lifespan(task_status: trio.TaskStatus[None]) -> None:
                try:
                    await lifespan.handle_lifespan(task_status=task_status)
                finally:
                    ended.set()

            await life.start(run_lifespan)
            if not await _has_started(lifespan, shutdown):
                life.cancel_scope.cancel()
                return
            if lifespan.shutdown.is_set():  # it has already ended; if that was a failure, we are being cancelled
                await ended.wait()
                await trio.lowlevel.checkpoint_if_cancelled()
            worker = _Worker(app, config, settings, make_refusal, answers, shed, state, connections)
            urls = [worker.url(listener) for listener in sockets]
            await worker.run(
                sockets,
                shutdown=shutdown,
                hard_stop=hard_stop if hard_stop is not None else trio.Event(),
                retire=retire if retire is not None else trio.Event(),
                on_stopping=on_stopping,
                on_shutdown=on_shutdown,
                on_drain_deadline=on_drain_deadline,
                started=lambda: task_status.started(urls),
            )
            with suppress(trio.ClosedResourceError):
                await lifespan.wait_for_shutdown()
            life.cancel_scope.cancel()
    except* LifespanFailureError as group:
        refusal = StartupError(f"the application did not start: {_only(group)}")
    except* LifespanTimeoutError:
        limit_s = config.startup_timeout
        refusal = StartupError(f"the application's lifespan took longer than {limit_s:g} s")
    finally:
        for listener in sockets:
            listener.close()
    if refusal is not None:
        raise refusal


class _Worker:
    """All connections of one process."""

    def __init__(
        self,
        app: App,
        config: Config,
        settings: ServerSettings,
        make_refusal: MakeRefusal,
        answers: Answers,
        shed: Shed,
        state: dict[str, Any],
        connections: set[ServerConnection] | None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._make_refusal = make_refusal
        self._answers = answers
        self._shed = shed
        self._state = state
        self._tls = _tls_context(config)
        self._date = DateHeader()
        self._stamps = StampedReader()
        self._connections: set[ServerConnection] = set() if connections is None else connections
        self._refusals = 0
        self._all_closed = trio.Event()

    def url(self, listener: socket.socket) -> str:
        scheme = "https" if self._tls is not None else "http"
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            return f"{scheme}+unix:{listener.getsockname()}"
        host, port = listener.getsockname()[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def run(
        self,
        listeners: Sequence[socket.socket],
        *,
        shutdown: trio.Event,
        hard_stop: trio.Event,
        retire: trio.Event,
        on_stopping: Callable[[int], object] | None,
        on_shutdown: Callable[[], None] | None,
        on_drain_deadline: Callable[[], None] | None,
        started: Callable[[], None],
    ) -> None:
        async with trio.open_nursery() as running:
            door = self._open_door(listeners, running)
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        limit_writes(listener, self._settings.write_timeout_s)
                        accepting.start_soon(door.accept_on, listener)
                    started()
                    await _first_of(shutdown, hard_stop, retire)
                    if on_stopping is not None:
                        on_stopping(self._busy())
                    if not retire.is_set():
                        if on_shutdown is not None:
                            on_shutdown()
                        with trio.move_on_after(self._settings.shutdown_delay_s):
                            await hard_stop.wait()
                    accepting.cancel_scope.cancel()
                door.close()
                for listener in listeners:
                    if shutdown.is_set():
                        self._admit_waiting(door, listener, running)
                    listener.close()
                for connection in self._connections:
                    connection.drain(idle_s=self._settings.drain_idle_s)
                if not shutdown.is_set():  # its place is taken: nobody waits for its end
                    with trio.move_on_after(RETIRED_LIMIT_S):
                        await self._closed_or(hard_stop, shutdown)
                with trio.move_on_after(self._settings.graceful_timeout_s):
                    await self._closed_or(hard_stop)
                if self._connections and not hard_stop.is_set():
                    if busy := self._busy():
                        log.warning("%d requests are still running at the drain deadline", busy)
                    for connection in self._connections:
                        connection.drain(idle_s=0)
                    if on_drain_deadline is not None:
                        on_drain_deadline()
                    else:
                        running.cancel_scope.cancel()
                    with trio.move_on_after(self._settings.final_message_timeout_s, shield=True):
                        await self._closed_or(hard_stop)
            finally:  # even if cancelled: a shielded send must not keep the process alive
                running.cancel_scope.cancel()
                for connection in self._connections:
                    connection.abort()

    def _busy(self) -> int:
        """Return the number of connections that are not idle."""
        return sum(not connection.is_idle for connection in self._connections)

    async def _closed_or(self, *events: trio.Event) -> None:
        if self._connections:
            self._all_closed = trio.Event()
            await _first_of(self._all_closed, *events)

    def _open_door(self, listeners: Sequence[socket.socket], running: trio.Nursery) -> Door:
        def admit(sock: socket.socket, address: Any, has_sent: bool) -> None:
            self._admit(door, sock, address, running, has_sent=has_sent)

        def see_off(sock: socket.socket, address: Any) -> None:
            self._see_off(door, sock, address, running)

        door = Door(
            listeners,
            current_loop(),
            admit=admit,
            see_off=see_off,
            spawn=running.start_soon,
            answers=self._answers,
            shed=self._shed,
            date=self._date.current,
            max_header_bytes=self._settings.max_header_bytes,
            can_read=self._tls is None,
        )
        return door

    def _admit_waiting(self, door: Door, listener: socket.socket, running: trio.Nursery) -> None:
        """Admit what waits to be accepted: the kernel would reset it with the end of listening."""
        with suppress(OSError):
            for _ in range(BACKLOG):
                self._admit(door, *listener.accept(), running, has_sent=False)

    def _connection(self, door: Door, sock: socket.socket, address: Any) -> ServerConnection:
        tcp = TcpTransport(sock, write_timeout_s=self._settings.write_timeout_s, stamps=self._stamps)
        return ServerConnection(
            self._app,
            tcp if self._tls is None else TlsTransport(tcp, self._tls),
            self._settings,
            make_refusal=self._make_refusal,
            date=self._date,
            base_scope=self._base_scope(sock, address),
            state=self._state,
            door=door,
        )

    def _admit(self, door: Door, sock: socket.socket, address: Any, running: trio.Nursery, *, has_sent: bool) -> None:
        connection = self._connection(door, sock, address)
        if len(self._connections) - self._refusals < self._settings.max_connections:
            self._connections.add(connection)
            running.start_soon(self._run_connection, connection, has_sent)
        elif self._refusals < MAX_REFUSALS and self._tls is None:
            self._connections.add(connection)
            self._refusals += 1
            running.start_soon(self._refuse, connection, connection.refuse)
        else:
            sock.close()

    def _see_off(self, door: Door, sock: socket.socket, address: Any, running: trio.Nursery) -> None:
        if self._refusals < MAX_REFUSALS:
            connection = self._connection(door, sock, address)
            self._connections.add(connection)
            self._refusals += 1
            running.start_soon(self._refuse, connection, connection.see_off)
        else:
            sock.close()

    def _base_scope(self, sock: socket.socket, address: Any) -> Scope:
        internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        return {
            "scheme": "http" if self._tls is None else "https",
            "client": tuple(address[:2]) if internet else None,
            "server": tuple(sock.getsockname()[:2]) if internet else None,
            "root_path": "",
        }

    async def _run_connection(self, connection: ServerConnection, has_sent: bool) -> None:
        try:
            await connection.run(has_sent=has_sent)
        except* Exception as failure:  # a bug of ours costs one connection, never the process
            log.error("a connection failed\n%s", describe_failure(failure))
        finally:
            self._forget(connection)

    async def _refuse(self, connection: ServerConnection, end: Callable[[], Awaitable[None]]) -> None:
        try:
            await end()
        except* Exception as failure:
            log.error("a refusal of a connection failed\n%s", describe_failure(failure))
        finally:
            self._refusals -= 1
            self._forget(connection)

    def _forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()


def _tls_context(config: Config) -> ssl.SSLContext | None:
    context = config.create_ssl_context()
    if context is not None:
        context.set_alpn_protocols(["http/1.1"])  # hypercorn's default offers h2, which we do not speak
    return context


async def _first_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def _has_started(lifespan: Lifespan, shutdown: trio.Event) -> bool:
    """Wait for the application's start; return False if ``shutdown`` is set before it."""
    is_up = False
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await shutdown.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        with suppress(trio.ClosedResourceError):  # an application may return from the lifespan scope at once
            await lifespan.wait_for_startup()
        is_up = True
        nursery.cancel_scope.cancel()
    return is_up


def _only(group: BaseExceptionGroup[LifespanFailureError]) -> str:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return str(leaf).removeprefix("Lifespan failure in startup. '").removesuffix("'")
