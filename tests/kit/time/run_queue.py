"""For how long processes that wanted to work waited for a processor: whether a machine was too busy for exact times."""

from __future__ import annotations

from pathlib import Path


def waited_for_processor_ms(*pids: int | str) -> float:
    """Return for how long the main threads of these processes have been runnable, and did not run, since they began.

    Time that the host of a virtual machine took from all of its processors counts as well (proc(5), "steal").
    """
    waited_ns = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids)
    stolen = int(Path("/proc/stat").read_text().split()[8])
    return waited_ns / 1e6 + stolen * 10
