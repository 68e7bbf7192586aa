"""The store in memory stays within its limits, and drops the least recently used entries first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.reasoning.keys import TextDigest, digest_of
from stages.reasoning.opening import open_store
from stages.reasoning.sqlite_store import SqliteStore
from stages.reasoning.store import ENTRY_OVERHEAD_BYTES, MemoryStore, StoreLimits

LIMITS = StoreLimits(max_entries=3, max_bytes=10_000, max_age_s=100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def kept(store: MemoryStore, *keys: bytes) -> set[bytes]:
    return set(await store.find(keys))


async def test_it_returns_the_latest_values() -> None:
    async with MemoryStore(LIMITS) as store:
        store.put(b"a", b"1")
        store.put(b"b", b"2")
        store.put(b"a", b"3")
        assert await store.find([b"a", b"b", b"c"]) == {b"a": b"3", b"b": b"2"}
        assert (len(store), store.size_bytes) == (2, 2 * (1 + ENTRY_OVERHEAD_BYTES))
    assert len(store) == 0


async def test_the_least_recently_used_entry_is_dropped_first() -> None:
    store = MemoryStore(LIMITS)
    for key in (b"a", b"b", b"c"):
        store.put(key, b"")
    await store.find([b"a"])
    store.put(b"d", b"")
    assert await kept(store, b"a", b"b", b"c", b"d") == {b"a", b"c", b"d"}


async def test_bytes_are_bounded_and_a_value_larger_than_the_store_is_not_kept() -> None:
    store = MemoryStore(LIMITS)
    store.put(b"a", bytes(5_000))
    store.put(b"b", bytes(5_000))
    assert await kept(store, b"a", b"b") == {b"b"}
    store.put(b"b", bytes(10_000))
    assert (len(store), store.size_bytes) == (0, 0)


async def test_age_counts_from_the_last_use_so_that_an_active_conversation_stays_complete() -> None:
    clock = Clock()
    store = MemoryStore(LIMITS, clock=clock)
    store.put(b"a", b"1")
    store.put(b"b", b"2")
    clock.now = 90
    assert await kept(store, b"a") == {b"a"}
    clock.now = 150
    assert await kept(store, b"a", b"b") == {b"a"}
    clock.now = 251
    assert await kept(store, b"a") == set()
    assert (len(store), store.size_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.binary(max_size=4000)), max_size=30))
def test_it_is_never_over_its_limits(puts: list[tuple[bytes, bytes]]) -> None:
    store = MemoryStore(LIMITS, clock=Clock())
    for key, value in puts:
        store.put(key, value)
        assert len(store) <= LIMITS.max_entries
        assert store.size_bytes <= LIMITS.max_bytes
    taken = store.take_all()
    assert (len(store), store.size_bytes) == (0, 0)
    assert all(dict(puts)[key] == value for key, value in taken.items())


@given(st.lists(st.text(" \n\tab\ud800☃", max_size=4), max_size=8))
def test_the_hash_of_a_text_does_not_depend_on_how_it_was_cut(pieces: list[str]) -> None:
    digest = TextDigest()
    for piece in pieces:
        digest.update(piece)
    assert (None if digest.is_empty else digest.digest()) == digest_of("".join(pieces))


def test_open_store_returns_the_configured_kind(tmp_path: Path) -> None:
    assert isinstance(open_store("memory"), MemoryStore)
    assert isinstance(open_store("sqlite", file=tmp_path / "r.db", max_entries=1, max_mb=0.5, max_age_h=2), SqliteStore)
    with pytest.raises(ValueError, match="reasoning_store_file"):
        open_store("sqlite")
