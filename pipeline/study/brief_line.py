"""One readable line for a finished request, or for a stall, from what the JSON log says of it.

``12:01:07 gpt-5 stream OK 5122 ms: upstream 5101 ms (first token after 410 ms, sent in 0.90 ms), ours 9.4 ms, client
3.1 ms; slowest stage decode_events 5.0 ms``
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

from pipeline.study.parts import PARTIES
from pipeline.study.records import ON_SOCKETS
from pipeline.study.tables import coloured, ms_text, printable

_NAMED: Final = PARTIES[::-1]
"""The parties in the order in which they are named."""
_MAX_NAME_CHARACTERS: Final = 60

Record = Mapping[str, Any]
"""A line of a recording or of the JSON log, decoded: foreign to us, as another version may have written it."""


def brief_line(record: Record, ended_s: float, *, has_colour: bool = False, zone: tzinfo | None = None) -> str:
    """Return the line of a finished request.

    Args:
        record: what the JSON log says of it; figures that are missing are left out.
        ended_s: when it ended, in seconds since the epoch.
        has_colour: whether the end, and the party that took longest, are marked for a terminal.
        zone: the time zone; None for the local one.
    """
    end, status = str(record.get("end")), record.get("status")
    is_good = end == "OK" and status == 200
    shown_end = _marked(end if is_good else f"{end} {status or 'no status'}", "good" if is_good else "bad", has_colour)
    why = record.get("error") or ""
    if why and (upstream_status := record.get("upstream_status")) and upstream_status != status:
        why += f", the upstream answered {upstream_status}"
    words = [
        _clock(ended_s, zone),
        shown(record.get("model") or "(no model)"),
        *(["stream"] if record.get("stream") else []),
        shown_end,
        *([f"({shown(why)})"] if why else []),
        ms_text(record.get("total_ms", 0.0)),
    ]
    parties: Mapping[str, float] = record.get("party_ms", {})
    longest = max(_NAMED, key=lambda party: parties.get(party, 0.0))
    parts = [
        _marked(f"{party} {ms_text(parties[party])}", "bold", has_colour and party == longest)
        + (_of_upstream(record) if party == "upstream" else "")
        for party in _NAMED
        if party in parties
    ]
    times = f": {', '.join(parts)}" if parts else ""
    return f"{' '.join(words)}{times}{_slowest(record.get('stages', {}))}"


def stall_line(stall: Record, noted_s: float, *, has_colour: bool = False, zone: tzinfo | None = None) -> str:
    """Return the line of a stall: what has held the event loop, while every stream waited."""
    streams = stall.get("streams", 0)
    waited = "1 stream waited" if streams == 1 else f"{streams} streams waited"
    what = _marked("stall", "bad", has_colour)
    stage = shown(stall.get("stage") or "something outside of the stages")
    return f"{_clock(noted_s, zone)} {what}: {stage} held the event loop for {ms_text(stall['ms'])}; {waited}"


def shown(name: str) -> str:
    """Return a name that a client may have chosen as a terminal can show it, cut to a bounded length."""
    clean = printable(name[: _MAX_NAME_CHARACTERS + 1])
    return clean if len(clean) <= _MAX_NAME_CHARACTERS else f"{clean[: _MAX_NAME_CHARACTERS - 3]}..."


def slowest_stage(stages: Mapping[str, Record]) -> tuple[str, float] | None:
    """Return the stage that worked, and waited for anything of ours, longest, and for how many ms; None without any."""
    spent = {
        name: stage["busy_ms"] + stage["flush_ms"] + (0 if name in ON_SOCKETS else stage["outside_ms"])
        for name, stage in stages.items()
    }
    return max(spent.items(), key=lambda item: item[1]) if spent else None


def _of_upstream(record: Record) -> str:
    """Return how long the first token took from then on when the request was sent, and how long it took to send."""
    points: Mapping[str, float] = record.get("points_ms", {})
    sent = points.get("upstream_sent")
    if sent is None:
        return ""
    parts: list[str] = []
    if (first := points.get("first_token")) is not None:
        parts.append(f"{'first token' if record.get('stream') else 'answer'} after {ms_text(first - sent)}")
    parts.append(f"sent in {ms_text(sent - points.get('routed', sent))}")
    return f" ({', '.join(parts)})"


def _slowest(stages: Mapping[str, Record]) -> str:
    found = slowest_stage(stages)
    return "" if found is None else f"; slowest stage {shown(found[0])} {ms_text(found[1])}"


def _clock(at_s: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at_s, zone).strftime("%H:%M:%S")


def _marked(text: str, colour: str, is_marked: bool) -> str:
    return coloured(text, colour) if is_marked else text
