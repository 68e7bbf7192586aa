"""When bytes arrived at a socket, by the kernel: however late the process comes to read them.

Not the product's code for this (`pipeline.kernel_time`): the yardstick must not have the faults of what it measures.
"""

from __future__ import annotations

import socket
import struct
import time

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_TIMESPEC = struct.Struct("@ll")

ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
"""What a read needs for the stamp."""


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel stamp what arrives at a socket, and at those that it accepts."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def arrived_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return when the last byte of a read arrived, on the wall clock; now, if the kernel does not stamp them yet."""
    for level, kind, stamp in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(stamp[: _TIMESPEC.size])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()
