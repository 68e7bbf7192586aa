"""The memory of the process: how much it may use, and that large blocks of it go back to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

MMAP_THRESHOLD_BYTES: Final = 4 * MIB
TRIM_THRESHOLD_BYTES: Final = 16 * MIB
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3

UNLIMITED_BYTES: Final = 1 << 60
"""What cgroup v1 reports if there is no limit is more than this."""


def return_large_blocks() -> None:
    """Have malloc return each block of `MMAP_THRESHOLD_BYTES` or more to the system as soon as it is freed.

    By default glibc puts off more and more of that: once a block of 20 MiB was freed, blocks of up to 20 MiB come from
    the heap, of which up to 40 MiB of free memory are kept at its end, and all of it below a small object that lives on
    (mallopt(3), M_MMAP_THRESHOLD). After forty failed requests of 20 MiB that was 60 MiB in one run of two
    (``benchmarks.bench_memory failures``). Smaller blocks, such as the body of a usual request, come from the heap as
    before: a fresh mapping costs 0.2 us for each 4 KiB. Other C libraries have no such setting, and nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this process may use: the limit of its cgroup, or all of the machine; None if unknown.

    Args:
        root: the folder that has ``proc`` and ``sys``.
    """
    limits = [int(text) for text in _cgroup_limits(root) if text.isdigit()]
    with suppress(ValueError, OSError):  # not a name that this system knows
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((limit for limit in limits if 0 < limit < UNLIMITED_BYTES), default=None)


def _cgroup_limits(root: Path) -> Iterator[str]:
    """Yield what the files of the process's cgroups say, also of those above it (cgroups(7), both versions)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the host, while the mount shows the container's own group as its root.
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):
            yield _read(folder / group / name).strip()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
