"""Worker processes under real signals: a death costs its own streams, a drain costs none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kit.service.supervised_program as supervised_program
import msgspec
import pytest
import trio
from kit.clients.raw import RESET, RawClient, get
from kit.needs import PROCESS_ONE, needs
from kit.service.supervised_program import ORPHAN, PROCESSES, REPLACE, SPIN, Options
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

    async def pid(self) -> int:
        """Return the process that answers a request."""
        return int((await get(self.address)).body)

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
async def supervising(workers: int, *, within: Sequence[str] = (), **options: Any) -> AsyncIterator[Supervised]:
    """Run a supervisor with these `Options`, by the command ``within`` if there is one."""
    given = msgspec.json.encode(Options(workers=workers, **options)).decode()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # the code under test, wherever it is
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*within, sys.executable, str(PROGRAM), "supervise", given],
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


def children(pid: int) -> list[int]:
    """Return the children of a process, whichever of its threads has started them."""
    of_threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in of_threads for child in file.read_text().split()]


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


async def test_a_first_worker_that_cannot_start_ends_the_supervisor_with_its_status() -> None:
    async with supervising(2, kind="broken") as supervised:
        assert await supervised.exit() == 4
        assert b"ended before it was ready: exit status 4" in supervised.log
        assert supervised.log.count(b"this worker cannot start") == 1


async def test_workers_that_can_no_longer_start_end_the_supervisor_with_a_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    async with supervising(1, broken=str(broken)) as supervised:
        await supervised.logged(b"is up after")
        broken.write_text("cannot start anymore")
        os.kill(await supervised.pid(), signal.SIGKILL)
        assert await supervised.exit() == 1
        assert b"giving up: workers died 5 times within 5 s of their start, and none is running" in supervised.log
        assert supervised.log.count(b"cannot start anymore") >= 4


async def test_a_worker_that_ignores_signals_is_killed_at_the_stop_timeout() -> None:
    async with supervising(1, kind="stubborn", stop_timeout_s=0.3) as supervised:
        await supervised.logged(b"is up after")
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 1
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


async def test_row_70_workers_are_replaced_one_at_a_time_and_their_streams_finish() -> None:
    """SIGUSR1: each worker drains only when its successor serves, and its streams go on."""
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"restarted: 2 workers replaced")
        await supervised.logged(b"replaced: draining, 1 request open", times=2)
        successors = await supervised.open_streams(started=4)
        assert not set(streams) & set(successors)
        for client in successors.values():
            client.close()
        for pid, client in streams.items():
            assert is_running(pid)
            with client.sock:
                await finish(client)
            await has_ended(pid)
        steps = [line for line in supervised.log.splitlines() if b"is up" in line or b" replaces " in line]
        assert [b"is up" in line for line in steps] == [True, True, True, False, True, False]
        await supervised.logged(b"drained in", times=2)
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0


async def test_row_70_one_worker_is_replaced_without_a_refused_connection() -> None:
    """With one worker too: the socket is listened on all the time, and no request is lost."""
    served: set[int] = set()
    async with supervising(1) as supervised:
        before = await supervised.pid()
        async with await RawClient.open(supervised.address) as kept:
            assert int((await kept.ask()).body) == before
            supervised.process.send_signal(signal.SIGUSR1)
            with patiently_with_processes():
                while len(served) < 2:
                    served.add(await supervised.pid())
            await supervised.logged(b"replaced: draining")
            last = await kept.ask()
            assert (int(last.body), last.headers["connection"]) == (before, "close")
        await supervised.logged(b"drained in")
        assert await supervised.pid() != before


async def test_a_worker_is_kept_if_its_successor_does_not_serve(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    async with supervising(2, broken=str(broken)) as supervised:
        await supervised.logged(b"is up after", times=2)
        broken.write_text("broken by an upgrade")
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"the restart has ended at worker 1; what serves goes on as it is")
        assert b"goes on: what was to replace it (SIGUSR1) does not serve" in supervised.log
        assert supervised.log.count(b"broken by an upgrade") == 1
        assert (await get(supervised.address)).status == 200
        broken.unlink()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"restarted: 2 workers replaced")


async def test_a_restart_during_a_restart_is_one_more_after_it() -> None:
    async with supervising(1) as supervised:
        await supervised.logged(b"is up after")
        for times in (1, 2, 3):
            supervised.process.send_signal(signal.SIGUSR1)
            await supervised.logged(b"SIGUSR1: replacing", times=times)
        await supervised.logged(b"restarted: 1 worker replaced", times=2)
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0
        assert supervised.log.count(b"is up after") == 3


async def test_no_more_workers_drain_than_there_are_places() -> None:
    async with supervising(1) as supervised:
        await supervised.logged(b"is up after")
        first, _ = await supervised.open_stream()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"restarted: 1 worker replaced")
        await supervised.logged(b"replaced: draining")  # until then, the old worker may still accept
        second, pid = await supervised.open_stream()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"SIGUSR1: replacing", times=2)
        assert await supervised.pid() == pid
        with first.sock:
            await finish(first)
        await supervised.logged(b"restarted: 1 worker replaced", times=2)
        with second.sock:
            await finish(second)


async def test_row_59_a_worker_that_dies_while_its_successor_waits_for_room_is_started_again() -> None:
    """A worker is killed that is to be replaced, but not yet: as many drain as may. Another one takes its place."""
    async with supervising(1) as supervised:
        await supervised.logged(b"is up after")
        draining, _ = await supervised.open_stream()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"restarted: 1 worker replaced")
        await supervised.logged(b"replaced: draining")  # until then, the old worker may still accept
        pid = await supervised.pid()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"and another one is to drain")
        os.kill(pid, signal.SIGKILL)
        await supervised.logged(b"restarted: 1 worker replaced", times=2)
        assert await supervised.pid() != pid
        with draining.sock:
            await finish(draining)


async def test_the_drain_of_a_replaced_worker_goes_on_when_all_are_stopped() -> None:
    async with supervising(1) as supervised:
        stream, _ = await supervised.open_stream()
        supervised.process.send_signal(signal.SIGUSR1)
        await supervised.logged(b"restarted: 1 worker replaced")
        supervised.process.send_signal(signal.SIGTERM)
        await supervised.logged(b"SIGTERM: draining 2 workers; again to stop now")
        with stream.sock:
            await finish(stream)
        assert await supervised.exit() == 0


async def test_a_worker_drains_although_it_gets_the_signal_twice() -> None:
    async with supervising(1) as supervised:
        stream, pid = await supervised.open_stream()
        os.kill(pid, signal.SIGTERM)  # as from a service manager that sends it to all processes
        await supervised.logged(b"SIGTERM: draining, 1 request open")
        supervised.process.send_signal(signal.SIGTERM)
        await supervised.logged(b"SIGTERM: ignored, since this worker is draining")
        with stream.sock:
            await finish(stream)
        assert await supervised.exit() == 0


@pytest.mark.parametrize("how", ["is stopped", "is in an endless loop"])
async def test_row_71_a_worker_that_hangs_is_replaced_within_10_s_and_others_are_unaffected(how: str) -> None:
    """A worker is stopped, or in an endless loop: it is killed and replaced within 10 s, and others go on."""
    async with supervising(2) as supervised:
        streams = await supervised.open_streams()
        since = trio.current_time()
        async with await RawClient.open(supervised.address) as spinning:
            if how == "is stopped":
                os.kill(min(streams), signal.SIGSTOP)
            else:
                await spinning.send(f"GET {SPIN} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            await supervised.logged(b"has not answered for 5 s: it is replaced")
            await supervised.logged(b"is up after", times=3)
            assert trio.current_time() - since < 10
        [hung] = map(int, re.findall(rb"\(process (\d+)\) has not answered", supervised.log))
        cut = streams.pop(hung)
        [spared] = streams.values()
        with cut.sock, spared.sock:
            await finish(spared)
            assert (await cut.read_to_end())[0] == b""


async def test_row_72_a_worker_that_asks_for_it_is_replaced_and_its_stream_finishes() -> None:
    """`max_requests` is reached: a new worker serves before the old one drains, and its streams finish."""
    async with supervising(1) as supervised:
        stream, before = await supervised.open_stream()
        assert (await get(supervised.address, REPLACE)).status == 200
        await supervised.logged(b"replaces process %d: max_requests" % before)
        with stream.sock:
            await finish(stream)
        await has_ended(before)
        assert await supervised.pid() != before


async def test_row_72_a_worker_that_is_old_is_replaced() -> None:
    """`max_age_s` is over: the same."""
    async with supervising(1, max_age_s=1) as supervised:
        await supervised.logged(b": max_age_s", times=2)
        assert (await get(supervised.address)).status == 200


async def test_row_69_readiness_fails_while_connections_are_still_served_and_then_the_drain_begins() -> None:
    """SIGTERM behind a balancer: for `shutdown_delay_s` `/readyz` is 503 and all is served; then the drain begins."""
    async with supervising(2, shutdown_delay_s=3) as supervised:
        streams = await supervised.open_streams()
        supervised.process.send_signal(signal.SIGTERM)
        await supervised.logged(b"SIGTERM: draining, 1 request open", times=2)
        assert (await get(supervised.address, "/readyz")).status == 503
        answer = await get(supervised.address)
        assert (answer.status, answer.headers.get("connection")) == (200, None)
        for client in streams.values():
            with client.sock:
                await finish(client)
        assert await supervised.exit() == 0
        with pytest.raises(OSError, match="refused"):
            await RawClient.open(supervised.address)


async def test_a_replaced_worker_stays_ready() -> None:
    async with supervising(1, shutdown_delay_s=60) as supervised:
        async with await RawClient.open(supervised.address) as kept:
            assert (await kept.ask(path="/readyz")).status == 200
            supervised.process.send_signal(signal.SIGUSR1)
            await supervised.logged(b"replaced: draining")
            last = await kept.ask(path="/readyz")
            assert (last.status, last.headers["connection"]) == (200, "close")
        await supervised.logged(b"drained in")
        supervised.process.send_signal(signal.SIGTERM)
        await supervised.logged(b"SIGTERM: draining, 0 requests open")
        supervised.process.send_signal(signal.SIGTERM)
        assert await supervised.exit() == 0


async def test_sighup_reaches_each_worker_if_the_configuration_is_valid(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    async with supervising(2, broken=str(broken)) as supervised:
        await supervised.logged(b"is up after", times=2)
        supervised.process.send_signal(signal.SIGHUP)
        await supervised.logged(b"has reloaded", times=2)
        broken.write_text("model_list is empty")
        supervised.process.send_signal(signal.SIGHUP)
        await supervised.logged(b"SIGHUP: the configuration is invalid, so nothing changes: model_list is empty")
        assert supervised.log.count(b"has reloaded") == 2
        assert (await get(supervised.address)).status == 200


@needs(PROCESS_ONE)
async def test_process_one_waits_for_the_children_of_others_and_only_for_those() -> None:
    as_process_one = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    async with supervising(1, within=as_process_one) as supervised:
        [process_one] = children(supervised.process.pid)
        orphans = {(await get(supervised.address, ORPHAN)).body.strip() for _ in range(5)}
        worker = await supervised.pid()
        with patiently_with_processes():
            while orphans & set((await get(supervised.address, PROCESSES)).body.split()):
                await trio.sleep(0.05)
        [worker_outside] = children(process_one)
        os.kill(worker_outside, signal.SIGKILL)
        await supervised.logged(b"process %d) ended by itself: killed by SIGKILL" % worker)
        await supervised.logged(b"is up after", times=2)
        os.kill(process_one, signal.SIGTERM)
        assert await supervised.exit() == 0
