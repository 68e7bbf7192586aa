"""Long work on one request, in slices: where it may pause so that all other requests go on.

A body of a few hundred kilobytes or more is worked on in a thread of its own (`stages.large_bodies`, ADR 0019), which
may be paused between any two steps of a loop. Elsewhere nothing here does anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

LARGE_BYTES: Final = 256 * 1024
"""From this size on a body is worked on in slices. Below it no step takes more than 25 ms, even if the body consists of
the smallest possible messages (4 us for each of 40 bytes)."""

STEP_ITEMS: Final = 256
"""So many items are worked on before a pause; at most 5 us for each."""

Pause: TypeAlias = Callable[[], object]
"""Called between two steps; returns at once if the slice is not over."""


class _Here(threading.local):
    pause: Pause | None = None


_HERE: Final = _Here()


def current_pause() -> Pause | None:
    """Return what to call between two steps in this thread; None if the work must not, or need not, be sliced."""
    return _HERE.pause


@contextmanager
def sliced(pause: Pause) -> Generator[None]:
    """Have the work of the block call ``pause`` between its steps. Blocks of different threads are independent."""
    before, _HERE.pause = _HERE.pause, pause
    try:
        yield
    finally:
        _HERE.pause = before


def paced(items: Sequence[T]) -> Iterable[T]:
    """Return the items of a list, with pauses between them if there are many and the work is sliced."""
    return items if len(items) < STEP_ITEMS or (pause := _HERE.pause) is None else _paced(items, pause)


def drop(items: list[T], pause: Pause) -> None:
    """Empty a list. To free 150 000 small messages at once takes 30 ms."""
    while items:
        del items[-STEP_ITEMS:]
        pause()


def _paced(items: Sequence[T], pause: Pause) -> Iterator[T]:
    for start in range(0, len(items), STEP_ITEMS):
        yield from items[start : start + STEP_ITEMS]
        pause()
