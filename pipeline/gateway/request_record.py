"""The record of a finished request: how it ended and where its time went. No prompt, no answer, no key."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from pipeline import Lane, PipelineError, RequestContext
from pipeline.channel import Link
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.failures import EndCode, row_of
from pipeline.timeline import Timeline
from stages.answer import AroundTime, Attempt
from stages.events import Usage
from stages.routing.router import ROUTE, HealthNote
from stages.slots import AROUNDS, ATTEMPTS, CALL, FAILURE, HEAD, PRINCIPAL, USAGE
from stages.wire.redaction import redact

_DISCONNECTS: Final[dict[str, EndCode]] = {"left": "DC", "stalled": "DS"}
_ANSWERING: Final = ("decode_events", "answer_call")
"""What gives the events of the answer: the latter if anything is around the call, and the former is in its attempts."""


class LaneFigures(Struct, gc=False):
    """The time of one task, in ms: `pipeline.lane.Lane`."""

    stages: list[str]
    life_ms: float
    starved_ms: float
    ready_ms: float
    busy_ms: float
    outside_ms: float
    blocked_ms: float
    closing_ms: float


class StageFigures(Struct, gc=False):
    """What one stage did: `pipeline.lane.StageTimes`."""

    busy_ms: float
    outside_ms: float
    flush_ms: float
    batches_in: int
    events_in: int
    batches_out: int
    events_out: int


class LinkFigures(Struct, gc=False):
    """How long batches waited between two tasks: `pipeline.channel.Link`."""

    ready_ms: float
    queued_ms: float
    full_ms: float
    batches: int


class AttemptFigures(Struct, kw_only=True):
    """One attempt at an answer: `stages.answer.Attempt`. ``end`` is OK, a code of docs/errors.md, or ``given_up``."""

    deployment: str
    model: str
    reason: str | UnsetType = UNSET
    pause_ms: float | UnsetType = UNSET
    end: str
    upstream_status: int | UnsetType = UNSET
    began_ms: float
    ms: float
    events: int
    lanes: dict[str, LaneFigures]
    stages: dict[str, StageFigures]
    links: dict[str, LinkFigures]


class RequestRecord(Struct, kw_only=True):
    """What the log says of a request; durations in ms. A field that is UNSET is left out."""

    request_id: str
    client: str | None
    key: str | None
    model: str | None
    target_model: str | UnsetType = UNSET
    deployment: str | None
    stream: bool | None
    end: EndCode
    status: int | None
    bytes: int
    events: int
    generation: int
    total_ms: float
    before_ms: float | None
    first_byte_ms: float | None
    first_token_ms: float | None
    error: str | UnsetType = UNSET
    stage: str | UnsetType | None = UNSET
    upstream_status: int | UnsetType | None = UNSET
    upstream_code: str | UnsetType = UNSET
    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    party_ms: dict[str, float]
    points_ms: dict[str, float]
    lanes: dict[str, LaneFigures]
    stages: dict[str, StageFigures]
    links: dict[str, LinkFigures]
    transit_ms: dict[str, float] | UnsetType = UNSET
    attempts: list[AttemptFigures] | UnsetType = UNSET
    health: dict[HealthNote, list[str]] | UnsetType = UNSET
    arounds_ms: dict[str, float] | UnsetType = UNSET
    skipped: list[str] | UnsetType = UNSET
    mended: list[str] | UnsetType = UNSET


class FinishedRequest(Struct, kw_only=True):
    """A request that has ended: of what it was made of, only what its record needs. The rest may be megabytes.

    Attributes:
        ended_s: when it ended, in seconds since the epoch.
        client: the address of its client.
        generation: the number of the configuration that it was served with: the first of a process has 1.
        error: what ended it, or broke its answer off, if anything did.
        upstream_code: the upstream's own code for it.
        failure: the same, if it came as an exception.
        health: what the health of deployments has done to it, with their ids.
    """

    ended_s: float
    request_id: str
    client: str | None
    key: str | None
    model: str | None
    target_model: str | None
    deployment: str | None
    stream: bool | None
    end: EndCode
    status: int | None
    size_bytes: int
    generation: int
    error: str | None
    upstream_code: str | None
    failure: PipelineError | None
    usage: Usage | None
    timeline: Timeline
    lanes: list[Lane]
    links: list[Link[Any]]
    attempts: list[Attempt]
    health: Mapping[HealthNote, list[str]] | None
    arounds: list[AroundTime]
    skipped: list[str]
    mended: set[str]


def finished_request(
    ctx: RequestContext,
    response: AsgiResponse,
    *,
    error: PipelineError | None,
    disconnect_reason: str | None,
    generation: int = 1,
) -> FinishedRequest:
    """Take from a request that has just ended what its record needs.

    Args:
        ctx: the request's context.
        response: what was sent.
        error: what ended the request, if anything did.
        disconnect_reason: why the client is gone, if it is: ``left``, ``stalled``, or the code of what was wrong with
            its body.
        generation: the number of the configuration that it was served with.
    """
    call, principal, failed = ctx.get(CALL), ctx.get(PRINCIPAL), ctx.get(FAILURE)
    route = ctx.get(ROUTE)
    points = ctx.timeline.points
    # Not when it was noticed: the turns of the loop in which tasks that have ended are cleared away are nobody's wait.
    points["ended"] = max([*points.values(), *[lane.since_ns for lane in ctx.lanes]])
    return FinishedRequest(
        ended_s=time.time(),  # noqa: TID251 - the time of the log's line
        request_id=ctx.request_id,
        client=ctx[HEAD].client,
        key=principal.name if principal else None,
        model=call.request.requested_model if call else None,
        target_model=call.request.target_model if call else None,
        deployment=call.deployment.id if call else None,
        stream=call.request.stream if call else None,
        end=_end_code(ctx, response, error, disconnect_reason),
        status=response.status,
        size_bytes=response.size_bytes,
        generation=generation,
        error=error.code if error is not None else failed.code if failed is not None else None,
        upstream_code=(error.upstream_code if error is not None else None)
        or (failed.upstream_code if failed else None),
        failure=error,
        usage=ctx.get(USAGE),
        timeline=ctx.timeline,
        lanes=ctx.lanes,
        links=ctx.links,
        attempts=ctx.get(ATTEMPTS) or [],
        health=route.notes if route is not None else None,
        arounds=ctx.get(AROUNDS) or [],
        skipped=ctx.skipped,
        mended=call.request.mended if call else set(),
    )


def request_record(finished: FinishedRequest) -> RequestRecord:
    """Return the record. What looks like a credential is removed from its names, of which a client chooses some."""
    timeline, lanes = finished.timeline, finished.lanes
    points, born_ns = timeline.points, timeline.born_ns
    # Divided in place, here and below: a call for each of a hundred figures costs more than the rest of a record.
    points_ms: dict[str, float] = {name: (ns - born_ns) // 1000 / 1000 for name, ns in points.items()}
    arrived_ms = points_ms.pop("client_arrived", None)
    client_ns, ours_ns, upstream_ns = timeline.parties_ns(points["ended"])
    stages = _stages(lanes)
    record = RequestRecord(
        request_id=redact(finished.request_id),
        client=finished.client,
        key=_shown(finished.key),
        model=_shown(finished.model),
        deployment=_shown(finished.deployment),
        stream=finished.stream,
        end=finished.end,
        status=finished.status,
        bytes=finished.size_bytes,
        events=next((stages[name].events_out for name in _ANSWERING if name in stages), 0),
        generation=finished.generation,
        total_ms=points_ms["ended"],
        before_ms=None if arrived_ms is None else points_ms.get("head_read"),
        first_byte_ms=points_ms.get("first_byte_out"),
        first_token_ms=points_ms.get("first_token_out"),
        party_ms={
            "client": client_ns // 1000 / 1000,
            "ours": ours_ns // 1000 / 1000,
            "upstream": upstream_ns // 1000 / 1000,
        },
        points_ms=points_ms,
        lanes=_lanes(lanes),
        stages=stages,
        links=_links(finished.links),
    )
    if finished.target_model is not None:
        record.target_model = redact(finished.target_model)
    if finished.attempts:
        record.attempts = [_attempt(attempt, born_ns) for attempt in finished.attempts]
    if finished.health:
        record.health = {what: [redact(id) for id in ids] for what, ids in finished.health.items()}
    if finished.arounds:
        record.arounds_ms = {around.name: around.own_ns // 1000 / 1000 for around in finished.arounds}
    if finished.skipped:
        record.skipped = sorted(set(finished.skipped))
    if finished.mended:
        record.mended = sorted(finished.mended)
    if finished.error is not None:
        record.error = finished.error
        if finished.upstream_code:
            record.upstream_code = finished.upstream_code
    if (failure := finished.failure) is not None:
        record.stage, record.upstream_status = failure.stage, failure.status_hint
    if (usage := finished.usage) is not None:
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    if transits_ns := timeline.transits_ns(0.5, 0.99, 1):
        half_ns, most_ns, longest_ns = transits_ns
        record.transit_ms = {
            "p50": half_ns // 1000 / 1000,
            "p99": most_ns // 1000 / 1000,
            "max": longest_ns // 1000 / 1000,
        }
    return record


def _lanes(lanes: list[Lane]) -> dict[str, LaneFigures]:
    return {
        lane.name: LaneFigures(
            [stage.name for stage in lane.stages],
            lane.lifetime_ns // 1000 / 1000,
            *[ns // 1000 / 1000 for ns in lane.spent_ns],  # in the order of `STATES`
        )
        for main in lanes
        for lane in (main, *main.more)
    }


def _stages(lanes: list[Lane]) -> dict[str, StageFigures]:
    return {
        stage.name: StageFigures(
            stage.busy_ns // 1000 / 1000,
            stage.outside_ns // 1000 / 1000,
            stage.flush_ns // 1000 / 1000,
            stage.batches_in,
            stage.events_in,
            stage.batches_out,
            stage.events_out,
        )
        for lane in lanes
        for stage in lane.stages
    }


def _links(links: list[Link[Any]]) -> dict[str, LinkFigures]:
    return {
        link.name: LinkFigures(
            link.ready_ns // 1000 / 1000, link.queued_ns // 1000 / 1000, link.full_ns // 1000 / 1000, link.batches
        )
        for link in links
    }


def _attempt(attempt: Attempt, born_ns: int) -> AttemptFigures:
    return AttemptFigures(
        deployment=redact(attempt.deployment),
        model=redact(attempt.model),
        reason=attempt.reason or UNSET,
        pause_ms=attempt.pause_s * 1e6 // 1 / 1000 if attempt.pause_s else UNSET,
        end=attempt.end,
        upstream_status=attempt.upstream_status or UNSET,
        began_ms=(attempt.began_ns - born_ns) // 1000 / 1000,
        ms=max(0, attempt.ended_ns - attempt.began_ns) // 1000 / 1000,  # given up in the pause before it, it took none
        events=attempt.events,
        lanes=_lanes(attempt.lanes),
        stages=_stages(attempt.lanes),
        links=_links(attempt.links),
    )


def _shown(name: str | None) -> str | None:
    return name if name is None else _redact_name(name) if len(name) < _LONG_NAME else redact(name)


_LONG_NAME: Final = 200
"""Longer ones are not kept: a client may write anything."""
_redact_name = lru_cache(maxsize=1024)(redact)  # the same few come again and again


def _end_code(
    ctx: RequestContext, response: AsgiResponse, error: PipelineError | None, disconnect_reason: str | None
) -> EndCode:
    if disconnect_reason is not None:
        return _DISCONNECTS.get(disconnect_reason) or row_of(disconnect_reason).end
    if error is not None:
        return row_of(error.code).end
    if (failed := ctx.get(FAILURE)) is not None:
        return row_of(failed.code).end
    return "OK" if response.ended else "DR"
