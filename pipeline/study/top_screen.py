"""`Top` as text for a terminal of a certain size, or for a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.study.parts import PARTIES
from pipeline.study.tables import coloured, painted, printable
from pipeline.study.top import Top

BAR: Final = 40
_LETTERS: Final = {"client": "c", "ours": "#", "upstream": "u"}
_NAME: Final = 34


def lines_of(top: Top, *, url: str, has_colour: bool, width: int = 120) -> list[str]:
    """Return the lines of one interval, none longer than ``width``."""
    return [_cut(painted(line) if has_colour else printable(line), width) for line in _lines(top, url, has_colour)]


def _lines(top: Top, url: str, has_colour: bool) -> Iterator[str]:
    at = datetime.fromtimestamp(top.at_s, UTC).strftime("%H:%M:%S")
    ends = "  ".join(f"{end} {rate:.1f}/s" for end, rate in sorted(top.ended_per_s.items()) if rate)
    total = sum(top.ended_per_s.values())
    yield f"headrace top  {url}  {at} UTC  ended {total:.1f}/s  in flight {top.in_flight}"
    yield printable(f"  ends     {ends or '-'}")
    waiting = sum(top.party.values())
    bar = "".join(_part(name, top.party.get(name, 0.0) / waiting, has_colour) for name in PARTIES) if waiting else ""
    shares = "  ".join(f"{name} {top.party.get(name, 0.0):.2f}" for name in PARTIES)
    yield f"  time of  [{bar or ' ' * BAR}]  {shares}  (seconds per second)"
    for name, pair in (("transit", top.transit_ms), ("first token", top.first_token_ms), ("gap", top.gap_ms)):
        if pair is not None:
            yield f"  {name:11} p50 {pair[0]:9.2f} ms   p99 {pair[1]:9.2f} ms"
    for one in top.workers:
        state = "" if one.alive else "  dead"
        yield (
            f"  worker {one.worker:<3} lag {one.lag_ms:7.2f} ms   in flight {one.in_flight:<5} "
            f"memory {one.resident_mb:6.0f} MiB{state}"
        )
    if top.phase:
        yield ""
        yield f"  {'before the point':{_NAME}} seconds per second, of requests that have ended"
        for name, value in top.phase.items():
            yield f"  {_cut(printable(name), _NAME):{_NAME}} {value:8.3f}"
    if top.stages:
        yield ""
        yield f"  {'stage':{_NAME}}   busy %   events/s"
        for stage in top.stages:
            yield f"  {_cut(printable(stage.name), _NAME):{_NAME}} {100 * stage.busy:8.2f} {stage.events_per_s:10.1f}"
    if top.links:
        yield ""
        yield f"  {'link':{_NAME}} ready ms  queued ms   full %   depth"
        for link in top.links:
            yield (
                f"  {_cut(printable(link.name), _NAME):{_NAME}} {link.ready_ms:8.3f} {link.queued_ms:10.3f} "
                f"{100 * link.full:8.2f} {link.depth:7}"
            )
    if top.stall_ms:
        yield ""
        held = "  ".join(f"{name} {ms:.0f} ms" for name, ms in top.stall_ms.items())
        yield _red(f"  the loop was held by  {held}", has_colour)
    if top.running:
        yield ""
        yield f"  {'running, the longest idle first':{_NAME}}   age s   idle s  waits for  {'after':15}  events  model"
        for request in top.running:
            yield printable(_running(request))


def _running(one: dict[str, Any]) -> str:
    return (
        f"  {_cut(one['request_id'], _NAME):{_NAME}} {one['age_ms'] / 1e3:7.1f} {one['idle_ms'] / 1e3:8.1f}  "
        f"{one['waits_for']:9}  {_cut(one['point'], 15):15} {one['events']:7}  {one['model'] or '-'}"
    )


def _part(party: str, share: float, has_colour: bool) -> str:
    cells = round(share * BAR)
    return coloured("█" * cells, party) if has_colour else _LETTERS[party] * cells


def _red(text: str, has_colour: bool) -> str:
    return coloured(printable(text), "bad") if has_colour else text


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters or "\x1b" in text else f"{text[: characters - 3]}..."
