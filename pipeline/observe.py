"""All requests of this process together: what is counted while they run, and what is added up when they have ended.

What stands here is always on. The figures that change with each batch are added to shared memory right away; the
others when a request has ended, from its own lanes, links and points (`pipeline.lane`, `pipeline.timeline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any, Final, Literal

from pipeline.channel import Link
from pipeline.families import FAMILIES, IN_FLIGHT, LOST, REQUESTS, Known
from pipeline.lane import STATES, Lane
from pipeline.segments import Segment, SegmentFile
from pipeline.series import (
    SUM_AT,
    Cell,
    Family,
    Reading,
    SeriesWriter,
    count_duration,
    count_size,
    read_segment,
    summed,
)
from pipeline.timeline import BatchTimes, Point, Timeline

_KNOWN: Final[Mapping[str, Known]] = {family.name: family for family in FAMILIES}
_WHEN_DEAD: Final[Mapping[str, str]] = {IN_FLIGHT: LOST}
_NO_STAGE: Final = "none"
_STALLS: Final = "headrace_stalls_total"
_STALL_SECONDS: Final = "headrace_stall_seconds_total"
_CANCEL_SECONDS: Final = "headrace_cancel_seconds"
"""The stage of a stall that no single stage has caused."""
_LINK_WAIT: Final = "headrace_link_wait_seconds"
UNKNOWN: Final = ""
"""The deployment of a request that has come to none."""


class _Sums:
    """Numbers of counters that are added to for each request, and shown for several requests together.

    To add to shared memory takes three times as long as to add here, and more if it is in no cache.

    Attributes:
        cells: the counters; what they have already is kept.
        numbers: what they have come to.
    """

    __slots__ = ("cells", "numbers")

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.numbers: list[int] = [cell[0] for cell in cells]


class Observed:
    """The figures of this process.

    Args:
        segment: of this process in shared memory.

    Attributes:
        series: where other parts of the process keep further figures.
        batches: what is counted for each batch.
    """

    def __init__(self, segment: Segment) -> None:
        self.series = SeriesWriter(segment, when_dead=_WHEN_DEAD)
        self._worker = str(segment.worker)
        self._cells: dict[tuple[str, tuple[str, ...]], Cell] = {}
        cell = self._cell
        self._in_flight = cell(IN_FLIGHT)
        # Prometheus does not see the first step of a counter that begins at 1.
        for family, *values in ((LOST,), (_STALLS, _NO_STAGE), (_STALL_SECONDS, _NO_STAGE), (_CANCEL_SECONDS,)):
            cell(family, *values)
        self._at_door = cell("headrace_refused_at_door_total")
        # Now: a collection may begin in the middle of making another series.
        self._collections = cell("headrace_gc_seconds")
        self.batches = BatchTimes(
            transit=cell("headrace_transit_seconds"),
            client_gap=cell("headrace_chunk_gap_seconds", "client"),
            upstream_gap=cell("headrace_chunk_gap_seconds", "upstream"),
        )
        self._all_sums: list[_Sums] = []
        parties = [cell("headrace_request_party_seconds_total", party) for party in ("client", "ours", "upstream")]
        self._parties = self._sums(parties)
        self._ended: dict[str, Cell] = {}
        self._phases: dict[Point, _Sums] = {}
        self._lanes: dict[str, _Sums] = {}
        self._stages: dict[str, _Sums] = {}
        self._links: dict[str, _Sums] = {}
        self._deep_links: frozenset[str] = frozenset()  # those that had a depth when it was last noted

    def _cell(self, family: str, *values: str) -> Cell:
        if (cell := self._cells.get((family, values))) is None:
            known = _KNOWN[family]
            cell = self.series.cell(known.kind, family, tuple(zip(known.labels, values, strict=True)))
            self._cells[family, values] = cell
        return cell

    def _sums(self, cells: Sequence[Cell]) -> _Sums:
        sums = _Sums(cells)
        self._all_sums.append(sums)
        return sums

    # At once.

    def expect_ends(self, ends: Iterable[str]) -> None:
        """Begin these end codes at 0: of a counter that begins at 1, Prometheus does not see the first step."""
        for end in ends:
            if end not in self._ended:
                self._ended[end] = self._cell(REQUESTS, end)

    def begin(self) -> None:
        """Count a request that has begun."""
        self._in_flight[0] += 1.0

    def end(self, end: str) -> None:
        """Count a request that has ended."""
        if (cell := self._ended.get(end)) is None:
            cell = self._ended[end] = self._cell(REQUESTS, end)
        cell[0] += 1  # before: a reader may see it twice for a moment, but never not at all
        self._in_flight[0] -= 1.0

    def note_refused_at_door(self) -> None:
        """Count a request that was refused before anything was read of it."""
        self._at_door[0] += 1

    def note_stall(self, stage: str | None, ns: int) -> None:
        """Count a stall of the loop, and who has caused it."""
        self._cell(_STALLS, stage or _NO_STAGE)[0] += 1
        self._cell(_STALL_SECONDS, stage or _NO_STAGE)[0] += ns

    def note_collection(self, ns: int) -> None:
        """Count a collection of garbage."""
        count_duration(self._collections, ns)

    # Now and then.

    def party_s(self) -> dict[Literal["client", "ours", "upstream"], float]:
        """Return whose time it was in all requests that have ended, in seconds."""
        client, ours, upstream = [ns / 1e9 for ns in self._parties.numbers]
        return {"client": client, "ours": ours, "upstream": upstream}

    def note_process(self, *, lag_s: float, resident_bytes: int, sockets: Mapping[str, int]) -> None:
        """Say how this process is.

        Args:
            lag_s: of its loop.
            resident_bytes: its memory.
            sockets: how many it has of each side.
        """
        self._cell("headrace_loop_lag_seconds", self._worker)[0] = lag_s
        self._cell("headrace_resident_bytes", self._worker)[0] = float(resident_bytes)
        for side, count in sockets.items():
            self._cell("headrace_sockets", side)[0] = float(count)
        self._cell("headrace_series_dropped_total")[0] = self.series.dropped

    def note_dropped_lines(self, lines: int) -> None:
        """Count further lines of the log that were lost."""
        self._cell("headrace_log_lines_dropped_total")[0] += lines

    def note_recorder(self, size_bytes: int) -> None:
        """Say how much the flight recorder holds."""
        self._cell("headrace_recorder_bytes")[0] = float(size_bytes)

    def note_depths(self, depths: Mapping[str, int]) -> None:
        """Say how many batches wait in the links of each name; in those that are not named none does."""
        for name in self._deep_links - depths.keys():
            self._cell("headrace_link_depth", name)[0] = 0.0
        for name, depth in depths.items():
            self._cell("headrace_link_depth", name)[0] = float(depth)
        self._deep_links = frozenset(depths)

    # When a request has ended.

    def fold(
        self,
        timeline: Timeline,
        *,
        deployment: str | None,
        is_stream: bool | None,
        end: str,
        tokens: tuple[int, int] | None = None,
        attempts: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """Add a finished request as a whole. Its point ``ended`` is known; `publish` must follow.

        Args:
            timeline: of the request.
            deployment: who has answered it; None if nobody was asked.
            is_stream: whether the client wanted a stream; None if that is not known.
            end: its end code.
            tokens: of its prompt and of its answer, as the upstream has counted them.
            attempts: of each attempt its deployment, its end and its ns, unless the request was a single one.
        """
        cell = self._cell
        points, born_ns = timeline.points, timeline.born_ns
        ended_ns = points["ended"]
        of = deployment or UNKNOWN
        stream = "" if is_stream is None else "true" if is_stream else "false"
        count_duration(cell("headrace_request_seconds", of, stream, end), ended_ns - born_ns)
        parties = self._parties
        parties.numbers = [*map(add, parties.numbers, timeline.parties_ns(ended_ns))]
        since_ns, phases = born_ns, self._phases
        for point, ns in points.items():
            if ns > since_ns:
                if (phase := phases.get(point)) is None:
                    phase = phases[point] = self._sums([cell("headrace_request_phase_seconds_total", point)])
                phase.numbers[0] += ns - since_ns
                since_ns = ns
        if "client_arrived" in points:
            count_duration(cell("headrace_before_handler_seconds"), points["head_read"] - born_ns)
        if (out_ns := points.get("first_token_out")) is not None:
            count_duration(cell("headrace_first_token_seconds", of), out_ns - born_ns)
        sent_ns, token_ns = points.get("upstream_sent"), points.get("first_token")
        if sent_ns is not None and token_ns is not None and token_ns >= sent_ns:  # else another attempt was sent later
            count_duration(cell("headrace_upstream_first_token_seconds", of), token_ns - sent_ns)
        for asked, its_end, ns in attempts:
            count_duration(cell("headrace_upstream_seconds", asked, its_end), ns)
        if not attempts and deployment is not None and (routed_ns := points.get("routed")) is not None:
            answered_ns = points.get("upstream_end", ended_ns)
            count_duration(cell("headrace_upstream_seconds", of, end), answered_ns - routed_ns)
        left_ns, closed_ns = points.get("left"), points.get("upstream_closed")
        if left_ns is not None and closed_ns is not None and closed_ns >= left_ns:  # else it had answered already
            count_duration(cell(_CANCEL_SECONDS), closed_ns - left_ns)
        if tokens is not None:
            for direction, count in zip(("prompt", "completion"), tokens, strict=True):
                cell("headrace_tokens_total", of, direction)[0] += count
                count_size(cell("headrace_request_tokens", of, direction), count)

    def fold_tasks(self, lanes: Iterable[Lane], links: Iterable[Link[Any]]) -> None:
        """Add what the tasks of a finished request, or of one of its attempts, have done; `publish` must follow."""
        cell = self._cell
        for main in lanes:
            for lane in (main, *main.more):
                name = lane.name
                if (sums := self._lanes.get(name)) is None:
                    cells = [cell("headrace_lane_seconds_total", name, state) for state in STATES]
                    sums = self._lanes[name] = self._sums(cells)
                sums.numbers = [*map(add, sums.numbers, lane.spent_ns)]
            events = main.stages[0].events_taken
            for stage in main.stages:
                name = stage.name
                if (sums := self._stages.get(name)) is None:
                    cells = [
                        cell("headrace_stage_busy_seconds_total", name),
                        cell("headrace_stage_outside_seconds_total", name),
                        cell("headrace_stage_events_total", name, "in"),
                        cell("headrace_stage_events_total", name, "out"),
                    ]
                    sums = self._stages[name] = self._sums(cells)
                given = stage.events_out
                figures = (stage.busy_ns + stage.flush_ns, stage.outside_ns, events, given)
                sums.numbers = [*map(add, sums.numbers, figures)]
                events = given
        for link in links:
            name = link.name
            if (sums := self._links.get(name)) is None:
                cells = [cell("headrace_link_full_seconds_total", name), cell("headrace_link_batches_total", name)]
                sums = self._links[name] = self._sums(cells)
            sums.numbers = [*map(add, sums.numbers, (link.full_ns, link.batches))]
            ready, queued = cell(_LINK_WAIT, name, "ready"), cell(_LINK_WAIT, name, "queued")
            at_once = link.batches
            for histogram, waits, ns in (
                (ready, link.ready_waits, link.ready_ns),
                (queued, link.queued_waits, link.queued_ns),
            ):
                for slot, count in waits.items():
                    histogram[slot] += count
                    at_once -= count
                if ns:
                    histogram[SUM_AT] += ns
            ready[0] += at_once  # their taker worked at them in the task that gave them

    def publish(self) -> None:
        """Show readers what was added since the last time."""
        for sums in self._all_sums:
            for cell, number in zip(sums.cells, sums.numbers, strict=True):
                cell[0] = number

    def fold_turns(self, turns_ns: Mapping[str, Iterable[int]]) -> None:
        """Add how long stages worked at each batch of a request that was traced."""
        for stage, durations_ns in turns_ns.items():
            cell = self._cell("headrace_stage_busy_seconds", stage)
            for ns in durations_ns:
                count_duration(cell, ns)


def read_all(file: SegmentFile) -> dict[str, Family]:
    """Return the figures of all processes together, by family. Those of `pipeline.families` are described there."""
    return figures_of(map(read_segment, file.views()))


def figures_of(readings: Iterable[Reading]) -> dict[str, Family]:
    """Return the figures of processes together, as `read_all` does."""
    found = summed(readings, when_dead=_WHEN_DEAD)
    return {
        name: Family(name, _KNOWN[name].about, family.kind, family.series) if name in _KNOWN else family
        for name, family in found.items()
    }
