"""``/latency`` of a real service with two workers: any worker answers for all, also for one that was killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held, open_stream
from kit.clients.raw import Answer, RawClient
from kit.service.command import configured, headrace_serve
from kit.service.running import KEY, model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import scripted_upstream

pytestmark = pytest.mark.timeout(300)  # processes

PROMPT = "the-words-of-the-prompt"
ANSWER = b"Hello, "
"""What `Held` has sent."""
ASKED = 24
CANNED = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"


class Reader:
    """Reads the admin paths, each time on a new connection, so that any worker answers."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)

    async def answer(self, path: str, key: str = KEY) -> Answer:
        async with await RawClient.open(self._address) as client:
            return await client.ask("GET", path, headers=f"Authorization: Bearer {key}\r\n")

    async def json(self, path: str) -> Any:
        answer = await self.answer(path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def until(self, path: str, is_it: Callable[[Any], bool]) -> Any:
        """Read a path until it says what is expected."""
        with patiently_with_processes():
            while not is_it(found := await self.json(path)):
                await trio.sleep(0.05)
        return found

    async def ids(self) -> set[str]:
        """Return the ids of all requests that are recorded."""
        answer = await self.answer("/latency/records?limit=1000")
        return {line["request_id"] for line in map(json.loads, answer.body.splitlines()) if line["event"] == "request"}


async def test_any_worker_answers_for_all_also_for_one_that_was_killed(tmp_path: Path) -> None:
    held = Held()
    async with scripted_upstream(held) as upstream:
        text = configured(CANNED + model("up", upstream.url), "recorder_mb: 1")
        async with headrace_serve(tmp_path, text, workers=2) as running:
            reader = Reader(running.port)
            for _ in range(ASKED):
                async with await RawClient.open(("127.0.0.1", running.port)) as client:
                    await client.send(post_bytes({**ask("echo", stream=False), "input": PROMPT}))
                    assert (await client.read_answer()).status == 200
            streams = [await open_stream(running.port) for _ in range(8)]

            found = await reader.until("/latency/now", lambda now: now["is_watched"] and now["running"])
            assert (found["ended"], found["in_flight"], found["lost"]) == ({"OK": ASKED}, 8, 0)
            shown = await reader.until("/latency/running", lambda requests: len(requests) == 8)
            assert {one["waits_for"] for one in shown} == {"upstream"}
            assert {one["point"] for one in shown} <= {"first_token_out", "last_byte_out"}
            assert {one["model"] for one in shown} == {"up"}
            assert [one["idle_ms"] for one in shown] == sorted((one["idle_ms"] for one in shown), reverse=True)
            assert {one["worker"] for one in shown} <= {1, 2}

            # A client that leaves is in a list within the second, wherever it was served.
            left = streams.pop()
            left.close()
            await reader.until("/latency/requests?kind=cancelled", lambda requests: len(requests) == 1)
            ids = await reader.ids()
            assert len(ids) == ASKED + 1

            # One worker is killed: what it had recorded stays, and what ran in it is counted as lost.
            [killed] = [one["pid"] for one in found["workers"] if one["worker"] == 1]
            before = await reader.until("/latency/now", lambda now: now["in_flight"] == 7)  # it may be a second old
            lost = sum(one["in_flight"] for one in before["workers"] if one["worker"] == 1)
            os.kill(killed, signal.SIGKILL)
            await running.logged(b"is up after", times=3)
            assert await reader.ids() == ids
            for request_id in ids:
                assert (await reader.json(f"/latency/requests/{request_id}"))["request_id"] == request_id
            now = await reader.until("/latency/now", lambda now: now["lost"] == lost)
            assert now["in_flight"] == 7 - lost
            assert now["ended"] == {"OK": ASKED, "DC": 1}
            held.go.set()
            for client in streams:
                client.close()

            recorded = await reader.answer("/latency/records?limit=1000")
            for answer in (recorded, await reader.answer("/latency/now"), await reader.answer("/latency/running")):
                assert PROMPT.encode() not in answer.body
                assert ANSWER not in answer.body
                assert KEY.encode() not in answer.body


async def test_only_the_master_key_reads_it_and_wrong_keys_are_delayed(tmp_path: Path) -> None:
    limited = "keys: [{name: limited, key: sk-limited-key-0123456789}], recorder_mb: 0"
    async with headrace_serve(tmp_path, configured(CANNED, limited), workers=1) as running:
        reader = Reader(running.port)
        for key, status, code in (
            ("sk-limited-key-0123456789", 403, "master_key_required"),
            ("sk-wrong-key-0123456789", 401, "unauthorized"),
        ):
            answer = await reader.answer("/latency/now", key)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
        since = trio.current_time()
        for _ in range(3):
            await reader.answer("/latency/records", "sk-wrong-key-0123456789")
        assert trio.current_time() - since > 0.2  # the fourth
        assert (await reader.answer("/latency/requests")).body == b"[]"  # no recorder
        await reader.until("/latency/now", lambda now: now["is_watched"])
