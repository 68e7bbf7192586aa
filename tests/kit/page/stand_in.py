"""A server that has the page at ``/latency`` and made-up figures: for what a real service does not do on demand.

To look at the page: ``PYTHONPATH=.:tests python -m kit.page.stand_in --streams 2000`` prints its address.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kit.page.figures import Figures, Json
from kit.service.running import KEY

FOLDER = Path(__file__).parents[3] / "pipeline" / "gateway" / "admin" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
Reply = tuple[int, str, bytes]


class StandIn:
    """The server.

    Attributes:
        figures: what it serves.
        change: is applied to each ``/latency/now`` before it is sent.
        failing: if set, the status with which all data is refused.
        no_trace: if set, the sentence with which traces are refused.
        reads: how often ``/latency/now`` was read.
        url: the page's address.
    """

    def __init__(self, figures: Figures, port: int = 0) -> None:
        self.begin(figures)
        self._lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, content_type, body = stand_in.reply(self.path, self.headers.get("authorization", ""))
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.send_header("content-security-policy", POLICY)
                self.send_header("cache-control", "max-age=3600" if "/static/" in self.path else "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/latency"

    def begin(self, figures: Figures | None = None) -> None:
        """Begin anew, as a service that has just been started."""
        self.figures = Figures() if figures is None else figures
        self.change: Callable[[Json], Json] = lambda document: document
        self.failing = 0
        self.no_trace = ""
        self.reads = 0

    def reply(self, target: str, authorization: str) -> Reply:
        """Return status, type and body for one request."""
        parts = urlsplit(target)
        path = parts.path.removeprefix("/latency").strip("/")
        if not path or path.startswith("static/"):
            return page_file(path.removeprefix("static/") or "index.html")
        if authorization != f"Bearer {KEY}":
            return failure(401, "this API key is unknown")
        if self.failing:
            return failure(self.failing, "the stand-in fails")
        with self._lock:
            return self._data(path, parse_qs(parts.query))

    def _data(self, path: str, query: dict[str, list[str]]) -> Reply:
        what, _, rest = path.partition("/")
        if path == "now":
            self.reads += 1
            return document(self.change(self.figures.tick()))
        if path == "requests":
            limit = int(query.get("limit", ["100"])[0])
            return document(self.figures.requests(query["kind"][0])[:limit])
        request_id, _, more = rest.partition("/")
        record = self.figures.records.get(unquote(request_id))
        if what != "requests" or record is None:
            return failure(404, "the flight recorder has no finished request with this id")
        if more and self.no_trace:
            return failure(409, self.no_trace)
        if more:
            return 200, "application/octet-stream", b"a trace"
        return document(record)


def page_file(name: str) -> Reply:
    """Return a file of the page."""
    path = FOLDER / name
    if path.parent != FOLDER or not path.is_file():
        return failure(404, "there is no such file")
    return 200, TYPES.get(path.suffix, "text/plain"), path.read_bytes()


def document(value: Any) -> Reply:
    """Return a value as JSON."""
    return 200, "application/json", json.dumps(value, separators=(",", ":")).encode()


def failure(status: int, message: str) -> Reply:
    """Return an error document."""
    return status, "application/json", json.dumps({"error": {"message": message}}).encode()


@contextmanager
def standing_in(streams: int = 40) -> Iterator[StandIn]:
    """Run the server in a thread."""
    stand_in = StandIn(Figures(streams))
    thread = threading.Thread(target=stand_in.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.server.shutdown()
        thread.join()
        stand_in.server.server_close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--streams", type=int, default=40)
    options = parser.parse_args()
    stand_in = StandIn(Figures(options.streams), options.port)
    print(f"{stand_in.url}#key={KEY}", flush=True)  # noqa: T201 - a command
    stand_in.server.serve_forever()


if __name__ == "__main__":
    main()
