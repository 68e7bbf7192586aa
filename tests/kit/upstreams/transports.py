"""Both transports, and requests over them."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import trustme
from kit.time.patience import PATIENCE_S

from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import HeadraceTransport

AnyTransport = HeadraceTransport | HttpxTransport
Make = Callable[..., AnyTransport]
Headers = dict[str, str] | list[tuple[bytes, bytes]]

_CA = trustme.CA()


@functools.cache
def server_tls(name: str = "localhost") -> ssl.SSLContext:
    """Return a server's context, with a certificate for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _CA.issue_cert(name).configure_cert(context)
    return context


@functools.cache
def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts `server_tls`."""
    context = client_context()
    _CA.configure_trust(context)
    return context


def make_headrace(**settings: Any) -> HeadraceTransport:
    """Return our own transport, which trusts `server_tls`."""
    return HeadraceTransport(**{"ssl_context": trusting(), **settings})


def make_httpx(**settings: Any) -> HttpxTransport:
    """Return httpx's, which trusts `server_tls`."""
    return HttpxTransport(**{"ssl_context": trusting(), **settings})


MAKES: Final[Mapping[str, Make]] = {"headrace": make_headrace, "httpx": make_httpx}


def post(url: str, body: bytes = b"{}", *, headers: Headers | None = None, **timeouts: float | None) -> httpx.Request:
    """Return a request whose time limits no test reaches, except those in ``timeouts``."""
    limits = {**dict.fromkeys(("connect", "write", "read", "pool"), PATIENCE_S), **timeouts}
    return httpx.Request("POST", url, content=body, headers=headers, extensions={"timeout": limits})


@asynccontextmanager
async def answer(transport: AnyTransport, request: httpx.Request) -> AsyncGenerator[httpx.Response]:
    """Send ``request``; the response is closed at the end of the block."""
    response = await transport.handle_async_request(request)
    stream = stream_of(response)
    try:
        yield response
    finally:
        await stream.aclose()


async def read(transport: AnyTransport, request: httpx.Request) -> bytes:
    """Return the body of the response to ``request``."""
    async with answer(transport, request) as response:
        return b"".join([chunk async for chunk in stream_of(response)])


def stream_of(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the body of ``response``."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream
