"""One world: the gateway on a simulated network and a virtual clock, scheduled by its seed."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
import trio.testing
from kit.service.running import KEY
from simulator.clients import Client
from simulator.network import Link, Network
from simulator.plans import (
    BODY_TIMEOUT_S,
    CONNECT_S,
    GRACEFUL_S,
    HEADERS_S,
    IDLE_S,
    KEEP_ALIVE_TIMEOUT_S,
    LONGEST_GAP_S,
    MAX_BODY_BYTES,
    WRITE_TIMEOUT_S,
    AnswerPlan,
    Kind,
    WorldPlan,
)
from simulator.upstreams import Upstreams

from pipeline import alarm
from pipeline.gateway.app import Application
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.failures import refusal
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.request_record import FinishedRequest, RequestRecord, request_record
from pipeline.gateway.service import server_settings
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Timeouts

LONGEST_S: Final = 300.0
"""No connection may be older, whatever its client and its upstream do."""
SETTLE_S: Final = 0.2
"""How long after the last client everything must have come to rest."""

_TIMEOUTS: Final = Timeouts(connect_s=CONNECT_S, headers_s=HEADERS_S, first_event_s=IDLE_S, idle_s=IDLE_S)
_PATHS: Final[dict[Kind, str]] = {"responses": "responses", "chat": "chat/completions", "anthropic": "messages"}
_PROVIDERS: Final[dict[Kind, str]] = {"responses": "openai", "chat": "deepseek", "anthropic": "anthropic"}


@dataclass
class Record:
    """A request's record, and when it came."""

    record: RequestRecord
    at: float


@dataclass
class World:
    """What happened.

    Attributes:
        plan: what was drawn.
        records: for each request id, its records.
        peaks: for each request, the most bytes of its answer that we had read and not yet sent on.
        rest: what was found wrong when everything had come to rest.
        errors: what our code has logged as an error.
        seconds: how long it took, in virtual time.
        digest: the same for the same course of events.
    """

    plan: WorldPlan
    clients: list[Client] = field(default_factory=list)
    upstreams: Upstreams | None = None
    records: defaultdict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    peaks: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    rest: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    digest: str = ""
    operated_at: float | None = None


class SimulatedApplication(Application):
    """The application without its pages, of which a world needs none, and which take longer than all the rest."""

    def _make_pages(self) -> Any:
        return None


def deployment(id: str, model_name: str, kind: Kind, host: str, order: int) -> Deployment:
    """Return a deployment at a simulated host."""
    return Deployment(
        id=id,
        model_name=model_name,
        model="m",
        provider=_PROVIDERS[kind],
        kind=kind,
        url=f"http://{host}/v1/{_PATHS[kind]}",
        headers=(("authorization", "Bearer sk-simulated"),),
        timeouts=_TIMEOUTS,
        order=order,
    )


def settings_of(plan: WorldPlan) -> Settings:
    """Return the configuration of a world."""
    kinds = plan.kinds
    deployments = [
        deployment("a", "first", kinds[0], "10.0.0.1", 1),
        deployment("b", "second", kinds[1], "10.0.0.2", 1),
    ]
    if plan.has_second:
        deployments.append(deployment("c", "first", kinds[2], "10.0.0.3", 1))
    return Settings(
        deployments=tuple(deployments),
        master_key=KEY,
        routing=RoutingSettings(
            num_retries=plan.retries, fallbacks={"first": ("second",)} if plan.has_fallback else {}, cooldown_s=2.0
        ),
        pipeline=PipelineSettings(
            max_body_mb=MAX_BODY_BYTES / 1024 / 1024,
            header_timeout_s=5.0,
            body_timeout_s=BODY_TIMEOUT_S,
            write_timeout_s=WRITE_TIMEOUT_S,
            keep_alive_timeout_s=KEEP_ALIVE_TIMEOUT_S,
            graceful_timeout_s=GRACEFUL_S,
            keep_alive_interval_s=plan.comments_s,
            request_timeout_s=plan.request_timeout_s,
            upstream_max_connections=plan.max_upstream_connections,
            upstream_idle_expiry_s=10.0,
            execution=plan.executes,
        ),
    )


class _Errors(logging.Handler):
    """Collects what is logged as an error: it is a bug of ours."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(record.getMessage()[:2000])


@contextmanager
def _logging_to(errors: list[str]) -> Iterator[None]:
    log = logging.getLogger("headrace")
    handler, propagates, level = _Errors(errors), log.propagate, log.level
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate, log.level = propagates, level


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Have trio draw the order of its tasks from the seed, as hypothesis does for its tests."""
    run: Any = trio._core._run  # private, but hypothesis uses it too
    before = run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before


def run_world(plan: WorldPlan, seed: int) -> World:
    """Let a world run to its end; whatever our code does, this returns."""
    world = World(plan)
    try:
        with deterministic(seed), _logging_to(world.errors):
            trio.run(_Running(world).main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        world.errors.append(f"the run failed: {_leaf(group)!r}")
    except Exception as error:
        world.errors.append(f"the run failed: {error!r}")
    return world


def _task_names() -> list[str]:
    """Return the names of all tasks of this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, names = [root], list[str]()
    while found:
        task = found.pop()
        names.append(task.name)
        found += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return names


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Running:
    """A world while it runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._trace = hashlib.sha256()
        self._read: defaultdict[int, int] = defaultdict(int)
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._app: Application | None = None

    def log(self, *what: object) -> None:
        self._trace.update(f"{trio.current_time():.6f} {what}\n".encode())

    def _note_end(self, finished: Callable[[], FinishedRequest]) -> None:
        record = request_record(finished())
        self._world.records[record.request_id].append(Record(record, trio.current_time()))
        self.log("record", record.request_id, record.end, record.status, record.error)

    def _note_received(self, link: Link, count: int) -> None:
        if (number := link.request) is not None:
            self._read[number] += count
            waiting = self._read[number] - self._sent[number]
            if waiting > self._world.peaks[number]:
                self._world.peaks[number] = waiting

    def _note_sent(self, link: Link, count: int) -> None:
        if (number := link.request) is not None:
            self._sent[number] += count

    def _next_answer(self, number: int) -> AnswerPlan:
        plan = self._world.plan
        return plan.answer(plan.requests[number])

    async def main(self) -> None:
        world, plan = self._world, self._world.plan
        began = trio.lowlevel.current_statistics().tasks_living
        hosts: dict[str, Kind] = {f"10.0.0.{index + 1}": kind for index, kind in enumerate(plan.kinds)}
        world.upstreams = upstreams = Upstreams(hosts, self._next_answer, self.log)
        app = self._app = SimulatedApplication(settings_of(plan), plugins={}, on_end=self._note_end)
        app.generations.current.deployments.router.draw = plan.random.random
        limits = server_settings(app.generations.current.settings.pipeline)
        shutdown, hard_stop, ended = trio.Event(), trio.Event(), trio.Event()

        async with trio.open_nursery() as peers:
            network = Network(
                peers,
                on_connect=lambda host, end: peers.start_soon(upstreams.serve, host, end),
                connecting=plan.connecting,
                connect_delay_s=plan.connect_delay_s,
                pipe_bytes=plan.pipe_bytes,
                on_received=self._note_received,
                on_sent=self._note_sent,
            )

            async def run_server(task_status: trio.TaskStatus[list[str]]) -> None:
                await serve(
                    app,
                    hypercorn_config(limits),
                    [network.listener],
                    limits,
                    make_refusal=refusal,
                    shutdown=shutdown,
                    hard_stop=hard_stop,
                    on_shutdown=app.generations.drain,
                    on_drain_deadline=app.generations.cut_off,
                    task_status=task_status,
                )
                ended.set()

            async def operate() -> None:
                await trio.sleep(plan.operation_s)
                world.operated_at = trio.current_time()
                self.log("operator", plan.operation)
                shutdown.set()
                if plan.operation == "cuts off":
                    app.generations.cut_off()
                elif plan.operation == "stops hard":
                    hard_stop.set()

            with network:
                await peers.start(run_server)
                world.clients = [Client(one, network, self.log) for one in plan.clients]
                with trio.move_on_after(LONGEST_S) as scope:
                    async with trio.open_nursery() as clients:
                        for client in world.clients:
                            clients.start_soon(client.run)
                        if plan.operation != "none":
                            clients.start_soon(operate)
                if scope.cancelled_caught:
                    world.rest.append(f"I5: a client was still busy after {LONGEST_S:g} s")
                await trio.sleep(SETTLE_S)
                self._inspect(network)
                shutdown.set()
                with trio.move_on_after(2 * GRACEFUL_S + 10) as scope:
                    await ended.wait()
                if scope.cancelled_caught:
                    world.rest.append("I1: the server did not end")
                    peers.cancel_scope.cancel()
                    return
                if left := len(network.open_to_clients) + len(network.open_to_upstreams):
                    world.rest.append(f"I1: {left} sockets are open after the end of the server")
                world.seconds = trio.current_time()
                await trio.sleep(LONGEST_GAP_S + SETTLE_S)  # an upstream may be in a gap of its answer
            await trio.testing.wait_all_tasks_blocked()
            left = trio.lowlevel.current_statistics().tasks_living - began - alarm.tasks_living()
            if left > 0:
                world.rest.append(f"I1: {left} tasks are left: {_task_names()}")
            peers.cancel_scope.cancel()
        self.log("end")
        world.digest = self._trace.hexdigest()

    def _inspect(self, network: Network) -> None:
        """Note what is not at rest although no client is left."""
        app, rest = self._app, self._world.rest
        assert app is not None
        generation = app.generations.current
        clients = generation.clients
        if clients.active_connections:
            rest.append(f"I1: {clients.active_connections} connections to upstreams are in use")
        if (open_ends := len(network.open_to_upstreams)) != clients.idle_connections:
            rest.append(f"I1: {open_ends} sockets to upstreams, but {clients.idle_connections} idle connections")
        for transport in clients._transports.values():
            slots = transport._pool._slots  # type: ignore[union-attr]  # it is our own
            if slots is not None and slots.value != self._world.plan.max_upstream_connections:
                rest.append(f"I1: {slots.value} of {self._world.plan.max_upstream_connections} slots are free")
        if network.open_to_clients:
            rest.append(f"I1: {len(network.open_to_clients)} sockets to clients are open")
        if generation.bridge.active:
            rest.append(f"I2: {len(generation.bridge.active)} requests are active")
        for id, health in generation.deployments.router.health.items():
            if health.in_flight:
                rest.append(f"I2: deployment {id} has {health.in_flight} requests in flight")
            if health._is_probed:
                rest.append(f"I2: deployment {id} is still being tried")
