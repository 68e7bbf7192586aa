"""The clients of a soak: many connections in one epoll loop, which carry out plans and check their outcome."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import struct
import time
from array import array
from collections import Counter
from collections.abc import Callable

import httptools

from benchmarks.behaviour import STAMP
from benchmarks.soak_plans import Plan, Plans, fault_in, mark_of

_EVENT = b'"delta":{"content":"@'
_RESET = struct.pack("ii", 1, 0)
REUSED = 0.7
"""The share of connections that carry another request, where the server allows it."""
SAMPLED = 8
"""The events of each so many-th request are timed: the clients share the cores with the service."""
PAUSE_S = 0.001
"""Before each look at the sockets, for the same reason; so each time that is measured is too long by up to this."""
SMALL_BUFFER_BYTES = 16_384
"""Of a socket whose client does not read: then the server's own buffers fill."""


class Client:
    """One connection and its current plan, as httptools calls it back."""

    def __init__(self, plan: Plan, number: int, opened: socket.socket) -> None:
        self.socket = opened
        self.unsent = memoryview(b"")
        self.requests = 0
        self.begin(plan, number)

    def begin(self, plan: Plan, number: int) -> None:
        """Prepare for the answer to a plan; ``number`` is that of the request."""
        self.plan = plan
        self.is_timed = number % SAMPLED == 0
        self.is_followed = self.is_timed or plan.leaves_after >= 0 or plan.expects == "gone"
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append
        self.parser = httptools.HttpResponseParser(self)  # it looks for its callbacks now
        self.seen = 0  # of the pieces
        self.events = self.status = 0
        self.is_done = self.keeps_alive = False
        self.requests += 1

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        self.is_done = True
        self.keeps_alive = self.parser.should_keep_alive()


class Clients:
    """All of them.

    Attributes:
        outcomes: how often each kind of plan ended as planned.
        faults: what was not as planned, and how often.
        connection_errors: connections that were refused, and those that broke without a plan.
        added_ns: from the upstream's write of an event to its arrival here, while `measures`; see `SAMPLED`.
        left_ns: when a client closed its connection, by the mark of its request.
    """

    def __init__(self, port: int, plans: Plans) -> None:
        self._port = port
        self._plans = plans
        self._epoll = select.epoll()
        self.open: dict[int, Client] = {}
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers, self._requests = itertools.count(), itertools.count()
        self._buffer = bytearray(262_144)
        self._rng = plans.rng
        self.draws = True
        self.measures = False
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.connection_errors: Counter[str] = Counter()
        self.added_ns = array("q")
        self.left_ns: dict[str, int] = {}
        self.bytes = self.events = 0

    def start(self, count: int, per_s: float) -> None:
        """Open connections, so many in a second."""
        now = time.monotonic()
        for number in range(count):
            self.at(now + number / per_s, self._open)

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Do something later."""
        heapq.heappush(self._due, (when, next(self._numbers), act))

    def run(self, until: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Carry out plans until a time, or until something is over."""
        while (now := time.monotonic()) < until and not is_over():
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            time.sleep(PAUSE_S)
            next_due = self._due[0][0] - now if self._due else 1.0
            for fd, events in self._epoll.poll(max(0.0, min(next_due, until - now, 0.1)), 1024):
                if (client := self.open.get(fd)) is not None:
                    if events & select.EPOLLOUT:
                        self._write(client)
                    if events & ~select.EPOLLOUT and client.socket.fileno() >= 0:
                        self._read(client)

    def vanish(self, count: int) -> dict[str, int]:
        """Close so many connections whose stream is running at once; return the times by the marks."""
        marks: dict[str, int] = {}
        running = [client for client in self.open.values() if client.pieces and client.plan.expects == "complete"]
        for client in running[:count]:
            marks[mark_of(client.plan)] = time.monotonic_ns()
            self._close(client, by_reset=self._rng.random() < 0.5)
        return marks

    def close(self) -> None:
        """Close what is left."""
        for client in list(self.open.values()):
            self._close(client)
        self._epoll.close()

    def _open(self) -> None:
        if not self.draws:
            return
        plan = self._plans.draw()
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if plan.rests_s:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        opened.connect_ex(("127.0.0.1", self._port))
        client = Client(plan, next(self._requests), opened)
        client.unsent = memoryview(plan.request)
        self.open[opened.fileno()] = client
        self._epoll.register(opened.fileno(), select.EPOLLOUT)

    def _write(self, client: Client) -> None:
        if error := client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._broken(client, f"errno {error} while it sent")
            return
        try:
            client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            if client.plan.expects != "refused":  # which may come before all of the request is sent
                self._broken(client, f"{type(error).__name__} while it sent")
                return
            client.unsent = client.unsent[:0]
        if not client.unsent:
            self._epoll.modify(client.socket.fileno(), select.EPOLLIN)

    def _read(self, client: Client) -> None:
        plan = client.plan
        try:
            size = client.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = -1
        if size <= 0:
            self._ended(client, "reset" if size else "closed")
            return
        now = time.monotonic_ns()
        self.bytes += size
        try:
            client.parser.feed_data(memoryview(self._buffer)[:size])
        except httptools.HttpParserError:
            self._fault(client, "it is not HTTP")
            return
        if client.is_followed:
            fresh = b"".join(client.pieces[client.seen :])
            client.seen = len(client.pieces)
            count = fresh.count(_EVENT)
            client.events += count
            if self.measures and count and client.is_timed:
                self.added_ns.extend([now - int(stamp, 16) for stamp in STAMP.findall(fresh) if stamp != b"0" * 16])
        if plan.leaves_after >= 0 and client.events >= plan.leaves_after and client.status and not client.is_done:
            self.left_ns[mark_of(plan)] = time.monotonic_ns()
            self.outcomes[plan.kind] += 1
            self._close(client, by_reset=plan.by_reset)
            self._again()
        elif client.is_done:
            self._finish(client)
        elif plan.rests_s and client.status and client.requests > 0:
            self._rest(client)

    def _rest(self, client: Client) -> None:
        """Leave the socket unread for a while, once."""
        client.requests = -client.requests
        fd = client.socket.fileno()
        self._epoll.modify(fd, 0)  # an error or a reset still wakes us

        def wake() -> None:
            if self.open.get(fd) is client:
                self._epoll.modify(fd, select.EPOLLIN)

        self.at(time.monotonic() + client.plan.rests_s, wake)

    def _ended(self, client: Client, how: str) -> None:
        """Take the end of a connection."""
        plan = client.plan
        if plan.expects == "reset" and client.status:
            self.outcomes[plan.kind] += 1
            self._close(client)
            self._again()
        else:
            self._broken(client, f"it was {how} after {'the head' if client.status else 'the request'}")

    def _finish(self, client: Client) -> None:
        plan = client.plan
        body = b"".join(client.pieces)
        self.events += body.count(_EVENT)
        fault = fault_in(plan, client.status, body)
        if plan.expects in ("gone", "reset"):
            fault = "" if plan.expects == "gone" and client.events >= plan.events - 1 else "it ended too early"
        if fault:
            self._fault(client, fault)
            return
        self.outcomes[plan.kind] += 1
        if client.keeps_alive and self.draws and self._rng.random() < REUSED and not plan.rests_s:
            again = self._plans.draw()
            if not again.rests_s:
                client.begin(again, next(self._requests))
                client.unsent = memoryview(again.request)
                self._epoll.modify(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
        self._close(client)
        self._again()

    def _broken(self, client: Client, how: str) -> None:
        self.connection_errors[f"{client.plan.kind}: {how}"] += 1
        self._close(client)
        self._again()

    def _fault(self, client: Client, what: str) -> None:
        self.faults[f"{client.plan.kind}: {what}"] += 1
        self._close(client)
        self._again()

    def _close(self, client: Client, *, by_reset: bool = False) -> None:
        self.open.pop(client.socket.fileno(), None)
        if by_reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.socket.close()

    def _again(self) -> None:
        """Open another connection in the place of one that is over."""
        if self.draws:
            self.at(time.monotonic() + self._rng.random() * 0.05, self._open)
