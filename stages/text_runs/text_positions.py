"""Where the characters of the answer's text are after changes: its citations and log probabilities stay right."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from msgspec.structs import replace

from stages.events import Citation, LogProbs, StreamEvent, TextDelta
from stages.text_runs.transformer import Edit, Transformer


class _Change(NamedTuple):
    """An `Edit`, in characters of the whole answer; not exact if only its extent is known, not what is within.

    Attributes:
        moved_by: how far those before it have moved it.
    """

    start: int
    end: int
    size: int
    is_exact: bool
    moved_by: int


_START = attrgetter("start")
_END = attrgetter("end")


class TextPositions:
    """What has become of the answer's text: it gives out the text, with its log probabilities, and moves citations."""

    def __init__(self) -> None:
        self._changes: list[_Change] = []  # in order, and none overlaps another: searched by halves
        self._growth = 0  # by all of them
        self._taken = self._given = 0  # characters of all runs
        self._run_start = 0
        self._ready = ""  # what may be given, but waits for its log probabilities
        self._waiting: deque[tuple[list[LogProbs], int, int]] = deque()  # with the text that they belong to
        # Of a transformer that does not report its changes: what it has taken while it has given the same, and where it
        # began to give something else.
        self._unmatched = ""
        self._lost_at: int | None = None

    @property
    def is_changed(self) -> bool:
        """Whether any of it has."""
        return bool(self._changes)

    def take(self, text: str, logprobs: list[LogProbs]) -> None:
        """Note what the transformer takes."""
        start = self._taken
        self._taken += len(text)
        self._unmatched += text
        if logprobs:
            self._waiting.append((logprobs, start, self._taken))

    def give(self, text: str, run: Transformer | None, out: list[StreamEvent], *, is_end: bool = False) -> None:
        """Take what the transformer gives, and give out what is decided."""
        self._ready += text
        made = self._given + len(self._ready)
        edits: list[Edit] | None = [] if run is None else getattr(run, "edits", None)
        if edits is None:
            self._match(text, made, is_end)
        else:
            self._unmatched = ""
            for start, end, size in edits:
                self._add(start + self._run_start, end + self._run_start, size, is_exact=True)
            edits.clear()
        is_all_decided = is_end or self._lost_at is not None
        self._release(self._taken if is_all_decided else made - self._growth, out)
        if is_end:
            self._run_start = self._taken
            self._unmatched, self._lost_at = "", None

    def moved(self, citations: Iterable[Citation]) -> tuple[Citation, ...]:
        """Return the citations of what was taken as those of what was given, without those that were lost."""
        found: list[Citation] = []
        for citation in citations:
            start, is_start_exact = self._moved(citation.start_index, is_end=False)
            end, is_end_exact = self._moved(citation.end_index, is_end=True)
            is_lost = citation.start_index < citation.end_index and start >= end
            if is_start_exact and is_end_exact and not is_lost:
                found.append(replace(citation, start_index=start, end_index=end))
        return tuple(found)

    def _match(self, text: str, made: int, is_end: bool) -> None:
        """Compare what was given with what was taken, up to the first difference."""
        if self._lost_at is None:
            same = _same(text, self._unmatched)
            if same < len(text) or (is_end and same < len(self._unmatched)):
                self._lost_at = self._taken - len(self._unmatched) + same
            self._unmatched = self._unmatched[same:]
        if self._lost_at is not None:
            self._unmatched = ""
            if is_end:
                start = self._lost_at
                self._add(start, self._taken, made - start - self._growth, is_exact=False)

    def _add(self, start: int, end: int, size: int, *, is_exact: bool) -> None:
        self._changes.append(_Change(start, end, size, is_exact, self._growth))
        self._growth += size - (end - start)

    def _release(self, decided: int, out: list[StreamEvent]) -> None:
        while self._waiting and self._waiting[0][2] <= decided:
            logprobs, start, end = self._waiting.popleft()
            if self._is_same(start, end):
                self._give_to(self._moved(start, is_end=True)[0], out)
                out += logprobs
                self._give_to(self._moved(end, is_end=True)[0], out)
        limit = self._given + len(self._ready)
        if self._waiting and self._lost_at is None:
            limit = min(limit, self._moved(self._waiting[0][1], is_end=True)[0])
        self._give_to(limit, out)

    def _give_to(self, limit: int, out: list[StreamEvent]) -> None:
        """Emit the text up to a character of what the client gets."""
        if (size := limit - self._given) > 0:
            out.append(TextDelta(self._ready[:size]))
            self._ready = self._ready[size:]
            self._given = limit

    def _is_same(self, start: int, end: int) -> bool:
        """Return whether nothing between two characters has changed."""
        is_lost = self._lost_at is not None and end > self._lost_at
        after = bisect_right(self._changes, start, key=_END)
        return not is_lost and (after == len(self._changes) or self._changes[after].start >= end)

    def _moved(self, position: int, *, is_end: bool) -> tuple[int, bool]:
        """Return where a position is now, and whether that is exact."""
        after = bisect_right(self._changes, position, key=_END)
        if is_end:  # what was put in at the position comes after it
            after = min(after, bisect_left(self._changes, position, key=_START))
        if after == len(self._changes):
            return position + self._growth, True
        start, _, size, is_exact, moved_by = self._changes[after]
        if start < position:
            return start + moved_by + (size if is_end else 0), is_exact
        return position + moved_by, True


def _same(text: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    if other.startswith(text):
        return len(text)
    return next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
