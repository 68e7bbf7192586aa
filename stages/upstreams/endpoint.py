"""A deployment's address and headers: everything that is the same in all of its requests, prepared once."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import httpx

from pipeline import PipelineError
from stages.upstreams import Deployment
from stages.upstreams.faults import fault_of_exception
from stages.upstreams.transport.exchange import FOREIGN_ERRORS, Exchange, HttpxExchange, Mark
from stages.upstreams.transport.http1 import request_head
from stages.upstreams.transport.transport import HeadraceTransport, origin_of
from stages.wire.redaction import secrets_in

_NOT_OVERRIDDEN = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding"})
_ACCEPT = {True: b"text/event-stream", False: b"application/json"}


def user_agent() -> str:
    """Return the ``user-agent`` that upstreams see."""
    try:
        return f"headrace/{version('headrace')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "headrace"


class Endpoint:
    """One deployment's address and headers.

    A request carries the deployment's own headers and: ``host``, ``user-agent``, ``content-type``, ``accept``,
    ``accept-encoding: identity``. The deployment's take precedence, except over the framing and the encoding.

    Attributes:
        secrets: what must not appear in any message.

    Raises:
        UpstreamFault: ``upstream_unreachable`` if the address or a header cannot be sent at all.
    """

    def __init__(self, deployment: Deployment, agent: str) -> None:
        self.secrets = secrets_in(deployment.headers)
        limits = deployment.timeouts
        # The configuration has no limit for sending; it gets that of the wait which follows.
        self._timeouts: dict[str, float | None] = {
            "connect": limits.connect_s,
            "pool": limits.connect_s,
            "write": limits.headers_s,
            "read": limits.headers_s,
        }
        fault: PipelineError | None = None
        try:
            self._url = httpx.URL(deployment.url)
            self._origin = origin_of(self._url)
            own = {
                name.lower().encode("ascii"): value.encode("latin-1")
                for name, value in deployment.headers
                if name.lower() not in _NOT_OVERRIDDEN
            }
            fixed = {
                b"host": self._url.netloc,
                b"user-agent": agent.encode("ascii"),
                b"content-type": b"application/json",
                b"accept-encoding": b"identity",
            }
            self._headers = {
                stream: [*({**fixed, b"accept": accept, **own}).items()] for stream, accept in _ACCEPT.items()
            }
            self._heads = {
                stream: request_head("POST", self._url.raw_path, headers) + b"content-length: "
                for stream, headers in self._headers.items()
            }
        except FOREIGN_ERRORS as error:
            fault = fault_of_exception(error, f"the upstream of deployment {deployment.id}", "head", {})
        if fault is not None:  # outside the handler: inside, it would carry the foreign exception as its context
            raise fault

    async def post(self, transport: httpx.AsyncBaseTransport, body: bytes, mark: Mark, *, stream: bool) -> Exchange:
        """Send ``body`` and return the answer when its head has arrived.

        Raises:
            httpx.HTTPError: as the transport does; see `HeadraceTransport.exchange`.
        """
        if isinstance(transport, HeadraceTransport):
            data = b"%b%d\r\n\r\n%b" % (self._heads[stream], len(body), body)
            return await transport.exchange(self._origin, "POST", data, self._timeouts, mark)
        timeouts = self._timeouts.copy()
        request = httpx.Request(
            "POST",
            self._url,
            headers=[*self._headers[stream], (b"content-length", b"%d" % len(body))],
            stream=httpx.ByteStream(body),
            extensions={"timeout": timeouts, "mark": mark},
        )
        return HttpxExchange(await transport.handle_async_request(request), timeouts)
