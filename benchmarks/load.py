"""A load generator in one process and one epoll loop: many streams at once, each checked to its end.

Run: ``python -m benchmarks.load '{"port": 4000, "model": "mock-n20", "connections": 10, "seconds": 5}'``; the fields
are those of `Load`. It prints one JSON object. httptools (llhttp) parses the bodies, so a truncated chunk or a missing
end is detected.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import sys
import time
from array import array
from collections import deque
from typing import Any

import httptools
import msgspec

from benchmarks.behaviour import STAMP
from benchmarks.exchange import Exchange
from benchmarks.plan import Load, request
from benchmarks.processes import busy_ns, cpu_ns, family, percentiles, raise_descriptor_limit, rss_kb

_BUFFER = bytearray(262_144)
_VIEW = memoryview(_BUFFER)
_RETRY_S = 0.1


class Generator:
    """One run of a `Load`."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.request = request(load)
        # Our upstream's last event ends like this; its name is too far from the end to search for it there.
        self.end_marker = b"[DONE]" if load.dialect == "chat" else b'"metadata":{}}}\n\n'
        self.is_stamped = load.stream and "-d" in (load.hint or load.model)
        self.epoll = select.epoll()
        self.exchanges: dict[int, Exchange] = {}
        self.to_open: deque[tuple[float, Exchange]] = deque()
        self.established = 0  # requests that are sent, or whose answer's head has arrived
        self.finished = 0
        self.is_over = False
        self.errors: dict[str, int] = {}
        self.first_ns = array("q")  # from the start: this mode measures the opening of many streams at once
        self._clear()

    def _clear(self) -> None:
        """Start measuring: nothing before this counts."""
        self.events = self.complete = self.frames = self.bytes = self.reads = 0
        self.added_ns, self.total_ns = array("q"), array("q")

    def fail(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def run(self) -> dict[str, Any]:
        """Run the load, measure, and return the figures."""
        load = self.load
        rss_before_kb = rss_kb(self._pids())
        start = time.monotonic()
        for i in range(load.connections):
            at = start + (i / load.open_per_s if load.open_per_s else 0)
            self.to_open.append((at, Exchange()))
        begin = {"once": start, "repeat": start + load.warmup_s, "hold": None}[load.mode]
        limit = start + load.limit_s
        end = 0.0
        marks: tuple[float, list[int], int, int, float] | None = None
        while True:
            now = time.monotonic()
            if load.mode == "hold" and begin is None and self.established >= load.connections:
                begin = now + load.warmup_s
            if marks is None and (now >= limit or (begin is not None and now >= begin)):
                if load.mode != "once":
                    self._clear()
                marks = (now, pids := self._pids(), cpu_ns(pids), busy_ns(), _own_cpu_s())
                end = limit if load.mode == "once" else now + load.seconds
            if marks is not None and (now >= end or (load.mode == "once" and self.finished >= load.connections)):
                break
            while self.to_open and self.to_open[0][0] <= now:
                self._open(self.to_open.popleft()[1])
            timeout = 0.02 if marks is None or load.mode == "once" else min(0.02, end - now)
            if self.to_open:
                timeout = min(timeout, max(0.0, self.to_open[0][0] - now))
            for fd, events in self.epoll.poll(timeout, 1024):
                if (exchange := self.exchanges.get(fd)) is not None:
                    if events & select.EPOLLOUT:
                        self._connected(exchange)
                    else:
                        self._read(exchange)
        self.is_over = True
        return self._figures(marks, rss_before_kb)

    def _pids(self) -> list[int]:
        return [member for pid in self.load.pids for member in family(pid)]

    def _open(self, exchange: Exchange) -> None:
        exchange.socket = opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange.parser = httptools.HttpResponseParser(exchange)
        exchange.requests = 0
        opened.connect_ex(("127.0.0.1", self.load.port))
        self.exchanges[opened.fileno()] = exchange
        self.epoll.register(opened.fileno(), select.EPOLLOUT)
        if self.load.mode == "once":
            exchange.begin(time.monotonic_ns())  # the time to connect is part of the time to the first chunk

    def _connected(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        if exchange.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fail("connect")
            self._drop(exchange)
            return
        self.epoll.modify(exchange.socket.fileno(), select.EPOLLIN)
        self._send(exchange)

    def _send(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        if self.load.mode != "once":
            exchange.begin(time.monotonic_ns())
        try:
            is_sent = exchange.socket.send(self.request) == len(self.request)
        except OSError:
            is_sent = False
        if is_sent:
            self.established += not self.load.awaits_head
        else:
            self.fail("send")
            self._drop(exchange)

    def _drop(self, exchange: Exchange) -> None:
        """Close a failed connection, and retry a little later."""
        self._close(exchange)
        if self.load.mode == "once":
            self.finished += 1
        else:
            self.to_open.append((time.monotonic() + _RETRY_S, exchange))

    def _close(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        self.exchanges.pop(exchange.socket.fileno(), None)
        exchange.socket.close()

    def _read(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        try:
            size = exchange.socket.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        now = time.monotonic_ns()
        if not size:
            if exchange.requests > 1 and not exchange.status:
                # Not an error: the service closed an idle connection while our request was on its way.
                self._drop(exchange)
            else:
                self.fail("cut")
                self._drop(exchange)
            return
        had_status = exchange.status
        try:
            exchange.parser.feed_data(_VIEW[:size])
        except httptools.HttpParserError:
            self.fail("not HTTP")
            self._drop(exchange)
            return
        if self.load.awaits_head and not had_status and exchange.status:
            self.established += 1
        self.bytes += size
        self.reads += 1
        if exchange.pieces:
            body = b"".join(exchange.pieces)
            exchange.pieces.clear()
            if self.load.stream:
                self._count(exchange, body, now)
        if exchange.is_done:
            self._finish(exchange, now)

    def _count(self, exchange: Exchange, body: bytes, now: int) -> None:
        """Count the deltas of one read, each marked ``@stamp@``; an incomplete one is kept for the next read."""
        self.frames += body.count(b"data: {")
        exchange.previous = exchange.last
        exchange.last = body
        if exchange.carry:
            body = exchange.carry + body
        marks = body.count(b"@")
        if marks & 1:
            at = body.rfind(b"@")
            exchange.carry = body[at:]
            body = body[:at]
        else:
            exchange.carry = b""
        if not (events := marks >> 1):
            return
        if not exchange.events:
            self.first_ns.append(now - exchange.started_ns)
        exchange.events += events
        self.events += events
        if self.is_stamped:
            self.added_ns.extend([now - int(stamp, 16) for stamp in STAMP.findall(body)])

    def _finish(self, exchange: Exchange, now: int) -> None:
        load = self.load
        if exchange.status != 200:
            self.fail(f"status {exchange.status}")
        elif load.stream and self.end_marker not in exchange.previous[-64:] + exchange.last[-64:]:
            self.fail("no end")
        elif load.stream and load.events and exchange.events != load.events:
            self.fail("short")
        else:
            self.complete += 1
            self.total_ns.append(now - exchange.started_ns)
        if load.mode == "once":
            self.finished += 1
            self._close(exchange)
        elif not exchange.keeps_alive:
            self._close(exchange)
            self._open(exchange)
        else:
            self._send(exchange)

    def _figures(self, marks: tuple[float, list[int], int, int, float], rss_before_kb: int) -> dict[str, Any]:
        since, pids, cpu_before, busy_before, own_before = marks
        seconds = time.monotonic() - since
        used_s = (cpu_ns(pids) - cpu_before) / 1e9
        own_s = _own_cpu_s() - own_before
        established = (e for e in self.exchanges.values() if e.requests and (e.status or not self.load.awaits_head))
        active = sum(not exchange.is_done for exchange in established)
        return {
            "seconds": round(seconds, 3),
            "events": self.events,
            "events_per_s": round(self.events / seconds, 1),
            "complete": self.complete,
            "requests_per_s": round(self.complete / seconds, 1),
            "errors": self.errors,
            "error_count": sum(self.errors.values()),
            "frames": self.frames,
            "events_per_read": round(self.events / self.reads, 3) if self.reads else 0,
            "bytes": self.bytes,
            "active": active,
            "added_ms": percentiles(self.added_ns, 1e6),
            "first_ms": percentiles(self.first_ns, 1e6),
            "total_ms": percentiles(self.total_ns, 1e6),
            "server_cpu": round(used_s / seconds, 4),
            "cpu_us_per_event": round(used_s * 1e6 / self.events, 3) if self.events else 0,
            "cpu_us_per_request": round(used_s * 1e6 / self.complete, 2) if self.complete else 0,
            "rss_before_kb": rss_before_kb,
            "rss_kb": rss_kb(self._pids()),
            "load_cpu": round(own_s / seconds, 4),
            "machine_cpu": round((busy_ns() - busy_before) / 1e9 / seconds, 4),
        }


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the load that the first argument describes, and print the result."""
    load = msgspec.json.decode(sys.argv[1], type=Load)
    raise_descriptor_limit()
    gc.freeze()
    gc.disable()  # a run is short, and nothing here creates cycles
    print(msgspec.json.encode(Generator(load).run()).decode())


if __name__ == "__main__":
    main()
