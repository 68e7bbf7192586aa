"""The store on disk survives restarts, is shared by workers, and never fails a request."""

from __future__ import annotations

import logging
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from stages.reasoning import sqlite_store
from stages.reasoning.sqlite_store import PRUNE_EVERY_WRITES, SqliteStore
from stages.reasoning.store import ENTRY_OVERHEAD_BYTES, StoreError, StoreLimits

LIMITS = StoreLimits(max_entries=1000, max_bytes=1 << 20, max_age_s=1000)


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


def rows(file: Path) -> dict[bytes, bytes]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT key, value FROM reasoning"))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.001)


async def until_stored(file: Path, key: bytes) -> None:
    await until(lambda: key in rows(file))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "reasoning.db"


async def test_a_value_is_found_at_once_and_after_a_restart(file: Path) -> None:
    async with SqliteStore(file, LIMITS) as store:
        store.put(b"a", b"1")
        assert await store.find([b"a", b"x"]) == {b"a": b"1"}
        await until(lambda: rows(file) == {b"a": b"1"})
        store.put(b"a", b"2")
        store.put(b"b", b"3")
        assert await store.find([b"a", b"b"]) == {b"a": b"2", b"b": b"3"}
    assert rows(file) == {b"a": b"2", b"b": b"3"}
    async with SqliteStore(file, LIMITS) as store:
        assert await store.find([b"a", b"b", b"c"]) == {b"a": b"2", b"b": b"3"}


async def test_queued_values_are_written_when_the_store_is_closed_even_if_cancelled(file: Path) -> None:
    with trio.CancelScope() as scope:
        async with SqliteStore(file, LIMITS) as store:
            for number in range(100):
                store.put(b"%d" % number, b"x")
            scope.cancel()
            await trio.sleep_forever()
    assert len(rows(file)) == 100


async def test_more_keys_than_a_query_allows_are_found(file: Path) -> None:
    keys = [b"%d" % number for number in range(900)]
    async with SqliteStore(file, LIMITS) as store:
        for key in keys:
            store.put(key, key)
    async with SqliteStore(file, LIMITS) as store:
        assert await store.find(keys) == dict(zip(keys, keys, strict=True))


async def test_the_least_recently_used_entry_is_dropped_first_and_age_counts_from_the_last_use(file: Path) -> None:
    clock = Clock()
    cost = ENTRY_OVERHEAD_BYTES + 1
    limits = StoreLimits(max_entries=2, max_bytes=2 * cost, max_age_s=1000)
    async with SqliteStore(file, limits, now_s=clock) as store:
        for key in (b"a", b"b", b"c"):
            store.put(key, b"x")
            await until_stored(file, key)
            clock.now += 10
    clock.now += 500
    async with SqliteStore(file, limits, now_s=clock) as store:  # opening prunes it
        assert await store.find([b"a", b"b", b"c"]) == {b"b": b"x", b"c": b"x"}
    clock.now += 900
    async with SqliteStore(file, limits, now_s=clock) as store:
        assert await store.find([b"b"]) == {b"b": b"x"}
    clock.now += 900
    async with SqliteStore(file, limits, now_s=clock) as store:
        assert set(await store.find([b"a", b"b", b"c"])) == {b"b"}
    clock.now += 1001
    async with SqliteStore(file, limits, now_s=clock) as store:  # closing has written the time of the last use
        assert await store.find([b"b"]) == {}


async def test_its_size_is_bounded_while_values_are_written(file: Path) -> None:
    limits = StoreLimits(max_entries=10, max_bytes=1 << 20, max_age_s=1000)
    async with SqliteStore(file, limits) as store:
        for number in range(3 * PRUNE_EVERY_WRITES):
            store.put(b"%d" % number, b"x")
            if not number % 8:
                await until_stored(file, b"%d" % number)
    assert len(rows(file)) < 10 + PRUNE_EVERY_WRITES
    async with SqliteStore(file, limits):
        assert len(rows(file)) == 10


async def test_several_workers_share_a_file(file: Path) -> None:
    async with SqliteStore(file, LIMITS) as one, SqliteStore(file, LIMITS) as other:
        for number in range(50):
            one.put(b"1-%d" % number, b"one")
            other.put(b"2-%d" % number, b"other")
        await until(lambda: len(rows(file)) == 100)
        assert await one.find([b"2-7"]) == {b"2-7": b"other"}
        assert await other.find([b"1-7"]) == {b"1-7": b"one"}


async def test_several_processes_may_create_the_file_at_the_same_time(file: Path) -> None:
    program = (
        "import sys, trio; from pathlib import Path; from stages.reasoning.opening import open_store\n"
        "async def main():\n"
        "    async with open_store('sqlite', file=Path(sys.argv[1])) as store:\n"
        "        for n in range(100): store.put(sys.argv[2].encode() + b'%d' % n, b'x'); await trio.sleep(0)\n"
        "trio.run(main)"
    )
    async with trio.open_nursery() as nursery:
        for number in range(4):
            argv = [sys.executable, "-c", program, str(file), f"{number}-"]
            nursery.start_soon(trio.run_process, argv)
    assert len(rows(file)) == 400


async def test_only_its_owner_can_read_it(file: Path) -> None:
    async with SqliteStore(file, LIMITS) as store:
        store.put(b"a", b"1")
        await until(lambda: rows(file) == {b"a": b"1"})
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes
    assert set(modes.values()) == {0o600}


def damaged(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\0" + b"nonsense" * 500)


def foreign(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE customers (name)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            f"CREATE TABLE reasoning (key); PRAGMA application_id={sqlite_store.APPLICATION_ID}; PRAGMA user_version=9;"
        )


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, "malformed|not a database"),
        (foreign, "another program"),
        (newer, "schema 9, not 1"),
        (folder, "directory"),
    ],
)
async def test_a_file_that_cannot_be_used_makes_startup_fail_and_is_not_changed(
    file: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(StoreError, match=reason) as caught:
        async with SqliteStore(file, LIMITS):
            pass
    assert str(file) in str(caught.value)
    assert (file.read_bytes() if file.is_file() else None) == before


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        async with SqliteStore(tmp_path / "nowhere" / "r.db", LIMITS):
            pass


async def test_a_file_that_fails_later_fails_no_request_and_recovers(
    file: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.WARNING, logger="headrace")
    async with SqliteStore(file, LIMITS) as store:
        with closing(sqlite3.connect(file)) as saboteur:
            saboteur.execute("ALTER TABLE reasoning RENAME TO hidden")
        store.put(b"a", b"1")
        assert await store.find([b"a", b"b"]) == {b"a": b"1"}
        await until(lambda: bool(caplog.records))
        store.put(b"b", b"2")
        assert await store.find([b"a", b"b"]) == {b"a": b"1", b"b": b"2"}
        with closing(sqlite3.connect(file)) as saboteur:
            saboteur.execute("ALTER TABLE hidden RENAME TO reasoning")
        await trio.sleep(2 * sqlite_store.RETRY_S)
        with trio.fail_after(1000):
            while rows(file) != {b"a": b"1", b"b": b"2"}:
                await trio.sleep(1)
    messages = [record.getMessage() for record in caplog.records]
    assert "kept in memory until it works again" in messages[0]
    assert "works again" in messages[-1]
    assert len(messages) == 2


async def test_an_error_of_the_caller_passes_through_unchanged(file: Path) -> None:
    async def serve() -> None:
        async with SqliteStore(file, LIMITS) as store:
            store.put(b"a", b"1")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await serve()
    assert rows(file) == {b"a": b"1"}
