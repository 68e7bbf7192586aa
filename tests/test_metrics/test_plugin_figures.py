"""The figures of plugins in shared memory: for all workers, over reloads, upgrades and killed processes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kit.clients.chat_posts import ask
from kit.service.running import serving

from pipeline import Host, Plugin, per_event
from pipeline.gateway.metrics.text import metrics_text
from pipeline.host import MAX_SERIES
from pipeline.observe import read_all
from pipeline.registry import NoOptions
from pipeline.segments import SegmentFile
from pipeline.series import Family, Kind, SeriesWriter
from stages.events import StreamEvent


def file() -> SegmentFile:
    return SegmentFile.create(ring_bytes=0)


def values(family: Family) -> dict[tuple[tuple[str, str], ...], float]:
    return {series.labels: series.value for series in family.series}


def test_they_are_named_after_their_stage_and_keep_their_labels() -> None:
    shared = file()
    host = Host("mirror", series=SeriesWriter(shared.claim(1)))
    host.counter("dropped_total", "what was dropped").inc(2.5, why="full", at="queue")
    host.gauge("waiting").set(3)
    host.gauge("waiting").inc(-1)
    host.histogram("size", buckets=(1, 10)).observe(5, kind="a")
    host.histogram("size", buckets=(1, 10)).observe(50, kind="a")
    found = read_all(shared)
    assert {name: family.kind for name, family in found.items()} == {
        "headrace_plugin_mirror_dropped_total": Kind.AMOUNT,
        "headrace_plugin_mirror_waiting": Kind.GAUGE,
        "headrace_plugin_mirror_size": Kind.BUCKETS,
    }
    assert found["headrace_plugin_mirror_dropped_total"].about == "what was dropped"
    assert values(found["headrace_plugin_mirror_dropped_total"]) == {(("at", "queue"), ("why", "full")): 2.5}
    assert values(found["headrace_plugin_mirror_waiting"]) == {(): 2}
    (size,) = found["headrace_plugin_mirror_size"].series
    assert (size.labels, size.value, size.buckets) == ((("kind", "a"),), 55, ((1, 0), (10, 1), (math.inf, 1)))


def test_a_next_process_goes_on_with_counters_and_begins_gauges_anew() -> None:
    shared = file()
    for _ in range(2):  # each dies at once: nobody refers to its segment any more
        host = Host("mirror", series=SeriesWriter(shared.claim(1)))
        host.counter("sent_total").inc()
        host.gauge("waiting").inc()
        assert host.counter("sent_total").value() == 1  # what a plugin sees is its own
        del host
    other = Host("mirror", series=SeriesWriter(shared.claim(2)))
    other.counter("sent_total").inc(10)
    assert values(read_all(shared)["headrace_plugin_mirror_sent_total"]) == {(): 12}
    assert values(read_all(shared)["headrace_plugin_mirror_waiting"]) == {(): 0}


def test_series_are_bounded() -> None:
    shared = file()
    counter = Host("mirror", series=SeriesWriter(shared.claim(1))).counter("sent_total")
    for user in range(MAX_SERIES + 50):
        counter.inc(user=str(user))
    series = values(read_all(shared)["headrace_plugin_mirror_sent_total"])
    assert len(series) == MAX_SERIES + 1
    assert series[("user", "other"),] == 50


def test_a_new_version_with_other_buckets_or_another_kind_disturbs_nothing() -> None:
    shared = file()
    for buckets in ((1.0, 2.0), (1.0, 2.0, 3.0), (1.0, 5.0)):
        writer = SeriesWriter(shared.claim(1))
        Host("mirror", series=writer).histogram("size", buckets=buckets).observe(2.5)
        Host("mirror", series=writer).counter("odd").inc()
        del writer
    Host("mirror", series=SeriesWriter(shared.claim(1))).histogram("odd").observe(1)
    found = read_all(shared)
    assert found["headrace_plugin_mirror_size"].series[0].buckets == ((1, 0), (2, 0), (math.inf, 1))
    assert values(found["headrace_plugin_mirror_odd"]) == {(): 3}
    assert metrics_text(shared).count(b"# TYPE") == 2


async def test_a_reload_goes_on_with_what_a_plugin_has_counted() -> None:
    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        counter = host.counter("events_total", "events that passed")

        @per_event
        def count(event: StreamEvent) -> list[StreamEvent]:
            counter.inc()
            return [event]

        yield count

    plugin = Plugin("count", options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)
    async with serving(is_measured=True, pipeline="  stages: [{use: count}]", plugins={"count": plugin}) as service:

        async def counted() -> int:
            await service.post(ask("echo", stream=True))
            lines = (await service.get("/metrics")).text.splitlines()
            (line,) = (line for line in lines if line.startswith("headrace_plugin_count_events_total "))
            return int(line.rpartition(" ")[2])

        first = await counted()
        assert first > 3
        await service.reload(pipeline="  stages: [{use: count}]", plugins={"count": plugin})
        assert await counted() == 2 * first
