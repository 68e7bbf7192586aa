"""Limits over several worker processes: what one has let in, the others know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import kit.service.limited_program as limited_program
import pytest
import trio
from kit.clients.chat_posts import ask
from kit.clients.raw import RawClient
from kit.service.limited_keys import key_of
from kit.service.limited_program import KEYS, RPM
from kit.time.patience import patiently_with_processes

from stages.admission.counts import shared_file

pytestmark = pytest.mark.timeout(300)  # processes

PROGRAM = Path(limited_program.__file__)
TESTS = PROGRAM.parents[2]
PATH = "/v1/chat/completions"
MASTER = "Authorization: Bearer sk-master-0123456789abcdef\r\n"
STORY = json.dumps(ask(model="story")).encode()
ECHO = json.dumps(ask(model="echo", stream=False)).encode()
CONFIG = """\
model_list:
  - {model_name: story, litellm_params: {model: canned/story}}
  - {model_name: echo, litellm_params: {model: canned/echo}}
general_settings: {master_key: sk-master-0123456789abcdef}
pipeline_settings:
  {host: 127.0.0.1, port: 0, workers: 2, max_requests_in_flight: 2, max_queued_requests: 0, log_format: text}
"""


@asynccontextmanager
async def worker(counts_fd: int) -> AsyncIterator[tuple[str, int]]:
    """Run a worker, and yield its address."""
    paths = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [sys.executable, str(PROGRAM), str(counts_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[counts_fd],
            env={**os.environ, "PYTHONPATH": paths},
            check=False,
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        with patiently_with_processes():
            yield "127.0.0.1", int(await process.stdout.receive_some())
        process.kill()


async def test_50_keys_at_two_workers_get_exactly_what_they_may() -> None:
    """Each of 50 keys may have 20 requests a minute and sends 40, to two workers at once."""
    counts_fd = shared_file()
    statuses: Counter[tuple[str, int]] = Counter()
    left: dict[str, set[str]] = {f"key-{number}": set() for number in range(KEYS)}

    async def ask_for(address: tuple[str, int], keys: list[str], times: int) -> None:
        async with await RawClient.open(address) as client:
            for _ in range(times):
                for key in keys:
                    headers = f"Authorization: Bearer {key_of(key)}\r\n"
                    answer = await client.ask("POST", PATH, ECHO, headers)
                    statuses[key, answer.status] += 1
                    if answer.status == 200:
                        left[key].add(answer.headers["x-ratelimit-remaining-requests"])

    async with worker(counts_fd) as first, worker(counts_fd) as second:
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for address in (first, second):
                for group in range(10):
                    keys = [f"key-{number}" for number in range(group, KEYS, 10)]
                    for _ in range(2):
                        nursery.start_soon(ask_for, address, keys, RPM // 2)
        took_s = trio.current_time() - began_s
    os.close(counts_fd)
    assert took_s < 60, "this machine is too slow for this test"
    assert statuses == {
        **{(key, 200): RPM for key in left},
        **{(key, 429): RPM for key in left},
    }
    assert all(shown == set(map(str, range(RPM))) for shown in left.values())  # each number once


async def test_row_52_requests_in_flight_are_counted_over_all_workers(tmp_path: Path) -> None:
    """As many requests run as may in all workers: all of these refuse a further one with a 503."""
    async with headrace(tmp_path) as address:
        running = [await RawClient.open(address) for _ in range(2)]
        for client in running:
            head = f"POST {PATH} HTTP/1.1\r\nHost: t\r\n{MASTER}Content-Length: {len(STORY)}\r\n\r\n"
            await client.send(head.encode() + STORY)
            assert (await client.read_head()).status == 200
        others = [await RawClient.open(address) for _ in range(10)]
        refused = [await client.ask("POST", PATH, ECHO, MASTER) for client in others]
        assert {(answer.status, json.loads(answer.body)["error"]["code"]) for answer in refused} == {
            (503, "overloaded")
        }
        for client in running:
            client.close()
        with patiently_with_processes():
            while (await others[0].ask("POST", PATH, ECHO, MASTER)).status != 200:
                await trio.sleep(0.01)
        for client in others:
            client.close()


@asynccontextmanager
async def headrace(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Run ``headrace serve`` with two workers, and yield its address when both serve."""
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stderr is not None
        log = b""
        with patiently_with_processes():
            while log.count(b"serving http") < 2:
                log += await process.stderr.receive_some()
        nursery.start_soon(_read, process.stderr)
        try:
            yield "127.0.0.1", int(log.split(b"serving http://127.0.0.1:")[1].split()[0].rstrip(b","))
        finally:
            process.terminate()


async def _read(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass
