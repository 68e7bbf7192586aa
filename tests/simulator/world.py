"""One world: the gateway on a simulated network and a virtual clock, scheduled by its seed."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
import trio.testing
from simulator.changes import ReloadPlan
from simulator.clients import Client
from simulator.configurations import GRACEFUL_S
from simulator.network import Link, Network
from simulator.plans import LONGEST_GAP_S, AnswerPlan, WorldPlan
from simulator.servers import Course, Record, Server
from simulator.upstreams import Upstreams

from pipeline import alarm
from stages.admission.counts import Counts

LONGEST_S: Final = 300.0
"""No connection may be older, whatever its client and its upstream do."""
SETTLE_S: Final = 0.2
"""How long after the last client everything must have come to rest."""


@dataclass
class World:
    """What happened.

    Attributes:
        plan: what was drawn.
        servers: those that have served, the first one first.
        first_steps: for each request, the step at which something first happened to it, by what happened.
        asked_at: for each request, when its client began to send it.
        records: for each request id, its records.
        peaks: for each request, the most bytes of its answer that we had read and not yet sent on.
        busy: each time that an upstream was asked, the requests that upstreams were answering then, and their hosts;
            only in worlds with limits.
        rest: what was found wrong when everything had come to rest.
        errors: what our code has logged as an error.
        seconds: how long it took, in virtual time.
        digest: the same for the same course of events.
    """

    plan: WorldPlan
    clients: list[Client] = field(default_factory=list)
    upstreams: Upstreams | None = None
    servers: list[Server] = field(default_factory=list)
    first_steps: dict[tuple[str, int], int] = field(default_factory=dict)
    asked_at: dict[int, float] = field(default_factory=dict)
    records: defaultdict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    peaks: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    busy: list[set[tuple[int, str]]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    digest: str = ""
    operated_at: float | None = None


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
        self._course = Course(self._note)
        self._read: defaultdict[int, int] = defaultdict(int)
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._network: Network | None = None
        self._replacing = trio.Lock()
        changes = world.plan.changes
        self._configuration = changes.first
        has_limits = any(one.has_limits for one in changes.configurations)
        self._counts = Counts(clock=trio.current_time) if has_limits else None

    def _note(self, *what: object) -> None:
        self._trace.update(f"{trio.current_time():.6f} {what}\n".encode())

    def _log_of_request(self, what: str, who: object, number: int) -> None:
        step = self._course.log(what, who, number)
        self._world.first_steps.setdefault((what, number), step)
        if what == "upstream asked" and self._counts is not None:
            self._note_busy()
        if what == "client asks":
            self._world.asked_at[number] = trio.current_time()

    def _note_busy(self) -> None:
        """Note which requests upstreams are answering."""
        assert self._network is not None
        links = [end.link for end in self._network.open_to_upstreams]
        busy = {(one.request, one.host) for one in links if one.request is not None}
        self._world.busy.append({one for one in busy if f"r{one[0]}" not in self._world.records})

    def _note_record(self, record: Record) -> None:
        self._world.records[record.record.request_id].append(record)

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

    def _new_server(self) -> Server:
        """Make a server with what was configured last."""
        world, number = self._world, len(self._world.servers)
        server = Server(number, self._configuration, self._course, world.rest, self._note_record, self._counts)
        server.app.generations.current.deployments.router.draw = world.plan.random.random
        world.servers.append(server)
        return server

    async def _operate(self) -> None:
        world, plan = self._world, self._world.plan
        await trio.sleep(plan.operation_s)
        world.operated_at = trio.current_time()
        self._course.log("operator", plan.operation)
        for server in world.servers:
            server.shutdown.set()
            if plan.operation == "cuts off":
                server.app.generations.cut_off()
            elif plan.operation == "stops hard":
                server.hard_stop.set()

    async def _reload(self, plan: ReloadPlan) -> None:
        await trio.sleep(plan.at_s)
        if plan.outcome == "works":
            self._configuration = plan.configuration
        async with trio.open_nursery() as nursery:
            for server in self._world.servers:
                nursery.start_soon(server.reload, plan)

    async def _replace(self, at_s: float, peers: trio.Nursery) -> None:
        """Replace the server, as the supervisor does: the new one serves before the old one ends."""
        await trio.sleep(at_s)
        async with self._replacing:
            if self._world.operated_at is not None:
                return
            assert self._network is not None
            old, new = self._world.servers[-1], self._new_server()
            peers.start_soon(new.run, self._network.share_listener())
            await new.up.wait()
            old.replace()

    async def main(self) -> None:
        world, plan = self._world, self._world.plan
        began = trio.lowlevel.current_statistics().tasks_living
        log = self._course.log
        world.upstreams = upstreams = Upstreams(plan.changes.first.kinds, self._next_answer, self._log_of_request, log)
        server = self._new_server()

        async with trio.open_nursery() as peers:
            network = self._network = Network(
                peers,
                on_connect=lambda host, end: peers.start_soon(upstreams.serve, host, end),
                connecting=plan.connecting,
                connect_delay_s=plan.connect_delay_s,
                pipe_bytes=plan.pipe_bytes,
                on_received=self._note_received,
                on_sent=self._note_sent,
            )
            with network:
                peers.start_soon(server.run, network.listener)
                await server.up.wait()
                world.clients = [Client(one, network, self._log_of_request, log) for one in plan.clients]
                with trio.move_on_after(LONGEST_S) as scope:
                    async with trio.open_nursery() as clients:
                        for client in world.clients:
                            clients.start_soon(client.run)
                        if plan.operation != "none":
                            clients.start_soon(self._operate)
                        for reload in plan.changes.reloads:
                            clients.start_soon(self._reload, reload)
                        for at_s in plan.changes.restarts_s:
                            clients.start_soon(self._replace, at_s, peers)
                if scope.cancelled_caught:
                    world.rest.append(f"I5: a client was still busy after {LONGEST_S:g} s")
                await trio.sleep(SETTLE_S)
                self._inspect(network)
                for server in world.servers:
                    server.shutdown.set()
                with trio.move_on_after(2 * GRACEFUL_S + 10) as scope:
                    for server in world.servers:
                        await server.ended.wait()
                if scope.cancelled_caught:
                    world.rest.append("I1: the server did not end")
                    peers.cancel_scope.cancel()
                    return
                if left := len(network.open_to_clients) + len(network.open_to_upstreams):
                    world.rest.append(f"I1: {left} sockets are open after the end of the server")
                for server in world.servers:
                    server.inspect_end()
                world.seconds = trio.current_time()
                await trio.sleep(LONGEST_GAP_S + SETTLE_S)  # an upstream may be in a gap of its answer
            await trio.testing.wait_all_tasks_blocked()
            left = trio.lowlevel.current_statistics().tasks_living - began - alarm.tasks_living()
            if left > 0:
                world.rest.append(f"I1: {left} tasks are left: {_task_names()}")
            peers.cancel_scope.cancel()
        log("end")
        world.digest = self._trace.hexdigest()

    def _inspect(self, network: Network) -> None:
        """Note what is not at rest although no client is left."""
        world = self._world
        for server in world.servers:
            server.inspect()
        idle = sum(server.idle_connections for server in world.servers)
        if (open_ends := len(network.open_to_upstreams)) != idle:
            world.rest.append(f"I1: {open_ends} sockets to upstreams, but {idle} idle connections")
        if (counts := self._counts) is not None and (held := sum(map(counts.in_flight, range(counts._header[0])))):
            world.rest.append(f"I10: {held} places of what is limited were not given back")
        if network.open_to_clients:
            world.rest.append(f"I1: {len(network.open_to_clients)} sockets to clients are open")
