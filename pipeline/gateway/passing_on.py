"""The paths that ``headrace study`` passes on unmeasured, and the origins that it refuses.

A client of an upstream asks for more than chat completions: it lists the models first, it embeds, it asks an older
route. All of that is the upstream's: below ``/v1`` it goes there as it is, and comes back as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio
from msgspec.structs import replace

from pipeline import ClientFault, PipelineError
from pipeline.gateway.failures import render
from pipeline.gateway.http.asgi import App, Receive, Scope, Send
from pipeline.gateway.routes import raw_path_of, served_path_of
from pipeline.gateway.upstream_clients import ClientSettings, UpstreamClients
from stages.upstreams import Deployment
from stages.upstreams.apis import APIS
from stages.upstreams.client_headers import passed_on
from stages.upstreams.faults import fault_of_exception
from stages.upstreams.transport.defaults import IDLE_EXPIRY_S

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_NOT_BACK: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer"})
_CONNECT_S: Final = 10.0
_CLOSE_LIMIT_S: Final = 5.0


class PassingOn:
    """An application around another one, which gets what is not passed on.

    Args:
        app: the application.
        upstream: where the rest goes.
        proxy: the URL of a proxy on the way; None if there is none.
    """

    def __init__(self, app: App, upstream: Deployment, proxy: str | None = None) -> None:
        self._app = app
        self._api = APIS[upstream.kind]
        address, _, self._query = upstream.url.partition("?")
        self._base = address.removesuffix(self._api.endpoint)
        # httpx's transport checks that a body has the length that its head says.
        self._upstream = replace(upstream, transport="httpx")
        self._clients = UpstreamClients(ClientSettings(max_connections=None, idle_expiry_s=IDLE_EXPIRY_S, proxy=proxy))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "lifespan":
            async with self._clients:
                return await self._app(scope, receive, send)
        for name, value in scope["headers"]:
            if name == b"origin" and _is_foreign(value):
                return await _fail(_refused(value), send)
        rest = self._rest_of(scope)
        if rest is None:
            return await self._app(scope, receive, send)
        await self._pass_on(rest, scope, receive, send)

    def _rest_of(self, scope: Scope) -> str | None:
        """Return where below the upstream's base a request goes; None if it is answered here.

        It stays as the client has encoded it: ``/v1/models/org%2Fname`` is one model, and ``%3F`` begins no query.
        """
        raw_path = raw_path_of(scope).decode("ascii")
        served = served_path_of(raw_path_of(scope))
        kind = None if served is None else served.kind
        if kind == "models":
            return "/models"
        if kind == "model":
            return f"/models/{raw_path.partition('/models/')[2]}"
        if not raw_path.startswith("/v1/") or (scope["method"] == "POST" and kind == "chat"):
            return None
        return raw_path.removeprefix("/v1")

    async def _pass_on(self, rest: str, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        body = _Body(receive, is_empty=names.isdisjoint({b"content-length", b"transfer-encoding"}))
        failed: PipelineError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body.watch, nursery.cancel_scope)
            failed = await self._exchange(self._request(rest, scope, body), send)
            nursery.cancel_scope.cancel()
        if failed is not None:
            await _fail(failed, send)

    def _request(self, rest: str, scope: Scope, body: _Body) -> httpx.Request:
        query = "&".join(part for part in (self._query, scope["query_string"].decode("latin-1")) if part)
        sent = [*passed_on(scope["headers"], self._api, is_raw=True)]
        names = {name for name, _ in sent}
        sent += [(name.encode(), value.encode()) for name, value in self._api.headers if name.encode() not in names]
        sent += [(name, value) for name, value in scope["headers"] if name == b"content-length"]
        return httpx.Request(
            scope["method"],
            f"{self._base}{rest}" + (f"?{query}" if query else ""),
            headers=sent,
            content=None if body.is_empty else body.chunks(),
            extensions={"timeout": httpx.Timeout(None, connect=_CONNECT_S).as_dict()},
        )

    async def _exchange(self, request: httpx.Request, send: Send) -> PipelineError | None:
        """Send a request and pass its answer on; return what has failed if there is no answer.

        After an answer that breaks off, the client's connection ends without the end of the body, as the upstream's.
        """
        try:
            answer = await self._clients.transport_for(self._upstream).handle_async_request(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return fault_of_exception(error, "the upstream", "head", {"connect": _CONNECT_S}, "--upstream")
        try:
            back = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _NOT_BACK]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": back})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.HTTPError:
            pass
        finally:
            with trio.CancelScope(deadline=trio.current_time() + _CLOSE_LIMIT_S, shield=True):
                await answer.aclose()
        return None


class _Body:
    """A client's body, as it arrives (the transport sends it when it is complete), and then the client itself.

    Args:
        receive: returns what comes from the client.
        is_empty: whether there is no body.
    """

    def __init__(self, receive: Receive, *, is_empty: bool) -> None:
        self.is_empty = is_empty
        self._receive = receive
        self._is_read = trio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body. After a disconnect it does not end: the upstream would take a part for the whole."""
        is_complete = False
        while not is_complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_read.set()
                await trio.sleep_forever()  # `watch` cancels
            is_complete = not message.get("more_body", False)
            yield message.get("body", b"")
        self._is_read.set()

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel what is done for the client when it disconnects."""
        if not self.is_empty:
            await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


async def _fail(error: PipelineError, send: Send) -> None:
    rendered = render(error)
    await send({"type": "http.response.start", "status": rendered.status, "headers": rendered.headers})
    await send({"type": "http.response.body", "body": rendered.body, "more_body": False})


def _is_foreign(origin: bytes) -> bool:
    """Return whether an ``Origin`` is that of a web page from elsewhere.

    Any page that the user visits can post to a port of this machine, and by DNS rebinding read the answer. An upstream
    without keys, such as a model server on this machine, would answer it.
    """
    if origin == b"null":  # of a page in a sandbox, or from a file: any page can put one into a frame
        return True
    try:
        parts = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return True
    return parts.scheme in ("http", "https") and parts.hostname not in LOOPBACK


def _refused(origin: bytes) -> ClientFault:
    return ClientFault(
        f"web pages may not use this proxy, and the request comes from one of {origin[:100].decode('latin-1')}: "
        "let its server send the request, or serve the page on localhost"
    )
