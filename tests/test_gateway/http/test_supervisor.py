"""Worker processes under real signals: a death costs its own streams, a drain costs none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import kit.service.supervised_program as supervised_program
import pytest
import trio
from kit.clients.raw import RESET, RawClient, get
from kit.time.patience import patiently_with_processes

pytestmark = pytest.mark.timeout(300)  # processes

PROGRAM = Path(supervised_program.__file__)
FINAL_CHUNKS = b"3\r\nend\r\n0\r\n\r\n"


class Supervised:
    """A running supervisor."""

    def __init__(self, process: trio.Process, address: tuple[str, int]) -> None:
        self.process = process
        self.address = address
        self.log = b""
        self.exit_status: int | None = None
        self.ended = trio.Event()

    async def collect(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk
        self.exit_status = await self.process.wait()
        self.ended.set()

    async def exit(self) -> int | None:
        with patiently_with_processes():
            await self.ended.wait()
        return self.exit_status

    async def logged(self, words: bytes, times: int = 1) -> None:
        """Wait until the supervisor or its workers have logged ``words`` this many times."""
        with patiently_with_processes():
            while self.log.count(words) < times:
                await trio.sleep(0.01)

    async def open_stream(self) -> tuple[RawClient, int]:
        """Return a running stream and the process that serves it; it runs until `finish`."""
        client = await RawClient.open(self.address)
        await client.send(b"POST /stream HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n")
        await client.read_until(b"\r\n\r\n")
        await client.read_until(b"\r\n")
        return client, int((await client.read_until(b"\r\n"))[:-2])

    async def open_streams(self, *, started: int = 2) -> dict[int, RawClient]:
        """Return one running stream from each of two workers, once ``started`` workers have started in all."""
        await self.logged(b"a worker has started", times=started)
        streams: dict[int, RawClient] = {}
        with patiently_with_processes():
            while len(streams) < 2:
                client, pid = await self.open_stream()
                if pid in streams:
                    client.close()
                    await trio.sleep(0.02)
                else:
                    streams[pid] = client
        return streams


async def finish(client: RawClient) -> None:
    """Let a stream end, and check that it does so properly."""
    await client.send(b"x")
    assert await client.read_exactly(len(FINAL_CHUNKS)) == FINAL_CHUNKS


@asynccontextmanager
async def supervising(workers: int, *, kind: str = "good", stop_timeout_s: float = 120) -> AsyncIterator[Supervised]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the code under test, wherever it is
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(PROGRAM), "supervise", str(workers), str(stop_timeout_s), kind],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            port = b""
            with patiently_with_processes():
                while not port.endswith(b"\n"):
                    port += await process.stdout.receive_some(100)
            supervised = Supervised(process, ("127.0.0.1", int(port)))
            nursery.start_soon(supervised.collect)
            yield supervised
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()  # a failing test cancels `collect`, which would have waited for it
                await process.stdout.aclose()


def is_running(pid: int) -> bool:
    try:
        return PROGRAM.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it may end between open and read
        return False


async def has_ended(pid: int) -> None:
    with patiently_with_processes():
        while is_running(pid):
            await trio.sleep(0.01)


async def test_row_59_a_killed_worker_costs_only_its_own_streams_and_is_replaced() -> None:
    """A worker is killed: the streams of others go on, and it is replaced."""
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        (killed, cut), (spared, whole) = streams.items()
        os.kill(killed, signal.SIGKILL)
        with cut.sock, whole.sock:
            assert (await cut.read_to_end())[0] == b""
            await finish(whole)
        replaced = await supervised.open_streams(started=3)
        assert spared in replaced
        assert killed not in replaced
        for client in replaced.values():
            client.close()
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0
        assert f"process {killed}) ended by itself: killed by SIGKILL".encode() in supervised.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_every_stream_of_every_worker_finish(number: signal.Signals) -> None:
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        (done, first), (_, second) = streams.items()
        first.close()  # its worker ends at once, and must not end the other
        supervised.process.send_signal(number)
        await has_ended(done)
        with second.sock:
            await finish(second)
        assert await supervised.exit() == 0
        with pytest.raises(OSError, match="refused"):
            await RawClient.open(supervised.address)


async def test_a_second_signal_ends_everything_at_once() -> None:
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        supervised.process.send_signal(signal.SIGTERM)
        await supervised.logged(b"SIGTERM: draining", times=2)
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0
        for client in streams.values():
            with client.sock:
                rest, end = await client.read_to_end()
                assert (rest, end) == (b"", RESET)


async def test_workers_whose_supervisor_was_killed_drain_and_end() -> None:
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        supervised.process.kill()
        await supervised.logged(b"the supervisor has died: draining", times=2)
        for client in streams.values():
            with client.sock:
                await finish(client)
        for pid in streams:
            await has_ended(pid)


async def test_workers_that_cannot_start_end_the_supervisor_with_a_reason() -> None:
    async with supervising(2, kind="broken") as supervised:
        assert await supervised.exit() == 1
        assert b"giving up: workers died 5 times within 5 s of their start, and none is running" in supervised.log
        assert b"this worker cannot start" in supervised.log


async def test_a_worker_that_ignores_signals_is_killed_at_the_stop_timeout() -> None:
    async with supervising(1, kind="stubborn", stop_timeout_s=0.3) as supervised:
        await supervised.logged(b"ignoring SIGTERM")
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0
        assert b"did not drain: killed by SIGKILL" in supervised.log


async def test_requests_are_served_while_a_worker_is_being_replaced() -> None:
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        for client in streams.values():
            client.close()
        os.kill(min(streams), signal.SIGKILL)
        await has_ended(min(streams))
        for _ in range(50):
            assert (await get(supervised.address)).status == 200
