"""headrace without its figures, to measure what they cost. Not a mode of the product: it exists only here.

Run ``python -m benchmarks.unmetered serve ...`` instead of ``headrace serve ...``. The clock of the figures is free
and returns 0; lanes keep only the state that links depend on; timelines note nothing but points; nothing is added up
over all requests; no request is traced or kept by the flight recorder; the process does not note how it is; the loop is
not watched, and the kernel stamps nothing. What remains, and is therefore not in the difference to the product: the
calls to all of this, sums of zeros that stand in the engine's own lines, counts of batches and events, and the log
record.
"""

from __future__ import annotations

import inspect
import socket
import sys
from typing import Any

import trio

from pipeline import kernel_time
from pipeline.lane import Lane, Outside
from pipeline.loop import Loop
from pipeline.observe import Observed
from pipeline.timeline import Timeline

POINTS = ("mark", "mark_once")
"""What timelines still do, without a clock: the log record cannot be made without them."""


def leave_out_figures() -> None:
    """Have the engine of this process measure nothing, from now on."""
    begin = Timeline.__init__

    def begin_without_clock(self: Timeline, clock: object = None, batch_times: object = None) -> None:
        begin(self, int)  # `int()` returns 0, and is cheaper than any clock

    def keep_state(self: Lane, state: int, now_ns: int) -> None:
        self.state = state

    def receive(self: object, sock: socket.socket, max_bytes: int) -> tuple[bytes, int]:
        return sock.recv(max_bytes), 0

    _replace(Timeline, "__init__", begin_without_clock)
    for name, method in inspect.getmembers(Timeline, inspect.isfunction):
        if not name.startswith("_") and name not in POINTS and method.__annotations__["return"] == "None":
            _replace(Timeline, name, _do_nothing)
    for name, method in inspect.getmembers(Observed, inspect.isfunction):
        if not name.startswith("_") and method.__annotations__["return"] == "None":
            _replace(Observed, name, _do_nothing)
    _replace(Lane, "switch", keep_state)
    _replace(Outside, "__enter__", lambda self: self)
    _replace(Outside, "__exit__", _do_nothing)
    _replace(kernel_time.StampedReader, "receive", receive)
    _replace(kernel_time, "stamp_arrivals", _do_nothing)
    for hook in ("before_io_wait", "after_io_wait"):
        delattr(Loop, hook)  # trio calls only the hooks that an instrument has of its own


def _replace(place: Any, name: str, function: object) -> None:
    """Put a function in the place of one that exists."""
    getattr(place, name)
    setattr(place, name, function)


def _do_nothing(*_: object, **__: object) -> None:
    return None


def main() -> int:
    """Run the ``headrace`` command without figures."""
    leave_out_figures()
    from pipeline.gateway.cli import main as headrace  # what it imports must find the replacements

    _leave_out_studies()
    return headrace()


def _leave_out_studies() -> None:
    """Have the service keep nothing of its requests and of itself for those who study them."""
    from pipeline.gateway.process_state import ProcessState
    from pipeline.gateway.publishing import Publisher
    from pipeline.gateway.recorder import Recorder
    from pipeline.gateway.traced_requests import TracedRequests

    begin = Recorder.__init__

    def begin_without_memory(self: Recorder, memory: memoryview) -> None:
        begin(self, memory[:0])  # as with `recorder_mb: 0`

    async def sleep(self: object) -> None:
        await trio.sleep_forever()

    _replace(Recorder, "__init__", begin_without_memory)
    _replace(TracedRequests, "begin", _do_nothing)
    _replace(ProcessState, "run", sleep)
    _replace(Publisher, "run", sleep)


if __name__ == "__main__":
    sys.exit(main())
