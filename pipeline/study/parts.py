"""What the time of one request consists of: disjoint parts, each with its party, which sum to the total.

The record of a request has three views of the same time: parties, points and stages. Only the first is exact for a
whole request, because phases overlap with our own work, and the stages of different lanes work at the same time as a
client is waited for. So each party's time is divided by what the other views say, and what they cannot explain is a
part of its own: of ours, the wait for the loop; of the upstream's, the wait for its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from pipeline.study.records import ON_SOCKETS, RecordedAttempt, RecordedRequest, RecordedStage

PartyName = Literal["client", "ours", "upstream"]
PARTIES: Final[tuple[PartyName, ...]] = ("client", "ours", "upstream")

PartKind = Literal[
    "upload",
    "delay",
    "reading",
    "queue",
    "work",
    "wait",
    "pause",
    "loop",
    "attempts",
    "pool",
    "resolve",
    "connect",
    "secure",
    "head",
    "first_token",
    "tokens",
]

PARTY_OF_POINT: Final[dict[str, PartyName | None]] = {
    "head_read": "ours",
    "admitted": "ours",
    "body_read": "client",
    "routed": "ours",
    "upstream_slot": "upstream",
    "upstream_resolved": "upstream",
    "upstream_connected": "upstream",
    "upstream_secured": "upstream",
    "upstream_sent": "ours",
    "upstream_head": "upstream",
    "first_event": "upstream",
    "first_token": "upstream",
    "first_output_token": "upstream",
    "first_byte_out": "ours",
    "first_token_out": "ours",
    "upstream_end": None,
    "last_byte_out": None,
    "left": None,
    "upstream_closed": "ours",
    "ended": "ours",
}
"""Whose time the phase that ends with a point mostly is; None if each of the three has a share of it."""

_UPSTREAM_PHASES: Final[dict[str, PartKind]] = {
    "upstream_slot": "pool",
    "upstream_resolved": "resolve",
    "upstream_connected": "connect",
    "upstream_secured": "secure",
    "upstream_head": "head",
    "first_event": "first_token",
    "first_token": "first_token",
}


class TimePart(NamedTuple):
    """A part of a request's time.

    Attributes:
        kind: what it was.
        party: whose time it was.
        ms: how long it took.
        stage: which stage worked or waited, for ``work`` and ``wait``.
    """

    kind: PartKind
    party: PartyName
    ms: float
    stage: str = ""

    @property
    def name(self) -> str:
        """Its name among figures, such as ``head`` or ``work.shout``."""
        return f"{self.kind}.{self.stage}" if self.stage else self.kind


def parts_of(request: RecordedRequest) -> list[TimePart]:
    """Return the parts of a request's time; those of a party sum to its time, and none is empty.

    Where the stages have worked for longer than our time, behind a wait for the client, their parts are shortened in
    proportion.
    """
    phases_ms = request.phases_ms
    client_ms, ours_ms, upstream_ms = (max(0.0, request.party_ms.get(party, 0.0)) for party in PARTIES)
    found = [*_client_parts(request, client_ms)]
    upload_ms = sum(part.ms for part in found if part.kind == "upload")
    found += _our_parts(request, ours_ms, phases_ms, upload_ms)
    found += _upstream_parts(request, upstream_ms, phases_ms)
    return [part for part in found if part.ms > 0]


def _client_parts(request: RecordedRequest, client_ms: float) -> Iterator[TimePart]:
    wrote_ms = sum(stage.outside_ms for name, stage in stages_of(request) if ON_SOCKETS.get(name) == "client")
    reading_ms = min(client_ms, wrote_ms)
    sent_ms = client_ms - reading_ms
    delay_ms = 0.0
    if request.error == "unauthorized":  # its body was not read: what is not its head was the delay of a wrong key
        delay_ms = max(0.0, sent_ms - request.points_ms.get("head_read", 0.0))
    yield TimePart("upload", "client", sent_ms - delay_ms)
    yield TimePart("delay", "client", delay_ms)
    yield TimePart("reading", "client", reading_ms)


def _our_parts(
    request: RecordedRequest, ours_ms: float, phases_ms: dict[str, float], upload_ms: float
) -> Iterator[TimePart]:
    found = [
        TimePart("queue", "ours", phases_ms.get("admitted", 0.0)),
        TimePart("pause", "ours", sum(attempt.pause_ms for attempt in request.attempts)),
    ]
    found += [TimePart("wait", "ours", ms, name) for name, ms in request.arounds_ms.items() if name != "route_call"]
    for name, stage in stages_of(request):
        found.append(TimePart("work", "ours", stage.work_ms, name))
        if name not in ON_SOCKETS and not (name == "answer_call" and request.arounds_ms):
            found.append(TimePart("wait", "ours", stage.outside_ms, name))
    known_ms = sum(part.ms for part in found)
    yield from _shortened(found, ours_ms)
    yield TimePart("loop", "ours", max(0.0, ours_ms - known_ms))


def _upstream_parts(request: RecordedRequest, upstream_ms: float, phases_ms: dict[str, float]) -> Iterator[TimePart]:
    failed_ms = sum(lost_ms(request, attempt) for attempt in failed_attempts(request))
    found = [TimePart("attempts", "upstream", failed_ms)]
    for point, kind in _UPSTREAM_PHASES.items():
        ms = phases_ms.get(point, 0.0) - lost_in_phase_ms(request, point, phases_ms.get(point, 0.0))
        found.append(TimePart(kind, "upstream", ms))
    rest: PartKind = "tokens"
    if "upstream_head" not in request.points_ms and "first_event" not in request.points_ms:
        rest = "head"
    elif "first_token" not in request.points_ms and "upstream_end" not in request.points_ms:
        rest = "first_token"
    known_ms = sum(part.ms for part in found)
    found = _merged([*_shortened(found, upstream_ms), TimePart(rest, "upstream", max(0.0, upstream_ms - known_ms))])
    yield from found


def _shortened(found: list[TimePart], limit_ms: float) -> list[TimePart]:
    known_ms = sum(part.ms for part in found)
    if known_ms <= limit_ms:
        return found
    return [part._replace(ms=part.ms * limit_ms / known_ms) for part in found]


def _merged(found: list[TimePart]) -> list[TimePart]:
    merged: dict[str, TimePart] = {}
    for part in found:
        before = merged.get(part.kind)
        merged[part.kind] = part if before is None else part._replace(ms=before.ms + part.ms)
    return list(merged.values())


def _waited_ms(attempt: RecordedAttempt) -> float:
    stage = attempt.stages.get("call_upstream")
    return attempt.ms if stage is None else stage.outside_ms


def failed_attempts(request: RecordedRequest) -> list[RecordedAttempt]:
    """Return the attempts that another one followed."""
    return [attempt for attempt in request.attempts[:-1] if attempt.end != "OK"]


def lost_ms(request: RecordedRequest, attempt: RecordedAttempt) -> float:
    """Return how long an attempt that failed has waited, before the last one began: a hedged one goes on after that."""
    return min(attempt.ms, _waited_ms(attempt), max(0.0, request.attempts[-1].began_ms - attempt.began_ms))


def lost_in_phase_ms(request: RecordedRequest, point: str, phase_ms: float) -> float:
    """Return how much of the phase up to ``point`` went into attempts that failed, and into the pauses after them."""
    if not failed_attempts(request):
        return 0.0
    began_ms, ended_ms = request.attempts[0].began_ms, request.attempts[-1].began_ms
    until_ms = request.points_ms.get(point, 0.0)
    return min(phase_ms, max(0.0, min(until_ms, ended_ms) - max(until_ms - phase_ms, began_ms)))


def stages_of(request: RecordedRequest) -> Iterator[tuple[str, RecordedStage]]:
    """Yield the stages of a request, and those of its attempts that are only there."""
    yield from request.stages.items()
    for attempt in request.attempts:
        for name, stage in attempt.stages.items():
            if request.stages.get(name) != stage:
                yield name, stage
