"""Servers and tools as processes: started on a core of their own, observed through /proc, and ended with the block."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORES = CORES[:1] if len(CORES) > 1 else []
"""The cores of the service under test: one of its own if there are two; any if there is only one."""
TOOL_CORES = CORES[1:3]
"""The cores of the tools: the upstream runs on the first of them, the load generator on the last."""
_PAGE_KB = resource.getpagesize() // 1024
_PR_SET_PDEATHSIG = 1  # prctl(2)


class NotReady(Exception):
    """A server did not start; the message has the end of its output."""


def percentiles(values: Iterable[int], per: float) -> dict[str, float]:
    """Return the count, mean, percentiles and maximum of ``values``, each divided by ``per``."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    last = len(ordered) - 1
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    picked = {name: round(ordered[round(last * q)] / per, 4) for name, q in quantiles.items()}
    return {"n": len(ordered), "mean": round(sum(ordered) / len(ordered) / per, 4), **picked}


def raise_descriptor_limit() -> int:
    """Raise the limit of descriptors as far as the system allows, and return it. Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """Return a port that is free and stays free: below the ephemeral ports (on Linux from 32768)."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str], *, cores: Sequence[int] = (), environ: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Generator[Server]:
    """Run a server for the duration of a block, on ``cores`` if given, in a session of its own.

    What it prints, such as its log, goes to a file.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-output-") as folder:
        output = Path(folder, "output")
        with output.open("ab") as file:  # to append: its processes share it, and nobody moves its end
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
                preexec_fn=at_start(cores),
            )
        try:
            yield Server(process, output)
        finally:
            end(process)


def at_start(cores: Sequence[int]) -> Callable[[], None]:
    """Return what a child process does first: it stays on ``cores``, if any, and is told to end when we have ended."""
    return partial(_start, cores, os.getpid())


def _start(cores: Sequence[int], parent: int) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    if sys.platform == "linux":  # else a benchmark that is killed leaves its services behind
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants, which have a session of their own."""
    for wanted, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, wanted)  # the session that we created, including workers
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.output = output

    def printed(self) -> str:
        """Return what it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_ready(
        self, port: int, path: str = "/livez", *, patience_s: float = 60.0, any_status: bool = False
    ) -> None:
        """Wait until a GET of ``path`` is answered with 200.

        Raises:
            NotReady: if it ends or does not answer in time.
        """
        limit = time.monotonic() + patience_s
        while time.monotonic() < limit and self.process.poll() is None:
            status = get_status(port, path)
            if status == 200 or (any_status and status):
                return
            time.sleep(0.005)
        end = "ended" if self.process.poll() is not None else f"did not answer within {patience_s:.0f} s"
        raise NotReady(f"{self.process.args!r} {end}; it printed:\n{self.printed()[-2000:]}")


def get(port: int, path: str, timeout_s: float = 1.0) -> bytes:
    """Return the complete answer to a GET; empty if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n" % path.encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
                head, _, body = answer.partition(b"\r\n\r\n")
                if b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n":
                    break
            return answer
    except OSError:
        return b""


def get_status(port: int, path: str) -> int:
    """Return the status of a GET, or 0 without an answer."""
    fields = get(port, path).split(b" ", 2)
    return int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else 0


def python(*arguments: str) -> list[str]:
    """Return the command that runs this Python."""
    return [sys.executable, *arguments]


_RUN = """\
import runpy, sys
tree, root, module = sys.argv[1:4]
sys.path.insert(0, tree)
import pipeline, stages
sys.path.insert(0, root)
sys.argv[1:] = sys.argv[4:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_with_tree(module: str, tree: Path, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules with the product of ``tree``, not with benchmarks of its own."""
    return python("-P", "-c", _RUN, str(tree), str(ROOT), module, *arguments)


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def worker_of(pid: int) -> int:
    """Return the process that serves: the worker of a supervisor that has one, or the process itself."""
    return (family(pid)[1:] or [pid])[0]


def cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time that processes have used so far, exact where the kernel provides it (schedstat)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks_ns = (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
            exact_ns = 0
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    exact_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
            # Threads that have ended are counted only in ticks of 10 ms.
            total += exact_ns if exact_ns > ticks_ns - 50_000_000 else ticks_ns
    return total


def rss_kb(pids: Iterable[int]) -> int:
    """Return the resident memory of processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KB
    return total


def shared_rss_kb(pids: Iterable[int]) -> int:
    """Return how much of the resident memory of processes is shared: in files in memory (proc(5), RssShmem)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.partition("\nRssShmem:")[2].split()[0])
    return total


def busy_ns() -> int:
    """Return the CPU time that the whole machine has used so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
