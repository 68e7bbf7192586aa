"""What ``headrace why`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush, heappushpop
from typing import Final

from pipeline.study.path import PathStep
from pipeline.study.peers import Peers
from pipeline.study.recording import StudyError
from pipeline.study.records import Recorded, RecordedRequest, RecordedStall
from pipeline.study.tables import Paint, ms_text, number, printable, wrapped
from pipeline.study.why import Explanation, explained

_SHORTEST_MS: Final = 0.002
"""Shorter phases are left out."""
_SMALL_SHARE: Final = 0.05
_CLOSE: Final = 5
"""So many ids are suggested for one that is not there."""


def chosen(
    events: Iterable[Recorded], *, request_id: str | None = None, slowest: int = 1, where: str = "in the recording"
) -> tuple[list[RecordedRequest], list[RecordedStall], Peers]:
    """Return one request, or the ``slowest``, the slowest first; all stalls, and what others are like.

    Args:
        events: of a recording, or of a running service.
        request_id: of the request; None for the slowest.
        slowest: how many of them.
        where: the events are, for the message of the error.

    Raises:
        StudyError: if no request has this id.
    """
    stalls: list[RecordedStall] = []
    peers = Peers()
    found: list[RecordedRequest] = []
    heap: list[tuple[float, int, RecordedRequest]] = []
    some_ids: list[str] = []
    for at, event in enumerate(events):
        if isinstance(event, RecordedStall):
            stalls.append(event)
            continue
        peers.add(event)
        if request_id is None:
            entry = (event.total_ms, -at, event)
            if len(heap) < slowest:
                heappush(heap, entry)
            else:
                heappushpop(heap, entry)
        elif event.request_id == request_id:
            found.append(event)
        elif len(some_ids) < _CLOSE and request_id in event.request_id:
            some_ids.append(event.request_id)
    if request_id is not None and not found:
        close = f"; these contain it: {', '.join(some_ids)}" if some_ids else ""
        raise StudyError(f"no request with the id {request_id!r} is {where}{close}")
    if request_id is None and not heap:
        raise StudyError(f"no request that was asked for is {where}")
    return (
        found or [request for _, _, request in sorted(heap, key=lambda entry: entry[:2], reverse=True)],
        stalls,
        peers,
    )


def explanations(
    events: Iterable[Recorded], *, request_id: str | None = None, slowest: int = 1, where: str = "in the recording"
) -> list[Explanation]:
    """Explain one request, or the ``slowest``, the slowest first; the arguments are those of `chosen`.

    Raises:
        StudyError: if no request has this id.
    """
    requests, stalls, peers = chosen(events, request_id=request_id, slowest=slowest, where=where)
    return [explained(request, stalls, peers) for request in requests]


def why_page(explanation: Explanation, paint: Paint) -> list[str]:
    """Return the lines of one explanation: the sentence, then the critical path."""
    one = explanation
    about = [f"request {one.request_id}", f"model {one.model}", f"deployment {one.deployment}", one.end]
    lines = [*[paint(line, "dim") for line in wrapped(", ".join(about))], ""]
    lines += [paint(line, "bold") for line in wrapped(one.sentence)]
    steps = [step for step in one.path if step.ms >= _SHORTEST_MS]
    if steps:
        lines += ["", paint(f"{'up to':<18}  {'from ms':>9}  {'took ms':>9}  {'whose':<24}  phase", "dim")]
    lines += [
        f"{printable(step.point):<18}  {number(step.began_ms):>9}  {number(step.ms):>9}  "
        f"{paint(f'{_whose(step):<24}', step.party)}  {printable(step.about)}"
        for step in steps
    ]
    if one.stalls:
        lines += ["", "the loop was held meanwhile by:"]
        lines += [
            printable(
                f"  {stall['stage'] or 'no single stage'}, request {stall['request_id'] or '-'}: {stall['ms']:.0f} ms"
            )
            for stall in one.stalls[:_CLOSE]
        ]
    parties = ", ".join(paint(f"{party} {ms_text(ms)}", party) for party, ms in one.party_ms.items())
    return [*lines, "", f"total {ms_text(one.total_ms)}: {parties}"]


def _whose(step: PathStep) -> str:
    parties = sorted(step.party_ms.items(), key=lambda share: -share[1])[:2]
    named = [(party, ms) for party, ms in parties if ms >= _SMALL_SHARE * step.ms]
    return named[0][0] if len(named) == 1 else ", ".join(f"{party} {ms / step.ms:.0%}" for party, ms in named)
