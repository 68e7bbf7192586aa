"""What a plugin has for its lifetime: figures, values that outlive requests, and tasks beside them."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import pytest
import trio
import trio.testing

from pipeline import Host
from pipeline.host import BUCKETS_S, DRAIN_S, FIRST_RESTART_S, LAST_RESTART_S, MAX_SERIES, LocalStore, Shared
from pipeline.observe import read_all
from pipeline.segments import SegmentFile
from pipeline.series import SeriesWriter


def test_a_counter_counts_for_each_combination_of_labels() -> None:
    counter = Host("mirror").counter("dropped_total", "what was dropped")
    counter.inc()
    counter.inc(2, key="anna", end="OK")
    counter.inc(end="OK", key="anna")
    assert (counter.value(), counter.value(key="anna", end="OK"), counter.value(key="bob")) == (1, 3, 0)
    assert (counter.name, counter.about) == ("dropped_total", "what was dropped")
    with pytest.raises(ValueError, match="'dropped_total' cannot fall: use a gauge"):
        counter.inc(-1)


def test_a_gauge_rises_and_falls() -> None:
    gauge = Host("smooth").gauge("waiting")
    assert gauge.value() == 0
    gauge.inc(3)
    gauge.inc(-1)
    assert gauge.value() == 2
    gauge.set(7, key="anna")
    assert (gauge.value(), gauge.value(key="anna")) == (2, 7)


def test_a_histogram_counts_values_up_to_each_limit() -> None:
    histogram = Host("cache").histogram("read_seconds", buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 3):
        histogram.observe(value, hit="yes")
    assert histogram.buckets == (0.1, 1, math.inf)
    assert histogram.series == {(("hit", "yes"),): [2, 1, 1, 3.65]}
    assert (histogram.count(hit="yes"), histogram.sum(hit="yes")) == (4, 3.65)
    assert (histogram.count(), histogram.sum()) == (0, 0)
    assert Host("cache").histogram("wait_seconds").buckets == (*BUCKETS_S, math.inf)


def test_a_label_that_a_client_chooses_does_not_fill_the_memory() -> None:
    counter = Host("steer").counter("asked_total")
    for number in range(MAX_SERIES + 50):
        counter.inc(model=f"m{number}")
    assert len(counter.series) == MAX_SERIES + 1
    assert counter.value(model="other") == 50
    counter.inc(model="m7")
    assert counter.value(model="m7") == 2


def test_one_name_is_one_figure_of_one_kind() -> None:
    host = Host("steer")
    assert host.counter("asked_total") is host.counter("asked_total")
    assert host.figures == {"asked_total": host.counter("asked_total")}
    with pytest.raises(ValueError, match="steer already has a counter named 'asked_total'"):
        host.gauge("asked_total")


async def test_a_store_forgets_what_is_too_old_and_what_was_not_used() -> None:
    now_s = 100.0
    store = LocalStore(2, lambda: now_s)
    await store.set("a", b"1", ttl_s=10)
    await store.set("b", b"2")
    assert (await store.get("a"), await store.get("none")) == (b"1", None)
    await store.set("c", b"3")  # b was used longest ago
    assert (await store.get("a"), await store.get("b"), await store.get("c")) == (b"1", None, b"3")
    now_s += 10
    assert (await store.get("a"), await store.get("a")) == (None, None)
    await store.delete("c")
    await store.delete("c")
    assert await store.get("c") is None


async def test_plugins_that_name_the_same_store_share_it() -> None:
    shared = Shared()
    one, other = Host("one", shared=shared), Host("other", shared=shared)
    await one.shared("turns").set("anna", b"3")
    assert await other.shared("turns").get("anna") == b"3"
    assert await other.shared("tastes").get("anna") is None
    assert await Host("third").shared("turns").get("anna") is None


async def test_a_background_task_may_end_by_itself_when_its_plugin_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[int] = []

    async def write(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for number in receive:
            await trio.sleep(0.1)
            written.append(number)

    send, receive = trio.open_memory_channel[int](100)
    async with Host("mirror").background(write, receive), send:
        for number in range(20):
            send.send_nowait(number)
    assert written == list(range(20))
    assert trio.current_time() == pytest.approx(2)


@pytest.mark.parametrize("drain_s", [DRAIN_S, 0])
async def test_a_background_task_that_does_not_end_is_cancelled(
    drain_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with Host("poll").background(trio.sleep_forever, drain_s=drain_s):
        await trio.sleep(1)
    assert trio.current_time() == 1 + drain_s


async def test_a_background_task_may_end_although_the_process_is_being_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[int] = []

    async def write(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for number in receive:
            await trio.sleep(1)
            written.append(number)

    send, receive = trio.open_memory_channel[int](10)
    with trio.CancelScope() as scope:
        async with Host("mirror").background(write, receive), send:
            send.send_nowait(1)
            scope.cancel()
            await trio.sleep_forever()
    assert written == [1]


async def test_a_background_task_that_fails_starts_again_after_ever_longer_pauses(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    starts_s: list[float] = []

    async def fail() -> None:
        starts_s.append(trio.current_time())
        raise OSError("the prompt was: hello")

    host = Host("poll")
    with caplog.at_level(logging.ERROR):
        async with host.background(fail, drain_s=0):
            await trio.sleep(200)
    pauses_s = [later - earlier for earlier, later in pairwise(starts_s)]
    assert pauses_s[:6] == pytest.approx([1, 2, 4, 8, 16, LAST_RESTART_S])
    assert FIRST_RESTART_S == 1
    assert pauses_s[-1] == pytest.approx(LAST_RESTART_S)
    assert host.counter("background_failures_total").value() == len(starts_s)
    assert caplog.records[0].name == "headrace.plugin.poll"
    first = caplog.messages[0]
    assert first.startswith("a background task failed, and starts again in 1 s: builtins.OSError at\n")
    assert f"{__file__}:" in first.splitlines()[-1]
    assert "hello" not in first


async def test_a_background_task_that_fails_while_it_is_closed_does_not_start_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    starts = 0

    async def fail(receive: trio.MemoryReceiveChannel[int]) -> None:
        nonlocal starts
        starts += 1
        async for _ in receive:
            pass
        await trio.sleep(1)
        raise OSError

    send, receive = trio.open_memory_channel[int](0)
    async with Host("mirror").background(fail, receive), send:
        await trio.sleep(1)
    assert (starts, trio.current_time()) == (1, 2)


async def test_what_waits_for_a_background_task_that_has_failed_is_not_lost_when_its_plugin_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[int] = []
    failures = iter(range(4))

    async def write(receive: trio.MemoryReceiveChannel[int]) -> None:
        async for number in receive:
            if next(failures, None) is not None:
                raise OSError
            written.append(number)

    send, receive = trio.open_memory_channel[int](100)
    async with Host("mirror").background(write, receive), send:
        for number in range(8):
            send.send_nowait(number)
        await trio.sleep(8)  # it has failed after 0, 1, 3 and 7 s, and pauses until 15 s
    assert written == [4, 5, 6, 7]
    assert trio.current_time() == 8


def test_figures_are_counted_in_shared_memory_as_well() -> None:
    file = SegmentFile.create(ring_bytes=0)
    host = Host("mirror", series=SeriesWriter(file.claim(1)))
    for _ in range(2):
        host.counter("dropped_total").inc(2, key="anna")
    host.gauge("waiting").set(0.5)
    host.histogram("waited_s", buckets=(1, 10)).observe(5)
    found = read_all(file)
    assert {name: family.series[0].value for name, family in found.items()} == {
        "headrace_plugin_mirror_dropped_total": 4,
        "headrace_plugin_mirror_waiting": 0.5,
        "headrace_plugin_mirror_waited_s": 5,
    }
    assert [count for _, count in found["headrace_plugin_mirror_waited_s"].series[0].buckets] == [0, 1, 0]


def test_figures_are_shown_as_text_without_those_that_are_zero() -> None:
    host = Host("mirror")
    host.counter("dropped_total").inc(2, key="anna")
    host.counter("never_total").inc(0)
    host.gauge("waiting").set(0.5)
    host.histogram("waited_s").observe(2.5)
    assert host.figures_text() == "dropped_total{key=anna}=2 waiting=0.5 waited_s=2.5/1"
