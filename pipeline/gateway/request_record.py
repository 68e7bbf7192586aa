"""The log record of a finished request: how it ended and where its time went. No prompt, no answer, no key."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

from pipeline import Doing, Meter, PipelineError, RequestContext
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.failures import EndCode, row_of
from stages.slots import CALL, FAILURE, PRINCIPAL, USAGE

Record = dict[str, object]

_DISCONNECTS: Final[dict[str, EndCode]] = {"left": "DC", "stalled": "DS"}


def request_record(
    ctx: RequestContext,
    response: AsgiResponse,
    *,
    born_ns: int,
    error: PipelineError | None,
    disconnect_reason: str | None,
) -> Record:
    """Return the record of a request that has just ended.

    Args:
        ctx: the request's context.
        response: what was sent.
        born_ns: when the request began.
        error: what ended the request, if anything did.
        disconnect_reason: why the client is gone, if it is: ``left``, ``stalled``, or the code of what was wrong with
            its body.
    """
    call, principal, usage = ctx.get(CALL), ctx.get(PRINCIPAL), ctx.get(USAGE)
    meters = {meter.name: meter for meter in ctx.meters}
    calling, decoding = meters.get("call_upstream"), meters.get("decode_events")
    record: Record = {
        "request_id": ctx.request_id,
        "key": principal.name if principal else None,
        "model": call.request.model if call else None,
        "deployment": call.deployment.id if call else None,
        "stream": call.request.stream if call else None,
        "end": _end_code(ctx, response, error, disconnect_reason),
        "status": response.status,
        "bytes": response.size_bytes,
        "events": decoding.events_out if decoding else 0,
        "first_byte_ms": None,
        "total_ms": _ms(perf_counter_ns() - born_ns),
        "upstream_wait_ms": _ms(calling.spent_ns[Doing.OUTSIDE] if calling else 0),
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
    record["stages"] = {name: _stage_times(meter) for name, meter in meters.items()}
    return record


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


def _stage_times(meter: Meter) -> Record:
    # Divided in place: a call for each of a dozen stages' times costs several microseconds per request.
    starved_ns, busy_ns, outside_ns, blocked_ns, closing_ns = meter.spent_ns  # in the order of `Doing`
    return {
        "starved_ms": starved_ns // 1000 / 1000,
        "busy_ms": busy_ns // 1000 / 1000,
        "outside_ms": outside_ns // 1000 / 1000,
        "blocked_ms": blocked_ns // 1000 / 1000,
        "closing_ms": closing_ns // 1000 / 1000,
        "queued_ms": meter.queued_ns // 1000 / 1000,
    }


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns // 1000 / 1000
