"""What holds the loop: while one task works, all others wait, and their own figures cannot say for whom.

A *stall* is a turn of one stage over `STAGE_TURN_NS`, or a turn of the whole loop over `LOOP_TURN_NS` of which no stage
says that it was its own: many small turns, a collection of garbage, or code outside of the stages.

The *lag* is how long the loop is held at a time, on average: what arrives now waits for about so long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, inf
from time import perf_counter, perf_counter_ns
from typing import Final

import trio
from trio.lowlevel import in_trio_task

from pipeline.kernel_time import Clock

STAGE_TURN_NS: Final = 20_000_000
LOOP_TURN_NS: Final = 50_000_000
LATE_NS: Final = 10_000_000
"""After a turn this long, what arrived meanwhile has waited for us, and reads ask the kernel since when."""
COUNTED_NS: Final = 1_000_000
"""Shorter turns count as nothing for the lag: a paced stream makes one with each event, and need not pay for this."""
LAG_WINDOW_NS: Final = 500_000_000
"""What is older than this has lost two thirds of its weight."""
ALL_REFUSED: Final = 1.5
"""The multiple of the limit at which every new request is refused."""
MOST_OF_LIMIT: Final = 1.6
"""A turn counts as at most so many times the limit, so that a single long one (a collection of garbage, a plugin's
computation) does not make the loop overloaded unless it takes half a second."""
STRAINED: Final = 0.5
"""The multiple of the limit from which on the streams may grow only slowly: turns take seconds to become as long as the
streams that run make them, and by then too many have come, which last. With streams of 100 events a second, 500 more of
them made 250 ms of 30 ms, but only after 2 s."""
GROWTH_AT_ONCE: Final = 100
"""By so many streams they may grow at once, from where they were when that began."""
GROWTH_PER_S: Final = 0.05
"""By this share of them they may grow further in a second."""
MOST_GROWTH: Final = 1.5
"""The most that they may grow to in this way, as a multiple of what they are."""
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
        max_lag_ns: the lag above which it is overloaded; 0 if it never is.
    """

    def __init__(self) -> None:
        self.is_late = False
        self.max_lag_ns = 0
        self.streams = 0
        self.stalls: deque[Stall] = deque(maxlen=MAX_STALLS)
        self.on_stall: Callable[[Stall], object] | None = None
        self.clock: Clock = perf_counter_ns
        self._turn_since_ns = 0
        self._explained_ns = 0
        self._is_turning = False
        self._lag_ns = 0.0  # at `_lag_at_ns`; it has decayed since
        self._lag_at_ns = 0
        self._refused = 0.0  # what the shares have come to since the last refusal
        self._most_streams = inf  # so many may run while it is strained
        self._grown_at_ns = 0

    def note_stage_turn(self, stage: str, request_id: str, ns: int) -> None:
        """Note that a stage has held the loop for ``ns``, which is over `STAGE_TURN_NS`."""
        if self._turn_since_ns:  # else nobody watches, and it would stay late
            self.is_late = True
            self._explained_ns += ns
        self._note(Stall(stage, request_id, ns, self.streams))

    def has_turned_since(self, moment_ns: int) -> bool:
        """Return whether the loop has waited for IO after ``moment_ns``: then no task has held it since."""
        return moment_ns < self._turn_since_ns

    def is_held(self, now_ns: int) -> bool:
        """Return whether this turn is long at ``now_ns``, or the last one was."""
        return self.is_late or 0 < self._turn_since_ns < now_ns - LATE_NS

    @property
    def lag_ns(self) -> float:
        """The mean length of the turns of the last second, by their time: an idle loop has turns of no length."""
        return self._lag_ns * exp((self._lag_at_ns - self.clock()) / LAG_WINDOW_NS)

    @property
    def is_strained(self) -> bool:
        """Whether the lag is so near to its limit that some new requests may have to be refused."""
        limit_ns = STRAINED * self.max_lag_ns
        return 0 < limit_ns < self._lag_ns and limit_ns < self.lag_ns

    def refuses(self) -> bool:
        """Return whether to refuse a new request: none up to `STRAINED` times the limit, all at `ALL_REFUSED` times it.

        In between it is those with which the streams would grow too fast, and from the limit on a share of all. With a
        single threshold, streams that last for seconds would swing: all come in until there are too many, then nobody
        does until there are too few.
        """
        if not self.is_strained:
            return False
        if self._grows_too_fast():
            return True
        self._refused += max(0.0, min(1.0, (self.lag_ns / self.max_lag_ns - 1) / (ALL_REFUSED - 1)))
        if self._refused < 1:
            return False
        self._refused -= 1
        return True

    def _grows_too_fast(self) -> bool:
        now_ns = self.clock()
        if self._most_streams == inf:
            self._most_streams = self.streams + GROWTH_AT_ONCE
        else:
            grown = GROWTH_PER_S * self.streams * (now_ns - self._grown_at_ns) / 1e9
            # Else a strain of minutes would save up room for any burst.
            self._most_streams = min(self._most_streams + grown, GROWTH_AT_ONCE + MOST_GROWTH * self.streams)
        self._grown_at_ns = now_ns
        return self.streams >= self._most_streams

    def begin_turn(self) -> None:
        """Note that a wait for IO has ended; so has the last turn, if that was not said."""
        now_ns = self.clock()
        if self._is_turning and (self.is_late or now_ns - self._turn_since_ns > COUNTED_NS):
            self._judge(now_ns - self._turn_since_ns)
        self._is_turning = True
        self._turn_since_ns = now_ns
        self._explained_ns = 0

    def end_turn(self) -> None:
        """Note that a wait for IO begins."""
        if self._is_turning:
            self._is_turning = False
            turn_ns = self.clock() - self._turn_since_ns
            if self.is_late or turn_ns > COUNTED_NS:
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
        self._lag_ns = 0.0

    def _judge(self, turn_ns: int) -> None:
        self.is_late = turn_ns > LATE_NS
        ended_ns = self._turn_since_ns + turn_ns
        if self._lag_ns * exp((self._lag_at_ns - self._turn_since_ns) / LAG_WINDOW_NS) <= STRAINED * self.max_lag_ns:
            self._most_streams = inf  # it was not strained before this turn: the streams count anew
        kept = exp((self._lag_at_ns - ended_ns) / LAG_WINDOW_NS)
        length_ns = min(turn_ns, MOST_OF_LIMIT * self.max_lag_ns) if self.max_lag_ns else turn_ns
        self._lag_ns = kept * self._lag_ns + (1 - exp(-turn_ns / LAG_WINDOW_NS)) * length_ns
        self._lag_at_ns = ended_ns
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
