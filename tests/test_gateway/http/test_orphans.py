"""A child is reaped if nobody else waits for it. As process 1: `test_supervisor.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from kit.needs import LINUX, needs
from trio.testing import MockClock

from pipeline.gateway.http.orphans import LOOKS, PAUSE_S, reap_orphans, zombies_of_this_process

pytestmark = needs(LINUX)

LAST_LOOK_S = PAUSE_S * (LOOKS - 1)


def zombie() -> subprocess.Popen[bytes]:
    """Return a child that has ended and that nobody has waited for."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def is_there(process: subprocess.Popen[bytes]) -> bool:
    return process.pid in zombies_of_this_process()


async def test_a_child_that_nobody_waits_for_is_reaped_at_the_last_look(autojump_clock: MockClock) -> None:
    with zombie() as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reap_orphans, lambda: {process.pid} & {*zombies_of_this_process()})
            await trio.sleep(LAST_LOOK_S - PAUSE_S / 2)
            assert is_there(process)
            await trio.sleep(PAUSE_S)
            assert not is_there(process)
            nursery.cancel_scope.cancel()


async def test_a_child_that_ends_later_is_noticed_by_its_signal(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        children = set[int]()
        nursery.start_soon(reap_orphans, lambda: children & {*zombies_of_this_process()})
        await trio.testing.wait_all_tasks_blocked()
        with zombie() as process:
            children.add(process.pid)
            await trio.sleep(LAST_LOOK_S + PAUSE_S)
            assert not is_there(process)
        nursery.cancel_scope.cancel()


async def test_the_status_is_left_to_who_waits_before_the_last_look(autojump_clock: MockClock) -> None:
    with subprocess.Popen(["sh", "-c", "exit 7"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reap_orphans, lambda: {process.pid} & {*zombies_of_this_process()})
            await trio.sleep(LAST_LOOK_S - PAUSE_S / 2)
            assert process.wait() == 7
            await trio.sleep(LAST_LOOK_S)
            nursery.cancel_scope.cancel()


def test_a_child_that_runs_is_not_a_zombie() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        assert not is_there(process)
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED)


def test_a_process_with_a_name_of_any_bytes_is_passed_over() -> None:
    """A name is cut off after 15 bytes, so that half a character may be left."""
    name_self = "import ctypes; ctypes.CDLL(None).prctl(15, b'1) Z %d (\\xff', 0, 0, 0); print(flush=True); input()"
    program = [sys.executable, "-c", name_self % os.getpid()]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process, zombie() as other:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"  # it has its name
        assert not is_there(process)
        assert is_there(other)
        process.kill()


def test_nothing_is_found_and_nothing_raised_if_processes_cannot_be_listed(tmp_path: Path) -> None:
    assert zombies_of_this_process(str(tmp_path / "no-proc")) == []


def test_a_zombie_of_another_process_is_left_to_it() -> None:
    leave_one = "import os, subprocess as s; p = s.Popen('true'); os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT)"
    program = [sys.executable, "-c", f"{leave_one}; print(p.pid, flush=True); input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert " Z " in Path(f"/proc/{pid}/stat").read_text()
        assert pid not in zombies_of_this_process()
        process.kill()
