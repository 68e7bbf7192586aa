"""Run a stage very often, and look for what grows; authors import it from `pipeline.testing`."""

from __future__ import annotations

import array
import gc
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.plugin_testing import as_plugin, plugin_opened
from pipeline.stage import Stage
from pipeline.stage_testing import NewContext, collect, new_context, on_virtual_time

MOST_GROWTH_BYTES: Final = 4.0
"""Per run, by default: a list that keeps one number of each has 8 more."""

_SERIES: Final = 3
"""So often memory must grow to be a leak: what else a process does, such as ending a thread, grows it only once."""
_WARM_UP_ROUNDS: Final = 3


def soak(
    stage: Any,
    streams: Sequence[Sequence[Any]],
    rounds: int = 30,
    *,
    options: Any = None,
    context: NewContext = new_context,
    normalise: Callable[[list[Any]], object] = list,
    most_growth_bytes: float = MOST_GROWTH_BYTES,
) -> None:
    """Run all ``streams`` through a stage, ``rounds`` times; check that memory does not grow, and that results stay.

    Not from inside a trio loop: it starts its own, on a virtual clock. A cache of a bounded size grows until it is
    full: let it be full after a fifth of the rounds.

    Args:
        stage: a stage, or a plugin that makes one; it is open for all rounds.
        streams: what single requests take, for instance recorded ones.
        rounds: 10 or more.
        options: those of the plugin; None stands for their defaults.
        context: makes the context of one run.
        normalise: makes outputs comparable.
        most_growth_bytes: how much each run may leave behind, in the long run.

    Raises:
        AssertionError: if memory grows, or a result differs from the first one; the message says where.
    """
    plugin = as_plugin(stage)

    async def check() -> None:
        async with plugin_opened(plugin, options) as made:
            left = _SERIES
            is_steady = False
            while not is_steady:
                left -= 1
                is_steady = await _soak(made, streams, rounds, context, normalise, most_growth_bytes, is_last=not left)

    is_tracing, is_frozen = tracemalloc.is_tracing(), gc.get_freeze_count() > 0
    if not is_tracing:
        tracemalloc.start()
    if not is_frozen:  # each round collects: not what was there before, which may be a whole suite of tests
        gc.collect()
        gc.freeze()
    try:
        on_virtual_time(check, plugin.name)
    finally:
        if not is_frozen:
            gc.unfreeze()
        if not is_tracing:
            tracemalloc.stop()


async def _soak(
    stage: Stage[Any, Any],
    streams: Sequence[Sequence[Any]],
    rounds: int,
    context: NewContext,
    normalise: Callable[[list[Any]], object],
    most_growth_bytes: float,
    *,
    is_last: bool,
) -> bool:
    """Run one series of rounds; return whether the memory stayed as it was. In the last one it must."""
    first = [normalise(await collect(stage, *stream, context=context)) for stream in streams]
    warm_up = max(_WARM_UP_ROUNDS, rounds // 5)
    before: tracemalloc.Snapshot | None = None
    sizes = array.array("q", bytes(8 * rounds))  # of the size that it will have: it would be found to grow
    for number in range(2, warm_up + 2 + rounds):
        for at, stream in enumerate(streams):
            again = normalise(await collect(stage, *stream, context=context))
            assert again == first[at], (
                f"{stage.name} gives something else in round {number} for stream {at + 1}: "
                f"first {first[at]!r}, then {again!r}"
            )
            del again
        gc.collect()
        if number == warm_up + 1:
            before = tracemalloc.take_snapshot()
        elif number > warm_up + 1:
            sizes[number - warm_up - 2] = tracemalloc.get_traced_memory()[0]
    # The median of all slopes: a dictionary that is resized once is not a leak, however large the step.
    slopes = [
        (after - size) / (later - at)
        for at, size in enumerate(sizes)
        for later, after in enumerate(sizes)
        if later > at
    ]
    growth_bytes = statistics.median(slopes) / max(1, len(streams))
    if growth_bytes <= most_growth_bytes:
        return True
    if is_last:
        assert before is not None  # there are rounds
        ours = [tracemalloc.Filter(False, file) for file in (tracemalloc.__file__, __file__)]
        grown = tracemalloc.take_snapshot().filter_traces(ours).compare_to(before.filter_traces(ours), "lineno")
        worst = max(grown, key=lambda line: line.size_diff)
        raise AssertionError(
            f"{stage.name} keeps {growth_bytes:.0f} bytes of each run, over {rounds} rounds of {len(streams)} streams: "
            f"most of it was allocated at {worst.traceback}"
        )
    return False
