"""``metrics_address``: a small HTTP server in the supervisor, which has time even if no worker has.

It is imported only if the setting asks for it: without it the supervisor needs neither the server nor what parses HTTP.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

import trio

from pipeline.gateway.failures import refusal
from pipeline.gateway.http.asgi import App, Receive, Scope, Send
from pipeline.gateway.http.connection import ServerSettings, describe_failure
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.metrics.text import CONTENT_TYPE, METRICS_PATH, metrics_text
from pipeline.segments import SegmentFile
from stages.wire.downstream.errors import error_document

LIMITS: Final = ServerSettings(
    max_connections=64,
    keep_alive_timeout_s=75.0,
    header_timeout_s=15.0,
    write_timeout_s=20.0,
    graceful_timeout_s=1.0,
)
"""Few connections, since each may ask for megabytes; kept longer than Prometheus' default interval of a minute."""

log = logging.getLogger("headrace")


def open_address(address: str) -> socket.socket:
    """Return the listening socket of ``metrics_address``.

    Raises:
        OSError: if the address cannot be bound; the message names it.
    """
    host, _, port = address.rpartition(":")
    try:
        return bind_socket(host.strip("[]"), int(port))
    except OSError as error:
        raise OSError(error.errno, f"metrics_address: {error.strerror}") from error


async def serve_address(listener: socket.socket, app: App) -> None:
    """Serve an ASGI application on the socket until cancelled. It has no key of its own: the address is the protection.

    It raises nothing: the service goes on if this fails.
    """
    log.info("metrics on %s port %d", *listener.getsockname()[:2])
    try:
        await serve(app, hypercorn_config(LIMITS), [listener], LIMITS, make_refusal=refusal, shutdown=trio.Event())
    except* Exception as failure:
        log.error("the metrics are not served on metrics_address any more\n%s", describe_failure(failure))


def metrics_app(file: SegmentFile) -> App:
    """Return an ASGI application that answers ``GET /metrics``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["path"].rstrip("/") != METRICS_PATH:
            await _send(send, 404, _JSON, error_document("there is only /metrics here", "route_not_found"))
        elif scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, _JSON, error_document("use GET", "method_not_allowed"), (b"allow", b"GET, HEAD"))
        else:
            await _send(send, 200, CONTENT_TYPE, await trio.to_thread.run_sync(metrics_text, file))

    return app


_JSON: Final = b"application/json"


async def _send(send: Send, status: int, content_type: bytes, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
