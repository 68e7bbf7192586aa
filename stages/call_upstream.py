"""Call the chosen upstream, and pass its bytes on as they arrive.

Takes: UpstreamCall, one. Gives: bytes, one item for each read of the socket; a Failed is the last item if the answer
broke off after its head.
Holds: one chunk. Waits: for the upstream (declared). Fills: ANSWER.
Raises: UpstreamFault or Overloaded if no good head arrives: nothing has been sent on yet, so it can become a status;
ClientFault ``invalid_request`` if the request cannot be translated for this upstream.
On cancellation the upstream connection is closed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import Inlet, Outlet, Overloaded, RequestContext, UpstreamFault
from stages.events import Failed
from stages.slots import ANSWER
from stages.upstreams import Upstream, UpstreamCall, UpstreamKind
from stages.upstreams.faults import failed_from


class CallUpstream:
    """The stage, with the kinds of upstream that it can call."""

    name = "call_upstream"
    accepts = UpstreamCall
    emits = bytes | Failed

    # Any: what an upstream prepares goes to the same upstream, and is not looked at here.
    def __init__(self, upstreams: Mapping[UpstreamKind, Upstream[Any]]) -> None:
        self._upstreams = upstreams

    async def run(self, inlet: Inlet[UpstreamCall], outlet: Outlet[bytes | Failed], ctx: RequestContext) -> None:
        """Relay each call's answer."""
        outside = outlet.meter.outside()
        async for batch in inlet:
            for call in batch:
                upstream = self._upstreams[call.deployment.kind]
                prepared = upstream.prepare(call)
                with outside:
                    answer = await upstream.open(prepared, _unmarked)
                del prepared  # it holds the encoded request, which may be megabytes
                try:
                    ctx[ANSWER] = answer
                    while True:
                        if answer.is_backing_off:
                            with outside:
                                await answer.back_off()
                        try:
                            with outside:
                                chunk = await answer.receive()
                        except (UpstreamFault, Overloaded) as fault:
                            await outlet.send([failed_from(fault)])
                            break
                        if not chunk:
                            break
                        await outlet.send([chunk])
                        del chunk  # it may be 64 KiB, and the next wait may be long
                finally:
                    await answer.aclose(is_answered=False)


def _unmarked(point: str) -> None:
    """Note nothing."""


# Any: as above.
def call_upstream(upstreams: Mapping[UpstreamKind, Upstream[Any]]) -> CallUpstream:
    """Return the stage."""
    return CallUpstream(upstreams)
