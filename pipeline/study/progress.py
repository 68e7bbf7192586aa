"""Shows on a terminal how far long work has come."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Final, TextIO

_FIRST_S: Final = 0.5
"""What is done sooner shows nothing."""
_PAUSE_S: Final = 0.1


class Progress:
    """One line on stderr, if that is a terminal, which is removed at the end.

    Args:
        what: is being done.
        total: of what is counted.
        stream: instead of stderr.
    """

    def __init__(self, what: str, total: float, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._is_shown = self._stream.isatty()
        self._next_s = monotonic() + _FIRST_S
        self._has_shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._has_shown:
            self._write("\r\x1b[K")

    def show(self, done: float) -> None:
        """Note that so much is done, and show it from time to time."""
        if self._is_shown and (now_s := monotonic()) >= self._next_s:
            self._next_s = now_s + _PAUSE_S
            self._has_shown = True
            share = min(1.0, done / self._total) if self._total else 1.0
            self._write(f"\r{self._what}: {share:4.0%}\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
