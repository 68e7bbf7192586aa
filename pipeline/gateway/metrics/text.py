"""Families of figures in Prometheus' text format, version 0.0.4.

Source: prometheus.io/docs/instrumenting/exposition_formats (2026-10).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, assert_never

from pipeline.gateway.metrics.buckets import SECONDS, SIZES, BucketLimits
from pipeline.observe import read_all
from pipeline.segments import SegmentFile
from pipeline.series import Family, Kind, Series

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_A_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_RESERVED: Final = ("le", "__name__")
"""The label of a histogram's limits, and Prometheus' own for the name: a plugin's gets an underscore more."""


def metrics_text(file: SegmentFile) -> bytes:
    """Return the figures of all processes that have the file."""
    return exposition(read_all(file))


def exposition(families: Mapping[str, Family]) -> bytes:
    """Return all families in the order of their names, and their series in the order of their labels.

    A name that Prometheus does not allow, which only a plugin can have, gets an underscore for each wrong character.
    """
    lines: list[str] = []
    labels = _Labels()
    for name in sorted(families):
        family = families[name]
        if family.series:
            _add_family(lines, family, labels)
    lines.append("")
    return "\n".join(lines).encode()


def _add_family(lines: list[str], family: Family, labels: _Labels) -> None:
    name = metric_name(family.name)
    lines.append(f"# HELP {name} {family.about.translate(_HELP_ESCAPES)}")
    series = sorted(family.series, key=lambda one: one.labels)
    match family.kind:
        case Kind.COUNT | Kind.SECONDS | Kind.AMOUNT:
            lines.append(f"# TYPE {name} counter")
            lines.extend(f"{name}{labels.alone(one.labels)} {number(one.value)}" for one in series)
        case Kind.GAUGE:
            lines.append(f"# TYPE {name} gauge")
            lines.extend(f"{name}{labels.alone(one.labels)} {number(one.value)}" for one in series)
        case Kind.DURATIONS:
            _add_histograms(lines, name, labels, ((one, *_cut(one, SECONDS)) for one in series))
        case Kind.SIZES:
            _add_histograms(lines, name, labels, ((one, *_cut(one, SIZES)) for one in series))
        case Kind.BUCKETS:
            _add_histograms(
                lines,
                name,
                labels,
                ((one, [limit for limit, _ in one.buckets], [count for _, count in one.buckets]) for one in series),
            )
        case _:
            assert_never(family.kind)


def _cut(series: Series, limits: BucketLimits) -> tuple[Sequence[float], list[int]]:
    return (*limits.limits, math.inf), limits.counts(series.slots)


def _add_histograms(
    lines: list[str], name: str, labels: _Labels, cut: Iterable[tuple[Series, Sequence[float], Sequence[int]]]
) -> None:
    """Add histograms, each with its limits and with what is between them."""
    lines.append(f"# TYPE {name} histogram")
    shown: dict[float, str] = {}
    for series, limits, counts in cut:
        begun = labels.begun(series.labels)
        total = 0
        for limit, total in zip(limits, accumulate(counts), strict=True):
            if (text := shown.get(limit)) is None:
                text = shown[limit] = number(limit)
            lines.append(f'{name}_bucket{{{begun}le="{text}"}} {total}')
        alone = labels.alone(series.labels)
        lines.append(f"{name}_sum{alone} {number(series.value)}")
        lines.append(f"{name}_count{alone} {total}")


class _Labels:
    """Labels as text. Names and values are escaped once: they are few, and in many series."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, str] = {}

    def begun(self, labels: Iterable[tuple[str, str]]) -> str:
        """Return ``name="value",`` for each: what is before the last label of a series."""
        parts: list[str] = []
        used: set[str] = set()
        for name, value in labels:
            if (shown := self._names.get(name)) is None:
                shown = self._names[name] = label_name(name)
            while shown in used:  # two names that differ only in what is not allowed
                shown += "_"
            used.add(shown)
            if (escaped := self._values.get(value)) is None:
                escaped = self._values[value] = value.translate(_ESCAPES)
            parts.append(f'{shown}="{escaped}",')
        return "".join(parts)

    def alone(self, labels: tuple[tuple[str, str], ...]) -> str:
        """Return all labels of a series in braces; nothing if it has none."""
        return f"{{{self.begun(labels)[:-1]}}}" if labels else ""


def metric_name(name: str) -> str:
    """Return the name of a family as Prometheus allows it."""
    return _NOT_IN_A_NAME.sub("_", name)


def label_name(name: str) -> str:
    """Return the name of a label as Prometheus allows it."""
    shown = _NOT_IN_A_LABEL.sub("_", name)
    return f"{shown}_" if shown in _RESERVED else f"_{shown}" if shown[:1].isdigit() or not shown else shown


def number(value: float) -> str:
    """Return a number as Prometheus reads it: a whole one without a point, and the exact value of any other."""
    if isinstance(value, int):
        return str(value)
    if value == math.inf:
        return "+Inf"
    if value == -math.inf:
        return "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(float(value))
