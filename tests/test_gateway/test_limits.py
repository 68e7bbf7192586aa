"""Limits end to end: keys, models of keys, deployments, and the requests that run at a time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import CREATED, CURSOR, OPENAI_LIKE, ask, completed, delta
from kit.clients.raw import RawClient
from kit.service.arounds import FunctionAround
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.config_texts import model, parse
from kit.service.contexts import deployment
from kit.service.limited_keys import key_of, limited_key
from kit.service.running import serving
from kit.time.patience import patiently
from kit.upstreams.scripted import sse
from msgspec.structs import replace

from pipeline import Plugin, UpstreamFault
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.config.load import ConfigError
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.generation import Generation
from stages.admission.counts import MAX_NAMES
from stages.admission.quota import Full, Taken
from stages.answer import Around, Next
from stages.limits import Limits
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, UpstreamCall

HELLO = sse(CREATED) + sse(delta("Hello"))
END = sse(completed("Hello"))  # with 5 tokens
DOWN = UpstreamFault("it is down", code="upstream_error", status_hint=500)
LONG = "x" * 500
"""100 tokens."""
REQUESTS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
TOKENS = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")


class Client(Browser):
    """A client with the key of a name, or the master key."""

    def __init__(self, bridge: Bridge, key: str | None = "alice", *, agent: str = OPENAI_LIKE, **fields: Any) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key_of(key)}"}
        super().__init__(bridge, ask(**fields), agent=agent, **headers)  # type: ignore[arg-type]  # only headers

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode())
        return None if value is None else value.decode()

    def shown(self, names: tuple[str, ...] = REQUESTS) -> list[str | None]:
        return [self.header(name) for name in names]


async def answered(bridge: Bridge, key: str | None = "alice", **more: Any) -> Client:
    client = Client(bridge, key, **more)
    await client.ask()
    return client


def limited(*names: str, model: str = "up", **limits: int) -> list[Deployment]:
    return [deployment(model, id=name, order=at, limits=Limits(**limits)) for at, name in enumerate(names)]


@pytest.mark.parametrize("stream", [True, False])
async def test_every_answer_shows_what_is_left_and_then_there_is_a_429(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    bridge, records = bridge_to(FakeUpstream(HELLO, END), keys=[limited_key("alice", rpm=2)])
    first = await answered(bridge, stream=stream)
    assert (first.status, first.shown()) == (200, ["2", "1", "61s"])
    await trio.sleep(10)
    second = await answered(bridge, stream=stream)
    assert (second.status, second.shown()) == (200, ["2", "0", "51s"])
    third = await answered(bridge, stream=stream)
    assert (third.status, third.shown()) == (429, ["2", "0", "51s"])
    assert third.error == {
        "message": "the API key 'alice' has had its 2 requests a minute (rpm): try again in 51 s",
        "type": third.error["type"],
        "param": None,
        "code": "rate_limited",
    }
    assert third.header("retry-after") == "51"
    assert [(one["end"], one["key"]) for one in records] == [("OK", "alice"), ("OK", "alice"), ("RL", "alice")]
    await trio.sleep(51)
    assert (await answered(bridge, stream=stream)).status == 200


async def test_cursor_gets_a_400_that_says_the_same(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=[limited_key("alice", rpm=1)])
    await answered(bridge, agent=CURSOR)
    refused = await answered(bridge, agent=CURSOR)
    assert (refused.status, refused.error["code"], refused.header("retry-after")) == (400, "rate_limited", "61")
    assert refused.shown() == ["1", "0", "61s"]


async def test_keys_have_limits_of_their_own_and_the_master_key_has_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, _ = bridge_to(
        FakeUpstream(HELLO, END), keys=[limited_key("alice", rpm=1), limited_key("bob", rpm=1), limited_key("carol")]
    )
    for key in ("alice", "bob"):
        assert [(await answered(bridge, key)).status for _ in range(2)] == [200, 429]
    for free in ("carol", None):
        clients = [await answered(bridge, free) for _ in range(3)]
        assert [(one.status, one.header(REQUESTS[0])) for one in clients] == [(200, None)] * 3


async def test_a_refused_request_is_refused_before_its_body_is_read(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=[limited_key("alice", rpm=1)])
    await answered(bridge)
    client = Client(bridge)
    client._parts = [b"{"] * 1000
    await client.ask()
    assert (client.status, len(client._parts)) == (429, 1000)


async def test_requests_at_a_time_end_in_whatever_way(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, 5, END), keys=[limited_key("alice", parallel=1)])
    async with trio.open_nursery() as nursery:
        first = Client(bridge)
        nursery.start_soon(first.ask)
        await trio.sleep(1)
        refused = await answered(bridge)
        assert (refused.status, refused.header("retry-after")) == (429, "1")
        assert "has 1 requests running" in refused.error["message"]
        first.disconnected.set()
        await trio.sleep(1)
        assert (await answered(bridge)).status == 200
    broken, _ = bridge_to(FakeUpstream(before_head=(DOWN,)), keys=[limited_key("alice", parallel=1)])
    assert [(await answered(broken)).status for _ in range(2)] == [502, 502]
    assert [(await answered(broken, model="none")).status for _ in range(2)] == [404, 404]


async def test_a_model_has_the_limits_of_the_key_or_else_those_that_its_deployment_gives_each_key(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keys = [limited_key("alice", {"up": Limits(rpm=1)}, rpm=10), limited_key("bob", rpm=10)]
    models = [
        deployment("up", id="up-1", key_limits=Limits(rpm=2, parallel=5)),
        deployment("up", id="up-2", key_limits=Limits(rpm=2, parallel=5)),
        deployment("other", id="other-1"),
    ]
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=keys, deployments=models)
    assert (await answered(bridge)).shown() == ["1", "0", "61s"]
    refused = await answered(bridge)
    assert (refused.status, refused.shown()) == (429, ["1", "0", "61s"])
    assert "the API key 'alice' with the model 'up' has had its 1 requests a minute" in refused.error["message"]
    assert (await answered(bridge, model="other")).shown() == ["10", "8", "61s"]  # the refused one does not count
    assert [(await answered(bridge, "bob")).shown()[1] for _ in range(3)] == ["1", "0", "0"]
    assert (await answered(bridge, "bob", model="other")).status == 200


async def test_a_variant_counts_as_its_model(autojump_clock: trio.testing.MockClock) -> None:
    keys = [limited_key("alice", {"gpt-5": Limits(rpm=1)})]
    models = [deployment("gpt-5", id="only")]
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=keys, deployments=models)
    assert (await answered(bridge, model="gpt-5-high")).status == 200
    assert (await answered(bridge, model="gpt-5")).status == 429


async def test_tokens_are_reserved_by_an_estimate_and_settled_by_what_was_used(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, 5, END), keys=[limited_key("alice", tpm=150)])
    async with trio.open_nursery() as nursery:
        first = Client(bridge, input=LONG)
        nursery.start_soon(first.ask)
        await trio.sleep(1)
        assert first.shown(TOKENS) == ["150", "50", "61s"]
        second = await answered(bridge, input=LONG)
        assert (second.status, second.shown(TOKENS)) == (429, ["150", "50", "60s"])
        assert "has had its 150 tokens a minute (tpm)" in second.error["message"]
    third = await answered(bridge, input=LONG)  # the first one has used 5
    assert (third.status, third.shown(TOKENS)[1]) == (200, "45")


async def test_tokens_that_nobody_has_used_are_returned_and_those_of_a_broken_answer_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    models = [deployment("up", id="only", limits=Limits(tpm=150))]
    down, _ = bridge_to(FakeUpstream(before_head=(DOWN,)), deployments=models)
    assert [(await answered(down, None, input=LONG)).status for _ in range(3)] == [502] * 3
    cut, _ = bridge_to(FakeUpstream(HELLO, DOWN), deployments=models)
    assert [(await answered(cut, None, input=LONG)).status for _ in range(2)] == [200, 429]


async def test_a_full_deployment_is_left_out_and_only_if_all_are_full_there_is_a_429(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = FakeUpstream(HELLO, END)
    bridge, records = bridge_to(upstream, deployments=limited("a", "b", rpm=2))
    clients = [await answered(bridge, None) for _ in range(5)]
    assert [one.status for one in clients] == [200, 200, 200, 200, 429]
    assert [call.deployment.id for call in upstream.calls] == ["a", "a", "b", "b"]
    assert [one.get("health") for one in records] == [
        None, None, {"full": ["a"]}, {"full": ["a"]}, {"full": ["a", "b"]}
    ]  # fmt: skip
    assert clients[4].error["message"] == (
        "all deployments of the model 'up' have reached their limits (the deployment a has had its 2 requests a minute "
        "(rpm); the deployment b has had its 2 requests a minute (rpm)): try again in 61 s"
    )
    assert clients[4].header("retry-after") == "61"
    assert clients[4].header(REQUESTS[0]) is None  # they are not the key's
    assert records[4]["end"] == "RL"
    await trio.sleep(61)
    assert (await answered(bridge, None)).status == 200


async def test_a_fallback_is_asked_before_anybody_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(HELLO, END)
    models = [*limited("a", rpm=1), *limited("b", model="other", rpm=1)]
    bridge, _ = bridge_to(upstream, deployments=models, routing=RoutingSettings(fallbacks={"up": ("other",)}))
    clients = [await answered(bridge, None) for _ in range(3)]
    assert [one.status for one in clients] == [200, 200, 429]
    assert [call.deployment.id for call in upstream.calls] == ["a", "b"]


async def test_a_fallback_after_windows_takes_one_place(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(HELLO, END)
    models = [deployment("up", id="a", max_input_tokens=10), *limited("b", model="other", rpm=2, parallel=1)]
    routing = RoutingSettings(context_window_fallbacks={"up": ("other",)}, checks_windows=True)
    bridge, _ = bridge_to(upstream, deployments=models, routing=routing)
    assert [(await answered(bridge, None, input=LONG)).status for _ in range(3)] == [200, 200, 429]


async def test_repetitions_count_for_the_deployment_and_not_again_for_the_key(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = FakeUpstream(before_head=(DOWN,))
    bridge, _ = bridge_to(
        upstream, deployments=limited("a", rpm=3, parallel=1), keys=[limited_key("alice", rpm=5)], retries=1
    )
    first = await answered(bridge)
    assert (first.status, first.shown()[1], len(upstream.calls)) == (502, "4", 2)
    second = await answered(bridge)  # there is one place left, and no second attempt
    assert (second.status, second.shown()[1], len(upstream.calls)) == (502, "3", 3)
    third = await answered(bridge)
    assert (third.status, third.shown()[1]) == (429, "2")
    assert (await answered(bridge)).shown()[1] == "2"  # who is refused does not count


async def test_a_failed_deployment_is_followed_by_one_with_room(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(before_head=(DOWN,))
    full, *others = limited("a", "b", "c", rpm=100)
    bridge, records = bridge_to(upstream, deployments=[full, replace(others[0], limits=Limits(rpm=0)), others[1]])
    await answered(bridge, None)
    assert [call.deployment.id for call in upstream.calls] == ["a", "c"]
    assert records[0]["health"]["full"] == ["b"]


def with_around(call: Any, upstream: FakeUpstream, **more: Any) -> tuple[Bridge, list[dict[str, Any]]]:
    made: Around = FunctionAround(call)
    return bridge_to(upstream, insertion=(None, Plugin("around", lambda options: made, kind="around")), **more)


async def test_a_call_from_around_uses_the_place_that_was_taken_for_it(autojump_clock: trio.testing.MockClock) -> None:
    async def once(call: UpstreamCall, next: Next) -> Any:
        async with next(call) as answer:
            yield answer

    upstream = FakeUpstream(HELLO, END)
    bridge, _ = with_around(once, upstream, deployments=limited("a", rpm=2, tpm=150, parallel=1))
    assert [(await answered(bridge, None, input=LONG)).status for _ in range(3)] == [200, 200, 429]


async def test_an_answer_that_needs_no_deployment_counts_for_none(autojump_clock: trio.testing.MockClock) -> None:
    async def never(call: UpstreamCall, next: Next) -> Any:
        raise UpstreamFault("not today", code="upstream_error")
        yield

    bridge, _ = with_around(never, FakeUpstream(HELLO, END), deployments=limited("a", rpm=1))
    assert [(await answered(bridge, None)).status for _ in range(3)] == [502] * 3


async def test_a_deployment_that_something_around_the_call_names_may_be_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    a, b = limited("a", "b", rpm=1)

    async def other(call: UpstreamCall, next: Next) -> Any:
        async with next(replace(call, deployment=b, model=b.model)) as answer:
            yield answer

    upstream = FakeUpstream(HELLO, END)
    bridge, records = with_around(other, upstream, deployments=[a, b])
    assert [(await answered(bridge, None)).status for _ in range(2)] == [200, 429]
    assert [call.deployment.id for call in upstream.calls] == ["b"]
    assert records[1]["error"] == "rate_limited"


async def test_row_52_requests_beyond_those_that_run_at_a_time_wait_and_then_get_a_503(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """More requests come than may run: some wait for their turn, the others get a 503 with Retry-After at once."""
    bridge, records = bridge_to(
        FakeUpstream(HELLO, 2, END), max_requests_in_flight=1, max_queued_requests=2, queue_timeout_s=3.0
    )
    clients = [Client(bridge, None) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.ask)
            await trio.testing.wait_all_tasks_blocked()
    assert [one.status for one in clients] == [200, 200, 503, 503]
    for refused in clients[2:]:
        assert (refused.error["code"], refused.header("retry-after")) == ("overloaded", "1")
    by_end = {record["total_ms"]: record for record in records}
    assert sorted(by_end) == [0, 2000, 3000, 4000]
    assert by_end[0]["end"] == by_end[3000]["end"] == "OV"
    waited = by_end[4000]
    assert (waited["points_ms"]["admitted"], waited["party_ms"]["ours"]) == (2000, 2000)
    assert "admitted" not in by_end[2000]["points_ms"]
    assert (await answered(bridge, None)).status == 200


async def test_who_waits_for_a_turn_and_is_refused_does_not_count(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(
        FakeUpstream(HELLO, 9, END),
        keys=[limited_key("alice", rpm=5)],
        max_requests_in_flight=1,
        queue_timeout_s=1.0,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Client(bridge, None).ask)
        await trio.testing.wait_all_tasks_blocked()
        assert [(await answered(bridge)).status for _ in range(3)] == [503] * 3
    assert (await answered(bridge)).shown()[1] == "4"


async def test_at_the_drain_deadline_those_that_wait_get_a_503_and_before_it_their_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, records = bridge_to(FakeUpstream(HELLO, 2, END), max_requests_in_flight=1, queue_timeout_s=60.0)
    clients = [Client(bridge, None) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.ask)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3)
        bridge.cut_off()
    assert [one.status for one in clients] == [200, 200, 503]
    assert clients[2].error["code"] == "draining"
    assert [record["end"] for record in records][-1] == "DR"
    bridge.is_over = False
    assert (await answered(bridge, None)).status == 200


async def test_a_client_that_leaves_the_queue_is_out_of_it_at_once() -> None:
    body = b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n"

    def change(settings: Settings) -> Settings:
        own = replace(settings.pipeline, max_requests_in_flight=1, max_queued_requests=1, queue_timeout_s=60.0)
        return replace(settings, pipeline=own, keys=(limited_key("alice", rpm=9),))

    async with serving(change=change) as service:
        turns = service.app.parts.admission.turns  # type: ignore[union-attr]  # it is configured
        assert turns is not None
        head = body % key_of("alice").encode()
        running = await RawClient.open(("127.0.0.1", service.port))
        await running.send(head)  # and never its body
        waiting = await RawClient.open(("127.0.0.1", service.port))
        with patiently():
            while turns._running.in_flight != 1:
                await trio.sleep(0.01)
            await waiting.send(head)
            while turns.waiting != 1:
                await trio.sleep(0.01)
            assert (await service.post(ask(model="echo"))).status_code == 503
            waiting.close()
            while turns.waiting != 0:
                await trio.sleep(0.01)
        assert (await service.record(1))["end"] == "DC"
        running.close()
        await service.record(2)
        answer = await service.post(ask(model="echo"), key=key_of("alice"))
        assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "7")


async def test_the_headers_come_through_the_real_server_for_both_kinds_of_answers() -> None:
    def change(settings: Settings) -> Settings:
        return replace(settings, keys=(limited_key("alice", rpm=3, tpm=1000),))

    async with serving(change=change) as service:
        for left, stream in ((2, True), (1, False)):
            answer = await service.post(ask(model="echo", stream=stream), key=key_of("alice"))
            assert answer.status_code == 200
            assert [answer.headers[name] for name in REQUESTS[:2]] == ["3", str(left)]
            assert int(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) in range(55, 62)
            assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
        wrong = await service.post(b"{", key=key_of("alice"))
        assert (wrong.status_code, wrong.headers["x-ratelimit-remaining-requests"]) == (400, "0")
        full = await service.post(ask(model="echo"), key=key_of("alice"))
        assert (full.status_code, full.headers["x-ratelimit-remaining-requests"]) == (429, "0")
        unlimited = await service.post(ask(model="echo"))
        assert "x-ratelimit-limit-requests" not in unlimited.headers


def generation(settings: Settings, before: Generation | None = None) -> Generation:
    return Generation(settings, plugins={}, on_end=lambda record: None, before=before)


def test_more_limits_than_can_be_counted_are_an_error_of_the_configuration() -> None:
    settings = parse(model("{model: canned/echo}"))
    many = replace(settings, keys=tuple(limited_key(str(number), rpm=1) for number in range(MAX_NAMES + 1)))
    with pytest.raises(ConfigError, match=r"config\.yaml: at most 16384 keys, pairs of a key and a model"):
        generation(many)


def test_without_limits_nothing_is_counted_and_another_generation_goes_on_with_the_same_counts() -> None:
    settings = parse(model("{model: canned/echo}"))
    plain = generation(settings)
    assert (plain.counts, plain.parts.admission, plain.deployments.router.quotas) == (None, None, {})
    [only] = settings.deployments
    first = generation(replace(settings, deployments=(replace(only, limits=Limits(rpm=2)),)))
    assert first.parts.admission is None  # only the deployment is limited
    assert isinstance(first.deployments.router.quotas[only.id].take(), Taken)
    second = generation(replace(settings, deployments=(replace(only, limits=Limits(rpm=1)),)), first)
    assert isinstance(second.deployments.router.quotas[only.id].take(), Full)
