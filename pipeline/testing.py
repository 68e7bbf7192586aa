"""Checks for the authors of stages and plugins: ``from pipeline.testing import check_stage, check_plugin``.

`check_stage` runs every check of a stage, each in a trio loop of its own on a virtual clock, so a stage that sleeps for
a minute is tested in no time. The single checks are coroutines for tests that want one of them. `check_plugin` opens a
plugin as the gateway does, runs the same on what it makes, and lets several requests run at once. `soak` looks for what
grows from request to request. What stands around the call is checked by `stages.testing.check_around`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.end_testing import assert_cancels_cleanly as assert_cancels_cleanly
from pipeline.end_testing import assert_closes_once as _assert_closes_once
from pipeline.end_testing import assert_lets_go as assert_lets_go
from pipeline.plugin_testing import CLOSE_LIMIT_S as CLOSE_LIMIT_S
from pipeline.plugin_testing import assert_separates_requests as assert_separates_requests
from pipeline.plugin_testing import check_plugin as check_plugin
from pipeline.plugin_testing import new_record as new_record
from pipeline.soak_testing import soak as soak
from pipeline.stage import Stage
from pipeline.stage_testing import NewContext as NewContext
from pipeline.stage_testing import assert_backpressure as assert_backpressure
from pipeline.stage_testing import assert_blind_to_batching as assert_blind_to_batching
from pipeline.stage_testing import assert_forgets_requests as assert_forgets_requests
from pipeline.stage_testing import assert_skips_exactly as assert_skips_exactly
from pipeline.stage_testing import assert_time_conserved as assert_time_conserved
from pipeline.stage_testing import assert_waits_declared as assert_waits_declared
from pipeline.stage_testing import check_same_again as _check_same_again
from pipeline.stage_testing import collect as collect
from pipeline.stage_testing import new_context as new_context
from pipeline.stage_testing import on_virtual_time as _on_virtual_time
from pipeline.stage_testing import rebatched as rebatched
from pipeline.stage_testing import virtual_ns as virtual_ns

In = TypeVar("In")
Out = TypeVar("Out")


def check_stage(
    stage: Stage[In, Out],
    *events: In,
    context: NewContext = new_context,
    normalise: Callable[[list[Out]], object] = list,
    holds_all: bool = False,
) -> list[Out]:
    """Run every check of a stage with ``events`` as its input, and return what it gives.

    Not from inside a trio loop: it starts its own.

    Args:
        stage: the stage to check.
        events: a typical stream, end included; a dozen events find most mistakes.
        context: makes the context of one run, for a stage that reads notes.
        normalise: makes outputs comparable when they may be cut differently, for instance by joining bytes.
        holds_all: whether the stage collects its whole input by design, so that backpressure cannot be asked of it.

    Raises:
        AssertionError: if the stage breaks a rule; the message says which and how.
        StageBug: if the stage raises what it does not declare; the message names the stage and the cause.
        TypeError: if it is not a stage.
    """
    if not callable(getattr(stage, "run", None)):
        raise TypeError(
            f"{stage!r} is not a stage: a Plugin, or an observer, is checked by check_plugin, and what stands around "
            "the call by stages.testing.check_around"
        )
    name = stage.name
    _on_virtual_time(lambda: assert_forgets_requests(stage, *events, context=context, normalise=normalise), name)
    _on_virtual_time(lambda: assert_blind_to_batching(stage, *events, context=context, normalise=normalise), name)
    first = _on_virtual_time(lambda: collect(stage, *events, context=context), name)
    _on_virtual_time(lambda: assert_waits_declared(stage, *events, context=context), name)
    _on_virtual_time(lambda: assert_skips_exactly(stage, *events, context=context), name)
    if not holds_all:
        _on_virtual_time(lambda: assert_backpressure(stage, *events, context=context), name)
    _on_virtual_time(lambda: assert_lets_go(stage, *events, context=context), name)
    _on_virtual_time(lambda: _assert_closes_once(stage, *events, context=context), name)
    again = _on_virtual_time(lambda: collect(stage, *events, context=context), name)
    _check_same_again(name, first, again, normalise)
    return first
