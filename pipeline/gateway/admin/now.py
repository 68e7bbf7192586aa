"""``/latency/now``: the figures of the whole service in one small document, once a second for all viewers together.

Everything is counted from the start: a viewer takes differences. Its size is limited, whatever there is to show: first
the lists of requests become shorter, then histograms coarser and tables shorter.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import trio

from pipeline.families import IN_FLIGHT, LOST, REQUESTS
from pipeline.gateway.admin.summaries import summaries_of
from pipeline.gateway.board import PARTIES, BoardText, all_running, last_board, wall_clock_s
from pipeline.gateway.recorded import Latest
from pipeline.gateway.recorder import CANCELLED, FAILED, SLOW, STALL, STALLED
from pipeline.histogram import STEPS, added_up
from pipeline.lane import STATES
from pipeline.observe import figures_of
from pipeline.segments import SegmentFile, SegmentView
from pipeline.series import Family, Reading, Series, read_segment

if TYPE_CHECKING:
    from pipeline.gateway.admin.shapes import HistogramNow, WorkerNow

MAX_BYTES: Final = 20_000
SHARED_S: Final = 0.9
"""For how long a document is sent again: less than the second after which a viewer asks for the next."""
_RECENT: Final = {"slow": SLOW, "failed": FAILED, "cancelled": CANCELLED, "stalled": STALLED}
_STALLS: Final = "stalls"
_KEPT: Final = 8
_MAX_RUNNING: Final = 20
_SHRINKS: Final = 8
"""How often the document is made smaller: the lists by half each time, in the second half of the times the rest."""
_MAX_WORKERS: Final = 32
_MAX_NAMES: Final = 32
"""Of stages, lanes and links, those with the most time."""
_MAX_SLOTS: Final = 96
"""A histogram with more has neighbouring slots added up, to as few as needed: pairs, fours ..."""

_HISTOGRAMS: Final = {
    "transit": ("headrace_transit_seconds", None),
    "gap_client": ("headrace_chunk_gap_seconds", ("side", "client")),
    "gap_upstream": ("headrace_chunk_gap_seconds", ("side", "upstream")),
    "first_token": ("headrace_first_token_seconds", None),
    "request": ("headrace_request_seconds", None),
}
_PARTIES: Final = "headrace_request_party_seconds_total"
_ENCODER: Final = msgspec.json.Encoder()


class Now:
    """Makes the document, and remembers which requests it has looked at already.

    Args:
        file: what all processes share.
    """

    def __init__(self, file: SegmentFile) -> None:
        self._file = file
        self._latest = Latest({**_RECENT, _STALLS: STALL}, _KEPT)
        self._version = version("headrace")
        self._turn = trio.Lock()
        self._shared = b""
        self._shared_until_s = -math.inf

    async def shared(self) -> bytes:
        """Return it as all viewers have it, made in a thread: with many workers it takes 50 ms.

        While a worker has not yet noticed that somebody watches, each caller gets a new one.
        """
        async with self._turn:
            now_s = trio.current_time()
            if now_s >= self._shared_until_s:
                self._shared, is_complete = await trio.to_thread.run_sync(self.document)
                self._shared_until_s = now_s + SHARED_S if is_complete else now_s
            return self._shared

    def document(self) -> tuple[bytes, bool]:
        """Return it, as JSON, and whether all workers show what they do."""
        views = self._file.views()
        processes = [_ProcessFigures(view, read_segment(view), last_board(view)) for view in views]
        totals = _Totals(figures_of(process.figures for process in processes))
        figures = {"now_s": round(wall_clock_s(), 3), "headrace": self._version, **_figures(processes, totals)}
        lanes, stages, links = _lanes(totals), _stages(totals), _links(totals)
        histograms = {name: totals.histogram(family, label) for name, (family, label) in _HISTOGRAMS.items()}
        running = all_running(process.board for process in processes if process.shows)
        latest = self._latest.look(views)
        stalls = [msgspec.json.decode(line) for line in latest.pop(_STALLS)]
        recent = {kind: summaries_of(lines) for kind, lines in latest.items()}
        document = b""
        for shrunk in range(_SHRINKS):
            few, halvings = _KEPT >> shrunk, max(0, shrunk - _SHRINKS // 2)
            slots, names = _MAX_SLOTS >> halvings, _MAX_NAMES >> halvings
            document = _ENCODER.encode(
                {
                    **figures,
                    "lanes_s": _largest(lanes, STATES, names),
                    "stages": _largest(stages, ("busy_s", "outside_s"), names),
                    "links": _largest(links, ("ready_s", "queued_s", "full_s"), names),
                    "histograms": {name: histogram.shown(slots) for name, histogram in histograms.items()},
                    "stalls": stalls[:few],
                    "running": running[: _MAX_RUNNING >> shrunk],
                    "recent": {kind: summaries[:few] for kind, summaries in recent.items()},
                }
            )
            if len(document) <= MAX_BYTES:
                break
        return document, not any(process.is_silent for process in processes)


class _ProcessFigures(NamedTuple):
    """What one process shows, or has shown last."""

    view: SegmentView
    figures: Reading
    board: BoardText | None

    @property
    def shows(self) -> bool:
        """Whether it lives, and its board says what it does."""
        return self.figures.is_alive and self.board is not None and not self.board.is_stale

    @property
    def is_silent(self) -> bool:
        """Whether it lives, and shows nothing of what it does."""
        return self.figures.is_alive and not self.shows


def _figures(processes: list[_ProcessFigures], totals: _Totals) -> dict[str, Any]:
    """Return what has no limit of its own but that of the configuration."""
    # A dead one is of interest until another has its number; where there are too many, the dead are left out first.
    living = {process.view.worker for process in processes if process.figures.is_alive}
    shown = [process for process in processes if process.figures.is_alive or process.view.worker not in living]
    workers = sorted(map(_worker, shown), key=lambda worker: not worker["alive"])
    return {
        "is_watched": not any(process.is_silent for process in processes),
        "workers": workers[:_MAX_WORKERS],
        "ended": {end: int(count) for end, count in totals.by("end", REQUESTS).items() if count},
        "in_flight": int(totals.all(IN_FLIGHT)),
        "lost": int(totals.all(LOST)),
        "party_s": _parties(processes),
        "party_at_s": _parties_at_s(processes),
        "phase_s": totals.by("phase", "headrace_request_phase_seconds_total"),
        "stall_s": totals.by("stage", "headrace_stall_seconds_total"),
    }


class _Totals:
    """The figures of all processes together."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families

    def all(self, family: str) -> float:
        return sum(series.value for series in self._series(family))

    def by(self, label: str, family: str) -> dict[str, float]:
        sums: defaultdict[str, float] = defaultdict(float)
        for series in self._series(family):
            sums[dict(series.labels)[label]] += series.value
        return {name: round(value, 6) for name, value in sums.items()}

    def by_two(self, label: str, second: str, family: str) -> dict[str, dict[str, float]]:
        sums: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for series in self._series(family):
            labels = dict(series.labels)
            sums[labels[label]][labels[second]] = round(series.value, 6)
        return dict(sums)

    def histogram(self, family: str, label: tuple[str, str] | None) -> _Histogram:
        slots, sum_s = Counter[int](), 0.0
        for series in self._series(family):
            if label is None or label in series.labels:
                slots.update(series.slots)
                sum_s += series.value
        return _Histogram(slots, sum_s)

    def _series(self, family: str) -> list[Series]:
        found = self._families.get(family)
        return [] if found is None else found.series


class _Histogram:
    def __init__(self, slots: Counter[int], sum_s: float) -> None:
        self._slots = slots
        self._sum_s = sum_s

    def shown(self, most: int) -> HistogramNow:
        """Return it with at most so many slots; ``step`` neighbouring ones are added up to one."""
        slots, step = self._slots, 1
        while len(slots) > most and step < STEPS:
            step *= 2
            slots = added_up(self._slots, step)
        return {"step": step, "slots": sorted(slots.items()), "sum_s": round(self._sum_s, 6)}


def _worker(process: _ProcessFigures) -> WorkerNow:
    view, figures = process.view, process.figures

    def gauge(family: str, label: tuple[str, str] | None = None) -> float:
        return figures.sum(family, label) if figures.is_alive else 0.0

    return {
        "worker": view.worker,
        "pid": view.pid,
        "alive": figures.is_alive,
        "is_silent": process.is_silent,
        "lag_s": round(gauge("headrace_loop_lag_seconds", ("worker", str(view.worker))), 6),
        "resident_bytes": int(gauge("headrace_resident_bytes", ("worker", str(view.worker)))),
        "in_flight": int(gauge(IN_FLIGHT)),
        "client_sockets": int(gauge("headrace_sockets", ("side", "client"))),
        "upstream_sockets": int(gauge("headrace_sockets", ("side", "upstream"))),
    }


def _parties(processes: Iterable[_ProcessFigures]) -> dict[str, float]:
    """Return whose time it was; that of running requests is only on boards. None of the sums ever goes down.

    A board has all of it until `_parties_at_s`; those that have ended since count once they are more than an old board.
    """
    sums = dict.fromkeys(PARTIES.values(), 0.0)
    for process in processes:
        for party in sums:
            on_board_s = 0.0 if process.board is None else process.board.party_s.get(party, 0.0)
            of_ended_s = process.figures.sum(_PARTIES, ("party", party))
            sums[party] += max(on_board_s, of_ended_s)
    return {party: round(value, 6) for party, value in sums.items()}


def _parties_at_s(processes: Iterable[_ProcessFigures]) -> float:
    """Return until when that is known: the mean of when the living have written their boards."""
    known = [process.board.at_s for process in processes if process.figures.is_alive and process.board is not None]
    return round(sum(known) / len(known) if known else wall_clock_s(), 3)


def _lanes(totals: _Totals) -> dict[str, dict[str, float]]:
    return totals.by_two("lane", "state", "headrace_lane_seconds_total")


def _stages(totals: _Totals) -> dict[str, dict[str, float]]:
    busy = totals.by("stage", "headrace_stage_busy_seconds_total")
    outside = totals.by("stage", "headrace_stage_outside_seconds_total")
    events = totals.by_two("stage", "direction", "headrace_stage_events_total")
    return {
        stage: {
            "busy_s": busy_s,
            "outside_s": outside.get(stage, 0.0),
            "events_in": int(events.get(stage, {}).get("in", 0)),
            "events_out": int(events.get(stage, {}).get("out", 0)),
        }
        for stage, busy_s in busy.items()
    }


def _links(totals: _Totals) -> dict[str, dict[str, float]]:
    waits = totals.by_two("link", "kind", "headrace_link_wait_seconds")
    full = totals.by("link", "headrace_link_full_seconds_total")
    batches = totals.by("link", "headrace_link_batches_total")
    depths = totals.by("link", "headrace_link_depth")
    return {
        link: {
            "ready_s": waits.get(link, {}).get("ready", 0.0),
            "queued_s": waits.get(link, {}).get("queued", 0.0),
            "full_s": full_s,
            "batches": int(batches.get(link, 0)),
            "depth": int(depths.get(link, 0)),
        }
        for link, full_s in full.items()
    }


def _largest(rows: dict[str, dict[str, float]], of: Iterable[str], most: int) -> dict[str, dict[str, float]]:
    """Return at most so many rows, those with the largest sums of these figures, in their own order."""
    if len(rows) <= most:
        return rows
    sums = {name: sum(row.get(figure, 0.0) for figure in of) for name, row in rows.items()}
    names = set(sorted(sums, key=lambda name: -sums[name])[:most])
    return {name: row for name, row in rows.items() if name in names}
