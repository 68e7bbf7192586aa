"""``GET /cursor/doctor``: how a request of ``headrace doctor`` has arrived here, for the master key.

Only the server sees what a proxy in front of it has changed. Values of headers are not shown, only their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from msgspec import Struct

from pipeline.gateway.client_address import Proxies
from pipeline.gateway.config.settings import PipelineSettings


class ServerPage(Struct, frozen=True, kw_only=True):
    """How a request has arrived, and the settings that explain what becomes of others.

    Attributes:
        headrace: the server's version.
        http_version: of the request, as ``1.1``.
        headers: the names of its headers, in lower case.
        peer: the address that it came from; None on a Unix socket.
        is_peer_trusted: whether ``forwarded_allow_ips`` has that address.
        keep_alive_interval_s, max_body_mb, allow_anonymous, key_header: as in ``pipeline_settings``.
    """

    headrace: str
    http_version: str
    headers: list[str]
    peer: str | None
    is_peer_trusted: bool
    keep_alive_interval_s: float
    max_body_mb: float
    allow_anonymous: bool
    key_header: str | None


def server_page(scope: Mapping[str, Any], own: PipelineSettings, proxies: Proxies) -> ServerPage:
    """Return how a request has arrived.

    Args:
        scope: ASGI's, of the request.
        own: the current settings.
        proxies: those that are trusted to report the address of their client.
    """
    peer = scope["client"][0] if scope.get("client") else None
    return ServerPage(
        headrace=version("headrace"),
        http_version=scope["http_version"],
        headers=[name.decode("latin-1") for name, _ in scope["headers"]],
        peer=peer,
        is_peer_trusted=proxies.trusts(peer),
        keep_alive_interval_s=own.keep_alive_interval_s,
        max_body_mb=own.max_body_mb,
        allow_anonymous=own.allow_anonymous,
        key_header=own.key_header,
    )
