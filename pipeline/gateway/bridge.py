"""Between ASGI and the pipelines: the commit point, and disconnect = cancel.

Each request runs in one cancel scope that encloses every ``send``. Somebody always looks out for the client: the
source of the first pipeline while the body arrives, then our server's own reader, or a watcher in ``receive`` on other
servers; so a disconnect cancels the request in every phase, and the upstream connection is closed at once.

Until the first byte has been sent, a failure becomes an HTTP status and a JSON body. After that it is told in the
stream: by the encoder if it came from the upstream, which keeps its place behind the events before it; by this module
if anything else broke.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from time import perf_counter_ns
from traceback import extract_tb
from typing import Any, Final, Never, Protocol

import trio

from pipeline import ClientFault, Doing, Meter, Overloaded, Pipeline, PipelineError, RequestContext, StageBug
from pipeline.gateway.assembly import Assembly
from pipeline.gateway.failures import EndCode, render, row_of
from stages.slots import CALL, ENCODER, FAILURE, HEAD, PRINCIPAL, PROFILE, RESPONSE, USAGE, ReceivedHead
from stages.upstreams import UpstreamCall
from stages.upstreams.faults import failed_from
from stages.wire.downstream.profiles import Profile

log = logging.getLogger("headrace")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Record = dict[str, object]
OnEnd = Callable[[Callable[[], Record]], None]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""What we take over from a client's ``x-request-id``: it goes into a header, the log and the answer's id."""


_LEAVING: Final[dict[str, EndCode]] = {"left": "DC", "stalled": "DS"}
"""Why a client is gone; the connection also cuts off one whose body is no HTTP, with that fault's code."""

SLOW_CLIENT_GRACE_S = 30.0
"""How much longer than its time budget a request may take to get its end to a slow client."""


class _Response:
    """The client's response over ASGI; see `stages.slots.ClientResponse`."""

    __slots__ = ("_client", "born_ns", "ended", "first_byte_ns", "head", "size", "status")

    def __init__(self, client: Client, head: list[tuple[bytes, bytes]], born_ns: int) -> None:
        self._client = client
        self.head = head
        self.born_ns = born_ns
        self.status: int | None = None
        self.first_byte_ns: int | None = None
        self.size = 0
        self.ended = False

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._client.start(status, headers + self.head)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        self.ended = last
        await self._client.write(data, last=last)
        self.size += len(data)
        if self.first_byte_ns is None:
            self.first_byte_ns = perf_counter_ns() - self.born_ns


class Client(Protocol):
    """The client of one request: `http.request_cycle.RequestCycle` on our own server, or `AsgiClient`."""

    def receive_nowait(self) -> Message | None:
        """Give the next part of the body if it is here, as ASGI's ``http.request``, else None."""
        ...

    async def receive(self) -> Message:
        """Give the next part of the body, or ASGI's ``http.disconnect``."""
        ...

    async def watch_during(self, work: Coroutine[Any, Any, None], on_disconnect: Callable[[str], None]) -> None:
        """Do ``work``, which raises nothing, and call ``on_disconnect`` with the reason if the client leaves."""
        ...

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Begin the response."""
        ...

    async def write(self, body: bytes, *, last: bool) -> None:
        """Send a part of the response, whole: a cancellation does not cut it in half."""
        ...


class AsgiClient:
    """A client behind any ASGI server: a task watches for its end, and each send is shielded (h11's state advances
    before its bytes leave: stack facts, 4.5)."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    def receive_nowait(self) -> None:
        """ASGI cannot tell."""

    async def receive(self) -> Message:
        """Give the server's next message."""
        return await self._receive()

    async def watch_during(self, work: Coroutine[Any, Any, None], on_disconnect: Callable[[str], None]) -> None:
        """Do ``work`` beside a task that waits for ``http.disconnect``."""

        async def watch() -> None:
            while (message := await self.receive())["type"] != "http.disconnect":
                pass
            on_disconnect(message.get("reason", "left"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await work
            nursery.cancel_scope.cancel()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head."""
        with trio.CancelScope(shield=True):
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, last: bool) -> None:
        """Send a part of the body."""
        with trio.CancelScope(shield=True):
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})


class Bridge:
    """The chat route as an ASGI endpoint.

    Args:
        assembly: the pipelines.
        profile_of: gives the client profile for the request's headers.
        response_headers: sent with every answer (CORS).
        request_timeout_s: the time budget of the answer; None for none.
        body_timeout_s: how long the upload may take.
        on_end: takes what makes the record of a finished request, for the log; called at each request's end.
    """

    def __init__(
        self,
        assembly: Assembly,
        *,
        profile_of: Callable[[dict[bytes, bytes]], Profile],
        on_end: OnEnd,
        response_headers: Iterable[tuple[bytes, bytes]] = (),
        request_timeout_s: float | None = None,
        body_timeout_s: float = 60.0,
    ) -> None:
        self.assembly = assembly
        self.profile_of = profile_of
        self.on_end = on_end
        self.response_headers = tuple(response_headers)
        self.request_timeout_s = request_timeout_s
        self.body_timeout_s = body_timeout_s
        self.draining = False
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self.active: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, model_in_path: str | None = None) -> None:
        """Serve one request, whatever happens to it."""
        client: Client = scope.get("extensions", {}).get("headrace.request_cycle") or AsgiClient(receive, send)
        exchange = _Exchange(self, scope, client, model_in_path)
        self.active.add(exchange)
        try:
            await exchange.serve()
        finally:
            self.active.discard(exchange)
            self.on_end(exchange.record)

    def request_id_of(self, headers: dict[bytes, bytes]) -> str:
        """Give the client's ``x-request-id`` if it is one, else a name of this bridge and a number."""
        given = headers.get(b"x-request-id")
        if given is not None and REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._name}{next(self._numbers):08x}"

    def drain(self) -> None:
        """Refuse what comes from now on with 503: the process is about to stop."""
        self.draining = True

    def cut_off(self) -> None:
        """End what is still running: with a 503, or in the stream."""
        self.drain()
        for exchange in self.active:
            exchange.cut_off()


class _Exchange:
    """One request and its response."""

    __slots__ = (
        "_bridge",
        "_client",
        "_scope",
        "born_ns",
        "client_left",
        "ctx",
        "cut",
        "error",
        "response",
    )

    def __init__(self, bridge: Bridge, scope: Scope, client: Client, model_in_path: str | None) -> None:
        self._bridge = bridge
        self._client = client
        self._scope = trio.CancelScope()
        self.born_ns = perf_counter_ns()
        self.client_left: str | None = None
        self.cut = False
        self.error: PipelineError | None = None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = bridge.request_id_of(headers)
        self.response = _Response(
            client, [(b"x-request-id", request_id.encode("ascii")), *bridge.response_headers], self.born_ns
        )
        self.ctx = ctx = RequestContext(request_id)
        if bridge.request_timeout_s is not None:
            # The upstream adapter ends the answer in time and in order; this is for a client that will not read it.
            ctx.deadline = trio.current_time() + bridge.request_timeout_s + SLOW_CLIENT_GRACE_S
        received_s = int(time.time())  # noqa: TID251 - the one wall clock of a request: `created`
        ctx[HEAD] = ReceivedHead(headers, received_s, model_in_path)
        ctx[PROFILE] = bridge.profile_of(headers)
        ctx[RESPONSE] = self.response

    async def serve(self) -> None:
        """Run the pipelines, and tell the client how it ended."""
        if self._bridge.draining:
            self.error = Overloaded("this server is restarting: try again at once", code="draining")
        else:
            with self._scope:
                try:
                    await self._run()
                except PipelineError as error:
                    self.error = error
        if self.cut and not self.response.ended:
            self.error = Overloaded("this server is restarting: send the request again", code="draining")
        if self.error is not None and self.client_left is None:
            await self._tell(self.error)

    async def _run(self) -> None:
        assembly = self._bridge.assembly
        calls = await assembly.accept.run(_Body(self, self._client, self._bridge.body_timeout_s), self.ctx)
        if len(calls) != 1:  # only a plugin can do that
            raise StageBug(
                f"a stage that was added made {len(calls)} calls of one request; it must hand on exactly one"
            )
        [call] = calls
        pipeline = assembly.stream if call.request.stream else assembly.whole
        await self._client.watch_during(self._answer(pipeline, call), self.leave)

    async def _answer(self, pipeline: Pipeline[UpstreamCall, Never], call: UpstreamCall) -> None:
        try:
            await pipeline.run([[call]], self.ctx)
        except PipelineError as error:  # here, and not in `serve`: a watcher's nursery would put it into a group
            self.error = error

    def leave(self, reason: str) -> None:
        """End this request because its client has left."""
        if not self.response.ended:
            self.client_left = reason
            self._scope.cancel()

    def cut_off(self) -> None:
        """End this request because the process is about to stop."""
        self.cut = True
        self._scope.cancel()

    async def _tell(self, error: PipelineError) -> None:
        """Tell the client what went wrong, in the way that is still open."""
        if isinstance(error, StageBug):
            log.error("stage %s failed in request %s\n%s", error.stage, self.ctx.request_id, _describe(error))
        response = self.response
        if response.status is None:
            rendered = render(error, as_400=self.ctx[PROFILE].errors_as_400)
            await response.start(rendered.status, rendered.headers)
            await response.write(rendered.body, last=True)
        elif not response.ended and (encoder := self.ctx.get(ENCODER)) is not None:
            await response.write(encoder.in_band(failed_from(error)), last=True)
        # else: a document is half written; the connection ends without its terminator, which says so

    def end_code(self) -> EndCode:
        """Say how this request ended, in one word of the closed vocabulary."""
        if self.client_left is not None:
            return _LEAVING.get(self.client_left) or row_of(self.client_left).end
        if self.error is not None:
            return row_of(self.error.code).end
        if (failed := self.ctx.get(FAILURE)) is not None:
            return row_of(failed.code).end
        return "OK" if self.response.ended else "DR"

    def record(self) -> Record:
        """Give the log record of a finished request. No prompt, no answer, no key."""
        ctx, response = self.ctx, self.response
        call, principal, usage = ctx.get(CALL), ctx.get(PRINCIPAL), ctx.get(USAGE)
        meters = {meter.name: meter for meter in ctx.meters}
        calling, decoding = meters.get("call_upstream"), meters.get("decode_events")
        record: Record = {
            "request_id": ctx.request_id,
            "key": principal.name if principal else None,
            "model": call.request.model if call else None,
            "deployment": call.deployment.id if call else None,
            "stream": call.request.stream if call else None,
            "end": self.end_code(),
            "status": response.status,
            "bytes": response.size,
            "events": decoding.events_out if decoding else 0,
            "first_byte_ms": _ms(response.first_byte_ns),
            "total_ms": _ms(perf_counter_ns() - self.born_ns),
            "upstream_wait_ms": _ms(calling.spent_ns[Doing.OUTSIDE] if calling else 0),
        }
        if self.error is not None:
            record["error"] = self.error.code
            record["stage"] = self.error.stage
            record["upstream_status"] = self.error.status_hint
        elif (failed := ctx.get(FAILURE)) is not None:
            record["error"] = failed.code
        if usage is not None:
            record["prompt_tokens"] = usage.prompt_tokens
            record["completion_tokens"] = usage.completion_tokens
        record["stages"] = {name: _stage_record(meter) for name, meter in meters.items()}
        return record


class _Body:
    """The request's body as a pipeline's source; an iterator and not a generator, so that nothing is left to close."""

    __slots__ = ("_client", "_complete", "_deadline", "_exchange")

    def __init__(self, exchange: _Exchange, client: Client, timeout_s: float) -> None:
        self._exchange = exchange
        self._client = client
        self._deadline = trio.current_time() + timeout_s
        self._complete = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> list[bytes]:
        """Give the next part of the body.

        Raises:
            ClientFault: ``body_timeout`` if the upload takes too long.
        """
        while not self._complete:
            message = self._client.receive_nowait() or await self._receive()
            if message["type"] == "http.disconnect":
                self._exchange.leave(message.get("reason", "left"))
                await trio.sleep_forever()  # cancelled: by the line above
            self._complete = not message.get("more_body", False)
            if part := message.get("body", b""):
                return [part]
        raise StopAsyncIteration

    async def _receive(self) -> Message:
        with trio.CancelScope(deadline=self._deadline):
            return await self._client.receive()
        raise ClientFault("the request body did not arrive in time: send it faster", code="body_timeout")


def _describe(bug: StageBug) -> str:
    """Give types and places of what led to it, the last first, without their text: it may quote a prompt or a key."""
    lines: list[str] = []
    seen: set[int] = set()
    cause = bug.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lines.append(f"{type(cause).__module__}.{type(cause).__qualname__} at")
        lines += (f"  {place.filename}:{place.lineno} in {place.name}" for place in extract_tb(cause.__traceback__))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines) or bug.public


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns // 1000 / 1000


def _stage_record(meter: Meter) -> Record:
    """Give where a stage's time went, in ms."""
    starved_ns, busy_ns, outside_ns, blocked_ns, closing_ns = meter.spent_ns  # in the order of `Doing`
    return {
        "starved_ms": starved_ns // 1000 / 1000,
        "busy_ms": busy_ns // 1000 / 1000,
        "outside_ms": outside_ns // 1000 / 1000,
        "blocked_ms": blocked_ns // 1000 / 1000,
        "closing_ms": closing_ns // 1000 / 1000,
        "queued_ms": meter.queued_ns // 1000 / 1000,
    }
