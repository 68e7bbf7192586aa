"""A timer that an epoll loop can wait for with microseconds of precision; epoll's own time-outs round up to 1 ms.

Python has ``os.timerfd_create`` since 3.13; before that, libc has it. Without either, the precision is 1 ms.
"""

from __future__ import annotations

import ctypes
import select
import time
from collections.abc import Callable

_TFD_NONBLOCK = 0o4000
_TFD_TIMER_ABSTIME = 1


class _Itimerspec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class Timer:
    """Wakes an epoll loop at a time of CLOCK_MONOTONIC.

    Attributes:
        fd: the descriptor that becomes readable, edge-triggered; -1 if there is none.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self.fd = -1
        self._set: Callable[..., int] = lambda *_: 0
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self.fd = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK)
            self._set = libc.timerfd_settime
        except (AttributeError, OSError):
            return
        if self.fd >= 0:
            epoll.register(self.fd, select.EPOLLIN | select.EPOLLET)
        self._spec = _Itimerspec(0, 0, 0, 0)
        self._pointer = ctypes.byref(self._spec)

    def timeout_s(self, due_ns: int, now_ns: int) -> float:
        """Arm the timer for ``due_ns``; return the time-out for polling: none, or the time left without a timer."""
        if self.fd < 0:
            return max(0, due_ns - now_ns) / 1e9
        self._spec.value_s, self._spec.value_ns = divmod(due_ns, 1_000_000_000)
        self._set(self.fd, _TFD_TIMER_ABSTIME, self._pointer, None)
        return -1
