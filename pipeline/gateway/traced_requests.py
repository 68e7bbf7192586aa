"""Which requests are traced batch by batch: one in so many, and those whose key may ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline import RequestContext
from pipeline.tracing import Trace
from stages.slots import PRINCIPAL, ReceivedHead
from stages.wire.trace_context import TRACEPARENT, TRACESTATE, TraceContext, read_trace_context

TRACE_HEADER: Final = b"x-headrace-trace"


class AskedTrace(Trace):
    """A trace that a header asks for; it is kept only if the key may ask for it, which is not known at once."""

    __slots__ = ()


class TracedRequests:
    """Chooses the requests of this process that are traced.

    Args:
        one_in: each of so many is traced, the last of them; 0 for none.
    """

    def __init__(self, one_in: int) -> None:
        self._one_in = one_in
        self._count = 0

    def begin(self, headers: Mapping[bytes, bytes]) -> Trace | None:
        """Return the trace of a request that has just come; None if it is not traced."""
        if self._one_in:
            self._count += 1
            if self._count >= self._one_in:
                self._count = 0
                return Trace()
        return AskedTrace() if headers.get(TRACE_HEADER) == b"1" else None

    def take_over(self, before: TracedRequests) -> None:
        """Go on counting where those of another configuration have come to."""
        self._count = before._count


def kept_trace(ctx: RequestContext) -> Trace | None:
    """Return the trace of a request if there is one, and its key may have it."""
    trace = ctx.trace
    if isinstance(trace, AskedTrace):
        principal = ctx.get(PRINCIPAL)
        if principal is None or not (principal.is_master or principal.may_trace):
            return None
    return trace


def trace_context_of(head: ReceivedHead) -> TraceContext | None:
    """Return the trace context that a request came with, if it is valid."""
    parent = head.headers.get(TRACEPARENT)
    if parent is None or TRACEPARENT in head.differing:
        return None
    return read_trace_context(parent, head.headers.get(TRACESTATE, b""))
