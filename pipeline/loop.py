"""What holds the loop: while one task works, all others wait, and their own figures cannot say for whom.

A *stall* is a turn of one stage over `STAGE_TURN_NS`, or a turn of the whole loop over `LOOP_TURN_NS` of which no stage
says that it was its own: many small turns, a collection of garbage, or code outside of the stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Final

import trio
from trio.lowlevel import in_trio_task

from pipeline.kernel_time import Clock

STAGE_TURN_NS: Final = 20_000_000
LOOP_TURN_NS: Final = 50_000_000
LATE_NS: Final = 10_000_000
"""After a turn this long, what arrived meanwhile has waited for us, and reads ask the kernel since when."""
MAX_STALLS: Final = 256


@dataclass(frozen=True, slots=True)
class Stall:
    """The loop was held for ``ns``.

    Attributes:
        stage, request_id: whose turn it was; None if no single stage held it.
        ns: for how long.
        streams: the requests in flight, which all waited.
    """

    stage: str | None
    request_id: str | None
    ns: int
    streams: int


class Loop(trio.abc.Instrument):
    """The loop of one trio run, watched between its waits for IO; see `watch_loop`.

    Attributes:
        is_late: whether the last turn was long, or a stage has just held this one.
        streams: the pipelines that run now.
        stalls: the newest `MAX_STALLS`.
        on_stall: called with each of them.
    """

    def __init__(self) -> None:
        self.is_late = False
        self.streams = 0
        self.stalls: deque[Stall] = deque(maxlen=MAX_STALLS)
        self.on_stall: Callable[[Stall], object] | None = None
        self.clock: Clock = perf_counter_ns
        self._turn_since_ns = 0
        self._explained_ns = 0
        self._is_turning = False

    def note_stage_turn(self, stage: str, request_id: str, ns: int) -> None:
        """Note that a stage has held the loop for ``ns``, which is over `STAGE_TURN_NS`."""
        if self._turn_since_ns:  # else nobody watches, and it would stay late
            self.is_late = True
            self._explained_ns += ns
        self._note(Stall(stage, request_id, ns, self.streams))

    def has_turned_since(self, moment_ns: int) -> bool:
        """Return whether the loop has waited for IO after ``moment_ns``: then no task has held it since."""
        return moment_ns < self._turn_since_ns

    def begin_turn(self) -> None:
        """Note that a wait for IO has ended; so has the last turn, if that was not said."""
        now_ns = self.clock()
        if self._is_turning and (self.is_late or now_ns - self._turn_since_ns > LATE_NS):
            self._judge(now_ns - self._turn_since_ns)
        self._is_turning = True
        self._turn_since_ns = now_ns
        self._explained_ns = 0

    def end_turn(self) -> None:
        """Note that a wait for IO begins."""
        if self._is_turning:
            self._is_turning = False
            turn_ns = self.clock() - self._turn_since_ns
            if self.is_late or turn_ns > LATE_NS:
                self._judge(turn_ns)

    def after_io_wait(self, timeout: float) -> None:
        """Begin a turn (trio's hook)."""
        self.begin_turn()

    def before_io_wait(self, timeout: float) -> None:
        """End a turn (trio's hook)."""
        self.end_turn()

    def stop_watching(self) -> None:
        """Forget the turn that runs: whoever watches the next time begins with a new one."""
        self.on_stall, self.is_late, self.clock = None, False, perf_counter_ns
        self._turn_since_ns = self._explained_ns = 0
        self._is_turning = False

    def _judge(self, turn_ns: int) -> None:
        self.is_late = turn_ns > LATE_NS
        if turn_ns - self._explained_ns > LOOP_TURN_NS:
            self._note(Stall(None, None, turn_ns - self._explained_ns, self.streams))

    def _note(self, stall: Stall) -> None:
        self.stalls.append(stall)
        if self.on_stall is not None:
            self.on_stall(stall)


class LoopClock(trio.abc.Clock):
    """The system's monotonic clock, as trio has it, which also tells a `Loop` its turns.

    trio asks its clock once before it waits for IO, unless a task can run, and once after it. To listen there costs a
    fifth of an instrument's two hooks, which cost 3 us a turn: 4 % of a stream's event.

    Attributes:
        loop: the one that is told; None while nobody watches.
    """

    def __init__(self) -> None:
        self.loop: Loop | None = None

    def start_clock(self) -> None:
        """Do nothing: it always runs."""

    def current_time(self) -> float:
        """Return the time in seconds."""
        if self.loop is not None and not in_trio_task():  # the loop itself asks
            self.loop.begin_turn()
        return perf_counter()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how many seconds are left until ``deadline``."""
        if self.loop is not None:
            self.loop.end_turn()
        return deadline - perf_counter()


_LOOP: Final[trio.lowlevel.RunVar[Loop]] = trio.lowlevel.RunVar("loop")


def current_loop() -> Loop:
    """Return that of this trio run; stages' turns are noted even while nobody watches it."""
    try:
        return _LOOP.get()
    except LookupError:
        _LOOP.set(loop := Loop())
        return loop


@contextmanager
def watch_loop(on_stall: Callable[[Stall], object], clock: Clock = perf_counter_ns) -> Generator[Loop]:
    """Watch the loop's turns for the duration of a block; ``on_stall`` is called for each stall, and must not raise.

    It costs least where trio runs with a `LoopClock`.
    """
    loop = current_loop()
    loop.on_stall, loop.clock = on_stall, clock
    trio_clock = trio.lowlevel.current_clock()
    if isinstance(trio_clock, LoopClock):
        trio_clock.loop = loop
    else:
        trio.lowlevel.add_instrument(loop)
    try:
        yield loop
    finally:
        if isinstance(trio_clock, LoopClock):
            trio_clock.loop = None
        else:
            trio.lowlevel.remove_instrument(loop)
        loop.stop_watching()
