"""Every key of LiteLLM's that routing uses, and the test that shows what it does.

The keys are written as files have them, so that each goes the whole way: from the text to who is asked.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from kit.service.config_texts import parse
from kit.service.contexts import request

from pipeline import PipelineError, UpstreamFault
from pipeline.gateway.config.kinds import names_of
from pipeline.gateway.config.litellm_sections import RoutingSection
from stages.choose_deployment import Deployments

TESTS = Path(__file__).parents[1]
HERE = "test_routing/test_litellm_keys.py::"
ROUTER = "test_routing/test_router.py::"
HEALTH = "test_routing/test_health.py::"
CONFIG = "test_gateway/config/test_load.py::"
TIMEOUTS = CONFIG + "test_timeouts_fall_back_from_the_deployment_to_the_router_to_ours"
IN_TIME = "test_gateway/test_attempts_in_time.py::test_the_second_answers_when_the_first_has_timed_out"

STEPS = HERE + "test_a_key_decides_who_is_asked_next"
CHOICE = HERE + "test_a_key_decides_who_is_asked_first"

KEYS: dict[str, list[str]] = {
    "num_retries": [STEPS, ROUTER + "test_one_that_is_alone_is_asked_num_retries_times_more"],
    "retry_policy": [STEPS, ROUTER + "test_policies_say_how_often_for_each_kind_and_group"],
    "model_group_retry_policy": [STEPS, ROUTER + "test_policies_say_how_often_for_each_kind_and_group"],
    "retry_after": [STEPS, ROUTER + "test_pauses_are_drawn_and_bounded"],
    "fallbacks": [STEPS, ROUTER + "test_fallbacks_follow_when_a_group_has_failed"],
    "default_fallbacks": [STEPS, ROUTER + "test_defaults_and_special_fallbacks"],
    "context_window_fallbacks": [STEPS, ROUTER + "test_defaults_and_special_fallbacks"],
    "content_policy_fallbacks": [STEPS],
    "max_fallbacks": [STEPS, ROUTER + "test_fallbacks_follow_when_a_group_has_failed"],
    "allowed_fails": [
        HERE + "test_keys_decide_what_is_left_out_and_for_how_long",
        HEALTH + "test_it_is_ejected_after_more_failures_in_a_minute_than_are_allowed",
    ],
    "allowed_fails_policy": [
        HERE + "test_keys_decide_what_is_left_out_and_for_how_long",
        HEALTH + "test_a_policy_counts_a_kind_apart",
    ],
    "cooldown_time": [
        HERE + "test_keys_decide_what_is_left_out_and_for_how_long",
        HEALTH + "test_each_failed_probe_doubles_the_cool_down_up_to_a_minute",
    ],
    "disable_cooldowns": [
        HERE + "test_keys_decide_what_is_left_out_and_for_how_long",
        HEALTH + "test_cool_downs_can_be_switched_off",
    ],
    "routing_strategy": [
        CHOICE,
        ROUTER + "test_a_conversation_has_a_deployment_of_its_own",
        ROUTER + "test_least_busy_takes_the_one_with_the_least_and_keeps_the_conversation",
        ROUTER + "test_latency_based_routing_takes_the_fastest",
        CONFIG + "test_strategies_that_are_not_there_yet_are_shuffled_with_a_warning",
    ],
    "routing_strategy_args": [CHOICE],
    "weight": [CHOICE, "test_routing/test_affinity.py::test_each_deployment_gets_its_share"],
    "order": [CHOICE, ROUTER + "test_deployments_of_a_lower_order_come_first"],
    "model_group_alias": [HERE + "test_an_alias_is_another_name_of_a_group"],
    "max_retries": [
        CONFIG + "test_a_deployment_has_a_number_of_retries_of_its_own",
        ROUTER + "test_a_deployment_is_repeated_as_often_as_it_says_and_others_as_their_group_says",
    ],
    "enable_pre_call_checks": [
        CONFIG + "test_the_window_of_a_model_is_that_of_its_input",
        "test_gateway/test_context_length.py::"
        "test_a_chat_that_is_too_long_for_all_windows_is_reported_alike_before_anybody_is_asked",
    ],
    "timeout": [TIMEOUTS, IN_TIME],
    "stream_timeout": [TIMEOUTS, IN_TIME],
    "background_health_checks": [
        CONFIG + "test_background_health_checks_are_off_unless_they_are_asked_for",
        "test_gateway/test_health.py::test_a_check_ejects_and_brings_back_with_one_line_each",
    ],
}

A_B_AND_OTHERS = """\
model_list:
  - {{model_name: m, litellm_params: {{model: canned/echo}}, model_info: {{id: a}}}}
  - {{model_name: n, litellm_params: {{model: canned/echo}}, model_info: {{id: b}}}}
  - {{model_name: o, litellm_params: {{model: canned/echo}}, model_info: {{id: c}}}}
router_settings: {settings}
"""
TWO = """\
model_list:
  - {{model_name: m, litellm_params: {{model: openai/gpt-5, api_key: k-1{first}}}, model_info: {{id: a}}}}
  - {{model_name: m, litellm_params: {{model: openai/gpt-5, api_key: k-2{second}}}, model_info: {{id: b}}}}
router_settings: {settings}
"""

DOWN = UpstreamFault("it is down", code="upstream_error", status_hint=500)
LIMITED = UpstreamFault("slow down", code="upstream_rate_limited", status_hint=429)
TOO_LONG = UpstreamFault("too long", code="context_length_exceeded", status_hint=400)
UNSAFE = UpstreamFault("no", code="upstream_rejected", status_hint=400, upstream_code="content_filter")


def world(text: str) -> Deployments:
    """Return what the process knows of its deployments, with pauses of their full length."""
    settings = parse(text)
    deployments = Deployments(settings.deployments, settings.routing)
    deployments.router.draw = lambda: 1.0
    return deployments


def steps(deployments: Deployments, *faults: PipelineError, now_s: float = 0.0, conversation: str = "c") -> list[str]:
    """Return who is asked, with pauses, if one failure after the other happens."""
    match = deployments.match("m")
    assert match is not None
    body = {"input": "hi", "metadata": {"cursorConversationId": conversation}}
    route = deployments.route(match, request("m", body=body), {})
    found = [route.begin(now_s).deployment.id]
    for fault in faults:
        again = route.failed(fault, now_s, deadline_s=math.inf)
        if again is None:
            found.append("given up")
            break
        now_s += again.pause_s
        found.append(f"{again.candidate.deployment.id} after {again.pause_s:g}")
    route.end()
    return found


ONCE = "num_retries: 0, "
NEXT: list[tuple[str, str, list[PipelineError], list[str]]] = [
    ("num_retries", "{num_retries: 1}", [DOWN, DOWN], ["a", "a after 0.5", "given up"]),
    ("retry_policy", "{retry_policy: {InternalServerErrorRetries: 1}}", [DOWN, DOWN], ["a", "a after 0.5", "given up"]),
    ("model_group_retry_policy", "{model_group_retry_policy: {m: {InternalServerErrorRetries: 0}}}", [DOWN],
     ["a", "given up"]),
    ("retry_after", "{retry_after: 3}", [DOWN], ["a", "a after 3"]),
    ("fallbacks", "{" + ONCE + "fallbacks: [{m: [o, n]}]}", [DOWN, DOWN, DOWN],
     ["a", "c after 0", "b after 0", "given up"]),
    ("default_fallbacks", "{" + ONCE + "default_fallbacks: [n]}", [DOWN, DOWN], ["a", "b after 0", "given up"]),
    ("context_window_fallbacks", "{context_window_fallbacks: [{m: [o]}]}", [TOO_LONG], ["a", "c after 0"]),
    ("content_policy_fallbacks", "{content_policy_fallbacks: [{m: [o]}]}", [UNSAFE], ["a", "c after 0"]),
    ("max_fallbacks", "{" + ONCE + "fallbacks: [{m: [o, n]}], max_fallbacks: 1}", [DOWN, DOWN],
     ["a", "c after 0", "given up"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "settings", "faults", "asked"), NEXT, ids=[key for key, *_ in NEXT])
def test_a_key_decides_who_is_asked_next(
    key: str, settings: str, faults: list[PipelineError], asked: list[str]
) -> None:
    assert steps(world(A_B_AND_OTHERS.format(settings=settings)), *faults) == asked
    # Misspelled, it is not there.
    without = settings.replace(f"{key}:", f"x_{key}:")
    assert steps(world(A_B_AND_OTHERS.format(settings=without)), *faults) != asked


def test_special_fallbacks_are_for_their_kind_of_failure_only() -> None:
    special = "{num_retries: 0, content_policy_fallbacks: [{m: [o]}], context_window_fallbacks: [{m: [n]}]}"
    text = A_B_AND_OTHERS.format(settings=special)
    asked = {fault.code: steps(world(text), fault)[1] for fault in (DOWN, TOO_LONG, UNSAFE)}
    assert asked == {
        "upstream_error": "given up",
        "context_length_exceeded": "b after 0",
        "upstream_rejected": "c after 0",
    }


FIRST = [
    ("weight", ", weight: 0", "", "{}", "b"),
    ("order", ", order: 2", ", order: 1", "{}", "b"),
    ("order", ", order: 1", ", order: 2", "{}", "a"),
    ("routing_strategy", "", "", "{routing_strategy: latency-based-routing}", "a"),
    ("routing_strategy", "", "", "{routing_strategy: least-busy}", "b"),
    ("routing_strategy_args", "", "", "{routing_strategy: latency-based-routing, routing_strategy_args: "
     "{lowest_latency_buffer: 1}}", "ab"),
    ("routing_strategy", "", "", "{routing_strategy: simple-shuffle}", "ab"),
    ("routing_strategy", "", "", "{routing_strategy: usage-based-routing}", "ab"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "first", "second", "settings", "asked"), FIRST)
def test_a_key_decides_who_is_asked_first(key: str, first: str, second: str, settings: str, asked: str) -> None:
    deployments = world(TWO.format(first=first, second=second, settings=settings))
    health = deployments.router.health
    health["a"].answered(1.0, 0.0)
    health["b"].answered(1.5, 0.0)
    health["a"].begin(0.0)  # so the fast one is busy
    assert {steps(deployments, conversation=str(number))[0] for number in range(30)} == set(asked), key


def test_keys_decide_what_is_left_out_and_for_how_long() -> None:
    """How long the deployment that has failed once is not asked, in tenths of a second."""
    left_out_s: dict[str, float] = {}
    for settings in (
        "{allowed_fails: 0}",
        "{allowed_fails: 0, cooldown_time: 2}",
        "{allowed_fails: 1}",
        "{allowed_fails: 0, disable_cooldowns: true}",
        "{allowed_fails_policy: {InternalServerErrorAllowedFails: 0}}",
        "{allowed_fails_policy: {RateLimitErrorAllowedFails: 0}}",
    ):
        deployments = world(TWO.format(first=", order: 1", second=", order: 2", settings=settings))
        assert steps(deployments, DOWN) == ["a", "b after 0"]
        asked = ((tenths / 10, steps(deployments, now_s=tenths / 10)[0]) for tenths in range(1, 100))
        left_out_s[settings] = next(now_s for now_s, id in asked if id == "a")
    assert list(left_out_s.values()) == [5.0, 2.0, 0.1, 0.1, 5.0, 0.1]


def test_an_alias_is_another_name_of_a_group() -> None:
    deployments = world(
        A_B_AND_OTHERS.format(settings="{model_group_alias: {old: m, older: {model: n, hidden: true}, lost: gone}}")
    )
    found = {name: deployments.match(name) for name in ("old", "older", "old:high", "lost")}
    ids = {name: match and match.candidates[0].deployment.id for name, match in found.items()}
    assert ids == {"old": "a", "older": "b", "old:high": "a", "lost": None}
    assert deployments.names == ("m", "n", "o", "old")


def test_every_key_names_tests_that_exist() -> None:
    defined: dict[str, set[str]] = {}
    for name in (test for tests in KEYS.values() for test in tests):
        file, _, test = name.partition("::")
        if file not in defined:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            defined[file] = {
                node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        assert test in defined[file], name


def test_every_key_that_is_read_has_a_row() -> None:
    assert KEYS.keys() >= names_of(RoutingSection)
    assert all(KEYS.values())
