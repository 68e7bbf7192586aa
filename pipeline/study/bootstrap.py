"""How sure a difference is: bootstrap intervals of medians and means, fast enough for ten thousand requests.

Latencies of neighbouring requests are alike, so that n of them say less than n independent ones. How much less is read
from `BLOCKS` blocks of neighbours: from the variance of their means, and from how alike neighbouring blocks still are
(a first-order autoregression, as Andrews and Monahan fit before they estimate such a variance; Econometrica 60, 1992).
Requests that are alike for longer than a tenth of a recording cannot be told from a difference.

The median of a resample of n sorted values is a value whose place is distributed as Beta((n + 1)/2, (n + 1)/2), so that
a draw costs one random number (David and Nagaraja, Order Statistics, 2.2); here n is the number of independent values
that say as much. Resamples of the mean take whole blocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, fmean, pstdev, pvariance
from typing import Final, NamedTuple

DRAWS: Final = 1000
BLOCKS: Final = 50
FEWEST: Final = 10
"""Of fewer values nothing can be told."""
_MOST_ALIKE: Final = 0.9
"""Of 50 blocks that are more alike, fewer than three would be independent."""
_FEWEST_FREE: Final = 3.0
"""Degrees of freedom, of which `_student` needs so many."""


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
    """Return the interval of median(b) - median(a); both are in the order of the recording."""
    generator = random.Random(seed)
    sorted_a, sorted_b = sorted(a), sorted(b)
    median_a, median_b = _median(sorted_a), _median(sorted_b)
    signs_a, signs_b = _Signs.of(a, median_a), _Signs.of(b, median_b)
    draws = sorted(
        _drawn_median(sorted_b, signs_b.independent, generator)
        - _drawn_median(sorted_a, signs_a.independent, generator)
        for _ in range(DRAWS)
    )
    return _widened(median_b - median_a, draws, widen, min(signs_a.blocks, signs_b.blocks))


def mean_interval(a: Sequence[float], b: Sequence[float], widen: float, seed: int = 0) -> Interval:
    """Return the interval of mean(b) - mean(a); both are in the order of the recording."""
    generator = random.Random(seed)
    (means_a, alike_a), (means_b, alike_b) = _blocks(a), _blocks(b)
    mean_a, mean_b = fmean(means_a), fmean(means_b)
    difference = fmean(b) - fmean(a)
    draws = sorted(
        difference
        + sqrt(alike_b) * (fmean(generator.choices(means_b, k=len(means_b))) - mean_b)
        - sqrt(alike_a) * (fmean(generator.choices(means_a, k=len(means_a))) - mean_a)
        for _ in range(DRAWS)
    )
    return _widened(difference, draws, widen, min(len(means_a) / alike_a, len(means_b) / alike_b))


class _Signs(NamedTuple):
    """How much the values of a recording say of their median.

    Attributes:
        independent: so many independent values say as much.
        blocks: so many independent blocks have said so.
    """

    independent: float
    blocks: float

    @classmethod
    def of(cls, values: Sequence[float], median: float) -> _Signs:
        """Judge it by whether values are above their median: nothing else of them moves the median of a resample."""
        signs = [float((value > median) - (value < median)) for value in values]
        means, alike = _blocks(signs)
        variance = pvariance(signs)
        # How many times the variance is what it were if the values were independent.
        excess = alike * pvariance(means) * len(values) / len(means) / variance if variance else 1.0
        return cls(len(values) / max(1.0, excess), len(means) / alike)


def _widened(difference: float, draws: Sequence[float], widen: float, blocks: float) -> Interval:
    low, high = draws[int(0.025 * len(draws))], draws[int(0.975 * len(draws))]
    # The percentiles of few distinct values can be the difference itself: at least what the spread of all says.
    usual = NormalDist().inv_cdf(0.975)
    spread = usual * pstdev(draws)
    below, above = max(difference - low, spread, 0.0), max(high - difference, spread, 0.0)
    widen = _student(widen * usual, max(_FEWEST_FREE, blocks - 1)) / usual
    return Interval(difference, difference - widen * below, difference + widen * above)


def _student(normal: float, free: float) -> float:
    """Return the quantile of Student's distribution where the normal one has ``normal`` (Abramowitz, Stegun 26.7.5)."""
    z = normal
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )


def _median(values: Sequence[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _drawn_median(values: Sequence[float], independent: float, generator: random.Random) -> float:
    half = (independent + 1) / 2
    return values[min(len(values) - 1, int(generator.betavariate(half, half) * len(values)))]


def _blocks(values: Sequence[float]) -> tuple[list[float], float]:
    """Return the means of blocks of neighbours, and how many times their likeness makes the variance of a mean."""
    size = max(1, len(values) // BLOCKS)
    count = max(1, len(values) // size)
    means = [fmean(values[len(values) * at // count : len(values) * (at + 1) // count]) for at in range(count)]
    middle = fmean(means)
    apart = [mean - middle for mean in means]
    squares = sum(one * one for one in apart)
    if not squares or count <= FEWEST:
        return means, 1.0
    found = sum(one * following for one, following in pairwise(apart)) / squares
    # A short series seems less alike than it is (Kendall, Biometrika 41, 1954).
    likeness = min(_MOST_ALIKE, (count * found + 1) / (count - 3))
    return means, max(1.0, (1 + likeness) / (1 - likeness))
