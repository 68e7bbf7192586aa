"""Lanes without a pipeline, and their figures in the form in which tests compare them."""

from __future__ import annotations

from typing import Any

from pipeline.channel import Link
from pipeline.kernel_time import Clock
from pipeline.lane import STATES, Lane
from pipeline.loop import Loop
from pipeline.timeline import Timeline

Counts = tuple[str, int, int, int, int]
"""Of one stage: its name, batches in and out, events in and out."""


def new_lane(
    clock: Clock,
    name: str = "work",
    *,
    timeline: Timeline | None = None,
    loop: Loop | None = None,
    members: tuple[str, ...] = (),
) -> Lane:
    """Return the lane of a stage with a ``run`` of its own, or of a line with ``members``."""
    lane = Lane(members or (name,), timeline or Timeline(clock), loop or Loop(), "request 7")
    if members:
        lane.stage = None
    return lane


def spent(lane: Lane) -> dict[str, int]:
    """Return the time in each state, in ns, without the states that have none."""
    return {state: ns for state, ns in zip(STATES, lane.spent_ns, strict=True) if ns}


def spent_s(lane: Lane) -> dict[str, float]:
    """Return the same in seconds."""
    return {state: ns / 1e9 for state, ns in spent(lane).items()}


def counts(lanes: list[Lane]) -> list[Counts]:
    """Return what passed each stage."""
    return [
        (stage.name, stage.batches_in, stage.batches_out, stage.events_in, stage.events_out)
        for lane in lanes
        for stage in lane.stages
    ]


def link_figures(link: Link[Any]) -> dict[str, float]:
    """Return a link's figures, times in seconds, without those that are 0."""
    figures = {
        "ready_s": link.ready_ns / 1e9,
        "queued_s": link.queued_ns / 1e9,
        "full_s": link.full_ns / 1e9,
        "batches": link.batches,
        "most_waiting": link.most_waiting,
    }
    return {name: figure for name, figure in figures.items() if figure}
