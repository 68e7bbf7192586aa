"""``otlp_endpoint``: the supervisor sends the metrics to an OpenTelemetry collector, by OTLP over HTTP.

It needs the extra ``otel``, so it is imported only if the setting asks for it. OpenTelemetry's exporter blocks, and
repeats by itself what failed for a moment; it works in a thread. It also reads OpenTelemetry's own variables:
``OTEL_EXPORTER_OTLP_HEADERS``, ``..._CERTIFICATE``, ``..._COMPRESSION``, ``..._TIMEOUT``, ``OTEL_SERVICE_NAME`` and
``OTEL_RESOURCE_ATTRIBUTES``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import trio
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.re import parse_env_headers

from pipeline.gateway.config.callbacks import SIGNAL_PATH
from pipeline.gateway.metrics.otlp_data import Converter
from pipeline.observe import read_all
from pipeline.segments import SegmentFile
from stages.upstreams import Deployment

LAST_EXPORT_S: Final = 3.0
"""How long the end of the service waits for the last export."""
LOG_EVERY_S: Final = 60.0
LITELLM_HEADERS: Final = "OTEL_HEADERS"
"""LiteLLM's name of ``OTEL_EXPORTER_OTLP_HEADERS``."""
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.metric_exporter"

log = logging.getLogger("headrace")


class Exporter:
    """Exports all figures regularly; a failure is logged at most once in `LOG_EVERY_S`, and changes nothing else.

    Args:
        file: what all processes count in.
        deployments: as configured, for the attributes of calls upstream.
        endpoint: the URL; without a path, that of metrics is added.
        interval_s: how often to export.
    """

    def __init__(
        self, file: SegmentFile, deployments: Iterable[Deployment], *, endpoint: str, interval_s: float
    ) -> None:
        self._file = file
        self._interval_s = interval_s
        self._host = urlsplit(endpoint).hostname
        self._converter = Converter(deployments, time.time_ns())
        self._resource = Resource({"service.name": "headrace", "service.version": version("headrace")}).merge(
            OTELResourceDetector().detect()
        )
        self._scope = InstrumentationScope("headrace", version("headrace"))
        self._failure = _Failure()
        exporter_log = logging.getLogger(_EXPORTER)
        exporter_log.addHandler(self._failure)
        exporter_log.propagate = False  # its lines may show the URL, which may hold a secret
        # Any: its methods take keywords that have no types
        self._exporter: Any = OTLPMetricExporter(with_path(endpoint), headers=litellm_headers())
        self._log_again_at = -LOG_EVERY_S

    async def run(self) -> None:
        """Export until cancelled, and then for the last time."""
        log.info("metrics to %s by OTLP, every %g s", self._host, self._interval_s)
        try:
            while True:
                await trio.sleep(self._interval_s)
                await self._export()
        finally:
            with trio.move_on_after(LAST_EXPORT_S, shield=True):
                await self._export()
            self._exporter.shutdown()  # else the process waits until a thread has repeated what fails

    async def _export(self) -> None:
        self.note(await trio.to_thread.run_sync(self.export, abandon_on_cancel=True), trio.current_time())

    def note(self, reason: str | None, now_s: float) -> None:
        """Log why an export has failed, unless the last such line is less than `LOG_EVERY_S` old."""
        if reason is not None and now_s >= self._log_again_at:
            self._log_again_at = now_s + LOG_EVERY_S
            log.warning("the metrics could not be sent to %s: %s", self._host, reason)

    def export(self) -> str | None:
        """Export all figures as they are; return why that failed, or None. It blocks, up to the exporter's timeout."""
        try:
            now_ns = time.time_ns()
            metrics = self._converter.metrics(read_all(self._file), now_ns)
            scopes = [ScopeMetrics(self._scope, metrics, schema_url="")]
            self._failure.reason = "the exporter does not say why"
            result = self._exporter.export(MetricsData([ResourceMetrics(self._resource, scopes, schema_url="")]))
        except Exception as error:  # of the exporter, or a bug: the service must go on
            return type(error).__name__
        return None if result is MetricExportResult.SUCCESS else self._failure.reason


class _Failure(logging.Handler):
    """Keeps what the exporter last said of a failure: a status, or the kind of an error, but none of its text."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line of the exporter's log."""
        for found in record.args if isinstance(record.args, tuple) else ():
            if isinstance(found, int):
                self.reason = f"it answered with status {found}"
                return
            if isinstance(found, Exception):
                self.reason = type(found).__name__
                return


def with_path(endpoint: str) -> str:
    """Return the URL to post to."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(path=SIGNAL_PATH)) if parts.path in ("", "/") else endpoint


def litellm_headers() -> dict[str, str] | None:
    """Return the headers that only LiteLLM's own variable has."""
    text = os.environ.get(LITELLM_HEADERS, "")
    if not text or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS"):
        return None
    return dict(parse_env_headers(text, liberal=True))
