"""What differs between two recordings, figure by figure, with intervals that hold for all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from pipeline.study.bootstrap import FEWEST, Interval, mean_interval, median_interval, widening
from pipeline.study.figures import Sample, Samples, is_cause
from pipeline.study.progress import Progress

Verdict = Literal["slower", "faster", "no difference", "cannot tell"]

MARGIN_MS: Final = 0.1
"""A smaller difference is ignored, whatever share of the figure it is."""
CAUSE_SHARE: Final = 0.005
"""A difference of a cause matters from this share of a request on; two runs of the same differ by half of it."""
SUM_SHARE: Final = 0.02
"""The same for the other figures, which have the noise of all causes together."""
CROWD: Final = 50
"""Work of a stage explains a wait for the loop that is up to so many times as long: each other stream works as well."""
EXPLAINED: Final = 1.25
"""What has become longer explains that something else is waited for less, up to so many times as much."""

_SHIFTING: Final = frozenset({"parts.tokens", "parts.first_token", "parts.reading"})
"""Waits that go on while we work: they become shorter by what our stages take longer, and the other way around."""


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
    def differs(self) -> bool:
        """Whether it is slower or faster."""
        return self.verdict in ("slower", "faster")

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
        figures: first the causes that differ, the greatest difference first; then the waits that differ because of
            them; then what else differs, then the others.
    """

    culprit: str | None
    margin: float
    figures: list[ComparedFigure]


def compared(a: Samples, b: Samples, *, margin: float = 0.05) -> Comparison:
    """Compare two recordings: positive differences mean that ``b`` is slower.

    Args:
        a: the figures of the first.
        b: those of the second.
        margin: the share of a figure up to which a difference is ignored.
    """
    names = [name for name in a if name in b]
    names += [name for name in (*a, *b) if (name in a) is not (name in b)]
    names = [name for name in names if a.of(name).max > 0 or b.of(name).max > 0]
    testable = [name for name in names if min(_sample(name, a).count, _sample(name, b).count) >= FEWEST]
    widen = widening(2 * len(testable))
    figures: list[ComparedFigure] = []
    with Progress("comparing", len(names)) as progress:
        for number, name in enumerate(names):
            figures.append(_compared(name, a, b, widen, margin))
            progress.show(number)
    consequences = _consequences(figures)
    figures.sort(key=lambda one: _rank(one, one.figure in consequences))
    causes = [one.figure for one in figures if one.is_cause and one.differs]
    return Comparison(culprit=causes[0] if causes else None, margin=margin, figures=figures)


def _compared(name: str, a: Samples, b: Samples, widen: float, margin: float) -> ComparedFigure:
    of_a, of_b = _sample(name, a), _sample(name, b)
    one = ComparedFigure(
        figure=name, verdict="cannot tell", is_cause=is_cause(name), a_requests=of_a.count, b_requests=of_b.count
    )
    if min(of_a.count, of_b.count) < FEWEST:
        return one
    medians = median_interval(of_a.in_order, of_b.in_order, widen)
    means = mean_interval(of_a.in_order, of_b.in_order, widen)
    one.a_median, one.b_median = round(of_a.quantile(0.5), 3), round(of_b.quantile(0.5), 3)
    one.a_mean, one.b_mean = round(of_a.mean, 3), round(of_b.mean, 3)
    one.median_difference, one.median_low, one.median_high = (round(ms, 4) for ms in medians)
    one.mean_difference, one.mean_low, one.mean_high = (round(ms, 4) for ms in means)
    least_ms = max(MARGIN_MS, (CAUSE_SHARE if one.is_cause else SUM_SHARE) * a.of("total_ms").quantile(0.5))
    one.verdict = _verdict(medians, max(least_ms, margin * of_a.quantile(0.5)))
    of_means = _verdict(means, max(least_ms, margin * of_a.mean))
    if one.verdict in ("no difference", "cannot tell") and of_means in ("slower", "faster"):
        one.verdict, one.by = of_means, "mean"
    return one


def _sample(name: str, samples: Samples) -> Sample:
    """Return a sample; that of a stage which only the other recording has takes no time in each request."""
    sample = samples.of(name)
    if not sample.count and name.startswith("stages."):
        for _ in range(len(samples.of("total_ms").values)):
            sample.add(0.0)
    return sample


def _verdict(interval: Interval, margin_ms: float) -> Verdict:
    if -margin_ms <= interval.low and interval.high <= margin_ms:
        return "no difference"
    if interval.low > 0 and interval.difference > margin_ms:
        return "slower"
    if interval.high < 0 and interval.difference < -margin_ms:
        return "faster"
    return "cannot tell"


def _consequences(figures: Sequence[ComparedFigure]) -> set[str]:
    """Return the waits that differ because our stages do: they are not what has to be repaired.

    A stage works while the upstream produces the next token, so that a slower stage shortens the wait for tokens. And
    what it works for other requests is this one's wait for the loop.
    """
    shifts_ms = {one.figure: one.shown.difference for one in figures if one.is_cause and one.differs}
    stages_ms = {name: ms for name, ms in shifts_ms.items() if name.startswith("stages.")}
    found: set[str] = set()
    loop_ms = shifts_ms.get("parts.loop", 0.0)
    work_ms = sum(ms for name, ms in stages_ms.items() if name.endswith(".busy_ms"))
    if work_ms * loop_ms > 0 and abs(loop_ms) <= CROWD * abs(work_ms):
        found.add("parts.loop")
    ours_ms = sum(stages_ms.values()) + (loop_ms if found else 0.0)
    shifted_ms = sum(shifts_ms.get(name, 0.0) for name in _SHIFTING)
    for name in _SHIFTING & shifts_ms.keys():
        ms = shifts_ms[name]
        if ms * ours_ms < 0 and max(abs(ms), abs(shifted_ms)) <= EXPLAINED * abs(ours_ms):
            found.add(name)
    return found


def _rank(one: ComparedFigure, is_consequence: bool) -> tuple[int, float, str]:
    group = {"cannot tell": 3, "no difference": 4}.get(one.verdict, 0 if one.is_cause else 2)
    return (1 if is_consequence else group, -abs(one.shown.difference), one.figure)
