"""One deployment after the other, until one begins to answer.

The first attempt is an ordinary run of the pipeline, so that what most requests do costs nothing more. Only if it fails
before it has said anything, the next one follows, with its reasoning restored anew (ADR 0018). If something is around
the call, `stages.routing.around` does the same inside the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from pipeline import ClientFault, Overloaded, PipelineError, RequestContext, UpstreamFault
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.assembly import Assembly
from stages.admission.refusals import RateLimited
from stages.answer import GIVEN_UP, attempt_at
from stages.routing.router import ROUTE, Candidate, Route
from stages.slots import ATTEMPTS, CALL, ENCODER, FAILURE, SENT_REASONING, USAGE
from stages.upstreams import UpstreamCall
from stages.upstreams.faults import fault_from


async def answer_in_turn(
    assembly: Assembly,
    call: UpstreamCall,
    ctx: RequestContext,
    response: AsgiResponse,
    *,
    on_first_token: Callable[[], object] | None = None,
) -> PipelineError | None:
    """Answer a call by the deployments of its route; return what the last one has failed with, if all have.

    Args:
        assembly: the pipelines.
        call: the request, and the deployment that is asked first.
        ctx: the request's context.
        response: what the client gets; once it has any of an answer, nobody else is asked.
        on_first_token: called when the first deployment begins to answer that does so in one of these attempts.
    """

    def note_first_token() -> None:
        route.answered(trio.current_time())
        if on_first_token is not None:
            on_first_token()

    route = ctx[ROUTE]
    pipeline = assembly.answer(call, ctx)
    is_routed_within = assembly.routes_within(call, ctx)
    if is_routed_within:
        route.hand_over()
    elif route.candidate is None or route.candidate.deployment.id != call.deployment.id:
        # An added stage has chosen another one than routing.
        route.hand_over()
        try:
            route = ctx[ROUTE] = route.from_candidate(Candidate(call.deployment, call.model), trio.current_time())
        except RateLimited as full:
            return full
    if not is_routed_within:
        ctx.timeline.on_first_token = note_first_token
    chosen = ctx[CALL]  # without restored reasoning
    count = 0
    while True:
        count += 1
        attempt = _Attempt(ctx, call)
        response.answered_by(call.deployment.id, count)
        fault: PipelineError | None = None
        try:
            await pipeline.run([[call]], ctx)
        except PipelineError as error:
            fault = error
        except BaseException:  # the client has disconnected
            if count > 1:
                attempt.note(None, end=GIVEN_UP)
            raise
        if fault is None or is_routed_within:
            if fault is None:
                _note_end(route, ctx)
            elif attempts := ctx.get(ATTEMPTS):
                response.answered_by(attempts[-1].deployment, len(attempts))
            if count > 1:
                failed = ctx.get(FAILURE)
                attempt.note(fault, end="OK" if failed is None else failed.code)
            break
        is_ours = isinstance(fault, UpstreamFault | Overloaded | ClientFault) and fault.stage not in assembly.added
        if _has_answered(ctx, response) or not is_ours:
            if is_ours and isinstance(fault, UpstreamFault):
                route.broke_off(fault, trio.current_time(), call.deployment)
            if count > 1:
                attempt.note(fault)
            break
        again = route.failed(fault, trio.current_time(), deadline_s=chosen.deadline_s)
        if again is not None or count > 1:
            attempt.note(fault)
        if again is None:
            fault = route.told(fault)
            break
        call = again.called(chosen)
        ctx[CALL] = call
        ctx.forget(FAILURE)
        ctx.forget(SENT_REASONING)
        ctx.forget(USAGE)
        ctx.timeline.forget_answer()
        pipeline = assembly.answer(call, ctx, is_again=True)
    try:
        return fault
    finally:
        del fault  # else its traceback holds this frame, which holds it: garbage that only the collector frees


def _has_answered(ctx: RequestContext, response: AsgiResponse) -> bool:
    """Return whether the client has been sent anything of an answer; comments are nothing."""
    if response.status is None:
        return False
    encoder = ctx.get(ENCODER)
    return encoder is None or encoder.has_written or response.ended


def _note_end(route: Route, ctx: RequestContext) -> None:
    if (failed := ctx.get(FAILURE)) is not None:
        call, now_s, attempts = ctx[CALL], trio.current_time(), ctx.get(ATTEMPTS)
        was_asked = route.candidate is not None or any(one.deployment == call.deployment.id for one in attempts or ())
        if (
            was_asked and now_s < call.deadline_s
        ):  # else something around the call says so, or a long answer was cut off
            route.broke_off(fault_from(failed), now_s, call.deployment)
    elif not route.has_answered:  # without a token
        route.answered(trio.current_time())


class _Attempt:
    """One run of the pipeline, whose figures become those of an attempt if another one follows."""

    __slots__ = ("_asked_ns", "_call", "_ctx", "_lanes", "_links")

    def __init__(self, ctx: RequestContext, call: UpstreamCall) -> None:
        self._ctx = ctx
        self._call = call
        self._lanes, self._links = len(ctx.lanes), len(ctx.links)
        self._asked_ns = ctx.timeline.clock()

    def note(self, fault: PipelineError | None, *, end: str = "OK") -> None:
        """Note it in the record. If it has failed its lanes are there, and no longer among those of the request.

        Args:
            fault: what it has failed with, if it has.
            end: how it has ended otherwise.
        """
        ctx = self._ctx
        attempts = ctx.get(ATTEMPTS)
        if attempts is None:
            attempts = ctx[ATTEMPTS] = []
        record = attempt_at(self._call, ctx.lanes[self._lanes :], ctx.links[self._links :], self._asked_ns)
        record.ended_ns, record.end = ctx.timeline.clock(), end
        record.events = sum(
            stage.events_out for lane in record.lanes for stage in lane.stages if stage.name == "decode_events"
        )
        if fault is not None:
            record.end, record.upstream_status = fault.code, fault.status_hint
            del ctx.lanes[self._lanes :], ctx.links[self._links :]
        attempts.append(record)
