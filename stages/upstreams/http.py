"""Call an upstream over HTTP: the request, the deadlines, the faults, the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import httpx
import msgspec
import trio
from msgspec import Struct

from pipeline import ClientFault, PipelineError, UpstreamFault
from stages.upstreams import Deployment, Headers, Mark, UpstreamCall
from stages.upstreams.endpoint import Endpoint, user_agent
from stages.upstreams.error_body import ERROR_BODY_BYTES, GZIP_MAGIC
from stages.upstreams.faults import API_BASE, Phase, fault_of_exception, fault_of_status, fault_of_total
from stages.upstreams.providers import is_openai_itself, quirks_of
from stages.upstreams.transport.exchange import FOREIGN_ERRORS, Exchange
from stages.upstreams.unknown_route import is_unknown_route, with_remedy
from stages.wire.api import Api
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.forwarding import only_forwarded
from stages.wire.foreign_json import is_list
from stages.wire.redaction import message_to_show
from stages.wire.sliced_json import encode_sliced
from stages.wire.slices import current_pause, drop

ERROR_BODY_LIMIT_S = 5.0
"""How long an error answer may take to arrive; after that, only its status is reported."""
_PEEKED_BYTES = 1024
"""So much white space may come before the first bytes that say what a body is."""

BodyForm = Literal["stream", "document", "unknown"]
"""Server-sent events, one JSON document, or something else."""


class HttpCall(Struct, frozen=True):
    """A call with its request encoded."""

    call: UpstreamCall
    endpoint: Endpoint
    body: bytes | bytearray
    """A bytearray if it is large; it is sent once, and changed by that."""
    headers: Mapping[str, str]
    """What this body needs besides the headers of the endpoint."""


class HttpUpstream:
    """An `Upstream` over HTTP, for one API. It serves all deployments of that API, and all requests.

    The upstream gets the body that the API makes, the headers that this body needs, those of the deployment, and the
    call's own, which are its place in a distributed trace: nothing else of the client's or of ours. What the
    deployment's entry sets is put into the request before, and its ``extra_body`` over the body. Only a transparent
    deployment gets the client's own headers, and its body as it came.

    Args:
        api: which requests it builds.
        transport_for: returns the transport that reaches a deployment; the caller closes its connections.
    """

    # Any: an API's quirks go from the table of providers to its own builder, and are not looked at here.
    def __init__(self, api: Api[Any], transport_for: Callable[[Deployment], httpx.AsyncBaseTransport]) -> None:
        self._api = api
        self._transport_for = transport_for
        self._agent = user_agent()
        self._endpoints: dict[str, Endpoint] = {}

    def prepare(self, call: UpstreamCall, /) -> HttpCall:
        """Encode the request.

        Raises:
            ClientFault: ``invalid_request`` if the request has no form in this API.
            UpstreamFault: ``upstream_unreachable`` if the deployment's address or a header cannot be sent at all.
        """
        deployment = call.deployment
        endpoint = self._endpoints.get(deployment.id)
        if endpoint is None:
            endpoint = self._endpoints[deployment.id] = Endpoint(deployment, self._agent)
        try:
            # Again: what stands around the call may have chosen another deployment, which forwards less.
            request = only_forwarded(call.request, deployment.forward_fields)
            if (parameters := deployment.parameters) is not None:
                request = parameters.applied_to(request)
            if (sent := request.sent) is not None and deployment.is_transparent and self._api.name == "chat":
                return self._as_sent(call, endpoint, sent)
            body = self._api.build_request(request, call.model, quirks_of(self._api, deployment, call.model))
            for name in deployment.forward_fields:
                if name in request.body:
                    body.setdefault(name, request.body[name])
            if parameters is not None:
                body.update(parameters.extra_body)
        except BadRequest as bad:
            raise ClientFault(bad.message, param=bad.param, code=bad.code) from None
        pause = current_pause()
        if pause is None:
            return HttpCall(call, endpoint, msgspec.json.encode(body), self._api.headers_of(body))
        encoded, headers = encode_sliced(body, pause), self._api.headers_of(body)
        for value in body.values():
            if is_list(value) and not any(value is own for own in call.request.body.values()):
                drop(value, pause)
        return HttpCall(call, endpoint, encoded, headers)

    def _as_sent(self, call: UpstreamCall, endpoint: Endpoint, sent: dict[str, Any]) -> HttpCall:
        """Encode the body as the client has sent it, with what would have been mended for another upstream."""
        call.request.mended.clear()
        pause = current_pause()
        return HttpCall(
            call,
            endpoint,
            msgspec.json.encode(sent) if pause is None else encode_sliced(sent, pause),
            self._api.headers_of(sent),
        )

    async def open(self, prepared: HttpCall, mark: Mark, /) -> HttpAnswer:
        """Send the request and wait for a good head; the caller closes the answer.

        Raises:
            UpstreamFault: ``upstream_unauthorized`` if it needs a token and there is none yet;
                ``upstream_unreachable``, ``upstream_timeout`` or ``upstream_protocol`` if no answer can be read;
                ``upstream_rate_limited``, ``upstream_unauthorized``, ``upstream_not_found``, ``upstream_rejected``,
                ``context_length_exceeded`` or ``upstream_error`` if it answers with an error status.
            Overloaded: ``upstream_pool_full`` if no connection became free in time, ``overloaded`` if this process can
                open no further one.
        """
        deployment, secrets = prepared.call.deployment, prepared.endpoint.secrets
        if prepared.call.client_headers:
            secrets |= prepared.call.client_secrets
        once, token = prepared.call.headers, None
        if deployment.token is not None:
            token = await deployment.token.get(deployment.id)
            secrets |= deployment.token.secrets
            once = (*once, (b"authorization", b"Bearer " + token.encode("ascii")))
        clock = _Clock(prepared.call)
        exchange = await _exchange(self._transport_for(deployment), prepared, mark, clock, once)
        try:
            if not 200 <= exchange.status < 300:
                if deployment.token is not None and token is not None and exchange.status == 401:
                    deployment.token.refused(token)
                raise await _refusal(exchange, clock, secrets)
            form = _form_by_type(exchange, clock, secrets)
            mark("upstream_head")
            clock.enter("first_event", deployment.timeouts.first_event_s)
            if form is not None:
                return HttpAnswer(exchange, clock, is_stream=form == "stream")
            answer = _PeekedAnswer(exchange, clock)
            await answer.peek(secrets)
            return answer
        except BaseException:
            await exchange.aclose()
            raise


class HttpAnswer:
    """An `UpstreamAnswer` with a good head. Its first bytes correct what its content type says."""

    __slots__ = ("_clock", "_exchange", "arrived_ns", "is_backing_off", "is_stream")

    def __init__(self, exchange: Exchange, clock: _Clock, *, is_stream: bool) -> None:
        self._exchange = exchange
        self._clock = clock
        self.is_stream = is_stream
        self.arrived_ns = exchange.arrived_ns
        self.is_backing_off = False

    async def back_off(self) -> None:
        """Wait for as long as the answer is not to be read."""
        await self._exchange.back_off()

    async def receive(self) -> bytes:
        """Return the next part of the body, all that one read of the socket had; ``b""`` when it is complete.

        Raises:
            UpstreamFault: ``upstream_timeout`` if nothing comes for too long or the call lasts too long,
                ``upstream_protocol`` if the connection breaks, or what comes is not HTTP or is compressed.
        """
        clock, exchange = self._clock, self._exchange
        limit_s = clock.limit_s if clock.total_at == math.inf else clock.bounded_limit_s()
        try:
            chunk = await exchange.receive(limit_s)
        except FOREIGN_ERRORS as error:
            fault = clock.fault_of(error)
        else:
            if clock.phase != "idle":
                if chunk.startswith(GZIP_MAGIC):
                    raise _compressed(clock, "gzip")
                clock.enter("idle", clock.call.deployment.timeouts.idle_s)
                # Some gateways send an error as a document under the type of the stream that was asked for.
                while (form := _form_of(chunk)) is None and 0 < len(chunk) < _PEEKED_BYTES:
                    more = await self.receive()
                    if not more:
                        break
                    chunk += more
                if form is not None and form != "unknown":
                    self.is_stream = form == "stream"
            self.arrived_ns = exchange.arrived_ns
            self.is_backing_off = exchange.is_backing_off
            return chunk
        try:
            raise fault  # outside the handler: inside, it would carry the foreign exception as its context
        finally:
            del fault  # else its traceback holds this frame, which holds it: only the collector frees the request

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Close the connection, or return it to the pool if the whole body was read or its end does not matter."""
        await self._exchange.aclose(is_answered=is_answered)


class _PeekedAnswer(HttpAnswer):
    """An answer whose content type does not say what it is: its first bytes say so.

    They are read when the head has arrived, and given to whoever reads the answer. So the first `receive` returns at
    once, with the time at which they arrived, and backs off before the next one if the process was overloaded then.
    """

    __slots__ = ("_held",)

    def __init__(self, exchange: Exchange, clock: _Clock) -> None:
        super().__init__(exchange, clock, is_stream=True)
        self._held = b""

    async def peek(self, secrets: frozenset[str]) -> None:
        """Find out what it is, and hold what was read.

        Raises:
            UpstreamFault: as `receive` does, and ``upstream_protocol`` if it is neither events nor JSON.
        """
        self._held = await super().receive()
        form = _form_of(self._held)
        self.is_backing_off = False
        if form is None or form == "unknown":
            form = _form_if_unknown(self._exchange, self._clock, secrets)
        self.is_stream = form == "stream"

    async def receive(self) -> bytes:
        """Return what was read before, then as `HttpAnswer` does."""
        if self._held:
            held, self._held = self._held, b""
            self.is_backing_off = self._exchange.is_backing_off
            return held
        return await super().receive()


class _Clock:
    """The deadlines of one attempt, and the fault to report when one has passed.

    The waits for the head, the first event and the next event begin anew in each attempt. The total is the request's.
    """

    __slots__ = ("call", "limit_s", "phase", "total_at")

    def __init__(self, call: UpstreamCall) -> None:
        limits = call.deployment.timeouts
        self.call = call
        self.phase: Phase = "head"
        self.limit_s = limits.headers_s
        self.total_at = call.deadline_s
        if limits.total_s is not None:  # of a call that something around it has made, too
            self.total_at = min(self.total_at, trio.current_time() + limits.total_s)

    @property
    def upstream_name(self) -> str:
        """What messages to the client call the upstream."""
        return f"the upstream of model {self.call.request.requested_model[:100]!r}"

    @property
    def setting(self) -> str:
        """Where the upstream's address comes from."""
        return "--upstream" if self.call.deployment.is_transparent else API_BASE

    def enter(self, phase: Phase, limit_s: float | None) -> None:
        """Limit each of the following reads to ``limit_s``."""
        self.phase = phase
        self.limit_s = limit_s

    def bounded_limit_s(self) -> float:
        """Return how long the next read may take if the time left for the whole request is a limit too.

        Raises:
            UpstreamFault: if no time is left.
        """
        left_s = self.total_at - trio.current_time()
        if left_s <= 0:
            raise self.fault_of_total()
        return left_s if self.limit_s is None else min(self.limit_s, left_s)

    def fault_of(self, error: Exception) -> PipelineError:
        """Return what ``error`` of the transport means at this point of the call."""
        if isinstance(error, httpx.ReadTimeout) and trio.current_time() >= self.total_at:
            return self.fault_of_total()
        limits = self.call.deployment.timeouts
        limits_s = {"connect": limits.connect_s, "write": limits.headers_s, self.phase: self.limit_s}
        return fault_of_exception(error, self.upstream_name, self.phase, limits_s, self.setting)

    def fault_of_total(self) -> UpstreamFault:
        """Return the fault of a request that has lasted too long as a whole."""
        return fault_of_total(self.upstream_name, self.call.deployment.timeouts.total_s)


async def _exchange(
    transport: httpx.AsyncBaseTransport, prepared: HttpCall, mark: Mark, clock: _Clock, once: Headers
) -> Exchange:
    stream = prepared.call.request.stream
    post = partial(
        prepared.endpoint.post,
        transport,
        prepared.body,
        mark,
        stream=stream,
        more=prepared.headers,
        once=once,
        client=prepared.call.client_headers,
    )
    fault: PipelineError
    try:
        if clock.total_at == math.inf:
            return await post()
        with trio.CancelScope(deadline=clock.total_at):
            return await post()
        fault = clock.fault_of_total()
    except FOREIGN_ERRORS as error:
        fault = clock.fault_of(error)
    try:
        raise fault
    finally:
        del fault  # as in `HttpAnswer.receive`


async def _refusal(exchange: Exchange, clock: _Clock, secrets: frozenset[str]) -> UpstreamFault:
    """Return the fault that an error answer reports, as far as its body arrives in time."""
    headers = httpx.Headers(exchange.headers)
    body = bytearray()
    until_s = min(trio.current_time() + ERROR_BODY_LIMIT_S, clock.total_at)
    with trio.CancelScope(deadline=until_s), suppress(*FOREIGN_ERRORS):
        while len(body) <= ERROR_BODY_BYTES and (chunk := await exchange.receive(clock.limit_s)):
            body += chunk
    fault = fault_of_status(exchange.status, headers, bytes(body[:ERROR_BODY_BYTES]), clock.upstream_name, secrets)
    deployment = clock.call.deployment
    if deployment.is_transparent:
        if exchange.status in (404, 405, 501) and is_unknown_route(fault):
            shown = message_to_show(deployment.url.partition("?")[0], secrets)
            return with_remedy(
                fault, f"the request went to {shown}: check {clock.setting}, which may have to end in /v1"
            )
        return fault
    if (
        deployment.kind == "responses"
        and deployment.on_chat is None
        and is_unknown_route(fault)
        and not is_openai_itself(deployment.provider, deployment.url)
    ):
        return with_remedy(fault, "if that server has Chat Completions only, set use_chat_completions_api: true")
    return fault


def _form_by_type(exchange: Exchange, clock: _Clock, secrets: frozenset[str]) -> BodyForm | None:
    """Return what the body is by its content type; None if only its first bytes can say.

    JSON is what a client gets that did not ask for a stream. One that did is answered with events under any type: some
    servers send ``text/plain``, ``application/octet-stream`` or none, and some leave the type of their documents.
    Where the type is the expected one, nothing is read to verify it: the first `HttpAnswer.receive` may correct it.
    """
    headers = dict(exchange.headers)
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"identity", b""):
        # We asked for no encoding, and 400 KiB of gzip can become a single chunk of 64 MiB.
        raise _compressed(clock, message_to_show(encoding.decode("latin-1"), secrets, max_characters=100))
    kind = _content_type(headers)
    if kind == b"text/event-stream":
        return "stream"
    if _is_json(kind) and not clock.call.request.stream:
        return "document"
    if kind.endswith(b"html") or exchange.status != 200:
        return _form_if_unknown(exchange, clock, secrets)
    return None


def _form_of(start: bytes) -> BodyForm | None:
    """Return what a body is by its first bytes; None if more of them are needed."""
    start = start.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start.startswith((b"{", b"[")):
        return "document"
    if start.startswith(_STREAM_STARTS):
        return "stream"
    is_cut = any(known.startswith(start) for known in (*_STREAM_STARTS, _BYTE_ORDER_MARK))
    return None if is_cut else "unknown"


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STREAM_STARTS = (b":", b"data:", b"event:", b"id:", b"retry:")
"""What a line of a stream can begin with (WHATWG HTML, server-sent events, 9.2.6, 2026-11)."""


def _form_if_unknown(exchange: Exchange, clock: _Clock, secrets: frozenset[str]) -> BodyForm:
    """Return what a body is if its first bytes do not say it: that which its type says.

    Raises:
        UpstreamFault: ``upstream_protocol`` if the type does not say it either.
    """
    kind = _content_type(dict(exchange.headers))
    if _is_json(kind):
        return "document"
    if not kind and clock.call.request.stream and exchange.status == 200:
        return "stream"
    found = f"content-type {_quoted(kind, secrets)}" if kind else "no content-type"
    raise UpstreamFault(
        f"{clock.upstream_name} answered with {found} where JSON or an event stream was expected; "
        f"check {clock.setting}",
        code="upstream_protocol",
    )


def _content_type(headers: Mapping[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _is_json(kind: bytes) -> bool:
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def _compressed(clock: _Clock, encoding: str) -> UpstreamFault:
    return UpstreamFault(
        f"{clock.upstream_name} answered with content-encoding {encoding!r}, although none was requested; "
        "turn compression off there",
        code="upstream_protocol",
    )


def _quoted(value: bytes, secrets: frozenset[str]) -> str:
    return repr(message_to_show(value.decode("latin-1"), secrets, max_characters=100))
