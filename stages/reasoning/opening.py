"""Make the configured store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stages.reasoning.sqlite_store import SqliteStore
from stages.reasoning.store import DISK_LIMITS, HOUR_S, MEMORY_LIMITS, MemoryStore, ReasoningStore, StoreLimits

StoreKind = Literal["memory", "sqlite"]


def open_store(
    kind: StoreKind,
    *,
    file: str | Path | None = None,
    max_entries: int | None = None,
    max_mb: float | None = None,
    max_age_h: float | None = None,
) -> ReasoningStore:
    """Return a store, to be entered in the app's lifespan: ``async with open_store("sqlite", file=...) as store``.

    Args:
        kind: where reasoning is kept: in ``memory``, or on disk, where it survives restarts and serves all workers.
        file: the file of ``sqlite``; its folder must exist.
        max_entries, max_mb, max_age_h: limits in turns, MiB and hours since the last use; None is the kind's default.

    Raises:
        ValueError: if ``sqlite`` has no file.
    """
    default = MEMORY_LIMITS if kind == "memory" else DISK_LIMITS
    limits = StoreLimits(
        max_entries=default.max_entries if max_entries is None else max_entries,
        max_bytes=default.max_bytes if max_mb is None else int(max_mb * (1 << 20)),
        max_age_s=default.max_age_s if max_age_h is None else max_age_h * HOUR_S,
    )
    if kind == "memory":
        return MemoryStore(limits)
    if file is None:
        raise ValueError("a store of the kind sqlite needs a file: set reasoning_store_file")
    return SqliteStore(Path(file), limits)
