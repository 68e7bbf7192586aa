"""What every upstream that is reached over HTTP shares: asking, deadlines, faults, the answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import trio

from pipeline import ClientFault, PipelineError, UpstreamFault
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.endpoint import Endpoint, user_agent
from stages.upstreams.faults import Phase, fault_of_exception, fault_of_status, fault_of_total
from stages.upstreams.transport.exchange import FOREIGN_ERRORS, Exchange
from stages.wire.bad_request import BadRequest
from stages.wire.redaction import message_to_show

ERROR_BODY_BYTES = 64 * 1024
"""How much of an error answer is read for the message in it; OpenAI's are under 1 KiB."""
ERROR_BODY_LIMIT_S = 5.0
"""How long an error answer may take to arrive; then its status has to do."""

END_LIMIT_S = 1.0
"""How long the end of a body may take whose last event is here. Servers send both at once; where one keeps its stream
open, the client of a whole document would wait for nothing, and its connection could take no other request."""


class HttpUpstream(ABC):
    """An `Upstream` over HTTP: what all kinds share. One serves all deployments of its kind, and all requests.

    The upstream gets the body that the kind makes and the headers of the deployment: nothing else of the client's or of
    ours.

    Args:
        transport_for: gives the transport that reaches a deployment; its connections are the giver's to close.
    """

    def __init__(self, transport_for: Callable[[Deployment], httpx.AsyncBaseTransport]) -> None:
        self._transport_for = transport_for
        self._agent = user_agent()
        self._endpoints: dict[str, Endpoint] = {}

    @abstractmethod
    def body(self, call: UpstreamCall) -> dict[str, Any]:
        """Make the request's body, JSON that can be encoded.

        Raises:
            BadRequest: if the request has no form in this kind of API.
        """

    async def open(self, call: UpstreamCall, /) -> HttpAnswer:
        """Send the request and wait for a good head; the caller closes the answer.

        Raises:
            ClientFault: ``invalid_request`` if the request has no form in this kind of API.
            UpstreamFault: ``upstream_unreachable``, ``upstream_timeout`` or ``upstream_protocol`` if there is no answer
                that we can read; ``upstream_rate_limited``, ``upstream_unauthorized``, ``upstream_not_found``,
                ``upstream_rejected`` or ``upstream_error`` if it answers with an error status.
            Overloaded: ``upstream_pool_full`` if no connection became free in time.
        """
        deployment = call.deployment
        endpoint = self._endpoints.get(deployment.id)
        if endpoint is None:
            endpoint = self._endpoints[deployment.id] = Endpoint(deployment, self._agent)
        try:
            body = msgspec.json.encode(self.body(call))
        except BadRequest as bad:
            raise ClientFault(bad.message, param=bad.param, code=bad.code) from None
        clock = _Clock(call)
        exchange = await _exchange(self._transport_for(deployment), endpoint, body, clock)
        try:
            if not 200 <= exchange.status < 300:
                raise await _refusal(exchange, clock, endpoint.secrets)
            is_stream = _is_event_stream(exchange, clock, endpoint.secrets)
        except BaseException:
            await exchange.aclose()
            raise
        clock.enter("first_event", deployment.timeouts.first_event_s)
        return HttpAnswer(exchange, clock, is_stream=is_stream)


class HttpAnswer:
    """An answer with a good head; `UpstreamAnswer` says what it offers."""

    __slots__ = ("_clock", "_exchange", "is_stream")

    def __init__(self, exchange: Exchange, clock: _Clock, *, is_stream: bool) -> None:
        self._exchange = exchange
        self._clock = clock
        self.is_stream = is_stream

    async def receive(self) -> bytes:
        """Give the next part of the body, all that one read of the socket had; ``b""`` when it is complete.

        Raises:
            UpstreamFault: ``upstream_timeout`` if nothing comes for too long or the call lasts too long,
                ``upstream_protocol`` if the connection breaks or what comes is not HTTP.
        """
        clock = self._clock
        limit_s = clock.limit_s if clock.total_at == math.inf else clock.bounded_limit_s()
        try:
            chunk = await self._exchange.receive(limit_s)
        except FOREIGN_ERRORS as error:
            fault = clock.fault_of(error)
        else:
            if clock.phase != "idle":
                clock.enter("idle", clock.call.deployment.timeouts.idle_s)
            return chunk
        raise fault  # out here: inside, it would carry the foreign exception as its context

    def expect_end(self) -> None:
        """Wait no longer than `END_LIMIT_S` for what follows, beginning now."""
        self._clock.enter("idle", END_LIMIT_S)
        self._exchange.hurry(END_LIMIT_S)

    async def aclose(self) -> None:
        """Close the connection, or give it back if all was read."""
        await self._exchange.aclose()


class _Clock:
    """The deadlines of one call, and what to say when one has passed."""

    __slots__ = ("call", "limit_s", "phase", "total_at")

    def __init__(self, call: UpstreamCall) -> None:
        limits = call.deployment.timeouts
        self.call = call
        self.phase: Phase = "head"
        self.limit_s = limits.headers_s
        self.total_at = math.inf if limits.total_s is None else trio.current_time() + limits.total_s

    @property
    def who(self) -> str:
        """Name the upstream to the client."""
        return f"the upstream of model {self.call.request.model[:100]!r}"

    def enter(self, phase: Phase, limit_s: float | None) -> None:
        """Bound the reads that follow by ``limit_s``."""
        self.phase = phase
        self.limit_s = limit_s

    def bounded_limit_s(self) -> float:
        """Give how long the next read may take if what is left of the whole is a bound too.

        Raises:
            UpstreamFault: if nothing is left.
        """
        left_s = self.total_at - trio.current_time()
        if left_s <= 0:
            raise self.fault_of_total()
        return left_s if self.limit_s is None else min(self.limit_s, left_s)

    def fault_of(self, error: Exception) -> PipelineError:
        """Say what ``error`` of the transport means at this point of the call."""
        if isinstance(error, httpx.ReadTimeout) and trio.current_time() >= self.total_at:
            return self.fault_of_total()
        limits = self.call.deployment.timeouts
        limits_s = {"connect": limits.connect_s, "write": limits.headers_s, self.phase: self.limit_s}
        return fault_of_exception(error, self.who, self.phase, limits_s)

    def fault_of_total(self) -> UpstreamFault:
        """Say that the call has lasted too long as a whole."""
        return fault_of_total(self.who, self.call.deployment.timeouts.total_s)


async def _exchange(transport: httpx.AsyncBaseTransport, endpoint: Endpoint, body: bytes, clock: _Clock) -> Exchange:
    stream = clock.call.request.stream
    fault: PipelineError
    try:
        if clock.total_at == math.inf:
            return await endpoint.post(transport, body, stream=stream)
        with trio.CancelScope(deadline=clock.total_at):
            return await endpoint.post(transport, body, stream=stream)
        fault = clock.fault_of_total()
    except FOREIGN_ERRORS as error:
        fault = clock.fault_of(error)
    raise fault


async def _refusal(exchange: Exchange, clock: _Clock, secrets: frozenset[str]) -> UpstreamFault:
    """Read what an error answer says, as far as it can be read soon, and name it."""
    headers = httpx.Headers(exchange.headers)
    body = bytearray()
    if headers.get("content-encoding", "identity") == "identity":
        with trio.move_on_after(ERROR_BODY_LIMIT_S), suppress(*FOREIGN_ERRORS):
            while len(body) <= ERROR_BODY_BYTES and (chunk := await exchange.receive(clock.limit_s)):
                body += chunk
    return fault_of_status(exchange.status, headers, bytes(body[:ERROR_BODY_BYTES]), clock.who, secrets)


def _is_event_stream(exchange: Exchange, clock: _Clock, secrets: frozenset[str]) -> bool:
    headers = dict(exchange.headers)
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        # We asked for none, and some 400 KiB of gzip can be a single chunk of 64 MiB.
        raise UpstreamFault(
            f"{clock.who} answered with content-encoding {_quoted(encoding, secrets)}, which was not asked for",
            code="upstream_protocol",
        )
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"text/event-stream" or (not kind and clock.call.request.stream and exchange.status == 200):
        return True
    if kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return False
    told = f"content-type {_quoted(kind, secrets)}" if kind else "no content-type"
    raise UpstreamFault(
        f"{clock.who} answered with {told} where JSON or an event stream was expected; check api_base",
        code="upstream_protocol",
    )


def _quoted(value: bytes, secrets: frozenset[str]) -> str:
    return repr(message_to_show(value.decode("latin-1"), secrets, max_characters=100))
