"""The example `hedge` through the real server: beside our own routing, and beside other plugins."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import ask, begun, good_answer, post_bytes
from kit.clients.raw import RawClient
from kit.service.plugins import install
from kit.service.running import Service, model, serving
from kit.time.patience import PATIENCE_S
from kit.upstreams.scripted import (
    Action,
    Exchange,
    ScriptedUpstream,
    Step,
    close,
    error,
    in_turn,
    scripted_upstream,
    stall,
    wait,
)

from pipeline import alarm
from pipeline.registry import discover

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
DOWN = error(503)
STALLED: Sequence[Step] = (stall(),)
QUIET_S = 0.1
"""If no task has run for so long, all that was sent has arrived, and has had its effect."""

both_ways = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@dataclass
class World:
    """A service with two deployments of one model name, of which the first is asked first."""

    service: Service
    first: ScriptedUpstream
    second: ScriptedUpstream

    async def answer(self, **fields: Any) -> str | None:
        """Ask, and return the text of the answer."""
        body = ask(**fields)
        response = await self.service.post(body)
        assert response.status_code == 200, response.text
        return (fold_stream if body["stream"] else fold_document)(response.content).content

    async def attempts(self, number: int = 0) -> list[tuple[str, str]]:
        """Return who was asked for a request, and how that ended."""
        record = await self.service.record(number)
        return [(attempt["deployment"], attempt["end"]) for attempt in record.get("attempts", [])]


@asynccontextmanager
async def world(
    first: Sequence[Step],
    second: Sequence[Step],
    *stages: str,
    after_s: float = 0.05,
    when: str = "{}",
    models: str = "",
) -> AsyncIterator[World]:
    hedge = f"{{use: hedge, options: {{after_s: {after_s}}}, when: {when}}}"
    async with (
        scripted_upstream(*first) as one,
        scripted_upstream(*second) as two,
        serving(
            model("up", one.url, order=1) + model("up", two.url, order=2) + models,
            f"  stages: [{', '.join([*stages, hedge])}]",
            plugins=discover(),
        ) as service,
    ):
        yield World(service, one, two)


def note(event: trio.Event) -> Action:
    """Set an event."""

    async def step(_: Exchange) -> None:
        event.set()

    return step


def quiet_after(event: trio.Event) -> Action:
    """Wait until an event has happened, and nothing follows it."""

    async def step(_: Exchange) -> None:
        await event.wait()
        await trio.testing.wait_all_tasks_blocked(QUIET_S)

    return step


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("hedge", "cache", "steer"):
        install(monkeypatch, tmp_path / name, EXAMPLES / name)


@both_ways
async def test_the_second_deployment_answers_if_the_first_has_not_begun(stream: bool) -> None:
    async with world(STALLED, good_answer()) as here:
        response = await here.service.post(ask(stream=stream))
        assert response.status_code == 200
        assert (response.headers["x-headrace-deployment"], response.headers["x-headrace-attempts"]) == ("up#2", "2")
        assert (await here.first.connection_closed()).ended in ("fin", "rst")
        record = await here.service.record()
        assert (record["deployment"], record["end"]) == ("up#2", "OK")
        assert await here.attempts() == [("up", "given_up"), ("up#2", "OK")]


async def test_a_first_deployment_that_fails_is_followed_by_routing_without_a_hedge() -> None:
    async with world([DOWN], good_answer("moved"), after_s=60) as here:
        assert await here.answer() == "moved"
        assert await here.attempts() == [("up", "upstream_error"), ("up#2", "OK")]


async def test_what_routing_has_asked_already_is_not_asked_again_by_the_hedge() -> None:
    async with world([DOWN], [wait(0.5), *good_answer("late")]) as here:
        assert await here.answer() == "late"
        assert await here.attempts() == [("up", "upstream_error"), ("up#2", "OK")]


async def test_of_two_slow_ones_the_first_that_begins_answers() -> None:
    is_asked = trio.Event()
    async with world([quiet_after(is_asked), *good_answer("first")], [note(is_asked), stall()]) as here:
        assert await here.answer() == "first"
        assert await here.attempts() == [("up", "OK"), ("up#2", "given_up")]
        await here.second.connection_closed()


async def test_if_the_second_fails_the_first_goes_on_and_is_not_asked_once_more() -> None:
    is_asked = trio.Event()
    async with world([quiet_after(is_asked), *good_answer("first")], [note(is_asked), DOWN]) as here:
        assert await here.answer() == "first"
        assert await here.attempts() == [("up", "OK"), ("up#2", "upstream_error")]


async def test_if_both_fail_the_client_is_told() -> None:
    async with world([wait(0.3), DOWN], [DOWN]) as here:
        assert (await here.service.post(ask())).status_code == 502
        assert {end for _, end in await here.attempts()} == {"upstream_error"}


async def test_a_deployment_that_is_left_out_is_not_asked() -> None:
    is_asked = trio.Event()
    first = in_turn([quiet_after(is_asked), *good_answer("first")], [wait(0.3), *good_answer("first")])
    async with world([first], [note(is_asked), error(401)]) as here:
        assert [await here.answer() for _ in range(2)] == ["first", "first"]
        assert await here.attempts(0) == [("up", "OK"), ("up#2", "upstream_unauthorized")]
        assert await here.attempts(1) == [("up", "OK")]


@pytest.mark.parametrize("second", [STALLED, begun("Hel")], ids=["before any has begun", "in mid answer"])
async def test_a_client_that_leaves_closes_both(second: Sequence[Step]) -> None:
    async with world(STALLED, [*second, stall()]) as here:
        async with await RawClient.open(("127.0.0.1", here.service.port)) as client:
            await client.send(post_bytes(ask()))
            await here.second.request_received()
            if second is not STALLED:
                await client.read_until(b"Hel")
        await here.first.connection_closed()
        await here.second.connection_closed()
        record = await here.service.record()
        assert record["end"] == "DC"
        assert await here.attempts() == [("up", "given_up"), ("up#2", "given_up")]


async def test_an_answer_that_breaks_off_is_not_begun_again() -> None:
    async with world(STALLED, [*begun("Hel"), close()]) as here:
        response = await here.service.post(ask())
        folded = fold_stream(response.content)
        assert (folded.content, folded.error is not None) == ("Hel", True)
        assert (await here.attempts())[1] == ("up#2", "upstream_protocol")


async def test_only_the_requests_of_its_condition_are_hedged() -> None:
    first = in_turn(STALLED, [wait(0.3), *good_answer("first")])
    async with world([first], good_answer("second"), when="{stream: true}") as here:
        assert [await here.answer(stream=stream) for stream in (True, False)] == ["second", "first"]
        assert len(here.second.requests) == 1


async def test_a_hedged_answer_is_cached(tmp_path: Path) -> None:
    cache = f"{{use: cache, options: {{folder: {tmp_path / 'cache'}}}}}"
    async with world(STALLED, good_answer("second"), cache) as here:
        assert [await here.answer() for _ in range(2)] == ["second", "second"]
        assert len(here.second.requests) == 1


async def test_the_hedge_of_a_request_that_was_led_elsewhere_stays_there() -> None:
    steer = "{use: steer, options: {routes: {'@deep': deep}}}"
    async with (
        scripted_upstream(*STALLED) as slow,
        scripted_upstream(*good_answer("deep")) as quick,
        world(
            good_answer(),
            good_answer(),
            steer,
            models=model("deep", slow.url, order=1) + model("deep", quick.url, order=2),
        ) as here,
    ):
        assert await here.answer(input="Think @deep, please") == "deep"
        assert await here.attempts() == [("deep", "given_up"), ("deep#2", "OK")]
        assert here.first.requests == here.second.requests == []


async def test_nothing_is_left_open() -> None:
    async with world([in_turn(good_answer(), STALLED)], good_answer()) as here:
        await here.answer()  # a first one, for what remains open from then on
        await here.answer()
        tasks, files = await idle()
        for _ in range(5):
            await here.answer()
        assert await idle(tasks, files) == (tasks, files)


async def idle(*wanted: int) -> tuple[int, ...]:
    """Return how many tasks and files are open when nothing happens any more, or as soon as they are as ``wanted``."""
    now: tuple[int, ...] = ()
    with trio.move_on_after(PATIENCE_S):
        while not now or (wanted and now != wanted):
            await trio.testing.wait_all_tasks_blocked(QUIET_S)
            tasks = trio.lowlevel.current_statistics().tasks_living - alarm.tasks_living()
            now = tasks, len(os.listdir("/proc/self/fd"))
    return now
