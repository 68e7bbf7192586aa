"""The pages: what is answered besides chats and the admin paths. All of them are small, and none of them streams."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from pipeline import ClientFault, PipelineError, StageBug
from pipeline.gateway.admin.access import Access
from pipeline.gateway.doctor.server_page import server_page
from pipeline.gateway.failures import render
from pipeline.gateway.generation import Generation
from pipeline.gateway.health_page import health_page
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.door import Answers, OwnAnswer
from pipeline.gateway.no_route import no_route, not_allowed
from pipeline.gateway.page_shapes import ListedModel, ModelList
from pipeline.gateway.received_head import received_head
from pipeline.gateway.routes import METHODS, ServedPath, raw_path_of
from stages.principal import Principal
from stages.slots import ReceivedHead

if TYPE_CHECKING:
    from pipeline.gateway.openapi.document import Published

CORS_METHODS: Final = "GET, POST, OPTIONS"

_GENERATION: Final = "headrace.generation"
_SERVED: Final = "headrace.served"
"""Where the scope of a request has the generation that it belongs to, and what its path means."""


class Pages:
    """An ASGI application for what `pipeline.gateway.routes` has found, or has not.

    Quart knows no routes: there is one place that knows what a path means.

    Args:
        answers: the answers to health checks, by path.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._started_s = int(time.time())  # noqa: TID251 - shown as `created` of the models
        self._quart = quart = QuartTrio("headrace", static_folder=None)
        quart.before_request(self._answer)
        quart.register_error_handler(PipelineError, self._fail)
        quart.register_error_handler(HTTPException, self._fail_unexpectedly)
        quart.after_request(_allow)

    async def __call__(
        self, served: ServedPath | None, generation: Generation, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request.

        Args:
            served: what its path means; None if it means nothing.
            generation: the one that it belongs to.
            scope, receive, send: ASGI's.
        """
        scope[_SERVED] = served
        scope[_GENERATION] = generation
        await self._quart(scope, receive, send)  # type: ignore[arg-type]  # Quart expects hypercorn's TypedDicts

    async def _answer(self) -> Response:
        served, method = _served(), request.method
        path = raw_path_of(_scope()).decode("ascii", "replace")
        if method == "OPTIONS":
            return _preflight(served)
        if served is None:
            raise no_route(path)
        if method not in METHODS[served.kind]:
            raise not_allowed(path, method, served)
        match served.kind:
            case "models":
                names = _generation().deployments.visible_to(_identify())
                listed: ModelList = {"object": "list", "data": [self._model(name) for name in names]}
                return _json(listed)
            case "model":
                assert served.model is not None
                return self._one_model(served.model)
            case "base":
                return Response(_BASE_PAGE, 200, content_type="application/json")
            case "health":
                return _health()
            case "doctor":
                return _doctor()
            case "openapi":
                return await _openapi()
            case _:
                answer = self._answers[path]()
                return Response(answer.body, answer.status, _texts(answer))

    def _model(self, name: str) -> ListedModel:
        return {"id": name, "object": "model", "created": self._started_s, "owned_by": "headrace"}

    def _one_model(self, name: str) -> Response:
        """Return a model that the key may chat with: also one that a ``*`` matches, or a variant, which are not listed.

        Raises:
            ClientFault: ``model_not_found`` if there is none, or the key may not use it.
        """
        principal, deployments = _identify(), _generation().deployments
        found = deployments.match(name)
        if found is None or not found.candidates or not (principal.may_use(name) or found.is_for(principal)):
            raise deployments.not_found(name, principal)
        return _json(self._model(name))

    async def _fail(self, error: Exception) -> Response:
        assert isinstance(error, PipelineError)
        await trio.sleep(_generation().bridge.wrong_keys.delay_of(error, _head().client))
        rendered = render(error)
        response = Response(rendered.body, rendered.status, {k.decode(): v.decode() for k, v in rendered.headers})
        if rendered.status == 405 and (served := _served()) is not None:
            response.headers["allow"] = _allowed(served)  # RFC 9110 section 15.5.6: required
        return response

    async def _fail_unexpectedly(self, error: Exception) -> Response:
        """Report what Quart has made of a bug; it has logged the bug itself."""
        return await self._fail(StageBug("something went wrong inside the gateway; the operator's log has the details"))


_BASE_PAGE: Final = msgspec.json.format(
    msgspec.json.encode(
        {
            "name": "headrace",
            "message": "This gateway is running. Clients add a path to this address: it is a base URL, not a page.",
            "cursor": "Settings > Models: OpenAI API Key: a key of this gateway; Override OpenAI Base URL: "
            "https://YOUR-HOST/cursor; add a custom model that GET /cursor/models lists",
            "sdks": "base URL https://YOUR-HOST/v1",
            "chat": "POST /cursor/chat/completions, POST /v1/chat/completions",
            "models": "GET /cursor/models, GET /v1/models, with a key",
            "figures": "/latency, with the master key",
            "all paths": "/openapi.json",
        }
    )
)
"""For whoever opens a base URL in a browser, to see whether the gateway can be reached."""


def _preflight(served: ServedPath | None) -> Response:
    headers = {
        "access-control-allow-methods": CORS_METHODS,
        "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
        "access-control-max-age": "86400",
    }
    if served is not None:
        headers["allow"] = _allowed(served)
    return Response(b"", 204, headers)


async def _allow(response: Response) -> Response:
    """Add the headers that every response has."""
    bridge, headers = _generation().bridge, _head().headers
    for name, value in bridge.cors.headers_for(headers.get(b"origin")):
        response.headers[name.decode()] = value.decode()
    response.headers["x-request-id"] = bridge.request_id_of(headers)
    return response


def _health() -> Response:
    if not _identify().is_master:
        raise ClientFault("only the master key may see the state of the deployments", code="master_key_required")
    generation, now_s = _generation(), trio.current_time()
    settings, router = generation.settings, generation.deployments.router
    workers, wrong_keys = settings.pipeline.workers, generation.bridge.wrong_keys.total
    return _json(health_page(router, settings.deployments, now_s, workers=workers, wrong_keys=wrong_keys))


def _doctor() -> Response:
    if not _identify().is_master:
        raise ClientFault("only the master key may see how its requests arrive", code="master_key_required")
    generation = _generation()
    return _json(server_page(request.scope, generation.settings.pipeline, generation.bridge.proxies))


def _published() -> Published:
    from pipeline.gateway.openapi.document import published  # here: hardly any process is asked for it

    return published()


async def _openapi() -> Response:
    made = await trio.to_thread.run_sync(_published)  # in a thread: the first time it takes some 30 ms
    headers = {"etag": made.etag, "cache-control": "no-cache"}
    if made.etag in request.headers.get("if-none-match", ""):
        unchanged = Response(b"", 304, headers)
        for name in ("content-type", "content-length"):  # Quart's: they would be about the document
            del unchanged.headers[name]
        return unchanged
    return Response(made.body, 200, headers, content_type="application/json")


def _allowed(served: ServedPath) -> str:
    return ", ".join((*METHODS[served.kind], "OPTIONS"))


def _served() -> ServedPath | None:
    """Return what the path of the current request means."""
    found: ServedPath | None = _scope()[_SERVED]
    return found


def _generation() -> Generation:
    """Return the generation that the current request belongs to."""
    found: Generation = _scope()[_GENERATION]
    return found


def _scope() -> Mapping[str, Any]:
    """Return the scope of the current request, which has more than Quart knows."""
    return request.scope


def _identify() -> Principal:
    """Return the principal of the current request; raises as `Access.identify` does."""
    return access_of(_generation()).identify(_head())


def _head() -> ReceivedHead:
    return received_head(request.scope, _generation().bridge.proxies)


def access_of(generation: Generation) -> Access:
    """Return who may read what, by the configuration of a generation."""
    bridge = generation.bridge
    return Access(generation.settings, generation.keys, bridge.proxies, bridge.wrong_keys)


def _texts(answer: OwnAnswer) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answer.headers}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), 200, content_type="application/json")
