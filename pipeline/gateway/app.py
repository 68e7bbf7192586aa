"""The ASGI application: the chat routes go to a bridge, everything else to a Quart-Trio app.

It is a plain ASGI application that any server can run; our own (`pipeline.gateway.http.server`) runs it fastest. What
answers a request is made of the configuration, and belongs to the generation that is current when the request comes
(`pipeline.gateway.generations`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from pipeline import ClientFault, PipelineError
from pipeline.gateway.admin.access import Access
from pipeline.gateway.admin.dispatch import Admin, is_admin_path
from pipeline.gateway.bridge import OnEnd
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.failures import render
from pipeline.gateway.generation import Generation
from pipeline.gateway.generations import Generations
from pipeline.gateway.health_page import PATH, health_page
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.door import Answers, OwnAnswer
from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.received_head import received_head
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from pipeline.segments import SegmentFile
from stages.admission.counts import Counts
from stages.principal import Principal
from stages.slots import ReceivedHead

CHAT_PATHS = frozenset(
    {"/cursor/chat/completions", "/cursor/v1/chat/completions", "/v1/chat/completions", "/chat/completions"}
)
CHAT_PATH_OF_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<name>.+)/chat/completions")
"""Azure OpenAI's form, with the model in the path (used by Cursor's Azure settings)."""
MODELS_PATHS = ("/cursor/models", "/cursor/v1/models", "/v1/models", "/models")
LIVE_PATHS = ("/health/liveliness", "/health/liveness", "/livez")
READY_PATHS = ("/health/readiness", "/readyz")

CORS_METHODS = "GET, POST, OPTIONS"

_GENERATION: Final = "headrace.generation"
"""Where the scope of a request for a page has the generation that it belongs to."""


class Application:
    """The whole service as an ASGI application.

    Args:
        settings: the configuration, resolved.
        plugins: the stages that are installed, by name.
        on_end: called at the end of each request with what makes a `FinishedRequest` of it.
        counts: where limits are counted together with other processes; None to count here only.
        observed: counts the requests of this process; None if nobody does.
        measurements: what all processes have counted, for ``/metrics`` and ``/latency``; None not to serve them.

    Attributes:
        generations: what answers requests.
        answers: the answers to health checks, by path: our own server gives them without the application.

    Raises:
        PluginError: if a configured stage does not exist or does not fit in its place.
        ConfigError: if there are more limits than can be counted.
        OSError: if ``ca_file`` cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plugins: Mapping[str, AnyPlugin],
        on_end: OnEnd,
        counts: Counts | None = None,
        observed: Observed | None = None,
        measurements: SegmentFile | None = None,
    ) -> None:
        self.generations = Generations(settings, plugins=plugins, on_end=on_end, counts=counts, observed=observed)
        self.started_s = int(time.time())  # noqa: TID251 - shown as `created` of the models
        self.answers: Answers = {
            **dict.fromkeys(LIVE_PATHS, self._alive),
            **dict.fromkeys(READY_PATHS, self._ready),
        }
        self._pages = self._make_pages()
        self._admin = (
            None if measurements is None else Admin(measurements, lambda: _access_of(self.generations.current))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch by path; the lifespan opens and closes what the generations need."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = str(scope["path"]).rstrip("/")
            if path in CHAT_PATHS:
                return await self.generations.current.bridge(scope, receive, send)
            if (match := CHAT_PATH_OF_DEPLOYMENT.fullmatch(path)) is not None:
                return await self.generations.current.bridge(scope, receive, send, model_in_path=match["name"])
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if self._admin is not None and scope["type"] == "http" and is_admin_path(scope["path"]):
            return await self._admin(scope, receive, send)
        scope[_GENERATION] = self.generations.current
        await self._pages(scope, receive, send)  # type: ignore[arg-type]  # Quart expects hypercorn's TypedDicts

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open what requests need, and close it when the server ends."""
        await receive()
        try:
            await self.generations.open()
        except Exception as error:  # of a plugin, a store or a library: the server says so and ends
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            with trio.CancelScope(shield=True):  # all that it closes has a time limit
                await self.generations.close()
        await send({"type": "lifespan.shutdown.complete"})

    def shed(self, head: RequestHead) -> OwnAnswer | None:
        """Return how a chat request is refused while the loop is overloaded; None for any other request."""
        path = head.path.rstrip("/")
        if head.method != "POST" or (path not in CHAT_PATHS and CHAT_PATH_OF_DEPLOYMENT.fullmatch(path) is None):
            return None
        return self.generations.current.bridge.shed(dict(head.headers))

    def _alive(self) -> OwnAnswer:
        return _ALIVE

    def _ready(self) -> OwnAnswer:
        if self.generations.is_draining:
            return _DRAINING
        return _READY if self.generations.is_open else _STARTING

    def _make_pages(self) -> QuartTrio:
        pages = QuartTrio("headrace", static_folder=None)
        pages.json.sort_keys = False  # type: ignore[attr-defined]  # Quart's default provider has it

        async def models() -> Response:
            principal = _identify()
            return _json(
                {
                    "object": "list",
                    "data": [
                        {"id": name, "object": "model", "created": self.started_s, "owned_by": "headrace"}
                        for name in _generation().deployments.visible_to(principal)
                    ],
                }
            )

        async def health() -> Response:
            if not _identify().is_master:
                raise ClientFault(
                    "only the master key may see the state of the deployments", code="master_key_required"
                )
            generation, now_s = _generation(), trio.current_time()
            settings, router = generation.settings, generation.deployments.router
            workers, wrong_keys = settings.pipeline.workers, generation.bridge.wrong_keys.total
            return _json(health_page(router, settings.deployments, now_s, workers=workers, wrong_keys=wrong_keys))

        async def health_check() -> Response:
            answer = self.answers[request.path]()
            return Response(answer.body, answer.status, {k.decode(): v.decode() for k, v in answer.headers})

        async def fail(error: Exception) -> Response:
            assert isinstance(error, PipelineError)
            bridge = _generation().bridge
            await trio.sleep(bridge.wrong_keys.delay_of(error, _head().client))
            rendered = render(error)
            return Response(rendered.body, rendered.status, {k.decode(): v.decode() for k, v in rendered.headers})

        async def fail_http(error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            if not isinstance(error, MethodNotAllowed):
                return await fail(
                    ClientFault(
                        f"there is no path {request.path}: Cursor's base URL must end in /cursor, an SDK's in /v1",
                        code="route_not_found",
                    )
                )
            allowed = sorted(error.valid_methods or ())
            response = await fail(
                ClientFault(
                    f"{request.path} does not accept {request.method}: use {', '.join(allowed)}",
                    code="method_not_allowed",
                )
            )
            response.headers["allow"] = ", ".join(allowed)  # RFC 9110 section 15.5.6: required in a 405
            return response

        async def allow(response: Response) -> Response:
            bridge = _generation().bridge
            headers = _head().headers
            for name, value in bridge.cors.headers_for(headers.get(b"origin")):
                response.headers[name.decode()] = value.decode()
            response.headers["x-request-id"] = bridge.request_id_of(headers)
            return response

        async def preflight() -> Response | None:
            if request.method != "OPTIONS":
                return None
            return Response(
                b"",
                204,
                {
                    "access-control-allow-methods": CORS_METHODS,
                    "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
                    "access-control-max-age": "86400",
                },
            )

        async def chat_is_post() -> Response:
            raise MethodNotAllowed(["POST"])

        for path in MODELS_PATHS:
            pages.add_url_rule(path, f"models {path}", models, methods=["GET"])
        pages.add_url_rule(PATH, "health", health, methods=["GET"])
        for path in self.answers:
            pages.add_url_rule(path, f"health check {path}", health_check, methods=["GET"])
        for path in CHAT_PATHS:
            pages.add_url_rule(path, f"chat {path}", chat_is_post, methods=["GET", "PUT", "PATCH", "DELETE"])
        pages.before_request(preflight)
        pages.register_error_handler(PipelineError, fail)
        pages.register_error_handler(HTTPException, fail_http)
        pages.after_request(allow)
        return pages


def _generation() -> Generation:
    """Return the generation that the current request for a page belongs to."""
    return _generation_of(request.scope)


def _generation_of(scope: Mapping[str, Any]) -> Generation:
    found: Generation = scope[_GENERATION]
    return found


def _identify() -> Principal:
    """Return the principal of the current request for a page; raises as `Access.identify` does."""
    return _access_of(_generation()).identify(_head())


def _head() -> ReceivedHead:
    return received_head(request.scope, _generation().bridge.proxies)


def _access_of(generation: Generation) -> Access:
    bridge = generation.bridge
    return Access(generation.settings, generation.keys, bridge.proxies, bridge.wrong_keys)


def _answer(value: object, status: int = 200) -> OwnAnswer:
    body = msgspec.json.encode(value)
    return OwnAnswer(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body)


_ALIVE = _answer("I'm alive!")
_READY = _answer({"status": "healthy", "db": "Not connected"})
_STARTING = _answer({"status": "starting"}, 503)
_DRAINING = _answer({"status": "draining"}, 503)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")
