"""Where the time of one task went, and what each of its stages did in it.

A lane is the stopwatch of one task: every nanosecond of its life is in exactly one state, because one clock read ends a
state and begins the next. That identity is what makes the figures trustworthy; the test kit asserts it. Stages that
share a task have a share of its busy time each, and of nothing else: while one works, the others do not wait for input.
"""

from __future__ import annotations

import types
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Any, Final

from pipeline.loop import STAGE_TURN_NS, Loop
from pipeline.timeline import Party, Timeline

# Plain numbers, not an enum: on Python 3.11 a member is a slow index, and these stand in every hop.
STARVED: Final = 0
"""Waiting for a batch."""
READY: Final = 1
"""What it waited for is there, but the loop has not come to this task yet; so it is before its first turn."""
BUSY: Final = 2
"""Running a stage's own code."""
OUTSIDE: Final = 3
"""In a declared wait for the world: a socket, a disk."""
BLOCKED: Final = 4
"""Waiting for room in its outlet: backpressure."""
CLOSING: Final = 5
"""From the end of its input, or from its cancellation, to its exit; a flush is part of it."""

STATES: Final = ("starved", "ready", "busy", "outside", "blocked", "closing")


OWN_TASK: Final = object()
"""What a stage yields that has to wait, and must not do so in another's task."""


class StageTimes:
    """What one stage of one request did. Of what its task did, only its own work and its declared waits.

    Attributes:
        name: the stage's name.
        busy_ns: how long its own code ran.
        outside_ns: how long it was in declared waits.
        flush_ns: how long its own code ran at the end of its input.
        batches_taken, events_taken: what its task took; for the first stage of a task.
        batches_out, events_out: what it gave.
    """

    __slots__ = (
        "_before",
        "batches_out",
        "batches_taken",
        "busy_ns",
        "events_out",
        "events_taken",
        "flush_ns",
        "name",
        "outside_ns",
    )

    def __init__(self, name: str, before: StageTimes | None = None) -> None:
        self.name = name
        self._before = before  # in the same task
        self.busy_ns = self.outside_ns = self.flush_ns = 0
        self.batches_taken = self.events_taken = self.batches_out = self.events_out = 0

    @property
    def batches_in(self) -> int:
        """How many batches it took."""
        return self.batches_taken if self._before is None else self._before.batches_out

    @property
    def events_in(self) -> int:
        """How many events it took."""
        return self.events_taken if self._before is None else self._before.events_out


class Lane:
    """The time of one task.

    Attributes:
        name: that of its first stage; ``stage.task`` for a further task of a stage.
        stages: what its stages did, in their order.
        spent_ns: one figure per state, in the order of `STATES`, from its birth to the last switch.
        more: the lanes of further tasks of its stage.
        is_closed: whether its life has ended, although its task has yet to notice.
        is_pushed: whether its stages work in the task of who gave them a batch; see `own_task`.
        is_further: whether it is one of those. It mostly waits for the other task, so that no wait of it is ours.
        stage: whom its time is charged to as well; None while a line charges its codecs itself.
        home: the state of its own work: busy, or closing once the end has begun.
        origin_ns: when the batch at work arrived, by the kernel or when it was read; 0 if it came of no batch.

    Args:
        names: of its stages, in their order.
        timeline: of its request.
        loop: is told of a stage that holds it.
        request_id: whose time it is.
    """

    __slots__ = (
        "_loop",
        "_request_id",
        "born_ns",
        "clock",
        "home",
        "is_closed",
        "is_further",
        "is_pushed",
        "more",
        "name",
        "origin_ns",
        "since_ns",
        "spent_ns",
        "stage",
        "stages",
        "state",
        "timeline",
    )

    def __init__(self, names: Iterable[str], timeline: Timeline, loop: Loop, request_id: str) -> None:
        self.stages: list[StageTimes] = []
        before: StageTimes | None = None
        for name in names:
            before = StageTimes(name, before)
            self.stages.append(before)
        self.name = self.stages[0].name
        self.timeline = timeline
        self.clock = timeline.clock
        self.spent_ns = [0, 0, 0, 0, 0, 0]
        self.stage: StageTimes | None = self.stages[0]
        self.more: tuple[Lane, ...] = ()
        self.is_further = self.is_pushed = self.is_closed = False
        self.home: int = BUSY
        self.state: int = READY
        self.origin_ns = 0
        self.born_ns = self.since_ns = self.clock()
        self._loop = loop
        self._request_id = request_id

    def switch(self, state: int, now_ns: int) -> None:
        """End the running state at ``now_ns``, and begin ``state``; nothing happens once it is closed."""
        if self.is_closed:
            return
        was, since_ns = self.state, self.since_ns
        if was == CLOSING and state != CLOSING and self.home == BUSY:
            was = BUSY  # what was cancelled was only a wait with a deadline of the stage's own: it has gone on
        spent_ns = now_ns - since_ns
        self.spent_ns[was] += spent_ns
        self.state = state
        self.since_ns = now_ns
        if (stage := self.stage) is not None:
            if was == OUTSIDE:
                stage.outside_ns += spent_ns
            elif was == BUSY:
                stage.busy_ns += spent_ns
                if spent_ns > STAGE_TURN_NS:
                    self.report(stage, since_ns, spent_ns)
            elif was == CLOSING:
                stage.flush_ns += spent_ns
                if spent_ns > STAGE_TURN_NS:
                    self.report(stage, since_ns, spent_ns)

    def report(self, stage: StageTimes, since_ns: int, ns: int) -> None:
        """Report a stage that has worked for over `STAGE_TURN_NS`, unless the loop has turned meanwhile."""
        if not self._loop.has_turned_since(since_ns):
            self._loop.note_stage_turn(stage.name, self._request_id, ns)

    def begin_closing(self) -> None:
        """Charge what is left of this life to its end."""
        self.switch(CLOSING, self.clock())
        self.home = CLOSING

    def outside(self, party: Party = Party.OURS) -> Outside:
        """Return a context manager for a declared wait for the world, to be used as often as needed.

        Args:
            party: whose time it is: the client's or the upstream's, if the stage waits for their socket.
        """
        return Outside(self, party)

    @types.coroutine
    def own_task(self) -> Generator[object, None, None]:
        """Go on in the task of this lane: a codec that may be pushed awaits it before it waits for anything else."""
        if self.is_pushed:
            yield OWN_TASK

    def further(self, task: str) -> Lane:
        """Return the lane of a further task of this lane's stage, which begins now."""
        lane = Lane([f"{self.name}.{task}"], self.timeline, self._loop, self._request_id)
        lane.stages, lane.stage, lane.state = self.stages, self.stages[0], BUSY
        lane.is_further = True
        self.more += (lane,)
        self.timeline.enter(lane.born_ns)
        return lane

    @property
    def lifetime_ns(self) -> int:
        """From its birth to the last switch."""
        return self.since_ns - self.born_ns


class Outside:
    """A declared wait; made by ``outside``.

    Attributes:
        arrived_ns: set it within the block to when the awaited bytes arrived, if that is known; the rest of the wait
            was for the loop.
    """

    __slots__ = ("_clock", "_is_away", "_lane", "_party", "_timeline", "arrived_ns")

    def __init__(self, lane: Lane, party: Party) -> None:
        self._lane = lane
        self._clock = lane.clock
        self._timeline = lane.timeline
        self._party = party
        self._is_away = party is _UPSTREAM or (lane.is_further and party is not _CLIENT)
        self.arrived_ns = 0

    def __enter__(self) -> Outside:
        now_ns = self._clock()
        self._lane.switch(OUTSIDE, now_ns)
        if self._is_away:
            self.arrived_ns = 0
            self._timeline.leave(now_ns)
        elif self._party is _CLIENT:
            self._timeline.client_since_ns = now_ns
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lane = self._lane
        now_ns = self._clock()
        if self._is_away:
            ended_ns = now_ns
            if 0 < self.arrived_ns < now_ns:
                ended_ns = max(lane.since_ns, self.arrived_ns)
                lane.switch(READY, ended_ns)
            self._timeline.enter(ended_ns)
            if self._party is _UPSTREAM:
                lane.origin_ns = ended_ns
        elif self._party is _CLIENT:
            self._timeline.client_ns += now_ns - self._timeline.client_since_ns
            self._timeline.client_since_ns = 0
        if kind is None or issubclass(kind, Exception):
            lane.switch(lane.home, now_ns)
        else:  # cancelled: closing, unless it goes on
            lane.switch(CLOSING, now_ns)


# A local name: an attribute of an enum class is a slow look-up on Python 3.11.
_CLIENT: Any = Party.CLIENT
_UPSTREAM: Any = Party.UPSTREAM
