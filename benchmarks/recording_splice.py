"""A byte splice that writes a record of each request: the yardstick for the records of a gateway.

Run: ``python -m benchmarks.recording_splice --port 4001 --upstream 9100``. For each request it prints one line of JSON
with ``request_id`` and ``total_ms``: from the kernel's time stamp of the request's first byte until the client's socket
has accepted the last byte of the response. It is one loop that does nothing else between these two and the clock, so
that its records can hardly be wrong: what clients measure beyond them is the way through the kernel, and the lateness
of the clients' own process.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import time

import msgspec

from benchmarks.processes import raise_descriptor_limit
from benchmarks.stamps import ANCILLARY_BYTES, arrived_ns, stamp_arrivals

_READ_BYTES = 65536
_ID = re.compile(rb"\r\nx-request-id: *([^\r]*)", re.IGNORECASE)


class Splice:
    """One client, its connection to the upstream, and the record of its current request.

    A request begins with the first bytes after a response: clients wait for a response before they send the next one.
    """

    __slots__ = ("arrived_ns", "client", "request_id", "upstream", "written_ns")

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client = client
        self.upstream = upstream
        self.request_id = ""
        self.arrived_ns = self.written_ns = 0

    def pass_on_request(self) -> bool:
        """Read from the client once, and pass it on; return whether there was anything."""
        chunk, ancillary, _, _ = self.client.recvmsg(_READ_BYTES, ANCILLARY_BYTES)
        if chunk and (self.written_ns or not self.arrived_ns):
            self.write_record()
            self.arrived_ns, self.written_ns = arrived_ns(ancillary), 0
            found = _ID.search(chunk)
            self.request_id = found[1].decode("ascii") if found else ""
        self.upstream.sendall(chunk)
        return bool(chunk)

    def pass_on_response(self) -> bool:
        """Read from the upstream once, and pass it on; return whether there was anything."""
        chunk = self.upstream.recv(_READ_BYTES)
        if chunk:
            self.client.sendall(chunk)
            self.written_ns = time.time_ns()
        return bool(chunk)

    def write_record(self) -> None:
        """Print the record of the last request, if it had a response."""
        if self.request_id and self.written_ns:
            total_ms = (self.written_ns - self.arrived_ns) / 1e6
            record = {"event": "request", "request_id": self.request_id, "total_ms": round(total_ms, 4)}
            os.write(1, msgspec.json.encode(record) + b"\n")
            self.request_id = ""


def serve(port: int, upstream_port: int) -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    stamp_arrivals(listener)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    splices: dict[int, Splice] = {}

    def close(splice: Splice) -> None:
        splice.write_record()
        for side in (splice.client, splice.upstream):
            del splices[side.fileno()]
            side.close()  # which also removes it from the epoll

    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                opened = Splice(listener.accept()[0], socket.create_connection(("127.0.0.1", upstream_port)))
                for side in (opened.client, opened.upstream):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    splices[side.fileno()] = opened
                    epoll.register(side, select.EPOLLIN)
            elif (splice := splices.get(fd)) is not None:
                is_client = fd == splice.client.fileno()
                try:
                    has_more = splice.pass_on_request() if is_client else splice.pass_on_response()
                except OSError:
                    has_more = False
                if not has_more:
                    close(splice)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A proxy that copies bytes, with a record of each request.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    options = parser.parse_args()
    raise_descriptor_limit()
    serve(options.port, options.upstream)


if __name__ == "__main__":
    main()
