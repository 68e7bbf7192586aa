"""A load generator in one process and one epoll loop: many streams at once, each checked to its end.

Run: ``python -m benchmarks.load``, with loads such as ``{"port": 4000, "model": "mock-n20", "connections": 10}`` on
stdin, one on each line; the fields are those of `Load`. It replies to each with one JSON object. httptools (llhttp)
parses the bodies, so a truncated chunk or a missing end is detected.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import time
from array import array
from collections import deque
from typing import Any

import httptools
import msgspec

from benchmarks.behaviour import STAMP
from benchmarks.children import serve_orders
from benchmarks.exchange import Exchange
from benchmarks.plan import NUMBER, Load, request
from benchmarks.processes import busy_ns, cpu_ns, family, percentiles, raise_descriptor_limit, rss_kb
from benchmarks.stamps import ANCILLARY_BYTES, arrived_ns, stamp_arrivals

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
        self.sent = 0
        self.finished = 0
        self.counted = load.connections if load.mode == "once" else load.requests
        """The requests after which the load ends; 0 if it ends after a time."""
        self.total_ns_of: dict[str, int] = {}
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
        for i in range(min(load.connections, self.counted or load.connections)):
            at = start + (i / load.open_per_s if load.open_per_s else 0)
            self.to_open.append((at, Exchange()))
        begin = start if self.counted else None if load.mode == "hold" else start + load.warmup_s
        limit = start + load.limit_s
        end = 0.0
        marks: tuple[float, list[int], int, int, float] | None = None
        while True:
            now = time.monotonic()
            if load.mode == "hold" and begin is None and self.established >= load.connections:
                begin = now + load.warmup_s
            if marks is None and (now >= limit or (begin is not None and now >= begin)):
                if not self.counted:
                    self._clear()
                marks = (now, pids := self._pids(), cpu_ns(pids), busy_ns(), _own_cpu_s())
                end = limit if self.counted else now + load.seconds
            if marks is not None and (now >= end or (self.counted and self.finished >= self.counted)):
                break
            self._step(min(0.02, end - now) if marks is not None else 0.02)
        figures = self._figures(marks, rss_before_kb)
        until = time.monotonic() + load.cooldown_s
        while (left_s := until - time.monotonic()) > 0:
            self._step(min(0.02, left_s))
        for exchange in list(self.exchanges.values()):
            self._close(exchange)
        self.epoll.close()
        return figures

    def _step(self, timeout: float) -> None:
        """Open the connections that are due, and read what has arrived, if only after ``timeout``."""
        now = time.monotonic()
        while self.to_open and self.to_open[0][0] <= now:
            self._open(self.to_open.popleft()[1])
        if self.to_open:
            timeout = min(timeout, max(0.0, self.to_open[0][0] - now))
        for fd, events in self.epoll.poll(timeout, 1024):
            if (exchange := self.exchanges.get(fd)) is not None:
                if events & select.EPOLLOUT:
                    self._connected(exchange)
                else:
                    self._read(exchange)

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
        if self.load.ids:
            stamp_arrivals(opened)

    def _connected(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        if exchange.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fail("connect")
            self._drop(exchange)
            return
        self.epoll.modify(exchange.socket.fileno(), select.EPOLLIN)
        if self._has_sent_all():  # while it connected, the others sent what was left
            self._close(exchange)
        else:
            self._send(exchange)

    def _has_sent_all(self) -> bool:
        return bool(self.load.requests) and self.sent >= self.load.requests

    def _send(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        request = self.request
        if self.load.ids:
            exchange.number = self.sent
            request = request.replace(NUMBER, b"%d" % self.sent)
        self.sent += 1
        if self.load.mode != "once":
            exchange.begin(time.monotonic_ns())
        if self.load.ids:
            exchange.sent_ns = time.time_ns()
        try:
            is_sent = exchange.socket.send(request) == len(request)
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
        if self.counted:
            self.finished += 1
        if self.load.mode != "once":
            self.to_open.append((time.monotonic() + _RETRY_S, exchange))

    def _close(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        self.exchanges.pop(exchange.socket.fileno(), None)
        exchange.socket.close()

    def _read(self, exchange: Exchange) -> None:
        assert exchange.socket is not None
        try:
            if self.load.ids:
                size, ancillary, _, _ = exchange.socket.recvmsg_into([_BUFFER], ANCILLARY_BYTES)
                exchange.last_byte_ns = arrived_ns(ancillary)
            else:
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
            if load.ids:
                self.total_ns_of[f"{load.ids}{exchange.number}"] = exchange.last_byte_ns - exchange.sent_ns
        self.finished += 1
        if load.mode == "once" or self._has_sent_all():
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
            **({"total_ns_of": self.total_ns_of} if self.load.ids else {}),
        }


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the loads that are ordered on stdin, one after the other."""
    raise_descriptor_limit()
    gc.freeze()
    gc.disable()  # within a load: the pauses would count

    def reply(order: dict[str, Any]) -> dict[str, Any]:
        figures = Generator(msgspec.convert(order, Load)).run()
        gc.collect()
        return figures

    serve_orders(reply)


if __name__ == "__main__":
    main()
