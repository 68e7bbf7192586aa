"""Where the time went, as the client is told: in the head of a document, and in the last comment of a stream."""

from __future__ import annotations

import re

import pytest
import trio.testing
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import AGENTS, CREATED, OPENAI_LIKE, ask, completed, delta
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.running import serving
from kit.upstreams.scripted import sse

from pipeline import UpstreamFault
from pipeline.gateway.server_timing import ServerTiming

HELLO = sse(CREATED) + sse(delta("Hello"))
END = sse(completed("Hello"))
BOTH = ServerTiming(in_heads=True, in_comments=True)
HEADS = ServerTiming(in_heads=True, in_comments=False)
ANSWER = FakeUpstream(HELLO, 3.0, END, before_head=(5.0,))
"""Its first event comes after 5 s, its end 3 s later."""
TOLD = b"client;dur=0.000, ours;dur=0.000, upstream;dur=8000.000, first_event;dur=5000.000"


async def test_a_document_says_it_in_its_head(autojump_clock: trio.testing.MockClock) -> None:
    bridge, records = bridge_to(ANSWER, timing=HEADS)
    browser = Browser(bridge, ask(stream=False))
    await browser.ask()
    assert browser.headers[b"server-timing"] == TOLD
    assert fold_document(browser.body).content == "Hello"
    assert records[0]["party_ms"]["upstream"] == 8000


async def test_an_error_says_it_as_far_as_it_is_known(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(before_head=(2.0, UpstreamFault("it is down"))), timing=BOTH)
    browser = Browser(bridge, ask())
    await browser.ask()
    assert browser.status == 502
    assert browser.headers[b"server-timing"] == b"client;dur=0.000, ours;dur=0.000, upstream;dur=2000.000"
    assert browser.error["message"] == "it is down"
    assert b": server-timing" not in browser.body


async def test_it_is_off_unless_somebody_is_to_be_told() -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END))
    for stream in (True, False):
        browser = Browser(bridge, ask(stream=stream))
        await browser.ask()
        assert b"server-timing" not in browser.headers
        assert b"server-timing" not in browser.body


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_stream_says_it_in_its_last_comment_and_is_the_same_without_it(
    agent: str, autojump_clock: trio.testing.MockClock
) -> None:
    bodies: list[bytes] = []
    for timing, asked in ((HEADS, "0"), (HEADS, "1"), (BOTH, "0")):
        bridge, records = bridge_to(ANSWER, timing=timing, keep_alive_interval_s=0)
        browser = Browser(bridge, ask(), agent=agent, x_headrace_server_timing=asked, x_request_id="r1")
        await browser.ask()
        assert b"server-timing" not in browser.headers
        assert records[0]["bytes"] == len(browser.body)
        bodies.append(re.sub(rb'"created":\d+', b'"created":0', browser.body))
    plain, asked_for, for_all = bodies
    assert asked_for == for_all
    comment = b": server-timing %b\n\n" % TOLD
    assert asked_for.endswith(comment + b"data: [DONE]\n\n")
    assert asked_for.replace(comment, b"") == plain
    assert fold_stream(asked_for).content == "Hello"


async def test_a_stream_that_breaks_off_ends_with_the_comment(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, 4.0, UpstreamFault("it broke")), timing=BOTH)
    browser = Browser(bridge, ask(), agent=OPENAI_LIKE)
    await browser.ask()
    folded = fold_stream(browser.body)
    assert folded.error is not None
    assert browser.body.endswith(b"upstream;dur=4000.000, first_event;dur=0.000\n\n")


async def test_the_running_service_tells_by_its_settings() -> None:
    body = {"model": "echo", "input": "hello"}
    told = r"client;dur=[\d.]+, ours;dur=[\d.]+, upstream;dur=[\d.]+, first_event;dur=[\d.]+"
    async with serving() as service:
        answer = await service.post(body)
        assert re.fullmatch(told, answer.headers["server-timing"])
        assert "server-timing" in answer.headers["access-control-expose-headers"]
        assert "server-timing" not in (await service.post({**body, "stream": True})).text
        asked = await service.post({**body, "stream": True}, x_headrace_server_timing="1")
        assert re.search(rf"\n\n: server-timing {told}\n\ndata: \[DONE\]\n\n$", asked.text)
        refused = await service.post(body, key="sk-unknown-key-0123456789")
        assert "server-timing" not in refused.headers  # it would say how long a wrong key took
        failed = await service.post({**body, "model": "unknown"})
        assert failed.headers["server-timing"].startswith("client;dur=")
    async with serving(pipeline="  server_timing: false\n  server_timing_comment: true") as service:
        assert "server-timing" not in (await service.post(body)).headers
        assert ": server-timing client" in (await service.post({**body, "stream": True})).text
