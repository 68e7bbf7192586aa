"""Changes of files are noticed, however they are made; real files, and a real watcher where it is installed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import pytest
import trio
import trio.testing
from kit.time.patience import patiently

from pipeline.gateway import watching
from pipeline.gateway.watching import watch_code, watch_files

pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")


class Told:
    """Counts the changes that are told."""

    def __init__(self) -> None:
        self.times = 0
        self._event = trio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._event.set()
        self._event = trio.Event()

    async def after(self, change: Callable[[], object]) -> None:
        """Make a change, and wait until one is told; again, as the watcher may not have begun yet."""
        event = self._event
        with patiently():
            while not event.is_set():
                change()
                with trio.move_on_after(2):
                    await event.wait()


@asynccontextmanager
async def watched(*files: Path) -> AsyncIterator[Told]:
    """Watch files for the duration of a block."""
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_files, lambda: files, told)
        await trio.testing.wait_all_tasks_blocked()
        yield told
        nursery.cancel_scope.cancel()


async def test_a_file_that_is_written_is_noticed(tmp_path: Path) -> None:
    """An editor writes into the file."""
    file = tmp_path / "config.yaml"
    file.write_text("a: 1\n")
    async with watched(file) as told:
        await told.after(lambda: file.write_text("a: 2\n"))
        await told.after(lambda: file.write_text("a: 3\n"))
    assert told.times == 2


async def test_a_file_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    """An editor writes another file and renames it."""
    file = tmp_path / "config.yaml"
    file.write_text("a: 1\n")

    def replace() -> None:
        (tmp_path / ".config.yaml.swp").write_text("a: 2\n")
        (tmp_path / ".config.yaml.swp").rename(file)

    async with watched(file) as told:
        await told.after(replace)
    assert told.times == 1


async def test_the_swap_of_a_mounted_config_map_is_noticed(tmp_path: Path) -> None:
    """Kubernetes replaces the link to the folder that the file's own link goes through."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "config.yaml").write_text(f"a: {number}\n")
    (tmp_path / "..data").symlink_to("..1")
    file = tmp_path / "config.yaml"
    file.symlink_to("..data/config.yaml")

    def swap() -> None:
        (tmp_path / "..data_tmp").unlink(missing_ok=True)
        (tmp_path / "..data_tmp").symlink_to("..2")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    async with watched(file) as told:
        await told.after(swap)
    assert (file.read_text(), told.times) == ("a: 2\n", 1)


async def test_only_another_content_is_told(tmp_path: Path) -> None:
    """Other files change, the file is written with the same content, and vanishes for a moment; then it changes."""
    file, other = tmp_path / "config.yaml", tmp_path / "other.yaml"
    file.write_text("a: 1\n")

    def change_nothing() -> None:
        other.write_text(str(os.urandom(4)))
        file.write_text("a: 1\n")
        file.unlink()
        file.write_text("a: 1\n")

    async with watched(file) as told, watched(other) as told_of_other:
        await told_of_other.after(change_nothing)
        assert told.times == 0
        await told.after(lambda: file.write_text("a: 2\n"))
    assert told.times == 1


async def test_a_file_that_is_not_there_yet_and_one_that_vanishes_are_noticed(tmp_path: Path) -> None:
    """A file is included before its folder exists; the folder comes, and goes again."""
    file, inner = tmp_path / "config.yaml", tmp_path / "inner" / "more.yaml"
    file.write_text("a: 1\n")

    def create() -> None:
        inner.parent.mkdir(exist_ok=True)
        inner.write_text("b: 1\n")

    async with watched(file, inner) as told:
        await told.after(create)
        await told.after(lambda: rmtree(inner.parent, ignore_errors=True))
        await told.after(lambda: file.write_text("a: 2\n"))
    assert told.times == 3


async def test_what_cannot_be_watched_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder of the code is not there, and comes."""
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    folder = tmp_path / "code"
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_code, [folder], told)
        with patiently():
            while "files cannot be watched" not in caplog.text:
                await trio.sleep(0.01)
        folder.mkdir()
        await told.after(lambda: (folder / "stage.py").write_text(str(os.urandom(4))))
        nursery.cancel_scope.cancel()


async def test_code_is_noticed_at_any_depth_and_other_files_are_not(tmp_path: Path) -> None:
    """A text file changes, then a module in a package."""
    folder = tmp_path / "package" / "inner"
    folder.mkdir(parents=True)
    seen: list[int] = []
    told = Told()
    written = 0

    def write_code() -> None:
        nonlocal written
        written += 1
        (folder / "stage.py").write_text(f"NUMBER = {written}\n")

    def on_change() -> None:
        seen.append(written)
        told()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_code, [tmp_path], on_change)
        (folder / "notes.txt").write_text("x")
        await told.after(write_code)
        nursery.cancel_scope.cancel()
    assert 0 not in seen
