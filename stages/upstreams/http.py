"""What every upstream that is reached over HTTP shares: the request's fixed part, deadlines, faults, the answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx
import msgspec
import trio

from pipeline import ClientFault, PipelineError, UpstreamFault
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.faults import (
    FOREIGN_ERRORS,
    Phase,
    fault_of_exception,
    fault_of_status,
    fault_of_total,
    redact,
    secrets_in,
)
from stages.upstreams.http1 import check_header
from stages.wire.bad_request import BadRequest

ERROR_BODY_BYTES = 64 * 1024
"""How much of an error answer is read for the message in it; OpenAI's are under 1 KiB."""
ERROR_BODY_LIMIT_S = 5.0
"""How long an error answer may take to arrive; then its status has to do."""
_CLOSE_LIMIT_S = 2.0

_NOT_OVERRIDDEN = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding"})


def user_agent() -> str:
    """Return what we call ourselves towards upstreams."""
    try:
        return f"headrace/{version('headrace')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "headrace"


class Endpoint:
    """One deployment's address and headers, put into httpx's form once and used by each request.

    A request carries the deployment's own headers and: ``host``, ``user-agent``, ``content-type``, ``accept``,
    ``accept-encoding: identity``. The deployment's win, except over the framing and the encoding.

    Raises:
        UpstreamFault: ``upstream_unreachable`` if the address or a header cannot be sent at all.
    """

    def __init__(self, deployment: Deployment, agent: str) -> None:
        self.secrets = secrets_in(deployment.headers)
        fault: PipelineError | None = None
        own: dict[bytes, bytes] = {}
        try:
            self._url = httpx.URL(deployment.url)
            for name, value in deployment.headers:
                if name.lower() not in _NOT_OVERRIDDEN:
                    field, content = name.lower().encode("ascii"), value.encode("latin-1")
                    check_header(field, content)
                    own[field] = content
        except FOREIGN_ERRORS as error:
            fault = fault_of_exception(error, f"the upstream of deployment {deployment.id}", "head", {})
        if fault is not None:  # raised out here: inside, it would carry the foreign exception as its context
            raise fault
        fixed = {
            b"host": self._url.netloc,
            b"user-agent": agent.encode("ascii"),
            b"content-type": b"application/json",
            b"accept-encoding": b"identity",
        }
        self._headers = {
            stream: [*({**fixed, b"accept": accept, **own}).items()]
            for stream, accept in ((True, b"text/event-stream"), (False, b"application/json"))
        }

    def request(self, body: bytes, *, stream: bool, timeouts: dict[str, float | None]) -> httpx.Request:
        """Return a POST of ``body``; ``timeouts`` may be changed until its response has been read."""
        return httpx.Request(
            "POST",
            self._url,
            headers=[*self._headers[stream], (b"content-length", b"%d" % len(body))],
            stream=httpx.ByteStream(body),
            extensions={"timeout": timeouts},
        )


class HttpAnswer:
    """An answer with a good head; `UpstreamAnswer` says what it offers. Made by `open_answer`."""

    def __init__(self, parts: AsyncIterator[bytes], *, is_stream: bool, clock: _Clock) -> None:
        self._parts = parts
        self._is_stream = is_stream
        self._clock = clock

    @property
    def is_stream(self) -> bool:
        """Whether the body is server-sent events; else it is one JSON document."""
        return self._is_stream

    async def receive(self) -> bytes:
        """Give the next part of the body, all that one read of the socket had; ``b""`` when it is complete.

        Raises:
            UpstreamFault: ``upstream_timeout`` if nothing comes for too long or the call lasts too long,
                ``upstream_protocol`` if the connection breaks or what comes is not HTTP.
        """
        clock = self._clock
        if clock.total_at != math.inf:
            clock.bound_read()
        try:
            chunk = await anext(self._parts, b"")
        except FOREIGN_ERRORS as error:
            fault = clock.fault_of(error)
        else:
            if clock.phase != "idle":
                clock.enter("idle", clock.idle_s)
            return chunk
        raise fault  # out here: inside, it would carry the foreign exception as its context


class _Clock:
    """The deadlines of one call, kept by the transport; and what to say when one has passed."""

    def __init__(self, call: UpstreamCall) -> None:
        limits = call.deployment.timeouts
        self.who = f"the upstream of model {call.request.model[:100]!r}"
        self.phase: Phase = "head"
        self.total_s = limits.total_s
        self.total_at = math.inf if limits.total_s is None else trio.current_time() + limits.total_s
        self.first_event_s = limits.first_event_s
        self.idle_s = limits.idle_s
        self._read_s = limits.headers_s
        # Sending has no limit of its own in the configuration; it gets that of the wait which follows it.
        self.timeouts: dict[str, float | None] = {
            "connect": limits.connect_s,
            "pool": limits.connect_s,
            "write": limits.headers_s,
            "read": limits.headers_s,
        }

    def enter(self, phase: Phase, limit_s: float | None) -> None:
        """Bound the reads that follow by ``limit_s``."""
        self.phase = phase
        self._read_s = self.timeouts["read"] = limit_s

    def bound_read(self) -> None:
        """Bound the next read by what is left of the whole, too.

        Raises:
            UpstreamFault: if nothing is left.
        """
        left_s = self.total_at - trio.current_time()
        if left_s <= 0:
            raise fault_of_total(self.who, self.total_s)
        self.timeouts["read"] = left_s if self._read_s is None else min(self._read_s, left_s)

    def fault_of(self, error: Exception) -> PipelineError:
        """Say what ``error`` of the transport means at this point of the call."""
        if isinstance(error, httpx.ReadTimeout) and trio.current_time() >= self.total_at:
            return fault_of_total(self.who, self.total_s)
        limits_s = {"connect": self.timeouts["connect"], "write": self.timeouts["write"], self.phase: self._read_s}
        return fault_of_exception(error, self.who, self.phase, limits_s)


@asynccontextmanager
async def open_answer(
    transport: httpx.AsyncBaseTransport, endpoint: Endpoint, call: UpstreamCall, body: bytes
) -> AsyncGenerator[HttpAnswer]:
    """Post ``body`` and wait for a good head; leaving closes the connection, or gives it back if all was read.

    Raises:
        UpstreamFault: ``upstream_unreachable``, ``upstream_timeout`` or ``upstream_protocol`` if there is no answer,
            or none that we can read; by its status if it is an error.
        Overloaded: ``upstream_pool_full`` if no connection became free in time.
    """
    clock = _Clock(call)
    stream = call.request.stream
    response = await _head(transport, endpoint.request(body, stream=stream, timeouts=clock.timeouts), clock)
    assert isinstance(response.stream, httpx.AsyncByteStream)  # the contract of an asynchronous transport
    try:
        if not 200 <= response.status_code < 300:
            raise await _refusal(response, response.stream, clock, endpoint.secrets)
        is_stream = _is_event_stream(response, clock.who, wants_stream=stream, secrets=endpoint.secrets)
        clock.enter("first_event", clock.first_event_s)
        yield HttpAnswer(aiter(response.stream), is_stream=is_stream, clock=clock)
    finally:
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_LIMIT_S, shield=True):
            with suppress(*FOREIGN_ERRORS):  # it is over: how the connection ends concerns nobody
                await response.stream.aclose()


async def _head(transport: httpx.AsyncBaseTransport, request: httpx.Request, clock: _Clock) -> httpx.Response:
    fault: PipelineError
    try:
        if clock.total_at == math.inf:
            return await transport.handle_async_request(request)
        with trio.CancelScope(deadline=clock.total_at):
            return await transport.handle_async_request(request)
        fault = fault_of_total(clock.who, clock.total_s)
    except FOREIGN_ERRORS as error:
        fault = clock.fault_of(error)
    raise fault


async def _refusal(
    response: httpx.Response, stream: httpx.AsyncByteStream, clock: _Clock, secrets: frozenset[str]
) -> UpstreamFault:
    """Read what an error answer says, as far as it can be read soon, and name it."""
    body = bytearray()
    if response.headers.get("content-encoding", "identity") == "identity":
        with trio.move_on_after(ERROR_BODY_LIMIT_S), suppress(*FOREIGN_ERRORS):
            async for chunk in stream:
                body += chunk
                if len(body) > ERROR_BODY_BYTES:
                    break
    return fault_of_status(response.status_code, response.headers, bytes(body[:ERROR_BODY_BYTES]), clock.who, secrets)


def _is_event_stream(response: httpx.Response, who: str, *, wants_stream: bool, secrets: frozenset[str]) -> bool:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        # We asked for none, and some 400 KiB of gzip can be a single chunk of 64 MiB.
        raise UpstreamFault(
            f"{who} answered with content-encoding {_quoted(encoding, secrets)}, which was not asked for",
            code="upstream_protocol",
        )
    content_type = response.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream" or (not kind and wants_stream and response.status_code == 200):
        return True
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return False
    told = f"content-type {_quoted(kind, secrets)}" if kind else "no content-type"
    raise UpstreamFault(
        f"{who} answered with {told} where JSON or an event stream was expected; check api_base",
        code="upstream_protocol",
    )


def _quoted(value: str, secrets: frozenset[str]) -> str:
    return repr(redact(value[:100], secrets))


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

    def open(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[HttpAnswer]:
        """Send the request and wait for a good head; leaving the context closes or returns the connection.

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
        return open_answer(self._transport_for(deployment), endpoint, call, body)
