"""What the record of a request says of its batches, if it was traced: `pipeline.tracing`."""

from __future__ import annotations

from msgspec import Struct

from pipeline.tracing import Trace


class TraceFigures(Struct):
    """The spans of a request, with the names that they refer to.

    Attributes:
        lanes, stages, links: the names. Each attempt at an answer has its own, so that a name may come again.
        lane_of_stage: in which of the lanes each stage works.
        born_ns: when the request was born, on the monotonic clock of its process: the spans count from there.
        spans: of each its kind, the place of its name, when it began and how long it lasted, in microseconds, and the
            number of its batch in the order of their arrival; 0 if it is about none.
        lost: how many further spans there were.
    """

    lanes: list[str]
    stages: list[str]
    lane_of_stage: list[int]
    links: list[str]
    born_ns: int
    spans: list[tuple[int, int, float, float, int]]
    lost: int


def trace_figures(trace: Trace, born_ns: int) -> TraceFigures:
    """Return what a trace says."""
    numbers = {ns: number for number, ns in enumerate(sorted({0, *trace.spans[4::5]}))}
    return TraceFigures(
        lanes=trace.lanes,
        stages=trace.stages,
        lane_of_stage=trace.lane_of_stage,
        links=trace.links,
        born_ns=born_ns,
        spans=[
            (kind, index, (began_ns - born_ns) / 1000, ns / 1000, numbers[origin_ns])
            for kind, index, began_ns, ns, origin_ns in trace
        ],
        lost=trace.lost,
    )
