"""The time of one request as a whole: which point it passed when, and whose time each instant was.

An instant belongs to the *client* while the writer waits for its socket (or the parser for its upload), else to *us*
while anything is inside the pipeline, else to the *upstream*. Only two of the three are summed, with clock reads that
the lanes need anyway; what is left of the total is ours, so that they sum to it by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from time import perf_counter_ns
from typing import Final, Literal, get_args

from pipeline.kernel_time import Clock

Point = Literal[
    "client_arrived",
    "head_read",
    "admitted",
    "body_read",
    "routed",
    "upstream_slot",
    "upstream_resolved",
    "upstream_connected",
    "upstream_secured",
    "upstream_sent",
    "upstream_head",
    "first_event",
    "first_token",
    "first_output_token",
    "first_byte_out",
    "first_token_out",
    "upstream_end",
    "last_byte_out",
    "left",
    "upstream_closed",
    "ended",
]
POINTS: Final[tuple[Point, ...]] = get_args(Point)
"""What a request can pass, in the usual order."""


class Party(IntEnum):
    """Whose time it is."""

    CLIENT = 0
    OURS = 1
    UPSTREAM = 2


class Timeline:
    """When one request passed which point, whose time it was, and how long its batches took to cross.

    Attributes:
        clock: returns the time in ns; the same for all figures of the request.
        points: when each point was passed, in the order of time.
        born_ns: the time from which everything counts: the arrival of the client's first byte, if it is known.
        client_ns: how long the client was waited for.
        has_delivered: whether the client's socket has accepted the first byte and the first token.
        on_first_token: is called when the first token is seen.
        origin_ns: when that batch arrived at which a codec works right now; 0 if none has arrived.
    """

    __slots__ = (
        "_away_since_ns",
        "_inside",
        "_token_origin_ns",
        "_transits",
        "_upstream_ns",
        "born_ns",
        "client_ns",
        "clock",
        "has_delivered",
        "on_first_token",
        "origin_ns",
        "points",
    )

    def __init__(self, clock: Clock = perf_counter_ns) -> None:
        self.clock = clock
        self.points: dict[Point, int] = {}
        self.born_ns = clock()
        self.client_ns = 0
        self.origin_ns = 0
        self._upstream_ns = 0
        self._inside = 1  # the request's own task
        self._away_since_ns = 0
        self.has_delivered = False
        self.on_first_token: Callable[[], object] | None = None
        self._token_origin_ns = 0
        self._transits: dict[int, int] = {}

    def arrive(self, arrived_ns: int, first_read_ns: int, last_read_ns: int) -> None:
        """Begin at the arrival of the client's first byte; 0 stands for what is unknown.

        Args:
            arrived_ns: by the kernel. From then to ``first_read_ns`` it waited for us.
            first_read_ns, last_read_ns: the reads in which the head came. Between them we waited for the client.
        """
        if arrived_ns:
            self.points["client_arrived"] = arrived_ns
        self.points["head_read"] = self.born_ns
        self.born_ns = arrived_ns or first_read_ns or self.born_ns
        self.client_ns += last_read_ns - first_read_ns

    def mark(self, point: Point) -> None:
        """Note that the request passes ``point`` now; if it did before, as in a second attempt, that is forgotten."""
        points = self.points
        if point in points:
            del points[point]  # else it would keep its place, and the points would not be in their order
        points[point] = self.clock()

    def mark_once(self, point: Point) -> None:
        """Note that the request passes ``point`` now, unless it did before."""
        if point not in self.points:
            self.points[point] = self.clock()

    def enter(self, now_ns: int) -> None:
        """Note that one task more has work of this request."""
        if not self._inside and now_ns > self._away_since_ns:
            self._upstream_ns += now_ns - self._away_since_ns
        self._inside += 1

    def leave(self, now_ns: int) -> None:
        """Note that a task waits for the upstream, or for another task of this request, or has ended."""
        self._inside -= 1
        if not self._inside:
            self._away_since_ns = now_ns

    @property
    def has_token(self) -> bool:
        """Whether any token was seen."""
        return "first_token" in self.points

    def see_token(self, *, is_output: bool) -> None:
        """Note that the batch at work has a token; ``is_output`` says that it is more than reasoning."""
        if "first_token" not in self.points:
            self.mark("first_token")
            self._token_origin_ns = self.origin_ns
            if self.on_first_token is not None:
                self.on_first_token()
        if is_output:
            self.mark_once("first_output_token")

    def forget_answer(self) -> None:
        """Forget what a failed attempt had sent, of which the client has seen nothing: another one follows."""
        for point in ("first_event", "first_token", "first_output_token", "upstream_end"):
            self.points.pop(point, None)
        self._token_origin_ns = 0

    def begin_delivery(self, origin_ns: int) -> None:
        """Note that the client's socket has accepted the first bytes of what came of a batch; see `deliver`."""
        if not self.has_delivered:
            self.mark_once("first_byte_out")
            if self._token_origin_ns and (not origin_ns or origin_ns >= self._token_origin_ns):
                last_ns = self.points.pop("last_byte_out", 0)  # all of a short answer is one write
                self.mark("first_token_out")
                if last_ns:
                    self.points["first_token_out"] = self.points["last_byte_out"] = last_ns
                self.has_delivered = True

    def deliver(self, origin_ns: int) -> None:
        """Note that the client's socket has accepted all that came of the batch that arrived at ``origin_ns``.

        What came of no batch, as a tick does, has origin 0: nothing has crossed with it.
        """
        now_ns = self.clock()
        if not self.has_delivered:
            self.begin_delivery(origin_ns)
        if not origin_ns:
            return
        passed_ns = now_ns - origin_ns
        shift = passed_ns.bit_length() - 5
        bucket = (shift << 4) + (passed_ns >> shift) if shift > 0 else passed_ns  # 16 to the octave, 6 % wide at most
        self._transits[bucket] = self._transits.get(bucket, 0) + 1

    def parties_ns(self, ended_ns: int) -> tuple[int, int, int]:
        """Return the time of the client, ours and the upstream's until ``ended_ns``; they sum to it."""
        total_ns = ended_ns - self.born_ns
        return self.client_ns, total_ns - self.client_ns - self._upstream_ns, self._upstream_ns

    def transits_ns(self, *shares: float) -> list[int]:
        """Return, for each share in ascending order, the time in which that part of the batches crossed, within 3 %.

        Empty if none has crossed.
        """
        if len(self._transits) == 1:  # as with every answer that is read at once
            [bucket] = self._transits
            return [_middle_of(bucket)] * len(shares)
        total = sum(self._transits.values())
        buckets = iter(sorted(self._transits.items()))
        seen = at = 0
        times_ns: list[int] = []
        for share in shares if total else ():
            while seen < share * total:
                at, count = next(buckets)
                seen += count
            times_ns.append(_middle_of(at))
        return times_ns


def _middle_of(bucket: int) -> int:
    """Return the middle of the durations, in ns, that `Timeline.deliver` puts into a bucket."""
    shift = (bucket >> 4) - 1
    if shift <= 0:
        return bucket
    return (((bucket & 15) + 16) << shift) + (1 << shift >> 1)
