"""The flight recorder: the last requests whole, and those that somebody will ask about for longest.

It keeps the lines of the JSON log in this process's part of the shared file, so that any worker and the supervisor can
read them, even after this process has died. There are two rings. One has ordinary requests. The other has stalls, and
requests that were slow, failed, were cancelled, were held up by a stall, or were traced: while thousands of ordinary
ones pass, these stay. Requests that we have refused are ordinary in this sense: there may be thousands of them too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import msgspec

from pipeline.gateway.request_record import RequestRecord
from pipeline.gateway.rings import RingWriter

SLOW: Final = 1
FAILED: Final = 2
CANCELLED: Final = 4
STALLED: Final = 8
"""A stall of the loop took a noticeable part of the request."""
TRACED: Final = 16
STALL: Final = 32
"""The entry is not a request, but a stall."""
KINDS: Final = {"slow": SLOW, "failed": FAILED, "cancelled": CANCELLED, "stalled": STALLED, "traced": TRACED}
"""What one can ask for, with the mark of its entries."""

_CANCELLED_ENDS: Final = frozenset({"DC", "DS"})
_REFUSED_ENDS: Final = frozenset({"AU", "BR", "OV", "RL"})
_SLOW_SHARE: Final = 0.99
_SLOW_OF: Final = 512
"""A request is slow if it took longer than this share of so many before it, to its first token or to its end, ..."""
SLOW_FROM_MS: Final = 100.0
"""... and longer than this: one percent of requests is always slower than the others, which need not mean anything."""
_LIMIT_AGE: Final = 32
"""The limit is found anew after so many requests: it takes 20 us."""
_STALLED_SHARE: Final = 0.1
_MAX_STALLS: Final = 256


def halves(memory: memoryview) -> tuple[memoryview, memoryview]:
    """Return the memory of the two rings: of ordinary entries, and of notable ones."""
    middle = len(memory) // 16 * 8
    return memory[:middle], memory[middle:]


class Recorder:
    """Keeps the lines of one process.

    Args:
        memory: for them, which is zero or what an earlier process has left; without any, nothing is kept.
    """

    def __init__(self, memory: memoryview) -> None:
        self.is_on = len(memory) > 0
        ordinary, notable = halves(memory)
        self._ordinary, self._notable = RingWriter(ordinary), RingWriter(notable)
        self._limits: dict[tuple[bool, str], _Limit] = {}
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_MAX_STALLS)

    @property
    def used_bytes(self) -> int:
        """How many bytes of its memory have entries."""
        return self._ordinary.used_bytes + self._notable.used_bytes

    def keep(
        self, line: bytes, ended_s: float, request_id: str | None, *, marks: int, is_refusal: bool = False
    ) -> None:
        """Keep a line, whatever it is."""
        ring = self._notable if marks and not is_refusal else self._ordinary
        if len(line) > ring.largest_bytes and marks & TRACED:
            line, marks = _without_trace(line), marks & ~TRACED
        ring.put(line, ended_s, marks=marks, id_sum=crc32(request_id.encode()) if request_id else 0)

    def keep_requests(self, lines: Sequence[bytes], records: Sequence[RequestRecord], ended_s: Sequence[float]) -> None:
        """Keep the lines of finished requests."""
        for line, record, at_s in zip(lines, records, ended_s, strict=True):
            is_refusal = record.end in _REFUSED_ENDS
            self.keep(line, at_s, record.request_id, marks=self._marks_of(record, at_s), is_refusal=is_refusal)

    def note_stall(self, line: bytes, began_s: float, ended_s: float) -> None:
        """Keep the line of a stall, and note when the loop was held, by the wall clock, for requests that waited."""
        self._stalls.append((began_s, ended_s))
        self.keep(line, ended_s, None, marks=STALL)

    def _marks_of(self, record: RequestRecord, ended_s: float) -> int:
        """Return what is to be said of a request."""
        marks = 0
        if record.end != "OK":
            marks = CANCELLED if record.end in _CANCELLED_ENDS else FAILED
        if getattr(record, "trace", msgspec.UNSET) is not msgspec.UNSET:
            marks |= TRACED
        if self._stalls and self._is_stalled(record.total_ms / 1000, ended_s):
            marks |= STALLED
        if record.end not in _REFUSED_ENDS:
            is_stream = bool(record.stream)
            is_slow = self._limit(is_stream, "total").note(record.total_ms)
            if record.first_token_ms is not None:
                is_slow |= self._limit(is_stream, "first_token").note(record.first_token_ms)
            if is_slow:
                marks |= SLOW
        return marks

    def _limit(self, is_stream: bool, figure: str) -> _Limit:
        limit = self._limits.get((is_stream, figure))
        if limit is None:
            limit = self._limits[is_stream, figure] = _Limit()
        return limit

    def _is_stalled(self, total_s: float, ended_s: float) -> bool:
        began_s, held_s = ended_s - total_s, 0.0
        for stall_began_s, stall_ended_s in reversed(self._stalls):
            if stall_ended_s < began_s:
                break
            held_s += max(0.0, min(ended_s, stall_ended_s) - max(began_s, stall_began_s))
        return held_s > 0 and held_s >= _STALLED_SHARE * total_s


class _Limit:
    """What is slow, by what was usual."""

    __slots__ = ("_before", "_limit", "_seen")

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=_SLOW_OF)
        self._limit = 0.0
        self._seen = 0

    def note(self, ms: float) -> bool:
        """Return whether it is slow, and count it. The first one is not, for nothing is usual yet."""
        before = self._before
        if before and (self._seen >= _LIMIT_AGE or len(before) < _LIMIT_AGE):
            in_order = sorted(before)
            self._limit = max(SLOW_FROM_MS, in_order[int(_SLOW_SHARE * len(in_order))])
            self._seen = 0
        self._seen += 1
        is_slow = len(before) > 0 and ms > self._limit
        before.append(ms)
        return is_slow


def _without_trace(line: bytes) -> bytes:
    """Return the line of a request without what was traced of it per batch."""
    fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    fields.pop("trace", None)
    return msgspec.json.encode(fields)
