"""The example `mirror` in a real process that is stopped under load: its file has what the clients got."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CREATED, ask, completed, delta, post_bytes
from kit.clients.raw import RawClient
from kit.service.plugins import describe
from kit.service.running import KEY, model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import Exchange, ScriptedUpstream, end, event, events, scripted_upstream, sse_head
from msgspec import Struct

from stages.events import Failed, Finished, StreamEvent, TextDelta

ROOT = Path(__file__).parents[2]
MIRROR = ROOT / "docs" / "examples" / "mirror"
STREAMS = 200
GRACE_S = 8
"""What breaks or completes must do so within it, on a busy machine as well; what stalls waits for its end."""
FATES = ("completes", "completes", "stalls", "breaks", "is left")
"""What happens to a stream, in turn; but for the last, after SIGTERM."""


class Line(Struct, forbid_unknown_fields=True):
    """A line of the mirror's file."""

    request: str
    event: StreamEvent | None = None
    end: str | None = None


class Streams:
    """An upstream's script that begins each answer and, once ``go`` is set, does what its request says."""

    def __init__(self) -> None:
        self.go = trio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        name = exchange.request.json()["input"]
        begun = [f"{name}: {number} " for number in range(5)]
        rest = [f"{name}, after: {number} " for number in range(10)]
        await exchange.send(sse_head())
        await events([CREATED, *map(delta, begun)])(exchange)
        await self.go.wait()
        if "breaks" in name:
            exchange.reset()
        if "completes" not in name:
            await trio.sleep_forever()
        for text in rest:
            await event(delta(text))(exchange)
            await trio.lowlevel.checkpoint()
        await event(completed("".join(begun + rest)))(exchange)
        await exchange.send(end())


class Running:
    """A running ``headrace serve`` and its log."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log = b""

    async def logged(self, pattern: bytes) -> re.Match[bytes]:
        """Read the log until it has ``pattern``."""
        assert self.process.stderr is not None
        while (found := re.search(pattern, self.log)) is None:
            chunk = await self.process.stderr.receive_some()
            assert chunk, self.log
            self.log += chunk
        return found

    async def ended(self) -> int:
        """Read the log to its end, and return the process's status."""
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk
        return await self.process.wait()


@asynccontextmanager
async def headrace(folder: Path, upstream: ScriptedUpstream) -> AsyncIterator[Running]:
    """Run the service with the mirror, which writes ``mirror.jsonl`` in ``folder``."""
    describe(folder / "site", MIRROR)
    config = folder / "config.yaml"
    config.write_text(
        f"model_list:\n{model('up', upstream.url)}"
        f"general_settings: {{master_key: {KEY}}}\n"
        "pipeline_settings:\n"
        f"  {{port: 0, host: 127.0.0.1, graceful_timeout_s: {GRACE_S}, upstream_max_connections: {2 * STREAMS},"
        f"   stages: [{{use: mirror, options: {{file: {folder / 'mirror.jsonl'}}}}}]}}\n"
    )
    path = os.pathsep.join(map(str, (folder / "site", MIRROR, ROOT)))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def open_stream(port: int, name: str) -> tuple[str, RawClient]:
    """Return a stream that has brought its first text, and the id of its request."""
    client = await RawClient.open(("127.0.0.1", port))
    await client.send(post_bytes(ask(input=name)))
    head = await client.read_head()
    assert head.status == 200
    while b'"content":"' + name.encode() not in client.buffer:
        client.buffer += await client.read_some()
    return head.headers["x-request-id"], client


async def read_body(client: RawClient) -> bytes:
    """Read a chunked body up to its last chunk."""
    body = b""
    while size := int((await client.read_until(b"\r\n"))[:-2], 16):
        body += (await client.read_exactly(size + 2))[:-2]
    return body


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.timeout(300)
async def test_at_sigterm_the_mirror_has_every_event_that_a_client_got_and_every_end(tmp_path: Path) -> None:
    script = Streams()
    bodies: dict[str, tuple[str, bytes]] = {}

    async def read(fate: str, request_id: str, client: RawClient) -> None:
        async with client:
            bodies[request_id] = fate, await read_body(client)

    async with scripted_upstream(script) as upstream, headrace(tmp_path, upstream) as running:
        with patiently_with_processes():
            port = int((await running.logged(rb"serving http://127\.0\.0\.1:(\d+)"))[1])
        left: list[str] = []
        async with trio.open_nursery() as nursery:
            for number in range(STREAMS):
                fate = FATES[number % len(FATES)]
                request_id, client = await open_stream(port, f"{number} {fate}")
                if fate == "is left":
                    client.close()
                    left.append(request_id)
                else:
                    nursery.start_soon(read, fate, request_id, client)
            running.process.send_signal(signal.SIGTERM)
            with patiently_with_processes():
                await running.logged(b"draining")
            script.go.set()
        with patiently_with_processes():
            assert await running.ended() == 0
    assert b'"level":"error"' not in running.log, running.log

    mirrored: dict[str, list[StreamEvent]] = defaultdict(list)
    ends: dict[str, str] = {}
    for line in (tmp_path / "mirror.jsonl").read_bytes().splitlines():
        read_line = msgspec.json.decode(line, type=Line)
        assert read_line.request not in ends, "the end is the last line of a request"
        if read_line.event is not None:
            mirrored[read_line.request].append(read_line.event)
        else:
            assert read_line.end is not None
            ends[read_line.request] = read_line.end
    assert mirrored.keys() == ends.keys() == {*bodies, *left}

    how: Counter[tuple[str, str]] = Counter(("is left", ends[request_id]) for request_id in left)
    for request_id, (fate, body) in bodies.items():
        folded, got = fold_stream(body), mirrored[request_id]
        how[fate, ends[request_id]] += 1
        if folded.is_done:
            assert ends[request_id] == "complete"
            assert isinstance(got[-1], Finished)
            assert text_of(got) == folded.content
        elif fate == "breaks":
            assert folded.error is not None
            assert isinstance(got[-1], Failed)
            assert (got[-1].code, text_of(got)) == (folded.error["code"], folded.content)
        else:
            assert folded.error is not None
            assert folded.error["code"] == "draining"
            assert text_of(got) == folded.content
    assert how == {
        ("completes", "complete"): STREAMS * 2 // 5,
        ("stalls", "cancelled"): STREAMS // 5,
        ("breaks", "upstream_protocol"): STREAMS // 5,
        ("is left", "cancelled"): STREAMS // 5,
    }
