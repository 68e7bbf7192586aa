"""Chains that are asked for their batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline import RequestContext
from pipeline.graph import Pipeline
from pipeline.lane import Lane
from pipeline.loop import current_loop
from pipeline.pull import Pull


def asking(ctx: RequestContext) -> Lane:
    """Return the lane of a task that asks."""
    return Lane(("asks",), ctx.timeline, current_loop(), "request 7")


def pull_of(pipeline: Pipeline[Any, Any], batches: Iterable[list[Any]], ctx: RequestContext) -> Pull[Any]:
    """Return a run of ``pipeline``; only its own lanes are in ``ctx``."""
    return Pull(pipeline, batches, ctx, asking(ctx))


async def pulled(pipeline: Pipeline[Any, Any], batches: Iterable[list[Any]], ctx: RequestContext) -> list[Any]:
    """Return all that comes out of ``pipeline``, as `Pipeline.run` does."""
    pull = pull_of(pipeline, batches, ctx)
    await pull.begin()
    out: list[Any] = []
    is_answered = False
    try:
        while (batch := await pull.take(asking(ctx))) is not None:
            out += batch
        is_answered = True
    finally:
        await pull.end(is_answered=is_answered)
    return out
