"""Where log lines go: a file descriptor whose reader may stall, which must not stop the streams."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Sequence


class LineSink:
    """Writes lines to a file descriptor without waiting for its reader.

    What we want: a log line costs a few microseconds, and never stops the streams. Why it is hard: a write to a pipe
    whose reader (journald, docker, a shell pipeline) has stalled blocks, and with it the trio loop and every stream in
    the process. Making the descriptor non-blocking does not work: the flag belongs to the open file, which we share
    with our parent's shell and with the other workers. A thread with a queue works, but costs a thread switch for each
    line and loses the last lines when the process dies. What we do: call `poll` first. Linux reports a pipe as writable
    only while a whole PIPE_BUF (4096 bytes) fits, so that a write of at most that many bytes then returns at once, and
    is atomic among processes. Lines for which there is no room are dropped and counted, and the next line that gets
    through is preceded by the count. How it can still fail: another process that shares the pipe fills it between our
    poll and our write (then we wait until the reader reads again), and a file on a hung network disk blocks like any
    file. See pipe(7), poll(2).
    """

    PIPE_BUF_BYTES = 4096
    MAX_WAIT_MS = 20
    """How long each further part of a line longer than PIPE_BUF may wait for the reader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._unreported = 0
        self._cut = False
        self.dropped_lines = 0
        """Lines dropped or cut short since the start."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write each line and a newline, or drop it; never raises for a broken or full descriptor."""
        for group in [lines] if self._is_file else [[line] for line in lines]:  # a file has room for all
            if self._unreported:
                notice = b'{"level":"warning","logger":"headrace.logs","message":"log lines dropped: %d"}'
                if not self._put(notice % self._unreported, max_wait_ms=0):
                    self._drop(len(group))
                    continue
                self._unreported = 0
            if not self._put(b"\n".join(group), max_wait_ms=self.MAX_WAIT_MS):
                self._drop(len(group))

    def _put(self, line: bytes, *, max_wait_ms: int) -> bool:
        data = b"\n%b\n" % line if self._cut else line + b"\n"
        at = 0
        while at < len(data):
            if not self._is_writable(max_wait_ms if at else 0):
                self._cut = self._cut or at > 0
                return False
            try:
                at += os.write(self._fd, data if self._is_file else data[at : at + self.PIPE_BUF_BYTES])
            except OSError:
                self._cut = self._cut or at > 0
                return False
        self._cut = False
        return True

    def _is_writable(self, max_wait_ms: int) -> bool:
        return any(state & select.POLLOUT for _, state in self._poll.poll(max_wait_ms))

    def _drop(self, lines: int) -> None:
        self.dropped_lines += lines
        self._unreported += lines
