"""The socket between a supervisor and one of its workers, at the worker's end.

The worker writes single bytes: `READY` once it serves, `HEARTBEAT` each second from its loop, `REPLACE_ME` when it
wants a successor. The supervisor writes nothing. When its end closes, it is dead, for whatever reason, and the worker
drains. When the worker's end closes although the process lives, the loop has ended, and no heartbeats are due.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import trio

READY: Final = b"R"
HEARTBEAT: Final = b"."
REPLACE_ME: Final = b"X"
HEARTBEAT_PAUSE_S: Final = 1.0


class Lifeline:
    """A worker's end.

    Args:
        sock: the inherited socket; ours from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def report(self, word: bytes) -> None:
        """Write one of the words above; never waits, and never raises: a dead supervisor is noticed in `has_ended`."""
        with suppress(OSError):  # full, if the supervisor is stopped: then it must not stop us as well
            self._sock.send(word)

    async def keep_reporting(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            self.report(HEARTBEAT)
            await trio.sleep(HEARTBEAT_PAUSE_S)

    async def has_ended(self) -> None:
        """Return when the supervisor is dead."""
        await trio.lowlevel.wait_readable(self._sock)

    def close(self) -> None:
        """Close this end: the loop that sent heartbeats has ended."""
        self._sock.close()
