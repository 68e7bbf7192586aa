"""When bytes arrived, by the kernel's own stamp: before the loop came to read them, perhaps long before.

Linux stamps each packet of a socket with SO_TIMESTAMPNS (socket(7)), which sockets inherit from their listener, so that
bytes which came before the accept are stamped too. A stamped read costs 2 us more than a plain one. The stamp is on the
wall clock, which somebody may set; here it is converted to the clock of the figures, or dropped.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; Python has no name for it before 3.14
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)

Clock = Callable[[], int]
"""Returns the time in ns. Tests pass one that follows trio's virtual clock."""

MAX_DRIFT_NS: Final = 5_000_000
"""By how much the wall clock may move against the other between two stamps; more is a step, for which no stamp counts.
Both clocks are slewed together, so that only a step, or a pause between two readings, moves one against the other."""


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel stamp what arrives at ``sock``, and at the sockets that it accepts; without effect elsewhere."""
    if sys.platform == "linux" and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


class StampedReader:
    """Reads sockets together with the kernel's stamps; one for all sockets of a server or of a pool.

    Args:
        wall_ns: returns the wall clock, as the kernel's stamps have it.
        clock: returns the clock of the figures.
    """

    __slots__ = ("_clock", "_offset_ns", "_wall_ns")

    def __init__(
        self,
        wall_ns: Clock = time.time_ns,
        clock: Clock = perf_counter_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._clock = clock
        self._offset_ns = wall_ns() - clock()

    def receive(self, sock: socket.socket, max_bytes: int) -> tuple[bytes, int]:
        """Read once; return the bytes and when the last of them arrived, in ns on our clock, or 0 if that is unknown.

        Raises:
            OSError: as `socket.socket.recvmsg` does.
        """
        chunk, ancillary, _, _ = sock.recvmsg(max_bytes, _ANCILLARY_BYTES)
        for level, kind, stamp in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(stamp) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                return chunk, self._on_our_clock(seconds * 1_000_000_000 + nanoseconds)
        return chunk, 0

    def _on_our_clock(self, stamp_ns: int) -> int:
        now_ns = self._clock()
        offset_ns = self._wall_ns() - now_ns
        is_stepped = abs(offset_ns - self._offset_ns) > MAX_DRIFT_NS
        self._offset_ns = offset_ns
        if is_stepped or stamp_ns - offset_ns > now_ns:
            return 0
        return stamp_ns - offset_ns
