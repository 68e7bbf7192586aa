"""Listening sockets have the options that their connections should inherit, and reads return what has arrived."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import perf_counter_ns

import pytest
import trio
from kit.time.stamps import is_between

from pipeline.gateway.http.sockets import TcpTransport, bind_socket, limit_writes
from pipeline.kernel_time import StampedReader

SO_TIMESTAMPNS = 35


@contextmanager
def connected() -> Iterator[tuple[TcpTransport, socket.socket]]:
    """Yield the two ends of a TCP connection."""
    with bind_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with closing(TcpTransport(accepted, write_timeout_s=60, stamps=StampedReader())) as transport:
            yield transport, client


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_accepted_socket_inherits_the_options_of_its_listener(host: str) -> None:
    with bind_socket(host, 0) as listener:
        limit_writes(listener, 33.5)
        listener.setblocking(True)
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with client, accepted:
            tcp = socket.IPPROTO_TCP
            assert accepted.getsockopt(tcp, socket.TCP_NODELAY) == 1
            assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 38_500
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            probes = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [accepted.getsockopt(tcp, option) for option in probes] == [15, 5, 3]
            assert accepted.getsockopt(tcp, socket.TCP_NOTSENT_LOWAT) == 16 * 1024
            assert accepted.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS) == 1


def test_an_address_in_use_is_named() -> None:
    with bind_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            bind_socket("127.0.0.1", port)


def test_an_address_that_does_not_exist_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 port 1234: Cannot assign"):
        bind_socket("192.0.2.1", 1234)  # RFC 5737: reserved for documentation


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:  # a real resolver may take a minute
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match=r"cannot listen on host\.invalid port 1: Name or service not known"):
        bind_socket("host.invalid", 1)


@pytest.mark.usefixtures("kernel_stamps")
async def test_a_read_without_waiting_distinguishes_nothing_from_the_end() -> None:
    with connected() as (transport, client):
        assert transport.receive_nowait() is None
        assert transport.receive_stamped() == (None, 0)
        client.send(b"a")
        await transport.wait_readable()
        assert transport.receive_nowait() == b"a"
        sent_ns = perf_counter_ns()
        client.send(b"b")
        await transport.wait_readable()
        chunk, arrived_ns = transport.receive_stamped()
        assert chunk == b"b"
        assert is_between(sent_ns, arrived_ns, perf_counter_ns())
        client.shutdown(socket.SHUT_WR)
        await transport.wait_readable()
        assert transport.receive_nowait() == b""
        assert transport.receive_stamped() == (b"", 0)


class ReadableForNothing(socket.socket):
    """A socket whose first read finds nothing, as select(2) warns."""

    has_read = False

    def recv(self, *size: int) -> bytes:
        if not self.has_read:
            self.has_read = True
            raise BlockingIOError
        return super().recv(*size)


async def test_a_socket_that_was_readable_for_nothing_is_waited_for_again() -> None:
    ours, theirs = socket.socketpair()
    sock = ReadableForNothing(fileno=ours.detach())
    with theirs, closing(TcpTransport(sock, write_timeout_s=60, stamps=StampedReader())) as transport:
        theirs.send(b"a")
        assert await transport.receive_some() == b"a"


async def test_reads_of_a_connection_that_was_reset_or_closed_fail() -> None:
    with connected() as (transport, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await transport.wait_readable()
        with pytest.raises(trio.BrokenResourceError):
            transport.receive_nowait()
        transport.close()
        for receive in (transport.receive_nowait, transport.receive_stamped):
            with pytest.raises(trio.ClosedResourceError):
                receive()
        with pytest.raises(trio.ClosedResourceError):
            await transport.wait_readable()


async def test_a_unix_socket_has_no_stamps_and_accepts_no_files() -> None:
    ours, theirs = socket.socketpair()
    with theirs, closing(TcpTransport(ours, write_timeout_s=60, stamps=StampedReader())) as transport:
        before = os.listdir("/proc/self/fd")
        socket.send_fds(theirs, [b"a"], [theirs.fileno()])
        await transport.wait_readable()
        assert transport.receive_stamped() == (b"a", 0)
        assert os.listdir("/proc/self/fd") == before
