"""Lines of a recording, made up and true to the sums of real ones: the parties, the phases and the lanes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.study.records import RecordedRequest, RecordedStall

BEGAN_S = 1_796_000_000.0

Line = dict[str, Any]


def timestamp(at_s: float) -> str:
    """Return a time as the log writes it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def request_line(
    request_id: str = "r-1",
    *,
    began_s: float = BEGAN_S,
    arrival_ms: float = 0.0,
    queue_ms: float | None = None,
    upload_ms: float = 0.1,
    connect_ms: float | None = None,
    head_ms: float = 50.0,
    first_ms: float = 10.0,
    tokens_ms: float = 100.0,
    reading_ms: float = 1.0,
    loop_ms: float = 0.5,
    work_ms: Mapping[str, float] | None = None,
    wait_ms: Mapping[str, float] | None = None,
    pause_ms: float = 0.0,
    attempts: list[Line] | None = None,
    model: str = "m",
    deployment: str = "d-1",
    end: str = "OK",
    **more: Any,
) -> Line:
    """Return the line of a request that streamed 20 events; all of its time is in the arguments.

    ``loop_ms`` passes after the first token, as ``work_ms`` and ``wait_ms`` do.
    """
    work_ms = {"decode_events": 0.5, "encode_chunks": 0.3, **(work_ms or {})}
    wait_ms = wait_ms or {}
    ours_late = loop_ms + sum(work_ms.values()) + sum(wait_ms.values())
    points: dict[str, float] = {}
    at = 0.0

    def reach(point: str, ms: float | None) -> None:
        nonlocal at
        if ms is not None:
            at += ms
            points[point] = round(at, 3)

    reach("head_read", arrival_ms)
    reach("admitted", queue_ms)
    reach("body_read", upload_ms)
    failed_ms = sum(attempt["ms"] for attempt in attempts or [] if attempt["end"] != "OK")
    reach("routed", 0.0)
    reach("upstream_slot", failed_ms + pause_ms)
    reach("upstream_connected", connect_ms)
    reach("upstream_sent", 0.0)
    reach("upstream_head", head_ms)
    reach("first_event", first_ms)
    reach("first_token", 0.0)
    reach("first_token_out", 0.0)
    reach("upstream_end", tokens_ms + reading_ms + ours_late)
    reach("ended", 0.0)
    upstream = failed_ms + (connect_ms or 0.0) + head_ms + first_ms + tokens_ms
    client = upload_ms + reading_ms
    ours = arrival_ms + (queue_ms or 0.0) + pause_ms + ours_late
    stages = {name: stage_line(busy_ms=ms) for name, ms in work_ms.items()}
    for name, ms in wait_ms.items():
        stages[name] = stage_line(busy_ms=work_ms.get(name, 0.0), outside_ms=ms)
    stages["call_upstream"] = stage_line(outside_ms=upstream)
    stages["write_sse"] = stage_line(outside_ms=reading_ms)
    busy, outside = sum(work_ms.values()), upstream + reading_ms + sum(wait_ms.values())
    lane = {
        "stages": list(stages),
        "life_ms": round(busy + outside + loop_ms, 3),
        "starved_ms": 0.0,
        "ready_ms": loop_ms,
        "busy_ms": round(busy, 3),
        "outside_ms": round(outside, 3),
        "blocked_ms": 0.0,
        "closing_ms": 0.0,
    }
    return {
        "ts": timestamp(began_s + at / 1000),
        "event": "request",
        "request_id": request_id,
        "client": "127.0.0.1",
        "key": "k",
        "model": model,
        "deployment": deployment,
        "stream": True,
        "end": end,
        "status": 200,
        "bytes": 100,
        "events": 20,
        "generation": 1,
        "total_ms": points["ended"],
        "before_ms": arrival_ms,
        "first_byte_ms": points["first_token_out"],
        "first_token_ms": points["first_token_out"],
        "party_ms": {"client": round(client, 3), "ours": round(ours, 3), "upstream": round(upstream, 3)},
        "points_ms": points,
        "lanes": {"call_upstream": lane},
        "stages": stages,
        "links": {"a>b": {"ready_ms": loop_ms, "queued_ms": 0.0, "full_ms": 0.0, "batches": 20}},
        "transit_ms": {"p50": 0.2, "p99": 0.9, "max": 1.4},
        **({"attempts": attempts} if attempts else {}),
        **more,
    }


def stage_line(busy_ms: float = 0.0, outside_ms: float = 0.0, flush_ms: float = 0.0) -> Line:
    """Return the figures of a stage."""
    counts = {"batches_in": 20, "events_in": 20, "batches_out": 20, "events_out": 20}
    return {"busy_ms": round(busy_ms, 3), "outside_ms": round(outside_ms, 3), "flush_ms": round(flush_ms, 3), **counts}


def stall_line(ended_s: float, ms: float, stage: str | None = "shout", request_id: str | None = "r-2") -> Line:
    """Return the line of a stall."""
    named = {"stage": stage, "request_id": request_id, "ms": ms, "streams": 3, "unlogged": 0}
    return {"ts": timestamp(ended_s), "event": "stall", **named}


def varied_lines(count: int, seed: int, **figures: float) -> list[Line]:
    """Return the lines of requests whose times vary as real ones do: by a fifth, and now and then by much."""
    generator = random.Random(seed)

    def varied(ms: float) -> float:
        return ms * generator.lognormvariate(0, 0.2) * (3 if generator.random() < 0.02 else 1)

    extra_ms = figures.pop("extra_ms", 0.0)
    return [
        request_line(
            f"r-{seed}-{number}",
            began_s=BEGAN_S + number * 0.2,
            head_ms=varied(50) + figures.get("head_ms", 0.0),
            tokens_ms=varied(400),
            reading_ms=varied(2),
            loop_ms=varied(0.5),
            work_ms={"decode_events": varied(0.5), "encode_chunks": varied(0.9) + extra_ms},
        )
        for number in range(count)
    ]


def as_request(line: Mapping[str, Any]) -> RecordedRequest:
    """Return what is read from the line of a request."""
    return msgspec.json.decode(json.dumps(line), type=RecordedRequest)


def as_stall(line: Mapping[str, Any]) -> RecordedStall:
    """Return what is read from the line of a stall."""
    return msgspec.json.decode(json.dumps(line), type=RecordedStall)


def written(path: Path, lines: Iterable[Mapping[str, Any]]) -> str:
    """Write a recording; return its name."""
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return str(path)
