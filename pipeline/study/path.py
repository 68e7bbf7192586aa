"""The critical path of one request: its phases in their order, each with whose time it was."""

from __future__ import annotations

from math import inf
from typing import Final

from msgspec import Struct

from pipeline.study.parts import PARTIES, PARTY_OF_POINT, PartyName, lost_in_phase_ms
from pipeline.study.records import RecordedRequest

ABOUT_POINT: Final = {
    "head_read": "the request arrived and was read",
    "admitted": "queued for its turn",
    "body_read": "the client sent the body",
    "routed": "parsed; deployment chosen",
    "upstream_slot": "waited for a free connection",
    "upstream_resolved": "looked up the upstream's address",
    "upstream_connected": "connected to the upstream",
    "upstream_secured": "TLS handshake with the upstream",
    "upstream_sent": "sent the request to the upstream",
    "upstream_head": "waited for the answer's head",
    "first_event": "waited for the first event",
    "first_token": "waited for the first token",
    "first_output_token": "reasoning, before the text",
    "first_byte_out": "sent the client the first byte",
    "first_token_out": "sent the client the first token",
    "upstream_end": "the rest of the answer came",
    "last_byte_out": "sent the client the rest",
    "left": "until the client disconnected",
    "upstream_closed": "closed the upstream's connection",
    "ended": "cleared away",
}
"""What happens in the phase that ends with a point."""

_WITHOUT_UPSTREAM: Final = frozenset({"head_read", "admitted", "body_read", "routed", "upstream_closed", "ended"})
"""In these phases the upstream is not waited for."""


class PathStep(Struct, kw_only=True):
    """One phase.

    Attributes:
        point: what ended it.
        about: what happened in it.
        began_ms: when it began.
        ms: how long it took.
        party_ms: whose time it was; this sums to ``ms``.
    """

    point: str
    about: str
    began_ms: float
    ms: float
    party_ms: dict[str, float]

    @property
    def party(self) -> str:
        """Whose time most of it was."""
        return max(self.party_ms, key=lambda party: self.party_ms[party], default="")


def path_of(request: RecordedRequest) -> list[PathStep]:
    """Return the phases of a request; what they say of each party sums to its time.

    A phase that has one usual party is its time, as far as the record has so much time of that party. What is left is
    shared by the other phases in proportion to their length.
    """
    phases_ms = request.phases_ms
    left_ms: dict[PartyName, float] = {party: max(0.0, request.party_ms.get(party, 0.0)) for party in PARTIES}
    shares: dict[str, dict[str, float]] = {point: {} for point in phases_ms}
    open_ms = dict(phases_ms)

    def take(point: str, party: PartyName | None, most_ms: float = inf) -> float:
        taken_ms = 0.0 if party is None else min(open_ms[point], left_ms[party], most_ms)
        if party is not None and taken_ms > 0:
            shares[point][party] = shares[point].get(party, 0.0) + taken_ms
            left_ms[party] -= taken_ms
            open_ms[point] -= taken_ms
        return taken_ms

    lost = {point for point, ms in phases_ms.items() if lost_in_phase_ms(request, point, ms) > ms / 2}
    pauses_ms = sum(attempt.pause_ms for attempt in request.attempts)
    for point in sorted(lost, key=lambda point: -phases_ms[point]):
        pauses_ms -= take(point, "ours", pauses_ms)
    for point in phases_ms:
        take(point, PARTY_OF_POINT.get(point))
    for point in phases_ms:
        if point in _WITHOUT_UPSTREAM:
            take(point, "ours")
            take(point, "client")
    rest_ms, total_ms = sum(left_ms.values()), sum(open_ms.values())
    for point, ms in open_ms.items():
        for party in PARTIES if rest_ms > 0 and total_ms > 0 else ():
            more_ms = ms * left_ms[party] / rest_ms
            if more_ms > 0:
                shares[point][party] = shares[point].get(party, 0.0) + more_ms
    steps: list[PathStep] = []
    at_ms = 0.0
    for point, ms in phases_ms.items():
        rounded = {party: round(share, 3) for party, share in shares[point].items()}
        about = "attempts that failed, and pauses" if point in lost else ABOUT_POINT.get(point, point)
        steps.append(PathStep(point=point, about=about, began_ms=round(at_ms, 3), ms=round(ms, 3), party_ms=rounded))
        at_ms += ms
    return steps
