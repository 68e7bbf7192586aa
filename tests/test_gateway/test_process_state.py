"""How a process is, as it says itself, and what the whole service counts while its workers live and die."""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import trio
from kit.clients.chat_posts import ask
from kit.engine.clocks import HandClock
from kit.engine.lanes import new_lane
from kit.service.command import configured, headrace_serve
from kit.service.running import KEY, PLAIN
from kit.time.patience import patiently_with_processes

from pipeline import RequestContext
from pipeline.channel import Link
from pipeline.gateway.generations import Generations
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.process_state import ProcessState, resident_bytes, timed_collections
from pipeline.loop import watch_loop
from pipeline.observe import Observed, read_all
from pipeline.segments import SegmentFile
from stages.answer import Attempt
from stages.slots import ATTEMPTS

MODELS = """\
  - {model_name: echo, litellm_params: {model: canned/echo}}
  - {model_name: story, litellm_params: {model: canned/story}}
"""


def test_collections_of_garbage_are_timed() -> None:
    file = SegmentFile.create(ring_bytes=0)
    observed = Observed(file.claim(1))
    with timed_collections(observed):
        gc.collect()
    gc.collect()
    [series] = read_all(file)["headrace_gc_seconds"].series
    assert sum(series.slots.values()) == 1
    assert 0 < series.value < 5


def test_the_memory_in_use_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10_000_000 < resident_bytes() < 10_000_000_000
    monkeypatch.setattr("pipeline.gateway.process_state._STATM", Path("/nowhere"))
    assert resident_bytes() == 0


@dataclass
class Watching:
    """The shared file, as far as it says whether anybody watches."""

    is_watched: bool


async def test_batches_wait_in_links_only_while_somebody_watches() -> None:
    file = SegmentFile.create(ring_bytes=0)
    observed = Observed(file.claim(1))
    ctx, of_attempt = RequestContext("r1"), Link[int]("c>d", 2)
    ctx.links.append(of_request := Link[int]("a>b", 2))
    for link in (of_request, of_attempt):
        assert link.give_nowait([1], new_lane(HandClock()), 0)
    ctx[ATTEMPTS] = [Attempt("d", "m", [], [of_attempt], 0)]
    bridge = SimpleNamespace(active=[SimpleNamespace(ctx=ctx)])
    clients = SimpleNamespace(active_connections=0, idle_connections=0)
    generations = SimpleNamespace(living=[SimpleNamespace(clients=clients, bridge=bridge)])
    watching = Watching(True)
    sink = LineSink(2)
    state = ProcessState(observed, cast(SegmentFile, watching), cast(Generations, generations), [], sink)

    def depths() -> dict[str, float]:
        state.note()
        return {one.labels[0][1]: one.value for one in read_all(file)["headrace_link_depth"].series}

    with watch_loop(lambda _: None):
        assert depths() == {"a>b": 1, "c>d": 1}
        watching.is_watched = False
        assert depths() == {"a>b": 0, "c>d": 0}


def measurements_of(pid: int) -> SegmentFile:
    """Return the measurements that a supervisor's workers keep."""
    folder = Path(f"/proc/{pid}/fd")
    [name, *_] = [one for one in folder.iterdir() if "headrace-measurements" in os.readlink(one)]
    return SegmentFile(os.open(name, os.O_RDWR))


def total(file: SegmentFile, family: str) -> float:
    found = read_all(file).get(family)
    return 0 if found is None else sum(one.value for one in found.series)


async def test_no_request_is_uncounted_if_a_worker_is_killed(tmp_path: Path) -> None:
    async with headrace_serve(tmp_path, configured(MODELS), workers=2) as command:
        file = measurements_of(command.process.pid)
        started = 0

        async def stream(client: httpx.AsyncClient) -> None:
            nonlocal started
            try:
                async with client.stream("POST", "/v1/chat/completions", json=ask(model="story")) as response:
                    started += 1
                    async for _ in response.aiter_bytes():
                        pass
            except httpx.TransportError:  # of the worker that is killed
                return

        headers = {"authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{command.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, verify=PLAIN) as client:
            for _ in range(5):
                assert (await client.post("/v1/chat/completions", json=ask(model="echo"))).status_code == 200
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(stream, client)
                with patiently_with_processes():
                    while started < 16:
                        await trio.sleep(0.01)
                    assert total(file, "headrace_in_flight") == 16
                    view = max(file.views(), key=lambda one: one.pid)
                    os.kill(view.pid, signal.SIGKILL)
                    while view.is_alive:
                        await trio.sleep(0.01)
                lost = total(file, "headrace_requests_lost_total")
                assert total(file, "headrace_in_flight") == 16 - lost
                await command.logged(b"is up after", times=3)  # its successor
                assert total(file, "headrace_requests_lost_total") == lost
                nursery.cancel_scope.cancel()
        with patiently_with_processes():
            while total(file, "headrace_in_flight"):
                await trio.sleep(0.01)
        assert total(file, "headrace_requests_total") + lost == 5 + 16
