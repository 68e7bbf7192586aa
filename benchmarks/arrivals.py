"""Clients that come whether or not the service keeps up: streams and health checks at steady rates.

Run: ``python -m benchmarks.arrivals``, with orders such as ``{"load": {...}, "checks_per_s": 50}`` on stdin, one a
line; the fields are those of `Arrivals`. Each client opens a connection of its own. What has not been answered at the
end counts with the time that it has waited so far, so that a service cannot hide whom it leaves waiting.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import select
import socket
import time
from array import array
from collections import Counter
from typing import Any

import httptools
import msgspec

from benchmarks.behaviour import STAMP
from benchmarks.children import serve_orders
from benchmarks.exchange import Exchange
from benchmarks.plan import Load, request
from benchmarks.processes import cpu_ns, family, percentiles, raise_descriptor_limit

_BUFFER = bytearray(262_144)
_VIEW = memoryview(_BUFFER)
_CHECK = b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n"
SAMPLED = 8
"""The latency of the events of each so many-th stream is measured: the clients share a core with the upstream."""


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """What comes, and how often.

    Attributes:
        load: the streams; ``open_per_s`` is how many come in a second, ``warmup_s`` how long before the measurement,
            and ``seconds`` how long that lasts.
        checks_per_s: how many health checks come in a second.
    """

    load: Load
    checks_per_s: float


class _Visit(Exchange):
    """One client."""

    def __init__(self, number: int, sends: bytes, now_ns: int) -> None:
        super().__init__()
        self.number = number
        self.unsent = sends
        self.is_check = sends is _CHECK
        self.is_counted = False
        """Whether it came within the measurement."""
        self.is_connected = False
        self.begin(now_ns)
        self.parser = httptools.HttpResponseParser(self)


class Clients:
    """One run of `Arrivals`."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._load = arrivals.load
        self._request = request(arrivals.load)
        self._epoll = select.epoll()
        self._open: dict[int, _Visit] = {}
        self._numbers = itertools.count()
        self._is_measuring = False
        now = time.monotonic()
        self._due = [(now, 1 / arrivals.load.open_per_s, self._request), (now, 1 / arrivals.checks_per_s, _CHECK)]
        self.events = self.answered = 0
        self.ends: Counter[str] = Counter()
        self.check_ns, self.refused_ns = array("q"), array("q")
        self.first_ns, self.added_ns = array("q"), array("q")

    def run(self) -> dict[str, Any]:
        """Send them, and return the figures."""
        load = self._load
        self._run_until(time.monotonic() + load.warmup_s)
        pids = [member for pid in load.pids for member in family(pid)]
        self._is_measuring = True
        self.events = 0
        cpu_before, own_before, since = cpu_ns(pids), time.process_time(), time.monotonic()
        self._run_until(since + load.seconds)
        seconds = time.monotonic() - since
        server_cpu, own_cpu = (cpu_ns(pids) - cpu_before) / 1e9 / seconds, (time.process_time() - own_before) / seconds
        running, events, answered = sum(bool(visit.events) for visit in self._open.values()), self.events, self.answered
        now_ns = time.monotonic_ns()
        for visit in list(self._open.values()):
            if visit.is_counted and not visit.status:
                self.ends["unanswered"] += 1
                (self.check_ns if visit.is_check else self.first_ns).append(now_ns - visit.started_ns)
            self._close(visit)
        self._epoll.close()
        return {
            "seconds": round(seconds, 3),
            "events_per_s": round(events / seconds, 1),
            "answered_per_s": round(answered / seconds, 1),
            "running": running,
            "ends": dict(self.ends),
            "check_ms": percentiles(self.check_ns, 1e6),
            "refused_ms": percentiles(self.refused_ns, 1e6),
            "first_ms": percentiles(self.first_ns, 1e6),
            "added_ms": percentiles(self.added_ns, 1e6),
            "server_cpu": round(server_cpu, 3),
            "load_cpu": round(own_cpu, 3),
        }

    def _run_until(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            while self._due[0][0] <= now:
                at, every_s, sends = self._due[0]
                heapq.heapreplace(self._due, (at + every_s, every_s, sends))
                self._come(sends)
            for fd, events in self._epoll.poll(max(0.0, min(self._due[0][0], until) - now), 1024):
                if (visit := self._open.get(fd)) is not None:
                    if visit.is_connected and events & ~select.EPOLLOUT:
                        self._read(visit)
                    else:
                        self._connected(visit)

    def _come(self, sends: bytes) -> None:
        visit = _Visit(next(self._numbers), sends, time.monotonic_ns())
        visit.is_counted = self._is_measuring
        visit.socket = opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.connect_ex(("127.0.0.1", self._load.port))
        self._open[opened.fileno()] = visit
        self._epoll.register(opened.fileno(), select.EPOLLOUT)

    def _connected(self, visit: _Visit) -> None:
        assert visit.socket is not None
        visit.is_connected = True
        try:
            visit.socket.send(visit.unsent)
        except OSError:
            self._end(visit, "not connected")
            return
        self._epoll.modify(visit.socket.fileno(), select.EPOLLIN)

    def _read(self, visit: _Visit) -> None:
        assert visit.socket is not None
        try:
            size = visit.socket.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        now_ns = time.monotonic_ns()
        if not size:
            self._end(visit, "cut")
            return
        had_status = visit.status
        visit.parser.feed_data(_VIEW[:size])
        if visit.status and not had_status and self._is_measuring:
            self.answered += 1
        if visit.pieces:
            body = b"".join(visit.pieces)
            visit.pieces.clear()
            if visit.status == 200 and not visit.is_check:
                self._count(visit, body, now_ns)
        if visit.is_done:
            self._finish(visit, now_ns)

    def _count(self, visit: _Visit, body: bytes, now_ns: int) -> None:
        body = visit.carry + body
        marks = body.count(b"@")
        visit.carry = b""
        if marks & 1:
            at = body.rfind(b"@")
            body, visit.carry = body[:at], body[at:]
        if not (events := marks // 2):
            return
        if not visit.events and visit.is_counted:
            self.first_ns.append(now_ns - visit.started_ns)
        visit.events += events
        self.events += events
        if self._is_measuring and visit.number % SAMPLED == 0:
            self.added_ns.extend([now_ns - int(stamp, 16) for stamp in STAMP.findall(body)])

    def _finish(self, visit: _Visit, now_ns: int) -> None:
        took_ns = now_ns - visit.started_ns
        if visit.is_check:
            if visit.is_counted:
                self.check_ns.append(took_ns)
            self._end(visit, f"check {visit.status}")
        elif visit.status != 200:
            if visit.is_counted:
                self.refused_ns.append(took_ns)
            self._end(visit, f"status {visit.status}")
        else:
            self._end(visit, "whole" if visit.events == self._load.events else "short")

    def _end(self, visit: _Visit, how: str) -> None:
        if visit.is_counted or (visit.events and self._is_measuring):
            self.ends[how] += 1
        self._close(visit)

    def _close(self, visit: _Visit) -> None:
        assert visit.socket is not None
        self._open.pop(visit.socket.fileno(), None)
        visit.socket.close()


def main() -> None:
    """Run the arrivals that are ordered on stdin, one after the other."""
    raise_descriptor_limit()
    gc.freeze()
    gc.disable()

    def reply(order: dict[str, Any]) -> dict[str, Any]:
        figures = Clients(msgspec.convert(order, Arrivals)).run()
        gc.collect()
        return figures

    serve_orders(reply)


if __name__ == "__main__":
    main()
