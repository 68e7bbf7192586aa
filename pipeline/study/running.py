"""What ``headrace why --now`` says of the requests that run: for whom each waits, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline.study.tables import Paint, ms_text, wrapped

_NEXT: Final = {
    "client_arrived": "for its head to be read",
    "head_read": "for its turn, or for its body",
    "admitted": "for its body",
    "body_read": "to be parsed",
    "routed": "for a connection to the upstream",
    "upstream_slot": "for the upstream to be connected",
    "upstream_resolved": "for the upstream to be connected",
    "upstream_connected": "for the upstream's TLS, or to send the request",
    "upstream_secured": "to send the request",
    "upstream_sent": "for the head of the answer",
    "upstream_head": "for the first event",
    "first_event": "for the first token",
}
"""What comes after a point, until tokens do."""

OLD_MS: Final = 2000.0
"""Workers say what they do once a second; of one that has not for longer, the sentence says since when."""

# Any: a row is JSON of another process, maybe of another version.
Running = Mapping[str, Any]


def running_sentence(row: Running) -> str:
    """Return what one running request does, in a sentence."""
    party = str(row.get("waits_for") or "ours")
    us = f"us (stage {row['stage']})" if row.get("stage") else "us"
    whom = {"client": "the client", "upstream": f"the upstream (deployment {row.get('deployment')})"}.get(party, us)
    what = _NEXT.get(str(row.get("point")), f"after {row.get('events') or 0} events")
    if party == "client":
        what = "to send its request" if row.get("point") in ("head_read", "admitted", None) else "to read"
    old_ms = float(row.get("as_of_ms") or 0.0)
    as_of = f" (as of {old_ms / 1e3:.0f} s ago: its worker has not said anything since)" if old_ms > OLD_MS else ""
    return (
        f"request {row.get('request_id')} (model {row.get('model')}) has run for {_ms(row, 'age_ms')}; it has waited "
        f"for {whom} for {_ms(row, 'idle_ms')}, {what}{as_of}."
    )


def running_page(rows: Iterable[Running], paint: Paint) -> list[str]:
    """Return the lines, the longest wait first."""
    lines: list[str] = []
    for row in sorted(rows, key=lambda row: -float(row.get("idle_ms") or 0.0)):
        party = str(row.get("waits_for") or "ours")
        lines += [paint(line, party) for line in wrapped(running_sentence(row))]
    return lines or ["No request runs now."]


def silent_sentences(figures: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each worker that does not say what runs in it, by the figures of the service."""
    return [
        f"worker {one.get('worker')} (process {one.get('pid')}) does not say what it does, with "
        f"{_requests(one.get('in_flight'))} in flight: something holds its loop, or it is stopped"
        for one in figures.get("workers", [])
        if one.get("is_silent")
    ]


def _requests(count: object) -> str:
    return f"{count} {'request' if count == 1 else 'requests'}"


def _ms(row: Running, name: str) -> str:
    return ms_text(float(row.get(name) or 0.0))
