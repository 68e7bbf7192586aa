"""The time of one request as a whole: which point it passed when, and whose time each instant was.

An instant belongs to the *client* while the writer waits for its socket (or the parser for its upload), else to *us*
while anything is inside the pipeline, else to the *upstream*. Only two of the three are summed, with clock reads that
the lanes need anyway; what is left of the total is ours, so that they sum to it by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from time import perf_counter_ns
from typing import Final, Literal, get_args

from pipeline.histogram import SLOTS, UNITS_DIVISOR, UNITS_SHIFT, middle_s, slots_at
from pipeline.kernel_time import Clock
from pipeline.series import Cell

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


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """What is counted for each batch of all requests: log-linear histograms (`pipeline.series`).

    Attributes:
        transit: from the arrival of a batch until the client's socket had accepted what came of it.
        client_gap: between two batches that the client's socket has accepted.
        upstream_gap: between the arrivals of two batches.
    """

    transit: Cell
    client_gap: Cell
    upstream_gap: Cell


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
        client_since_ns: since when the client is being waited for; 0 if it is not.

    Args:
        clock: as above.
        batch_times: where the batches of all requests are counted; None if nowhere.
    """

    __slots__ = (
        "_away_since_ns",
        "_batch_times",
        "_delivered_ns",
        "_delivered_origin_ns",
        "_inside",
        "_token_origin_ns",
        "_transits",
        "_upstream_ns",
        "born_ns",
        "client_ns",
        "client_since_ns",
        "clock",
        "has_delivered",
        "on_first_token",
        "origin_ns",
        "points",
    )

    def __init__(self, clock: Clock = perf_counter_ns, batch_times: BatchTimes | None = None) -> None:
        self.clock = clock
        self.points: dict[Point, int] = {}
        self.born_ns = clock()
        self.client_ns = 0
        self.client_since_ns = 0
        self.origin_ns = 0
        self._upstream_ns = 0
        self._inside = 1  # the request's own task
        self._away_since_ns = 0
        self.has_delivered = False
        self.on_first_token: Callable[[], object] | None = None
        self._token_origin_ns = 0
        self._transits: dict[int, int] = {}
        self._batch_times = batch_times
        self._delivered_ns = 0
        self._delivered_origin_ns = 0

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
        # `slot_of`, written out here and below: a call costs more than the rest.
        passed_ns = now_ns - origin_ns
        units = (passed_ns << UNITS_SHIFT) // UNITS_DIVISOR
        shift = units.bit_length() - 5
        slot = units if shift <= 0 else (shift << 4) + (units >> shift)
        self._transits[slot] = self._transits.get(slot, 0) + 1
        if (times := self._batch_times) is None or slot >= SLOTS:
            return
        cell = times.transit
        cell[slot] += 1
        cell[SLOTS] += passed_ns
        if self._delivered_ns:
            gap_ns = now_ns - self._delivered_ns
            units = (gap_ns << UNITS_SHIFT) // UNITS_DIVISOR
            shift = units.bit_length() - 5
            slot = units if shift <= 0 else (shift << 4) + (units >> shift)
            cell = times.client_gap
            cell[slot if slot < SLOTS else SLOTS - 1] += 1
            cell[SLOTS] += gap_ns
            if (gap_ns := origin_ns - self._delivered_origin_ns) >= 0:
                units = (gap_ns << UNITS_SHIFT) // UNITS_DIVISOR
                shift = units.bit_length() - 5
                slot = units if shift <= 0 else (shift << 4) + (units >> shift)
                cell = times.upstream_gap
                cell[slot if slot < SLOTS else SLOTS - 1] += 1
                cell[SLOTS] += gap_ns
        self._delivered_ns, self._delivered_origin_ns = now_ns, origin_ns

    @contextmanager
    def waiting_for_client(self) -> Generator[None]:
        """Count the time inside as the client's."""
        since_ns = self.client_since_ns = self.clock()
        try:
            yield
        finally:
            self.client_ns += self.clock() - since_ns
            self.client_since_ns = 0

    def parties_ns(self, ended_ns: int) -> tuple[int, int, int]:
        """Return the time of the client, ours and the upstream's until ``ended_ns``; they sum to it.

        It need not have ended: what is being waited for counts until then.
        """
        total_ns, client_ns, upstream_ns = ended_ns - self.born_ns, self.client_ns, self._upstream_ns
        if self.client_since_ns:
            client_ns += max(0, ended_ns - self.client_since_ns)
        elif not self._inside:
            upstream_ns += max(0, ended_ns - self._away_since_ns)
        return client_ns, total_ns - client_ns - upstream_ns, upstream_ns

    @property
    def party(self) -> Party:
        """Whose time it is now."""
        if self.client_since_ns:
            return Party.CLIENT
        return Party.OURS if self._inside else Party.UPSTREAM

    def transits_ns(self, *shares: float) -> list[int]:
        """Return, for each share in ascending order, the time in which that part of the batches crossed, within 3 %.

        Empty if none has crossed.
        """
        return [int(middle_s(slot) * 1e9) for slot in slots_at(self._transits, shares)]
