"""HTTP clients towards upstreams: one pool of connections for each origin, opened at first use and closed
together.

Separate pools isolate the upstreams from each other: a slow one cannot take the connections of another.
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterable
from types import TracebackType

import httpx
import trio
from msgspec import Struct

from stages.upstreams import Deployment
from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.pool import MAX_IDLE_CONNECTIONS
from stages.upstreams.transport.resolve import Resolver
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import RECV_BUFFER_BYTES, HeadraceTransport

_CLOSE_LIMIT_S = 5.0


class ClientSettings(Struct, frozen=True, kw_only=True):
    """How to connect to upstreams."""

    max_connections: int | None
    """For each upstream; a call beyond it waits for up to ``connect_s``, then is refused. None for no limit."""
    max_idle: int = MAX_IDLE_CONNECTIONS
    """Idle connections kept for each upstream."""
    idle_expiry_s: float
    """How long an idle connection is kept."""
    recv_buffer_bytes: int | None = RECV_BUFFER_BYTES
    """SO_RCVBUF: how much the kernel buffers from an upstream while a client is stalled. None: the system's default."""
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""
    verify: bool = True
    """Whether certificates are checked. False is for tests only: anyone on the network path can then read the keys."""
    proxy: str | None = None
    """The URL of a proxy to use, ``http://[user:password@]host:port``; needs httpx's transport."""
    proxy_from_environment: bool = False
    """Without ``proxy``: whether HTTPS_PROXY, HTTP_PROXY and NO_PROXY are used."""
    http2: bool = False
    """Whether deployments with ``transport: httpx`` offer HTTP/2."""

    def __repr__(self) -> str:
        """Omit the proxy: its URL may contain a password."""
        return f"<ClientSettings: {self.max_connections} connections, proxy {'set' if self.proxy else 'not set'}>"


class UpstreamClients:
    """The transports of one running service. Enter it in the app's lifespan; exiting closes all connections.

    Args:
        settings: for all upstreams.

    Raises:
        OSError: if ``ca_file`` cannot be read.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._transports: dict[tuple[str, str, str, int | None], HeadraceTransport | HttpxTransport] = {}
        self._by_url: dict[tuple[str, str], HeadraceTransport | HttpxTransport] = {}  # parsing a URL takes 30 us
        self._resolver = Resolver()
        self._is_open = False
        if self._settings.ca_file is not None:
            self._tls()  # an invalid file fails at startup, not at the first request

    async def __aenter__(self) -> UpstreamClients:
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_open = False
        transports = list(self._transports.values())
        self._transports.clear()
        self._by_url.clear()
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_LIMIT_S, shield=True):
            for transport in transports:
                await transport.aclose()

    @property
    def active_connections(self) -> int:
        """How many connections are in use."""
        return sum(transport.active_connections for transport in self._transports.values())

    @property
    def idle_connections(self) -> int:
        """How many connections are idle."""
        return sum(transport.idle_connections for transport in self._transports.values())

    def transport_for(self, deployment: Deployment) -> httpx.AsyncBaseTransport:
        """Return the transport to ``deployment``, always the same for the same origin.

        Raises:
            RuntimeError: if the context is not entered.
        """
        if not self._is_open:
            raise RuntimeError("upstream clients are used before the lifespan has begun, or after it has ended")
        known = self._by_url.get((deployment.transport, deployment.url))
        if known is not None:
            return known
        url = httpx.URL(deployment.url)
        key = (deployment.transport, url.scheme, url.host, url.port)
        transport = self._transports.get(key)
        if transport is None:
            transport = self._transports[key] = self._open(deployment, url)
        self._by_url[deployment.transport, deployment.url] = transport
        return transport

    async def keep_only(self, deployments: Iterable[Deployment]) -> None:
        """Close the idle connections to whom none of these deployments is at, and forget those upstreams.

        One that a request is using stays; a plugin may have made its deployment.
        """
        forms = [form for one in deployments for form in (one, one.on_chat, one.on_responses) if form is not None]
        wanted = {(one.transport, one.url) for one in forms}
        kept = {id(transport) for url, transport in self._by_url.items() if url in wanted}
        closing = {
            key: transport
            for key, transport in self._transports.items()
            if id(transport) not in kept and not transport.active_connections
        }
        for key in closing:
            del self._transports[key]
        closed = {id(transport) for transport in closing.values()}
        self._by_url = {url: transport for url, transport in self._by_url.items() if id(transport) not in closed}
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_LIMIT_S, shield=True):
            for transport in closing.values():
                await transport.aclose()

    def _open(self, deployment: Deployment, url: httpx.URL) -> HeadraceTransport | HttpxTransport:
        settings = self._settings
        proxy = self._proxy_for(url)
        if proxy is None and deployment.transport == "headrace":
            return HeadraceTransport(
                ssl_context=self._tls() if url.scheme == "https" else None,
                max_connections=settings.max_connections,
                max_idle=settings.max_idle,
                idle_expiry_s=settings.idle_expiry_s,
                recv_buffer_bytes=settings.recv_buffer_bytes,
                resolver=self._resolver,
            )
        return HttpxTransport(
            ssl_context=self._tls(),
            http2=settings.http2 and deployment.transport == "httpx",
            proxy=proxy,
            max_connections=settings.max_connections,
            max_idle=settings.max_idle,
            idle_expiry_s=settings.idle_expiry_s,
            recv_buffer_bytes=settings.recv_buffer_bytes,
            resolver=self._resolver,
        )

    def _tls(self) -> ssl.SSLContext:
        # One for each transport, because httpx modifies it (ALPN).
        return client_context(ca_file=self._settings.ca_file, verify=self._settings.verify)

    def _proxy_for(self, url: httpx.URL) -> str | None:
        if self._settings.proxy is not None or not self._settings.proxy_from_environment:
            return self._settings.proxy
        return proxy_in_environment(url)


def proxy_in_environment(url: httpx.URL) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name for an address; None if none."""
    if urllib.request.proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(url.scheme) or proxies.get("all")
