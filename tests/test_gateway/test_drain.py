"""The end of a process: streams finish, or end with a message; a killed worker ends only its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CURSOR, ask, begun, delta, post_bytes
from kit.clients.held_streams import Held, open_stream, read_body
from kit.clients.raw import RESET, RawClient
from kit.service.running import KEY, model, serving
from kit.time.patience import patiently, patiently_with_processes
from kit.upstreams.scripted import ScriptedUpstream, end, event, scripted_upstream, stall


async def test_row_54_a_shutdown_completes_the_running_streams() -> None:
    """The server is told to stop: running streams finish, idle connections are closed."""
    held = Held()
    async with (
        scripted_upstream(held) as upstream,
        serving(model("up", upstream.url), "  graceful_timeout_s: 30") as service,
    ):
        clients = [await open_stream(service.port) for _ in range(5)]
        idle = await RawClient.open(("127.0.0.1", service.port))
        assert (await idle.ask(path="/readyz")).status == 200
        service.shutdown.set()
        assert await idle.read_to_end() == (b"", "fin")
        idle.close()
        assert service.application.generations.is_draining
        assert not service.ended.is_set()
        held.go.set()
        for client in clients:
            async with client:
                folded = fold_stream(await read_body(client))
                assert (folded.content, folded.is_done) == ("Hello, you", True)
                assert await client.read_to_end() == (b"", "fin")
        with patiently():
            await service.ended.wait()
        assert [record["end"] for record in service.records] == ["OK"] * 5
        with pytest.raises(OSError, match="refused"):
            await RawClient.open(("127.0.0.1", service.port))


async def test_row_55_a_request_on_an_open_connection_is_served_during_the_drain_which_then_closes_it() -> None:
    """A request comes on an open connection while the server drains: it is served, and the connection is closed."""
    async with serving() as service, await RawClient.open(("127.0.0.1", service.port)) as client:
        assert (await client.ask(path="/readyz")).status == 200
        service.shutdown.set()
        with patiently():
            while not service.application.generations.is_draining:
                await trio.sleep(0.01)
        await client.send(post_bytes(ask("echo", stream=False)))
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.read_to_end() == (b"", "fin")
        assert (await service.record())["end"] == "OK"


async def test_row_55_after_the_drain_deadline_readiness_fails_requests_are_refused_and_liveness_succeeds() -> None:
    """A request comes after that: 503 `draining` with Retry-After."""
    async with serving() as service:
        service.application.generations.cut_off()
        assert (await service.get("/health/readiness", key=None)).status_code == 503
        assert (await service.get("/health/liveliness", key=None)).status_code == 200
        refused = await service.post(ask("echo"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "draining"
        assert (await service.record())["end"] == "DR"


async def test_row_55_at_the_drain_deadline_a_stream_ends_with_an_error_and_its_upstream_is_closed() -> None:
    """Requests still run after `graceful_timeout_s`: 503 `draining`, or told in the stream."""
    async with (
        scripted_upstream(*begun("Hello, "), stall()) as upstream,
        serving(model("up", upstream.url), "  graceful_timeout_s: 0.2") as service,
    ):
        async with (
            await open_stream(service.port) as stream,
            await open_stream(service.port, agent=CURSOR) as shown,
            await RawClient.open(("127.0.0.1", service.port)) as whole,
        ):
            await whole.send(post_bytes(ask(stream=False)))
            await upstream.request_received(2)
            began = trio.current_time()
            service.shutdown.set()
            folded = fold_stream(await read_body(stream))
            assert trio.current_time() - began >= 0.2
            assert folded.content == "Hello, "
            assert folded.error is not None
            assert (folded.error["code"], folded.is_done) == ("draining", False)
            text = fold_stream(await read_body(shown))
            assert text.content is not None
            assert text.content.startswith("Hello, \n\n[upstream error: draining: ")
            assert text.is_done
            answer = await whole.read_answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "draining")
            for client in (stream, shown, whole):
                assert await client.read_to_end() == (b"", "fin")
        with patiently():
            await service.ended.wait()
        assert [record["end"] for record in service.records] == ["DR"] * 3
        for at in range(3):
            await upstream.connection_closed(at)


async def test_row_56_a_hard_stop_resets_everything_at_once() -> None:
    """The server is stopped hard: every response is cut, every connection closed at once."""
    async with (
        scripted_upstream(*begun("Hello, "), stall()) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        async with await open_stream(service.port) as client:
            service.hard_stop.set()
            rest, how = await client.read_to_end()
            assert how == RESET
            assert b"[DONE]" not in rest
        with patiently():
            await service.ended.wait()
        await upstream.connection_closed(0)


# The real command, with two workers.


class Headrace:
    """A running ``headrace serve --workers 2`` and its log."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log = b""
        self.ended = trio.Event()

    async def collect(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk
        await self.process.wait()
        self.ended.set()

    @property
    def port(self) -> int:
        """The port that the log names."""
        named = re.search(rb"workers? on 127\.0\.0\.1 port (\d+)", self.log)
        assert named is not None, self.log
        return int(named[1])

    async def workers(self) -> list[int]:
        """Return the processes of the workers, once both of them serve."""
        with patiently_with_processes():
            while self.log.count(b"serving http://") < 2:
                await trio.sleep(0.01)
        return [
            int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == self.process.pid
        ]

    async def streams(self) -> dict[int, RawClient]:
        """Return one running stream from each worker."""
        found: dict[int, RawClient] = {}
        workers = await self.workers()
        with patiently_with_processes():
            while len(found) < 2:
                client = await open_stream(self.port)
                owner = owner_of(client, workers)
                if owner is None or owner in found:
                    client.close()
                    await trio.sleep(0.01)
                else:
                    found[owner] = client
        return found


def parent_of(stat: Path) -> int | None:
    """Return a process's parent, proc(5), or None if it has ended meanwhile."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def owner_of(client: RawClient, workers: list[int]) -> int | None:
    """Return the worker that holds the other end of a connection, by the kernel's table, which may change meanwhile."""
    port, peer = client.sock.getpeername()[1], client.sock.getsockname()[1]
    wanted = [f":{port:04X}", f":{peer:04X}"]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            inode = f"socket:[{fields[9]}]"
            for worker in workers:
                for fd in Path(f"/proc/{worker}/fd").iterdir():
                    try:
                        if os.readlink(fd) == inode:
                            return worker
                    except OSError:
                        continue  # closed meanwhile
    return None


@asynccontextmanager
async def headrace(folder: Path, upstream: ScriptedUpstream) -> AsyncIterator[Headrace]:
    config = folder / "config.yaml"
    config.write_text(
        f"model_list:\n{model('up', upstream.url)}"
        f"general_settings: {{master_key: {KEY}}}\n"
        "pipeline_settings: {port: 0, host: 127.0.0.1, graceful_timeout_s: 600}\n"
    )
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config), "--workers", "2"]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
        running = Headrace(process)
        nursery.start_soon(running.collect)
        try:
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()  # a failing test cancels `collect`, which would have waited for it


@pytest.mark.timeout(300)
async def test_rows_54_59_two_workers_finish_their_streams_and_a_killed_one_costs_only_its_own(tmp_path: Path) -> None:
    """SIGTERM lets all workers finish their streams; kill -9 of one cuts its own and no others."""
    held = Held()
    async with scripted_upstream(held) as upstream, headrace(tmp_path, upstream) as running:
        (killed, cut), (_, spared) = (await running.streams()).items()
        os.kill(killed, signal.SIGKILL)
        async with cut:
            rest, _ = await cut.read_to_end()
            assert b"[DONE]" not in rest
        running.process.send_signal(signal.SIGTERM)
        with patiently_with_processes():
            while b"draining" not in running.log:
                await trio.sleep(0.01)
        held.go.set()
        async with spared:
            folded = fold_stream(await read_body(spared))
            assert (folded.content, folded.is_done) == ("Hello, you", True)
        with patiently_with_processes():
            await running.ended.wait()
        assert running.process.returncode == 0
        requests = [json.loads(line) for line in running.log.splitlines() if b'"event":"request"' in line]
        assert [request["end"] for request in requests if request["status"] == 200][-1] == "OK"
        assert KEY.encode() not in running.log
        with pytest.raises(OSError, match="refused"):
            await RawClient.open(("127.0.0.1", running.port))


@pytest.mark.timeout(300)
async def test_sigterm_without_streams_ends_both_workers_at_once(tmp_path: Path) -> None:
    async with scripted_upstream(event(delta("x")), end()) as upstream, headrace(tmp_path, upstream) as running:
        workers = await running.workers()
        assert len(workers) == 2
        running.process.send_signal(signal.SIGTERM)
        with patiently_with_processes():
            await running.ended.wait()
        assert running.process.returncode == 0
        for worker in workers:
            assert not Path(f"/proc/{worker}").exists()
