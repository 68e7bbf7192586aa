"""Routing of each call that something around the call makes: the same as that of a plain request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from pipeline import ClientFault, Overloaded, PipelineError, UpstreamFault
from stages.answer import Answer, Next
from stages.routing.router import ROUTE, Candidate
from stages.upstreams import UpstreamCall


class RouteCall:
    """The innermost around, if anything is around the call."""

    name = "route_call"

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncGenerator[Answer]:
        """Ask the deployment of the call, and others if it does not begin to answer and is the request's own."""
        route = next.ctx[ROUTE].from_candidate(Candidate(call.deployment, call.model), trio.current_time())
        if (chosen := route.candidate) is not None and chosen.deployment is not call.deployment:
            call = chosen.called(call)
        try:
            while True:
                failed: PipelineError | None = None
                async with AsyncExitStack() as opened:
                    try:
                        answer = await opened.enter_async_context(next(call))
                    except (UpstreamFault, Overloaded, ClientFault) as fault:
                        failed = fault
                    else:
                        route.answered(trio.current_time())
                        yield answer
                        return
                again = route.failed(failed, trio.current_time(), deadline_s=call.deadline_s)
                if again is None:
                    failed = route.told(failed)
                    try:
                        raise failed
                    finally:
                        del failed  # else it would refer to itself by way of this frame
                call = again.called(call)
        finally:
            route.end()
