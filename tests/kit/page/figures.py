"""Plausible figures of a service under load, second by second, as ``/latency/now`` and the lists give them.

The same seed makes the same figures. Every reading of ``/latency/now`` is one second later than the one before it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.histogram import slot_of

Json = dict[str, Any]
Sums = dict[str, float]

BEGAN_S = 1_796_040_000.0
CODECS = ("decode_events", "remember_reasoning", "encode_chunks", "keep_alive", "write_sse")
ENTRY = ("authenticate", "parse_request", "choose_deployment", "restore_reasoning")
STATES = ("starved", "ready", "busy", "outside", "blocked", "closing")
LINK = "call_upstream>decode_events"
PACE_S = 0.1
SHARES = {"decode_events": 0.3, "remember_reasoning": 0.05, "encode_chunks": 0.1, "keep_alive": 0.03, "write_sse": 0.52}


class Figures:
    """What the service counts.

    Attributes:
        streams: how many requests run at any time.
        seconds: how many seconds have passed.
        document: what ``/latency/now`` said last.
    """

    def __init__(self, streams: int = 40, seed: int = 1) -> None:
        self.streams = streams
        self.seconds = 0
        self.document: Json = {}
        self._random = random.Random(seed)
        self._slots: dict[str, Counter[int]] = {
            name: Counter() for name in ("transit", "gap_client", "gap_upstream", "first_token", "request")
        }
        self._sums_s: Sums = {}
        self._ended: Counter[str] = Counter()
        self._party_s: Sums = {}
        self._lanes_s: dict[str, Sums] = {name: {} for name in ("authenticate", "call_upstream", "decode_events")}
        self._stages: dict[str, Sums] = {
            name: {"busy_s": 0.0, "outside_s": 0.0, "events_in": 0, "events_out": 0}
            for name in (*ENTRY, "call_upstream", *CODECS)
        }
        self._link: Sums = {"ready_s": 0.0, "queued_s": 0.0, "full_s": 0.0, "batches": 0}
        self._stalls: list[Json] = []
        self.records: dict[str, Json] = {}
        self._summaries: dict[str, Json] = {}

    def tick(self) -> Json:
        """Let one second pass, and return the document."""
        chance, streams = self._random, self.streams
        self.seconds += 1
        is_slow = 20 < self.seconds % 60 < 30  # the loop is busy every minute
        events = int(streams / PACE_S)
        for _ in range(min(events, 400)):
            weight = max(1, events // 400)
            transit_s = chance.lognormvariate(math.log(0.0004 + streams * 5e-7), 0.45) * (8 if is_slow else 1)
            self._note("transit", transit_s, weight)
            self._note("gap_client", chance.lognormvariate(math.log(PACE_S), 0.25), weight)
            self._note("gap_upstream", chance.lognormvariate(math.log(PACE_S), 0.2), weight)
        work_s = events * 95e-6
        ready_s = events * (3e-3 if is_slow else 2.5e-4)
        client_s = streams * 0.01 * chance.random()
        add(self._party_s, client=client_s, ours=work_s + ready_s, upstream=streams - client_s - work_s - ready_s)
        self._count_lanes(streams, work_s, ready_s)
        for name in CODECS:
            add(self._stages[name], busy_s=work_s * SHARES[name], events_in=events, events_out=events)
        add(self._stages["call_upstream"], busy_s=work_s * 0.1, outside_s=streams, events_out=events)
        add(self._link, ready_s=ready_s, queued_s=events * 4e-5, batches=events)
        ended = max(1, streams // 12)
        for _ in range(ended):
            self._end_one()
        for name in ENTRY:
            add(self._stages[name], busy_s=ended * 6e-5, events_in=ended, events_out=ended)
        if is_slow and self.seconds % 3 == 0:
            stall = {"stage": "shout", "request_id": self._id(), "ms": round(60 + 80 * chance.random(), 1)}
            self._stalls.append({"ts": self._ts(), **stall, "streams": streams, "worker": 1})
        self.document = self._document()
        return self.document

    def requests(self, kind: str) -> list[Json]:
        """Return the summaries of a kind of requests, the slowest or the newest first."""
        kept = list(self._summaries.values())
        kept.sort(key=lambda one: one["total_ms"] if kind == "slow" else one["ts"], reverse=True)
        tests: dict[str, Callable[[Json], bool]] = {
            "failed": lambda one: one["end"] not in ("OK", "DC"),
            "cancelled": lambda one: one["end"] == "DC",
            "traced": lambda one: "traced" in one,
            "stalled": lambda one: any(stall["request_id"] == one["request_id"] for stall in self._stalls),
        }
        return [one for one in kept if kind not in tests or tests[kind](one)]

    def running(self) -> list[Json]:
        """Return the requests that run and have been idle longest."""
        waits = ("upstream", "upstream", "upstream", "client", "ours")
        return [
            {
                "request_id": f"851e3d5e778ab742{number:08x}",
                "worker": 1 + number % 2,
                "age_ms": 4000.0 + 321 * number,
                "model": "story",
                "deployment": f"story-{number % 3}",
                "waits_for": waits[number % 5],
                "point": "upstream_head" if number % 4 == 0 else "first_token_out",
                "events": 7 * number,
                "idle_ms": 950.0 - 31 * number,
            }
            for number in range(min(20, self.streams))
        ]

    def _id(self) -> str:
        return f"851e3d5e778ab741{sum(self._ended.values()):08x}"

    def _ts(self) -> str:
        minutes, seconds = divmod(self.seconds, 60)
        return f"2026-11-30T12:{minutes % 60:02}:{seconds:02}.{self._random.randrange(1000):03}Z"

    def _note(self, name: str, seconds: float, times: int = 1) -> None:
        self._slots[name][slot_of(int(seconds * 1e9))] += times
        add(self._sums_s, **{name: seconds * times})

    def _count_lanes(self, streams: int, work_s: float, ready_s: float) -> None:
        codec_s = work_s * 0.9
        add(self._lanes_s["authenticate"], busy=2e-4 * streams / 12, ready=1e-5, closing=1e-4, starved=1e-4)
        add(self._lanes_s["call_upstream"], busy=work_s * 0.1, ready=ready_s, outside=streams - work_s * 0.1 - ready_s)
        add(
            self._lanes_s["decode_events"], busy=codec_s, ready=ready_s * 0.4, starved=streams - codec_s - ready_s * 0.4
        )

    def _end_one(self) -> None:
        chance = self._random
        end = chance.choices(("OK", "DC", "UE", "UT"), (960, 25, 10, 5))[0]
        record = finished(self._id(), self._ts(), end, chance, is_traced=chance.random() < 0.1)
        self._ended[end] += 1
        self._note("request", record["total_ms"] / 1000)
        if record["first_token_ms"] is not None:
            self._note("first_token", record["first_token_ms"] / 1000)
        self.records[record["request_id"]] = record
        self._summaries[record["request_id"]] = summary(record)
        if len(self.records) > 1500:
            oldest = next(iter(self.records))
            del self.records[oldest], self._summaries[oldest]

    def _document(self) -> Json:
        histograms = {
            name: {"step": 1, "slots": sorted(slots.items()), "sum_s": round(self._sums_s[name], 6)}
            for name, slots in self._slots.items()
        }
        return {
            "now_s": BEGAN_S + self.seconds,
            "headrace": "0.1.0",
            "workers": [
                {
                    "worker": number,
                    "pid": 100 + number,
                    "alive": True,
                    "lag_s": 0.0012 * number,
                    "resident_bytes": (90 + 7 * number) << 20,
                    "in_flight": self.streams // 2,
                    "client_sockets": self.streams // 2 + 3,
                    "upstream_sockets": self.streams // 2,
                }
                for number in (1, 2)
            ],
            "ended": dict(self._ended),
            "in_flight": self.streams,
            "lost": 0,
            "party_s": rounded(self._party_s),
            "phase_s": {},
            "lanes_s": {name: rounded(times) for name, times in self._lanes_s.items()},
            "stages": {name: rounded(counts) for name, counts in self._stages.items()},
            "links": {LINK: {**rounded(self._link), "depth": self.seconds % 3}},
            "stall_s": {"shout": round(sum(stall["ms"] for stall in self._stalls) / 1000, 3)},
            "stalls": self._stalls[-8:],
            "histograms": histograms,
            "running": self.running(),
            "recent": {kind: self.requests(kind)[:8] for kind in ("slow", "failed", "cancelled", "stalled")},
        }


def add(sums: Sums, **more: float) -> None:
    """Add to figures that count from the start."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value


def rounded(figures: Sums) -> Sums:
    """Return figures with at most six decimals, as they are sent."""
    return {name: round(value, 6) for name, value in figures.items()}


def summary(record: Json) -> Json:
    """Return a record in short, as lists have it."""
    names = ("request_id", "ts", "worker", "end", "status", "model", "deployment", "stream", "total_ms")
    traced = {"traced": True} if "trace" in record else {}
    return {name: record[name] for name in (*names, "first_token_ms", "party_ms")} | traced


def finished(request_id: str, ts: str, end: str, chance: random.Random, *, is_traced: bool = False) -> Json:
    """Return the record of a request."""
    head = round(chance.lognormvariate(math.log(350), 0.5), 3)
    stream = round(chance.lognormvariate(math.log(4200), 0.4), 3)
    has_answer = end in ("OK", "DC")
    names = ["head_read", "body_read", "routed", "upstream_sent", "upstream_head"]
    steps = [0.8, 0.2, 0.3, 0.3, head]
    if has_answer:
        names += ["first_event", "first_token", "first_output_token", "first_byte_out", "first_token_out"]
        names += ["upstream_end", "last_byte_out"]
        steps += [0.4, 31.5, 0.1, 0.3, 0.01, stream, 0.1]
    names += ["upstream_closed", "ended"]
    steps += [0.05, 0.02]
    points, at = dict[str, float](), 0.0
    for name, step in zip(names, steps, strict=True):
        at = round(at + step, 3)
        points[name] = at
    client, ours = round(stream * 0.02 if has_answer else 0.2, 3), round(12 + at * 0.012, 3)
    events = int(stream / 100) if has_answer else 0
    stages = {name: stage_figures(ours * 0.75 * SHARES[name], events) for name in CODECS}
    entry = {name: stage_figures(0.06, 1) for name in ENTRY}
    call = stage_figures(ours * 0.1, events) | {"outside_ms": round(at - ours, 3)}
    codec_ms, call_ms = round(ours * 0.75, 3), round(ours * 0.1, 3)
    record: Json = {
        "ts": ts, "worker": 1 + int(request_id[-1:], 16) % 2, "event": "request", "request_id": request_id,
        "client": "127.0.0.1", "key": "master", "model": "story", "deployment": f"story-{int(request_id[-1:], 16) % 3}",
        "stream": True, "end": end, "status": 200 if has_answer else 502, "bytes": 200 * events, "events": events,
        "generation": 1, "total_ms": at, "before_ms": 0.8, "first_byte_ms": points.get("first_byte_out"),
        "first_token_ms": points.get("first_token_out"), "prompt_tokens": 25, "completion_tokens": events,
        "party_ms": {"client": client, "ours": ours, "upstream": round(at - client - ours, 3)},
        "points_ms": points,
        "lanes": {
            "authenticate": lane_figures(list(ENTRY), busy=0.24, starved=0.03, ready=0.02, closing=0.08),
            "call_upstream": lane_figures(["call_upstream"], busy=call_ms, outside=at - ours, ready=ours - call_ms),
            "decode_events": lane_figures(list(CODECS), busy=codec_ms, starved=at - ours, ready=ours - codec_ms),
        },
        "stages": {**entry, "call_upstream": call, **stages},
        "links": {LINK: {"ready_ms": round(ours * 0.15, 3), "queued_ms": 0.3, "full_ms": 0.0, "batches": events}},
    }  # fmt: skip
    if has_answer:
        record["transit_ms"] = {"p50": 0.176, "p99": 0.286, "max": 1.368}
    else:
        record["error"] = "upstream_error"
    if is_traced:
        record["trace"] = trace_of(points, events)
    return record


def stage_figures(busy_ms: float, events: int) -> Json:
    """Return what a stage did that turned each event into one."""
    counts = dict.fromkeys(("batches_in", "events_in", "batches_out", "events_out"), events)
    return {"busy_ms": round(busy_ms, 3), "outside_ms": 0.0, "flush_ms": 0.004, **counts}


def lane_figures(stages: list[str], **spent_ms: float) -> Json:
    """Return the time of a task."""
    states = {f"{state}_ms": round(spent_ms.get(state, 0.0), 3) for state in STATES}
    return {"stages": stages, "life_ms": round(sum(states.values()), 3), **states}


def trace_of(points: dict[str, float], events: int) -> Json:
    """Return the spans of a request whose batches came evenly after its first token."""
    first_us = points.get("first_token", 1.0) * 1000
    gap_us = (points["ended"] * 1000 - first_us) / (events + 1)
    spans: list[list[float]] = [[4, 0, 0.0, first_us, 0], [1, 1, 0.0, first_us, 0]]
    for batch in range(1, events + 1):
        at = round(first_us + gap_us * batch, 3)
        spans += [[3, 0, at, 40.0, batch], [10, 0, at + 40, 60.0, batch], [3, 1, at + 100, 180.0, batch]]
        spans += [[0, number, at + 100 + 36 * number, 36.0, batch] for number in range(len(CODECS))]
        spans += [[4, 0, at + 40, gap_us - 40, 0], [1, 1, at + 280, gap_us - 280, 0]]
    return {
        "lanes": ["call_upstream", "decode_events"],
        "stages": list(CODECS),
        "links": [LINK],
        "lane_of_stage": [1] * len(CODECS),
        "born_ns": 0,
        "spans": spans,
        "lost": 0,
    }
