"""Open a connection to an upstream: resolve its name, connect to one of its addresses, shake hands over TLS."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import ssl
from collections.abc import Sequence

import httpx
import trio

from pipeline.kernel_time import stamp_arrivals
from stages.upstreams.transport.connection import READ_BYTES
from stages.upstreams.transport.exchange import Mark, unmarked
from stages.upstreams.transport.resolve import AddrInfo, Resolver
from stages.upstreams.transport.tls import TlsSession

HAPPY_EYEBALLS_DELAY_S = 0.25
"""How long to wait for one address before the next is tried in parallel (RFC 8305 section 8: 250 ms)."""

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A vanished host is noticed after 15 + 3 * 5 s of silence, before any of our deadlines."""


async def dial(
    host: str,
    port: int,
    *,
    resolver: Resolver,
    ssl_context: ssl.SSLContext | None,
    recv_buffer_bytes: int | None,
    limit_s: float | None,
    mark: Mark,
) -> tuple[socket.socket, TlsSession | None]:
    """Connect, with TLS if there is an ``ssl_context``, within ``limit_s`` seconds in all.

    Raises:
        httpx.ConnectTimeout: if it takes longer.
        httpx.ConnectError: if the name does not resolve, no address accepts the connection, or TLS fails.
            ``__cause__`` is the `OSError` or `UnicodeError`.
    """
    deadline = math.inf if limit_s is None else trio.current_time() + limit_s
    with trio.CancelScope(deadline=deadline) as scope:
        try:
            sock = await connect_to(host, port, resolver, recv_buffer_bytes, mark)
            mark("upstream_connected")
            if ssl_context is None:
                return sock, None
            try:
                tls = await _start_tls(sock, ssl_context, host)
            except BaseException:
                sock.close()
                raise
            mark("upstream_secured")
            return sock, tls
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that is not valid, such as "a..b"
            raise httpx.ConnectError(f"cannot connect to {host}:{port}") from error
    assert scope.cancelled_caught
    resolver.doubt(host)
    raise httpx.ConnectTimeout(f"could not connect to {host}:{port} in time")


async def connect_to(
    host: str, port: int, resolver: Resolver, recv_buffer_bytes: int | None, mark: Mark = unmarked
) -> socket.socket:
    """Resolve a name, and connect to one of its addresses.

    Raises:
        OSError, UnicodeError: if the name does not resolve, or no address accepts the connection.
    """
    addresses = await resolver.addresses(host, port)
    mark("upstream_resolved")
    try:
        return await _connect_to_any(addresses, recv_buffer_bytes)
    except OSError:
        resolver.doubt(host)
        raise


async def _connect_to_any(addresses: Sequence[AddrInfo], recv_buffer_bytes: int | None) -> socket.socket:
    """Try the addresses one after another, a new one after each short delay (RFC 8305); the first to connect wins."""
    if len(addresses) == 1:
        return await _connect(addresses[0], recv_buffer_bytes)
    winner: socket.socket | None = None
    failures: list[OSError] = []

    async def attempt(address: AddrInfo, failed: trio.Event) -> None:
        nonlocal winner
        try:
            sock = await _connect(address, recv_buffer_bytes)
        except OSError as error:
            failures.append(error)
            failed.set()
            return
        if winner is None:
            winner = sock
            nursery.cancel_scope.cancel()
        else:
            sock.close()

    try:
        async with trio.open_nursery() as nursery:
            for address in _second_family_second(addresses):
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(HAPPY_EYEBALLS_DELAY_S):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            winner.close()
        raise
    if winner is None:
        raise failures[-1] if failures else OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return winner


def _second_family_second(addresses: Sequence[AddrInfo]) -> Sequence[AddrInfo]:
    """Move one address of the other family to second place: broken IPv6 then costs one delay, not one per address."""
    for index, address in enumerate(addresses):
        if address[0] != addresses[0][0]:
            return [addresses[0], address, *addresses[1:index], *addresses[index + 1 :]]
    return addresses


async def _connect(address: AddrInfo, recv_buffer_bytes: int | None) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stamp_arrivals(sock)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if recv_buffer_bytes is not None:  # before connecting: it determines the window scale that is offered
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer_bytes)
        code = sock.connect_ex(target)
        if code == errno.EINPROGRESS:
            try:
                await trio.lowlevel.wait_writable(sock)
            except BaseException:
                trio.lowlevel.notify_closing(sock)
                raise
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _start_tls(sock: socket.socket, context: ssl.SSLContext, host: str) -> TlsSession:
    session = TlsSession(context, host)
    try:
        outgoing, is_ready = session.handshake(None)
        while True:
            await _send_all(sock, outgoing)
            if is_ready:
                return session
            outgoing, is_ready = session.handshake(await _receive(sock))
    except ssl.SSLError:
        with contextlib.suppress(OSError):  # the alert is a courtesy
            sock.send(session.pending_alert())
        raise


async def _send_all(sock: socket.socket, data: bytes) -> None:
    unsent = memoryview(data)
    while unsent:
        try:
            unsent = unsent[sock.send(unsent) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _receive(sock: socket.socket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(READ_BYTES)
        except BlockingIOError:
            continue
