"""Streams back off between reads under overload, and only where that is not noticed. In virtual time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack

import httpx
import pytest
import trio
from trio.testing import MockClock

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
from stages.upstreams.transport.transport import HeadraceExchange

ORIGIN = ("http", "up", 80)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"

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
            connection = UpstreamConnection(ours)
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
        connection, _ = await pool.begin(ORIGIN, "POST", b"x", None)
        used.append(connection)
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


@pytest.fixture
async def stream(connect: Connect) -> Stream:
    pool = open_pool()
    connection, upstream = connect()
    pool.keep(ORIGIN, connection)
    await pool.begin(ORIGIN, "POST", b"request", None)
    connection.reader.feed(HEAD)
    return Stream(pool, connection, upstream)


async def test_under_lag_a_stream_accumulates_data_after_a_read(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    stream.send(b"first")
    assert await stream.exchange.receive(None) == b"first"
    assert trio.current_time() == started_at  # the first byte is never delayed
    stream.send(b"second ")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def more() -> None:
            await trio.sleep(0.06)
            stream.send(b"third")

        assert await stream.exchange.receive(None) == b"second third"
    assert trio.current_time() - started_at == pytest.approx(0.1)


async def test_without_lag_nothing_waits(autojump_clock: MockClock, stream: Stream) -> None:
    started_at = trio.current_time()
    for part in (b"first", b"second", b"third"):
        stream.send(part)
        assert await stream.exchange.receive(None) == part
    assert trio.current_time() == started_at


async def test_past_lag_delays_nothing(autojump_clock: MockClock, stream: Stream) -> None:
    started_at = trio.current_time()
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.exchange.receive(None)
    stream.pool.lag.backoff_s = 0.0
    stream.send(b"second")
    assert await stream.exchange.receive(None) == b"second"
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
            assert await stream.exchange.receive(None) == b"x"
            assert trio.current_time() == pytest.approx(second)


async def test_time_that_the_consumer_took_counts_as_back_off(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.exchange.receive(None)
    stream.send(b"second")
    await trio.sleep(0.2)
    started_at = trio.current_time()
    assert await stream.exchange.receive(None) == b"second"
    assert trio.current_time() == started_at


async def test_a_burst_is_not_delayed(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    for _ in range(3):
        stream.send(b"x" * GATHER_BYTES)
        assert await stream.exchange.receive(None) == b"x" * GATHER_BYTES
    assert trio.current_time() == started_at


async def test_the_back_off_does_not_count_as_silence_of_the_upstream(
    autojump_clock: MockClock, stream: Stream
) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.exchange.receive(0.05)
    stream.send(b"second")
    assert await stream.exchange.receive(0.05) == b"second"
    with pytest.raises(httpx.ReadTimeout):
        await stream.exchange.receive(0.05)


async def test_an_end_that_is_expected_during_a_back_off_is_not_awaited_for_long(
    autojump_clock: MockClock, stream: Stream
) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"the last event")
    await stream.exchange.receive(600)
    started_at = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def expedite() -> None:
            await trio.sleep(0.05)
            stream.exchange.expedite(1.0)

        with pytest.raises(httpx.ReadTimeout):
            await stream.exchange.receive(600)
    assert trio.current_time() - started_at < 2


async def test_a_connection_that_is_closed_meanwhile_is_an_error(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    stream.send(b"first")
    await stream.exchange.receive(None)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def close() -> None:
            await trio.sleep(0.05)
            stream.connection.close()

        with pytest.raises(httpx.ReadError):
            await stream.exchange.receive(None)


async def test_a_cancelled_back_off_closes_the_connection_at_once(autojump_clock: MockClock, stream: Stream) -> None:
    stream.pool.lag.backoff_s = 0.1
    started_at = trio.current_time()
    stream.send(b"first")
    await stream.exchange.receive(None)
    with trio.move_on_after(0.02):
        await stream.exchange.receive(None)
    assert trio.current_time() - started_at == pytest.approx(0.02)
    assert stream.connection.is_closed
