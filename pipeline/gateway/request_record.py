"""The log record of a finished request: how it ended and where its time went. No prompt, no answer, no key."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from pipeline import PipelineError, RequestContext
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.failures import EndCode, row_of
from stages.slots import CALL, FAILURE, PRINCIPAL, USAGE

Record = dict[str, object]

_DISCONNECTS: Final[dict[str, EndCode]] = {"left": "DC", "stalled": "DS"}
_DECODING: Final = "decode_events"


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


def request_record(
    ctx: RequestContext, response: AsgiResponse, *, error: PipelineError | None, disconnect_reason: str | None
) -> Record:
    """Return the record of a request that has just ended; durations are in ms.

    Args:
        ctx: the request's context.
        response: what was sent.
        error: what ended the request, if anything did.
        disconnect_reason: why the client is gone, if it is: ``left``, ``stalled``, or the code of what was wrong with
            its body.
    """
    call, principal, usage = ctx.get(CALL), ctx.get(PRINCIPAL), ctx.get(USAGE)
    timeline = ctx.timeline
    points, born_ns = timeline.points, timeline.born_ns
    # Not now: the turns of the loop in which tasks that have ended are cleared away are nobody's wait.
    points["ended"] = max([*points.values(), *(lane.since_ns for lane in ctx.lanes)])
    # Divided in place, here and below: a call for each of a hundred figures costs more than the rest of a record.
    points_ms: dict[str, float] = {name: (ns - born_ns) // 1000 / 1000 for name, ns in points.items()}
    arrived_ms = points_ms.pop("client_arrived", None)
    client_ns, ours_ns, upstream_ns = timeline.parties_ns(points["ended"])
    stages = _stages(ctx)
    record: Record = {
        "request_id": ctx.request_id,
        "key": principal.name if principal else None,
        "model": call.request.model if call else None,
        "deployment": call.deployment.id if call else None,
        "stream": call.request.stream if call else None,
        "end": _end_code(ctx, response, error, disconnect_reason),
        "status": response.status,
        "bytes": response.size_bytes,
        "events": stages[_DECODING].events_out if _DECODING in stages else 0,
        "total_ms": points_ms["ended"],
        "before_ms": None if arrived_ms is None else points_ms.get("head_read"),
        "first_byte_ms": points_ms.get("first_byte_out"),
        "first_token_ms": points_ms.get("first_token_out"),
    }
    if error is not None:
        record["error"] = error.code
        record["stage"] = error.stage
        record["upstream_status"] = error.status_hint
    elif (failed := ctx.get(FAILURE)) is not None:
        record["error"] = failed.code
    if usage is not None:
        record["prompt_tokens"] = usage.prompt_tokens
        record["completion_tokens"] = usage.completion_tokens
    record["party_ms"] = {
        "client": client_ns // 1000 / 1000,
        "ours": ours_ns // 1000 / 1000,
        "upstream": upstream_ns // 1000 / 1000,
    }
    record["points_ms"] = points_ms
    record["lanes"] = {
        lane.name: LaneFigures(
            [stage.name for stage in lane.stages],
            lane.lifetime_ns // 1000 / 1000,
            *[ns // 1000 / 1000 for ns in lane.spent_ns],  # in the order of `STATES`
        )
        for main in ctx.lanes
        for lane in (main, *main.more)
    }
    record["stages"] = stages
    record["links"] = {
        link.name: LinkFigures(
            link.ready_ns // 1000 / 1000, link.queued_ns // 1000 / 1000, link.full_ns // 1000 / 1000, link.batches
        )
        for link in ctx.links
    }
    if transits_ns := timeline.transits_ns(0.5, 0.99, 1):
        half_ns, most_ns, longest_ns = transits_ns
        record["transit_ms"] = {
            "p50": half_ns // 1000 / 1000,
            "p99": most_ns // 1000 / 1000,
            "max": longest_ns // 1000 / 1000,
        }
    return record


def _stages(ctx: RequestContext) -> dict[str, StageFigures]:
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
        for lane in ctx.lanes
        for stage in lane.stages
    }


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
