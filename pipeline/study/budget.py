"""Budgets: limits for the figures of a recording, and for how much they may grow over another one; for CI."""

from __future__ import annotations

import os
import re
import tomllib
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec
from msgspec import Struct

from pipeline.registry import did_you_mean
from pipeline.study.bootstrap import FEWEST, Interval, mean_interval, median_interval, widening
from pipeline.study.figures import Sample, Samples
from pipeline.study.recording import StudyError

BudgetVerdict = Literal["within", "exceeded", "cannot tell"]

_STATISTIC: Final = re.compile(r"(?P<figure>.+)\.(?P<statistic>p\d{1,2}(?:\.\d+)?|mean|max)")
_OF_BATCHES: Final = ("p50", "p99", "max")


class Growth(Struct, kw_only=True, forbid_unknown_fields=True):
    """By how much a figure may be greater than in the baseline: by the larger of both."""

    percent: float = 0.0
    ms: float = 0.0


class Baseline(Struct, kw_only=True, forbid_unknown_fields=True):
    """The recording to compare with, and by how much each figure may grow; its statistic is ``p50`` or ``mean``."""

    file: str
    growth: dict[str, Growth]


class BudgetFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """The file: ``limits`` in ms by figure and statistic, ``requests`` that there must be, and the ``baseline``."""

    requests: int = FEWEST
    limits: dict[str, float] = {}
    baseline: Baseline | None = None


class Budget(Struct, kw_only=True):
    """What was read of it; ``baseline`` is the name of the recording to compare with."""

    requests: int
    limits: dict[str, float]
    growth: dict[str, Growth]
    baseline: str | None


class Judgement(Struct, kw_only=True):
    """What became of one limit, in ms.

    Attributes:
        limit: its name in the file.
        figure: the figure that it applies to, with the statistic.
        verdict: ``cannot tell`` if there are too few requests, or the interval of a growth that is more than half of
            the limit has the limit within it.
        value: what the recording has.
        at_most: the limit.
        low, high: the interval of the growth, with 95 % confidence for all of the file together.
        requests: how many have the figure.
        reason: why it cannot be judged.
    """

    limit: str
    figure: str
    verdict: BudgetVerdict
    value: float | None = None
    at_most: float
    low: float | None = None
    high: float | None = None
    requests: int = 0
    reason: str = ""


def read_budget(name: str) -> Budget:
    """Read a file of limits; a relative baseline is beside it.

    Raises:
        StudyError: if it cannot be read, or has a limit that is not one.
    """
    try:
        with open(name, "rb") as file:
            document = tomllib.load(file)
        read = msgspec.convert(document, BudgetFile)
    except OSError as error:
        raise StudyError(f"{name} cannot be opened: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        known = f"; {_fields()}" if "unknown field" in str(error) else ""
        raise StudyError(f"{name} is not a file of limits: {error}{known}") from None
    growth = read.baseline.growth if read.baseline is not None else {}
    if not read.limits and not growth:
        raise StudyError(f"{name} has no limit: write figures under [limits] or [baseline.growth]")
    for limit in (*read.limits, *growth):
        found = _STATISTIC.fullmatch(limit)
        if found is None:
            raise StudyError(f"{name}: {limit!r} must end in a statistic: .p50, .p99, .mean or .max")
        if limit in growth and found["statistic"] not in ("p50", "mean"):
            raise StudyError(f"{name}: {limit!r}: growth can be judged for .p50 and .mean")
    file_name = None if read.baseline is None else os.path.join(os.path.dirname(name), read.baseline.file)
    return Budget(requests=read.requests, limits=read.limits, growth=growth, baseline=file_name)


def _fields() -> str:
    file, baseline, growth = (", ".join(kind.__struct_fields__) for kind in (BudgetFile, Baseline, Growth))
    return f"it has {file}; [baseline] has {baseline}; each growth has {growth}"


def judged(budget: Budget, samples: Samples, baseline: Samples | None) -> list[Judgement]:
    """Judge all limits. A name may have wildcards, as in ``stages.*.busy_ms.p99``: then each figure must be within.

    Raises:
        StudyError: if a limit is of a figure that no request has: it is misspelt, or its stage has another name now.
    """
    found: list[Judgement] = []
    for limit, at_most in budget.limits.items():
        for figure, statistic in _matching(limit, samples):
            found.append(_within(limit, figure, statistic, at_most, budget.requests, samples))
    growths = [
        (limit, *named, growth) for limit, growth in budget.growth.items() for named in _matching(limit, samples)
    ]
    widen = widening(len(growths))
    for limit, figure, statistic, growth in growths:
        found.append(_grown(limit, figure, statistic, growth, budget.requests, samples, baseline or Samples(), widen))
    return found


def _matching(limit: str, samples: Samples) -> list[tuple[str, str]]:
    named = _STATISTIC.fullmatch(limit)
    assert named is not None, limit
    figure, statistic = named["figure"], named["statistic"]
    if figure == "transit_ms" and statistic in _OF_BATCHES:  # of its batches, and the same over the requests
        figure = f"transit_ms.{statistic}"
    matching = [name for name in samples if fnmatchcase(name, figure)]
    if not matching:
        known = [name if name.startswith("transit_ms.") else f"{name}.{statistic}" for name in samples]
        raise StudyError(f"no request has {limit}: mend or remove this limit{did_you_mean(limit, known)}")
    return [(name, statistic) for name in matching]


def _value(sample: Sample, statistic: str) -> float:
    if statistic == "mean":
        return sample.mean
    return sample.max if statistic == "max" else sample.quantile(float(statistic[1:]) / 100)


def _within(limit: str, figure: str, statistic: str, at_most: float, requests: int, samples: Samples) -> Judgement:
    sample = samples.of(figure)
    judgement = Judgement(
        limit=limit, figure=f"{figure}.{statistic}", verdict="cannot tell", at_most=at_most, requests=sample.count
    )
    needed = requests
    if statistic.startswith("p"):  # a p99 of fewer than a hundred is their maximum
        needed = max(requests, round(1 / (1 - min(0.9999, float(statistic[1:]) / 100))))
    if sample.count < needed:
        judgement.reason = f"{sample.count} requests have it, and {needed} are needed"
        return judgement
    judgement.value = round(_value(sample, statistic), 3)
    judgement.verdict = "within" if judgement.value <= at_most else "exceeded"
    return judgement


def _grown(
    limit: str,
    figure: str,
    statistic: str,
    growth: Growth,
    requests: int,
    samples: Samples,
    baseline: Samples,
    widen: float,
) -> Judgement:
    sample, before = samples.of(figure), baseline.of(figure)
    was_ms = _value(before, statistic)
    at_most = max(growth.ms, growth.percent / 100 * was_ms)
    judgement = Judgement(
        limit=limit,
        figure=f"{figure}.{statistic}",
        verdict="cannot tell",
        at_most=round(at_most, 3),
        requests=sample.count,
    )
    if min(sample.count, before.count) < max(requests, FEWEST):
        judgement.reason = f"{sample.count} requests have it, and {before.count} of the baseline"
        return judgement
    interval: Interval
    if statistic == "mean":
        interval = mean_interval(before.in_order, sample.in_order, widen)
    else:
        interval = median_interval(before.in_order, sample.in_order, widen)
    judgement.value, judgement.low, judgement.high = (round(ms, 4) for ms in interval)
    if interval.low > at_most:
        judgement.verdict = "exceeded"
    elif interval.high <= at_most or interval.difference <= at_most / 2:
        judgement.verdict = "within"
    else:
        judgement.reason = "the interval of its growth has the limit within it: record more requests"
    return judgement
