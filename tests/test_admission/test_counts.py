"""Processes that count in the same memory, and what is left of one that is killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import kit.service.counting_program as counting_program
import pytest
import trio
from kit.time.patience import patiently_with_processes

from stages.admission import counts as module
from stages.admission.counts import MAX_NAMES, Counts, CountsFullError, shared_file
from stages.admission.quota import Full, Quota, Taken
from stages.limits import Limits

pytestmark = pytest.mark.timeout(300)  # processes

PROGRAM = Path(counting_program.__file__)
NAME, RPM, PARALLEL = "name", 1000, 3


@pytest.fixture
def file() -> Iterator[int]:
    fd = shared_file()
    yield fd
    os.close(fd)


class Counting:
    """A process that counts."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process

    async def answer(self) -> bytes:
        assert self.process.stdout is not None
        line = b""
        with patiently_with_processes():
            while not line.endswith(b"\n"):
                part = await self.process.stdout.receive_some()
                assert part, "it has ended"
                line += part
        return line.strip()

    async def do(self, orders: bytes) -> list[bytes]:
        assert self.process.stdin is not None
        answers = []
        for order in orders:
            await self.process.stdin.send_all(bytes([order]))
            answers.append(await self.answer())
        return answers

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def counting(fd: int) -> AsyncIterator[Counting]:
    command = [sys.executable, str(PROGRAM), str(fd), NAME, str(RPM), str(PARALLEL)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd])
        process: trio.Process = await nursery.start(partial(run, check=False))
        one = Counting(process)
        assert await one.answer() == b"ready"
        yield one
        process.kill()


def quota(counts: Counts, rpm: int = RPM) -> Quota:
    return Quota(counts, NAME, NAME, Limits(rpm=rpm, parallel=PARALLEL))


async def test_what_one_process_takes_another_one_cannot(file: int) -> None:
    async with counting(file) as first, counting(file) as second:
        own = quota(Counts(file))
        assert await first.do(b"tt") == [b"done", b"done"]
        assert isinstance(own.take(), Taken)
        assert await second.do(b"t") == [b"full"]
        assert await first.do(b"e") == [b"done"]
        assert await second.do(b"tt") == [b"done", b"full"]


async def test_a_killed_process_leaves_its_places_but_not_what_it_has_had_of_the_minute(file: int) -> None:
    counts = Counts(file)
    own = quota(counts, rpm=4)
    async with counting(file) as other:
        assert await other.do(b"ttt") == [b"done"] * 3
        assert isinstance(full := own.take(), Full)
        assert full.limit == "parallel"
        await other.kill()
        assert isinstance(own.take(), Taken)
        assert own.in_flight == 1
        assert isinstance(full := own.take(), Full)
        assert full.limit == "rpm"


async def test_a_new_process_gets_the_row_of_one_that_is_gone(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with counting(file) as first:
        await first.do(b"tt")
        await first.kill()
    counts = Counts(file)
    assert quota(counts).in_flight == 0
    async with counting(file) as second:
        await second.do(b"t")
        assert quota(counts).in_flight == 1


async def test_a_row_is_not_taken_from_a_process_that_lives(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with counting(file):
        monkeypatch.setattr(module, "MAX_ROWS", 1)
        with pytest.raises(CountsFullError, match="1 processes count requests already"):
            Counts(file)


async def test_a_process_keeps_its_row_when_it_closes_other_descriptors_of_the_file(file: int) -> None:
    own = quota(Counts(file))
    async with counting(file) as other:
        assert await other.do(b"tttc") == [b"done"] * 4
        assert isinstance(own.take(), Full)
        assert await other.do(b"e") == [b"done"]
        assert isinstance(own.take(), Taken)
        assert isinstance(own.take(), Full)


async def test_a_killed_process_releases_the_lock(file: int) -> None:
    own = quota(Counts(file))
    async with counting(file) as other:
        await other.do(b"l")
        await other.kill()
        assert isinstance(own.take(), Taken)


async def test_a_stopped_process_with_the_lock_is_not_waited_for_for_long(
    file: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE_NS", 1_000_000)
    own = quota(Counts(file))
    async with counting(file) as other:
        await other.do(b"l")
        assert isinstance(own.take(), Taken)
        assert isinstance(own.take(), Taken)
        assert caplog.messages == [
            "a stopped process holds the lock of the limits: they are not exact until it goes on"
        ]


def test_names_have_different_counts_up_to_a_number() -> None:
    counts = Counts()
    assert [counts.index_of(name) for name in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]
    for number in range(3, MAX_NAMES):
        assert counts.index_of(str(number)) == number
    assert counts.index_of("a") == 0
    with pytest.raises(CountsFullError, match="restart the service, or use fewer limits"):
        counts.index_of("d")


def test_a_digest_is_found_at_its_own_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {"a": b"x" * 8 + b"y" * 8, "b": b"y" * 8 + b"z" * 8, "c": b"y" * 16}

    class Digest:
        def __init__(self, name: bytes, *, digest_size: int) -> None:
            self._name = name.decode()

        def digest(self) -> bytes:
            return digests[self._name]

    monkeypatch.setattr(hashlib, "blake2b", Digest)
    counts = Counts()
    assert [counts.index_of(name) for name in ("a", "b", "c", "c", "b", "a")] == [0, 1, 2, 2, 1, 0]


def test_the_requests_of_a_name_are_counted_by_each_worker() -> None:
    counts = Counts()
    counts.enter(5)
    counts.enter(5)
    counts.enter(6)
    counts.leave(5)
    assert [counts.in_flight(index) for index in (4, 5, 6)] == [0, 1, 1]
    assert counts.recount(6) == 1
