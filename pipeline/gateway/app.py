"""The ASGI application: the chat routes go to the bridge, everything else to a Quart-Trio app.

It is a plain ASGI application that any server can run; our own (`pipeline.gateway.http.server`) runs it fastest.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from pipeline import ClientFault, PipelineError
from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.bridge import Bridge, OnEnd
from pipeline.gateway.client_address import Proxies
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.cors import Cors
from pipeline.gateway.failures import render
from pipeline.gateway.health_checks import health_checks, running
from pipeline.gateway.health_log import HealthLog
from pipeline.gateway.health_page import PATH, health_page
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.door import Answers, OwnAnswer
from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.insertions import plan
from pipeline.gateway.memory import memory_limit_bytes
from pipeline.gateway.open_plugins import OpenPlugins
from pipeline.gateway.shedding import Shedding
from pipeline.gateway.upload_budget import UploadBudget, default_total_bytes
from pipeline.gateway.upstream_clients import ClientSettings, UpstreamClients
from pipeline.loop import current_loop
from pipeline.registry import AnyPlugin
from stages.authenticate import identify, key_names
from stages.choose_deployment import Deployments
from stages.principal import Principal
from stages.reasoning.opening import open_store
from stages.reasoning.store import ReasoningStore
from stages.upstreams import Deployment
from stages.upstreams.apis import APIS
from stages.upstreams.canned.upstream import CannedUpstream
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.profiles import CURSOR, OPENAI, Profile
from stages.wire.redaction import redact

log = logging.getLogger("headrace")

ANONYMOUS = Principal("anonymous")
"""The principal of a request without a key if `allow_anonymous` is on."""

CHAT_PATHS = frozenset(
    {"/cursor/chat/completions", "/cursor/v1/chat/completions", "/v1/chat/completions", "/chat/completions"}
)
CHAT_PATH_OF_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<name>.+)/chat/completions")
"""Azure OpenAI's form, with the model in the path (used by Cursor's Azure settings)."""
MODELS_PATHS = ("/cursor/models", "/cursor/v1/models", "/v1/models", "/models")
LIVE_PATHS = ("/health/liveliness", "/health/liveness", "/livez")
READY_PATHS = ("/health/readiness", "/readyz")

CORS_METHODS = "GET, POST, OPTIONS"


class Application:
    """The whole service as an ASGI application.

    Args:
        settings: the configuration, resolved.
        plugins: the stages that are installed, by name.
        on_end: called at the end of each request with what makes a `FinishedRequest` of it.

    Attributes:
        parts: what the built-in stages are made of.
        answers: the answers to health checks, by path: our own server gives them without the application.

    Raises:
        PluginError: if a configured stage does not exist or does not fit in its place.
    """

    def __init__(self, settings: Settings, *, plugins: Mapping[str, AnyPlugin], on_end: OnEnd) -> None:
        own = settings.pipeline
        self.keys = KeyStore(settings.master_key, settings.keys)
        self.anonymous = ANONYMOUS if own.allow_anonymous else None
        self._settings = settings
        self.deployments = Deployments(settings.deployments, settings.routing, on_change=HealthLog().note)
        self.deployments.router.on_chat_only = _log_chat_only
        self.clients = UpstreamClients(
            ClientSettings(
                max_connections=own.upstream_max_connections,
                idle_expiry_s=own.upstream_idle_expiry_s,
                ca_file=own.ca_file,
                proxy=own.proxy,
                http2=own.http2,
            )
        )
        self.reasoning = _reasoning_store(own)
        self.started_s = int(time.time())  # noqa: TID251 - shown as `created` of the models
        parts = Parts(
            keys=self.keys,
            anonymous=self.anonymous,
            key_header=own.key_header,
            deployments=self.deployments,
            upstreams={
                **{name: HttpUpstream(api, self.clients.transport_for) for name, api in APIS.items()},
                "canned": CannedUpstream(),
            },
            max_body_bytes=own.max_body_bytes,
            keep_alive_interval_s=own.keep_alive_interval_s,
            reasoning=self.reasoning,
            execution=own.execution,
        )
        interval_s = settings.health_check_interval_s
        self._health_checks = (
            None
            if interval_s is None
            else health_checks(self.deployments.router, settings.deployments, parts.upstreams, interval_s)
        )
        self.plugins = OpenPlugins(plan(own.stages, plugins), deployments={one.id: one for one in settings.deployments})
        self.parts = parts
        self._cors = Cors(own.allowed_origins)
        self.bridge = Bridge(
            None if self.plugins.have_lifetimes else Assembly(parts, self.plugins.made()),
            profile_of=_profile_chooser(own),
            on_end=on_end,
            cors=self._cors,
            proxies=Proxies(own.forwarded_allow_ips),
            request_timeout_s=own.request_timeout_s,
            body_timeout_s=own.body_timeout_s,
            uploads=_upload_budget(own),
            shedding=Shedding(own.max_lag_ms),
        )
        self.answers: Answers = {
            **dict.fromkeys(LIVE_PATHS, self._alive),
            **dict.fromkeys(READY_PATHS, self._ready),
        }
        self._pages = self._make_pages()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch by path; lifespan goes to Quart, which opens and closes our resources."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = str(scope["path"]).rstrip("/")
            if path in CHAT_PATHS:
                return await self.bridge(scope, receive, send)
            if (match := CHAT_PATH_OF_DEPLOYMENT.fullmatch(path)) is not None:
                return await self.bridge(scope, receive, send, model_in_path=match["name"])
        await self._pages(scope, receive, send)  # type: ignore[arg-type]  # Quart expects hypercorn's TypedDicts

    def shed(self, head: RequestHead) -> OwnAnswer | None:
        """Return how a chat request is refused while the loop is overloaded; None for any other request."""
        path = head.path.rstrip("/")
        if head.method != "POST" or (path not in CHAT_PATHS and CHAT_PATH_OF_DEPLOYMENT.fullmatch(path) is None):
            return None
        return self.bridge.shed(dict(head.headers))

    def _alive(self) -> OwnAnswer:
        return _ALIVE

    def _ready(self) -> OwnAnswer:
        if self.bridge.draining:
            return _DRAINING
        return _STARTING if self.bridge.assembly is None else _READY

    def _identify(self) -> Principal:
        """Return the principal of the current request for a page; raises as `identify` does."""
        head = self.bridge.head_of(request.scope)
        return identify(head, self.keys, self.anonymous, key_names(self._settings.pipeline.key_header))

    def _make_pages(self) -> QuartTrio:
        pages = QuartTrio("headrace", static_folder=None)
        pages.json.sort_keys = False  # type: ignore[attr-defined]  # Quart's default provider has it
        opened = AsyncExitStack()

        @pages.before_serving
        async def open_clients() -> None:
            async with AsyncExitStack() as opening:  # what is open is closed again if something after it fails
                await opening.enter_async_context(self.clients)
                if self.reasoning is not None:
                    await opening.enter_async_context(self.reasoning)
                if self.plugins.have_lifetimes:
                    self.bridge.assembly = Assembly(self.parts, await opening.enter_async_context(self.plugins))
                if self._health_checks is not None:
                    await opening.enter_async_context(running(self._health_checks))
                await opened.enter_async_context(opening.pop_all())
                self.bridge.shedding.watch(current_loop())

        @pages.after_serving
        async def close_clients() -> None:
            await opened.aclose()

        async def models() -> Response:
            principal = self._identify()
            return _json(
                {
                    "object": "list",
                    "data": [
                        {"id": name, "object": "model", "created": self.started_s, "owned_by": "headrace"}
                        for name in self.deployments.visible_to(principal)
                    ],
                }
            )

        async def health() -> Response:
            if not self._identify().is_master:
                raise ClientFault(
                    "only the master key may see the state of the deployments", code="master_key_required"
                )
            settings = self._settings
            router, now_s = self.deployments.router, trio.current_time()
            workers, wrong_keys = settings.pipeline.workers, self.bridge.wrong_keys.total
            return _json(health_page(router, settings.deployments, now_s, workers=workers, wrong_keys=wrong_keys))

        async def health_check() -> Response:
            answer = self.answers[request.path]()
            return Response(answer.body, answer.status, {k.decode(): v.decode() for k, v in answer.headers})

        async def fail(error: Exception) -> Response:
            assert isinstance(error, PipelineError)
            await trio.sleep(self.bridge.delay_of(error, self.bridge.head_of(request.scope).client))
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
            headers = self.bridge.head_of(request.scope).headers
            for name, value in self._cors.headers_for(headers.get(b"origin")):
                response.headers[name.decode()] = value.decode()
            response.headers["x-request-id"] = self.bridge.request_id_of(headers)
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


def _answer(value: object, status: int = 200) -> OwnAnswer:
    body = msgspec.json.encode(value)
    return OwnAnswer(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body)


_ALIVE = _answer("I'm alive!")
_READY = _answer({"status": "healthy", "db": "Not connected"})
_STARTING = _answer({"status": "starting"}, 503)
_DRAINING = _answer({"status": "draining"}, 503)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, content_type="application/json")


def _log_chat_only(deployment: Deployment) -> None:
    log.warning(
        "the server of deployment %s has no /responses and is asked by /chat/completions from now on: "
        "use_chat_completions_api: true in its litellm_params saves the first attempt after each start",
        redact(deployment.id),
    )


def _reasoning_store(own: PipelineSettings) -> ReasoningStore | None:
    if not own.restore_reasoning:
        return None
    return open_store(
        own.reasoning_store,
        file=own.reasoning_store_file,
        max_entries=own.reasoning_max_entries,
        max_mb=own.reasoning_max_mb,
        max_age_h=own.reasoning_max_age_h,
    )


def _upload_budget(own: PipelineSettings) -> UploadBudget:
    if own.max_upload_mb_total is None:
        total_bytes = default_total_bytes(memory_limit_bytes(), own.workers)
    else:
        total_bytes = int(own.max_upload_mb_total * 1024 * 1024)
    return UploadBudget(total_bytes, max_body_bytes=own.max_body_bytes)


def _profile_chooser(own: PipelineSettings) -> Callable[[dict[bytes, bytes]], Profile]:
    """Return a function from a request's headers to its client profile."""
    display = own.reasoning_display
    openai = msgspec.structs.replace(OPENAI, reasoning_display=display)
    errors_as_400 = own.cursor_error_status == 400
    cursor = msgspec.structs.replace(CURSOR, errors_as_400=errors_as_400, reasoning_display=display)
    if own.client_profile == "cursor":
        return lambda headers: cursor
    if own.client_profile == "openai":
        return lambda headers: openai
    return lambda headers: cursor if headers.get(b"user-agent", b"")[:7].lower() == b"cursor/" else openai
