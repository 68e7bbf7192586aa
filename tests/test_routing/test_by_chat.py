"""A deployment whose server may have no ``/responses``: asked by chat at once, and from then on."""

from __future__ import annotations

import math

import pytest
from kit.service.contexts import deployment
from msgspec.structs import replace

from pipeline import Overloaded, PipelineError, UpstreamFault
from stages.routing.router import Candidate, Route, Router
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment

UNKNOWN = UpstreamFault("upstream answered 404: Not Found", code="upstream_not_found", status_hint=404)
NO_MODEL = UpstreamFault("upstream answered 404: no such model", code="upstream_not_found", status_hint=404)
REFUSED = UpstreamFault("upstream answered 400: no", code="upstream_rejected", status_hint=400)
LIMITED = UpstreamFault("upstream answered 429: no", code="upstream_rate_limited", status_hint=429)
DOWN = UpstreamFault("upstream answered 503: no", code="upstream_error", status_hint=503)
UNREACHED = UpstreamFault("it cannot be reached", code="upstream_unreachable")


def unsure(id: str, model: str = "m") -> Deployment:
    """Return a deployment that may be asked by both APIs."""
    by_responses = deployment("m", model, id=id)
    return replace(by_responses, on_chat=replace(by_responses, kind="chat", url="http://up/v1/chat/completions"))


class World:
    def __init__(self, *ids: str, num_retries: int = 0) -> None:
        self.candidates = [Candidate(unsure(id), "m") for id in ids]
        self.router = Router(RoutingSettings(num_retries=num_retries), [one.deployment for one in self.candidates])
        self.learned: list[str] = []
        self.router.on_chat_only = lambda deployment: self.learned.append(deployment.id)

    def route(self) -> Route:
        return Route(self.router, "m", self.candidates, lambda: "c", lambda name: None)

    def asked(self, *faults: PipelineError, answers: bool = True) -> list[str]:
        """Return by what each attempt asks whom, if these failures happen and then it is answered."""
        route = self.route()
        candidate = route.begin(0.0)
        steps = [f"{candidate.deployment.id} {candidate.deployment.kind}"]
        for fault in faults:
            if (again := route.failed(fault, 0.0, deadline_s=math.inf)) is None:
                steps.append(route.told(fault).public)
                break
            assert again.candidate is route.candidate
            steps.append(f"{again.candidate.deployment.id} {again.candidate.deployment.kind}")
        else:
            if answers:
                route.answered(0.0)
        route.end()
        assert all(health.in_flight == 0 for health in self.router.health.values())
        return steps


def test_it_is_asked_by_chat_at_once_and_from_then_on() -> None:
    world = World("a")
    assert world.asked(UNKNOWN) == ["a responses", "a chat"]
    assert world.asked() == ["a chat"]
    assert world.learned == ["a"]


def test_it_is_neither_a_repetition_nor_charged_nor_held_against_it() -> None:
    world = World("a")
    route = world.route()
    route.begin(0.0)
    again = route.failed(UNKNOWN, 0.0, deadline_s=0.1)
    assert again is not None
    assert (again.reason, again.pause_s) == ("by_chat", 0.0)
    health = world.router.health["a"]
    assert health.is_ready(0.0)
    assert health.ejections == 0
    assert world.router.budget.take(0.0), "the one of this second is still there"


def test_each_deployment_is_found_out_by_itself() -> None:
    world = World("a", "b")
    first = world.asked(UNKNOWN)[0][0]
    other = "b" if first == "a" else "a"
    assert world.asked(DOWN, UNKNOWN) == [f"{first} chat", f"{other} responses", f"{other} chat"]
    assert world.learned == [first, other]


def test_the_wildcards_model_is_kept() -> None:
    world = World("a")
    world.candidates = [Candidate(unsure("a", "*"), "qwen")]
    route = world.route()
    route.begin(0.0)
    again = route.failed(UNKNOWN, 0.0, deadline_s=math.inf)
    assert again is not None
    assert again.candidate.model == "qwen"


@pytest.mark.parametrize("fault", [REFUSED, LIMITED, UpstreamFault("upstream answered 500: no", status_hint=500)])
def test_a_failure_that_shows_that_chat_is_known_is_remembered(fault: PipelineError) -> None:
    world = World("a")
    assert world.asked(UNKNOWN, fault) == ["a responses", "a chat", fault.public]
    assert world.learned == ["a"]


@pytest.mark.parametrize("fault", [NO_MODEL, DOWN, UNREACHED, Overloaded("full")])
def test_a_failure_that_shows_nothing_is_not_remembered(fault: PipelineError) -> None:
    world = World("a")
    assert world.asked(UNKNOWN, fault) == ["a responses", "a chat", fault.public]
    assert world.learned == []


def test_if_both_are_unknown_the_first_error_is_told_with_what_was_tried() -> None:
    world = World("a")
    other = UpstreamFault("upstream answered 405: no", code="upstream_rejected", status_hint=405)
    told = "upstream answered 404: Not Found; /responses was tried, then /chat/completions: check api_base"
    assert world.asked(UNKNOWN, other) == ["a responses", "a chat", told]
    assert world.learned == []


def test_a_failure_by_chat_moves_to_the_next_deployment() -> None:
    world = World("a", "b")
    steps = world.asked(UNKNOWN, DOWN, UNKNOWN)
    first, other = ("a", "b") if steps[0].startswith("a") else ("b", "a")
    assert steps == [f"{first} responses", f"{first} chat", f"{other} responses", f"{other} chat"]
    assert world.learned == [other]


def test_a_repetition_in_the_same_request_is_by_chat_too() -> None:
    world = World("a", num_retries=1)
    assert world.asked(UNKNOWN, DOWN) == ["a responses", "a chat", "a chat"]


def test_a_missing_model_is_told_without_asking_by_chat() -> None:
    world = World("a")
    assert world.asked(NO_MODEL) == ["a responses", NO_MODEL.public]
    assert world.learned == []


def test_what_plugins_choose_is_asked_by_chat_once_that_is_known() -> None:
    world = World("a")
    world.asked(UNKNOWN)
    inner = world.route().from_candidate(world.candidates[0], 0.0)
    assert inner.candidate is not None
    assert inner.candidate.deployment.kind == "chat"
    inner.end()
