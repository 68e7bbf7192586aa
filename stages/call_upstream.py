"""Call the chosen upstream, and pass its bytes on as they arrive.

If the upstream refuses the reasoning of earlier turns (`stages.reasoning.refused`), it is asked once more without it,
and that reasoning is forgotten.

Takes: UpstreamCall, one. Gives: bytes, one item for each read of the socket; a Failed is the last item if the answer
broke off after its head.
Holds: one chunk. Waits: for its turn to work on a large body, for the upstream (declared), before a repetition, and in
overload before it reads again.
Fills: IS_STREAM.
Raises: UpstreamFault or Overloaded if no good head arrives: nothing has been sent on yet, so it can become a status;
ClientFault ``invalid_request`` if the request cannot be translated for this upstream.
On cancellation the upstream connection is closed at once, unless the next stage has all it wants: then only the end of
the answer is missing, and the connection may be used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from pipeline import Inlet, Outlet, Overloaded, Party, RequestContext, UpstreamFault
from pipeline.lane import Outside
from stages.events import Failed
from stages.large_bodies import in_slices
from stages.reasoning.refused import refuses_reasoning, without_reasoning
from stages.slots import IS_STREAM, SENT_REASONING, TRACE_CONTEXT
from stages.upstreams import Upstream, UpstreamAnswer, UpstreamCall, UpstreamKind
from stages.upstreams.faults import failed_from
from stages.wire.slices import LARGE_BYTES


class CallUpstream:
    """The stage, with the kinds of upstream that it can call."""

    name = "call_upstream"
    accepts = UpstreamCall
    emits = bytes | Failed
    may_be_pulled = True  # it gives in its own task, outside of any cancel scope or nursery

    # Any: what an upstream prepares goes to the same upstream, and is not looked at here.
    def __init__(self, upstreams: Mapping[UpstreamKind, Upstream[Any]]) -> None:
        self._upstreams = upstreams

    async def run(self, inlet: Inlet[UpstreamCall], outlet: Outlet[bytes | Failed], ctx: RequestContext) -> None:
        """Relay each call's answer."""
        waiting = outlet.outside(Party.UPSTREAM)
        backing_off = outlet.outside()
        timeline = ctx.timeline
        async for batch in inlet:
            for call in batch:
                if call.pause_s:
                    with backing_off:
                        await trio.sleep(call.pause_s)
                answer = await self._open(call, waiting, ctx)
                try:
                    is_stream = ctx[IS_STREAM] = answer.is_stream
                    while True:
                        if answer.is_backing_off:
                            with backing_off:
                                await answer.back_off()
                        try:
                            with waiting:
                                chunk = await answer.receive()
                                waiting.arrived_ns = answer.arrived_ns
                        except (UpstreamFault, Overloaded) as fault:
                            await outlet.send([failed_from(fault)])
                            break
                        if not chunk:
                            break
                        if answer.is_stream is not is_stream:  # the first bytes of a body may correct its type
                            is_stream = ctx[IS_STREAM] = answer.is_stream
                        await outlet.send([chunk])
                        del chunk  # it may be 64 KiB, and the next wait may be long
                    timeline.mark_once("upstream_end")
                finally:
                    await answer.aclose(is_answered=outlet.is_abandoned)
                    timeline.mark("upstream_closed")

    async def _open(self, call: UpstreamCall, waiting: Outside, ctx: RequestContext) -> UpstreamAnswer:
        """Open an answer, and if the reasoning in the request was refused, one to the request without it."""
        try:
            return await self._asked(call, waiting, ctx)
        except UpstreamFault as fault:
            sent = ctx.get(SENT_REASONING)
            plain_input = None if sent is None else sent.plain_input
            request = without_reasoning(call.request, plain_input) if refuses_reasoning(fault) else None
            if request is None:
                raise
        answer = await self._asked(replace(call, request=request), waiting, ctx)
        call.request.mended.add("thinking_dropped")
        if sent is not None:
            sent.forget()
        return answer

    async def _asked(self, call: UpstreamCall, waiting: Outside, ctx: RequestContext) -> UpstreamAnswer:
        """Ask, and wait for a good head. The encoded request, which may be megabytes, is not kept."""
        if (trace_context := ctx.get(TRACE_CONTEXT)) is not None:
            call = replace(call, headers=trace_context.headers())
        upstream = self._upstreams[call.deployment.kind]
        size_bytes = call.request.size_bytes
        prepared = (
            upstream.prepare(call)
            if size_bytes < LARGE_BYTES
            else await in_slices(size_bytes, partial(upstream.prepare, call))
        )
        with waiting:
            answer = await upstream.open(prepared, ctx.timeline.mark)
            waiting.arrived_ns = answer.arrived_ns
        return answer


# Any: as above.
def call_upstream(upstreams: Mapping[UpstreamKind, Upstream[Any]]) -> CallUpstream:
    """Return the stage."""
    return CallUpstream(upstreams)
