"""What differs between two recordings, figure by figure, with intervals that hold for all of them together."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from pipeline.study.bootstrap import FEWEST, Interval, mean_interval, median_interval, widening
from pipeline.study.figures import Samples, is_cause
from pipeline.study.progress import Progress

Verdict = Literal["slower", "faster", "no difference", "cannot tell"]

MARGIN_MS: Final = 0.05
"""A smaller difference is ignored, whatever share of the figure it is."""


class ComparedFigure(Struct, kw_only=True):
    """One figure in two recordings; all in ms.

    Attributes:
        figure: its name, as `pipeline.study.figures.figures_of` has it.
        verdict: what can be said; a difference counts if its interval excludes 0 and it is more than the margin.
        by: which of the two intervals the verdict is from: that of the medians, or of the means if only those differ.
        is_cause: whether the figure says where time went, and does not only contain what others say.
        a_requests, b_requests: how many requests have it.
        a_median, b_median, a_mean, b_mean: of these.
        median_difference, median_low, median_high: of the medians, B less A, and their interval.
        mean_difference, mean_low, mean_high: the same for the means.
    """

    figure: str
    verdict: Verdict
    by: Literal["median", "mean"] = "median"
    is_cause: bool
    a_requests: int
    b_requests: int
    a_median: float = 0.0
    b_median: float = 0.0
    a_mean: float = 0.0
    b_mean: float = 0.0
    median_difference: float = 0.0
    median_low: float = 0.0
    median_high: float = 0.0
    mean_difference: float = 0.0
    mean_low: float = 0.0
    mean_high: float = 0.0

    @property
    def shown(self) -> Interval:
        """The interval that the verdict is from."""
        if self.by == "mean":
            return Interval(self.mean_difference, self.mean_low, self.mean_high)
        return Interval(self.median_difference, self.median_low, self.median_high)


class Comparison(Struct, kw_only=True):
    """What differs.

    Attributes:
        culprit: the cause with the greatest difference; None if none was found.
        margin: the share of a figure up to which a difference is ignored.
        figures: first the causes that differ, the greatest difference first, then what else differs, then the others.
    """

    culprit: str | None
    margin: float
    figures: list[ComparedFigure]


def compared(a: Samples, b: Samples, *, margin: float = 0.05) -> Comparison:
    """Compare two recordings: positive differences mean that ``b`` is slower."""
    names = [name for name in a if name in b]
    names += [name for name in (*a, *b) if (name in a) is not (name in b)]
    names = [name for name in names if a.of(name).max > 0 or b.of(name).max > 0]
    testable = [name for name in names if min(a.of(name).count, b.of(name).count) >= FEWEST]
    widen = widening(2 * len(testable))
    figures: list[ComparedFigure] = []
    with Progress("comparing", len(names)) as progress:
        for number, name in enumerate(names):
            figures.append(_compared(name, a, b, widen, margin))
            progress.show(number)
    figures.sort(key=_rank)
    causes = [one.figure for one in figures if one.is_cause and one.verdict in ("slower", "faster")]
    return Comparison(culprit=causes[0] if causes else None, margin=margin, figures=figures)


def _compared(name: str, a: Samples, b: Samples, widen: float, margin: float) -> ComparedFigure:
    of_a, of_b = a.of(name), b.of(name)
    one = ComparedFigure(
        figure=name, verdict="cannot tell", is_cause=is_cause(name), a_requests=of_a.count, b_requests=of_b.count
    )
    if min(of_a.count, of_b.count) < FEWEST:
        return one
    medians = median_interval(of_a.sorted_values, of_b.sorted_values, widen)
    means = mean_interval(of_a.values, of_b.values, widen)
    one.a_median, one.b_median = round(of_a.quantile(0.5), 3), round(of_b.quantile(0.5), 3)
    one.a_mean, one.b_mean = round(of_a.mean, 3), round(of_b.mean, 3)
    one.median_difference, one.median_low, one.median_high = (round(ms, 4) for ms in medians)
    one.mean_difference, one.mean_low, one.mean_high = (round(ms, 4) for ms in means)
    one.verdict = _verdict(medians, max(MARGIN_MS, margin * of_a.quantile(0.5)))
    of_means = _verdict(means, max(MARGIN_MS, margin * of_a.mean))
    if one.verdict in ("no difference", "cannot tell") and of_means in ("slower", "faster"):
        one.verdict, one.by = of_means, "mean"
    return one


def _verdict(interval: Interval, margin_ms: float) -> Verdict:
    if -margin_ms <= interval.low and interval.high <= margin_ms:
        return "no difference"
    if interval.low > 0 and interval.difference > margin_ms:
        return "slower"
    if interval.high < 0 and interval.difference < -margin_ms:
        return "faster"
    return "cannot tell"


def _rank(one: ComparedFigure) -> tuple[int, float, str]:
    group = {"slower": 0, "faster": 0, "cannot tell": 3, "no difference": 4}[one.verdict]
    return (group if group or one.is_cause else 2, -abs(one.shown.difference), one.figure)
