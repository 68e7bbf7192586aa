"""Work on a large body in a thread, in slices, so that no other request waits for it (ADR 0019).

Python's threads take turns at any instruction, so none of our loops holds the event loop; only single calls in C do,
and `stages.wire.sliced_json` keeps those short. But each time that the event loop makes a system call it loses its turn
to the thread, for up to 5 ms. So the thread pauses when its slice is over, until the loop has gone through all tasks
that can run.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, TypeVar

import outcome
import trio

from stages.wire.slices import LARGE_BYTES, sliced

T = TypeVar("T")

SLICE_NS: Final = 5_000_000
"""How long the thread works before the loop has its turn."""
MAX_SLICE_NS: Final = 20_000_000
"""The same if the loop is busy: as long as the last turn of the loop, but no longer than this."""

_ONE_AT_A_TIME: Final[trio.lowlevel.RunVar[trio.CapacityLimiter]] = trio.lowlevel.RunVar("large bodies")


async def in_slices(size_bytes: int, work: Callable[[], T]) -> T:
    """Do ``work`` on a body, and return its result: at once, or in a thread if the body is large.

    One large body is worked on at a time; the others wait. If the request is cancelled the work ends at its next pause,
    with `trio.Cancelled`, which it must let pass. It must only touch what belongs to its request.

    Args:
        size_bytes: the size of the body; below `LARGE_BYTES` this is not a checkpoint.
        work: the work, and all that it needs.
    """
    if size_bytes < LARGE_BYTES:
        return work()
    try:
        limiter = _ONE_AT_A_TIME.get()
    except LookupError:
        _ONE_AT_A_TIME.set(limiter := trio.CapacityLimiter(1))

    # An exception that leaves the thread, even as its value, is kept in a cycle: trio's frames refer to it, and it to
    # them by its traceback, whose frames have the body. So it is taken out of a list, to which nobody else refers.
    results: list[outcome.Outcome[T]] = []

    def run() -> None:
        with sliced(_Slices().pause):
            results.append(outcome.capture(work))

    await trio.to_thread.run_sync(run, limiter=limiter)
    return results.pop().unwrap()


class _Slices:
    """The slices of one piece of work."""

    __slots__ = ("_ends_ns",)

    def __init__(self) -> None:
        self._ends_ns = perf_counter_ns() + SLICE_NS

    def pause(self) -> None:
        """Let the loop have its turn if the slice is over.

        Raises:
            trio.Cancelled: if the request was cancelled.
        """
        paused_ns = perf_counter_ns()
        if paused_ns < self._ends_ns:
            return
        trio.from_thread.run(trio.lowlevel.cancel_shielded_checkpoint)
        trio.from_thread.check_cancelled()  # not within the checkpoint: see above
        now_ns = perf_counter_ns()
        self._ends_ns = now_ns + min(max(SLICE_NS, now_ns - paused_ns), MAX_SLICE_NS)
