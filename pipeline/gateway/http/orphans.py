"""Process 1 of a container waits for processes that nobody else waits for.

A process whose parent has ended becomes a child of process 1 (pid_namespaces(7)). When it ends too, it stays in the
table of processes, as a zombie, until process 1 waits for it: a token command that leaves something running, and a
killed worker whose plugin had started a program, would fill the table in time.

Waiting for any child that has ended would take the exit statuses of workers from those who wait for them. Nor does it
help to know which processes were started here: `subprocess` knows its child only some time after it has started it. So
a child is reaped only if it has been a zombie for some time: whoever has started a process in this loop waits for it,
and is woken by its end within a turn or two. (If one came too late all the same, it would be told the status 0.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import trio

LOOKS: Final = 3
"""How many times in a row a zombie is seen before it is reaped. Twice is not enough: the machine may have slept in
between, and then those who wait for their processes have not had their turn."""
PAUSE_S: Final = 1.0
"""Between two looks."""

Zombies = Callable[[], Iterable[int]]


def zombies_of_this_process(proc: str = "/proc") -> list[int]:
    """Return the children of this process that have ended and that nobody has waited for; none if it cannot look."""
    found: list[int] = []
    own = b"%d" % os.getpid()
    with suppress(OSError):  # all descriptors are taken, say: the end of another child is another occasion
        for name in filter(str.isdigit, os.listdir(proc)):
            with suppress(OSError), open(f"{proc}/{name}/stat", "rb") as file:  # it may end while we look
                # After the name of its program, which may have parentheses and bytes of any kind.
                state, parent, *_ = file.read().rpartition(b")")[2].split(maxsplit=2)
                if state == b"Z" and parent == own:
                    found.append(int(name))
    return found


async def reap_orphans(find: Zombies = zombies_of_this_process) -> None:
    """Wait for children that have ended and that nobody else waits for, until cancelled.

    Args:
        find: returns all children that have ended and that nobody has waited for.
    """
    with trio.open_signal_receiver(signal.SIGCHLD) as ends:
        while True:
            seen: dict[int, int] = {}
            while seen := {pid: seen.get(pid, 0) + 1 for pid in find()}:
                _reap(pid for pid, times in seen.items() if times >= LOOKS)
                await trio.sleep(PAUSE_S)
            await anext(ends)


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
