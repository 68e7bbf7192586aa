"""headrace without its meters, to measure what they cost. Not a mode of the product: it exists only here.

Run ``python -m benchmarks.unmetered serve ...`` instead of ``headrace serve ...``. Every call to a meter remains but
does nothing: no clock is read, nothing is summed. The cost that remains is the call itself and the counting of batches
and events.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator

from pipeline import graph
from pipeline.meter import Clock, Meter


class NullMeter(Meter):
    """A stopwatch that never runs."""

    __slots__ = ()

    def __init__(self, name: str, clock: Clock = int, *, fused: bool = False) -> None:
        super().__init__(name, int, fused=fused)  # `int()` returns 0, and is cheaper than any clock

    def enter(self, doing: int) -> int:
        return 0

    def resume(self) -> int:
        return 0

    def rest(self) -> int:
        return 0

    def begin_closing(self) -> int:
        return 0


@contextlib.contextmanager
def unmetered() -> Generator[None]:
    """Build pipelines with meters that do nothing, for the duration of a block."""
    metered = vars(graph)["Meter"]
    setattr(graph, "Meter", NullMeter)  # noqa: B010 - type checkers reject a plain assignment
    try:
        yield
    finally:
        setattr(graph, "Meter", metered)  # noqa: B010


def main() -> int:
    """Run the ``headrace`` command without meters."""
    from pipeline.gateway.cli import main as headrace

    with unmetered():
        return headrace()


if __name__ == "__main__":
    sys.exit(main())
