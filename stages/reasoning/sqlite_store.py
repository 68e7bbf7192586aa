"""Keep reasoning on disk: it survives restarts, and all workers share it.

SQLite runs in WAL mode, so that a reader never waits for a writer, and never on the event loop. ``put`` only queues a
value; one task writes all queued values in one transaction, while new ones are queued.

A file that cannot be used makes startup fail, while the operator is present. If it fails later (disk full, file
removed), no request fails: one warning is logged, and new reasoning stays in memory until the file works again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from stages.reasoning.store import (
    DISK_LIMITS,
    ENTRY_OVERHEAD_BYTES,
    HOUR_S,
    MEMORY_LIMITS,
    MemoryStore,
    StoreError,
    StoreLimits,
)

APPLICATION_ID: Final = 0x68647263
"""``hdrc``: marks the file as a store of headrace."""
SCHEMA_VERSION: Final = 1

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for that of another worker; a transaction takes about a millisecond."""
READ_TIMEOUT_S = 1.0
"""How long a request waits for a file that is being recovered; then it continues without its reasoning."""
RETRY_S = 10.0
"""The pause before a failed write is tried again."""
PRUNE_EVERY_WRITES = 64
"""How many entries may exceed the limits: reading all sizes takes 10 ms for 100 000 entries."""
CLOSE_LIMIT_S = 5.0

_KEYS_PER_QUERY = 500
"""SQLite before 3.32 allowed 999 variables (https://sqlite.org/limits.html)."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS reasoning (key BLOB PRIMARY KEY, value BLOB NOT NULL, bytes INTEGER NOT NULL,
                                      used_s INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS reasoning_by_use ON reasoning (used_s, bytes);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_PUT = """INSERT INTO reasoning (key, value, bytes, used_s) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, bytes = excluded.bytes, used_s = excluded.used_s"""
# Deletes the entries beyond the limits, counted from the most recently used one.
_PRUNE = """DELETE FROM reasoning WHERE rowid IN (SELECT id FROM (
SELECT rowid AS id, row_number() OVER use AS place, sum(bytes) OVER use AS total FROM reasoning
WINDOW use AS (ORDER BY used_s DESC, rowid DESC ROWS UNBOUNDED PRECEDING)) WHERE place > ? OR total > ?)"""

log = logging.getLogger("headrace")


def wall_clock_s() -> int:
    """Return the wall clock, which is the same for all processes, in seconds since the epoch."""
    return int(datetime.now(UTC).timestamp())


class Database:
    """One connection. Every method blocks, and only one thread at a time may use it.

    Raises:
        sqlite3.Error: from any method, if the file cannot be used.
    """

    def __init__(self, file: Path, limits: StoreLimits, *, timeout_s: float) -> None:
        self._limits = limits
        self._writes = 0
        self._connection = sqlite3.connect(file, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        # A commit survives the end of the process; a power failure may lose the latest ones, and this is only a cache.
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def prepare(self) -> None:
        """Create the tables, unless another worker has.

        Raises:
            ValueError: if the file is not a store of headrace, or was made by another version.
        """
        # Count the tables first: another worker may be creating them, and does it in one transaction.
        tables = self._number("SELECT count(*) FROM sqlite_master")
        application = self._number("PRAGMA application_id")
        version = self._number("PRAGMA user_version")
        if tables and application != APPLICATION_ID:
            raise ValueError("it is a database of another program")
        if tables and version != SCHEMA_VERSION:
            raise ValueError(f"it was made by another version of headrace (schema {version}, not {SCHEMA_VERSION})")
        if not tables:
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        self._connection.execute("PRAGMA journal_mode = WAL")

    def _number(self, query: str) -> int:
        with closing(self._connection.execute(query)) as cursor:
            return int(cursor.fetchone()[0])

    def write(self, values: Mapping[bytes, bytes], touched: Iterable[bytes], now_s: int) -> None:
        """Store values, and count ``touched`` as used now."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                _PUT, [(key, value, len(value) + ENTRY_OVERHEAD_BYTES, now_s) for key, value in values.items()]
            )
            connection.executemany("UPDATE reasoning SET used_s = ? WHERE key = ?", [(now_s, key) for key in touched])
            self._writes += len(values)
            if self._writes >= PRUNE_EVERY_WRITES:
                self._prune(now_s)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def prune(self, now_s: int) -> None:
        """Delete the entries that exceed the limits."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._prune(now_s)
        self._connection.execute("COMMIT")

    def _prune(self, now_s: int) -> None:
        limits = self._limits
        self._writes = 0
        self._connection.execute("DELETE FROM reasoning WHERE used_s < ?", (now_s - int(limits.max_age_s),))
        self._connection.execute(_PRUNE, (limits.max_entries, limits.max_bytes))

    def find(self, keys: list[bytes], now_s: int) -> list[tuple[bytes, bytes, int]]:
        """Return key, value and time of the last use of the entries that exist and are not too old."""
        rows: list[tuple[bytes, bytes, int]] = []
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[start : start + _KEYS_PER_QUERY]
            places = ",".join("?" * len(some))
            query = f"SELECT key, value, used_s FROM reasoning WHERE key IN ({places}) AND used_s >= ?"
            with closing(self._connection.execute(query, (*some, now_s - int(self._limits.max_age_s)))) as cursor:
                rows += cursor.fetchall()
        return rows

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SqliteStore:
    """Keeps everything in one file, which several processes may share.

    Args:
        file: created with mode 0600 if it does not exist.
        limits: how much is kept, and how long.
        now_s: the wall clock, in seconds since the epoch.
    """

    def __init__(
        self, file: Path, limits: StoreLimits = DISK_LIMITS, *, now_s: Callable[[], int] = wall_clock_s
    ) -> None:
        self._file = file
        self._limits = limits
        self._now_s = now_s
        self._touch_after_s = min(HOUR_S, limits.max_age_s / 24)
        # Two threads, so that a request that reads does not wait for a write to the disk.
        self._reading = trio.CapacityLimiter(1)
        self._writing = trio.CapacityLimiter(1)
        self._reader: Database | None = None
        self._writer: Database | None = None
        self._unwritten = MemoryStore(MEMORY_LIMITS)
        self._being_written: dict[bytes, bytes] = {}
        self._touched: set[bytes] = set()
        self._wake = trio.Event()
        self._exits = AsyncExitStack()
        self._has_failed = False

    async def __aenter__(self) -> Self:
        """Open the file and start the task that writes.

        Raises:
            StoreError: if the file cannot be used.
        """
        try:
            await trio.to_thread.run_sync(self._open, limiter=self._writing)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._close()
            raise StoreError(
                f"the reasoning store {self._file} cannot be used: {error}: set reasoning_store_file to another file, "
                "or delete this one if it is damaged (conversations then lose their reasoning)"
            ) from error
        async with AsyncExitStack() as opening:
            nursery = await opening.enter_async_context(trio.open_nursery())
            opening.callback(nursery.cancel_scope.cancel)
            nursery.start_soon(self._keep_writing)
            self._exits = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Write what is queued, for at most `CLOSE_LIMIT_S`, and close the file."""
        try:
            await self._exits.aclose()  # without the error, which the nursery would wrap although it did not cause it
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_LIMIT_S, shield=True):
                await self._write()
                await trio.to_thread.run_sync(self._close, limiter=self._writing)

    def put(self, key: bytes, value: bytes, /) -> None:
        """Queue a value; it is written as soon as the write in progress is done."""
        self._unwritten.put(key, value)
        self._wake.set()

    async def find(self, keys: Iterable[bytes], /) -> dict[bytes, bytes]:
        """Return what is queued or written; waits for the disk unless all keys are queued."""
        keys = list(keys)
        found = {key: self._being_written[key] for key in keys if key in self._being_written}
        found |= self._unwritten.find_nowait(keys)
        wanted = [key for key in keys if key not in found]
        if not wanted or self._reader is None:
            return found
        now_s = self._now_s()
        try:
            rows = await trio.to_thread.run_sync(self._reader.find, wanted, now_s, limiter=self._reading)
        except sqlite3.Error as error:
            self._warn(error)
            return found
        for key, value, used_s in rows:
            found[key] = value
            if now_s - used_s >= self._touch_after_s:
                self._touched.add(key)
                self._wake.set()
        return found

    async def _keep_writing(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if not await self._write():
                await trio.sleep(RETRY_S)
                self._wake.set()

    async def _write(self) -> bool:
        """Write what is queued, and return whether that succeeded."""
        self._being_written, touched = self._unwritten.take_all(), self._touched
        self._touched = set()
        if self._writer is None or not (self._being_written or touched):
            return True
        try:
            now_s = self._now_s()
            await trio.to_thread.run_sync(
                self._writer.write, self._being_written, touched, now_s, limiter=self._writing
            )
        except BaseException as error:
            newer = self._unwritten.take_all()
            for key, value in {**self._being_written, **newer}.items():
                self._unwritten.put(key, value)
            self._touched |= touched
            if not isinstance(error, sqlite3.Error):
                raise  # cancelled: __aexit__ does the last write
            self._warn(error)
            return False
        finally:
            self._being_written = {}
        if self._has_failed:
            self._has_failed = False
            log.warning("the reasoning store %s works again", self._file)
        return True

    def _warn(self, error: sqlite3.Error) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.warning(
                "the reasoning store %s failed (%s): reasoning is kept in memory until it works again; "
                "check the disk and the file's permissions",
                self._file,
                error,
            )

    def _open(self) -> None:
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files get the same mode
        self._writer = Database(self._file, self._limits, timeout_s=BUSY_TIMEOUT_S)
        self._writer.prepare()
        self._writer.prune(self._now_s())
        self._reader = Database(self._file, self._limits, timeout_s=READ_TIMEOUT_S)

    def _close(self) -> None:
        for database in (self._reader, self._writer):
            if database is not None:
                database.close()
        self._reader = self._writer = None
