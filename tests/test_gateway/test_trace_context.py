"""A request of a distributed trace: in its record, and upstream, over every API and both transports."""

from __future__ import annotations

import json
from collections.abc import Iterable

import httpx
import pytest
from kit.service.running import KEY, PLAIN, model, routed, serving
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import Received, error, in_turn, scripted_upstream

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


def is_child(received: Received) -> bool:
    """Return whether a call upstream belongs to the trace, and is not the client's own."""
    version, trace_id, parent_id, flags = received.headers["traceparent"].split("-")
    assert len(parent_id) == 16
    return (version, trace_id, flags) == ("00", TRACE_ID, "01") and parent_id != "00f067aa0ba902b7"


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
@pytest.mark.parametrize("api", ANSWERS)
async def test_the_upstream_gets_the_trace(api: str, transport: str) -> None:
    answer = ANSWERS[api]
    async with scripted_upstream(answer.whole()) as up:
        models = model("up", up.url, upstream=answer.upstream)
        async with serving(models, f"  transport: {transport}") as service:
            body = {"model": "up", "stream": True, "input": "hello"}
            for headers in ({}, {"traceparent": PARENT}, {"traceparent": PARENT, "tracestate": STATE}):
                assert (await service.post(body, **headers)).status_code == 200
            large = {**body, "input": "x" * 1_500_000}
            assert (await service.post(large, traceparent=PARENT, tracestate=STATE)).status_code == 200
            plain, without_state, with_state, of_large = [up.requests[at] for at in range(4)]
            assert not {"traceparent", "tracestate"} & plain.headers.keys()
            assert is_child(without_state)
            assert "tracestate" not in without_state.headers
            assert is_child(with_state)
            assert with_state.headers["tracestate"] == STATE
            assert with_state.headers["traceparent"] != without_state.headers["traceparent"]
            assert is_child(of_large)
            assert len(of_large.body) > 1_500_000
            assert plain.headers.keys() == with_state.headers.keys() - {"traceparent", "tracestate"}
            records = [await service.record(at) for at in range(4)]
            assert [record.get("trace_id") for record in records] == [None, TRACE_ID, TRACE_ID, TRACE_ID]


async def test_each_attempt_is_a_call_of_its_own() -> None:
    answer = ANSWERS["responses"]
    async with scripted_upstream(in_turn([error(503)], [answer.whole()])) as up:
        async with serving(model("up", up.url), config=routed("{num_retries: 1, retry_after: 0}")) as service:
            await service.post({"model": "up", "stream": True, "input": "hello"}, traceparent=PARENT)
    first, second = up.requests
    assert is_child(first)
    assert is_child(second)
    assert first.headers["traceparent"] != second.headers["traceparent"]


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "00-none"), ("tracestate", STATE)],
        [("tracestate", STATE)],
        [("traceparent", PARENT), ("traceparent", PARENT.replace("4bf", "5bf")), ("tracestate", STATE)],
    ],
)
async def test_what_is_not_valid_is_ignored_and_no_trace_is_begun(headers: Iterable[tuple[str, str]]) -> None:
    async with scripted_upstream(ANSWERS["responses"].whole()) as up, serving(model("up", up.url)) as service:
        await post(service.url, headers)
        [received] = up.requests
        assert not {"traceparent", "tracestate"} & received.headers.keys()
        assert "trace_id" not in await service.record()


async def test_a_state_in_several_headers_is_one_list() -> None:
    async with scripted_upstream(ANSWERS["responses"].whole()) as up, serving(model("up", up.url)) as service:
        await post(service.url, [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("tracestate", "c=3")])
        assert up.requests[0].headers["tracestate"] == "a=1,b=2,c=3"


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_a_deployment_keeps_a_trace_of_its_own(transport: str) -> None:
    own = PARENT.replace("4bf", "5bf")
    async with scripted_upstream(ANSWERS["responses"].whole()) as up:
        models = model("up", up.url, extra_headers={"traceparent": own})
        async with serving(models, f"  transport: {transport}") as service:
            await service.post({"model": "up", "stream": True, "input": "hello"}, traceparent=PARENT)
    assert up.requests[0].headers["traceparent"] == own


async def test_a_request_that_is_refused_has_the_trace_in_its_record() -> None:
    async with serving() as service:
        assert (await service.post({}, key=None, traceparent=PARENT)).status_code == 401
        assert (await service.record())["trace_id"] == TRACE_ID


async def post(url: str, headers: Iterable[tuple[str, str]]) -> None:
    """Post a request with these headers, of which some may have the same name."""
    content = json.dumps({"model": "up", "stream": True, "input": "hello"}).encode()
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False, verify=PLAIN) as client:
        own = [("authorization", f"Bearer {KEY}"), *headers]
        assert (await client.post("/v1/chat/completions", content=content, headers=own)).status_code == 200
