"""When deployments are asked in the background, and what their answers do to their health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from kit.service.contexts import deployment

from pipeline import ClientFault, Overloaded, UpstreamFault
from stages.routing.checks import HealthChecks
from stages.routing.health import Change
from stages.routing.router import Candidate, Router
from stages.routing.settings import RoutingSettings
from stages.upstreams import HealthCheck

DOWN = UpstreamFault("it is down", code="upstream_error", status_hint=500)
INTERVAL_S = 300.0


class Asked:
    """A process that asks its deployments in the background; each answers as ``answers`` says."""

    def __init__(self, *ids: str, draw: Callable[[], float] = lambda: 0.5, timeout_s: float = 60.0) -> None:
        self.changes: list[Change] = []
        self.times: list[tuple[str, float]] = []
        self.bugs: list[tuple[str, Exception]] = []
        self.answers: dict[str, Callable[[], Awaitable[None]]] = {}
        candidates = [Candidate(deployment("m", id=id), "m") for id in ids]
        settings = RoutingSettings(allowed_fails=0)
        self.router = Router(settings, [one.deployment for one in candidates], on_change=self.changes.append)
        self.checks = HealthChecks(
            self.router,
            [(one, HealthCheck(model="m", timeout_s=timeout_s)) for one in candidates],
            self.ask,
            on_bug=lambda one, error: self.bugs.append((one.deployment.id, error)),
            interval_s=INTERVAL_S,
            draw=draw,
        )

    async def ask(self, candidate: Candidate) -> None:
        self.times.append((candidate.deployment.id, trio.current_time()))
        if (answer := self.answers.get(candidate.deployment.id)) is not None:
            await answer()

    async def during(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.checks.run()


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def answer() -> None:
        raise error

    return answer


async def test_each_is_asked_once_per_interval_spread_over_it(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked("a", "b", "c")
    await asked.during(2 * INTERVAL_S)
    assert asked.times == [("a", 50), ("b", 150), ("c", 250), ("a", 350), ("b", 450), ("c", 550)]


@pytest.mark.parametrize(("draw", "times"), [(0.0, [0, 270, 540, 810]), (0.9, [270, 594, 918])])
async def test_workers_begin_at_different_times_and_their_pauses_differ(
    draw: float, times: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    asked = Asked("a", draw=lambda: draw)
    await asked.during(920)
    assert [at for _, at in asked.times] == pytest.approx(times)


async def test_a_success_ends_an_ejection_and_is_not_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked("a")
    health = asked.router.health["a"]
    health.failed(0.0, "rate_limit", 60.0)
    health.failed(149.0, "rate_limit", 60.0)
    assert not health.is_ready(149.5)
    await asked.during(INTERVAL_S)
    assert (health.is_ready(150.0), health.in_flight, health.latency_s) == (True, 0, None)
    assert asked.changes == [Change("a", 150.0)]


async def test_a_failure_counts_as_one_with_its_kind(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked("a", "b")
    asked.answers["a"] = raising(UpstreamFault("no", code="upstream_unauthorized", status_hint=401))
    await asked.during(INTERVAL_S)
    assert asked.changes == [Change("a", 75.0, "upstream_unauthorized", 5.0, 1)]
    assert asked.router.health["a"].last_minute(76.0) == {"auth": 1}
    assert asked.router.health["b"].state(250.0) == "healthy"


async def test_one_that_does_not_answer_in_time_has_timed_out(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked("a", timeout_s=20)
    asked.answers["a"] = trio.sleep_forever
    await asked.during(INTERVAL_S)
    assert asked.changes == [Change("a", 170.0, "upstream_timeout", 5.0, 1)]


async def test_one_that_is_being_asked_is_not_asked_again_and_does_not_hold_up_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = Asked("a", "b", timeout_s=1000)
    asked.answers["a"] = trio.sleep_forever
    await asked.during(2 * INTERVAL_S)
    assert [id for id, _ in asked.times] == ["a", "b", "b"]


async def test_what_says_nothing_about_the_deployment_is_not_held_against_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = Asked("a", "b", "c")
    bugs = {"a": ClientFault("it has no form there"), "c": RuntimeError("a bug")}
    asked.answers = {id: raising(error) for id, error in {**bugs, "b": Overloaded("full")}.items()}
    await asked.during(3 * INTERVAL_S)
    assert len(asked.times) == 9
    assert asked.bugs == list(bugs.items())
    assert {health.state(0.0) for health in asked.router.health.values()} == {"unknown"}


async def test_a_server_that_has_chat_only_is_asked_by_chat_and_that_is_remembered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    up = deployment("m", id="a", kind="responses", on_chat=deployment("m", id="a", kind="chat"))
    router = Router(RoutingSettings(allowed_fails=0), [up])
    asked: list[str] = []

    async def ask(candidate: Candidate) -> None:
        asked.append(candidate.deployment.kind)
        if candidate.deployment.kind == "responses":
            raise UpstreamFault("upstream answered 404: Not Found", code="upstream_not_found", status_hint=404)

    one = (Candidate(up, "m"), HealthCheck(model="m"))
    checks = HealthChecks(router, [one], ask, on_bug=lambda one, error: None, interval_s=10.0, draw=lambda: 0.5)
    with trio.move_on_after(31):
        await checks.run()
    assert asked == ["responses", "chat", "chat", "chat"]
    assert (router.health["a"].state(31.0), router.asked_by_chat) == ("healthy", {"a"})
