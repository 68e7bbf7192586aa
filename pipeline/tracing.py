"""A request traced batch by batch: each state of its lanes, each turn of its stages and each wait in its links.

A traced request runs with lanes and links of its own classes, which note what the ordinary ones only sum. So the others
pay nothing for it: no branch of any hot path asks whether there is a trace. The sums stay what they are: the spans of a
lane are what its ``spent_ns`` is made of, and those of a stage what its ``busy_ns`` and ``flush_ns`` are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from pipeline.channel import Link
from pipeline.lane import CLOSING, OUTSIDE, READY, STARVED, Lane, Outside, StageTimes
from pipeline.loop import Loop
from pipeline.timeline import Party, Timeline

T = TypeVar("T")

Span = tuple[int, int, int, int, int]
"""What it is (`WORK`, the state of a lane plus `FIRST_STATE`, `WAIT_READY` or `WAIT_QUEUED`); of which stage, lane or
link, as a place in the trace's names; when it began, on the clock of the request; how long it lasted; and when the
batch that it was about arrived, 0 if it was about none. Times are in ns."""

WORK: Final = 0
"""A stage's own code has run."""
FIRST_STATE: Final = 1
"""A lane was in the first of `pipeline.lane.STATES`; the others follow."""
WAIT_READY: Final = 10
"""A batch has waited in a link until the loop came to its taker."""
WAIT_QUEUED: Final = 11
"""A batch has waited in a link until its taker wanted it."""

MAX_SPANS: Final = 8192
"""Of one request, 100 bytes each. An event of a stream that comes alone makes 13, or 27 if each stage has a task."""
_MAX_NUMBERS: Final = MAX_SPANS * 5
_NO_BATCH: Final = (STARVED, READY)
"""The states in which a lane is done with its last batch, and has not taken the next one."""


class Trace:
    """The spans of one request.

    Attributes:
        lanes, stages, links: their names, in the order in which they began. Each attempt at an answer has its own, so
            that a name may come again.
        lane_of_stage: in which of the lanes each stage works.
        spans: one after the other, the numbers of each `Span`.
        lost: how many spans were not kept, because there were `MAX_SPANS`.
    """

    __slots__ = ("lane_of_stage", "lanes", "links", "lost", "spans", "stages")

    def __init__(self) -> None:
        self.lanes: list[str] = []
        self.stages: list[str] = []
        self.lane_of_stage: list[int] = []
        self.links: list[str] = []
        self.lost = 0
        self.spans: list[int] = []  # tuples would take twice as much memory, an array three times as much time

    def __iter__(self) -> Iterator[Span]:
        """Return the spans, in the order in which they ended; those of a lane that follow each other may be one."""
        numbers = iter(self.spans)
        return zip(numbers, numbers, numbers, numbers, numbers, strict=True)

    def new_lane(self, names: Iterable[str], timeline: Timeline, loop: Loop, request_id: str) -> TracedLane:
        """Return a lane whose spans are noted here; the arguments are those of `Lane`."""
        lane = TracedLane(names, timeline, loop, request_id, self)
        before: StageTimes | None = None
        stages: list[StageTimes] = []
        for times in lane.stages:
            before = TracedTimes(times.name, before, self, len(self.stages), lane.work)
            stages.append(before)
            self.stages.append(times.name)
            self.lane_of_stage.append(lane.index)
        lane.stages, lane.stage = stages, stages[0]
        return lane

    def new_link(self, name: str, capacity: int) -> TracedLink[object]:
        """Return a link whose waits are noted here; the arguments are those of `Link`."""
        self.links.append(name)
        return TracedLink(name, capacity, self, len(self.links) - 1)

    def note(self, kind: int, index: int, began_ns: int, ns: int, origin_ns: int) -> None:
        """Keep a span, unless it is empty, or there are too many."""
        if ns:
            if len(self.spans) < _MAX_NUMBERS:
                self.spans.extend((kind, index, began_ns, ns, origin_ns))
            else:
                self.lost += 1

    def stage_turns(self) -> dict[str, list[int]]:
        """Return for each stage how long each of its turns was, in ns: for one batch, a tick, or a flush."""
        turns: dict[str, list[int]] = {}
        spans = self.spans
        for kind, index, ns in zip(spans[0::5], spans[1::5], spans[3::5], strict=True):
            if kind == WORK:
                turns.setdefault(self.stages[index], []).append(ns)
        return turns


class TracedLane(Lane):
    """A lane that notes each of its states as a span; `Trace.new_lane` makes it.

    Attributes:
        trace: where it notes them.
        index: its place there.
        last_span: where its last span is; -1 if that was not kept.
        reads_upstream: whether its stage waits for an upstream: such a wait is before a batch, and about none.
        work: what is known of the work that is charged to a stage next.
    """

    __slots__ = ("index", "last_span", "reads_upstream", "trace", "work")

    def __init__(self, names: Iterable[str], timeline: Timeline, loop: Loop, request_id: str, trace: Trace) -> None:
        self.work = Work()
        super().__init__(names, timeline, loop, request_id)
        self.trace = trace
        self.index = len(trace.lanes)
        self.last_span = -1
        self.reads_upstream = False
        trace.lanes.append(self.name)

    def switch(self, state: int, now_ns: int) -> None:
        """As in `Lane`; note the state that ends, as a part of the last span if that was the same."""
        if self.is_closed:
            return
        was, since_ns, closing_ns, work = self.state, self.since_ns, self.spent_ns[CLOSING], self.work
        work.began_ns = since_ns
        if isinstance(stage := self.stage, TracedTimes):
            stage.work = work
        Lane.switch(self, state, now_ns)  # `super()` takes longer, and this is once more for each state
        work.began_ns = now_ns
        if was == CLOSING and self.spent_ns[CLOSING] == closing_ns:
            was = self.home  # it has gone on, and was charged like that
        kind, at, spans = was + FIRST_STATE, self.last_span, self.trace.spans
        is_about_none = was in _NO_BATCH or (was == OUTSIDE and self.reads_upstream)
        origin_ns = 0 if is_about_none else work.origin_ns
        if at >= 0 and spans[at] == kind and spans[at + 2] + spans[at + 3] == since_ns and spans[at + 4] == origin_ns:
            spans[at + 3] += now_ns - since_ns
        elif now_ns == since_ns:
            self.last_span = -1
        elif (at := len(spans)) < _MAX_NUMBERS:
            spans.extend((kind, self.index, since_ns, now_ns - since_ns, origin_ns))
            self.last_span = at
        else:
            self.trace.lost += 1
            self.last_span = -1

    @property
    def origin_ns(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - a property is as good
        """As in `Lane`."""
        return self.work.origin_ns

    @origin_ns.setter
    def origin_ns(self, ns: int) -> None:
        self.work.origin_ns = ns

    def outside(self, party: Party = Party.OURS) -> Outside:
        """As in `Lane`."""
        if party is Party.UPSTREAM:
            self.reads_upstream = True
        return super().outside(party)

    def _beside(self, name: str) -> Lane:
        return TracedLane([name], self.timeline, self._loop, self._request_id, self.trace)


class Work:
    """What is known of the work in a lane that is charged to a stage next. A stage knows it, and not the lane: they
    would refer to each other.

    Attributes:
        began_ns: when it began.
        origin_ns: when the batch arrived that it is about; 0 if it is about none.
    """

    __slots__ = ("began_ns", "origin_ns")

    def __init__(self) -> None:
        self.began_ns = self.origin_ns = 0


class TracedTimes(StageTimes):
    """What one stage did. Whatever is added to its work becomes a span, which begins where the one before it ended.

    Attributes:
        work: that of the lane in which it worked last: its own, or that of a further task.
    """

    __slots__ = ("_busy_ns", "_flush_ns", "_index", "_note_span", "work")

    def __init__(self, name: str, before: StageTimes | None, trace: Trace, index: int, work: Work) -> None:
        self._note_span = trace.note
        self._index = index
        self.work = work
        self._busy_ns = self._flush_ns = 0
        super().__init__(name, before)

    @property
    def busy_ns(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - a property is as good
        """As in `StageTimes`."""
        return self._busy_ns

    @busy_ns.setter
    def busy_ns(self, ns: int) -> None:
        self._note(ns - self._busy_ns)
        self._busy_ns = ns

    @property
    def flush_ns(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - as above
        """As in `StageTimes`."""
        return self._flush_ns

    @flush_ns.setter
    def flush_ns(self, ns: int) -> None:
        self._note(ns - self._flush_ns)
        self._flush_ns = ns

    def _note(self, ns: int) -> None:
        work = self.work
        self._note_span(WORK, self._index, work.began_ns, ns, work.origin_ns)
        work.began_ns += ns


class TracedLink(Link[T]):
    """A link that notes how long each batch has waited in it; `Trace.new_link` makes it."""

    __slots__ = ("_index", "_trace")

    def __init__(self, name: str, capacity: int, trace: Trace, index: int) -> None:
        super().__init__(name, capacity)
        self._trace = trace
        self._index = index

    async def take(self, lane: Lane) -> list[T] | None:
        """As in `Link`."""
        ready_ns, queued_ns = self.ready_ns, self.queued_ns
        batch = await super().take(lane)
        if batch is not None:  # taken just now, at `since_ns`
            for kind, ns in ((WAIT_READY, self.ready_ns - ready_ns), (WAIT_QUEUED, self.queued_ns - queued_ns)):
                self._trace.note(kind, self._index, lane.since_ns - ns, ns, lane.origin_ns)
        return batch
