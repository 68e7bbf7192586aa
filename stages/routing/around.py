"""Routing of each call that something around the call makes: the same as that of a plain request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from pipeline import ClientFault, Overloaded, PipelineError, RequestContext, UpstreamFault
from stages.answer import Answer, Next
from stages.events import Usage
from stages.routing.router import ROUTE, Candidate
from stages.upstreams import UpstreamCall

UsageOf = Callable[[RequestContext, UpstreamCall], Usage | None]
"""Returns what a call has used, if it is the one whose answer the client gets and that is known."""


class RouteCall:
    """The innermost around, if anything is around the call.

    Args:
        usage_of: says what a call has used.
    """

    name = "route_call"

    def __init__(self, usage_of: UsageOf = lambda ctx, call: None) -> None:
        self._usage_of = usage_of

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
            route.end(self._usage_of(next.ctx, call))
