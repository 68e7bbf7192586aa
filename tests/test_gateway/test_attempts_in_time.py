"""Attempts and their time, in virtual time: each has its own limits, and the request has one for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import CREATED, CURSOR, OPENAI_LIKE, ask, completed, delta
from kit.service.bridges import COMMENT, Browser, bridge_to
from kit.service.running import Logged
from kit.upstreams.paced import InTurn, Paced
from kit.upstreams.scripted import sse

from pipeline import Plugin
from pipeline.registry import NoOptions
from stages.answer import Answer, Next
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Timeouts, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.wire.responses.api import RESPONSES

HANGS = Paced(math.inf)
SILENT = Paced(1, math.inf)
"""It sends its head, and nothing else."""
DOWN = Paced(0, status=503)


def good(head_s: float = 1) -> Paced:
    return Paced(head_s, 0, parts=[sse(CREATED) + sse(delta("Hello")) + sse(completed("Hello"))])


def limited(retry_after_s: float) -> Paced:
    return Paced(0, status=429, headers={"retry-after": f"{retry_after_s:g}"})


class PassOn:
    """An around that does nothing."""

    name = "pass_on"

    def call(self, call: UpstreamCall, next: Next, /) -> AbstractAsyncContextManager[Answer]:
        return next(call)


class World:
    """A gateway whose model has some deployments, asked in their order.

    Args:
        answers: for each deployment's name, how it answers.
        limits: of each attempt, and ``total_s`` of the request.
        is_routed_within: whether something is around the call.
        settings: of routing.
    """

    def __init__(
        self,
        answers: Mapping[str, InTurn],
        *,
        limits: Mapping[str, float] | None = None,
        is_routed_within: bool = False,
        **settings: Any,
    ) -> None:
        self.answers = answers
        timeouts = Timeouts(**(limits or {}))
        deployments = [
            Deployment(
                id=id, model_name="up", model="gpt-5", provider="openai", kind="responses", url=f"http://{id}/responses",
                timeouts=timeouts, order=order,
            )
            for order, id in enumerate(answers)
        ]  # fmt: skip
        plugin = Plugin("pass_on", lambda _: PassOn(), NoOptions, kind="around")
        self.bridge, self.records = bridge_to(
            HttpUpstream(RESPONSES, lambda deployment: answers[deployment.id]),
            deployments=deployments,
            routing=RoutingSettings(**settings),
            request_timeout_s=timeouts.total_s,
            insertion=(None, plugin) if is_routed_within else None,
        )

    async def ask(
        self, *, stream: bool = True, agent: str = OPENAI_LIKE, leaves_after_s: float = math.inf
    ) -> tuple[Browser, float]:
        """Return what a client got, and how long it took."""
        browser = Browser(self.bridge, ask(stream=stream), agent=agent)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            if leaves_after_s < math.inf:
                nursery.start_soon(self._leave, browser, leaves_after_s)
            await browser.ask()
        return browser, round(trio.current_time() - began, 6)

    async def _leave(self, browser: Browser, after_s: float) -> None:
        await trio.sleep(after_s)
        browser.disconnected.set()

    @property
    def asked_at(self) -> dict[str, list[float]]:
        """When each deployment was asked."""
        return {id: answer.asked_at for id, answer in self.answers.items()}

    @property
    def attempts(self) -> list[Logged]:
        """Those of the last request, without figures of stages."""
        return [
            {name: value for name, value in attempt.items() if name not in ("lanes", "stages", "links", "events")}
            for attempt in self.records[-1].get("attempts", [])
        ]


each_way = pytest.mark.parametrize("is_routed_within", [False, True], ids=["by the gateway", "within an around"])


@each_way
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("slow", "after_s"), [(HANGS, 10), (SILENT, 6)], ids=["head", "first event"])
async def test_the_second_answers_when_the_first_has_timed_out(
    slow: Paced, after_s: float, stream: bool, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(
        {"slow": InTurn(slow), "quick": InTurn(good())},
        limits={"headers_s": 10, "first_event_s": 5, "idle_s": 5, "total_s": 60},
        is_routed_within=is_routed_within,
    )
    browser, took_s = await world.ask(stream=stream)
    folded = (fold_stream if stream else fold_document)(browser.body)
    assert (browser.status, folded.content, took_s) == (200, "Hello", after_s + 1)
    assert world.asked_at == {"slow": [0], "quick": [after_s]}


@each_way
@pytest.mark.parametrize("stream", [True, False])
async def test_if_all_hang_the_client_is_told_at_the_total(
    stream: bool, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(
        {"a": InTurn(HANGS), "b": InTurn(HANGS), "c": InTurn(HANGS)},
        limits={"headers_s": 10, "total_s": 25},
        is_routed_within=is_routed_within,
    )
    for agent in (OPENAI_LIKE, CURSOR):
        browser, took_s = await world.ask(stream=stream, agent=agent)
        assert took_s == 25
        if not stream:
            assert browser.error["code"] == "upstream_timeout"
            assert "did not finish its answer within 25 s" in browser.error["message"]
        assert (world.records[-1]["error"], world.records[-1]["total_ms"]) == ("upstream_timeout", 25_000)
    assert world.asked_at == {"a": [0, 25], "b": [10, 35], "c": [20, 45]}


@each_way
async def test_what_was_left_of_the_time_is_not_held_against_the_last(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(
        {"a": InTurn(HANGS), "b": InTurn(HANGS)},
        limits={"headers_s": 10, "total_s": 13},
        is_routed_within=is_routed_within,
        allowed_fails=0,
        cooldown_s=60,
        num_retries=0,
    )
    await world.ask()
    await world.ask()
    assert world.asked_at == {"a": [0, 23], "b": [10, 13]}  # a is left out, until b has failed


@each_way
async def test_nobody_is_asked_when_the_time_is_over(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(HANGS), "b": InTurn(good())}, limits={"total_s": 5}, is_routed_within=is_routed_within)
    _, took_s = await world.ask()
    assert (took_s, world.asked_at) == (5, {"a": [0], "b": []})
    assert world.records[-1]["error"] == "upstream_timeout"


@each_way
async def test_a_pause_ends_before_the_time_is_over_or_is_not_made(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(
        {"a": InTurn(DOWN)},
        limits={"total_s": 20},
        is_routed_within=is_routed_within,
        num_retries=9,
        retry_after_s=8.0,
    )
    _, took_s = await world.ask()
    assert (took_s, world.asked_at) == (16, {"a": [0, 8, 16]})
    assert world.records[-1]["error"] == "upstream_error"


async def test_an_error_that_does_not_arrive_takes_no_longer_than_the_total(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World({"a": InTurn(Paced(8, math.inf, status=503))}, limits={"total_s": 10})
    browser, took_s = await world.ask()
    assert (took_s, browser.error["code"]) == (10, "upstream_error")


# --- rate limits -----------------------------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("stream", [True, False])
async def test_one_that_limits_the_rate_is_asked_again_when_it_says(
    stream: bool, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(30), good())}, limits={"total_s": 60}, is_routed_within=is_routed_within)
    browser, took_s = await world.ask(stream=stream)
    assert (browser.status, took_s, world.asked_at) == (200, 31, {"a": [0, 30]})
    # The pause is ours, and a client that streams is not left in silence.
    assert world.records[-1]["party_ms"] == {"client": 0, "ours": 30_000, "upstream": 1000}
    assert browser.body.count(COMMENT) == (2 if stream else 0)


@each_way
@pytest.mark.parametrize(("retry_after_s", "total_s"), [(30, 20), (30, 30), (61, 600)])
async def test_one_that_says_too_long_a_time_is_given_up_at_once(
    retry_after_s: float, total_s: float, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(retry_after_s))}, limits={"total_s": total_s}, is_routed_within=is_routed_within)
    browser, took_s = await world.ask()
    assert (browser.status, browser.error["code"], took_s) == (429, "upstream_rate_limited", 0)
    assert browser.headers[b"retry-after"] == b"%d" % retry_after_s
    assert world.asked_at == {"a": [0]}


@each_way
async def test_of_two_the_other_is_asked_at_once_and_the_limited_one_when_it_says(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(30), good()), "b": InTurn(good())}, is_routed_within=is_routed_within)
    _, took_s = await world.ask()
    assert (took_s, world.asked_at) == (1, {"a": [0], "b": [0]})
    await trio.sleep(28.5)
    await world.ask()
    assert world.asked_at == {"a": [0], "b": [0, 29.5]}
    await world.ask()
    assert world.asked_at == {"a": [0, 30.5], "b": [0, 29.5]}


@each_way
async def test_if_both_limit_the_rate_the_one_that_says_less_is_asked_again(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(20), good()), "b": InTurn(limited(3600))}, is_routed_within=is_routed_within)
    browser, took_s = await world.ask()
    assert (browser.status, took_s, world.asked_at) == (200, 21, {"a": [0, 20], "b": [0]})


# --- the record ------------------------------------------------------------------------------------------------------


@each_way
async def test_the_record_says_of_each_attempt_why_it_was_made_and_what_came_of_it(
    is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(7), good()), "b": InTurn(limited(3600))}, is_routed_within=is_routed_within)
    browser, _ = await world.ask()
    assert browser.status == 200
    asked = {"model": "gpt-5"}
    assert world.attempts == [
        {"deployment": "a", **asked, "end": "upstream_rate_limited", "upstream_status": 429, "began_ms": 0, "ms": 0},
        {
            "deployment": "b",
            **asked,
            "reason": "moved",
            "end": "upstream_rate_limited",
            "upstream_status": 429,
            "began_ms": 0,
            "ms": 0,
        },
        {"deployment": "a", **asked, "reason": "repeated", "pause_ms": 7000, "end": "OK", "began_ms": 7000, "ms": 1000},
    ]


@each_way
@pytest.mark.parametrize(("after_s", "began_ms", "ms"), [(5, 2000, 3000), (1, 2000, 0)], ids=["asking", "in the pause"])
async def test_an_attempt_that_the_client_does_not_wait_for_is_given_up(
    after_s: float, began_ms: float, ms: float, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World({"a": InTurn(limited(2), HANGS)}, is_routed_within=is_routed_within)
    await world.ask(leaves_after_s=after_s)
    assert world.records[-1]["end"] == "DC"
    assert [attempt["end"] for attempt in world.attempts] == ["upstream_rate_limited", "given_up"]
    assert (world.attempts[1]["reason"], world.attempts[1]["began_ms"], world.attempts[1]["ms"]) == (
        "repeated", began_ms, ms
    )  # fmt: skip


BREAKS = Paced(1, 0, math.inf, parts=[sse(CREATED) + sse(delta("Hel")), b""])


@each_way
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_breaks_off_is_not_an_attempt_that_went_well(
    stream: bool, is_routed_within: bool, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(
        {"a": InTurn(limited(30)), "b": InTurn(BREAKS)},
        limits={"idle_s": 4},
        is_routed_within=is_routed_within,
        num_retries=0,
        allowed_fails=0,
    )
    await world.ask(stream=stream)
    assert [attempt["end"] for attempt in world.attempts] == ["upstream_rate_limited", "upstream_timeout"]
    await world.ask()
    assert [len(asked_at) for asked_at in world.asked_at.values()] == [1, 2], (
        "both are left out, and a has said how long"
    )
