"""Requests as a Perfetto trace: native TrackEvent protobuf, for ui.perfetto.dev and its trace processor.

Each request is a process. Its threads are its lanes, with their states and, within these, the work of their stages.
More tracks have its phases, its points, whose time it was, and how long batches waited in each link; counters have the
depth of each link and the number of batches; flows follow a batch from lane to lane. A request that was not traced per
batch has the sums of each lane instead, one after the other: their category is ``sum``. The loops are one more process,
with the stalls.

Times are those of the wall clock. They are exact within a request; between two requests they are as exact as the log's
times, which have whole milliseconds.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pipeline.study.path import path_of
from pipeline.study.recording import StudyError
from pipeline.study.records import RecordedRequest, RecordedStall
from pipeline.study.traced import STATE_KINDS, WAIT_KINDS, WORK, BatchSpan, spans_of

_EXTRA: Final = "pip install 'headrace[trace]'"
_SEQUENCE: Final = 1
"""The number of the only writer."""
_REALTIME, _BOOTTIME = 1, 6
"""Clocks, by perfetto's builtin_clock.proto."""
_LOOPS_PID: Final = 1
_ORDER: Final = ("starved", "ready", "busy", "outside", "blocked", "closing")

Details = Mapping[str, str | int | float | None]


class TraceSlice(NamedTuple):
    """A slice of one track, in ns since the epoch."""

    start_ns: int
    end_ns: int
    name: str
    category: str = ""
    details: Details = MappingProxyType({})
    flow: int = 0


def perfetto_trace(requests: Iterable[RecordedRequest], stalls: Iterable[RecordedStall] = ()) -> bytes:
    """Return the trace of some requests, and of the stalls of their time.

    Raises:
        StudyError: if the package ``perfetto``, the extra ``trace``, is not installed.
    """
    writer = _Writer()
    requests = list(requests)
    born_ns = [_born_ns(request) for request in requests]
    writer.set_clock(min(born_ns, default=0))
    _write_stalls(writer, requests, stalls)
    for number, (request, at_ns) in enumerate(zip(requests, born_ns, strict=True)):
        _write_request(writer, request, at_ns, _LOOPS_PID + 1 + number)
    return writer.serialized()


def _born_ns(request: RecordedRequest) -> int:
    ended_s = request.ended_s
    return 0 if ended_s is None else round(ended_s * 1000) * 1_000_000 - round(request.total_ms * 1e6)


def _write_stalls(writer: _Writer, requests: Sequence[RecordedRequest], stalls: Iterable[RecordedStall]) -> None:
    since_s = min((request.began_s or 0.0 for request in requests), default=0.0)
    until_s = max((request.ended_s or 0.0 for request in requests), default=0.0)
    of_worker: defaultdict[int | None, list[TraceSlice]] = defaultdict(list)
    for stall in stalls:
        at_s = stall.ended_s
        if at_s is None or at_s < since_s or at_s - stall.ms / 1000 > until_s:
            continue
        end_ns = round(at_s * 1000) * 1_000_000
        details: Details = {"request_id": stall.request_id, "streams": stall.streams, "unlogged": stall.unlogged}
        name = f"stall: {stall.stage or 'no single stage'}"
        of_worker[stall.worker].append(TraceSlice(end_ns - round(stall.ms * 1e6), end_ns, name, "stall", details))
    if of_worker:
        process = writer.process(_LOOPS_PID, "event loops")
        for worker, slices in of_worker.items():
            writer.slices(writer.track(f"loop of worker {worker or 1}", process), slices)


def _write_request(writer: _Writer, request: RecordedRequest, born_ns: int, pid: int) -> None:
    process = writer.process(pid, f"request {request.request_id}")
    details: Details = {
        "model": request.model,
        "deployment": request.deployment,
        "end": request.end,
        "status": request.status,
        "events": request.events,
    }
    whole = TraceSlice(born_ns, born_ns + round(request.total_ms * 1e6), "request", "request", details)
    writer.slices(writer.track("request", process), [whole])
    _write_phases(writer, request, born_ns, process)
    spans = [] if request.trace is None else list(spans_of(request.trace))
    if spans:
        _write_spans(writer, spans, born_ns, pid, process)
    else:
        _write_sums(writer, request, born_ns, pid, process)


def _write_phases(writer: _Writer, request: RecordedRequest, born_ns: int, process: int) -> None:
    phases: list[TraceSlice] = []
    parties: list[TraceSlice] = []
    for step in path_of(request):
        start_ns = born_ns + round(step.began_ms * 1e6)
        phases.append(TraceSlice(start_ns, start_ns + round(step.ms * 1e6), step.point, "phase", {"what": step.about}))
        for party, ms in step.party_ms.items():
            end_ns = start_ns + round(ms * 1e6)
            parties.append(TraceSlice(start_ns, end_ns, party, "party", {"until": step.point}))
            start_ns = end_ns
    writer.slices(writer.track("phases", process), phases)
    # Within a phase the record only says how much of it was whose, so that their order there means nothing.
    writer.slices(writer.track("whose time (summed per phase)", process), parties)
    points = writer.track("points", process)
    for point, ms in request.points_ms.items():
        writer.instant(points, born_ns + round(ms * 1e6), point)


def _write_sums(writer: _Writer, request: RecordedRequest, born_ns: int, pid: int, process: int) -> None:
    for tid, (name, lane) in enumerate(request.lanes.items()):
        slices: list[TraceSlice] = []
        at_ns = born_ns
        for state in _ORDER:
            ns = round(getattr(lane, f"{state}_ms") * 1e6)
            if ns:
                slices.append(TraceSlice(at_ns, at_ns + ns, state, "sum"))
            within_ns = at_ns
            for stage in lane.stages if state in ("busy", "closing") else ():
                figures = request.stages.get(stage)
                ms = 0.0 if figures is None else figures.busy_ms if state == "busy" else figures.flush_ms
                work_ns = min(round(ms * 1e6), at_ns + ns - within_ns)
                if work_ns > 0:
                    slices.append(TraceSlice(within_ns, within_ns + work_ns, stage, "sum"))
                    within_ns += work_ns
            at_ns += ns
        writer.slices(writer.thread(pid, tid + 1, f"{name} (sums, in no order)"), slices)
    counter = writer.counter("events", process)
    for point, count in (("first_event", 0), ("upstream_end", request.events)):
        if point in request.points_ms:
            writer.count(counter, born_ns + round(request.points_ms[point] * 1e6), count)


def _write_spans(writer: _Writer, spans: Sequence[BatchSpan], born_ns: int, pid: int, process: int) -> None:
    lanes: defaultdict[tuple[int, str], list[TraceSlice]] = defaultdict(list)
    waits: defaultdict[tuple[int, str], list[TraceSlice]] = defaultdict(list)
    seen: set[tuple[int, int]] = set()  # a batch has one flow through a lane, not one from stage to stage
    for span in sorted(spans, key=lambda span: span.start_us):
        start_ns = born_ns + round(span.start_us * 1000)
        end_ns = start_ns + round(span.duration_us * 1000)
        details: Details = {"batch": span.batch} if span.batch else {}
        if span.kind == WORK:
            flow = 0
            if span.batch and (span.track, span.batch) not in seen:
                seen.add((span.track, span.batch))
                flow = pid << 32 | span.batch
            lanes[span.track, span.lane].append(TraceSlice(start_ns, end_ns, span.name, "stage", details, flow))
        elif span.kind in STATE_KINDS:
            lanes[span.track, span.lane].append(TraceSlice(start_ns, end_ns, STATE_KINDS[span.kind], "state", details))
        elif span.kind in WAIT_KINDS:
            waits[span.track, span.name].append(TraceSlice(start_ns, end_ns, WAIT_KINDS[span.kind], "wait", details))
    for tid, ((_, name), slices) in enumerate(sorted(lanes.items())):
        writer.slices(writer.thread(pid, tid + 1, name), slices)
    for (_, name), slices in sorted(waits.items()):
        for row in _rows(slices):
            writer.slices(writer.track(f"link {name}", process), row)
        changes = [(one.start_ns, 1) for one in slices] + [(one.end_ns, -1) for one in slices]
        counter, depth = writer.counter(f"depth of {name}", process), 0
        for at_ns, change in sorted(changes):
            depth += change
            writer.count(counter, at_ns, depth)
    _write_batches(writer, spans, born_ns, process)


def _write_batches(writer: _Writer, spans: Sequence[BatchSpan], born_ns: int, process: int) -> None:
    first_us: dict[int, float] = {}
    for span in spans:
        if span.batch:
            first_us[span.batch] = min(first_us.get(span.batch, span.start_us), span.start_us)
    counter = writer.counter("batches", process)
    for number, start_us in enumerate(sorted(first_us.values())):
        writer.count(counter, born_ns + round(start_us * 1000), number + 1)


def _rows(slices: Sequence[TraceSlice]) -> list[list[TraceSlice]]:
    """Divide slices that may overlap among as few tracks as needed: slices of one track must nest."""
    rows: list[list[TraceSlice]] = []
    for one in sorted(slices):
        row = next((row for row in rows if row[-1].end_ns <= one.start_ns), None)
        if row is None:
            rows.append([one])
        else:
            row.append(one)
    return rows


# Any: the classes that protobuf makes at run time.
class _Writer:
    """Writes packets."""

    def __init__(self) -> None:
        try:
            self._builder: Any = importlib.import_module("perfetto.trace_builder.proto_builder").TraceProtoBuilder()
            event: Any = importlib.import_module("perfetto.protos.perfetto.trace.perfetto_trace_pb2").TrackEvent
        except ImportError:
            raise StudyError(f"Perfetto traces need the package perfetto: {_EXTRA}") from None
        self._begin, self._end = event.TYPE_SLICE_BEGIN, event.TYPE_SLICE_END
        self._instant, self._count = event.TYPE_INSTANT, event.TYPE_COUNTER
        self._tracks = 0

    def serialized(self) -> bytes:
        """Return the trace."""
        trace: bytes = self._builder.serialize()
        return trace

    def set_clock(self, at_ns: int) -> None:
        """Say that times are those of the wall clock."""
        packet = self._builder.add_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        for clock in (_BOOTTIME, _REALTIME):
            packet.clock_snapshot.clocks.add(clock_id=clock, timestamp=at_ns)

    def process(self, pid: int, name: str) -> int:
        """Return a new track for a process."""
        track = self._new_track()
        track.process.pid, track.process.process_name = pid, name
        return int(track.uuid)

    def thread(self, pid: int, tid: int, name: str) -> int:
        """Return a new track for a thread of a process."""
        track = self._new_track()
        # The engine knows threads by tid alone, so that two processes must not share one.
        track.thread.pid, track.thread.tid, track.thread.thread_name = pid, pid * 1000 + tid, name
        return int(track.uuid)

    def track(self, name: str, parent: int) -> int:
        """Return a new track below another."""
        track = self._new_track()
        track.name, track.parent_uuid = name, parent
        return int(track.uuid)

    def counter(self, name: str, parent: int) -> int:
        """Return a new counter."""
        track = self._new_track()
        track.name, track.parent_uuid = name, parent
        track.counter.SetInParent()
        return int(track.uuid)

    def slices(self, track: int, slices: Sequence[TraceSlice]) -> None:
        """Write slices, which nest: one that begins within another and ends after it is cut."""
        open_slices: list[TraceSlice] = []
        for one in sorted(slices, key=lambda one: (one.start_ns, -one.end_ns, one.category != "state")):
            while open_slices and open_slices[-1].end_ns <= one.start_ns:
                self._event(track, open_slices.pop().end_ns, self._end)
            if open_slices and open_slices[-1].end_ns < one.end_ns:
                one = one._replace(end_ns=open_slices[-1].end_ns)
            event = self._event(track, one.start_ns, self._begin)
            event.name = one.name
            if one.category:
                event.categories.append(one.category)
            if one.flow:
                event.flow_ids.append(one.flow)
            for name, value in one.details.items():
                self._annotate(event, name, value)
            open_slices.append(one)
        while open_slices:
            self._event(track, open_slices.pop().end_ns, self._end)

    def instant(self, track: int, at_ns: int, name: str) -> None:
        """Write an event without a duration."""
        event = self._event(track, at_ns, self._instant)
        event.name = name
        event.categories.append("point")

    def count(self, counter: int, at_ns: int, value: int) -> None:
        """Write what a counter is from now on."""
        self._event(counter, at_ns, self._count).counter_value = value

    def _new_track(self) -> Any:
        self._tracks += 1
        track = self._builder.add_packet().track_descriptor
        track.uuid = self._tracks
        return track

    def _event(self, track: int, at_ns: int, kind: int) -> Any:
        packet = self._builder.add_packet()
        packet.timestamp = at_ns
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet.track_event

    def _annotate(self, event: Any, name: str, value: str | int | float | None) -> None:
        match value:
            case None:
                pass
            case str():
                event.debug_annotations.add(name=name, string_value=value)
            case int():
                event.debug_annotations.add(name=name, int_value=value)
            case float():
                event.debug_annotations.add(name=name, double_value=value)
