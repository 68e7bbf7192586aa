"""The figures of one request under stable names, and samples of them: what reports, comparisons and budgets use."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Final, get_args

from pipeline.study.parts import PartKind, parts_of, stages_of
from pipeline.study.records import ON_SOCKETS, Recorded, RecordedRequest

LANE_STATES: Final = ("starved_ms", "ready_ms", "busy_ms", "outside_ms", "blocked_ms", "closing_ms")
_PARTS: Final = tuple(kind for kind in get_args(PartKind) if kind not in ("work", "wait"))
"""Those that a stage does not have; a request without one has 0 of it."""
MOST_VALUES: Final = 100_000
"""A sample keeps so many values, in 800 KB: of more a random choice, whose quantiles are as good."""


def figures_of(request: RecordedRequest) -> Iterator[tuple[str, float]]:
    """Yield each figure of a request with its name, such as ``stages.encode_chunks.busy_ms``.

    ``parts`` are disjoint and sum to the total; all others are those of the record, except that a stage's ``busy_ms``
    includes its flush, and that what failed attempts did is added.
    """
    yield "total_ms", request.total_ms
    for name in ("before_ms", "first_byte_ms", "first_token_ms"):
        if (ms := getattr(request, name)) is not None:
            yield name, ms
    for party, ms in request.party_ms.items():
        yield f"party.{party}", ms
    for point, ms in request.phases_ms.items():
        yield f"phases.{point}", ms
    work_ms: dict[str, float] = {}
    outside_ms: dict[str, float] = {}
    for name, stage in stages_of(request):
        work_ms[name] = work_ms.get(name, 0.0) + stage.work_ms
        outside_ms[name] = outside_ms.get(name, 0.0) + stage.outside_ms
    for name, ms in work_ms.items():
        yield f"stages.{name}.busy_ms", ms
        yield f"stages.{name}.outside_ms", outside_ms[name]
    for name, lane in request.lanes.items():
        for state in LANE_STATES:
            yield f"lanes.{name}.{state}", getattr(lane, state)
    for name, link in request.links.items():
        yield f"links.{name}.ready_ms", link.ready_ms
        yield f"links.{name}.queued_ms", link.queued_ms
        yield f"links.{name}.full_ms", link.full_ms
    parts_ms = {part.kind: part.ms for part in parts_of(request) if not part.stage}
    for kind in _PARTS:
        yield f"parts.{kind}", parts_ms.get(kind, 0.0)
    if request.transit_ms is not None:
        for share, ms in request.transit_ms.items():
            yield f"transit_ms.{share}", ms


def is_cause(figure: str) -> bool:
    """Return whether a figure says where time went, and does not only contain what others say."""
    kind, _, rest = figure.partition(".")
    if kind == "stages":
        name, _, what = rest.rpartition(".")
        return what == "busy_ms" or name not in ON_SOCKETS
    return kind == "parts"


class Sample:
    """The values of one figure; exact up to `MOST_VALUES`, and a random choice of as many if there are more.

    Attributes:
        count, sum, max: of all values.
        values: those that are kept; in the order in which they were added, unless it is a random choice.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.max = 0.0
        self.values = array("d")
        self._numbers = array("q")  # of a random choice: the number of each value, by which it can be put into order
        self._random = random.Random(0)
        self._sorted: list[float] | None = None

    def add(self, value: float) -> None:
        """Add one value."""
        self.count += 1
        self.sum += value
        self.max = max(self.max, value)
        self._sorted = None
        if self.count <= MOST_VALUES:
            self.values.append(value)
        elif (at := self._random.randrange(self.count)) < MOST_VALUES:
            if not self._numbers:
                self._numbers.extend(range(MOST_VALUES))
            self.values[at] = value
            self._numbers[at] = self.count

    def quantile(self, share: float) -> float:
        """Return the value that this share of all does not exceed; 0 if there are none."""
        values = self.sorted_values
        return values[min(len(values), max(1, ceil(share * len(values)))) - 1] if values else 0.0

    @property
    def mean(self) -> float:
        """Return the mean of all values; 0 if there are none."""
        return self.sum / self.count if self.count else 0.0

    @property
    def in_order(self) -> Sequence[float]:
        """The values that are kept, in the order in which they were added."""
        if not self._numbers:
            return self.values
        return [value for _, value in sorted(zip(self._numbers, self.values, strict=True))]

    @property
    def sorted_values(self) -> list[float]:
        """The values that are kept, in ascending order."""
        if self._sorted is None:
            self._sorted = sorted(self.values)
        return self._sorted


class Samples(dict[str, Sample]):
    """A sample for each name that was added."""

    def add(self, name: str, value: float) -> None:
        """Add a value to the sample of this name."""
        sample = self.get(name)
        if sample is None:
            sample = self[name] = Sample()
        sample.add(value)

    def of(self, name: str) -> Sample:
        """Return the sample of this name; an empty one if nothing was added."""
        return self.get(name) or Sample()


def samples_of(events: Iterable[Recorded], samples: Samples | None = None) -> Samples:
    """Add the figures of all requests to ``samples``, or to new ones; return them."""
    samples = Samples() if samples is None else samples
    for event in events:
        if isinstance(event, RecordedRequest):
            for name, value in figures_of(event):
                samples.add(name, value)
    return samples
