"""The answer of ``canned/timed``: its bytes come when its script says, as from a model that does not wait for us.

What became due while nobody read, because the loop was held or there was no room, is there at the next read, as in a
socket's buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio

from pipeline.errors import UpstreamFault
from pipeline.loop import current_loop
from stages.upstreams.canned.events import Frame
from stages.upstreams.canned.timing import Timing

CHUNK_BYTES: Final = 64 * 1024
"""As much as one read of a socket returns, about: a frame is not cut."""


class TimedAnswer:
    """An `UpstreamAnswer` with a script; its head was due at ``head_due_s`` on trio's clock."""

    is_stream = True
    is_backing_off = False

    def __init__(self, frames: Iterator[Frame], timing: Timing, head_due_s: float) -> None:
        self.arrived_ns = arrived_ns(head_due_s)
        self._frames = frames
        self._token_due_s = timing.due_s()
        self._tokens_left = -1 if timing.fail_after is None else timing.fail_after
        self._head_due_s = self._due_s = head_due_s
        self._breaks_off = False
        self._frame: Frame | None = None
        self._advance()

    async def receive(self) -> bytes:
        """Return what is due, at least the next frame; ``b""`` at the end.

        Raises:
            UpstreamFault: ``upstream_protocol`` if the script says that the answer breaks off here.
        """
        await trio.sleep_until(self._due_s)
        now_s = trio.current_time()
        self.arrived_ns = arrived_ns(self._due_s)
        parts: list[bytes] = []
        size_bytes = 0
        while self._frame is not None and self._due_s <= now_s and size_bytes < CHUNK_BYTES:
            parts.append(self._frame.data)
            size_bytes += len(self._frame.data)
            self._advance()
        if self._breaks_off and not parts:
            raise UpstreamFault("the embedded model broke its answer off, as scripted", code="upstream_protocol")
        return b"".join(parts)

    async def back_off(self) -> None:
        """Do nothing: it never backs off."""

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Do nothing: there is nothing to close."""

    def _advance(self) -> None:
        """Go to the next frame. One without a token is due with the frame before it."""
        self._frame = next(self._frames, None)
        if self._frame is None or not self._frame.is_token:
            return
        if self._tokens_left == 0:
            self._frame, self._breaks_off = None, True
            return
        self._tokens_left -= 1
        self._due_s = self._head_due_s + next(self._token_due_s)


def arrived_ns(due_s: float) -> int:
    """Return when bytes that were due at ``due_s`` arrived, as our transport knows it: 0 unless the loop is late."""
    loop = current_loop()
    now_ns = loop.clock()
    if not loop.is_held(now_ns):
        return 0
    return now_ns - max(0, int((trio.current_time() - due_s) * 1e9))
