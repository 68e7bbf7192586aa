"""What each process does right now, as it shows it to the others while anybody watches.

Once a second it writes to its board in the shared file: those running requests that have been idle for the longest, as
many as fit, and whose time it was in all of its requests so far, with those that still run. A reader that finds a
half-written board sees nothing, and of a process that has died or hangs only those sums.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Mapping
from struct import Struct as Layout
from typing import Any, Final, Protocol
from zlib import crc32

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pipeline.channel import Link
from pipeline.context import RequestContext
from pipeline.lane import OUTSIDE, Lane
from pipeline.study.parts import PartyName
from pipeline.study.records import ON_SOCKETS
from pipeline.timeline import Party
from stages.slots import ATTEMPTS, CALL
from stages.wire.redaction import redact

STALE_S: Final = 5.0
"""A board that is older was written by a process whose loop is held, or before anybody watched."""
MAX_SHOWN: Final = 200
"""More would not fit, and take too long."""
_READS: Final = 3
"""How often a board is read that is just being written, which takes some microseconds."""
_HEAD: Final = Layout("<IId")
"""Checksum, length, and time."""
_ANSWERING: Final = frozenset({"decode_events", "answer_call"})

PARTIES: Final[dict[Party, PartyName]] = {
    Party.CLIENT: "client",
    Party.OURS: "ours",
    Party.UPSTREAM: "upstream",
}
_ENCODER: Final = msgspec.json.Encoder()


class RunningRequest(Struct, kw_only=True):
    """A request that has not ended.

    Attributes:
        waits_for: whose time it is right now.
        stage: which one waits for something of its own, if that is why.
        point: the last one that it has passed.
        events: how many the upstream's answer had so far.
        idle_ms: for how long nothing has happened in it.
        links: how many batches wait in each link that has any.
        as_of_ms: how long ago its worker said all this.
    """

    request_id: str
    worker: int
    age_ms: float
    model: str | None
    deployment: str | None
    waits_for: PartyName
    stage: str | UnsetType = UNSET
    point: str
    events: int
    idle_ms: float
    links: dict[str, int] | UnsetType = UNSET
    as_of_ms: float = 0.0


class BoardText(Struct):
    """What is on a board.

    Attributes:
        party_s: whose time it was, in all requests that this process has served and in those that run.
        running: the requests that run.
        at_s: when it was written.
        age_s: how old it was when it was read.
    """

    party_s: dict[str, float] = {}
    running: list[RunningRequest] = []
    at_s: float = 0.0
    age_s: float = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether it says nothing of the present any more; what it has summed up stays."""
        return self.age_s > STALE_S


class BoardOwner(Protocol):
    """One process's part of the shared file, as far as it matters here: `pipeline.segments.SegmentView`."""

    @property
    def is_alive(self) -> bool: ...
    @property
    def board(self) -> memoryview: ...


def board_text(contexts: Iterable[RequestContext], worker: int, ended_s: Mapping[PartyName, float]) -> BoardText:
    """Return what a process has to show.

    Args:
        contexts: its running requests.
        worker: its number.
        ended_s: whose time it was, in all requests that have ended.
    """
    last: list[tuple[int, int, RequestContext]] = []
    spent_ns = [0, 0, 0]
    for number, ctx in enumerate(contexts):
        last.append((_last_ns(ctx), number, ctx))
        of_this = ctx.timeline.parties_ns(ctx.timeline.clock())
        spent_ns = [sum_ns + ns for sum_ns, ns in zip(spent_ns, of_this, strict=True)]
    shown = [_running(ctx, last_ns, worker) for last_ns, _, ctx in heapq.nsmallest(MAX_SHOWN, last)]
    party_s: dict[str, float] = {name: ended_s[name] + spent_ns[party] / 1e9 for party, name in PARTIES.items()}
    return BoardText(party_s, shown)


def write_board(memory: memoryview, text: BoardText) -> None:
    """Write to a board, with as many requests as fit."""
    room = len(memory) - _HEAD.size
    while len(shown := _ENCODER.encode(text)) > room:
        text = BoardText(text.party_s, text.running[: len(text.running) * 3 // 4])
    # First the checksum of the new text: until all of that is there, the board is not valid.
    _HEAD.pack_into(memory, 0, crc32(shown, len(shown)), len(shown), wall_clock_s())
    memory[_HEAD.size : _HEAD.size + len(shown)] = shown


def read_board(owner: BoardOwner) -> BoardText | None:
    """Return what a process shows; None if it shows nothing, or not any more."""
    text = last_board(owner) if owner.is_alive else None
    return None if text is None or text.is_stale else text


def last_board(owner: BoardOwner) -> BoardText | None:
    """Return what a process, or the one before it, has written last, however old it is; None if nothing."""
    memory = owner.board
    for _ in range(_READS):
        checksum, length, at_s = _HEAD.unpack_from(memory, 0)
        if not length:
            break
        shown = bytes(memory[_HEAD.size : _HEAD.size + length])
        if crc32(shown, length) == checksum:
            text = msgspec.json.decode(shown, type=BoardText)
            text.at_s, text.age_s = at_s, max(0.0, wall_clock_s() - at_s)
            return text
    return None


def all_running(boards: Iterable[BoardText | None]) -> list[RunningRequest]:
    """Return the running requests on all boards, the longest idle first."""
    found: list[RunningRequest] = []
    for board in boards:
        if board is not None:
            for request in board.running:
                request.as_of_ms = round(1e3 * board.age_s, 3)
                found.append(request)
    return sorted(found, key=lambda request: -request.idle_ms)


def _running(ctx: RequestContext, last_ns: int, worker: int) -> RunningRequest:
    timeline, call = ctx.timeline, ctx.get(CALL)
    now_ns = timeline.clock()
    waiting = {link.name: link.waiting for link in links_of(ctx) if link.waiting}
    stages = [stage for lane in _lanes(ctx) for stage in lane.stages]
    return RunningRequest(
        request_id=redact(ctx.request_id),
        worker=worker,
        age_ms=(now_ns - timeline.born_ns) // 1000 / 1000,
        model=None if call is None else redact(call.request.requested_model[:_NAME_CHARACTERS]),
        deployment=None if call is None else call.deployment.id,
        waits_for=PARTIES[timeline.party],
        stage=_waiting_stage(ctx) if timeline.party is Party.OURS else UNSET,
        point=next(reversed(timeline.points), "head_read"),
        events=next((stage.events_out for stage in stages if stage.name in _ANSWERING), 0),
        idle_ms=max(0, now_ns - last_ns) // 1000 / 1000,
        links=waiting or UNSET,
    )


def _waiting_stage(ctx: RequestContext) -> str | UnsetType:
    stages = [lane.stage for lane in _lanes(ctx) if lane.state == OUTSIDE and not lane.is_further]
    return next((stage.name for stage in stages if stage is not None and stage.name not in ON_SOCKETS), UNSET)


_NAME_CHARACTERS: Final = 200
"""Longer ones are cut: a client may write anything."""


def _last_ns(ctx: RequestContext) -> int:
    """Return when something last happened in a request."""
    timeline = ctx.timeline
    return max([timeline.born_ns, *timeline.points.values(), *[lane.since_ns for lane in _lanes(ctx)]])


def _lanes(ctx: RequestContext) -> list[Lane]:
    attempts = ctx.get(ATTEMPTS)
    return [*ctx.lanes, *attempts[-1].lanes] if attempts else ctx.lanes


def links_of(ctx: RequestContext) -> list[Link[Any]]:
    """Return the links of a running request and of its last attempt."""
    attempts = ctx.get(ATTEMPTS)
    return [*ctx.links, *attempts[-1].links] if attempts else ctx.links


def wall_clock_s() -> float:
    """Return the time in seconds since the epoch."""
    return time.time()  # noqa: TID251 - processes compare theirs
