"""The memory that large requests share, so that many uploads at once do not take all of it.

A request reserves what its body takes while it is translated (`HANDLED_TIMES` its size) before the body is read, and
keeps what it takes after that (`HELD_TIMES`) until it ends. What does not fit waits in a queue for a while, and then
gets a 503. Requests up to `SMALL_BYTES` are not counted and never wait: ten thousand connections of that size are
bounded by ``max_connections``.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from pipeline import Overloaded

MIB: Final = 1024 * 1024

SMALL_BYTES: Final = MIB
"""Up to this size a request is not counted."""
STEP_BYTES: Final = 8 * MIB
"""A body of unknown length reserves so much at a time."""
HANDLED_TIMES: Final = 3
"""The memory that a body takes while it is read, translated and sent, in times its size (``benchmarks.bench_memory
uploads``)."""
HELD_TIMES: Final = 1
"""The same after the upstream has begun to answer: the request as it was parsed, for another attempt and for the
reasoning that is remembered."""
WAIT_S: Final = 10.0
"""How long an upload waits for its turn: about as long as a dozen others take."""
MAX_WAITING: Final = 64
"""How many wait at once. Each has up to 128 KiB of its body in our buffers, and more in the kernel's."""
RETRY_AFTER_S: Final = 5.0

SHARE: Final = 4
"""By default uploads get a fourth of the memory of the process, as other things take the rest."""
MAX_DEFAULT_BYTES: Final = 768 * MIB
"""But no more: with the process's own memory, and what malloc keeps, it stays below 1 GiB."""
MIN_DEFAULT_BYTES: Final = 64 * MIB


def default_total_bytes(memory_bytes: int | None, workers: int) -> int:
    """Return the budget of one of ``workers`` processes that share ``memory_bytes``; None if that is unknown."""
    if memory_bytes is None:
        return MAX_DEFAULT_BYTES
    return max(MIN_DEFAULT_BYTES, min(MAX_DEFAULT_BYTES, memory_bytes // SHARE // workers))


class UploadBudget:
    """What all large requests of this process have reserved.

    One request may always have what it needs if nobody else has anything: ``max_body_mb`` says how large one may be.

    Args:
        total_bytes: how much they may have reserved together.
        max_body_bytes: nothing is reserved for a body that is declared to be larger: it is refused.

    Attributes:
        reserved_bytes: how much they have.
    """

    def __init__(self, total_bytes: int, *, max_body_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._max_body_bytes = max_body_bytes
        self._waiting: deque[_Turn] = deque()
        self.reserved_bytes = 0

    @property
    def waiting(self) -> int:
        """How many uploads wait for their turn."""
        return len(self._waiting)

    def resize_as(self, other: UploadBudget) -> None:
        """Be as large as another one from now on; what is reserved stays so."""
        self._total_bytes, self._max_body_bytes = other._total_bytes, other._max_body_bytes
        self._admit()

    def begin(self, content_length: bytes | None) -> Upload | None:
        """Return what reserves memory for a request with this header; None if it needs none."""
        if content_length is None or not content_length.isdigit():
            return Upload(self, None)
        size_bytes = int(content_length)
        return Upload(self, size_bytes) if SMALL_BYTES < size_bytes <= self._max_body_bytes else None

    def fits(self, size_bytes: int, own_bytes: int = 0) -> bool:
        """Return whether so much more could be reserved now by who has ``own_bytes``."""
        return self.reserved_bytes == own_bytes or self.reserved_bytes + size_bytes <= self._total_bytes

    async def reserve(self, size_bytes: int) -> None:
        """Reserve, in the order in which it is asked for.

        Raises:
            Overloaded: if there is no room for `WAIT_S`, or `MAX_WAITING` wait already; nothing is reserved then.
        """
        if not self._waiting and self.fits(size_bytes):
            self.reserved_bytes += size_bytes
            return
        if len(self._waiting) >= MAX_WAITING:
            raise too_many_uploads()
        waiting = _Turn(size_bytes)
        self._waiting.append(waiting)
        has_it = False
        try:
            with trio.move_on_after(WAIT_S):
                await waiting.turn.wait()
                has_it = True
        finally:
            if not has_it:
                if waiting.turn.is_set():  # it came together with the cancellation
                    self.release(size_bytes)
                else:
                    self._waiting.remove(waiting)
                    self._admit()  # it may have been too large for what was left, and the next one is not
        if not has_it:
            raise too_many_uploads()

    def release(self, size_bytes: int) -> None:
        """Return what was reserved, and let those in that fit now."""
        self.reserved_bytes -= size_bytes
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.fits(self._waiting[0].size_bytes):
            waiting = self._waiting.popleft()
            self.reserved_bytes += waiting.size_bytes
            waiting.turn.set()


class _Turn:
    __slots__ = ("size_bytes", "turn")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.turn = trio.Event()


class Upload:
    """What one request has reserved.

    Args:
        budget: where it does.
        declared_bytes: the length of its body; None if the client has not declared it.

    Attributes:
        is_growing: whether its length was not declared.
        room_bytes: how large the body may be without further reservation.
        size_bytes: how large it is, as far as it is known.
    """

    __slots__ = ("_budget", "_reserved_bytes", "is_growing", "room_bytes", "size_bytes")

    def __init__(self, budget: UploadBudget, declared_bytes: int | None) -> None:
        self._budget = budget
        self._reserved_bytes = 0
        self.is_growing = declared_bytes is None
        self.room_bytes = SMALL_BYTES
        self.size_bytes = declared_bytes or 0

    async def make_room(self) -> None:
        """Reserve for what is known of the body.

        A body that grows has something already, and others may wait for just that: it does not wait, too.

        Raises:
            Overloaded: as `UploadBudget.reserve`.
        """
        budget, own_bytes = self._budget, self._reserved_bytes
        room_bytes = self.size_bytes + (STEP_BYTES if self.is_growing else 0)
        more_bytes = room_bytes * HANDLED_TIMES - own_bytes
        if not own_bytes:
            await budget.reserve(more_bytes)
        elif budget.fits(more_bytes, own_bytes):
            budget.reserved_bytes += more_bytes
        else:
            raise too_many_uploads()
        self._reserved_bytes += more_bytes
        self.room_bytes = room_bytes

    def shrink(self) -> None:
        """Return what is not needed any more: the upstream has the request."""
        self._release(self._reserved_bytes - self._reserved_bytes // HANDLED_TIMES * HELD_TIMES)

    def end(self) -> None:
        """Return everything."""
        self._release(self._reserved_bytes)

    def _release(self, size_bytes: int) -> None:
        self._reserved_bytes -= size_bytes
        self._budget.release(size_bytes)


def too_many_uploads() -> Overloaded:
    """Return the failure of a request that is too large for the memory that is left."""
    return Overloaded(
        "the gateway is handling too many large requests: try again in a few seconds, or raise "
        "pipeline_settings.max_upload_mb_total",
        retry_after_s=RETRY_AFTER_S,
    )
