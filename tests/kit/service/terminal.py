"""A command on a terminal: what it asks is answered, and what it shows is returned."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.needs import ROOT
from kit.time.patience import PROCESSES_S


def on_a_terminal(
    arguments: Sequence[str],
    answers: Sequence[tuple[str, str]] = (),
    *,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    until: str | None = None,
) -> tuple[int, str]:
    """Run ``headrace`` on a terminal of its own to its end; return its status, and what the terminal has shown.

    Args:
        arguments: of the command.
        answers: what is waited for on the terminal, and what is typed then, in this order.
        folder: where it runs.
        environ: variables besides ``PATH`` and ``HOME``.
        until: what is waited for before it is sent SIGTERM; None for its own end.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    variables = {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **(environ or {})}
    pid, terminal = pty.fork()
    if pid == 0:  # only what is safe after a fork
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-m", "pipeline.gateway", *arguments], variables)
    waiting, shown, seen = list(answers), "", 0
    deadline = time.monotonic() + PROCESSES_S
    try:
        while True:
            ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more came after:\n{shown}"
            try:
                chunk = os.read(terminal, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not chunk:
                break
            shown += chunk.decode().replace("\r", "")
            while waiting and (at := shown.find(waiting[0][0], seen)) >= 0:
                seen = at + len(waiting[0][0])
                _wait_until_it_reads(pid)
                os.write(terminal, waiting.pop(0)[1].encode())
            if until is not None and until in shown[seen:]:
                until = None
                os.kill(pid, signal.SIGTERM)
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert not waiting, f"{waiting[0][0]!r} was not shown:\n{shown}"
    return os.waitstatus_to_exitcode(status), shown


def _wait_until_it_reads(pid: int) -> None:
    """Wait until a process sleeps: between a prompt and its read, Ctrl-C would be noticed with the next line only."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] not in "SZ":
        os.sched_yield()
