"""What one name may have, and taking a part of it."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from stages.admission.counts import Counts
from stages.admission.window import BUCKETS
from stages.limits import Limits

LimitName = Literal["rpm", "tpm", "parallel"]

PARALLEL_RETRY_S: Final = 1.0
"""When to ask again if too many run: nobody knows when one of them ends."""


class Standing(Struct, frozen=True, gc=False):
    """What is left of the limits by the minute; None where there is no limit.

    Attributes:
        requests, tokens: how many more are allowed now.
        requests_reset_s, tokens_reset_s: after how long the first of those that are counted are allowed again.
    """

    requests: int | None
    requests_reset_s: float
    tokens: int | None
    tokens_reset_s: float


class Full(Struct, frozen=True):
    """Nothing is left.

    Attributes:
        quota: of what.
        limit: which of its limits it is.
        retry_after_s: when there is room again, as far as that is known.
        standing: what is left of its limits; None if the quota does not show it.
    """

    quota: Quota
    limit: LimitName
    retry_after_s: float
    standing: Standing | None

    @property
    def sentence(self) -> str:
        """What is full, for the client."""
        limits = self.quota.limits
        match self.limit:
            case "rpm":
                return f"{self.quota.of} has had its {limits.rpm} requests a minute (rpm)"
            case "tpm":
                return f"{self.quota.of} has had its {limits.tpm} tokens a minute (tpm)"
            case "parallel":
                return f"{self.quota.of} has {limits.parallel} requests running, as many as it may at a time"


class Taken(Struct):
    """A part of a quota that a request has. Either `end` or `undo` follows, once.

    Attributes:
        quota: of what.
        second: when it was taken.
        standing: what was left then; None if the quota does not show it.
        tokens: how many are reserved for it.
        tokens_second: when they were.
    """

    quota: Quota
    second: int
    standing: Standing | None
    tokens: int
    tokens_second: int

    def end(self, used: int | None) -> None:
        """Note that the request has ended.

        Args:
            used: the tokens that it has used: those that were reserved are replaced by them. None if that is not
                known: then they count as used.
        """
        self.quota.end(self, used)

    def undo(self) -> None:
        """Return everything: what it was taken for was not done."""
        self.quota.undo(self)


class Quota:
    """What one name may have.

    Args:
        counts: where it is counted.
        name: by what; the same name has the same counts in all processes, and after a reload.
        of: what it belongs to, for the client: ``the API key 'alice'``.
        limits: how much it may have.
        shows: whether what is left is to be known, for headers.

    Raises:
        CountsFullError: if there is no room for its name.
    """

    __slots__ = ("_counts", "_index", "_requests", "_shows", "_tokens", "limits", "of")

    def __init__(self, counts: Counts, name: str, of: str, limits: Limits, *, shows: bool = False) -> None:
        self.of = of
        self.limits = limits
        self._shows = shows
        self._counts = counts
        self._index = counts.index_of(name)
        self._requests, self._tokens = counts.windows(self._index)

    @property
    def in_flight(self) -> int:
        """How many requests have a part of it now, if ``parallel`` is limited."""
        return self._counts.in_flight(self._index)

    def recount(self) -> int:
        """Return the same, without those of workers that were killed."""
        counts = self._counts
        counts.lock()
        try:
            return counts.recount(self._index)
        finally:
            counts.unlock()

    def take(self, tokens: int = 0) -> Taken | Full:
        """Take a place for a request, and reserve tokens for it; nothing is taken if not all of it is there.

        A request that is larger than the limit of tokens is let in when nothing else is counted.
        """
        limits, counts = self.limits, self._counts
        counts.lock()
        try:
            now_s = counts.clock()
            if (full := self._check(tokens, now_s)) is not None:
                return full
            if limits.parallel is not None:
                counts.enter(self._index)
            if limits.rpm is not None:
                self._requests.add(1)
            if limits.tpm is None:
                tokens = 0
            elif tokens:
                self._tokens.add(tokens)
            second = int(now_s)
            return Taken(self, second, self._standing(now_s) if self._shows else None, tokens, second)
        finally:
            counts.unlock()

    def reserve(self, taken: Taken, tokens: int) -> Full | None:
        """Reserve tokens for a request that has a place; return what is full if there are not enough."""
        counts = self._counts
        counts.lock()
        try:
            now_s = counts.clock()
            if wait_s := self._wait_for_tokens(tokens, now_s):
                return self._full("tpm", wait_s, now_s)
            self._tokens.add(tokens)
            taken.tokens, taken.tokens_second = tokens, int(now_s)
            if self._shows:
                taken.standing = self._standing(now_s)
            return None
        finally:
            counts.unlock()

    def has_room(self) -> bool:
        """Return whether a small request would get a place now."""
        counts = self._counts
        counts.lock()
        try:
            return self._check(0, counts.clock()) is None
        finally:
            counts.unlock()

    def end(self, taken: Taken, used: int | None) -> None:
        """See `Taken.end`."""
        if self.limits.parallel is not None:
            self._counts.leave(self._index)
        if self.limits.tpm is not None and used is not None and used != taken.tokens:
            self._change_tokens(taken, used - taken.tokens)

    def undo(self, taken: Taken) -> None:
        """See `Taken.undo`."""
        self.end(taken, 0)
        if self.limits.rpm is not None:
            self._counts.lock()
            try:
                self._requests.remove(1, taken.second)
            finally:
                self._counts.unlock()

    def _change_tokens(self, taken: Taken, more: int) -> None:
        counts, window = self._counts, self._tokens
        counts.lock()
        try:
            window.advance(int(counts.clock()))
            # An answer's tokens count when it ends: it has produced the last of them just now.
            if more > 0:
                window.add(more)
            else:
                window.remove(-more, taken.tokens_second)
        finally:
            counts.unlock()

    def _check(self, tokens: int, now_s: float) -> Full | None:
        """Return what is full, if anything is; the windows are valid from then on."""
        limits, counts, index = self.limits, self._counts, self._index
        if (rpm := limits.rpm) is not None and (over := self._requests.advance(int(now_s)) + 1 - rpm) > 0:
            return self._full("rpm", self._requests.relief_s(over, now_s), now_s)
        if limits.tpm is not None and (wait_s := self._wait_for_tokens(tokens, now_s)):
            return self._full("tpm", wait_s, now_s)
        if (
            (parallel := limits.parallel) is not None
            and counts.in_flight(index) >= parallel
            and counts.recount(index) >= parallel
        ):
            return self._full("parallel", PARALLEL_RETRY_S, now_s)
        return None

    def _wait_for_tokens(self, tokens: int, now_s: float) -> float:
        """Return after how long there is room for so many tokens; 0 for now. With 0 tokens, for the next request."""
        tpm = self.limits.tpm
        assert tpm is not None  # else nobody asks
        used = self._tokens.advance(int(now_s))
        over = used + (tokens or 1) - tpm
        return self._tokens.relief_s(min(used, over), now_s) if over > 0 and (used or not tpm) else 0.0

    def _full(self, limit: LimitName, retry_after_s: float, now_s: float) -> Full:
        # Of nothing there is never a place.
        return Full(self, limit, retry_after_s or BUCKETS, self._standing(now_s) if self._shows else None)

    def _standing(self, now_s: float) -> Standing:
        requests = tokens = None
        requests_s = tokens_s = 0.0
        if (rpm := self.limits.rpm) is not None:
            requests = max(0, rpm - self._requests.advance(int(now_s)))
            requests_s = self._requests.relief_s(1, now_s)
        if (tpm := self.limits.tpm) is not None:
            tokens = max(0, tpm - self._tokens.advance(int(now_s)))
            tokens_s = self._tokens.relief_s(1, now_s)
        return Standing(requests, requests_s, tokens, tokens_s)
