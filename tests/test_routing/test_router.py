"""One request's way: whom it asks, whom next, and when it gives up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from kit.service.contexts import deployment

from pipeline import ClientFault, Overloaded, PipelineError, UpstreamFault
from stages.routing.router import MAX_STICKY, Candidate, Route, Router
from stages.routing.settings import RoutingSettings

DOWN = UpstreamFault("it is down", code="upstream_error", status_hint=500)
LIMITED = UpstreamFault("slow down", code="upstream_rate_limited", status_hint=429, retry_after_s=3.0)
REFUSED = UpstreamFault("no", code="upstream_rejected", status_hint=400)
NO_KEY = UpstreamFault("no", code="upstream_unauthorized", status_hint=401)
TOO_LONG = UpstreamFault("too long", code="context_length_exceeded", status_hint=400)

Groups = dict[str, list[Candidate]]


def group(name: str, *ids: str, **fields: Any) -> list[Candidate]:
    return [Candidate(deployment(name, id=id, **fields), name) for id in ids]


class Routed:
    """A process with its deployments."""

    def __init__(self, groups: Groups, draw: Callable[[], float] = lambda: 1.0, **settings: Any) -> None:
        self.groups = groups
        everything = [one.deployment for candidates in groups.values() for one in candidates]
        self.router = Router(RoutingSettings(**settings), everything, draw=draw)

    def route(self, name: str = "m", conversation: str = "c") -> Route:
        return Route(self.router, name, self.groups[name], conversation, self.groups.get)

    def outcome(self, *faults: PipelineError, now_s: float = 0.0, conversation: str = "c") -> list[str]:
        """Return who is asked, with pauses, if one failure after the other happens."""
        route = self.route(conversation=conversation)
        steps = [route.begin(now_s).deployment.id]
        for fault in faults:
            again = route.failed(fault, now_s, deadline_s=math.inf)
            if again is None:
                steps.append("given up")
                break
            now_s += again.pause_s
            steps.append(f"{again.reason} {again.candidate.deployment.id} {again.pause_s:g}")
        route.end()
        return steps


def test_a_conversation_has_a_deployment_of_its_own() -> None:
    world = Routed({"m": group("m", "a", "b")})
    firsts = {name: world.outcome(conversation=name)[0] for name in map(str, range(100))}
    assert {world.outcome(conversation="7")[0] for _ in range(10)} == {firsts["7"]}
    assert set(firsts.values()) == {"a", "b"}


def test_the_next_one_is_asked_at_once_and_then_there_are_pauses() -> None:
    world = Routed({"m": group("m", "a", "b")})
    first, *others = world.outcome(DOWN, DOWN, DOWN, DOWN)
    other = "b" if first == "a" else "a"
    assert others == [f"moved {other} 0", f"repeated {first} 0.5", f"repeated {first} 1", "given up"]


def test_one_that_is_left_out_is_asked_if_all_others_have_failed() -> None:
    first, *_ = Routed({"m": group("m", "a", "b")}).outcome()
    other = "b" if first == "a" else "a"
    for fault in (DOWN, LIMITED, NO_KEY):
        world = Routed({"m": group("m", "a", "b")}, num_retries=0)
        world.router.health[first].failed(0.0, "rate_limit")
        assert world.outcome(fault, fault) == [other, f"moved {first} 0", "given up"]
    world = Routed({"m": group("m", "a", "b"), "n": group("n", "c")}, fallbacks={"m": ("n",)}, num_retries=0)
    world.router.health[first].failed(0.0, "rate_limit")
    assert world.outcome(DOWN) == [other, "fallback c 0"]


def test_the_retry_after_of_one_does_not_keep_the_other_waiting() -> None:
    later = UpstreamFault("slow down", code="upstream_rate_limited", retry_after_s=3600)
    first, *others = Routed({"m": group("m", "a", "b")}).outcome(DOWN, later)
    assert others[1] == f"repeated {first} 0.5"


def test_to_ask_what_is_left_out_is_charged() -> None:
    world = Routed({"m": group("m", "a", "b")}, num_retries=0)
    for id in "ab":
        world.router.health[id].failed(0.0, "rate_limit")
    asked = [len(world.outcome(DOWN, DOWN)) for _ in range(20)]
    assert asked == [3] * 10 + [2] * 10


def test_one_that_is_alone_is_asked_num_retries_times_more() -> None:
    assert Routed({"m": group("m", "a")}).outcome(DOWN, DOWN, DOWN) == [
        "a", "repeated a 0.5", "repeated a 1", "given up"
    ]  # fmt: skip
    assert Routed({"m": group("m", "a")}, num_retries=0).outcome(DOWN) == ["a", "given up"]


def test_pauses_are_drawn_and_bounded() -> None:
    world = Routed({"m": group("m", "a")}, draw=lambda: 0.5, num_retries=8)
    pauses = [float(step.split()[-1]) for step in world.outcome(*[DOWN] * 8)[1:]]
    assert pauses == [0.25, 0.5, 1, 2, 4, 4, 4, 4]
    assert Routed({"m": group("m", "a")}, retry_after_s=2.0).outcome(DOWN)[1] == "repeated a 2"


def test_retry_after_is_honoured_within_the_deadline() -> None:
    world = Routed({"m": group("m", "a")})
    assert world.outcome(LIMITED) == ["a", "repeated a 3"]
    route = world.route()
    route.begin(100.0)
    assert route.failed(LIMITED, 100.0, deadline_s=102.9) is None
    later = UpstreamFault("slow down", code="upstream_rate_limited", retry_after_s=3600)
    assert Routed({"m": group("m", "a")}).outcome(later) == ["a", "given up"]


@pytest.mark.parametrize("fault", [REFUSED, TOO_LONG, ClientFault("no")])
def test_what_would_fail_everywhere_is_not_asked_again(fault: PipelineError) -> None:
    assert Routed({"m": group("m", "a", "b")}).outcome(fault)[1:] == ["given up"]


def test_a_deployment_with_a_wrong_key_is_left_and_not_asked_again() -> None:
    steps = Routed({"m": group("m", "a", "b")}).outcome(NO_KEY, NO_KEY)
    assert steps[1].startswith("moved")
    assert steps[2] == "given up"


def test_a_shortage_of_our_own_is_not_held_against_a_deployment() -> None:
    world = Routed({"m": group("m", "a", "b")}, allowed_fails=0)
    steps = world.outcome(Overloaded("full"))
    assert steps[1].startswith("moved")
    assert all(health.is_ready(0.0) for health in world.router.health.values())


def test_policies_say_how_often_for_each_kind_and_group() -> None:
    one = {"m": group("m", "a")}
    assert Routed(one, retry_policy={"internal": 1}).outcome(DOWN, DOWN)[-1] == "given up"
    assert Routed(one, retry_policy={"bad_request": 1}).outcome(REFUSED, REFUSED) == ["a", "repeated a 0.5", "given up"]
    assert Routed(one, retry_policy={"default": 0}).outcome(DOWN) == ["a", "given up"]
    assert Routed(one, group_retry_policy={"m": {"internal": 0}}, retry_policy={"internal": 5}).outcome(DOWN) == [
        "a", "given up"
    ]  # fmt: skip


def test_an_ejected_deployment_is_left_out_until_one_request_tries_it() -> None:
    world = Routed({"m": group("m", "a", "b")}, allowed_fails=0, cooldown_s=5.0)
    first = world.outcome(DOWN)[0]
    other = "b" if first == "a" else "a"
    assert world.outcome(now_s=1.0) == [other]
    trying = world.route()
    assert trying.begin(5.0).deployment.id == first
    assert world.outcome(now_s=5.0) == [other]
    trying.answered(0.5)
    trying.end()
    assert world.outcome(now_s=6.0) == [first]


def test_if_all_are_ejected_a_request_still_asks_one() -> None:
    world = Routed({"m": group("m", "a", "b")}, allowed_fails=0, num_retries=0)
    first = world.outcome(DOWN, DOWN)[0]
    assert world.outcome(DOWN, now_s=1.0)[0] == first


def test_both_dead_at_a_hundred_per_second_there_are_few_attempts() -> None:
    world, attempts, requests = Routed({"m": group("m", "a", "b")}), 0, 3000
    for number in range(requests):
        attempts += sum(
            step != "given up" for step in world.outcome(*[DOWN] * 9, now_s=number / 100, conversation=str(number))
        )
    assert attempts / requests <= 1.1 + 0.01


def test_deployments_of_a_lower_order_come_first() -> None:
    world = Routed({"m": [*group("m", "late", order=2), *group("m", "early", "soon", order=1)]})
    steps = world.outcome(DOWN, DOWN)
    assert {step.split()[1] if " " in step else step for step in steps[:2]} == {"early", "soon"}
    assert steps[2] == "moved late 0"


def test_fallbacks_follow_when_a_group_has_failed() -> None:
    groups = {"m": group("m", "a"), "n": group("n", "b"), "o": group("o", "c")}
    settings: dict[str, Any] = {"num_retries": 0, "fallbacks": {"m": ("missing", "n", "o")}}
    assert Routed(groups, **settings).outcome(DOWN, DOWN, DOWN) == ["a", "fallback b 0", "fallback c 0", "given up"]
    assert Routed(groups, **settings, max_fallbacks=2).outcome(DOWN, DOWN) == ["a", "fallback b 0", "given up"]
    assert Routed(groups, **settings).outcome(REFUSED)[1] == "fallback b 0"


def test_defaults_and_special_fallbacks() -> None:
    groups = {"m": group("m", "a"), "n": group("n", "b"), "o": group("o", "c")}
    settings: dict[str, Any] = {"num_retries": 0, "default_fallbacks": ("n",)}
    assert Routed(groups, **settings).outcome(DOWN, DOWN) == ["a", "fallback b 0", "given up"]
    longer = {**settings, "context_window_fallbacks": {"m": ("o",)}}
    assert Routed(groups, **longer).outcome(TOO_LONG) == ["a", "fallback c 0"]
    assert Routed(groups, **longer).outcome(DOWN) == ["a", "fallback b 0"]
    assert Routed(groups, num_retries=0, fallbacks={"*": ("o",)}).outcome(DOWN) == ["a", "fallback c 0"]


def test_groups_that_fall_back_on_each_other_end() -> None:
    groups = {"m": group("m", "a"), "n": group("n", "b")}
    world = Routed(groups, num_retries=0, fallbacks={"m": ("n",), "n": ("m",)})
    assert world.outcome(DOWN, DOWN) == ["a", "fallback b 0", "given up"]


def test_least_busy_takes_the_one_with_the_least_and_keeps_the_conversation() -> None:
    world = Routed({"m": group("m", "a", "b")}, strategy="least-busy")
    first = world.route(conversation="x")
    busy = first.begin(0.0).deployment.id
    second = world.route(conversation="y")
    other = second.begin(0.0).deployment.id
    assert other != busy
    first.answered(0.1)
    third = world.route(conversation="x")
    assert third.begin(0.2).deployment.id == busy


def test_latency_based_routing_takes_the_fastest() -> None:
    world = Routed({"m": group("m", "a", "b", "c")}, strategy="latency-based-routing", latency_buffer=0.1)
    for id, latency_s in {"a": 1.0, "b": 0.5, "c": 0.54}.items():
        world.router.health[id].answered(0.0, latency_s)
    asked = {world.outcome(conversation=str(number))[0] for number in range(50)}
    assert asked == {"b", "c"}


def test_what_is_remembered_is_bounded() -> None:
    world = Routed({"m": group("m", "a", "b")}, strategy="least-busy")
    for number in range(MAX_STICKY + 5):
        world.router.keep(str(number), "a")
    assert len(world.router._sticky) == MAX_STICKY


def test_an_answer_that_ends_is_no_longer_in_flight() -> None:
    world = Routed({"m": group("m", "a")})
    route = world.route()
    route.begin(0.0)
    route.answered(1.0)
    assert world.router.health["a"].in_flight == 1
    route.end()
    route.end()
    assert world.router.health["a"].in_flight == 0
