"""While the loop is late, an upstream's bytes come with the time at which the kernel received them."""

from __future__ import annotations

import socket
from contextlib import aclosing
from time import perf_counter_ns

import httpx
import pytest
import trio
from kit.service.contexts import call, deployment
from kit.time.patience import patiently
from kit.upstreams.opened import open_answer
from kit.upstreams.scripted import Exchange, end, scripted_upstream, sse_head
from kit.upstreams.transports import MAKES, Make, make_headrace, server_tls
from msgspec import structs

from pipeline.kernel_time import StampedReader
from pipeline.loop import current_loop
from stages.upstreams.http import HttpUpstream
from stages.upstreams.transport.connection import UpstreamConnection
from stages.upstreams.transport.transport import origin_of
from stages.wire.responses.api import RESPONSES

pytestmark = pytest.mark.usefixtures("kernel_stamps")

REQUEST = b"POST / HTTP/1.1\r\nhost: up\r\ncontent-length: 0\r\n\r\n"
CLOCKS_DIFFER_NS = 1_000_000
"""By how much the kernel's clock and ours may be read apart."""


class Numbered(StampedReader):
    """Says that the first read that it does arrived at 1, and so on."""

    reads = 0

    def receive(self, sock: socket.socket, max_bytes: int) -> tuple[bytes, int]:
        data, _ = super().receive(sock, max_bytes)
        self.reads += 1
        return data, self.reads


async def test_only_a_late_loop_asks_the_kernel() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stamped = Numbered()
    connection = UpstreamConnection(ours, stamped)
    connection.begin("POST", REQUEST)
    loop = current_loop()
    arrivals = []
    with theirs:
        theirs.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for is_late in (False, True, False, True):
            loop.is_late = is_late
            theirs.send(b"x")
            await connection.receive()
            arrivals.append(connection.arrived_ns)
        connection.close()
    assert arrivals == [0, 1, 0, 2]
    assert connection.reader.take() == b"xxxx"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_the_kernels_time_is_that_of_the_arrival_and_not_of_the_read(secure: bool) -> None:
    first_is_read, second_is_sent, second_is_read = trio.Event(), trio.Event(), trio.Event()
    before_ns: list[int] = []

    async def script(exchange: Exchange) -> None:
        before_ns.append(perf_counter_ns())
        await exchange.send(sse_head() + b"3\r\none\r\n")
        await first_is_read.wait()
        before_ns.append(perf_counter_ns())
        await exchange.send(b"3\r\ntwo\r\n")
        second_is_sent.set()
        await second_is_read.wait()
        await exchange.send(end())

    async with scripted_upstream(script, tls=server_tls() if secure else None) as up, make_headrace() as transport:
        current_loop().is_late = True
        exchange = await transport.exchange(origin_of(httpx.URL(up.url)), "POST", REQUEST, {})
        assert exchange.arrived_ns > 0  # of the head
        assert await exchange.receive(None) == b"one"  # it was read together with the head
        assert before_ns[0] - CLOCKS_DIFFER_NS < exchange.arrived_ns < perf_counter_ns()
        first_is_read.set()
        with patiently():
            await second_is_sent.wait()
        held_since_ns = perf_counter_ns()
        while perf_counter_ns() < held_since_ns + 5 * CLOCKS_DIFFER_NS:
            """Hold the loop."""
        assert await exchange.receive(None) == b"two"
        assert before_ns[1] - CLOCKS_DIFFER_NS < exchange.arrived_ns < held_since_ns + CLOCKS_DIFFER_NS
        second_is_read.set()
        assert await exchange.receive(None) == b""
        current_loop().is_late = False


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKES[request.param]


async def test_an_answer_knows_it_if_its_transport_does(make: Make) -> None:
    script = (sse_head(), b"3\r\none\r\n", end())
    async with scripted_upstream(*script) as up, make() as transport:
        upstream = HttpUpstream(RESPONSES, lambda _: transport)
        to_it = structs.replace(call(), deployment=deployment(url=f"{up.url}/v1/responses"))
        current_loop().is_late = True
        async with aclosing(await open_answer(upstream, to_it)) as answer:
            assert await answer.receive() == b"one"
            assert (answer.arrived_ns > 0) is (make is make_headrace)
            assert not answer.is_backing_off
            await answer.back_off()
            assert await answer.receive() == b""
