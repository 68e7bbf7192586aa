"""A request is ended at every step of the scheduler, in every way, and nothing is left behind.

Each case is one run in virtual time: the same request again and again, ended one step later each time, until it is over
before that. After each of them no request is active, no deployment has one in flight, all slots are free, and no socket
is open but those of idle connections. The network, the server and the transport are those of the simulated worlds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

import pytest
import trio
import trio.testing
from kit.service.running import KEY
from kit.time.cancel_at import CancelAt
from simulator.clients import Client, request_bytes
from simulator.network import Connecting, End, Network
from simulator.plans import AnswerPlan, ClientPlan, Kind, RequestPlan
from simulator.upstreams import Upstreams
from simulator.world import SimulatedApplication, deployment, deterministic

from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.failures import refusal
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.service import server_settings
from stages.routing.settings import RoutingSettings
from stages.upstreams.transport.transport import HeadraceTransport

Way = Literal["the client closes", "the request is cancelled"]
Case = Literal["a fresh connection", "a slow connection", "a kept connection", "a stale connection", "a fallback"]

HOST: Final = "10.0.0.1"
SECOND: Final = "10.0.0.2"
REST_S: Final = 0.1
"""Longer than idle connections are kept where a fresh one is wanted."""
MOST_STEPS: Final = 2000
PIPE_BYTES: Final = 16 * 1024


class AtStep(trio.abc.Instrument):
    """Calls a function once, before the given step of all tasks together."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self._step = step
        self._act = act
        self.has_hit = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step -= 1
        if self._step == 0:
            self.has_hit = True
            self._act()


class Simulated:
    """A network with two upstream hosts of one kind; each answers as the case says."""

    def __init__(self, nursery: trio.Nursery, kind: Kind, case: Case) -> None:
        self._case = case
        self._answers = 0
        self.upstreams = Upstreams({HOST: kind, SECOND: kind}, self._next_answer, lambda *_: None)
        connecting: Connecting = "slow" if case == "a slow connection" else "ok"

        def serve_upstream(host: str, end: End) -> None:
            nursery.start_soon(self.upstreams.serve, host, end)

        self.network = Network(
            nursery,
            on_connect=serve_upstream,
            connecting=lambda host: connecting,
            connect_delay_s=lambda: 0.001,
            pipe_bytes=lambda: PIPE_BYTES,
        )

    @property
    def idle_expiry_s(self) -> float:
        return 10.0 if self._case in ("a kept connection", "a stale connection") else REST_S / 2

    def begin(self) -> None:
        """Let the upstreams answer from the start again."""
        self._answers = 0

    def _next_answer(self, number: int) -> AnswerPlan:
        self._answers += 1
        fails = self._case == "a fallback" and self._answers == 1
        return AnswerPlan(
            ["one", "two"], "status 500" if fails else "none", then_closes=self._case == "a stale connection"
        )


async def end_at_every_step(kind: Kind, way: Way, case: Case, *, is_stream: bool) -> int:
    """Serve a request and end it, one step later each time; return how many steps there were."""
    async with trio.open_nursery() as nursery:
        here = Simulated(nursery, kind, case)
        network = here.network
        settings = Settings(
            deployments=(
                deployment("a", "first", kind, HOST, 1),
                deployment("b", "second", kind, SECOND, 1),
            ),
            master_key=KEY,
            routing=RoutingSettings(num_retries=0, fallbacks={"first": ("second",)}, has_cooldowns=False),
            pipeline=PipelineSettings(upstream_idle_expiry_s=here.idle_expiry_s, upstream_max_connections=1),
        )
        app = SimulatedApplication(settings, plugins={}, on_end=lambda finished: finished())
        generation = app.generations.current
        limits = server_settings(settings.pipeline)
        shutdown = trio.Event()

        async def run_server(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(
                app,
                hypercorn_config(limits),
                [network.listener],
                limits,
                make_refusal=refusal,
                shutdown=shutdown,
                task_status=task_status,
            )

        with network:
            await nursery.start(run_server)
            step = 0
            while step < MOST_STEPS:
                step += 1
                here.begin()
                plan = RequestPlan(0, "first", is_stream, False, 0, False)
                client = Client(ClientPlan(0, 0.0, [plan], "reads well", 0.0), network, lambda *_: None)

                def end_requests() -> None:
                    for request in generation.bridge.active:
                        request.cut_off()

                with trio.CancelScope() as scope:
                    ending = AtStep(step, scope.cancel if way == "the client closes" else end_requests)
                    trio.lowlevel.add_instrument(ending)
                    await client.run()
                trio.lowlevel.remove_instrument(ending)
                await trio.sleep(REST_S)
                found = (
                    len(generation.bridge.active),
                    {health.in_flight for health in generation.deployments.router.health.values()},
                    generation.clients.active_connections,
                    {transport._pool._slots.value for transport in generation.clients._transports.values()},  # type: ignore[union-attr]
                    len(network.open_to_clients),
                    len(network.open_to_upstreams) - generation.clients.idle_connections,
                )
                slots = {1} if generation.clients._transports else set[int]()
                assert found == (0, {0}, 0, slots, 0, 0), f"after step {step}"
                if way == "the request is cancelled" or not ending.has_hit:
                    [received] = client.received
                    assert received.is_complete, f"after step {step}"
                if not ending.has_hit:
                    break
            shutdown.set()
            network.listener.close()
    assert not ending.has_hit, "the request never ends"
    return step


def run(kind: Kind, way: Way, case: Case, *, is_stream: bool) -> int:
    async def main() -> int:
        return await end_at_every_step(kind, way, case, is_stream=is_stream)

    with deterministic(0):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_row_60_a_request_that_is_ended_at_any_step_leaves_nothing(kind: Kind, is_stream: bool, way: Way) -> None:
    """A request is ended at each step of the scheduler, by its client or by a restart: nothing is left behind."""
    assert run(kind, way, "a fresh connection", is_stream=is_stream) > 10


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("case", get_args(Case)[1:])
def test_row_60_an_attempt_that_is_ended_at_any_step_leaves_nothing(case: Case, way: Way) -> None:
    """A request is ended at each step of a slow connect, a reused connection, its repetition or a fallback."""
    assert run("chat", way, case, is_stream=True) > 10


@pytest.mark.parametrize("is_after", [False, True], ids=["before the step", "after the step"])
@pytest.mark.parametrize("padding_bytes", [0, 4 * PIPE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("case", get_args(Case)[:-1])
async def test_row_60_an_exchange_that_is_cancelled_at_any_step_leaves_nothing(
    case: Case, padding_bytes: int, is_after: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """An exchange with an upstream is cancelled at each step of its task: its slot is free and its socket is closed."""
    plan = RequestPlan(0, "first", True, False, padding_bytes, False)
    data = b"".join(request_bytes(plan, "reads well"))
    async with trio.open_nursery() as nursery:
        here = Simulated(nursery, "chat", case)
        transport = HeadraceTransport(max_connections=1, idle_expiry_s=here.idle_expiry_s)
        slots = transport._pool._slots
        assert slots is not None

        async def ask() -> bool:
            """Ask once; return whether the answer was read to its end."""
            exchange = await transport.exchange(("http", HOST, 80), "POST", data, {"read": 5, "connect": 5})
            try:
                while await exchange.receive(5):
                    pass
                return True
            finally:
                await exchange.aclose()

        with here.network:
            step, is_whole = 0, False
            while not is_whole and step < MOST_STEPS:
                step += 1
                if case in ("a kept connection", "a stale connection"):
                    await ask()  # so that there is one
                with trio.CancelScope() as scope:
                    cancel = CancelAt(trio.lowlevel.current_task(), scope, step, after=is_after)
                    trio.lowlevel.add_instrument(cancel)
                    is_whole = await ask() and not cancel.has_hit
                trio.lowlevel.remove_instrument(cancel)
                await trio.sleep(REST_S)
                left = len(here.network.open_to_upstreams) - transport.idle_connections
                assert (transport.active_connections, slots.value, left) == (0, 1, 0), f"after step {step}"
            assert is_whole
            await transport.aclose()
