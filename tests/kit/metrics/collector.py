"""An OpenTelemetry collector for tests: an HTTP server in a thread that decodes what is exported to it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class Collector:
    """What has been exported.

    Attributes:
        url: its address.
        status: what it answers.
        requests: the path, the headers and the content of each export.
        has_new: set by each.
    """

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.requests: list[tuple[str, dict[str, str], ExportMetricsServiceRequest]] = []
        self.has_new = threading.Event()

    def metrics(self, at: int = -1) -> dict[str, Any]:
        """Return the metrics of one export, by name."""
        (resource,) = self.requests[at][2].resource_metrics
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}

    def resource(self) -> dict[str, str]:
        """Return whose metrics they are."""
        return labels(self.requests[-1][2].resource_metrics[0].resource.attributes)


def labels(attributes: Any) -> dict[str, str]:
    """Return attributes as a dictionary."""
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: pair.value.string_value for pair in pairs}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run one."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            collector.requests.append((self.path, headers, ExportMetricsServiceRequest.FromString(body)))
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()
            collector.has_new.set()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=[0.02])
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
