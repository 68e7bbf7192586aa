"""One deployment after the other, until one begins to answer.

The first attempt is an ordinary run of the pipeline, so that what most requests do costs nothing more. Only if it fails
before it has said anything, the next one follows, with its reasoning restored anew (ADR 0018). If something is around
the call, `stages.routing.around` does the same inside the pipeline.
"""

from __future__ import annotations

from typing import Final

import trio

from pipeline import Overloaded, PipelineError, RequestContext, UpstreamFault
from pipeline.gateway.asgi_client import AsgiResponse
from pipeline.gateway.assembly import Assembly
from stages.answer import Attempt
from stages.routing.router import ROUTE, Route
from stages.slots import ATTEMPTS, CALL, ENCODER, FAILURE
from stages.upstreams import UpstreamCall
from stages.upstreams.faults import fault_from

DEPLOYMENT: Final = b"x-headrace-deployment"
COUNT: Final = b"x-headrace-attempts"


async def answer_in_turn(
    assembly: Assembly, call: UpstreamCall, ctx: RequestContext, response: AsgiResponse, *, deadline_s: float
) -> PipelineError | None:
    """Answer a call by the deployments of its route; return what the last one has failed with, if all have.

    Args:
        assembly: the pipelines.
        call: the request, and the deployment that is asked first.
        ctx: the request's context.
        response: what the client gets; once it has any of an answer, nobody else is asked.
        deadline_s: when the client stops waiting, on trio's clock.
    """
    route = ctx[ROUTE]
    pipeline = assembly.answer(call, ctx)
    is_routed_within = assembly.routes_within(call, ctx)
    headers = response.headers
    request = ctx[CALL].request  # without restored reasoning
    count = 0
    while True:
        count += 1
        attempt = _Attempt(ctx, call)
        response.headers = [*headers, (DEPLOYMENT, _header(call.deployment.id)), (COUNT, b"%d" % count)]
        fault: PipelineError | None = None
        try:
            await pipeline.run([[call]], ctx)
        except PipelineError as error:
            fault = error
        finally:  # even if the client leaves in the middle of the answer
            if route.by_chat and _has_answered(ctx, response):
                route.note_by_chat()
        if fault is None or is_routed_within:
            _note_end(route, ctx, attempt, has_failed=fault is not None)
            if count > 1:
                attempt.note("OK" if fault is None else fault.code)
            break
        if _has_answered(ctx, response) or not isinstance(fault, UpstreamFault | Overloaded):
            if isinstance(fault, UpstreamFault):
                route.broke_off(fault, trio.current_time())
            break
        again = route.failed(fault, trio.current_time(), deadline_s=deadline_s)
        if again is not None or count > 1:
            attempt.note(fault.code)
        if again is None:
            fault = route.told(fault)
            break
        if again.pause_s:
            await trio.sleep(again.pause_s)
        call = again.candidate.called(UpstreamCall(request=request, deployment=call.deployment, model=call.model))
        ctx[CALL] = call
        ctx.forget(FAILURE)
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


def _note_end(route: Route, ctx: RequestContext, attempt: _Attempt, *, has_failed: bool) -> None:
    if (failed := ctx.get(FAILURE)) is not None:
        route.broke_off(fault_from(failed), trio.current_time())
    elif not has_failed:
        route.answered(trio.current_time(), latency_s=attempt.latency_s)


def _header(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


class _Attempt:
    """One run of the pipeline, whose figures become those of an attempt if another one follows."""

    def __init__(self, ctx: RequestContext, call: UpstreamCall) -> None:
        self._ctx = ctx
        self._call = call
        self._lanes, self._links = len(ctx.lanes), len(ctx.links)
        self._began_ns = ctx.timeline.clock()

    @property
    def latency_s(self) -> float:
        """How long the first token took."""
        timeline = self._ctx.timeline
        return (timeline.points.get("first_token", timeline.clock()) - self._began_ns) / 1e9

    def note(self, end: str) -> None:
        """Note it in the record; its lanes are there, and no longer among those of the request."""
        ctx = self._ctx
        attempts = ctx.get(ATTEMPTS)
        if attempts is None:
            attempts = ctx[ATTEMPTS] = []
        record = Attempt(
            self._call.deployment.id,
            self._call.model,
            ctx.lanes[self._lanes :],
            ctx.links[self._links :],
            self._began_ns,
        )
        record.ended_ns, record.end = ctx.timeline.clock(), end
        if end != "OK":
            del ctx.lanes[self._lanes :], ctx.links[self._links :]
        attempts.append(record)
