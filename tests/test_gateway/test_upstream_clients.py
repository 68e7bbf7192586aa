"""Upstream clients: which deployments share connections, which use a proxy, and that all is closed."""

from __future__ import annotations

import ssl
from contextlib import aclosing
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
import trustme
from kit.upstreams.opened import open_answer
from kit.upstreams.scripted import Step, end, events, scripted_upstream, sse_head, stall

from pipeline.gateway.upstream_clients import ClientSettings, UpstreamClients
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, Transport, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.transport import HeadraceTransport
from stages.wire.responses.api import RESPONSES

GOOD: tuple[Step, ...] = (sse_head(), events([b"data: x\n\n"]), end())


def client_settings(**changed: Any) -> ClientSettings:
    return ClientSettings(**{"max_connections": None, "idle_expiry_s": 60, **changed})


def deployment(url: str, transport: Transport = "headrace") -> Deployment:
    return Deployment(
        id=url, model_name="m", model="m", provider="openai", kind="responses", url=url, transport=transport
    )


async def ask(clients: UpstreamClients, to: Deployment) -> bytes:
    request = ResponsesRequest(requested_model="m", stream=True, include_usage=False, body={"input": "hi"})
    call = UpstreamCall(request=request, deployment=to, model="m")
    got = b""
    async with aclosing(await open_answer(HttpUpstream(RESPONSES, clients.transport_for), call)) as answer:
        while chunk := await answer.receive():
            got += chunk
    return got


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, ssl.SSLContext]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    return str(tmp_path / "ca.pem"), server


async def test_deployments_of_one_origin_share_a_pool_and_others_do_not() -> None:
    async with UpstreamClients(client_settings()) as clients:
        one = clients.transport_for(deployment("http://a.example/v1/responses"))
        assert isinstance(one, HeadraceTransport)
        assert clients.transport_for(deployment("http://a.example:80/v2/responses")) is one
        assert clients.transport_for(deployment("https://a.example/v1/responses")) is not one
        assert clients.transport_for(deployment("http://a.example:81/v1/responses")) is not one
        assert clients.transport_for(deployment("http://b.example/v1/responses")) is not one
        other = clients.transport_for(deployment("http://a.example/v1/responses", "httpx"))
        assert isinstance(other, HttpxTransport)


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_leaving_closes_all_connections(transport: Transport) -> None:
    async with scripted_upstream(*GOOD) as up, scripted_upstream(sse_head(), stall()) as stalled:
        async with trio.open_nursery() as nursery:
            async with UpstreamClients(client_settings()) as clients:
                assert await ask(clients, deployment(f"{up.url}/r", transport)) == b"data: x\n\n"
                nursery.start_soon(ask, clients, deployment(f"{stalled.url}/r", transport))
                await stalled.request_received()
                await trio.testing.wait_all_tasks_blocked()  # the head has been read too
                assert (clients.active_connections, clients.idle_connections) == (1, 1)
                nursery.cancel_scope.cancel()
        await up.connection_closed()
        await stalled.connection_closed()
        assert (clients.active_connections, clients.idle_connections) == (0, 0)
        with pytest.raises(RuntimeError, match="lifespan"):
            clients.transport_for(deployment(up.url))


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_a_private_authority_is_trusted_from_its_file(
    transport: Transport, authority: tuple[str, ssl.SSLContext]
) -> None:
    ca_file, server = authority
    async with scripted_upstream(*GOOD, tls=server) as up:
        for settings in (client_settings(ca_file=ca_file), client_settings(verify=False)):
            async with UpstreamClients(settings) as clients:
                assert await ask(clients, deployment(f"{up.url}/r", transport)) == b"data: x\n\n"


def test_a_missing_file_of_authorities_fails_at_startup(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        UpstreamClients(client_settings(ca_file=str(tmp_path / "missing.pem")))


async def test_a_proxy_is_used_for_every_deployment() -> None:
    async with scripted_upstream(*GOOD) as proxy:
        async with UpstreamClients(client_settings(proxy=proxy.url)) as clients:
            assert await ask(clients, deployment("http://far.example/v1/responses")) == b"data: x\n\n"
        (request,) = proxy.requests
        assert request.path == "http://far.example/v1/responses"
        assert request.headers["host"] == "far.example"


async def test_the_environments_proxy_is_used_only_when_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_upstream(*GOOD) as proxy, scripted_upstream(*GOOD) as up:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "near.example")
        for transport in ("headrace", "httpx"):
            async with UpstreamClients(client_settings()) as clients:
                await ask(clients, deployment(f"{up.url}/r", transport))
        assert len(up.requests) == 2
        assert proxy.requests == []
        async with UpstreamClients(client_settings(proxy_from_environment=True)) as clients:
            assert isinstance(clients.transport_for(deployment("http://near.example/r")), HeadraceTransport)
            await ask(clients, deployment("http://far.example/r"))
        assert len(proxy.requests) == 1


async def test_a_password_in_the_proxys_url_is_not_shown() -> None:
    assert "SECRET" not in repr(client_settings(proxy="http://user:SECRET@proxy.example:3128"))


async def serve_http2(stream: trio.abc.Stream) -> None:
    """Answer each request with two pieces of a body."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    await stream.send_all(connection.data_to_send())
    while data := await stream.receive_some(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/event-stream")])
                connection.send_data(event.stream_id, b"data: ")
                connection.send_data(event.stream_id, b"two\n\n", end_stream=True)
        await stream.send_all(connection.data_to_send())


async def test_http2_is_offered_where_it_is_configured(authority: tuple[str, ssl.SSLContext]) -> None:
    ca_file, server = authority
    server.set_alpn_protocols(["h2", "http/1.1"])
    listeners = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve_http2, listeners)
        async with UpstreamClients(client_settings(ca_file=ca_file, http2=True)) as clients:
            for _ in range(2):
                assert await ask(clients, deployment(f"https://localhost:{port}/r", "httpx")) == b"data: two\n\n"
            assert clients.idle_connections == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_upstreams_that_are_wanted_no_more_are_forgotten_unless_they_are_in_use(transport: Transport) -> None:
    async with (
        scripted_upstream(*GOOD) as kept,
        scripted_upstream(*GOOD) as left,
        scripted_upstream(sse_head(), events([b"data: x\n\n"]), stall()) as used,
        UpstreamClients(client_settings()) as clients,
    ):
        deployments = [deployment(f"{up.url}/r", transport) for up in (kept, left, used)]
        for one in deployments[:2]:
            await ask(clients, one)
        request = ResponsesRequest(requested_model="m", stream=True, include_usage=False, body={"input": "hi"})
        call = UpstreamCall(request=request, deployment=deployments[2], model="m")
        async with aclosing(await open_answer(HttpUpstream(RESPONSES, clients.transport_for), call)) as answer:
            assert await answer.receive()
            before = [clients.transport_for(one) for one in deployments]
            await clients.keep_only(deployments[:1])
            after = [clients.transport_for(one) for one in deployments]
            assert [one is other for one, other in zip(before, after, strict=True)] == [True, False, True]
            assert (clients.idle_connections, clients.active_connections) == (1, 1)
        await ask(clients, deployments[1])
        assert len(left.connections) == 2
