"""The record on our own server, in real time: it knows when a request arrived and what its socket accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.raw import RawClient
from kit.service.certificates import issue
from kit.service.records import ROUNDED_MS, assert_sums
from kit.service.running import model, serving
from kit.time.stamps import HELD_NS, hold_the_loop
from kit.upstreams.chat_stream import chunk
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import Step, end, events, scripted_upstream, sse, sse_head

from pipeline.kernel_time import MAX_DRIFT_NS

HELD_MS = (HELD_NS - MAX_DRIFT_NS) / 1e6
ECHO = {"model": "echo", "input": "Hello there"}
PAUSE_S = 0.5
LAST_CHUNK = b"0\r\n\r\n"
MEGABYTE = sse(chunk({"content": "x" * (1 << 20)}))
"""Sixteen of them are much more than the sockets between us and a client hold."""


@pytest.mark.usefixtures("kernel_stamps")
async def test_a_request_that_waits_for_a_busy_loop_counts_from_its_arrival() -> None:
    async with serving() as service, await RawClient.open(("127.0.0.1", service.port)) as client:
        for number in range(2):  # a new connection, and a kept one
            await client.send(post_bytes({**ECHO, "stream": False}))
            hold_the_loop()
            assert (await client.read_answer()).status == 200
            record = await service.record(number)
            assert_sums(record)
            assert record["before_ms"] == record["points_ms"]["head_read"]
            assert HELD_MS <= record["before_ms"] <= record["first_byte_ms"] <= record["total_ms"]
            assert record["party_ms"]["ours"] >= HELD_MS


@pytest.mark.parametrize("stream", [True, False])
async def test_over_tls_the_arrival_is_unknown(tmp_path: Path, stream: bool) -> None:
    certificate = issue(tmp_path)
    async with serving(certificate=certificate) as service:
        async with await RawClient.open(("127.0.0.1", service.port), tls=certificate.trusting) as client:
            await client.send(post_bytes({**ECHO, "stream": stream}))
            assert (await client.read_answer()).status == 200
        record = await service.record()
    assert_sums(record)
    assert record["before_ms"] is None
    assert 0 <= record["points_ms"]["head_read"] <= record["first_byte_ms"] <= record["total_ms"]


async def test_a_request_whose_head_comes_in_parts_waits_for_its_client() -> None:
    async with serving() as service, await RawClient.open(("127.0.0.1", service.port)) as client:
        request = post_bytes({**ECHO, "stream": False})
        await client.send(request[:40])
        await trio.sleep(PAUSE_S)
        await client.send(request[40:])
        assert (await client.read_answer()).status == 200
        record = await service.record()
    assert_sums(record)
    assert record["party_ms"]["client"] >= PAUSE_S * 900
    assert record["points_ms"]["head_read"] >= PAUSE_S * 900


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])
@pytest.mark.parametrize("execution", ["fused", "tasks"])
async def test_a_client_that_pauses_has_its_first_byte_long_before_the_last(stream: bool, execution: str) -> None:
    answer = ANSWERS["chat"]
    script: tuple[Step, ...] = (sse_head(), events([*[MEGABYTE] * 16, *answer.finish, *answer.end]), end())
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url, upstream=answer.upstream), f"  execution: {execution}") as service,
    ):
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(post_bytes(ask(stream=stream)))
            head = await client.read_head()
            await trio.sleep(PAUSE_S)
            left = int(head.headers.get("content-length", 1 << 40)) - len(client.buffer)
            tail = client.buffer[-len(LAST_CHUNK) :]
            while left and tail != LAST_CHUNK:
                part = await client.read_some()
                left -= len(part)
                tail = (tail + part)[-len(LAST_CHUNK) :]
        record = await service.record()
    assert_sums(record)
    assert record["end"] == "OK"
    points_ms = record["points_ms"]
    assert record["first_byte_ms"] + PAUSE_S * 900 <= points_ms["last_byte_out"] <= record["total_ms"] + ROUNDED_MS
    assert record["first_token_ms"] >= record["first_byte_ms"]
    assert record["party_ms"]["client"] >= PAUSE_S * 900
    assert record["transit_ms"]["max"] >= PAUSE_S * 900
