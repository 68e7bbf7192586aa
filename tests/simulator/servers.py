"""The servers of a world, each as one worker process runs it, and the generations that each has had."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from simulator.changes import ReloadPlan
from simulator.configurations import Configuration
from simulator.network import Listener
from simulator.witness import Witness

from pipeline import RequestContext
from pipeline.gateway.app import Application
from pipeline.gateway.failures import refusal
from pipeline.gateway.generation import Generation
from pipeline.gateway.generations import ReloadRefusedError
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.request_record import FinishedRequest, RequestRecord, request_record
from pipeline.gateway.service import server_settings
from pipeline.registry import PluginError
from stages.admission.counts import Counts
from stages.principal import Principal


class SimulatedApplication(Application):
    """The application without its pages, of which a world needs none, and which take longer than all the rest."""

    def _make_pages(self) -> Any:
        return None


@dataclass
class Record:
    """A request's record.

    Attributes:
        at, step: when it came, in virtual time and in the course of the world.
        server: which one it is of.
    """

    record: RequestRecord
    at: float
    step: int
    server: Server


@dataclass(frozen=True)
class Switch:
    """How a generation became the current one.

    Attributes:
        configuration: what it serves.
        began, done: the steps between which that happened.
        at: when it was done.
    """

    configuration: Configuration
    began: int
    done: int
    at: float


class _Up(trio.TaskStatus[list[str]]):
    """Sets an event when the application is up."""

    def __init__(self, up: trio.Event) -> None:
        self._up = up

    def started(self, value: list[str] | None = None) -> None:
        self._up.set()


@dataclass
class Turns:
    """The requests of a generation that have asked for a turn, and those that have got one, in their order."""

    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)


@dataclass
class Course:
    """The course of a world.

    Attributes:
        step: how many events there were so far.
        note: is told each of them.
        waiting: the requests that wait for their turn.
    """

    note: Callable[..., None]
    step: int = 0
    waiting: set[str] = field(default_factory=set)

    def log(self, *what: object) -> int:
        """Note an event, and return its step."""
        self.step += 1
        self.note(*what)
        return self.step


class Server:
    """One server.

    Args:
        number: of the server; the first of a world has 0.
        configuration: what it begins with.
        course: of the world.
        rest: where is written what is wrong.
        on_record: called with each record.
        counts: where limits are counted; None if there are none.

    Attributes:
        app: the application.
        limits: of its connections and of its end.
        switches: the generations that were the current one, by number.
        witnesses: the added stage of each configuration that was read.
        witnessed: for each request, the numbers of the configurations whose stage has worked for it.
        turns: who has asked for a turn in each generation, and got it.
        up: set when it serves.
        retire, retired_at: of its replacement by another one.
        shutdown, hard_stop, ended: of the process.
    """

    def __init__(
        self,
        number: int,
        configuration: Configuration,
        course: Course,
        rest: list[str],
        on_record: Callable[[Record], object],
        counts: Counts | None,
    ) -> None:
        self.number = number
        self._course = course
        self._rest = rest
        self._on_record = on_record
        self.up, self.retire = trio.Event(), trio.Event()
        self.shutdown, self.hard_stop, self.ended = trio.Event(), trio.Event(), trio.Event()
        self.retired_at = math.inf
        self.witnesses: list[Witness] = []
        self.witnessed: dict[str, set[int]] = {}
        plugins = self._witness(configuration).plugins
        self.app = SimulatedApplication(configuration.settings(), plugins=plugins, on_end=self._note_end, counts=counts)
        self.limits = server_settings(self.app.generations.current.settings.pipeline)
        self.turns: dict[int, Turns] = {}
        self._watch_turns(self.app.generations.current)
        began = course.log("server", number, configuration.number)
        self.switches: dict[int, Switch] = {1: Switch(configuration, began, began, trio.current_time())}

    async def run(self, listener: Listener) -> None:
        """Serve until the operator ends it."""
        generations = self.app.generations
        limits = self.limits
        await serve(
            self.app,
            hypercorn_config(limits),
            [listener],
            limits,
            make_refusal=refusal,
            answers=self.app.answers,
            shed=self.app.shed,
            shutdown=self.shutdown,
            hard_stop=self.hard_stop,
            retire=self.retire,
            on_shutdown=generations.drain,
            on_drain_deadline=generations.cut_off,
            task_status=_Up(self.up),
        )
        self.up.set()  # it may have been ended before
        self.ended.set()

    def replace(self) -> None:
        """Let it end: another one serves."""
        self.retired_at = trio.current_time()
        self._course.log("replaced", self.number)
        self.retire.set()

    async def reload(self, plan: ReloadPlan) -> None:
        """Read a configuration."""
        await self.up.wait()
        if self.retire.is_set() or self.ended.is_set():
            return
        configuration, generations = plan.configuration, self.app.generations
        name = f"configuration {configuration.number}"
        settings = configuration.settings()
        witness = self._witness(configuration, plan.opens_s, fails=plan.outcome == "fails to open")
        began = self._course.log("reload", self.number, configuration.number, plan.outcome)
        try:
            await generations.reload(settings, witness.plugins)
        except ReloadRefusedError:
            self._course.log("reload refused", self.number, configuration.number)
            if not (self.shutdown.is_set() or self.retire.is_set()):
                self._rest.append(f"I9: {name} was refused although its server does not stop")
        except PluginError as error:
            self._course.log("reload failed", self.number, configuration.number)
            if plan.outcome == "works":
                self._rest.append(f"I9: {name} could not be loaded: {error}")
            if generations.current.settings is settings:
                self._rest.append(f"I9: {name} is the current one although it could not be loaded")
        else:
            current = generations.current
            done = self._course.log("reloaded", self.number, configuration.number, current.number)
            if plan.outcome != "works":
                self._rest.append(f"I9: {name} was loaded although it {plan.outcome}")
            elif current.settings is not settings or current.number in self.switches:
                self._rest.append(f"I9: {name} is not the current one after it was loaded")
            else:
                self._watch_turns(current)
                self.switches[current.number] = Switch(configuration, began, done, trio.current_time())

    def inspect(self) -> None:
        """Note what is not at rest although no client is left."""
        rest, generations, name = self._rest, self.app.generations, f"of server {self.number}"
        if self.retire.is_set() and not self.ended.is_set():
            rest.append(f"I11: server {self.number} was replaced, but has not ended")
        if len(generations.living) != 1:
            rest.append(f"I9: {len(generations.living)} generations {name} live")
        for generation in generations.living:
            admission = generation.parts.admission
            if admission is not None and admission.turns is not None and admission.turns.waiting:
                rest.append(f"I10: {admission.turns.waiting} requests {name} wait for their turn")
            if generation.bridge.active:
                rest.append(f"I2: {len(generation.bridge.active)} requests {name} are active")
            for id, health in generation.deployments.router.health.items():
                if health.in_flight:
                    rest.append(f"I2: deployment {id} {name} has {health.in_flight} requests in flight")
                if health._is_probed:
                    rest.append(f"I2: deployment {id} {name} is still being tried")
        clients, limit = generations.current.clients, generations.current.settings.pipeline.upstream_max_connections
        if clients.active_connections:
            rest.append(f"I1: {clients.active_connections} connections {name} to upstreams are in use")
        for transport in clients._transports.values():
            slots = transport._pool._slots  # type: ignore[union-attr]  # it is our own
            if slots is not None and slots.value != limit:
                rest.append(f"I1: {slots.value} of {limit} slots {name} are free")
        current = generations.current.number
        if current not in self.switches or current != max(self.switches):
            rest.append(f"I9: generation {current} {name} is the current one, but {max(self.switches)} was loaded last")
        wanted = int(self.switches[max(self.switches)].configuration.stage is not None)
        open_now = sum(witness.is_open for witness in self.witnesses)
        if not self.ended.is_set() and open_now != wanted:
            rest.append(f"I9: {open_now} added stages {name} are open, and not {wanted}")

    def inspect_end(self) -> None:
        """Note what is left of it after its end."""
        if any(witness.is_open for witness in self.witnesses):
            self._rest.append(f"I9: an added stage of server {self.number} is open after its end")
        for generation in self.app.generations.living:
            if open_now := generation.clients.idle_connections + generation.clients.active_connections:
                self._rest.append(f"I1: {open_now} connections of server {self.number} are open after its end")

    @property
    def idle_connections(self) -> int:
        """How many connections to upstreams it keeps."""
        return sum({id(one.clients): one.clients.idle_connections for one in self.app.generations.living}.values())

    def _witness(self, configuration: Configuration, opens_s: float = 0.0, *, fails: bool = False) -> Witness:
        def note(request_id: str) -> None:
            self.witnessed.setdefault(request_id, set()).add(configuration.number)
            if not witness.is_open:
                self._rest.append(f"I9: the stage of configuration {configuration.number} works but is closed")

        witness = Witness(opens_s, fails=fails, on_event=note)
        self.witnesses.append(witness)
        return witness

    def _watch_turns(self, generation: Generation) -> None:
        admission = generation.parts.admission
        if admission is None or admission.turns is None:
            return
        begin, turns = admission.begin, Turns()
        self.turns[generation.number] = turns

        async def begin_in_turn(principal: Principal, ctx: RequestContext) -> None:
            waiting = self._course.waiting
            before = sorted(waiting)
            waiting.add(ctx.request_id)
            turns.asked.append(ctx.request_id)
            try:
                await begin(principal, ctx)
            finally:
                waiting.discard(ctx.request_id)
            turns.given.append(ctx.request_id)
            if before and "admitted" not in ctx.timeline.points:
                self._rest.append(f"I10: {ctx.request_id} did not wait for its turn although {before} waited")

        admission.begin = begin_in_turn  # type: ignore[method-assign]  # it is watched, and does the same

    def _note_end(self, finished: Callable[[], FinishedRequest]) -> None:
        record = request_record(finished())
        step = self._course.log(
            "record", record.request_id, record.end, record.status, record.error, self.number, record.generation
        )
        self._on_record(Record(record, trio.current_time(), step, self))
        if record.generation not in {one.number for one in self.app.generations.living}:
            self._rest.append(f"I9: {record.request_id} ended after its generation, {record.generation}")
