"""Refusing new requests while the loop is overloaded."""

from __future__ import annotations

import json
import logging

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import CREATED, CURSOR, OPENAI_LIKE, ask, completed
from kit.engine.clocks import HandClock
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.running import KEY, serving
from kit.upstreams.scripted import sse

from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.shedding import LOG_PAUSE_S, Shedding
from pipeline.loop import Loop, current_loop

MS = 1_000_000
MAX_LAG_MS = 100


def work(loop: Loop, clock: HandClock, turn_ms: int) -> None:
    """Let a hundred turns of this length pass, one after the other."""
    for _ in range(100):
        loop.after_io_wait(0)
        clock.advance(turn_ms * MS)
        loop.before_io_wait(0)


def watched(shedding: Shedding) -> tuple[Loop, HandClock]:
    """Return a loop whose lag is watched, and its clock."""
    loop = Loop()
    loop.clock = clock = HandClock()
    shedding.watch(loop)
    return loop, clock


def test_requests_are_refused_as_long_as_the_lag_is_high() -> None:
    shedding = Shedding(MAX_LAG_MS)
    assert not shedding.is_due()  # no loop is watched
    loop, clock = watched(shedding)
    work(loop, clock, 90)
    assert not shedding.is_due()
    work(loop, clock, 160)
    assert shedding.is_due()
    work(loop, clock, 20)
    assert not shedding.is_due()


def test_a_limit_of_0_refuses_nobody() -> None:
    shedding = Shedding(0)
    work(*watched(shedding), 5_000)
    assert not shedding.is_due()


def test_refusals_are_counted_and_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    shedding = Shedding(MAX_LAG_MS)
    work(*watched(shedding), 160)
    with caplog.at_level(logging.WARNING, "headrace"):
        for now_s in (0.0, 0.1, LOG_PAUSE_S - 0.1, LOG_PAUSE_S):
            error = shedding.refuse(now_s)
    assert (error.code, shedding.total) == ("overloaded", 4)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(
        "overloaded: the loop is held for 160 ms at a time, and max_lag_ms is 100 (from half of it on, streams may "
        "grow only slowly): 1 requests refused"
    )
    assert ": 3 requests refused" in second


@pytest.mark.parametrize(("agent", "status", "retry_after"), [(OPENAI_LIKE, 503, b"1"), (CURSOR, 400, None)])
async def test_the_bridge_refuses_before_it_reads_the_body(
    agent: str, status: int, retry_after: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    shedding = Shedding(MAX_LAG_MS)
    loop, clock = watched(shedding)
    upstream = FakeUpstream(sse(CREATED), sse(completed("")))
    bridge, records = bridge_to(upstream, shedding=shedding)
    work(loop, clock, 160)
    browser = Browser(bridge, ask(), agent=agent, pieces=3, gap_s=3600)
    began = trio.current_time()
    await browser.ask()
    assert trio.current_time() == began
    assert (browser.status, browser.error["code"]) == (status, "overloaded")
    assert browser.headers.get(b"retry-after") == retry_after
    assert (records[0]["end"], upstream.calls) == ("OV", [])
    work(loop, clock, 1)
    later = Browser(bridge, ask(), agent=agent)
    await later.ask()
    assert later.status == 200


async def test_what_was_let_in_at_the_door_is_served(autojump_clock: trio.testing.MockClock) -> None:
    shedding = Shedding(MAX_LAG_MS)
    bridge, _ = bridge_to(FakeUpstream(sse(CREATED), sse(completed(""))), shedding=shedding)
    work(*watched(shedding), 160)
    browser = Browser(bridge, ask(), read_ns=(0, 0, 0), is_let_in=True)
    await browser.ask()
    assert browser.status == 200


async def test_the_service_takes_the_limit_from_its_configuration_and_refuses_chats_only() -> None:
    async with serving(pipeline="  max_lag_ms: 70") as service:
        loop = current_loop()
        assert loop.max_lag_ns == 70 * MS
        loop.clock = clock = HandClock()
        work(loop, clock, 200)
        shed = service.application.shed
        for path in ("/cursor/chat/completions", "/v1/chat/completions/", "/openai/deployments/gpt/chat/completions"):
            answer = shed(_head("POST", path, "origin: https://a.example\r\nx-request-id: mine\r\n"))
            assert answer is not None
            headers = dict(answer.headers)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
            assert (headers[b"retry-after"], headers[b"x-request-id"]) == (b"1", b"mine")
            assert headers[b"access-control-allow-origin"] == b"*"
            assert headers[b"content-length"] == b"%d" % len(answer.body)
        cursors = shed(_head("POST", "/cursor/chat/completions", f"user-agent: {CURSOR}\r\n"))
        assert cursors is not None
        assert cursors.status == 400  # it shows the text of no other
        assert shed(_head("GET", "/cursor/models")) is None
        assert shed(_head("POST", "/cursor/models")) is None
        assert (await service.get("/cursor/models")).status_code == 200
        refused = await service.post(ask(model="echo"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert service.records == []  # it was refused at the door
        work(loop, clock, 10)
        assert shed(_head("POST", "/v1/chat/completions")) is None
        assert (await service.post(ask(model="echo"), key=KEY)).status_code == 200


def _head(method: str, path: str, headers: str = "") -> RequestHead:
    return RequestHead(f"{method} {path} HTTP/1.1\r\nhost: t\r\n{headers}\r\n".encode())
