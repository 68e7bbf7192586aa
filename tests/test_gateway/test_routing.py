"""Routing through the real server: what fails is asked elsewhere, and a conversation keeps its deployment."""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import CREATED, ask, begun, delta, failed_event, good_answer, post_bytes
from kit.clients.raw import RawClient
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.running import Service, model, routed, serving
from kit.upstreams.scripted import end, error, events, in_turn, json_answer, scripted_upstream, sse_head, stall, wait

from pipeline import Host, Plugin, UpstreamFault, codec_stage, per_event
from pipeline.registry import AnyPlugin, NoOptions
from stages.answer import Answer, Next
from stages.events import Failed, StreamEvent
from stages.routing.router import Route
from stages.upstreams import UpstreamCall

DEAD = "http://127.0.0.1:1/v1"


async def asked(service: Service, count: int, *, at_once: int = 8, stream: bool = True) -> Counter[int]:
    """Ask in conversations of their own, and return how often there was which status."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(count))

    async def keep_asking() -> None:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            for number in numbers:
                await client.send(post_bytes(ask(input=f"Question {number}", stream=stream)))
                statuses[(await client.read_answer()).status] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(keep_asking)
    return statuses


def attempts_at(service: Service, id: str) -> int:
    """Return how often a deployment was asked."""
    return sum(
        sum(attempt["deployment"] == id for attempt in record["attempts"])
        if "attempts" in record
        else record["deployment"] == id
        for record in service.records
    )


def named(id: str, url: str, name: str = "up", **params: Any) -> str:
    """Return an entry of ``model_list`` with an id."""
    fields = {"model": "openai/gpt-5", "api_base": url, "api_key": "sk-upstream", **params}
    return f"  - {json.dumps({'model_name': name, 'litellm_params': fields, 'model_info': {'id': id}})}\n"


@pytest.mark.parametrize("stream", [True, False])
async def test_with_one_dead_of_two_every_request_is_answered(stream: bool) -> None:
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(named("dead", DEAD) + named("alive", upstream.url), config=routed("{}")) as service,
    ):
        statuses = await asked(service, 100, stream=stream)
        assert statuses == {200: 100}
        await service.record(99)
        assert attempts_at(service, "dead") <= 3 + 8
        assert attempts_at(service, "alive") == 100


@pytest.mark.parametrize(("is_refused", "cooldown_s"), [(True, 5), (False, 0.2)], ids=["refused", "503"])
async def test_a_dead_one_is_asked_a_few_times_and_then_once_per_cool_down(is_refused: bool, cooldown_s: float) -> None:
    async with scripted_upstream(error(503)) as down, scripted_upstream(*good_answer()) as upstream:
        models = named("dead", DEAD if is_refused else down.url) + named("alive", upstream.url)
        async with serving(models, config=routed(f"{{cooldown_time: {cooldown_s}}}")) as service:
            began_s = trio.current_time()
            statuses = await asked(service, 1000, at_once=8)
            took_s = trio.current_time() - began_s
            await service.record(999)
            assert statuses[200] >= 999
            probes = int(math.log2(took_s / cooldown_s + 1))  # each cool-down is twice as long as the one before
            assert 4 <= attempts_at(service, "dead") <= 3 + 8 + probes
            assert attempts_at(service, "alive") == statuses[200]
            arrivals = [request.at for request in down.requests]
            assert sum(later - earlier < cooldown_s for earlier, later in pairwise(arrivals)) <= 3 + 8


@pytest.mark.parametrize("failing_s", [0, 3.0], ids=["at once", "after a while"])
async def test_with_both_dead_hardly_more_is_asked_and_each_client_is_told_in_time(
    failing_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    down = UpstreamFault("it is down", code="upstream_error", status_hint=503)
    upstream = FakeUpstream(before_head=(failing_s, down))
    bridge, _ = bridge_to(upstream, count=2, retries=2, kind="chat", request_timeout_s=30)
    took_s: list[float] = []

    async def one(number: int) -> None:
        await trio.sleep(number / 100)  # 100 per second, in virtual time
        began_s = trio.current_time()
        browser = Browser(bridge, ask(input=f"Question {number}"))
        await browser.ask()
        assert (browser.status, browser.error["code"]) == (502, "upstream_error")
        took_s.append(trio.current_time() - began_s)

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(one, number)
    assert len(upstream.calls) <= 1.1 * len(took_s)
    assert max(took_s) <= 30


async def test_the_record_and_the_head_have_every_attempt() -> None:
    async with (
        scripted_upstream(error(503)) as down,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("first", down.url, order=1) + named("second", upstream.url, order=2), config=routed("{}")
        ) as service,
    ):
        answer = await service.post(ask())
        assert fold_stream(answer.content).content == "Hello"
        assert (answer.headers["x-headrace-deployment"], answer.headers["x-headrace-attempts"]) == ("second", "2")
        record = await service.record()
    first, second = record["attempts"]
    assert (first["deployment"], first["end"], second["deployment"], second["end"]) == (
        "first", "upstream_error", "second", "OK"
    )  # fmt: skip
    assert "call_upstream" in first["lanes"]
    assert (record["end"], record["deployment"]) == ("OK", "second")


async def test_one_that_limits_the_rate_is_asked_again_when_it_says() -> None:
    limited = error(429, headers=[("retry-after-ms", "300")])
    async with (
        scripted_upstream(in_turn((limited,), good_answer())) as upstream,
        serving(named("only", upstream.url), config=routed("{}")) as service,
    ):
        answer = await service.post(ask())
        assert (answer.status_code, answer.headers["x-headrace-attempts"]) == (200, "2")
        first, second = upstream.requests
        assert second.at - first.at >= 0.3
        attempts = (await service.record())["attempts"]
    assert [attempt.get("upstream_status") for attempt in attempts] == [429, None]
    assert (attempts[1]["reason"], attempts[1]["pause_ms"] >= 300) == ("repeated", True)


async def test_one_that_limits_the_rate_for_long_is_left_out_and_alone_given_up() -> None:
    limited = error(429, headers=[("retry-after", "90")])
    async with (
        scripted_upstream(limited) as slow,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("slow", slow.url, order=1)
            + named("quick", upstream.url, order=2)
            + named("alone", slow.url, name="alone"),
            config=routed("{}"),
        ) as service,
    ):
        for _ in range(3):
            assert (await service.post(ask())).status_code == 200
        assert (len(slow.requests), len(upstream.requests)) == (1, 3)
        refused = await service.post(ask("alone"))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "90")
        assert len(slow.requests) == 2


async def test_another_model_answers_if_all_of_one_fail() -> None:
    models = named("first", DEAD) + named("other", "{url}", name="spare")
    async with scripted_upstream(*good_answer()) as upstream:
        settings = '{num_retries: 0, fallbacks: [{up: ["spare"]}]}'
        async with serving(models.replace("{url}", upstream.url), config=routed(settings)) as service:
            answer = await service.post(ask())
            assert (answer.status_code, answer.headers["x-headrace-deployment"]) == (200, "other")
            assert json.loads(answer.content.split(b"data: ")[1])["model"] == "up"
            first, second = (await service.record())["attempts"]
            assert ("reason" in first, second["reason"]) == (False, "fallback")


async def test_if_all_fail_the_last_failure_is_told_at_once() -> None:
    settings = "{num_retries: 1}"
    async with serving(named("a", DEAD) + named("b", DEAD), config=routed(settings)) as service:
        answer = await service.post(ask())
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        record = await service.record()
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_unreachable"] * 3


async def test_a_deployment_is_back_when_the_request_that_tries_it_has_its_first_token() -> None:
    first = in_turn((error(503),), (*begun("Hello"), stall()), good_answer())
    async with (
        scripted_upstream(first) as returning,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("first", returning.url, order=1) + named("second", upstream.url, order=2),
            config=routed("{allowed_fails: 0, cooldown_time: 0}"),
        ) as service,
        await RawClient.open(("127.0.0.1", service.port)) as trying,
    ):
        assert (await service.post(ask())).headers["x-headrace-deployment"] == "second"
        await trying.send(post_bytes(ask(stream=True)))
        await trying.read_until(b"Hello")
        assert (await service.post(ask())).headers["x-headrace-deployment"] == "first"


async def test_what_a_client_that_does_not_stream_has_not_seen_is_asked_again_and_forgotten() -> None:
    breaking = (sse_head(), events([CREATED, delta("Hel"), failed_event("server_error", "it broke")]), end())
    async with (
        scripted_upstream(*breaking) as first,
        scripted_upstream(*good_answer()) as second,
        serving(
            named("first", first.url, order=1) + named("second", second.url, order=2), config=routed("{}")
        ) as service,
    ):
        answer = await service.post(ask(stream=False))
        assert fold_document(answer.content).content == "Hello"
        record = await service.record()
        points, (_, attempt) = record["points_ms"], record["attempts"]
        for point in ("first_event", "first_token", "first_output_token", "upstream_end"):
            assert points[point] >= attempt["began_ms"]


async def test_what_the_upstream_refuses_is_not_asked_again() -> None:
    async with (
        scripted_upstream(error(400)) as upstream,
        serving(model("up", upstream.url), config=routed("{}")) as service,
    ):
        assert (await service.post(ask())).status_code == 400
        assert len(upstream.requests) == 1


async def test_a_conversation_keeps_its_deployment() -> None:
    async with (
        scripted_upstream(*good_answer()) as one,
        scripted_upstream(*good_answer()) as two,
        serving(named("one", one.url) + named("two", two.url), config=routed("{}")) as service,
    ):
        chosen: dict[str, set[str]] = {}
        for number in range(24):
            chat = f"chat {number % 6}"
            body = {**ask(input=f"Turn {number}"), "metadata": {"cursorConversationId": chat}}
            answer = await service.post(body)
            chosen.setdefault(chat, set()).add(answer.headers["x-headrace-deployment"])
        assert all(len(deployments) == 1 for deployments in chosen.values())


class PassOn:
    """An around that does nothing."""

    name = "pass_on"

    def call(self, call: UpstreamCall, next: Next, /) -> AbstractAsyncContextManager[Answer]:
        return next(call)


async def test_what_something_around_the_call_asks_is_routed_too() -> None:
    plugin: AnyPlugin = Plugin("pass_on", lambda _: PassOn(), NoOptions, kind="around")
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("first", DEAD, order=1) + named("second", upstream.url, order=2),
            "  stages: [{use: pass_on}]",
            plugins={"pass_on": plugin},
            config=routed("{}"),
        ) as service,
    ):
        for stream in (True, False):
            answer = await service.post(ask(stream=stream))
            assert answer.status_code == 200
            attempts = (await service.record(0 if stream else 1))["attempts"]
            assert [(attempt["deployment"], attempt["end"]) for attempt in attempts] == [
                ("first", "upstream_unreachable"),
                ("second", "OK"),
            ]


async def test_a_failure_after_a_comment_is_asked_elsewhere_in_the_same_response() -> None:
    async with (
        scripted_upstream(wait(0.3), error(503)) as slow,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("slow", slow.url, order=1) + named("quick", upstream.url, order=2),
            "  keep_alive_interval_s: 0.05",
            config=routed("{}"),
        ) as service,
    ):
        answer = await service.post(ask())
        assert answer.content.startswith(b": ")
        folded = fold_stream(answer.content)
        assert (folded.content, folded.is_done, folded.error) == ("Hello", True, None)


async def test_the_record_says_what_health_did_to_a_request_and_nothing_if_it_did_nothing() -> None:
    async with (
        scripted_upstream(error(401)) as refusing,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("first", refusing.url, order=1) + named("second", upstream.url, order=2),
            config=routed("{cooldown_time: 60}"),
        ) as service,
    ):
        for _ in range(2):
            assert (await service.post(ask())).status_code == 200
        assert (await service.record())["health"] == {"newly_ejected": ["first"]}
        assert (await service.record(1))["health"] == {"ejected": ["first"]}
        assert "attempts" not in await service.record(1)
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(named("first", upstream.url), config=routed("{}")) as service,
    ):
        await service.post(ask())
        assert "health" not in await service.record()


class Moving:
    """Sends each call to another deployment."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def feed(self, batch: list[UpstreamCall], /) -> list[UpstreamCall]:
        return [call.at(self._host.deployments["other"]) for call in batch]

    def flush(self) -> list[UpstreamCall]:
        return []


@asynccontextmanager
async def moving(options: NoOptions, host: Host) -> AsyncIterator[Any]:
    yield codec_stage("move", lambda ctx: Moving(host), codec=Moving)


async def test_what_a_stage_has_chosen_is_whose_failure_counts() -> None:
    plugin: AnyPlugin = Plugin("move", serve=moving, accepts=UpstreamCall, emits=UpstreamCall)
    async with (
        scripted_upstream(error(429)) as limited,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("own", upstream.url) + named("other", limited.url, name="else"),
            "  stages: [{use: move, at: call}]",
            plugins={"move": plugin},
        ) as service,
    ):
        assert (await service.post(ask())).status_code == 429
        health = service.app.deployments.router.health
        assert (health["own"].ejections, health["other"].ejections, len(upstream.requests)) == (0, 1, 0)
        await service.record()
        assert not any(one.in_flight for one in health.values())


@per_event
def refusing(event: StreamEvent) -> Iterator[StreamEvent]:
    raise UpstreamFault("not this one", code="upstream_rejected")
    yield event


async def test_what_an_added_stage_fails_with_is_not_the_deployments_failure() -> None:
    plugin: AnyPlugin = Plugin("refusing", lambda _: refusing, NoOptions, StreamEvent, StreamEvent)
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(
            model("up", upstream.url),
            "  stages: [{use: refusing, at: events}]",
            plugins={"refusing": plugin},
            config=routed("{}"),
        ) as service,
    ):
        for stream in (True, False):
            assert (await service.post(ask(stream=stream))).json()["error"]["code"] == "upstream_rejected"
        health = service.app.deployments.router.health["up"]
        assert (len(upstream.requests), health.last_minute(trio.current_time()).get("bad_request")) == (2, None)


class Refuse:
    """Answers with a failure of its own."""

    name = "refuse"

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncIterator[Answer]:
        yield Answer.of_events(call, [Failed("overloaded", "the budget is used up")])


async def test_what_something_around_the_call_answers_itself_is_nobodys_failure() -> None:
    plugin: AnyPlugin = Plugin("refuse", lambda _: Refuse(), NoOptions, kind="around")
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), "  stages: [{use: refuse}]", plugins={"refuse": plugin}) as service,
    ):
        for _ in range(5):
            assert (await service.post(ask())).json()["error"]["message"] == "the budget is used up"
        health = service.app.deployments.router.health["up"]
        assert (len(upstream.requests), health.ejections) == (0, 0)


async def test_fallbacks_are_those_of_the_name_that_was_asked_for() -> None:
    settings = {
        "num_retries": 0,
        "fallbacks": [{"any/gpt-5": ["spare"]}, {"alias": ["spare"]}],
        "model_group_alias": {"alias": "any/x"},
    }
    async with (
        scripted_upstream(error(500)) as down,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("down", down.url, name="any/*", model="openai/*") + named("spare", upstream.url, name="spare"),
            config=routed(json.dumps(settings)),
        ) as service,
    ):
        for name, status in (("any/gpt-5", 200), ("alias", 200), ("any/other", 502)):
            assert (await service.post({**ask(), "model": name})).status_code == status


plain_and_around = pytest.mark.parametrize("stages", ["", "  stages: [{use: pass_on}]"], ids=["plain", "around"])
PASSING: dict[str, AnyPlugin] = {"pass_on": Plugin("pass_on", lambda _: PassOn(), NoOptions, kind="around")}


@plain_and_around
async def test_if_the_fallback_fails_too_the_client_is_told_what_its_own_model_has_failed_with(stages: str) -> None:
    body = {"error": {"code": "context_length_exceeded", "message": "too long"}}
    async with (
        scripted_upstream(json_answer(body, 400)) as first,
        scripted_upstream(error(401)) as spare,
        serving(
            named("first", first.url) + named("spare", spare.url, name="spare"),
            stages,
            plugins=PASSING,
            config=routed("{context_window_fallbacks: [{up: [spare]}]}"),
        ) as service,
    ):
        answer = await service.post(ask())
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert (len(spare.requests), answer.headers["x-headrace-attempts"]) == (1, "2")


@plain_and_around
async def test_a_fallback_that_has_no_form_for_the_request_is_passed_over(stages: str) -> None:
    compacted = [{"type": "compaction", "encrypted_content": "x"}, {"role": "user", "content": "Go on"}]
    async with (
        scripted_upstream(error(429)) as first,
        scripted_upstream(*good_answer()) as chat,
        scripted_upstream(*good_answer()) as last,
    ):
        models = named("first", first.url) + named("chat", chat.url, name="chat", model="deepseek/x")
        for fallbacks, status in (("[chat]", 429), ("[chat, last]", 200)):
            async with serving(
                models + named("last", last.url, name="last"),
                stages,
                plugins=PASSING,
                config=routed(f"{{num_retries: 0, fallbacks: [{{up: {fallbacks}}}]}}"),
            ) as service:
                assert (await service.post(ask(input=compacted))).status_code == status
        assert chat.requests == []


async def test_an_id_with_odd_characters_is_escaped_in_the_header() -> None:
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(named("a\r\nx-evil: é", upstream.url)) as service,
    ):
        answer = await service.post(ask())
        assert (answer.status_code, "x-evil" in answer.headers) == (200, False)
        assert answer.headers["x-headrace-deployment"] == r"a\r\nx-evil: \xe9"
        await service.record()
        assert service.app.deployments.router.health["a\r\nx-evil: é"].in_flight == 0


@pytest.mark.parametrize("stream", [True, False])
@plain_and_around
async def test_what_a_request_has_held_is_freed_without_the_collector(stream: bool, stages: str) -> None:
    async with (
        scripted_upstream(error(500)) as down,
        scripted_upstream(*good_answer()) as upstream,
        serving(
            named("first", down.url) + named("second", upstream.url, name="spare"),
            stages,
            plugins=PASSING,
            config=routed("{num_retries: 0, disable_cooldowns: true, fallbacks: [{up: [spare]}]}"),
        ) as service,
    ):

        def held() -> int:
            return sum(isinstance(one, Route | UpstreamFault) for one in gc.get_objects())

        await service.post(ask(stream=stream))
        await service.record()
        gc.collect()
        gc.disable()
        before = held()
        try:
            for number in range(5):
                await service.post(ask(stream=stream))
                await service.record(number + 1)
            assert held() <= before + 1  # the last request may not be over
        finally:
            gc.enable()
