"""OTLP: what a collector gets, under our names and under GenAI's, and that a collector's failure disturbs nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from kit.clients.chat_posts import ask
from kit.metrics.collector import Collector, collecting, labels
from kit.service.command import configured, headrace_serve
from kit.service.config_texts import parse
from kit.service.running import KEY
from kit.time.patience import patiently_with_processes

from pipeline import Host
from pipeline.gateway.metrics import otlp
from pipeline.gateway.metrics.otlp import Exporter, litellm_headers, with_path
from pipeline.observe import Observed
from pipeline.segments import SegmentFile
from pipeline.series import Kind, count_duration, count_size
from stages.upstreams import Deployment

AZURE = Deployment(id="eu", model_name="gpt-5", model="gpt-5-eu", provider="azure", kind="responses", url="")
WILD = Deployment(id="wild", model_name="*", model="*", provider="openai", kind="chat", url="")
MS = 1_000_000


def exporter(file: SegmentFile, url: str, deployments: Iterable[Deployment] = (AZURE, WILD)) -> Exporter:
    return Exporter(file, deployments, endpoint=url, interval_s=10)


def measured() -> tuple[SegmentFile, Observed]:
    file = SegmentFile.create(ring_bytes=0)
    return file, Observed(file.claim(1))


def test_every_kind_reaches_a_collector() -> None:
    file, observed = measured()
    observed.begin()
    observed.begin()
    observed.end("OK")
    observed.note_stall("shout", 1500 * MS)
    count_duration(observed.series.cell(Kind.DURATIONS, "headrace_transit_seconds"), 15 * MS)
    host = Host("mirror", series=observed.series)
    host.histogram("size_bytes", "of what was sent", buckets=(1, 10)).observe(5, kind="a")
    with collecting() as collector:
        assert exporter(file, collector.url).export() is None
        path, headers, _ = collector.requests[0]
        assert (path, headers["content-type"]) == ("/v1/metrics", "application/x-protobuf")
        assert collector.resource()["service.name"] == "headrace"
        metrics = collector.metrics()
    requests = metrics["headrace_requests_total"]
    assert (requests.sum.is_monotonic, requests.sum.aggregation_temporality, requests.unit) == (True, 2, "1")
    assert requests.description == "Requests that have ended, by their end code."
    assert [(labels(one.attributes), one.as_int) for one in requests.sum.data_points] == [({"end": "OK"}, 1)]
    assert metrics["headrace_in_flight"].gauge.data_points[0].as_double == 1
    stalls = metrics["headrace_stall_seconds_total"]
    of_stages = {labels(one.attributes)["stage"]: one.as_double for one in stalls.sum.data_points}
    assert (stalls.unit, of_stages) == ("s", {"none": 0.0, "shout": 1.5})
    (transit,) = metrics["headrace_transit_seconds"].histogram.data_points
    assert (transit.count, transit.sum, transit.HasField("min")) == (1, 0.015, False)
    assert transit.bucket_counts[list(transit.explicit_bounds).index(0.02)] == 1
    size = metrics["headrace_plugin_mirror_size_bytes"]
    (point,) = size.histogram.data_points
    assert (size.unit, labels(point.attributes), list(point.bucket_counts)) == ("By", {"kind": "a"}, [0, 1, 0])
    assert list(point.explicit_bounds) == [1, 10]


def test_calls_upstream_have_genais_names_attributes_and_limits() -> None:
    file, observed = measured()

    def cell(kind: Kind, family: str, **own: str) -> None:
        count_duration(observed.series.cell(kind, family, tuple(own.items())), 15 * MS)

    cell(Kind.DURATIONS, "headrace_upstream_seconds", deployment="eu", end="OK")
    cell(Kind.DURATIONS, "headrace_upstream_seconds", deployment="wild", end="UE")
    cell(Kind.DURATIONS, "headrace_upstream_first_token_seconds", deployment="came later")
    cell(Kind.DURATIONS, "headrace_chunk_gap_seconds", side="client")
    cell(Kind.DURATIONS, "headrace_chunk_gap_seconds", side="upstream")
    tokens = observed.series.cell(
        Kind.SIZES, "headrace_request_tokens", (("deployment", "eu"), ("direction", "prompt"))
    )
    count_size(tokens, 300)
    with collecting() as collector:
        assert exporter(file, collector.url).export() is None
        metrics = collector.metrics()
    duration = metrics["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    assert [labels(one.attributes) for one in duration.histogram.data_points] == [
        {
            "gen_ai.operation.name": "chat",
            "headrace.deployment": "eu",
            "gen_ai.provider.name": "azure.ai.openai",
            "gen_ai.request.model": "gpt-5-eu",
        },
        {
            "gen_ai.operation.name": "chat",
            "headrace.deployment": "wild",
            "gen_ai.provider.name": "openai",
            "error.type": "UE",
        },
    ]
    assert list(duration.histogram.data_points[0].explicit_bounds) == [0.01 * 2**power for power in range(14)]
    assert list(duration.histogram.data_points[0].bucket_counts) == [0, 1, *[0] * 13]
    (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"].histogram.data_points
    assert labels(first.attributes) == {"gen_ai.operation.name": "chat", "headrace.deployment": "came later"}
    (gap,) = metrics["gen_ai.client.operation.time_per_output_chunk"].histogram.data_points
    assert labels(gap.attributes) == {"gen_ai.operation.name": "chat"}
    usage = metrics["gen_ai.client.token.usage"]
    (point,) = usage.histogram.data_points
    assert (usage.unit, labels(point.attributes)["gen_ai.token.type"], point.sum) == ("{token}", "input", 300)
    assert list(point.explicit_bounds) == [4**power for power in range(14)]
    assert point.bucket_counts[list(point.explicit_bounds).index(1024)] == 1


def test_headers_come_from_the_usual_variable_or_from_litellms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_HEADERS", "x-a=1,x-b=2%203")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    file, _ = measured()
    with collecting() as collector:
        assert litellm_headers() == {"x-a": "1", "x-b": "2 3"}
        assert exporter(file, collector.url).export() is None
        assert collector.requests[0][1]["x-b"] == "2 3"
        assert collector.resource()["service.name"] == "edge"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x")
        assert litellm_headers() is None
        assert exporter(file, collector.url).export() is None
        assert collector.requests[1][1]["authorization"] == "Bearer x"
        assert "x-a" not in collector.requests[1][1]


def test_an_address_without_a_path_is_that_of_metrics() -> None:
    assert with_path("http://a:4318") == with_path("http://a:4318/") == "http://a:4318/v1/metrics"
    assert with_path("https://a/otlp/v1/metrics?x=1") == "https://a/otlp/v1/metrics?x=1"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "it answered with status 401"), (400, "it answered with status 400")]
)
def test_a_refusal_is_named_by_its_status(status: int, reason: str) -> None:
    file, _ = measured()
    with collecting() as collector:
        collector.status = status
        assert exporter(file, collector.url).export() == reason


def test_a_failure_is_logged_once_a_minute_and_without_the_address_beyond_its_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = exporter(measured()[0], "http://user:secret@127.0.0.1:9/v1/metrics?key=secret")
    for now_s in range(0, 125, 10):
        one.note(None if now_s == 80 else "ConnectionError", now_s)
    assert caplog.messages == ["the metrics could not be sent to 127.0.0.1: ConnectionError"] * 3


def test_a_bug_in_the_exporter_is_a_failure_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = measured()

    def fail(_: SegmentFile) -> None:
        raise ValueError("sk-secret")

    monkeypatch.setattr(otlp, "read_all", fail)
    assert exporter(file, "http://127.0.0.1:9").export() == "ValueError"


@pytest.mark.timeout(300)
async def test_the_supervisor_exports_for_all_workers_and_once_more_at_its_end(tmp_path: Path) -> None:
    text = configured(
        "  - {model_name: echo, litellm_params: {model: canned/echo}}\n", "otlp_interval_s: 0.2, otlp_endpoint: '@'"
    )
    with collecting() as collector:
        async with headrace_serve(tmp_path, text.replace("@", collector.url), workers=2) as running:
            await running.logged(b"by OTLP, every 0.2 s")
            await exported(collector)
            import httpx

            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", trust_env=False) as client:
                for _ in range(5):
                    head = {"authorization": f"Bearer {KEY}"}
                    assert (
                        await client.post("/v1/chat/completions", json=ask("echo", stream=False), headers=head)
                    ).status_code == 200
            running.process.send_signal(signal.SIGTERM)
            assert await running.exit() == 0
        requests = collector.metrics()["headrace_requests_total"].sum.data_points
        assert {labels(one.attributes)["end"]: one.as_int for one in requests if one.as_int} == {"OK": 5}
        (duration,) = collector.metrics()["gen_ai.client.operation.duration"].histogram.data_points
        assert labels(duration.attributes)["gen_ai.provider.name"] == "canned"


async def exported(collector: Collector) -> None:
    with patiently_with_processes():
        await trio.to_thread.run_sync(collector.has_new.wait, abandon_on_cancel=True)


def test_without_the_packages_the_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from kit.service.config_texts import problems

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problems("\npipeline_settings: {otlp_endpoint: 'http://a'}\n") == (
        "config.yaml:2: pipeline_settings.otlp_endpoint: needs packages that are not installed: "
        "pip install 'headrace[otel]'",
    )
    assert parse("").pipeline.otlp_endpoint is None
