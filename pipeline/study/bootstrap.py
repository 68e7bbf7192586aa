"""How sure a difference is: bootstrap intervals of medians and means, fast enough for ten thousand requests.

The median of a resample of n sorted values is a value whose place is distributed as Beta((n + 1)/2, (n + 1)/2), so that
a draw costs one random number (David and Nagaraja, Order Statistics, 2.2). Resamples of the mean take whole blocks of
neighbouring requests, because latencies of neighbours are alike: each of `BLOCKS` blocks is one value.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import NormalDist, fmean, pstdev
from typing import Final, NamedTuple

DRAWS: Final = 1000
BLOCKS: Final = 50
FEWEST: Final = 10
"""Of fewer values nothing can be told."""


class Interval(NamedTuple):
    """A difference, and between what it is with 95 % confidence; of all figures of a comparison together."""

    difference: float
    low: float
    high: float


def widening(tests: int) -> float:
    """Return by how much wider an interval must be so that ``tests`` of them hold together (Bonferroni)."""
    normal = NormalDist()
    return normal.inv_cdf(1 - 0.025 / max(1, tests)) / normal.inv_cdf(0.975)


def median_interval(a: Sequence[float], b: Sequence[float], widen: float, seed: int = 0) -> Interval:
    """Return the interval of median(b) - median(a); both are sorted."""
    generator = random.Random(seed)
    difference = _median(b) - _median(a)
    draws = sorted(_drawn_median(b, generator) - _drawn_median(a, generator) for _ in range(DRAWS))
    return _widened(difference, draws, widen)


def mean_interval(a: Sequence[float], b: Sequence[float], widen: float, seed: int = 0) -> Interval:
    """Return the interval of mean(b) - mean(a); both are in the order of the recording."""
    generator = random.Random(seed)
    blocks_a, blocks_b = _blocks(a), _blocks(b)
    draws = sorted(
        fmean(generator.choices(blocks_b, k=len(blocks_b))) - fmean(generator.choices(blocks_a, k=len(blocks_a)))
        for _ in range(DRAWS)
    )
    return _widened(fmean(b) - fmean(a), draws, widen)


def _widened(difference: float, draws: Sequence[float], widen: float) -> Interval:
    low, high = draws[int(0.025 * len(draws))], draws[int(0.975 * len(draws))]
    # The percentiles of few distinct values can be the difference itself: at least what the spread of all says.
    spread = NormalDist().inv_cdf(0.975) * pstdev(draws)
    below, above = max(difference - low, spread, 0.0), max(high - difference, spread, 0.0)
    return Interval(difference, difference - widen * below, difference + widen * above)


def _median(values: Sequence[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _drawn_median(values: Sequence[float], generator: random.Random) -> float:
    half = (len(values) + 1) / 2
    return values[min(len(values) - 1, int(generator.betavariate(half, half) * len(values)))]


def _blocks(values: Sequence[float]) -> list[float]:
    size = max(1, len(values) // BLOCKS)
    count = max(1, len(values) // size)
    return [fmean(values[len(values) * at // count : len(values) * (at + 1) // count]) for at in range(count)]
