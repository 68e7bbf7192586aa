"""Notice that files have changed: those of the configuration (``watch_config``), or code (``headrace dev --reload``).

Folders are watched, not files: editors and Kubernetes do not write into a file but put another one in its place. A
mounted ConfigMap is a link to a link, of which only the inner one is replaced, in the same folder. So every change in
the folder is a reason to look, and only another content is told.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from hashlib import sha256
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from pipeline.registry import GROUP

if TYPE_CHECKING:  # the extra `watch`
    from watchfiles.main import FileChange

DEBOUNCE_MS: Final = 300
"""What changes within this time is one change: an editor writes more than once."""
STEP_MS: Final = 50
RETRY_S: Final = 30.0

log = logging.getLogger("headrace")


async def watch_files(files: Callable[[], Iterable[Path]], on_change: Callable[[], object]) -> None:
    """Call ``on_change`` whenever the content of a file has changed, until cancelled.

    Args:
        files: returns the files; it is asked again after each change, as a file may name others.
        on_change: must not raise.
    """
    seen: dict[Path, bytes | None] = {}

    async def watch_once() -> None:
        nonlocal seen
        watched = list(files())
        seen = {**_contents(watched), **{file: seen[file] for file in watched if file in seen}}
        folders, found, vanished = _parents(watched), seen, set[Path]()
        async with _changes(folders, recursive=False) as changes:
            # It also looks when nothing is told for a while: something may have changed before we watched.
            async for _ in changes:
                found = _contents(watched)
                missing = {file for file in watched if found[file] is None and seen[file] is not None}
                is_certain = missing <= vanished  # a file that is being replaced is not there for a moment
                vanished = missing
                if (found != seen and is_certain) or _parents(watched) != folders:
                    break
        if found != seen:
            seen = found
            on_change()

    while True:
        await _despite_failures(watch_once)


async def watch_code(folders: Collection[Path], on_change: Callable[[], object]) -> None:
    """Call ``on_change`` whenever a Python file in one of the folders, at any depth, has changed, until cancelled."""
    from watchfiles import PythonFilter

    is_code = PythonFilter()

    async def watch_once() -> None:
        async with _changes(folders, recursive=True) as changes:
            async for changed in changes:
                if any(is_code(kind, name) for kind, name in changed):
                    on_change()

    while True:
        await _despite_failures(watch_once)


def code_folders() -> set[Path]:
    """Return the folders of the packages of all installed stages; of a single module, its folder."""
    folders: set[Path] = set()
    for point in entry_points(group=GROUP):
        with suppress(ImportError, ValueError):  # it is reported where it is loaded
            if (spec := find_spec(point.module.partition(".")[0])) is not None:
                parts = spec.submodule_search_locations or (
                    [] if spec.origin is None else [str(Path(spec.origin).parent)]
                )
                folders.update(map(Path, parts))
    return folders


def _parents(files: Iterable[Path]) -> set[Path]:
    return {file.parent for file in files if file.parent.is_dir()}


async def _despite_failures(watch_once: Callable[[], Awaitable[None]]) -> None:
    has_failed = False
    try:
        await watch_once()
    except* (OSError, RuntimeError) as failures:  # a folder has vanished, or the system watches no more files
        has_failed = True
        log.warning("files cannot be watched, the next try is in %g s: %s", RETRY_S, _leaf(failures))
    if has_failed:
        await trio.sleep(RETRY_S)


def _leaf(group: BaseExceptionGroup[Exception]) -> BaseException:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf


def _contents(files: Iterable[Path]) -> dict[Path, bytes | None]:
    found: dict[Path, bytes | None] = {}
    for file in files:
        try:
            found[file] = sha256(file.read_bytes()).digest()
        except OSError:
            found[file] = None
    return found


@asynccontextmanager
async def _changes(folders: Collection[Path], *, recursive: bool) -> AsyncGenerator[AsyncIterator[set[FileChange]]]:
    """Return the changes in some folders, as they happen."""
    from watchfiles import awatch

    is_over = trio.Event()  # its thread looks at it every `STEP_MS`; a cancellation alone would wait for seconds

    async def end_with_us() -> None:
        try:
            await trio.sleep_forever()
        finally:
            is_over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_us)
        watching = awatch(
            *folders,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=is_over,
            recursive=recursive,
            yield_on_timeout=True,
        )
        async with aclosing(watching):
            yield watching
        nursery.cancel_scope.cancel()
