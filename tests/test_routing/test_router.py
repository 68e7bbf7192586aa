"""One request's way: whom it asks, whom next, and when it gives up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from kit.service.contexts import deployment

from pipeline import ClientFault, Overloaded, PipelineError, UpstreamFault
from stages.admission.counts import Counts
from stages.admission.quota import Quota
from stages.admission.refusals import RateLimited
from stages.limits import Limits
from stages.routing.faults import kind_of
from stages.routing.health import Change
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
        self.changes: list[Change] = []
        everything = [one.deployment for candidates in groups.values() for one in candidates]
        self.router = Router(RoutingSettings(**settings), everything, draw=draw, on_change=self.changes.append)

    def route(self, name: str = "m", conversation: str = "c") -> Route:
        return Route(self.router, name, self.groups[name], lambda: conversation, self.groups.get)

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
        world.router.health[id].answered(latency_s, 0.0)
    asked = {world.outcome(conversation=str(number))[0] for number in range(50)}
    assert asked == {"b", "c"}


def test_what_is_remembered_is_bounded() -> None:
    world = Routed({"m": group("m", "a", "b")}, strategy="least-busy")
    for number in range(MAX_STICKY + 5):
        world.router.keep(str(number), world.groups["m"][0].deployment)
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


def test_a_healthy_request_has_no_notes() -> None:
    route = Routed({"m": group("m", "a", "b")}).route()
    route.begin(0.0)
    route.answered(1.0)
    route.end()
    assert route.notes is None


def test_a_route_notes_what_health_did_to_it() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", order=2)]}, allowed_fails=0, num_retries=0)
    ejecting = world.route()
    ejecting.begin(0.0)
    ejecting.failed(DOWN, 0.0, deadline_s=math.inf)
    assert ejecting.notes == {"newly_ejected": ["a"]}
    avoiding = world.route()
    assert avoiding.begin(1.0).deployment.id == "b"
    assert avoiding.notes == {"ejected": ["a"]}
    probing = world.route()
    assert probing.begin(5.0).deployment.id == "a"
    meanwhile = world.route()
    assert meanwhile.begin(5.0).deployment.id == "b"
    assert meanwhile.notes == {"ejected": ["a"]}
    meanwhile.broke_off(DOWN, 6.0, by=group("m", "b")[0].deployment)
    assert meanwhile.notes == {"ejected": ["a"], "newly_ejected": ["b"]}
    probing.failed(DOWN, 6.0, deadline_s=math.inf)
    assert probing.notes == {"probed": ["a"], "newly_ejected": ["a"], "ejected": ["b"], "asked_anyway": ["b"]}
    probing.end()
    last = world.route()
    assert last.begin(7.0).deployment.id == "a"
    assert last.notes == {"ejected": ["a", "b"], "asked_anyway": ["a"]}


def test_a_repetition_at_an_ejected_deployment_is_noted() -> None:
    route = Routed({"m": group("m", "a")}, allowed_fails=0).route()
    route.begin(0.0)
    route.failed(DOWN, 0.0, deadline_s=math.inf)
    assert route.notes == {"newly_ejected": ["a"], "asked_anyway": ["a"]}


def test_an_ejection_and_its_end_are_each_reported_once() -> None:
    world = Routed({"m": group("m", "a")}, num_retries=0)
    world.outcome(NO_KEY)
    world.outcome(NO_KEY, now_s=1.0)
    world.outcome(NO_KEY, now_s=5.0)
    route = world.route()
    route.begin(15.0)
    route.answered(15.5)
    route.answered(16.0)
    assert world.changes == [
        Change("a", 0.0, "upstream_unauthorized", 5.0, 1),
        Change("a", 5.0, "upstream_unauthorized", 10.0, 2),
        Change("a", 15.5),
    ]


def test_an_ejection_that_takes_no_time_is_neither_noted_nor_reported() -> None:
    world = Routed({"m": group("m", "a")}, cooldown_s=0.0)
    route = world.route()
    route.begin(0.0)
    route.failed(NO_KEY, 0.0, deadline_s=math.inf)
    assert (route.notes, world.changes) == (None, [])


def test_what_something_around_the_call_asks_counts_for_whom_it_asks_only() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", order=2)]}, allowed_fails=0)
    outer = world.route()
    chosen = outer.begin(0.0)
    outer.hand_over()
    inner = outer.from_candidate(chosen, 0.0)
    again = inner.failed(DOWN, 1.0, deadline_s=math.inf)
    assert again is not None
    assert again.candidate.deployment.id == "b"
    inner.answered(2.0)
    inner.end()
    outer.answered(2.0)
    assert not world.router.health["a"].is_ready(2.0)
    assert world.router.health["b"].is_ready(2.0)
    outer.broke_off(DOWN, 2.0, by=again.candidate.deployment)
    assert not world.router.health["b"].is_ready(2.0)
    outer.end()
    assert outer.notes == {"newly_ejected": ["a", "b"]}
    assert [health.in_flight for health in world.router.health.values()] == [0, 0]


# --- a deployment's own number of retries ----------------------------------------------------------------------------


def pair(a: int | None, b: int | None) -> Groups:
    """Return a group of two that are asked in this order, with their own numbers of retries."""
    return {"m": [*group("m", "a", order=1, max_retries=a), *group("m", "b", order=2, max_retries=b)]}


@pytest.mark.parametrize(
    ("a", "b", "asked"),
    [
        (0, 0, "a b"),
        (0, None, "a b b b"),
        (None, 0, "a b a a"),
        (1, 0, "a b a"),
        (1, 1, "a b a b"),
        (3, 0, "a b a a a"),
        (3, None, "a b a a a"),
        (1, None, "a b a b"),
    ],
)
def test_a_deployment_is_repeated_as_often_as_it_says_and_others_as_their_group_says(
    a: int | None, b: int | None, asked: str
) -> None:
    steps = Routed(pair(a, b), allowed_fails=100, has_cooldowns=False).outcome(*[DOWN] * 9)
    assert " ".join(step if " " not in step else step.split()[1] for step in steps[:-1]) == asked
    assert steps[-1] == "given up"


def test_no_retries_of_its_own_leave_fallbacks_and_other_deployments() -> None:
    groups = {"m": group("m", "a", max_retries=0), "n": group("n", "b", max_retries=0)}
    assert Routed(groups, fallbacks={"m": ("n",)}).outcome(DOWN, DOWN) == ["a", "fallback b 0", "given up"]


def test_a_fallback_has_a_deployment_for_each_conversation_too() -> None:
    world = Routed({"m": group("m", "a", max_retries=0), "n": group("n", "b", "c")}, default_fallbacks=("n",))
    asked: dict[str, set[str]] = {}
    for number in range(40):
        route = world.route(conversation=f"chat {number % 20}")
        route.begin(0.0)
        again = route.failed(DOWN, 0.0, deadline_s=math.inf)
        assert again is not None
        asked.setdefault(f"chat {number % 20}", set()).add(again.candidate.deployment.id)
        route.end()
    assert all(len(ids) == 1 for ids in asked.values())
    assert set().union(*asked.values()) == {"b", "c"}


def test_one_that_was_ejected_is_asked_rather_than_nobody_but_not_before_the_time_that_it_has_said() -> None:
    world = Routed(pair(0, 0), cooldown_s=60.0)
    world.router.health["b"].failed(0.0, "rate_limit")
    assert world.outcome(DOWN, DOWN) == ["a", "moved b 0", "given up"]
    world = Routed(pair(0, 0), cooldown_s=60.0)
    world.router.health["b"].failed(0.0, "rate_limit", 20.0)
    assert world.outcome(DOWN, DOWN) == ["a", "repeated b 20", "given up"]


def test_a_policy_and_a_deployment_both_bound_the_retries() -> None:
    one = {"m": group("m", "a", max_retries=1)}
    assert Routed(one, retry_policy={"internal": 3}).outcome(DOWN, DOWN) == ["a", "repeated a 0.5", "given up"]
    assert Routed(one, retry_policy={"internal": 0}).outcome(DOWN) == ["a", "given up"]
    assert Routed(one, retry_policy={"default": 0}).outcome(DOWN) == ["a", "given up"]
    assert Routed(one).outcome(REFUSED) == ["a", "given up"]


# --- the time that is left --------------------------------------------------------------------------------------------


def test_nobody_is_asked_at_the_deadline_or_later() -> None:
    world = Routed({"m": group("m", "a", "b"), "n": group("n", "c")}, default_fallbacks=("n",))
    for late_s in (0.0, 1.0):
        route = world.route()
        route.begin(0.0)
        assert route.failed(DOWN, 10.0 + late_s, deadline_s=10.0) is None
        assert world.router.health["c"].in_flight == 0


def test_the_time_that_others_left_is_not_held_against_a_deployment() -> None:
    world = Routed(pair(None, None), allowed_fails=0, cooldown_s=60.0)
    route = world.route()
    route.begin(0.0)
    again = route.failed(DOWN, 9.0, deadline_s=10.0)
    assert again is not None
    assert route.failed(DOWN, 10.0, deadline_s=10.0) is None
    assert [health.is_ready(10.0) for health in world.router.health.values()] == [False, True]


def test_of_those_that_limit_the_rate_the_one_that_says_less_is_asked_first() -> None:
    world = Routed(pair(None, None), num_retries=3)
    much = UpstreamFault("slow down", code="upstream_rate_limited", status_hint=429, retry_after_s=20)
    assert world.outcome(LIMITED, much) == ["a", "moved b 0", "repeated a 3"]
    assert Routed(pair(None, None)).outcome(much, LIMITED) == ["a", "moved b 0", "repeated b 3"]
    assert Routed(pair(0, None)).outcome(LIMITED, much) == ["a", "moved b 0", "repeated b 20"]


def test_a_plugin_may_ask_the_others_of_a_group_that_are_healthy() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", "c", "d", order=2)]})
    world.router.health["b"].failed(0.0, kind_of(NO_KEY))
    route = world.route()
    assert route.begin(0.0).deployment.id == "a"
    others = route.others(1.0)
    assert {one.deployment.id for one in others} == {"c", "d"}
    route.from_candidate(others[0], 1.0)
    assert route.others(1.0) == others[1:]
    assert "b" in {one.deployment.id for one in route.others(60.0)}


def test_a_call_around_the_request_moves_on_unless_it_names_another_deployment() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", order=2)]}, num_retries=0)
    route = world.route()
    own = route.begin(0.0)
    [other] = route.others(0.0)
    named = route.from_candidate(other, 0.0)
    assert named.failed(DOWN, 0.0, deadline_s=math.inf) is None
    assert world.router.health["b"].in_flight == 0
    assert route.from_candidate(own, 0.0).failed(DOWN, 0.0, deadline_s=math.inf) is None  # b was asked already
    moved = world.route()
    again = moved.from_candidate(moved.begin(0.0), 0.0).failed(DOWN, 0.0, deadline_s=math.inf)
    assert again is not None
    assert again.candidate == other


# --- whose outcome is noted ------------------------------------------------------------------------------------------

GONE = UpstreamFault("the model x does not exist", code="upstream_not_found", status_hint=404)


def test_a_request_that_tries_a_deployment_is_done_with_that_at_its_first_token() -> None:
    world = Routed({"m": group("m", "a")})
    health = world.router.health["a"]
    health.failed(0.0, "rate_limit")
    trying = world.route()
    trying.begin(6.0)
    assert not health.is_ready(6.0)
    trying.answered(6.5)
    health.failed(10.0, "rate_limit")  # of another request, for twice as long
    assert health.is_ready(20.0)
    next_one = world.route()
    next_one.begin(20.0)
    trying.end()
    assert not health.is_ready(20.0)


def test_an_answer_that_was_asked_for_before_an_ejection_does_not_end_it() -> None:
    world = Routed({"m": group("m", "a")}, num_retries=0)
    early, late = world.route(), world.route(conversation="d")
    early.begin(0.0)
    late.begin(1.0)
    late.failed(LIMITED, 1.0, deadline_s=math.inf)
    early.answered(2.0)
    assert not world.router.health["a"].is_ready(3.0)


def test_a_wildcard_is_not_ejected_for_a_model_that_a_client_has_made_up() -> None:
    for model, is_ready in (("*", True), ("gpt-5", False)):
        world = Routed({"m": [Candidate(deployment("m", id="w", model=model), "typo")]})
        world.outcome(GONE)
        assert world.router.health["w"].is_ready(0.0) is is_ready


def test_a_conversation_keeps_a_deployment_in_each_group() -> None:
    world = Routed({"m": group("m", "a", "b"), "n": group("n", "c", "d")}, strategy="least-busy")
    chosen: dict[str, str] = {}
    for name in ("m", "n"):
        route = world.route(name)
        chosen[name] = route.begin(0.0).deployment.id
        route.answered(0.0)
        route.end()
        world.router.health[chosen[name]].in_flight += 5
    assert {name: world.route(name).begin(0.0).deployment.id for name in ("m", "n")} == chosen


def test_if_all_are_ejected_one_is_asked_that_has_not_said_for_how_long() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", order=2)]}, cooldown_s=60.0)
    world.router.health["a"].failed(0.0, "rate_limit", 30.0)
    world.router.health["b"].failed(0.0, "rate_limit")
    assert world.route().begin(1.0).deployment.id == "b"


def test_a_second_call_of_something_around_it_does_not_ask_what_the_first_has_ejected() -> None:
    world = Routed({"m": [*group("m", "a", order=1), *group("m", "b", order=2)]}, num_retries=0)
    route = world.route()
    own = route.begin(0.0)
    route.hand_over()
    first = route.from_candidate(own, 0.0)
    first.failed(LIMITED, 0.0, deadline_s=0.0)
    first.end()
    second = route.from_candidate(own, 0.0)
    assert second.candidate is not None
    assert second.candidate.deployment.id == "b"


def taken_over(before: Routed, groups: Groups, **settings: Any) -> Routed:
    now = Routed(groups, **settings)
    now.router.take_over(before.router)
    return now


def test_what_is_known_of_deployments_goes_on_if_they_are_asked_as_before() -> None:
    before = Routed({"m": group("m", "a", "b", "c")}, allowed_fails=0)
    for id in "abc":
        before.router.note_failure(Candidate(deployment("m", id=id), "m"), NO_KEY, now_s=1.0, asked_s=0.0)
    headers = (("authorization", "Bearer another key"),)
    groups = {"m": [*group("m", "a", weight=7, order=3), *group("m", "b", headers=headers), *group("m", "d")]}
    now = taken_over(before, groups)
    assert {id: health.state(2.0) for id, health in now.router.health.items()} == {
        "a": "ejected",
        "b": "unknown",
        "d": "unknown",
    }


def test_other_rules_count_from_now_on_for_what_is_known() -> None:
    before = Routed({"m": group("m", "a")}, allowed_fails=1000, allowed_fails_policy={"timeout": 1000})
    now = taken_over(before, {"m": group("m", "a")}, allowed_fails=0, cooldown_s=7.0)
    [candidate] = now.groups["m"]
    late = UpstreamFault("late", code="upstream_timeout")
    assert now.router.note_failure(candidate, late, now_s=1.0, asked_s=0.0)
    assert before.router.health["a"].ejected_until_s == 8.0  # it knows that, too


def test_requests_in_flight_of_both_are_counted_together() -> None:
    before = Routed({"m": group("m", "a")})
    running = before.route()
    running.begin(0.0)
    now = taken_over(before, {"m": group("m", "a")})
    other = now.route()
    other.begin(0.0)
    assert now.router.health["a"].in_flight == 2
    running.end()
    other.end()
    assert now.router.health["a"].in_flight == 0


def test_conversations_and_the_budget_of_repetitions_go_on() -> None:
    before = Routed({"m": group("m", "a", "b")}, strategy="least-busy")
    before.router.keep("c", before.groups["m"][1].deployment)
    now = taken_over(before, {"m": group("m", "a", "b")}, strategy="least-busy")
    assert now.outcome()[0] == "b"
    assert now.router.budget is before.router.budget
    assert now.router.draw is before.router.draw


def test_how_a_server_is_asked_is_known_unless_it_is_another_one() -> None:
    before = Routed({"m": group("m", "a", "b")})
    before.router.asked_by_chat |= {"a", "b"}
    now = taken_over(before, {"m": [*group("m", "a"), *group("m", "b", url="http://other/v1/responses")]})
    assert now.router.asked_by_chat == {"a"}
    now.router.asked_by_chat.add("b")
    assert before.router.asked_by_chat == {"a", "b"}


def test_one_that_is_full_is_not_among_the_others_that_may_be_asked() -> None:
    world = Routed({"m": group("m", "a", "b", "c")})
    counts = Counts()
    world.router.quotas = {id: Quota(counts, id, id, Limits(rpm=rpm)) for id, rpm in (("a", 5), ("b", 5), ("c", 0))}
    route = world.route()
    route.begin(0.0)
    assert {one.deployment.id for one in route.others(0.0)} == {"a", "b"} - {route.candidate.deployment.id}  # type: ignore[union-attr]


def test_an_ejected_one_is_asked_anyway_if_the_others_are_full_but_not_if_it_is_full_too() -> None:
    world = Routed({"m": group("m", "a", "b")})
    counts = Counts()
    world.router.quotas = {"a": Quota(counts, "a", "a", Limits(rpm=0)), "b": Quota(counts, "b", "b", Limits(rpm=1))}
    world.router.health["b"].failed(0.0, "rate_limit")
    route = world.route()
    assert route.begin(0.0).deployment.id == "b"
    assert route.notes == {"full": ["a"], "ejected": ["b"], "asked_anyway": ["b"]}
    with pytest.raises(RateLimited):
        world.route().begin(0.0)


def test_an_own_call_of_something_around_goes_to_another_one_if_its_own_is_full() -> None:
    world = Routed({"m": group("m", "a", "b")})
    counts = Counts()
    world.router.quotas = {id: Quota(counts, id, id, Limits(rpm=1)) for id in "ab"}
    route = world.route()
    own = route.begin(0.0)
    route.hand_over()
    first, second = (route.from_candidate(own, 0.0) for _ in range(2))
    assert first.candidate is not None
    assert second.candidate is not None
    assert first.candidate == own
    assert second.candidate != own
    with pytest.raises(RateLimited):
        route.from_candidate(own, 0.0)
