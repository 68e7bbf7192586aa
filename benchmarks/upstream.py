"""A mock upstream that must never be the bottleneck: precomputed bytes, and one epoll loop over raw sockets.

Run: ``python -m benchmarks.upstream --port 9100``. It answers ``POST .../responses`` and ``POST .../chat/completions``
as the model's name specifies (`behaviour`), ``GET /counts`` with its counters, ``GET /stats`` also with how late it was
(``GET /reset`` sets both to zero), ``GET /closed`` with the time at which the peer closed each running stream whose
request names a `MARK`, and with the marks of those that run, and any other GET with a list of models.

A time stamp is the time at which the event was written to the socket; if backpressure delayed the stream, it is the
time at which the event was due, so that a gateway that does not read cannot hide the delay.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import random
import re
import select
import socket
import struct
import time
from array import array

import msgspec

from benchmarks.behaviour import Script, script
from benchmarks.processes import percentiles, raise_descriptor_limit
from benchmarks.timer import Timer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_MODEL = re.compile(rb"mock-[a-z0-9-]*")  # in the model's name, or in the message if only that reaches the upstream
MARK = re.compile(rb"mark-[0-9]+")
"""In the message: the name of a request."""
_STREAM = re.compile(rb'"stream": ?true')
_READ_BYTES = 65536
_RESET = struct.pack("ii", 1, 0)
SLACK_US = 50
"""Events that are due within this time are sent together: less than the jitter of a scheduler."""


class Connection:
    """One client: what it has sent, and what is still to be sent to it."""

    __slots__ = ("due_ns", "incoming", "is_late", "mark", "outgoing", "script", "sent", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.incoming = b""
        self.outgoing = memoryview(b"")  # what did not fit into the socket's buffer
        self.script: Script | None = None  # the current stream
        self.mark = ""  # of its request
        self.sent = 0
        self.due_ns = 0
        self.is_late = False  # whether backpressure has delayed it


class Upstream:
    """The server: call `run`. Events that are due within ``slack_us`` are sent together."""

    def __init__(self, host: str, port: int, slack_us: int = SLACK_US) -> None:
        self._slack_ns = slack_us * 1000
        self._listener = socket.create_server((host, port), backlog=4096, reuse_port=False)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._timer = Timer(self._epoll)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Connection]] = []
        self._count = 0
        self._reset()

    def _reset(self) -> None:
        self.requests = self.finished = self.aborted = self.accepted = 0
        self._lag_ns = array("q")
        self._closed_ns: dict[str, int] = {}

    def run(self) -> None:
        """Serve until killed."""
        listener, timer = self._listener.fileno(), self._timer.fd
        due = self._due
        while True:
            timeout = -1.0
            now = time.monotonic_ns()
            if due:
                timeout = 0 if due[0][0] <= now + self._slack_ns else self._timer.timeout_s(due[0][0], now)
            for fd, events in self._epoll.poll(timeout, 1024):
                if fd == listener:
                    self._accept()
                elif fd != timer and (connection := self._connections.get(fd)) is not None:
                    if events & ~select.EPOLLOUT:
                        self._read(connection)
                    elif events & select.EPOLLOUT:
                        self._drain(connection)
            until = time.monotonic_ns() + self._slack_ns
            budget = 256  # then check the sockets again
            while due and budget and due[0][0] <= until:
                _, _, connection = heapq.heappop(due)
                if connection.script is not None:
                    self._advance(connection)
                budget -= 1

    def _accept(self) -> None:
        for _ in range(256):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[accepted.fileno()] = Connection(accepted)
            self._epoll.register(accepted.fileno(), select.EPOLLIN)
            self.accepted += 1

    def _close(self, connection: Connection) -> None:
        if connection.script is not None:
            self.aborted += 1
            connection.script = None
        self._connections.pop(connection.socket.fileno(), None)
        connection.socket.close()  # which also removes it from the epoll

    def _lost(self, connection: Connection) -> None:
        """Take the end of a connection that the peer has closed."""
        if connection.script is not None and connection.mark:
            self._closed_ns[connection.mark] = time.monotonic_ns()
        self._close(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(connection)
            return
        connection.incoming += data
        if connection.script is None:
            self._serve_next(connection)

    def _serve_next(self, connection: Connection) -> None:
        """Answer the next request if it has arrived completely."""
        incoming = connection.incoming
        head = incoming.find(b"\r\n\r\n") + 4
        if head < 4:
            return
        if (length := _LENGTH.search(incoming, 0, head)) is not None:
            end = head + int(length[1])
        elif _CHUNKED.search(incoming, 0, head):
            end = incoming.find(b"0\r\n\r\n", head) + 5
            if end < 5:
                return
        else:
            end = head
        if len(incoming) < end:
            return
        connection.incoming = incoming[end:]
        if incoming.startswith(b"GET "):
            self._answer_get(connection, incoming[4 : incoming.index(b" ", 4)])
            return
        self.requests += 1
        model = _MODEL.search(incoming, head, end)
        name = model[0].decode() if model else "mock-"
        is_chat = incoming.find(b"/chat/completions", 0, head) > 0
        is_stream = _STREAM.search(incoming, head, end) is not None
        answer = script(name, chat=is_chat, stream=is_stream)
        if answer.whole is not None:
            self.finished += 1
            self._write(connection, answer.whole)
            return
        connection.script = answer
        connection.mark = mark[0].decode() if (mark := MARK.search(incoming, head, end)) else ""
        connection.sent = 0
        connection.is_late = False
        connection.due_ns = time.monotonic_ns() + answer.silence_ns
        if answer.has_random_phase and answer.gap_ns:
            connection.due_ns += random.randrange(answer.gap_ns)
        if self._write(connection, answer.opening):
            self._schedule(connection)

    def _answer_get(self, connection: Connection, path: bytes) -> None:
        if path == b"/reset":
            self._reset()
        value: object = {"object": "list", "data": [{"id": "mock-n20", "object": "model", "owned_by": "mock"}]}
        if path == b"/closed":
            running = [other.mark for other in self._connections.values() if other.script is not None]
            value = {"closed_ns": self._closed_ns, "running": running}
        elif path in (b"/counts", b"/stats", b"/reset"):
            counts: dict[str, object] = {
                "active": sum(other.script is not None for other in self._connections.values()),
                "requests": self.requests,
                "finished": self.finished,
                "aborted": self.aborted,
                "accepted": self.accepted,
                "connections": len(self._connections) - 1,  # without this one
            }
            if path != b"/counts":  # to sort millions of them holds all streams for seconds
                counts["lag_ms"] = percentiles(self._lag_ns, 1e6)
            value = counts
        body = msgspec.json.encode(value)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._write(connection, head + body)

    def _schedule(self, connection: Connection) -> None:
        self._count += 1
        heapq.heappush(self._due, (connection.due_ns, self._count, connection))

    def _advance(self, connection: Connection) -> None:
        """Send the burst that is due, and schedule the next."""
        answer = connection.script
        assert answer is not None
        start = connection.sent
        if answer.fault and start >= answer.abort_after:
            self._break(connection, answer)
            return
        end = min(start + answer.burst, len(answer.deltas))
        now = time.monotonic_ns()
        stamp = now
        if connection.is_late:
            stamp = min(now, connection.due_ns)
            connection.is_late = now - connection.due_ns > answer.gap_ns  # it is no longer delayed
        elif answer.gap_ns:
            self._lag_ns.append(now - connection.due_ns)
        if end - start == 1 and answer.is_stamped:
            burst = answer.deltas[start] % stamp
        elif answer.is_stamped:
            burst = b"".join([delta % stamp for delta in answer.deltas[start:end]])
        else:
            burst = b"".join(answer.deltas[start:end])
        connection.sent = end
        connection.due_ns += answer.gap_ns
        is_last = end == len(answer.deltas)
        if is_last:
            burst += answer.ending
            connection.script = None
            self.finished += 1
        if self._write(connection, burst) and not is_last:
            self._schedule(connection)

    def _break(self, connection: Connection, answer: Script) -> None:
        """Abort a stream."""
        if answer.fault == "silence":  # until the peer closes
            return
        if "reset" in answer.fault:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif answer.parting and not self._write(connection, answer.parting):
            return
        if answer.fault in ("error event", "early end"):  # it is a complete response
            connection.script = None
            self.aborted += 1
        else:
            self._close(connection)

    def _write(self, connection: Connection, data: bytes) -> bool:
        """Send, and return whether everything was sent; the rest and the stream continue when the socket has room."""
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return False
        if sent == len(data):
            if connection.script is None and connection.incoming:
                self._serve_next(connection)
            return True
        connection.outgoing = memoryview(data)[sent:]
        self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return False

    def _drain(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.outgoing)
        except BlockingIOError:
            return
        except OSError:
            self._lost(connection)
            return
        connection.outgoing = connection.outgoing[sent:]
        if connection.outgoing:
            return
        self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
        if connection.script is not None:
            connection.is_late = connection.script.gap_ns > 0
            self._schedule(connection)
        elif connection.incoming:
            self._serve_next(connection)


def main() -> None:
    """Serve until killed; print the port first, for callers that passed port 0."""
    parser = argparse.ArgumentParser(description="A mock upstream; the model's name specifies what it does.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="0: any free port (%(default)s)")
    parser.add_argument("--slack-us", type=int, default=SLACK_US, help="what is due within it is sent together")
    options = parser.parse_args()
    raise_descriptor_limit()
    upstream = Upstream(options.host, options.port, options.slack_us)
    print(f"listening on {upstream.port}", flush=True)
    gc.freeze()
    gc.disable()  # nothing here creates cycles
    upstream.run()


if __name__ == "__main__":
    main()
