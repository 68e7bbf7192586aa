"""Between ASGI and the pipelines: the commit point, and disconnect = cancel.

Each request runs in one cancel scope that encloses every ``send``. The client's disconnect is noticed in every phase:
by the source of the first pipeline while the body arrives, then by our server's own reader, or on other servers by a
task that waits in ``receive``. It cancels the request, and the upstream connection is closed at once.

Until the first byte has been sent, a failure becomes an HTTP status and a JSON body. After that it is reported in the
stream: by the encoder if it came from the upstream, in its place after the events before it; by this module if
anything else failed.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

import trio

from pipeline import ClientFault, Observer, Overloaded, PipelineError, RequestContext, StageBug
from pipeline.errors import forget_places, places_of
from pipeline.gateway.asgi_client import AsgiClient, Client
from pipeline.gateway.assembly import Assembly
from pipeline.gateway.attempts import answer_in_turn
from pipeline.gateway.client_address import NO_PROXIES, Proxies
from pipeline.gateway.cors import NO_ORIGINS, Cors
from pipeline.gateway.failures import render
from pipeline.gateway.http.asgi import REQUEST_CYCLE, Message, Receive, Scope, Send
from pipeline.gateway.http.door import OwnAnswer
from pipeline.gateway.received_head import received_head
from pipeline.gateway.request_record import FinishedRequest, finished_request, request_record
from pipeline.gateway.server_timing import ServerTiming
from pipeline.gateway.shedding import Shedding
from pipeline.gateway.traced_requests import TracedRequests, kept_trace, trace_context_of
from pipeline.gateway.upload_budget import Upload, UploadBudget
from pipeline.gateway.wrong_keys import WrongKeys
from pipeline.kernel_time import Clock
from pipeline.observe import Observed
from pipeline.timeline import Timeline
from stages.admission.admission import ADMITTED
from stages.routing.router import ROUTE
from stages.slots import ENCODER, HEAD, PRINCIPAL, PROFILE, RESPONSE, TRACE_CONTEXT, USAGE
from stages.upstreams.faults import failed_from
from stages.wire.downstream.profiles import Profile
from stages.wire.trace_context import TRACEPARENT

log = logging.getLogger("headrace")

OnEnd = Callable[[Callable[[], FinishedRequest]], object]

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""What we accept as a client's ``x-request-id``: it goes into a header, the log and the response's id."""

SLOW_CLIENT_GRACE_S: Final = 30.0
"""How much longer than its time budget a request may take to send its end to a slow client."""


class Bridge:
    """The chat route as an ASGI endpoint.

    Args:
        assembly: the pipelines; None until the plugins are open.
        profile_of: returns the client profile for the request's headers.
        on_end: called at the end of each request, whatever happened to it, with what makes a `FinishedRequest` of it.
        cors: the headers that every response has for its origin.
        proxies: those that are trusted to name the client.
        request_timeout_s: the time budget of the answer; None for no limit.
        body_timeout_s: how long the upload may take.
        uploads: the memory that large requests share.
        generation: the number of the configuration that it is made of, for the records.
        shedding: refuses requests while the loop is overloaded.
        observed: counts the requests of this process; None if nobody does.
        traced: chooses those that are traced batch by batch; None for none.
        timing: tells clients where the time went; None if nobody is told.
        clock: returns the time of the figures, in ns.

    Attributes:
        is_over: whether further requests are refused, because the time for running ones is over.
    """

    def __init__(
        self,
        assembly: Assembly | None,
        *,
        profile_of: Callable[[dict[bytes, bytes]], Profile],
        on_end: OnEnd,
        cors: Cors = NO_ORIGINS,
        proxies: Proxies = NO_PROXIES,
        request_timeout_s: float | None,
        body_timeout_s: float,
        uploads: UploadBudget,
        generation: int = 1,
        shedding: Shedding | None = None,
        observed: Observed | None = None,
        traced: TracedRequests | None = None,
        timing: ServerTiming | None = None,
        clock: Clock = perf_counter_ns,
    ) -> None:
        self.assembly = assembly
        self.profile_of = profile_of
        self.on_end = on_end
        self.cors = cors
        self.proxies = proxies
        self.wrong_keys = WrongKeys()
        self.request_timeout_s = request_timeout_s
        self.body_timeout_s = body_timeout_s
        self.uploads = uploads
        self.generation = generation
        self.shedding = Shedding(0) if shedding is None else shedding
        self.observed = observed
        self.traced = TracedRequests(0) if traced is None else traced
        self.timing = ServerTiming(in_heads=False, in_comments=False) if timing is None else timing
        self.clock = clock
        self.is_over = False
        self.active: set[_ServedRequest] = set()
        self._is_idle: trio.Event | None = None  # while somebody waits for that
        self._id_prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, model_in_path: str | None = None) -> None:
        """Serve one request, whatever happens to it."""
        client: Client = scope.get("extensions", {}).get(REQUEST_CYCLE) or AsgiClient(receive, send)
        request = _ServedRequest(self, scope, client, model_in_path)
        self.active.add(request)
        if self.observed is not None:
            self.observed.begin()
        observers = () if self.assembly is None else self.assembly.observers
        for observer in observers:
            self._tell(observer, observer.on_start, request.ctx)
        try:
            await request.serve()
        finally:
            self.active.discard(request)
            if (route := request.ctx.get(ROUTE)) is not None:
                route.end(request.ctx.get(USAGE))
                request.ctx.timeline.on_first_token = None  # it holds the request
            if request.upload is not None:
                request.upload.end()
            if (admitted := request.ctx.get(ADMITTED)) is not None:
                was_refused = isinstance(request.error, Overloaded) and "routed" not in request.ctx.timeline.points
                admitted.end(request.ctx.get(USAGE), was_refused=was_refused)
            if request.error is not None:
                forget_places(request.error)  # it is kept for the record
            self.on_end(request.finished)
            if observers:
                record = request_record(request.finished())
                for observer in observers:
                    self._tell(observer, observer.on_end, record)
            if self._is_idle is not None and not self.active:
                self._is_idle.set()

    def _tell(self, observer: Observer, tell: Callable[[Any], object], what: object) -> None:
        """Tell an observer something; if it fails, that is its own problem."""
        try:
            tell(what)
        except Exception as error:
            name = getattr(observer, "name", type(observer).__name__)
            log.error("the observer %s failed in %s: %s", name, tell.__name__, places_of(error))

    def request_id_of(self, headers: dict[bytes, bytes]) -> str:
        """Return the client's ``x-request-id`` if it is valid, else an id of this bridge's own."""
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._id_prefix}{next(self._numbers):08x}"

    def take_over(self, before: Bridge) -> None:
        """Go on with what the bridge of another configuration knows: who tries keys, what uploads have reserved, whose
        turn it is to be traced.
        """
        self.wrong_keys = before.wrong_keys
        self.traced.take_over(before.traced)
        before.uploads.resize_as(self.uploads)
        self.uploads = before.uploads

    async def wait_until_idle(self) -> None:
        """Wait until no request is left; it is for a bridge that gets no more."""
        while self.active:
            self._is_idle = trio.Event()
            await self._is_idle.wait()

    def shed(self, headers: dict[bytes, bytes]) -> OwnAnswer | None:
        """Return how a request with these headers is refused at the door of our own server, without a record.

        None if it is not.
        """
        if not self.shedding.is_due():
            return None
        if self.observed is not None:
            self.observed.note_refused_at_door()
        rendered = render(self.shedding.refuse(trio.current_time()), as_400=self.profile_of(headers).errors_as_400)
        request_id = self.request_id_of(headers).encode("ascii")
        more = [(b"x-request-id", request_id), *self.cors.headers_for(headers.get(b"origin"))]
        return OwnAnswer(rendered.status, [*more, *rendered.headers], rendered.body)

    def cut_off(self) -> None:
        """End all running requests, with a 503 or in the stream, and refuse further ones with a 503."""
        self.is_over = True
        for request in self.active:
            request.cut_off()


class _ServedRequest:
    """One request and its response."""

    __slots__ = (
        "_bridge",
        "_client",
        "_scope",
        "ctx",
        "disconnect_reason",
        "error",
        "is_cut_off",
        "response",
        "upload",
    )

    def __init__(self, bridge: Bridge, scope: Scope, client: Client, model_in_path: str | None) -> None:
        self._bridge = bridge
        self._client = client
        self._scope = trio.CancelScope()
        self.disconnect_reason: str | None = None
        self.is_cut_off = False
        self.error: PipelineError | None = None
        head = received_head(scope, bridge.proxies, model_in_path)
        headers = head.headers
        self.upload = bridge.uploads.begin(headers.get(b"content-length"))
        request_id = bridge.request_id_of(headers)
        batch_times = None if bridge.observed is None else bridge.observed.batches
        self.ctx = ctx = RequestContext(request_id, clock=bridge.clock, batch_times=batch_times)
        ctx.timeline.arrive(client.arrived_ns, client.first_read_ns, client.last_read_ns)
        ctx.trace = bridge.traced.begin(headers)
        self.response = bridge.timing.response(
            client,
            [(b"x-request-id", request_id.encode("ascii")), *bridge.cors.headers_for(headers.get(b"origin"))],
            ctx.timeline,
            headers,
        )
        if bridge.request_timeout_s is not None:
            # The upstream adapter ends the answer in time and in order; this deadline is for a client that does not
            # read it.
            ctx.deadline = trio.current_time() + bridge.request_timeout_s + SLOW_CLIENT_GRACE_S
        ctx[HEAD] = head
        if TRACEPARENT in headers and (trace_context := trace_context_of(head)) is not None:
            ctx[TRACE_CONTEXT] = trace_context
        ctx[PROFILE] = bridge.profile_of(headers)
        ctx[RESPONSE] = self.response

    async def serve(self) -> None:
        """Run the pipelines, and report a failure to the client."""
        if self._bridge.is_over:
            self.error = Overloaded("this server is restarting: try again at once", code="draining")
        elif not self._client.is_let_in and self._bridge.shedding.is_due():
            self.error = self._bridge.shedding.refuse(trio.current_time())
        else:
            with self._scope:
                try:
                    await self._run()
                except PipelineError as error:
                    self.error = error
                if self.error is not None and (
                    delay_s := self._bridge.wrong_keys.delay_of(self.error, self.ctx[HEAD].client)
                ):
                    late = trio.sleep(delay_s)  # noqa: ASYNC105 - awaited on the next line
                    await self._client.watch_during(late, self.disconnect)
        if self.is_cut_off and not self.response.ended:
            self.error = Overloaded("this server is restarting: send the request again", code="draining")
        if self.error is not None and self.disconnect_reason is None:
            await self._report(self.error)

    async def _run(self) -> None:
        assembly = self._bridge.assembly
        if assembly is None:
            raise Overloaded("this server is still starting: try again shortly", code="draining")
        upload = self.upload
        body = _BodySource(self._client, self._bridge.body_timeout_s, self.disconnect, self.ctx.timeline, upload)
        try:
            calls = await self._client.watch_upload(assembly.accept(body, self.ctx), self.disconnect)
        finally:
            if (admitted := self.ctx.get(ADMITTED)) is not None:
                self.response.headers += admitted.headers()
        self.ctx.timeline.mark("routed")
        self.ctx.trace = kept_trace(self.ctx)
        if len(calls) != 1:  # only a plugin can do that
            bug = StageBug(f"an added stage turned one request into {len(calls)} calls; it must pass on exactly one")
            bug.stage = self._multiplying()
            raise bug
        [call] = calls
        # What has failed is returned: a watcher's nursery would put an exception into a group.
        shrink = None if upload is None else upload.shrink
        answering = answer_in_turn(assembly, call, self.ctx, self.response, on_first_token=shrink)
        self.error = await self._client.watch_during(answering, self.disconnect)

    def _multiplying(self) -> str | None:
        """Return the first stage after the request was read that did not pass on as much as it took."""
        stages = [stage for lane in self.ctx.lanes for stage in lane.stages]
        names = [stage.name for stage in stages]
        after = stages[names.index("parse_request") + 1 :] if "parse_request" in names else []
        return next((stage.name for stage in after if stage.events_in != stage.events_out), None)

    def disconnect(self, reason: str) -> None:
        """End this request because its client has disconnected."""
        if not (self.response.ended and self._client.finished):
            self.ctx.timeline.mark("left")
            self.disconnect_reason = reason
            self._scope.cancel()

    def cut_off(self) -> None:
        """End this request because the process is about to stop."""
        self.is_cut_off = True
        self._scope.cancel()

    async def _report(self, error: PipelineError) -> None:
        """Report a failure to the client in the way that is still open."""
        if isinstance(error, StageBug):
            log.error(
                "stage %s failed in request %s\n%s",
                error.stage,
                self.ctx.request_id,
                places_of(error.__cause__) or error.public,
            )
        response = self.response
        if response.status is None:
            profile = self.ctx[PROFILE]
            rendered = render(error, as_400=profile.errors_as_400, as_upstream=profile.errors_as_upstream)
            if self.ctx.get(PRINCIPAL) is None:
                response.timing = None  # how long a wrong key took to be refused is not disclosed
            response.start(rendered.status, rendered.headers, is_whole=True)
            response.write_nowait(rendered.body, last=True)
        elif not response.ended and (encoder := self.ctx.get(ENCODER)) is not None:
            response.write_nowait(encoder.in_band(failed_from(error)), last=True)
        # else: a document is half written; the connection ends without its terminator, which shows the failure
        await response.drain()

    def finished(self) -> FinishedRequest:
        """Return what its record needs, when it has ended."""
        return finished_request(
            self.ctx,
            self.response,
            error=self.error,
            disconnect_reason=self.disconnect_reason,
            generation=self._bridge.generation,
            trace=kept_trace(self.ctx),
        )


class _BodySource:
    """The request's body as a pipeline's source; an iterator and not a generator, so that nothing is left to close."""

    __slots__ = ("_client", "_complete", "_deadline", "_on_disconnect", "_timeline", "_timeout_s", "_upload")

    def __init__(
        self,
        client: Client,
        timeout_s: float,
        on_disconnect: Callable[[str], None],
        timeline: Timeline,
        upload: Upload | None,
    ) -> None:
        self._client = client
        self._timeline = timeline
        self._timeout_s = timeout_s
        self._deadline: float | None = None  # until the body is waited for
        self._on_disconnect = on_disconnect
        self._complete = False
        self._upload = upload

    def __aiter__(self) -> _BodySource:
        return self

    async def __anext__(self) -> list[bytes]:
        """Return the next part of the body.

        Raises:
            ClientFault: ``body_timeout`` if the upload takes too long.
            Overloaded: if there is no memory for it.
        """
        upload = self._upload
        if upload is not None and upload.size_bytes > upload.room_bytes:  # its length was declared
            await self._make_room(upload)
        while not self._complete:
            message = self._client.receive_nowait() or await self._receive()
            if message["type"] == "http.disconnect":
                self._on_disconnect(message.get("reason", "left"))
                await trio.sleep_forever()  # cancelled by the line above
            self._complete = not message.get("more_body", False)
            if part := message.get("body", b""):
                if upload is not None and upload.is_growing:
                    upload.size_bytes += len(part)
                    if upload.size_bytes > upload.room_bytes:
                        await self._make_room(upload)
                return [part]
        self._timeline.mark("body_read")
        raise StopAsyncIteration

    async def _make_room(self, upload: Upload) -> None:
        since_s = trio.current_time()
        await upload.make_room()
        if self._deadline is not None:
            self._deadline += trio.current_time() - since_s  # the client could not send meanwhile

    async def _receive(self) -> Message:
        timeline = self._timeline
        since_ns = timeline.client_since_ns = timeline.clock()
        if self._deadline is None:
            self._deadline = trio.current_time() + self._timeout_s
        try:
            with trio.CancelScope(deadline=self._deadline):
                return await self._client.receive()
        finally:
            timeline.client_ns += timeline.clock() - since_ns
            timeline.client_since_ns = 0
        raise ClientFault("the request body did not arrive in time: send it faster", code="body_timeout")
