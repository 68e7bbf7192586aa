"""``metrics_address``: a small HTTP server in the supervisor, which has time even if no worker has.

It answers the admin paths as the workers do (`pipeline.gateway.admin`), but ``/metrics`` without a key. It is imported
only if the setting asks for it: without it the supervisor needs neither the server nor what parses HTTP.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

import trio

from pipeline.gateway.admin.access import Access
from pipeline.gateway.admin.dispatch import Admin
from pipeline.gateway.client_address import Proxies
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.failures import refusal
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.connection import ServerSettings, describe_failure
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.http.sockets import ListenError, bind_socket
from pipeline.gateway.os_errors import listen_sentence
from pipeline.gateway.wrong_keys import WrongKeys
from pipeline.segments import SegmentFile

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
        CommandError: if the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    try:
        return bind_socket(host.strip("[]"), int(port))
    except ListenError as error:
        raise CommandError(f"metrics_address: {listen_sentence(error, is_flag=False)}") from error


class AddressApp:
    """The ASGI application of ``metrics_address``.

    Args:
        file: what all processes share.
        settings: the configuration, whose master key is asked for.
    """

    def __init__(self, file: SegmentFile, settings: Settings) -> None:
        self._wrong_keys = WrongKeys()
        self._access = self._access_by(settings)
        self._admin = Admin(file, lambda: self._access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self._admin(scope, receive, send)

    def reload(self, settings: Settings) -> None:
        """Go on with the keys of another configuration."""
        self._access = self._access_by(settings)

    def _access_by(self, settings: Settings) -> Access:
        keys = KeyStore(settings.master_key, settings.keys)
        proxies = Proxies(settings.pipeline.forwarded_allow_ips)
        return Access(settings, keys, proxies, self._wrong_keys, is_metrics_address=True)


async def serve_address(listener: socket.socket, app: AddressApp) -> None:
    """Serve the application on the socket until cancelled. It raises nothing: the service goes on if this fails."""
    log.info("metrics on %s port %d", *listener.getsockname()[:2])
    try:
        await serve(app, hypercorn_config(LIMITS), [listener], LIMITS, make_refusal=refusal, shutdown=trio.Event())
    except* Exception as failure:
        log.error("nothing is served on metrics_address any more\n%s", describe_failure(failure))


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
