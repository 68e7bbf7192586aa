"""Linux' locks of an open file description, on single bytes of a file (``fcntl(2)``, "Open file description locks").

The kernel releases them when the last descriptor of that description is closed, as with the death of its process.
POSIX locks belong to a process: all of them would be gone as soon as anything in it closes another descriptor of the
file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from functools import lru_cache


def own_description(fd: int) -> int:
    """Return a descriptor of the same file with a description, and thus with locks, of its own.

    One that is inherited or duplicated shares its locks with the others.
    """
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def lock_nowait(fd: int, at: int) -> bool:
    """Lock the byte at ``at``; return whether nobody else has it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, at))
    except (BlockingIOError, PermissionError):  # POSIX allows both
        return False
    return True


def unlock(fd: int, at: int) -> None:
    """Release the byte at ``at``."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, at))


def is_locked(fd: int, at: int) -> bool:
    """Return whether another description has locked the byte at ``at``."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, at))
    (kind,) = struct.unpack_from("h", answer)
    return bool(kind != fcntl.F_UNLCK)


@lru_cache(maxsize=4096)
def _flock(kind: int, at: int) -> bytes:
    """Return a ``struct flock`` for one byte; its last field, the process, must be 0 for these locks."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0)
