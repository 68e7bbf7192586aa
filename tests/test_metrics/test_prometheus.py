"""A real Prometheus scrapes two workers under load, and one of them is killed: every request stays accounted for."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held, open_stream, read_body
from kit.clients.raw import RawClient
from kit.metrics.prometheus import prometheus
from kit.needs import PROMETHEUS, needs
from kit.service.command import configured, headrace_serve
from kit.service.running import model
from kit.time.patience import patiently, patiently_with_processes
from kit.upstreams.scripted import scripted_upstream

pytestmark = [needs(PROMETHEUS), pytest.mark.timeout(300)]

MONITOR = "sk-monitor-key-0123456789"
STREAMS = 24
SENDERS = 6
ALL = "sum(headrace_requests_total) + sum(headrace_in_flight) + sum(headrace_requests_lost_total)"


class Load:
    """Clients that send short requests all the time.

    Attributes:
        sent: requests of which at least the head of an answer has come; so a worker has begun them.
    """

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._open = trio.Event()
        self._running = 0
        self._idle = trio.Event()
        self.sent = 0
        self.refused = 0

    async def send_on(self, number: int) -> None:
        """Send one after another, each on a new connection; every fourth of them asks for an unknown model."""
        while True:
            await self._open.wait()
            self._running += 1
            number += 1
            is_wrong = number % 4 == 0
            async with await RawClient.open(self._address) as client:
                await client.send(post_bytes(ask("unknown" if is_wrong else "echo", stream=False)))
                answer = await client.read_answer()
            assert answer.status == (404 if is_wrong else 200)
            self.sent += 1
            self.refused += is_wrong
            self._running -= 1
            if not self._running:
                self._idle.set()

    def resume(self) -> None:
        self._open.set()

    async def pause(self) -> None:
        """Send nothing more, and wait until all requests have their answers."""
        self._open = trio.Event()
        while self._running:
            self._idle = trio.Event()
            await self._idle.wait()


async def test_a_killed_workers_requests_stay_accounted_for(tmp_path: Path) -> None:
    held = Held()
    settings = f"metrics_address: '127.0.0.1:0', keys: [{{name: monitor, key: {MONITOR}, metrics: true, models: []}}]"
    async with scripted_upstream(held) as upstream:
        text = configured(
            "  - {model_name: echo, litellm_params: {model: canned/echo}}\n" + model("up", upstream.url), settings
        )
        async with headrace_serve(tmp_path, text, workers=2) as running, trio.open_nursery() as nursery:
            by_key = {
                "job_name": "by_key",
                "authorization": {"credentials": MONITOR},
                "static_configs": [{"targets": [f"127.0.0.1:{running.port}"]}],
            }
            by_address = {
                "job_name": "by_address",
                "static_configs": [{"targets": [f"127.0.0.1:{running.metrics_port}"]}],
            }
            async with prometheus(tmp_path, by_key, by_address) as prom, AsyncExitStack() as opened:
                load = Load(running.port)
                for number in range(SENDERS):
                    nursery.start_soon(load.send_on, number)
                load.resume()
                streams = [await opened.enter_async_context(await open_stream(running.port)) for _ in range(STREAMS)]
                async with await RawClient.open(("127.0.0.1", running.port)) as client:
                    await client.send(post_bytes(ask("echo", stream=False), key="sk-wrong-key-0123456789"))
                    assert (await client.read_answer()).status == 401
                await prom.has_scraped("by_address")
                assert load.sent > 20
                assert await prom.value('headrace_in_flight{job="by_address"}') >= STREAMS

                # All short requests have answers, and have ended, so that what the killed worker loses is known.
                await load.pause()
                with patiently_with_processes():
                    while await prom.value('headrace_in_flight{job="by_address"}') != STREAMS:
                        await prom.has_scraped("by_address")
                os.kill(running.pid_of_worker(1), signal.SIGKILL)
                await running.logged(b"is up after", times=3)
                load.resume()
                streams = await left_of(streams)
                cut = STREAMS - len(streams)
                assert 0 < cut < STREAMS
                streams += [await opened.enter_async_context(await open_stream(running.port)) for _ in range(STREAMS)]
                await prom.has_scraped("by_address")
                await load.pause()
                await prom.has_scraped("by_address")
                await prom.has_scraped("by_key")

                sent = load.sent + 2 * STREAMS + 1
                for job in ("by_address", "by_key"):
                    here = ALL.replace("total", f'total{{job="{job}"}}').replace("flight", f'flight{{job="{job}"}}')
                    assert await prom.value(here) == sent
                    assert await prom.value(f'headrace_requests_lost_total{{job="{job}"}}') == cut
                    assert await prom.value(f'headrace_in_flight{{job="{job}"}}') == len(streams)
                assert await prom.query('headrace_requests_total{job="by_address"} > 0') == {
                    "OK": load.sent - load.refused,
                    "BR": load.refused,
                    "AU": 1,
                }
                # No counter has fallen: the new worker goes on where the killed one was.
                counters = '{__name__=~"headrace_.*_(total|count|sum|bucket)", job="by_address"}'
                by_name = f'label_replace({counters}, "family", "$1", "__name__", "(.*)")'
                resets = await prom.query(f"resets({by_name}[5m:200ms])")
                assert len(resets) > 200
                assert set(resets.values()) == {0}
                assert await prom.problems() == []

                held.go.set()
                for stream in streams:
                    assert b"[DONE]" in await read_body(stream)
                await prom.has_scraped("by_address")
                assert await prom.value('sum(headrace_requests_total{job="by_address"})') == sent - cut
                assert await prom.value('headrace_in_flight{job="by_address"}') == 0
            nursery.cancel_scope.cancel()


async def left_of(streams: list[RawClient]) -> list[RawClient]:
    """Return those that have not been cut; each has sent "Hello, " so far."""
    left: list[RawClient] = []

    async def look(stream: RawClient) -> None:
        with trio.move_on_after(0.5) as scope:
            await stream.read_to_end()
        if scope.cancelled_caught:
            left.append(stream)

    with patiently():
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(look, stream)
    return left
