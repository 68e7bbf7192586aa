"""Listening sockets have the options that their connections should inherit."""

from __future__ import annotations

import socket

import pytest

from pipeline.gateway.http.sockets import bind_socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_accepted_socket_inherits_the_options_of_its_listener(host: str) -> None:
    with bind_socket(host, 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            tcp = socket.IPPROTO_TCP
            assert accepted.getsockopt(tcp, socket.TCP_NODELAY) == 1
            assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 20_000
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            probes = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [accepted.getsockopt(tcp, option) for option in probes] == [15, 5, 3]
            assert accepted.getsockopt(tcp, socket.TCP_NOTSENT_LOWAT) == 16 * 1024


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
