"""Our log-linear histograms as ones with few fixed limits, which Prometheus and OpenTelemetry want.

The slots of `pipeline.histogram` nest in octaves, so a limit at the end of an octave splits no slot: the counts are
exact. Only a value that equals a limit counts as above it, because a slot does not contain its upper limit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, NamedTuple

_SLOTS_OF_AN_OCTAVE: Final = 16
_OCTAVE_OF_10_MS: Final = 10
"""The slots of this octave end at 10 ms, and those of the next one at 20 ms."""
_EXACT_SIZES: Final = (1, 4, 16)
"""So small whole numbers have a slot each, so they belong to the limit that they equal."""
_LARGEST_SIZE: Final = 13  # 4 ** 13 = 67 108 864


class BucketLimits(NamedTuple):
    """Where a histogram is cut.

    Attributes:
        limits: upper limits of buckets, in ascending order; a bucket without a limit follows.
        first_above: for each of them the first slot that is above it.
    """

    limits: tuple[float, ...]
    first_above: tuple[int, ...]

    def counts(self, slots: Mapping[int, int]) -> list[int]:
        """Return what is in each bucket, and in the one without a limit."""
        counts = [0] * (len(self.limits) + 1)
        first_above = self.first_above
        for slot, count in slots.items():
            counts[bisect_right(first_above, slot)] += count
        return counts


def _seconds(first: int, last: int) -> BucketLimits:
    """Return the limits ``0.01 * 2**first`` to ``0.01 * 2**last``, in seconds."""
    powers = range(first, last + 1)
    above = tuple(_SLOTS_OF_AN_OCTAVE * (_OCTAVE_OF_10_MS + power + 1) for power in powers)
    return BucketLimits(tuple(0.01 * 2.0**power for power in powers), above)


def _sizes() -> BucketLimits:
    powers = range(len(_EXACT_SIZES), _LARGEST_SIZE + 1)  # of four: two octaves each; 16 is the start of octave 1
    limits = (*_EXACT_SIZES, *(4**power for power in powers))
    above = (*(size + 1 for size in _EXACT_SIZES), *(_SLOTS_OF_AN_OCTAVE * (2 * power - 3) for power in powers))
    return BucketLimits(tuple(map(float, limits)), above)


SECONDS: Final = _seconds(-5, 13)
"""0.3125 ms to 81.92 s, an octave each."""
SIZES: Final = _sizes()
"""Powers of four up to 67 108 864: the limits of GenAI's ``gen_ai.client.token.usage``."""
GEN_AI_SECONDS: Final = _seconds(0, 13)
"""10 ms to 81.92 s: the limits of GenAI's durations."""
