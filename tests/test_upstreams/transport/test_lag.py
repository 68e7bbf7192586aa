"""Streams back off between reads under overload, and only where that is not noticed. In virtual time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack

import httpx
import pytest
import trio
from kit.upstreams.scripted import Exchange, end, scripted_upstream, sse_head
from kit.upstreams.transports import answer, post, stream_of
from trio.testing import MockClock

from pipeline.kernel_time import StampedReader
from stages.upstreams.transport.connection import UpstreamConnection
from stages.upstreams.transport.lag import (
    BACKOFFS_PER_LAG,
    GATHER_BYTES,
    HIGH_LAG_S,
    MAX_BACKOFF_S,
    MIN_STREAMS,
    SAMPLE_S,
    Lag,
)
from stages.upstreams.transport.pool import Pool
from stages.upstreams.transport.transport import HeadraceExchange, HeadraceTransport

ORIGIN = ("http", "up", 80)
LENGTH = 100_000
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LENGTH

Connect = Callable[[], tuple[UpstreamConnection, socket.socket]]


def open_pool() -> Pool:
    return Pool(ssl_context=None, max_connections=None, max_idle=1000, idle_expiry_s=30.0, recv_buffer_bytes=None)


@pytest.fixture
def connect() -> Generator[Connect]:
    """Return a function that makes connections, each with the upstream's end."""
    with ExitStack() as opened:

        def connect() -> tuple[UpstreamConnection, socket.socket]:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            opened.enter_context(theirs)
            connection = UpstreamConnection(ours, StampedReader())
            opened.callback(ours.close)
            return connection, theirs

        yield connect


# --- measuring the lag -----------------------------------------------------------------------------------------------


async def busy_for(clock: MockClock, each_turn_s: float, turns: int) -> None:
    """Keep the scheduler busy, with one long turn after another."""
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
        clock.jump(each_turn_s)


async def test_streams_back_off_if_the_scheduler_is_busy_and_not_if_it_is_idle(mock_clock: MockClock) -> None:
    lag = Lag(range(MIN_STREAMS))
    lag.watch()
    await busy_for(mock_clock, SAMPLE_S / 10, 500)  # up to a millisecond late, which does not count
    assert lag.backoff_s == 0
    await busy_for(mock_clock, SAMPLE_S + 0.01, 50)  # 10 ms late, or 30 if the next turn came first
    assert BACKOFFS_PER_LAG * HIGH_LAG_S < lag.backoff_s <= BACKOFFS_PER_LAG * 0.03
    await busy_for(mock_clock, 1.0, 50)
    assert lag.backoff_s == MAX_BACKOFF_S
    await busy_for(mock_clock, SAMPLE_S / 10, 2000)
    assert lag.backoff_s == 0


async def test_nothing_is_measured_with_few_streams(mock_clock: MockClock) -> None:
    streams = list(range(MIN_STREAMS - 1))
    lag = Lag(streams)
    lag.watch()
    await busy_for(mock_clock, 1.0, 50)
    assert lag.backoff_s == 0
    for _ in range(2):  # it starts with one stream more, stops with one less, and can start again
        streams.append(0)
        lag.watch()
        await busy_for(mock_clock, 1.0, 50)
        assert lag.backoff_s == MAX_BACKOFF_S
        streams.pop()
        await busy_for(mock_clock, 1.0, 50)
        assert lag.backoff_s == 0


async def test_a_pool_measures_while_many_of_its_connections_are_in_use(
    mock_clock: MockClock, connect: Connect
) -> None:
    pool = open_pool()
    for _ in range(MIN_STREAMS):
        connection, _ = connect()
        pool.keep(ORIGIN, connection)
    used: list[UpstreamConnection] = []
    for _ in range(MIN_STREAMS):
        await busy_for(mock_clock, 0.1, 2)
        assert pool.lag.backoff_s == 0
        reused = pool.reuse(ORIGIN, "POST", b"x")
        assert reused is not None
        used.append(reused[0])
    await busy_for(mock_clock, 0.1, 50)
    assert pool.lag.backoff_s == MAX_BACKOFF_S
    for connection in used:
        pool.discard(connection)
    await busy_for(mock_clock, 0.1, 50)
    assert pool.lag.backoff_s == 0
    pool.close()


async def test_a_backing_off_task_is_woken_in_time_or_when_measuring_ends(
    mock_clock: MockClock,
) -> None:
    streams = list(range(MIN_STREAMS))
    lag = Lag(streams)
    lag.watch()
    await busy_for(mock_clock, SAMPLE_S + 0.01, 50)
    assert lag.backoff_s > 0
    woken: dict[str, float] = {}

    async def back_off(name: str, duration_s: float) -> None:
        started_at = trio.current_time()
        await lag.back_off_until(started_at + duration_s)
        woken[name] = trio.current_time() - started_at

    async with trio.open_nursery() as nursery:
        nursery.start_soon(back_off, "short", 0.1)
        nursery.start_soon(back_off, "past", -0.1)
        with trio.CancelScope() as cancelled:
            nursery.start_soon(back_off, "long", 1000.0)
            await busy_for(mock_clock, SAMPLE_S + 0.01, 50)
            assert 0.1 <= woken["short"] < 0.1 + 4 * (SAMPLE_S + 0.01)
            assert woken["past"] < 4 * (SAMPLE_S + 0.01)
            cancelled.cancel()
            await lag.back_off_until(trio.current_time() + 1000)
        assert cancelled.cancelled_caught
        assert "long" not in woken
        streams.clear()
        await busy_for(mock_clock, SAMPLE_S + 0.01, 5)
        assert woken["long"] < 10


# --- the effect on a stream ------------------------------------------------------------------------------------------


class SetLag(Lag):
    """A lag that a test sets."""

    async def back_off_until(self, moment: float) -> None:
        await trio.sleep_until(moment)


class Stream:
    """An exchange whose head has arrived, and the upstream's end of it; the test sets ``pool.lag``."""

    def __init__(self, pool: Pool, connection: UpstreamConnection, upstream: socket.socket) -> None:
        pool.lag = SetLag(())
        self.pool = pool
        self.connection = connection
        self.exchange = HeadraceExchange(pool, ORIGIN, connection, is_all_sent=True)
        self.send = upstream.send

    async def receive(self, limit_s: float | None) -> bytes:
        """Read as callers do."""
        if self.exchange.is_backing_off:
            await self.exchange.back_off()
        return await self.exchange.receive(limit_s)


@pytest.fixture
async def stream(connect: Connect) -> Stream:
    pool = open_pool()
    connection, upstream = connect()
    pool.keep(ORIGIN, connection)
    assert pool.reuse(ORIGIN, "POST", b"request") is not None
    connection.reader.feed(HEAD)
    return Stream(pool, connection, upstream)


async def test_under_lag_a_stream_accumulates_data_after_a_read(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    stream.send(b"first")
    assert await stream.receive(None) == b"first"
    assert trio.current_time() == started_at  # the first byte is never delayed
    stream.send(b"second ")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def more() -> None:
            await trio.sleep(0.06)
            stream.send(b"third")

        assert await stream.receive(None) == b"second third"
    assert trio.current_time() - started_at == pytest.approx(0.1)


async def test_without_lag_nothing_waits(autojump_clock: MockClock, stream: Stream) -> None:
    started_at = trio.current_time()
    for part in (b"first", b"second", b"third"):
        stream.send(part)
        assert await stream.receive(None) == part
    assert trio.current_time() == started_at


async def test_past_lag_delays_nothing(autojump_clock: MockClock, stream: Stream) -> None:
    started_at = trio.current_time()
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.receive(None)
    stream.pool.lag.backoff_s = 0.0
    stream.send(b"second")
    assert await stream.receive(None) == b"second"
    assert trio.current_time() == started_at


async def test_a_slow_stream_is_not_delayed(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def upstream() -> None:
            for _ in range(5):
                await trio.sleep(1)
                stream.send(b"x")

        for second in range(1, 6):
            assert await stream.receive(None) == b"x"
            assert trio.current_time() == pytest.approx(second)


async def test_time_that_the_consumer_took_counts_as_back_off(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.receive(None)
    stream.send(b"second")
    await trio.sleep(0.2)
    started_at = trio.current_time()
    assert await stream.receive(None) == b"second"
    assert trio.current_time() == started_at


async def test_a_burst_is_not_delayed(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    for _ in range(3):
        stream.send(b"x" * GATHER_BYTES)
        assert await stream.receive(None) == b"x" * GATHER_BYTES
    assert trio.current_time() == started_at


async def test_the_back_off_does_not_count_as_silence_of_the_upstream(
    autojump_clock: MockClock, stream: Stream
) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.receive(0.05)
    stream.send(b"second")
    assert await stream.receive(0.05) == b"second"
    with pytest.raises(httpx.ReadTimeout):
        await stream.receive(0.05)


async def test_a_connection_that_is_closed_meanwhile_is_an_error(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.receive(None)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close() -> None:
            await trio.sleep(0.05)
            stream.connection.close()

        with pytest.raises(httpx.ReadError):
            await stream.receive(None)


async def test_a_cancelled_back_off_ends_at_once_and_loses_nothing(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    stream.send(b"first")
    await stream.receive(None)
    stream.send(b"second")
    with trio.move_on_after(0.02):
        await stream.receive(None)
    assert trio.current_time() - started_at == pytest.approx(0.02)
    assert await stream.receive(None) == b"second"


async def test_a_read_by_itself_does_not_back_off(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    for part in (b"first", b"second"):
        stream.send(part)
        assert await stream.exchange.receive(None) == part
        assert stream.exchange.is_backing_off
    assert trio.current_time() == started_at


async def test_an_answer_that_is_complete_or_closed_does_not_back_off(
    autojump_clock: MockClock, stream: Stream
) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    stream.send(b"x" * (LENGTH - 1))
    got = await stream.receive(None)
    while len(got) < LENGTH - 1:
        got += await stream.receive(None)
    stream.send(b"x")
    assert await stream.receive(None) == b"x"
    await stream.exchange.back_off()
    assert await stream.receive(None) == b""
    await stream.exchange.back_off()
    assert trio.current_time() == started_at


async def test_a_response_with_httpxs_interface_backs_off_by_itself() -> None:
    class Counted(Lag):
        back_offs = 0

        async def back_off_until(self, moment: float) -> None:
            assert self.backoff_s
            self.back_offs += 1
            await trio.lowlevel.checkpoint()

    first_is_read = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await exchange.send_chunk(b"first")
        await first_is_read.wait()
        await exchange.send_chunk(b"second")
        await exchange.send(end())

    async with scripted_upstream(script) as up, HeadraceTransport() as transport:
        transport._pool.lag = lag = Counted(())
        lag.backoff_s = 3600
        async with answer(transport, post(up.url)) as response:
            parts = aiter(stream_of(response))
            assert await anext(parts) == b"first"
            assert lag.back_offs == 0
            first_is_read.set()
            assert await anext(parts) == b"second"
            assert lag.back_offs == 1
